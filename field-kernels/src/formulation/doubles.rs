//! Exact doubles: signed 24-bit digits, products summed by fused multiply-adds.
//!
//! GPUs made for scientific computing multiply doubles faster than wide integers (N. Emmart, F. Zheng, C. Weems, "Faster Modular
//! Exponentiation Using Double Precision Floating Point Arithmetic on the GPU", ARITH 2018, who split each product of
//! 52-bit digits in two by rounding toward zero). Products of 24-bit digits need no splitting, and no rounding mode: sums
//! of them fit a double as they are.
//!
//! A column is a double between 2^52 and 2^53, where doubles are the integers. It starts in the middle, and products of digits,
//! up to 2^46 each, are added. Read as an integer, a double's bits there are a constant plus the column. The constants of all
//! columns are known here, and chosen such that the sum of a column, what was carried into it, and the constants is half
//! a digit, which makes cutting off round, plus a multiple of 2^48, whose bits the carry takes along and the next column's
//! constant takes off.

use super::Routine;
use super::convert::{digits_of_words, fe, words_of_digits};
use super::program::{Builder, Program, Struct, Type, Value};
use super::radix::{Radix, Row};

/// Which of the formulations in doubles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubles {
    /// Three products of halves instead of four, as `Product::Karatsuba` of the digits; not for squares.
    pub karatsuba: bool,
    /// Reduce by multiples of p that are 1 modulo up to so many digits, where p or a short multiple is.
    pub skip: usize,
    /// How digits become doubles.
    pub conversion: Conversion,
}

/// How an unsigned 24-bit digit becomes a signed one as a double.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conversion {
    /// By an integer subtraction and a conversion instruction.
    Convert,
    /// By writing it into the low bits of 2^52 and subtracting that: a double addition instead of a conversion.
    Bias,
}

/// Where columns start: the middle of their range.
const MIDDLE: i64 = 3 << 51;

/// A double that is a known constant plus a sum of products.
#[derive(Clone, Copy)]
struct Sum {
    value: Value,
    constant: i64,
}

/// A program under construction, its columns numbered by the weight of what they add up.
struct Columns {
    b: Builder,
    radix: Radix,
    conversion: Conversion,
    /// What the carry into each column has in excess.
    carry_bias: Vec<i64>,
    /// The doubles that together are a column; products of the reduction are added to the first.
    sums: Vec<Vec<Sum>>,
    /// What is added to a column as an integer.
    integers: Vec<Option<Value>>,
    carry: Option<Value>,
}

/// An unsigned digit, 2^(width - 1) too large, as a double.
fn double_of_digit(b: &mut Builder, digit: Value, radix: Radix, conversion: Conversion) -> Value {
    match conversion {
        Conversion::Convert => {
            let digit = b.convert(digit, Type::I32);
            let digit = b.add_constant(digit, -i128::from(radix.half()));
            b.convert(digit, Type::F64)
        }
        Conversion::Bias => {
            let digit = b.biased(digit, None);
            b.add_constant(digit, -(1i128 << 52) - i128::from(radix.half()))
        }
    }
}

impl Doubles {
    pub(super) fn operand(radix: Radix) -> Struct {
        Struct { name: "Op", member: "d", element: Type::F64, len: radix.count }
    }

    pub(super) fn program(self, radix: Radix, routine: Routine, prose: String) -> Program {
        let mut b = Builder::new(routine.name(), prose);
        let op = Self::operand(radix);
        match routine {
            Routine::Left | Routine::Right | Routine::Root => {
                let words = b.argument("a", fe(radix));
                let digits = digits_of_words(&mut b, &words, radix, routine.shift(radix));
                let signed = digits.into_iter().enumerate().map(|(j, digit)| {
                    let double = double_of_digit(&mut b, digit, radix, self.conversion);
                    b.named(double, format!("r{j}"))
                });
                let signed = signed.collect();
                b.finish(op, signed)
            }
            Routine::Result => {
                let digits = b.argument("a", op);
                let shifted = |(j, &digit): (usize, &Value)| {
                    let digit = b.add_constant(digit, i128::from(MIDDLE + radix.half()));
                    let digit = b.named(digit, format!("e{j}"));
                    let digit = b.bits(digit);
                    let digit = b.convert(digit, Type::U32);
                    b.named(digit, format!("n{j}"))
                };
                let unsigned: Vec<Value> = digits.iter().enumerate().map(shifted).collect();
                let top = b.convert(unsigned[radix.count - 1], Type::I32);
                let top = b.add_constant(top, -i128::from(radix.half()));
                let words = words_of_digits(&mut b, &unsigned, top, radix);
                let program = b.finish(fe(radix), words);
                Program { reduce_once: true, ..program }
            }
            Routine::Product | Routine::SumAdd | Routine::SumResult => unreachable!("a shortcut, or only of signed words"),
            Routine::Mul | Routine::Square | Routine::Mul2 => {
                let arguments: Vec<Vec<Value>> = routine.operands().iter().map(|&name| b.argument(name, op)).collect();
                let mut columns = Columns::new(b, radix, self.conversion);
                match (self.karatsuba, arguments.as_slice()) {
                    (_, [a]) => columns.square(a),
                    (false, factors) => columns.add_products(factors),
                    (true, factors) => {
                        for (pair, suffix) in factors.chunks_exact(2).zip(["", "_2"]) {
                            columns.add_karatsuba(&pair[0], &pair[1], suffix);
                        }
                    }
                }
                let mut digits = Vec::with_capacity(radix.count);
                for (i, row) in radix.rows(self.skip).iter().enumerate() {
                    columns.reduce(i, row);
                }
                for k in radix.count..2 * radix.count - 1 {
                    let digit = columns.digit(k);
                    let digit = double_of_digit(&mut columns.b, digit, radix, self.conversion);
                    digits.push(columns.b.named(digit, format!("r{}", k - radix.count)));
                }
                digits.push(columns.top());
                columns.b.finish(op, digits)
            }
        }
    }
}

/// The integer that the bits of a double between 2^52 and 2^53 are, less the double.
const BITS: i128 = (0x433 << 52) - (1 << 52);

impl Columns {
    fn new(b: Builder, radix: Radix, conversion: Conversion) -> Self {
        let count = 2 * radix.count - 1;
        Self {
            b,
            radix,
            conversion,
            carry_bias: vec![0],
            sums: vec![Vec::new(); count],
            integers: vec![None; count],
            carry: None,
        }
    }

    /// What a column's carry has in excess if the doubles that are the column start at these constants, rounded.
    fn bias_above(&self, constants: impl IntoIterator<Item = i64>) -> i128 {
        let sum: i128 = constants.into_iter().map(|constant| BITS + i128::from(constant)).sum();
        // The nearest multiple of 2^48: a column itself is smaller.
        let rounded = ((sum + (1 << 47)) >> 48) << 48;
        i128::from((rounded >> self.radix.width) as u32)
    }

    /// The sum of products of digits x\[i\] y\[k - i\] for those `pairs` of digits, from a start.
    fn products(&mut self, start: Sum, pairs: impl IntoIterator<Item = (Value, Value)>, name: &str) -> Sum {
        let mut value = start.value;
        for (x, y) in pairs {
            let sum = self.b.fma(x, y, value);
            value = self.b.named(sum, name);
        }
        Sum { value, constant: start.constant }
    }

    fn start(&mut self, constant: i64) -> Sum {
        Sum { value: self.b.constant(Type::F64, constant), constant }
    }

    /// The start of a column's first double if `doubles` of them, all from the middle, make up each column: such that no
    /// other constant has to be added.
    fn start_of_column(&mut self, k: usize, doubles: usize) -> Sum {
        let carried = if k > 0 { self.bias_above(vec![MIDDLE; doubles]) } else { 0 };
        self.start(MIDDLE + self.radix.half() - carried as i64)
    }

    /// Products of several pairs of factors, each in doubles of its own: two products' sums would not fit one.
    fn add_products(&mut self, factors: &[Vec<Value>]) {
        let doubles = factors.len() / 2;
        for k in 0..self.sums.len() {
            for (pair, name) in factors.chunks_exact(2).zip(["t", "u"]) {
                let start = if self.sums[k].is_empty() { self.start_of_column(k, doubles) } else { self.start(MIDDLE) };
                let sum = self.products(start, convolved(&pair[0], &pair[1], k), &format!("{name}{k}"));
                self.sums[k].push(sum);
            }
        }
    }

    /// t = a^2, each product of two different digits taken once, twice its size.
    fn square(&mut self, a: &[Value]) {
        let twice = |(j, &x): (usize, &Value)| {
            let twice = self.b.add(x, x);
            self.b.named(twice, format!("twice{j}"))
        };
        let twice: Vec<Value> = a.iter().enumerate().skip(1).map(twice).collect();
        for k in 0..self.sums.len() {
            let first = (k + 1).saturating_sub(a.len());
            let pairs = (first..=k / 2).map(|i| (a[i], if 2 * i == k { a[i] } else { twice[k - i - 1] }));
            let start = self.start_of_column(k, 1);
            let sum = self.products(start, pairs, &format!("t{k}"));
            self.sums[k].push(sum);
        }
    }

    /// t += a b, by the products of low halves, of high halves, and of differences of the two:
    /// a0 b1 + a1 b0 = a0 b0 + a1 b1 + (a0 - a1) (b1 - b0).
    ///
    /// In doubles, a0 b0 + (a0 - a1) (b1 - b0) is summed up; a1 b1 is added to it as integers. Products of differences
    /// are up to 4 2^46, eight of them half of a double's range of 64 2^46, and of both signs: so a0 b0 starts
    /// at 88 2^46 and not in the middle, which is at 96 2^46.
    fn add_karatsuba(&mut self, a: &[Value], b: &[Value], suffix: &str) {
        const LOW_START: i64 = 88 << 46;
        let low = a.len().div_ceil(2);
        let mut differences = |x: &[Value], y: &[Value], name: &str| -> Vec<Value> {
            let zero = self.b.constant(Type::F64, 0);
            let difference = |j| {
                let (x, y) = (x.get(j).copied().unwrap_or(zero), y.get(j).copied().unwrap_or(zero));
                if y == zero {
                    return x;
                }
                let difference = self.b.sub(x, y);
                self.b.named(difference, format!("{name}{suffix}_{j}"))
            };
            (0..low).map(difference).collect()
        };
        let a_difference = differences(&a[..low], &a[low..], "e");
        let b_difference = differences(&b[low..], &b[..low], "f");
        let half = self.radix.half();
        let (mut lows, mut highs, mut crosses) = (Vec::new(), Vec::new(), Vec::new());
        for k in 0..2 * low - 1 {
            // The lowest columns are products of low halves only: their start takes up the other constants.
            let carried = if k == 0 { 0 } else { self.bias_above([LOW_START]) as i64 };
            let start = self.start(if k < low { LOW_START + half - carried } else { LOW_START });
            lows.push(self.products(start, convolved(&a[..low], &b[..low], k), &format!("low{suffix}_{k}")));
        }
        for k in 0..2 * (a.len() - low) - 1 {
            // So are the highest, of high halves.
            let carried = self.bias_above([MIDDLE]) as i64;
            let start = self.start(if k >= low { MIDDLE + half - carried } else { MIDDLE });
            highs.push(self.products(start, convolved(&a[low..], &b[low..], k), &format!("high{suffix}_{k}")));
        }
        for (k, &start) in lows.iter().enumerate() {
            let pairs = convolved(&a_difference, &b_difference, k);
            crosses.push(self.products(start, pairs, &format!("cross{suffix}_{k}")));
        }
        for k in 0..self.sums.len() {
            let part = |of: &[Sum], at: usize| k.checked_sub(at).and_then(|k| of.get(k)).copied();
            // The sums of differences have no room for the reduction's products: they come last.
            let parts = [part(&lows, 0), part(&highs, 2 * low), part(&highs, low), part(&crosses, low)];
            self.sums[k].extend(parts.into_iter().flatten());
        }
    }

    /// Column k as an integer: half a digit more than it is, and a multiple of 2^48.
    fn column(&mut self, k: usize) -> Value {
        let mut sum: Option<Value> = None;
        let mut plus = |b: &mut Builder, x: Value| sum = Some(sum.map_or(x, |sum| b.add(sum, x)));
        for part in &self.sums[k] {
            let bits = self.b.bits(part.value);
            plus(&mut self.b, bits);
        }
        if let Some(integer) = self.integers[k] {
            let integer = self.b.convert(integer, Type::U64);
            plus(&mut self.b, integer);
        }
        if let Some(carry) = self.carry {
            let carry = self.b.convert(carry, Type::U64);
            plus(&mut self.b, carry);
        }
        let constants: i128 = self.sums[k].iter().map(|part| BITS + i128::from(part.constant)).sum();
        let constants = constants + i128::from(self.carry_bias[k]);
        let wanted = (((constants + (1 << 47)) >> 48) << 48) + i128::from(self.radix.half());
        if wanted != constants {
            let missing = self.b.constant(Type::U64, i128::from((wanted - constants) as u64));
            plus(&mut self.b, missing);
        }
        self.carry_bias.push(i64::from((wanted >> self.radix.width) as u32));
        let Some(sum) = sum else { unreachable!("every column has a product") };
        self.b.named(sum, format!("v{k}"))
    }

    fn carry_from(&mut self, column: Value) {
        let carry = self.b.shr(column, self.radix.width);
        let carry = self.b.convert(carry, Type::U32);
        self.carry = Some(self.b.named(carry, "carry"));
    }

    /// Carries column k; its lowest digit, unsigned.
    fn digit(&mut self, k: usize) -> Value {
        let column = self.column(k);
        self.carry_from(column);
        self.low_digit(column)
    }

    fn low_digit(&mut self, column: Value) -> Value {
        let low = self.b.convert(column, Type::U32);
        self.b.mask(low, self.radix.width)
    }

    fn signed(&mut self, digit: Value) -> Value {
        let digit = self.b.convert(digit, Type::I32);
        self.b.add_constant(digit, -i128::from(self.radix.half()))
    }

    /// Clears column i by a multiple of p, and carries what is above its lowest digit.
    fn reduce(&mut self, i: usize, row: &Row) {
        self.b.note(format!("column {i}"));
        let column = self.column(i);
        let low = self.low_digit(column);
        let low = self.b.named(low, "low");
        // Digits of a multiple that doubles have no room for; the multiple's lowest is for the carry.
        let half = self.radix.half();
        let is_wide = |p: i64| p.abs() > half;
        let (quotient, integer) = match row.inverse {
            None => {
                self.carry_from(column);
                let integer = row.digits.iter().any(|&p| is_wide(p)).then(|| {
                    let integer = self.signed(low);
                    self.b.named(integer, "q_integer")
                });
                let quotient = match (integer, self.conversion) {
                    (Some(integer), Conversion::Convert) => self.b.convert(integer, Type::F64),
                    _ => double_of_digit(&mut self.b, low, self.radix, self.conversion),
                };
                (quotient, integer)
            }
            Some(inverse) => {
                // The digit in the highest bits of a word; the shift extends its sign.
                let above = 32 - self.radix.width;
                let low = self.b.add_constant(low, i128::from((-self.radix.half()) as u32));
                let factor = self.b.constant(Type::U32, i128::from((inverse << above) as u32));
                let integer = self.b.mul(low, factor);
                let integer = self.b.convert(integer, Type::I32);
                let integer = self.b.shr(integer, above);
                let integer = self.b.named(integer, "q_integer");
                let lowest = self.b.constant(Type::I32, -row.digits[0]);
                let cleared = self.b.wide_add(integer, lowest, None);
                let cleared = self.b.convert(cleared, Type::U64);
                let cleared = self.b.add(column, cleared);
                self.carry_from(cleared);
                (self.b.convert(integer, Type::F64), Some(integer))
            }
        };
        let quotient = self.b.named(quotient, "q");
        for (j, &p) in row.digits.iter().enumerate() {
            let k = i + row.first + j;
            if p == 0 || k == i {
                continue;
            }
            match integer {
                Some(integer) if is_wide(p) => {
                    let factor = self.b.constant(Type::I32, -p);
                    let sum = self.b.wide_add(integer, factor, self.integers[k]);
                    self.integers[k] = Some(self.b.named(sum, format!("i{k}")));
                }
                _ => {
                    let factor = self.b.constant(Type::F64, -p);
                    let sum = self.b.fma(quotient, factor, self.sums[k][0].value);
                    self.sums[k][0].value = self.b.named(sum, format!("t{k}"));
                }
            }
        }
    }

    /// The highest digit of the result: what was carried out of the highest column.
    fn top(&mut self) -> Value {
        let Some(carry) = self.carry else { unreachable!("columns have been carried") };
        let bias = self.carry_bias[self.sums.len()];
        let top = self.b.add_constant(carry, i128::from((-bias) as u32));
        let top = self.b.convert(top, Type::I32);
        self.b.convert(top, Type::F64)
    }
}

/// The pairs of digits whose products are column k of x y.
fn convolved<'a>(x: &'a [Value], y: &'a [Value], k: usize) -> impl Iterator<Item = (Value, Value)> + 'a {
    x.iter().enumerate().filter_map(move |(i, &x)| Some((x, *y.get(k.checked_sub(i)?)?)))
}
