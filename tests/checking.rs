//! Wrong results are caught: damage is injected into what the device returns, and into the self-tests; and barriers are left
//! out, to see that the validation layer watches.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{
    Backend, CacheDirectory, DeviceChoice, Engine, Error, ErrorKind, Fault, Field, Form, MemoryMode, Operation, Options,
    Output, Validation, Verify, Width,
};
use proptest::prelude::*;
use support::{Case, FORMS, Watched, case_of, cpu, elements, rows, unwatched};

/// How many bits an answer has that faults are counted in: those of its elements or else of its flags' words; and how
/// many belong to one position.
fn bits(case: &Case) -> (u64, u64) {
    let each = match case.operation.row().output {
        Output::Mask => 32,
        _ => 64 * case.field.limbs() as u64,
    };
    (each * case.length() as u64, each)
}

fn damaging(bit: u64, verify: Verify) -> Backend {
    unwatched(Options::new().verify(verify).fault(Fault::FlipBit(bit)))
}

fn caught(backend: &Backend, case: &Case, bit: u64) {
    let (total, each) = bits(case);
    let right = (bit % total / each) as usize;
    let error = case.on(backend).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::FailedCheck);
    match &error {
        Error::VerificationFailed { operation, field, index, device } => {
            assert_eq!((*operation, *field, *index), (case.operation.name(), case.field, right), "bit {bit}: {case:?}");
            let Engine::Vulkan { device: engine, .. } = backend.engine() else { panic!("no GPU") };
            assert_eq!(*device, engine.to_string());
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn damage_to_any_chunk_is_caught_and_bad_values_come_first() {
    let case = Case::new(Operation::Mul, Field::Fr, Form::Canonical, 1000);
    let (_, each) = bits(&case);
    let (a, b) = (elements(Field::Fr, 1000, 0), elements(Field::Fr, 1000, 1));
    let with_bad = |positions: &[usize]| {
        let mut a = a.clone();
        positions.iter().for_each(|&position| a[4 * position..4 * position + 4].fill(u64::MAX));
        a
    };
    for memory in [MemoryMode::Host, MemoryMode::DeviceLocal] {
        for position in [0, 1, 99, 100, 555, 999] {
            let bit = position * each + 5;
            let options = Options::new().memory(memory).verify(Verify::All).chunk_elements(100);
            let backend = unwatched(options.fault(Fault::FlipBit(bit)));
            caught(&backend, &case, bit);
            // Of its neighbour in the same chunk, a bad value is why; in a later chunk it is not come to.
            let neighbour = position as usize ^ 1;
            let index = |bad: &[usize]| match backend.fr().mul_u64_limbs(&with_bad(bad), &b) {
                Err(Error::NotBelowModulus { index, operand: "a", .. }) => (true, index),
                Err(Error::VerificationFailed { index, .. }) => (false, index),
                other => panic!("{other:?}"),
            };
            assert_eq!(index(&[neighbour]), (true, neighbour));
            if position < 600 {
                assert_eq!(index(&[neighbour + 300]), (false, position as usize));
            }
            assert_eq!(index(&[3, 703, 998]), (true, 3));
        }
    }
}

#[test]
fn damage_at_either_end_is_caught_in_every_operation() {
    // Faults count modulo the number of bits: one less than a multiple of every answer's is the last bit of each.
    for bit in [0, 64 * 12 * 9 - 1] {
        let backend = damaging(bit, Verify::All);
        for (row, field) in rows() {
            for form in FORMS {
                caught(&backend, &Case::new(row.operation, field, form, 9), bit);
            }
        }
        assert_eq!((backend.stats().calls, backend.stats().verified_elements), (0, 0));
        // An empty answer has nothing to damage.
        assert!(Case::new(Operation::Add, Field::Fr, Form::Canonical, 0).on(&backend).is_ok());
    }
}

#[test]
fn damage_of_every_bit_of_an_element_is_caught() {
    // The bits of one element in the middle, for operations that are proved by different means.
    let proofs = [
        (Operation::Add, Field::Fr),
        (Operation::Mul, Field::Fq),
        (Operation::Inverse, Field::Fr),
        (Operation::Sqrt, Field::Fq),
        (Operation::Equal, Field::Fq),
    ];
    for bit in (0..384).step_by(13).chain([1, 31, 32, 63, 64, 255, 256, 383]) {
        let bit = 384 * 4 + bit;
        let backend = damaging(bit, Verify::All);
        for (operation, field) in proofs {
            caught(&backend, &Case::new(operation, field, Form::Canonical, 8), bit);
        }
    }
}

/// Any call with at least one element, and any bit of its answer.
fn damaged() -> impl Strategy<Value = (Case, u64)> {
    let rows: Vec<_> = rows().map(|(row, field)| (row.operation, field)).collect();
    (prop::sample::select(rows), prop::sample::select(FORMS.to_vec()), any::<u64>()).prop_flat_map(
        |((operation, field), form, bit)| {
            case_of(operation, field, form, 1..20).prop_map(move |case| {
                let bit = bit % bits(&case).0;
                (case, bit)
            })
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn damage_anywhere_is_caught((case, bit) in damaged()) {
        caught(&damaging(bit, Verify::All), &case, bit);
        // A sample as large as the vector is the vector.
        caught(&damaging(bit, Verify::Sample(case.length())), &case, bit);
        caught(&damaging(bit, Verify::Sample(usize::MAX)), &case, bit);

        // Unchecked, it is returned: the right answer but for that bit.
        let outcome = case.on(&damaging(bit, Verify::Off)).unwrap();
        let (mut elements, mut mask) = case.answer();
        if elements.is_empty() {
            // A flag is whatever is not zero: a high bit makes a false one true and leaves a true one true.
            let flag = &mut mask[(bit / 32) as usize];
            *flag = bit % 32 != 0 || !*flag;
        } else {
            elements[(bit / 64) as usize] ^= 1 << (bit % 64);
        }
        prop_assert_eq!((outcome.elements, outcome.mask), (elements, mask));
        prop_assert_eq!(outcome.report.verified, 0);
    }
}

#[test]
fn a_sample_finds_damage_in_proportion() {
    // One wrong element in 4: three looks miss it with probability (3/4)^3 = 42 %, in all of 64 calls with 10^-24, and in
    // none with 10^-15.
    let backend = damaging(5, Verify::Sample(3));
    let case = Case::new(Operation::Add, Field::Fq, Form::Canonical, 4);
    let found = (0..64).filter(|_| case.on(&backend).is_err()).count();
    assert!((1..64).contains(&found), "{found} of 64");
    caught(&damaging(5, Verify::Sample(1)), &Case::new(Operation::Mul, Field::Fr, Form::Montgomery, 1), 5);
}

#[test]
fn reports_count_what_was_checked() {
    for (verify, checked) in [
        (Verify::All, [1, 9, 200]),
        (Verify::Proofs, [1, 9, 200]),
        (Verify::Sample(1), [1, 1, 1]),
        (Verify::Sample(9), [1, 9, 9]),
        (Verify::Sample(1000), [1, 9, 200]),
        (Verify::Off, [0, 0, 0]),
    ] {
        let backend = Watched::new(Options::new().verify(verify));
        assert_eq!(backend.verify(), verify);
        for (length, checked) in [1, 9, 200].into_iter().zip(checked) {
            for operation in [Operation::Add, Operation::Sqrt, Operation::Equal] {
                let before = backend.stats().verified_elements;
                let report = Case::new(operation, Field::Fq, Form::Canonical, length).on(&backend).unwrap().report;
                assert_eq!((report.dispatches, report.verified), (1, checked), "{verify:?}, {length} elements");
                assert_eq!(backend.stats().verified_elements - before, checked as u64);
            }
        }
    }
}

#[test]
fn the_cpu_is_believed() {
    for verify in [Verify::All, Verify::Sample(3)] {
        let options = Options::new().require_gpu(false).device(DeviceChoice::Cpu).verify(verify);
        let backend = Backend::new(&options.fault(Fault::FlipBit(0))).unwrap();
        let case = Case::new(Operation::Mul, Field::Fr, Form::Canonical, 9);
        let outcome = case.on(&backend).unwrap();
        assert_eq!((outcome.elements, outcome.mask), case.answer());
        assert_eq!((outcome.report.dispatches, outcome.report.verified), (0, 0));
        assert_eq!(backend.stats().verified_elements, 0);
    }
}

#[test]
fn kernels_that_fail_their_self_test_are_not_used() {
    // Whatever is checked afterwards.
    for (bit, verify) in [(0, Verify::Off), (1000, Verify::All)] {
        let backend = unwatched(Options::new().verify(verify).fault(Fault::FlipBitInSelfTest(bit)));
        for (row, field) in rows() {
            for form in FORMS {
                let case = Case::new(row.operation, field, form, 3);
                // Not even when asked twice.
                for _ in 0..2 {
                    let error = case.on(&backend).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::FailedCheck);
                    match &error {
                        Error::SelfTestFailed { operation, field: named, index, .. } => {
                            let each = bits(&case).1;
                            assert_eq!((*operation, *named), (row.name, field));
                            assert_eq!(*index as u64, bit / each, "{case:?}");
                        }
                        other => panic!("{other:?}"),
                    }
                    assert!(error.to_string().contains(row.name), "{error}");
                }
            }
        }
        assert_eq!(backend.stats().calls, 0);
        // What needs no kernel still works.
        assert!(Case::new(Operation::Mul, Field::Fq, Form::Canonical, 0).on(&backend).is_ok());
    }
}

#[test]
fn every_kernel_is_tested_before_its_first_use_and_only_then() {
    let backend = Watched::new(Options::new().verify(Verify::Off));
    for (row, field) in rows() {
        for form in FORMS {
            let case = Case::new(row.operation, field, form, 3);
            let dispatches = |backend: &Backend| backend.stats().device.dispatches;
            let before = dispatches(&backend);
            case.on(&backend).unwrap();
            let first = dispatches(&backend) - before;
            // Where the form does not matter, the second form uses what the first one tested.
            let tested_before = form == Form::Montgomery && !row.form_matters;
            assert_eq!(first, if tested_before { 1 } else { 2 }, "{case:?}");
            case.on(&backend).unwrap();
            assert_eq!(dispatches(&backend) - before, first + 1, "{case:?}");
        }
    }
}

/// What the validation layer says about a few staged calls of kernels that use descriptors, which it sees through.
fn synchronization_messages(options: Options) -> Vec<String> {
    let options = options.width(Width::Int32).memory(MemoryMode::DeviceLocal).cache(CacheDirectory::Off);
    let backend =
        Backend::new(&options.require_gpu(true).validation(Validation::Synchronization).verify(Verify::Off)).unwrap();
    for operation in [Operation::Neg, Operation::Mul, Operation::Sqrt] {
        // Without barriers anything may come of it.
        let _ = Case::new(operation, Field::Fq, Form::Canonical, 100).on(&backend);
    }
    let log = backend.validation_log();
    drop(backend);
    log.messages()
}

#[test]
fn the_validation_layer_notices_missing_barriers() {
    let messages = synchronization_messages(Options::new().fault(Fault::OmitBarriers));
    assert!(messages.iter().any(|message| message.contains("SYNC-HAZARD")), "{messages:?}");
    assert_eq!(synchronization_messages(Options::new()), [""; 0]);
}

#[test]
fn missing_barriers_are_counted() {
    let run = |options: Options| {
        let backend = unwatched(options.memory(MemoryMode::DeviceLocal).verify(Verify::Off));
        let _ = Case::new(Operation::Add, Field::Fr, Form::Canonical, 100).on(&backend);
        backend.stats().device.barriers
    };
    assert_eq!(run(Options::new().fault(Fault::OmitBarriers)), 0);
    // In, compute, out, host.
    assert_eq!(run(Options::new()), 2 * 3);
    assert_eq!(cpu().stats().device.barriers, 0);
}
