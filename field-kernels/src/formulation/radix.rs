//! Numbers as digits: a field, the width and the number of its digits, and what follows from them.

use crate::Field;
use num_bigint::{BigInt, Sign};

/// Balanced digits: an element is the sum of d\[j\] 2^(width j), each digit but the highest in \[-2^(width-1), 2^(width-1)).
/// The Montgomery radix R' is 2^(width count).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Radix {
    pub(super) field: Field,
    pub(super) width: u32,
    pub(super) count: usize,
}

/// One step of a reduction, which clears the lowest column c by subtracting a multiple of p.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// p^-1 mod 2^width, where the multiple is (c p^-1 mod 2^width) p. `None` where it is (c mod 2^width) k p with k p = 1 mod
    /// 2^(width `first`): there c's digit is its own Montgomery digit, and subtracting it from c leaves the carry.
    pub(super) inverse: Option<i64>,
    /// How many columns above c the first of `digits` stands.
    pub(super) first: usize,
    /// p, or (k p - 1) / 2^(width `first`), in balanced digits. The highest may be wider than the others.
    pub(super) digits: Vec<i64>,
}

fn integer(limbs: &[u64]) -> BigInt {
    let words: Vec<u32> = limbs.iter().flat_map(|&limb| [limb as u32, (limb >> 32) as u32]).collect();
    BigInt::from_slice(Sign::Plus, &words)
}

fn power_of_two(exponent: usize) -> BigInt {
    BigInt::from(1) << exponent
}

/// What is left of x, from 0 up to the modulus.
pub(super) fn modulo(x: &BigInt, modulus: &BigInt) -> BigInt {
    ((x % modulus) + modulus) % modulus
}

/// The lowest 64 bits, in two's complement.
pub(super) fn low_word(x: &BigInt) -> i64 {
    modulo(x, &power_of_two(64)).iter_u64_digits().next().unwrap_or(0) as i64
}

impl Radix {
    pub(super) fn modulus(self) -> BigInt {
        integer(self.field.modulus())
    }

    /// 32-bit words of an element.
    pub(super) const fn words(self) -> usize {
        2 * self.field.limbs()
    }

    /// log2(R' / R).
    pub(super) const fn shift(self) -> u32 {
        self.width * self.count as u32 - 32 * self.words() as u32
    }

    /// 2^(width - 1).
    pub(super) const fn half(self) -> i64 {
        1 << (self.width - 1)
    }

    /// The number all of whose digits are 2^(width - 1). Adding it makes unsigned digits of balanced ones.
    pub(super) fn bias(self) -> BigInt {
        (0..self.count).map(|j| BigInt::from(self.half()) << (self.width as usize * j)).sum()
    }

    /// x modulo 2^(32 words), as words.
    pub(super) fn to_words(x: &BigInt, words: usize) -> Vec<u32> {
        (0..words).map(|k| low_word(&(x >> (32 * k))) as u32).collect()
    }

    /// x in `count` balanced digits, the last of which is whatever remains.
    pub(super) fn balanced(self, x: &BigInt, count: usize) -> Vec<i64> {
        let mut rest = x.clone();
        let mut digits = Vec::with_capacity(count);
        for _ in 1..count {
            let digit = (low_word(&rest) << (64 - self.width)) >> (64 - self.width);
            rest = (rest - digit) >> self.width;
            digits.push(digit);
        }
        digits.push(low_word(&rest));
        assert_eq!(BigInt::from(low_word(&rest)), rest, "the highest digit is too large");
        digits
    }

    /// x in `count` balanced digits, modulo 2^(width count): the last one, too, is balanced.
    pub(super) fn balanced_modulo(self, x: &BigInt, count: usize) -> Vec<i64> {
        let mut digits = self.balanced(x, count);
        if let Some(last) = digits.last_mut() {
            *last = (*last << (64 - self.width)) >> (64 - self.width);
        }
        digits
    }

    /// The integer that digits stand for.
    #[cfg(test)]
    pub(super) fn value(self, digits: &[i128]) -> BigInt {
        digits.iter().rev().fold(BigInt::ZERO, |value, &digit| (value << self.width) + digit)
    }

    /// p^-1 mod 2^bits.
    pub(super) fn inverse(self, bits: usize) -> BigInt {
        // Newton's iteration: an inverse modulo 2^k yields one modulo 2^2k.
        let (p, modulus) = (self.modulus(), power_of_two(bits));
        let mut inverse = BigInt::from(1);
        let mut known = 1;
        while known < bits {
            inverse = (&inverse * (BigInt::from(2) - &p * &inverse)) % &modulus;
            known *= 2;
        }
        modulo(&inverse, &modulus)
    }

    /// The steps of a reduction, lowest column first, by multiples k p that are 1 modulo up to `skip` digits (H. Orup,
    /// "Simplifying Quotient Determination in High-Radix Modular Multiplication", ARITH 1995).
    ///
    /// k is short for both fields: p 0x30003 = 1 mod 2^32 and p 0x300030003 = 1 mod 2^48 for Fq, p = 1 mod 2^32 for Fr. Still
    /// k p is longer than p: row i may take it if k is below 2^(width (count - 1 - i)), so that what is subtracted is no more
    /// than a digit times p 2^(width (count - 1)), as in the last row.
    pub(super) fn rows(self, skip: usize) -> Vec<Row> {
        (0..self.count)
            .map(|i| {
                let width = self.width as usize;
                let short = (1..=skip).rev().find_map(|first| {
                    let k = self.inverse(width * first);
                    (k.bits() as usize - 1 <= width * (self.count - 1 - i)).then_some((k, first))
                });
                let p = self.modulus();
                match short {
                    None => {
                        let inverse = self.balanced(&self.inverse(width), 2)[0];
                        Row { inverse: Some(inverse), first: 0, digits: self.balanced(&p, self.count) }
                    }
                    Some((k, first)) => {
                        let rest: BigInt = (k * p - 1u32) >> (width * first);
                        // Up to the highest column that products reach, `count` above this one.
                        let digits = self.balanced(&rest, (self.count + 1 - first).min(rest.bits() as usize / width + 1));
                        Row { inverse: None, first, digits }
                    }
                }
            })
            .collect()
    }

    /// The highest digit of 2^shift (p - 1): that of any operand is no larger.
    #[cfg(test)]
    pub(super) fn top(self, shift: u32) -> i64 {
        let largest: BigInt = (self.modulus() - 1u32) << shift;
        self.balanced(&largest, self.count)[self.count - 1]
    }
}
