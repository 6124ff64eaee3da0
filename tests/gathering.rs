//! Short calls that threads make at the same time share a command buffer: nobody notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{
    CallClass, DeviceError, Error, Failure, Faults, Field, Form, Injection, MemoryMode, Operation, Options, Stage,
    Validation, Verify, Width,
};
use std::thread;
use std::time::Duration;
use support::{Case, Watched, in_time};

const THREADS: usize = 16;
const CALLS: usize = 20;
const LIMIT: Duration = Duration::from_secs(300);

/// Kernels that are reached by addresses and by descriptors, of which the validation layer sees what they touch, in host memory and
/// staged; and how many barriers a call then takes.
fn engines() -> impl Iterator<Item = (Options, Validation, u64)> {
    let widths = [(Width::Int64, Validation::On), (Width::Int32, Validation::Synchronization)];
    widths.into_iter().flat_map(|(width, validation)| {
        [(MemoryMode::Host, 1), (MemoryMode::DeviceLocal, 3)]
            .map(|(memory, barriers)| (Options::new().memory(memory).width(width).verify(Verify::Off), validation, barriers))
    })
}

/// Cases of different shapes: each thread begins with another one. Each with its answer.
fn cases() -> Vec<(Case, Vec<u64>)> {
    let shapes = [
        (Operation::Add, Field::Fr, 64),
        (Operation::MulAdd, Field::Fq, 1),
        (Operation::Sub, Field::Fr, 257),
        (Operation::Mul, Field::Fq, 65),
    ];
    let cases = shapes.map(|(operation, field, length)| Case::new(operation, field, Form::Montgomery, length));
    cases.into_iter().map(|case| (case.answer().0, case)).map(|(answer, case)| (case, answer)).collect()
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

/// Has something done with a backend of each kind that has had one call of each case, whose kernels were tested with it; and with these and
/// the number of barriers.
fn each(with: impl Fn(Options) -> Options, work: impl Fn(&Watched, &[(Case, Vec<u64>)], u64)) {
    let cases = cases();
    for (options, validation, barriers) in engines() {
        let backend = Watched::validated(with(options), validation);
        cases.iter().for_each(|(case, answer)| assert_eq!(case.on(&backend).unwrap().elements, *answer));
        work(&backend, &cases, barriers);
    }
}

/// That calls wait at the same time is up to the system's scheduler: sooner or later some do.
fn share() {
    each(std::convert::identity, |backend, cases, barriers| {
        let before = backend.stats().device;
        let together = (0..100).any(|_| {
            assert!(round(backend, cases).is_empty());
            let after = backend.stats().device;
            let (dispatches, submits) = (after.dispatches - before.dispatches, after.submits - before.submits);
            assert_eq!(dispatches % (THREADS * CALLS) as u64, 0, "each call is a dispatch");
            assert_eq!(after.barriers - before.barriers, barriers * submits);
            submits < dispatches
        });
        assert!(together, "{:?}", backend.stats().device);
    });
}

#[test]
fn calls_that_wait_at_the_same_time_share_a_submission_and_its_barriers() {
    in_time(LIMIT, share);
}

/// Whatever fails of what is shared, each call is then submitted for itself.
fn fail() {
    let faults = Faults::default();
    each(
        |options| options.vulkan_faults(&faults),
        |backend, cases, _| {
            for class in [CallClass::Record, CallClass::Submit, CallClass::Create] {
                // How often a call failed, how many of the library's did, and how many calls had no submission of their own.
                let (mut failed, mut errors, mut shared) = (0, 0, 0);
                for at in 0..30 {
                    let before = backend.stats().device;
                    // Counted from here.
                    faults.inject(Injection { class, at, times: 1, failure: Failure::OutOfHostMemory });
                    let wrong = round(backend, cases);
                    let injected = faults.failed().len();
                    faults.clear();
                    assert!(wrong.len() <= injected, "{wrong:?}");
                    let suits = |error: &Error| matches!(error, Error::Device(DeviceError::OutOfMemory { .. }));
                    assert!(wrong.iter().all(suits), "{wrong:?}");
                    (failed, errors) = (failed + injected, errors + wrong.len());
                    let after = backend.stats().device;
                    shared += after.dispatches.saturating_sub(before.dispatches + after.submits - before.submits);
                }
                assert!(shared > 0 && errors <= failed);
                // All that was needed is there already, but for some descriptor sets.
                assert!(failed == 30 || class == CallClass::Create, "{class:?}: {failed}");
                assert!(errors < 30, "{class:?}: no failure met a shared submission");
            }
            assert!(round(backend, cases).is_empty());
        },
    );
}

#[test]
fn what_fails_of_a_shared_submission_fails_at_most_one_call() {
    in_time(LIMIT, fail);
}

fn wipe() {
    each(
        |options| options.wipe(true),
        |backend, cases, _| {
            assert!(round(backend, cases).is_empty());
            assert_eq!(backend.residue().unwrap().1, 0);
        },
    );
}

#[test]
fn memory_of_calls_that_shared_a_submission_is_wiped() {
    in_time(LIMIT, wipe);
}

fn profile() {
    each(std::convert::identity, |backend, cases, _| {
        for _ in 0..5 {
            backend.start_profile().unwrap();
            assert!(round(backend, cases).is_empty());
            let profile = backend.take_profile();
            let launches = profile.spans.iter().filter(|span| span.stage == Stage::Compute).count();
            assert_eq!(launches, THREADS * CALLS);
        }
    });
}

#[test]
fn a_profile_has_the_launches_of_calls_that_have_returned() {
    in_time(LIMIT, profile);
}
