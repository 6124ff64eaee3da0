//! Where the time went.

use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What a span of time was spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// The CPU looks at a chunk's inputs.
    Inspect,
    /// The CPU copies from the caller's slices to memory that the device sees.
    CopyIn,
    /// The CPU records command buffers and submits them, or has them submitted with others'.
    Submit,
    /// Copies from host memory to the device's.
    Upload,
    /// Kernels.
    Compute,
    /// The CPU computes its share of a job.
    Share,
    /// Copies from the device's memory to the host's, or within it.
    Download,
    /// A thread waits for the device, or until others have checked enough of what came from it.
    Wait,
    /// The CPU copies to the caller's slices.
    CopyOut,
    /// The CPU checks results.
    Verify,
}

impl Stage {
    /// The stage's name.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Inspect => "inspect",
            Stage::CopyIn => "copy in",
            Stage::Submit => "submit",
            Stage::Upload => "upload",
            Stage::Compute => "compute",
            Stage::Share => "share",
            Stage::Download => "download",
            Stage::Wait => "wait",
            Stage::CopyOut => "copy out",
            Stage::Verify => "verify",
        }
    }
}

/// Who spent a span of time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Track {
    /// A thread of this process.
    Thread(String),
    /// A queue of the device.
    Queue(&'static str),
}

/// A stretch of time that somebody spent on something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// On what.
    pub stage: Stage,
    /// More exactly: the kernel's name, or the stage's.
    pub name: &'static str,
    /// Who.
    pub track: Track,
    /// From when, since the profile was started.
    pub start: Duration,
    /// Until when.
    pub end: Duration,
    /// How many bytes were read and written.
    pub bytes: u64,
}

/// Everything that a device and the threads that use it did for a while. Printed, it is a table of the stages; as a
/// [`trace`](Profile::trace) it opens in Perfetto (ui.perfetto.dev).
///
/// The device's clock is compared with the CPU's when the profile is started, to within some microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// In the order in which they ended.
    pub spans: Vec<Span>,
}

impl Profile {
    /// The time during which at least one span of a stage was under way.
    pub fn busy(&self, stage: Stage) -> Duration {
        let mut spans: Vec<_> = self.of(stage).map(|span| (span.start, span.end)).collect();
        spans.sort();
        let mut busy = Duration::ZERO;
        let mut until = Duration::ZERO;
        for (start, end) in spans {
            busy += end.saturating_sub(start.max(until));
            until = until.max(end);
        }
        busy
    }

    /// From the first span's start to the last one's end.
    pub fn elapsed(&self) -> Duration {
        let start = self.spans.iter().map(|span| span.start).min().unwrap_or_default();
        self.spans.iter().map(|span| span.end).max().unwrap_or_default().saturating_sub(start)
    }

    fn of(&self, stage: Stage) -> impl Iterator<Item = &Span> {
        self.spans.iter().filter(move |span| span.stage == stage)
    }

    /// On which row of its track each span is: the first in which it crosses no other, but for lying within it. Viewers show no others.
    fn rows(&self) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.spans.len()).collect();
        order.sort_by_key(|&span| (self.spans[span].start, Reverse(self.spans[span].end)));
        // Of each row of a track, the ends of those spans that the next one may lie within.
        let mut open: BTreeMap<&Track, Vec<Vec<Duration>>> = BTreeMap::new();
        let mut rows = vec![0; order.len()];
        for index in order {
            let span = &self.spans[index];
            let of_track = open.entry(&span.track).or_default();
            let fits = |ends: &mut Vec<Duration>| {
                while ends.pop_if(|end| *end <= span.start).is_some() {}
                ends.last().is_none_or(|end| span.end <= *end)
            };
            rows[index] = of_track.iter_mut().position(fits).unwrap_or_else(|| {
                of_track.push(Vec::new());
                of_track.len() - 1
            });
            of_track[rows[index]].push(span.end);
        }
        rows
    }

    /// The profile as a trace in the Trace Event Format: threads and queues one below the other, spans in them; those of a queue that overlap in
    /// several rows.
    pub fn trace(&self) -> String {
        let rows = self.rows();
        let mut tracks: BTreeMap<(&Track, usize), usize> =
            self.spans.iter().zip(&rows).map(|(span, row)| ((&span.track, *row), 0)).collect();
        tracks.values_mut().enumerate().for_each(|(number, id)| *id = number + 1);
        let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
        let names = tracks.iter().map(|((track, row), id)| {
            let name = match track {
                Track::Thread(name) => format!("thread {name}"),
                Track::Queue(name) => format!("queue: {name}"),
            };
            let name = if *row == 0 { name } else { format!("{name} ({})", row + 1) };
            json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": id, "args": { "name": name } })
        });
        let spans = self.spans.iter().zip(&rows).map(|(span, row)| {
            json!({
                "name": span.name, "cat": span.stage.name(), "ph": "X", "pid": 1, "tid": tracks[&(&span.track, *row)],
                "ts": micros(span.start), "dur": micros(span.end.saturating_sub(span.start)),
                "args": { "bytes": span.bytes },
            })
        });
        json!({ "traceEvents": names.chain(spans).collect::<Vec<Value>>(), "displayTimeUnit": "ns" }).to_string()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let elapsed = self.elapsed().as_secs_f64().max(1e-9);
        writeln!(f, "{:10} {:>7} {:>12} {:>7} {:>9}", "stage", "spans", "busy ms", "share", "GB/s")?;
        let mut stages: Vec<Stage> = self.spans.iter().map(|span| span.stage).collect();
        stages.sort();
        stages.dedup();
        for stage in stages {
            let busy = self.busy(stage).as_secs_f64();
            let bytes: u64 = self.of(stage).map(|span| span.bytes).sum();
            let rate = if bytes > 0 { format!("{:.1}", bytes as f64 / busy.max(1e-9) / 1e9) } else { String::new() };
            let count = self.of(stage).count();
            writeln!(f, "{:10} {count:>7} {:>12.3} {:>6.1}% {rate:>9}", stage.name(), busy * 1e3, busy / elapsed * 1e2)?;
        }
        write!(f, "{:10} {:>7} {:>12.3}", "elapsed", "", elapsed * 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(stage: Stage, start: u64, end: u64, bytes: u64) -> Span {
        let track = if stage == Stage::Compute { Track::Queue("compute") } else { Track::Thread("main".into()) };
        let (start, end) = (Duration::from_millis(start), Duration::from_millis(end));
        Span { stage, name: stage.name(), track, start, end, bytes }
    }

    fn profile() -> Profile {
        let spans = vec![
            span(Stage::CopyIn, 10, 20, 1_000_000_000),
            span(Stage::Compute, 15, 40, 0),
            span(Stage::CopyIn, 18, 30, 0),
            span(Stage::CopyIn, 50, 60, 0),
        ];
        Profile { spans }
    }

    #[test]
    fn overlapping_spans_count_once() {
        assert_eq!(profile().busy(Stage::CopyIn), Duration::from_millis(30));
        assert_eq!(profile().busy(Stage::Compute), Duration::from_millis(25));
        assert_eq!(profile().busy(Stage::Verify), Duration::ZERO);
        assert_eq!(profile().elapsed(), Duration::from_millis(50));
        assert_eq!(Profile::default().elapsed(), Duration::ZERO);
    }

    #[test]
    fn the_table_has_a_line_per_stage() {
        let text = profile().to_string();
        assert_eq!(text.lines().count(), 4, "{text}");
        assert!(text.contains("copy in          3       30.000   60.0%      33.3"), "{text}");
    }

    #[test]
    fn the_trace_is_json_with_a_track_per_thread_and_queue_and_rows_for_what_crosses() {
        let trace: Value = serde_json::from_str(&profile().trace()).unwrap();
        let events = trace["traceEvents"].as_array().unwrap();
        assert_eq!(events.iter().filter(|event| event["ph"] == "M").count(), 3);
        let spans: Vec<&Value> = events.iter().filter(|event| event["ph"] == "X").collect();
        assert_eq!(spans.len(), 4);
        assert_eq!((&spans[0]["ts"], &spans[0]["dur"]), (&json!(10_000.0), &json!(10_000.0)));
        assert_ne!(spans[0]["tid"], spans[1]["tid"]);
        // From 10 to 20 and from 18 to 30; then the first row is free again.
        assert_ne!(spans[0]["tid"], spans[2]["tid"]);
        assert_eq!(spans[0]["tid"], spans[3]["tid"]);
        // One within the other shares its row.
        let nested = vec![span(Stage::CopyIn, 0, 30, 0), span(Stage::CopyIn, 10, 30, 0), span(Stage::CopyIn, 30, 40, 0)];
        assert_eq!(Profile { spans: nested }.rows(), [0; 3]);
    }
}
