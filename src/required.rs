//! How much memory calls and vectors take.

use crate::on_device::slots;
use crate::{Backend, Error, Field, Operation};

/// How much memory something takes, beside the caller's own slices. See [`Backend::memory_required`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryRequired {
    /// Bytes of the device's memory.
    pub device: u64,
    /// Bytes of host memory.
    pub host: u64,
}

impl Backend {
    /// How much memory a call on `length` elements in host memory takes while it runs, if none of its slices is
    /// [pinned](crate::Pinned): as things stand, that is with the chunks that it would be cut into now. With less it would be cut
    /// finer: the least that will do is what a call of one element takes. Where the CPU computes, it takes none.
    ///
    /// ```
    /// use bls12_field_gpu::{Field, Operation};
    /// let backend = bls12_field_gpu::backend()?;
    /// let required = backend.memory_required(Operation::Mul, Field::Fq, 1 << 20)?;
    /// println!("{} bytes on the device, {} to stage them", required.device, required.host);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NotAvailable`] if the field does not have the operation; [`Error::Device`] if there is too little memory for a
    /// single element: the error says how much it would take.
    pub fn memory_required(&self, operation: Operation, field: Field, length: usize) -> Result<MemoryRequired, Error> {
        let row = operation.row();
        if !row.available(field) {
            return Err(Error::NotAvailable { operation: row.name, field });
        }
        let Some(vulkan) = self.vulkan() else { return Ok(MemoryRequired::default()) };
        let (device, host) = vulkan.device().memory_required(&slots(row, field), length, row.cost)?;
        // Flags are words until they are the caller's.
        let flags = if row.has_mask() { length.saturating_mul(size_of::<u32>()) as u64 } else { 0 };
        Ok(MemoryRequired { device, host: host.saturating_add(flags) })
    }

    /// How much memory a resident vector of `length` elements takes as long as it lives: its bytes, rounded up by an eighth at
    /// most, and no less than 4 KiB. It is the device's or the host's, as [`Engine::Vulkan`](crate::Engine::Vulkan) says.
    ///
    /// ```
    /// use bls12_field_gpu::{Engine, Field};
    /// let backend = bls12_field_gpu::backend()?;
    /// let required = backend.vector_memory_required(Field::Fr, 1 << 20);
    /// assert_eq!(required.device + required.host, 32 << 20);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn vector_memory_required(&self, field: Field, length: usize) -> MemoryRequired {
        let bytes = length.saturating_mul(field.bytes()) as u64;
        match self.vulkan() {
            _ if bytes == 0 => MemoryRequired::default(),
            None => MemoryRequired { device: 0, host: bytes },
            Some(vulkan) if vulkan.device().is_staged() => {
                MemoryRequired { device: vulkan.device().region_required(bytes), host: 0 }
            }
            Some(vulkan) => MemoryRequired { device: 0, host: vulkan.device().region_required(bytes) },
        }
    }
}
