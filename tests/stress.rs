//! Sixty-four threads call, record, submit, await, drop and fail at random, on two backends with little memory, one of which loses
//! its device on the way: every result is the CPU's, every error the right one, nobody hangs, nothing is left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::Fr;
use bls12_field_gpu::{
    Backend, CallClass, DeviceError, Error, Failure, Faults, Field, Form, Injection, MemoryMode, Operation, Options, Verify,
    Width,
};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;
use support::{Case, Watched, cpu, in_time};

const THREADS: u64 = 64;
const ROUNDS: usize = 200;

/// Room for a few chunks of a few threads.
const LIMIT: u64 = 512 << 10;

/// SplitMix64: the same choices each time (in another order among threads).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Memory is short for others' sake, or the device is lost, if it may be.
fn excused(error: &Error, may_be_lost: bool) -> bool {
    match error {
        Error::Device(DeviceError::OutOfMemory { needed, .. }) => *needed > 0,
        Error::Device(DeviceError::Lost { .. } | DeviceError::TimedOut { .. }) => may_be_lost,
        _ => false,
    }
}

/// One thing that a thread may do.
fn step(random: &mut Random, backend: &Backend, reference: &Backend, may_be_lost: bool) -> Result<(), Error> {
    let bound = if random.below(8) == 0 { 6000 } else { 200 };
    let length = 1 + random.below(bound) as usize;
    let a: Vec<Fr> = (0..length as u64).map(|i| Fr::from(i + random.0 % 1000)).collect();
    match random.below(7) {
        0 | 1 => {
            let cases = [(Operation::Add, Field::Fq), (Operation::MulAdd, Field::Fr), (Operation::Equal, Field::Fq)];
            let (operation, field) = cases[random.below(3) as usize];
            let case = Case::new(operation, field, Form::Canonical, length);
            let (outcome, expected) = (case.on(backend)?, case.on(reference)?);
            assert!(outcome.elements == expected.elements && outcome.mask == expected.mask, "{operation:?} {length}");
        }
        2 => {
            let mut case = Case::new(Operation::Mul, Field::Fq, Form::Canonical, length);
            let wrong = random.below(length as u64) as usize;
            case.vectors[1][6 * wrong..6 * wrong + 6].fill(u64::MAX);
            match case.on(backend) {
                Err(Error::NotBelowModulus { index, .. }) => assert_eq!(index, wrong),
                Err(error) => return Err(error),
                Ok(_) => panic!("not below the modulus"),
            }
        }
        3 => {
            let too_long = backend.zeros::<Fr>(1 << 20);
            assert!(matches!(&too_long, Err(error) if excused(error, may_be_lost)), "{too_long:?}");
        }
        // Recorded and never submitted.
        4 => {
            let vector = backend.upload(&a)?;
            let mut recording = backend.record();
            drop(recording.double(&vector)?);
        }
        how => {
            let vector = backend.upload(&a)?;
            let mut recording = backend.record();
            let product = recording.mul(&vector, &vector)?;
            let sum = recording.add(&product, &vector)?;
            let download = recording.download(&sum)?;
            let mut ticket = if random.below(3) == 0 { recording.submit_verified()? } else { recording.submit()? };
            drop(product);
            if how == 5 {
                let _ = Pin::new(&mut ticket).poll(&mut Context::from_waker(Waker::noop()));
            }
            if random.below(4) > 0 {
                let expected: Vec<Fr> = a.iter().map(|x| *x * x + x).collect();
                // Polled ready, it has handed its downloads over.
                match ticket.wait()?.take(&download) {
                    Ok(sums) => assert!(sums == expected),
                    Err(error) => assert!(how == 5 && matches!(error, Error::NoSuchDownload), "{error:?}"),
                }
                assert!(sum.download()? == expected);
            }
        }
    }
    Ok(())
}

fn stress() {
    let (faults, none) = (Faults::default(), Faults::default());
    let reference = cpu();
    {
        let options = Options::new().device_memory(LIMIT);
        let well = Watched::new(options.clone().memory(MemoryMode::Host).width(Width::Int64).vulkan_faults(&none));
        let lossy = options.memory(MemoryMode::DeviceLocal).width(Width::Int32).vulkan_faults(&faults);
        let lossy = Watched::not_required(lossy, bls12_field_gpu::Validation::On);
        // After some thousand calls of all threads.
        faults.inject(Injection { class: CallClass::Submit, at: 3000, times: 1, failure: Failure::DeviceLost });
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (well, lossy, reference) = (&well, &lossy, &reference);
                scope.spawn(move || {
                    let mut random = Random(number);
                    for round in 0..ROUNDS {
                        let may_be_lost = random.below(3) == 0;
                        let backend = if may_be_lost { lossy } else { well };
                        if let Err(error) = step(&mut random, backend, reference, may_be_lost) {
                            assert!(excused(&error, may_be_lost), "thread {number}, round {round}: {error:?}");
                        }
                    }
                });
            }
        });
        assert!(lossy.is_lost() && !well.is_lost());
        let stats = well.stats();
        assert_eq!((stats.fallbacks, stats.cpu_calls), (0, 0));
        assert!(stats.device.submits <= stats.device.dispatches + 3 * THREADS * ROUNDS as u64);
        // As good as new.
        let a = vec![Fr::from(3u64); 6000];
        assert_eq!(well.upload(&a).unwrap().download().unwrap(), a);
        assert_eq!(lossy.square(&a).unwrap(), vec![Fr::from(9u64); 6000]);
    }
    // What threads of the devices still held when their futures were dropped.
    for _ in 0..1000 {
        if faults.live().is_empty() && none.live().is_empty() {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!((faults.live(), faults.memory()), (BTreeMap::new(), 0));
    assert_eq!((none.live(), none.memory()), (BTreeMap::new(), 0));
}

#[test]
fn sixty_four_threads_at_random() {
    in_time(Duration::from_secs(120), stress);
}

/// That calls wait at the same time is up to the system's scheduler: sooner or later some do.
#[test]
fn small_calls_that_wait_at_the_same_time_are_submitted_together() {
    let options = Options::new().memory(MemoryMode::Host).width(Width::Int64).verify(Verify::Off);
    let backend = Watched::new(options);
    let case = Case::new(Operation::Add, Field::Fr, Form::Montgomery, 64);
    let expected = case.answer().0;
    assert_eq!(case.on(&backend).unwrap().elements, expected);
    let before = backend.stats().device;
    let together = (0..100).any(|_| {
        thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| (0..20).for_each(|_| assert_eq!(case.on(&backend).unwrap().elements, expected)));
            }
        });
        let after = backend.stats().device;
        assert_eq!((after.dispatches - before.dispatches) % 320, 0, "each call is a dispatch");
        after.submits - before.submits < after.dispatches - before.dispatches
    });
    assert!(together, "{:?}", backend.stats().device);
}
