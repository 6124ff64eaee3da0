//! How to run it: a persistent Vulkan compute device for element-wise jobs on vectors in host memory.
//!
//! This crate knows Vulkan, memory, queues and time; it knows nothing of fields. A [`Device`] is made once and used from many
//! threads. A [`Kernel`] (SPIR-V and specialization constants) is prepared into a [`Program`], and a [`Job`] runs a program
//! over slices of host memory, in as many chunks as the device's limits ask for.
//!
//! The Vulkan loader is found at run time: the crate builds, and answers [`Error::NoDevice`], on machines without Vulkan.
//!
//! # Synchronisation
//! A pure planner ([`plan`](mod@plan)) turns a list of copies and launches into submissions to queues with the fewest barriers in them and
//! the waits between them: within a submission, steps that do not depend on one another go side by side, and so do the parts of a launch
//! that is more than the device should do at once ([`Parts`]). A separate checker proves the plan free of hazards and complete (in debug
//! builds, for every submission; of short ones also that it would notice each barrier missing). Each queue has one timeline semaphore, which its
//! submissions signal with their numbers.
//!
//! A [`Job`] goes through the device in chunks, up to four of them under way, each with buffers of its own: while the device
//! computes one, the CPU fills and empties others and checks what has come back ([`Watch`]). Chunks alternate between two compute
//! queues where there are two; staged ones are copied by transfer queues where there are any, waiting for one another on the
//! device. A chunk's buffers are used again when the calling thread has seen its last submission's number on the timeline. Short
//! jobs that several threads submit at the same time share a command buffer, which one of the threads records while the others wait; at most 64 do,
//! and further ones wait for them. Of a job with
//! a [`Share`] the CPU computes the end meanwhile, on the helpers that copy, when there is nothing to copy.
//!
//! A [`Batch`] of work on [`Region`]s is one submission to the compute queue. It waits, on the device, for the last unfinished one
//! that wrote what it touches, or touched what it writes; those that only read the same memory go side by side. Memory goes back to the pool when the number of its last use has passed; nobody waits for idle. Each
//! queue is behind a mutex that is held only for `vkQueueSubmit`.
//!
//! Calling threads and helpers share nothing else without a lock but counters, the marks by which a batch lists memory once, the number of
//! gathered submissions that those who wait for one look at before they take the lock, and the operations of such jobs, which whoever records
//! them reads where their threads, waiting, have them; a heap of pieces to copy is behind a mutex, and its count of what is left is an atomic
//! that the caller waits for.

mod cache_file;
mod combine;
mod error;
mod job;
mod options;
pub mod plan;
mod profile;
mod vulkan;

pub use error::{Error, Verdict};
pub use job::{Job, Kernel, MAX_PARAMS, MAX_SLOTS, Parts, Reach, Shape, Share, Slot, SlotUse, Start};
pub use options::{CacheDirectory, MemoryMode, Options, Validation};
pub use plan::Weight;
pub use profile::{Profile, Span, Stage, Track};
pub use vulkan::{
    Batch, Device, DeviceInfo, DeviceKind, Landed, Pinned, Program, Ran, Region, Stats, Threads, Ticket, Timed,
    ValidationLog, Watch, survey,
};
#[cfg(feature = "test-faults")]
pub use vulkan::{CallClass, Failure, Faults, Injection};
