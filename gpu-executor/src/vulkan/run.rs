//! Jobs: vectors in host memory, chunk after chunk through the device.

use super::encode::{Op, Span};
use super::memory::{Buffer, Place};
use super::queue::{InFlight, Lane};
use super::{Program, count};
use crate::job::{Job, SLOTS, Slot};
use crate::{Error, plan};
use std::ops::Range;

/// A slot in use: its bytes per element and its buffers.
struct Bound {
    slot: usize,
    width: usize,
    write: bool,
    /// What the kernel works on, as an index into the chunk's buffers.
    kernel: usize,
    /// What the CPU fills or reads: the same buffer, unless vectors are staged.
    host: usize,
}

impl Program {
    /// Runs the program over a job's vectors, chunk after chunk, and returns when the results are in the job's slices, with
    /// the number of dispatches it took. Any number of threads may do so at once.
    ///
    /// # Errors
    /// [`Error::MalformedJob`] before anything is done; [`Error::OutOfMemory`], [`Error::TimedOut`], [`Error::Lost`] or what
    /// the driver answered, and then what the job's output slices hold is unspecified.
    pub fn run(&self, job: &mut Job) -> Result<usize, Error> {
        let widths = job.widths(self.name, &self.slots)?;
        if job.elements == 0 {
            return Ok(0);
        }
        let shared = &*self.shared;
        let settings = &shared.settings;
        let plan = || {
            let bounds = plan::Bounds {
                buffer: settings.limits.buffer.min(CHUNK_BYTES),
                memory: shared.memory.for_jobs(),
                elements: settings.chunk_elements,
                work: settings.work,
                workgroups: settings.limits.workgroups.map(u64::from).iter().product(),
                workgroup_size: self.workgroup_size,
            };
            let chunk = plan::elements_per_chunk(job.elements, &widths, job.cost, &bounds)?;
            let used = widths.iter().filter(|&&width| width > 0);
            let footprint = used.map(|&width| plan::size_class((width * chunk) as u64)).sum();
            Ok((chunk, shared.memory.reserve(footprint)?))
        };
        let (chunk, _reservation) = shared.with_memory(plan)?;
        let mut chunks = Chunks::new(self, job, &widths, chunk)?;
        let mut dispatches = 0;
        for start in (0..job.elements).step_by(chunk) {
            chunks.run(job, start..job.elements.min(start + chunk))?;
            dispatches += 1;
        }
        Ok(dispatches)
    }
}

/// The most bytes of one vector in a chunk: more pins more memory for longer. (lavapipe allows no more anyway. Where chunks are
/// not overlapped, their size does not matter much; to be measured when they are.)
const CHUNK_BYTES: u64 = 128 << 20;

/// The buffers and the command buffer of one job; goes back to the device's pools on drop.
struct Chunks<'a> {
    program: &'a Program,
    bound: Vec<Bound>,
    buffers: Vec<Buffer>,
    lane: Option<Lane>,
}

impl<'a> Chunks<'a> {
    fn new(program: &'a Program, job: &Job, widths: &[usize; SLOTS], chunk: usize) -> Result<Self, Error> {
        let shared = &*program.shared;
        shared.refuse_if_lost()?;
        let mut chunks = Self { program, bound: Vec::new(), buffers: Vec::new(), lane: None };
        let staged = shared.settings.staging.applies(job.slots.iter().map(Slot::bytes).sum());
        for (slot, &width) in widths.iter().enumerate().filter(|(_, width)| **width > 0) {
            let mut take = |place| -> Result<usize, Error> {
                chunks.buffers.push(shared.memory.take(&shared.gpu, &shared.counters, place, (width * chunk) as u64)?);
                Ok(chunks.buffers.len() - 1)
            };
            let host = take(Place::Host)?;
            let kernel = if staged { take(Place::Device)? } else { host };
            chunks.bound.push(Bound { slot, width, write: matches!(job.slots[slot], Slot::Write(_)), kernel, host });
        }
        chunks.lane = Some(shared.lane()?);
        Ok(chunks)
    }

    fn run(&mut self, job: &mut Job, range: Range<usize>) -> Result<(), Error> {
        let shared = &*self.program.shared;
        let bytes = |bound: &Bound| range.start * bound.width..range.end * bound.width;
        let copies = hosts(&self.bound, &mut self.buffers).filter_map(|(bound, buffer)| match &job.slots[bound.slot] {
            Slot::Read(source) => Some(buffer.bytes().map(|to| (to, &source[bytes(bound)]))),
            _ => None,
        });
        count(&shared.counters.uploaded, shared.copier.copy(copies.collect::<Result<_, _>>()?));
        let Some(lane) = &self.lane else { return Err(Error::Lost { during: "an earlier chunk" }) };
        shared.record(lane, &self.ops(range.len(), job.params))?;
        let value = shared.submit(lane)?;
        if let Err(error) = shared.wait(value) {
            // The submission may still be using these.
            let (lane, staging) = (self.lane.take(), std::mem::take(&mut self.buffers));
            shared.in_flight.lock().push(InFlight { value, lane, held: Vec::new(), staging });
            return Err(error);
        }
        let mut targets: [Option<&mut [u8]>; SLOTS] = job.slots.each_mut().map(|slot| match slot {
            Slot::Write(target) => Some(&mut **target),
            _ => None,
        });
        let copies = hosts(&self.bound, &mut self.buffers).filter_map(|(bound, buffer)| {
            let target = &mut targets[bound.slot].take()?[bytes(bound)];
            Some(buffer.bytes().map(|from| {
                let from = &from[..target.len()];
                (target, from)
            }))
        });
        count(&shared.counters.downloaded, shared.copier.copy(copies.collect::<Result<_, _>>()?));
        Ok(())
    }

    /// What a chunk takes: copies in, one launch, copies out, the CPU's reading.
    fn ops<'b>(&'b self, elements: usize, params: &'b [u32]) -> Vec<Op<'b>> {
        let span = |bound: &Bound, buffer: usize| Span {
            buffer: &self.buffers[buffer],
            offset: 0,
            bytes: (bound.width * elements) as u64,
        };
        let staged = |write| self.bound.iter().filter(move |bound| bound.write == write && bound.kernel != bound.host);
        let mut slots = [None; SLOTS];
        self.bound.iter().for_each(|bound| slots[bound.slot] = Some((span(bound, bound.kernel), bound.write)));
        let mut ops = Vec::with_capacity(2 * SLOTS + 1);
        ops.extend(staged(false).map(|bound| Op::Copy { from: span(bound, bound.host), to: span(bound, bound.kernel) }));
        ops.push(Op::Launch { program: self.program, slots, elements: elements as u32, params });
        ops.extend(staged(true).map(|bound| Op::Copy { from: span(bound, bound.kernel), to: span(bound, bound.host) }));
        let written = self.bound.iter().filter(|bound| bound.write);
        ops.extend(written.map(|bound| Op::ReadBack { of: span(bound, bound.host) }));
        ops
    }
}

impl Drop for Chunks<'_> {
    fn drop(&mut self) {
        let shared = &*self.program.shared;
        self.buffers.drain(..).for_each(|buffer| shared.memory.give(&shared.gpu, buffer));
        shared.lanes.lock().extend(self.lane.take());
    }
}

/// The buffers that the CPU fills or reads, each with what it is for.
fn hosts<'a>(bound: &'a [Bound], buffers: &'a mut [Buffer]) -> impl Iterator<Item = (&'a Bound, &'a mut Buffer)> {
    buffers
        .iter_mut()
        .enumerate()
        .filter_map(|(index, buffer)| bound.iter().find(|bound| bound.host == index).map(|bound| (bound, buffer)))
}
