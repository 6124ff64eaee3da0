//! Recordings that are verified: what is right passes, whatever it reads and overwrites; a wrong bit anywhere is caught and named.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use ark_ff::Field as _;
use bls12_field_gpu::{Backend, DeviceChoice, Error, ErrorKind, Fault, Field, Options, Scan, Validation, Verify, Zeros};
use support::{cpu, engines, numbers, unwatched};

fn damaging(bit: u64) -> Backend {
    unwatched(Options::new().fault(Fault::FlipBit(bit)))
}

fn wrong(error: &Error) -> (&'static str, Field, usize) {
    assert_eq!(error.kind(), ErrorKind::FailedCheck);
    match error {
        Error::VerificationFailed { operation, field, index, device } => {
            assert!(!device.is_empty());
            (operation, *field, *index)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_right_passes_and_is_counted() {
    for backend in engines(Validation::Synchronization) {
        let a = backend.upload(&numbers::<Fq>(100, 1)).unwrap();
        let before = backend.stats();
        let mut recording = backend.record();
        let square = recording.square(&a).unwrap();
        let fetched = recording.download(&square).unwrap();
        let (root, has_root) = recording.sqrt(&square).unwrap();
        recording.mul_into(&a, &root, &a).unwrap();
        let ticket = recording.submit_verified().unwrap();
        // Nothing yet.
        assert_eq!(backend.stats().verified_elements, before.verified_elements);
        let mut downloads = ticket.wait().unwrap();
        // The squares twice, the roots, the flags, the products.
        assert_eq!(backend.stats().verified_elements - before.verified_elements, 500);
        // One submission, and the self-tests of three kernels.
        assert_eq!(backend.stats().device.submits - before.device.submits, 1 + 3);
        let squares: Vec<Fq> = numbers::<Fq>(100, 1).iter().map(|x| x.square()).collect();
        assert_eq!(downloads.take(&fetched).unwrap(), squares);
        assert!(matches!(downloads.take(&fetched), Err(Error::NoSuchDownload)));
        assert_eq!(has_root.download().unwrap(), [true; 100]);
    }
}

#[test]
fn damage_is_named_by_the_last_operation_that_wrote_there() {
    let element = 384;
    // What is returned, in this order: the download, then what was written: the products, the sums, the flags.
    let expected: [(u64, &str, Field, usize); 7] = [
        (0, "mul", Field::Fq, 0),
        (element * 9 + 383, "mul", Field::Fq, 9),
        // Of the products the first half was overwritten by doubles, after the download.
        (element * (10 + 4) + 100, "double", Field::Fq, 4),
        (element * (10 + 5) + 100, "mul", Field::Fq, 5),
        (element * 20 + 1, "add", Field::Fq, 0),
        (element * 30 + 32 * 3, "equal", Field::Fq, 3),
        (element * 30 + 32 * 9 + 31, "equal", Field::Fq, 9),
    ];
    for (bit, operation, field, index) in expected {
        let backend = damaging(bit);
        let a = backend.upload(&numbers::<Fq>(10, 1)).unwrap();
        let before = backend.stats().verified_elements;
        let mut recording = backend.record();
        let product = recording.mul(&a, &a).unwrap();
        let _ = recording.download(&product).unwrap();
        let low = product.slice(0..5).unwrap();
        recording.double_into(&low, &low).unwrap();
        let sum = recording.add(&product, &a).unwrap();
        let _ = recording.equal(&sum, &a).unwrap();
        let error = recording.submit_verified().unwrap().wait().unwrap_err();
        assert_eq!(wrong(&error), (operation, field, index), "bit {bit}");
        assert_eq!(backend.stats().verified_elements, before);
        // The backend goes on; what is not verified is not caught.
        let mut recording = backend.record();
        let copy = recording.duplicate(&a).unwrap();
        recording.submit().unwrap().wait().unwrap();
        assert_eq!(copy.download().unwrap(), numbers::<Fq>(10, 1));
    }
}

#[test]
fn damage_of_a_reduction_and_of_data_that_no_operation_wrote_is_caught() {
    let backend = damaging(255);
    let a = backend.upload(&numbers::<Fr>(3000, 1)).unwrap();
    let mut recording = backend.record();
    let _ = recording.sum(&a).unwrap();
    assert_eq!(wrong(&recording.submit_verified().unwrap().wait().unwrap_err()), ("sum", Field::Fr, 0));
    let mut recording = backend.record();
    let _ = recording.download(&a.slice(5..10).unwrap()).unwrap();
    assert_eq!(wrong(&recording.submit_verified().unwrap().wait().unwrap_err()), ("download", Field::Fr, 0));
    for (name, expected) in [("write", 0), ("zero", 0), ("duplicate", 0)] {
        let mut recording = backend.record();
        match name {
            "write" => recording.write(&a.slice(7..9).unwrap(), &numbers(2, 2)).unwrap(),
            "zero" => recording.zero(&a.slice(7..9).unwrap()).unwrap(),
            _ => drop(recording.duplicate(&a).unwrap()),
        }
        let error = recording.submit_verified().unwrap().wait().unwrap_err();
        assert_eq!(wrong(&error), (name, Field::Fr, expected));
    }
}

/// The inputs are those that the device had, not what vectors hold when somebody waits.
#[test]
fn verification_starts_from_what_the_device_had() {
    for backend in engines(Validation::Synchronization) {
        let a = backend.upload(&numbers::<Fr>(50, 1)).unwrap();
        let tickets: Vec<_> = (0..6)
            .map(|_| {
                let mut recording = backend.record();
                // Read, then overwritten; by the next recording again before anybody waits.
                let square = recording.square(&a).unwrap();
                recording.add_into(&square, &a, &a).unwrap();
                let fetched = recording.download(&a).unwrap();
                (recording.submit_verified().unwrap(), fetched)
            })
            .collect();
        let mut expected = numbers::<Fr>(50, 1);
        for (ticket, fetched) in tickets.into_iter() {
            expected.iter_mut().for_each(|x| *x = x.square() + *x);
            assert_eq!(ticket.wait().unwrap().take(&fetched).unwrap(), expected);
        }
    }
}

#[test]
fn what_the_cpu_computes_and_what_is_empty_needs_no_verification() {
    let backends = [cpu(), unwatched(Options::new().verify(Verify::Off))];
    for backend in &backends {
        assert!(backend.record().submit_verified().unwrap().wait().unwrap().is_empty());
        let nothing = backend.upload::<Fq>(&[]).unwrap();
        let mut recording = backend.record();
        let (root, mask) = recording.sqrt(&nothing).unwrap();
        let (root, mask) = (recording.download(&root).unwrap(), recording.download_mask(&mask).unwrap());
        let sum = recording.sum(&nothing).unwrap();
        let sum = recording.download(&sum).unwrap();
        let mut downloads = recording.submit_verified().unwrap().wait().unwrap();
        assert_eq!(downloads.len(), 3);
        assert_eq!(downloads.take(&root).unwrap(), []);
        assert!(downloads.take(&mask).unwrap().is_empty());
        assert_eq!(downloads.take(&sum).unwrap(), [Fq::from(0u64)]);
        // A download of one recording is not another's.
        let mut other = backend.record().submit().unwrap().wait().unwrap();
        assert!(matches!(other.take(&sum), Err(Error::NoSuchDownload)));
    }
}

#[test]
fn masks_can_be_cut_anywhere() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        let (a, b) = (numbers::<Fr>(200, 1), numbers::<Fr>(201, 1));
        let (a_there, b_there) = (backend.upload(&a).unwrap(), backend.upload(&b).unwrap());
        let mask = backend.falses(211).unwrap();
        let mut recording = backend.record();
        // Everywhere equal, then nowhere, at odd places.
        recording.equal_into(&a_there, &b_there.slice(0..200).unwrap(), &mask.slice(3..203).unwrap()).unwrap();
        recording
            .equal_into(&a_there.slice(1..3).unwrap(), &b_there.slice(0..2).unwrap(), &mask.slice(101..103).unwrap())
            .unwrap();
        let part = recording.download_mask(&mask.slice(99..105).unwrap()).unwrap();
        recording.clear(&mask.slice(5..6).unwrap()).unwrap();
        let mut downloads = recording.submit_verified().unwrap().wait().unwrap();
        assert_eq!(downloads.take(&part).unwrap(), [true, true, false, false, true, true]);
        let flags = mask.download().unwrap();
        let set = |index: usize| (3..203).contains(&index) && ![5, 101, 102].contains(&index);
        assert!(flags.iter().enumerate().all(|(index, &flag)| flag == set(index)));
        assert!(matches!(mask.slice(5..212), Err(Error::OutOfRange { end: 212, length: 211, .. })));
        assert_eq!(format!("{:?}", mask.slice(7..7).unwrap()), "Mask(0 flags)");
    }
}

/// Scans, inverses, roots and products of matrices, among steps that are replayed; some of what they write is overwritten, in place too.
fn provable(backend: &Backend) -> Result<(), Error> {
    let (a, q) = (backend.upload(&numbers::<Fr>(64, 1))?, backend.upload(&numbers::<Fq>(4, 2))?);
    let mut recording = backend.record();
    let _square = recording.square(&a)?;
    let product = recording.matrix_product(&a, &a, (8, 8, 8))?;
    let early = recording.download(&product)?;
    recording.add_into(&product.slice(0..5)?, &a.slice(0..5)?, &product.slice(0..5)?)?;
    recording.batch_inverse_into(&product, Zeros::Keep, &product)?;
    let scan = recording.scan(Scan::product(), &product)?;
    let _root = recording.sqrt(&q)?;
    let _inverse = recording.inverse_or_zero(&a)?;
    let sums = recording.scan(Scan::sum().exclusive().segments(16), &a)?;
    let refused = recording.batch_inverse(&a, Zeros::Refuse)?;
    let _both = recording.divide_by_linear(&scan, &numbers::<Fr>(64, 1)[3])?;
    let mut downloads = recording.submit_verified()?.wait()?;
    let mut right = vec![Fr::from(0u64); 64];
    let values = numbers::<Fr>(64, 1);
    for (n, right) in right.iter_mut().enumerate() {
        *right = (0..8).map(|k| values[n / 8 * 8 + k] * values[k * 8 + n % 8]).sum();
    }
    assert_eq!(downloads.take(&early)?, right);
    right.iter_mut().zip(&values).take(5).for_each(|(right, a)| *right += a);
    right.iter_mut().for_each(|right| *right = right.inverse().unwrap());
    assert_eq!(product.download()?, right);
    assert_eq!((sums.download()?[17], refused.download()?[63] * values[63]), (values[16], Fr::from(1u64)));
    Ok(())
}

#[test]
fn steps_are_proved() {
    let proofs = Options::new().verify(Verify::Proofs);
    for backend in [unwatched(proofs.clone()), Backend::new(&proofs.clone().device(DeviceChoice::Cpu)).unwrap()] {
        provable(&backend).unwrap();
        // Those of host memory are checked as ever.
        let a = numbers::<Fq>(5, 1);
        assert_eq!(backend.mul(&a, &a).unwrap()[4], a[4].square());
    }
    // Whatever is wrong is caught, and the step is named. What comes back, in this order: what is overwritten later, and downloads, of which one
    // says whether there was a zero; what proved steps leave; what others do.
    let (fr, fq, word) = (64 * 256, 4 * 384, 32);
    let expected = [
        ("matrix_product", fr),
        ("matrix_product", fr),
        ("batch_inverse", word),
        ("batch_inverse", fr),
        ("prefix_product", fr),
        ("sqrt", fq),
        ("sqrt", 4 * word),
        ("inverse_or_zero", fr),
        ("prefix_sum", fr),
        ("batch_inverse", fr),
        ("batch_inverse", word),
        ("divide_by_linear", fr),
        ("square", fr),
    ];
    let mut start = 0;
    for (name, bits) in expected {
        for bit in [start, start + 1, start + bits / 2, start + bits - 1] {
            let backend = unwatched(proofs.clone().fault(Fault::FlipBit(bit)));
            let error = provable(&backend).unwrap_err();
            assert_eq!(wrong(&error).0, name, "bit {bit}");
        }
        start += bits;
    }
}
