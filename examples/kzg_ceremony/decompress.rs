//! Decompression as vector operations: every square, product and root of all points at once, on a backend.

use super::encoding::{Encoded, Fault, Limbs, Point};
use super::setup::G1_BYTES;
use ark_bls12_381::G1Affine;
use bls12_field_gpu::{Backend, Error};
use std::time::{Duration, Instant};

/// The curve is y^2 = x^3 + 4.
const FOUR: Limbs = [4, 0, 0, 0, 0, 0];

/// How long each stage took.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    pub(crate) stages: Vec<(&'static str, Duration)>,
}

impl Clock {
    pub(crate) fn time<T>(&mut self, stage: &'static str, work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        self.stages.push((stage, start.elapsed()));
        result
    }

    pub(crate) fn total(&self) -> Duration {
        self.stages.iter().map(|(_, time)| time).sum()
    }
}

/// The points, or what is wrong with them. The host reads bytes and picks between y and -y; the backend does the arithmetic.
pub(crate) fn decompress(
    backend: &Backend,
    encodings: &[[u8; G1_BYTES]],
    clock: &mut Clock,
) -> Result<Vec<Result<Point, Fault>>, Error> {
    let fq = backend.fq();
    let encoded: Vec<_> = clock.time("flags and x", || encodings.iter().map(Encoded::read).collect());
    // An encoding without an x takes part with x = 0, so that places stay; what comes of it is not looked at.
    let x: Vec<Limbs> = encoded.iter().map(|encoded| x_or_zero(encoded).0).collect();
    let x = x.as_flattened();

    let square = clock.time("square", || fq.square_u64_limbs(x))?;
    let cube = clock.time("cube", || fq.mul_u64_limbs(&square, x))?;
    let y_squared = clock.time("+ 4", || fq.add_scalar_u64_limbs(&cube, &FOUR))?;
    let (mut y, has_root) = clock.time("square root", || fq.sqrt_u64_limbs(&y_squared))?;
    clock.time("sign of y", || -> Result<(), Error> {
        let negative = fq.neg_u64_limbs(&y)?;
        for ((y, negative), encoded) in elements_mut(&mut y).iter_mut().zip(elements(&negative)).zip(&encoded) {
            let is_larger = y.iter().rev().gt(negative.iter().rev());
            if is_larger != x_or_zero(encoded).1 {
                *y = *negative;
            }
        }
        Ok(())
    })?;
    let on_curve = clock.time("check", || fq.equal_u64_limbs(&fq.square_u64_limbs(&y)?, &y_squared))?;

    let coordinates = elements(x).iter().zip(elements(&y));
    let decided = encoded.into_iter().zip(has_root.into_iter().zip(on_curve)).zip(coordinates);
    let points = decided.map(|((encoded, (has_root, on_curve)), (&x, &y))| match encoded? {
        Encoded::Infinity => Ok(Point::Infinity),
        Encoded::Affine { .. } if !has_root => Err(Fault::NoRoot),
        Encoded::Affine { .. } if !on_curve => Err(Fault::NotOnCurve),
        Encoded::Affine { .. } => Ok(Point::Affine { x, y }),
    });
    Ok(points.collect())
}

/// The points that are not as they should be, by number. arkworks' answer to the same bytes is what decides: an encoding
/// changed into that of another point has no fault.
pub(crate) fn faults(points: &[Result<Point, Fault>], arkworks: &[Option<G1Affine>]) -> Vec<(usize, Fault)> {
    let judged = points.iter().zip(arkworks).enumerate();
    judged
        .filter_map(|(number, (ours, theirs))| match (ours, theirs.as_ref().map(Point::from)) {
            (Ok(ours), Some(theirs)) if *ours == theirs => None,
            (Err(fault), None) => Some((number, *fault)),
            _ => Some((number, Fault::Differs)),
        })
        .collect()
}

fn x_or_zero(encoded: &Result<Encoded, Fault>) -> (Limbs, bool) {
    match encoded {
        Ok(Encoded::Affine { x, larger_y }) => (*x, *larger_y),
        Ok(Encoded::Infinity) | Err(_) => ([0; 6], false),
    }
}

fn elements(limbs: &[u64]) -> &[Limbs] {
    limbs.as_chunks().0
}

fn elements_mut(limbs: &mut [u64]) -> &mut [Limbs] {
    limbs.as_chunks_mut().0
}
