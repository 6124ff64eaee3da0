//! Sums and inner products of resident vectors: every length at which passes, workgroups or launches change, on every engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use ark_ff::{AdditiveGroup as _, Field as _};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Error, Fault, Field, MemoryMode, Options, REDUCTIONS, Reduction, Validation, Vector, Width};
use std::collections::HashSet;
use support::{Watched, cpu, edges, engines, numbers, unwatched};

/// What a reduction is, one element after another.
fn naive<F: Element>(reduction: Reduction, a: &[F], b: &[F]) -> F {
    let start = if reduction == Reduction::Product { F::ONE } else { F::ZERO };
    a.iter().zip(b).fold(start, |total, (a, b)| match reduction {
        Reduction::Sum => total + a,
        Reduction::InnerProduct => total + *a * b,
        Reduction::Product => total * a,
        Reduction::SumOfSquares => total + *a * a,
        other => panic!("no answer known for {other:?}"),
    })
}

/// Elements of a team at least: 8 for each of its invocations.
const TEAM: usize = 1024;

/// Every reduction of the first `lengths` elements, in one recording.
fn check<F: Element>(backend: &Backend, a: &[F], b: &[F], lengths: &[usize]) {
    let (a_there, b_there) = (backend.upload(a).unwrap(), backend.upload(b).unwrap());
    let mut recording = backend.record();
    let mut asked = Vec::new();
    for row in &REDUCTIONS {
        for &length in lengths {
            let slices = [a_there.slice(0..length).unwrap(), b_there.slice(0..length).unwrap()];
            let inputs: Vec<&Vector<F>> = slices.iter().take(row.vectors).collect();
            let out = backend.zeros(1).unwrap();
            recording.reduce_into(row.reduction, &inputs, &out).unwrap();
            asked.push((row.reduction, length, recording.download(&out).unwrap()));
        }
    }
    let mut downloads = recording.submit_verified().unwrap().wait().unwrap();
    for (reduction, length, download) in asked {
        let expected = naive(reduction, &a[..length], &b[..length]);
        assert_eq!(downloads.take(&download).unwrap(), [expected], "{reduction:?} of {length} on {backend}");
    }
}

#[test]
fn lengths_around_a_workgroup_and_of_two_passes() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        let g = TEAM;
        let lengths = [0, 1, 2, 3, 64, 65, g - 1, g, g + 1, 2 * g - 1, 2 * g, 3 * g + 7];
        check::<Fq>(backend, &numbers(3 * g + 7, 1), &numbers(3 * g + 7, 2), &lengths);
        check::<Fr>(backend, &numbers(3 * g + 7, 1), &numbers(3 * g + 7, 2), &lengths);
    }
}

/// Long vectors are added up in another way than those that caches hold.
#[test]
fn vectors_that_caches_hold_and_others() {
    for width in Width::ALL {
        let backend = Watched::new(Options::new().width(width));
        let lengths = [1 << 14, (1 << 14) + 1, 40_001];
        check::<Fq>(&backend, &numbers(40_001, 5), &numbers(40_001, 6), &lengths);
        check::<Fr>(&backend, &numbers(40_001, 5), &numbers(40_001, 6), &lengths);
        check::<Fr>(&backend, &[-Fr::ONE; 20_000], &[-Fr::ONE; 20_000], &[20_000]);
    }
}

/// Segments that three teams share, the last of which has fewer elements.
#[test]
fn segments_of_several_teams() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        let (segment, a, b) = (2500, numbers::<Fr>(7500, 1), numbers::<Fr>(7500, 2));
        let (there, other) = (backend.upload(&a).unwrap(), backend.upload(&b).unwrap());
        let mut recording = backend.record();
        let mut asked = Vec::new();
        for row in &REDUCTIONS {
            let inputs: Vec<&Vector<Fr>> = [&there, &other].into_iter().take(row.vectors).collect();
            let out = backend.zeros(3).unwrap();
            recording.reduce_segments_into(row.reduction, &inputs, &out).unwrap();
            let parts = a.chunks(segment).zip(b.chunks(segment));
            asked.push((row.reduction, out, parts.map(|(a, b)| naive(row.reduction, a, b)).collect::<Vec<Fr>>()));
        }
        recording.submit_verified().unwrap().wait().unwrap();
        for (reduction, out, expected) in asked {
            assert_eq!(out.download().unwrap(), expected, "{reduction:?} on {backend}");
        }
    }
}

/// Whatever workgroups the device's other kernels have.
#[test]
fn workgroups_of_any_size() {
    for size in [1, 33, 300] {
        for width in Width::ALL {
            let backend = Watched::new(Options::new().width(width).workgroup_size(size));
            check::<Fr>(&backend, &numbers(12_000, 3), &numbers(12_000, 4), &[1, 700, 12_000]);
        }
    }
}

/// Single invocations in one pass and in two, teams in one and in two.
#[test]
fn the_passes_are_as_many_as_said() {
    let backend = Watched::new(Options::new());
    for (length, passes) in [(1, 1), (64, 1), (65, 2), (1023, 2), (1024, 1), (1025, 2), (60_000, 2)] {
        let vector = backend.upload(&numbers::<Fr>(length, 1)).unwrap();
        let sum = || {
            let mut recording = backend.record();
            let _ = recording.sum(&vector).unwrap();
            recording.submit().unwrap().wait().unwrap();
            backend.stats().device.dispatches
        };
        // The first brings its self-test.
        let before = sum();
        assert_eq!(sum() - before, passes, "{length} elements");
    }
}

#[test]
fn long_vectors_are_cut_into_launches() {
    // Launches of whole teams: of 1024 elements each, whatever is left in the last.
    for chunk in [1, 2048, 2999] {
        for width in Width::ALL {
            let backend = Watched::new(Options::new().width(width).chunk_elements(chunk));
            check::<Fq>(&backend, &numbers(10_000, 1), &numbers(10_000, 2), &[10_000, 4096, 4097, 100]);
            let vector = backend.upload(&numbers::<Fq>(10_000, 1)).unwrap();
            let mut recording = backend.record();
            let _ = recording.inner_product(&vector, &vector).unwrap();
            let counts = || {
                let stats = backend.stats().device;
                [stats.dispatches, stats.barriers]
            };
            let before = counts();
            recording.submit().unwrap().wait().unwrap();
            let after = counts();
            let launches = 10_000usize.div_ceil((chunk / TEAM).max(1) * TEAM) as u64 + 1;
            // The parts of the first pass go side by side: there is a barrier before the second, and no other.
            assert_eq!([after[0] - before[0], after[1] - before[1]], [launches, 1]);
        }
    }
}

fn of_limbs<F: Element>(limbs: &[Vec<u64>]) -> Vec<F> {
    F::elements(&limbs.concat()).to_vec()
}

#[test]
fn edges_everywhere() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        // p - 1 everywhere, in memory: a carry and a reduction in every addition.
        let largest = of_limbs::<Fq>(&[edges(Field::Fq)[3].clone()])[0];
        check(backend, &vec![largest; 3000], &vec![largest; 3000], &[1, 2, 1023, 1024, 1025, 3000]);
        let largest = of_limbs::<Fr>(&[edges(Field::Fr)[3].clone()])[0];
        check(backend, &vec![largest; 3000], &vec![largest; 3000], &[1, 2, 1023, 1024, 1025, 3000]);
        check(backend, &vec![-Fq::ONE; 1500], &vec![-Fq::ONE; 1500], &[1500]);
        check(backend, &vec![Fr::ZERO; 1500], &vec![-Fr::ONE; 1500], &[1500]);
        let all = of_limbs::<Fr>(&edges(Field::Fr));
        let pairs: (Vec<Fr>, Vec<Fr>) = all.iter().flat_map(|a| all.iter().map(move |b| (*a, *b))).unzip();
        check(backend, &pairs.0, &pairs.1, &[pairs.0.len()]);
    }
}

#[test]
fn the_output_may_be_part_of_the_inputs() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        for length in [1, 5, 1024, 1025, 5000] {
            let numbers: Vec<Fq> = numbers(length, 5);
            let vector = backend.upload(&numbers).unwrap();
            let (first, last) = (vector.slice(0..1).unwrap(), vector.slice(length - 1..length).unwrap());
            let mut recording = backend.record();
            recording.sum_into(&vector, &last).unwrap();
            recording.inner_product_into(&vector, &vector, &first).unwrap();
            recording.sum_into(&last, &last).unwrap();
            recording.submit_verified().unwrap().wait().unwrap();
            let mut expected = numbers;
            expected[length - 1] = expected.iter().sum();
            expected[0] = expected.iter().map(|x| x.square()).sum();
            assert_eq!(vector.download().unwrap(), expected);
        }
    }
}

#[test]
fn bad_reductions_are_refused() {
    let (backend, other) = (cpu(), cpu());
    let (a, b) = (backend.upload(&numbers::<Fr>(10, 1)).unwrap(), backend.upload(&numbers::<Fr>(11, 1)).unwrap());
    let foreign = other.upload(&numbers::<Fr>(10, 1)).unwrap();
    let mut recording = backend.record();
    assert!(matches!(recording.inner_product(&a, &b), Err(Error::LengthMismatch { first: 10, other: 11, .. })));
    assert!(matches!(recording.inner_product(&a, &foreign), Err(Error::ForeignVector { operation: "inner_product" })));
    assert!(matches!(recording.sum_into(&a, &b), Err(Error::LengthMismatch { first: 1, other: 11, .. })));
    let one = backend.zeros::<Fr>(1).unwrap();
    assert!(matches!(recording.reduce_into(Reduction::Sum, &[&a, &a], &one), Err(Error::OperandCount { expected: 1, .. })));
    assert!(recording.is_empty());
}

#[test]
fn the_table_of_reductions_agrees_with_itself() {
    for row in &REDUCTIONS {
        assert!(std::ptr::eq(row.reduction.row(), row));
        assert_eq!(row.name.replace('_', ""), format!("{:?}", row.reduction).to_lowercase());
        assert_eq!(row.reduction.name(), row.name);
    }
    assert_eq!(REDUCTIONS.iter().map(|row| row.name).collect::<HashSet<_>>().len(), REDUCTIONS.len());
}

#[test]
fn a_reduction_that_fails_its_self_test_is_not_used() {
    for (width, memory) in [(Width::Int64, MemoryMode::DeviceLocal), (Width::Int32, MemoryMode::Host)] {
        let options = Options::new().width(width).memory(memory).fault(Fault::FlipBitInSelfTest(5));
        let backend = unwatched(options);
        let vector = backend.zeros::<Fq>(10).unwrap();
        let mut recording = backend.record();
        let _ = recording.sum(&vector).unwrap();
        let error = recording.submit().unwrap_err();
        assert!(matches!(error, Error::SelfTestFailed { operation: "sum", field: Field::Fq, index: 0, .. }), "{error}");
    }
}
