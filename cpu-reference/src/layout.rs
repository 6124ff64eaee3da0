//! Vectors of field elements as limbs and back, without a copy. All of this crate's `unsafe` is here.

use ark_ff::PrimeField;
use std::alloc::{Layout, alloc_zeroed};

/// A field of arkworks whose elements are, byte for byte, `LIMBS` little-endian 64-bit limbs.
pub trait LimbField: PrimeField + sealed::Sealed {
    /// 64-bit limbs per element.
    const LIMBS: usize;
    /// The limbs of a vector of elements. They are the elements' Montgomery form.
    fn limbs(elements: &[Self]) -> &[u64];
    /// The limbs of a vector of elements, to be written: whole elements, each below the modulus.
    fn limbs_mut(elements: &mut [Self]) -> &mut [u64];
    /// Limbs seen as elements, whatever form they are in; as many elements as fit.
    fn elements(limbs: &[u64]) -> &[Self];
    /// Limbs seen as elements, to be written; as many elements as fit.
    fn elements_mut(limbs: &mut [u64]) -> &mut [Self];
    /// The element whose limbs, read as an integer, are `value`.
    fn from_raw(value: u64) -> Self;
    /// The element whose limbs, read as an integer, are R^2 mod p: as a field element, R.
    fn radix() -> Self;
}

macro_rules! limb_field {
    ($field:ty, $limbs:literal) => {
        // arkworks does not promise the layout of its elements. What the casts below rest on is asserted here instead: the
        // limbs begin at offset 0 and fill the whole element, whose alignment is a limb's.
        const _: () = {
            assert!(std::mem::size_of::<$field>() == 8 * $limbs && std::mem::align_of::<$field>() == align_of::<u64>());
            assert!(std::mem::offset_of!($field, 0) == 0 && std::mem::offset_of!(ark_ff::BigInt<$limbs>, 0) == 0);
        };
        // In memory a limb's bytes must be in the order of a 32-bit kernel's words.
        const _: () = assert!(cfg!(target_endian = "little"), "bls12_field_gpu needs a little-endian CPU");

        impl LimbField for $field {
            const LIMBS: usize = $limbs;

            fn limbs(elements: &[Self]) -> &[u64] {
                // SAFETY: the assertions above: an element is exactly $limbs u64, all initialised, with u64's alignment.
                unsafe { std::slice::from_raw_parts(elements.as_ptr().cast(), elements.len() * $limbs) }
            }

            fn limbs_mut(elements: &mut [Self]) -> &mut [u64] {
                // SAFETY: as in `limbs`; every bit pattern of the limbs is a valid value of the type's only field.
                unsafe { std::slice::from_raw_parts_mut(elements.as_mut_ptr().cast(), elements.len() * $limbs) }
            }

            fn elements(limbs: &[u64]) -> &[Self] {
                // SAFETY: as in `limbs`, and the length is rounded down to whole elements.
                unsafe { std::slice::from_raw_parts(limbs.as_ptr().cast(), limbs.len() / $limbs) }
            }

            fn elements_mut(limbs: &mut [u64]) -> &mut [Self] {
                // SAFETY: as in `limbs_mut`, and the length is rounded down to whole elements.
                unsafe { std::slice::from_raw_parts_mut(limbs.as_mut_ptr().cast(), limbs.len() / $limbs) }
            }

            fn from_raw(value: u64) -> Self {
                let mut limbs = [0; $limbs];
                limbs[0] = value;
                Self::new_unchecked(ark_ff::BigInt(limbs))
            }

            fn radix() -> Self {
                Self::new_unchecked(<Self as RadixSquared>::R2)
            }
        }

        impl RadixSquared for $field {
            type Integer = ark_ff::BigInt<$limbs>;
            const R2: Self::Integer = <$field>::R2;
        }
    };
}

mod sealed {
    /// `zeroed_vec` rests on what the implementations here are.
    pub trait Sealed {}
    impl Sealed for ark_bls12_381::Fq {}
    impl Sealed for ark_bls12_381::Fr {}
}

trait RadixSquared {
    type Integer;
    const R2: Self::Integer;
}

limb_field!(ark_bls12_381::Fq, 6);
limb_field!(ark_bls12_381::Fr, 4);

/// A vector of `length` zeros whose pages the operating system provides when they are first written: unlike
/// `vec![F::ZERO; length]` it does not touch them, so that a result is written once, not twice.
pub fn zeroed_vec<F: LimbField>(length: usize) -> Vec<F> {
    // What is wrong with the length is said by the standard library.
    try_zeroed_vec(length).unwrap_or_else(|| vec![F::ZERO; length])
}

/// As [`zeroed_vec`]; `None` if there is no memory for so many.
pub fn try_zeroed_vec<F: LimbField>(length: usize) -> Option<Vec<F>> {
    let layout = Layout::array::<F>(length).ok()?;
    if layout.size() == 0 {
        return Some(Vec::new());
    }
    // SAFETY: the layout is that of `length` elements and not empty; all-zero limbs are a valid element (zero); the
    // pointer comes from the global allocator, with the layout that the vector will free it with.
    unsafe {
        let pointer = alloc_zeroed(layout);
        (!pointer.is_null()).then(|| Vec::from_raw_parts(pointer.cast::<F>(), length, length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_bls12_381::{Fq, Fr};
    use ark_ff::Field;

    fn round_trip<F: LimbField>() {
        let mut elements = vec![F::ONE, F::ZERO, -F::ONE, F::from(7u64)];
        let copy = elements.clone();
        let limbs = F::limbs(&elements).to_vec();
        assert_eq!(limbs.len(), 4 * F::LIMBS);
        assert_eq!(F::elements(&limbs), copy);
        F::limbs_mut(&mut elements).fill(0);
        assert_eq!(elements, vec![F::ZERO; 4]);
        F::elements_mut(F::limbs_mut(&mut elements)).copy_from_slice(&copy);
        assert_eq!(elements, copy);
        assert_eq!(zeroed_vec::<F>(1000), vec![F::ZERO; 1000]);
        assert!(zeroed_vec::<F>(0).is_empty());
        assert!(try_zeroed_vec::<F>(usize::MAX).is_none());
    }

    #[test]
    fn limbs_are_the_elements() {
        round_trip::<Fq>();
        round_trip::<Fr>();
        // R mod p is the Montgomery form of one.
        assert_eq!(Fq::limbs(&[Fq::ONE]), Fq::R.0);
        assert_eq!(Fr::limbs(&[Fr::ONE]), Fr::R.0);
        // As a field element, `radix` is R and `from_raw(1)` its inverse.
        assert_eq!(Fq::radix(), Fq::from(2u64).pow([384]));
        assert_eq!(Fr::radix() * Fr::from_raw(1), Fr::ONE);
    }
}
