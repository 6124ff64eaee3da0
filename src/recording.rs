//! Recordings of operations on vectors that stay on the device.

use crate::ark::Element;
use crate::call::{Call, check_scalar};
use crate::mask::Mask;
use crate::memory::{Memory, Mirror, Place};
use crate::operation::{Operation, Output};
use crate::step::{Applied, Fetch, Item, Lowered, Step};
use crate::task::Task;
use crate::ticket::{Download, Landed, Ticket};
use crate::vector::Vector;
use crate::verification::Verification;
use crate::{Backend, Error, Form, Verify};
use ark_bls12_381::Fq;
use smallvec::{SmallVec, smallvec};
use std::fmt;
use std::sync::Arc;

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

/// Operations on vectors, recorded as plain data and submitted together: on a device as one command buffer, otherwise computed by
/// arkworks, one after another.
///
/// On a device, operations that do not depend on one another run side by side, in whichever order they were recorded: a hundred
/// with nothing in common take as many barriers as the longest of them alone. One that reads what another writes waits for it.
///
/// On a device, recordings of one backend take effect in the order in which they are submitted, whichever threads submit them. Where the CPU
/// computes, [`Recording::submit`] does it before it returns, each thread for itself: threads that write what others read or write must
/// take turns.
///
/// Elements are in Montgomery form. Kernels have passed their self-tests; results are compared with the CPU reference if the recording is
/// submitted by [`Recording::submit_verified`].
#[derive(Clone)]
pub struct Recording {
    pub(crate) backend: Backend,
    pub(crate) steps: Vec<Step>,
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

    /// Records that elements are written to a vector, or a slice of one, of the same length. They are copied now. That they are below the
    /// modulus, as arkworks' own code makes them, is not checked.
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
            let bytes = bytemuck::cast_slice(F::limbs(elements)).into();
            self.steps.push(Step::Write { bytes, to: to.memory.clone(), item: Item::Element(F::FIELD) });
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
            self.steps.push(Step::Zero { to: to.memory.clone(), item: Item::Element(F::FIELD) });
        }
        Ok(())
    }

    /// Records that no flag of a mask is set any more.
    ///
    /// # Errors
    /// [`Error::ForeignVector`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mut recording = backend.record();
    /// let same = recording.equal(&vector, &vector)?;
    /// recording.clear(&same.slice(0..1)?)?;
    /// recording.submit()?;
    /// assert_eq!(same.download()?, [false, true]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn clear(&mut self, mask: &Mask) -> Result<(), Error> {
        self.check_mask("clear", mask, mask.len())?;
        if !mask.is_empty() {
            self.steps.push(Step::Zero { to: mask.memory.clone(), item: Item::Flag });
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
            self.steps.push(Step::Copy { from: from.memory.clone(), to: to.memory.clone(), item: Item::Element(F::FIELD) });
        }
        Ok(to)
    }

    /// Records any operation that gives elements into a vector, which may be one of the inputs itself, but not overlap one in
    /// another way. The parameter is a scalar's limbs in Montgomery form, an exponent's as a plain integer, or empty. `Inverse` maps zeros
    /// to zero here, as `InverseOrZero` does: nobody has looked at the values.
    ///
    /// # Errors
    /// [`Error::OperandCount`], [`Error::LengthMismatch`], [`Error::ScalarLength`], [`Error::ForeignVector`]; [`Error::Overlap`];
    /// [`Error::NotBelowModulus`] for a scalar that is not; [`Error::NotAvailable`] for operations that give a mask.
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
        self.apply(operation, inputs, parameter, Some(output), None)
    }

    /// The length of the operands, if an operation can be applied to them.
    fn agreed<F: Element>(&self, operation: Operation, inputs: &[&Vector<F>], parameter: &[u64]) -> Result<usize, Error> {
        let row = operation.row();
        // Everything but the vectors, which lie elsewhere, is checked as for any call.
        let vectors: SmallVec<[&[u64]; 3]> = smallvec![&[][..]; inputs.len()];
        let call = Call { operation, field: F::FIELD, form: Form::Montgomery, vectors: &vectors, parameter };
        call.check_shape()?;
        check_scalar(row, F::FIELD, parameter)?;
        let length = inputs[0].len();
        inputs.iter().try_for_each(|vector| self.check(row.name, vector, length))?;
        Ok(length)
    }

    /// Records any operation, into vectors and masks as its row says.
    fn apply<F: Element>(
        &mut self,
        operation: Operation,
        inputs: &[&Vector<F>],
        parameter: &[u64],
        elements: Option<&Vector<F>>,
        mask: Option<&Mask>,
    ) -> Result<(), Error> {
        let row = operation.row();
        let length = self.agreed(operation, inputs, parameter)?;
        elements.map_or(Ok(()), |output| self.check(row.name, output, length))?;
        mask.map_or(Ok(()), |mask| self.check_mask(row.name, mask, length))?;
        let place = elements.and_then(|output| output.memory.place());
        let overlaps = |input: Option<crate::memory::Place>| {
            input.zip(place.as_ref()).is_some_and(|(input, output)| input.overlaps(output) && input != *output)
        };
        if inputs.iter().any(|input| overlaps(input.memory.place())) {
            return Err(Error::Overlap { operation: row.name });
        }
        if length > 0 {
            let call = Applied { operation, field: F::FIELD, length, parameter: parameter.to_vec() };
            let inputs = inputs.iter().map(|vector| vector.memory.clone()).collect();
            let elements = elements.map_or(Memory::Nowhere, |elements| elements.memory.clone());
            let mask = mask.map_or(Memory::Nowhere, |mask| mask.memory.clone());
            self.steps.push(Step::Apply { call, inputs, elements, mask });
        }
        Ok(())
    }

    /// Records whether a = b, position by position, into a new mask.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let b = backend.upload(&[Fr::from(1u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let same = recording.equal(&a, &b)?;
    /// recording.submit()?;
    /// assert_eq!(same.download()?, [true, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn equal<F: Element>(&mut self, a: &Vector<F>, b: &Vector<F>) -> Result<Mask, Error> {
        self.agreed(Operation::Equal, &[a, b], &[])?;
        let mask = self.backend.mask(a.len())?;
        self.equal_into(a, b, &mask)?;
        Ok(mask)
    }

    /// Records whether a = b, position by position, into `mask`.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mask = backend.falses(5)?;
    /// let mut recording = backend.record();
    /// recording.equal_into(&a, &a, &mask.slice(1..3)?)?;
    /// recording.submit()?;
    /// assert_eq!(mask.download()?, [false, true, true, false, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn equal_into<F: Element>(&mut self, a: &Vector<F>, b: &Vector<F>, mask: &Mask) -> Result<(), Error> {
        self.apply(Operation::Equal, &[a, b], &[], None, Some(mask))
    }

    /// Records square roots, into new memory: where the mask is set, a root of a (of the two, the one that is a power of a);
    /// elsewhere a has none, and it is a root of -a.
    ///
    /// # Errors
    /// [`Error::ForeignVector`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fq;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fq::from(4u64), Fq::from(2u64)])?;
    /// let mut recording = backend.record();
    /// let (root, has_root) = recording.sqrt(&a)?;
    /// let square = recording.square(&root)?;
    /// recording.submit()?;
    /// assert_eq!(square.download()?, [Fq::from(4u64), -Fq::from(2u64)]);
    /// assert_eq!(has_root.download()?, [true, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sqrt(&mut self, a: &Vector<Fq>) -> Result<(Vector<Fq>, Mask), Error> {
        self.agreed(Operation::Sqrt, &[a], &[])?;
        let (root, mask) = (self.backend.vector(a.len())?, self.backend.mask(a.len())?);
        self.sqrt_into(a, &root, &mask)?;
        Ok((root, mask))
    }

    /// Records square roots, as [`Recording::sqrt`] does, into `root`, which may be `a` itself, and `has_root`.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fq;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fq::from(0u64), Fq::from(3u64)])?;
    /// let has_root = backend.falses(2)?;
    /// let mut recording = backend.record();
    /// recording.sqrt_into(&a, &a, &has_root)?;
    /// recording.submit()?;
    /// assert_eq!(a.download()?[0], Fq::from(0u64));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sqrt_into(&mut self, a: &Vector<Fq>, root: &Vector<Fq>, has_root: &Mask) -> Result<(), Error> {
        self.apply(Operation::Sqrt, &[a], &[], Some(root), Some(has_root))
    }

    /// Records a task on memory of this backend: inputs and outputs, and what they hold.
    pub(crate) fn task(
        &mut self,
        task: Arc<dyn Task>,
        inputs: &[(&Memory, Item)],
        outputs: &[(&Memory, Item)],
    ) -> Result<(), Error> {
        let places: Vec<_> = inputs.iter().map(|(memory, _)| memory.place()).collect();
        let written: Vec<_> = outputs.iter().map(|(memory, _)| memory.place()).collect();
        for (number, output) in written.iter().enumerate() {
            let Some(output) = output else { continue };
            let races = |other: &Place| other.overlaps(output) && !(task.in_place() && other == output);
            let twice = written[..number].iter().flatten().any(|other| other.overlaps(output));
            if twice || places.iter().flatten().any(races) {
                return Err(Error::Overlap { operation: task.name() });
            }
        }
        let items = inputs.iter().map(|(_, item)| *item).collect();
        let inputs = inputs.iter().map(|(memory, _)| (*memory).clone()).collect();
        let outputs = outputs.iter().map(|(memory, item)| ((*memory).clone(), *item)).collect();
        self.steps.push(Step::Task { task, inputs, items, outputs });
        Ok(())
    }

    /// Records that what a vector holds at this point is downloaded. [`Ticket::wait`] returns it, among other downloads.
    ///
    /// # Errors
    /// [`Error::ForeignVector`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let sum = recording.sum(&vector)?;
    /// let sum = recording.download(&sum)?;
    /// let mut downloads = recording.submit()?.wait()?;
    /// assert_eq!(downloads.take(&sum)?, [Fr::from(5u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn download<F: Element>(&mut self, vector: &Vector<F>) -> Result<Download<F>, Error> {
        self.check("download", vector, vector.len())?;
        Ok(self.fetch(&vector.memory, Item::Element(F::FIELD), vector.len(), false))
    }

    /// Records that what a mask holds at this point is downloaded, as [`Recording::download`] does for vectors.
    ///
    /// # Errors
    /// [`Error::ForeignVector`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let same = recording.equal(&vector, &vector)?;
    /// let same = recording.download_mask(&same)?;
    /// assert_eq!(recording.submit()?.wait()?.take(&same)?, [true, true]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn download_mask(&mut self, mask: &Mask) -> Result<Download<bool>, Error> {
        self.check_mask("download", mask, mask.len())?;
        Ok(self.fetch(&mask.memory, Item::Flag, mask.len(), false))
    }

    /// What is recorded, or nothing of it if some of it is refused.
    pub(crate) fn all_or_nothing<T>(&mut self, record: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let begin = self.steps.len();
        record(self).inspect_err(|_| self.steps.truncate(begin))
    }

    pub(crate) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    pub(crate) fn fetch<T>(&mut self, from: &Memory, item: Item, length: usize, refuses: bool) -> Download<T> {
        let key = Arc::new(());
        self.steps.push(Step::Fetch(Fetch { key: key.clone(), from: from.clone(), item, length, refuses }));
        Download::new(key)
    }

    pub(crate) fn check<F: Element>(&self, operation: &'static str, vector: &Vector<F>, length: usize) -> Result<(), Error> {
        self.check_operand(operation, &vector.backend, vector.len(), length)
    }

    pub(crate) fn check_mask(&self, operation: &'static str, mask: &Mask, length: usize) -> Result<(), Error> {
        self.check_operand(operation, &mask.backend, mask.len(), length)
    }

    pub(crate) fn check_operand(
        &self,
        operation: &'static str,
        of: &Backend,
        other: usize,
        first: usize,
    ) -> Result<(), Error> {
        if !self.backend.is(of) {
            return Err(Error::ForeignVector { operation });
        }
        if first != other {
            return Err(Error::LengthMismatch { operation, first, other });
        }
        Ok(())
    }

    /// Submits what is recorded, whose results nobody checks, whatever [`Options::verify`](crate::Options::verify) says: see
    /// [`Recording::submit_verified`]. Does not wait for results if a device computes them; but the first use of a kernel makes and tests
    /// it here, in up to some hundred milliseconds, and with very much under way it waits for the oldest.
    ///
    /// # Errors
    /// [`Error::Device`]; [`Error::SelfTestFailed`]. Then nothing has been done (where the CPU computes, and host memory is lacking for a
    /// download: nothing of what was recorded behind it).
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let ticket = backend.record().submit()?;
    /// ticket.wait()?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn submit(self) -> Result<Ticket, Error> {
        self.submit_as(false)
    }

    /// As [`Recording::submit`], to be verified: [`Ticket::wait`] returns no error only if all that the recording downloads and
    /// all that it leaves in vectors and masks is, byte for byte, what the CPU computes from the same inputs.
    ///
    /// In the same submission, the device first fetches what the recording reads before it writes it, and at the end all that
    /// it wrote. `wait` then replays the recording on the CPU, as it would be computed without a device, and compares. This costs
    /// the copies of inputs and outputs, host memory of up to three times their size, and the time that the CPU takes for the whole
    /// recording (inverses by Montgomery's trick). What the vectors held before is taken as it is. Without [`Ticket::wait`] nothing is
    /// verified, and where the CPU computes there is nothing to verify.
    ///
    /// With [`Verify::Proofs`] steps are proved where that is less work than replaying them; see there for which, and for what a proof
    /// leaves open: the sign of a root, and a chance of 2^-254. What they wrote is, if it is overwritten later, also fetched right behind
    /// them, and kept in host memory until then. No other setting of [`Options::verify`](crate::Options::verify), which is about calls from
    /// host memory, changes anything here.
    ///
    /// [`Error::VerificationFailed`] names the operation that last wrote a wrong element, or the first that is not proved, and which
    /// element of its output it is. The vectors then still hold what the device computed: discard them. Only what the recording itself
    /// downloads ([`Recording::download`]) is checked before anybody sees it; [`Vector::download`] checks nothing.
    ///
    /// # Errors
    /// Those of [`Recording::submit`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let cubes = recording.pow(&a, &[3])?;
    /// recording.submit_verified()?.wait()?;
    /// assert_eq!(cubes.download()?, [Fr::from(8u64), Fr::from(27u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn submit_verified(self) -> Result<Ticket, Error> {
        self.submit_as(true)
    }

    fn submit_as(self, verified: bool) -> Result<Ticket, Error> {
        let Self { backend, steps } = self;
        let fetches = steps.iter().filter_map(|step| if let Step::Fetch(fetch) = step { Some(fetch.clone()) } else { None });
        let fetches: Vec<Fetch> = fetches.collect();
        let Some(vulkan) = backend.vulkan() else {
            let mut landed = Vec::new();
            steps.iter().try_for_each(|step| step.compute(&Mirror::default(), &mut landed))?;
            return Ok(Ticket::done(backend, fetches, landed));
        };
        let mut lowered = Lowered::with_capacity(steps.len());
        let verification = verified.then(|| Verification::new(&steps, backend.verify() == Verify::Proofs));
        if let Some(verification) = &verification {
            verification.fetch_inputs(&mut lowered.batch);
        }
        let kept = if verified { steps.clone() } else { Vec::new() };
        for (number, step) in steps.into_iter().enumerate() {
            step.add_to(&mut lowered, &backend, vulkan)?;
            if let Some((verification, step)) = verification.as_ref().zip(kept.get(number)) {
                verification.fetch_said(number, step, &mut lowered.batch);
            }
        }
        let mut batch = lowered.batch;
        if let Some(verification) = &verification {
            verification.fetch_outputs(&mut batch);
        }
        if batch.is_empty() {
            let landed = fetches.iter().map(Landed::new).collect::<Result<_, _>>()?;
            return Ok(Ticket::done(backend, fetches, landed));
        }
        let submitted = vulkan.device().submit(&batch)?;
        Ok(Ticket::submitted(backend.clone(), submitted, fetches, verification.map(|verification| (verification, kept))))
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recording({} operations)", self.len())
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
                    let limbs: &[u64] = operations!(@limbs $($parameter $kind)?);
                    let out = self.backend.vector(self.agreed(Operation::$operation, &[$first, $($vector),*], limbs)?)?;
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
