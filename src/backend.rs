//! The backend: checks what it is given, has it computed, checks what it got.

use crate::call::{Call, Prepared};
use crate::known_answers::KnownAnswers;
use crate::operation::{Operation, Parameter, Row, TABLE};
use crate::options::{DeviceChoice, Options, Settings, Verify};
use crate::reduction::{REDUCTIONS, Reducer};
use crate::{Error, Field, Form};
use cpu_reference::{Positions, Results};
use field_kernels::Width;
use gpu_executor::{
    Device, DeviceInfo, DeviceKind, Job, Kernel, Landed, Profile, Program, Reach, Shape, Slot, SlotUse, Stage, Threads,
    ValidationLog, Verdict, Watch,
};
use parking_lot::Mutex;
use std::fmt;
use std::ops::Range;
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
/// println!("computed on {}", backend.engine());
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
    calls: AtomicU64,
    cpu_calls: AtomicU64,
    fallbacks: AtomicU64,
    verified: AtomicU64,
}

pub(crate) struct Vulkan {
    device: Device,
    pub(crate) width: Width,
    tiled: bool,
    /// By operation, field and form; filled when first used, after its self-test.
    programs: Vec<Mutex<Option<Program>>>,
    /// By reduction and field; likewise.
    pub(crate) reducers: Vec<Mutex<Option<Reducer>>>,
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
        /// Invocations per workgroup.
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
    /// Dispatches on the device, one per chunk; 0 if the CPU reference computed the result.
    pub dispatches: usize,
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
    /// Those of them that the CPU reference computed.
    pub cpu_calls: u64,
    /// Those of them that the device should have computed, and was lost: see [`Report::fallback`].
    pub fallbacks: u64,
    /// Elements checked against the CPU reference, self-tests aside.
    pub verified_elements: u64,
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
                let engine = Engine::Vulkan {
                    device: device.info().clone(),
                    device_local: device.is_device_local(),
                    width,
                    tiled,
                    workgroup_size: device.workgroup_size(),
                };
                let programs = (0..TABLE.len() * 4).map(|_| Mutex::new(None)).collect();
                let reducers = (0..REDUCTIONS.len() * Field::ALL.len()).map(|_| Mutex::new(None)).collect();
                (engine, Some(Vulkan { device, width, tiled, programs, reducers }))
            }
            Err(reason) => {
                tracing::warn!(reason, "no GPU: computing on the CPU");
                (Engine::Cpu { reason }, None)
            }
        };
        let (calls, cpu_calls, fallbacks, verified) = Default::default();
        let shared = Shared { settings, engine, verdicts, vulkan, calls, cpu_calls, fallbacks, verified };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// What computes the results.
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

    /// Gives the memory that is kept for reuse, up to 2 GiB of device and host memory, back to the driver.
    ///
    /// ```
    /// bls12_field_gpu::backend()?.trim();
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn trim(&self) {
        if let Some(vulkan) = self.vulkan() {
            vulkan.device.trim();
        }
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
        self.vulkan().is_some_and(|vulkan| vulkan.device.is_lost())
    }

    /// What the validation layer said; empty, too, when it is off.
    ///
    /// ```
    /// assert!(bls12_field_gpu::backend()?.validation_log().messages().is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn validation_log(&self) -> ValidationLog {
        self.shared.vulkan.as_ref().map(|vulkan| vulkan.device.validation_log()).unwrap_or_default()
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
            fallbacks: shared.fallbacks.load(Relaxed),
            verified_elements: shared.verified.load(Relaxed),
            device: shared.vulkan.as_ref().map(|vulkan| vulkan.device.stats()).unwrap_or_default(),
        }
    }

    /// Begins a profile of everything that this backend and its clones do; one that was begun before is dropped. Costs some
    /// microseconds a call. Where the CPU computes, nothing is recorded.
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
        Ok(self.vulkan().map_or(Ok(()), |vulkan| vulkan.device.start_profile())?)
    }

    /// Ends the profile; what was done, and has finished, since it was begun.
    ///
    /// ```
    /// assert!(bls12_field_gpu::backend()?.take_profile().spans.is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn take_profile(&self) -> Profile {
        self.vulkan().map(|vulkan| vulkan.device.take_profile()).unwrap_or_default()
    }

    pub(crate) fn vulkan(&self) -> Option<&Vulkan> {
        self.shared.vulkan.as_ref()
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
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
        // On a device each chunk is looked at while others are under way. Not if the caller is a rayon worker (see `Watch`).
        let on_the_way = shared.vulkan.is_some() && rayon::current_thread_index().is_none();
        // The scalar in any case.
        prepared.part(&(0..if on_the_way { 0 } else { length })).check_values()?;
        if length == 0 {
            return Ok(Report::default());
        }
        let mut flags = vec![0u32; mask.len()];
        let on_device = match &shared.vulkan {
            Some(vulkan) => match self.on_device(vulkan, &prepared, elements, &mut flags, on_the_way) {
                Err(Error::Device(loss)) if loss.is_loss() && !shared.settings.require_gpu => Err(Some(loss)),
                answer => Ok(answer?),
            },
            None => Err(None),
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
                Report { fallback, ..Report::default() }
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
        elements: &mut [u64],
        flags: &mut [u32],
        on_the_way: bool,
    ) -> Result<Report, Error> {
        let program = vulkan.program(&self.shared.settings, prepared)?;
        let verify = on_the_way && self.verify() == Verify::All;
        let mut checks = Checks { backend: self, vulkan, prepared, values: on_the_way, verify };
        let dispatches = vulkan.run(&program, prepared, elements, flags, &mut checks)?;
        let verified = if verify { prepared.length } else { self.check(vulkan, prepared, elements, flags)? };
        self.count_verified(verified);
        Ok(Report { dispatches, verified, fallback: None })
    }

    /// Counts a call that the CPU reference computed because the device is lost. The first is worth a warning.
    fn warn_of(&self, loss: &gpu_executor::Error) {
        let engine = self.engine();
        match self.shared.fallbacks.fetch_add(1, Relaxed) {
            0 => tracing::warn!(%loss, %engine, "computing on the CPU from now on"),
            _ => tracing::debug!(%loss, "computed on the CPU"),
        }
    }

    /// Checks an answer as far as asked for; the number of elements checked.
    fn check(&self, vulkan: &Vulkan, prepared: &Prepared, elements: &[u64], flags: &[u32]) -> Result<usize, Error> {
        let length = prepared.length;
        let random: Vec<usize>;
        let (positions, checked) = match self.verify() {
            Verify::Off => return Ok(0),
            Verify::Sample(n) if n < length => {
                random = (0..n).map(|_| fastrand::usize(..length)).collect();
                (Positions::These(&random), n)
            }
            Verify::All | Verify::Sample(_) => (Positions::All, length),
        };
        self.right(vulkan, prepared, prepared.first_wrong(elements, flags, positions))?;
        Ok(checked)
    }

    /// An error if an element was found wrong.
    fn right(&self, vulkan: &Vulkan, prepared: &Prepared, first_wrong: Option<usize>) -> Result<(), Error> {
        first_wrong.map_or(Ok(()), |index| {
            Err(Error::VerificationFailed {
                operation: prepared.row.name,
                field: prepared.field,
                index,
                device: vulkan.device.info().to_string(),
            })
        })
    }
}

impl Vulkan {
    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The program of a call, made and tested when first asked for.
    pub(crate) fn program(&self, settings: &Settings, prepared: &Prepared) -> Result<Program, Error> {
        let canonical = prepared.row.form_matters && prepared.form == Form::Canonical;
        let slot = prepared.row.operation as usize * 4 + prepared.field as usize * 2 + usize::from(canonical);
        if let Some(program) = &*self.programs[slot].lock() {
            return Ok(program.clone());
        }
        // Not under the lock: the self-test uses rayon, whose workers may be callers that wait for the lock. Threads that
        // arrive together each test; the pipeline is built once.
        let kernel = self.kernel(prepared.row, prepared.field, canonical)?;
        // SAFETY: the kernel is one of field-kernels', valid by spirv-val, which CI runs; elementwise.comp and io.glsl keep to
        // the slots and widths that `slots` tells, guard every invocation by the number of elements and use constant 0 for
        // the workgroup size. A device without 64-bit integers is given the 32-bit variant only.
        let made = unsafe { self.device.prepare(&kernel) }?;
        self.self_test(settings, &made, prepared.row, prepared.field, canonical)?;
        Ok(self.programs[slot].lock().insert(made).clone())
    }

    /// How the kernels of the device's width reach their slots.
    pub(crate) fn reach(&self) -> Reach {
        match self.width {
            Width::Int64 => Reach::Addresses,
            Width::Int32 => Reach::Descriptors,
        }
    }

    fn kernel(&self, row: &Row, field: Field, canonical: bool) -> Result<Kernel, Error> {
        let not_available = Error::NotAvailable { operation: row.name, field };
        let shader = row.kernel.shader(field, self.width).ok_or(not_available)?;
        let scalar = row.parameter == Parameter::Scalar;
        // Every device has 16 KiB of shared memory.
        let tile = self.device.workgroup_size() * field.bytes() as u32;
        let tiled = self.tiled && tile <= 16 << 10;
        Ok(Kernel {
            name: shader.name,
            spirv: shader.spirv,
            reach: self.reach(),
            slots: slots(row, field),
            shape: Shape::Invocations,
            workgroup_size: None,
            constants: vec![
                (1, canonical.into()),
                (2, scalar.into()),
                (3, tiled.into()),
                (4, if tiled { tile / 16 } else { 1 }),
            ],
        })
    }

    /// Drivers do miscompile big-integer shaders: nothing that a kernel says is believed before it has answered what is known.
    fn self_test(
        &self,
        settings: &Settings,
        program: &Program,
        row: &'static Row,
        field: Field,
        canonical: bool,
    ) -> Result<(), Error> {
        let form = if canonical { Form::Canonical } else { Form::Montgomery };
        let known = KnownAnswers::new(row, field);
        let vectors: Vec<&[u64]> = known.vectors.iter().map(Vec::as_slice).collect();
        let prepared =
            Prepared::new(&Call { operation: row.operation, field, form, vectors: &vectors, parameter: &known.parameter })?;
        let mut elements = vec![0; if row.has_elements() { prepared.length * field.limbs() } else { 0 }];
        let mut flags = vec![0; if row.has_mask() { prepared.length } else { 0 }];
        self.run(program, &prepared, &mut elements, &mut flags, &mut Unwatched)?;
        #[cfg(feature = "test-faults")]
        if let Some(crate::Fault::FlipBitInSelfTest(bit)) = settings.fault {
            flip(&mut elements, &mut flags, (&(0..prepared.length), prepared.length), bit);
        }
        #[cfg(not(feature = "test-faults"))]
        let _ = settings;
        // Recomputed, whatever check would prove an answer: here every bit of it is known.
        let (mut known_elements, mut known_flags) = (vec![0; elements.len()], vec![0; flags.len()]);
        (prepared.twin.compute)(
            &prepared.operands(),
            &mut Results { elements: &mut known_elements, mask: &mut known_flags },
        );
        let wrong = |index: usize| {
            let element = index * field.limbs()..(index + 1) * field.limbs();
            elements.get(element.clone()) != known_elements.get(element) || flags.get(index) != known_flags.get(index)
        };
        match (0..prepared.length).find(|&index| wrong(index)) {
            None => Ok(()),
            Some(index) => {
                Err(Error::SelfTestFailed { operation: row.name, field, index, device: self.device.info().to_string() })
            }
        }
    }

    /// Has a program compute a call.
    fn run<W: Watch>(
        &self,
        program: &Program,
        prepared: &Prepared,
        elements: &mut [u64],
        flags: &mut [u32],
        watch: &mut W,
    ) -> Result<usize, W::Error> {
        let row = prepared.row;
        let vectors = prepared.vectors.map(|vector| match vector {
            [] => Slot::Unused,
            limbs => Slot::Read(bytemuck::cast_slice(limbs)),
        });
        let (elements, flags) = (bytemuck::cast_slice_mut(elements), bytemuck::cast_slice_mut(flags));
        let slots = arranged(row, vectors, Slot::Write(elements), Slot::Write(flags));
        let (elements, params, cost) = (prepared.length, &prepared.words[..], row.cost);
        let mut job = Job { elements, slots, params, cost, staged: None, chunk_elements: None };
        program.run(&mut job, watch)
    }
}

/// Elements whose results one thread checks sooner than others are woken to help: one piece of the check's.
const SERIAL: usize = 64;

/// Looks at a call's chunks: at what goes in, if `values`; at what comes out, if `verify`.
struct Checks<'a> {
    backend: &'a Backend,
    vulkan: &'a Vulkan,
    prepared: &'a Prepared<'a>,
    values: bool,
    verify: bool,
}

impl Watch for Checks<'_> {
    type Error = Error;

    fn inspects(&self) -> bool {
        // A check of every result looks at what went in, but does not mind an inverse of zero.
        self.values && (!self.verify || self.prepared.row.operation == Operation::Inverse)
    }

    fn admits(&self, _slot: usize, part: &[u8]) -> bool {
        let (field, limbs) = (self.prepared.field, bytemuck::cast_slice(part));
        let zero = |element: &[u64]| element.iter().all(|&limb| limb == 0);
        let inverted = self.prepared.row.operation == Operation::Inverse;
        field.all_canonical(limbs) && !(inverted && limbs.chunks_exact(field.limbs()).any(zero))
    }

    fn objection(&self, range: Range<usize>) -> Error {
        let found = self.prepared.part(&range).check_values();
        // `admits` and `check_values` agree on what is wrong.
        let none = || Error::NotBelowModulus {
            operation: self.prepared.row.name,
            field: self.prepared.field,
            operand: "a",
            index: range.start,
        };
        found.err().unwrap_or_else(none)
    }

    fn lands(&mut self, range: Range<usize>, results: Landed, threads: &Threads) -> Result<(), Error> {
        let Self { backend, vulkan, prepared, .. } = *self;
        let (elements, flags) = landed(prepared.row, results);
        #[cfg(feature = "test-faults")]
        if let Some(crate::Fault::FlipBit(bit)) = backend.settings().fault {
            flip(elements, flags, (&range, prepared.length), bit);
        }
        if !self.verify {
            return Ok(());
        }
        let _timed = vulkan.device.timed(Stage::Verify, 0);
        let (part, elements, flags) = (prepared.part(&range), &*elements, &*flags);
        let first_wrong = match range.len() {
            ..=SERIAL => part.first_wrong(elements, flags, Positions::All),
            _ => threads.install(|| part.first_wrong(elements, flags, Positions::All)),
        };
        if first_wrong.is_some() {
            // Of wrong values the check finds the results wrong.
            part.check_values()?;
        }
        backend.right(vulkan, prepared, first_wrong.map(|index| range.start + index))
    }
}

/// What the self-test's answers pass: it compares them itself.
struct Unwatched;

impl Watch for Unwatched {
    type Error = gpu_executor::Error;

    fn inspects(&self) -> bool {
        false
    }

    fn admits(&self, _: usize, _: &[u8]) -> bool {
        true
    }

    fn objection(&self, _: Range<usize>) -> Self::Error {
        gpu_executor::Error::Lost { during: "the self-test" }
    }

    fn lands(&mut self, _: Range<usize>, _: Landed, _: &Threads) -> Result<(), Self::Error> {
        Ok(())
    }
}

/// The elements and the flags among a chunk's results; empty what the row does not give.
fn landed<'a>(row: &Row, [_, _, c, r]: Landed<'a>) -> (&'a mut [u64], &'a mut [u32]) {
    // Where `arranged` puts them.
    let (elements, flags) = match (row.has_elements(), row.has_mask()) {
        (true, true) => (r, c),
        (true, false) => (r, None),
        (false, _) => (None, r),
    };
    (elements.map_or(&mut [], bytemuck::cast_slice_mut), flags.map_or(&mut [], bytemuck::cast_slice_mut))
}

/// What the kernel of a row does with its slots.
fn slots(row: &Row, field: Field) -> [SlotUse; 4] {
    let (element, flag) = (field.bytes(), size_of::<u32>());
    let vectors = [0, 1, 2].map(|n| if n < row.vectors { SlotUse::Reads(element) } else { SlotUse::None });
    arranged(row, vectors, SlotUse::Writes(element), SlotUse::Writes(flag))
}

/// Where a row's kernel has its vectors and its results: the vectors first, the elements or the flags last; if there are both,
/// the flags third.
pub(crate) fn arranged<T>(row: &Row, [a, b, c]: [T; 3], elements: T, flags: T) -> [T; 4] {
    match (row.has_elements(), row.has_mask()) {
        (false, _) => [a, b, c, flags],
        (true, false) => [a, b, c, elements],
        (true, true) => [a, b, flags, elements],
    }
}

#[cfg(feature = "test-faults")]
pub(crate) fn flip(elements: &mut [u64], flags: &mut [u32], (range, length): (&Range<usize>, usize), bit: u64) {
    let words: &mut [u32] = if elements.is_empty() { flags } else { bytemuck::cast_slice_mut(elements) };
    let per_element = words.len() / range.len();
    let bit = bit % (32 * (per_element * length) as u64);
    let word = (bit / 32) as usize;
    if range.contains(&(word / per_element)) {
        words[word - range.start * per_element] ^= 1 << (bit % 32);
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
