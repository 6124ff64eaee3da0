//! The pipeline cache on disk is a convenience: whatever becomes of it, results are right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{Backend, CacheDirectory, Field, Form, Operation, Options, Validation};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::{Case, in_time, on_device};

const LIMIT: Duration = Duration::from_secs(300);

/// Computes something on a backend that keeps its pipelines in `directory`.
fn compute(directory: &Path) {
    compute_with(directory, Validation::On);
}

fn compute_with(directory: &Path, validation: Validation) {
    let backend = backend(directory, validation);
    for operation in [Operation::Add, Operation::Square] {
        right(&backend, operation);
    }
    assert_eq!(backend.validation_log().messages(), [""; 0]);
}

fn backend(directory: &Path, validation: Validation) -> Backend {
    let options = on_device(Options::new()).require_gpu(true).validation(validation);
    Backend::new(&options.cache(CacheDirectory::At(directory.to_owned()))).unwrap()
}

fn right(backend: &Backend, operation: Operation) {
    let case = Case::new(operation, Field::Fq, Form::Canonical, 70);
    assert_eq!(case.on(backend).unwrap().elements, case.answer().0);
}

/// The one file in a directory.
fn only_file(directory: &Path) -> PathBuf {
    let files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

#[test]
fn damaged_files_are_replaced() {
    in_time(LIMIT, || {
        let directory = tempfile::tempdir().unwrap();
        compute(directory.path());
        let file = only_file(directory.path());
        let good = fs::read(&file).unwrap();
        let flipped = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            bytes
        };
        let damaged = [
            vec![],
            b"not a cache".to_vec(),
            good[..good.len() - 1].to_vec(),
            good[..40].to_vec(),
            [&good[..], b"more"].concat(),
            vec![0; 4096],
            flipped(0),
            flipped(8),
            flipped(20),
            flipped(44),
            flipped(60),
            flipped(good.len() - 1),
        ];
        for bytes in damaged {
            fs::write(&file, &bytes).unwrap();
            compute(directory.path());
            assert_ne!(fs::read(only_file(directory.path())).unwrap(), bytes, "the damaged file was kept");
        }
        // And what replaced them is good.
        compute(directory.path());
    });
}

#[test]
fn a_directory_that_vanishes_is_no_error() {
    in_time(LIMIT, || {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("cache");
        let backend = backend(&directory, Validation::On);
        right(&backend, Operation::Add);
        fs::remove_dir_all(&directory).unwrap();
        right(&backend, Operation::Mul);
        right(&backend, Operation::Add);
    });
}

#[test]
fn a_file_that_cannot_be_replaced_is_no_error() {
    in_time(LIMIT, || {
        let directory = tempfile::tempdir().unwrap();
        compute(directory.path());
        let file = only_file(directory.path());
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        fs::write(file.join("full"), "").unwrap();
        compute(directory.path());
    });
}

/// Without validation: version 1.3.239 of the layer crashes when a device is made while others are being used.
#[test]
fn backends_share_a_directory() {
    in_time(LIMIT, || {
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| compute_with(directory.path(), Validation::Off));
            }
        });
        only_file(directory.path());
        compute(directory.path());
    });
}
