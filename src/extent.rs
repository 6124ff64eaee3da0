//! Where a vector has its last element that is not zero, and whether it has one: the degree of a polynomial, without its
//! coefficients coming back to the host.

use crate::ark::Element;
use crate::mask::{FLAG, Mask};
use crate::memory::Memory;
use crate::passes::{Launch, Pass, Share};
use crate::step::Item;
use crate::task::{Lowering, Task, Trial, Values};
use crate::ticket::Download;
use crate::vector::Vector;
use crate::{Backend, Error, Field, Recording};
use field_kernels::Kernel;
use gpu_executor::Region;
use rayon::prelude::*;
use smallvec::smallvec;
use std::fmt;
use std::sync::Arc;

/// Numbers of elements that lie where a [`Backend`] computes, as [`Vector`]s do. Four bytes each.
///
/// ```
/// # use ark_bls12_381::Fr;
/// let backend = bls12_field_gpu::backend()?;
/// // 2 + 5 X^2, and zero
/// let polynomials = backend.upload(&[2u64, 0, 5, 0, 0, 0, 0, 0].map(Fr::from))?;
/// let mut recording = backend.record();
/// let extents = recording.extents(&polynomials, 2)?;
/// recording.submit()?;
/// assert_eq!(extents.download()?, [3, 0]);
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
#[derive(Clone)]
pub struct Counts {
    pub(crate) backend: Backend,
    pub(crate) memory: Memory,
    pub(crate) length: usize,
}

impl Counts {
    /// How many numbers there are.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.record().extents(&backend.zeros::<Fr>(6)?, 3)?.len(), 3);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(!backend.record().extents(&backend.zeros::<Fr>(6)?, 3)?.is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The numbers, fetched from the device: everything submitted before has been done.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let mut recording = backend.record();
    /// let extents = recording.extents(&backend.zeros::<Fr>(6)?, 1)?;
    /// recording.submit()?;
    /// assert_eq!(extents.download()?, [0]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn download(&self) -> Result<Vec<usize>, Error> {
        let mut counts = vec![0u32; self.length];
        self.memory.download(&self.backend, bytemuck::cast_slice_mut(&mut counts))?;
        Ok(counts.into_iter().map(|count| count as usize).collect())
    }
}

impl fmt::Debug for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Counts({})", self.length)
    }
}

/// How many elements each segment has up to its last one that is not zero, or whether it has one.
#[derive(Clone, Copy, Debug)]
struct Extent {
    field: Field,
    segment: usize,
    only_whether: bool,
}

/// Options of the kernel.
const OF_EXTENTS: u32 = 1;
const ONLY_WHETHER: u32 = 2;

impl Extent {
    fn of(&self, elements: &[u64]) -> u32 {
        let limbs = self.field.limbs();
        let last = elements.iter().rposition(|&limb| limb != 0).map_or(0, |limb| limb / limbs + 1);
        if self.only_whether { u32::from(last > 0) } else { last as u32 }
    }

    fn item(&self) -> Item {
        if self.only_whether { Item::Flag } else { Item::Index }
    }
}

impl Task for Extent {
    fn name(&self) -> &'static str {
        if self.only_whether { "any_nonzero" } else { "extents" }
    }

    fn field(&self) -> Field {
        self.field
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let ([a], [Some(out)]) = (inputs, outputs) else { return Ok(()) };
        let Some(a) = a else {
            device.batch.zero(out);
            return Ok(());
        };
        /// Elements to an invocation at most.
        const MOST: usize = 128;
        let segments = (out.bytes() / FLAG as u64) as usize;
        let (mut a, mut segment, mut option) = (a.clone(), self.segment, 0);
        loop {
            let share = Share::of_fold(segment, segments, MOST);
            let last = share.chunks == 1;
            // Read sixteen bytes at a time.
            let bytes = ((segments * share.chunks * FLAG) as u64).next_multiple_of(16);
            let results = if last { out.clone() } else { device.scratch(bytes)? };
            let whether = if last && self.only_whether { ONLY_WHETHER } else { 0 };
            let launch = Launch {
                pass: Pass { kernel: Kernel::Extent, constants: smallvec![(3, share.team as u32)], tile: None },
                field: self.field,
                slots: [Some(&a), None, None, Some(&results)],
                written: FLAG as u64,
                segments,
                segment,
                share,
                more: [(segments * segment) as u32, option | whether],
                cost: 1,
            };
            launch.add_to(device)?;
            if last {
                return Ok(());
            }
            (a, segment, option) = (results, share.chunks, OF_EXTENTS);
        }
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        let ([a], [out]) = (inputs, outputs) else { return };
        let size = (self.segment * self.field.limbs()).max(1);
        out.words_mut().par_iter_mut().zip(a.limbs().par_chunks(size)).for_each(|(out, segment)| *out = self.of(segment));
    }

    fn trials(&self) -> Vec<Trial> {
        // (elements in a segment, segments, which of all is not zero): single invocations, several of them, teams, several.
        let shapes =
            [(0, 1, 0), (1, 2, 1), (5, 3, 7), (64, 2, 64), (65, 1, 64), (1024, 1, 129), (2500, 2, 2499), (2500, 1, 0)];
        let trial = |(segment, segments, at): (usize, usize, usize)| {
            let mut values = Values::zeroed(Item::Element(self.field), segment * segments);
            // In any of its words.
            let limb = at * self.field.limbs() + at % self.field.limbs();
            if let Some(limb) = values.limbs_mut().get_mut(limb) {
                *limb = 1 << (at % 61);
            }
            let task = Arc::new(Extent { segment, ..*self });
            Trial { task, inputs: vec![values], outputs: vec![(self.item(), segments)] }
        };
        shapes.into_iter().map(trial).collect()
    }
}

impl Recording {
    /// Records, for each of several segments of equal length, how many elements it has up to its last one that is not zero,
    /// into new memory: of a polynomial, one more than its degree, and 0 of the zero polynomial. Reads the vector once.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] if the vector cannot be cut into as many equal segments, [`Error::ForeignVector`];
    /// [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let polynomial = backend.upload(&[2u64, 0, 5, 0].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let extents = recording.extents(&polynomial, 1)?;
    /// let extents = recording.download_counts(&extents)?;
    /// assert_eq!(recording.submit()?.wait()?.take(&extents)?, [3]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn extents<F: Element>(&mut self, a: &Vector<F>, segments: usize) -> Result<Counts, Error> {
        let memory = self.extent(a, segments, false)?;
        Ok(Counts { backend: self.backend.clone(), memory, length: segments })
    }

    /// Records whether each of several segments of equal length has an element that is not zero, into a new mask. Reads the
    /// vector once.
    ///
    /// # Errors
    /// Those of [`Recording::extents`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[0u64, 5, 0, 0].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let any = recording.any_nonzero(&vector, 2)?;
    /// recording.submit()?;
    /// assert_eq!(any.download()?, [true, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn any_nonzero<F: Element>(&mut self, a: &Vector<F>, segments: usize) -> Result<Mask, Error> {
        let memory = self.extent(a, segments, true)?;
        Ok(Mask::new(&self.backend, memory, segments))
    }

    fn extent<F: Element>(&mut self, a: &Vector<F>, segments: usize, only_whether: bool) -> Result<Memory, Error> {
        let task = Extent { field: F::FIELD, segment: 0, only_whether };
        self.check(task.name(), a, a.len())?;
        let segment = self.segment(task.name(), a.len(), segments)?;
        let task = Extent { segment, ..task };
        let out = Memory::of(&self.backend, segments, task.item())?;
        if segments > 0 {
            self.task(Arc::new(task), &[(&a.memory, Item::Element(F::FIELD))], &[(&out, task.item())])?;
        }
        Ok(out)
    }

    /// Records that counts are downloaded as they are at this point, as [`Recording::download`] does for vectors.
    ///
    /// # Errors
    /// [`Error::ForeignVector`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let mut recording = backend.record();
    /// let extents = recording.extents(&backend.zeros::<Fr>(6)?, 2)?;
    /// let extents = recording.download_counts(&extents)?;
    /// assert_eq!(recording.submit()?.wait()?.take(&extents)?, [0, 0]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn download_counts(&mut self, counts: &Counts) -> Result<Download<usize>, Error> {
        self.check_operand("download", &counts.backend, counts.length, counts.length)?;
        Ok(self.fetch(&counts.memory, Item::Index, counts.length, false))
    }
}
