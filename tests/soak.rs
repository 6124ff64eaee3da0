//! Two hundred thousand calls of changing sizes from four threads end with the objects that they had after the first thousand, and
//! with memory that has stopped growing.
//!
//! The only test of its file: it looks at the memory of the whole process.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::Fr;
use bls12_field_gpu::{Backend, Faults, Field, MemoryMode, Options, Verify, Width};
use std::collections::BTreeMap;
use std::ops::Range;
use std::thread;
use support::{elements, unwatched};

const THREADS: usize = 4;
const CALLS: usize = 200_000;

/// The calls come in so many parts, with a look at the process's memory after each. What is lost with each call makes every part
/// grow. What comes to an end does not: pages of the block that gpu-allocator keeps are touched for the first time, and the C
/// library's arenas, of which each thread has its own, fragment up to a point. Measured with lavapipe: 2 to 12 MiB in the first
/// hundred thousand calls (2 with a single arena), then nothing in three hundred thousand more.
const PARTS: usize = 8;

/// Of the last parts, as many as these, three at least grow the process by no more than this. A leak of 11 bytes a call would be as much.
const TOLERANCE: u64 = 256 << 10;

/// As long as they have not, there are more parts, up to so many: what fragments comes to its end sooner or later, a leak does not.
const MOST_PARTS: usize = 3 * PARTS;

/// gpu-allocator keeps one empty block, of this size at most: which of several is left is up to the order in which they became empty.
const BLOCK: u64 = 16 << 20;

/// And all of them together by no more than this: 2 to 44 MiB were seen, most of it a block or two that were touched late.
const AT_MOST: u64 = 64 << 20;

/// So many command pools more than were made at first may have been needed at once.
const POOLS: i64 = 4 * THREADS as i64;

/// What a backend, and the process, hold when the pools are empty.
#[derive(Debug)]
struct Held {
    objects: BTreeMap<&'static str, i64>,
    device: u64,
    process: u64,
}

fn held(backend: &Backend, faults: &Faults) -> Held {
    backend.trim();
    Held { objects: faults.live(), device: faults.memory(), process: resident_set() }
}

/// `VmRSS` in bytes; 0 where there is no such thing.
fn resident_set() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
}

/// The length of the `number`th call: mostly 1 to 64, one in fifty up to 5000.
fn length(number: usize) -> usize {
    let scattered = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    if number.is_multiple_of(50) { scattered as usize % 5000 + 1 } else { scattered as usize % 64 + 1 }
}

/// The calls of these numbers; each is of one of a few cheap operations, one in a hundred a recording.
fn work(backend: &Backend, numbers: impl Iterator<Item = usize>, a: &[u64], b: &[u64]) {
    let fr: Vec<Fr> = (0..5000u64).map(Fr::from).collect();
    let mut out = vec![0; a.len()];
    for number in numbers {
        let length = length(number);
        let limbs = 6 * length;
        match number % 100 {
            7 => {
                let vector = backend.upload(&fr[..length]).unwrap();
                let mut recording = backend.record();
                let sum = recording.add(&vector, &vector).unwrap();
                let ticket = recording.submit().unwrap();
                // Some wait for the vector, some for the ticket, some for nothing.
                match number % 3 {
                    0 => assert_eq!(sum.download().unwrap()[length - 1], fr[length - 1] + fr[length - 1]),
                    1 => drop(ticket.wait().unwrap()),
                    _ => drop(sum),
                }
            }
            n if n % 3 == 0 => backend.fq().add_u64_limbs_into(&a[..limbs], &b[..limbs], &mut out[..limbs]).unwrap(),
            n if n % 3 == 1 => backend.fq().mul_u64_limbs_into(&a[..limbs], &b[..limbs], &mut out[..limbs]).unwrap(),
            _ => drop(backend.fq().equal_u64_limbs(&a[..limbs], &b[..limbs]).unwrap()),
        }
    }
}

fn soak(options: Options, calls: usize) {
    let faults = Faults::default();
    let backend = unwatched(options.verify(Verify::Sample(1)).vulkan_faults(&faults));
    // So that all pages of the block that gpu-allocator keeps have been touched.
    let long = vec![Fr::from(1u64); 3 << 15];
    drop((0..5).map(|_| backend.upload(&long).unwrap()).collect::<Vec<_>>());
    let (a, b) = (elements(Field::Fq, 5000, 0), elements(Field::Fq, 5000, 1));
    let run = |numbers: Range<usize>| {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let numbers = numbers.clone().skip(thread).step_by(THREADS);
                let (backend, a, b) = (&backend, &a, &b);
                scope.spawn(move || work(backend, numbers, a, b));
            }
        });
        held(&backend, &faults)
    };
    let before = run(0..1000);
    let part = (calls - 1000).div_ceil(PARTS);
    let (mut parts, mut process) = (Vec::new(), vec![before.process]);
    loop {
        let start = 1000 + parts.len() * part;
        parts.push(run(start..start + part));
        process.extend(parts.last().map(|held: &Held| held.process));
        let last = &process[process.len().saturating_sub(PARTS + 1)..];
        let calm = last.windows(2).filter(|pair| pair[1] <= pair[0] + TOLERANCE).count();
        if calm >= 3 && parts.len() >= PARTS {
            break;
        }
        assert!(parts.len() < MOST_PARTS, "{process:?} bytes of memory");
    }
    println!("{before:?}\n{parts:?}");
    assert!(process.last() <= Some(&(process[0] + AT_MOST)), "{process:?} bytes of memory");
    let calls = 1000 + parts.len() * part;
    let mut was = before.objects;
    let pools_before = was.remove("CommandPool").unwrap_or(0);
    for mut after in parts {
        let pools_after = after.objects.remove("CommandPool").unwrap_or(0);
        assert_eq!(after.objects, was);
        assert!(after.device <= before.device.max(BLOCK), "{} bytes of {}", after.device, before.device);
        assert!(pools_after <= pools_before + POOLS, "{pools_after} command pools");
    }
    let recordings = (0..calls).filter(|number| number % 100 == 7).count();
    assert_eq!(backend.stats().calls as usize + recordings, calls);
    drop(backend);
    assert_eq!((faults.live(), faults.memory()), (BTreeMap::new(), 0));
}

#[test]
fn two_hundred_thousand_calls_leave_nothing_behind() {
    soak(Options::new().memory(MemoryMode::Host).width(Width::Int64), CALLS);
    soak(Options::new().memory(MemoryMode::DeviceLocal).width(Width::Int32), CALLS);
}
