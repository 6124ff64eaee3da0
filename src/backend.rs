//! The backend: checks what it is given, has it computed, checks what it got.

use crate::known_answers::KnownAnswers;
use crate::operation::{FixedExponent, Operation, Parameter, Row, TABLE};
use crate::options::{DeviceChoice, Options, Settings, Verify};
use crate::{Error, Field, Form};
use cpu_reference::{Operands, Positions, Results};
use field_kernels::Width;
use gpu_executor::{Device, DeviceInfo, Job, Kernel, Program, Reach, Slot, ValidationLog, Verdict};
use num_bigint::BigUint;
use parking_lot::Mutex;
use rayon::prelude::*;
use std::fmt;
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
    vulkan: Option<Vulkan>,
    calls: AtomicU64,
    cpu_calls: AtomicU64,
    verified: AtomicU64,
}

struct Vulkan {
    device: Device,
    width: Width,
    /// By operation, field and form; filled when first used, after its self-test.
    programs: Vec<Mutex<Option<Program>>>,
}

/// What computes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Engine {
    /// A Vulkan device.
    Vulkan {
        /// The device.
        device: DeviceInfo,
        /// Whether vectors lie in device-local memory while it works on them (rather than in host memory).
        device_local: bool,
        /// The variant of the kernels.
        width: Width,
        /// Invocations per workgroup.
        workgroup_size: u32,
    },
    /// The CPU reference: arkworks, on all threads of the current rayon pool.
    Cpu {
        /// Why not a GPU.
        reason: String,
    },
}

/// One application of an operation, as data: the form in which the table of operations is walked.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The operation.
    pub operation: Operation,
    /// The field.
    pub field: Field,
    /// The form of all elements.
    pub form: Form,
    /// The vectors, [`Row::vectors`] of them, as little-endian limbs.
    pub vectors: &'a [&'a [u64]],
    /// The scalar or the exponent; empty if the operation takes neither.
    pub parameter: &'a [u64],
}

/// What came of a [`Call`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The elements, as limbs; empty if the operation gives none.
    pub elements: Vec<u64>,
    /// The flags; empty if the operation gives none.
    pub mask: Vec<bool>,
    /// How it came about.
    pub report: Report,
}

/// How a result came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Dispatches on the device, one per chunk; 0 if the CPU reference computed the result.
    pub dispatches: usize,
    /// Elements that were checked against the CPU reference.
    pub verified: usize,
}

/// What a backend has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Calls that had a result, empty ones aside.
    pub calls: u64,
    /// Those of them that the CPU reference computed.
    pub cpu_calls: u64,
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
    pub fn new(options: &Options) -> Result<Self, Error> {
        let settings = Settings::new(options)?;
        let device = match settings.device {
            DeviceChoice::Cpu => Err("the CPU was asked for".to_owned()),
            DeviceChoice::Index(_) => Ok(Device::new(&settings.executor)?),
            DeviceChoice::Auto => match Device::new(&settings.executor) {
                Err(error @ gpu_executor::Error::NoDevice { .. }) if !settings.require_gpu => Err(error.to_string()),
                made => Ok(made?),
            },
        };
        let (engine, vulkan) = match device {
            Ok(device) => {
                let width = match settings.width {
                    Some(Width::Int64) if !device.info().int64 => {
                        let reason = "the device has no 64-bit integers";
                        return Err(Error::InvalidOption { option: "width", reason });
                    }
                    Some(width) => width,
                    None if device.info().int64 => Width::Int64,
                    None => Width::Int32,
                };
                let engine = Engine::Vulkan {
                    device: device.info().clone(),
                    device_local: device.is_staged(),
                    width,
                    workgroup_size: device.workgroup_size(),
                };
                let programs = (0..TABLE.len() * 4).map(|_| Mutex::new(None)).collect();
                (engine, Some(Vulkan { device, width, programs }))
            }
            Err(reason) => {
                tracing::warn!(reason, "no GPU: computing on the CPU");
                (Engine::Cpu { reason }, None)
            }
        };
        let (calls, cpu_calls, verified) = Default::default();
        Ok(Self { shared: Arc::new(Shared { settings, engine, vulkan, calls, cpu_calls, verified }) })
    }

    /// What computes the results.
    pub fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// How much is checked.
    pub fn verify(&self) -> Verify {
        self.shared.settings.verify
    }

    /// Every Vulkan device of this machine that was looked at, and what was decided about it. Empty if the backend computes on
    /// the CPU; [`Engine::Cpu`] then has the reasons.
    pub fn verdicts(&self) -> &[Verdict] {
        self.shared.vulkan.as_ref().map_or(&[], |vulkan| vulkan.device.verdicts())
    }

    /// What the validation layer said; empty, too, when it is off.
    pub fn validation_log(&self) -> ValidationLog {
        self.shared.vulkan.as_ref().map(|vulkan| vulkan.device.validation_log()).unwrap_or_default()
    }

    /// What the backend has done so far.
    pub fn stats(&self) -> Stats {
        let shared = &*self.shared;
        Stats {
            calls: shared.calls.load(Relaxed),
            cpu_calls: shared.cpu_calls.load(Relaxed),
            verified_elements: shared.verified.load(Relaxed),
            device: shared.vulkan.as_ref().map(|vulkan| vulkan.device.stats()).unwrap_or_default(),
        }
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
        let report = self.run(call, Trust::Nothing, &mut elements, &mut mask)?;
        Ok(Outcome { elements, mask, report })
    }

    /// Computes a call into the caller's slices.
    pub(crate) fn run(&self, call: &Call, trust: Trust, elements: &mut [u64], mask: &mut [bool]) -> Result<Report, Error> {
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
        if trust == Trust::Nothing {
            call.check_values()?;
        }
        if call.operation == Operation::Inverse {
            call.check_no_zero()?;
        }
        if length == 0 {
            return Ok(Report::default());
        }
        let prepared = Prepared::new(call)?;
        let mut flags = vec![0u32; mask.len()];
        let report = match &shared.vulkan {
            Some(vulkan) => {
                let program = vulkan.program(&shared.settings, &prepared)?;
                let dispatches = vulkan.run(&program, &prepared, elements, &mut flags)?;
                #[cfg(feature = "test-faults")]
                if let Some(crate::Fault::FlipBit(bit)) = shared.settings.fault {
                    flip(elements, &mut flags, bit);
                }
                let verified = self.check(vulkan, &prepared, elements, &flags)?;
                Report { dispatches, verified }
            }
            None => {
                (prepared.twin.compute)(&prepared.operands(), &mut Results { elements, mask: &mut flags });
                shared.cpu_calls.fetch_add(1, Relaxed);
                Report::default()
            }
        };
        mask.iter_mut().zip(&flags).for_each(|(flag, &word)| *flag = word != 0);
        shared.calls.fetch_add(1, Relaxed);
        Ok(report)
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
        if let Some(index) = (prepared.twin.first_wrong)(&prepared.operands(), elements, flags, positions) {
            return Err(Error::VerificationFailed {
                operation: prepared.row.name,
                field: prepared.field,
                index,
                device: vulkan.device.info().to_string(),
            });
        }
        self.shared.verified.fetch_add(checked as u64, Relaxed);
        Ok(checked)
    }
}

/// What is known of the operands' values.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// They may be anything.
    Nothing,
    /// They are below the modulus, because arkworks' types keep them so.
    Reduced,
}

const OPERANDS: [&str; 3] = ["a", "b", "c"];

impl Call<'_> {
    /// Whether the call makes sense, values aside; its length in elements.
    fn check_shape(&self) -> Result<usize, Error> {
        let row = self.operation.row();
        let (operation, per_element) = (row.name, self.field.limbs());
        if !row.available(self.field) {
            return Err(Error::NotAvailable { operation, field: self.field });
        }
        if self.vectors.len() != row.vectors {
            return Err(Error::OperandCount { operation, expected: row.vectors, got: self.vectors.len() });
        }
        for vector in self.vectors {
            if !vector.len().is_multiple_of(per_element) {
                return Err(Error::PartialElement { operation, limbs: vector.len(), per_element });
            }
        }
        let first = self.vectors[0].len() / per_element;
        if let Some(other) = self.vectors.iter().map(|vector| vector.len() / per_element).find(|&other| other != first) {
            return Err(Error::LengthMismatch { operation, first, other });
        }
        if row.parameter == Parameter::Scalar && self.parameter.len() != per_element {
            return Err(Error::ScalarLength { operation, limbs: self.parameter.len(), per_element });
        }
        Ok(first)
    }

    /// Whether every element is below the modulus.
    fn check_values(&self) -> Result<(), Error> {
        let row = self.operation.row();
        let per_element = self.field.limbs();
        let not_below = |operand, index| Error::NotBelowModulus { operation: row.name, field: self.field, operand, index };
        for (operand, vector) in OPERANDS.into_iter().zip(self.vectors) {
            if let Some(index) = first_element(vector, per_element, |element| !self.field.is_canonical(element)) {
                return Err(not_below(operand, index));
            }
        }
        if row.parameter == Parameter::Scalar && !self.field.is_canonical(self.parameter) {
            return Err(not_below("scalar", 0));
        }
        Ok(())
    }

    fn check_no_zero(&self) -> Result<(), Error> {
        let zero = |element: &[u64]| element.iter().all(|&limb| limb == 0);
        let first = first_element(self.vectors[0], self.field.limbs(), zero);
        first.map_or(Ok(()), |index| Err(Error::ZeroInverse { index }))
    }
}

/// The index of the first element with a property, looked for in parallel in long vectors.
fn first_element(vector: &[u64], per_element: usize, property: impl Fn(&[u64]) -> bool + Sync) -> Option<usize> {
    const PIECE: usize = 4096;
    let serial = |piece: &[u64]| piece.chunks_exact(per_element).position(&property);
    if vector.len() <= PIECE * per_element {
        return serial(vector);
    }
    let pieces = vector.par_chunks(PIECE * per_element).enumerate();
    pieces.find_map_first(|(number, piece)| serial(piece).map(|index| number * PIECE + index))
}

/// A call that passed its checks.
struct Prepared<'a> {
    row: &'static Row,
    field: Field,
    form: Form,
    length: usize,
    vectors: [&'a [u64]; 3],
    /// What the twin is given.
    parameter: Vec<u64>,
    /// What the kernel is given.
    words: Vec<u32>,
    twin: cpu_reference::Twin,
}

impl<'a> Prepared<'a> {
    fn new(call: &Call<'a>) -> Result<Self, Error> {
        let row = call.operation.row();
        let not_available = Error::NotAvailable { operation: row.name, field: call.field };
        let twin = row.twin(call.field).ok_or(not_available)?;
        let vector = |index: usize| call.vectors.get(index).copied().unwrap_or(&[]);
        let parameter = match row.exponent {
            Some(exponent) => exponent.of(call.field),
            None => call.parameter.to_vec(),
        };
        let short;
        let kernel_parameter = if row.parameter == Parameter::Exponent {
            short = reduced_exponent(&parameter, call.field);
            &short
        } else {
            &parameter
        };
        Ok(Self {
            row,
            field: call.field,
            form: call.form,
            length: vector(0).len() / call.field.limbs(),
            vectors: [vector(0), vector(1), vector(2)],
            words: kernel_parameter.iter().flat_map(|&limb| [limb as u32, (limb >> 32) as u32]).collect(),
            twin,
            parameter,
        })
    }

    fn operands(&self) -> Operands<'_> {
        Operands { vectors: self.vectors, parameter: &self.parameter, form: self.form }
    }
}

impl FixedExponent {
    fn of(self, field: Field) -> Vec<u64> {
        let p = integer(field.modulus());
        match self {
            FixedExponent::Inverse => p - 2u32,
            FixedExponent::Root => (p + 1u32) >> 2,
        }
        .to_u64_digits()
    }
}

fn integer(limbs: &[u64]) -> BigUint {
    BigUint::from_slice(&limbs.iter().flat_map(|&limb| [limb as u32, (limb >> 32) as u32]).collect::<Vec<_>>())
}

/// An exponent of as many limbs as an element that gives the same powers: a^(p - 1) = 1 for a != 0. A multiple of p - 1 other
/// than 0 becomes p - 1, not 0, because 0^0 = 1.
fn reduced_exponent(exponent: &[u64], field: Field) -> Vec<u64> {
    if exponent.len() <= field.limbs() {
        return exponent.to_vec();
    }
    let (exponent, order) = (integer(exponent), integer(field.modulus()) - 1u32);
    let reduced = &exponent % &order;
    let zero = BigUint::ZERO;
    if reduced == zero && exponent != zero { order } else { reduced }.to_u64_digits()
}

impl Vulkan {
    /// The program of a call, made and tested when first asked for.
    fn program(&self, settings: &Settings, prepared: &Prepared) -> Result<Program, Error> {
        let canonical = prepared.row.form_matters && prepared.form == Form::Canonical;
        let slot = prepared.row.operation as usize * 4 + prepared.field as usize * 2 + usize::from(canonical);
        if let Some(program) = &*self.programs[slot].lock() {
            return Ok(program.clone());
        }
        // Not under the lock: the self-test uses rayon, whose workers may be callers that wait for the lock. Threads that
        // arrive together each test; the pipeline is built once.
        let kernel = self.kernel(prepared.row, prepared.field, canonical)?;
        let made = self.device.prepare(&kernel)?;
        self.self_test(settings, &made, prepared.row, prepared.field, canonical)?;
        Ok(self.programs[slot].lock().insert(made).clone())
    }

    fn kernel(&self, row: &Row, field: Field, canonical: bool) -> Result<Kernel, Error> {
        let not_available = Error::NotAvailable { operation: row.name, field };
        let shader = row.kernel.shader(field, self.width).ok_or(not_available)?;
        let scalar = row.parameter == Parameter::Scalar;
        Ok(Kernel {
            name: shader.name,
            spirv: shader.spirv,
            reach: match self.width {
                Width::Int64 => Reach::Addresses,
                Width::Int32 => Reach::Descriptors,
            },
            constants: vec![(1, canonical.into()), (2, scalar.into())],
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
        self.run(program, &prepared, &mut elements, &mut flags)?;
        #[cfg(feature = "test-faults")]
        if let Some(crate::Fault::FlipBitInSelfTest(bit)) = settings.fault {
            flip(&mut elements, &mut flags, bit);
        }
        #[cfg(not(feature = "test-faults"))]
        let _ = settings;
        match (prepared.twin.first_wrong)(&prepared.operands(), &elements, &flags, Positions::All) {
            None => Ok(()),
            Some(index) => {
                Err(Error::SelfTestFailed { operation: row.name, field, index, device: self.device.info().to_string() })
            }
        }
    }

    fn run(&self, program: &Program, prepared: &Prepared, elements: &mut [u64], flags: &mut [u32]) -> Result<usize, Error> {
        let row = prepared.row;
        let mut slots = prepared.vectors.map(|vector| match vector {
            [] => Slot::Unused,
            limbs => Slot::Read(bytemuck::cast_slice(limbs)),
        });
        let (elements, flags) = (bytemuck::cast_slice_mut(elements), bytemuck::cast_slice_mut(flags));
        let result = match (row.has_elements(), row.has_mask()) {
            (false, _) => Slot::Write(flags),
            (true, false) => Slot::Write(elements),
            (true, true) => {
                slots[2] = Slot::Write(flags);
                Slot::Write(elements)
            }
        };
        let [a, b, c] = slots;
        let mut job = Job { elements: prepared.length, slots: [a, b, c, result], params: &prepared.words, cost: row.cost };
        Ok(program.run(&mut job)?)
    }
}

#[cfg(feature = "test-faults")]
fn flip(elements: &mut [u64], flags: &mut [u32], bit: u64) {
    let words: &mut [u32] = if elements.is_empty() { flags } else { bytemuck::cast_slice_mut(elements) };
    let bit = bit % (32 * words.len() as u64);
    words[(bit / 32) as usize] ^= 1 << (bit % 32);
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Engine::Vulkan { device, device_local, width, workgroup_size } => {
                let memory = if *device_local { "device-local memory" } else { "host memory" };
                write!(f, "Vulkan device {device}, {memory}, {} kernels, workgroups of {workgroup_size}", width.name())
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
