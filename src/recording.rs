//! Recordings of operations on vectors that stay on the device.

use crate::ark::Element;
use crate::backend::Vulkan;
use crate::call::{Call, Prepared};
use crate::operation::{Operation, Output};
use crate::vector::{Memory, Vector};
use crate::{Backend, Error, Form};
use cpu_reference::Results;
use gpu_executor::{Batch, Region};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

impl Backend {
    /// An empty recording.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.record().is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn record(&self) -> Recording {
        Recording { backend: self.clone(), steps: Vec::new() }
    }
}

/// Operations on vectors, recorded as plain data and submitted together: on a device as one command buffer, with a barrier
/// only where an operation touches what an earlier one wrote; otherwise computed by arkworks, one after another.
///
/// Recordings of one backend take effect in the order in which they are submitted, whichever threads submit them. Results of
/// recordings are not compared with the CPU reference; their kernels have passed their self-tests.
#[derive(Clone)]
pub struct Recording {
    backend: Backend,
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Apply { call: Applied, inputs: Vec<Memory>, output: Memory },
    Write { limbs: Arc<[u8]>, to: Memory },
    Copy { from: Memory, to: Memory },
    Zero { to: Memory },
}

#[derive(Clone)]
struct Applied {
    operation: Operation,
    field: crate::Field,
    length: usize,
    parameter: Vec<u64>,
}

impl Recording {
    /// The number of operations recorded.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let mut recording = backend.record();
    /// recording.zero(&backend.zeros::<Fr>(1)?)?;
    /// assert_eq!(recording.len(), 1);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing is recorded.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.record().is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Records that elements are written to a vector, or a slice of one, of the same length. They are copied now.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mut recording = backend.record();
    /// recording.write(&vector.slice(0..1)?, &[Fr::from(7u64)])?;
    /// recording.submit()?;
    /// assert_eq!(vector.download()?, [Fr::from(7u64), Fr::from(2u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn write<F: Element>(&mut self, to: &Vector<F>, elements: &[F]) -> Result<(), Error> {
        self.check("write", to, elements.len())?;
        if !to.is_empty() {
            let limbs = bytemuck::cast_slice(F::limbs(elements)).into();
            self.steps.push(Step::Write { limbs, to: to.memory.clone() });
        }
        Ok(())
    }

    /// Records that a vector is filled with zeros.
    ///
    /// # Errors
    /// [`Error::ForeignVector`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mut recording = backend.record();
    /// recording.zero(&vector)?;
    /// recording.submit()?;
    /// assert_eq!(vector.download()?, [Fr::from(0u64); 2]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn zero<F: Element>(&mut self, to: &Vector<F>) -> Result<(), Error> {
        self.check("zero", to, to.len())?;
        if !to.is_empty() {
            self.steps.push(Step::Zero { to: to.memory.clone() });
        }
        Ok(())
    }

    /// Records a copy of a vector into new memory.
    ///
    /// # Errors
    /// [`Error::ForeignVector`]; [`Error::Device`] if there is no memory for it.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mut recording = backend.record();
    /// let copy = recording.duplicate(&vector)?;
    /// recording.submit()?;
    /// assert_eq!(copy.download()?, vector.download()?);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn duplicate<F: Element>(&mut self, from: &Vector<F>) -> Result<Vector<F>, Error> {
        self.check("duplicate", from, from.len())?;
        let to = self.backend.vector(from.len())?;
        if !from.is_empty() {
            self.steps.push(Step::Copy { from: from.memory.clone(), to: to.memory.clone() });
        }
        Ok(to)
    }

    /// Records any operation that gives elements into a vector, which may be one of the inputs itself, but not overlap one in
    /// another way. `Inverse` maps zeros to zero here, as `InverseOrZero` does: nobody has looked at the values.
    ///
    /// # Errors
    /// [`Error::OperandCount`], [`Error::LengthMismatch`], [`Error::ScalarLength`], [`Error::ForeignVector`];
    /// [`Error::NotAvailable`] for operations that give a mask.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Operation;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mut recording = backend.record();
    /// recording.apply_into(Operation::Mul, &[&vector, &vector], &[], &vector)?;
    /// recording.submit()?;
    /// assert_eq!(vector.download()?, [Fr::from(1u64), Fr::from(4u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn apply_into<F: Element>(
        &mut self,
        operation: Operation,
        inputs: &[&Vector<F>],
        parameter: &[u64],
        output: &Vector<F>,
    ) -> Result<(), Error> {
        let row = operation.row();
        if row.output != Output::Elements {
            return Err(Error::NotAvailable { operation: row.name, field: F::FIELD });
        }
        // Everything but the vectors, which lie elsewhere, is checked as for any call.
        let vectors = vec![&[][..]; inputs.len()];
        let call = Call { operation, field: F::FIELD, form: Form::Montgomery, vectors: &vectors, parameter };
        call.check_shape()?;
        Prepared::new(&call)?.part(&(0..0)).check_values()?;
        for vector in inputs.iter().copied().chain([output]) {
            self.check(row.name, vector, inputs[0].len())?;
        }
        if !output.is_empty() {
            let call = Applied { operation, field: F::FIELD, length: output.len(), parameter: parameter.to_vec() };
            let inputs = inputs.iter().map(|vector| vector.memory.clone()).collect();
            self.steps.push(Step::Apply { call, inputs, output: output.memory.clone() });
        }
        Ok(())
    }

    fn check<F: Element>(&self, operation: &'static str, vector: &Vector<F>, length: usize) -> Result<(), Error> {
        if !self.backend.is(&vector.backend) {
            return Err(Error::ForeignVector { operation });
        }
        if vector.len() != length {
            return Err(Error::LengthMismatch { operation, first: length, other: vector.len() });
        }
        Ok(())
    }

    /// Submits what is recorded, and returns at once if a device computes it.
    ///
    /// # Errors
    /// [`Error::Device`]; [`Error::SelfTestFailed`]. Then nothing has been done.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let ticket = backend.record().submit()?;
    /// ticket.wait()?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn submit(self) -> Result<Ticket, Error> {
        let Some(vulkan) = self.backend.vulkan() else {
            self.steps.iter().try_for_each(Step::compute)?;
            return Ok(Ticket { device: None });
        };
        if self.steps.is_empty() {
            return Ok(Ticket { device: None });
        }
        let mut batch = Batch::default();
        for step in &self.steps {
            step.add_to(&mut batch, &self.backend, vulkan)?;
        }
        Ok(Ticket { device: Some(vulkan.device().submit(&batch)?) })
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({} operations)", self.len())
    }
}

impl Step {
    /// Adds the step to a device's batch; a costly operation on a long vector as several launches.
    fn add_to(&self, batch: &mut Batch, backend: &Backend, vulkan: &Vulkan) -> Result<(), Error> {
        match self {
            Step::Write { limbs, to: Memory::Device(to) } => batch.upload(to, limbs.clone()),
            Step::Copy { from: Memory::Device(from), to: Memory::Device(to) } => batch.copy(from, to),
            Step::Zero { to: Memory::Device(to) } => batch.zero(to),
            Step::Apply { call, inputs, output: Memory::Device(output) } => {
                let row = call.operation.row();
                let empty = vec![&[][..]; row.vectors];
                let prepared = Prepared::new(&call.call(&empty))?;
                let program = vulkan.program(backend.settings(), &prepared)?;
                let most = vulkan.device().launch_elements(row.cost);
                let bytes = call.field.bytes() as u64;
                for start in (0..call.length).step_by(most) {
                    let end = call.length.min(start + most);
                    let part = |region: &Region| region.slice(start as u64 * bytes..end as u64 * bytes);
                    let mut slots = [None, None, None, None];
                    for (slot, input) in slots.iter_mut().zip(inputs) {
                        if let Memory::Device(region) = input {
                            *slot = part(region).map(|region| (region, false));
                        }
                    }
                    slots[3] = part(output).map(|region| (region, true));
                    batch.launch(&program, slots, (end - start) as u32, &prepared.words);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Computes the step on the CPU.
    fn compute(&self) -> Result<(), Error> {
        match self {
            Step::Write { limbs, to } => to.store(&bytemuck::allocation::pod_collect_to_vec(limbs)),
            Step::Copy { from, to } => to.store(&from.load()),
            Step::Zero { to } => to.store(&vec![0; to.limbs()]),
            Step::Apply { call, inputs, output } => {
                let vectors: Vec<Vec<u64>> = inputs.iter().map(Memory::load).collect();
                let vectors: Vec<&[u64]> = vectors.iter().map(Vec::as_slice).collect();
                let prepared = Prepared::new(&call.call(&vectors))?;
                let mut elements = vec![0; call.length * call.field.limbs()];
                (prepared.twin.compute)(&prepared.operands(), &mut Results { elements: &mut elements, mask: &mut [] });
                output.store(&elements);
            }
        }
        Ok(())
    }
}

impl Applied {
    fn call<'a>(&'a self, vectors: &'a [&'a [u64]]) -> Call<'a> {
        let Self { operation, field, .. } = *self;
        Call { operation, field, form: Form::Montgomery, vectors, parameter: &self.parameter }
    }
}

/// A submitted recording. Dropping it changes nothing: the recording is done all the same.
#[derive(Debug)]
pub struct Ticket {
    /// `None` if the recording was done when it was submitted.
    device: Option<gpu_executor::Ticket>,
}

impl Ticket {
    /// Whether the recording has been done.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.record().submit()?.is_done()?);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn is_done(&self) -> Result<bool, Error> {
        Ok(self.device.as_ref().map_or(Ok(true), gpu_executor::Ticket::is_done)?)
    }

    /// Waits until the recording has been done: spins briefly, then sleeps.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost or takes longer than its timeout.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// backend.record().submit()?.wait()?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn wait(self) -> Result<(), Error> {
        Ok(self.device.map_or(Ok(()), |ticket| ticket.finish(&mut []))?)
    }

    /// Waits until the recording has been done, at most for `timeout`; whether it has.
    ///
    /// # Errors
    /// [`Error::Device`] if the device is lost.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.record().submit()?.wait_timeout(std::time::Duration::from_secs(1))?);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> Result<bool, Error> {
        Ok(self.device.as_ref().map_or(Ok(true), |ticket| ticket.wait_timeout(timeout))?)
    }
}

macro_rules! operations {
    ($($name:ident $into:ident $operation:ident ($first:ident $($vector:ident)*) ($($parameter:ident: $kind:ident)?) $summary:literal;)+) => {
        impl Recording {
            $(
                #[doc = concat!("Records ", $summary, ", into new memory.\n\n# Errors\nThose of [`Recording::apply_into`]; [`Error::Device`] if there is no memory.\n\n```\n")]
                #[doc = "let one = ark_bls12_381::Fr::from(1u64);"]
                #[doc = "let backend = bls12_field_gpu::backend()?;"]
                #[doc = "let v = backend.upload(&[one])?;"]
                #[doc = "let mut recording = backend.record();"]
                #[doc = concat!("let out = recording.", stringify!($name), "(", "&v, ", $("&", operations!(@v $vector), ", ",)* $(operations!(@example $kind),)? ")?;")]
                #[doc = "recording.submit()?;"]
                #[doc = concat!("assert_eq!(out.download()?, backend.", stringify!($name), "(", "&[one], ", $("&", operations!(@one $vector), ", ",)* $(operations!(@example $kind),)? ")?);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $name<F: Element>(
                    &mut self, $first: &Vector<F>, $($vector: &Vector<F>,)* $($parameter: operations!(@type $kind))?
                ) -> Result<Vector<F>, Error> {
                    let out = self.backend.vector($first.len())?;
                    self.$into($first, $($vector,)* $($parameter,)? &out)?;
                    Ok(out)
                }

                #[doc = concat!("Records ", $summary, ", into `out`.\n\n# Errors\nThose of [`Recording::apply_into`].\n\n```\n")]
                #[doc = "let one = ark_bls12_381::Fr::from(1u64);"]
                #[doc = "let backend = bls12_field_gpu::backend()?;"]
                #[doc = "let v = backend.upload(&[one])?;"]
                #[doc = "let mut recording = backend.record();"]
                #[doc = "let out = backend.zeros(1)?;"]
                #[doc = concat!("recording.", stringify!($into), "(", "&v, ", $("&", operations!(@v $vector), ", ",)* $(operations!(@example $kind),)? "&out)?;")]
                #[doc = "recording.submit()?;"]
                #[doc = concat!("assert_eq!(out.download()?, backend.", stringify!($name), "(", "&[one], ", $("&", operations!(@one $vector), ", ",)* $(operations!(@example $kind),)? ")?);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $into<F: Element>(
                    &mut self, $first: &Vector<F>, $($vector: &Vector<F>,)* $($parameter: operations!(@type $kind),)? out: &Vector<F>,
                ) -> Result<(), Error> {
                    let parameter: &[u64] = operations!(@limbs $($parameter $kind)?);
                    self.apply_into(Operation::$operation, &[$first, $($vector),*], parameter, out)
                }
            )+
        }
    };
    (@v $vector:ident) => { "v" };
    (@one $vector:ident) => { "[one]" };
    (@example element) => { "&one, " };
    (@example exponent) => { "&[3], " };
    (@type element) => { &F };
    (@type exponent) => { &[u64] };
    (@limbs) => { &[] };
    (@limbs $parameter:ident element) => { F::limbs(std::slice::from_ref($parameter)) };
    (@limbs $parameter:ident exponent) => { $parameter };
}

operations! {
    add add_into Add (a b) () "the sums a + b";
    sub sub_into Sub (a b) () "the differences a - b";
    neg neg_into Neg (a) () "the negatives -a";
    double double_into Double (a) () "the doubles 2 a";
    mul mul_into Mul (a b) () "the products a b";
    square square_into Square (a) () "the squares a^2";
    mul_add mul_add_into MulAdd (a b c) () "a b + c";
    add_scalar add_scalar_into AddScalar (a) (scalar: element) "a + s for one element s";
    sub_scalar sub_scalar_into SubScalar (a) (scalar: element) "a - s for one element s";
    scale scale_into Scale (a) (scalar: element) "a s for one element s";
    pow pow_into Pow (a) (exponent: exponent) "the powers a^e for one exponent e";
    inverse_or_zero inverse_or_zero_into InverseOrZero (a) () "the inverses 1 / a, and 0 where a is 0";
}
