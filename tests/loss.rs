//! A device that does not finish in time counts as lost: every later call says so, or is computed by the CPU and says that;
//! others are not affected, and nothing is freed that it may still be using. (A device that fails in other ways: faults.rs.)

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{
    Backend, DeviceError, DeviceKind, Error, ErrorKind, Field, Form, MemoryMode, Operation, Options, Validation, Width,
};
use std::thread;
use std::time::Duration;
use support::{Case, Watched, small};

/// Far more than a nanosecond's work on any device, and hundreds of milliseconds of a software device.
fn heavy() -> Case {
    let case = Case::new(Operation::Pow, Field::Fq, Form::Montgomery, 60_000);
    Case { parameter: vec![u64::MAX; 6], ..case }
}

fn assert_lost(backend: &Backend) {
    let error = backend.fr().add_u64_limbs(&small(Field::Fr, 1), &small(Field::Fr, 2)).unwrap_err();
    assert!(matches!(error, Error::Device(DeviceError::Lost { .. })), "{error}");
    assert_eq!(error.kind(), ErrorKind::DeviceFault);
}

#[test]
fn a_timeout_loses_the_device_and_nothing_else() {
    times_out(Duration::from_nanos(1));
}

/// The self-test is done in time, the call itself is not: a long dispatch is under way when the backend goes.
#[test]
fn a_long_dispatch_outlives_its_call() {
    let devices = bls12_field_gpu::survey().unwrap();
    if devices.iter().all(|verdict| verdict.device.kind == DeviceKind::Software) {
        times_out(Duration::from_millis(30));
    }
}

fn times_out(timeout: Duration) {
    for (width, memory, validation) in [
        (Width::Int64, MemoryMode::Host, Validation::On),
        (Width::Int32, MemoryMode::DeviceLocal, Validation::Synchronization),
    ] {
        let options = Options::new().width(width).memory(memory);
        // The layer, which looks when the device goes, sees that what is still in use is not freed before.
        let backend = Watched::validated(options.clone().timeout(timeout), validation);
        let error = heavy().on(&backend).unwrap_err();
        match &error {
            Error::Device(DeviceError::TimedOut { after }) => assert_eq!(*after, timeout),
            other => panic!("{other:?}"),
        }
        assert_eq!(error.kind(), ErrorKind::DeviceFault);
        assert_lost(&backend);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_lost(&backend));
            }
        });
        // Nothing is wrong with an empty vector, or with what is wrong with a call.
        assert!(Case::new(Operation::Add, Field::Fq, Form::Canonical, 0).on(&backend).is_ok());
        assert!(matches!(backend.fq().add_u64_limbs(&[1], &[1]), Err(Error::PartialElement { .. })));

        // Another backend on the same device works, beside the lost one.
        let other = Watched::validated(options, validation);
        let case = Case::new(Operation::Pow, Field::Fq, Form::Montgomery, 20);
        assert_eq!(case.on(&other).unwrap().elements, case.answer().0);
    }
}

#[test]
fn where_no_gpu_is_required_the_cpu_takes_over() {
    for memory in [MemoryMode::Host, MemoryMode::DeviceLocal] {
        let timeout = Duration::from_nanos(1);
        let backend = Watched::not_required(Options::new().memory(memory).timeout(timeout), Validation::On);
        let case = Case::new(Operation::Pow, Field::Fq, Form::Montgomery, 500);
        let expected = case.answer().0;
        let first = case.on(&backend).unwrap();
        assert_eq!(first.elements, expected);
        assert_eq!(first.report.fallback, Some(DeviceError::TimedOut { after: timeout }));
        assert!(backend.is_lost());
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let outcome = case.on(&backend).unwrap();
                    assert_eq!(outcome.elements, expected);
                    assert!(matches!(outcome.report.fallback, Some(DeviceError::Lost { .. })), "{:?}", outcome.report);
                });
            }
        });
        // A mask, and what is wrong with a call.
        let equal = Case::new(Operation::Equal, Field::Fr, Form::Canonical, 30);
        assert_eq!(equal.on(&backend).unwrap().mask, equal.answer().1);
        assert!(matches!(backend.fq().add_u64_limbs(&[1], &[1]), Err(Error::PartialElement { .. })));
        let stats = backend.stats();
        assert_eq!((stats.calls, stats.cpu_calls, stats.fallbacks), (6, 6, 6));
        // What was to lie on the device has nowhere to be.
        assert!(matches!(backend.upload(&[ark_bls12_381::Fr::from(1u64)]), Err(Error::Device(DeviceError::Lost { .. }))));
    }
}
