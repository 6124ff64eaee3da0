//! Arithmetic about commands, without Vulkan: how a job is cut into chunks, how a launch is cut into parts and spread over workgroups, which
//! queue does what, and where barriers and waits go. All of it is pure and tested without a device. A recording, or a chunk of a job, is
//! [planned](plan) in one piece; [another function](find_hazard_across) proves a plan free of hazards.

mod barriers;
mod check;
mod chunks;
mod queues;

pub use barriers::{Access, Barrier, Command, Stage, Stages, Step};
pub use check::{Hazard, every_barrier_matters, find_hazard, find_hazard_across};
pub use chunks::{Bounds, Dispatch, Extent, Weight, buffer_size, elements_per_chunk, ranges, size_class, workgroups};
pub use queues::{Role, Submission, plan};
