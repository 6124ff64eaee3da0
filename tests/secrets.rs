//! With `Options::wipe`, memory that is kept for reuse holds nothing but zeros, whatever was done with it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::Fr;
use bls12_field_gpu::{
    Backend, CallClass, Error, Failure, Fault, Faults, Field, Form, Injection, MemoryMode, Operation, Options, Verify, Width,
};
use std::collections::BTreeMap;
use support::{Case, Watched, numbers};

/// One vector in and one out, a mask, three in; in one chunk and in several.
fn calls(backend: &Backend) {
    for (operation, field, length) in [
        (Operation::Neg, Field::Fq, 10),
        (Operation::Sqrt, Field::Fq, 300),
        (Operation::Equal, Field::Fr, 5000),
        (Operation::MulAdd, Field::Fr, 5000),
    ] {
        Case::new(operation, field, Form::Canonical, length).on(backend).unwrap();
    }
}

fn resident(backend: &Backend) {
    let a = numbers::<Fr>(3000, 2);
    let vector = backend.upload(&a).unwrap();
    let mut recording = backend.record();
    let product = recording.mul(&vector, &vector).unwrap();
    let mask = recording.equal(&product, &vector).unwrap();
    let flags = recording.download_mask(&mask).unwrap();
    let sum = recording.sum(&product).unwrap();
    let copy = recording.duplicate(&product).unwrap();
    recording.evaluate_into(&(&vector * a[7] + &product), &copy).unwrap();
    let download = recording.download(&copy).unwrap();
    // Waited for, verified, awaited by nobody.
    let mut downloads = recording.clone().submit().unwrap().wait().unwrap();
    assert_eq!(downloads.take(&flags).unwrap().len(), 3000);
    drop(recording.clone().submit().unwrap());
    recording.submit_verified().unwrap().wait().unwrap().take(&download).unwrap();
    sum.download().unwrap();
    let mut abandoned = backend.record();
    abandoned.write(&copy, &a).unwrap();
    abandoned.double(&copy).unwrap();
}

fn pinned(backend: &Backend) {
    let mut a = backend.pinned::<Fr>(5000).unwrap();
    a.copy_from_slice(&numbers(5000, 3));
    let mut out = backend.pinned::<Fr>(5000).unwrap();
    backend.mul_into(&a, &a, &mut out).unwrap();
}

fn failing(backend: &Backend, faults: &Faults) {
    let mut case = Case::new(Operation::Inverse, Field::Fr, Form::Canonical, 5000);
    case.vectors[0][4 * 4500..4 * 4501].fill(0);
    assert!(matches!(case.on(backend), Err(Error::ZeroInverse { index: 4500 })));
    let mut case = Case::new(Operation::Add, Field::Fq, Form::Canonical, 5000);
    case.vectors[1][6 * 4500..6 * 4501].fill(u64::MAX);
    assert!(matches!(case.on(backend), Err(Error::NotBelowModulus { index: 4500, .. })));
    for class in [CallClass::Submit, CallClass::Record, CallClass::Wait] {
        for at in 0..3 {
            faults.inject(Injection { class, at, times: 1, failure: Failure::OutOfHostMemory });
            let _ = Case::new(Operation::Add, Field::Fq, Form::Canonical, 5000).on(backend);
            faults.clear();
        }
    }
    let vector = backend.upload(&numbers::<Fr>(100, 1)).unwrap();
    for at in 0..2 {
        let mut recording = backend.record();
        recording.square_into(&vector, &vector).unwrap();
        faults.inject(Injection { class: CallClass::Record, at, times: 1, failure: Failure::OutOfHostMemory });
        // Or a wipe meets it.
        let _ = recording.submit();
        faults.clear();
    }
}

#[test]
fn memory_kept_for_reuse_holds_nothing() {
    for memory in [MemoryMode::DeviceLocal, MemoryMode::Host] {
        for width in Width::ALL {
            let faults = Faults::default();
            let options = Options::new().memory(memory).width(width).chunk_elements(2048).vulkan_faults(&faults);
            {
                let backend = Watched::new(options.wipe(true));
                let works: [&dyn Fn(&Backend); 4] = [&calls, &resident, &pinned, &|backend| failing(backend, &faults)];
                for (number, work) in works.into_iter().enumerate() {
                    // Twice: in new memory, and in what was wiped.
                    for _ in 0..2 {
                        work(&backend);
                        let ([device, host], bytes) = backend.residue().unwrap();
                        assert_eq!(bytes, 0, "{memory:?} {width:?}, work {number}");
                        assert!(host > 0 && (device > 0) == (memory == MemoryMode::DeviceLocal), "{device} {host}");
                    }
                }
            }
            assert_eq!((faults.live(), faults.memory()), (BTreeMap::new(), 0));
        }
    }
    // What a wrong answer leaves, too.
    {
        let backend = Watched::new(Options::new().wipe(true).fault(Fault::FlipBit(7)).verify(Verify::All));
        let case = Case::new(Operation::Mul, Field::Fq, Form::Montgomery, 100);
        assert!(matches!(case.on(&backend), Err(Error::VerificationFailed { .. })));
        assert_eq!(backend.residue().unwrap().1, 0);
    }
    // The test would see it: without wiping there is plenty.
    for memory in [MemoryMode::DeviceLocal, MemoryMode::Host] {
        let backend = Watched::new(Options::new().memory(memory));
        calls(&backend);
        assert!(backend.residue().unwrap().1 > 10_000);
        backend.trim();
        assert_eq!(backend.residue().unwrap(), ([0, 0], 0));
        resident(&backend);
        assert!(backend.residue().unwrap().1 > 10_000);
    }
}
