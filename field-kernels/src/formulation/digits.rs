//! Reduced radix: signed 30-bit digits, products summed in 64-bit columns that need no carries.

use super::convert::{digits_of_words, fe, words_of_digits};
use super::program::{Builder, Program, Struct, Type, Value};
use super::radix::{Radix, Row};
use super::{Product, Routine};

/// Which of the formulations in digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digits {
    /// How digits are multiplied.
    pub product: Product,
    /// Reduce by multiples of p that are 1 modulo up to so many digits, where p or a short multiple is.
    pub skip: usize,
}

/// A program under construction, its columns numbered by the weight of what they add up.
struct Columns {
    b: Builder,
    radix: Radix,
    rows: Vec<Row>,
    sums: Vec<Option<Value>>,
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
            Routine::Mul | Routine::Square | Routine::Mul2 => {
                let arguments: Vec<Vec<Value>> = routine.operands().iter().map(|&name| b.argument(name, op)).collect();
                let sums = vec![None; 2 * radix.count - 1];
                let mut columns = Columns { b, radix, rows: radix.rows(self.skip), sums };
                match (self.product, arguments.as_slice()) {
                    (_, [a]) => columns.square(a),
                    (Product::Schoolbook, factors) => {
                        // The reduction follows at once, so that few columns are alive at a time.
                        for i in 0..radix.count {
                            for pair in factors.chunks_exact(2) {
                                columns.add_row(i, &pair[0], pair[1][i]);
                            }
                            columns.reduce(i);
                        }
                    }
                    (Product::Karatsuba, factors) => {
                        for (pair, suffix) in factors.chunks_exact(2).zip(["", "_2"]) {
                            columns.add_karatsuba(&pair[0], &pair[1], suffix);
                        }
                    }
                }
                if !(self.product == Product::Schoolbook && arguments.len() > 1) {
                    (0..radix.count).for_each(|i| columns.reduce(i));
                }
                let digits = columns.carried();
                columns.b.finish(op, digits)
            }
        }
    }
}

/// The columns of x y, each added to what it starts with.
fn convolution(b: &mut Builder, x: &[Value], y: &[Value], start: &[Value], name: &str) -> Vec<Value> {
    let column = |k: usize| {
        let mut sum = start.get(k).copied();
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
    fn start(&self, k: usize) -> Option<i64> {
        let rounds = self.rows.get(k).is_none_or(|row| row.inverse.is_none());
        rounds.then(|| self.radix.half())
    }

    /// t\[k\] += x y
    fn add(&mut self, k: usize, x: Value, y: Value) {
        let addend = match (self.sums[k], self.start(k)) {
            (None, Some(half)) => Some(self.b.constant(Type::I64, half)),
            (sum, _) => sum,
        };
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
        let differences = |this: &mut Self, x: &[Value], y: &[Value], name: &str| -> Vec<Value> {
            let difference = |j| {
                let difference = match (x.get(j), y.get(j)) {
                    (Some(&x), Some(&y)) => this.b.sub(x, y),
                    (Some(&x), None) => return x,
                    (None, y) => {
                        let zero = this.b.constant(Type::I32, 0);
                        y.map_or(zero, |&y| this.b.sub(zero, y))
                    }
                };
                this.b.named(difference, format!("{name}{suffix}_{j}"))
            };
            (0..low).map(difference).collect()
        };
        self.b.note("differences of the halves");
        let a_difference = differences(self, &a[..low], &a[low..], "e");
        let b_difference = differences(self, &b[low..], &b[..low], "f");
        let builder = &mut self.b;
        let lows = convolution(builder, &a[..low], &b[..low], &[], &format!("low{suffix}_"));
        let highs = convolution(builder, &a[low..], &b[low..], &[], &format!("high{suffix}_"));
        let both = |k| highs.get(k).map_or(lows[k], |&high: &Value| builder.add(lows[k], high));
        let both: Vec<Value> = (0..lows.len()).map(both).collect();
        let crosses = convolution(builder, &a_difference, &b_difference, &both, &format!("cross{suffix}_"));
        for k in 0..self.sums.len() {
            let part = |of: &[Value], at: usize| k.checked_sub(at).and_then(|k| of.get(k)).copied();
            let parts = [part(&lows, 0), part(&crosses, low), part(&highs, 2 * low)];
            let before = match self.sums[k] {
                None => self.start(k).map(|half| self.b.constant(Type::I64, half)),
                some => some,
            };
            let sum = parts.into_iter().flatten().chain(before).reduce(|x, y| self.b.add(x, y));
            self.sums[k] = sum.map(|sum| self.b.named(sum, format!("t{k}")));
        }
    }

    /// Clears column i by a multiple of p, and carries what is above its lowest digit.
    fn reduce(&mut self, i: usize) {
        let width = self.radix.width;
        let row = self.rows[i].clone();
        let b = &mut self.b;
        let Some(mut column) = self.sums[i] else { unreachable!("every column has a product") };
        let low = b.convert(column, Type::U32);
        let digit = match row.inverse {
            None => {
                let digit = b.mask(low, width);
                let digit = b.convert(digit, Type::I32);
                b.add_constant(digit, -i128::from(self.radix.half()))
            }
            Some(inverse) => {
                // The digit in the highest bits of a word; the shift extends its sign.
                let factor = ((inverse << (32 - width)) as u32).into();
                let factor: i128 = factor;
                let factor = b.constant(Type::U32, factor);
                let digit = b.mul(low, factor);
                let digit = b.convert(digit, Type::I32);
                b.shr(digit, 32 - width)
            }
        };
        let digit = b.named(digit, "q");
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

    fn carry_into(&mut self, k: usize, carry: Value) {
        let sum = self.sums[k].map_or(carry, |sum| self.b.add(sum, carry));
        self.sums[k] = Some(self.b.named(sum, format!("t{k}")));
    }

    /// The digits of the result: the columns above the cleared ones, carried.
    fn carried(&mut self) -> Vec<Value> {
        let Radix { width, count, .. } = self.radix;
        let mut digits = Vec::with_capacity(count);
        for k in count..2 * count - 1 {
            let Some(column) = self.sums[k] else { unreachable!("every column has a product") };
            let b = &mut self.b;
            let low = b.convert(column, Type::U32);
            let low = b.mask(low, width);
            let digit = b.convert(low, Type::I32);
            let digit = b.add_constant(digit, -i128::from(self.radix.half()));
            digits.push(b.named(digit, format!("r{}", k - count)));
            let carry = b.shr(column, width);
            if k + 1 < 2 * count - 1 {
                self.carry_into(k + 1, carry);
            } else {
                digits.push(b.convert(carry, Type::I32));
            }
        }
        digits
    }
}
