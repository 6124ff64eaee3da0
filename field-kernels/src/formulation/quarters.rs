//! Karatsuba's identity twice, in products and in the reduction: nine products of quarters instead of sixteen.
//!
//! Taken apart by every fourth digit, that is; H. Fan, J. Sun, M. Gu, K.-Y. Lam, "Overlap-free Karatsuba-Ofman Polynomial
//! Multiplication Algorithms", IET Information Security 4(1), 2010, have it for halves.
//!
//! A number x = x0 + x1 z + x2 z^2 + x3 z^3, where z is the weight of one digit and x0 has the digits 0, 4, 8, ... of x, x1 the
//! digits 1, 5, 9, ...: such "quarters", taken apart by every fourth digit and not by blocks, line up in the columns of
//! products, so that sums of products are added before they are combined. With L = x0 + x1 z and H = x2 + x3 z,
//!
//! x y = L L' + (L H' + H L') z^2 + H H' z^4, L H' + H L' = L L' + H H' + (L - H) (H' - L'),
//!
//! and the same for each of the three products, L L' = x0 y0 + (x0 y1 + x1 y0) z + x1 y1 z^2. That is nine products of quarters,
//! called by two letters each, for L, H and the difference X.
//!
//! Four columns at a time are reduced by the multiple k p = 1 mod 2^(4 width): their digits, carried, are its Montgomery
//! digits, and (k p - 1) / 2^(4 width) times them is a product of the same form, added to the same sums. That multiple is longer
//! than p by four digits, so the last columns are reduced one by one.

use super::digits::Columns;
use super::program::{Type, Value};
use num_bigint::BigInt;

const KINDS: [&str; 9] = ["ll", "lh", "lx", "hl", "hh", "hx", "xl", "xh", "xx"];
const LL: usize = 0;
const LH: usize = 1;
const LX: usize = 2;
const HL: usize = 3;
const HH: usize = 4;
const HX: usize = 5;
const XL: usize = 6;
const XH: usize = 7;
const XX: usize = 8;

/// One digit of each of the nine kinds of quarters.
type Nine<T> = [Option<T>; 9];

/// L, H and X of a pair, each of them L, H and X of what the pair's elements are.
fn nine<T: Copy>(four: [Option<T>; 4], mut difference: impl FnMut(Option<T>, Option<T>, &str) -> Option<T>) -> Nine<T> {
    let [x0, x1, x2, x3] = four;
    let xl = difference(x0, x2, KINDS[XL]);
    let xh = difference(x1, x3, KINDS[XH]);
    let lx = difference(x0, x1, KINDS[LX]);
    let hx = difference(x2, x3, KINDS[HX]);
    let xx = difference(xl, xh, KINDS[XX]);
    [x0, x1, lx, x2, x3, hx, xl, xh, xx]
}

/// A sum of products of digits, as far as it is computed, and what remains to be added.
#[derive(Clone, Default)]
struct Sum {
    value: Option<Value>,
    products: Vec<(Value, Value)>,
    /// Products to be added twice.
    twice: Vec<(Value, Value)>,
}

/// What sums of kinds add to the columns of the next four.
#[derive(Clone, Copy, Default)]
struct Above {
    zeroth: [Option<Value>; 3],
    first: Option<Value>,
    second: Option<Value>,
}

/// Four columns may be needed before and after something is added to their sums.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pass {
    Only,
    /// There will be more to add.
    First,
    /// Of the upper two columns.
    Second,
}

/// The sums of the nine kinds: number k of each is of weight z^(4 k).
struct Sums(Vec<[Sum; 9]>);

impl Sums {
    /// Digits number i of the left factor's quarters times those of the right one from number 0 on.
    fn add(&mut self, i: usize, left: &Nine<Value>, right: &[Nine<Value>]) {
        for (j, right) in right.iter().enumerate() {
            for kind in 0..9 {
                if let (Some(x), Some(y), Some(sums)) = (left[kind], right[kind], self.0.get_mut(i + j)) {
                    sums[kind].products.push((x, y));
                }
            }
        }
    }
}

impl Columns {
    /// t += a b for each pair of factors, or a^2 for a single one, and reduces as many columns as can be by fours: how many.
    ///
    /// With `throughout`, the highest four of them are reduced by p itself: the product of their digits with p^-1 mod
    /// 2^(4 width) is the Montgomery digits, whose product with p changes these very columns. What is carried out of them then
    /// is c3 / 2^w + c2 / 2^2w + c1 / 2^3w + c0 / 2^4w, an integer. Columns are below 2^63, as the bounds prove, before they are
    /// changed by up to four products of digits, and below 2^64 after it: c1 / 2^2w is below 2^4, and c0 / 2^3w below 1. So c3 +
    /// round(c2 / 2^w) is within 2^5 of a multiple of 2^w, and rounding it to the nearest one finds that.
    pub(super) fn add_quarters(&mut self, factors: &[Vec<Value>], throughout: bool) -> usize {
        let count = self.radix.count;
        // The highest digit of x0 is alone in its four, and so is the highest column: it is of L L' only.
        assert_eq!(count % 4, 1);
        let mut sums = Sums(vec![Default::default(); 2 * (count / 4) + 1]);
        if let [a] = factors {
            self.square_quarters(a, &mut sums);
        }
        for (pair, suffix) in factors.chunks_exact(2).zip(["", "_2"]) {
            let left = self.split(&pair[0], false, &format!("e{suffix}"));
            let right = self.split(&pair[1], true, &format!("f{suffix}"));
            left.iter().enumerate().for_each(|(i, left)| sums.add(i, left, &right));
        }
        // Block i adds a multiple of k p below 2^(4 width (i + 2)) p: not for the last whole four.
        let blocks = count / 4 - 1;
        let multiple = self.multiple_by_fours();
        let mut below = Above::default();
        for k in 0..sums.0.len() {
            let twice = k == blocks && throughout;
            let (columns, above) = self.combined(&mut sums.0[k], k, &below, if twice { Pass::First } else { Pass::Only });
            if k < blocks {
                let (digits, carry) = self.carried_digits(k, &columns);
                self.sums[4 * k + 4] = Some(carry);
                let digits = self.split(&digits, false, &format!("q{}", 4 * k));
                sums.add(k + 1, &digits[0], &multiple);
            } else if twice {
                let digits = self.quotient(k, &columns);
                let digits = self.split(&digits, false, &format!("q{}", 4 * k));
                let modulus = self.modulus_by_fours();
                sums.add(k, &digits[0], &modulus);
                let (columns, above) = self.combined(&mut sums.0[k], k, &below, Pass::Second);
                let carry = self.b.shr(columns[0], self.radix.width);
                let carry = self.b.add(columns[1], carry);
                self.sums[4 * k + 4] = Some(self.b.shr(carry, self.radix.width));
                below = above;
                continue;
            } else {
                for (column, sum) in (4 * k..).zip(columns) {
                    // Each has half a digit in it, by the sums of L L': too much if it is reduced alone and by p itself.
                    let excess = self.radix.half() - self.start(column);
                    let sum = if excess > 0 { self.b.add_constant(sum, -excess) } else { sum };
                    self.carry_into(column, sum);
                }
            }
            below = above;
        }
        4 * (blocks + usize::from(throughout))
    }

    /// The quarters' squares. The right factor's X is -X of the left one: its products are subtracted.
    fn square_quarters(&mut self, a: &[Value], sums: &mut Sums) {
        let left = self.split(a, false, "e");
        let right = self.split(a, true, "f");
        for (j, right) in right.iter().enumerate() {
            sums.0[2 * j].iter_mut().zip(left[j].iter().zip(right)).for_each(|(sum, (&x, &y))| {
                sum.products.extend(x.zip(y));
            });
            for kind in 0..9 {
                let Some(y) = right[kind] else { continue };
                // Twice XX might not fit 32 bits: it is a difference of differences.
                let twice = (kind != XX && j > 0).then(|| {
                    let twice = self.b.add(y, y);
                    self.b.named(twice, format!("twice_{}{j}", KINDS[kind]))
                });
                for (i, left) in left[..j].iter().enumerate() {
                    let sum = &mut sums.0[i + j][kind];
                    match twice {
                        Some(twice) => sum.products.extend(left[kind].map(|x| (x, twice))),
                        None => sum.twice.extend(left[kind].map(|x| (x, y))),
                    }
                }
            }
        }
    }

    /// The digits of four columns, each with half a digit in it, and what is carried out of them.
    fn carried_digits(&mut self, k: usize, columns: &[Value]) -> (Vec<Value>, Value) {
        let mut carry = self.sums[4 * k];
        let mut digits = Vec::new();
        for (column, &sum) in (4 * k..).zip(columns) {
            let sum = carry.map_or(sum, |carry| self.b.add(sum, carry));
            let sum = self.b.named(sum, format!("t{column}"));
            let digit = self.rounded(sum);
            digits.push(self.b.named(digit, format!("q{column}")));
            carry = Some(self.b.shr(sum, self.radix.width));
        }
        let Some(carry) = carry else { unreachable!("there are four columns") };
        (digits, carry)
    }

    /// The digits of p^-1 mod 2^(4 width) times four columns.
    fn quotient(&mut self, k: usize, columns: &[Value]) -> Vec<Value> {
        let width = self.radix.width;
        let mut digits = Vec::new();
        let mut carry = self.sums[4 * k];
        for (j, &sum) in columns.iter().enumerate() {
            let sum = carry.map_or(sum, |carry| self.b.add(sum, carry));
            if j < 3 {
                let sum = self.b.named(sum, format!("t{}", 4 * k + j));
                let digit = self.rounded(sum);
                digits.push(self.b.named(digit, format!("u{j}")));
                carry = Some(self.b.shr(sum, width));
            } else {
                // Of the highest, only what it is modulo 2^width counts, and it has half a digit too much.
                let sum = self.b.convert(sum, Type::U32);
                let sum = self.b.add_constant(sum, i128::from((-self.radix.half()) as u32));
                let digit = self.b.convert(sum, Type::I32);
                digits.push(self.b.named(digit, "u3"));
            }
        }
        let inverse = self.radix.inverse(4 * width as usize);
        let inverse = self.radix.balanced_modulo(&inverse, 4);
        let mut quotient = Vec::new();
        let mut carry = None;
        for j in 0..3 {
            let half = self.constant(self.radix.half());
            let start = match carry {
                None => half,
                Some(carry) => half.map(|half| self.b.add(carry, half)),
            };
            let mut products = Vec::new();
            for i in 0..=j {
                products.push((digits[i], self.b.constant(Type::I32, inverse[j - i])));
            }
            let Some(sum) = self.sum(start, &products, format!("n{j}")) else { unreachable!("it has a start") };
            let digit = self.rounded(sum);
            quotient.push(self.b.named(digit, format!("m{j}")));
            carry = Some(self.b.shr(sum, width));
        }
        let mut last = carry.map(|carry| self.b.convert(carry, Type::U32));
        for i in 0..4 {
            let digit = self.b.convert(digits[i], Type::U32);
            let factor = self.b.constant(Type::U32, i128::from(inverse[3 - i] as u32));
            let product = self.b.mul(digit, factor);
            last = last.map(|last| self.b.add(last, product));
        }
        let Some(last) = last else { unreachable!("there was a carry") };
        let last = self.b.shl(last, 32 - width);
        let last = self.b.convert(last, Type::I32);
        let last = self.b.shr(last, 32 - width);
        quotient.push(self.b.named(last, "m3"));
        quotient
    }

    /// The quarters of a number, by digits: of a right factor, differences have the other sign.
    fn split(&mut self, digits: &[Value], right: bool, name: &str) -> Vec<Nine<Value>> {
        let split = |(j, four): (usize, &[Value])| {
            let four = std::array::from_fn(|phase| four.get(phase).copied());
            nine(four, |x, y, kind| {
                let (x, y) = if right { (y, x) } else { (x, y) };
                self.difference(x, y, format!("{name}_{kind}{j}"))
            })
        };
        digits.chunks(4).enumerate().map(split).collect()
    }

    /// -(k p - 1) / 2^(4 width) as a right factor, k = p^-1 mod 2^(4 width), balanced.
    fn multiple_by_fours(&mut self) -> Vec<Nine<Value>> {
        let bits = 4 * self.radix.width as usize;
        let mut k = self.radix.inverse(bits);
        if k.bits() as usize == bits {
            k -= BigInt::from(1) << bits;
        }
        let multiple: BigInt = (k * self.radix.modulus() - 1i32) >> bits;
        self.constants_by_fours(&-multiple)
    }

    /// -p as a right factor.
    fn modulus_by_fours(&mut self) -> Vec<Nine<Value>> {
        let modulus = self.radix.modulus();
        self.constants_by_fours(&-modulus)
    }

    fn constants_by_fours(&mut self, x: &BigInt) -> Vec<Nine<Value>> {
        let digits = self.radix.balanced(x, self.radix.count);
        let split = digits.chunks(4).map(|four| {
            let four = std::array::from_fn(|phase| four.get(phase).copied());
            nine(four, |x, y, _| Some(y.unwrap_or(0) - x.unwrap_or(0)))
        });
        split.map(|nine| nine.map(|x| x.filter(|&x| x != 0).map(|x| self.b.constant(Type::I32, x)))).collect()
    }

    /// Adds up what remains of one of the nine sums, on top of something.
    fn completed(&mut self, sum: &mut Sum, start: Option<Value>, name: String) -> Option<Value> {
        let Sum { value, products, twice } = std::mem::take(sum);
        let twice = self.sum(None, &twice, format!("{name}_half"));
        let start = self.total([value, start, twice, twice]);
        sum.value = if products.is_empty() { start } else { self.sum(start, &products, name) };
        sum.value
    }

    /// The columns 4 k to 4 k + 3, or those of them that the pass wants and that there are, from the sums of the nine kinds;
    /// and what those sums add to higher columns. `below` is what those of k - 1 do.
    fn combined(&mut self, sums: &mut [Sum; 9], k: usize, below: &Above, pass: Pass) -> (Vec<Value>, Above) {
        let mut sum =
            |this: &mut Self, kind: usize, start| this.completed(&mut sums[kind], start, format!("{}{k}", KINDS[kind]));
        let half = if pass == Pass::Second { None } else { self.constant(self.radix.half()) };
        let ll = sum(self, LL, half);
        if 4 * k + 1 == self.sums.len() {
            let zeroth = self.total([ll, below.zeroth[0], below.zeroth[1], below.zeroth[2]]);
            return (zeroth.into_iter().collect(), Above::default());
        }
        let [lh, hl, hh, xl, xh] = [LH, HL, HH, XL, XH].map(|kind| sum(self, kind, None));
        // On top of something, unless the sum itself will be needed again.
        let mut on_top = |this: &mut Self, kind, start, name: &str| match pass {
            Pass::First => {
                let alone = sum(this, kind, None);
                this.total([start, alone]).map(|sum| this.b.named(sum, format!("{name}{k}")))
            }
            Pass::Only | Pass::Second => sum(this, kind, start),
        };
        let low = self.total([ll, lh]).map(|low| self.b.named(low, format!("low{k}")));
        let high = self.total([hl, hh]).map(|high| self.b.named(high, format!("high{k}")));
        // The middle of L L' and that of H H'.
        let low_middle = on_top(self, LX, low, "low_middle");
        let high_middle = on_top(self, HX, high, "high_middle");
        let mut columns = Vec::new();
        if pass != Pass::Second {
            columns.extend(self.total([ll, below.zeroth[0], below.zeroth[1], below.zeroth[2]]));
            columns.extend(self.total([low_middle, below.first]));
        }
        columns.extend(self.total([low, xl, hl, below.second]));
        let third = self.total([low_middle, high_middle, xl, xh]);
        columns.extend(on_top(self, XX, third, "third"));
        (columns, Above { zeroth: [high, lh, xh], first: high_middle, second: hh })
    }

    /// The sum of those that there are.
    fn total<const N: usize>(&mut self, terms: [Option<Value>; N]) -> Option<Value> {
        terms.into_iter().flatten().reduce(|x, y| self.b.add(x, y))
    }
}
