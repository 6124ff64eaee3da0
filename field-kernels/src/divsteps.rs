//! Inversion by division steps, as `shaders/divsteps.glsl` has it: how many steps it takes, and a twin of the shader in which no
//! operation may overflow.

use crate::Field;

/// Bits of a digit.
const WIDTH: usize = 30;

/// An element's limbs in digits.
pub(crate) fn digits(limbs: &[u64]) -> Vec<i32> {
    let bit = |at: usize| limbs.get(at / 64).map_or(0, |limb| limb >> (at % 64) & 1) as i32;
    let count = (64 * limbs.len()).div_ceil(WIDTH);
    (0..count).map(|digit| (0..WIDTH).map(|at| bit(WIDTH * digit + at) << at).sum()).collect()
}

impl Field {
    /// Division steps after which (f, g), from (p, any element) on, is (1, 0), (-1, 0) or, of 0, (p, 0), if delta is 1/2 at first:
    /// (45907 log2(p) + 26313) / 19929, rounded down. Proved by P. Wuille and others, <https://github.com/sipa/safegcd-bounds>,
    /// genproofhd.md, for all 0 <= g <= f <= p: sets of real (f, g), one for each delta, that a step maps into each other shrunk by
    /// a factor, until |g| < 1. The smaller bound for 256 bits, 590, was also proved in Coq.
    pub(crate) const fn divsteps(self) -> usize {
        (45907 * self.bits() + 26313) / 19929
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use num_bigint::{BigInt, Sign};

    const MASK: i32 = (1 << WIDTH) - 1;

    /// The shader's functions, name by name. Plain operators stand where nothing may overflow: a test build panics if it does.
    struct Twin {
        p: Vec<i32>,
        n0: i32,
        batches: usize,
        /// The largest magnitude of a column.
        column: i64,
    }

    type Matrix = [i32; 4];

    fn divsteps(zeta: &mut i32, mut f: i32, mut g: i32) -> Matrix {
        let [mut u, mut v, mut q, mut r] = [1i32, 0, 0, 1];
        for _ in 0..WIDTH {
            let odd = -(g & 1);
            let swap = *zeta >> 31;
            let sign = (swap | 1) & odd;
            let swap = swap & odd;
            // Of f and g the lowest bits alone count.
            g = g.wrapping_add(sign.wrapping_mul(f));
            q += sign * u;
            r += sign * v;
            *zeta = (*zeta ^ swap) - 1;
            f = f.wrapping_sub(swap.wrapping_mul(g));
            u -= swap * q;
            v -= swap * r;
            g >>= 1;
            (u, v) = (2 * u, 2 * v);
        }
        assert!(u.abs() + v.abs() <= 1 << WIDTH && q.abs() + r.abs() <= 1 << WIDTH);
        [u, v, q, r]
    }

    impl Twin {
        fn new(field: Field) -> Self {
            let batches = field.divsteps().div_ceil(WIDTH);
            Self { p: digits(field.modulus()), n0: field.n0() as i32, batches, column: 0 }
        }

        fn add(&mut self, t: i64, a: i32, b: i32) -> i64 {
            let sum = t + i64::from(a) * i64::from(b);
            self.column = self.column.max(sum.abs());
            sum
        }

        fn row(&mut self, (a, b, m): (i32, i32, i32), x: &[i32], y: &[i32]) -> Vec<i32> {
            let mut column = 0;
            let mut result = Vec::new();
            for i in 0..x.len() {
                column = self.add(column, a, x[i]);
                column = self.add(column, b, y[i]);
                column = self.add(column, m, self.p[i]);
                if i > 0 {
                    result.push(column as i32 & MASK);
                } else {
                    assert_eq!(column as i32 & MASK, 0, "divisible");
                }
                column >>= WIDTH;
            }
            result.push(i32::try_from(column).unwrap());
            result
        }

        fn transform(&mut self, [u, v, q, r]: Matrix, f: &[i32], g: &[i32]) -> (Vec<i32>, Vec<i32>) {
            (self.row((u, v, 0), f, g), self.row((q, r, 0), f, g))
        }

        fn transform_modulo(&mut self, [u, v, q, r]: Matrix, d: &[i32], e: &[i32]) -> (Vec<i32>, Vec<i32>) {
            let (negative_d, negative_e) = (d[d.len() - 1] >> 31, e[e.len() - 1] >> 31);
            let multiple = |u: i32, v: i32| {
                let m = (u & negative_d) + (v & negative_e);
                let low = u.wrapping_mul(d[0]).wrapping_add(v.wrapping_mul(e[0]));
                m - (m.wrapping_sub(self.n0.wrapping_mul(low)) & MASK)
            };
            let (m, n) = (multiple(u, v), multiple(q, r));
            (self.row((u, v, m), d, e), self.row((q, r, n), d, e))
        }

        fn adjusted(&self, a: &[i32], mask: i32, negate: i32) -> Vec<i32> {
            let mut carry = 0;
            let last = a.len() - 1;
            let digit = |(i, (&a, &p)): (usize, (&i32, &i32))| {
                let digit = (((a + (p & mask)) ^ negate) - negate) + carry;
                carry = digit >> WIDTH;
                if i < last { digit & MASK } else { digit }
            };
            a.iter().zip(&self.p).enumerate().map(digit).collect()
        }

        fn divided(&mut self, c: &BigInt, a: &BigInt) -> BigInt {
            let count = self.p.len();
            let (mut d, mut e, mut f, mut g) = (vec![0; count], of(c, count), self.p.clone(), of(a, count));
            let p = value(&self.p);
            let mut zeta = -1;
            for _ in 0..self.batches {
                let t = divsteps(&mut zeta, f[0], g[0]);
                (d, e) = self.transform_modulo(t, &d, &e);
                (f, g) = self.transform(t, &f, &g);
                for x in [&d, &e] {
                    assert!(value(x) > -2 * &p && value(x) < p);
                }
                for x in [&f, &g] {
                    assert!(value(x) >= -&p && value(x) <= p);
                }
            }
            assert_eq!(value(&g), BigInt::ZERO);
            let (sign, last) = (f[count - 1] >> 31, d[count - 1] >> 31);
            let d = self.adjusted(&d, last, sign);
            let d = self.adjusted(&d, d[count - 1] >> 31, 0);
            assert!(d.iter().all(|&digit| (0..=MASK).contains(&digit)));
            value(&d)
        }
    }

    fn value(digits: &[i32]) -> BigInt {
        digits.iter().rev().fold(BigInt::ZERO, |value, &digit| (value << WIDTH) + digit)
    }

    fn of(x: &BigInt, count: usize) -> Vec<i32> {
        (0..count).map(|i| i32::try_from((x >> (WIDTH * i)) & BigInt::from(MASK)).unwrap()).collect()
    }

    fn modulus(field: Field) -> BigInt {
        let words: Vec<u32> = field.modulus().iter().flat_map(|&limb| [limb as u32, (limb >> 32) as u32]).collect();
        BigInt::from_slice(Sign::Plus, &words)
    }

    #[test]
    fn inverses_are_those_of_big_integers() {
        for field in Field::ALL {
            let (p, mut twin) = (modulus(field), Twin::new(field));
            assert_eq!(value(&twin.p), p);
            let one = BigInt::from(1);
            let mut elements = vec![BigInt::ZERO, one.clone(), BigInt::from(2), &p - 1, &p - 2, (&p - 1) / 2, (&p + 1) / 2];
            for bit in 1..p.bits() as usize - 1 {
                elements.extend([&one << bit, (&one << bit) - 1, &p - (&one << bit), (&p >> bit) << bit]);
            }
            // Successive inverses and squares have no pattern.
            let mut x: BigInt = &p / 3;
            for step in 0..200 {
                x = (&x * &x + step) % &p;
                elements.push(x.clone());
            }
            let r2 = (&one << (128 * field.limbs())) % &p;
            for a in &elements {
                for c in [&one, &r2] {
                    let got = twin.divided(c, a);
                    assert!(got < p && got.sign() != Sign::Minus);
                    assert_eq!(
                        &got * a % &p,
                        if *a == BigInt::ZERO { BigInt::ZERO } else { c.clone() },
                        "{field} {c} / {a}"
                    );
                }
            }
            println!("{field}: {} steps, columns up to 2^{:.2}", field.divsteps(), (twin.column as f64).log2());
            assert!(twin.column < 1 << 62);
        }
    }

    /// The worst there is: the matrices are as large as they get, and so are the digits.
    #[test]
    fn columns_have_room_for_the_largest_digits() {
        let (matrix, digit) = (1i64 << WIDTH, i64::from(MASK));
        // Of u d + v e with |u| + |v| <= 2^30, of m p, and of what is carried up.
        let sum = matrix * digit + matrix * digit + (1 << 33);
        assert!(sum < 1 << 62 && sum >> WIDTH < 1 << 33);
    }

    #[test]
    fn steps_are_as_many_as_the_bound_says() {
        assert_eq!((Field::Fq.divsteps(), Field::Fr.divsteps()), (878, 588));
    }
}
