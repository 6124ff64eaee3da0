//! Batches of work on memory that stays on the device.

use super::encode::{Given, MOST_INLINE, Op, Span};
use super::memory::{Buffer, Place};
use super::queue::{InFlight, Point};
use super::region::{Held, Region};
use super::threads::Towards;
use super::{Device, Made, Program, Shared, count};
use crate::job::{SLOTS, max_params};
use crate::plan::{Role, Weight};
use crate::{Error, Shape, SlotUse, Stage, Start};
use smallvec::SmallVec;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Work on regions that is submitted as a whole, and done as if in order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    work: Vec<Work>,
    /// Those of its launches, each once: there are few, and counting who shares them takes longer than looking.
    programs: Vec<Program>,
    /// What is written before all of it, and to where.
    constants: Vec<(Region, Vec<u8>)>,
}

#[derive(Clone, Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "most work is launches, and an allocation for each takes longer than moving it"
)]
enum Work {
    Upload {
        to: Region,
        bytes: Arc<[u8]>,
    },
    Copy {
        from: Region,
        to: Region,
    },
    Zero {
        to: Region,
    },
    Launch {
        program: usize,
        slots: SmallVec<[Option<(Region, bool)>; SLOTS]>,
        elements: u32,
        weight: Weight,
        params: SmallVec<[u32; 8]>,
    },
    Download {
        from: Region,
    },
}

impl Batch {
    /// An empty batch with room for so many pieces of work.
    pub fn with_capacity(pieces: usize) -> Self {
        Self { work: Vec::with_capacity(pieces), ..Self::default() }
    }

    /// Whether there is nothing to do: constants alone are nothing.
    pub fn is_empty(&self) -> bool {
        self.work.is_empty()
    }

    /// Writes `bytes` to a region of the same length.
    pub fn upload(&mut self, to: &Region, bytes: Arc<[u8]>) {
        self.work.push(Work::Upload { to: to.clone(), bytes });
    }

    /// Memory that holds these bytes for launches of this batch, and of no other. What many calls ask for is written at once, before all
    /// work: a parameter for each launch takes neither memory nor a copy nor a barrier of its own. (Specialization constants are others:
    /// [`Kernel::constants`](crate::Kernel::constants).)
    ///
    /// # Errors
    /// Those of [`Device::allocate`].
    pub fn constants(&mut self, device: &Device, bytes: &[u8]) -> Result<Region, Error> {
        /// So many bytes are written at once.
        const TOGETHER: usize = 4 << 10;
        /// Where constants begin: at multiples of what kernels read at a time.
        const ALIGNED: usize = 16;
        let fits = |written: &Vec<u8>| written.len().next_multiple_of(ALIGNED) + bytes.len() <= TOGETHER;
        let (mut to, mut written) = match self.constants.pop() {
            Some((to, written)) if fits(&written) => (to, written),
            full => {
                self.constants.extend(full);
                let room = bytes.len().max(TOGETHER);
                (device.allocate_for(room as u64, true)?, Vec::with_capacity(room))
            }
        };
        written.resize(written.len().next_multiple_of(ALIGNED), 0);
        let start = to.range.start + written.len() as u64;
        written.extend_from_slice(bytes);
        to.range.end = start + bytes.len() as u64;
        let constants = Region { memory: to.memory.clone(), range: start..to.range.end };
        self.constants.push((to, written));
        Ok(constants)
    }

    /// Copies a region to another of the same length that does not overlap it.
    pub fn copy(&mut self, from: &Region, to: &Region) {
        self.work.push(Work::Copy { from: from.clone(), to: to.clone() });
    }

    /// Fills a region with zeros.
    pub fn zero(&mut self, to: &Region) {
        self.work.push(Work::Zero { to: to.clone() });
    }

    /// Runs a program on so many elements of this weight, in parts if that is more than the device should do at once (see
    /// [`Kernel::parts`](crate::Kernel::parts)). Each slot is a region, and whether the program writes it. On no elements nothing is run.
    pub fn launch(
        &mut self,
        program: &Program,
        slots: impl IntoIterator<Item = Option<(Region, bool)>>,
        (elements, weight): (u32, Weight),
        params: &[u32],
    ) {
        if elements == 0 {
            return;
        }
        let known = self.programs.iter().rposition(|known| Arc::ptr_eq(&known.made, &program.made));
        let program = known.unwrap_or_else(|| {
            self.programs.push(program.clone());
            self.programs.len() - 1
        });
        let (slots, params) = (slots.into_iter().collect(), params.into());
        self.work.push(Work::Launch { program, slots, elements, weight, params });
    }

    /// Fetches what a region holds at this point. The ticket has the downloads in the order in which they were asked for.
    pub fn download(&mut self, from: &Region) {
        self.work.push(Work::Download { from: from.clone() });
    }

    /// All regions, and whether they are written.
    fn regions(&self) -> impl Iterator<Item = (&Region, bool)> {
        let of_work = self.work.iter().flat_map(|work| {
            let (read, written, slots) = match work {
                Work::Upload { to, .. } | Work::Zero { to } => (None, Some(to), &[][..]),
                Work::Copy { from, to } => (Some(from), Some(to), &[][..]),
                Work::Launch { slots, .. } => (None, None, &slots[..]),
                Work::Download { from } => (Some(from), None, &[][..]),
            };
            let slots = slots.iter().flatten().map(|(region, write)| (region, *write));
            read.map(|region| (region, false)).into_iter().chain(written.map(|region| (region, true))).chain(slots)
        });
        of_work.chain(self.constants.iter().map(|(to, _)| (to, true)))
    }

    /// All memory that the work touches, what is touched first at the end, and that which it writes; each once, unless another thread lists
    /// it, too, for a batch of its own. In that order it goes back to the pool, which is a stack: the same recording, made again, takes the
    /// same memory for the same things, and its command buffer is found.
    fn memory(&self) -> (Vec<Arc<Held>>, Vec<&Held>) {
        static BATCHES: AtomicU64 = AtomicU64::new(0);
        let number = 1 + BATCHES.fetch_add(1, Relaxed);
        let (mut touched, mut written) = (Vec::new(), Vec::new());
        for (region, write) in self.regions() {
            let held = &region.memory.held;
            let is_new = |listed: &AtomicU64| {
                let new = listed.load(Relaxed) != number;
                if new {
                    listed.store(number, Relaxed);
                }
                new
            };
            if is_new(&held.listed[0]) {
                touched.push(held.clone());
            }
            if write && is_new(&held.listed[1]) {
                written.push(&**held);
            }
        }
        touched.reverse();
        (touched, written)
    }

    /// Whether the work makes sense: lengths that match and are not 0, regions of this device, no copy onto itself.
    fn check(&self, shared: &Arc<Shared>) -> Result<(), Error> {
        let malformed = |kernel, reason: &str| Err(Error::MalformedJob { kernel, reason: reason.into() });
        if self.regions().any(|(region, _)| !Arc::ptr_eq(&region.memory.shared, shared)) {
            return malformed("batch", "a region belongs to another device");
        }
        if self.constants.iter().any(|(region, _)| region.bytes() == 0) {
            return malformed("batch", "constants have no bytes");
        }
        for work in &self.work {
            match work {
                Work::Upload { to: region, .. }
                | Work::Copy { from: region, .. }
                | Work::Zero { to: region }
                | Work::Download { from: region }
                    if region.bytes() == 0 =>
                {
                    return malformed("batch", "a region has no bytes");
                }
                Work::Upload { to, bytes } if bytes.len() as u64 != to.bytes() => {
                    return malformed("upload", "the region has another length");
                }
                Work::Copy { from, to } if from.bytes() != to.bytes() || from.overlaps(to) => {
                    return malformed("copy", "the regions have different lengths, or share memory");
                }
                Work::Launch { program, slots, elements, params, .. } => {
                    let program = &self.programs[*program];
                    let Made { shared: device, name, slots: uses, shape, parts, .. } = &*program.made;
                    if params.len() > max_params(uses.len()) {
                        return malformed(name, "too many parameters");
                    }
                    let given = |start: &Start| {
                        let begins = params.get(start.param);
                        begins.is_some() && start.modulo.is_none_or(|modulo| begins < params.get(modulo))
                    };
                    if !parts.starts.iter().all(given) {
                        return malformed(name, "no parameter says where it begins, or that is not below its modulus");
                    }
                    let workgroups = program.workgroups(*elements);
                    let suits = |(slot, needed): (&Option<(Region, bool)>, &SlotUse)| match slot {
                        None => *needed == SlotUse::None,
                        Some((region, write)) => {
                            needed.suits(*elements, workgroups, (region.bytes(), *write))
                                && region.range.start.is_multiple_of(needed.alignment())
                        }
                    };
                    let all_suit = slots.len() == uses.len() && slots.iter().zip(uses).all(suits);
                    if !all_suit || !Arc::ptr_eq(device, shared) {
                        return malformed(name, "the slots are not those of the kernel, or it is another device's");
                    }
                    // In place is fine where a workgroup reads its elements before it writes them. Anything else is a race.
                    let in_place = |index: usize, other: usize| {
                        *shape == Shape::Invocations && uses[index].is_element_wise() && uses[other].is_element_wise()
                    };
                    for (index, (region, write)) in slots.iter().enumerate().filter_map(|(i, s)| Some((i, s.as_ref()?))) {
                        let others = slots.iter().enumerate().filter(|(other, _)| *other != index);
                        let mut others = others.filter_map(|(other, slot)| Some((other, &slot.as_ref()?.0)));
                        if *write
                            && others.any(|(at, other)| {
                                other.overlaps(region) && !(in_place(index, at) && other.range == region.range)
                            })
                        {
                            return malformed(name, "an output overlaps an input that it is not equal to");
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl Device {
    /// The most elements in a dispatch, if they can be cut like that: [`Options::chunk_elements`](crate::Options::chunk_elements).
    pub fn chunk_elements(&self) -> usize {
        self.shared.settings.chunk_elements
    }

    /// How much memory a batch takes beside the regions that it was given: bytes of its constants, where regions lie, and of
    /// host memory to stage what is written and fetched.
    pub fn batch_required(&self, batch: &Batch) -> (u64, u64) {
        let constants = batch.constants.iter().map(|(region, _)| region.whole()).sum();
        let of_constants = batch.constants.iter().map(|(_, bytes)| bytes.len());
        let uploads = batch
            .work
            .iter()
            .filter_map(|work| if let Work::Upload { bytes, .. } = work { Some(bytes.len()) } else { None });
        let staged =
            of_constants.chain(uploads).filter(|bytes| !self.shared.writes_inline(*bytes)).map(|bytes| bytes as u64);
        let downloads =
            batch.work.iter().filter_map(|work| if let Work::Download { from } = work { Some(from.bytes()) } else { None });
        (constants, staged.chain(downloads).map(|bytes| self.region_required(bytes)).sum())
    }

    /// Submits a batch: one command buffer, one submission. Of batches of which one writes what the other touches, the one submitted first
    /// runs first; others may run side by side.
    ///
    /// # Errors
    /// [`Error::MalformedJob`] before anything is done; [`Error::OutOfMemory`] for staging memory; [`Error::Lost`].
    pub fn submit(&self, batch: &Batch) -> Result<Ticket, Error> {
        let shared = &self.shared;
        batch.check(shared)?;
        shared.refuse_if_lost()?;
        shared.reap();
        shared.make_room()?;
        let mut staging = Staged { shared, buffers: Vec::new() };
        let mut downloads = Staged { shared, buffers: Vec::new() };
        let mut uploads: Vec<&[u8]> = Vec::new();
        let inline = |bytes: &[u8]| shared.writes_inline(bytes.len());
        let mut upload = |bytes| {
            if inline(bytes) {
                count(&shared.counters.uploaded, bytes.len() as u64);
                return Ok(());
            }
            uploads.push(bytes);
            staging.take(bytes.len() as u64)
        };
        batch.constants.iter().try_for_each(|(_, bytes)| upload(bytes))?;
        for work in &batch.work {
            match work {
                Work::Upload { bytes, .. } => upload(bytes)?,
                Work::Download { from } => downloads.take(from.bytes())?,
                _ => {}
            }
        }
        if !uploads.is_empty() {
            let bytes = uploads.iter().map(|bytes| bytes.len() as u64).sum::<u64>();
            let _timed = shared.timed(Stage::CopyIn, 2 * bytes);
            let copies = staging.buffers.iter_mut().zip(uploads).map(|(buffer, bytes)| Ok((buffer.bytes()?, bytes)));
            count(&shared.counters.uploaded, shared.threads.copy(copies.collect::<Result<_, Error>>()?, Towards::Device));
        }

        let timed = shared.timed(Stage::Submit, 0);
        let (mut up, mut down) = (staging.buffers.iter(), downloads.buffers.iter());
        // Of all launches, one after the other.
        let launched =
            || batch.work.iter().filter_map(|work| if let Work::Launch { slots, .. } = work { Some(slots) } else { None });
        let mut given: Vec<Given> = Vec::with_capacity(launched().map(|slots| slots.len()).sum());
        for slot in launched().flatten() {
            given.push(match slot {
                Some((region, write)) => Some((region.span()?, *write)),
                None => None,
            });
        }
        let mut given = &given[..];
        let mut write = |to, bytes| {
            if inline(bytes) {
                return Some(Op::Write { to, bytes });
            }
            up.next().map(|buffer| Op::Copy { from: Span::new(buffer, 0, to.bytes), to })
        };
        let mut ops = Vec::with_capacity(batch.constants.len() + batch.work.len());
        for (to, bytes) in &batch.constants {
            ops.extend(write(to.span()?, bytes));
        }
        let mut read_backs = Vec::new();
        for work in &batch.work {
            match work {
                Work::Upload { to, bytes } => ops.extend(write(to.span()?, bytes)),
                Work::Copy { from, to } => ops.push(Op::Copy { from: from.span()?, to: to.span()? }),
                Work::Zero { to } => ops.push(Op::Zero { to: to.span()? }),
                Work::Launch { program, slots, elements, weight, params } => {
                    let (slots, others) = given.split_at(slots.len());
                    let (program, slots) = (&batch.programs[*program], slots.into());
                    ops.push(Op::Launch { program, slots, elements: *elements, weight: *weight, params });
                    given = others;
                }
                Work::Download { from } => {
                    let Some(buffer) = down.next() else { continue };
                    let to = Span::new(buffer, 0, from.bytes());
                    ops.push(Op::Copy { from: from.span()?, to });
                    read_backs.push(Op::ReadBack { of: to });
                }
            }
        }
        // Last, so that they share one barrier.
        ops.append(&mut read_backs);
        let lane = shared.recorded(Role::Compute, &ops)?;
        drop(ops);
        let (held, written) = batch.memory();
        let until = match shared.submit_in_order(&lane, &held, &written) {
            Ok(until) => until,
            Err(error) => {
                shared.keep_unsubmitted(lane);
                return Err(error);
            }
        };
        shared.in_flight.lock().push(InFlight { until, lanes: vec![lane], held, staging: staging.keep() });
        drop(timed);
        Ok(Ticket { shared: shared.clone(), until, downloads: downloads.keep(), awaited: None })
    }
}

impl Shared {
    /// Whether what is written lies in the command buffer, and need not be staged. Command buffers are not wiped.
    fn writes_inline(&self, bytes: usize) -> bool {
        !self.settings.wipe && bytes <= MOST_INLINE && bytes.is_multiple_of(4)
    }
}

/// Staging buffers that go back to the pool unless they are kept.
struct Staged<'a> {
    shared: &'a Shared,
    buffers: Vec<Buffer>,
}

impl Staged<'_> {
    fn take(&mut self, bytes: u64) -> Result<(), Error> {
        self.buffers.push(self.shared.buffer(Place::Host, bytes)?);
        Ok(())
    }

    fn keep(mut self) -> Vec<Buffer> {
        std::mem::take(&mut self.buffers)
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        self.shared.release(self.buffers.drain(..));
    }
}

/// A submitted batch.
#[must_use]
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) until: Point,
    downloads: Vec<Buffer>,
    /// By what name the waiter knows it, if it is awaited.
    pub(super) awaited: Option<u64>,
}

impl Ticket {
    /// Whether the batch has finished.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn is_done(&self) -> Result<bool, Error> {
        self.shared.refuse_if_lost()?;
        self.shared.is_finished(self.until)
    }

    /// Waits until the batch has finished, at most for `timeout`; whether it has.
    ///
    /// # Errors
    /// [`Error::Lost`].
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        self.shared.refuse_if_lost()?;
        self.shared.wait_at_most(self.until, timeout)
    }

    /// Waits until the batch has finished and copies its downloads, in the order in which they were asked for, to slices of
    /// the same lengths.
    ///
    /// # Errors
    /// [`Error::TimedOut`] and [`Error::Lost`]; [`Error::MalformedJob`] if the slices do not fit the downloads.
    pub fn finish(mut self, targets: &mut [&mut [u8]]) -> Result<(), Error> {
        {
            let _timed = self.shared.timed(Stage::Wait, 0);
            self.shared.wait(self.until)?;
        }
        // Lost meanwhile, as another thread found: then nothing from it is believed.
        self.shared.refuse_if_lost()?;
        let fits = |(target, buffer): (&&mut [u8], &Buffer)| target.len() as u64 <= buffer.size;
        if targets.len() != self.downloads.len() || !targets.iter().zip(&self.downloads).all(fits) {
            return Err(Error::MalformedJob { kernel: "download", reason: "slices do not fit the downloads".into() });
        }
        let mut copies: Vec<(&mut [u8], &[u8])> = Vec::new();
        for (target, buffer) in targets.iter_mut().zip(&mut self.downloads) {
            let length = target.len();
            copies.push((target, &buffer.bytes()?[..length]));
        }
        {
            let _timed =
                self.shared.timed(Stage::CopyOut, 2 * copies.iter().map(|(_, from)| from.len() as u64).sum::<u64>());
            count(&self.shared.counters.downloaded, self.shared.threads.copy(copies, Towards::Caller));
        }
        self.shared.reap();
        Ok(())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.forget();
        // The submission may still be writing them.
        let staging = std::mem::take(&mut self.downloads);
        if !staging.is_empty() {
            let done = InFlight { until: self.until, lanes: Vec::new(), held: Vec::new(), staging };
            self.shared.in_flight.lock().push(done);
            self.shared.reap();
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({})", self.until.value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::Options;

    #[test]
    fn regions_without_bytes_are_refused() {
        let device = Device::new(&Options::default()).unwrap();
        let region = device.allocate(16).unwrap();
        let empty = region.slice(8..8).unwrap();
        let refused = |add: &dyn Fn(&mut Batch)| {
            let mut batch = Batch::default();
            batch.zero(&region);
            add(&mut batch);
            matches!(device.submit(&batch), Err(Error::MalformedJob { kernel: "batch", .. }))
        };
        assert!(refused(&|batch| batch.upload(&empty, Arc::new([]))));
        assert!(refused(&|batch| batch.copy(&empty, &region.slice(0..0).unwrap())));
        assert!(refused(&|batch| batch.zero(&empty)));
        assert!(refused(&|batch| batch.download(&empty)));
        assert!(refused(&|batch| assert!(batch.constants(&device, &[]).unwrap().bytes() == 0)));
        assert!(!refused(&|batch| batch.zero(&region.slice(0..8).unwrap())));
        assert!(matches!(device.allocate(u64::MAX), Err(Error::OutOfMemory { during: "one allocation", .. })));
    }

    #[test]
    fn nothing_to_do_is_done() {
        let device = Device::new(&Options::default()).unwrap();
        device.submit(&Batch::default()).unwrap().finish(&mut []).unwrap();
    }

    #[test]
    fn constants_are_there_whenever_a_batch_is_submitted() {
        for wipe in [false, true] {
            let device = Device::new(&Options { wipe, ..Options::default() }).unwrap();
            // Lengths that leave gaps, fill the memory of many, and are more than one copy in a command buffer.
            let all: Vec<Vec<u8>> = [4, 4, 12, 48, 1968, 2032, 4096, 4, 8000, 4]
                .into_iter()
                .enumerate()
                .map(|(number, length)| vec![number as u8 + 1; length])
                .collect();
            let mut batch = Batch::default();
            let places: Vec<Region> = all.iter().map(|bytes| batch.constants(&device, bytes).unwrap()).collect();
            assert!(places.iter().all(|place| place.range.start.is_multiple_of(16)));
            assert_eq!(batch.constants.len(), 5);
            places.iter().for_each(|place| batch.download(place));
            let fetched = |batch: &Batch, lengths: &[usize]| {
                let mut fetched: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![0; length]).collect();
                let mut targets: Vec<&mut [u8]> = fetched.iter_mut().map(Vec::as_mut_slice).collect();
                device.submit(batch).unwrap().finish(&mut targets).unwrap();
                fetched
            };
            let lengths: Vec<usize> = all.iter().map(Vec::len).collect();
            assert_eq!(fetched(&batch, &lengths), all);
            // A clone with more, and then the first again.
            let mut more = batch.clone();
            let place = more.constants(&device, &[99; 8]).unwrap();
            more.download(&place);
            assert_eq!(fetched(&more, &[&lengths[..], &[8]].concat()), [&all[..], &[vec![99; 8]]].concat());
            assert_eq!(fetched(&batch, &lengths), all);
        }
    }
}
