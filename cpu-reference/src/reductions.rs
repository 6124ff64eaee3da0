//! Reductions: operations that fold vectors into one element.

use crate::twins::{at, context};
use crate::{LimbField, Operands};
use rayon::prelude::*;

/// One reduction on the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Fold {
    /// Computes the reduction, in parallel, into the limbs of one element. Of no elements it is the identity: a sum is 0.
    pub compute: fn(&Operands, &mut [u64]),
}

/// The least that is worth handing to another thread, in elements: some microseconds of work.
const PIECE: usize = 512;

fn sum_of<F: LimbField>(operands: &Operands, term: impl Fn([F; 3]) -> F + Sync) -> F {
    let vectors = operands.vectors.map(F::elements);
    let terms = (0..vectors[0].len()).into_par_iter().with_min_len(PIECE).map(|index| term(at(&vectors, index)));
    terms.reduce(|| F::ZERO, |x, y| x + y)
}

/// The sum of a.
pub const fn sum<F: LimbField>() -> Fold {
    Fold { compute: |operands, result| F::elements_mut(result).fill(sum_of(operands, |[a, _, _]: [F; 3]| a)) }
}

/// The product of a. In canonical form, the product of a / R times R^(the number of elements - 1).
pub const fn product<F: LimbField>() -> Fold {
    Fold {
        compute: |operands, result| {
            let context = context::<F>(operands);
            let a = F::elements(operands.vectors[0]);
            let product = a.par_iter().with_min_len(PIECE).map(|a| context.lift(*a)).reduce(|| F::ONE, |x, y| x * y);
            F::elements_mut(result).fill(context.lower(product));
        },
    }
}

/// The sum of a^2.
pub const fn sum_of_squares<F: LimbField>() -> Fold {
    Fold {
        compute: |operands, result| {
            let total = sum_of(operands, |[a, _, _]: [F; 3]| a.square());
            F::elements_mut(result).fill(context(operands).lift(total));
        },
    }
}

/// The sum of a b. In canonical form, the sum of (a / R) (b / R) times R.
pub const fn inner_product<F: LimbField>() -> Fold {
    Fold {
        compute: |operands, result| {
            let total = sum_of(operands, |[a, b, _]: [F; 3]| a * b);
            F::elements_mut(result).fill(context(operands).lift(total));
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Form;
    use ark_bls12_381::{Fq, Fr};
    use ark_ff::AdditiveGroup as _;

    fn of<F: LimbField>(fold: Fold, a: &[F], b: &[F], form: Form) -> F {
        let mut result = [-F::ONE];
        let operands = Operands { vectors: [F::limbs(a), F::limbs(b), &[]], parameter: &[], form };
        (fold.compute)(&operands, F::limbs_mut(&mut result));
        result[0]
    }

    fn agree_with_a_loop<F: LimbField>() {
        for length in [0u64, 1, 2, 511, 512, 513, 5000] {
            let a: Vec<F> = (0..length).map(|i| F::from(i) - F::from(7u64)).collect();
            let b: Vec<F> = (0..length).map(|i| F::from(i * i)).collect();
            let (mut total, mut product) = (F::ZERO, F::ZERO);
            for (x, y) in a.iter().zip(&b) {
                total += x;
                product += *x * y;
            }
            assert_eq!(of(sum::<F>(), &a, &[], Form::Montgomery), total);
            assert_eq!(of(inner_product::<F>(), &a, &b, Form::Montgomery), product);
            // Seen as canonical integers, a is a / R.
            assert_eq!(of(sum::<F>(), &a, &[], Form::Canonical), total);
            assert_eq!(of(inner_product::<F>(), &a, &b, Form::Canonical), product * F::radix());
            let squares: F = a.iter().map(|x| x.square()).sum();
            assert_eq!(of(sum_of_squares::<F>(), &a, &[], Form::Montgomery), squares);
            assert_eq!(of(sum_of_squares::<F>(), &a, &[], Form::Canonical), squares * F::radix());
            // Of 7 on there is a zero among them.
            for a in [&a[..], &a[..a.len().min(6)]] {
                let product: F = a.iter().product();
                assert_eq!(of(super::product::<F>(), a, &[], Form::Montgomery), product);
                let canonical: Vec<F> = a.iter().map(|a| *a * F::from_raw(1)).collect();
                assert_eq!(of(super::product::<F>(), &canonical, &[], Form::Canonical), product * F::from_raw(1));
            }
        }
        assert_eq!(of(sum::<F>(), &[-F::ONE; 3], &[], Form::Montgomery), -F::from(3u64));
    }

    #[test]
    fn reductions_agree_with_a_loop() {
        agree_with_a_loop::<Fq>();
        agree_with_a_loop::<Fr>();
        assert_eq!(of::<Fr>(sum::<Fr>(), &[], &[], Form::Montgomery), Fr::ZERO);
    }
}
