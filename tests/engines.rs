//! Every operation, in every field and form, in every way that results can come about, against the oracle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{Engine, Field, Form, MemoryMode, Operation, Parameter, Row};
use support::oracle::oracle;
use support::{Case, Computer, FORMS, WAYS, Way, edges, rows};

macro_rules! suites {
    ($($way:ident)+) => {
        $(
            #[test]
            fn $way() {
                suite(stringify!($way));
            }
        )+

        #[test]
        fn no_way_is_left_out() {
            assert_eq!([$(stringify!($way)),+], WAYS.map(|(name, _)| name));
        }
    };
}

suites! { int64_device_local int64_host int32_device_local int32_host cpu one_shot }

fn suite(name: &str) {
    let (_, way) = WAYS.into_iter().find(|(way, _)| *way == name).unwrap();
    let computer = way.set_up();
    computes_as_asked(way, &computer);
    for (row, field) in rows() {
        for form in FORMS {
            for case in cases(&computer, row, field, form) {
                check(&computer, &case);
            }
        }
    }
}

fn computes_as_asked(way: Way, computer: &Computer) {
    let engine = computer.backend().map(|backend| backend.engine().clone());
    match (way, engine) {
        (Way::Vulkan(asked, memory, _), Some(Engine::Vulkan { width, device_local, .. })) => {
            assert_eq!((width, device_local), (asked, memory == MemoryMode::DeviceLocal));
        }
        (Way::Cpu, Some(Engine::Cpu { reason })) => assert!(reason.contains("asked for"), "{reason}"),
        (Way::OneShot, None) => {}
        (way, engine) => panic!("{way:?} gave {engine:?}"),
    }
}

/// Compares with the oracle, and makes sure of who computed.
fn check(computer: &Computer, case: &Case) {
    let before = computer.backend().map(|backend| backend.stats());
    let outcome = computer.execute(case);
    let (elements, mask) = case.answer();
    assert_eq!((&outcome.elements, &outcome.mask), (&elements, &mask), "{case:?}");

    let length = case.length();
    let on_gpu = computer.is_gpu() && length > 0;
    assert_eq!(outcome.report.dispatches, usize::from(on_gpu), "{case:?}");
    assert_eq!(outcome.report.verified, if on_gpu { length } else { 0 }, "{case:?}");
    if let (Some(before), Some(after)) = (before, computer.backend().map(|backend| backend.stats())) {
        let called = u64::from(length > 0);
        assert_eq!(after.calls - before.calls, called);
        assert_eq!(after.cpu_calls - before.cpu_calls, if computer.is_gpu() { 0 } else { called });
        assert_eq!(after.verified_elements - before.verified_elements, outcome.report.verified as u64);
        // A kernel's first use is its self-test, which is a dispatch of its own.
        let dispatched = after.device.dispatches - before.device.dispatches;
        let built = after.device.pipeline_builds - before.device.pipeline_builds;
        if on_gpu {
            assert!(dispatched == 1 || dispatched == 2, "{dispatched} dispatches");
            assert!(built == 0 || dispatched == 2, "a kernel was used without a self-test");
        } else {
            assert_eq!((dispatched, built), (0, 0));
        }
    }
}

fn cases(computer: &Computer, row: &Row, field: Field, form: Form) -> Vec<Case> {
    let new = |length| Case::new(row.operation, field, form, length);
    let size = computer.workgroup_size();
    let mut cases = match computer {
        // Everything is made anew for each call.
        Computer::OneShot(_) if row.operation == Operation::Add => vec![new(0), new(1), new(size + 1)],
        Computer::OneShot(_) => return vec![new(size + 1)],
        _ => vec![new(0), new(1), new(size - 1), new(size), new(size + 1), at_edges(row, field, form)],
    };
    match row.parameter {
        Parameter::None => {}
        Parameter::Scalar if matches!(computer, Computer::OneShot(_)) => {}
        Parameter::Scalar => {
            let every_scalar = edges(field).into_iter().map(|scalar| Case { parameter: scalar, ..new(9) });
            cases.extend(every_scalar);
        }
        Parameter::Exponent => {
            let bases: Vec<u64> = edges(field).into_iter().take(12).flatten().collect();
            let power = |parameter| Case { vectors: vec![bases.clone()], parameter, ..new(0) };
            cases.extend(exponents(field).into_iter().map(power));
        }
    }
    cases
}

/// Every edge; for operations of more vectors, every edge with every seventh.
fn at_edges(row: &Row, field: Field, form: Form) -> Case {
    let edges = edges(field);
    // A zero has no inverse.
    let edges = if row.operation == Operation::Inverse { &edges[1..] } else { &edges[..] };
    let indices: Vec<[usize; 3]> = match row.vectors {
        1 => (0..edges.len()).map(|a| [a, 0, 0]).collect(),
        _ => (0..edges.len())
            .flat_map(|a| (0..8).map(move |step| [a, a + 7 * step, 3 * a + 5 * step]))
            .chain((0..edges.len()).map(|a| [a, edges.len() - a, a]))
            .collect(),
    };
    let vector = |operand: usize| indices.iter().flat_map(|at| edges[at[operand] % edges.len()].clone()).collect();
    Case { vectors: (0..row.vectors).map(vector).collect(), ..Case::new(row.operation, field, form, 0) }
}

fn exponents(field: Field) -> Vec<Vec<u64>> {
    let order = &oracle(field).p - 1u32;
    vec![
        vec![],
        vec![0],
        vec![1],
        vec![5],
        vec![0, 0],
        vec![0xffff_ffff_ffff_ffff],
        vec![0, 1],
        // 381 bits.
        vec![0x0123_4567_89ab_cdef, 0, u64::MAX, 1, 0xfedc_ba98_7654_3210, 0x1fff_ffff_ffff_ffff],
        order.to_u64_digits(),
        (&order - 1u32).to_u64_digits(),
        (&order + 1u32).to_u64_digits(),
        (&order * 2u32).to_u64_digits(),
        (&order << 200u32).to_u64_digits(),
        vec![0; 9],
        vec![u64::MAX; 9],
        vec![3, 0, 0, 0, 0, 0, 0, 0, 1],
    ]
}
