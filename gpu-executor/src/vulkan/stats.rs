//! Counters of what a device does.

use super::Device;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

#[derive(Default)]
pub(super) struct Counters {
    pub(super) submits: AtomicU64,
    pub(super) waits: AtomicU64,
    pub(super) dispatches: AtomicU64,
    pub(super) barriers: AtomicU64,
    pub(super) repeats: AtomicU64,
    pub(super) uploaded: AtomicU64,
    pub(super) downloaded: AtomicU64,
    pub(super) allocations: AtomicU64,
    pub(super) descriptor_updates: AtomicU64,
    pub(super) pipeline_builds: AtomicU64,
    pub(super) pipeline_hits: AtomicU64,
    pub(super) pipeline_cache_hits: AtomicU64,
}

/// What a device has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls of `vkQueueSubmit`.
    pub submits: u64,
    /// Semaphores that submissions waited for on the device: for earlier ones that had not finished.
    pub waits: u64,
    /// Dispatches: one for each chunk of a call, and for each part of a recorded operation.
    pub dispatches: u64,
    /// Pipeline barriers.
    pub barriers: u64,
    /// Command buffers that were found, having been recorded for an earlier submission of the same work.
    pub repeats: u64,
    /// Bytes copied from the caller's slices into memory that the device sees.
    pub bytes_uploaded: u64,
    /// Bytes copied back.
    pub bytes_downloaded: u64,
    /// Buffers made, rather than reused.
    pub allocations: u64,
    /// Descriptor sets written: one per buffer, when a kernel first reaches it by descriptor.
    pub descriptor_updates: u64,
    /// Pipelines made.
    pub pipeline_builds: u64,
    /// Pipelines found in memory.
    pub pipeline_hits: u64,
    /// Pipelines that the driver found in the cache from disk when they were made (as far as it tells).
    pub pipeline_cache_hits: u64,
}

pub(super) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Relaxed);
}

impl Device {
    /// What the device has done so far.
    pub fn stats(&self) -> Stats {
        let c = &self.shared.counters;
        Stats {
            submits: c.submits.load(Relaxed),
            waits: c.waits.load(Relaxed),
            dispatches: c.dispatches.load(Relaxed),
            barriers: c.barriers.load(Relaxed),
            repeats: c.repeats.load(Relaxed),
            bytes_uploaded: c.uploaded.load(Relaxed),
            bytes_downloaded: c.downloaded.load(Relaxed),
            allocations: c.allocations.load(Relaxed),
            descriptor_updates: c.descriptor_updates.load(Relaxed),
            pipeline_builds: c.pipeline_builds.load(Relaxed),
            pipeline_hits: c.pipeline_hits.load(Relaxed),
            pipeline_cache_hits: c.pipeline_cache_hits.load(Relaxed),
        }
    }
}
