//! Short calls that threads make at the same time share a command buffer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{
    CallClass, DeviceError, Error, Failure, Faults, Field, Form, Injection, MemoryMode, Operation, Options, Verify, Width,
};
use std::thread;
use support::{Case, Watched};

const THREADS: usize = 16;
const CALLS: usize = 20;

/// Cases of different shapes: one after the other, each thread begins with another.
fn cases() -> Vec<(Case, Vec<u64>)> {
    let shapes = [
        (Operation::Add, Field::Fr, 64),
        (Operation::MulAdd, Field::Fq, 1),
        (Operation::Sub, Field::Fr, 257),
        (Operation::Mul, Field::Fq, 65),
    ];
    let case = |(operation, field, length)| Case::new(operation, field, Form::Montgomery, length);
    shapes.map(case).into_iter().map(|case| (case.answer().0, case)).map(|(answer, case)| (case, answer)).collect()
}

/// All threads' calls, each of which is right or has an error: the errors.
fn round(backend: &Watched, cases: &[(Case, Vec<u64>)]) -> Vec<Error> {
    let calls = |thread: usize| {
        let some = cases.iter().cycle().skip(thread).take(CALLS);
        let wrong = some.filter_map(|(case, answer)| match case.on(backend) {
            Ok(outcome) => {
                assert_eq!(outcome.elements, *answer);
                None
            }
            Err(error) => Some(error),
        });
        wrong.collect::<Vec<_>>()
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || calls(thread))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

fn options(memory: MemoryMode) -> Options {
    Options::new().memory(memory).width(Width::Int64).verify(Verify::Off)
}

/// That calls wait at the same time is up to the system's scheduler: sooner or later some do.
#[test]
fn calls_that_wait_at_the_same_time_share_a_submission_and_its_barriers() {
    for (memory, barriers) in [(MemoryMode::Host, 1), (MemoryMode::DeviceLocal, 3)] {
        let backend = Watched::new(options(memory));
        let cases = cases();
        cases.iter().for_each(|(case, answer)| assert_eq!(case.on(&backend).unwrap().elements, *answer));
        let before = backend.stats().device;
        let together = (0..100).any(|_| {
            assert!(round(&backend, &cases).is_empty());
            let after = backend.stats().device;
            let dispatches = after.dispatches - before.dispatches;
            let submits = after.submits - before.submits;
            assert_eq!(dispatches % (THREADS * CALLS) as u64, 0, "each call is a dispatch");
            assert_eq!(after.barriers - before.barriers, barriers * submits);
            submits < dispatches
        });
        assert!(together, "{:?}", backend.stats().device);
    }
}

/// Whatever of the shared recording fails, each call is then recorded for itself.
#[test]
fn what_fails_in_a_shared_recording_fails_at_most_one_call() {
    let cases = cases();
    for memory in [MemoryMode::Host, MemoryMode::DeviceLocal] {
        let faults = Faults::default();
        let backend = Watched::new(options(memory).vulkan_faults(&faults));
        cases.iter().for_each(|(case, answer)| assert_eq!(case.on(&backend).unwrap().elements, *answer));
        let (mut failed, mut shared) = (0, 0);
        for at in 0..60 {
            let before = backend.stats().device;
            // Counted from here.
            faults.inject(Injection { class: CallClass::Record, at: 3 * at, times: 1, failure: Failure::OutOfHostMemory });
            let errors = round(&backend, &cases);
            assert!(errors.len() <= faults.failed().len(), "{errors:?}");
            faults.clear();
            failed += errors.len();
            let suits = |error| matches!(error, Error::Device(DeviceError::OutOfMemory { .. }));
            assert!(errors.into_iter().all(suits));
            let after = backend.stats().device;
            shared += after.dispatches - before.dispatches - (after.submits - before.submits);
        }
        assert!(shared > 0 && failed < 60, "{shared} {failed}");
        assert!(round(&backend, &cases).is_empty());
    }
}
