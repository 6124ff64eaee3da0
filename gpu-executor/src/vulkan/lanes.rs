//! Lanes: command buffers, and what they hold.
//!
//! A recording that is submitted again and again, as a loop of a prover's does, is recorded once, or twice if others, fewer
//! than [`KEPT`], are recorded in between, and once more for each submission of it that is pending at the time: its command buffer is
//! kept with what it does, and found again by that. What it does is a list of numbers, handles among them, and the number of buffers
//! destroyed so far: a handle may come back with another buffer.
//!
//! Most recordings never come again, and are best recorded where the last one was: the CPU's caches have what was written there. So
//! only what has come again keeps its lane; and what was recorded not long ago, if it is to be recorded again, is taken to be such.

use super::encode::Op;
use super::profiler::Stamps;
use super::{Gpu, Shared, count, driver_error};
use crate::Error;
use crate::plan::{self, Role, Step, Submission};
use ash::vk;
use foldhash::fast::FixedState;
use parking_lot::Mutex;
use std::borrow::Borrow;
use std::collections::VecDeque;
use std::hash::BuildHasher as _;
use std::sync::atomic::Ordering::Relaxed;

/// A command pool with its one command buffer. The pool is reset before the buffer is recorded anew.
pub(super) struct Lane {
    pool: vk::CommandPool,
    pub(super) commands: vk::CommandBuffer,
    pub(super) role: Role,
    /// If its command buffer was ever to stamp times.
    pub(super) stamps: Option<Stamps>,
    /// How many barriers its command buffer has.
    pub(super) barriers: u64,
    /// How many dispatches.
    pub(super) dispatches: u64,
    /// What its command buffer does, if it can be submitted again.
    holds: Option<Content>,
    /// Whether that came more than once.
    again: bool,
}

/// What a command buffer does, in numbers; and a hash of them, for what differs in nothing but the last of thousands.
#[derive(PartialEq, Eq)]
struct Content {
    hash: u64,
    words: Vec<u64>,
}

impl Content {
    fn new(words: Vec<u64>) -> Self {
        Self { hash: FixedState::default().hash_one(&words), words }
    }
}

/// The lanes of a queue that no pending submission uses.
#[derive(Default)]
pub(super) struct Lanes(Mutex<Idle>);

/// Of both kinds those used last at the end.
#[derive(Default)]
struct Idle {
    /// Lanes that hold what came again.
    again: VecDeque<Lane>,
    /// All others.
    once: Vec<Lane>,
    /// Hashes of what was recorded last, up to [`KEPT`] of them.
    recorded: VecDeque<u64>,
}

/// So many lanes that hold what came again lie idle before one of them is recorded anew, and so many of the others, those used last, are
/// searched for what is to be done; and of so many that were recorded last it is known that they were. A dispatch and a barrier take
/// 0.7 us of the CPU beside an H200 where the last recording was, 0.93 in the oldest of sixteen lanes.
const KEPT: usize = 16;

/// Numbers of most operations: room for so many of each is made at once.
const WORDS: usize = 30;

/// The most numbers of what is looked for: up to [`WORDS`] for most operations, and what they write, if that is in the command buffer. On
/// hosts of H200s an addition takes 0.34 to 0.37 us of the CPU if its recording, the same as the last, is found and 1.1 to 1.7 if it is
/// recorded.
const MOST: usize = 1 << 17;

impl Lanes {
    pub(super) fn keep(&self, lane: Lane) {
        let mut idle = self.0.lock();
        if lane.again { idle.again.push_back(lane) } else { idle.once.push(lane) }
    }

    fn holding(&self, what: &Content) -> Option<Lane> {
        let Idle { again, once, .. } = &mut *self.0.lock();
        let holds = |lane: &Lane| lane.holds.as_ref() == Some(what);
        let first = once.len().saturating_sub(KEPT);
        let lane = match again.iter().rposition(holds) {
            Some(found) => again.remove(found)?,
            None => once.remove(first + once[first..].iter().rposition(holds)?),
        };
        Some(Lane { again: true, ..lane })
    }

    /// A lane to record in, if one lies idle that should be: the last that holds what has not come again, or the oldest of many.
    fn spare(&self) -> Option<Lane> {
        let Idle { again, once, .. } = &mut *self.0.lock();
        once.pop().or_else(|| if again.len() < KEPT { None } else { again.pop_front() })
    }

    /// Notes what is recorded; whether the same was recorded not long ago.
    fn note(&self, what: &Content) -> bool {
        let recorded = &mut self.0.lock().recorded;
        let again = recorded.contains(&what.hash);
        recorded.truncate(KEPT - 1);
        recorded.push_front(what.hash);
        again
    }

    /// # Safety
    /// The device is idle.
    pub(super) unsafe fn destroy(&self, gpu: &Gpu) {
        let Idle { again, once, .. } = std::mem::take(&mut *self.0.lock());
        for lane in again.into_iter().chain(once) {
            // SAFETY: nothing is pending.
            unsafe { gpu.raw.destroy_command_pool(lane.pool, None) };
            lane.stamps.into_iter().for_each(|stamps| stamps.destroy(gpu));
        }
    }
}

impl Lane {
    /// What its command buffer was to stamp will not be.
    pub(super) fn forget_stamps(&mut self) {
        self.stamps.iter_mut().for_each(Stamps::forget);
    }
}

impl Shared {
    /// A lane of a queue that no submission uses.
    pub(super) fn lane(&self, role: Role) -> Result<Lane, Error> {
        let queue = self.queues.of(role);
        if let Some(lane) = queue.lanes.spare() {
            return Ok(lane);
        }
        let info = vk::CommandPoolCreateInfo::default().queue_family_index(queue.family);
        // SAFETY: a live device that has this queue family.
        let pool = unsafe { self.gpu.raw.create_command_pool(&info, None) }.map_err(driver_error("vkCreateCommandPool"))?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool was just made.
        match unsafe { self.gpu.raw.allocate_command_buffers(&info) } {
            Ok(commands) => {
                let role = self.queues.role(role);
                Ok(Lane {
                    pool,
                    commands: commands[0],
                    role,
                    stamps: None,
                    barriers: 0,
                    dispatches: 0,
                    holds: None,
                    again: false,
                })
            }
            Err(result) => {
                // SAFETY: nothing uses the pool.
                unsafe { self.gpu.raw.destroy_command_pool(pool, None) };
                Err(driver_error("vkAllocateCommandBuffers")(result))
            }
        }
    }

    /// A lane of a queue whose command buffer does these operations as [`plan::plan`] orders them.
    pub(super) fn recorded(&self, role: Role, ops: &[Op]) -> Result<Lane, Error> {
        self.found_or_recorded(role, (ops.iter(), true), |lane, stamps| self.plan_and_record(lane, ops, stamps))
    }

    /// The same, of what hardly comes again, so that it is neither looked for nor kept to be found.
    pub(super) fn recorded_anew(&self, role: Role, ops: &[&Op]) -> Result<Lane, Error> {
        let each = ops.iter().copied();
        self.found_or_recorded(role, (each, false), |lane, stamps| self.plan_and_record(lane, ops, stamps))
    }

    /// All for one queue, which makes it one submission.
    fn plan_and_record<'a, O: Borrow<Op<'a>> + Step>(&self, lane: &mut Lane, ops: &[O], stamps: u32) -> Result<(), Error> {
        let role = lane.role;
        let planned = plan::plan(ops, |_| role);
        debug_assert_eq!(plan::find_hazard_across(ops, |_| role, &planned), None);
        debug_assert!(planned.len() <= 1);
        let commands = planned.into_iter().next().map_or(Vec::new(), |submission| submission.commands);
        // Takes the cube of the number of operations, times how often they are cut.
        debug_assert!(ops.len() > 32 || commands.len() > 1024 || plan::every_barrier_matters(ops, &commands));
        self.record(lane, ops, &commands, stamps)
    }

    /// A lane of a submission's queue whose command buffer does what the submission has of these operations.
    pub(super) fn recorded_as(&self, ops: &[Op], submission: &Submission) -> Result<Lane, Error> {
        let Submission { queue, commands, .. } = submission;
        let mut steps: Vec<usize> = submission.steps().collect();
        // Those of several parts once.
        steps.dedup();
        let run = steps.iter().map(|&step| &ops[step]);
        self.found_or_recorded(*queue, (run, true), |lane, stamps| self.record(lane, ops, commands, stamps))
    }

    fn found_or_recorded<'a, 'b: 'a>(
        &self,
        role: Role,
        (ops, repeats): (impl Iterator<Item = &'a Op<'b>> + Clone, bool),
        record: impl FnOnce(&mut Lane, u32) -> Result<(), Error>,
    ) -> Result<Lane, Error> {
        let number = ops.clone().count();
        let stamps = self.stamps_for(role, ops.clone());
        // Parameters may be somebody's secrets.
        let repeatable = repeats && stamps == 0 && !self.settings.wipe;
        let told = || {
            let mut words = Vec::with_capacity((WORDS * number).min(MOST));
            words.push(self.memory.destroyed.load(Relaxed));
            for op in ops.clone() {
                op.tell(&mut words);
                if words.len() > MOST {
                    return None;
                }
            }
            Some(Content::new(words))
        };
        let what = if repeatable { told() } else { None };
        let lane = match what.as_ref().and_then(|what| self.queues.of(role).lanes.holding(what)) {
            Some(lane) => {
                count(&self.counters.repeats, 1);
                lane
            }
            None => {
                let mut lane = self.lane(role)?;
                if let Err(error) = record(&mut lane, stamps) {
                    self.keep_unsubmitted(lane);
                    return Err(error);
                }
                lane.again = what.as_ref().is_some_and(|what| self.queues.of(role).lanes.note(what));
                lane.holds = what;
                lane
            }
        };
        count(&self.counters.dispatches, lane.dispatches);
        count(&self.counters.barriers, lane.barriers);
        Ok(lane)
    }

    /// Keeps a lane whose submission has finished for the next one.
    pub(super) fn keep_ended(&self, mut lane: Lane) {
        self.collect(&mut lane);
        self.queues.keep(lane);
    }

    /// Keeps a lane that was not submitted for the next one: what it was to stamp will not be.
    pub(super) fn keep_unsubmitted(&self, mut lane: Lane) {
        lane.forget_stamps();
        self.queues.keep(lane);
    }

    /// Resets a lane that no submission uses and begins its command buffer; with room for `stamps` time stamps, if that is not 0.
    pub(super) fn begin_lane(&self, lane: &mut Lane, stamps: u32) -> Result<(), Error> {
        let raw = &self.gpu.raw;
        (lane.barriers, lane.dispatches, lane.holds, lane.again) = (0, 0, None, false);
        // SAFETY: the lane is this thread's alone and its last submission has finished.
        unsafe {
            raw.reset_command_pool(lane.pool, vk::CommandPoolResetFlags::empty())
                .map_err(driver_error("vkResetCommandPool"))?;
            raw.begin_command_buffer(lane.commands, &vk::CommandBufferBeginInfo::default())
                .map_err(driver_error("vkBeginCommandBuffer"))?;
        }
        self.prepare_stamps(lane, stamps)
    }

    pub(super) fn end_lane(&self, lane: &Lane) -> Result<(), Error> {
        // SAFETY: recording was begun.
        unsafe { self.gpu.raw.end_command_buffer(lane.commands) }.map_err(driver_error("vkEndCommandBuffer"))
    }
}
