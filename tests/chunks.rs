//! Vectors longer than a chunk: at the borders of chunks, with little memory, and past the device's largest buffer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{
    Backend, DeviceError, DeviceKind, Engine, Error, ErrorKind, Field, Form, MemoryMode, Operation, Options, Validation,
    Verify, Width,
};
use rayon::prelude::*;
use support::oracle::oracle;
use support::{Case, FORMS, Watched, cpu, rows, scattered};

const CHUNK: usize = 4096;

/// One operation of each shape: one, two and three vectors; a scalar, an exponent; a mask; elements and a mask.
const SHAPES: [(Operation, Field); 9] = [
    (Operation::Neg, Field::Fq),
    (Operation::Add, Field::Fr),
    (Operation::MulAdd, Field::Fq),
    (Operation::MulAdd, Field::Fr),
    (Operation::Scale, Field::Fr),
    (Operation::SubScalar, Field::Fq),
    (Operation::Pow, Field::Fr),
    (Operation::Equal, Field::Fq),
    (Operation::Sqrt, Field::Fq),
];

/// Compares a result with the CPU reference, and with the oracle at some positions.
fn check(backend: &Backend, reference: &Backend, case: &Case, positions: &[usize]) -> usize {
    let outcome = case.on(backend).unwrap_or_else(|error| panic!("{error}: {:?}, {}", case.operation, case.length()));
    let expected = case.on(reference).unwrap();
    let what = (case.operation, case.field, case.form, case.length());
    assert!(outcome.elements == expected.elements && outcome.mask == expected.mask, "{what:?}");
    let limbs = case.field.limbs();
    for &index in positions.iter().filter(|&&index| index < case.length()) {
        let element = |limbs_of: &[u64]| limbs_of.get(index * limbs..(index + 1) * limbs).unwrap_or(&[]).to_vec();
        let inputs: Vec<Vec<u64>> = case.vectors.iter().map(|vector| element(vector)).collect();
        let (element_expected, flag) = Case { vectors: inputs, ..case.clone() }.answer();
        assert_eq!(element(&outcome.elements), element_expected, "{what:?}, element {index}");
        assert_eq!(outcome.mask.get(index), flag.first(), "{what:?}, flag {index}");
    }
    outcome.report.dispatches
}

fn borders(options: Options, validation: Validation) {
    let backend = Watched::validated(options.chunk_elements(CHUNK), validation);
    let reference = cpu();
    // The first of several chunks is half as long as the others.
    let first = CHUNK.div_ceil(2);
    let second = first + CHUNK;
    let lengths = [(CHUNK - 1, 1), (CHUNK, 1), (CHUNK + 1, 2), (second, 2), (second + 1, 3), (second + CHUNK, 3)];
    let positions = [0, first - 1, first, second - 1, second];
    for (shape, (operation, field)) in SHAPES.into_iter().enumerate() {
        let form = FORMS[shape % 2];
        for (length, dispatches) in lengths {
            let case = Case::new(operation, field, form, length);
            let before = backend.stats().device;
            assert_eq!(check(&backend, &reference, &case, &positions), dispatches, "{operation:?}, {length} elements");
            let after = backend.stats().device;
            assert!(after.dispatches - before.dispatches >= dispatches as u64);
            assert!(after.submits - before.submits >= dispatches as u64);
        }
    }
}

#[test]
fn at_the_borders_of_chunks_with_addresses_and_staging() {
    borders(Options::new().width(Width::Int64).memory(MemoryMode::DeviceLocal), Validation::On);
}

#[test]
fn at_the_borders_of_chunks_with_descriptors_and_staging() {
    borders(Options::new().width(Width::Int32).memory(MemoryMode::DeviceLocal), Validation::Synchronization);
}

#[test]
fn at_the_borders_of_chunks_in_host_memory() {
    borders(Options::new().memory(MemoryMode::Host), Validation::Synchronization);
}

#[test]
fn every_operation_in_chunks_that_are_not_whole_workgroups() {
    // The last chunk has one element.
    let backend = Watched::new(Options::new().chunk_elements(7));
    let reference = cpu();
    for (row, field) in rows() {
        let case = Case::new(row.operation, field, Form::Montgomery, 22);
        assert_eq!(check(&backend, &reference, &case, &(0..22).collect::<Vec<_>>()), 4);
    }
}

#[test]
fn chunks_of_one_element() {
    let backend = Watched::new(Options::new().chunk_elements(1));
    let case = Case::new(Operation::Mul, Field::Fq, Form::Canonical, 9);
    assert_eq!(check(&backend, &cpu(), &case, &[0, 8]), 9);
}

#[test]
fn expensive_operations_come_in_smaller_chunks() {
    // So that no dispatch runs for long; software devices are given least.
    let backend = Watched::new(Options::new());
    let Engine::Vulkan { device, .. } = backend.engine() else { panic!("{}", backend.engine()) };
    let dispatches = if device.kind == DeviceKind::Software { 2 } else { 1 };
    // One chunk of cheap ones, unless they are many.
    let power = Case { parameter: vec![3], ..Case::new(Operation::Pow, Field::Fr, Form::Montgomery, 80_000) };
    assert_eq!(check(&backend, &cpu(), &power, &[0, 68_415, 68_416, 79_999]), dispatches);
    let sum = Case::new(Operation::Add, Field::Fr, Form::Montgomery, 8000);
    assert_eq!(check(&backend, &cpu(), &sum, &[]), 1);
}

#[test]
fn little_memory_means_small_chunks() {
    let reference = cpu();
    for memory in [MemoryMode::Host, MemoryMode::DeviceLocal] {
        let limit = 1 << 20;
        let backend = Watched::new(Options::new().device_memory(limit).memory(memory));
        let Engine::Vulkan { workgroup_size, .. } = *backend.engine() else { panic!("{}", backend.engine()) };
        let workgroup_size = workgroup_size as usize;
        for (operation, field) in SHAPES {
            let length = 30_000;
            let case = Case::new(operation, field, Form::Canonical, length);
            let dispatches = check(&backend, &reference, &case, &[0, length - 1]);
            // What one element takes in all vectors, in and out.
            let row = operation.row();
            let outputs = match operation {
                Operation::Equal => 4,
                Operation::Sqrt => field.bytes() + 4,
                _ => field.bytes(),
            };
            let at_most = limit as usize / (row.vectors * field.bytes() + outputs);
            let fewest = length.div_ceil(at_most);
            // Sizes are rounded, chunks are whole workgroups, and up to four are under way at a time.
            let most = length.div_ceil((at_most / 4 * 2 / 3).next_multiple_of(workgroup_size) - workgroup_size);
            assert!((fewest..=most).contains(&dispatches), "{operation:?}: {fewest} <= {dispatches} <= {most}");
        }
    }
}

#[test]
fn what_does_not_fit_is_an_error_that_says_how_much_is_missing() {
    // The smallest buffer is 4 KiB: `neg` takes two and `mul_add` four.
    for memory in [MemoryMode::Host, MemoryMode::DeviceLocal] {
        let backend = Watched::new(Options::new().device_memory(3 * 4096).memory(memory));
        let neg = Case::new(Operation::Neg, Field::Fq, Form::Canonical, 200);
        let mul_add = Case::new(Operation::MulAdd, Field::Fq, Form::Canonical, 200);
        for _ in 0..3 {
            let error = mul_add.on(&backend).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::DeviceFault);
            match &error {
                Error::Device(DeviceError::OutOfMemory { needed, available, .. }) => {
                    assert_eq!((*needed, *available), (4 * 4096, 3 * 4096));
                }
                other => panic!("{other:?}"),
            }
            assert!(error.to_string().contains("16384 bytes needed, 12288 available"), "{error}");
            // 4096 / 48 is 85, and whole workgroups are 64.
            assert!(check(&backend, &cpu(), &neg, &[0, 199]) >= 3);
        }
    }
}

#[test]
fn where_nothing_fits_everything_is_an_error() {
    let backend = Watched::new(Options::new().device_memory(4096));
    for (row, field) in rows() {
        let error = Case::new(row.operation, field, Form::Canonical, 1).on(&backend).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DeviceFault);
        let out_of_memory =
            matches!(error, Error::Device(DeviceError::OutOfMemory { available: 4096, needed, .. }) if needed >= 8192);
        assert!(out_of_memory, "{error}");
        // An empty vector needs no memory.
        assert!(Case::new(row.operation, field, Form::Canonical, 0).on(&backend).is_ok());
    }
    assert_eq!(backend.stats().device.dispatches, 0);
}

/// `length` elements of Fq made on all cores.
fn many(length: usize, salt: u64) -> Vec<u64> {
    let mut limbs = vec![0; length * 6];
    limbs.par_chunks_mut(6).enumerate().for_each(|(index, element)| {
        element.iter_mut().zip(scattered(Field::Fq, index as u64, salt)).for_each(|(to, from)| *to = from);
    });
    limbs
}

#[test]
fn vectors_past_the_largest_buffer() {
    // Software devices bind at most 128 MiB as one vector, and no device is given more: this is one element more.
    let length = (128 << 20) / 48 + 1;
    let backend = Watched::new(Options::new());
    let (a, b) = (many(length, 0), many(length, 1));
    let case =
        Case { operation: Operation::Add, field: Field::Fq, form: Form::Canonical, vectors: vec![a, b], parameter: vec![] };
    let outcome = case.on(&backend).unwrap();
    assert_eq!(backend.verify(), Verify::All);
    // Cut finer than it must be, so that transfers, kernels and checks overlap.
    assert!(outcome.report.dispatches > 2);
    assert_eq!(outcome.report.verified, length);
    let [a, b] = &case.vectors[..] else { panic!() };
    for index in (0..length).step_by(5003).chain([length / 2, length - 2, length - 1]) {
        let at = index * 6..index * 6 + 6;
        let (sum, _) = oracle(Field::Fq).answer(Operation::Add, Form::Canonical, &[&a[at.clone()], &b[at.clone()]], &[]);
        assert_eq!(outcome.elements[at], sum, "element {index}");
    }
}
