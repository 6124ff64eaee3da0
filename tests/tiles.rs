//! Workgroups that exchange elements through shared memory, as they do on devices other than CPUs: for lavapipe they have to be asked to.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Field, Form, MemoryMode, Operation, Options, Output, Row, Validation, Vector, Width};
use support::{Case, FORMS, Watched, numbers, rows};

/// Around a workgroup of 16, and around several.
const LENGTHS: [usize; 5] = [1, 15, 16, 33, 101];

/// Kernels of either width, exchanging what they write, and what they read from host memory; the layer sees what those of 32 bits touch.
fn tiled(workgroup_size: u32) -> [Watched; 2] {
    [(Width::Int64, Validation::On), (Width::Int32, Validation::Synchronization)].map(|(width, validation)| {
        // On lavapipe resident vectors would lie in host memory.
        let options = Options::new().tiled(true).width(width).memory(MemoryMode::DeviceLocal);
        Watched::validated(options.workgroup_size(workgroup_size), validation)
    })
}

#[test]
fn calls_from_host_memory() {
    for backend in tiled(16) {
        for ((row, field), form) in rows().flat_map(|row| FORMS.map(|form| (row, form))) {
            for length in LENGTHS {
                let case = Case::new(row.operation, field, form, length);
                let outcome = case.on(&backend).unwrap();
                assert_eq!((outcome.elements, outcome.mask), case.answer(), "{} of {length} of {field}, {form:?}", row.name);
            }
        }
    }
}

/// What is not exchanged when it is read may be written by others of the workgroup.
#[test]
fn resident_vectors_in_place() {
    fn check<F: Element>(backend: &Backend, row: &Row) {
        for length in LENGTHS {
            let case = Case::new(row.operation, F::FIELD, Form::Montgomery, length);
            let upload = |limbs: &Vec<u64>| backend.upload(F::elements(limbs)).unwrap();
            let vectors: Vec<Vector<F>> = case.vectors.iter().map(upload).collect();
            for place in 0..vectors.len() {
                let mut recording = backend.record();
                let out = recording.duplicate(&vectors[place]).unwrap();
                let mut operands: Vec<&Vector<F>> = vectors.iter().collect();
                operands[place] = &out;
                recording.apply_into(row.operation, &operands, &case.parameter, &out).unwrap();
                recording.submit().unwrap().wait().unwrap();
                let got = out.download().unwrap();
                assert_eq!(got, F::elements(&case.answer().0), "{} of {length} into operand {place}", row.name);
            }
        }
    }
    for backend in tiled(16) {
        for (row, field) in rows().filter(|(row, _)| row.output == Output::Elements) {
            match field {
                Field::Fq => check::<Fq>(&backend, row),
                Field::Fr => check::<Fr>(&backend, row),
            }
        }
    }
}

/// As wide as workgroups are by default on some device; and so narrow that there are too many for one dimension, one more than it takes.
#[test]
fn workgroups_of_every_kind() {
    for (size, length) in [(64, 129), (128, 300), (1, 65537)] {
        for backend in tiled(size) {
            for (operation, operands) in [(Operation::Add, 2), (Operation::Double, 1), (Operation::Mul, 2)] {
                let elements = numbers::<Fr>(length, 4);
                let vector = backend.upload(&elements).unwrap();
                let mut recording = backend.record();
                recording.apply_into(operation, &vec![&vector; operands], &[], &vector).unwrap();
                recording.submit().unwrap().wait().unwrap();
                let of = |x: &Fr| if operation == Operation::Mul { *x * x } else { *x + x };
                let right: Vec<Fr> = elements.iter().map(of).collect();
                assert!(vector.download().unwrap() == right, "{operation:?} in workgroups of {size}");
            }
        }
    }
}

#[test]
fn expressions() {
    fn check<F: Element>(backend: &Backend) {
        for length in LENGTHS {
            let [a, b, c] = [1, 2, 3].map(|salt| numbers::<F>(length, salt));
            let [x, y, z] = [&a, &b, &c].map(|numbers| backend.upload(numbers).unwrap());
            let mut recording = backend.record();
            let rotated = recording.evaluate(&(&x * &y + z.rotate(1) - &x * &x)).unwrap();
            recording.evaluate_into(&(&x * &y + &z * &x), &x).unwrap();
            recording.submit().unwrap().wait().unwrap();
            let right: Vec<F> = (0..length).map(|i| a[i] * b[i] + c[(i + 1) % length] - a[i] * a[i]).collect();
            assert_eq!(rotated.download().unwrap(), right, "{length} of {}, rotated", F::FIELD);
            let right: Vec<F> = (0..length).map(|i| a[i] * b[i] + c[i] * a[i]).collect();
            assert_eq!(x.download().unwrap(), right, "{length} of {}, in place", F::FIELD);
        }
    }
    for backend in tiled(16) {
        check::<Fq>(&backend);
        check::<Fr>(&backend);
    }
}
