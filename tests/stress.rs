//! Sixty-four threads call, record, submit, await, drop and fail at random, on two backends with little memory, one of which loses
//! its device on the way: every result is the CPU's, every error the right one, most of what is tried succeeds, nobody hangs,
//! nothing is left.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::Fr;
use bls12_field_gpu::{
    Backend, CallClass, DeviceError, Error, Failure, Faults, Field, Form, Injection, MemoryMode, Operation, Options, Width,
};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Mutex;
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;
use support::{Case, Watched, cpu, in_time};

const THREADS: u64 = 64;
/// For each class of calls at one of which the device is lost.
const ROUNDS: usize = 40;

/// Room for some long recordings at a time, but not for one of every thread.
const LIMIT: u64 = 2 << 20;

/// A class of calls, and one of so many is that at which the device is lost: a fifth of what is usual without a loss.
const CLASSES: [(CallClass, u64); 5] = [
    (CallClass::Allocate, 800),
    (CallClass::Create, 400),
    (CallClass::Record, 690),
    (CallClass::Submit, 220),
    (CallClass::Wait, 620),
];

/// What a thread may do, and how often at least it succeeds on the backend that is well, with few elements and with many: a fifth of
/// what is usual.
const LEAST: [(Kind, usize, usize); 7] = [
    (Kind::Called, 430, 55),
    (Kind::WrongTold, 200, 28),
    (Kind::TooMuchRefused, 200, 27),
    (Kind::RecordingDropped, 190, 14),
    (Kind::TicketDropped, 100, 5),
    (Kind::TicketPolled, 145, 8),
    (Kind::TicketWaitedFor, 155, 8),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Called,
    WrongTold,
    TooMuchRefused,
    RecordingDropped,
    TicketDropped,
    TicketPolled,
    TicketWaitedFor,
}

/// How often each kind of step has succeeded, with few elements and with many.
type Successes = Mutex<BTreeMap<(Kind, bool), usize>>;

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
        Error::Device(DeviceError::OutOfMemory { needed, available, .. }) => needed > available,
        Error::Device(DeviceError::Lost { .. } | DeviceError::TimedOut { .. }) => may_be_lost,
        _ => false,
    }
}

/// One thing that a thread may do, with few elements or with many.
fn step(
    random: &mut Random,
    backend: &Backend,
    reference: &Backend,
    (many, may_be_lost): (bool, bool),
) -> Result<Kind, Error> {
    let length = if many { 3001 + random.below(3000) } else { 1 + random.below(200) } as usize;
    let a: Vec<Fr> = (0..length as u64).map(|i| Fr::from(i + random.0 % 1000)).collect();
    match random.below(7) {
        0 | 1 => {
            let cases = [(Operation::Add, Field::Fq), (Operation::MulAdd, Field::Fr), (Operation::Equal, Field::Fq)];
            let (operation, field) = cases[random.below(3) as usize];
            let case = Case::new(operation, field, Form::Canonical, length);
            let (outcome, expected) = (case.on(backend)?, case.on(reference)?);
            assert!(outcome.elements == expected.elements && outcome.mask == expected.mask, "{operation:?} {length}");
            Ok(Kind::Called)
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
            Ok(Kind::WrongTold)
        }
        3 => {
            let too_long = backend.zeros::<Fr>(1 << 20);
            assert!(matches!(&too_long, Err(error) if excused(error, may_be_lost)), "{too_long:?}");
            Ok(Kind::TooMuchRefused)
        }
        // Recorded and never submitted.
        4 => {
            let vector = backend.upload(&a)?;
            let mut recording = backend.record();
            drop(recording.double(&vector)?);
            Ok(Kind::RecordingDropped)
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
            if random.below(4) == 0 {
                return Ok(Kind::TicketDropped);
            }
            let expected: Vec<Fr> = a.iter().map(|x| *x * x + x).collect();
            // Polled ready, it has handed its downloads over.
            match ticket.wait()?.take(&download) {
                Ok(sums) => assert!(sums == expected),
                Err(error) => assert!(how == 5 && matches!(error, Error::NoSuchDownload), "{error:?}"),
            }
            assert!(sum.download()? == expected);
            Ok(if how == 5 { Kind::TicketPolled } else { Kind::TicketWaitedFor })
        }
    }
}

fn stress() {
    let (successes, reference) = (Successes::default(), cpu());
    let seed = fastrand::u64(..);
    println!("losses of seed {seed:#x}");
    let mut random = Random(seed);
    for (round, (class, places)) in CLASSES.into_iter().enumerate() {
        let failure = [Failure::DeviceLost, Failure::Hang][random.below(2) as usize];
        let injection = Injection { class, at: random.below(places), times: 1, failure };
        println!("{injection:?}");
        lose_one(injection, round as u64, &successes, &reference);
    }
    let successes = successes.into_inner().unwrap();
    for (kind, few, many) in LEAST {
        for (many, least) in [(false, few), (true, many)] {
            let here = successes.get(&(kind, many)).copied().unwrap_or(0);
            assert!(here >= least, "{kind:?}, many: {many}, {here} of at least {least}: {successes:?}");
        }
    }
}

/// Two backends, one of which loses its device as told.
fn lose_one(injection: Injection, salt: u64, successes: &Successes, reference: &Backend) {
    let (faults, none) = (Faults::default(), Faults::default());
    {
        let options = Options::new().device_memory(LIMIT);
        let well = Watched::new(options.clone().memory(MemoryMode::Host).width(Width::Int64).vulkan_faults(&none));
        let lossy = options.memory(MemoryMode::DeviceLocal).width(Width::Int32).vulkan_faults(&faults);
        let lossy = Watched::not_required(lossy, bls12_field_gpu::Validation::On);
        faults.inject(injection);
        thread::scope(|scope| {
            for number in 0..THREADS {
                let (well, lossy) = (&well, &lossy);
                scope.spawn(move || {
                    let mut random = Random(salt << 32 | number);
                    for round in 0..ROUNDS {
                        let (many, may_be_lost) = (random.below(8) == 0, random.below(3) == 0);
                        let backend = if may_be_lost { lossy } else { well };
                        match step(&mut random, backend, reference, (many, may_be_lost)) {
                            Ok(_) if may_be_lost => {}
                            Ok(kind) => *successes.lock().unwrap().entry((kind, many)).or_default() += 1,
                            Err(error) => {
                                assert!(excused(&error, may_be_lost), "thread {number}, round {round}: {error:?}");
                            }
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
