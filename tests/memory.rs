//! How much memory calls and vectors take, and what becomes of them when there is less.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::Fr;
use bls12_field_gpu::{
    Backend, CallClass, DeviceError, Error, Failure, Faults, Field, Form, Injection, MemoryMode, Operation, Options, Scan,
    Width,
};
use std::sync::Mutex;
use support::{Case, Watched, cpu, rows, unwatched};

/// One test at a time: the validation layer does not bear a device being made while another is in use.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> impl Drop {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

const MEMORIES: [MemoryMode; 2] = [MemoryMode::DeviceLocal, MemoryMode::Host];

fn out_of_memory<T: std::fmt::Debug>(result: Result<T, Error>) -> (u64, u64) {
    match result {
        Err(Error::Device(DeviceError::OutOfMemory { needed, available, .. })) => (needed, available),
        other => panic!("{other:?}"),
    }
}

/// The right answer; how many dispatches it took.
fn dispatches(backend: &Backend, case: &Case, expected: &[u64]) -> usize {
    let outcome = case.on(backend).unwrap();
    assert!(outcome.elements == expected);
    outcome.report.dispatches
}

#[test]
fn what_is_required_suffices_and_less_means_smaller_chunks() {
    let _alone = alone();
    let reference = cpu();
    for memory in MEMORIES {
        let backend = unwatched(Options::new().memory(memory));
        for (operation, field, length) in
            [(Operation::Add, Field::Fr, 100_000), (Operation::MulAdd, Field::Fq, 70_000), (Operation::Neg, Field::Fq, 10)]
        {
            let case = Case::new(operation, field, Form::Montgomery, length);
            let expected = case.on(&reference).unwrap().elements;
            let required = backend.memory_required(operation, field, length).unwrap();
            let staged = memory == MemoryMode::DeviceLocal;
            assert_eq!(required.device, if staged { required.host } else { 0 });
            let usual = dispatches(&backend, &case, &expected);
            let enough = Watched::new(Options::new().memory(memory).device_memory(required.host));
            // Cut a little finer, perhaps, since up to four chunks are to be under way where there are fewer.
            assert!((usual..=2 * usual).contains(&dispatches(&enough, &case, &expected)));
            assert!(enough.memory_required(operation, field, length).unwrap().host <= required.host);
            if length > 1000 {
                let limit = required.host / 3;
                let less = Watched::new(Options::new().memory(memory).device_memory(limit));
                assert!(less.memory_required(operation, field, length).unwrap().host <= limit);
                assert!(dispatches(&less, &case, &expected) > usual);
            }
            let least = backend.memory_required(operation, field, 1).unwrap().host;
            let too_little = Watched::new(Options::new().memory(memory).device_memory(least - 1));
            assert_eq!(out_of_memory(too_little.memory_required(operation, field, length)), (least, least - 1));
            assert_eq!(out_of_memory(case.on(&too_little)), (least, least - 1));
        }
        assert_eq!(backend.memory_required(Operation::Add, Field::Fq, 0).unwrap(), Default::default());
    }
    for (row, field) in rows() {
        assert_eq!(reference.memory_required(row.operation, field, 1000).unwrap(), Default::default());
    }
    assert!(matches!(reference.memory_required(Operation::Sqrt, Field::Fr, 1), Err(Error::NotAvailable { .. })));
}

#[test]
fn asking_builds_nothing() {
    let _alone = alone();
    let backend = unwatched(Options::new());
    for (row, field) in rows() {
        backend.memory_required(row.operation, field, 1 << 20).unwrap();
    }
    let stats = backend.stats().device;
    assert_eq!((stats.pipeline_builds, stats.allocations), (0, 0));
}

#[test]
fn vectors_take_what_is_said() {
    let _alone = alone();
    for memory in MEMORIES {
        let backend = unwatched(Options::new());
        for length in [1, 1000, 12_345] {
            let required = backend.vector_memory_required(Field::Fr, length);
            let bytes = required.device + required.host;
            assert!(bytes >= 32 * length as u64 && (bytes <= 36 * length as u64 || bytes == 4096));
            // Room for one, not for two.
            let backend = Watched::new(Options::new().memory(memory).device_memory(2 * bytes - 1));
            let first = backend.zeros::<Fr>(length).unwrap();
            assert_eq!(out_of_memory(backend.zeros::<Fr>(length)), (bytes, bytes - 1));
            drop(first);
            backend.zeros::<Fr>(length).unwrap();
        }
        assert_eq!(backend.vector_memory_required(Field::Fr, 0), Default::default());
    }
}

#[test]
fn a_small_budget_means_smaller_chunks_and_refused_vectors() {
    let _alone = alone();
    for memory in MEMORIES {
        let faults = Faults::default();
        let backend = Watched::new(Options::new().memory(memory).vulkan_faults(&faults));
        // 38 MiB of vectors.
        let case = Case::new(Operation::MulAdd, Field::Fq, Form::Montgomery, 200_000);
        let expected = case.on(&cpu()).unwrap().elements;
        let usual = dispatches(&backend, &case, &expected);
        let required = backend.memory_required(Operation::MulAdd, Field::Fq, 200_000).unwrap().host;
        backend.trim();
        for budget in [required / 2, 1, 0] {
            faults.set_budget(Some(budget));
            assert!(dispatches(&backend, &case, &expected) > usual, "{budget}");
            backend.trim();
            let (needed, available) = out_of_memory(backend.zeros::<Fr>(1 << 20));
            assert!(needed >= 32 << 20 && available <= budget, "{needed} {available}");
            // What fits a block that is shared is not asked about.
            backend.zeros::<Fr>(1000).unwrap();
        }
        // Idle buffers make room.
        faults.set_budget(None);
        backend.zeros::<Fr>(1 << 20).unwrap().download().unwrap();
        faults.set_budget(Some(faults.memory()));
        backend.zeros::<Fr>((1 << 20) + (1 << 19)).unwrap();
        faults.set_budget(None);
        assert_eq!(dispatches(&backend, &case, &expected), usual);
        backend.zeros::<Fr>(1 << 20).unwrap();
    }
}

#[test]
fn what_is_available_is_no_more_than_the_driver_gives() {
    let _alone = alone();
    for memory in MEMORIES {
        let faults = Faults::default();
        let backend = Watched::new(Options::new().memory(memory).vulkan_faults(&faults));
        let none = || {
            faults.inject(Injection {
                class: CallClass::Allocate,
                at: 0,
                times: u64::MAX,
                failure: Failure::OutOfDeviceMemory,
            });
            let (needed, available) = out_of_memory(backend.zeros::<Fr>(1000));
            faults.clear();
            assert!(needed >= 32_000);
            available
        };
        assert!(none() > 32_000);
        faults.set_budget(Some(faults.memory() + 1234));
        assert_eq!(none(), 1234);
        faults.set_budget(None);
        backend.zeros::<Fr>(1000).unwrap();
    }
}

/// Each call that makes buffers for a long job finds no memory, nor does it when it is tried again.
#[test]
fn where_the_driver_has_no_memory_chunks_get_smaller() {
    let _alone = alone();
    let case = Case::new(Operation::Add, Field::Fr, Form::Montgomery, 60_000);
    let expected = case.on(&cpu()).unwrap().elements;
    for memory in MEMORIES {
        for width in Width::ALL {
            let faults = Faults::default();
            let backend = Watched::new(Options::new().memory(memory).width(width).vulkan_faults(&faults));
            dispatches(&backend, &case, &expected);
            backend.trim();
            faults.clear();
            let usual = dispatches(&backend, &case, &expected);
            let calls = faults.calls(CallClass::Allocate);
            let mut failed = 0;
            for at in 0..calls {
                for failure in [Failure::OutOfDeviceMemory, Failure::OutOfHostMemory] {
                    backend.trim();
                    faults.inject(Injection { class: CallClass::Allocate, at, times: 2, failure });
                    let taken = dispatches(&backend, &case, &expected);
                    // The allocator keeps one block, and if it is a large one, there are fewer calls than the first time.
                    assert!(taken > usual || faults.failed().is_empty(), "{taken} after {:?}", faults.failed());
                    failed += u64::from(!faults.failed().is_empty());
                }
            }
            assert!(failed >= 18, "{failed} of {calls} calls, twice each");
            faults.clear();
            backend.trim();
            assert_eq!(dispatches(&backend, &case, &expected), usual);
            assert_eq!((backend.stats().cpu_calls, backend.is_lost()), (0, false));
        }
    }
}

/// What steps of a recording have for themselves they have one after the other if memory is short.
#[test]
fn a_long_recording_takes_no_more_than_a_short_one() {
    let _alone = alone();
    // A scan's own memory is a sixteenth of the vector's, and a bit: those of forty would not fit. Where the limit is little, and where it
    // is much and others have most of it.
    let length = 1 << 17;
    let bytes = (length * Field::Fr.bytes()) as u64;
    for others in [0, 64 * bytes] {
        let backend = Watched::new(Options::new().device_memory(others + 2 * bytes + bytes / 2));
        let _others = (0..others / bytes).map(|_| backend.zeros::<Fr>(length).unwrap()).collect::<Vec<_>>();
        let a: Vec<Fr> = (0..length as u64).map(|n| Fr::from(n + 1)).collect();
        let (vector, sums) = (backend.upload(&a).unwrap(), backend.zeros(length).unwrap());
        let mut recording = backend.record();
        for _ in 0..40 {
            recording.scan_into(Scan::sum(), &vector, &sums).unwrap();
        }
        recording.submit().unwrap().wait().unwrap();
        let mut sum = Fr::from(0u64);
        let expected: Vec<Fr> = a
            .iter()
            .map(|a| {
                sum += a;
                sum
            })
            .collect();
        assert!(sums.download().unwrap() == expected);
    }
}

/// One point after the other has the same memory.
#[test]
fn values_at_many_points_take_no_more_than_at_one() {
    let _alone = alone();
    let length = 1 << 17;
    let bytes = (length * Field::Fr.bytes()) as u64;
    // What is left of the device's memory is less than what forty points would take that had each their own.
    let backend = Watched::new(Options::new().device_memory(bytes + bytes / 2));
    let a: Vec<Fr> = (0..length as u64).map(|n| Fr::from(n + 1)).collect();
    let (polynomial, points) = (backend.upload(&a).unwrap(), backend.upload(&[Fr::from(1u64); 40]).unwrap());
    let mut recording = backend.record();
    let values = recording.evaluate_at(&polynomial, &points).unwrap();
    recording.submit().unwrap().wait().unwrap();
    assert_eq!(values.download().unwrap(), [a.iter().sum::<Fr>(); 40]);
}
