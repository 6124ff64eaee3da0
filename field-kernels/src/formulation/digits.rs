//! Reduced radix: signed 30-bit digits, products summed in 64-bit columns that need no carries.
//!
//! Digits shorter than words, so that carries can wait, are an old device (D. J. Bernstein, "Curve25519: New Diffie-Hellman
//! Speed Records", PKC 2006); it suits GLSL, which has no carry flag. Thirteen products of balanced 30-bit digits are below 2^62,
//! and as many for the reduction still leave a column below 2^63. Signs cost nothing, and make differences of digits digits,
//! as Karatsuba's identity wants them.

use super::Routine;
use super::convert::{digits_of_words, fe, words_of_digits};
use super::program::{Builder, Program, Struct, Type, Value};
use super::radix::{Radix, Row};

/// Which of the formulations in digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits {
    /// How digits are multiplied.
    pub product: Product,
    /// Reduce by multiples of p that are 1 modulo up to so many digits, where p or a short multiple is.
    pub skip: usize,
    /// Add a zero that compilers do not see through to differences of digits and under single products.
    pub opaque: bool,
}

/// How the columns of a product of two numbers are computed from their digits. Squares are by `Schoolbook`, of whose products
/// they have half, unless something else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// Every digit times every digit.
    Schoolbook,
    /// Three products of halves instead of four (A. A. Karatsuba, Yu. P. Ofman, 1962), with differences, which keep balanced
    /// digits balanced.
    Karatsuba,
    /// Nine products of quarters instead of sixteen, by Karatsuba's identity twice, in the reduction, too.
    Quarters {
        /// Whether four columns at a time are reduced also where that takes a multiplication for their Montgomery digits.
        throughout: bool,
        /// Whether squares are by quarters, too.
        squares: bool,
    },
}

impl Product {
    /// How the columns come about, for a comment.
    pub(super) const fn prose(self, square: bool) -> &'static str {
        match self {
            Product::Quarters { squares, .. } if squares || !square => {
                "Karatsuba's identity twice, on quarters of every fourth digit: ll to xx are sums of products of the low (l) and the \
                 high (h) half and of the difference (x) of both, first of numbers in pairs of digits, then within the pairs."
            }
            _ if square => "Every product of two different digits is taken once, twice its size.",
            Product::Schoolbook => "Every digit times every digit.",
            _ => {
                "By Karatsuba's identity a0 b1 + a1 b0 = a0 b0 + a1 b1 + (a0 - a1) (b1 - b0) of the low and the high halves."
            }
        }
    }
}

/// A program under construction, its columns numbered by the weight of what they add up.
pub(super) struct Columns {
    pub(super) b: Builder,
    pub(super) radix: Radix,
    rows: Vec<Row>,
    pub(super) sums: Vec<Option<Value>>,
    opaque: bool,
}

impl Digits {
    pub(super) fn operand(radix: Radix) -> Struct {
        Struct { name: "Op", member: "d", element: Type::I32, len: radix.count }
    }

    pub(super) fn program(self, radix: Radix, routine: Routine, prose: String) -> Program {
        let mut b = Builder::new(routine.name(), prose);
        let op = Self::operand(radix);
        match routine {
            Routine::Left | Routine::Right | Routine::Root => {
                let words = b.argument("a", fe(radix));
                let digits = digits_of_words(&mut b, &words, radix, routine.shift(radix));
                let half = i128::from(radix.half());
                let signed = digits.into_iter().map(|digit| {
                    let digit = b.convert(digit, Type::I32);
                    b.add_constant(digit, -half)
                });
                let signed = signed.collect();
                b.finish(op, signed)
            }
            Routine::Result => {
                let digits = b.argument("a", op);
                let half = i128::from(radix.half());
                let unsigned: Vec<Value> = digits
                    .iter()
                    .enumerate()
                    .map(|(j, &digit)| {
                        let digit = b.add_constant(digit, half);
                        let digit = b.convert(digit, Type::U32);
                        b.named(digit, format!("n{j}"))
                    })
                    .collect();
                let words = words_of_digits(&mut b, &unsigned, digits[radix.count - 1], radix);
                let program = b.finish(fe(radix), words);
                Program { reduce_once: true, ..program }
            }
            Routine::Product | Routine::SumAdd | Routine::SumResult => unreachable!("a shortcut, or only of signed words"),
            Routine::Mul | Routine::Square | Routine::Mul2 => {
                let arguments: Vec<Vec<Value>> = routine.operands().iter().map(|&name| b.argument(name, op)).collect();
                let sums = vec![None; 2 * radix.count - 1];
                let rows = radix.rows(self.skip);
                let mut columns = Columns { b, radix, rows, sums, opaque: self.opaque };
                let reduced = match (self.product, arguments.as_slice()) {
                    (Product::Quarters { throughout, squares }, factors) if squares || factors.len() > 1 => {
                        columns.add_quarters(factors, throughout)
                    }
                    (_, [a]) => {
                        columns.square(a);
                        0
                    }
                    (Product::Schoolbook, factors) => {
                        // The reduction follows at once, so that few columns are alive at a time.
                        for i in 0..radix.count {
                            factors.chunks_exact(2).for_each(|pair| columns.add_row(i, &pair[0], pair[1][i]));
                            columns.reduce(i);
                        }
                        radix.count
                    }
                    (_, factors) => {
                        for (pair, suffix) in factors.chunks_exact(2).zip(["", "_2"]) {
                            columns.add_karatsuba(&pair[0], &pair[1], suffix);
                        }
                        0
                    }
                };
                (reduced..radix.count).for_each(|i| columns.reduce(i));
                let digits = columns.carried();
                columns.b.finish(op, digits)
            }
        }
    }
}

/// The columns of x y, each added to what it starts with.
fn convolution(b: &mut Builder, x: &[Value], y: &[Value], start: &[Option<Value>], name: &str) -> Vec<Value> {
    let column = |k: usize| {
        let mut sum = start[k];
        for (i, &x) in x.iter().enumerate() {
            if let Some(&y) = k.checked_sub(i).and_then(|j| y.get(j)) {
                sum = Some(b.wide_add(x, y, sum));
            }
        }
        let Some(sum) = sum else { unreachable!("every column has a product") };
        b.named(sum, format!("{name}{k}"))
    };
    (0..x.len() + y.len() - 1).map(column).collect()
}

impl Columns {
    /// What a column starts with: where its lowest digit is taken off by rounding, half a digit, so that cutting off rounds.
    pub(super) fn start(&self, k: usize) -> i64 {
        let rounds = self.rows.get(k).is_none_or(|row| row.inverse.is_none());
        if rounds { self.radix.half() } else { 0 }
    }

    pub(super) fn constant(&mut self, value: i64) -> Option<Value> {
        (value != 0).then(|| self.b.constant(Type::I64, value))
    }

    /// x - y, or what there is of it.
    pub(super) fn difference(&mut self, x: Option<Value>, y: Option<Value>, name: String) -> Option<Value> {
        let b = &mut self.b;
        let difference = match (x, y) {
            (x, None) => return x,
            (Some(x), Some(y)) => b.sub(x, y),
            (None, Some(y)) => {
                let zero = b.constant(Type::I32, 0);
                b.sub(zero, y)
            }
        };
        let difference = if self.opaque {
            let zero = b.opaque_zero();
            b.add(difference, zero)
        } else {
            difference
        };
        Some(b.named(difference, name))
    }

    /// The sum of products, from a start. A single product is kept from being multiplied again wherever it is added to
    /// something, which compilers think costs nothing, by an opaque zero.
    pub(super) fn sum(&mut self, start: Option<Value>, products: &[(Value, Value)], name: String) -> Option<Value> {
        let start = match start {
            None if self.opaque && products.len() == 1 => {
                let zero = self.b.opaque_zero();
                Some(self.b.convert(zero, Type::I64))
            }
            start => start,
        };
        let sum = products.iter().fold(start, |sum, &(x, y)| Some(self.b.wide_add(x, y, sum)));
        sum.map(|sum| self.b.named(sum, name))
    }

    /// t\[k\] += x y
    fn add(&mut self, k: usize, x: Value, y: Value) {
        let addend = self.sums[k].or_else(|| self.constant(self.start(k)));
        let sum = self.b.wide_add(x, y, addend);
        self.sums[k] = Some(self.b.named(sum, format!("t{k}")));
    }

    /// t += a b\[i\] 2^(width i)
    fn add_row(&mut self, i: usize, a: &[Value], digit: Value) {
        a.iter().enumerate().for_each(|(j, &x)| self.add(i + j, x, digit));
    }

    /// t = a^2, each product of two different digits taken once, twice its size.
    fn square(&mut self, a: &[Value]) {
        let twice = |(j, &x): (usize, &Value)| {
            let twice = self.b.add(x, x);
            self.b.named(twice, format!("twice{j}"))
        };
        let twice: Vec<Value> = a.iter().enumerate().skip(1).map(twice).collect();
        for k in 0..self.sums.len() {
            for i in 0..a.len() {
                match k.checked_sub(i) {
                    Some(j) if i < j && j < a.len() => self.add(k, a[i], twice[j - 1]),
                    Some(j) if i == j => self.add(k, a[i], a[i]),
                    _ => {}
                }
            }
        }
    }

    /// t += a b, by the products of low halves, of high halves, and of differences of the two:
    /// a0 b1 + a1 b0 = a0 b0 + a1 b1 + (a0 - a1) (b1 - b0).
    fn add_karatsuba(&mut self, a: &[Value], b: &[Value], suffix: &str) {
        let low = a.len().div_ceil(2);
        let mut differences = |x: &[Value], y: &[Value], name: &str| -> Vec<Value> {
            let difference = |j| {
                let name = format!("{name}{suffix}_{j}");
                self.difference(x.get(j).copied(), y.get(j).copied(), name)
            };
            (0..low).filter_map(difference).collect()
        };
        let a_difference = differences(&a[..low], &a[low..], "e");
        let b_difference = differences(&b[low..], &b[..low], "f");
        // Where columns start: the lowest and the highest are of one kind of products each, and the low halves' products are part
        // of the middle ones. What this leaves out is added below.
        let fresh = self.sums.iter().all(Option::is_none);
        let start = |this: &mut Self, columns: std::ops::Range<usize>, at: usize, len: usize| -> Vec<Option<Value>> {
            let start = |k: usize| if fresh && columns.contains(&k) { this.start(at + k) } else { 0 };
            let starts: Vec<i64> = (0..len).map(start).collect();
            starts.into_iter().map(|start| this.constant(start)).collect()
        };
        let low_starts = start(self, 0..low, 0, 2 * low - 1);
        let high_starts = start(self, low..a.len(), 2 * low, 2 * (a.len() - low) - 1);
        let builder = &mut self.b;
        let lows = convolution(builder, &a[..low], &b[..low], &low_starts, &format!("low{suffix}_"));
        let highs = convolution(builder, &a[low..], &b[low..], &high_starts, &format!("high{suffix}_"));
        let both = |k| Some(highs.get(k).map_or(lows[k], |&high: &Value| builder.add(lows[k], high)));
        let both: Vec<Option<Value>> = (0..lows.len()).map(both).collect();
        let crosses = convolution(builder, &a_difference, &b_difference, &both, &format!("cross{suffix}_"));
        for k in 0..self.sums.len() {
            let at = |start: usize| k.checked_sub(start);
            let parts = [(&lows, at(0)), (&crosses, at(low)), (&highs, at(2 * low))];
            let parts: Vec<Value> = parts.iter().filter_map(|(of, at)| of.get((*at)?)).copied().collect();
            let started = |starts: &[Option<Value>], at: Option<usize>| {
                at.is_some_and(|at| starts.get(at).is_some_and(Option::is_some))
            };
            let starts = [(&low_starts, 0), (&low_starts, low), (&high_starts, low), (&high_starts, 2 * low)];
            let starts = starts.iter().filter(|(of, start)| started(of, at(*start))).count() as i64;
            let missing = if self.sums[k].is_none() { self.start(k) } else { 0 } - starts * self.radix.half();
            let missing = self.constant(missing);
            let sum = parts.into_iter().chain(self.sums[k]).chain(missing).reduce(|x, y| self.b.add(x, y));
            self.sums[k] = sum.map(|sum| self.b.named(sum, format!("t{k}")));
        }
    }

    /// Clears column i by a multiple of p, and carries what is above its lowest digit. Where that digit is the multiplier, half a
    /// digit in the column makes the carry the same as if the multiple, 1 in this column, had been subtracted.
    fn reduce(&mut self, i: usize) {
        let width = self.radix.width;
        let row = self.rows[i].clone();
        let Some(mut column) = self.sums[i] else { unreachable!("every column has a product") };
        let digit = match row.inverse {
            None => self.rounded(column),
            Some(inverse) => {
                // The digit in the highest bits of a word; the shift extends its sign.
                let b = &mut self.b;
                let low = b.convert(column, Type::U32);
                let factor = b.constant(Type::U32, i128::from((inverse << (32 - width)) as u32));
                let digit = b.mul(low, factor);
                let digit = b.convert(digit, Type::I32);
                b.shr(digit, 32 - width)
            }
        };
        self.b.note(format!("column {i}"));
        let digit = self.b.named(digit, "q");
        for (j, &p) in row.digits.iter().enumerate() {
            let k = i + row.first + j;
            if p == 0 {
                continue;
            }
            let factor = self.b.constant(Type::I32, -p);
            if k == i {
                column = self.b.wide_add(digit, factor, Some(column));
            } else {
                self.add(k, digit, factor);
            }
        }
        let carry = self.b.shr(column, width);
        self.carry_into(i + 1, carry);
    }

    /// The lowest digit of a column to which half a digit has been added.
    pub(super) fn rounded(&mut self, column: Value) -> Value {
        let low = self.b.convert(column, Type::U32);
        let low = self.b.mask(low, self.radix.width);
        let digit = self.b.convert(low, Type::I32);
        self.b.add_constant(digit, -i128::from(self.radix.half()))
    }

    pub(super) fn carry_into(&mut self, k: usize, carry: Value) {
        let sum = self.sums[k].map_or(carry, |sum| self.b.add(sum, carry));
        self.sums[k] = Some(self.b.named(sum, format!("t{k}")));
    }

    /// The digits of the result: the columns above the cleared ones, carried.
    fn carried(&mut self) -> Vec<Value> {
        let Radix { width, count, .. } = self.radix;
        let mut digits = Vec::with_capacity(count);
        for k in count..2 * count - 1 {
            let Some(column) = self.sums[k] else { unreachable!("every column has a product") };
            let digit = self.rounded(column);
            digits.push(self.b.named(digit, format!("r{}", k - count)));
            let carry = self.b.shr(column, width);
            if k + 1 < 2 * count - 1 {
                self.carry_into(k + 1, carry);
            } else {
                digits.push(self.b.convert(carry, Type::I32));
            }
        }
        digits
    }
}
