//! How jobs are cut into chunks, and what memory these take.

use super::memory::Place;
use super::{Device, Shared};
use crate::job::SLOTS;
use crate::{Error, SlotUse, plan};

/// The most chunks of a job under way at a time: one on its way in, one being computed, one on its way out, and one that the
/// CPU fills or empties.
const UNDER_WAY: usize = 4;

/// The most bytes of one vector in a chunk. Larger ones pin more memory for longer and gain nothing.
const CHUNK_BYTES: u64 = 128 << 20;

/// What a chunk must be worth, in half multiplications or about, so that the time that it takes to get it going does not show. H200,
/// Fq add of 65536 elements from pageable memory: 270 us with 2^16 (and a first chunk of half the size), 295 with 2^15, 280 with
/// 2^17; of 2^20, 3.1 ms with any.
const CHUNK_WORK: u64 = 1 << 16;

/// How a job is cut.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// The chunks that it is cut into at least, if they are worth it.
    chunks: usize,
    /// The fewest elements that are worth a chunk.
    elements: usize,
    /// Whether the first chunk of several, and every other after it, is computed by the queue beside.
    pub(super) beside_first: bool,
    /// The most chunks under way at a time.
    most: usize,
    /// Whether chunks are a little longer rather than one more.
    even: bool,
}

impl Cut {
    /// For what is checked or not, of which anything is copied or nothing is.
    pub(super) const fn of(checked: bool, copied: bool) -> Self {
        match (checked, copied) {
            (true, _) => CHECKED,
            (false, true) => FINE,
            (false, false) => COARSE,
        }
    }

    /// For what the CPU has a share in: what the device takes in early is out of the CPU's reach.
    pub(super) const fn shared(self) -> Self {
        Self { most: 2, even: true, ..self }
    }
}

/// For what the CPU copies. The 65536 additions take 269 us in three chunks of which the queue
/// beside, which there does graphics too, has the first and the last; 280 if it has the one between. Why is not known.
const FINE: Cut = Cut { chunks: 16, elements: 1, beside_first: true, most: UNDER_WAY, even: false };

/// For what the CPU checks when it has come out: others look at a chunk while more come. H200, Fq mul of 2^24 pinned elements, where the
/// CPU's check alone takes 107 to 111 ms: 108 in 32 chunks (33, since the first is cut in two), 110 in 16; 115 and 111 if all threads wait for the
/// last of a chunk. Pageable ones: 148 in 32, 144 in 64.
const CHECKED: Cut = Cut { chunks: 32, ..FINE };

/// For what lies in pinned memory and is at most looked at there. H200, Fq add of 2^24 elements: 0.498 G a second in 16 chunks, 0.511
/// in 8, 0.508 in 4; and 0.506 in 8 if the queue beside has the first. Of 2^20: 0.38 in 16 chunks, 0.43 in 4, 0.47 in 2.
const COARSE: Cut = Cut { chunks: 8, elements: 1 << 19, beside_first: false, most: UNDER_WAY, even: false };

/// The bytes that a chunk's buffers have, on either side.
pub(super) fn footprint(widths: &[usize; SLOTS], chunk: usize) -> u64 {
    widths.iter().filter(|&&width| width > 0).map(|&width| plan::size_class((width * chunk) as u64)).sum()
}

impl Shared {
    /// What limits a dispatch in workgroups of this size: the device, [`Options::chunk_elements`](crate::Options::chunk_elements), and what no
    /// display or watchdog should wait for.
    pub(super) fn dispatch(&self, workgroup_size: u32) -> plan::Dispatch {
        let settings = &self.settings;
        let workgroups = settings.limits.workgroups.map(u64::from).iter().product();
        plan::Dispatch { elements: settings.chunk_elements, work: settings.work, workgroups, workgroup_size }
    }

    /// How many elements a chunk of a job has, and how many chunks are under way at a time; at most `most_elements` in a chunk, and
    /// as many as `wanted` where limits allow.
    pub(super) fn chunks(
        &self,
        elements: usize,
        widths: &[usize; SLOTS],
        cost: u64,
        (staged, workgroup_size): (bool, u32),
        (cut, most_elements, wanted): (Cut, usize, Option<usize>),
    ) -> Result<(usize, usize), Error> {
        let settings = &self.settings;
        // Enough of them that transfers, kernels and the CPU's work overlap. What is dear to compute is not cut fine: small
        // dispatches leave most of the device idle.
        let fine = elements
            .div_ceil(cut.chunks)
            .next_multiple_of(1024)
            .max(cut.elements)
            .max((CHUNK_WORK.saturating_mul(cost) / 2).try_into().unwrap_or(usize::MAX));
        let fine = if cut.even { elements.div_ceil((elements / fine).max(1)) } else { fine };
        let bounds = |memory| plan::Bounds {
            buffer: settings.limits.buffer.min(CHUNK_BYTES),
            memory,
            dispatch: plan::Dispatch {
                elements: settings.chunk_elements.min(most_elements).min(wanted.unwrap_or(fine).max(1)),
                ..self.dispatch(workgroup_size)
            },
        };
        let bytes = widths.iter().sum::<usize>().saturating_mul(elements);
        let place = if staged { Place::Device } else { Place::Host };
        let memory = self.memory.for_jobs(&self.gpu, place, bytes as u64);
        // Rather fewer chunks at a time than chunks of a few elements for want of memory.
        let unhindered = plan::elements_per_chunk(elements, widths, cost, &bounds(u64::MAX))?;
        for most in [cut.most, 2] {
            let chunk = plan::elements_per_chunk(elements, widths, cost, &bounds(memory / most as u64));
            if let Ok(chunk) = chunk
                && chunk >= unhindered.min(4096)
            {
                return Ok((chunk, most.min(elements.div_ceil(chunk))));
            }
        }
        Ok((plan::elements_per_chunk(elements, widths, cost, &bounds(memory))?, 1))
    }
}

impl Device {
    /// How much device memory a job of `elements` elements takes while it runs, in bytes, and how much host memory beside the
    /// caller's slices, if none of these is pinned; for a program with these slots, staged or not, in chunks of so many elements: as
    /// [`Job::staged`](crate::Job::staged) and [`Job::chunk_elements`](crate::Job::chunk_elements).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the device's limits do not allow even one element.
    pub fn memory_required(
        &self,
        slots: &[SlotUse],
        (elements, cost): (usize, u64),
        (staged, chunk_elements): (Option<bool>, Option<usize>),
    ) -> Result<(u64, u64), Error> {
        let mut widths = [0; SLOTS];
        for (width, slot) in widths.iter_mut().zip(slots) {
            if let SlotUse::Reads(bytes) | SlotUse::Writes(bytes) = slot {
                *width = *bytes;
            }
        }
        if elements == 0 {
            return Ok((0, 0));
        }
        let settings = &self.shared.settings;
        let staged = staged.unwrap_or(settings.staged);
        let mut bytes = 0;
        // Whether it will be checked, shared with the CPU, or neither.
        for cut in [FINE, CHECKED, FINE.shared()] {
            let how = (cut, usize::MAX, chunk_elements);
            let (chunk, most) = self.shared.chunks(elements, &widths, cost, (staged, settings.workgroup_size), how)?;
            bytes = bytes.max(footprint(&widths, chunk) * most as u64);
        }
        Ok(if staged { (bytes, bytes) } else { (0, bytes) })
    }

    /// How much memory a region of `bytes` bytes takes.
    pub fn region_required(&self, bytes: u64) -> u64 {
        self.shared.memory.size(bytes)
    }
}
