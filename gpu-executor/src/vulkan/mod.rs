//! Vulkan itself: all of this crate's `unsafe` lies below here.

mod batch;
mod budget;
mod count;
mod cut;
mod encode;
#[cfg(feature = "test-faults")]
mod faults;
mod gather;
mod helpers;
mod instance;
mod landing;
mod lanes;
mod memory;
mod pinned;
mod pipeline;
mod profiler;
mod queue;
mod region;
mod run;
mod select;
mod share;
mod stats;
mod threads;
mod waiter;
mod wipe;

use crate::cache_file::CacheFile;
use crate::job::{MAX_SLOTS, SLOTS};
use crate::{CacheDirectory, Error, Kernel, MemoryMode, Options, Parts, Reach, Shape, SlotUse, Verdict};
use ash::vk;
pub use batch::{Batch, Ticket};
use budget::Budget;
#[cfg(feature = "test-faults")]
pub use faults::{CallClass, Failure, Faults, Injection};
use foldhash::fast::FixedState;
use instance::Instance;
pub use instance::ValidationLog;
use memory::{Memory, Place};
use parking_lot::Mutex;
pub use pinned::Pinned;
use pinned::Registry;
use pipeline::Pipelines;
use profiler::Profiler;
pub use profiler::Timed;
use queue::{InFlight, Queues};
pub use region::Region;
pub use run::{Landed, Ran, Watch};
use select::{Candidate, Limits};
pub use select::{DeviceInfo, DeviceKind, survey};
pub use stats::Stats;
use stats::{Counters, count};
use std::fmt;
use std::hash::BuildHasher as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
pub use threads::Threads;
use waiter::Waiter;

/// A Vulkan device with its queue, its memory and its pipelines: made once, used from any thread. Clones share it; it is
/// destroyed with the last of them and of its programs.
#[derive(Clone)]
pub struct Device {
    shared: Arc<Shared>,
}

/// A kernel made ready for a device. Clones share it.
#[derive(Clone)]
pub struct Program {
    made: Arc<Made>,
}

struct Made {
    shared: Arc<Shared>,
    name: &'static str,
    reach: Reach,
    slots: Vec<SlotUse>,
    shape: Shape,
    parts: Parts,
    /// A hash of slots, shape and parts: what is recorded for a launch beside its pipeline.
    form: u64,
    pipeline: vk::Pipeline,
    layout: vk::PipelineLayout,
    workgroup_size: u32,
}

/// The logical device; the last thing to go but for the instance.
struct Gpu {
    raw: ash::Device,
    physical: vk::PhysicalDevice,
    instance: Instance,
    /// How long it took to make the instance, to ask for its devices, and to make this one.
    took: Duration,
}

struct Shared {
    pipelines: Pipelines,
    memory: Memory,
    queues: Queues,
    pinned: Registry,
    /// What submissions use that nobody waits for, and those that never finished.
    in_flight: Mutex<Vec<InFlight>>,
    threads: Threads,
    waiter: Waiter,
    profiler: Profiler,
    /// Shared with the waiter's thread.
    lost: Arc<AtomicBool>,
    counters: Counters,
    settings: Settings,
    // Declared last: destroyed last.
    gpu: Gpu,
}

struct Settings {
    info: DeviceInfo,
    verdicts: Vec<Verdict>,
    limits: Limits,
    /// Whether jobs have their vectors copied to device memory and back.
    staged: bool,
    /// Where regions lie.
    resident: Place,
    wipe: bool,
    workgroup_size: u32,
    chunk_elements: usize,
    work: u64,
    timeout: Duration,
    #[cfg(feature = "test-faults")]
    omit_barriers: bool,
    #[cfg(feature = "test-faults")]
    faults: Option<Faults>,
}

/// Maps what `call` can answer. Memory exhaustion and device loss have errors of their own everywhere.
fn driver_error(call: &'static str) -> impl Fn(vk::Result) -> Error {
    move |result| match result {
        vk::Result::ERROR_DEVICE_LOST => Error::Lost { during: call },
        vk::Result::ERROR_OUT_OF_HOST_MEMORY | vk::Result::ERROR_OUT_OF_DEVICE_MEMORY => {
            Error::OutOfMemory { during: call, needed: 0, available: 0 }
        }
        other => Error::Driver { call, code: other.to_string() },
    }
}

impl Device {
    /// Makes a device as `options` say.
    ///
    /// # Errors
    /// [`Error::NoDevice`], [`Error::NoSuchDevice`], [`Error::NoValidationLayer`], [`Error::WorkgroupSize`],
    /// [`Error::CacheDirectory`], or what the driver answered.
    pub fn new(options: &Options) -> Result<Self, Error> {
        let begin = Instant::now();
        let mut instance = Instance::new(options.validation)?;
        let candidates = select::candidates(&instance)?;
        let mut told = begin.elapsed();
        let mut verdicts: Vec<Verdict> = candidates.iter().map(|candidate| candidate.verdict.clone()).collect();
        for candidate in select::ranked(&candidates, options.device)? {
            let settings = Settings::new(options, candidate)?;
            let file = cache_file(&options.cache, candidate)?;
            let limit = options.device_memory.unwrap_or(candidate.verdict.device.memory / 4 * 3);
            match Shared::new((instance, told), candidate, settings, file, limit) {
                Ok(mut shared) => {
                    shared.settings.verdicts = verdicts;
                    tracing::info!(device = %shared.settings.info, "Vulkan device ready");
                    return Ok(Self { shared: Arc::new(shared) });
                }
                // The next best one may work. It gets an instance of its own: this one may be part of the trouble.
                Err(error) => verdicts[candidate.verdict.device.index].turned_down = Some(error.to_string()),
            }
            let begin = Instant::now();
            instance = Instance::new(options.validation)?;
            told += begin.elapsed();
        }
        Err(select::no_device(verdicts))
    }

    /// The device.
    pub fn info(&self) -> &DeviceInfo {
        &self.shared.settings.info
    }

    /// Every device of this machine, and what was decided about it.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.shared.settings.verdicts
    }

    /// Whether regions lie in device-local memory, rather than in host memory.
    pub fn is_device_local(&self) -> bool {
        self.shared.settings.resident == Place::Device
    }

    /// Invocations per workgroup.
    pub fn workgroup_size(&self) -> u32 {
        self.shared.settings.workgroup_size
    }

    /// Invocations that the device runs together.
    pub fn subgroup_size(&self) -> u32 {
        self.shared.settings.limits.subgroup
    }

    /// The most invocations that a workgroup can have.
    pub fn most_invocations(&self) -> u32 {
        self.shared.settings.limits.workgroup_size
    }

    /// Bytes that regions and jobs may still take together.
    pub fn memory_left(&self) -> u64 {
        self.shared.memory.left()
    }

    /// How long the driver took to make the Vulkan instance, to tell of its devices, and to make this one.
    pub fn driver_time(&self) -> Duration {
        self.shared.gpu.took
    }

    /// The kernels of the pipelines that were built, and how long each took, in that order.
    pub fn build_times(&self) -> Vec<(&'static str, Duration)> {
        self.shared.pipelines.times()
    }

    /// Where compiled pipelines and [notes](Self::recall) are kept, if anywhere.
    pub fn cache_directory(&self) -> Option<&Path> {
        self.shared.pipelines.file()?.path.parent()
    }

    /// What was kept under a name for this device and driver, by this process or another; `None` if nothing was, if it is
    /// damaged (with a warning), or if nothing is kept at all.
    pub fn recall(&self, name: &str) -> Option<String> {
        self.shared.pipelines.file()?.note(name).load()
    }

    /// Keeps a text under a name for this device and driver, beside the pipeline cache. Replaces what was kept; does nothing
    /// where nothing is kept.
    ///
    /// # Errors
    /// Why it cannot be written.
    pub fn keep(&self, name: &str, text: &str) -> std::io::Result<()> {
        self.shared.pipelines.file().map_or(Ok(()), |file| file.note(name).store(text))
    }

    /// Gives the memory that is kept for reuse back to the driver.
    pub fn trim(&self) {
        self.shared.reap();
        self.shared.memory.trim(&self.shared.gpu);
    }

    /// Whether the device is lost: every job on it answers [`Error::Lost`].
    pub fn is_lost(&self) -> bool {
        self.shared.lost.load(Relaxed)
    }

    /// What the validation layer said; empty, too, when it is off.
    pub fn validation_log(&self) -> ValidationLog {
        self.shared.gpu.instance.log.clone()
    }

    /// Makes a kernel ready: finds its pipeline by the SHA-256 of what it is made from, or builds it, which takes
    /// milliseconds to seconds, and saves the driver's cache.
    ///
    /// # Safety
    /// The SPIR-V is valid for Vulkan 1.2 and for this device's features. Its constant 0 is the workgroup size along x, and no
    /// other constant has that id. It finds its slots and its parameters as `reach` says and as push constants hold them, and
    /// needs of a slot's address no more than that it is a multiple of the largest power of two, up to 16, that divides the slot's
    /// width. It touches only the slots that [`Kernel::slots`] names, in the ways named:
    /// - of [`Shape::Invocations`], invocation i reads and writes bytes i * width to (i + 1) * width of each slot, and nothing for
    ///   i at or beyond the number of elements;
    /// - of [`Shape::Groups`], workgroup g reads these bytes for i from g * group to (g + 1) * group, below the number of elements,
    ///   and writes bytes g * width to (g + 1) * width, and nothing where there is no such i;
    /// - of [`SlotUse::ReadsPer`] it reads, for element i, bytes i / per * width to (i / per + 1) * width.
    ///
    /// It may be launched in [`Parts`](Kernel::parts), side by side, each on fewer elements, with its parts of the slots and with the parameters
    /// that [`Parts::starts`] names changed as [`Start`](crate::Start) says: together these do what one launch does. So no workgroup waits for
    /// another.
    ///
    /// # Errors
    /// [`Error::WorkgroupSize`], [`Error::Lost`], or what the driver answered.
    pub unsafe fn prepare(&self, kernel: &Kernel) -> Result<Program, Error> {
        let Shared { pipelines, gpu, counters, settings, .. } = &*self.shared;
        self.shared.refuse_if_lost()?;
        let workgroup_size = kernel.workgroup_size.unwrap_or(settings.workgroup_size);
        let maximum = settings.limits.workgroup_size;
        if workgroup_size == 0 || workgroup_size > maximum {
            return Err(Error::WorkgroupSize { requested: workgroup_size, maximum });
        }
        let most = if kernel.reach == Reach::Addresses { MAX_SLOTS } else { SLOTS };
        if kernel.slots.len() < SLOTS || kernel.slots.len() > most {
            let reason = format!("{} slots, it may have {SLOTS} to {most}", kernel.slots.len());
            return Err(Error::MalformedJob { kernel: kernel.name, reason });
        }
        if let Some(reason) = kernel.parts.refused(&kernel.slots, kernel.shape) {
            return Err(Error::MalformedJob { kernel: kernel.name, reason: reason.into() });
        }
        let made = pipelines.get(gpu, counters, kernel, workgroup_size);
        let made = made.and_then(|pipeline| Ok((pipeline, pipelines.layout(gpu, kernel.reach)?)));
        let (pipeline, layout) = made.map_err(|error| self.shared.noting_loss(error))?;
        let made = Made {
            shared: self.shared.clone(),
            name: kernel.name,
            reach: kernel.reach,
            slots: kernel.slots.clone(),
            shape: kernel.shape,
            parts: kernel.parts,
            form: FixedState::default().hash_one((&kernel.slots, kernel.shape, kernel.parts)),
            pipeline,
            layout,
            workgroup_size,
        };
        Ok(Program { made: Arc::new(made) })
    }
}

impl Shared {
    fn new(
        (instance, told): (Instance, Duration),
        candidate: &Candidate,
        settings: Settings,
        file: Option<CacheFile>,
        limit: u64,
    ) -> Result<Self, Error> {
        let physical = candidate.physical_in(&instance)?;
        let begin = Instant::now();
        let make = || logical_device(&instance, physical, candidate);
        #[cfg(feature = "test-faults")]
        let raw = match &settings.faults {
            Some(faults) => faults.device(&instance.raw, make)?,
            None => make()?,
        };
        #[cfg(not(feature = "test-faults"))]
        let raw = make()?;
        let gpu = Gpu { raw, physical, took: told + begin.elapsed(), instance };
        // SAFETY: these are the queues that the device was made with.
        let queues = unsafe { Queues::new(&gpu, candidate.compute, candidate.others) }?;
        let parts = Pipelines::new(&gpu, file, candidate.feedback).and_then(|pipelines| {
            let budget = Budget::new(
                &gpu,
                candidate.memory_budget,
                #[cfg(feature = "test-faults")]
                settings.faults.clone(),
            );
            let memory = Memory::new(&gpu, (limit, candidate.limits.buffer), budget, candidate.families())
                .inspect_err(|_| pipelines.destroy(&gpu))?;
            Ok((pipelines, memory))
        });
        let (pipelines, memory) = parts.inspect_err(|_| {
            // SAFETY: nothing was submitted.
            unsafe { queues.destroy(&gpu) };
        })?;
        Ok(Self {
            pipelines,
            memory,
            queues,
            pinned: Registry::default(),
            in_flight: Mutex::default(),
            threads: Threads::default(),
            waiter: Waiter::default(),
            profiler: Profiler::default(),
            lost: Arc::default(),
            counters: Counters::default(),
            settings,
            gpu,
        })
    }
}

impl Shared {
    /// Waits until nothing is pending; a lost device counts as idle. A driver that has no memory for waiting is asked again.
    fn wait_idle(&self) {
        for _ in 0..1000 {
            // SAFETY: called when the last reference goes: no other thread uses the queue.
            match unsafe { self.gpu.raw.device_wait_idle() } {
                Ok(()) | Err(vk::Result::ERROR_DEVICE_LOST) => return,
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        tracing::error!(device = %self.settings.info, "vkDeviceWaitIdle fails: destroying the device all the same");
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({})", self.info())
    }
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Program({})", self.made.name)
    }
}

impl Settings {
    fn new(options: &Options, candidate: &Candidate) -> Result<Self, Error> {
        let info = candidate.verdict.device.clone();
        let maximum = candidate.limits.workgroup_size;
        let workgroup_size = match options.workgroup_size {
            Some(requested) if requested == 0 || requested > maximum => {
                return Err(Error::WorkgroupSize { requested, maximum });
            }
            Some(requested) => requested,
            None => default_workgroup_size(info.kind, candidate.limits.subgroup).min(maximum),
        };
        Ok(Self {
            verdicts: Vec::new(),
            limits: candidate.limits,
            // Kernels read each input once and write each output once, so that staging saves no transfer, and over PCIe 5 the H200's
            // kernels do better than its copy engines: Fq add of 2^24 pinned elements, 0.49 G elements a second directly and
            // 0.37 staged; of 64, 18 us and 31.
            staged: options.memory == MemoryMode::DeviceLocal,
            resident: match options.memory {
                MemoryMode::DeviceLocal => Place::Device,
                MemoryMode::Host => Place::Host,
                MemoryMode::Auto if matches!(info.kind, DeviceKind::Discrete | DeviceKind::Virtual) => Place::Device,
                MemoryMode::Auto => Place::Host,
            },
            wipe: options.wipe,
            workgroup_size,
            chunk_elements: options.chunk_elements.unwrap_or(usize::MAX).max(1),
            work: most_work(info.kind),
            timeout: options.timeout,
            #[cfg(feature = "test-faults")]
            omit_barriers: options.omit_barriers,
            #[cfg(feature = "test-faults")]
            faults: options.faults.clone(),
            info,
        })
    }
}

/// One subgroup a workgroup, where subgroups are of the usual sizes. On the H200 (32) a power of 1024 elements, which leaves most of the
/// GPU idle, takes 0.7 ms in workgroups of 32 and 1.2 of 256. A software device is given enough to do at a time.
fn default_workgroup_size(kind: DeviceKind, subgroup: u32) -> u32 {
    match kind {
        DeviceKind::Software => 64,
        _ => subgroup.clamp(32, 64),
    }
}

/// The most work in one dispatch, in multiplications of field elements or about: some seconds of the slowest device of its
/// kind, since many systems reset a GPU that does not answer for longer. Guesses, but for two: the H200's rate on powers makes
/// 2^32 take 0.2 s, lavapipe's on two cores makes 2^25 take half a second.
const fn most_work(kind: DeviceKind) -> u64 {
    match kind {
        DeviceKind::Discrete => 1 << 32,
        DeviceKind::Integrated | DeviceKind::Virtual | DeviceKind::Other => 1 << 28,
        DeviceKind::Software => 1 << 25,
    }
}

fn cache_file(directory: &CacheDirectory, candidate: &Candidate) -> Result<Option<CacheFile>, Error> {
    match directory {
        CacheDirectory::Off => Ok(None),
        CacheDirectory::At(path) => CacheFile::open(path, candidate.identity)
            .map(Some)
            .map_err(|error| Error::CacheDirectory { path: path.clone(), reason: error.to_string() }),
        CacheDirectory::User => {
            let Some(base) = directories::BaseDirs::new() else {
                tracing::warn!("no home directory: compiled pipelines are not kept");
                return Ok(None);
            };
            let path = base.cache_dir().join("bls12_field_gpu");
            let opened = CacheFile::open(&path, candidate.identity);
            Ok(opened
                .inspect_err(|error| tracing::warn!(path = %path.display(), %error, "compiled pipelines are not kept"))
                .ok())
        }
    }
}

fn logical_device(instance: &Instance, physical: vk::PhysicalDevice, candidate: &Candidate) -> Result<ash::Device, Error> {
    let priorities = [1.0; 2];
    let queues: Vec<_> = candidate
        .families()
        .into_iter()
        .map(|family| {
            let count = candidate.queues().filter(|queue| queue.family == family).count();
            vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&priorities[..count])
        })
        .collect();
    let mut vulkan12 = vk::PhysicalDeviceVulkan12Features::default()
        .timeline_semaphore(true)
        .buffer_device_address(true)
        .host_query_reset(candidate.limits.tick > 0.0);
    let device = &candidate.verdict.device;
    let features = vk::PhysicalDeviceFeatures::default().shader_int64(device.int64).shader_float64(device.float64);
    let mut extensions = Vec::new();
    if candidate.portability_subset {
        extensions.push(ash::khr::portability_subset::NAME.as_ptr());
    }
    if candidate.memory_budget {
        extensions.push(ash::ext::memory_budget::NAME.as_ptr());
    }
    let info = vk::DeviceCreateInfo::default()
        .queue_create_infos(&queues)
        .enabled_features(&features)
        .enabled_extension_names(&extensions)
        .push_next(&mut vulkan12);
    // SAFETY: the device supports every feature and extension asked for; all pointers in `info` outlive the call.
    unsafe { instance.raw.create_device(physical, &info, None) }.map_err(driver_error("vkCreateDevice"))
}

impl Drop for Gpu {
    fn drop(&mut self) {
        // SAFETY: `Shared` destroys everything made from the device before its fields are dropped.
        unsafe { self.raw.destroy_device(None) };
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wait_idle();
        self.waiter.stop();
        // SAFETY: no thread uses the device any more, since this is the last reference, and nothing is pending.
        unsafe {
            let in_flight = std::mem::take(&mut *self.in_flight.lock());
            let mut buffers = Vec::new();
            for submission in in_flight {
                submission.lanes.into_iter().for_each(|lane| self.queues.keep(lane));
                buffers.extend(submission.staging);
                buffers.extend(submission.held.into_iter().filter_map(|held| Arc::into_inner(held)?.into_buffer()));
            }
            self.release(buffers);
            // What is being wiped.
            let _ = self.gpu.raw.device_wait_idle();
            for submission in std::mem::take(&mut *self.in_flight.lock()) {
                submission.lanes.into_iter().for_each(|lane| self.queues.keep(lane));
                submission.staging.into_iter().for_each(|buffer| self.memory.destroy(&self.gpu, buffer));
            }
            self.memory.shut_down(&self.gpu);
            self.pipelines.destroy(&self.gpu);
            self.queues.destroy(&self.gpu);
        }
    }
}
