use super::guesses;
use super::model::{Asked, Curve, Entry, Key, Measurements, Model, Query, Way, is_small};
use super::{Evidence, Place};
use crate::operation::TABLE;
use crate::{Field, Form, Operation, Verify};
use gpu_executor::{DeviceKind, MemoryMode};
use proptest::prelude::*;

const THREADS: usize = 16;

fn query(operation: Operation, length: usize, verify: Verify) -> Query {
    let (field, form) = (Field::Fq, Form::Canonical);
    Query { operation, field, form, length, verify, exponent_bits: None, threads: THREADS, worker: false }
}

/// A model of a machine on which nothing was measured.
fn guessed(kind: DeviceKind, asked: Asked) -> Model {
    let nothing = Measurements::new(String::new(), THREADS);
    Model::new(&nothing, |key| guesses::entry(key, kind, THREADS, 32), asked)
}

fn discrete() -> Model {
    guessed(DeviceKind::Discrete, Asked::default())
}

fn line(fixed: f64, each: f64) -> Curve {
    Curve::new([1, 100, 10_000].map(|n| (n, fixed + each * n as f64)).to_vec()).unwrap()
}

fn way(staged: bool, workgroup_size: u32) -> Way {
    Way { staged, workgroup_size, chunk_elements: None, cpu_percent: 0 }
}

/// The CPU takes 1 us an element and checks as fast, the device 100 us and a tenth of one from host memory, 200 and a twentieth
/// staged.
fn entry() -> Entry {
    Entry {
        cpu: line(0.0, 1.0),
        check: line(0.0, 1.0),
        serial: (16.0, 16.0),
        device: vec![
            (way(false, 32), line(100.0, 0.1)),
            (way(true, 32), line(200.0, 0.05)),
            (way(true, 64), line(190.0, 0.07)),
        ],
    }
}

fn measured(asked: Asked) -> Model {
    let mut measurements = Measurements::new("made up".into(), THREADS);
    measurements.entries.insert(Key::new(Operation::Mul, Field::Fq, Form::Canonical).name(), entry());
    Model::new(&measurements, |key| guesses::entry(key, DeviceKind::Software, THREADS, 32), asked)
}

fn is_device(place: Place) -> bool {
    place != Place::Cpu
}

#[test]
fn curves_run_through_their_points_and_go_on() {
    let curve = Curve::new(vec![(10, 5.0), (20, 10.0), (40, 14.0)]).unwrap();
    for (length, time) in [(10, 5.0), (15, 7.5), (20, 10.0), (30, 12.0), (40, 14.0), (50, 17.0), (2, 1.0)] {
        assert!((curve.at(length) - time).abs() < 1e-9, "{length}: {}", curve.at(length));
    }
    // A latency that does not grow yet will.
    let flat = Curve::new(vec![(10, 100.0), (100, 100.0)]).unwrap();
    assert!(flat.at(10_000) > 2000.0);
    assert!(Curve::new(vec![]).is_none() && Curve::new(vec![(1, f64::NAN)]).is_none());
    assert!(Curve::new(vec![(2, 1.0), (1, 1.0)]).is_none());
}

proptest! {
    #[test]
    fn more_elements_never_take_less_time(times in prop::collection::vec(0.0..1e6f64, 1..8), a in 1usize..1 << 22, b in 1usize..1 << 22) {
        let points = times.into_iter().enumerate().map(|(index, time)| (64 << (2 * index), time)).collect();
        let curve = Curve::new(points).unwrap();
        let (a, b) = (a.min(b), a.max(b));
        prop_assert!(curve.at(a) <= curve.at(b) + 1e-9);
        prop_assert!(curve.at(a) >= 0.0 && curve.at(b).is_finite());
    }
}

#[test]
fn the_soonest_is_chosen() {
    let model = measured(Asked::default());
    let place = |length| model.place(&query(Operation::Mul, length, Verify::Off));
    assert_eq!(place(50), Place::Cpu);
    let Place::Device(short) = place(1000) else { panic!() };
    let Place::Device(long) = place(100_000) else { panic!() };
    assert_eq!((short.memory, long.memory), (MemoryMode::Host, MemoryMode::DeviceLocal));
    assert_eq!((short.workgroup_size, long.workgroup_size), (32, 32));
    // Beside checking by recomputing, nothing is won.
    assert!((0..7).all(|n| !is_device(model.place(&query(Operation::Mul, 10usize.pow(n), Verify::All)))));
    // A few elements are soon checked, by one thread.
    assert!(is_device(model.place(&query(Operation::Mul, 100_000, Verify::Sample(10)))));
    assert!(!is_device(model.place(&query(Operation::Mul, 100_000, Verify::Sample(100_000)))));
}

#[test]
fn the_device_and_the_cpu_share_where_it_gains() {
    let shared = |cpu_percent| Way { cpu_percent, ..way(false, 32) };
    let mut entry = entry();
    entry.device.extend([(shared(20), line(80.0, 0.04)), (shared(50), line(150.0, 0.03)), (shared(80), line(1.0, 0.099))]);
    let mut measurements = Measurements::new("made up".into(), THREADS);
    measurements.entries.insert(Key::new(Operation::Mul, Field::Fq, Form::Canonical).name(), entry);
    let model = |asked| Model::new(&measurements, |key| guesses::entry(key, DeviceKind::Software, THREADS, 32), asked);
    let left = |asked, query: Query| match model(asked).place(&query) {
        Place::Device(setting) => setting.cpu_elements,
        Place::Cpu => panic!("{query:?}"),
    };
    let off = |length| query(Operation::Mul, length, Verify::Off);
    assert_eq!(left(Asked::default(), off(5_000)), 1_000);
    assert_eq!(left(Asked::default(), off(100_000)), 50_000);
    // Too short; checked in whole; a worker's; what gains less than a tenth.
    assert_eq!(left(Asked::default(), off(4_000)), 0);
    assert_eq!(left(Asked::default(), query(Operation::Mul, 100_000, Verify::Sample(10))), 50_000);
    assert_eq!(left(Asked::default(), Query { worker: true, ..off(100_000) }), 0);
    assert!(!is_device(model(Asked::default()).place(&query(Operation::Mul, 100_000, Verify::All))));
    let alone = model(Asked::default()).on_the_device(&query(Operation::Mul, 100_000, Verify::All)).unwrap();
    assert!(matches!(alone, Place::Device(setting) if setting.cpu_elements == 0));
    // In what was asked for, though nobody measured it so.
    let asked = Asked { memory: MemoryMode::DeviceLocal, workgroup_size: Some(64), chunk_elements: Some(7) };
    let Place::Device(setting) = model(asked).on_the_device(&off(100_000)).unwrap() else { panic!() };
    let expected = (MemoryMode::DeviceLocal, 64, Some(7), 50_000);
    assert_eq!((setting.memory, setting.workgroup_size, setting.chunk_elements, setting.cpu_elements), expected);
}

#[test]
fn one_who_has_fewer_threads_goes_to_the_device_sooner() {
    let model = measured(Asked::default());
    let on = |threads| model.place(&Query { threads, ..query(Operation::Mul, 100, Verify::Off) });
    assert!(!is_device(on(THREADS)) && !is_device(on(100)));
    assert!(is_device(on(1)));
}

#[test]
fn what_was_not_measured_is_taken_from_what_is_like_it() {
    let model = measured(Asked::default());
    let evidence = |operation, field, form| {
        let about = query(operation, 1000, Verify::Off);
        model.explain(&Query { field, form, ..about }).evidence
    };
    let like_mul = Evidence::Like(Operation::Mul, Field::Fq);
    assert_eq!(evidence(Operation::Mul, Field::Fq, Form::Canonical), Evidence::Measured);
    assert_eq!(evidence(Operation::Mul, Field::Fq, Form::Montgomery), like_mul);
    assert_eq!(evidence(Operation::MulAdd, Field::Fq, Form::Canonical), like_mul);
    assert_eq!(evidence(Operation::Square, Field::Fr, Form::Canonical), like_mul);
    assert_eq!(evidence(Operation::Add, Field::Fq, Form::Canonical), Evidence::Guessed);
    assert_eq!(model.measured(), 1);
}

#[test]
fn what_was_asked_for_beats_the_model() {
    let about = query(Operation::Mul, 1000, Verify::Off);
    for (memory, size, expected) in [
        (MemoryMode::Host, None, 32),
        (MemoryMode::Host, Some(64), 64),
        (MemoryMode::DeviceLocal, Some(64), 64),
        (MemoryMode::Host, Some(96), 96),
        (MemoryMode::DeviceLocal, Some(96), 96),
    ] {
        let model = measured(Asked { memory, workgroup_size: size, chunk_elements: Some(7) });
        let decision = model.explain(&about);
        assert!(decision.candidates.len() > 1, "{decision}");
        for candidate in &decision.candidates {
            let Place::Device(setting) = candidate.place else { continue };
            assert_eq!((setting.memory, setting.workgroup_size, setting.chunk_elements), (memory, expected, Some(7)));
        }
    }
}

#[test]
fn guesses_say_what_the_report_says() {
    let model = discrete();
    for length in [8, 64, 1 << 10, 1 << 14, 1 << 20, 1 << 26] {
        // Bound by copying, and to be recomputed.
        for operation in [Operation::Add, Operation::Mul, Operation::Pow] {
            assert_eq!(model.place(&query(operation, length, Verify::All)), Place::Cpu, "{operation:?} {length}");
        }
        assert_eq!(is_device(model.place(&query(Operation::Sqrt, length, Verify::All))), length >= 64);
        assert_eq!(is_device(model.place(&query(Operation::Pow, length, Verify::Off))), length >= 64);
    }
    let short = Query { exponent_bits: Some(2), ..query(Operation::Pow, 1 << 12, Verify::Off) };
    assert_eq!(model.place(&short), Place::Cpu);
}

#[test]
fn longer_calls_do_not_come_back_from_the_device() {
    for row in &TABLE {
        let on_device = |exponent: u32| is_device(discrete().place(&query(row.operation, 1 << exponent, Verify::Off)));
        let places: Vec<bool> = (0..24).map(on_device).collect();
        assert!(places.is_sorted(), "{}: {places:?}", row.name);
    }
}

#[test]
fn software_is_not_guessed_to_beat_the_cpu() {
    let model = guessed(DeviceKind::Software, Asked::default());
    for (row, verify) in
        TABLE.iter().flat_map(|row| [Verify::All, Verify::Sample(3), Verify::Off].map(|verify| (row, verify)))
    {
        for threads in [THREADS, 200] {
            for length in (0..24).map(|exponent| 1 << exponent) {
                let about = Query { threads, ..query(row.operation, length, verify) };
                assert_eq!(model.place(&about), Place::Cpu, "{about:?}");
            }
        }
    }
}

#[test]
fn a_few_additions_are_small_and_a_power_is_not() {
    let small = |operation, length| {
        let key = Key::new(operation, Field::Fq, Form::Canonical);
        is_small(&query(operation, length, Verify::All), guesses::serial(key).0)
    };
    assert!(small(Operation::Add, 100) && !small(Operation::Add, 1000));
    assert!(small(Operation::Mul, 10) && !small(Operation::Pow, 1));
}

#[test]
fn measurements_come_back_from_a_text() {
    let mut measurements = Measurements::new("made up".into(), 3);
    for key in Key::all() {
        measurements.entries.insert(key.name(), entry());
    }
    // 17 operations, one of them for one field; six of them for two forms.
    assert_eq!(measurements.entries.len(), 33 + 2 * 4);
    let text = measurements.text().unwrap();
    assert_eq!(Measurements::read(&text, 3, 64).as_ref(), Some(&measurements));
    assert_eq!(Measurements::read(&text, 4, 64), None, "other threads");
    assert_eq!(Measurements::read(&text, 3, 32), None, "workgroups that cannot be");
    assert_eq!(Measurements::read(&text.replace(env!("CARGO_PKG_VERSION"), "0.0.0"), 3, 64), None, "another version");
    assert_eq!(Measurements::read(&text[..text.len() / 2], 3, 64), None);
    for nonsense in ["", "{}", "[1]", "null"] {
        assert_eq!(Measurements::read(nonsense, 3, 64), None);
    }
    measurements.entries.clear();
    assert_eq!(Measurements::read(&measurements.text().unwrap(), 3, 64), None, "of nothing");
    // Out of order.
    assert!(serde_json::from_str::<Curve>("[[2, 1.0], [1, 2.0]]").is_ok_and(|curve| !curve.is_sound()));
}

#[test]
fn a_decision_says_what_was_compared() {
    let text = measured(Asked::default()).explain(&query(Operation::Mul, 1000, Verify::Off)).to_string();
    for part in
        ["mul of 1000 elements of Fq", "unchecked", "device, host memory, workgroups of 32", "CPU", "200.0 us", "1000.0 us"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("measurements on this machine"));
}
