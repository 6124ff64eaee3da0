//! Signed words: balanced 32-bit digits, two products to a 64-bit sum.
//!
//! Carries are what GLSL is bad at, and what shorter digits avoid at the price of more products, shifts and masks. Here digits are words, but
//! with signs: a product of two is at most 2^62 in magnitude, so that two of them, or more by constants that are short, fit one 64-bit sum,
//! and less than half as many sums have to be put together as there are products. The low half of a sum belongs to its column and the high half to the next, which is a choice of
//! registers; as many halves as there are are added up in columns of 64 bits, three terms to two instructions.
//!
//! # Signs
//! Sums start with a constant (see [`start`]) that makes them numbers without a sign: then their halves have none either. What that adds up
//! to is known for every column, and one constant takes it off. The same constant adds 2^31 to each digit of the quotient and of
//! the result, so that cutting off rounds: the digit is the low word with its highest bit flipped, and the carry is the high word.
//!
//! # Reduction
//! By Montgomery, a digit at a time, subtracting the digit times p, or times p k = 1 mod 2^32 where k is short, so that the digit is its own
//! multiplier ([`Radix::rows`]). R' = R. The quotient's digits have signs, so what is subtracted is at most p / 2: with operands up to p, a
//! product and its reduction are below p (0.46 + 0.5) even for Fr, where R is little more than 2 p. So every result is an operand again, and
//! one conditional addition of p makes it canonical.

use super::Routine;
use super::convert::{added, fe};
use super::program::{Builder, Program, Struct, Type, Value};
use super::radix::{Radix, Row};
use num_bigint::BigInt;

pub(super) const PROSE: &str = "s are sums of as many products as fit, two of whole digits, from 2^62 or 2^63 - 2^32 on; t is a column of halves of such sums.";

/// The text of what keeps operands in memory: bit by bit, not canonical.
pub(super) const KEPT: &str = "
// Digits as words, not canonical.
Fe op_kept(Op r) {
    Fe kept;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { kept.w[i] = uint(r.d[i]); }
    return kept;
}

Op op_back(Fe a) {
    Op back;
    [[unroll]] for (int i = 0; i < WORDS; ++i) { back.d[i] = int(a.w[i]); }
    return back;
}
";

const WIDTH: u32 = 32;
const HALF: i128 = 1 << (WIDTH - 1);
/// The most products of a sum.
pub(super) const MOST_PRODUCTS: i128 = super::LONG_SUM as i128;
/// Multiples of p that may have to be subtracted from a sum: 6 * 0.46 + 0.5, and room.
const MULTIPLES: i128 = 8;
/// From how far from zero on, in highest digits, p is added to a sum of two products or subtracted from it.
const THRESHOLD: i128 = 1 << 23;
/// What of that is left below p, at least, once carries have been added, which are a few hundred.
const SLACK: i128 = 1 << 22;
/// Bits of the highest digit that do not matter for which multiple it is.
const COARSE: u32 = 16;
/// Bits of the reciprocal of p's highest digit.
const PRECISION: u32 = 24;

/// What a sum of one and of two products starts with: multiples of 2^32.
const ONE: i128 = 1 << 62;
const TWO: i128 = (1 << 63) - (1 << WIDTH);

/// Two factors, and between what their product is.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) factors: (Value, Value),
    pub(super) range: (i128, i128),
}

impl Product {
    /// Of two words with signs, of which the largest magnitudes are known. A word may be -2^31, but not 2^31: so the product of two such words is
    /// more than -2^62.
    fn of_words((x, first): (Value, i128), (y, second): (Value, i128)) -> Self {
        let most = first * second;
        let least = if first == HALF && second == HALF { HALF - most } else { -most };
        Self { factors: (x, y), range: (least, most) }
    }
}

/// A program under construction, by the weight of what is added up.
pub(super) struct Columns {
    pub(super) b: Builder,
    radix: Radix,
    /// The column that the product of two operands' words belongs to.
    place: fn(usize, usize) -> usize,
    /// No word of an operand is larger.
    magnitudes: Vec<i128>,
    /// Products yet to be summed up, by column.
    pub(super) products: Vec<Vec<Product>>,
    /// Those that count twice.
    twice: Vec<Vec<Product>>,
    /// What is to be added: halves of sums, below 2^32 each.
    terms: Vec<Vec<Value>>,
    /// The same, to be added twice.
    doubled: Vec<Vec<Value>>,
    /// Terms that come from the column below, and are known last.
    carries: Vec<Vec<Value>>,
    /// What is to be added that is known now.
    pub(super) constants: Vec<i128>,
}

pub(super) const fn operand(radix: Radix) -> Struct {
    Struct { name: "Op", member: "d", element: Type::I32, len: radix.count }
}

/// The highest digit of any operand is no larger.
pub(super) fn highest_digit(radix: Radix) -> i128 {
    let p: BigInt = radix.modulus() >> (WIDTH as usize * (radix.count - 1));
    i128::try_from(p).unwrap_or(i128::MAX) + 1
}

/// What a sum of products that is no less than `low` starts with so that it is not negative: one of two constants, which stay in registers.
fn start(low: i128) -> i128 {
    if -low <= ONE { ONE } else { TWO }
}

/// The digit that the lowest word of `x` exceeds by 2^31. To compilers that see through it, it is a subtraction, which some carry through
/// products.
pub(super) fn flipped(b: &mut Builder, x: Value) -> Value {
    let x = if b.ty(x) == Type::U32 { x } else { b.convert(x, Type::U32) };
    let zero = b.opaque_zero();
    let zero = b.convert(zero, Type::U32);
    let bit = b.add_constant(zero, HALF);
    let x = b.add(x, bit);
    b.convert(x, Type::I32)
}

/// An element in digits: a carry goes into the next one where a word, or the word with the carry into it, is 2^31 or more.
pub(super) fn digits_of_words(b: &mut Builder, words: &[Value]) -> Vec<Value> {
    let mut carry: Option<Value> = None;
    let digit = |(k, &word): (usize, &Value)| {
        let sum = carry.map_or(word, |carry| b.add(word, carry));
        let sum = b.named(sum, format!("s{k}"));
        if k + 1 < words.len() {
            let either = if carry.is_some() { b.or(word, sum) } else { word };
            carry = Some(b.shr(either, WIDTH - 1));
        }
        b.convert(sum, Type::I32)
    };
    words.iter().enumerate().map(digit).collect()
}

/// The same number's words, in two's complement: where a digit, or the digit with the carry into it, is negative, the carry is -1.
fn words_of_digits(b: &mut Builder, digits: &[Value]) -> Vec<Value> {
    let mut carry: Option<Value> = None;
    let word = |(k, &digit): (usize, &Value)| {
        let digit = b.convert(digit, Type::U32);
        let word = carry.map_or(digit, |carry| b.add(digit, carry));
        let word = b.named(word, format!("n{k}"));
        if k + 1 < digits.len() {
            let either = if carry.is_some() { b.or(digit, word) } else { digit };
            let either = b.convert(either, Type::I32);
            let negative = b.shr(either, WIDTH - 1);
            carry = Some(b.convert(negative, Type::U32));
        }
        word
    };
    digits.iter().enumerate().map(word).collect()
}

/// With p more, a multiple of the modulus, where a number is negative, in two's complement.
pub(super) fn made_canonical(b: &mut Builder, words: &[Value], p: &BigInt) -> Vec<Value> {
    let sign = b.convert(words[words.len() - 1], Type::I32);
    let sign = b.shr(sign, WIDTH - 1);
    let sign = b.convert(sign, Type::U32);
    let sign = b.named(sign, "negative");
    let p = Radix::to_words(p, words.len());
    let masked = p.into_iter().map(|word| {
        let word = b.constant(Type::U32, word);
        b.and(sign, word)
    });
    let masked: Vec<Value> = masked.collect();
    added(b, words, &masked)
}

pub(super) fn introduction(radix: Radix) -> String {
    format!(
        "{} in {} balanced digits of {WIDTH} bits: each but the highest is from -2^31 up to 2^31 - 1. R' = R. Two products of digits fit a sum \
         of 64 bits; the halves of sums are words again, and carries are in the high words.\n\nThe lowest columns are cleared by Montgomery \
         reduction, by multiples of p that are 1 modulo 2^{WIDTH} where they are short, so that the lowest digit is the multiplier (H. Orup, \
         \"Simplifying Quotient Determination in High-Radix Modular Multiplication\", ARITH 1995). No result is canonical before op_result; \
         every result is an operand again.\n\nGenerated by field-kernels/src/formulation/signed.rs, which says more; bounds are proved \
         for all digits in range.",
        radix.field, radix.count
    )
}

pub(super) fn program(radix: Radix, routine: Routine, prose: String) -> Program {
    let mut b = Builder::new(routine.name(), prose);
    let op = operand(radix);
    match routine {
        Routine::Left | Routine::Right | Routine::Root => {
            let words = b.argument("a", fe(radix));
            let digits = digits_of_words(&mut b, &words);
            b.finish(op, digits)
        }
        Routine::Result => {
            let digits = b.argument("a", op);
            let words = words_of_digits(&mut b, &digits);
            let words = made_canonical(&mut b, &words, &radix.modulus());
            b.finish(fe(radix), words)
        }
        Routine::Product => {
            let (x, y) = (b.argument("a", op), b.argument("b", op));
            let mut columns = Columns::new(b, radix);
            columns.add_product(&x, &y);
            columns.reduce_all();
            let words = columns.carried(0);
            let words = made_canonical(&mut columns.b, &words, &radix.modulus());
            columns.b.finish(fe(radix), words)
        }
        Routine::Mul | Routine::Square | Routine::Mul2 => {
            let factors: Vec<Vec<Value>> = routine.operands().iter().map(|&name| b.argument(name, op)).collect();
            let mut columns = Columns::new(b, radix);
            match factors.as_slice() {
                [a] => columns.add_square(a),
                factors => factors.chunks_exact(2).for_each(|pair| columns.add_product(&pair[0], &pair[1])),
            }
            columns.reduced(op, factors.len().div_ceil(2) as i128)
        }
        Routine::SumAdd => {
            let sums = b.argument("s", sums_of(radix));
            let (x, y) = (b.argument("a", op), b.argument("b", op));
            let mut columns = Columns::new(b, radix);
            columns.add_product(&x, &y);
            let sum = |(k, sum): (usize, &Value)| {
                columns.put_together(k, "s");
                let terms = std::mem::take(&mut columns.terms[k]);
                let sum = terms.into_iter().fold(*sum, |sum, term| columns.b.add(sum, term));
                columns.b.named(sum, format!("t{k}"))
            };
            let sums = sums.iter().enumerate().map(sum).collect();
            columns.b.finish(sums_of(radix), sums)
        }
        Routine::SumResult => {
            let sums = b.argument("s", sums_of(radix));
            let mut columns = Columns::new(b, radix);
            for (k, (sum, start)) in sums.into_iter().zip(starts(radix)).enumerate() {
                columns.terms[k].push(sum);
                columns.constants[k] -= MOST_PRODUCTS * start;
            }
            columns.reduced(op, MOST_PRODUCTS)
        }
    }
}

/// Columns of a sum of products that is not reduced yet.
pub(super) const fn sums_of(radix: Radix) -> Struct {
    Struct { name: "Sums", member: "t", element: Type::U64, len: 2 * radix.count }
}

/// What the starts of sums add to each column when a product is added.
pub(super) fn starts(radix: Radix) -> Vec<i128> {
    let mut b = Builder::new("", "");
    let (x, y) = (b.argument("a", operand(radix)), b.argument("b", operand(radix)));
    let mut columns = Columns::new(b, radix);
    columns.add_product(&x, &y);
    (0..2 * radix.count - 1).for_each(|k| columns.put_together(k, "s"));
    columns.constants.into_iter().map(|constant| -constant).collect()
}

/// The text of sums of products, for kernels of which some have more than two.
pub(super) fn sums_glsl(radix: Radix) -> String {
    let columns = 2 * radix.count;
    let starts: Vec<String> = starts(radix).into_iter().map(|start| format!("{start:#x}ul")).collect();
    format!(
        "\n#define LONG_SUMS\n\n\
         // A sum of so many products, {MOST_PRODUCTS} at most, that is not reduced yet.\n\
         struct Sum {{ Sums sums; uint count; }};\n\n\
         // What each product adds to the columns by what its sums start with.\n\
         const uint64_t STARTS[{columns}] = uint64_t[{columns}]({});\n\n\
         Sum sum_zero() {{\n    Sum s;\n    [[unroll]] for (int k = 0; k < {columns}; ++k) {{ s.sums.t[k] = 0ul; }}\n    \
         s.count = 0u;\n    return s;\n}}\n\n\
         Sum sum_add(Sum s, Op a, Op b) {{ return Sum(sums_add(s.sums, a, b), s.count + 1u); }}\n\n\
         Op sum_result(Sum s) {{\n    // As if there were {MOST_PRODUCTS}.\n    \
         [[unroll]] for (int k = 0; k < {columns}; ++k) {{ s.sums.t[k] += uint64_t({MOST_PRODUCTS}u - s.count) * STARTS[k]; }}\n    \
         return sums_result(s.sums);\n}}\n",
        starts.join(", ")
    )
}

impl Columns {
    fn new(b: Builder, radix: Radix) -> Self {
        let magnitude = |k| if k + 1 < radix.count { HALF } else { highest_digit(radix) };
        Self::of(b, radix, (2 * radix.count, |i, j| i + j), (0..radix.count).map(magnitude).collect())
    }

    /// So many columns, and what is said of `place` and `magnitudes`.
    pub(super) fn of(
        b: Builder,
        radix: Radix,
        (columns, place): (usize, fn(usize, usize) -> usize),
        magnitudes: Vec<i128>,
    ) -> Self {
        Self {
            b,
            radix,
            place,
            magnitudes,
            products: vec![Vec::new(); columns],
            twice: vec![Vec::new(); columns],
            terms: vec![Vec::new(); columns],
            doubled: vec![Vec::new(); columns],
            carries: vec![Vec::new(); columns],
            constants: vec![0; columns],
        }
    }

    fn product(&self, (i, x): (usize, Value), (j, y): (usize, Value)) -> Product {
        Product::of_words((x, self.magnitudes[i]), (y, self.magnitudes[j]))
    }

    pub(super) fn add_product(&mut self, x: &[Value], y: &[Value]) {
        for (i, &x) in x.iter().enumerate() {
            for (j, &y) in y.iter().enumerate() {
                let product = self.product((i, x), (j, y));
                self.products[(self.place)(i, j)].push(product);
            }
        }
    }

    pub(super) fn add_square(&mut self, x: &[Value]) {
        for i in 0..x.len() {
            for j in i..x.len() {
                let product = self.product((i, x[i]), (j, x[j]));
                let products = if i == j { &mut self.products } else { &mut self.twice };
                products[(self.place)(i, j)].push(product);
            }
        }
    }

    /// Products of a column, as sums of as many as fit, and what each sum starts with.
    fn sums(&mut self, products: Vec<Product>, name: &str) -> Vec<(Value, i128)> {
        let mut sums: Vec<(Vec<Product>, (i128, i128))> = Vec::new();
        for product in products {
            let (low, high) = product.range;
            let fits = |(_, range): &(Vec<Product>, (i128, i128))| {
                let (low, high) = (range.0 + low, range.1 + high);
                -low <= TWO && high + start(low) < 1 << 64
            };
            match sums.iter_mut().find(|sum| fits(sum)) {
                Some((sum, range)) => {
                    sum.push(product);
                    *range = (range.0 + low, range.1 + high);
                }
                None => sums.push((vec![product], product.range)),
            }
        }
        let made = |(index, (products, (low, _))): (usize, (Vec<Product>, (i128, i128)))| {
            let start = start(low);
            let first = self.b.constant(Type::U64, start);
            let sum = products.iter().fold(first, |sum, &Product { factors: (x, y), .. }| self.b.wide_add(x, y, Some(sum)));
            (self.b.named(sum, format!("{name}_{index}")), start)
        };
        sums.into_iter().enumerate().map(made).collect()
    }

    fn low(&mut self, sum: Value) -> Value {
        let low = self.b.convert(sum, Type::U32);
        self.b.convert(low, Type::U64)
    }

    /// All products of column k become terms of this one and the next. The sums are called by a name that no others in column k have.
    pub(super) fn put_together(&mut self, k: usize, name: &str) {
        for (twice, name) in [(false, name), (true, "d")] {
            let products = if twice { &mut self.twice[k] } else { &mut self.products[k] };
            let products = std::mem::take(products);
            for (sum, start) in self.sums(products, &format!("{name}{k}")) {
                let (low, high) = (self.low(sum), self.b.shr(sum, WIDTH));
                let terms = if twice { &mut self.doubled } else { &mut self.terms };
                terms[k].push(low);
                terms[k + 1].push(high);
                self.constants[k + 1] -= (start >> WIDTH) << u32::from(twice);
            }
        }
    }

    /// What of column k's constant is below 2^32; the rest goes into the next column.
    pub(super) fn carry_constant(&mut self, k: usize) -> i128 {
        let constant = self.constants[k];
        self.constants[k] = constant.rem_euclid(1 << WIDTH);
        self.constants[k + 1] += constant.div_euclid(1 << WIDTH);
        self.constants[k]
    }

    /// The terms of column k, but what comes from the column below.
    pub(super) fn sum_of_terms(&mut self, k: usize) -> Option<Value> {
        let doubled = std::mem::take(&mut self.doubled[k]);
        let twice = doubled.into_iter().reduce(|x, y| self.b.add(x, y)).map(|sum| self.b.named(sum, format!("x{k}")));
        let mut terms = std::mem::take(&mut self.terms[k]);
        terms.extend([twice, twice].into_iter().flatten());
        terms.into_iter().reduce(|x, y| self.b.add(x, y))
    }

    /// Column k with its products: the sum of all that is to be added up in it.
    fn column(&mut self, k: usize) -> Value {
        self.put_together(k, "s");
        let constant = self.carry_constant(k);
        let mut terms: Vec<Value> = self.sum_of_terms(k).into_iter().collect();
        if constant != 0 {
            terms.push(self.b.constant(Type::U64, constant));
        }
        terms.append(&mut self.carries[k]);
        let Some(sum) = terms.into_iter().reduce(|x, y| self.b.add(x, y)) else {
            unreachable!("every column has a product")
        };
        self.b.named(sum, format!("t{k}"))
    }

    /// Clears the lower columns.
    fn reduce_all(&mut self) {
        self.radix.rows(1).iter().enumerate().for_each(|(i, row)| self.reduce(i, row));
    }

    /// Clears column i by a multiple of p, of which the column above takes the carry.
    fn reduce(&mut self, i: usize, row: &Row) {
        let (digit, cleared) = match row.inverse {
            None => {
                self.constants[i] += HALF;
                let column = self.column(i);
                (flipped(&mut self.b, column), column)
            }
            Some(inverse) => {
                let column = self.column(i);
                let low = self.b.convert(column, Type::U32);
                let inverse = self.b.constant(Type::U32, i128::from(inverse as u32));
                let digit = self.b.mul(low, inverse);
                (self.b.convert(digit, Type::I32), column)
            }
        };
        let digit = self.b.named(digit, format!("q{i}"));
        let mut cleared = cleared;
        if row.inverse.is_none() {
            let above = self.b.shr(cleared, WIDTH);
            self.carries[i + 1].push(above);
        }
        for (j, &p) in row.digits.iter().enumerate().filter(|(_, p)| **p != 0) {
            let k = i + row.first + j;
            let factor = self.b.constant(Type::I32, -p);
            let most = HALF * i128::from(p).abs();
            let product = Product { factors: (digit, factor), range: (-most, most) };
            if k == i {
                // With a start, so that the carry is not negative.
                let start = start(-most);
                cleared = self.b.add_constant(cleared, start);
                cleared = self.b.wide_add(digit, factor, Some(cleared));
                cleared = self.b.named(cleared, format!("c{i}"));
                self.constants[k + 1] -= start >> WIDTH;
                let above = self.b.shr(cleared, WIDTH);
                self.carries[k + 1].push(above);
            } else if p == -1 && row.inverse.is_none() {
                // The digit itself: the low word of its column, less 2^31.
                let low = self.low(cleared);
                self.carries[k].push(low);
                self.constants[k] -= HALF;
            } else {
                self.products[k].push(product);
            }
        }
    }

    /// The result of so many products, of operands up to p each.
    fn reduced(mut self, op: Struct, products: i128) -> Program {
        let radix = self.radix;
        self.reduce_all();
        // Half of p from the reduction, and so much from each product: may it be more than p?
        let corrects = products * highest_digit(radix) > HALF;
        if corrects {
            self.correct(products);
        }
        let words = self.carried(HALF);
        let b = &mut self.b;
        let (lower, top) = words.split_at(radix.count - 1);
        let mut digits: Vec<Value> = lower.iter().map(|&word| flipped(b, word)).collect();
        digits.extend(top.iter().map(|&top| b.convert(top, Type::I32)));
        if corrects {
            let (top, largest) = (digits.pop(), highest_digit(radix) - SLACK);
            digits.extend(top.map(|top| b.known(top, -largest, largest)));
        }
        self.b.finish(op, digits)
    }

    /// The columns above the cleared ones, carried: words of which each but the highest is more than it stands for, by `bias`.
    fn carried(&mut self, bias: i128) -> Vec<Value> {
        let Radix { count, .. } = self.radix;
        let mut words = Vec::with_capacity(count);
        for k in count..2 * count - 1 {
            self.constants[k] += bias;
            let column = self.column(k);
            let word = self.b.convert(column, Type::U32);
            words.push(self.b.named(word, format!("w{}", k - count)));
            let above = self.b.shr(column, WIDTH);
            self.carries[k + 1].push(above);
        }
        let top = 2 * count - 1;
        let constant = self.b.constant(Type::U32, self.constants[top].rem_euclid(1 << WIDTH));
        let terms = [&self.terms[top][..], &self.carries[top][..]].concat();
        let terms: Vec<Value> = terms.into_iter().map(|term| self.b.convert(term, Type::U32)).collect();
        let sum = terms.into_iter().fold(constant, |sum, term| self.b.add(sum, term));
        words.push(self.b.named(sum, format!("w{}", count - 1)));
        words
    }

    /// Subtracts a multiple of p that brings the result below p. What tells is the highest column before anything is carried into it.
    fn correct(&mut self, products: i128) {
        let top = 2 * self.radix.count - 1;
        // All of them, or compilers keep too much of what they are made of.
        (self.radix.count..top).for_each(|k| self.put_together(k, "early"));
        let mut sum = self.b.constant(Type::I64, self.constants[top]);
        for term in self.terms[top].clone() {
            let term = self.b.convert(term, Type::I64);
            sum = self.b.add(sum, term);
        }
        let sum = self.b.named(sum, "above");
        // Of two products, p (0.91 + 0.5) at most.
        if products <= 2 { self.correct_once(sum) } else { self.correct_by_quotient(sum) }
    }

    /// Adds p to what is well below zero, and subtracts it from what is well above: by [`THRESHOLD`], compared with which carries are little.
    fn correct_once(&mut self, sum: Value) {
        let count = self.radix.count;
        let margin = self.b.constant(Type::I64, THRESHOLD);
        self.b.note("all ones where p is to be added, and where it is to be subtracted");
        let below = self.b.add(sum, margin);
        let above = self.b.sub(margin, sum);
        let masks = [(below, "adds"), (above, "subtracts")].map(|(sum, name)| {
            let sign = self.b.shr(sum, 63);
            let sign = self.b.convert(sign, Type::U32);
            self.b.named(sign, name)
        });
        let p = self.radix.modulus();
        let (p, minus) = (Radix::to_words(&p, count), Radix::to_words(&-p, count));
        for (j, words) in p.into_iter().zip(minus).enumerate() {
            let [p, minus] = [(masks[0], words.0), (masks[1], words.1)].map(|(mask, word)| {
                let word = self.b.constant(Type::U32, word);
                self.b.and(mask, word)
            });
            let either = self.b.or(p, minus);
            let term = self.b.convert(either, Type::U64);
            self.terms[count + j].push(term);
        }
    }

    /// By the nearest multiple, or the one next to it: what is left is below 0.55 p. Of the sum the bits from 2^[`COARSE`] on matter, next to
    /// which carries are nothing.
    fn correct_by_quotient(&mut self, sum: Value) {
        let count = self.radix.count;
        let coarse = self.b.shr(sum, COARSE);
        let coarse = self.b.convert(coarse, Type::I32);
        let p = self.radix.balanced(&self.radix.modulus(), count);
        let reciprocal = ((1i128 << (COARSE + PRECISION)) + i128::from(p[count - 1]) / 2) / i128::from(p[count - 1]);
        let reciprocal = self.b.constant(Type::I32, reciprocal);
        let quotient = self.b.mul(coarse, reciprocal);
        let quotient = self.b.add_constant(quotient, 1i128 << (PRECISION - 1));
        let quotient = self.b.shr(quotient, PRECISION);
        let quotient = self.b.named(quotient, "multiple");
        for (j, &p) in p.iter().enumerate() {
            let factor = self.b.constant(Type::I32, -p);
            if j + 1 < count {
                let most = MULTIPLES * i128::from(p).abs();
                self.products[count + j].push(Product { factors: (quotient, factor), range: (-most, most) });
            } else {
                let product = self.b.mul(quotient, factor);
                self.carries[2 * count - 1].push(product);
            }
        }
    }
}
