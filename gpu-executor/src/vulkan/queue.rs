//! Queues: submissions, waiting.

use super::gather::Gathering;
use super::lanes::{Lane, Lanes};
use super::memory::{Buffer, Place};
use super::region::Held;
use super::select::Chosen;
use super::{Gpu, Shared, count, driver_error};
use crate::Error;
use crate::combine::pause;
use crate::plan::Role;
use ash::vk;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

/// A queue with its timeline: a semaphore that each submission signals with its number, in order.
pub(super) struct Queue {
    pub(super) family: u32,
    pub(super) role: Role,
    /// Whether it can stamp times; how many nanoseconds the device's clock is ahead of the CPU's, counted from `epoch`.
    pub(super) stamps: bool,
    pub(super) ahead: Mutex<f64>,
    pub(super) epoch: Instant,
    state: Mutex<State>,
    pub(super) timeline: vk::Semaphore,
    /// The highest number that the timeline is known to have reached.
    finished: AtomicU64,
    pub(super) lanes: Lanes,
}

struct State {
    raw: vk::Queue,
    /// The number of the last submission.
    submitted: u64,
}

/// The queues of a device: always one that computes; where the device has them, a second one that computes and queues that only
/// transfer, for uploads and for downloads.
pub(super) struct Queues {
    compute: Queue,
    /// For the other roles, in their order.
    others: [Option<Queue>; 3],
    pub(super) gathering: Gathering,
}

/// The roles that may have queues of their own.
const OTHERS: [Role; 3] = [Role::Beside, Role::Upload, Role::Download];

/// The end of a submission: its number on its queue's timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Point {
    pub(super) role: Role,
    pub(super) value: u64,
}

/// What submissions use until the last of them has finished.
pub(super) struct InFlight {
    pub(super) until: Point,
    pub(super) lanes: Vec<Lane>,
    pub(super) held: Vec<Arc<Held>>,
    pub(super) staging: Vec<Buffer>,
}

/// How long a thread spins for a result, how long it then yields to others between looks, before it sleeps. On the H200 a
/// bare dispatch takes 14 us with spinning and 45 with sleeping; and a job of 65536 elements that sleeps after 0.1 ms takes
/// 1.03 ms, after 1 ms 0.84 to 0.89.
const SPIN: Duration = Duration::from_micros(100);
const YIELD: Duration = Duration::from_millis(2);

impl Queue {
    /// # Safety
    /// The device has this queue.
    unsafe fn new(gpu: &Gpu, role: Role, chosen: Chosen) -> Result<Self, Error> {
        let Chosen { family, index, stamps } = chosen;
        let mut kind = vk::SemaphoreTypeCreateInfo::default().semaphore_type(vk::SemaphoreType::TIMELINE);
        let info = vk::SemaphoreCreateInfo::default().push_next(&mut kind);
        // SAFETY: the device has the queue; timeline semaphores are enabled.
        let (raw, timeline) = unsafe {
            let timeline = gpu.raw.create_semaphore(&info, None).map_err(driver_error("vkCreateSemaphore"))?;
            (gpu.raw.get_device_queue(family, index), timeline)
        };
        Ok(Self {
            family,
            role,
            stamps,
            ahead: Mutex::new(0.0),
            epoch: Instant::now(),
            state: Mutex::new(State { raw, submitted: 0 }),
            timeline,
            finished: AtomicU64::new(0),
            lanes: Lanes::default(),
        })
    }

    /// Whether a submission to this queue is known to have finished.
    fn has_finished(&self, point: Point) -> bool {
        self.finished.load(Acquire) >= point.value
    }

    /// # Safety
    /// The device is idle.
    unsafe fn destroy(&self, gpu: &Gpu) {
        // SAFETY: nothing is pending.
        unsafe {
            self.lanes.destroy(gpu);
            gpu.raw.destroy_semaphore(self.timeline, None);
        }
    }
}

impl Queues {
    /// # Safety
    /// The device has these queues, given by family and index.
    pub(super) unsafe fn new(gpu: &Gpu, compute: Chosen, others: [Option<Chosen>; 3]) -> Result<Self, Error> {
        // SAFETY: as the caller promises; queues that are not used yet are idle.
        unsafe {
            let compute = Queue::new(gpu, Role::Compute, compute)?;
            let mut queues = Self { compute, others: [None, None, None], gathering: Gathering::default() };
            for ((queue, role), chosen) in queues.others.iter_mut().zip(OTHERS).zip(others) {
                match chosen.map(|chosen| Queue::new(gpu, role, chosen)).transpose() {
                    Ok(made) => *queue = made,
                    Err(error) => {
                        queues.destroy(gpu);
                        return Err(error);
                    }
                }
            }
            Ok(queues)
        }
    }

    /// # Safety
    /// The device is idle.
    pub(super) unsafe fn destroy(&self, gpu: &Gpu) {
        // SAFETY: as the caller promises.
        self.all().for_each(|queue| unsafe { queue.destroy(gpu) });
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Queue> {
        std::iter::once(&self.compute).chain(self.others.iter().flatten())
    }

    /// The queue that does what `role` says.
    pub(super) fn of(&self, role: Role) -> &Queue {
        let own = OTHERS.iter().position(|other| *other == role).and_then(|index| self.others[index].as_ref());
        own.unwrap_or(&self.compute)
    }

    /// `role`, if it has a queue of its own.
    pub(super) fn role(&self, role: Role) -> Role {
        if std::ptr::eq(self.of(role), &self.compute) { Role::Compute } else { role }
    }

    pub(super) fn keep(&self, lane: Lane) {
        self.of(lane.role).lanes.keep(lane);
    }
}

impl Shared {
    /// Submits a recorded lane after the submissions that end at `after`, on whichever queues.
    pub(super) fn submit_after(&self, lane: &Lane, after: &[Point]) -> Result<Point, Error> {
        let queue = self.queues.of(lane.role);
        let value = self.submit_locked(queue, &mut queue.state.lock(), lane, after)?;
        Ok(Point { role: lane.role, value })
    }

    /// The same; the lane comes back, to be kept until the submission has finished. If it cannot be submitted, it goes back to its queue.
    pub(super) fn submitted(&self, lane: Lane, after: &[Point]) -> Result<(Point, Lane), Error> {
        match self.submit_after(&lane, after) {
            Ok(end) => Ok((end, lane)),
            Err(error) => {
                self.keep_unsubmitted(lane);
                Err(error)
            }
        }
    }

    /// Submits a recorded lane of the compute queue that touches some memory, and writes some of that. On the device it waits for the last
    /// submission that wrote any of it, or touched what it writes, and for all before that one: that, not a barrier, orders submissions.
    pub(super) fn submit_in_order(&self, lane: &Lane, touched: &[Arc<Held>], written: &[&Held]) -> Result<Point, Error> {
        let queue = &self.queues.compute;
        let mut state = queue.state.lock();
        let wrote = touched.iter().map(|held| &held.last_write);
        let latest = wrote.chain(written.iter().map(|held| &held.last_use)).map(|value| value.load(Relaxed)).max();
        let after = [Point { role: Role::Compute, value: latest.unwrap_or(0) }];
        let value = self.submit_locked(queue, &mut state, lane, &after)?;
        // Under the queue's lock, so that they never go back.
        touched.iter().for_each(|held| held.last_use.store(value, Relaxed));
        written.iter().for_each(|held| held.last_write.store(value, Relaxed));
        Ok(Point { role: Role::Compute, value })
    }

    fn submit_locked(&self, queue: &Queue, state: &mut State, lane: &Lane, after: &[Point]) -> Result<u64, Error> {
        let value = state.submitted + 1;
        // What has finished need not be waited for: signalling made its writes available. That what is submitted later sees them then, as
        // drivers have it, which begin each submission with caches that hold nothing older, is taken for granted: Vulkan says so of the
        // host's writes only, and wants a wait or a barrier for others. The wait costs: on the H200, an addition of 64 resident elements
        // takes 50 us with it and 16 without.
        let (mut waits, mut wait_values) = (Vec::new(), Vec::new());
        for point in after {
            if !self.is_finished(*point)? {
                waits.push(self.queues.of(point.role).timeline);
                wait_values.push(point.value);
            }
        }
        let commands = [lane.commands];
        let stages = vec![vk::PipelineStageFlags::ALL_COMMANDS; waits.len()];
        let (signals, values) = ([queue.timeline], [value]);
        let mut timeline =
            vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values).wait_semaphore_values(&wait_values);
        let info = [vk::SubmitInfo::default()
            .command_buffers(&commands)
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages)
            .signal_semaphores(&signals)
            .push_next(&mut timeline)];
        // SAFETY: the command buffer is recorded and not pending; the mutex keeps the queue to this thread, and its timeline's
        // values in order.
        let submitted = unsafe { self.gpu.raw.queue_submit(state.raw, &info, vk::Fence::null()) };
        submitted.map_err(|result| self.noting_loss(driver_error("vkQueueSubmit")(result)))?;
        state.submitted = value;
        count(&self.counters.submits, 1);
        count(&self.counters.waits, waits.len() as u64);
        Ok(value)
    }

    /// Waits for a submission. If the device has finished nothing at all for too long, it is lost.
    pub(super) fn wait(&self, point: Point) -> Result<(), Error> {
        self.refuse_if_lost()?;
        // Most are done before it is worth knowing how far the queues have got.
        if self.wait_at_most(point, YIELD.min(self.settings.timeout))? {
            return Ok(());
        }
        let reached = || self.queues.all().map(|queue| self.ask(queue)).sum::<Result<u64, Error>>();
        let mut finished = reached()?;
        while !self.wait_at_most(point, self.settings.timeout)? {
            let now = reached()?;
            if now <= finished {
                self.lost.store(true, Relaxed);
                return Err(Error::TimedOut { after: self.settings.timeout });
            }
            finished = now;
        }
        Ok(())
    }

    /// Waits for a submission, at most for `timeout`: spins briefly, then sleeps. Whether it has finished.
    pub(super) fn wait_at_most(&self, point: Point, timeout: Duration) -> Result<bool, Error> {
        let start = Instant::now();
        // A software device computes on the cores that would spin.
        let software = self.settings.info.kind == super::DeviceKind::Software;
        let patience = if software { Duration::ZERO } else { YIELD.min(timeout) };
        while start.elapsed() < patience {
            if self.is_finished(point)? {
                return Ok(true);
            }
            pause(start.elapsed(), SPIN);
        }
        let queue = self.queues.of(point.role);
        let (semaphores, values) = ([queue.timeline], [point.value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let left = u64::try_from(timeout.saturating_sub(start.elapsed()).as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: the semaphore is a timeline semaphore of this device.
        match unsafe { self.gpu.raw.wait_semaphores(&info, left) } {
            Ok(()) => {
                queue.finished.fetch_max(point.value, Release);
                Ok(true)
            }
            Err(vk::Result::TIMEOUT) => Ok(false),
            Err(result) => Err(self.noting_loss(driver_error("vkWaitSemaphores")(result))),
        }
    }

    /// Waits until the device is done with a submission, however long that takes: what it may still write cannot be handed back.
    pub(super) fn outwait(&self, until: Point) {
        loop {
            match self.wait_at_most(until, Duration::from_secs(1)) {
                Ok(true) | Err(Error::Lost { .. }) => return,
                // It took too long, which counts as lost, and may still be at work.
                Ok(false) if self.lost.load(Relaxed) => return self.wait_for_queue(until.role),
                Ok(false) => {}
                // The driver had no memory to answer.
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    fn wait_for_queue(&self, role: Role) {
        let state = self.queues.of(role).state.lock();
        // SAFETY: the mutex keeps the queue to this thread.
        while let Err(error) = unsafe { self.gpu.raw.queue_wait_idle(state.raw) } {
            if error == vk::Result::ERROR_DEVICE_LOST {
                break;
            }
            tracing::error!(%error, "vkQueueWaitIdle failed");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether a submission has finished.
    pub(super) fn is_finished(&self, point: Point) -> Result<bool, Error> {
        let queue = self.queues.of(point.role);
        // Asking the driver takes longer than an addition of a hundred elements.
        Ok(queue.has_finished(point) || { self.ask(queue)? } >= point.value)
    }

    /// Asks the driver how far a queue has got.
    fn ask(&self, queue: &Queue) -> Result<u64, Error> {
        // SAFETY: the semaphore is a timeline semaphore of this device.
        let value = unsafe { self.gpu.raw.get_semaphore_counter_value(queue.timeline) };
        let value = value.map_err(|result| self.noting_loss(driver_error("vkGetSemaphoreCounterValue")(result)))?;
        // A driver may say so of a lost device.
        if value == u64::MAX {
            return Err(self.noting_loss(Error::Lost { during: "vkGetSemaphoreCounterValue" }));
        }
        queue.finished.fetch_max(value, Release);
        Ok(value)
    }

    /// Waits for the oldest submissions until what the unfinished ones hold beside regions is little enough for one more.
    pub(super) fn make_room(&self) -> Result<(), Error> {
        /// The most unfinished batches, and bytes that are staged for them.
        const BATCHES: usize = 1024;
        const STAGED: u64 = 4 << 30;
        loop {
            let oldest = {
                let in_flight = self.in_flight.lock();
                let staged: u64 =
                    in_flight.iter().flat_map(|submission| &submission.staging).map(|buffer| buffer.size).sum();
                let full = in_flight.len() >= BATCHES || staged > STAGED;
                in_flight.first().filter(|_| full).map(|submission| submission.until)
            };
            let Some(oldest) = oldest else { return Ok(()) };
            self.wait(oldest)?;
            self.reap();
        }
    }

    /// Takes back what finished submissions used.
    pub(super) fn reap(&self) {
        let mut in_flight = self.in_flight.lock();
        let mut finished = |submission: &mut InFlight| self.queues.of(submission.until.role).has_finished(submission.until);
        let mut done: Vec<InFlight> = in_flight.extract_if(.., &mut finished).collect();
        if !in_flight.is_empty() && self.queues.all().all(|queue| self.ask(queue).is_ok()) {
            done.extend(in_flight.extract_if(.., finished));
        }
        drop(in_flight);
        for submission in done {
            submission.lanes.into_iter().for_each(|lane| self.keep_ended(lane));
            // What was taken first goes back last: it is the first to be taken again.
            self.release(submission.staging.into_iter().rev());
            drop(submission.held);
        }
    }

    /// Tries something that takes memory; if there is none, once more after all submissions have given back theirs.
    pub(super) fn with_memory<T>(&self, attempt: impl Fn() -> Result<T, Error>) -> Result<T, Error> {
        self.reap();
        match attempt() {
            Err(error @ Error::OutOfMemory { .. }) => {
                let last = self.in_flight.lock().iter().map(|submission| submission.until).collect::<Vec<_>>();
                if last.is_empty() {
                    return Err(error);
                }
                last.into_iter().try_for_each(|point| self.wait(point))?;
                self.reap();
                attempt()
            }
            answer => answer,
        }
    }

    /// A buffer from the pool, or a new one; if there is no memory for it, once what submissions use has come back.
    pub(super) fn buffer(&self, place: Place, bytes: u64) -> Result<Buffer, Error> {
        let take = || self.memory.take(&self.gpu, &self.counters, place, bytes);
        match take() {
            Err(Error::OutOfMemory { .. }) => self.with_memory(take),
            taken => taken,
        }
    }

    pub(super) fn fits_one_allocation(&self, bytes: u64) -> Result<(), Error> {
        let available = self.settings.limits.buffer;
        let fits = bytes <= available;
        if fits { Ok(()) } else { Err(Error::OutOfMemory { during: "one allocation", needed: bytes, available }) }
    }

    pub(super) fn refuse_if_lost(&self) -> Result<(), Error> {
        if self.lost.load(Relaxed) { Err(Error::Lost { during: "an earlier job" }) } else { Ok(()) }
    }

    pub(super) fn noting_loss(&self, error: Error) -> Error {
        if matches!(error, Error::Lost { .. }) {
            self.lost.store(true, Relaxed);
        }
        error
    }
}
