//! Vectors in host memory that the device reaches.

use crate::ark::Element;
use crate::memory::zeroed_elements;
use crate::{Backend, Error};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A vector of elements in host memory that the device reads and writes where it lies: a slice of elements like any other, which calls of
/// its [`Backend`] take without copying it (uploads and [`Recording::write`](crate::Recording::write) copy it like any other). With
/// operands and output pinned, a long addition on an H200 takes two thirds to three quarters of the time; a short one gains nothing.
///
/// A device that does not answer in time holds up a call on pinned vectors, and the drop of one, until it does or is reset: what it
/// may still write cannot be handed back.
///
/// Making one takes longer than the copies of a few calls would: make it once and keep it. It does not count towards
/// [`Options::device_memory`](crate::Options::device_memory). Where the CPU computes it is ordinary memory.
///
/// ```
/// use ark_bls12_381::Fr;
/// let backend = bls12_field_gpu::backend()?;
/// let mut a = backend.pinned::<Fr>(1000)?;
/// a.fill(Fr::from(20u64));
/// let mut out = backend.pinned(1000)?;
/// backend.double_into(&a, &mut out)?;
/// assert_eq!(out[999], Fr::from(40u64));
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
pub struct Pinned<F> {
    memory: Memory<F>,
    length: usize,
    field: PhantomData<F>,
}

enum Memory<F> {
    Device(gpu_executor::Pinned),
    Host(Vec<F>),
}

impl Backend {
    /// A pinned vector of `length` zeros.
    ///
    /// # Errors
    /// [`Error::Device`] if the system gives no memory for it, or it is more than one allocation may have; if the device is lost.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// let zeros = bls12_field_gpu::backend()?.pinned::<Fr>(3)?;
    /// assert_eq!(zeros[..], [Fr::from(0u64); 3]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn pinned<F: Element>(&self, length: usize) -> Result<Pinned<F>, Error> {
        let memory = match self.vulkan() {
            Some(vulkan) if length > 0 => Memory::Device(vulkan.device().pin(length.saturating_mul(F::FIELD.bytes()))?),
            _ => Memory::Host(zeroed_elements(length)?),
        };
        Ok(Pinned { memory, length, field: PhantomData })
    }
}

impl<F: Element> Deref for Pinned<F> {
    type Target = [F];

    fn deref(&self) -> &[F] {
        match &self.memory {
            Memory::Device(bytes) => &F::elements(bytemuck::cast_slice(bytes))[..self.length],
            Memory::Host(elements) => elements,
        }
    }
}

impl<F: Element> DerefMut for Pinned<F> {
    fn deref_mut(&mut self) -> &mut [F] {
        match &mut self.memory {
            Memory::Device(bytes) => &mut F::elements_mut(bytemuck::cast_slice_mut(bytes))[..self.length],
            Memory::Host(elements) => elements,
        }
    }
}

impl<F> fmt::Debug for Pinned<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({} elements)", self.length)
    }
}
