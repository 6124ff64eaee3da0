//! A device that does not finish in time counts as lost: every later call says so, others are not affected, and nothing is
//! freed that it may still be using.

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
