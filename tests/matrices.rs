//! Products of matrices and vectors on every engine: shapes around every border, dense and sparse, against loops.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{
    Backend, DeviceError, Error, Fault, Field, Formulation, Options, SparseMatrix, Validation, Verify, Width,
};
use proptest::prelude::*;
use std::sync::LazyLock;
use support::{Watched, cpu, edges, engines, numbers, unwatched};

fn naive<F: Element>(a: &[F], b: &[F], (rows, inner, columns): (usize, usize, usize)) -> Vec<F> {
    let entry = |row: usize, column: usize| (0..inner).map(|i| a[row * inner + i] * b[i * columns + column]).sum();
    (0..rows).flat_map(|row| (0..columns).map(move |column| entry(row, column))).collect()
}

fn dense<F: Element>(backend: &Backend, shape: (usize, usize, usize), a: &[F], b: &[F]) {
    let there = [a, b].map(|a| {
        let padded = [&numbers(1, 1), a, &numbers(2, 1)].concat();
        backend.upload(&padded).unwrap().slice(1..1 + a.len()).unwrap()
    });
    let mut recording = backend.record();
    let product = recording.matrix_product(&there[0], &there[1], shape).unwrap();
    let vector = (shape.2 == 1).then(|| recording.matrix_vector(&there[0], &there[1], shape.0).unwrap());
    recording.submit_verified().unwrap().wait().unwrap();
    let expected = naive(a, b, shape);
    assert!(product.download().unwrap() == expected, "{shape:?} {} on {backend}", F::FIELD);
    if let Some(vector) = vector {
        assert!(vector.download().unwrap() == expected, "{shape:?} {} on {backend}", F::FIELD);
    }
}

const SHAPES: [(usize, usize, usize); 14] = [
    (0, 3, 2),
    (3, 0, 2),
    (3, 2, 0),
    (1, 1, 1),
    (1, 7, 13),
    (13, 7, 1),
    (5, 3, 2),
    (16, 5, 16),
    (17, 2, 17),
    (31, 3, 37),
    (2, 255, 2),
    (2, 257, 3),
    (1, 16_389, 1),
    (300, 3, 1),
];

#[test]
fn dense_products_of_any_shape() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        for (m, k, n) in SHAPES {
            dense::<Fq>(backend, (m, k, n), &numbers(m * k, 1), &numbers(k * n, 2));
            dense::<Fr>(backend, (m, k, n), &numbers(m * k, 3), &numbers(k * n, 4));
        }
    }
}

fn of_limbs<F: Element>(limbs: &[Vec<u64>]) -> Vec<F> {
    F::elements(&limbs.concat()).to_vec()
}

/// Sums that are as large as they get, and every edge against every edge.
fn edges_of<F: Element>(backend: &Backend, field: Field) {
    let all: Vec<F> = of_limbs(&edges(field));
    dense(backend, (all.len(), 1, all.len()), &all, &all);
    dense(backend, (1, all.len(), 1), &all, &all);
    // p - 1 in memory.
    let largest: Vec<F> = vec![of_limbs(&[edges(field)[3].clone()])[0]; 2000];
    for inner in [1, 2, 3, 4, 5, 8, 9, 16, 17, 64, 65, 255, 2000] {
        dense(backend, (1, inner, 1), &largest[..inner], &largest[..inner]);
    }
    for length in [100, 700, 2000] {
        let columns: Vec<u32> = (0..length as u32).collect();
        let matrix = backend.upload_sparse(&[0, length as u32], &columns, &largest[..length], length).unwrap();
        let mut recording = backend.record();
        let x = backend.upload(&largest[..length]).unwrap();
        let y = recording.sparse_vector(&matrix, &x).unwrap();
        recording.submit().unwrap();
        let square = largest[0] * largest[0];
        assert_eq!(y.download().unwrap(), [square * F::from(length as u64)], "{length}");
    }
}

#[test]
fn edges_everywhere() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        edges_of::<Fq>(backend, Field::Fq);
        edges_of::<Fr>(backend, Field::Fr);
    }
}

/// Rows of so many values each; values from so many different ones.
fn sparse<F: Element>(backend: &Backend, lengths: &[usize], width: usize, kinds: usize) {
    let mut offsets = vec![0u32];
    lengths.iter().for_each(|length| offsets.push(offsets.last().unwrap() + *length as u32));
    let nonzeros = *offsets.last().unwrap() as usize;
    let columns: Vec<u32> = (0..nonzeros).map(|i| ((i * i + 7 * i) % width) as u32).collect();
    let values: Vec<F> = numbers::<F>(kinds.min(nonzeros), 5).into_iter().cycle().take(nonzeros).collect();
    let x: Vec<F> = numbers(width, 6);
    let matrix = backend.upload_sparse(&offsets, &columns, &values, width).unwrap();
    assert_eq!((matrix.rows(), matrix.columns(), matrix.nonzeros()), (lengths.len(), width, nonzeros));
    let there = backend.upload(&x).unwrap();
    let mut recording = backend.record();
    let y = recording.sparse_vector(&matrix, &there).unwrap();
    recording.submit_verified().unwrap().wait().unwrap();
    let entry = |row: &[u32]| (row[0] as usize..row[1] as usize).map(|i| values[i] * x[columns[i] as usize]).sum();
    let expected: Vec<F> = offsets.windows(2).map(entry).collect();
    assert!(y.download().unwrap() == expected, "{lengths:?} {} on {backend}", F::FIELD);
}

#[test]
fn sparse_rows_of_any_length() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        for kinds in [3, usize::MAX] {
            sparse::<Fr>(backend, &[], 5, kinds);
            sparse::<Fq>(backend, &[0, 0, 0], 5, kinds);
            sparse::<Fr>(backend, &[1], 1, kinds);
            sparse::<Fq>(backend, &[0, 1, 63, 64, 65, 66, 0, 127, 128, 129, 2, 0], 97, kinds);
            sparse::<Fr>(backend, &[5, 8192, 0, 8193, 1, 130, 130, 130], 541, kinds);
            sparse::<Fq>(backend, &[0; 300], 5, kinds);
            sparse::<Fr>(backend, &(0..300).map(|i| i * i % 7).collect::<Vec<_>>(), 97, kinds);
        }
    }
}

/// A row that takes three levels of partial sums.
#[test]
fn a_very_long_row() {
    for width in Width::ALL {
        let backend = Watched::new(Options::new().width(width));
        sparse::<Fr>(&backend, &[2, (1 << 18) + 3, 1], 1009, usize::MAX);
    }
}

#[test]
fn short_launches_and_workgroups_of_any_size() {
    for (size, chunk) in [(1, 100), (33, 100), (257, 1000), (64, 70)] {
        for width in Width::ALL {
            let backend = Watched::new(Options::new().width(width).workgroup_size(size).chunk_elements(chunk));
            for (m, k, n) in [(17, 5, 19), (2, 300, 2)] {
                dense::<Fq>(&backend, (m, k, n), &numbers(m * k, 1), &numbers(k * n, 2));
            }
            sparse::<Fr>(&backend, &[1, 0, 65, 3, 130, 64, 2, 270], 60, usize::MAX);
        }
    }
}

/// There is one formulation of dot products: whichever is asked for.
#[test]
fn whatever_formulation_is_asked_for() {
    for formulation in [Formulation::Words, Formulation::Digits] {
        let backend = Watched::new(Options::new().formulation(formulation));
        dense::<Fr>(&backend, (5, 6, 7), &numbers(30, 1), &numbers(42, 2));
        sparse::<Fq>(&backend, &[3, 70], 60, usize::MAX);
    }
}

/// Partial sums of so many rows would not fit one allocation of every device.
#[test]
fn very_many_shared_rows() {
    sparse::<Fq>(&Watched::new(Options::new()), &vec![65; 43_700], 101, 3);
}

/// Products without rows may have any number of columns.
#[test]
fn a_proof_of_nothing_takes_no_memory() {
    let backend = Watched::new(Options::new().verify(Verify::Proofs));
    let (a, empty) = (backend.upload(&numbers::<Fr>(6, 1)).unwrap(), backend.upload::<Fr>(&[]).unwrap());
    let mut recording = backend.record();
    recording.matrix_product(&empty, &empty, (0, 0, usize::MAX)).unwrap();
    let square = recording.matrix_product(&a, &a, (2, 3, 2)).unwrap();
    recording.submit_verified().unwrap().wait().unwrap();
    assert_eq!(square.download().unwrap(), naive(&numbers::<Fr>(6, 1), &numbers(6, 1), (2, 3, 2)));
}

/// By a combination of the rows that only the host knows.
#[test]
fn sparse_products_are_proved() {
    fn product<F: Element>(backend: &Backend, wide: bool) -> Result<(), Error> {
        // Short rows, one without values, and one that is shared.
        let lengths = [3, 0, 1, 200, 2];
        let offsets: Vec<u32> = (0..=5).map(|row| lengths[..row].iter().sum()).collect();
        let values = numbers::<F>(206, 1);
        let width = if wide { 500 } else { 30 };
        let columns: Vec<u32> = (0..206).map(|n| n * n % width).collect();
        let matrix = backend.upload_sparse(&offsets, &columns, &values, width as usize)?;
        let x = backend.upload(&numbers::<F>(width as usize, 2))?;
        let mut recording = backend.record();
        recording.sparse_vector(&matrix, &x)?;
        recording.submit_verified()?.wait().map(drop)
    }
    let right = Watched::new(Options::new().verify(Verify::Proofs));
    for wide in [false, true] {
        product::<Fq>(&right, wide).unwrap();
        product::<Fr>(&right, wide).unwrap();
    }
    assert_eq!(right.stats().verified_elements, 20);
    for row in 0..5 {
        let wrong = Options::new().verify(Verify::Proofs).fault(Fault::FlipBit(256 * row + 77));
        match product::<Fr>(&Watched::new(wrong), row % 2 == 0) {
            Err(Error::VerificationFailed { operation: "sparse_vector", index, .. }) => assert_eq!(index as u64, row),
            other => panic!("{other:?}"),
        }
    }
    // Where nobody could have a vector for it, there is nothing to prove.
    assert_eq!(right.upload_sparse::<Fr>(&[0, 0], &[], &[], usize::MAX).unwrap().rows(), 1);
}

#[test]
fn bad_products_are_refused() {
    let (backend, other) = (cpu(), cpu());
    let [a, b] = [6, 8].map(|length| backend.upload(&numbers::<Fr>(length, 1)).unwrap());
    let foreign = other.upload(&numbers::<Fr>(6, 1)).unwrap();
    let mut recording = backend.record();
    assert!(matches!(recording.matrix_product(&a, &b, (3, 2, 3)), Err(Error::LengthMismatch { first: 6, other: 8, .. })));
    assert!(matches!(recording.matrix_product(&a, &b, (usize::MAX, 2, 4)), Err(Error::LengthMismatch { .. })));
    let empty = backend.upload::<Fr>(&[]).unwrap();
    let huge = recording.matrix_product(&empty, &empty, (usize::MAX, 0, usize::MAX));
    assert!(matches!(huge, Err(Error::Device(DeviceError::OutOfMemory { .. }))));
    assert!(recording.matrix_vector(&empty, &empty, usize::MAX).is_err());
    assert!(matches!(recording.matrix_product(&foreign, &b, (3, 2, 4)), Err(Error::ForeignVector { .. })));
    assert!(matches!(recording.matrix_vector(&a, &b, 2), Err(Error::LengthMismatch { .. })));
    let x = a.slice(0..2).unwrap();
    assert!(matches!(recording.matrix_vector_into(&a, &x, &a.slice(0..3).unwrap()), Err(Error::Overlap { .. })));
    let one = [Fr::from(1u64); 3];
    let sparse = |offsets: &[u32], columns: &[u32], width| backend.upload_sparse(offsets, columns, &one, width);
    assert!(matches!(
        sparse(&[0, 2, 1, 3], &[0; 3], 1),
        Err(Error::RowOffset { position: 2, offset: 1, least: 2, most: 3 })
    ));
    assert!(matches!(sparse(&[1, 3], &[0; 3], 1), Err(Error::RowOffset { position: 0, offset: 1, .. })));
    assert!(matches!(sparse(&[0, 2], &[0; 3], 1), Err(Error::RowOffset { position: 1, offset: 2, least: 3, most: 3 })));
    assert!(matches!(sparse(&[0, 4, 3], &[0; 3], 1), Err(Error::RowOffset { position: 1, offset: 4, .. })));
    assert!(matches!(sparse(&[], &[0; 3], 1), Err(Error::RowOffset { .. })));
    assert!(matches!(sparse(&[0, 3], &[0; 2], 1), Err(Error::LengthMismatch { .. })));
    assert!(matches!(sparse(&[0, 3], &[0, 7, 1], 7), Err(Error::IndexOutOfRange { position: 1, index: 7, bound: 7 })));
    let matrix: SparseMatrix<Fr> = sparse(&[0, 3], &[0, 1, 1], 8).unwrap();
    assert!(matches!(recording.sparse_vector(&matrix, &a), Err(Error::LengthMismatch { .. })));
    assert!(matches!(recording.sparse_vector_into(&matrix, &b, &a), Err(Error::LengthMismatch { .. })));
    assert!(matches!(recording.sparse_vector_into(&matrix, &b, &b.slice(0..1).unwrap()), Err(Error::Overlap { .. })));
    assert!(recording.is_empty());
    assert_eq!(format!("{matrix:?}"), "SparseMatrix(1 x 8, 3 values)");
    let none = backend.upload_sparse::<Fr>(&[], &[], &[], 4).unwrap();
    assert_eq!((none.rows(), none.nonzeros()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn any_matrix(lengths in prop::collection::vec(prop_oneof![0usize..5, 0usize..90], 0..40), width in 1usize..80, kinds in 1usize..200,
                  shape in (0usize..40, 0usize..40, 0usize..40), salt in 0u64..1000) {
        static BACKEND: LazyLock<Backend> = LazyLock::new(|| unwatched(Options::new()));
        sparse::<Fr>(&BACKEND, &lengths, width, kinds);
        let (m, k, n) = shape;
        dense::<Fq>(&BACKEND, shape, &numbers(m * k, salt), &numbers(k * n, salt + 1));
    }
}
