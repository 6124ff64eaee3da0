//! Memory that stays on the device.

use super::encode::Span;
use super::memory::Buffer;
use super::{Device, Shared};
use crate::Error;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Weak};

/// A range of device memory. Clones and slices share the memory, which goes back to the device's pool when the last of them and
/// the last submission that uses it are gone; nobody waits for that.
///
/// Its contents are whatever the pool's memory held before, until something is written.
#[derive(Clone)]
pub struct Region {
    // One count of those who share it, not one of each: launches have several regions, and every one is cloned.
    pub(super) memory: Arc<Allocated>,
    pub(super) range: Range<u64>,
}

/// What regions share.
pub(super) struct Allocated {
    // Declared first: it goes back to the pool of a device that is still there.
    pub(super) held: Arc<Held>,
    pub(super) shared: Arc<Shared>,
    /// Whether it is that of a batch's constants.
    constants: bool,
}

/// A buffer that regions share. Submissions in flight hold it too, and are held by the device: hence the weak reference.
pub(super) struct Held {
    device: Weak<Shared>,
    /// Taken out when it goes back to the pool; a placeholder has none.
    buffer: Option<Buffer>,
    /// The timeline value of the last submission that touched it: the next one that writes it waits for that, on the device.
    pub(super) last_use: AtomicU64,
    /// That of the last one that wrote it: the next one that reads it waits for that.
    pub(super) last_write: AtomicU64,
    /// The numbers of the last batches that were found to touch it and to write it.
    pub(super) listed: [AtomicU64; 2],
}

impl Held {
    /// The buffer of a device that is being destroyed.
    pub(super) fn into_buffer(mut self) -> Option<Buffer> {
        self.buffer.take()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // No region and no submission uses the buffer any more.
        if let (Some(buffer), Some(shared)) = (self.buffer.take(), self.device.upgrade()) {
            shared.memory.release_resident(buffer.size);
            shared.release([buffer]);
        }
    }
}

impl Region {
    /// Bytes in the region.
    pub fn bytes(&self) -> u64 {
        self.range.end - self.range.start
    }

    /// A part of the region, which shares its memory; `None` if `range` goes past its end or an end of it is no multiple of 4
    /// bytes.
    pub fn slice(&self, range: Range<u64>) -> Option<Region> {
        let whole_words = range.start.is_multiple_of(4) && range.end.is_multiple_of(4);
        let inside = range.start <= range.end && range.end <= self.bytes() && whole_words;
        let range = self.range.start + range.start..self.range.start + range.end;
        inside.then(|| Region { memory: self.memory.clone(), range })
    }

    /// Whether the two regions have bytes in common.
    pub fn overlaps(&self, other: &Region) -> bool {
        Arc::ptr_eq(&self.memory, &other.memory) && self.range.start < other.range.end && other.range.start < self.range.end
    }

    /// A number that the region shares with those that share its memory, and with no others that are there at the same time.
    pub fn memory(&self) -> usize {
        Arc::as_ptr(&self.memory) as usize
    }

    /// Which bytes of its memory the region is.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// How many bytes the buffer has that the region is part of.
    pub(super) fn whole(&self) -> u64 {
        self.memory.held.buffer.as_ref().map_or(0, |buffer| buffer.size)
    }

    pub(super) fn span(&self) -> Result<Span<'_>, Error> {
        let buffer = self.memory.held.buffer.as_ref().ok_or(Error::Lost { during: "an earlier job" })?;
        Ok(Span { whole: self.memory.constants, ..Span::new(buffer, self.range.start, self.bytes()) })
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({} bytes)", self.bytes())
    }
}

impl Device {
    /// Memory of `bytes` bytes on the device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the device's limit, or its largest allocation, does not allow it now; [`Error::Lost`].
    pub fn allocate(&self, bytes: u64) -> Result<Region, Error> {
        self.allocate_for(bytes, false)
    }

    /// A region of `bytes` bytes that has no memory: what a batch would take is found with it, but the batch cannot be submitted
    /// ([`Error::Lost`]).
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the device's largest allocation does not allow it.
    pub fn placeholder(&self, bytes: u64) -> Result<Region, Error> {
        self.shared.fits_one_allocation(bytes)?;
        Ok(self.region(None, bytes, false))
    }

    fn region(&self, buffer: Option<Buffer>, bytes: u64, constants: bool) -> Region {
        let held = Held {
            device: Arc::downgrade(&self.shared),
            buffer,
            last_use: AtomicU64::new(0),
            last_write: AtomicU64::new(0),
            listed: Default::default(),
        };
        let memory = Allocated { held: Arc::new(held), shared: self.shared.clone(), constants };
        Region { memory: Arc::new(memory), range: 0..bytes }
    }

    pub(super) fn allocate_for(&self, bytes: u64, constants: bool) -> Result<Region, Error> {
        let shared = &self.shared;
        shared.fits_one_allocation(bytes)?;
        shared.refuse_if_lost()?;
        let size = shared.memory.size(bytes);
        shared.with_memory(|| shared.memory.reserve_resident(size))?;
        let buffer = shared.buffer(shared.settings.resident, bytes).inspect_err(|_| shared.memory.release_resident(size))?;
        Ok(self.region(Some(buffer), bytes, constants))
    }
}
