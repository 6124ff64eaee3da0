//! How to run it: a persistent Vulkan compute device for element-wise jobs on vectors in host memory.
//!
//! This crate knows Vulkan, memory, queues and time; it knows nothing of fields. A [`Device`] is made once and used from many
//! threads. A [`Kernel`] (SPIR-V and specialization constants) is prepared into a [`Program`], and a [`Job`] runs a program
//! over slices of host memory, in as many chunks as the device's limits ask for.
//!
//! The Vulkan loader is found at run time: the crate builds, and answers [`Error::NoDevice`], on machines without Vulkan.
//!
//! # Synchronisation
//! Inside one submission, a pure planner ([`plan`]) turns the list of copies and dispatches into the fewest barriers and a
//! separate checker proves the plan free of hazards (in debug builds, for every submission, and that it would notice each
//! barrier missing). Across submissions the queue's timeline semaphore orders: a [`Job`] owns its buffers until the semaphore
//! has passed the job's value, which the calling thread waits for; a [`Batch`] of work on [`Region`]s of device memory waits,
//! on the device, for the last unfinished submission that touched one of them. The queue itself is behind a mutex that is held
//! only for `vkQueueSubmit`. Memory goes back to the pool when the value of its last use has passed.
//!
//! # Limits
//! One queue; a job's chunks run one after another, without overlap of transfers and compute.

mod cache_file;
mod combine;
mod error;
mod job;
mod options;
pub mod plan;
mod profile;
mod vulkan;

pub use error::{Error, Verdict};
pub use job::{Job, Kernel, MAX_PARAMS, Reach, Shape, Slot, SlotUse};
pub use options::{CacheDirectory, MemoryMode, Options, Validation};
pub use profile::{Profile, Span, Stage, Track};
pub use vulkan::{
    Batch, Device, DeviceInfo, DeviceKind, Landed, Pinned, Program, Region, Stats, Threads, Ticket, Timed, ValidationLog,
    Watch, survey,
};
#[cfg(feature = "test-faults")]
pub use vulkan::{CallClass, Failure, Faults, Injection};
