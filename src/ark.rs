//! The operations on arkworks' types: vectors of [`ark_bls12_381::Fq`] or [`ark_bls12_381::Fr`], read where they lie.
//!
//! arkworks keeps elements in Montgomery form, which is also what the kernels multiply in: nothing is converted, and a product
//! costs half of what it costs on canonical limbs. The functions use the process-wide [`backend`](crate::backend); the
//! methods of [`Backend`] of the same names use that one.
//!
//! ```
//! use ark_bls12_381::Fr;
//! let a: Vec<Fr> = (0..1000u64).map(Fr::from).collect();
//! let b: Vec<Fr> = (1000..2000u64).map(Fr::from).collect();
//! let sum = bls12_field_gpu::ark::add(&a, &b)?;
//! assert_eq!(sum[3], a[3] + b[3]);
//! # Ok::<(), bls12_field_gpu::Error>(())
//! ```

use crate::call::Call;
use crate::operation::Operation;
use crate::ticket::Value;
use crate::{Backend, Error, Field, Form};
use ark_bls12_381::{Fq, Fr};
use cpu_reference::{LimbField, zeroed_vec};

/// The fields' types in arkworks: `Fq` and `Fr`.
pub trait Element: LimbField + Value {
    /// Which field it is.
    const FIELD: Field;
}

impl Element for Fq {
    const FIELD: Field = Field::Fq;
}

impl Element for Fr {
    const FIELD: Field = Field::Fr;
}

impl Backend {
    fn ark<F: Element>(
        &self,
        operation: Operation,
        vectors: &[&[F]],
        parameter: &[u64],
        out: &mut [F],
        mask: &mut [bool],
    ) -> Result<(), Error> {
        let limbs: Vec<&[u64]> = vectors.iter().map(|vector| F::limbs(vector)).collect();
        let call = Call { operation, field: F::FIELD, form: Form::Montgomery, vectors: &limbs, parameter };
        self.execute_into(&call, F::limbs_mut(out), mask).map(drop)
    }
}

macro_rules! ark_functions {
    ($(
        $name:ident $into:ident $operation:ident ($first:ident $($vector:ident)*) ($($parameter:ident: $kind:ident)?)
        $summary:literal, $example:literal;
    )+) => {
        impl Backend {
            $(
                #[doc = concat!("See [`ark::", stringify!($name), "`](crate::ark::", stringify!($name), ").\n\n# Errors\nAs there.\n\n```\n")]
                #[doc = "let two = ark_bls12_381::Fr::from(2u64);"]
                #[doc = concat!("let result = bls12_field_gpu::backend()?.", stringify!($name), "(", "&[two; 3], ", $("&", ark_functions!(@two $vector), ", ",)* $(ark_functions!(@example $kind),)? ")?;")]
                #[doc = concat!("assert_eq!(result.to_vec(), bls12_field_gpu::ark::", stringify!($name), "(", "&[two; 3], ", $("&", ark_functions!(@two $vector), ", ",)* $(ark_functions!(@example $kind),)? ")?);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $name<F: Element>(&self, $first: &[F], $($vector: &[F],)* $($parameter: ark_functions!(@type $kind))?) -> Result<Vec<F>, Error> {
                    let mut out = zeroed_vec($first.len());
                    self.$into($first, $($vector,)* $($parameter,)? &mut out)?;
                    Ok(out)
                }

                #[doc = concat!("See [`ark::", stringify!($into), "`](crate::ark::", stringify!($into), ").\n\n# Errors\nAs there.\n\n```\n")]
                #[doc = "let two = ark_bls12_381::Fr::from(2u64);"]
                #[doc = "let mut result = [two; 3];"]
                #[doc = concat!("bls12_field_gpu::backend()?.", stringify!($into), "(", "&[two; 3], ", $("&", ark_functions!(@two $vector), ", ",)* $(ark_functions!(@example $kind),)? "&mut result)?;")]
                #[doc = concat!("assert_eq!(result.to_vec(), bls12_field_gpu::ark::", stringify!($name), "(", "&[two; 3], ", $("&", ark_functions!(@two $vector), ", ",)* $(ark_functions!(@example $kind),)? ")?);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $into<F: Element>(
                    &self, $first: &[F], $($vector: &[F],)* $($parameter: ark_functions!(@type $kind),)? out: &mut [F],
                ) -> Result<(), Error> {
                    let parameter: &[u64] = ark_functions!(@limbs $($parameter $kind)?);
                    self.ark(Operation::$operation, &[$first, $($vector),*], parameter, out, &mut [])
                }
            )+
        }

        $(
            #[doc = $summary]
            ///
            /// # Errors
            /// Vectors of different lengths, an element not below the modulus (which only `new_unchecked` makes); or the device
            /// fails, or what it computed is wrong ([`Error::kind`]).
            ///
            /// ```
            /// use ark_bls12_381::Fq;
            /// use ark_ff::{AdditiveGroup as _, Field as _};
            /// use bls12_field_gpu::ark;
            /// let [two, three, four] = [2, 3, 4].map(|n: u64| Fq::from(n));
            #[doc = $example]
            /// # Ok::<(), bls12_field_gpu::Error>(())
            /// ```
            pub fn $name<F: Element>($first: &[F], $($vector: &[F],)* $($parameter: ark_functions!(@type $kind))?) -> Result<Vec<F>, Error> {
                crate::backend()?.$name($first, $($vector,)* $($parameter)?)
            }

            #[doc = concat!("As [`", stringify!($name), "`], into `out`, which must be as long as `a`.")]
            ///
            /// # Errors
            #[doc = concat!("As [`", stringify!($name), "`]; and [`Error::OutputLength`], in limbs.")]
            ///
            /// ```
            /// use ark_bls12_381::Fr;
            /// let two = Fr::from(2u64);
            /// let mut out = [two; 3];
            #[doc = concat!(
                "bls12_field_gpu::ark::", stringify!($into), "(", "&[two; 3], ", $("&", ark_functions!(@two $vector), ", ",)*
                $(ark_functions!(@example $kind),)? "&mut out)?;"
            )]
            #[doc = concat!(
                "assert_eq!(out.to_vec(), bls12_field_gpu::ark::", stringify!($name), "(", "&[two; 3], ", $("&", ark_functions!(@two $vector), ", ",)*
                $(ark_functions!(@example $kind),)? ")?);"
            )]
            /// # Ok::<(), bls12_field_gpu::Error>(())
            /// ```
            pub fn $into<F: Element>(
                $first: &[F], $($vector: &[F],)* $($parameter: ark_functions!(@type $kind),)? out: &mut [F],
            ) -> Result<(), Error> {
                crate::backend()?.$into($first, $($vector,)* $($parameter,)? out)
            }
        )+
    };
    (@type element) => { &F };
    (@type exponent) => { &[u64] };
    (@limbs) => { &[] };
    (@limbs $parameter:ident element) => { F::limbs(std::slice::from_ref($parameter)) };
    (@limbs $parameter:ident exponent) => { $parameter };
    (@two $vector:ident) => { "[two; 3]" };
    (@example element) => { "&two, " };
    (@example exponent) => { "&[10], " };
}

ark_functions! {
    add add_into Add (a b) ()
        "The sums a + b, element by element.",
        "assert_eq!(ark::add(&[two, three], &[three, four])?, [two + three, three + four]);";
    sub sub_into Sub (a b) ()
        "The differences a - b, element by element.",
        "assert_eq!(ark::sub(&[two, three], &[three, four])?, [two - three, three - four]);";
    neg neg_into Neg (a) ()
        "The negatives -a.",
        "assert_eq!(ark::neg(&[two, three])?, [-two, -three]);";
    double double_into Double (a) ()
        "The doubles 2 a.",
        "assert_eq!(ark::double(&[two, three])?, [two.double(), three.double()]);";
    mul mul_into Mul (a b) ()
        "The products a b, element by element.",
        "assert_eq!(ark::mul(&[two, three], &[three, four])?, [two * three, three * four]);";
    square square_into Square (a) ()
        "The squares a^2.",
        "assert_eq!(ark::square(&[two, three])?, [two.square(), three.square()]);";
    mul_add mul_add_into MulAdd (a b c) ()
        "a b + c, element by element.",
        "assert_eq!(ark::mul_add(&[two], &[three], &[four])?, [two * three + four]);";
    add_scalar add_scalar_into AddScalar (a) (scalar: element)
        "a + s for one element s, the scalar.",
        "assert_eq!(ark::add_scalar(&[two, three], &four)?, [two + four, three + four]);";
    sub_scalar sub_scalar_into SubScalar (a) (scalar: element)
        "a - s for one element s, the scalar.",
        "assert_eq!(ark::sub_scalar(&[two, three], &four)?, [two - four, three - four]);";
    scale scale_into Scale (a) (scalar: element)
        "a s for one element s, the scalar.",
        "assert_eq!(ark::scale(&[two, three], &four)?, [two * four, three * four]);";
    pow pow_into Pow (a) (exponent: exponent)
        "The powers a^e for one exponent e: little-endian limbs of an integer, as many as you like. a^0 = 1, also for a = 0.",
        "assert_eq!(ark::pow(&[two, three], &[5])?, [two.pow([5]), three.pow([5])]);";
    inverse inverse_into Inverse (a) ()
        "The inverses 1 / a. A zero is [`Error::ZeroInverse`], which names it.",
        "assert_eq!(Some(ark::inverse(&[two])?[0]), two.inverse());";
    inverse_or_zero inverse_or_zero_into InverseOrZero (a) ()
        "The inverses 1 / a, and 0 where a is 0.",
        "assert_eq!(ark::inverse_or_zero(&[Fq::ZERO])?, [Fq::ZERO]);";
}

impl Backend {
    /// See [`ark::sqrt`](crate::ark::sqrt).
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// let one = ark_bls12_381::Fq::from(1u64);
    /// assert_eq!(bls12_field_gpu::backend()?.sqrt(&[one])?, (vec![one], vec![true]));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sqrt(&self, a: &[Fq]) -> Result<(Vec<Fq>, Vec<bool>), Error> {
        let (mut roots, mut has_root) = (zeroed_vec(a.len()), vec![false; a.len()]);
        self.sqrt_into(a, &mut roots, &mut has_root)?;
        Ok((roots, has_root))
    }

    /// See [`ark::sqrt_into`](crate::ark::sqrt_into).
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// let (mut root, mut has_root) = ([ark_bls12_381::Fq::from(7u64)], [false]);
    /// bls12_field_gpu::backend()?.sqrt_into(&[ark_bls12_381::Fq::from(1u64)], &mut root, &mut has_root)?;
    /// assert_eq!((root[0], has_root), (ark_bls12_381::Fq::from(1u64), [true]));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sqrt_into(&self, a: &[Fq], roots: &mut [Fq], has_root: &mut [bool]) -> Result<(), Error> {
        self.ark(Operation::Sqrt, &[a], &[], roots, has_root)
    }

    /// See [`ark::equal`](crate::ark::equal).
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// let one = ark_bls12_381::Fr::from(1u64);
    /// assert_eq!(bls12_field_gpu::backend()?.equal(&[one], &[one])?, [true]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn equal<F: Element>(&self, a: &[F], b: &[F]) -> Result<Vec<bool>, Error> {
        let mut mask = vec![false; a.len()];
        self.equal_into(a, b, &mut mask)?;
        Ok(mask)
    }

    /// See [`ark::equal_into`](crate::ark::equal_into).
    ///
    /// # Errors
    /// As there.
    ///
    /// ```
    /// let (one, mut mask) = (ark_bls12_381::Fr::from(1u64), [false]);
    /// bls12_field_gpu::backend()?.equal_into(&[one], &[one], &mut mask)?;
    /// assert_eq!(mask, [true]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn equal_into<F: Element>(&self, a: &[F], b: &[F], mask: &mut [bool]) -> Result<(), Error> {
        self.ark(Operation::Equal, &[a, b], &[], &mut [], mask)
    }
}

/// Square roots, and a mask of which elements have one: (roots, has_root).
///
/// Of the two roots r and -r of a square, the one that is itself a square: a^((p + 1) / 4). Where an element has no root, the
/// place holds a root of -a, which proves that there is none (p = 3 mod 4). Checked by r^2 = a; which of the two roots it is, is
/// checked in the kernel's self-test only.
///
/// # Errors
/// The device fails, or what it computed is wrong ([`Error::kind`]).
///
/// ```
/// use ark_bls12_381::Fq;
/// let (roots, has_root) = bls12_field_gpu::ark::sqrt(&[Fq::from(16u64), -Fq::from(1u64)])?;
/// assert_eq!((roots[0], has_root), (Fq::from(4u64), vec![true, false]));
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
pub fn sqrt(a: &[Fq]) -> Result<(Vec<Fq>, Vec<bool>), Error> {
    crate::backend()?.sqrt(a)
}

/// As [`sqrt`], into `roots` and `has_root`, which must be as long as `a`.
///
/// # Errors
/// As [`sqrt`]; and [`Error::OutputLength`], in limbs or flags.
///
/// ```
/// use ark_bls12_381::Fq;
/// let (mut roots, mut has_root) = ([Fq::from(0u64)], [false]);
/// bls12_field_gpu::ark::sqrt_into(&[Fq::from(16u64)], &mut roots, &mut has_root)?;
/// assert_eq!((roots[0], has_root[0]), (Fq::from(4u64), true));
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
pub fn sqrt_into(a: &[Fq], roots: &mut [Fq], has_root: &mut [bool]) -> Result<(), Error> {
    crate::backend()?.sqrt_into(a, roots, has_root)
}

/// Which elements of two vectors are equal, as a mask.
///
/// # Errors
/// Vectors of different lengths; or the device fails, or what it computed is wrong ([`Error::kind`]).
///
/// ```
/// use ark_bls12_381::Fr;
/// let [two, three] = [2, 3].map(|n: u64| Fr::from(n));
/// assert_eq!(bls12_field_gpu::ark::equal(&[two, two], &[two, three])?, [true, false]);
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
pub fn equal<F: Element>(a: &[F], b: &[F]) -> Result<Vec<bool>, Error> {
    crate::backend()?.equal(a, b)
}

/// As [`equal`], into `mask`, which must be as long as `a`.
///
/// # Errors
/// As [`equal`]; and [`Error::OutputLength`], in flags.
///
/// ```
/// use ark_bls12_381::Fr;
/// let mut mask = [false; 2];
/// bls12_field_gpu::ark::equal_into(&[Fr::from(1u64); 2], &[Fr::from(1u64); 2], &mut mask)?;
/// assert_eq!(mask, [true; 2]);
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
pub fn equal_into<F: Element>(a: &[F], b: &[F], mask: &mut [bool]) -> Result<(), Error> {
    crate::backend()?.equal_into(a, b, mask)
}
