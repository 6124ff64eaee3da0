use crate::DeviceInfo;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What went wrong on the way to a device or on it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no Vulkan device that can be used; why, for the whole machine or for each device.
    #[error("no usable Vulkan device: {}", no_device(.reason, .devices))]
    NoDevice {
        /// What kept any device from being looked at (no Vulkan loader, no driver), if that is the reason.
        reason: Option<String>,
        /// Every device there is, with the reason it was turned down.
        devices: Vec<Verdict>,
    },
    /// A device was asked for by an index that does not exist.
    #[error("there is no Vulkan device {requested}: this machine has {available}")]
    NoSuchDevice {
        /// The index asked for.
        requested: usize,
        /// How many devices there are.
        available: usize,
    },
    /// The validation layer was asked for and is not installed.
    #[error("the validation layer VK_LAYER_KHRONOS_validation is not installed")]
    NoValidationLayer,
    /// The workgroup size asked for is not one this device can run.
    #[error("workgroup size {requested} is not between 1 and {maximum}, the most this device runs")]
    WorkgroupSize {
        /// The size asked for.
        requested: u32,
        /// The largest size that the device supports.
        maximum: u32,
    },
    /// The directory asked for cannot hold the pipeline cache.
    #[error("cannot keep the pipeline cache in {}: {reason}", .path.display())]
    CacheDirectory {
        /// The directory.
        path: PathBuf,
        /// What the operating system said.
        reason: String,
    },
    /// A job's slices do not fit together, or its kernel takes more parameters than there is room for.
    #[error("malformed job for kernel {kernel}: {reason}")]
    MalformedJob {
        /// The kernel.
        kernel: &'static str,
        /// What does not fit.
        reason: String,
    },
    /// There is not enough device or host memory.
    #[error("out of memory in {during}{}", amounts(.needed, .available))]
    OutOfMemory {
        /// The call, or the step of planning, that found out.
        during: &'static str,
        /// Bytes that the smallest possible chunk, or the failed allocation, needs; 0 if the driver does not say.
        needed: u64,
        /// Bytes that the device or the configured limit has left for it; 0 if the driver does not say.
        available: u64,
    },
    /// The device did not finish in time. It counts as lost from then on.
    #[error("the device did not finish within {after:?}")]
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The device is lost: it fell off the bus, or its driver reset it. A new one must be made.
    #[error("the Vulkan device is lost ({during})")]
    Lost {
        /// The call that said so.
        during: &'static str,
    },
    /// The driver refused a call in a way that has no name of its own here.
    #[error("{call} failed: {code}")]
    Driver {
        /// The Vulkan call.
        call: &'static str,
        /// The `VkResult`, in words.
        code: String,
    },
}

impl Error {
    /// Whether the device is lost: every later job on it is refused.
    pub fn is_loss(&self) -> bool {
        matches!(self, Error::Lost { .. } | Error::TimedOut { .. })
    }
}

/// What was decided about a device, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The device.
    pub device: DeviceInfo,
    /// Why it cannot be used; `None` if it can.
    pub turned_down: Option<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.turned_down {
            Some(reason) => write!(f, "{}: turned down, {reason}", self.device),
            None => write!(f, "{}: usable", self.device),
        }
    }
}

fn amounts(needed: &u64, available: &u64) -> String {
    if *needed == 0 { String::new() } else { format!(": {needed} bytes needed, {available} available") }
}

fn no_device(reason: &Option<String>, devices: &[Verdict]) -> String {
    match reason {
        Some(reason) => reason.clone(),
        None => devices.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    }
}
