//! One backend for thousands of calls, for many threads, and nothing that grows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{
    Backend, Engine, Field, Form, MemoryMode, Operation, Options, Row, Validation, Verify, Width, fq, fr,
};
use std::sync::Barrier;
use std::thread;
use support::{Case, FORMS, Watched, cpu, elements, rows, small, unwatched};

/// Drivers stay loaded: NVIDIA's can be loaded thirty times in a process. (lavapipe as often as one likes.)
#[test]
fn backends_one_after_the_other() {
    let reference = cpu();
    for number in 0..48 {
        let backend = unwatched(Options::new());
        same(&backend, &reference, &Case::new(Operation::Add, Field::Fr, Form::Montgomery, number + 1));
    }
}

/// Exponentiations are some hundred times slower than the rest.
fn is_slow(row: &Row) -> bool {
    matches!(row.operation, Operation::Pow | Operation::Inverse | Operation::InverseOrZero | Operation::Sqrt)
}

/// How many programs there are: each operation in each field, and in each form where that matters.
fn kernels() -> u64 {
    rows().map(|(row, _)| if row.form_matters { 2 } else { 1 }).sum()
}

/// The `number`th of a sequence of calls of changing operations, fields, forms and lengths.
fn nth(number: usize) -> Case {
    let rows: Vec<_> = rows().collect();
    // Each operation comes round with each form, and each with ever other lengths.
    let (row, field) = rows[number % rows.len()];
    let form = FORMS[number / rows.len() % 2];
    let length = match number % 7 {
        0 => 1,
        1 => number % 65,
        2 => 64 * (number % 5),
        3 => number * 37 % 1000,
        _ => number * 13 % 300,
    };
    Case::new(row.operation, field, form, if is_slow(row) { length / 4 } else { length })
}

fn same(backend: &Backend, reference: &Backend, case: &Case) {
    let (outcome, expected) = (case.on(backend).unwrap(), case.on(reference).unwrap());
    let same = outcome.elements == expected.elements && outcome.mask == expected.mask;
    assert!(same, "{:?} {:?} {:?}, {} elements", case.operation, case.field, case.form, case.length());
}

fn thousands_of_calls(options: Options, validation: Validation) {
    let backend = Watched::validated(options, validation);
    let reference = cpu();
    const CALLS: usize = 3000;
    let (mut empty, mut checked) = (0, 0);
    for number in 0..CALLS {
        let case = nth(number);
        empty += u64::from(case.length() == 0);
        if number % 3 == 0 {
            checked += 1;
            same(&backend, &reference, &case);
        } else {
            case.on(&backend).unwrap();
        }
    }
    assert!(checked >= 1000);
    let stats = backend.stats();
    assert_eq!((stats.calls, stats.cpu_calls), (CALLS as u64 - empty, 0));
    let kernels = kernels();
    assert!(stats.device.pipeline_builds <= kernels, "{} pipelines", stats.device.pipeline_builds);
    assert_eq!(stats.device.dispatches, stats.calls + kernels);
    // Lengths of 3000 calls fall into few size classes, of which few buffers are in use at once.
    assert!(stats.device.allocations < 300, "{} buffers made", stats.device.allocations);
}

#[test]
fn thousands_of_calls_with_addresses() {
    thousands_of_calls(Options::new().width(Width::Int64).memory(MemoryMode::Host), Validation::On);
}

#[test]
fn thousands_of_calls_with_descriptors() {
    let options = Options::new().width(Width::Int32).memory(MemoryMode::DeviceLocal);
    thousands_of_calls(options, Validation::Synchronization);
}

#[test]
fn nothing_grows_when_shapes_repeat() {
    for memory in [MemoryMode::Host, MemoryMode::DeviceLocal] {
        for width in Width::ALL {
            let backend = Watched::new(Options::new().memory(memory).width(width));
            let cases: Vec<Case> = (0..70)
                .map(nth)
                .chain([100, 5000, 20_000].map(|length| Case::new(Operation::MulAdd, Field::Fq, Form::Montgomery, length)))
                .collect();
            let round = || cases.iter().for_each(|case| drop(case.on(&backend).unwrap()));
            round();
            let warm = backend.stats().device;
            for _ in 0..10 {
                round();
            }
            let after = backend.stats().device;
            assert_eq!(after.allocations, warm.allocations, "{memory:?}, {width:?}");
            assert_eq!((after.pipeline_builds, after.pipeline_hits), (warm.pipeline_builds, warm.pipeline_hits));
            assert!(after.submits > warm.submits + 500);
        }
    }
}

#[test]
fn idle_buffers_make_room_for_others() {
    // Buffers of ever other sizes, with a limit that is soon reached by those kept for reuse.
    let backend = Watched::new(Options::new().device_memory(4 << 20).memory(MemoryMode::DeviceLocal));
    let reference = cpu();
    for round in 0..2 {
        for step in 1..40 {
            same(&backend, &reference, &Case::new(Operation::Add, Field::Fr, Form::Canonical, 997 * step + round));
        }
    }
}

#[test]
fn eight_threads_on_one_backend() {
    for options in [
        Options::new().width(Width::Int64).memory(MemoryMode::Host),
        Options::new().width(Width::Int32).memory(MemoryMode::DeviceLocal),
        // So little memory that threads wait for one another.
        Options::new().memory(MemoryMode::DeviceLocal).device_memory(256 << 10),
    ] {
        let (backend, reference) = (Watched::new(options), cpu());
        let start = Barrier::new(8);
        thread::scope(|scope| {
            for number in 0..8 {
                let (start, reference) = (&start, &reference);
                // A clone is the same backend.
                let backend = Backend::clone(&backend);
                scope.spawn(move || {
                    start.wait();
                    for call in 0..60 {
                        // All threads want the same new kernels at once at first, and others later.
                        same(&backend, reference, &nth(call + call / 20 * number));
                    }
                });
            }
        });
        let stats = backend.stats();
        assert!(stats.calls > 8 * 50 && stats.calls <= 8 * 60);
        assert_eq!(stats.cpu_calls, 0);
        // No kernel was built twice.
        assert!(stats.device.pipeline_builds <= kernels(), "{} pipelines", stats.device.pipeline_builds);
    }
}

#[test]
fn threads_wait_for_memory() {
    // Room for the three smallest buffers there are, of 4 KiB: for one call at a time.
    let backend = Watched::new(Options::new().memory(MemoryMode::DeviceLocal).device_memory(3 * 4096));
    let case = Case::new(Operation::Add, Field::Fq, Form::Canonical, 64 * 5);
    let expected = case.answer();
    let start = Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                start.wait();
                for _ in 0..20 {
                    let outcome = case.on(&backend).unwrap();
                    assert_eq!((outcome.elements, outcome.mask), expected);
                    assert_eq!(outcome.report.dispatches, 5);
                }
            });
        }
    });
    // So all calls used the same three, and three to stage them.
    assert_eq!(backend.stats().device.allocations, 6);
}

#[test]
fn eight_threads_making_backends_of_their_own() {
    thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                for call in 0..3 {
                    // Without the layer: version 1.3.239 crashes when a device is made while others are being used.
                    let backend = unwatched(Options::new().verify(Verify::Off));
                    same(&backend, &cpu(), &nth(8 * call + number));
                }
            });
        }
    });
}

/// No other test of this file may use the free functions: here they are used for the first time.
#[test]
fn eight_threads_racing_for_the_first_use() {
    let start = Barrier::new(8);
    let backends: Vec<usize> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|number| {
                let start = &start;
                scope.spawn(move || {
                    let a = elements(Field::Fq, 50 + number, 2 * number as u64 + 1);
                    let b = elements(Field::Fr, 50 + number, 2 * number as u64 + 1);
                    start.wait();
                    for _ in 0..10 {
                        let sum = fq::add_u64_limbs(&a, &a).unwrap();
                        assert_eq!(sum, fq::double_u64_limbs(&a).unwrap());
                        let inverse = fr::inverse_u64_limbs(&b).unwrap();
                        assert_eq!(fr::mul_u64_limbs(&inverse, &b).unwrap(), small(Field::Fr, 1).repeat(50 + number));
                    }
                    std::ptr::from_ref(bls12_field_gpu::backend().unwrap()) as usize
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(backends.iter().all(|&backend| backend == backends[0]), "there is one backend for the whole process");
    let backend = bls12_field_gpu::backend().unwrap();
    assert!(matches!(backend.engine(), Engine::Vulkan { .. }), "{}", backend.engine());
    assert_eq!(backend.stats().calls, 8 * 10 * 4);
    assert_eq!(backend.stats().device.pipeline_builds, 4);
}
