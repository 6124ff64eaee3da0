//! Calls that the device and the CPU compute together: every element is right, whoever computed it, and what is wrong with a call is told as
//! if one of them had been alone.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::Fq;
use bls12_field_gpu::{
    Backend, CacheDirectory, CallClass, DeviceError, Error, Failure, Fault, Faults, Field, Form, Injection, MemoryMode,
    Operation, Options, Place, Placement, Reason, Stage, Validation, Verify, Width,
};
use proptest::prelude::*;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;
use support::{Case, FORMS, Watched, case_of, cpu, in_time, numbers, rows};

/// Shorter calls are the device's alone.
const LEAST: usize = 1 << 12;

fn both() -> Options {
    Options::new().placement(Placement::Both).verify(Verify::Off).cache(CacheDirectory::Off).require_gpu(true)
}

/// In several chunks, watched by the validation layer.
static BOTH: LazyLock<Watched> = LazyLock::new(|| Watched::placed(both().chunk_elements(1000), Validation::On));
static CPU: LazyLock<Backend> = LazyLock::new(cpu);

/// Has a case computed by both; how many elements the CPU computed.
fn check(backend: &Backend, case: &Case) -> usize {
    let (shared, expected) = (case.on(backend).unwrap(), case.on(&CPU).unwrap());
    assert!(shared.elements == expected.elements && shared.mask == expected.mask, "{:?}", case.operation);
    let (report, length) = (shared.report, case.length());
    assert!(report.by_cpu <= length && report.fallback.is_none());
    assert!(report.dispatches > 0 || report.by_cpu == length, "{report:?}");
    if length > 0 {
        assert_eq!(report.place, backend.explain(case.operation, case.field, case.form, length).place);
        let Place::Device(setting) = report.place else { panic!("{report:?}") };
        assert!(report.by_cpu >= setting.cpu_elements && (report.by_cpu == 0 || setting.cpu_elements > 0), "{report:?}");
    }
    report.by_cpu
}

#[test]
fn every_operation_is_right_whoever_computes_it() {
    let (mut calls, mut shared) = (0, 0);
    for (row, field) in rows() {
        let heavy = matches!(row.operation, Operation::Pow | Operation::Sqrt);
        let lengths = if heavy { &[1, LEAST][..] } else { &[0, 1, 2, LEAST - 1, LEAST, LEAST + 1, 7919] };
        for form in FORMS {
            for &length in lengths {
                let by_cpu = check(&BOTH, &Case::new(row.operation, field, form, length));
                assert_eq!(by_cpu > 0, length >= LEAST);
                calls += u64::from(length > 0);
                shared += u64::from(by_cpu > 0);
            }
        }
    }
    let stats = BOTH.stats();
    assert!(stats.calls >= calls && stats.shared_calls >= shared && shared > 0);
    assert_eq!((stats.cpu_calls, stats.fallbacks, stats.verified_elements), (0, 0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn any_elements_are_right(case in case_of(Operation::MulAdd, Field::Fq, Form::Canonical, 4100..4500)) {
        check(&BOTH, &case);
    }

    #[test]
    fn any_wrong_element_is_told(at in 0..3 * LEAST, other in 0..3 * LEAST, zero in any::<bool>()) {
        let operation = if zero { Operation::Inverse } else { Operation::Mul };
        let mut case = Case::new(operation, Field::Fr, Form::Montgomery, 3 * LEAST);
        if !zero {
            // That of the first operand is told, wherever they are.
            case.vectors[1][..4].copy_from_slice(&[u64::MAX; 4]);
        }
        for at in [at, other] {
            case.vectors[0][4 * at..4 * (at + 1)].copy_from_slice(&[if zero { 0 } else { u64::MAX }; 4]);
        }
        let error = case.on(&BOTH).unwrap_err();
        match error {
            Error::ZeroInverse { index } => prop_assert!(zero && index == at.min(other)),
            Error::NotBelowModulus { operand: "a", index, .. } => prop_assert!(!zero && index == at.min(other)),
            error => prop_assert!(false, "{error}"),
        }
        // And it goes on.
        check(&BOTH, &Case::new(operation, Field::Fr, Form::Montgomery, LEAST));
    }
}

#[test]
fn all_kernels_in_all_memories_and_pinned_vectors() {
    for (width, memory) in
        Width::ALL.into_iter().flat_map(|width| [MemoryMode::DeviceLocal, MemoryMode::Host].map(|m| (width, m)))
    {
        let backend = Watched::placed(both().width(width).memory(memory).chunk_elements(700), Validation::On);
        for operation in [Operation::Sub, Operation::Equal, Operation::Scale] {
            check(&backend, &Case::new(operation, Field::Fq, Form::Canonical, 5000));
        }
        let operands = [1, 2].map(|salt| numbers::<Fq>(9000, salt));
        // What is not copied is left to the CPU in small parts.
        let [mut a, mut b, mut product] = [0; 3].map(|_| backend.pinned::<Fq>(9000).unwrap());
        a.copy_from_slice(&operands[0]);
        b.copy_from_slice(&operands[1]);
        let expected = CPU.mul(&operands[0], &operands[1]).unwrap();
        backend.mul_into(&a, &b, &mut product).unwrap();
        assert!(product[..] == expected[..]);
        // One of them pinned.
        assert_eq!(backend.mul(&a, &operands[1]).unwrap(), expected);
        assert!(backend.stats().shared_calls >= 5);
    }
}

#[test]
fn what_is_not_to_be_shared_is_not() {
    let case = Case::new(Operation::Add, Field::Fq, Form::Canonical, 2 * LEAST);
    let alone = |options: Options| {
        let backend = Watched::placed(options.require_gpu(true).cache(CacheDirectory::Off), Validation::Off);
        let report = case.on(&backend).unwrap().report;
        assert_eq!((report.by_cpu, backend.stats().shared_calls), (0, 0));
        report
    };
    alone(Options::new().placement(Placement::Device).verify(Verify::Off));
    // The CPU computes all of it, to check it.
    assert_eq!(alone(both().verify(Verify::All)).verified, 2 * LEAST);
    let by_worker = rayon::ThreadPoolBuilder::new().build().unwrap().install(|| case.on(&BOTH).unwrap());
    assert_eq!((by_worker.report.by_cpu, by_worker.elements), (0, case.on(&CPU).unwrap().elements));
    let sampled = Watched::placed(both().verify(Verify::Sample(100)), Validation::Off);
    let report = case.on(&sampled).unwrap().report;
    assert!(report.by_cpu > 0 && report.verified == 100, "{report:?}");
}

#[test]
fn a_sample_is_of_what_the_device_computed() {
    let case = Case::new(Operation::Add, Field::Fq, Form::Canonical, 2 * LEAST);
    // As many as there are, but for one: all that the device has computed.
    let options = both().verify(Verify::Sample(2 * LEAST - 1));
    let report = case.on(&Watched::placed(options.clone(), Validation::Off)).unwrap().report;
    assert!(report.by_cpu > 0 && report.verified == 2 * LEAST - report.by_cpu, "{report:?}");
    let wrong = Watched::placed(options.fault(Fault::FlipBit(3)), Validation::Off);
    match case.on(&wrong) {
        Err(error) => assert!(matches!(error, Error::VerificationFailed { index: 0, .. }), "{error}"),
        Ok(outcome) => assert_eq!(outcome.report.by_cpu, 2 * LEAST, "the CPU came to all of them"),
    }
}

#[test]
fn workers_are_told_that_the_device_is_alone() {
    let explain = || BOTH.explain(Operation::Add, Field::Fq, Form::Canonical, 2 * LEAST).place;
    let by_worker = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(explain);
    let Place::Device(setting) = by_worker else { panic!("{by_worker}") };
    assert_eq!(setting.cpu_elements, 0);
    assert_ne!(explain(), by_worker);
}

#[test]
fn a_decision_tells_who_computes_what() {
    let decision = BOTH.explain(Operation::Add, Field::Fq, Form::Canonical, 2 * LEAST);
    let Place::Device(setting) = decision.place else { panic!("{decision}") };
    let part = 2 * LEAST / 100 * 50;
    assert_eq!((setting.cpu_elements, &decision.reason), (part, &Reason::Asked));
    assert!(decision.to_string().contains(&format!("{part} elements left to the CPU")), "{decision}");
}

#[test]
fn a_profile_shows_the_cpus_share() {
    let backend = Watched::placed(both(), Validation::Off);
    let case = Case::new(Operation::Mul, Field::Fq, Form::Canonical, 4 * LEAST);
    case.on(&backend).unwrap();
    backend.start_profile().unwrap();
    case.on(&backend).unwrap();
    let profile = backend.take_profile();
    assert!(profile.busy(Stage::Share) > Duration::ZERO, "{profile}");
    assert!(profile.to_string().contains("share"));
}

#[test]
fn many_threads_share_at_the_same_time() {
    in_time(Duration::from_secs(120), || {
        thread::scope(|scope| {
            for number in 0..12 {
                scope.spawn(move || {
                    let operation = [Operation::Add, Operation::Mul, Operation::InverseOrZero][number % 3];
                    let case = Case::new(operation, Field::Fr, Form::Montgomery, LEAST + 1000 * number);
                    for _ in 0..4 {
                        check(&BOTH, &case);
                    }
                });
            }
        });
    });
}

/// Whatever fails under a device while the CPU is at work on its share: the right answer, or an error and no thread at work any more.
#[test]
fn a_device_that_fails_takes_the_cpus_share_with_it() {
    let case = Case::new(Operation::MulAdd, Field::Fr, Form::Montgomery, 2 * LEAST);
    let expected = case.on(&CPU).unwrap().elements;
    let faults = Faults::default();
    let made = || {
        let options = both().chunk_elements(1000).vulkan_faults(&faults).memory(MemoryMode::DeviceLocal);
        let backend = Watched::placed(options, Validation::Off);
        case.on(&backend).unwrap();
        backend.trim();
        faults.clear();
        backend
    };
    for class in [CallClass::Allocate, CallClass::Record, CallClass::Submit, CallClass::Wait] {
        // How many the device makes is up to how much the CPU leaves to it: the most of some calls.
        let counted = (0..5).map(|_| {
            let backend = made();
            case.on(&backend).unwrap();
            faults.calls(class)
        });
        let calls = counted.max().unwrap();
        for (failure, lasting) in [(Failure::OutOfDeviceMemory, false), (Failure::DeviceLost, true)] {
            let mut failed = 0;
            for at in 0..calls {
                let backend = made();
                faults.inject(Injection { class, at, times: 1, failure });
                let outcome = case.on(&backend);
                failed += faults.failed().len();
                match outcome {
                    Ok(outcome) => assert!(outcome.elements == expected),
                    Err(Error::Device(DeviceError::Lost { .. })) => assert!(lasting),
                    Err(error) => assert!(matches!(error, Error::Device(_)), "{error}"),
                }
                faults.clear();
                // That it is lost may show by the next call only.
                match case.on(&backend) {
                    Ok(again) => assert!(again.elements == expected),
                    Err(error) => assert!(lasting, "{class:?} {failure:?} {at}: {error}"),
                }
                drop(backend);
                assert!(faults.live().is_empty(), "{class:?} {failure:?} {at}: {:?}", faults.live());
            }
            assert!(failed > 0, "{class:?} {failure:?}");
        }
    }
    // One that may do without a device goes on without.
    let faults = Faults::default();
    let backend = Watched::placed(both().require_gpu(false).chunk_elements(1000).vulkan_faults(&faults), Validation::Off);
    case.on(&backend).unwrap();
    faults.inject(Injection { class: CallClass::Submit, at: 0, times: 1, failure: Failure::DeviceLost });
    let outcome = case.on(&backend).unwrap();
    assert!(outcome.elements == expected && outcome.report.fallback.is_some() && outcome.report.by_cpu == 2 * LEAST);
}
