//! Time stamps: of the CPU around what threads do, of the device around what its queues do.

use super::encode::Op;
use super::lanes::Lane;
use super::queue::{InFlight, Point, Queue};
use super::{Device, Gpu, Shared, driver_error};
use crate::plan::{Role, Step as _};
use crate::{Error, Profile, Span, Stage, Track};
use ash::vk;
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Collects spans while it is on.
#[derive(Default)]
pub(super) struct Profiler {
    on: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    begin: Option<Instant>,
    spans: Vec<Span>,
}

/// What a lane's command buffer stamps.
pub(super) struct Stamps {
    queries: vk::QueryPool,
    capacity: u32,
    /// For each pair of queries what is done between them.
    spans: Vec<(Stage, &'static str, u64)>,
}

/// Times a thread's work until it is dropped.
#[must_use]
pub struct Timed<'a> {
    profiler: Option<(&'a Profiler, Instant)>,
    stage: Stage,
    bytes: u64,
    _span: tracing::span::EnteredSpan,
}

impl std::fmt::Debug for Timed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Timed({:?})", self.stage)
    }
}

impl Profiler {
    pub(super) fn timed(&self, stage: Stage, bytes: u64) -> Timed<'_> {
        let span = tracing::trace_span!(target: "bls12_field_gpu", "stage", stage = stage.name(), bytes).entered();
        let profiler = self.on.load(Relaxed).then(|| (self, Instant::now()));
        Timed { profiler, stage, bytes, _span: span }
    }

    fn push(
        &self,
        stage: Stage,
        name: &'static str,
        track: Track,
        times: impl FnOnce(Instant) -> [Duration; 2],
        bytes: u64,
    ) {
        let mut state = self.state.lock();
        if let Some(begin) = state.begin {
            let [start, end] = times(begin);
            state.spans.push(Span { stage, name, track, start, end, bytes });
        }
    }
}

impl Drop for Timed<'_> {
    fn drop(&mut self) {
        let Some((profiler, start)) = self.profiler else { return };
        let end = Instant::now();
        let thread = std::thread::current();
        let track = Track::Thread(thread.name().map_or_else(|| format!("{:?}", thread.id()), Into::into));
        let times = |begin: Instant| [start, end].map(|time| time.saturating_duration_since(begin));
        profiler.push(self.stage, self.stage.name(), track, times, self.bytes);
    }
}

impl Device {
    /// Begins a profile; one that was begun before is dropped.
    ///
    /// # Errors
    /// [`Error::Lost`] or what the driver answered: the clocks are compared.
    pub fn start_profile(&self) -> Result<(), Error> {
        let shared = &self.shared;
        shared.refuse_if_lost()?;
        shared.queues.all().try_for_each(|queue| shared.compare_clocks(queue))?;
        *shared.profiler.state.lock() = State { begin: Some(Instant::now()), spans: Vec::new() };
        shared.profiler.on.store(true, Relaxed);
        Ok(())
    }

    /// Ends the profile; what has finished since it was begun.
    pub fn take_profile(&self) -> Profile {
        self.shared.reap();
        self.shared.profiler.on.store(false, Relaxed);
        let mut state = self.shared.profiler.state.lock();
        state.begin = None;
        Profile { spans: std::mem::take(&mut state.spans) }
    }

    /// Times what the calling thread does until the answer is dropped, for the profile, if one is under way, and as a span of
    /// `tracing`.
    pub fn timed(&self, stage: Stage, bytes: u64) -> Timed<'_> {
        self.shared.timed(stage, bytes)
    }
}

impl Shared {
    pub(super) fn timed(&self, stage: Stage, bytes: u64) -> Timed<'_> {
        self.profiler.timed(stage, bytes)
    }

    /// Finds how far the device's clock is ahead of the CPU's: the shortest of a few round trips of one stamp.
    fn compare_clocks(&self, queue: &Queue) -> Result<(), Error> {
        if self.settings.limits.tick == 0.0 || !queue.stamps {
            return Ok(());
        }
        let mut best: Option<(Duration, f64)> = None;
        for _ in 0..5 {
            let mut lane = self.lane(queue.role)?;
            let mut submitted = None;
            let round = self.round_trip(&mut lane, &mut submitted);
            match (&round, submitted) {
                // It may still be under way.
                (Err(_), Some(until)) => {
                    let lanes = vec![lane];
                    self.in_flight.lock().push(InFlight { until, lanes, held: Vec::new(), staging: Vec::new() });
                }
                _ => self.queues.keep(lane),
            }
            let (start, took, ticks) = round?;
            if best.is_none_or(|(shortest, _)| took < shortest) {
                let middle = start + took / 2;
                let host = middle.saturating_duration_since(queue.epoch).as_secs_f64() * 1e9;
                best = Some((took, ticks - host));
            }
        }
        if let Some((_, ahead)) = best {
            *queue.ahead.lock() = ahead;
        }
        Ok(())
    }

    /// When it began, how long it took, and the device's time in it, in nanoseconds.
    fn round_trip(&self, lane: &mut Lane, submitted: &mut Option<Point>) -> Result<(Instant, Duration, f64), Error> {
        self.begin_lane(lane, 1)?;
        self.stamp(lane, 0, vk::PipelineStageFlags::BOTTOM_OF_PIPE);
        self.end_lane(lane)?;
        let start = Instant::now();
        let end = self.submit_after(lane, &[])?;
        *submitted = Some(end);
        self.wait(end)?;
        let took = start.elapsed();
        let Some(stamps) = &lane.stamps else { return Ok((start, took, 0.0)) };
        let mut ticks = [0u64];
        // SAFETY: the submission that wrote the query has finished.
        unsafe { self.gpu.raw.get_query_pool_results(stamps.queries, 0, &mut ticks, vk::QueryResultFlags::TYPE_64) }
            .map_err(driver_error("vkGetQueryPoolResults"))?;
        Ok((start, took, ticks[0] as f64 * self.settings.limits.tick))
    }

    /// Makes room for `stamps` time stamps in a lane whose command buffer is begun, if that is not 0.
    pub(super) fn prepare_stamps(&self, lane: &mut Lane, stamps: u32) -> Result<(), Error> {
        let raw = &self.gpu.raw;
        lane.forget_stamps();
        if stamps > 0 {
            if lane.stamps.as_ref().is_none_or(|old| old.capacity < stamps) {
                if let Some(old) = lane.stamps.take() {
                    old.destroy(&self.gpu);
                }
                let info = vk::QueryPoolCreateInfo::default().query_type(vk::QueryType::TIMESTAMP).query_count(stamps);
                // SAFETY: a live device.
                let queries = unsafe { raw.create_query_pool(&info, None) }.map_err(driver_error("vkCreateQueryPool"))?;
                lane.stamps = Some(Stamps { queries, capacity: stamps, spans: Vec::new() });
            }
            if let Some(old) = &lane.stamps {
                // By the CPU: queues that only transfer cannot.
                // SAFETY: the pool is alive, no submission uses it, and `hostQueryReset` is enabled where queues stamp.
                unsafe { raw.reset_query_pool(old.queries, 0, old.capacity) };
            }
        }
        Ok(())
    }

    fn stamp(&self, lane: &Lane, query: u32, stage: vk::PipelineStageFlags) {
        if let Some(stamps) = &lane.stamps
            && query < stamps.capacity
        {
            // SAFETY: the query is one of the pool, reset by `begin_lane` and not written since.
            unsafe { self.gpu.raw.cmd_write_timestamp(lane.commands, stage, stamps.queries, query) };
        }
    }

    /// How many stamps a lane of a queue needs for operations: none if nobody is interested.
    pub(super) fn stamps_for<'a, 'b: 'a>(&self, role: Role, operations: impl Iterator<Item = &'a Op<'b>>) -> u32 {
        let on = self.profiler.on.load(Relaxed) && self.settings.limits.tick > 0.0 && self.queues.of(role).stamps;
        if on { 2 * operations.map(|op| op.extent().parts().count() as u32).sum::<u32>() } else { 0 }
    }

    /// Stamps the beginning and the end of what `record` records.
    pub(super) fn stamped<T>(
        &self,
        lane: &mut Lane,
        wanted: bool,
        describe: impl FnOnce() -> (Stage, &'static str, u64),
        record: impl FnOnce(&Lane) -> T,
    ) -> T {
        let Some(next) = lane.stamps.as_ref().filter(|_| wanted).map(|stamps| 2 * stamps.spans.len() as u32) else {
            return record(lane);
        };
        self.stamp(lane, next, vk::PipelineStageFlags::TOP_OF_PIPE);
        let recorded = record(lane);
        self.stamp(lane, next + 1, vk::PipelineStageFlags::BOTTOM_OF_PIPE);
        if let Some(stamps) = &mut lane.stamps {
            stamps.spans.push(describe());
        }
        recorded
    }

    /// Takes the stamps of a lane whose submission has finished into the profile.
    pub(super) fn collect(&self, lane: &mut Lane) {
        let queue = self.queues.of(lane.role);
        let Some(stamps) = &mut lane.stamps else { return };
        let spans = std::mem::take(&mut stamps.spans);
        let mut ticks = vec![0u64; 2 * spans.len()];
        if ticks.is_empty() {
            return;
        }
        // SAFETY: the submission that wrote these queries has finished.
        let read =
            unsafe { self.gpu.raw.get_query_pool_results(stamps.queries, 0, &mut ticks, vk::QueryResultFlags::TYPE_64) };
        if read.is_err() {
            return;
        }
        let ahead = *queue.ahead.lock();
        let host = |ticks: u64| {
            let nanos = ticks as f64 * self.settings.limits.tick - ahead;
            queue.epoch + Duration::from_nanos(nanos.max(0.0) as u64)
        };
        for ((stage, name, bytes), pair) in spans.into_iter().zip(ticks.chunks_exact(2)) {
            let times = |begin: Instant| [host(pair[0]), host(pair[1])].map(|time| time.saturating_duration_since(begin));
            let track = Track::Queue(match lane.role {
                Role::Compute => "compute",
                Role::Beside => "compute, beside",
                Role::Upload => "upload",
                Role::Download => "download",
            });
            self.profiler.push(stage, name, track, times, bytes);
            let nanos = pair[1].wrapping_sub(pair[0]) as f64 * self.settings.limits.tick;
            let queue = format_args!("{:?}", lane.role);
            // It is over: how long it took, a field says.
            tracing::trace_span!(target: "bls12_field_gpu", "stage", stage = stage.name(), name, bytes, %queue, nanos)
                .in_scope(|| ());
        }
    }
}

impl Stamps {
    pub(super) fn forget(&mut self) {
        self.spans.clear();
    }

    /// The lane's submissions must have finished.
    pub(super) fn destroy(self, gpu: &Gpu) {
        // SAFETY: no submission uses the pool.
        unsafe { gpu.raw.destroy_query_pool(self.queries, None) };
    }
}
