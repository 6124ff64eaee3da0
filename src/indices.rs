//! Positions that stay where they are computed with.

use crate::mask::FLAG;
use crate::memory::{Memory, zeroed};
use crate::step::{Item, Step};
use crate::{Backend, Error};
use std::fmt;
use std::ops::Range;

/// Positions in vectors, all below a bound, that lie where their [`Backend`] computes, as [`Vector`](crate::Vector)s do. Four bytes
/// each.
///
/// They are looked at once, when they are uploaded: no kernel is ever given one that is not below the bound. Clones and slices
/// share the memory.
///
/// ```
/// use ark_bls12_381::Fr;
/// let backend = bls12_field_gpu::backend()?;
/// let a = backend.upload(&[5, 6, 7].map(|n: u64| Fr::from(n)))?;
/// let positions = backend.upload_indices(&[2, 2, 0], a.len())?;
/// let mut recording = backend.record();
/// let gathered = recording.gather(&a, &positions)?;
/// recording.submit()?;
/// assert_eq!(gathered.download()?, [7, 7, 5].map(|n: u64| Fr::from(n)));
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
#[derive(Clone)]
pub struct Indices {
    pub(crate) backend: Backend,
    pub(crate) memory: Memory,
    length: usize,
    bound: usize,
    distinct: bool,
}

impl Backend {
    /// Copies positions to the device, each of them below `bound`: the length of the vectors that they are positions in.
    ///
    /// They are read twice, in the order given; beside them this takes a bit for each position below the bound.
    ///
    /// # Errors
    /// [`Error::IndexOutOfRange`]; [`Error::Device`] if they do not fit the device's memory, or one allocation.
    ///
    /// ```
    /// use bls12_field_gpu::Error;
    /// let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.upload_indices(&[0, 4], 5)?.len(), 2);
    /// let refused = backend.upload_indices(&[0, 5], 5);
    /// assert!(matches!(refused, Err(Error::IndexOutOfRange { position: 1, index: 5, bound: 5 })));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn upload_indices(&self, indices: &[u32], bound: usize) -> Result<Indices, Error> {
        if let Some(position) = indices.iter().position(|&index| index as usize >= bound) {
            return Err(Error::IndexOutOfRange { position, index: indices[position] as usize, bound });
        }
        let made = self.indices(indices.len(), bound, are_distinct(indices))?;
        if !indices.is_empty() {
            let mut recording = self.record();
            let bytes = bytemuck::cast_slice(indices).into();
            recording.steps.push(Step::Write { bytes, to: made.memory.clone(), item: Item::Index });
            recording.submit()?;
        }
        Ok(made)
    }

    /// Indices that are yet to be written.
    pub(crate) fn indices(&self, length: usize, bound: usize, distinct: bool) -> Result<Indices, Error> {
        let memory = Memory::of(self, length, Item::Index)?;
        Ok(Indices { backend: self.clone(), memory, length, bound, distinct })
    }
}

fn are_distinct(indices: &[u32]) -> bool {
    let end = indices.iter().max().map_or(0, |&largest| largest as usize + 1);
    let mut seen = vec![0u64; if indices.len() > end { 0 } else { end.div_ceil(64) }];
    indices.len() <= end
        && indices.iter().all(|&index| {
            let (word, bit) = (&mut seen[index as usize / 64], 1 << (index % 64));
            let first = *word & bit == 0;
            *word |= bit;
            first
        })
}

impl Indices {
    /// How many there are.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.upload_indices(&[3, 1], 7)?.len(), 2);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are none.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.upload_indices(&[], 0)?.is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What all of them are below.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.upload_indices(&[3, 1], 7)?.bound(), 7);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Whether no two are known to be the same: those that were uploaded together.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.upload_indices(&[3, 1], 7)?.are_distinct());
    /// assert!(!backend.upload_indices(&[3, 3], 7)?.are_distinct());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn are_distinct(&self) -> bool {
        self.distinct
    }

    /// A part of them, sharing their memory. It counts as distinct if the whole does.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.upload_indices(&[3, 1, 4], 7)?.slice(1..3)?.download()?, [1, 4]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn slice(&self, range: Range<usize>) -> Result<Indices, Error> {
        if range.start > range.end || range.end > self.length {
            return Err(Error::OutOfRange { start: range.start, end: range.end, length: self.length });
        }
        let memory = self.memory.slice((range.start * FLAG) as u64..(range.end * FLAG) as u64);
        Ok(Indices { memory, length: range.len(), ..self.clone() })
    }

    /// The positions, fetched from the device: everything submitted before has been done.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.upload_indices(&[3, 1], 7)?.download()?, [3, 1]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn download(&self) -> Result<Vec<u32>, Error> {
        let mut indices = zeroed(self.length)?;
        self.memory.download(&self.backend, bytemuck::cast_slice_mut(&mut indices))?;
        Ok(indices)
    }
}

impl fmt::Debug for Indices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Indices({} below {})", self.length, self.bound)
    }
}
