//! Callers that are rayon workers themselves, more of them than the device's memory has room for: nobody may wait for
//! what only he himself could release.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::Fq;
use bls12_field_gpu::{Backend, Error, MemoryMode, Options, Placement, Verify};
use rayon::prelude::*;
use std::thread;
use std::time::Duration;
use support::in_time;

/// Fails instead of hanging.
fn within_a_minute(work: impl FnOnce() + Send + 'static) {
    in_time(Duration::from_secs(60), work);
}

fn backend(options: Options) -> Backend {
    Backend::new(&options.require_gpu(true).placement(Placement::Device)).unwrap()
}

fn square_many(backend: &Backend) {
    (0..64usize).into_par_iter().for_each(|n| {
        let a: Vec<Fq> = (0..8000 + n as u64).map(|i| Fq::from(i + 1)).collect();
        // The first calls race for the pipeline and its self-test, too.
        assert_eq!(backend.mul(&a, &a).unwrap(), backend.square(&a).unwrap());
    });
}

#[test]
fn workers_share_little_memory() {
    within_a_minute(|| {
        for memory in [MemoryMode::Host, MemoryMode::DeviceLocal] {
            // Room for one call at a time, in more than one chunk.
            let backend = backend(Options::new().memory(memory).device_memory(1 << 20));
            square_many(&backend);
        }
    });
}

#[test]
fn workers_and_other_threads_share_little_memory() {
    within_a_minute(|| {
        let backend = backend(Options::new().device_memory(4 << 20));
        thread::scope(|scope| {
            scope.spawn(|| square_many(&backend));
            scope.spawn(|| {
                let a: Vec<Fq> = (0..50_000u64).map(|i| Fq::from(i + 1)).collect();
                for _ in 0..8 {
                    assert_eq!(backend.mul(&a, &a).unwrap(), backend.square(&a).unwrap());
                }
            });
        });
    });
}

#[test]
fn workers_share_little_memory_with_one_who_is_refused() {
    within_a_minute(|| {
        // What is wrong is found while the call holds its share, which the workers may all be waiting for.
        let good = vec![3; 6 * 50_000];
        let mut bad = good.clone();
        bad[6 * 49_000..6 * 49_001].fill(u64::MAX);
        for verify in [Verify::All, Verify::Off] {
            let backend = backend(Options::new().device_memory(4 << 20).verify(verify));
            thread::scope(|scope| {
                scope.spawn(|| square_many(&backend));
                scope.spawn(|| {
                    for _ in 0..8 {
                        let error = backend.fq().mul_u64_limbs(&good, &bad).unwrap_err();
                        assert!(matches!(error, Error::NotBelowModulus { operand: "b", index: 49_000, .. }), "{error}");
                    }
                });
            });
        }
    });
}
