//! The automatic choice on a real device: what is decided, that it is obeyed, and what becomes of calibrations.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{
    Backend, CacheDirectory, Calibrate, DeviceChoice, Evidence, Field, Form, MemoryMode, Operation, Options, Place,
    Placement, Reason, Thoroughness, Verify,
};
use rayon::prelude::*;
use std::fs;
use std::path::{Path, PathBuf};
use support::{Case, cpu, on_device, rows};

fn backend(options: Options) -> Backend {
    Backend::new(&options.require_gpu(true)).unwrap()
}

fn keeping(directory: &Path, calibrate: Calibrate) -> Backend {
    backend(Options::new().placement(Placement::Auto).cache(CacheDirectory::At(directory.to_owned())).calibrate(calibrate))
}

fn guessing() -> Options {
    Options::new().placement(Placement::Auto).cache(CacheDirectory::Off)
}

/// Has an addition computed that is long enough to think about; where it was.
fn add(backend: &Backend) -> Place {
    let case = Case::new(Operation::Add, Field::Fq, Form::Canonical, 3000);
    let outcome = case.on(backend).unwrap();
    assert_eq!(outcome.elements, case.answer().0);
    assert_eq!(outcome.report.fallback, None);
    assert_eq!(outcome.report.place, backend.explain(Operation::Add, Field::Fq, Form::Canonical, 3000).place);
    outcome.report.place
}

fn calibrations(directory: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("calibration-")).collect()
}

#[test]
fn by_default_the_cpu_adds_and_it_is_said_why() {
    let backend = backend(guessing());
    assert_eq!(add(&backend), Place::Cpu);
    let stats = backend.stats();
    assert_eq!((stats.calls, stats.cpu_calls, stats.fallbacks, stats.device.dispatches), (1, 1, 0, 0));
    let decision = backend.explain(Operation::Add, Field::Fq, Form::Canonical, 3000);
    assert_eq!((&decision.reason, decision.evidence), (&Reason::Soonest, Evidence::Guessed));
    assert_eq!(decision.candidates[0].place, Place::Cpu);
    assert!(decision.candidates.iter().any(|candidate| candidate.place != Place::Cpu));
    assert!(decision.to_string().contains("built-in guesses"), "{decision}");
    let small = backend.explain(Operation::Add, Field::Fq, Form::Canonical, 3);
    assert_eq!((small.place, small.reason), (Place::Cpu, Reason::Small));
    assert_eq!(backend.stats().calibrations, 0, "nothing is kept, so nothing is measured");
}

#[test]
fn a_device_that_is_asked_for_computes() {
    let backend = backend(on_device(guessing()).memory(MemoryMode::Host));
    let Place::Device(setting) = add(&backend) else { panic!("on the CPU") };
    assert_eq!(setting.memory, MemoryMode::Host);
    assert_eq!(backend.stats().cpu_calls, 0);
    assert_eq!(backend.explain(Operation::Add, Field::Fq, Form::Canonical, 3).reason, Reason::Asked);
}

#[test]
fn without_a_device_there_is_no_choice() {
    let decision = cpu().explain(Operation::Sqrt, Field::Fq, Form::Canonical, 1 << 20);
    assert_eq!(decision.place, Place::Cpu);
    assert!(matches!(decision.reason, Reason::NoDevice(reason) if reason.contains("asked for")));
    cpu().calibrate(Thoroughness::Quick, &mut |_, _| panic!("there is nothing to measure")).unwrap();
    assert!(Backend::new(&Options::new().require_gpu(false).device(DeviceChoice::Cpu)).unwrap().cache_directory().is_none());
}

#[test]
fn a_calibration_is_kept_and_used_until_it_is_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let measured = |calibrate| {
        let backend = keeping(directory.path(), calibrate);
        assert_eq!(backend.cache_directory(), Some(directory.path()));
        add(&backend);
        add(&backend);
        let evidence = backend.explain(Operation::Mul, Field::Fq, Form::Canonical, 3000).evidence;
        assert_eq!(evidence == Evidence::Guessed, calibrate == Calibrate::Off);
        backend.stats().calibrations
    };
    assert_eq!(measured(Calibrate::Off), 0);
    assert_eq!(calibrations(directory.path()), [] as [PathBuf; 0]);
    assert_eq!(measured(Calibrate::Auto), 1);
    let files = calibrations(directory.path());
    assert_eq!(files.len(), 1);
    let kept = fs::read(&files[0]).unwrap();
    assert_eq!(measured(Calibrate::Auto), 0);
    assert_eq!(measured(Calibrate::Off), 0);
    assert_eq!(fs::read(&files[0]).unwrap(), kept);
    assert_eq!(measured(Calibrate::Again), 1);
    assert_ne!(fs::read(&files[0]).unwrap(), kept);
    fs::write(&files[0], &kept[..kept.len() - 1]).unwrap();
    assert_eq!(measured(Calibrate::Auto), 1);
    assert_eq!(measured(Calibrate::Auto), 0);
    assert_eq!(calibrations(directory.path()), files);
}

#[test]
fn a_calibration_takes_less_than_three_seconds() {
    let backend = backend(guessing());
    let begin = std::time::Instant::now();
    let mut last = 0.0;
    backend
        .calibrate(Thoroughness::Quick, &mut |done, what| {
            assert!((last..=1.0).contains(&done) && !what.is_empty());
            last = done;
        })
        .unwrap();
    // Other tests may be at work beside this one.
    assert!(begin.elapsed().as_secs() < 6, "{:?}", begin.elapsed());
    assert!((last - 1.0).abs() < 1e-9);
    let decision = backend.explain(Operation::Mul, Field::Fq, Form::Canonical, 1 << 16);
    assert_eq!(decision.evidence, Evidence::Measured, "{decision}");
    assert_eq!((backend.stats().calibrations, backend.stats().calls), (1, 0));
}

#[test]
fn a_thorough_calibration_ends_when_its_time_is_up() {
    let backend = backend(guessing());
    let begin = std::time::Instant::now();
    backend.calibrate(Thoroughness::Thorough(std::time::Duration::from_secs(1)), &mut |_, _| {}).unwrap();
    assert!(begin.elapsed().as_secs() < 6, "{:?}", begin.elapsed());
    add(&backend);
}

#[test]
fn whatever_is_decided_every_operation_is_right() {
    for verify in [Verify::All, Verify::Off] {
        let backend = backend(guessing().verify(verify));
        for (row, field) in rows() {
            for length in [1, 100, 700] {
                let case = Case::new(row.operation, field, Form::Montgomery, length);
                let outcome = case.on(&backend).unwrap();
                assert_eq!((outcome.elements, outcome.mask), case.answer(), "{} of {length}", row.name);
                let decision = backend.explain(row.operation, field, Form::Montgomery, length);
                // A power of few bits may go elsewhere than a whole one.
                assert!(outcome.report.place == decision.place || row.operation == Operation::Pow, "{decision}");
            }
        }
    }
}

#[test]
fn rayon_workers_do_not_calibrate() {
    let directory = tempfile::tempdir().unwrap();
    let backend = keeping(directory.path(), Calibrate::Auto);
    (0..8).into_par_iter().for_each(|_| {
        add(&backend);
    });
    assert_eq!(backend.stats().calibrations, 0);
    // Threads that come together measure once.
    std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(|| add(&backend)))));
    assert_eq!(backend.stats().calibrations, 1);
}
