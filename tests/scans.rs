//! Scans and polynomials on resident vectors: on every engine what a loop over arkworks' elements gives.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use ark_ff::Field as _;
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Error, Formulation, Options, Scan, Validation};
use support::{cpu, engines, numbers};

/// Around the lengths of chunks, workgroups, and what a level of workgroups folds.
const LENGTHS: [usize; 12] = [0, 1, 2, 15, 16, 17, 255, 257, 1023, 1031, 4097, 9001];

fn loops<F: Element>(a: &[F], segment: usize, one: F, step: impl Fn(F, F) -> F) -> (Vec<F>, Vec<F>) {
    let (mut inclusive, mut exclusive) = (Vec::new(), Vec::new());
    for part in a.chunks(segment.max(1)) {
        let mut carried = one;
        for x in part {
            exclusive.push(carried);
            carried = step(carried, *x);
            inclusive.push(carried);
        }
    }
    (inclusive, exclusive)
}

fn scans<F: Element>(backend: &Backend, length: usize) {
    let a = numbers::<F>(length, 3);
    let vector = backend.upload(&a).unwrap();
    for segment in [length, 1, length / 3, 17].into_iter().filter(|&s| s > 0 && length.is_multiple_of(s)) {
        for (scan, (inclusive, exclusive)) in [
            (Scan::sum(), loops(&a, segment, F::ZERO, |x, y| x + y)),
            (Scan::product(), loops(&a, segment, F::ONE, |x, y| x * y)),
        ] {
            let mut recording = backend.record();
            let scanned = recording.scan(scan.segments(segment), &vector).unwrap();
            let before = recording.scan(scan.segments(segment).exclusive(), &vector).unwrap();
            recording.submit_verified().unwrap().wait().unwrap();
            assert_eq!(scanned.download().unwrap(), inclusive, "{scan:?} of {length} in segments of {segment}");
            assert_eq!(before.download().unwrap(), exclusive, "{scan:?} of {length} in segments of {segment}");
        }
    }
}

fn polynomials<F: Element>(backend: &Backend, length: usize) {
    let a = numbers::<F>(length, 5);
    let (polynomial, points) = (backend.upload(&a).unwrap(), [F::ZERO, F::ONE, -F::ONE, F::from(7u64).inverse().unwrap()]);
    let values = points.map(|z| a.iter().rev().fold(F::ZERO, |sum, x| sum * z + x));
    let several = backend.upload(&points).unwrap();
    let mut recording = backend.record();
    let together = recording.evaluate_at(&polynomial, &several).unwrap();
    let mut divided = Vec::new();
    for z in &points {
        let value = recording.evaluate_point(&polynomial, z).unwrap();
        divided.push((value, recording.divide_by_linear(&polynomial, z).unwrap()));
    }
    let powers = recording.powers(&points[3], &points[2], length).unwrap();
    recording.submit_verified().unwrap().wait().unwrap();
    assert_eq!(together.download().unwrap(), values);
    for ((z, expected), (value, (quotient, remainder))) in points.iter().zip(values).zip(divided) {
        assert_eq!(value.download().unwrap(), [expected]);
        assert_eq!(remainder.download().unwrap(), [expected]);
        let quotient = quotient.download().unwrap();
        // (X - z) q + r, coefficient by coefficient.
        let shifted = std::iter::once(expected).chain(quotient.iter().copied());
        let again: Vec<F> = shifted.zip(quotient.iter().copied().chain([F::ZERO])).map(|(q, next)| q - next * z).collect();
        assert_eq!(again[..length], a[..]);
    }
    let mut power = points[2];
    for got in powers.download().unwrap() {
        assert_eq!(got, power);
        power *= points[3];
    }
}

#[test]
fn scans_are_loops() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        for length in LENGTHS {
            scans::<Fr>(backend, length);
            scans::<Fq>(backend, length);
        }
    }
}

#[test]
fn polynomials_are_what_horner_says() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        for length in [0, 1, 2, 17, 1023, 4099] {
            polynomials::<Fr>(backend, length);
            polynomials::<Fq>(backend, length);
        }
    }
}

#[test]
fn in_every_formulation() {
    for formulation in Formulation::ALL {
        match Backend::new(&support::alone(Options::new().formulation(formulation))) {
            Ok(backend) => {
                scans::<Fq>(&backend, 1031);
                scans::<Fr>(&backend, 1031);
                polynomials::<Fr>(&backend, 1031);
            }
            Err(Error::InvalidOption { .. }) if formulation == Formulation::Doubles => {}
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_cannot_be_scanned_is_refused() {
    let backend = cpu();
    let vector = backend.upload(&numbers::<Fr>(10, 1)).unwrap();
    let mut recording = backend.record();
    assert!(matches!(recording.scan(Scan::sum().segments(3), &vector), Err(Error::LengthMismatch { .. })));
    assert!(matches!(recording.scan(Scan::sum().segments(0), &vector), Err(Error::LengthMismatch { .. })));
    assert!(matches!(recording.scan_into(Scan::sum(), &vector, &vector), Err(Error::Overlap { .. })));
    assert!(recording.is_empty());
}
