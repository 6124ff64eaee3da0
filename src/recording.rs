//! Recordings of operations on vectors that stay on the device.

use crate::ark::Element;
use crate::mask::Mask;
use crate::memory::{Memory, Mirror, Place};
use crate::step::{Fetch, Item, Lowered, Step};
use crate::task::{Scratch, Task};
use crate::ticket::{Download, Landed, Ticket};
use crate::vector::Vector;
use crate::verification::Verification;
use crate::{Backend, Error};
use std::fmt;
use std::sync::Arc;

mod elementwise;

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
    /// With [`Verify::Proofs`](crate::Verify::Proofs) steps are proved where that is less work than replaying them; see there for which,
    /// and for what a proof leaves open: the sign of a root, and a chance of 2^-254. What they wrote is, if it is overwritten later, also
    /// fetched right behind them, and kept in host memory until then. No other setting of [`Options::verify`](crate::Options::verify), which
    /// is about calls from host memory, changes anything here.
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

    pub(crate) fn fetches(&self) -> impl Iterator<Item = &Fetch> {
        self.steps.iter().filter_map(|step| if let Step::Fetch(fetch) = step { Some(fetch) } else { None })
    }

    fn submit_as(self, verified: bool) -> Result<Ticket, Error> {
        let fetches: Vec<Fetch> = self.fetches().cloned().collect();
        let Self { backend, steps } = self;
        let Some(vulkan) = backend.vulkan() else {
            let mut landed = Vec::new();
            steps.iter().try_for_each(|step| step.compute(&Mirror::default(), &mut landed))?;
            return Ok(Ticket::done(backend, fetches, landed));
        };
        let verification = verified.then(|| Verification::new(&steps, &backend));
        let kept = if verified { steps.clone() } else { Vec::new() };
        let verified = verification.as_ref().map(|verification| (verification, &kept[..]));
        let Lowered { batch, .. } = Lowered::new(Scratch::default(), steps, (&backend, vulkan), verified)?;
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
