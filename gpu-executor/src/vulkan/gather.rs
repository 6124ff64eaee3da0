//! Short jobs that threads bring at the same time, in one command buffer.
//!
//! A device takes its time for each command buffer, however little is in it. On an H200, kernels on 128 elements in host memory take 14.6 us from
//! submission to result if there is one, 23 if there are sixteen in one command buffer, and 110 if these are sixteen, submitted together (92 with
//! one barrier for all). So a thread with a short job leaves its operations to whoever submits next, itself or another, and waits for that.
//! Sixteen threads that add 64 elements at a time have a result each in 88 to 118 us, where it took 139 to 153 with a command buffer for each; if
//! staged, in 194 to 204 instead of 310 to 317.

use super::Shared;
use super::encode::Op;
use super::lanes::Lane;
use super::queue::Point;
use crate::Error;
use crate::combine::Combiner;
use crate::plan::Role;
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

/// What a job of one chunk may be worth, in half multiplications or about, for others to wait for it.
pub(super) const SHORT: u64 = 1 << 20;

/// The most jobs that wait to be submitted; further callers wait for room among them.
const WAITING: usize = 64;

/// Submissions of gathered jobs that the device works on at a time. What comes while two are under way makes up the next one.
const AHEAD: usize = 2;

/// And so long at most it is waited for one of them to end.
const GATHERING: Duration = Duration::from_micros(200);

/// The jobs that wait to be submitted to the compute queue.
pub(super) struct Gathering {
    /// What becomes of them; `None` if each is to be submitted for itself.
    combiner: Combiner<Waiting, Result<Option<Gathered>, Error>>,
    /// The ends of the last [`AHEAD`] submissions of such.
    recent: Mutex<[u64; AHEAD]>,
}

/// A job's operations, while the job's thread waits.
struct Waiting(*const [Op<'static>]);

// SAFETY: it is a reference in all but its lifetime, and `assert_shareable` says that such may be sent.
unsafe impl Send for Waiting {}

const fn assert_shareable<T: Sync>() {}
const _: () = assert_shareable::<Op<'static>>();

/// Jobs that were submitted together.
#[derive(Clone)]
pub(super) struct Gathered {
    pub(super) end: Point,
    /// Until one of them has found it at its end.
    lane: Arc<Mutex<Option<Lane>>>,
}

impl Default for Gathering {
    fn default() -> Self {
        Self { combiner: Combiner::new(WAITING), recent: Mutex::default() }
    }
}

impl Gathered {
    fn new((end, lane): (Point, Lane)) -> Self {
        Self { end, lane: Arc::new(Mutex::new(Some(lane))) }
    }

    /// Their lane, for the first that asks when they have ended.
    pub(super) fn ended(self) -> Option<Lane> {
        self.lane.lock().take()
    }

    /// Their lane, for the last of those that do not wait for the end, if nobody does.
    pub(super) fn abandoned(self) -> Option<Lane> {
        Arc::into_inner(self.lane)?.into_inner()
    }
}

impl Shared {
    /// Submits all of a short job to the compute queue, together with others' that come at the same time or while the device has enough of them
    /// to work on.
    pub(super) fn submit_gathered(&self, ops: &[Op]) -> Result<Gathered, Error> {
        let work = |batch: &[Waiting]| {
            self.refuse_if_lost()?;
            if batch.len() == 1 {
                return self.submit_paced(self.recorded(Role::Compute, ops)?).map(Some);
            }
            // SAFETY: the thread of each waits in `run` below until this returns or, should it panic, has been unwound.
            let all = batch.iter().flat_map(|waiting| unsafe { &*waiting.0 });
            // What the CPU reads comes last, so that it shares one barrier.
            let (read, mut ops): (Vec<&Op>, Vec<&Op>) = all.partition(|op| matches!(op, Op::ReadBack { .. }));
            ops.extend(read);
            match self.recorded_anew(Role::Compute, &ops).and_then(|lane| self.submit_paced(lane)) {
                Ok(gathered) => Ok(Some(gathered)),
                Err(error @ Error::Lost { .. }) => Err(error),
                // What stands in the way of one of them is to stand in nobody else's.
                Err(error) => {
                    tracing::debug!(%error, jobs = batch.len(), "submitted each for itself");
                    Ok(None)
                }
            }
        };
        #[expect(clippy::unnecessary_cast, reason = "it takes the lifetime away")]
        let waiting = Waiting(std::ptr::from_ref(ops) as *const [Op<'static>]);
        match self.queues.gathering.combiner.run(waiting, Ok(None), work)? {
            Some(gathered) => Ok(gathered),
            None => {
                self.refuse_if_lost()?;
                self.submitted(self.recorded(Role::Compute, ops)?, &[]).map(Gathered::new)
            }
        }
    }

    /// Submits a lane when few enough of its kind are under way. Called by one thread at a time.
    fn submit_paced(&self, lane: Lane) -> Result<Gathered, Error> {
        let recent = &self.queues.gathering.recent;
        let [oldest, last] = *recent.lock();
        // What else the queue is at work on may take longer, and then waiting gains nothing.
        let _ = self.wait_at_most(Point { role: Role::Compute, value: oldest }, GATHERING);
        let (end, lane) = self.submitted(lane, &[])?;
        *recent.lock() = [last, end.value];
        Ok(Gathered::new((end, lane)))
    }
}
