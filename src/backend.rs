//! The backend: checks what it is given, has it computed, checks what it got.

use crate::call::{Call, Prepared};
use crate::choice::{Chooser, Place, Setting};
use crate::formulations::Formulations;
use crate::on_device::{Checks, Groups, Vulkan};
use crate::options::{DeviceChoice, Options, Settings, Verify};
use crate::{Error, ErrorKind};
use cpu_reference::{Positions, Results};
use field_kernels::Width;
use gpu_executor::{Device, DeviceInfo, DeviceKind, Profile, Stage, ValidationLog, Verdict};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A device and everything that is made once for it: used from any number of threads, cloned freely, destroyed with the last
/// clone.
///
/// ```
/// use bls12_field_gpu::{Backend, Options};
/// let backend = Backend::new(&Options::new())?;
/// let sum = backend.fr().add_u64_limbs(&[2, 0, 0, 0], &[3, 0, 0, 0])?;
/// assert_eq!(sum, [5, 0, 0, 0]);
/// println!("device: {}", backend.engine());
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
#[derive(Clone)]
pub struct Backend {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    engine: Engine,
    verdicts: Vec<Verdict>,
    vulkan: Option<Vulkan>,
    chooser: Chooser,
    calls: AtomicU64,
    cpu_calls: AtomicU64,
    shared_calls: AtomicU64,
    fallbacks: AtomicU64,
    verified: AtomicU64,
}

/// What computes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// A Vulkan device.
    #[non_exhaustive]
    Vulkan {
        /// The device.
        device: DeviceInfo,
        /// Whether resident vectors lie in device-local memory (rather than in host memory).
        device_local: bool,
        /// The variant of the kernels.
        width: Width,
        /// Whether workgroups exchange elements through shared memory.
        tiled: bool,
        /// Invocations per workgroup, where nothing else was predicted or measured to be better for an operation.
        workgroup_size: u32,
    },
    /// The CPU reference: arkworks, on all threads of the current rayon pool.
    Cpu {
        /// Why not a GPU.
        reason: String,
    },
}

/// What came of a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The elements, as limbs; empty if the operation gives none.
    pub elements: Vec<u64>,
    /// The flags; empty if the operation gives none.
    pub mask: Vec<bool>,
    /// How it came about.
    pub report: Report,
}

/// How a result came about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Where it was computed. [`Backend::explain`] says why there.
    pub place: Place,
    /// Dispatches on the device, one per chunk; 0 if the CPU reference computed the result.
    pub dispatches: usize,
    /// Elements that the CPU reference computed: all of them, or its part of a call that it shared with the device.
    pub by_cpu: usize,
    /// Elements that were checked against the CPU reference.
    pub verified: usize,
    /// Why the CPU reference computed the result although the backend has a device: the device was lost, then or before.
    pub fallback: Option<gpu_executor::Error>,
}

/// What a backend has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that had a result, empty ones aside.
    pub calls: u64,
    /// Those of them that the CPU reference computed: where it was thought to be sooner, or there is no device, or no more.
    pub cpu_calls: u64,
    /// Those of them that the device and the CPU reference shared: see [`Report::by_cpu`].
    pub shared_calls: u64,
    /// Those of them that the device should have computed, and was lost: see [`Report::fallback`].
    pub fallbacks: u64,
    /// Elements checked against the CPU reference, self-tests aside.
    pub verified_elements: u64,
    /// Calibrations that were measured, rather than read from disk: see [`Calibrate`](crate::Calibrate).
    pub calibrations: u64,
    /// What the Vulkan device has done.
    pub device: gpu_executor::Stats,
}

impl Backend {
    /// Makes a backend: opens the device, or settles for the CPU reference and remembers why.
    ///
    /// # Errors
    /// [`Error::Environment`] and [`Error::InvalidOption`] for settings that mean nothing; [`Error::Device`] if a device was
    /// asked for and cannot be had, or a Vulkan device is required and none is usable, or another setting does not suit it.
    ///
    /// ```
    /// use bls12_field_gpu::{Backend, DeviceChoice, Options};
    /// let backend = Backend::new(&Options::new().device(DeviceChoice::Cpu))?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn new(options: &Options) -> Result<Self, Error> {
        let settings = Settings::new(options)?;
        let mut verdicts = Vec::new();
        let device = match settings.device {
            DeviceChoice::Cpu => Err("the CPU was asked for".to_owned()),
            DeviceChoice::Index(_) => Ok(Device::new(&settings.executor)?),
            DeviceChoice::Auto => match Device::new(&settings.executor) {
                Err(error @ gpu_executor::Error::NoDevice { .. }) if !settings.require_gpu => {
                    let reason = error.to_string();
                    if let gpu_executor::Error::NoDevice { devices, .. } = error {
                        verdicts = devices;
                    }
                    Err(reason)
                }
                made => Ok(made?),
            },
        };
        let (engine, vulkan) = match device {
            Ok(device) => {
                verdicts = device.verdicts().to_vec();
                let width = match settings.width {
                    Some(Width::Int64) if !device.info().int64 => {
                        let reason = "the device has no 64-bit integers";
                        return Err(Error::InvalidOption { option: "width", reason });
                    }
                    Some(width) => width,
                    None if device.info().int64 => Width::Int64,
                    None => Width::Int32,
                };
                let tiled = settings.tiled.unwrap_or(device.info().kind != DeviceKind::Software);
                let formulations = Formulations::new(&settings, &device, width, tiled)?;
                let engine = Engine::Vulkan {
                    device: device.info().clone(),
                    device_local: device.is_device_local(),
                    width,
                    tiled,
                    workgroup_size: device.workgroup_size(),
                };
                let vulkan = Vulkan::new(device, width, tiled, formulations);
                if let Some(asked) = settings.formulation
                    && !vulkan.is_able(asked)?
                {
                    let reason = "the device rounds twice in a fused multiply-add of doubles";
                    return Err(Error::InvalidOption { option: "formulation", reason });
                }
                (engine, Some(vulkan))
            }
            Err(reason) => {
                tracing::warn!(reason, "no GPU: computing on the CPU");
                (Engine::Cpu { reason }, None)
            }
        };
        let (chooser, calls, cpu_calls, shared_calls, fallbacks, verified) = Default::default();
        let shared =
            Shared { settings, engine, verdicts, vulkan, chooser, calls, cpu_calls, shared_calls, fallbacks, verified };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The device that recordings, and calls for which it is the sooner, are computed on; or why there is none. Where one call went,
    /// [`Report::place`](crate::Report::place) says.
    ///
    /// ```
    /// use bls12_field_gpu::Engine;
    /// match bls12_field_gpu::backend()?.engine() {
    ///     Engine::Vulkan { device, .. } => println!("on {}", device.name),
    ///     other => println!("{other}"),
    /// }
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// How much is checked.
    ///
    /// ```
    /// println!("{:?}", bls12_field_gpu::backend()?.verify());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn verify(&self) -> Verify {
        self.shared.settings.verify
    }

    /// Every Vulkan device of this machine that was looked at, and what was decided about it. Empty if none was: the CPU was
    /// asked for, or there is no Vulkan loader or driver.
    ///
    /// ```
    /// bls12_field_gpu::backend()?.verdicts().iter().for_each(|verdict| println!("{verdict}"));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn verdicts(&self) -> &[Verdict] {
        &self.shared.verdicts
    }

    /// Gives the memory that is kept for reuse back to the driver: up to 2 GiB of host memory, and as much of the device's, or a quarter of
    /// [its limit](crate::Options::device_memory) if that is more.
    ///
    /// ```
    /// bls12_field_gpu::backend()?.trim();
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn trim(&self) {
        if let Some(vulkan) = self.vulkan() {
            vulkan.device().trim();
        }
    }

    /// What is left in the memory that is kept for reuse: see `gpu_executor::Device::residue`.
    ///
    /// # Errors
    /// [`Error::Device`].
    #[cfg(feature = "test-faults")]
    pub fn residue(&self) -> Result<([usize; 2], u64), Error> {
        Ok(self.vulkan().map_or(Ok(([0, 0], 0)), |vulkan| vulkan.device().residue())?)
    }

    /// Whether the device is lost: it was reset, or did not answer in time. It stays so. Calls on data in host memory are then
    /// computed by the CPU reference, which [`Report::fallback`] says, unless a GPU is required: then they answer
    /// [`DeviceError::Lost`](crate::DeviceError::Lost), as everything does that concerns resident vectors. Only a new backend
    /// can have the device again.
    ///
    /// ```
    /// assert!(!bls12_field_gpu::backend()?.is_lost());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn is_lost(&self) -> bool {
        self.vulkan().is_some_and(|vulkan| vulkan.device().is_lost())
    }

    /// What the validation layer said; empty, too, when it is off.
    ///
    /// ```
    /// assert!(bls12_field_gpu::backend()?.validation_log().messages().is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn validation_log(&self) -> ValidationLog {
        self.shared.vulkan.as_ref().map(|vulkan| vulkan.device().validation_log()).unwrap_or_default()
    }

    /// What the backend has done so far.
    ///
    /// ```
    /// println!("{} dispatches", bls12_field_gpu::backend()?.stats().device.dispatches);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        Stats {
            calls: shared.calls.load(Relaxed),
            cpu_calls: shared.cpu_calls.load(Relaxed),
            shared_calls: shared.shared_calls.load(Relaxed),
            fallbacks: shared.fallbacks.load(Relaxed),
            verified_elements: shared.verified.load(Relaxed),
            calibrations: shared.chooser.calibrations(),
            device: shared.vulkan.as_ref().map(|vulkan| vulkan.device().stats()).unwrap_or_default(),
        }
    }

    /// Begins a profile of everything that this backend and its clones do; one that was begun before is dropped. Costs some
    /// microseconds a call. Where the CPU computes alone, nothing is recorded.
    ///
    /// The same spans go to `tracing` at its level `TRACE`, target `bls12_field_gpu`, name `stage`: those of threads always, as they
    /// happen; those of the device while a profile is under way, when it is known that they are over, with the field `nanos` for how
    /// long they took.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost.
    ///
    /// ```
    /// let backend = bls12_field_gpu::backend()?;
    /// backend.start_profile()?;
    /// backend.fr().add_u64_limbs(&[2, 0, 0, 0], &[3, 0, 0, 0])?;
    /// let profile = backend.take_profile();
    /// println!("{profile}");
    /// std::fs::write(std::env::temp_dir().join("trace.json"), profile.trace()).ok(); // opens in ui.perfetto.dev
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn start_profile(&self) -> Result<(), Error> {
        Ok(self.vulkan().map_or(Ok(()), |vulkan| vulkan.device().start_profile())?)
    }

    /// Ends the profile; what was done, and has finished, since it was begun.
    ///
    /// ```
    /// assert!(bls12_field_gpu::backend()?.take_profile().spans.is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn take_profile(&self) -> Profile {
        self.vulkan().map(|vulkan| vulkan.device().take_profile()).unwrap_or_default()
    }

    /// Where compiled pipelines and calibrations are kept for the next process, if anywhere.
    ///
    /// ```
    /// if let Some(directory) = bls12_field_gpu::backend()?.cache_directory() {
    ///     println!("pipelines and calibrations are in {}", directory.display());
    /// }
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn cache_directory(&self) -> Option<&Path> {
        self.vulkan()?.device().cache_directory()
    }

    pub(crate) fn vulkan(&self) -> Option<&Vulkan> {
        self.shared.vulkan.as_ref()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(crate) fn chooser(&self) -> &Chooser {
        &self.shared.chooser
    }

    /// Counts elements that were checked against the CPU reference.
    pub(crate) fn count_verified(&self, elements: usize) {
        self.shared.verified.fetch_add(elements as u64, Relaxed);
    }

    /// Whether the two are clones of one backend.
    pub(crate) fn is(&self, other: &Backend) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// Computes a call given as data. The functions named after operations are this with the fields filled in.
    ///
    /// ```
    /// use bls12_field_gpu::{Call, Field, Form, Operation};
    /// let call = Call {
    ///     operation: Operation::Mul,
    ///     field: Field::Fr,
    ///     form: Form::Canonical,
    ///     vectors: &[&[6, 0, 0, 0], &[7, 0, 0, 0]],
    ///     parameter: &[],
    /// };
    /// let outcome = bls12_field_gpu::backend()?.execute(&call)?;
    /// assert_eq!(outcome.elements, [42, 0, 0, 0]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn execute(&self, call: &Call) -> Result<Outcome, Error> {
        let row = call.operation.row();
        let length = call.check_shape()?;
        let mut elements = vec![0; if row.has_elements() { length * call.field.limbs() } else { 0 }];
        let mut mask = vec![false; if row.has_mask() { length } else { 0 }];
        let report = self.execute_into(call, &mut elements, &mut mask)?;
        Ok(Outcome { elements, mask, report })
    }

    /// As [`Backend::execute`], into the caller's slices: limbs of elements, flags; the one that the operation does not give must
    /// be empty.
    ///
    /// ```
    /// use bls12_field_gpu::{Call, Field, Form, Operation};
    /// let (a, b, mut sum) = ([2, 0, 0, 0], [3, 0, 0, 0], [0; 4]);
    /// let call =
    ///     Call { operation: Operation::Add, field: Field::Fr, form: Form::Canonical, vectors: &[&a, &b], parameter: &[] };
    /// let report = bls12_field_gpu::backend()?.execute_into(&call, &mut sum, &mut [])?;
    /// assert_eq!(sum, [5, 0, 0, 0]);
    /// println!("{} elements checked", report.verified);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::OutputLength`] if a slice has the wrong length.
    pub fn execute_into(&self, call: &Call, elements: &mut [u64], mask: &mut [bool]) -> Result<Report, Error> {
        let shared = &*self.shared;
        let row = call.operation.row();
        let length = call.check_shape()?;
        let expected = |present: bool, length: usize| if present { length } else { 0 };
        for (expected, got) in [
            (expected(row.has_elements(), length * call.field.limbs()), elements.len()),
            (expected(row.has_mask(), length), mask.len()),
        ] {
            if expected != got {
                return Err(Error::OutputLength { operation: row.name, expected, got });
            }
        }
        let prepared = Prepared::new(call)?;
        // What a device computes is looked at chunk by chunk, while others are under way. Not if the caller is a rayon worker (see `Watch`).
        let place = match &shared.vulkan {
            Some(vulkan) if length > 0 => self.place(vulkan, &prepared),
            _ => Place::Cpu,
        };
        let on_the_way = place != Place::Cpu && rayon::current_thread_index().is_none();
        // The scalar in any case.
        prepared.part(&(0..if on_the_way { 0 } else { length })).check_values()?;
        if length == 0 {
            return Ok(Report::default());
        }
        let mut flags = vec![0u32; mask.len()];
        let on_device = match (&shared.vulkan, place) {
            (Some(vulkan), Place::Device(setting)) => {
                match self.on_device(vulkan, &prepared, setting, (elements, &mut flags), on_the_way) {
                    Err(Error::Device(loss)) if loss.is_loss() && !shared.settings.require_gpu => Err(Some(loss)),
                    answer => Ok(answer?),
                }
            }
            _ => Err(None),
        };
        let report = match on_device {
            Ok(report) => report,
            Err(fallback) => {
                if on_the_way {
                    // The device may have been lost before all of them were looked at.
                    prepared.part(&(0..length)).check_values()?;
                }
                (prepared.twin.compute)(&prepared.operands(), &mut Results { elements, mask: &mut flags });
                shared.cpu_calls.fetch_add(1, Relaxed);
                if let Some(loss) = &fallback {
                    self.warn_of(loss);
                }
                Report { by_cpu: length, fallback, ..Report::default() }
            }
        };
        mask.iter_mut().zip(&flags).for_each(|(flag, &word)| *flag = word != 0);
        shared.calls.fetch_add(1, Relaxed);
        Ok(report)
    }

    /// Has a call computed by the device, and checks what it answers.
    fn on_device(
        &self,
        vulkan: &Vulkan,
        prepared: &Prepared,
        setting: Setting,
        (elements, flags): (&mut [u64], &mut [u32]),
        on_the_way: bool,
    ) -> Result<Report, Error> {
        let program = vulkan.program_of(&self.shared.settings, prepared, Groups::of(setting.workgroup_size))?;
        let verify = on_the_way && matches!(self.verify(), Verify::All | Verify::Proofs);
        let checks = Checks { backend: self, vulkan, prepared, values: on_the_way, verify };
        let job = setting.for_a_job(prepared);
        let ran = vulkan.run(&program, prepared, job, (&mut *elements, &mut *flags), &checks);
        let ran = ran.map_err(|error| match error.kind() {
            // Of several wrong elements the first one, in the order of the operands, whoever came to it.
            ErrorKind::BadInput if setting.cpu_elements > 0 => {
                prepared.part(&(0..prepared.length)).check_values().err().unwrap_or(error)
            }
            _ => error,
        })?;
        // What the CPU reference computed is what others are checked against.
        let by_device = prepared.length - ran.by_cpu;
        let verified = if verify { by_device } else { self.check(vulkan, prepared, (elements, flags), by_device)? };
        self.shared.shared_calls.fetch_add((ran.by_cpu > 0).into(), Relaxed);
        self.count_verified(verified);
        let gpu_executor::Ran { dispatches, by_cpu } = ran;
        Ok(Report { place: Place::Device(setting), dispatches, by_cpu, verified, fallback: None })
    }

    /// Counts a call that the CPU reference computed because the device is lost. The first is worth a warning.
    fn warn_of(&self, loss: &gpu_executor::Error) {
        let engine = self.engine();
        match self.shared.fallbacks.fetch_add(1, Relaxed) {
            0 => tracing::warn!(%loss, %engine, "computing on the CPU from now on"),
            _ => tracing::debug!(%loss, "computed on the CPU"),
        }
    }

    /// Checks an answer's first elements, so many, which the device computed, as far as asked for; the number of elements checked.
    fn check(
        &self,
        vulkan: &Vulkan,
        prepared: &Prepared,
        (elements, flags): (&[u64], &[u32]),
        length: usize,
    ) -> Result<usize, Error> {
        let random: Vec<usize>;
        let (positions, checked) = match self.verify() {
            Verify::Off => return Ok(0),
            Verify::Sample(n) if n < length => {
                random = (0..n).map(|_| fastrand::usize(..length)).collect();
                (Positions::These(&random), n)
            }
            Verify::All | Verify::Proofs | Verify::Sample(_) => (Positions::All, length),
        };
        let elements = elements.get(..length * prepared.field.limbs()).unwrap_or(&[]);
        let flags = flags.get(..length).unwrap_or(&[]);
        let _timed = vulkan.device().timed(Stage::Verify, 0);
        self.right(vulkan, prepared, prepared.part(&(0..length)).first_wrong(elements, flags, positions))?;
        Ok(checked)
    }

    /// An error if an element was found wrong.
    pub(crate) fn right(&self, vulkan: &Vulkan, prepared: &Prepared, first_wrong: Option<usize>) -> Result<(), Error> {
        first_wrong.map_or(Ok(()), |index| {
            Err(Error::VerificationFailed {
                operation: prepared.row.name,
                field: prepared.field,
                index,
                device: vulkan.device().info().to_string(),
            })
        })
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Engine::Vulkan { device, device_local, width, tiled, workgroup_size } => {
                let memory = if *device_local { "device-local memory" } else { "host memory" };
                let tiled = if *tiled { "tiled " } else { "" };
                write!(
                    f,
                    "Vulkan device {device}, {memory}, {tiled}{} kernels, workgroups of {workgroup_size}",
                    width.name()
                )
            }
            Engine::Cpu { reason } => {
                write!(f, "CPU reference (arkworks, {} threads): {reason}", rayon::current_num_threads())
            }
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.engine())?;
        for verdict in self.verdicts().iter().filter(|verdict| verdict.turned_down.is_some()) {
            write!(f, "\n{verdict}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Backend({}, {:?})", self.engine(), self.verify())
    }
}
