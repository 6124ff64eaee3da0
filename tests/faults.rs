//! Vulkan calls that fail: at every call there is, in every class, nothing comes of it but the right answer or the right error.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::Fr;
use bls12_field_gpu::{
    Backend, CacheDirectory, CallClass, DeviceError, Engine, Error, ErrorKind, Failure, Faults, Field, Form, Injection,
    MemoryMode, Operation, Options, Validation, Vector, Verify, Width, Zeros,
};
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;
use support::{Case, Watched, cpu, in_time};

const LIMIT: Duration = Duration::from_secs(480);

const CLASSES: [CallClass; 5] =
    [CallClass::Allocate, CallClass::Create, CallClass::Record, CallClass::Submit, CallClass::Wait];

/// Failures that a device survives.
const PASSING: [Failure; 3] = [Failure::OutOfDeviceMemory, Failure::OutOfHostMemory, Failure::Unknown];

/// Failures that it does not.
const LOSSES: [Failure; 2] = [Failure::DeviceLost, Failure::Hang];

/// Both kinds of kernel in both kinds of memory, several chunks to a call (and to a self-test), and a plan to make calls fail.
fn engines() -> impl Iterator<Item = (Options, Faults)> {
    let memories = [MemoryMode::DeviceLocal, MemoryMode::Host];
    Width::ALL.into_iter().flat_map(move |width| {
        memories.map(|memory| {
            let faults = Faults::default();
            (Options::new().width(width).memory(memory).chunk_elements(256).vulkan_faults(&faults), faults)
        })
    })
}

fn inject(faults: &Faults, class: CallClass, at: u64, times: u64, failure: Failure) {
    faults.inject(Injection { class, at, times, failure });
}

/// Calls that give memory: all of their class but those that make it visible.
const ALLOCATING: [&str; 5] =
    ["vkCreateBuffer", "vkAllocateMemory", "vkBindBufferMemory", "vkBindBufferMemory2", "vkMapMemory"];

/// Whether an error is what this failure, injected with `faults`, should come to. If memory was asked for, it tells how much.
fn suits(error: &Error, failure: Failure, faults: &Faults) -> bool {
    let Error::Device(error) = error else { return false };
    let allocating = faults.failed().iter().all(|call| ALLOCATING.contains(call));
    let out_of_memory =
        |error: &DeviceError| matches!(error, DeviceError::OutOfMemory { needed, .. } if *needed > 0 || !allocating);
    match failure {
        Failure::OutOfDeviceMemory | Failure::OutOfHostMemory => out_of_memory(error),
        // To gpu-allocator, what cannot be mapped is want of memory.
        Failure::Unknown => matches!(error, DeviceError::Driver { .. }) || out_of_memory(error),
        Failure::DeviceLost => matches!(error, DeviceError::Lost { .. }),
        Failure::Hang => matches!(error, DeviceError::TimedOut { .. } | DeviceError::Lost { .. }),
    }
}

fn is_lost<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::Device(DeviceError::Lost { .. })))
}

/// Three chunks, the last of them shorter.
fn case() -> Case {
    Case::new(Operation::MulAdd, Field::Fr, Form::Montgomery, 600)
}

/// The same as an error or what was computed.
fn compute(backend: &Backend, expected: &[u64]) -> Result<(), Error> {
    let outcome = case().on(backend)?;
    assert_eq!(outcome.elements, expected);
    Ok(())
}

fn numbers(from: u64) -> Vec<Fr> {
    (from..from + 20).map(Fr::from).collect()
}

/// A recording with everything in it; what it computes is compared.
fn record(backend: &Backend) -> Result<(), Error> {
    let (a, b) = (numbers(3), numbers(70));
    let (va, vb) = (backend.upload(&a)?, backend.upload(&b)?);
    let mut recording = backend.record();
    let product = recording.mul(&va, &vb)?;
    let sum = recording.mul(&product, &va)?;
    let copy = recording.duplicate(&sum)?;
    recording.zero(&sum)?;
    recording.write(&vb.slice(0..2)?, &a[..2])?;
    let ticket = recording.submit()?;
    ticket.is_done()?;
    ticket.wait_timeout(Duration::ZERO)?;
    let expected: Vec<Fr> = a.iter().zip(&b).map(|(a, b)| a * b * a).collect();
    assert_eq!(copy.download()?, expected);
    assert_eq!(sum.download()?, vec![Fr::from(0u64); 20]);
    assert_eq!(vb.download()?[..3], [a[0], a[1], b[2]]);
    ticket.wait().map(drop)
}

/// A recording of operations that take several steps, scratch memory and constants, verified and proved: each once, and what it downloads.
fn record_more(backend: &Backend) -> Result<(), Error> {
    let a = numbers(3);
    let va = backend.upload(&a)?;
    let mut recording = backend.record();
    let products = recording.prefix_product(&va)?;
    let inverses = recording.batch_inverse(&products, Zeros::Keep)?;
    let dot = recording.inner_product(&products, &inverses)?;
    let selected = recording.evaluate(&(&va * &inverses - Fr::from(5u64)))?;
    let turned = recording.reverse(&selected)?;
    let value = recording.evaluate_point(&turned, &Fr::from(2u64))?;
    let downloads = [recording.download(&dot)?, recording.download(&turned)?, recording.download(&value)?];
    recording.memory_required()?;
    let mut landed = recording.submit_verified()?.wait()?;
    let [dot, turned, value] = downloads.map(|download| landed.take(&download));
    assert_eq!(dot?, [Fr::from(20u64)]);
    let (turned, two) = (turned?, Fr::from(2u64));
    let mut product = Fr::from(1u64);
    let selected = a.iter().map(|a| {
        product *= a;
        a / &product - Fr::from(5u64)
    });
    let mut selected: Vec<Fr> = selected.collect();
    selected.reverse();
    assert_eq!(turned, selected);
    assert_eq!(value?, [selected.iter().rev().fold(Fr::from(0u64), |sum, x| sum * two + x)]);
    Ok(())
}

/// Nothing lives any more.
fn assert_gone(faults: &Faults) {
    assert_eq!((faults.live(), faults.memory()), (BTreeMap::new(), 0), "{:?}", faults.failed());
}

/// How many calls of a class `work` makes.
fn calls(faults: &Faults, class: CallClass, work: impl FnOnce() -> Result<(), Error>) -> u64 {
    faults.clear();
    work().unwrap();
    faults.calls(class)
}

#[test]
fn the_layer_counts_what_lives() {
    for (options, faults) in engines() {
        let backend = Watched::new(options);
        compute(&backend, &case().answer().0).unwrap();
        let live = faults.live();
        assert_eq!((live["Device"], live["Pipeline"], live["Semaphore"] > 0), (1, 1, true));
        assert!(live["Buffer"] >= 4 && live["DeviceMemory"] >= 1 && faults.memory() >= 4 * 4096);
        for class in CLASSES {
            assert!(faults.calls(class) > 0, "{class:?}");
        }
        assert_eq!(faults.calls(CallClass::Any), CLASSES.iter().map(|class| faults.calls(*class)).sum::<u64>());
        drop(backend);
        assert_gone(&faults);
    }
}

/// Every call that a backend's first use makes fails once, and from some call on every call of a class does.
fn first_use(work: fn(&Backend, &[u64]) -> Result<(), Error>) {
    let expected = case().answer().0;
    for (options, faults) in engines() {
        let made = || support::unwatched(options.clone());
        let backend = made();
        let calls = calls(&faults, CallClass::Any, || work(&backend, &expected));
        drop(backend);
        assert_gone(&faults);
        let (mut errors, mut refused) = (0, 0);
        for at in 0..calls {
            let failure = PASSING[at as usize % 3];
            let backend = made();
            for (times, count) in [(1, &mut errors), (u64::MAX, &mut refused)] {
                inject(&faults, CallClass::Any, at, times, failure);
                if let Err(error) = work(&backend, &expected) {
                    assert!(suits(&error, failure, &faults), "{failure:?} at {:?}: {error:?}", faults.failed());
                    assert_eq!(error.kind(), ErrorKind::DeviceFault);
                    *count += 1;
                }
                faults.clear();
                assert!(!backend.is_lost());
                work(&backend, &expected).unwrap();
                backend.trim();
            }
            drop(backend);
            assert_gone(&faults);
        }
        assert!(errors > calls / 4 && refused > 0, "{errors} and {refused} of {calls}");
    }
}

#[test]
fn every_call_of_a_first_call_fails() {
    in_time(LIMIT, || first_use(compute));
}

#[test]
fn every_call_of_a_first_recording_fails() {
    in_time(LIMIT, || first_use(|backend, _| record(backend)));
}

/// Work of a backend, given what its call is to give.
type Work = fn(&Backend, &[u64]) -> Result<(), Error>;

/// By class, on one backend, in use: what fails is over when the call is, and leaves nothing behind.
fn outlives(works: &[Work], limited: impl Fn(Options) -> Options + Send + 'static) {
    let works = works.to_vec();
    in_time(LIMIT, move || {
        let expected = case().answer().0;
        for (options, faults) in engines() {
            let backend = Watched::new(limited(options));
            let kept = backend.upload(&numbers(9)).unwrap();
            let works = works.iter().map(|work| || work(&backend, &expected));
            works.clone().for_each(|work| work().unwrap());
            backend.trim();
            let live = faults.live();
            for work in works {
                for class in CLASSES {
                    backend.trim();
                    for at in 0..calls(&faults, class, work) {
                        for failure in PASSING {
                            backend.trim();
                            inject(&faults, class, at, 1 + at % 2, failure);
                            if let Err(error) = work() {
                                assert!(suits(&error, failure, &faults), "{failure:?} at {:?}: {error:?}", faults.failed());
                            }
                        }
                    }
                    faults.clear();
                    work().unwrap();
                }
            }
            assert_eq!(kept.download().unwrap(), numbers(9));
            backend.trim();
            let (mut now, mut before) = (faults.live(), live);
            // As many command buffers and blocks of memory as were in use at once stay.
            for map in [&mut now, &mut before] {
                map.retain(|object, _| !matches!(*object, "CommandPool" | "DeviceMemory"));
            }
            assert_eq!(now, before);
            drop((kept, backend));
            assert_gone(&faults);
        }
    });
}

#[test]
fn a_backend_outlives_what_fails() {
    // So little memory that a share of it that does not come back is soon missed.
    outlives(&[compute, |backend, _| record(backend)], |options| options.device_memory(256 << 10));
}

#[test]
fn a_backend_outlives_what_fails_in_recordings_of_several_steps() {
    outlives(&[|backend, _| record_more(backend)], |options| options.verify(Verify::Proofs));
}

/// No memory at all, and then some again.
#[test]
fn where_there_is_no_memory_the_error_says_so() {
    in_time(LIMIT, || {
        let expected = case().answer().0;
        for (options, faults) in engines() {
            // Room for two chunks: a share of it that does not come back is soon missed.
            let backend = Watched::new(options.device_memory(64 << 10));
            compute(&backend, &expected).unwrap();
            for failure in [Failure::OutOfDeviceMemory, Failure::OutOfHostMemory] {
                for _ in 0..10 {
                    // What the pool has would do; and gpu-allocator keeps a block.
                    backend.trim();
                    inject(&faults, CallClass::Allocate, 0, u64::MAX, failure);
                    match compute(&backend, &expected) {
                        Err(Error::Device(DeviceError::OutOfMemory { needed, available, .. })) => {
                            assert!(needed >= 4096 && available > 0, "{needed} {available}");
                        }
                        other => panic!("{other:?}"),
                    }
                    assert!(matches!(
                        backend.upload(&numbers(1)),
                        Err(Error::Device(DeviceError::OutOfMemory { needed: 4096.., .. }))
                    ));
                    faults.clear();
                    compute(&backend, &expected).unwrap();
                }
            }
            assert_eq!((backend.stats().fallbacks, backend.stats().cpu_calls), (0, 0));
            drop(backend);
            assert_gone(&faults);
        }
    });
}

/// Memory of its own, not a part of a larger block that stays: what is not freed is seen at once.
#[test]
fn a_long_vector_that_cannot_be_made_leaves_no_memory_behind() {
    in_time(LIMIT, || {
        for (options, faults) in engines() {
            let backend = Watched::new(options);
            let long = || backend.zeros::<Fr>(150_000).map(drop);
            long().unwrap();
            for class in CLASSES {
                for at in 0..calls(&faults, class, long) {
                    // Twice, since memory is asked for again when what is idle has been freed.
                    backend.trim();
                    inject(&faults, class, at, 2, Failure::OutOfHostMemory);
                    if let Err(error) = long() {
                        assert!(suits(&error, Failure::OutOfHostMemory, &faults), "{error:?}");
                    }
                    faults.clear();
                    // Until no submission uses it any more.
                    let mut looks = 0;
                    while faults.memory() > 0 && looks < 1000 {
                        thread::sleep(Duration::from_millis(1));
                        backend.trim();
                        looks += 1;
                    }
                    assert_eq!(faults.memory(), 0, "{class:?} {at}");
                }
                backend.trim();
            }
            long().unwrap();
        }
    });
}

/// The device goes at any call of a call from host memory: where a GPU is required that is an error, else the CPU computes.
#[test]
fn calls_finish_on_the_cpu_when_the_device_goes() {
    in_time(LIMIT, || {
        let expected = case().answer().0;
        for (options, faults) in engines() {
            let required = || Watched::new(options.clone());
            let backend = required();
            let calls = calls(&faults, CallClass::Any, || compute(&backend, &expected));
            drop(backend);
            let mut noticed = 0;
            for at in 0..calls {
                let failure = LOSSES[at as usize % 2];
                faults.clear();
                let backend = Watched::not_required(options.clone(), Validation::On);
                inject(&faults, CallClass::Any, at, 1, failure);
                let outcome = case().on(&backend).unwrap();
                assert_eq!(outcome.elements, expected);
                // The last calls of all come after the result.
                let early = outcome.report.fallback.is_some();
                if let Some(loss) = outcome.report.fallback {
                    noticed += 1;
                    assert!(suits(&Error::Device(loss), failure, &faults));
                    assert_eq!((outcome.report.dispatches, outcome.report.verified), (0, 0));
                } else {
                    case().on(&backend).unwrap();
                }
                let outcome = case().on(&backend).unwrap();
                assert_eq!(outcome.elements, expected);
                assert!(matches!(outcome.report.fallback, Some(DeviceError::Lost { .. })), "{:?}", outcome.report);
                assert!(backend.is_lost());
                let stats = backend.stats();
                assert_eq!((stats.fallbacks, stats.calls), (stats.cpu_calls, if early { 2 } else { 3 }));
                drop(backend);
                assert_gone(&faults);

                faults.clear();
                let backend = required();
                inject(&faults, CallClass::Any, at, 1, LOSSES[(at as usize + 1) % 2]);
                if let Err(error) = compute(&backend, &expected) {
                    assert!(suits(&error, LOSSES[(at as usize + 1) % 2], &faults), "{error:?}");
                } else {
                    let _ = compute(&backend, &expected);
                }
                assert!(is_lost(compute(&backend, &expected)));
                drop(backend);
                assert_gone(&faults);
            }
            // All but the last, which come after the result.
            assert!(2 * noticed > calls, "{noticed} of {calls}");
        }
    });
}

/// The device goes at any call of a recording: after that nothing but errors comes of it.
#[test]
fn vectors_of_a_lost_device_answer_nothing_but_that() {
    in_time(LIMIT, || {
        for (options, faults) in engines() {
            let backend = Watched::new(options.clone());
            let calls = calls(&faults, CallClass::Any, || record(&backend));
            drop(backend);
            for (at, failure) in (0..calls).flat_map(|at| LOSSES.map(|failure| (at, failure))) {
                faults.clear();
                // The layer watches one of both.
                let watched = failure == LOSSES[at as usize % 2];
                let validation = if watched { Validation::On } else { Validation::Off };
                let backend = Watched::not_required(options.clone(), validation);
                let vector = backend.upload(&numbers(5)).unwrap();
                let mut recording = backend.record();
                let square = recording.square(&vector).unwrap();
                let ticket = recording.clone().submit().unwrap();
                inject(&faults, CallClass::Any, at, 1, failure);
                if let Err(error) = record(&backend) {
                    assert!(suits(&error, failure, &faults), "{failure:?} at {:?}: {error:?}", faults.failed());
                }
                // Less of the pool was made anew than when the calls were counted.
                while faults.failed().is_empty() {
                    let _ = vector.download();
                }
                // By now at the latest.
                let _ = vector.download();
                assert!(backend.is_lost());
                assert!(is_lost(vector.download()));
                assert!(is_lost(vector.slice(1..2).unwrap().download()));
                assert!(is_lost(square.download()));
                assert!(is_lost(backend.upload(&numbers(1))));
                assert!(is_lost(backend.zeros::<Fr>(1)));
                assert!(is_lost(backend.record().add(&vector, &square)));
                assert!(is_lost(recording.submit()));
                assert!(is_lost(ticket.is_done()));
                assert!(is_lost(ticket.wait_timeout(Duration::from_secs(1))));
                // Vectors outlive the backend, and their device with them.
                let kept: [Vector<Fr>; 2] = [vector, square];
                let log = backend.validation_log();
                if at % 2 == 0 {
                    assert!(is_lost(ticket.wait()));
                    drop(kept);
                    drop(backend);
                } else {
                    drop(backend);
                    assert!(is_lost(kept[0].download()));
                    assert!(is_lost(ticket.wait()));
                    drop(kept);
                }
                assert_eq!(log.messages(), Vec::<String>::new());
                assert_gone(&faults);
            }
        }
    });
}

/// The same of recordings whose operations take several steps, where the device goes when they are made and tested, or later.
#[test]
fn recordings_of_several_steps_lose_their_device() {
    in_time(LIMIT, || {
        // Each of the four at every fourth call, so that all are there: some 300 are made, most of them for the tests of kernels.
        for (number, (options, faults)) in engines().enumerate() {
            let options = options.verify(Verify::Proofs);
            let backend = Watched::new(options.clone());
            let calls = calls(&faults, CallClass::Any, || record_more(&backend));
            drop(backend);
            let mut noticed = 0;
            for at in (number as u64..calls).step_by(4) {
                let failure = LOSSES[at as usize / 4 % 2];
                faults.clear();
                let backend = Watched::not_required(options.clone(), Validation::On);
                inject(&faults, CallClass::Any, at, 1, failure);
                if let Err(error) = record_more(&backend) {
                    assert!(suits(&error, failure, &faults), "{failure:?} at {:?}: {error:?}", faults.failed());
                    noticed += 1;
                }
                let _ = record_more(&backend);
                assert!(backend.is_lost());
                assert!(is_lost(record_more(&backend)));
                drop(backend);
                assert_gone(&faults);
            }
            // All but some of the last.
            assert!(4 * noticed + 24 > calls, "{noticed} of {calls}");
        }
    });
}

/// A device that cannot be made is turned down, with what failed, and nothing is left of it.
#[test]
fn every_call_of_making_a_backend_fails() {
    in_time(LIMIT, || {
        for (options, faults) in engines() {
            // Another device would be taken instead.
            let options = options.cache(CacheDirectory::Off);
            drop(Backend::new(&options.clone().require_gpu(true)).unwrap());
            faults.clear();
            drop(Backend::new(&options).unwrap());
            // Destroying takes calls, too.
            let calls = faults.calls(CallClass::Any);
            let mut turned_down = 0;
            for at in 0..calls {
                for failure in PASSING.into_iter().chain([Failure::DeviceLost]) {
                    inject(&faults, CallClass::Any, at, u64::MAX / 2, failure);
                    match Backend::new(&options.clone().require_gpu(true)) {
                        Ok(backend) => {
                            faults.clear();
                            drop(backend);
                        }
                        Err(error) => {
                            turned_down += 1;
                            assert_eq!(error.kind(), ErrorKind::NoDevice);
                            let text = error.to_string();
                            assert!(faults.failed().iter().any(|call| text.contains(call)), "{text}");
                        }
                    }
                    assert_gone(&faults);
                }
            }
            assert!(turned_down >= 3 * 5, "{turned_down}");
            inject(&faults, CallClass::Create, 0, u64::MAX, Failure::OutOfDeviceMemory);
            let backend = Backend::new(&options.clone().require_gpu(false)).unwrap();
            assert!(matches!(backend.engine(), Engine::Cpu { reason } if reason.contains("out of memory")));
            compute(&backend, &case().answer().0).unwrap();
            faults.clear();
            compute(&Watched::new(options), &case().answer().0).unwrap();
            assert_gone(&faults);
        }
    });
}

/// Threads that share a device lose it together, each at its own place.
#[test]
fn threads_lose_their_device_together() {
    in_time(LIMIT, || {
        let reference = cpu();
        for (round, (options, faults)) in engines().chain(engines()).enumerate() {
            let backend = Watched::not_required(options.device_memory(64 << 10), Validation::On);
            inject(&faults, CallClass::Any, 40 + 50 * round as u64, 1, LOSSES[round / 4]);
            thread::scope(|scope| {
                for thread in 0..4 {
                    let (backend, reference) = (&backend, &reference);
                    scope.spawn(move || {
                        for length in 1..25 {
                            let case = Case::new(Operation::Mul, Field::Fq, Form::Canonical, 10 * length + thread);
                            let (outcome, expected) = (case.on(backend).unwrap(), case.on(reference).unwrap());
                            assert_eq!(outcome.elements, expected.elements);
                        }
                    });
                }
            });
            assert!(backend.is_lost());
            assert!(backend.stats().fallbacks > 0);
            drop(backend);
            assert_gone(&faults);
        }
    });
}

#[test]
fn one_device_goes_and_others_stay() {
    in_time(LIMIT, || {
        let expected = case().answer().0;
        let (mut engines, without) = (engines(), Watched::new(Options::new()));
        let ((lost, faults), (well, none)) = (engines.next().unwrap(), engines.next().unwrap());
        let (lost, well) = (Watched::new(lost), Watched::new(well));
        [&lost, &well, &without].into_iter().for_each(|backend| compute(backend, &expected).unwrap());
        inject(&faults, CallClass::Submit, 0, 1, Failure::DeviceLost);
        for _ in 0..3 {
            assert!(is_lost(compute(&lost, &expected)));
            compute(&well, &expected).unwrap();
            compute(&without, &expected).unwrap();
        }
        drop(lost);
        assert_gone(&faults);
        record(&well).unwrap();
        record(&without).unwrap();
        drop(well);
        assert_gone(&none);
    });
}
