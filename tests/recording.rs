//! Vectors that stay on the device, and recordings: on every engine the same bytes as arkworks one by one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use ark_ff::{AdditiveGroup as _, Field as _, PrimeField as _};
use bls12_field_gpu::{
    CallClass, DeviceKind, Engine, Error, ErrorKind, Failure, Faults, Injection, Operation, Options, Recording, Scan,
    Validation, Vector, Verify, Width, Zeros,
};
use std::time::Duration;
use support::{Watched, cpu, engines, numbers};

/// 8 operations of which every second reads what the one before it wrote.
fn mixed(recording: &mut Recording, vectors: &[Vector<Fq>]) {
    for pair in 0..4 {
        let (a, b, c) = (&vectors[3 * pair], &vectors[3 * pair + 1], &vectors[3 * pair + 2]);
        recording.mul_into(a, b, c).unwrap();
        recording.add_into(c, a, b).unwrap();
    }
}

#[test]
fn steady_state_allocates_nothing_and_barriers_are_few() {
    for backend in engines(Validation::Synchronization) {
        let a = numbers::<Fq>(300, 1);
        let sets: Vec<Vec<Vector<Fq>>> = (0..64).map(|_| (0..12).map(|_| backend.upload(&a).unwrap()).collect()).collect();
        let round = || {
            for set in &sets {
                let mut recording = backend.record();
                mixed(&mut recording, set);
                recording.submit().unwrap().wait().unwrap();
            }
        };
        round();
        let before = backend.stats().device;
        round();
        let after = backend.stats().device;
        assert_eq!(after.dispatches - before.dispatches, 64 * 8);
        assert_eq!(after.submits - before.submits, 64);
        // The four pairs of a recording have nothing to do with one another.
        assert_eq!(after.barriers - before.barriers, 64);
        assert_eq!(after.allocations, before.allocations);
        assert_eq!(after.pipeline_builds, before.pipeline_builds);
        assert_eq!(after.descriptor_updates, before.descriptor_updates);
    }
}

#[test]
fn operations_that_have_nothing_to_do_with_one_another_share_barriers() {
    for backend in engines(Validation::Synchronization) {
        let vectors: Vec<Vector<Fr>> = (0..16).map(|salt| backend.upload(&numbers(3000, salt)).unwrap()).collect();
        let barriers = |number: usize| {
            let before = backend.stats().device;
            let mut recording = backend.record();
            let recorded = vectors[..number].iter().map(|vector| {
                let sum = recording.sum(vector).unwrap();
                (sum, recording.scan(Scan::product(), vector).unwrap())
            });
            let recorded: Vec<_> = recorded.collect();
            recording.submit().unwrap().wait().unwrap();
            let after = backend.stats().device;
            for ((sum, products), vector) in recorded.iter().zip(&vectors) {
                let numbers = vector.download().unwrap();
                assert_eq!(sum.download().unwrap(), [numbers.iter().sum()]);
                assert_eq!(products.download().unwrap().last(), Some(&numbers.iter().product()));
            }
            after.barriers - before.barriers
        };
        // Self-tests.
        barriers(1);
        assert_eq!((barriers(1), barriers(16)), (4, 4));
    }
}

/// The same with a comparison, an inner product of two passes and a download each: what reductions need besides comes from the pool.
#[test]
fn steady_state_allocates_nothing_with_reductions_masks_and_downloads() {
    for backend in engines(Validation::Synchronization) {
        let a = numbers::<Fq>(1200, 1);
        let sets: Vec<Vec<Vector<Fq>>> = (0..8).map(|_| (0..12).map(|_| backend.upload(&a).unwrap()).collect()).collect();
        let (sum, mask) = (backend.zeros::<Fq>(1).unwrap(), backend.falses(1200).unwrap());
        let round = || {
            let mut sums = Vec::new();
            for set in &sets {
                let mut recording = backend.record();
                mixed(&mut recording, set);
                recording.inner_product_into(&set[0], &set[2], &sum).unwrap();
                recording.equal_into(&set[0], &set[3], &mask).unwrap();
                let (sum, mask) = (recording.download(&sum).unwrap(), recording.download_mask(&mask).unwrap());
                let mut downloads = recording.submit().unwrap().wait().unwrap();
                assert_eq!(downloads.take(&mask).unwrap(), [true; 1200]);
                sums.extend(downloads.take(&sum).unwrap());
            }
            sums
        };
        let sums = round();
        assert_eq!(sums, [sums[0]; 8]);
        let before = backend.stats().device;
        round();
        let after = backend.stats().device;
        assert_eq!(after.dispatches - before.dispatches, 8 * (8 + 2 + 1));
        assert_eq!(after.submits - before.submits, 8);
        assert_eq!(after.allocations, before.allocations);
        assert_eq!(after.pipeline_builds, before.pipeline_builds);
        assert_eq!(after.descriptor_updates, before.descriptor_updates);
    }
}

#[test]
fn slices_share_memory_with_their_vector() {
    // To synchronization validation a kernel that is given a slice touches the whole buffer.
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        let numbers = numbers::<Fr>(1000, 2);
        let vector = backend.upload(&numbers).unwrap();
        let (low, high) = (vector.slice(0..500).unwrap(), vector.slice(500..1000).unwrap());
        let mut recording = backend.record();
        // In place on a half; then from one half into a part of the other.
        recording.double_into(&low, &low).unwrap();
        recording
            .mul_into(&low.slice(100..200).unwrap(), &low.slice(0..100).unwrap(), &high.slice(1..101).unwrap())
            .unwrap();
        recording.write(&vector.slice(998..1000).unwrap(), &numbers[..2]).unwrap();
        recording.submit().unwrap();
        let mut expected = numbers.clone();
        expected[..500].iter_mut().for_each(|x| *x += *x);
        for i in 0..100 {
            expected[501 + i] = expected[100 + i] * expected[i];
        }
        expected[998..].copy_from_slice(&numbers[..2]);
        assert_eq!(vector.download().unwrap(), expected);
        assert_eq!(high.slice(1..3).unwrap().download().unwrap(), expected[501..503]);
        assert!(matches!(vector.slice(5..1001), Err(Error::OutOfRange { end: 1001, .. })));
        assert!(vector.slice(7..7).unwrap().is_empty());
    }
}

#[test]
fn dropped_vectors_are_reused_only_when_the_device_is_done() {
    for backend in engines(Validation::Synchronization) {
        let a = numbers::<Fq>(500, 3);
        let expected: Vec<Fq> = a.iter().map(|x| x.pow([0xffff_ffff]) + x).collect();
        let results: Vec<_> = (0..40)
            .map(|_| {
                let vector = backend.upload(&a).unwrap();
                let mut recording = backend.record();
                // All but the last of these are dropped while the device may not even have begun.
                let power = recording.pow(&vector, &[0xffff_ffff]).unwrap();
                let sum = recording.add(&power, &vector).unwrap();
                drop(recording.submit().unwrap());
                sum
            })
            .collect();
        for sum in results {
            assert_eq!(sum.download().unwrap(), expected);
        }
    }
}

#[test]
fn everything_can_be_dropped_with_work_in_flight() {
    let backend = Watched::new(Options::new());
    let vector = backend.upload(&numbers::<Fq>(5000, 3)).unwrap();
    let mut recording = backend.record();
    let power = recording.pow(&vector, &[u64::MAX]).unwrap();
    let ticket = recording.submit().unwrap();
    drop((power, vector, ticket));
    // `Watched` drops the backend and looks for what the validation layer says of objects in use or left behind.
}

#[test]
fn tickets_can_be_polled_and_waited_for() {
    let backend = Watched::new(Options::new());
    let vector = backend.upload(&numbers::<Fq>(20_000, 3)).unwrap();
    let mut recording = backend.record();
    recording.pow_into(&vector, &[u64::MAX, u64::MAX, 1], &vector).unwrap();
    let ticket = recording.submit().unwrap();
    let soon = ticket.wait_timeout(Duration::from_micros(1)).unwrap();
    assert!(!soon || ticket.is_done().unwrap());
    assert!(ticket.wait_timeout(Duration::from_secs(60)).unwrap());
    assert!(ticket.is_done().unwrap());
    ticket.wait().unwrap();
    // An empty recording is done at once.
    assert!(backend.record().submit().unwrap().is_done().unwrap());
}

#[test]
fn costly_operations_on_long_vectors_are_cut_into_launches() {
    let backend = Watched::new(Options::new());
    let a: Vec<Fr> = numbers(150_000, 4);
    let vector = backend.upload(&a).unwrap();
    let mut recording = backend.record();
    // The inverse, as a power.
    let inverse = recording.pow(&vector, (-Fr::from(2u64)).into_bigint().as_ref()).unwrap();
    let one = recording.mul(&inverse, &vector).unwrap();
    let before = backend.stats().device;
    recording.submit().unwrap().wait().unwrap();
    let Engine::Vulkan { device, .. } = backend.engine() else { panic!("{}", backend.engine()) };
    // A quick one takes all of it at once.
    let least = if device.kind == DeviceKind::Software { 5 } else { 2 };
    assert!(backend.stats().device.dispatches - before.dispatches >= least);
    let ones = one.download().unwrap();
    assert!(a.iter().zip(&ones).all(|(a, one)| if *a == Fr::from(0u64) { *one == *a } else { *one == Fr::ONE }));
}

#[test]
fn bad_recordings_are_refused_and_the_backend_goes_on() {
    let backend = Watched::new(Options::new());
    let other = Watched::new(Options::new());
    let (a, b) = (backend.upload(&numbers::<Fq>(10, 1)).unwrap(), backend.upload(&numbers::<Fq>(11, 1)).unwrap());
    let foreign = other.upload(&numbers::<Fq>(10, 1)).unwrap();
    let mut recording = backend.record();
    assert!(matches!(recording.add(&a, &b), Err(Error::LengthMismatch { first: 10, other: 11, .. })));
    assert!(matches!(recording.add(&a, &foreign), Err(Error::ForeignVector { operation: "add" })));
    assert!(matches!(recording.write(&a, &numbers::<Fq>(9, 1)), Err(Error::LengthMismatch { .. })));
    assert!(matches!(recording.apply_into(Operation::Equal, &[&a, &a], &[], &a), Err(Error::NotAvailable { .. })));
    assert!(matches!(recording.apply_into(Operation::Add, &[&a], &[], &a), Err(Error::OperandCount { .. })));
    assert!(matches!(recording.apply_into(Operation::Scale, &[&a], &[1], &a), Err(Error::ScalarLength { .. })));
    assert!(recording.is_empty());
    // An output that overlaps an input without being it is a race.
    let overlap = recording.neg_into(&b.slice(0..10).unwrap(), &b.slice(1..11).unwrap());
    assert!(matches!(overlap, Err(Error::Overlap { operation: "neg" })));
    assert_eq!(overlap.unwrap_err().kind(), ErrorKind::BadInput);
    assert_eq!(backend.upload::<Fq>(&[]).unwrap().download().unwrap(), []);
    assert!(a.download_into(&mut [Fq::ONE]).is_err());
    let mut recording = backend.record();
    let sum = recording.add(&a, &a).unwrap();
    recording.submit().unwrap();
    assert_eq!(sum.download().unwrap()[1], numbers::<Fq>(10, 1)[1].double());
}

#[test]
fn memory_that_is_not_there_is_an_error_and_comes_back_with_drops() {
    let backend = Watched::new(Options::new().device_memory(1 << 20));
    let a = numbers::<Fq>(10_000, 1);
    let held: Vec<_> = (0..2).map(|_| backend.upload(&a).unwrap()).collect();
    let error = backend.upload(&a).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DeviceFault);
    assert!(error.to_string().contains("bytes needed"), "{error}");
    drop(held);
    // Even if the device is not yet done with them.
    assert_eq!(backend.upload(&a).unwrap().download().unwrap(), a);
}

#[test]
fn nothing_is_recorded_of_what_memory_fails_half_way() {
    // Room for two regions of the least size.
    let backend = Watched::new(Options::new().device_memory(8192));
    let one = Fq::ONE;
    let a = backend.upload(&[one; 3]).unwrap();
    let mut recording = backend.record();
    let refused = [
        recording.powers(&one, &one, 3).map(drop),
        recording.batch_inverse_into(&a, Zeros::Refuse, &a),
        recording.batch_inverse(&a, Zeros::Refuse).map(drop),
        recording.divide_by_linear(&a, &one).map(drop),
        recording.divide_into(&a, &a, Zeros::Refuse, &a),
        recording.sqrt(&a).map(drop),
    ];
    for refused in refused {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::DeviceFault);
    }
    assert!(recording.is_empty());
    assert_eq!(a.download().unwrap(), [one; 3]);
}

/// A call from host memory must not wait for memory that only its own caller could give back.
#[test]
fn calls_from_host_memory_work_beside_resident_vectors_or_say_why_not() {
    let backend = Watched::new(Options::new().device_memory(1 << 20));
    let a = numbers::<Fq>(10_000, 1);
    let expected: Vec<Fq> = a.iter().map(|x| x.square()).collect();
    let held = backend.upload(&a).unwrap();
    // In more chunks than without the vector.
    assert_eq!(backend.square(&a).unwrap(), expected);
    let more = backend.zeros::<Fq>(9_000).unwrap();
    match backend.square(&a) {
        Ok(squares) => assert_eq!(squares, expected),
        Err(error) => assert_eq!(error.kind(), ErrorKind::DeviceFault, "{error}"),
    }
    drop((held, more));
    assert_eq!(backend.square(&a).unwrap(), expected);
}

#[test]
fn threads_record_and_submit_at_once() {
    let backend = Watched::new(Options::new());
    let shared = backend.upload(&numbers::<Fr>(700, 1)).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8u64 {
            let (backend, shared) = (&backend, &shared);
            scope.spawn(move || {
                for round in 0..20 {
                    let own = backend.upload(&numbers::<Fr>(700, thread + round)).unwrap();
                    let mut recording = backend.record();
                    let product = recording.mul(&own, shared).unwrap();
                    let result = recording.sub(&product, &own).unwrap();
                    let ticket = recording.submit().unwrap();
                    if round % 3 == 0 {
                        ticket.wait().unwrap();
                    }
                    if round % 2 == 0 {
                        let (own, shared) = (numbers::<Fr>(700, thread + round), numbers::<Fr>(700, 1));
                        let expected: Vec<Fr> = own.iter().zip(shared).map(|(a, b)| *a * b - a).collect();
                        assert_eq!(result.download().unwrap(), expected);
                    }
                }
            });
        }
    });
}

/// Submissions that only read the same memory do not wait for each other; what is written later waits for those that still read it, and what
/// reads that for the writing.
#[test]
fn readers_do_not_wait_for_readers() {
    let faults = Faults::default();
    let options = Options::new().verify(Verify::Off).vulkan_faults(&faults);
    let backend = Watched::validated(options, Validation::Synchronization);
    let a = numbers::<Fr>(1000, 1);
    let (key, short) = (backend.upload(&a).unwrap(), backend.zeros::<Fr>(1).unwrap());
    let round = || {
        let mut readers = [backend.record(), backend.record()];
        let read = [readers[0].square(&key).unwrap(), readers[1].neg(&key).unwrap()];
        let mut writer = backend.record();
        writer.copy_into(&short, &key.slice(7..8).unwrap()).unwrap();
        let mut last = backend.record();
        let again = last.neg(&key).unwrap();
        let [first, second] = readers;
        let waited = [first, second, writer, last].map(|recording| {
            let before = backend.stats().device.waits;
            drop(recording.submit().unwrap());
            backend.stats().device.waits - before
        });
        (waited, read, again)
    };
    let (_, [squares, opposites], again) = round();
    assert_eq!(squares.download().unwrap(), a.iter().map(|a| a.square()).collect::<Vec<_>>());
    let expected: Vec<Fr> = a.iter().map(|a| -*a).collect();
    assert_eq!(opposites.download().unwrap(), expected);
    let again = again.download().unwrap();
    assert_eq!(again[7], Fr::from(0u64));
    assert!(again[..7] == expected[..7] && again[8..] == expected[8..]);
    // Nothing is seen to finish from now on.
    faults.inject(Injection { class: CallClass::Wait, at: 0, times: 1, failure: Failure::Hang });
    let (waited, ..) = round();
    assert_eq!(waited, [0, 0, 1, 1]);
}

/// Parts of a launch go side by side, whether kernels reach their slots by addresses or by descriptors, and so they do if the same is submitted
/// again.
#[test]
fn launches_are_cut_into_parts_without_barriers() {
    let (a, kept) = (numbers::<Fr>(3000, 1), (0..3000u32).map(|i| i % 3 == 0).collect::<Vec<bool>>());
    let sum: Fr = a.iter().sum();
    for width in Width::ALL {
        let backend = Watched::validated(
            Options::new().width(width).chunk_elements(1024).verify(Verify::Off),
            Validation::Synchronization,
        );
        let (x, y) = (backend.upload(&a).unwrap(), backend.zeros::<Fr>(3000).unwrap());
        let flags = backend.upload_mask(&kept).unwrap();
        let round = || {
            let mut recording = backend.record();
            recording.add_into(&x, &x, &y).unwrap();
            let doubled = recording.sum(&y).unwrap();
            let few = recording.compact(&y, &flags).unwrap();
            let before = backend.stats().device;
            recording.submit().unwrap().wait().unwrap();
            let after = backend.stats().device;
            assert_eq!(doubled.download().unwrap(), [sum.double()]);
            assert_eq!(few.0.download().unwrap()[999], a[2997].double());
            [after.dispatches - before.dispatches, after.barriers - before.barriers, after.repeats - before.repeats]
        };
        // With self-tests.
        round();
        let counted = [round(), round(), round(), round()];
        // Three parts of the additions, one and one of the sum, three of the counts, one of the offsets, three of what is moved.
        assert!(counted.iter().all(|[dispatches, ..]| *dispatches == counted[0][0]), "{counted:?}");
        assert!(counted.iter().all(|[_, barriers, _]| *barriers == counted[0][1] && *barriers <= 4), "{counted:?}");
        assert_eq!(counted[3][2], 1, "{counted:?}");
        assert!(counted[0][0] >= 10, "{counted:?}");
    }
}

/// What is submitted again, from the same memory, is not recorded again; where memory went and came back, it is.
#[test]
fn what_repeats_is_not_recorded_again() {
    let faults = Faults::default();
    let backend = Watched::new(Options::new().verify(Verify::Off).vulkan_faults(&faults));
    let records = |work: &dyn Fn()| {
        faults.clear();
        work();
        faults.calls(CallClass::Record)
    };
    let (a, b) = (numbers::<Fr>(64, 1), numbers::<Fr>(64, 2));
    let sums: Vec<Fr> = a.iter().zip(&b).map(|(a, b)| *a + b).collect();
    let (x, y, z) = (backend.upload(&a).unwrap(), backend.upload(&b).unwrap(), backend.zeros::<Fr>(64).unwrap());
    // With its self-test.
    let mut recording = backend.record();
    recording.add_into(&x, &y, &z).unwrap();
    recording.submit().unwrap().wait().unwrap();
    let resident = || {
        let mut recording = backend.record();
        recording.zero(&z).unwrap();
        recording.add_into(&x, &y, &z).unwrap();
        let before = backend.stats().device;
        recording.submit().unwrap().wait().unwrap();
        let after = backend.stats().device;
        assert_eq!((after.dispatches - before.dispatches, after.barriers - before.barriers), (1, 1));
        assert_eq!(z.download().unwrap(), sums);
    };
    let long = || {
        let mut recording = backend.record();
        recording.zero(&z).unwrap();
        (0..300).for_each(|_| recording.add_into(&x, &z, &z).unwrap());
        recording.submit().unwrap();
        assert_eq!(z.download().unwrap(), a.iter().map(|a| *a * Fr::from(300u64)).collect::<Vec<_>>());
    };
    let hosted = || assert_eq!(backend.add(&a, &b).unwrap(), sums);
    let scaled = |scalar: u64| {
        let mut recording = backend.record();
        recording.evaluate_into(&(&x * Fr::from(scalar) + &y), &z).unwrap();
        recording.submit().unwrap();
        let expected: Vec<Fr> = a.iter().zip(&b).map(|(a, b)| *a * Fr::from(scalar) + b).collect();
        assert_eq!(z.download().unwrap(), expected);
    };
    for work in [&hosted as &dyn Fn(), &resident, &long, &|| scaled(5)] {
        // Until the pool gives it the same memory each time, and its command buffers are known to come again.
        (0..10).for_each(|_| work());
        assert_eq!(records(work), 0);
        backend.trim();
        assert!(records(work) > 0);
    }
    [5, 6, 5, 7].into_iter().for_each(scaled);
    // Other parameters, lengths and places are others' work, and if it is at the end of much that is the same.
    for scalar in [2u64, 3, 2, 3].map(Fr::from) {
        let mut recording = backend.record();
        (0..300).for_each(|_| recording.add_into(&x, &y, &z).unwrap());
        recording.scale_into(&x, &scalar, &z).unwrap();
        recording.submit().unwrap();
        assert_eq!(z.download().unwrap(), a.iter().map(|a| *a * scalar).collect::<Vec<_>>());
    }
    for scalar in [2u64, 3, 2].map(Fr::from) {
        let mut recording = backend.record();
        recording.scale_into(&x, &scalar, &z).unwrap();
        recording.submit().unwrap();
        assert_eq!(z.download().unwrap(), a.iter().map(|a| *a * scalar).collect::<Vec<_>>());
    }
    for range in [0..10, 1..11, 0..11] {
        let mut recording = backend.record();
        recording.neg_into(&y.slice(range.clone()).unwrap(), &z.slice(range.clone()).unwrap()).unwrap();
        recording.submit().unwrap();
        let expected: Vec<Fr> = b[range.clone()].iter().map(|b| -*b).collect();
        assert_eq!(z.slice(range).unwrap().download().unwrap(), expected);
    }
}

/// A loop of several recordings keeps their command buffers, however many others, none of them twice, are recorded in between.
#[test]
fn what_comes_again_outlasts_what_does_not() {
    let faults = Faults::default();
    let backend = Watched::new(Options::new().vulkan_faults(&faults));
    let vectors = [0u64, 1].map(|n| backend.upload(&[Fr::from(n); 64]).unwrap());
    let [sums, one] = &vectors;
    /// Resetting, beginning, ending.
    const RECORDED: u64 = 3;
    let mut added = 0;
    // Calls that record.
    let mut add = |times: &[usize]| {
        faults.clear();
        for &times in times {
            let mut recording = backend.record();
            (0..times).for_each(|_| recording.add_into(sums, one, sums).unwrap());
            recording.submit().unwrap().wait().unwrap();
            added += times;
        }
        faults.calls(CallClass::Record)
    };
    let (looped, others) = ([1, 2, 3, 4, 5], (6..46).collect::<Vec<usize>>());
    for _ in 0..4 {
        add(&looped);
    }
    assert_eq!(add(&looped), 0);
    assert_eq!(add(&others), RECORDED * others.len() as u64);
    assert_eq!(add(&looped), 0);
    // Of the others some make another loop, beside the first.
    let (short, long) = others.split_at(8);
    for _ in 0..4 {
        add(short);
    }
    assert_eq!((add(short), add(&looped)), (0, 0));
    // One that is too long for that is recorded each time.
    (0..4).for_each(|_| assert_eq!(add(long), RECORDED * long.len() as u64));
    // Nor does it matter how much is under way at a time.
    let tickets: Vec<_> = others
        .iter()
        .map(|&times| {
            let mut recording = backend.record();
            (0..times).for_each(|_| recording.sub_into(sums, one, sums).unwrap());
            recording.submit().unwrap()
        })
        .collect();
    tickets.into_iter().for_each(|ticket| drop(ticket.wait().unwrap()));
    assert_eq!((add(short), add(&looped)), (0, 0));
    added -= others.iter().sum::<usize>();
    assert_eq!(sums.download().unwrap(), [Fr::from(added as u64); 64]);
}

/// What needs memory for itself is given the same as before, so that its command buffer is the same, too.
#[test]
fn the_same_recording_again_is_not_recorded_again() {
    let backend = Watched::new(Options::new());
    let vectors: Vec<_> = (0..20u64).map(|n| backend.upload(&[Fr::from(n); 2048]).unwrap()).collect();
    let sums = backend.zeros::<Fr>(20).unwrap();
    let mut repeats = Vec::new();
    for _ in 0..6 {
        let mut recording = backend.record();
        for (n, vector) in vectors.iter().enumerate() {
            recording.sum_into(vector, &sums.slice(n..n + 1).unwrap()).unwrap();
        }
        recording.submit().unwrap().wait().unwrap();
        repeats.push(backend.stats().device.repeats);
    }
    assert_eq!(sums.download().unwrap(), (0..20u64).map(|n| Fr::from(2048 * n)).collect::<Vec<_>>());
    // All but the first, or, where the first found other memory in the pool, the second.
    assert!(repeats[5] >= repeats[1] + 4, "{repeats:?}");
}
