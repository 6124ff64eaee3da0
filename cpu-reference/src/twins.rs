//! The operations. Each is a type with two functions: what the answer is, and what proves an answer.

use crate::LimbField;
use ark_ff::fields::serial_batch_inversion_and_mul;
use rayon::prelude::*;

/// What the limbs of an element are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Form {
    /// The value itself, an integer below the modulus p.
    Canonical,
    /// The value times R mod p, R = 2^(64 limbs): what arkworks and blst keep in memory.
    Montgomery,
}

/// The inputs of an operation: up to three vectors of the same length and a parameter (a scalar operand, or an exponent of any
/// length), as little-endian limbs. Vectors that the operation does not take are empty.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// a, b and c.
    pub vectors: [&'a [u64]; 3],
    /// The scalar operand, in the vectors' form, or the exponent, an integer.
    pub parameter: &'a [u64],
    /// The form of all elements, inputs and outputs.
    pub form: Form,
}

/// Where an operation writes: elements, or one flag (0 or 1) per element, or both.
#[derive(Debug)]
pub struct Results<'a> {
    /// The resulting elements; empty if the operation has none.
    pub elements: &'a mut [u64],
    /// The resulting flags; empty if the operation has none.
    pub mask: &'a mut [u32],
}

/// Which elements of an answer to check.
#[derive(Clone, Copy, Debug)]
pub enum Positions<'a> {
    /// Every element.
    All,
    /// The elements at these positions.
    These(&'a [usize]),
}

/// One operation on the CPU.
#[derive(Clone, Copy, Debug)]
pub struct Twin {
    /// Computes the operation, in parallel.
    pub compute: fn(&Operands, &mut Results),
    /// The same on the calling thread alone.
    pub compute_alone: fn(&Operands, &mut Results),
    /// Checks an answer (its elements, its mask), in parallel: the lowest of the positions at which it, or an input, is not
    /// below the modulus or the answer is wrong.
    pub first_wrong: fn(&Operands, &[u64], &[u32], Positions) -> Option<usize>,
}

/// Elements handed to one thread at a time: a microsecond of the cheapest operation, a millisecond of the dearest.
const PIECE: usize = 64;

/// The same for batches, in which an element costs less the more there are.
const BATCH: usize = 1024;

/// The most pieces of a check that one thread does without another one having been able to take the rest: what several calls have checked
/// at a time is not left to a few threads at the end.
const UNDIVIDED: usize = 64;

/// What an operation knows besides its operands at one position.
pub(crate) struct Context<'a, F> {
    canonical: bool,
    /// R: a canonical integer's limbs, seen as Montgomery form, are a value divided by R.
    radix: F,
    /// 1 / R.
    unit: F,
    scalar: F,
    exponent: &'a [u64],
}

impl<F: LimbField> Context<'_, F> {
    /// The value of an element whose limbs are `a`, in Montgomery form.
    pub(crate) fn lift(&self, a: F) -> F {
        if self.canonical { a * self.radix } else { a }
    }

    /// The limbs of the element whose value is `a`.
    pub(crate) fn lower(&self, a: F) -> F {
        if self.canonical { a * self.unit } else { a }
    }

    /// The limbs of 1.
    fn one(&self) -> F {
        if self.canonical { self.unit } else { F::ONE }
    }
}

type Many<F> = fn(&Context<F>, &mut [F]);

/// An operation on the limbs of elements, given as [`LimbField`] values: a canonical integer x is seen as x / R.
trait Operation<F: LimbField> {
    const HAS_MASK: bool = false;

    fn apply(context: &Context<F>, inputs: [F; 3]) -> (F, bool);

    /// Whether `proves` is something else than to compute again.
    const PROVED: bool = false;

    /// Whether `answer` is right; by default, whether it is what `apply` gives.
    fn proves(context: &Context<F>, inputs: [F; 3], answer: (F, bool)) -> bool {
        let expected = Self::apply(context, inputs);
        expected.0 == answer.0 && (!Self::HAS_MASK || expected.1 == answer.1)
    }

    /// Replaces the inputs a, which lie in `elements`, by the answers; for operations that are cheaper many at a time.
    const MANY: Option<Many<F>> = None;
}

pub(crate) fn context<'a, F: LimbField>(operands: &Operands<'a>) -> Context<'a, F> {
    Context {
        canonical: operands.form == Form::Canonical,
        radix: F::radix(),
        unit: F::from_raw(1),
        scalar: F::elements(operands.parameter).first().copied().unwrap_or(F::ZERO),
        exponent: operands.parameter,
    }
}

pub(crate) fn at<F: LimbField>(vectors: &[&[F]; 3], index: usize) -> [F; 3] {
    vectors.map(|vector| vector.get(index).copied().unwrap_or(F::ZERO))
}

fn compute<F: LimbField, O: Operation<F>>(operands: &Operands, results: &mut Results) {
    let context = context::<F>(operands);
    let vectors = operands.vectors.map(F::elements);
    let elements = F::elements_mut(results.elements);
    let piece = if O::MANY.is_some() { BATCH } else { PIECE };
    let part = |number: usize| {
        vectors.map(|vector| vector.get(number * piece..vector.len().min((number + 1) * piece)).unwrap_or(&[]))
    };
    if elements.is_empty() {
        let flags = results.mask.par_chunks_mut(piece).enumerate();
        flags.for_each(|(number, flags)| of_piece::<F, O>(&context, part(number), (&mut [], flags)));
    } else if O::HAS_MASK {
        let both = elements.par_chunks_mut(piece).zip(results.mask.par_chunks_mut(piece)).enumerate();
        both.for_each(|(number, (answers, flags))| of_piece::<F, O>(&context, part(number), (answers, flags)));
    } else {
        let answers = elements.par_chunks_mut(piece).enumerate();
        answers.for_each(|(number, answers)| of_piece::<F, O>(&context, part(number), (answers, &mut [])));
    }
}

fn compute_alone<F: LimbField, O: Operation<F>>(operands: &Operands, results: &mut Results) {
    let (context, vectors) = (context::<F>(operands), operands.vectors.map(F::elements));
    of_piece::<F, O>(&context, vectors, (F::elements_mut(results.elements), results.mask));
}

/// Computes elements on the calling thread. What has no mask, which is nearly everything, in a loop of nothing but arithmetic.
fn of_piece<F: LimbField, O: Operation<F>>(
    context: &Context<F>,
    vectors: [&[F]; 3],
    (answers, flags): (&mut [F], &mut [u32]),
) {
    let zero = F::ZERO;
    if let Some(many) = O::MANY {
        answers.copy_from_slice(vectors[0]);
        return many(context, answers);
    }
    match vectors {
        [a, [], []] if !O::HAS_MASK => {
            answers.iter_mut().zip(a).for_each(|(to, a)| *to = O::apply(context, [*a, zero, zero]).0);
        }
        [a, b, []] if !O::HAS_MASK => {
            let all = answers.iter_mut().zip(a).zip(b);
            all.for_each(|((to, a), b)| *to = O::apply(context, [*a, *b, zero]).0);
        }
        [a, b, c] if !O::HAS_MASK => {
            let all = answers.iter_mut().zip(a).zip(b).zip(c);
            all.for_each(|(((to, a), b), c)| *to = O::apply(context, [*a, *b, *c]).0);
        }
        _ => {
            for index in 0..answers.len().max(flags.len()) {
                let (element, flag) = O::apply(context, at(&vectors, index));
                answers.get_mut(index).into_iter().for_each(|to| *to = element);
                flags.get_mut(index).into_iter().for_each(|to| *to = flag.into());
            }
        }
    }
}

fn first_wrong<F: LimbField, O: Operation<F>>(
    operands: &Operands,
    elements: &[u64],
    mask: &[u32],
    positions: Positions,
) -> Option<usize> {
    let context = context::<F>(operands);
    let vectors = operands.vectors.map(F::elements);
    let elements = F::elements(elements);
    let length = elements.len().max(mask.len());
    let wrong = |index: usize| {
        let inputs = at(&vectors, index);
        let element = elements.get(index).copied().unwrap_or(F::ZERO);
        let flag = mask.get(index).copied().unwrap_or(0);
        // A value that is not canonical could still pass an algebraic check.
        let reduced = is_reduced(&element) && inputs.iter().all(is_reduced);
        !reduced || flag > 1 || !O::proves(&context, inputs, (element, flag == 1))
    };
    // Piece by piece: without a mask, which is nearly always, in a loop of nothing but arithmetic.
    let first_wrong_of = |piece: usize| {
        let range = piece * PIECE..length.min((piece + 1) * PIECE);
        let [a, b, c] = vectors.map(|vector| vector.get(range.clone()).unwrap_or(&[]));
        let answers = elements.get(range.clone()).unwrap_or(&[]);
        let reduced = || [a, b, c, answers].iter().all(|part| part.iter().all(is_reduced));
        let right = match b {
            _ if O::HAS_MASK || !reduced() => false,
            [] if O::PROVED => a.iter().zip(answers).all(|(a, r)| O::proves(&context, [*a, F::ZERO, F::ZERO], (*r, false))),
            _ if O::PROVED => false,
            _ => {
                let mut again = [F::ZERO; PIECE];
                let again = &mut again[..answers.len()];
                of_piece::<F, O>(&context, [a, b, c], (again, &mut []));
                again == answers
            }
        };
        if right { None } else { range.into_iter().find(|&index| wrong(index)) }
    };
    match positions {
        // Not worth waking other threads.
        Positions::All if length <= PIECE => first_wrong_of(0),
        Positions::All => (0..length.div_ceil(PIECE)).into_par_iter().with_max_len(UNDIVIDED).find_map_first(first_wrong_of),
        Positions::These(positions) => positions.iter().copied().filter(|&index| index < length && wrong(index)).min(),
    }
}

#[inline]
fn is_reduced<F: LimbField>(element: &F) -> bool {
    let (modulus, top) = (F::MODULUS, F::LIMBS - 1);
    let limbs = F::limbs(std::slice::from_ref(element));
    // The highest limb decides nearly always.
    limbs[top] < modulus.as_ref()[top] || limbs.iter().rev().lt(modulus.as_ref().iter().rev())
}

macro_rules! operation {
    ($(#[doc = $doc:literal])+ $name:ident, $type:ident, |$context:ident, $inputs:pat_param| $value:expr $(, $($more:tt)+)?) => {
        struct $type;
        impl<F: LimbField> Operation<F> for $type {
            fn apply($context: &Context<F>, $inputs: [F; 3]) -> (F, bool) {
                ($value, false)
            }
            $($($more)+)?
        }
        operation!(@twin $(#[doc = $doc])+ $name, $type);
    };
    (@twin $(#[doc = $doc:literal])+ $name:ident, $type:ident) => {
        $(#[doc = $doc])+
        pub const fn $name<F: LimbField>() -> Twin {
            Twin {
                compute: compute::<F, $type>,
                compute_alone: compute_alone::<F, $type>,
                first_wrong: first_wrong::<F, $type>,
            }
        }
    };
}

operation!(/// a + b
    add, Add, |_context, [a, b, _]| a + b);
operation!(/// a - b
    sub, Sub, |_context, [a, b, _]| a - b);
operation!(/// -a
    neg, Neg, |_context, [a, _, _]| -a);
operation!(/// 2 a
    double, Double, |_context, [a, _, _]| a.double());
operation!(/// a b. In canonical form (a / R) (b / R) R = (a b) / R: lifting one of the two is enough.
    mul, Mul, |context, [a, b, _]| context.lift(a) * b);
operation!(/// a^2
    square, Square, |context, [a, _, _]| context.lift(a.square()));
operation!(/// a b + c
    mul_add, MulAdd, |context, [a, b, c]| context.lift(a) * b + c);
operation!(/// a + s for one s
    add_scalar, AddScalar, |context, [a, _, _]| a + context.scalar);
operation!(/// a - s for one s
    sub_scalar, SubScalar, |context, [a, _, _]| a - context.scalar);
operation!(/// a s for one s
    scale, Scale, |context, [a, _, _]| context.lift(a) * context.scalar);
operation!(/// a^e for one exponent e of any length; a^0 = 1, also for a = 0
    pow, Pow, |context, [a, _, _]| context.lower(context.lift(a).pow(context.exponent)));
operation!(/// a R mod p, on limbs: from canonical to Montgomery form, whatever the form said
    to_montgomery, ToMontgomery, |context, [a, _, _]| a * context.radix);
operation!(/// a / R mod p, on limbs: from Montgomery to canonical form, whatever the form said
    from_montgomery, FromMontgomery, |context, [a, _, _]| a * context.unit);

operation!(/// 1 / a, and 0 for a = 0; computed by Montgomery's trick, proved by a c = 1
    inverse, Inverse,
    |context, [a, _, _]| context.lower(context.lift(a).inverse().unwrap_or(F::ZERO)),
    const PROVED: bool = true;
    fn proves(context: &Context<F>, [a, _, _]: [F; 3], (inverse, _): (F, bool)) -> bool {
        if a.is_zero() { inverse.is_zero() } else { context.lift(a) * inverse == context.one() }
    }
    const MANY: Option<Many<F>> = Some(|context, elements| {
        elements.iter_mut().for_each(|a| *a = context.lift(*a));
        // Not the one that is parallel if ark-ff's feature says so: callers count on its staying on this thread.
        serial_batch_inversion_and_mul(elements, &F::ONE);
        elements.iter_mut().for_each(|a| *a = context.lower(*a));
    });
);

struct Sqrt;
impl<F: LimbField> Operation<F> for Sqrt {
    const HAS_MASK: bool = true;
    const PROVED: bool = true;

    fn apply(context: &Context<F>, [a, _, _]: [F; 3]) -> (F, bool) {
        let a = context.lift(a);
        let root = a.pow(context.exponent);
        (context.lower(root), root.square() == a)
    }

    fn proves(context: &Context<F>, [a, _, _]: [F; 3], (root, has_root): (F, bool)) -> bool {
        let square = context.lift(root.square());
        // For p = 3 mod 4, -1 is no square: a root of -a proves that a != 0 has none.
        if has_root { square == a } else { square == -a && !a.is_zero() }
    }
}
operation!(@twin
    /// The root a^e, e = (p + 1) / 4 given as the parameter, of a field with p = 3 mod 4, and whether a has one: where it has
    /// none, a^e is a root of -a. Proved by squaring.
    sqrt, Sqrt);

struct Equal;
impl<F: LimbField> Operation<F> for Equal {
    const HAS_MASK: bool = true;

    fn apply(_: &Context<F>, [a, b, _]: [F; 3]) -> (F, bool) {
        (F::ZERO, a == b)
    }
}
operation!(@twin
    /// Whether a = b, as a mask.
    equal, Equal);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LimbField;
    use ark_bls12_381::{Fq, Fr};

    fn agree<F: LimbField>(name: &str, twin: Twin, vectors: usize, has: (bool, bool)) {
        for (length, form) in
            [0, 1, 63, 64, 65, 1023, 1025].into_iter().zip([Form::Canonical, Form::Montgomery].into_iter().cycle())
        {
            let vector = |salt: u64| (1..=length as u64).map(|i| F::from(i * i + salt % 3).pow([salt])).collect::<Vec<F>>();
            let all = [vector(3), vector(4), vector(5)];
            let used = [0, 1, 2].map(|n| if n < vectors { F::limbs(&all[n]) } else { &[] });
            let parameter = [F::from(5u64)];
            let operands = Operands { vectors: used, parameter: F::limbs(&parameter), form };
            let compute = |compute: fn(&Operands, &mut Results)| {
                let mut elements = vec![0; if has.0 { length * F::LIMBS } else { 0 }];
                let mut mask = vec![7; if has.1 { length } else { 0 }];
                compute(&operands, &mut Results { elements: &mut elements, mask: &mut mask });
                (elements, mask)
            };
            let (mut elements, mut mask) = compute(twin.compute);
            assert_eq!(compute(twin.compute_alone), (elements.clone(), mask.clone()), "{name} {length}");
            assert_eq!((twin.first_wrong)(&operands, &elements, &mask, Positions::All), None, "{name} {length}");
            // Each element that is wrong is found, the first one first.
            let mut wrong = vec![length.saturating_sub(1), length / 2];
            wrong.dedup();
            for at in wrong.into_iter().filter(|at| *at < length) {
                if has.0 {
                    elements[at * F::LIMBS] ^= 1;
                } else {
                    mask[at] ^= 1;
                }
                let found = (twin.first_wrong)(&operands, &elements, &mask, Positions::All);
                assert_eq!(found, Some(at), "{name} {length}");
                assert_eq!((twin.first_wrong)(&operands, &elements, &mask, Positions::These(&[at])), Some(at));
            }
        }
    }

    fn all_agree<F: LimbField>() {
        let elements = (true, false);
        for (name, twin, vectors) in [
            ("add", add::<F>(), 2),
            ("sub", sub::<F>(), 2),
            ("neg", neg::<F>(), 1),
            ("double", double::<F>(), 1),
            ("mul", mul::<F>(), 2),
            ("square", square::<F>(), 1),
            ("mul_add", mul_add::<F>(), 3),
            ("add_scalar", add_scalar::<F>(), 1),
            ("scale", scale::<F>(), 1),
            ("pow", pow::<F>(), 1),
            ("inverse", inverse::<F>(), 1),
        ] {
            agree::<F>(name, twin, vectors, elements);
        }
        agree::<F>("equal", equal::<F>(), 2, (false, true));
    }

    #[test]
    fn alone_and_in_parallel_they_are_the_same_and_wrong_elements_are_found() {
        all_agree::<Fq>();
        all_agree::<Fr>();
    }
}
