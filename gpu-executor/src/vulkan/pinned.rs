//! Host memory that the device reads and writes where it lies.

use super::memory::{Buffer, Place};
use super::{Device, Shared};
use crate::Error;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

/// Bytes of host memory that the device reaches. Slices of them that are given to a [`Job`](crate::Job) of this device are not
/// copied by the CPU: kernels, or the device's copy engines, work on them directly. Aligned to 16 bytes at least.
///
/// Pinning takes longer than copying a few times would: make such memory once and keep it.
pub struct Pinned {
    shared: Arc<Shared>,
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the memory is this value's own, like a box's; it is mapped for the whole process.
unsafe impl Send for Pinned {}
// SAFETY: as above; shared references only read.
unsafe impl Sync for Pinned {}

/// What a device has pinned, by address.
#[derive(Default)]
pub(super) struct Registry {
    ranges: Mutex<BTreeMap<usize, Arc<Buffer>>>,
}

/// Where a slice lies in pinned memory.
pub(super) struct Found {
    pub(super) buffer: Arc<Buffer>,
    pub(super) offset: u64,
}

impl Device {
    /// Pinned memory of `bytes` bytes, all zero. It does not count towards the device's memory limit.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if the system gives no memory, or it is more than one allocation may have.
    pub fn pin(&self, bytes: usize) -> Result<Pinned, Error> {
        let shared = &self.shared;
        shared.fits_one_allocation(bytes as u64)?;
        shared.refuse_if_lost()?;
        let take = || shared.memory.take(&shared.gpu, &shared.counters, Place::Host, bytes as u64);
        let mut buffer = shared.with_memory(take)?;
        buffer.bytes()?[..bytes].fill(0);
        let start = buffer.pointer()?;
        shared.pinned.ranges.lock().insert(start.as_ptr() as usize, Arc::new(buffer));
        Ok(Pinned { shared: shared.clone(), start, bytes })
    }
}

impl Registry {
    /// Where `bytes` lie, if all of them lie in one piece of pinned memory, at a multiple of 16.
    pub(super) fn find(&self, bytes: &[u8]) -> Option<Found> {
        let address = bytes.as_ptr() as usize;
        let ranges = self.ranges.lock();
        let (start, buffer) = ranges.range(..=address).next_back()?;
        let offset = (address - start) as u64;
        let inside = offset + bytes.len() as u64 <= buffer.size && offset.is_multiple_of(16) && !bytes.is_empty();
        inside.then(|| Found { buffer: buffer.clone(), offset })
    }
}

impl Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the range is mapped and, since it was zeroed, initialised; the device writes it only while it is borrowed
        // mutably, by a job's output slice.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Pinned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let buffer = self.shared.pinned.ranges.lock().remove(&(self.start.as_ptr() as usize));
        // Jobs that use it borrow it, so that none does now.
        if let Some(buffer) = buffer.and_then(Arc::into_inner) {
            self.shared.release([buffer]);
        }
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({} bytes)", self.bytes)
    }
}
