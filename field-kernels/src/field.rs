//! A field is parameters only: everything a kernel needs to know is derived from the modulus, at compile time.

/// One of the two prime fields of BLS12-381.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// The base field, in which curve points have their coordinates: 381 bits, six 64-bit limbs.
    Fq,
    /// The scalar field, whose elements are exponents of points: 255 bits, four 64-bit limbs.
    Fr,
}

/// The parameters of Montgomery arithmetic modulo p with R = 2^(64 N), as N little-endian 64-bit limbs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constants<const N: usize> {
    /// p, the modulus.
    pub modulus: [u64; N],
    /// R mod p: the Montgomery form of 1.
    pub r: [u64; N],
    /// R^2 mod p: multiplying by it takes an integer into Montgomery form.
    pub r2: [u64; N],
    /// The bits of p.
    pub bits: usize,
    /// 2^(2 bits) mod p: what the multiples of 2^(2 bits) in a sum of products are worth.
    pub fold: [u64; N],
    /// -p^-1 mod 2^32: the factor that clears a low 32-bit word.
    pub n0: u32,
}

/// p = 0x1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab
const FQ: Constants<6> = Constants::derive([
    0xb9fe_ffff_ffff_aaab,
    0x1eab_fffe_b153_ffff,
    0x6730_d2a0_f6b0_f624,
    0x6477_4b84_f385_12bf,
    0x4b1b_a7b6_434b_acd7,
    0x1a01_11ea_397f_e69a,
]);

/// p = 0x73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001
const FR: Constants<4> =
    Constants::derive([0xffff_ffff_0000_0001, 0x53bd_a402_fffe_5bfe, 0x3339_d808_09a1_d805, 0x73ed_a753_299d_7d48]);

// What the bounds in shaders/field.glsl rest on.
const _: () = assert!(FQ.suits_the_kernels() && FR.suits_the_kernels());
// sqrt is a power: p = 3 mod 4.
const _: () = assert!(FQ.modulus[0] & 3 == 3);

impl<const N: usize> Constants<N> {
    const fn derive(modulus: [u64; N]) -> Self {
        let bits = 64 * N - modulus[N - 1].leading_zeros() as usize;
        Self {
            modulus,
            r: power_of_two(64 * N, &modulus),
            r2: power_of_two(128 * N, &modulus),
            bits,
            fold: power_of_two(2 * bits, &modulus),
            n0: negated_inverse(modulus[0] as u32),
        }
    }

    const fn suits_the_kernels(&self) -> bool {
        self.modulus[0] & 1 == 1 && self.modulus[N - 1] >> 32 < 0x7fff_ffff
    }
}

/// -odd^-1 mod 2^32, by Newton's iteration: an inverse modulo 2^k yields one modulo 2^2k.
const fn negated_inverse(odd: u32) -> u32 {
    let mut inverse = 1u32;
    let mut round = 0;
    while round < 5 {
        inverse = inverse.wrapping_mul(2u32.wrapping_sub(odd.wrapping_mul(inverse)));
        round += 1;
    }
    inverse.wrapping_neg()
}

/// 2^exponent mod p, by doubling; p below half the range, so a doubled value never overflows.
const fn power_of_two<const N: usize>(exponent: usize, modulus: &[u64; N]) -> [u64; N] {
    let mut value = [0u64; N];
    value[0] = 1;
    let mut round = 0;
    while round < exponent {
        let mut doubled = [0u64; N];
        let mut i = 0;
        while i < N {
            doubled[i] = value[i] << 1 | if i > 0 { value[i - 1] >> 63 } else { 0 };
            i += 1;
        }
        let (reduced, borrow) = borrowing_sub(&doubled, modulus);
        value = if borrow { doubled } else { reduced };
        round += 1;
    }
    value
}

const fn borrowing_sub<const N: usize>(a: &[u64; N], b: &[u64; N]) -> ([u64; N], bool) {
    let mut difference = [0u64; N];
    let mut borrow = false;
    let mut i = 0;
    while i < N {
        let (d, b0) = a[i].overflowing_sub(b[i]);
        let (d, b1) = d.overflowing_sub(borrow as u64);
        difference[i] = d;
        borrow = b0 | b1;
        i += 1;
    }
    (difference, borrow)
}

impl Field {
    /// Both fields.
    pub const ALL: [Field; 2] = [Field::Fq, Field::Fr];

    /// The field's name in lower case: `fq` or `fr`.
    pub const fn name(self) -> &'static str {
        match self {
            Field::Fq => "fq",
            Field::Fr => "fr",
        }
    }

    /// Little-endian 64-bit limbs per element: 6 for Fq, 4 for Fr.
    pub const fn limbs(self) -> usize {
        self.modulus().len()
    }

    /// Bytes per element: 48 for Fq, 32 for Fr.
    pub const fn bytes(self) -> usize {
        8 * self.limbs()
    }

    /// The modulus p.
    pub const fn modulus(self) -> &'static [u64] {
        match self {
            Field::Fq => &FQ.modulus,
            Field::Fr => &FR.modulus,
        }
    }

    /// R mod p with R = 2^(64 limbs): the Montgomery form of 1.
    pub const fn r(self) -> &'static [u64] {
        match self {
            Field::Fq => &FQ.r,
            Field::Fr => &FR.r,
        }
    }

    /// R^2 mod p.
    pub const fn r2(self) -> &'static [u64] {
        match self {
            Field::Fq => &FQ.r2,
            Field::Fr => &FR.r2,
        }
    }

    /// The bits of the modulus: 381 for Fq, 255 for Fr.
    pub const fn bits(self) -> usize {
        match self {
            Field::Fq => FQ.bits,
            Field::Fr => FR.bits,
        }
    }

    /// 2^(2 bits) mod p.
    pub const fn fold(self) -> &'static [u64] {
        match self {
            Field::Fq => &FQ.fold,
            Field::Fr => &FR.fold,
        }
    }

    /// -p^-1 mod 2^32.
    pub const fn n0(self) -> u32 {
        match self {
            Field::Fq => FQ.n0,
            Field::Fr => FR.n0,
        }
    }

    /// floor(2^(bits + 31) / p), or one less: at least 2^31, and below 2^32.
    pub const fn reciprocal(self) -> u32 {
        let (modulus, bits) = (self.modulus(), self.bits());
        let (top, shift) = (modulus.len() - 1, bits % 64);
        let highest = modulus[top] << (64 - shift) | modulus[top - 1] >> shift;
        ((1u128 << 95) / (highest as u128 + 1)) as u32
    }

    /// Whether every element of a vector of them is below the modulus.
    pub fn all_canonical(self, elements: &[u64]) -> bool {
        fn all<const LIMBS: usize>(modulus: &[u64], elements: &[u64], exactly: impl Fn(&[u64]) -> bool) -> bool {
            let top = modulus[LIMBS - 1];
            // The highest limb decides nearly always; of a few elements at a time, so that there is hardly a branch.
            elements.chunks(8 * LIMBS).all(|chunk| {
                let decided = chunk.chunks_exact(LIMBS).fold(true, |all, element| all & (element[LIMBS - 1] < top));
                decided || chunk.chunks_exact(LIMBS).all(&exactly)
            })
        }
        let exactly = |element: &[u64]| self.is_canonical(element);
        match self {
            Field::Fq => all::<6>(self.modulus(), elements, exactly),
            Field::Fr => all::<4>(self.modulus(), elements, exactly),
        }
    }

    /// Whether `element`, as many limbs as the field has, is below the modulus.
    pub fn is_canonical(self, element: &[u64]) -> bool {
        let modulus = self.modulus();
        // The highest limb decides nearly always.
        element.last() < modulus.last() || element.iter().rev().lt(modulus.iter().rev())
    }
}

impl std::fmt::Display for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Field::Fq => "Fq",
            Field::Fr => "Fr",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_element_that_is_too_large_is_found_wherever_it_is() {
        for field in Field::ALL {
            let limbs = field.limbs();
            let mut below = field.modulus().to_vec();
            below[0] -= 1;
            for length in [0, 1, 7, 8, 9, 30] {
                let mut elements = below.repeat(length);
                assert!(field.all_canonical(&elements));
                for index in 0..length {
                    elements[index * limbs] += 1;
                    assert!(!field.all_canonical(&elements));
                    elements[index * limbs] -= 1;
                }
            }
        }
    }
    use num_bigint::BigUint;

    fn integer(limbs: &[u64]) -> BigUint {
        limbs.iter().rev().fold(BigUint::ZERO, |acc, limb| (acc << 64) + limb)
    }

    #[test]
    fn constants_follow_their_formulas() {
        for field in Field::ALL {
            let p = integer(field.modulus());
            let r = BigUint::from(1u32) << (64 * field.limbs());
            assert_eq!(integer(field.r()), &r % &p);
            assert_eq!(integer(field.r2()), &r * &r % &p);
            // n0 p = -1 mod 2^32
            assert_eq!(field.n0().wrapping_mul(field.modulus()[0] as u32), u32::MAX);
            let reciprocal = (BigUint::from(1u32) << (field.bits() + 31)) / &p;
            assert!(reciprocal < BigUint::from(1u64 << 32));
            assert!([reciprocal.clone(), reciprocal - 1u32].contains(&field.reciprocal().into()));
        }
    }

    #[test]
    fn canonical_means_below_the_modulus() {
        for field in Field::ALL {
            let p = field.modulus().to_vec();
            assert!(!field.is_canonical(&p));
            assert!(field.is_canonical(&vec![0; field.limbs()]));
            let mut below = p.clone();
            below[0] -= 1;
            assert!(field.is_canonical(&below));
            let mut above = p;
            above[0] += 1;
            assert!(!field.is_canonical(&above));
            assert!(!field.is_canonical(&vec![u64::MAX; field.limbs()]));
        }
    }
}
