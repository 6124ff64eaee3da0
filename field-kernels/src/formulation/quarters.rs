//! Karatsuba's identity twice, in products and in the reduction: nine products of quarters instead of sixteen.
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
use super::radix::Radix;
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

/// The products, by kind and column, that remain to be added up: column K of a kind is of weight z^(4 K).
struct Products(Vec<[Vec<(Value, Value)>; 9]>);

impl Products {
    /// One left digit, number i of its quarter, times right digits from number 0 on.
    fn add(&mut self, i: usize, left: &Nine<Value>, right: &[Nine<Value>]) {
        for (j, right) in right.iter().enumerate() {
            for kind in 0..9 {
                if let (Some(x), Some(y), Some(sums)) = (left[kind], right[kind], self.0.get_mut(i + j)) {
                    sums[kind].push((x, y));
                }
            }
        }
    }
}

impl Columns {
    /// t += a b for each pair of factors, and reduces as many columns as can be by fours: how many.
    pub(super) fn add_quarters(&mut self, factors: &[Vec<Value>]) -> usize {
        let Radix { width, count, .. } = self.radix;
        let quarter = count.div_ceil(4);
        // The highest digit of x0 is alone in its four, and so is the highest column: it is of L L' only.
        assert_eq!(count % 4, 1);
        let mut products = Products((1..2 * quarter).map(|_| Default::default()).collect());
        for (pair, suffix) in factors.chunks_exact(2).zip(["", "_2"]) {
            let left = self.split(&pair[0], false, &format!("e{suffix}"));
            let right = self.split(&pair[1], true, &format!("f{suffix}"));
            left.iter().enumerate().for_each(|(i, left)| products.add(i, left, &right));
        }
        let multiple = self.multiple_by_fours();
        // The multiple k p of block i is below 2^(4 width) p, and so are the block's digits.
        let blocks = (count - 1) / 4 - 1;
        let mut below = [None; 3];
        for k in 0..2 * quarter - 1 {
            let columns = self.combined(k, &products.0[k], &mut below);
            for (phase, &column) in columns.iter().enumerate() {
                let carry = self.sums[4 * k + phase];
                let sum = carry.map_or(column, |carry| self.b.add(column, carry));
                // Each has half a digit in it, by the sums of L L': too much if it is reduced alone and by p itself.
                let excess = if k < blocks { 0 } else { self.radix.half() - self.start(4 * k + phase) };
                let sum = if excess > 0 { self.b.add_constant(sum, -excess) } else { sum };
                self.sums[4 * k + phase] = Some(self.b.named(sum, format!("t{}", 4 * k + phase)));
                if k < blocks {
                    let carry = self.b.shr(sum, width);
                    self.sums[4 * k + phase + 1] = Some(carry);
                }
            }
            if k < blocks {
                let digits: Vec<Value> = (4 * k..4 * k + 4)
                    .map(|column| {
                        let Some(sum) = self.sums[column] else { unreachable!("it was just made") };
                        let digit = self.rounded(sum);
                        self.b.named(digit, format!("q{column}"))
                    })
                    .collect();
                let digits = self.split(&digits, false, &format!("q{}", 4 * k));
                products.add(k + 1, &digits[0], &multiple);
            }
        }
        4 * blocks
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
        let Radix { width, count, .. } = self.radix;
        let bits = 4 * width as usize;
        let mut k = self.radix.inverse(bits);
        if k.bits() as usize == bits {
            k -= BigInt::from(1) << bits;
        }
        let multiple: BigInt = (k * self.radix.modulus() - 1i32) >> bits;
        let multiple = -multiple;
        let digits = self.radix.balanced(&multiple, count);
        let split = digits.chunks(4).map(|four| {
            let four = std::array::from_fn(|phase| four.get(phase).copied());
            nine(four, |x, y, _| Some(y.unwrap_or(0) - x.unwrap_or(0)))
        });
        split.map(|nine| nine.map(|x| x.filter(|&x| x != 0).map(|x| self.b.constant(Type::I32, x)))).collect()
    }

    /// The columns 4 k to 4 k + 3, as far as there are any, from the sums of the nine kinds; `below` is what those of k - 1 add
    /// to columns of k, and then what those of k add to the next.
    fn combined(&mut self, k: usize, products: &[Vec<(Value, Value)>; 9], below: &mut [Option<Value>; 3]) -> Vec<Value> {
        let half = self.b.constant(Type::I64, self.radix.half());
        let sum = |this: &mut Self, kind: usize, start| this.sum(start, &products[kind], format!("{}{k}", KINDS[kind]));
        let ll = sum(self, LL, Some(half));
        let zeroth = self.total([ll, below[0]]);
        if 4 * k + 1 == self.sums.len() {
            return zeroth.into_iter().collect();
        }
        let [lh, hl, hh, xl, xh] = [LH, HL, HH, XL, XH].map(|kind| sum(self, kind, None));
        let low = self.total([ll, lh]).map(|low| self.b.named(low, format!("low{k}")));
        let high = self.total([hl, hh]).map(|high| self.b.named(high, format!("high{k}")));
        // The middle of L L' and that of H H'.
        let low_middle = sum(self, LX, low);
        let high_middle = sum(self, HX, high);
        let first = self.total([low_middle, below[1]]);
        let second = self.total([low, xl, hl, below[2]]);
        let third = self.total([low_middle, high_middle, xl, xh]);
        let third = sum(self, XX, third);
        let above = self.total([high, lh, xh]).map(|above| self.b.named(above, format!("above{k}")));
        *below = [above, high_middle, hh];
        [zeroth, first, second, third].into_iter().flatten().collect()
    }

    /// The sum of those that there are.
    fn total<const N: usize>(&mut self, terms: [Option<Value>; N]) -> Option<Value> {
        terms.into_iter().flatten().reduce(|x, y| self.b.add(x, y))
    }
}
