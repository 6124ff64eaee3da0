//! Arithmetic about commands, without Vulkan: how a job is cut into chunks, how a chunk is spread over workgroups, which queue
//! does what, and where barriers and waits go. All of it is pure and tested without a device.

mod barriers;
mod chunks;
mod queues;

pub use barriers::{Access, Barrier, Command, Hazard, Stage, Stages, Step, every_barrier_matters, find_hazard, plan};
pub use chunks::{Bounds, buffer_size, elements_per_chunk, ranges, size_class, workgroups};
pub use queues::{Role, Submission, find_hazard_across, submissions};
