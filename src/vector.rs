//! Vectors that stay where they are computed with.

use crate::ark::Element;
use crate::memory::{Memory, zeroed_elements};
use crate::step::Item;
use crate::{Backend, Error};
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// A vector of elements of Fq or Fr that lies where its [`Backend`] computes: in the device's memory, or in the host's if the
/// CPU computes. Elements are in Montgomery form, as arkworks keeps them.
///
/// Clones and slices share the memory. It goes back to the device's pool when the last of them and the last recording that uses it are
/// gone; nobody waits for that. A vector must fit one allocation of the device: at most 2^27 - 1 elements of Fr, on many devices fewer;
/// where the CPU computes, fewer than 2^32.
///
/// ```
/// use ark_bls12_381::Fr;
/// let backend = bls12_field_gpu::backend()?;
/// let a = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;
/// let b = backend.upload(&[Fr::from(5u64), Fr::from(7u64)])?;
/// let mut recording = backend.record();
/// let product = recording.mul(&a, &b)?;
/// let sum = recording.add(&product, &a)?;
/// recording.submit()?;
/// assert_eq!(sum.download()?, [Fr::from(12u64), Fr::from(24u64)]);
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
#[derive(Clone)]
pub struct Vector<F> {
    pub(crate) backend: Backend,
    pub(crate) memory: Memory,
    length: usize,
    field: PhantomData<F>,
}

impl Backend {
    /// Memory for `length` elements on the device, all zero.
    ///
    /// # Errors
    /// [`Error::Device`] if the vector does not fit the device's memory, or one allocation.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.zeros::<Fr>(1)?.download()?, [Fr::from(0u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn zeros<F: Element>(&self, length: usize) -> Result<Vector<F>, Error> {
        let vector = self.vector(length)?;
        let mut recording = self.record();
        recording.zero(&vector)?;
        recording.submit()?;
        Ok(vector)
    }

    /// Copies elements to the device. That they are below the modulus, as arkworks' own code makes them, is not checked. Until they are
    /// there, host memory holds them twice more.
    ///
    /// # Errors
    /// [`Error::Device`] if the vector does not fit the device's memory, or one allocation.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// assert_eq!(vector.len(), 2);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn upload<F: Element>(&self, elements: &[F]) -> Result<Vector<F>, Error> {
        let vector = self.vector(elements.len())?;
        let mut recording = self.record();
        recording.write(&vector, elements)?;
        recording.submit()?;
        Ok(vector)
    }

    /// A vector whose elements are yet to be written.
    pub(crate) fn vector<F: Element>(&self, length: usize) -> Result<Vector<F>, Error> {
        let memory = Memory::of(self, length, Item::Element(F::FIELD))?;
        Ok(Vector { backend: self.clone(), memory, length, field: PhantomData })
    }
}

impl<F: Element> Vector<F> {
    /// The number of elements.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert_eq!(backend.zeros::<Fr>(5)?.len(), 5);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no elements.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// assert!(backend.zeros::<Fr>(0)?.is_empty());
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A part of the vector, sharing its memory: what is written to one is seen in the other.
    ///
    /// # Errors
    /// [`Error::OutOfRange`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// assert_eq!(vector.slice(1..2)?.download()?, [Fr::from(2u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn slice(&self, range: Range<usize>) -> Result<Vector<F>, Error> {
        if range.start > range.end || range.end > self.length {
            return Err(Error::OutOfRange { start: range.start, end: range.end, length: self.length });
        }
        let bytes = F::FIELD.bytes() as u64;
        let memory = self.memory.slice(range.start as u64 * bytes..range.end as u64 * bytes);
        Ok(Vector { backend: self.backend.clone(), memory, length: range.len(), field: PhantomData })
    }

    /// The elements, fetched from the device: everything submitted before has been done.
    ///
    /// # Errors
    /// [`Error::Device`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// assert_eq!(vector.download()?[1], Fr::from(2u64));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn download(&self) -> Result<Vec<F>, Error> {
        let mut elements = zeroed_elements(self.length)?;
        self.download_into(&mut elements)?;
        Ok(elements)
    }

    /// As [`Vector::download`], into a slice of the same length.
    ///
    /// # Errors
    /// [`Error::OutputLength`], in elements; [`Error::Device`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mut elements = [Fr::from(0u64); 2];
    /// vector.download_into(&mut elements)?;
    /// assert_eq!(elements[1], Fr::from(2u64));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn download_into(&self, elements: &mut [F]) -> Result<(), Error> {
        if elements.len() != self.length {
            return Err(Error::OutputLength { operation: "download", expected: self.length, got: elements.len() });
        }
        self.memory.download(&self.backend, bytemuck::cast_slice_mut(F::limbs_mut(elements)))
    }
}

impl<F> fmt::Debug for Vector<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vector({} elements)", self.length)
    }
}
