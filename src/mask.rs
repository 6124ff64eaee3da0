//! Masks that stay where they are computed.

use crate::memory::{Memory, zeroed};
use crate::step::{Item, Step};
use crate::{Backend, Error, Recording};
use std::fmt;
use std::ops::Range;

/// A vector of flags that lies where its [`Backend`] computes, as [`Vector`](crate::Vector)s do: what comparisons and square
/// roots answer, or what was [uploaded](Backend::upload_mask). Four bytes a flag.
///
/// Clones and slices share the memory.
///
/// ```
/// use ark_bls12_381::Fq;
/// let backend = bls12_field_gpu::backend()?;
/// let a = backend.upload(&[Fq::from(4u64), Fq::from(2u64)])?;
/// let mut recording = backend.record();
/// let (root, has_root) = recording.sqrt(&a)?;
/// recording.submit()?;
/// assert_eq!(has_root.download()?, [true, false]);
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
#[derive(Clone)]
pub struct Mask {
    pub(crate) backend: Backend,
    pub(crate) memory: Memory,
    length: usize,
}

/// Bytes of a flag: 0 or 1, as a little-endian word.
pub(crate) const FLAG: usize = size_of::<u32>();

impl Backend {
    /// Memory for `length` flags, none of them set.
    ///
    /// # Errors
    /// [`Error::Device`] if the mask does not fit the device's memory, or one allocation.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.falses(2)?.download()?, [false; 2]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn falses(&self, length: usize) -> Result<Mask, Error> {
        let mask = self.mask(length)?;
        let mut recording = self.record();
        recording.clear(&mask)?;
        recording.submit()?;
        Ok(mask)
    }

    /// Copies flags to the device.
    ///
    /// # Errors
    /// [`Error::Device`] if the mask does not fit the device's memory, or one allocation.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.upload_mask(&[true, false])?.download()?, [true, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn upload_mask(&self, flags: &[bool]) -> Result<Mask, Error> {
        let mask = self.mask(flags.len())?;
        let mut recording = self.record();
        recording.write_mask(&mask, flags)?;
        recording.submit()?;
        Ok(mask)
    }

    /// A mask whose flags are yet to be written.
    pub(crate) fn mask(&self, length: usize) -> Result<Mask, Error> {
        Ok(Mask::new(self, Memory::of(self, length, Item::Flag)?, length))
    }
}

impl Recording {
    /// Records that flags are written to a mask, or a slice of one, of the same length. They are copied now.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`].
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// let mask = backend.falses(3)?;
    /// let mut recording = backend.record();
    /// recording.write_mask(&mask.slice(1..3)?, &[true, true])?;
    /// recording.submit()?;
    /// assert_eq!(mask.download()?, [false, true, true]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn write_mask(&mut self, to: &Mask, flags: &[bool]) -> Result<(), Error> {
        self.check_mask("write", to, flags.len())?;
        if !to.is_empty() {
            let words: Vec<u32> = flags.iter().map(|&flag| flag.into()).collect();
            let bytes = bytemuck::cast_slice(&words).into();
            self.push(Step::Write { bytes, to: to.memory.clone(), item: Item::Flag });
        }
        Ok(())
    }
}

impl Mask {
    pub(crate) fn new(backend: &Backend, memory: Memory, length: usize) -> Self {
        Self { backend: backend.clone(), memory, length }
    }

    /// The number of flags.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.falses(5)?.len(), 5);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no flags.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.falses(0)?.is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A part of the mask, sharing its memory: what is written to one is seen in the other.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(1u64), Fr::from(2u64), Fr::from(3u64)])?;
    /// let b = backend.upload(&[Fr::from(1u64), Fr::from(0u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let same = recording.equal(&a, &b)?;
    /// recording.submit()?;
    /// assert_eq!(same.slice(1..3)?.download()?, [false, true]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn slice(&self, range: Range<usize>) -> Result<Mask, Error> {
        if range.start > range.end || range.end > self.length {
            return Err(Error::OutOfRange { start: range.start, end: range.end, length: self.length });
        }
        let memory = self.memory.slice((range.start * FLAG) as u64..(range.end * FLAG) as u64);
        Ok(Mask { backend: self.backend.clone(), memory, length: range.len() })
    }

    /// The flags, fetched from the device: everything submitted before has been done.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mut recording = backend.record();
    /// let same = recording.equal(&a, &a)?;
    /// recording.submit()?;
    /// assert_eq!(same.download()?, [true, true]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn download(&self) -> Result<Vec<bool>, Error> {
        let mut flags = zeroed::<u32>(self.length)?;
        self.memory.download(&self.backend, bytemuck::cast_slice_mut(&mut flags))?;
        Ok(flags.into_iter().map(|flag| flag != 0).collect())
    }
}

impl fmt::Debug for Mask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Mask({} flags)", self.length)
    }
}
