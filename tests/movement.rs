//! Movements of resident vectors: every one, at lengths around each border, on every engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Error, MemoryMode, Options, Recording, Validation, Vector, Width};
use proptest::prelude::*;
use std::sync::LazyLock;
use support::{Watched, cpu, engines, numbers};

/// What a recording of one movement leaves, verified.
fn moved<F: Element>(
    backend: &Backend,
    record: impl FnOnce(&mut Recording) -> Result<Vector<F>, Error>,
) -> Result<Vec<F>, Error> {
    let mut recording = backend.record();
    let out = record(&mut recording)?;
    recording.submit_verified()?.wait()?;
    out.download()
}

/// The elements at these positions, by definition.
fn taken<F: Element>(a: &[F], positions: impl IntoIterator<Item = usize>) -> Vec<F> {
    positions.into_iter().map(|position| a[position]).collect()
}

/// A vector that is a slice in the middle of another.
fn slice<F: Element>(backend: &Backend, a: &[F]) -> Vector<F> {
    let padded = [&numbers(3, 9), a, &numbers(2, 9)].concat();
    backend.upload(&padded).unwrap().slice(3..3 + a.len()).unwrap()
}

/// Without pattern.
fn scrambled(length: usize, below: usize) -> Vec<u32> {
    (0..length as u64).map(|i| ((i * i * 31 + i * 77 + 5) % below as u64) as u32).collect()
}

fn all_of_length<F: Element>(backend: &Backend, length: usize) {
    let a: Vec<F> = numbers(length, 1);
    let there = slice(backend, &a);
    let is = |got: Result<Vec<F>, Error>, expected: Vec<F>, what: &str| {
        assert!(got.unwrap() == expected, "{what} of {length} {} on {backend}", F::FIELD);
    };
    is(moved(backend, |r| r.reverse(&there)), taken(&a, (0..length).rev()), "reverse");
    for by in [0, 1, length / 3, length, length + 1, usize::MAX] {
        let from = |i: usize| (i + by % length.max(1)) % length.max(1);
        is(moved(backend, |r| r.rotate(&there, by)), taken(&a, (0..length).map(from)), "rotate");
    }
    for (first, step) in [(0, 1), (0, 2), (1, 3), (length / 2, 0), (length.saturating_sub(1), 7)] {
        let count = if step == 0 { 5 } else { length.saturating_sub(first).div_ceil(step) };
        if length > 0 {
            let expected = taken(&a, (0..count).map(|i| first + i * step));
            is(moved(backend, |r| r.strided(&there, first, step, count)), expected, "strided");
        }
    }
    let expected = [&a[..], &a[..length / 2], &a].concat();
    let half = there.slice(0..length / 2).unwrap();
    is(moved(backend, |r| r.concatenate(&[&there, &half, &there])), expected, "concatenate");
    if length > 0 {
        let positions = scrambled(length + 3, length);
        let indices = backend.upload_indices(&[&[0], &positions[..]].concat(), length).unwrap();
        let indices = indices.slice(1..length + 4).unwrap();
        let expected = taken(&a, positions.iter().map(|&i| i as usize));
        is(moved(backend, |r| r.gather(&there, &indices)), expected, "gather");
        // 7919 is prime.
        let places: Vec<u32> = (0..length).map(|i| (i * 5 % 7919) as u32).collect();
        let mut expected = vec![F::ZERO; 7919];
        places.iter().zip(&a).for_each(|(&place, a)| expected[place as usize] = *a);
        let indices = backend.upload_indices(&places, 7919).unwrap();
        is(moved(backend, |r| r.scatter(&there, &indices, 7919)), expected, "scatter");
    }
    for every in [1, 2, 7, usize::MAX] {
        let other: Vec<F> = a.iter().enumerate().map(|(i, a)| if i * i % every < 2 { *a } else { -*a }).collect();
        let other = backend.upload(&other).unwrap();
        let mut recording = backend.record();
        let mask = recording.equal(&there, &other).unwrap();
        let (kept, count) = recording.compact(&there, &mask).unwrap();
        recording.submit_verified().unwrap().wait().unwrap();
        let flags = mask.download().unwrap();
        let mut expected: Vec<F> = a.iter().zip(&flags).filter(|(_, flag)| **flag).map(|(a, _)| *a).collect();
        assert_eq!(count.download().unwrap(), [expected.len()]);
        expected.resize(length, F::ZERO);
        is(kept.download(), expected, "compact");
    }
}

#[test]
fn every_length_that_is_a_border() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        for length in [0, 1, 2, 97, 1023, 1024, 1025, 2503] {
            all_of_length::<Fq>(backend, length);
            all_of_length::<Fr>(backend, length);
        }
    }
}

fn matrices_and_powers<F: Element>(backend: &Backend) {
    for (rows, columns) in [(0, 5), (5, 0), (1, 1), (1, 70), (70, 1), (15, 17), (16, 16), (33, 47), (3, 257)] {
        let a: Vec<F> = numbers(rows * columns, 2);
        let there = slice(backend, &a);
        let expected = taken(&a, (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column)));
        let got = moved(backend, |r| r.transpose(&there, rows, columns)).unwrap();
        assert!(got == expected, "{rows} x {columns} {} on {backend}", F::FIELD);
    }
    for bits in 0..=11u32 {
        let length = 1usize << bits;
        let a: Vec<F> = numbers(length, 3);
        let there = slice(backend, &a);
        let reversed = |i: usize| (0..bits).fold(0, |r, bit| r | (i >> bit & 1) << (bits - 1 - bit));
        let got = moved(backend, |r| r.bit_reverse(&there)).unwrap();
        assert!(got == taken(&a, (0..length).map(reversed)), "2^{bits} {} on {backend}", F::FIELD);
    }
}

#[test]
fn matrices_of_any_shape_and_all_powers_of_two() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        matrices_and_powers::<Fq>(backend);
        matrices_and_powers::<Fr>(backend);
    }
}

#[test]
fn short_launches_and_workgroups_of_any_size() {
    for (size, chunk) in [(1, 5000), (33, 1000), (257, 1), (64, 1500)] {
        for width in Width::ALL {
            let backend = Watched::new(Options::new().width(width).workgroup_size(size).chunk_elements(chunk));
            let length = if chunk == 1 { 70 } else { 3001 };
            all_of_length::<Fq>(&backend, length);
            all_of_length::<Fr>(&backend, length);
            if chunk > 1 {
                matrices_and_powers::<Fr>(&backend);
            }
        }
    }
}

#[test]
fn what_is_recorded_together_takes_effect_in_order() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        let a: Vec<Fq> = numbers(512, 4);
        let vector = backend.upload(&a).unwrap();
        let places = backend.upload_indices(&[511, 0, 7], 512).unwrap();
        let mut recording = backend.record();
        let reversed = recording.bit_reverse(&vector).unwrap();
        recording.bit_reverse_into(&reversed, &vector).unwrap();
        recording.copy_into(&vector.slice(0..100).unwrap(), &reversed.slice(400..500).unwrap()).unwrap();
        // Into what the step before wrote; what is not written stays.
        recording.scatter_into(&vector.slice(1..4).unwrap(), &places, &reversed).unwrap();
        let square = recording.transpose(&reversed, 16, 32).unwrap();
        recording.transpose_into(&square, 32, 16, &reversed).unwrap();
        recording.submit_verified().unwrap().wait().unwrap();
        assert_eq!(vector.download().unwrap(), a);
        let got = reversed.download().unwrap();
        assert_eq!([got[511], got[0], got[7]], [a[1], a[2], a[3]]);
        assert_eq!(got[400..500], a[..100]);
        assert_eq!(got[8], a[32]);
        // From a vector into another part of it.
        let mut recording = backend.record();
        recording.copy_into(&vector.slice(0..1).unwrap(), &vector.slice(1..2).unwrap()).unwrap();
        recording.copy_into(&vector.slice(0..2).unwrap(), &vector.slice(2..4).unwrap()).unwrap();
        recording.submit().unwrap().wait().unwrap();
        assert_eq!(vector.download().unwrap()[..5], [a[0], a[0], a[0], a[0], a[4]]);
    }
}

#[test]
fn bad_movements_are_refused() {
    let (backend, other) = (cpu(), cpu());
    let a = backend.upload(&numbers::<Fr>(10, 1)).unwrap();
    let foreign = other.upload(&numbers::<Fr>(10, 1)).unwrap();
    let mut recording = backend.record();
    let (low, high) = (a.slice(0..6).unwrap(), a.slice(4..10).unwrap());
    assert!(matches!(recording.reverse_into(&low, &high), Err(Error::Overlap { operation: "reverse" })));
    assert!(matches!(recording.rotate_into(&a, 3, &a), Err(Error::Overlap { operation: "rotate" })));
    assert!(matches!(recording.copy_into(&low, &high), Err(Error::Overlap { operation: "concatenate" })));
    assert!(matches!(
        recording.reverse_into(&low, &foreign),
        Err(Error::ForeignVector { .. } | Error::LengthMismatch { .. })
    ));
    assert!(matches!(recording.reverse(&foreign), Err(Error::ForeignVector { operation: "reverse" })));
    assert!(matches!(recording.concatenate(&[&a, &foreign]), Err(Error::ForeignVector { .. })));
    assert!(matches!(recording.bit_reverse(&a), Err(Error::NotAPowerOfTwo { length: 10, .. })));
    assert!(matches!(recording.transpose(&a, 3, 3), Err(Error::LengthMismatch { first: 9, other: 10, .. })));
    assert!(matches!(recording.transpose(&a, usize::MAX, 3), Err(Error::LengthMismatch { .. })));
    for (first, step, count) in [(10, 1, 1), (0, 3, 5), (0, usize::MAX, 3), (0, 0, usize::MAX), (usize::MAX, 1, 2)] {
        assert!(matches!(recording.strided(&a, first, step, count), Err(Error::OutOfRange { length: 10, .. })));
    }
    assert!(matches!(
        backend.upload_indices(&[0, 10, 11], 10),
        Err(Error::IndexOutOfRange { position: 1, index: 10, bound: 10 })
    ));
    let past = backend.upload_indices(&[0, 1], 11).unwrap();
    assert!(matches!(recording.gather(&a, &past), Err(Error::IndexBound { operation: "gather", bound: 11, length: 10 })));
    assert!(matches!(recording.scatter(&low, &past, 10), Err(Error::LengthMismatch { .. })));
    assert!(matches!(recording.scatter(&a.slice(0..2).unwrap(), &past, 10), Err(Error::IndexBound { .. })));
    assert!(matches!(recording.scatter(&low, &past, usize::MAX), Err(Error::LengthMismatch { .. })));
    let twice = backend.upload_indices(&[3, 3], 10).unwrap();
    assert!(matches!(recording.scatter(&a.slice(0..2).unwrap(), &twice, 10), Err(Error::RepeatedIndices { .. })));
    let places = backend.upload_indices(&[3, 4], 10).unwrap();
    assert!(matches!(recording.scatter_into(&a.slice(0..2).unwrap(), &places, &a), Err(Error::Overlap { .. })));
    let foreign = other.upload_indices(&[3, 4], 10).unwrap();
    assert!(matches!(recording.gather(&a, &foreign), Err(Error::ForeignVector { .. })));
    assert!(recording.is_empty());
    assert!(matches!(places.slice(1..3), Err(Error::OutOfRange { end: 3, .. })));
    assert_eq!(format!("{places:?}"), "Indices(2 below 10)");
}

#[test]
fn memory_of_the_device_or_the_host_as_it_is() {
    let backend = Watched::new(Options::new().memory(MemoryMode::Host).width(Width::Int32));
    assert_eq!(backend.upload_indices(&[5, 2, 5], 6).unwrap().slice(1..3).unwrap().download().unwrap(), [2, 5]);
    assert!(backend.upload_indices(&[], 0).unwrap().download().unwrap().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A rotation and its opposite, a permutation scattered and gathered, a transpose of a transpose.
    #[test]
    fn what_goes_there_comes_back(length in 1usize..3000, by in 0usize..5000, rows in 1usize..60, seed: u64) {
        static BACKEND: LazyLock<Backend> = LazyLock::new(|| support::unwatched(Options::new()));
        let length = length.div_ceil(rows) * rows;
        let a: Vec<Fr> = numbers(length, seed % 1000);
        let vector = BACKEND.upload(&a).unwrap();
        let mut places: Vec<u32> = (0..length as u32).collect();
        places.sort_by_key(|&i| (u64::from(i) + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32));
        let indices = BACKEND.upload_indices(&places, length).unwrap();
        let mut recording = BACKEND.record();
        let there = recording.rotate(&vector, by).unwrap();
        let there = recording.scatter(&there, &indices, length).unwrap();
        let there = recording.transpose(&there, rows, length / rows).unwrap();
        let back = recording.transpose(&there, length / rows, rows).unwrap();
        let back = recording.gather(&back, &indices).unwrap();
        let back = recording.rotate(&back, length - by % length).unwrap();
        recording.submit().unwrap();
        prop_assert_eq!(back.download().unwrap(), a);
    }
}
