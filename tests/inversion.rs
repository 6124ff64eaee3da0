//! Inverses and quotients of resident vectors, on every engine and in every formulation, against arkworks one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Error, Formulation, Options, Validation, Vector, Zeros};
use proptest::prelude::*;
use std::sync::LazyLock;
use support::{Watched, alone, cpu, edges, engines, numbers, unwatched};

fn inverted<F: Element>(a: &[F]) -> Vec<F> {
    a.iter().map(|a| a.inverse().unwrap_or_else(|| F::from(0u64))).collect()
}

fn as_elements<F: Element>(limbs: &[u64]) -> &[F] {
    F::elements(limbs)
}

fn first_zero<F: Element>(a: &[F]) -> Option<usize> {
    a.iter().position(|a| *a == F::from(0u64))
}

/// The edges, 0 among them, as elements.
fn all_edges<F: Element>() -> Vec<F> {
    as_elements(&edges(F::FIELD).concat()).to_vec()
}

/// Inverts out of place, in place and into what overlaps; divides into each operand; with zeros refused says which is the first.
fn check<F: Element>(backend: &Backend, a: &[F]) {
    let right = inverted(a);
    let b: Vec<F> = numbers(a.len(), 3);
    let quotients: Vec<F> = b.iter().zip(&right).map(|(b, x)| *b * x).collect();
    let upload = |elements: &[F]| backend.upload(elements).unwrap();
    let vectors = [upload(a), upload(a), upload(a), upload(a)];
    let [whole, itself, numerator, divisor] = &vectors;
    let other = upload(&b);
    let both = upload(&[a, &b[..]].concat());
    let middle = a.len() / 2;

    let mut recording = backend.record();
    let out = recording.batch_inverse(whole, Zeros::Keep).unwrap();
    recording.batch_inverse_into(itself, Zeros::Keep, itself).unwrap();
    recording
        .batch_inverse_into(&both.slice(0..a.len()).unwrap(), Zeros::Keep, &both.slice(middle..middle + a.len()).unwrap())
        .unwrap();
    let quotient = recording.divide(&other, whole, Zeros::Keep).unwrap();
    recording.divide_into(&other, divisor, Zeros::Keep, divisor).unwrap();
    recording.divide_into(numerator, &other, Zeros::Keep, numerator).unwrap();
    let single = recording.inverse_or_zero(whole).unwrap();
    recording.submit_verified().unwrap().wait().unwrap();
    let of = |vector: &Vector<F>| vector.download().unwrap();
    assert!(of(&out) == right && of(itself) == right && of(&single) == right, "{} inverses", a.len());
    assert!(of(&both)[middle..middle + a.len()] == right, "overlapping");
    assert!(of(&quotient) == quotients && of(divisor) == quotients, "{} quotients", a.len());
    let reverse: Vec<F> = a.iter().zip(inverted(&b)).map(|(a, x)| *a * x).collect();
    assert!(of(numerator) == reverse, "in place of the numerator");

    let mut recording = backend.record();
    let out = recording.batch_inverse(whole, Zeros::Refuse).unwrap();
    let download = recording.download(&out).unwrap();
    match (recording.submit().unwrap().wait(), first_zero(a)) {
        (Ok(mut downloads), None) => {
            assert_eq!(downloads.len(), 1);
            assert!(downloads.take(&download).unwrap() == right);
        }
        (Err(Error::ZeroInverse { index }), Some(zero)) => assert_eq!(index, zero),
        (got, zero) => panic!("{:?} for a zero at {zero:?}", got.err()),
    }
    assert!(of(&out) == right, "done all the same");
}

static CPU: LazyLock<Backend> = LazyLock::new(cpu);
static ENGINES: LazyLock<Vec<Watched>> = LazyLock::new(|| engines(Validation::Synchronization));

fn everywhere<F: Element>(a: &[F]) {
    check(&CPU, a);
    ENGINES.iter().for_each(|engine| check(engine, a));
}

/// Around one element an invocation, which a software device gives up at 512, and the borders of workgroups.
fn lengths<F: Element>() {
    for length in [0, 1, 2, 63, 64, 65, 127, 511, 512, 513, 1023, 1025, 1537] {
        everywhere(&numbers::<F>(length, 1));
    }
}

#[test]
fn inverses_of_awkward_lengths_in_fq() {
    lengths::<Fq>();
}

#[test]
fn inverses_of_awkward_lengths_in_fr() {
    lengths::<Fr>();
}

fn zeros<F: Element>() {
    let edges = all_edges::<F>();
    everywhere(&edges);
    everywhere(&edges[1..]);
    let zero = F::from(0u64);
    everywhere(&[zero; 700]);
    for at in [0, 1, 511, 512, 600, 1299] {
        let mut a: Vec<F> = (0..1300).map(|i| F::from(i + 1u64)).collect();
        a[at] = zero;
        everywhere(&a);
        a[1299] = zero;
        everywhere(&a);
    }
}

#[test]
fn zeros_wherever_they_are_in_fq() {
    zeros::<Fq>();
}

#[test]
fn zeros_wherever_they_are_in_fr() {
    zeros::<Fr>();
}

#[test]
fn every_formulation_inverts() {
    for formulation in [Formulation::Words, Formulation::Digits, Formulation::Doubles] {
        let options = Options::new().formulation(formulation);
        let backend = match Backend::new(&alone(options)) {
            Ok(backend) => backend,
            Err(Error::InvalidOption { reason, .. }) => {
                println!("{formulation:?}: {reason}");
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        for length in [1, 513, 2000] {
            check::<Fq>(&backend, &numbers(length, 2));
            check::<Fr>(&backend, &numbers(length, 2));
        }
        check(&backend, &all_edges::<Fq>());
        check(&backend, &all_edges::<Fr>());
    }
}

/// Launches of few elements, cut where they may be: each finds its own zeros, the first of all of them counts.
#[test]
fn long_vectors_are_cut_into_launches() {
    // One or two elements to an invocation, and as many as an eighth of a launch.
    for (chunk, length) in [(100, 1000), (64, 8000)] {
        let backend = unwatched(Options::new().chunk_elements(chunk));
        let mut a: Vec<Fr> = (1..=length as u64).map(Fr::from).collect();
        check(&backend, &a);
        (a[length - 650], a[length - 2]) = (Fr::from(0u64), Fr::from(0u64));
        check(&backend, &a);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let (one, other) = (&ENGINES[0], &ENGINES[1]);
    let (a, b) = (one.upload(&[Fr::from(1u64); 4]).unwrap(), one.upload(&[Fr::from(2u64); 3]).unwrap());
    let foreign = other.upload(&[Fr::from(1u64); 4]).unwrap();
    let mut recording = one.record();
    let keep = Zeros::Keep;
    assert!(matches!(recording.batch_inverse_into(&a, keep, &b), Err(Error::LengthMismatch { .. })));
    assert!(matches!(recording.batch_inverse(&foreign, keep), Err(Error::ForeignVector { .. })));
    assert!(matches!(recording.divide(&a, &b, keep), Err(Error::LengthMismatch { .. })));
    assert!(matches!(recording.divide(&a, &foreign, keep), Err(Error::ForeignVector { .. })));
    let (low, high) = (a.slice(0..3).unwrap(), a.slice(1..4).unwrap());
    assert!(matches!(recording.divide_into(&low, &b, keep, &high), Err(Error::Overlap { .. })));
    assert!(recording.is_empty(), "nothing of what was refused is recorded");
    // Of the divisor it may be another part.
    recording.divide_into(&b, &low, keep, &high).unwrap();
    recording.submit_verified().unwrap().wait().unwrap();
    assert_eq!(a.download().unwrap()[1..], [Fr::from(2u64); 3]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_vector_is_inverted(limbs in prop::collection::vec(support::element(bls12_field_gpu::Field::Fq), 0..40)) {
        let limbs = limbs.concat();
        check(&ENGINES[0], as_elements::<Fq>(&limbs));
        check(&ENGINES[2], as_elements::<Fq>(&limbs));
    }
}
