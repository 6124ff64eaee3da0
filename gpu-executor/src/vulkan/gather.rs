//! Jobs of one chunk that threads bring at the same time, in one command buffer.
//!
//! A device takes its time for each command buffer, however little is in it. On an H200, kernels on 128 elements in host memory, after each of which
//! the host is to see the result, take 14.6 us if there is one, 23 if there are sixteen in one command buffer, and 110 if these are sixteen,
//! submitted together (92 with one barrier for all). So a thread whose job is all of a submission leaves its operations to whoever submits next,
//! itself or another, and waits for that. Sixteen threads that add 64 elements at a time have a result each in 88 to 118 us, where it took 139
//! to 153 with a command buffer for each; if staged, in 194 to 204 instead of 310 to 317.

use super::Shared;
use super::encode::Op;
use super::lanes::Lane;
use super::queue::Point;
use crate::Error;
use crate::combine::Combiner;
use crate::plan::Role;
use parking_lot::Mutex;
use std::cell::Cell;
use std::time::Duration;

/// The most jobs that wait to be submitted; further callers wait for room among them.
const WAITING: usize = 64;

/// Submissions of gathered jobs that the device works on at a time. What comes while two are under way makes up the next one.
const AHEAD: usize = 2;

/// And so long at most it is waited for one of them to end.
const GATHERING: Duration = Duration::from_micros(200);

/// The gathered jobs of a queue.
pub(super) struct Gathering {
    /// Where they end: `None` if each is to be submitted for itself.
    combiner: Combiner<Waiting, Result<Option<u64>, Error>>,
    /// The numbers of the last [`AHEAD`] submissions of such.
    recent: Mutex<[u64; AHEAD]>,
}

/// A job's operations, while the job's thread waits.
struct Waiting(*const [Op<'static>]);

// SAFETY: it is a reference in all but its lifetime, and `assert_shareable` says that such may be sent.
unsafe impl Send for Waiting {}

const fn assert_shareable<T: Sync>() {}
const _: () = assert_shareable::<Op<'static>>();

impl Default for Gathering {
    fn default() -> Self {
        Self { combiner: Combiner::new(WAITING), recent: Mutex::default() }
    }
}

impl Shared {
    /// Submits operations that are all of a job, together with others' that come at the same time or while the device has enough of them to work
    /// on. Where they end; and the lane that they are in, for the one of its jobs that had it submitted.
    pub(super) fn submit_gathered(&self, role: Role, ops: &[Op]) -> Result<(Point, Option<Lane>), Error> {
        let Gathering { combiner, recent } = &self.queues.of(role).gathering;
        let mine = Cell::new(None);
        let submit = |lane| {
            // One thread at a time is here. What else the queue is at work on may take longer, and then waiting gains nothing.
            let [oldest, last] = *recent.lock();
            let _ = self.wait_at_most(Point { role, value: oldest }, GATHERING);
            let (end, lane) = self.submitted(lane, &[])?;
            *recent.lock() = [last, end.value];
            mine.set(Some(lane));
            Ok(Some(end.value))
        };
        let work = |batch: &[Waiting]| {
            self.refuse_if_lost()?;
            if batch.len() == 1 {
                return self.recorded(role, ops).and_then(submit);
            }
            // SAFETY: the thread of each waits in `run` below until this returns.
            let all = batch.iter().flat_map(|waiting| unsafe { &*waiting.0 });
            // What the CPU reads comes last, so that it shares one barrier.
            let (read, mut ops): (Vec<&Op>, Vec<&Op>) = all.partition(|op| matches!(op, Op::ReadBack { .. }));
            ops.extend(read);
            // What stands in the way of one of them is to stand in nobody else's.
            self.recorded_once(role, &ops).map_or(Ok(None), submit)
        };
        #[expect(clippy::unnecessary_cast, reason = "it takes the lifetime away")]
        let waiting = Waiting(std::ptr::from_ref(ops) as *const [Op<'static>]);
        match combiner.run(waiting, work)? {
            Some(value) => Ok((Point { role, value }, mine.into_inner())),
            None => {
                let (end, lane) = self.submitted(self.recorded(role, ops)?, &[])?;
                Ok((end, Some(lane)))
            }
        }
    }
}
