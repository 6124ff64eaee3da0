//! Options, the environment, and what the two come to.

use crate::Error;
use field_kernels::{Formulation, Width};
use gpu_executor::{CacheDirectory, MemoryMode, Validation};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// How much of what the device computes is checked before it is returned, by arkworks on the CPU.
///
/// Checking everything costs what computing on the CPU costs, except that a product proves an inverse, in a third of the work, and a
/// square proves a root (up to its sign), in less than a hundredth. 16 cores recompute a multiplication at a quarter to a half of the rate
/// at which PCIe delivers it, so a checked host-to-host `mul` takes two to four and a half times as long as an unchecked one, and a checked
/// `pow` as long as
/// the CPU takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Verify {
    /// Every element of every call on data in host memory. The default. Recordings are checked only if they are submitted by
    /// [`submit_verified`](crate::Recording::submit_verified).
    #[default]
    All,
    /// Every element, as with `All`; and of recordings that are submitted by
    /// [`submit_verified`](crate::Recording::submit_verified) every step, by the cheapest check that proves it:
    ///
    /// | step | check | multiplications, against those of computing it again | a wrong result passes with a chance of |
    /// |---|---|---|---|
    /// | inverses, also those in [`divide`](crate::Recording::divide) | a a^-1 = 1, each element | 1 for 3 | 0 |
    /// | square roots | r^2 = a, each element; which of the two roots it is, is not checked | 1 for 460 | 0 |
    /// | scans, and division by X - z | each element from the one before it, in parallel segments | 1 for 2 | 0 |
    /// | products of two matrices, k x l and l x m | Freivalds': both sides times a random vector | kl + lm + km for klm | 2^-254 (Fr), 2^-380 (Fq) |
    /// | products of a sparse matrix that was uploaded with `Proofs`, k x l with n values, and a vector | a secret random combination of the rows, made once: r y = (r A) x | k + l for n | 2^-254, 2^-380 |
    /// | all others | computed again, on all cores (scatters, compactions and copies on one) | 1 for 1 | 0 |
    ///
    /// Of the others, none has a check that is cheaper: an element-wise operation and a fused expression are one pass over what
    /// would have to be read to check them; a movement is compared by copying; a sum, an inner product or a polynomial's value is folded again
    /// in parallel segments, and a random linear combination of its inputs would cost a multiplication for each of them as well, as would one
    /// of the rows of a dense matrix, if it is not kept.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// # use ark_bls12_381::Fr;
    /// let backend = Backend::new(&Options::new().verify(Verify::Proofs))?;
    /// let a = backend.upload(&[2u64, 4, 5].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let inverses = recording.batch_inverse(&a, Zeros::Refuse)?;
    /// recording.submit_verified()?.wait()?;
    /// assert_eq!(inverses.download()?[0] * Fr::from(2u64), Fr::from(1u64));
    /// # Ok::<(), Error>(())
    /// ```
    Proofs,
    /// This many elements, at least one, at random positions among those that the device computed (all of these, if they are fewer); a position
    /// may be drawn twice. What has a fraction f of wrong elements passes with probability (1 - f)^n.
    Sample(usize),
    /// None: results are whatever the device says.
    Off,
}

/// Which device a backend computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum DeviceChoice {
    /// The most capable Vulkan device there is; the CPU reference if there is none.
    #[default]
    Auto,
    /// The Vulkan device of this index, in the order Vulkan lists them (see [`survey`](crate::survey)). Not having it is
    /// an error.
    Index(usize),
    /// No Vulkan device: the CPU reference.
    Cpu,
}

/// Who computes calls on data in host memory, where there is a Vulkan device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// Whoever is predicted to be done first, or both of them, a part each: see [`Backend::explain`](crate::Backend::explain). With [`Verify::All`] a device's
    /// results must be checked and the CPU's need not be, so it is the CPU unless checking is much less work than computing.
    #[default]
    Auto,
    /// The device alone.
    Device,
    /// The device; and with it the CPU, a part each, where that is predicted to be sooner: see [`Report::by_cpu`](crate::Report::by_cpu). They
    /// share calls of at least 4096 elements that are not checked in whole, [`Verify::Off`] or [`Verify::Sample`], and whose caller is not a
    /// worker of rayon. The CPU's part runs on the backend's own threads and, in the end, on the calling one.
    Both,
}

/// What [`Placement::Auto`] and [`Placement::Both`] predict from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Calibrate {
    /// Measurements that are made once per machine, driver and number of threads, in less than three seconds, by the first call
    /// that needs them, and kept beside the compiled pipelines. (A call by a rayon worker makes none.) Where nothing is kept,
    /// guesses.
    #[default]
    Auto,
    /// Guesses that are built in.
    Off,
    /// Measurements, made again by each backend.
    /// (What kernels multiply in is measured by a thorough calibration only, and remembered until the next one.)
    Again,
}

/// How a [`Backend`](crate::Backend) is made. An option that is set beats the environment, which beats the default. What
/// concerns a Vulkan device only is not looked at where the CPU computes.
///
/// | option | environment | default |
/// |---|---|---|
/// | [`device`](Self::device) | `GPU_DEVICE`: an index, `auto` or `cpu` | `auto` |
/// | [`require_gpu`](Self::require_gpu) | `GPU_REQUIRE`: `1` or `0` | `0` |
/// | [`placement`](Self::placement) | `GPU_PLACEMENT`: `auto`, `device` or `both` | `auto` |
/// | [`calibrate`](Self::calibrate) | `GPU_CALIBRATE`: `0` guesses, `1` measures again | measured once |
/// | [`memory`](Self::memory) | `GPU_DEVICE_LOCAL`: `1` or `0` | predicted, or by the kind of device |
/// | [`verify`](Self::verify) | `GPU_VERIFY`: `all`, `proofs`, `sample:N` or `off` | `all` |
/// | [`workgroup_size`](Self::workgroup_size) | `GPU_WORKGROUP_SIZE` | predicted, or by the kind of device |
/// | [`formulation`](Self::formulation) | `GPU_FORMULATION`: `words`, `digits`, `doubles` or `adic` | measured, or by the kind of device |
/// | [`cache`](Self::cache) | `GPU_CACHE_DIR`: a directory | the user's cache directory |
/// | [`validation`](Self::validation) | `GPU_VALIDATION`: `1` or `0` | `0` |
/// | [`wipe`](Self::wipe) | `GPU_WIPE`: `1` or `0` | `0` |
///
/// ```
/// use bls12_field_gpu::{Backend, Options, Verify};
/// let backend = Backend::new(&Options::new().verify(Verify::Sample(16)))?;
/// println!("{backend}");
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    device: Option<DeviceChoice>,
    require_gpu: Option<bool>,
    placement: Option<Placement>,
    calibrate: Option<Calibrate>,
    memory: Option<MemoryMode>,
    verify: Option<Verify>,
    workgroup_size: Option<u32>,
    cache: Option<CacheDirectory>,
    validation: Option<Validation>,
    chunk_elements: Option<usize>,
    device_memory: Option<u64>,
    timeout: Option<Duration>,
    width: Option<Width>,
    formulation: Option<Formulation>,
    tiled: Option<bool>,
    wipe: Option<bool>,
    #[cfg(feature = "test-faults")]
    fault: Option<Fault>,
    #[cfg(feature = "test-faults")]
    vulkan_faults: Option<gpu_executor::Faults>,
}

/// A fault to inject, to see that it is caught.
#[cfg(feature = "test-faults")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Flips this bit of what the device returns, counted from the first bit of the first element (or flag), modulo the
    /// number of bits. Of a recording: of its downloads, followed, if it is verified, by what it wrote.
    FlipBit(u64),
    /// The same in the answers to self-tests.
    FlipBitInSelfTest(u64),
    /// Records no barriers, which synchronization validation notices where kernels use descriptors.
    OmitBarriers,
}

impl Options {
    /// No option set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Which device to compute on.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().device(DeviceChoice::Cpu))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn device(mut self, device: DeviceChoice) -> Self {
        self.device = Some(device);
        self
    }

    /// Makes the absence of a usable Vulkan device, and its loss later, an error rather than a reason to compute on the CPU.
    /// Software devices count as devices.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().require_gpu(false))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn require_gpu(mut self, require: bool) -> Self {
        self.require_gpu = Some(require);
        self
    }

    /// Who computes calls on data in host memory, where there is a device. What concerns resident vectors is always computed by
    /// the device.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().placement(Placement::Device))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn placement(mut self, placement: Placement) -> Self {
        self.placement = Some(placement);
        self
    }

    /// What [`Placement::Auto`] and [`Placement::Both`] predict from.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().calibrate(Calibrate::Off))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn calibrate(mut self, calibrate: Calibrate) -> Self {
        self.calibrate = Some(calibrate);
        self
    }

    /// Where vectors lie while the device works on them.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().memory(MemoryMode::Host))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn memory(mut self, memory: MemoryMode) -> Self {
        self.memory = Some(memory);
        self
    }

    /// How much is checked.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().verify(Verify::Sample(100)))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn verify(mut self, verify: Verify) -> Self {
        self.verify = Some(verify);
        self
    }

    /// Invocations per workgroup, of all element-wise kernels. By default what is predicted for calls from host memory, and for resident
    /// vectors what was quickest for the operation on an H200.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().workgroup_size(64))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn workgroup_size(mut self, size: u32) -> Self {
        self.workgroup_size = Some(size);
        self
    }

    /// Where compiled pipelines and calibrations are kept from one process to the next.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().cache(CacheDirectory::Off))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn cache(mut self, cache: CacheDirectory) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Whether the Khronos validation layer watches; its messages are in
    /// [`Backend::validation_log`](crate::Backend::validation_log).
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().validation(Validation::Off))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn validation(mut self, validation: Validation) -> Self {
        self.validation = Some(validation);
        self
    }

    /// The most elements in one dispatch; longer vectors from host memory are processed in chunks, recorded operations on longer vectors in
    /// several dispatches, which may run side by side. Some of these need more to be of use, such as a workgroup's elements. By default, as many
    /// as the device's largest buffer and the memory limit allow, and as take the slowest device of its kind some seconds.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().chunk_elements(1 << 20))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn chunk_elements(mut self, elements: usize) -> Self {
        self.chunk_elements = Some(elements);
        self
    }

    /// The most bytes of device memory to use, over all threads' calls together. By default, three quarters of the device's; and
    /// in any case no more than the driver says that the process may have, if it does (`VK_EXT_memory_budget`).
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().device_memory(1 << 30))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn device_memory(mut self, bytes: u64) -> Self {
        self.device_memory = Some(bytes);
        self
    }

    /// How long a device that is waited for may finish nothing at all before it counts as lost, for good
    /// ([`Backend::is_lost`](crate::Backend::is_lost)). By default two minutes. What it works on at a time is a chunk of a call on host memory,
    /// up to 64 short calls that were submitted together, or a whole recording: raise it where long recordings are submitted, or a software
    /// driver computes them; however much is queued before makes no difference. [`Ticket::wait_timeout`](crate::Ticket::wait_timeout) waits
    /// without giving the device up. (Destroying a backend still waits for its device, and so does a call on [pinned](crate::Pinned)
    /// vectors: what a device may be using cannot be freed.)
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().timeout(std::time::Duration::from_secs(10)))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Which variant of the kernels to use. By default the 64-bit one where the device has 64-bit integers.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().width(Width::Int32))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn width(mut self, width: Width) -> Self {
        self.width = Some(width);
        self
    }

    /// Which formulation kernels multiply in, those that exist in it; the answers are the same bytes. By default the one that was
    /// measured to be the quickest, kernel by kernel, by [`Backend::calibrate`](crate::Backend::calibrate) or
    /// `bls12-gpu calibrate`; where nothing was measured, one by the kind of device.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().formulation(Formulation::Words))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn formulation(mut self, formulation: Formulation) -> Self {
        self.formulation = Some(formulation);
        self
    }

    /// Whether a workgroup's invocations write, and read what may lie in host memory, at neighbouring addresses, and exchange elements
    /// through shared memory, rather than each its own element. By default on everything but software devices. Workgroups too
    /// large for 16 KiB of shared memory never do.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().tiled(true))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn tiled(mut self, tiled: bool) -> Self {
        self.tiled = Some(tiled);
        self
    }

    /// Whether memory that held a caller's data, on the device or staged for it, is filled with zeros when nobody uses it any more,
    /// before it is reused or returned to the driver. Costs one more pass over that memory. See the crate's documentation for
    /// what it guards against and what not.
    ///
    /// ```
    /// # use bls12_field_gpu::*;
    /// let backend = Backend::new(&Options::new().wipe(true))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn wipe(mut self, wipe: bool) -> Self {
        self.wipe = Some(wipe);
        self
    }

    /// Injects a fault.
    #[cfg(feature = "test-faults")]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Counts the device's Vulkan calls and objects, and makes calls fail.
    #[cfg(feature = "test-faults")]
    pub fn vulkan_faults(mut self, faults: &gpu_executor::Faults) -> Self {
        self.vulkan_faults = Some(faults.clone());
        self
    }
}

/// What options and environment come to.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) device: DeviceChoice,
    pub(crate) require_gpu: bool,
    pub(crate) placement: Placement,
    pub(crate) calibrate: Calibrate,
    pub(crate) verify: Verify,
    pub(crate) width: Option<Width>,
    pub(crate) formulation: Option<Formulation>,
    pub(crate) tiled: Option<bool>,
    pub(crate) executor: gpu_executor::Options,
    #[cfg(feature = "test-faults")]
    pub(crate) fault: Option<Fault>,
}

impl Settings {
    /// Settings for these options in this process's environment.
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        Self::resolve(options, std::env::var_os)
    }

    fn resolve(options: &Options, environment: impl Fn(&'static str) -> Option<OsString>) -> Result<Self, Error> {
        let read = Environment(environment);
        let device = match options.device {
            Some(device) => device,
            None => read.parse("GPU_DEVICE", "auto, cpu or the index of a device", device)?.unwrap_or_default(),
        };
        let require_gpu = match options.require_gpu {
            Some(require) => require,
            None => read.parse("GPU_REQUIRE", ZERO_OR_ONE, flag)?.unwrap_or(false),
        };
        let placement = match options.placement {
            Some(placement) => placement,
            None => read.parse("GPU_PLACEMENT", "auto, device or both", placement)?.unwrap_or_default(),
        };
        let calibrate = match options.calibrate {
            Some(calibrate) => calibrate,
            None => match read.parse("GPU_CALIBRATE", ZERO_OR_ONE, flag)? {
                None => Calibrate::Auto,
                Some(false) => Calibrate::Off,
                Some(true) => Calibrate::Again,
            },
        };
        let memory = match options.memory {
            Some(memory) => memory,
            None => match read.parse("GPU_DEVICE_LOCAL", ZERO_OR_ONE, flag)? {
                Some(true) => MemoryMode::DeviceLocal,
                Some(false) => MemoryMode::Host,
                None => MemoryMode::Auto,
            },
        };
        let verify = match options.verify {
            Some(verify) => verify,
            None => read.parse("GPU_VERIFY", "all, proofs, sample:N with N at least 1, or off", verify)?.unwrap_or_default(),
        };
        let workgroup_size = match options.workgroup_size {
            Some(size) => Some(size),
            None => {
                read.parse("GPU_WORKGROUP_SIZE", "a positive number", |text| text.parse().ok().filter(|&size| size > 0))?
            }
        };
        let formulation = match options.formulation {
            Some(formulation) => Some(formulation),
            None => read.parse("GPU_FORMULATION", "words, digits, doubles or adic", formulation)?,
        };
        let cache = match &options.cache {
            Some(cache) => cache.clone(),
            None => match (read.0)("GPU_CACHE_DIR") {
                None => CacheDirectory::User,
                Some(path) if path.is_empty() => {
                    let variable = "GPU_CACHE_DIR";
                    return Err(Error::Environment { variable, value: String::new(), expected: "a directory" });
                }
                Some(path) => CacheDirectory::At(PathBuf::from(path)),
            },
        };
        let validation = match options.validation {
            Some(validation) => validation,
            None => match read.parse("GPU_VALIDATION", ZERO_OR_ONE, flag)? {
                Some(true) => Validation::On,
                _ => Validation::Off,
            },
        };
        let wipe = match options.wipe {
            Some(wipe) => wipe,
            None => read.parse("GPU_WIPE", ZERO_OR_ONE, flag)?.unwrap_or(false),
        };
        if verify == Verify::Sample(0) {
            return Err(Error::InvalidOption { option: "verify", reason: "a sample of 0 checks nothing; say Verify::Off" });
        }
        if options.workgroup_size == Some(0) {
            return Err(Error::InvalidOption {
                option: "workgroup_size",
                reason: "a workgroup has at least one invocation",
            });
        }
        if options.chunk_elements == Some(0) {
            return Err(Error::InvalidOption { option: "chunk_elements", reason: "a chunk holds at least one element" });
        }
        // An option beats the environment: who asks for the CPU in code gets it, whatever GPU_REQUIRE says.
        let require_gpu = require_gpu && (options.device != Some(DeviceChoice::Cpu) || options.require_gpu.is_some());
        if require_gpu && device == DeviceChoice::Cpu {
            let reason = "the CPU is asked for (GPU_DEVICE=cpu) and a GPU is required (GPU_REQUIRE=1)";
            return Err(Error::InvalidOption { option: "device", reason });
        }
        let executor = gpu_executor::Options {
            device: if let DeviceChoice::Index(index) = device { Some(index) } else { None },
            memory,
            validation,
            workgroup_size,
            cache,
            chunk_elements: options.chunk_elements,
            device_memory: options.device_memory,
            wipe,
            timeout: options.timeout.unwrap_or(gpu_executor::Options::default().timeout),
            #[cfg(feature = "test-faults")]
            omit_barriers: options.fault == Some(Fault::OmitBarriers),
            #[cfg(feature = "test-faults")]
            faults: options.vulkan_faults.clone(),
        };
        Ok(Self {
            device,
            require_gpu,
            placement,
            calibrate,
            verify,
            width: options.width,
            formulation,
            tiled: options.tiled,
            executor,
            #[cfg(feature = "test-faults")]
            fault: options.fault,
        })
    }
}

const ZERO_OR_ONE: &str = "0 or 1";

fn flag(text: &str) -> Option<bool> {
    match text {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    }
}

fn device(text: &str) -> Option<DeviceChoice> {
    match text {
        "auto" => Some(DeviceChoice::Auto),
        "cpu" => Some(DeviceChoice::Cpu),
        index => index.parse().ok().map(DeviceChoice::Index),
    }
}

fn placement(text: &str) -> Option<Placement> {
    match text {
        "auto" => Some(Placement::Auto),
        "device" => Some(Placement::Device),
        "both" => Some(Placement::Both),
        _ => None,
    }
}

fn formulation(text: &str) -> Option<Formulation> {
    Formulation::ALL.into_iter().find(|formulation| formulation.name() == text)
}

fn verify(text: &str) -> Option<Verify> {
    match text {
        "all" => Some(Verify::All),
        "off" => Some(Verify::Off),
        "proofs" => Some(Verify::Proofs),
        sample => sample.strip_prefix("sample:")?.parse().ok().filter(|&n| n > 0).map(Verify::Sample),
    }
}

struct Environment<F>(F);

impl<F: Fn(&'static str) -> Option<OsString>> Environment<F> {
    fn parse<T>(
        &self,
        variable: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = (self.0)(variable) else { return Ok(None) };
        let parsed = value.to_str().and_then(parse);
        parsed.map(Some).ok_or_else(|| Error::Environment {
            variable,
            value: value.to_string_lossy().into_owned(),
            expected,
        })
    }
}

#[cfg(test)]
mod tests;
