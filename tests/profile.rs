//! Profiles: every stage of calls and recordings is there, on its track, at its time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::Fr;
use bls12_field_gpu::{Backend, DeviceKind, Engine, MemoryMode, Options, Profile, Span, Stage, Track, Verify};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use support::{Watched, cpu, numbers};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// By how much the device's clock may be off.
const SKEW: Duration = Duration::from_millis(1);

/// Spans of `tracing` by the stage that they tell.
static TRACED: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

struct Traced;

impl Subscriber for Traced {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.is_span() && metadata.target() == "bls12_field_gpu"
    }

    fn new_span(&self, attributes: &Attributes) -> Id {
        attributes.record(&mut Traced);
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Visit for Traced {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "stage" {
            *TRACED.lock().unwrap().entry(value.into()).or_default() += 1;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

/// One test at a time: each sees all that is traced, and the validation layer does not bear a device being made while another is in use.
fn alone() -> impl Drop {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn of(profile: &Profile, stage: Stage) -> Vec<&Span> {
    profile.spans.iter().filter(|span| span.stage == stage).collect()
}

/// Profiles `work`, and checks what is true of every profile; whether the device stamps times, as devices in software do.
fn profiled(backend: &Backend, work: impl FnOnce()) -> (Profile, bool) {
    backend.start_profile().unwrap();
    TRACED.lock().unwrap().clear();
    let start = Instant::now();
    work();
    let elapsed = start.elapsed();
    let profile = backend.take_profile();
    // Whoever subscribes sees what the profile has.
    let mut spans = BTreeMap::new();
    profile.spans.iter().for_each(|span| *spans.entry(span.stage.name().into()).or_default() += 1);
    assert_eq!(*TRACED.lock().unwrap(), spans);
    println!("{profile}");
    let on_device: Vec<&Span> = profile.spans.iter().filter(|span| matches!(span.track, Track::Queue(_))).collect();
    for span in &profile.spans {
        assert!(span.start <= span.end && span.end <= elapsed + 2 * SKEW, "{span:?} {elapsed:?}");
        let by_device = matches!(span.stage, Stage::Upload | Stage::Compute | Stage::Download);
        assert_eq!(by_device, matches!(span.track, Track::Queue(_)), "{span:?}");
    }
    assert!(profile.elapsed() <= elapsed + 2 * SKEW);
    // What the device does it does after the first submission was begun and before the last wait has ended.
    let submitted = of(&profile, Stage::Submit).iter().map(|span| span.start).min().unwrap();
    let waited = of(&profile, Stage::Wait).iter().map(|span| span.end).max().unwrap();
    for span in &on_device {
        assert!(span.start + SKEW >= submitted && span.end <= waited + SKEW, "{span:?}");
    }
    trace(&profile);
    // It is over.
    work_unseen(backend);
    assert!(backend.take_profile().spans.is_empty());
    let Engine::Vulkan { device, .. } = backend.engine() else { panic!("{}", backend.engine()) };
    let stamps = !on_device.is_empty();
    assert!(stamps || device.kind != DeviceKind::Software, "{device}");
    (profile.clone(), stamps)
}

fn work_unseen(backend: &Backend) {
    let one = [Fr::from(1u64)];
    backend.add(&one, &one).unwrap();
}

/// The trace is JSON, and has each span once on the track of its thread or queue.
fn trace(profile: &Profile) {
    let trace: serde_json::Value = serde_json::from_str(&profile.trace()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let complete: Vec<_> = events.iter().filter(|event| event["ph"] == "X").collect();
    assert_eq!(complete.len(), profile.spans.len());
    for (event, span) in complete.iter().zip(&profile.spans) {
        assert_eq!((event["name"].as_str().unwrap(), event["cat"].as_str().unwrap()), (span.name, span.stage.name()));
        assert!((event["ts"].as_f64().unwrap() - span.start.as_secs_f64() * 1e6).abs() < 1.0);
    }
    let tracks: BTreeSet<&Track> = profile.spans.iter().map(|span| &span.track).collect();
    assert!(events.iter().filter(|event| event["ph"] == "M").count() >= tracks.len());
    // Of two on the same row one is over when the other begins, or lies within it.
    for (one, other) in complete.iter().enumerate().flat_map(|(n, one)| complete[..n].iter().map(move |other| (one, other)))
    {
        let times = |event: &serde_json::Value| {
            let [start, lasts] = ["ts", "dur"].map(|key| event[key].as_f64().unwrap());
            (start, start + lasts)
        };
        let ((a, b), (c, d)) = (times(one), times(other));
        // As exact as numbers of microseconds are.
        let crosses = |a: f64, b: f64, c: f64, d: f64| a + 0.01 < c && c + 0.01 < b && b + 0.01 < d;
        assert!(one["tid"] != other["tid"] || !crosses(a, b, c, d) && !crosses(c, d, a, b), "{one} {other}");
    }
}

/// For how long some stages were under way, all together.
fn busy(profile: &Profile, counts: impl Fn(Stage) -> bool) -> Duration {
    let stages: BTreeSet<Stage> = profile.spans.iter().map(|span| span.stage).filter(|stage| counts(*stage)).collect();
    stages.into_iter().map(|stage| profile.busy(stage)).sum()
}

/// For how long stages were under way beside others. Waiting is none of them: it goes on beside what is waited for.
fn overlap(profile: &Profile) -> Duration {
    let mut spans: Vec<&Span> = profile.spans.iter().filter(|span| span.stage != Stage::Wait).collect();
    spans.sort_by_key(|span| span.start);
    let (mut any, mut until) = (Duration::ZERO, Duration::ZERO);
    for span in &spans {
        any += span.end.saturating_sub(span.start.max(until));
        until = until.max(span.end);
    }
    busy(profile, |stage| stage != Stage::Wait) - any
}

#[test]
fn stages_of_a_call_in_many_chunks_overlap() {
    let _alone = alone();
    let backends = [MemoryMode::DeviceLocal, MemoryMode::Host]
        .map(|memory| Watched::new(Options::new().memory(memory).chunk_elements(4000).verify(Verify::All)));
    for backend in backends {
        let (a, b) = (numbers::<Fr>(100_000, 1), numbers::<Fr>(100_000, 2));
        let expected = backend.mul(&a, &b).unwrap();
        let overlaps = || {
            backend.start_profile().unwrap();
            assert_eq!(backend.mul(&a, &b).unwrap(), expected);
            let profile = backend.take_profile();
            assert!(of(&profile, Stage::Verify).len() > 20);
            busy(&profile, |_| true) > profile.elapsed() && overlap(&profile) > Duration::ZERO
        };
        // A machine that has much else to do may do one thing after the other.
        assert!((0..10).any(|_| overlaps()));
    }
}

#[test]
fn a_call_in_chunks_and_a_recording_leave_their_spans() {
    let _alone = alone();
    tracing::subscriber::set_global_default(Traced).unwrap();
    // All before any is used.
    let backends = [MemoryMode::DeviceLocal, MemoryMode::Host]
        .map(|memory| (memory, Watched::new(Options::new().memory(memory).chunk_elements(2000))));
    for (memory, backend) in backends {
        let (a, b) = (numbers::<Fr>(9000, 1), numbers::<Fr>(9000, 2));
        let staged = memory == MemoryMode::DeviceLocal;
        // The self-test is not what is looked at.
        let expected = backend.mul(&a, &b).unwrap();
        let (profile, stamps) = profiled(&backend, || assert_eq!(backend.mul(&a, &b).unwrap(), expected));
        // Chunks are whole workgroups and the first is half as long as the others: 992, four times 1984, 72.
        for stage in [Stage::CopyIn, Stage::Submit, Stage::CopyOut, Stage::Verify] {
            assert_eq!(of(&profile, stage).len(), 6, "{stage:?}");
        }
        // For the device, and where four chunks are still to be checked.
        assert!((6..=8).contains(&of(&profile, Stage::Wait).len()));
        let bytes = |stage| of(&profile, stage).iter().map(|span| span.bytes).sum::<u64>();
        // Read and written.
        assert_eq!((bytes(Stage::CopyIn), bytes(Stage::CopyOut)), (2 * 2 * 32 * 9000, 2 * 32 * 9000));
        if stamps {
            assert_eq!(of(&profile, Stage::Compute).len(), 6);
            assert_eq!(of(&profile, Stage::Upload).len(), if staged { 12 } else { 0 });
            // Those that copy: making memory visible to the CPU is one, too, of no bytes.
            let downloads = of(&profile, Stage::Download).iter().filter(|span| span.bytes > 0).count();
            assert_eq!(downloads, if staged { 6 } else { 0 });
            assert!(of(&profile, Stage::Compute).iter().all(|span| span.end > span.start));
            assert!(profile.busy(Stage::Compute) > Duration::ZERO);
        }

        let vector = backend.upload(&a).unwrap();
        vector.download().unwrap();
        let recorded = || {
            let mut recording = backend.record();
            let product = recording.mul(&vector, &vector).unwrap();
            let sum = recording.add(&product, &vector).unwrap();
            let download = recording.download(&sum).unwrap();
            drop(recording.submit().unwrap().wait().unwrap().take(&download).unwrap());
        };
        recorded();
        let (profile, stamps) = profiled(&backend, recorded);
        for stage in [Stage::Submit, Stage::Wait, Stage::CopyOut] {
            assert!(!of(&profile, stage).is_empty(), "{stage:?}");
        }
        if stamps {
            let computed = of(&profile, Stage::Compute);
            let names: BTreeSet<&str> = computed.iter().map(|span| span.name).collect();
            assert!(names.len() == 2, "{names:?}");
            // Each is cut, and all that it touches is told.
            assert_eq!(computed.len(), 2 * a.len().div_ceil(2000));
            assert_eq!(computed.iter().map(|span| span.bytes).sum::<u64>(), (2 * 3 * 32 * a.len()) as u64);
            assert!(!of(&profile, Stage::Download).is_empty());
        }
    }
    // Where the CPU computes there is nothing to tell.
    let plain = cpu();
    plain.start_profile().unwrap();
    work_unseen(&plain);
    assert!(plain.take_profile().spans.is_empty());
}
