//! Recurrences along vectors: prefix sums and products, linear recurrences, powers, polynomials at points.

use crate::LimbField;
use ark_ff::Field;
use rayon::prelude::*;

/// What becomes of x at element e.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recurrence<F> {
    /// x + e, from 0
    Sum,
    /// x e, from 1
    Product,
    /// x m + e, from 0
    Horner(F),
}

/// In which order elements are passed, and what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Walk {
    /// Elements after which x starts anew, at least one.
    pub segment: usize,
    /// x is kept before its element is passed, not after.
    pub exclusive: bool,
    /// From the last element of a segment to its first.
    pub reversed: bool,
}

/// Elements that one thread passes at a time, some microseconds of work.
const PIECE: usize = 512;

impl<F: Field> Recurrence<F> {
    fn start(self) -> F {
        match self {
            Recurrence::Product => F::ONE,
            Recurrence::Sum | Recurrence::Horner(_) => F::ZERO,
        }
    }

    fn step(self, x: F, e: F) -> F {
        match self {
            Recurrence::Sum => x + e,
            Recurrence::Product => x * e,
            Recurrence::Horner(m) => x * m + e,
        }
    }

    /// From x, by `length` elements of which the recurrence makes `fold`.
    fn steps(self, x: F, fold: F, length: usize) -> F {
        match self {
            Recurrence::Horner(m) => x * m.pow([length as u64]) + fold,
            _ => self.step(x, fold),
        }
    }
}

/// Everything that x becomes. Each position whose flag among `heads` is not zero, besides, is the first of a segment, in which x starts anew,
/// from its end if reversed; beyond the flags' end there are none.
pub fn scan<F: LimbField>(recurrence: Recurrence<F>, walk: Walk, heads: &[u32], elements: &[F], out: &mut [F]) {
    let all = |heads: &[u32], elements: &[F], out: &mut [F]| {
        let segments = out.chunks_mut(walk.segment).zip(elements.chunks(walk.segment)).enumerate();
        segments.for_each(|(at, (out, elements))| {
            scan_segment(recurrence, walk, from(heads, at * walk.segment), elements, out);
        });
    };
    if walk.segment > PIECE {
        return all(heads, elements, out);
    }
    let several = (PIECE / walk.segment).max(1) * walk.segment;
    let groups = out.par_chunks_mut(several).zip(elements.par_chunks(several)).enumerate();
    groups.for_each(|(group, (out, elements))| all(from(heads, group * several), elements, out));
}

/// The flags from a position on.
fn from(heads: &[u32], at: usize) -> &[u32] {
    heads.get(at..).unwrap_or(&[])
}

/// Whether x starts anew at a position: if that is the first of a segment or, reversed, if the one behind it is.
fn starts(heads: &[u32], walk: Walk, at: usize) -> bool {
    heads.get(at + usize::from(walk.reversed)).is_some_and(|&flag| flag != 0)
}

fn scan_segment<F: LimbField>(recurrence: Recurrence<F>, walk: Walk, heads: &[u32], elements: &[F], out: &mut [F]) {
    // Positions in the order in which they are passed.
    let passed = |length: usize| (0..length).map(move |n| if walk.reversed { length - 1 - n } else { n });
    let walked = |mut x: F, heads: &[u32], out: &mut [F], elements: &[F]| {
        for at in passed(elements.len().min(out.len())) {
            let before = if starts(heads, walk, at) { recurrence.start() } else { x };
            x = recurrence.step(before, elements[at]);
            out[at] = if walk.exclusive { before } else { x };
        }
    };
    if elements.len() <= PIECE {
        return walked(recurrence.start(), heads, out, elements);
    }
    // What each piece makes of its start, and whether that matters; what precedes each; and each once more.
    let fold = |(piece, elements): (usize, &[F])| {
        let heads = from(heads, piece * PIECE);
        let step = |(x, headed), at| {
            let head = starts(heads, walk, at);
            (recurrence.step(if head { recurrence.start() } else { x }, elements[at]), headed || head)
        };
        passed(elements.len()).fold((recurrence.start(), false), step)
    };
    let folds: Vec<(F, bool)> = elements.par_chunks(PIECE).enumerate().map(fold).collect();
    let (mut x, mut before) = (recurrence.start(), vec![recurrence.start(); folds.len()]);
    for piece in passed(folds.len()) {
        let (fold, headed) = folds[piece];
        before[piece] = x;
        x = if headed { fold } else { recurrence.steps(x, fold, PIECE.min(elements.len() - piece * PIECE)) };
    }
    let pieces = out.par_chunks_mut(PIECE).zip(elements.par_chunks(PIECE)).zip(&before).enumerate();
    pieces.for_each(|(piece, ((out, elements), before))| walked(*before, from(heads, piece * PIECE), out, elements));
}

/// The first position at which `out` is not what [`scan`] gives: each is compared with what follows from its neighbour, all at
/// once, so that this takes one step of the recurrence per element; no chance of an error.
pub fn scan_first_wrong<F: LimbField>(
    recurrence: Recurrence<F>,
    walk: Walk,
    heads: &[u32],
    elements: &[F],
    out: &[F],
) -> Option<usize> {
    let length = elements.len();
    let right = |at: usize| {
        let (start, within) = (at - at % walk.segment, at % walk.segment);
        let last = walk.segment.min(length - start) - 1;
        let (first, neighbour) = if walk.reversed { (within == last, at + 1) } else { (within == 0, at.wrapping_sub(1)) };
        let first = first || starts(heads, walk, at);
        let before = if first { recurrence.start() } else { out[neighbour] };
        match (walk.exclusive, first) {
            (true, true) => before,
            (true, false) => recurrence.step(before, elements[neighbour]),
            (false, _) => recurrence.step(before, elements[at]),
        }
    };
    (0..length.min(out.len())).into_par_iter().with_min_len(PIECE).find_first(|&at| out[at] != right(at))
}

/// c x^i for every i.
pub fn powers<F: LimbField>(x: F, c: F, out: &mut [F]) {
    out.par_chunks_mut(PIECE).enumerate().for_each(|(piece, out)| {
        let mut power = c * x.pow([(piece * PIECE) as u64]);
        for out in out {
            *out = power;
            power *= x;
        }
    });
}

/// The polynomial with these coefficients, the constant one first, at x.
pub fn evaluate<F: LimbField>(coefficients: &[F], x: F) -> F {
    let at = |(piece, coefficients): (usize, &[F])| {
        let value = coefficients.iter().rev().fold(F::ZERO, |value, c| value * x + c);
        value * x.pow([(piece * PIECE) as u64])
    };
    coefficients.par_chunks(PIECE).enumerate().map(at).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_bls12_381::{Fq, Fr};

    fn elements<F: LimbField>(length: u64) -> Vec<F> {
        (0..length).map(|i| F::from(i * i + 3) - F::from(17u64)).collect()
    }

    fn agree_with_a_loop<F: LimbField>() {
        let m = F::from(5u64) - F::from(12u64);
        for recurrence in [Recurrence::Sum, Recurrence::Product, Recurrence::Horner(m)] {
            for (length, segment) in [(0, 1), (1, 1), (5, 5), (7, 2), (1200, 1), (1500, 500), (1600, 800), (2600, 2600)] {
                for kind in 0..12usize {
                    let (exclusive, reversed) = (kind & 1 != 0, kind & 2 != 0);
                    let elements = elements::<F>(length);
                    // No heads, a few, fewer than elements.
                    let flags = [0, length as usize, length as usize * 2 / 3][kind / 4];
                    let heads: Vec<u32> = (0..flags).map(|at| u32::from(at * at % 97 == 3 || at == 600)).collect();
                    let mut out = vec![F::ONE; elements.len()];
                    let walk = Walk { segment, exclusive, reversed };
                    scan(recurrence, walk, &heads, &elements, &mut out);
                    let mut expected = Vec::new();
                    for segment in elements.chunks(segment) {
                        let (mut x, mut passed) = (recurrence.start(), Vec::new());
                        for index in 0..segment.len() {
                            let at = if reversed { segment.len() - 1 - index } else { index };
                            let behind = expected.len() + at + usize::from(reversed);
                            let (e, head) = (segment[at], heads.get(behind).is_some_and(|flag| *flag != 0));
                            let before = if head { recurrence.start() } else { x };
                            x = match recurrence {
                                Recurrence::Sum => before + e,
                                Recurrence::Product => before * e,
                                Recurrence::Horner(m) => before * m + e,
                            };
                            passed.push(if exclusive { before } else { x });
                        }
                        if reversed {
                            passed.reverse();
                        }
                        expected.extend(passed);
                    }
                    assert_eq!(out, expected, "{recurrence:?} {walk:?} of {length}");
                    assert_eq!(scan_first_wrong(recurrence, walk, &heads, &elements, &out), None);
                    for wrong in [0, 1, out.len() / 2, out.len().saturating_sub(1)].into_iter().filter(|&at| at < out.len())
                    {
                        let mut out = out.clone();
                        out[wrong] += F::ONE;
                        let found = scan_first_wrong(recurrence, walk, &heads, &elements, &out).unwrap();
                        assert!(found.abs_diff(wrong) <= 1, "{recurrence:?} {walk:?} of {length}: {wrong}, {found}");
                    }
                }
            }
        }
    }

    fn powers_and_polynomials<F: LimbField>() {
        for length in [0, 1, 2, 511, 512, 513, 1300] {
            let (x, c) = (F::from(3u64) - F::from(50u64), F::from(7u64));
            let mut out = vec![F::ZERO; length];
            powers(x, c, &mut out);
            assert!((0..length).all(|i| out[i] == c * x.pow([i as u64])));
            let polynomial = elements::<F>(length as u64);
            let expected: F = polynomial.iter().enumerate().map(|(i, a)| *a * x.pow([i as u64])).sum();
            assert_eq!(evaluate(&polynomial, x), expected);
        }
        assert_eq!(evaluate(&elements::<F>(3), F::ZERO), elements::<F>(1)[0]);
    }

    #[test]
    fn scans_agree_with_a_loop() {
        agree_with_a_loop::<Fq>();
        agree_with_a_loop::<Fr>();
    }

    #[test]
    fn powers_and_polynomials_agree_with_pow() {
        powers_and_polynomials::<Fq>();
        powers_and_polynomials::<Fr>();
    }
}
