//! Counters: bytes are those of what was asked for, results are fetched only when they are, and pipelines are made once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::{Backend, CacheDirectory, Field, Form, MemoryMode, Operation, Options, Verify, Width};
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;
use support::{Case, Watched, alone, in_time, numbers};

const LIMIT: Duration = Duration::from_secs(120);

/// Bytes of an element, and of a flag where the device writes it.
const FQ: u64 = 48;
const FR: u64 = 32;
const FLAG: u64 = 4;

fn engines(options: Options) -> impl Iterator<Item = Watched> {
    let memories = [MemoryMode::DeviceLocal, MemoryMode::Host];
    let each = Width::ALL.into_iter().flat_map(move |width| memories.map(|memory| (width, memory)));
    each.map(move |(width, memory)| Watched::new(options.clone().width(width).memory(memory)))
}

/// How many bytes `work` has copied to the device, and back.
fn copied<T>(backend: &Backend, work: impl FnOnce() -> T) -> (u64, u64) {
    let before = backend.stats().device;
    work();
    let after = backend.stats().device;
    (after.bytes_uploaded - before.bytes_uploaded, after.bytes_downloaded - before.bytes_downloaded)
}

#[test]
fn calls_copy_their_operands_and_their_results() {
    in_time(LIMIT, || {
        // Vectors up, then elements and flags down.
        let cases = [
            (Operation::Neg, Field::Fq, FQ, FQ),
            (Operation::Mul, Field::Fr, 2 * FR, FR),
            (Operation::MulAdd, Field::Fq, 3 * FQ, FQ),
            (Operation::Scale, Field::Fr, FR, FR),
            (Operation::Equal, Field::Fq, 2 * FQ, FLAG),
            (Operation::Sqrt, Field::Fq, FQ, FQ + FLAG),
        ];
        // In one chunk and in several; checks are the CPU's alone.
        let all = [(1 << 20, Verify::All), (1 << 20, Verify::Off), (100, Verify::Off), (100, Verify::Sample(10))];
        for backend in
            all.into_iter().flat_map(|(chunk, verify)| engines(Options::new().chunk_elements(chunk).verify(verify)))
        {
            for (operation, field, up, down) in cases {
                let case = |length| Case::new(operation, field, Form::Montgomery, length);
                // Self-tests copy, too.
                case(1).on(&backend).unwrap();
                for length in [1, 77, 1000] {
                    let (case, calls) = (case(length), backend.stats().calls);
                    let bytes = copied(&backend, || case.on(&backend).unwrap());
                    assert_eq!(bytes, (up * length as u64, down * length as u64), "{operation:?}, {length} elements");
                    assert_eq!(backend.stats().calls, calls + 1);
                }
                assert_eq!(copied(&backend, || case(0).on(&backend).unwrap()), (0, 0));
            }
        }
    });
}

#[test]
fn recordings_fetch_what_they_are_asked_for_when_they_are() {
    in_time(LIMIT, || {
        for backend in engines(Options::new()) {
            let (a, b) = (numbers::<Fr>(1000, 1), numbers::<Fr>(1000, 2));
            let expected: Vec<Fr> = a.iter().zip(&b).map(|(a, b)| *a * b + a).collect();
            let copied = |work: &mut dyn FnMut()| copied(&backend, work);
            let record = |x, y| {
                let mut recording = backend.record();
                let product = recording.mul(x, y).unwrap();
                let sum = recording.add(&product, x).unwrap();
                (recording, sum)
            };
            // Self-tests copy, too.
            let x = backend.upload(&a).unwrap();
            let (mut recording, y) = record(&x, &x);
            recording.equal(&x, &y).unwrap();
            recording.submit().unwrap().wait().unwrap();

            let mut vectors = Vec::new();
            assert_eq!(
                copied(&mut || vectors.extend([&a, &b].map(|host| backend.upload(host).unwrap()))),
                (2 * 1000 * FR, 0)
            );
            let mut sums = Vec::new();
            let mut work = || {
                let (recording, sum) = record(&vectors[0], &vectors[1]);
                recording.submit().unwrap().wait().unwrap();
                sums.push(sum);
            };
            assert_eq!(copied(&mut work), (0, 0), "nothing has been asked for");
            assert_eq!(copied(&mut || assert_eq!(sums[0].download().unwrap(), expected)), (0, 1000 * FR));
            // A part; what has been fetched is fetched again.
            let mut part = || assert_eq!(sums[0].slice(10..13).unwrap().download().unwrap(), expected[10..13]);
            assert_eq!((copied(&mut part), copied(&mut part)), ((0, 3 * FR), (0, 3 * FR)));
            // Zeros and copies are made there.
            let mut there = || {
                let zeros = backend.zeros::<Fq>(1000).unwrap();
                let mut recording = backend.record();
                recording.duplicate(&sums[0]).unwrap();
                recording.zero(&zeros).unwrap();
                recording.submit().unwrap().wait().unwrap();
            };
            assert_eq!(copied(&mut there), (0, 0));
            // Written a little at a time and much at a time.
            for length in [1, 999] {
                let mut write = || {
                    let mut recording = backend.record();
                    recording.write(&vectors[1].slice(0..length).unwrap(), &b[..length]).unwrap();
                    recording.submit().unwrap().wait().unwrap();
                };
                assert_eq!(copied(&mut write), (length as u64 * FR, 0));
            }

            // Downloads that are recorded are fetched by who waits, once.
            let (mut recording, sum) = record(&vectors[0], &vectors[1]);
            let download = recording.download(&sum).unwrap();
            let mask = recording.equal(&sum, &vectors[0]).unwrap();
            let flags = recording.download_mask(&mask).unwrap();
            let mut ticket = None;
            assert_eq!(copied(&mut || ticket = Some(recording.clone().submit().unwrap())), (0, 0));
            let mut done = || while !ticket.as_ref().unwrap().wait_timeout(LIMIT).unwrap() {};
            assert_eq!(copied(&mut done), (0, 0), "nobody has asked for them");
            let mut downloads = None;
            let mut wait = || downloads = Some(ticket.take().unwrap().wait().unwrap());
            assert_eq!(copied(&mut wait), (0, 1000 * (FR + FLAG)));
            let mut take = || {
                let mut downloads = downloads.take().unwrap();
                assert_eq!(downloads.take(&download).unwrap(), expected);
                assert_eq!(downloads.take(&flags).unwrap().len(), 1000);
            };
            assert_eq!(copied(&mut take), (0, 0));
            // Nobody waits.
            let mut dropped = || {
                drop(recording.clone().submit().unwrap());
                backend.record().submit().unwrap().wait().unwrap();
            };
            assert_eq!(copied(&mut dropped), (0, 0));
            // The poll that finds it done fetches.
            let mut polled = || {
                let mut ticket = recording.clone().submit().unwrap();
                while !ticket.wait_timeout(LIMIT).unwrap() {}
                assert!(Pin::new(&mut ticket).poll(&mut Context::from_waker(Waker::noop())).is_ready());
            };
            assert_eq!(copied(&mut polled), (0, 1000 * (FR + FLAG)));
            // To be verified, inputs are fetched, too, and what comes of them.
            let mut verified = || drop(record(&vectors[0], &vectors[1]).0.submit_verified().unwrap().wait().unwrap());
            assert_eq!(copied(&mut verified), (0, 4 * 1000 * FR));
        }
    });
}

#[test]
fn pipelines_are_made_once_and_found_as_far_as_the_driver_tells() {
    in_time(LIMIT, || {
        let directory = tempfile::tempdir().unwrap();
        let stats = |cache: CacheDirectory| {
            let backend = Backend::new(&alone(Options::new()).cache(cache)).unwrap();
            let before = backend.stats().device;
            assert_eq!((before.pipeline_builds, before.pipeline_hits, before.pipeline_cache_hits), (0, 0, 0));
            let operations = [Operation::Add, Operation::Mul, Operation::Square];
            for (number, operation) in operations.into_iter().enumerate() {
                let case = Case::new(operation, Field::Fq, Form::Montgomery, 100);
                for _ in 0..2 {
                    assert_eq!(case.on(&backend).unwrap().elements, case.answer().0);
                    assert_eq!(backend.stats().device.pipeline_builds, number as u64 + 1, "{operation:?}");
                }
            }
            backend.stats().device
        };
        for cache in [CacheDirectory::Off, CacheDirectory::At(directory.path().to_owned())] {
            let first = stats(cache.clone());
            assert_eq!(first.pipeline_cache_hits, 0, "nothing was kept");
            // Some drivers keep nothing that they could find.
            let again = stats(cache.clone());
            assert_eq!((again.pipeline_builds, again.pipeline_hits), (first.pipeline_builds, first.pipeline_hits));
            let most = if cache == CacheDirectory::Off { 0 } else { again.pipeline_builds };
            assert!(again.pipeline_cache_hits <= most, "{again:?}");
        }
    });
}
