//! Inverses of many elements together.

use crate::LimbField;
use ark_ff::batch_inversion;
use rayon::prelude::*;

/// Elements handed to one thread at a time: Montgomery's trick wants many.
const PIECE: usize = 1024;

/// 1 / a into `inverses`, and 0 where a is 0, in Montgomery form; the first position at which a is 0.
pub fn inverses<F: LimbField>(a: &[u64], inverses: &mut [u64]) -> Option<usize> {
    let (a, inverses) = (F::elements(a), F::elements_mut(inverses));
    inverses.par_chunks_mut(PIECE).zip(a.par_chunks(PIECE)).for_each(|(inverses, a)| {
        inverses.copy_from_slice(a);
        batch_inversion(inverses);
    });
    a.par_iter().position_first(F::is_zero)
}

/// The first position at which `inverses` are not those of a, canonical, or 0 where a is 0. Exact: a x = 1 proves x, and costs one
/// multiplication where computing x takes three.
pub fn first_wrong_inverse<F: LimbField>(a: &[u64], inverses: &[u64]) -> Option<usize> {
    let right = |(a, x): (&F, &F)| {
        // A value that is not canonical could still pass.
        let canonical = F::limbs(std::slice::from_ref(x)).iter().rev().lt(F::MODULUS.as_ref().iter().rev());
        canonical && if a.is_zero() { x.is_zero() } else { (*a * x).is_one() }
    };
    F::elements(a).par_iter().zip(F::elements(inverses)).with_min_len(64).position_first(|pair| !right(pair))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_bls12_381::{Fq, Fr};
    use ark_ff::{Field as _, PrimeField as _};

    fn agree_one_by_one<F: LimbField>() {
        for length in [0u64, 1, 2, 1023, 1024, 1025, 3000] {
            let a: Vec<F> = (0..length).map(|i| F::from(i % 1500) - F::from(7u64)).collect();
            let mut x = vec![F::ONE; a.len()];
            let zero = inverses::<F>(F::limbs(&a), F::limbs_mut(&mut x));
            assert_eq!(zero, if length > 7 { Some(7) } else { None });
            assert!(a.iter().zip(&x).all(|(a, x)| a.inverse().unwrap_or(F::ZERO) == *x));
            assert_eq!(first_wrong_inverse::<F>(F::limbs(&a), F::limbs(&x)), None);
            for wrong in [0, 7, a.len() / 2, a.len().saturating_sub(1)] {
                if let Some(at) = x.get(wrong).copied() {
                    x[wrong] += F::ONE;
                    assert_eq!(first_wrong_inverse::<F>(F::limbs(&a), F::limbs(&x)), Some(wrong));
                    x[wrong] = at;
                }
            }
        }
    }

    #[test]
    fn inverses_agree_one_by_one() {
        agree_one_by_one::<Fq>();
        agree_one_by_one::<Fr>();
        // 1 + p is congruent to the inverse of 1, but not what it is.
        let mut not_canonical = Fr::ONE;
        let limbs = Fr::limbs_mut(std::slice::from_mut(&mut not_canonical));
        let carry = limbs.iter_mut().zip(Fr::MODULUS.0).fold(false, |carry, (limb, p)| {
            let (sum, over) = limb.overflowing_add(p);
            let (sum, more) = sum.overflowing_add(carry.into());
            *limb = sum;
            over || more
        });
        assert!(!carry);
        assert_eq!(first_wrong_inverse::<Fr>(Fr::limbs(&[Fr::ONE]), Fr::limbs(&[not_canonical])), Some(0));
    }
}
