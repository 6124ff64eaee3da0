use std::path::PathBuf;
use std::time::Duration;

/// How a [`Device`](crate::Device) is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device's index in the order Vulkan lists them; `None` takes the most capable kind: discrete, integrated, virtual
    /// and then software devices.
    pub device: Option<usize>,
    /// Where vectors lie while kernels work on them.
    pub memory: MemoryMode,
    /// Whether the Khronos validation layer watches.
    pub validation: Validation,
    /// Invocations per workgroup; `None` chooses by the kind of device.
    pub workgroup_size: Option<u32>,
    /// Where compiled pipelines are kept from one process to the next.
    pub cache: CacheDirectory,
    /// The most elements in one chunk, and in one dispatch, if they can be cut like that; `None` leaves it to the device's limits.
    pub chunk_elements: Option<usize>,
    /// The most bytes of buffers that kernels work on, over all jobs at once; `None` takes three quarters of the largest
    /// device-local heap. Jobs that find no room wait for others to finish.
    pub device_memory: Option<u64>,
    /// Fills memory with zeros when nobody uses it any more, before others get it.
    pub wipe: bool,
    /// How long the device, if it is waited for, may finish nothing at all before it counts as lost.
    pub timeout: Duration,
    /// Records no barrier at all, so that one sees synchronization validation notice.
    #[cfg(feature = "test-faults")]
    pub omit_barriers: bool,
    /// Counts the device's Vulkan calls and objects, and makes calls fail.
    #[cfg(feature = "test-faults")]
    pub faults: Option<crate::Faults>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            device: None,
            memory: MemoryMode::Auto,
            validation: Validation::Off,
            workgroup_size: None,
            cache: CacheDirectory::User,
            chunk_elements: None,
            device_memory: None,
            wipe: false,
            timeout: Duration::from_secs(120),
            #[cfg(feature = "test-faults")]
            omit_barriers: false,
            #[cfg(feature = "test-faults")]
            faults: None,
        }
    }
}

/// Where vectors lie while kernels work on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MemoryMode {
    /// Kernels reach for jobs' vectors in host memory; regions lie in device memory on discrete and virtual devices, in host
    /// memory on those that share the CPU's memory anyway.
    #[default]
    Auto,
    /// Device-local buffers, always filled and emptied through staging buffers.
    DeviceLocal,
    /// Cached host memory that kernels read and write directly.
    Host,
}

/// Whether, and how far, the Khronos validation layer watches. Its messages are kept in the device's
/// [`ValidationLog`](crate::ValidationLog).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Validation {
    /// Not loaded.
    #[default]
    Off,
    /// Its default checks.
    On,
    /// Its default checks and synchronization validation.
    Synchronization,
}

/// Where compiled pipelines are kept from one process to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum CacheDirectory {
    /// `bls12_field_gpu` in the user's cache directory; if that cannot be used, nowhere, with a warning.
    #[default]
    User,
    /// This directory, made if need be; if that cannot be used, an error.
    At(PathBuf),
    /// Nowhere.
    Off,
}
