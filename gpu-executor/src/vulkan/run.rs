//! Jobs: vectors in host memory, chunk after chunk through the device, several chunks under way at a time.

use super::cut::{Cut, footprint};
use super::encode::{Op, Span};
use super::gather::{Gathered, SHORT};
use super::landing::{Landing, Objections};
use super::lanes::Lane;
use super::memory::{Buffer, Place, Reservation};
use super::profiler::Timed;
use super::queue::{InFlight, Point};
use super::share::{Compute, Cutting};
use super::threads::{Entering, Threads, Towards};
use super::{Program, Shared, count};
use crate::job::{Job, SLOTS, Slot};
use crate::plan::{self, Role, Weight};
use crate::{Error, Parts, Share, Stage};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// The results of a chunk: for each slot that the kernel writes, the part of the job's slice that the chunk is.
pub type Landed<'a> = [Option<&'a mut [u8]>; SLOTS];

/// Who looks at a job's chunks on their way, while the device is at work on others. An error ends the job.
pub trait Watch: Sync {
    /// What it may object with.
    type Error: From<Error> + Send;

    /// Whether it looks at what goes in.
    fn inspects(&self) -> bool;

    /// Whether a part of a slot, whole elements, may go in. Called by several threads at once, which must not wait.
    fn admits(&self, slot: usize, part: &[u8]) -> bool;

    /// Whether it checks what comes out.
    fn checks(&self) -> bool;

    /// What is wrong with a chunk of which a part was not admitted. What uses rayon here must run on the [`Threads`] given.
    fn objection(&self, range: Range<usize>, threads: &Threads) -> Self::Error;

    /// The chunk's results are in the job's slices. Called chunk after chunk; of several chunks that are checked, by several of the
    /// [`Threads`] at once. What uses rayon here must run on the [`Threads`] given, and must not if the job's caller is a rayon worker
    /// itself: waiting for others' help, it could take up a task that waits for the memory that this job holds.
    ///
    /// # Errors
    /// Whatever is wrong with them.
    fn lands(&self, range: Range<usize>, results: Landed, threads: &Threads) -> Result<(), Self::Error>;

    /// Computes elements of a job's [`Share`](crate::Share) on the CPU, from inputs that it has itself; whether these may go in, as `admits`
    /// would tell. Called by several threads at once, which must not wait, not even for rayon.
    fn computes(&self, range: Range<usize>, results: Landed) -> bool;
}

/// What a job took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ran {
    /// Dispatches: one for each chunk.
    pub dispatches: usize,
    /// Elements that the CPU computed.
    pub by_cpu: usize,
}

impl Program {
    /// Runs the program over a job's vectors, chunk after chunk, and returns when the results are in the job's slices. Any number of
    /// threads may do so at once.
    ///
    /// # Errors
    /// [`Error::MalformedJob`] before anything is done; [`Error::OutOfMemory`], [`Error::TimedOut`], [`Error::Lost`] or what
    /// the driver answered, and then what the job's output slices hold is unspecified.
    pub fn run<W: Watch>(&self, mut job: Job, watch: &W) -> Result<Ran, W::Error> {
        let widths = job.widths(self.made.name, &self.made.slots)?;
        if self.made.parts != Parts::ANYWHERE {
            // Its chunks would all have the same parameters.
            let reason = "it is told where a launch begins, or is not cut anywhere".into();
            return Err(Error::MalformedJob { kernel: self.made.name, reason }.into());
        }
        if job.elements == 0 {
            return Ok(Ran::default());
        }
        let shared = &*self.made.shared;
        // First: nobody waits for memory of a lost device.
        shared.refuse_if_lost()?;
        let helpers = job.share.and_then(|share| Some((shared.threads.to_compute()?, share.piece)));
        let computer = OnTheCpu { watch, shared };
        // Declared first, so dropped last: who waits for the helpers holds no memory that others wait for.
        let cutting;
        let stream = Stream::new(self, &job, helpers.and(job.share), &widths, watch.checks())?;
        let results = job.slots.each_mut().map(|slot| match slot {
            Slot::Write(whole) => Some(std::mem::take(whole)),
            _ => None,
        });
        // SAFETY: it is dropped when this function ends, before `computer` and what the job borrows.
        cutting = unsafe { Cutting::new(job.elements, (results, widths), helpers, &computer) };
        // Few elements are checked sooner than others are woken to do it.
        let later = stream.most > 1 && watch.checks();
        let objections = Objections::new();
        let streamed = shared.threads.scope(later, |later| {
            let landing =
                Landing { watch, threads: &shared.threads, later, objections: &objections, profiler: &shared.profiler };
            // Its memory is others' before the last chunks are checked, and while the CPU computes what is left.
            stream.all(&job, &cutting, landing)
        });
        // Of chunks before that at which the stream ended, if it did.
        objections.into_first()?;
        let dispatches = streamed?;
        let by_cpu = cutting.finish().map_err(|piece| {
            let range = piece.start..piece.end.min(job.elements);
            watch.objection(range, &shared.threads)
        })?;
        Ok(Ran { dispatches, by_cpu })
    }
}

/// Who watches a job computes its share, too.
struct OnTheCpu<'a, W> {
    watch: &'a W,
    shared: &'a Shared,
}

impl<W: Watch> Compute for OnTheCpu<'_, W> {
    fn timed(&self) -> Option<Timed<'_>> {
        Some(self.shared.timed(Stage::Share, 0))
    }

    fn compute(&self, range: Range<usize>, results: Landed) -> bool {
        self.watch.computes(range, results)
    }
}

/// Of what is not copied, one part of so many is left to the CPU at first. H200, 2^24 pinned elements of Fq: additions take 33 ms by the device
/// alone, 27 if the CPU comes to a fifth of them; multiplications 33, and 36 to 39 if an eighth is left to it.
const UNCOPIED: usize = 64;

/// A slot in use.
#[derive(Clone)]
struct Bound {
    slot: usize,
    /// Bytes per element.
    width: usize,
    write: bool,
    /// The caller's slice itself, and where in pinned memory it begins.
    pinned: Option<(Arc<Buffer>, u64)>,
}

/// The buffers of a slot in one chunk: what the CPU fills or reads, unless the caller's slice is pinned, and what the kernel works
/// on, unless that is the same.
#[derive(Default)]
struct Buffers {
    host: Option<Buffer>,
    device: Option<Buffer>,
}

/// A chunk under way, or the resources for one.
struct Chunk<'a> {
    range: Range<usize>,
    results: Landed<'a>,
    /// The queue whose kernels compute it.
    compute: Role,
    buffers: Vec<Buffers>,
    /// The command buffers of what has been submitted of it.
    lanes: Vec<Lane>,
    /// If it was submitted with others' jobs, that.
    gathered: Option<Gathered>,
    /// The end of what has been submitted of it.
    until: Option<Point>,
}

/// A job on its way through the device.
struct Stream<'a> {
    program: &'a Program,
    bound: Vec<Bound>,
    staged: bool,
    /// See [`Job::cost`].
    cost: u64,
    /// The first elements, which the device computes as far as the CPU has not come to them.
    elements: usize,
    /// Elements in a chunk, but for the last.
    chunk: usize,
    /// The most chunks under way.
    most: usize,
    cut: Cut,
    /// Whether it is one chunk that others may wait for.
    short: bool,
    /// In order.
    under_way: VecDeque<Chunk<'a>>,
    /// Resources of chunks that are done.
    idle: VecDeque<Chunk<'a>>,
    _reservation: Reservation<'a>,
}

impl<'a> Stream<'a> {
    fn new(
        program: &'a Program,
        job: &Job,
        share: Option<Share>,
        widths: &[usize; SLOTS],
        checks: bool,
    ) -> Result<Self, Error> {
        let shared = &*program.made.shared;
        let staged = job.staged.unwrap_or(shared.settings.staged);
        let bind = |(slot, &width): (usize, &usize)| {
            let (bytes, write): (&[u8], _) = match &job.slots[slot] {
                Slot::Unused => return None,
                Slot::Read(bytes) => (bytes, false),
                Slot::Write(bytes) => (bytes, true),
            };
            let pinned = shared.pinned.find(bytes).map(|found| (found.buffer, found.offset));
            Some(Bound { slot, width, write, pinned })
        };
        let bound: Vec<Bound> = widths.iter().enumerate().filter_map(bind).collect();
        // What needs no buffers needs no memory.
        let mut needed = *widths;
        bound.iter().filter(|bound| bound.pinned.is_some() && !staged).for_each(|bound| needed[bound.slot] = 0);
        let copies = needed.iter().any(|&width| width > 0);
        let cut = Cut::of(checks, copies);
        let (cut, elements) = match share {
            None => (cut, job.elements),
            Some(share) => {
                // Where nothing is copied the CPU has time from the beginning, and it shows who comes to what.
                let copied = checks || bound.iter().any(|bound| bound.pinned.is_none());
                let left = if copied { share.elements } else { share.elements.min(job.elements / UNCOPIED) };
                (cut.shared(), job.elements.saturating_sub(left).max(1))
            }
        };
        let mut most_elements = usize::MAX;
        loop {
            let plan = || {
                let cost = job.cost;
                let wanted = (cut, most_elements, job.chunk_elements);
                let (chunk, most) = shared.chunks(elements, &needed, cost, (staged, program.made.workgroup_size), wanted)?;
                Ok((chunk, most, shared.memory.reserve(footprint(&needed, chunk) * most as u64, &shared.lost)?))
            };
            let (chunk, most, reservation) = shared.with_memory(plan)?;
            let mut stream = Stream {
                program,
                bound: bound.clone(),
                staged,
                cost: job.cost,
                elements,
                chunk,
                most,
                cut,
                short: elements <= chunk && job.cost.saturating_mul(elements as u64) <= SHORT,
                under_way: VecDeque::new(),
                idle: VecDeque::new(),
                _reservation: reservation,
            };
            match stream.allocate() {
                Ok(()) => return Ok(stream),
                // The driver has less than the limit promises.
                Err(Error::OutOfMemory { .. }) if chunk > 1 => most_elements = chunk.div_ceil(2),
                // What the job had reserved was there for it, as far as the limit goes.
                Err(Error::OutOfMemory { during, needed: bytes, available }) => {
                    let available = available.max(footprint(&needed, chunk) * most as u64);
                    return Err(Error::OutOfMemory { during, needed: bytes, available });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes the buffers of all chunks that will be under way at a time.
    fn allocate(&mut self) -> Result<(), Error> {
        let shared = &*self.program.made.shared;
        for number in 0..self.most {
            // A queue pauses between two submissions, some 13 us on the H200; meanwhile the other one's kernels go on.
            let beside = self.most > 1 && (number % 2 == 0) == self.cut.beside_first;
            let compute = shared.queues.role(if beside { Role::Beside } else { Role::Compute });
            self.idle.push_back(Chunk {
                range: 0..0,
                results: [const { None }; SLOTS],
                compute,
                buffers: Vec::new(),
                lanes: Vec::new(),
                gathered: None,
                until: None,
            });
            let Some(chunk) = self.idle.back_mut() else { break };
            for slot in &self.bound {
                let bytes = (slot.width * self.chunk) as u64;
                let take = |place| shared.memory.take(&shared.gpu, &shared.counters, place, bytes);
                chunk.buffers.push(Buffers::default());
                let Some(buffers) = chunk.buffers.last_mut() else { break };
                if slot.pinned.is_none() {
                    buffers.host = Some(take(Place::Host)?);
                }
                if self.staged {
                    buffers.device = Some(take(Place::Device)?);
                }
            }
        }
        Ok(())
    }

    /// All chunks, one after the other, until the CPU has begun what is left or something is wrong; how many there were.
    fn all<W: Watch>(mut self, job: &Job, cutting: &Cutting<'a>, landing: Landing<'_, 'a, W>) -> Result<usize, W::Error> {
        let mut dispatches = 0;
        for range in plan::ranges(self.elements, self.chunk, self.most > 1) {
            if self.under_way.len() == self.most {
                self.finish(landing)?;
            }
            if landing.is_over() {
                return Ok(dispatches);
            }
            let Some(chunk) = cutting.front(range.len()) else { break };
            self.begin(job, chunk, landing.watch)?;
            dispatches += 1;
        }
        while !self.under_way.is_empty() && !landing.is_over() {
            self.finish(landing)?;
        }
        Ok(dispatches)
    }

    /// Takes a chunk in and submits it. What is looked at where it lies is looked at while the device is at work on it: what comes
    /// of it is handed over only if there is no objection.
    fn begin<W: Watch>(
        &mut self,
        job: &Job,
        (range, results): (Range<usize>, Landed<'a>),
        watch: &W,
    ) -> Result<(), W::Error> {
        let Some(mut chunk) = self.idle.pop_front() else { return Err(Error::Lost { during: "an earlier chunk" }.into()) };
        (chunk.range, chunk.results) = (range, results);
        let copied = self.bound.iter().any(|bound| !bound.write && bound.pinned.is_none());
        let begun = if copied {
            self.take_in(job, &mut chunk, watch).and_then(|()| Ok(self.submit(&mut chunk, job.params)?))
        } else {
            let submitted = self.submit(&mut chunk, job.params).map_err(Into::into);
            submitted.and_then(|()| self.take_in(job, &mut chunk, watch))
        };
        // Also if it is not submitted: its buffers go back with the others.
        self.under_way.push_back(chunk);
        begun
    }

    fn take_in<W: Watch>(&self, job: &Job, chunk: &mut Chunk, watch: &W) -> Result<(), W::Error> {
        let shared = &*self.program.made.shared;
        let mut entering = Vec::new();
        let (mut copied, mut seen) = (0, 0);
        for (bound, buffers) in self.bound.iter().zip(&mut chunk.buffers) {
            let Slot::Read(source) = &job.slots[bound.slot] else { continue };
            let from = &source[bound.bytes(&chunk.range)];
            let to = buffers.host.as_mut().map(Buffer::bytes).transpose()?;
            if to.is_some() || watch.inspects() {
                seen += from.len() as u64;
                copied += to.as_ref().map_or(0, |_| from.len() as u64);
                entering.push(Entering { slot: bound.slot, from, to });
            }
        }
        if entering.is_empty() {
            return Ok(());
        }
        let stage = if copied > 0 { Stage::CopyIn } else { Stage::Inspect };
        let _timed = shared.timed(stage, seen + copied);
        let admits = |slot, part: &[u8]| !watch.inspects() || watch.admits(slot, part);
        if !shared.threads.take_in(entering, &admits) {
            return Err(watch.objection(chunk.range.clone(), &shared.threads));
        }
        count(&shared.counters.uploaded, copied);
        Ok(())
    }

    fn submit(&self, chunk: &mut Chunk, params: &[u32]) -> Result<(), Error> {
        let shared = &*self.program.made.shared;
        let _timed = shared.timed(Stage::Submit, 0);
        let Chunk { range, compute, buffers, lanes, gathered, until, .. } = chunk;
        let ops = self.ops(buffers, range, params);
        if self.short {
            let together = shared.submit_gathered(&ops)?;
            *until = Some(together.end);
            *gathered = Some(together);
            return Ok(());
        }
        // A job of one chunk has nothing to overlap, and waiting for another queue takes time.
        let queue = |role| match role {
            Role::Upload | Role::Download if self.most > 1 => shared.queues.role(role),
            _ => *compute,
        };
        let submissions = plan::plan(&ops, queue);
        debug_assert_eq!(plan::find_hazard_across(&ops, queue, &submissions), None);
        let mut ends: Vec<Point> = Vec::with_capacity(submissions.len());
        for submission in &submissions {
            let lane = shared.recorded_as(&ops, submission)?;
            let after: Vec<Point> = submission.after.iter().map(|&earlier| ends[earlier]).collect();
            let (end, lane) = shared.submitted(lane, &after)?;
            lanes.push(lane);
            ends.push(end);
            *until = Some(end);
        }
        Ok(())
    }

    /// What a chunk takes: copies in, one launch, copies out, the CPU's reading.
    fn ops<'b>(&'b self, buffers: &'b [Buffers], range: &Range<usize>, params: &'b [u32]) -> Vec<Op<'b>> {
        let elements = range.len();
        let mut slots = vec![None; SLOTS];
        let (mut before, mut after, mut read) = (Vec::new(), Vec::new(), Vec::new());
        for (bound, buffers) in self.bound.iter().zip(buffers) {
            let bytes = (bound.width * elements) as u64;
            let host = match (&buffers.host, &bound.pinned) {
                (Some(buffer), _) => Some(Span::new(buffer, 0, bytes)),
                (None, Some((buffer, start))) => Some(Span::new(buffer, start + (bound.width * range.start) as u64, bytes)),
                (None, None) => None,
            };
            let kernel = buffers.device.as_ref().map_or(host, |buffer| Some(Span::new(buffer, 0, bytes)));
            slots[bound.slot] = kernel.map(|span| (span, bound.write));
            if let (Some(host), Some(kernel), true) = (host, kernel, buffers.device.is_some()) {
                match bound.write {
                    false => before.push(Op::Copy { from: host, to: kernel }),
                    true => after.push(Op::Copy { from: kernel, to: host }),
                }
            }
            if let (Some(host), true) = (host, bound.write) {
                read.push(Op::ReadBack { of: host });
            }
        }
        let mut ops = before;
        let (slots, weight) = (slots.into(), Weight::of(self.cost));
        ops.push(Op::Launch { program: self.program, slots, elements: elements as u32, weight, params });
        ops.append(&mut after);
        ops.append(&mut read);
        ops
    }

    /// Waits for the first chunk under way and hands its results over.
    fn finish<W: Watch>(&mut self, landing: Landing<'_, 'a, W>) -> Result<(), W::Error> {
        let shared = &*self.program.made.shared;
        let Some(chunk) = self.under_way.front_mut() else { return Ok(()) };
        if let Some(until) = chunk.until {
            let _timed = shared.timed(Stage::Wait, 0);
            shared.wait(until)?;
            chunk.until = None;
            // Lost meanwhile, as another thread found: then nothing from it is believed.
            shared.refuse_if_lost()?;
            let gathered = chunk.gathered.take().and_then(Gathered::ended);
            chunk.lanes.drain(..).chain(gathered).for_each(|lane| shared.keep_ended(lane));
        }
        let mut results = std::mem::take(&mut chunk.results);
        let mut copies = Vec::new();
        let mut targets = results.each_mut().map(Option::as_deref_mut);
        for (bound, buffers) in self.bound.iter().zip(&mut chunk.buffers) {
            if let (Some(buffer), Some(target)) = (&mut buffers.host, targets[bound.slot].take()) {
                let from = &buffer.bytes()?[..target.len()];
                copies.push((target, from));
            }
        }
        let copied = copies.iter().map(|(_, from)| from.len() as u64).sum::<u64>();
        if copied > 0 {
            let _timed = shared.timed(Stage::CopyOut, 2 * copied);
            count(&shared.counters.downloaded, shared.threads.copy(copies, Towards::Caller));
        }
        landing.lands(chunk.range.clone(), results);
        self.idle.extend(self.under_way.pop_front());
        Ok(())
    }
}

impl Bound {
    fn bytes(&self, range: &Range<usize>) -> Range<usize> {
        range.start * self.width..range.end * self.width
    }
}

impl Drop for Stream<'_> {
    fn drop(&mut self) {
        let shared = &*self.program.made.shared;
        let pinned = self.bound.iter().any(|bound| bound.pinned.is_some());
        // The last first, so that the next job, if it is like this one, takes them as this one did, and finds them in command buffers.
        for chunk in self.under_way.drain(..).chain(self.idle.drain(..)).rev() {
            let buffers = chunk.buffers.into_iter().rev().flat_map(|buffers| [buffers.host, buffers.device]).flatten();
            match chunk.until {
                None => {
                    shared.release(buffers);
                    let gathered = chunk.gathered.and_then(Gathered::ended);
                    chunk.lanes.into_iter().chain(gathered).for_each(|lane| shared.queues.keep(lane));
                }
                // A job that ended early: the device may still be at work on it.
                Some(until) => {
                    // The caller's own memory is his again when this returns. A lost device does not write any more.
                    if pinned {
                        shared.outwait(until);
                    }
                    let (mut lanes, staging) = (chunk.lanes, buffers.collect());
                    lanes.extend(chunk.gathered.and_then(Gathered::abandoned));
                    shared.in_flight.lock().push(InFlight { until, lanes, held: Vec::new(), staging });
                }
            }
        }
    }
}
