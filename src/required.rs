//! How much memory calls and vectors take.

use crate::on_device::slots;
use crate::step::Lowered;
use crate::task::Scratch;
use crate::verification::Verification;
use crate::{Backend, Error, Field, Form, Operation, Place, Recording};

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
    /// How much memory a call on `length` canonical elements in host memory takes while it runs, if none of its slices is
    /// [pinned](crate::Pinned): as things stand, that is where [`Backend::explain`] says that it would be computed now, with the chunks that it
    /// would be cut into (asked first, it may calibrate, as a call does). With less it would be cut finer: the least that will do is what a
    /// call of one element takes. Where the CPU computes, it takes none.
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
        let how = match self.explain(operation, field, Form::Canonical, length).place {
            Place::Cpu => return Ok(MemoryRequired::default()),
            Place::Device(setting) => (setting.staged(), setting.chunk_elements),
        };
        let (device, host) = vulkan.device().memory_required(&slots(row, field), (length, row.cost), how)?;
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
            Some(vulkan) if vulkan.device().is_device_local() => {
                MemoryRequired { device: vulkan.device().region_required(bytes), host: 0 }
            }
            Some(vulkan) => MemoryRequired { device: 0, host: vulkan.device().region_required(bytes) },
        }
    }
}

impl Recording {
    /// How much memory [`Recording::submit`] takes until the recording has been done and its ticket waited for, beside that of the vectors and
    /// masks in it, which have theirs already: scratch memory of sums, scans and other operations in several steps, memory to stage
    /// what is written and downloaded, and the downloads themselves. As things stand: where the device has less left, operations
    /// share scratch memory, and wait for each other. Where the CPU computes, what it computes in is not counted.
    ///
    /// On a device this makes and tests the kernels that are not there yet, as submitting does, and takes memory for constants, some
    /// kibibytes, for a moment.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.zeros::<Fr>(1 << 16)?;
    /// let mut recording = backend.record();
    /// let sum = recording.sum(&vector)?;
    /// recording.download(&sum)?;
    /// let required = recording.memory_required()?;
    /// println!("{} bytes on the device, {} of the host", required.device, required.host);
    /// assert!(required.host >= 32);
    /// recording.submit()?.wait()?;
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`]; [`Error::SelfTestFailed`].
    pub fn memory_required(&self) -> Result<MemoryRequired, Error> {
        self.required_as(false)
    }

    /// The same for [`Recording::submit_verified`], with what is fetched to be verified, and what it is replayed in.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.zeros::<Fr>(1 << 10)?;
    /// let mut recording = backend.record();
    /// recording.square(&vector)?;
    /// assert!(recording.memory_required_verified()?.host >= recording.memory_required()?.host);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Recording::memory_required`].
    pub fn memory_required_verified(&self) -> Result<MemoryRequired, Error> {
        self.required_as(true)
    }

    fn required_as(&self, verified: bool) -> Result<MemoryRequired, Error> {
        let downloads = self.fetches().map(|fetch| fetch.from.bytes()).sum::<u64>();
        let Some(vulkan) = self.backend.vulkan() else { return Ok(MemoryRequired { device: 0, host: downloads }) };
        let verification = verified.then(|| Verification::new(&self.steps, &self.backend));
        let checked = verification.as_ref().map(|verification| (verification, &self.steps[..]));
        let (scratch, steps) = (Scratch::counted(), self.steps.clone());
        let Lowered { batch, scratch, .. } = Lowered::new(scratch, steps, (&self.backend, vulkan), checked)?;
        let device = vulkan.device();
        let (constants, staging) = device.batch_required(&batch);
        let scratch = scratch.count() + constants;
        let checks = verification.map_or(0, |verification| verification.required(&self.steps));
        let host = downloads + staging + checks;
        Ok(if device.is_device_local() {
            MemoryRequired { device: scratch, host }
        } else {
            MemoryRequired { device: 0, host: host + scratch }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]
    use crate::{Backend, CacheDirectory, MemoryMode, MemoryRequired, Options, Recording, Scan, Verify, Zeros};
    use ark_bls12_381::Fr;

    const LENGTH: usize = 40_000;

    /// Everything that takes scratch memory, constants or staging.
    fn recording(backend: &Backend) -> Recording {
        let numbers: Vec<Fr> = (1..=LENGTH as u64).map(Fr::from).collect();
        let (a, b) = (backend.upload(&numbers).unwrap(), backend.upload(&numbers[..LENGTH / 2]).unwrap());
        let mut recording = backend.record();
        let product = recording.mul(&a, &a).unwrap();
        let sums = recording.scan(Scan::sum(), &product).unwrap();
        let inverses = recording.batch_inverse(&product, Zeros::Keep).unwrap();
        let value = recording.evaluate_point(&inverses, &numbers[6]).unwrap();
        let dot = recording.inner_product(&a, &sums).unwrap();
        let (quotient, _) = recording.divide_by_linear(&b, &numbers[1]).unwrap();
        recording.write(&b, &numbers[LENGTH / 2..]).unwrap();
        recording.write(&b.slice(0..2).unwrap(), &numbers[..2]).unwrap();
        let selected = (a.expression() * numbers[4] + &product).pow(5) - &sums;
        let selected = recording.evaluate(&selected).unwrap();
        for vector in [&value, &dot, &quotient, &selected] {
            recording.download(vector).unwrap();
        }
        recording
    }

    #[test]
    fn a_recording_takes_what_is_said() {
        for (memory, verify) in [(MemoryMode::DeviceLocal, Verify::Off), (MemoryMode::Host, Verify::Proofs)] {
            let options = Options::new().cache(CacheDirectory::Off).memory(memory).verify(verify);
            let backend = Backend::new(&options).unwrap();
            let Some(vulkan) = backend.vulkan() else { panic!("no device") };
            let recording = recording(&backend);
            let required = recording.memory_required().unwrap();
            let verified = recording.memory_required_verified().unwrap();
            let allocations = || backend.stats().device.allocations;
            let (left, before) = (vulkan.device().memory_left(), allocations());
            assert_eq!(recording.memory_required().unwrap(), required);
            assert_eq!((vulkan.device().memory_left(), allocations()), (left, before));
            // What is in flight is there until somebody looks.
            let ticket = recording.clone().submit().unwrap();
            let taken = left - vulkan.device().memory_left();
            let downloads = (2 + LENGTH / 2 - 1 + LENGTH) as u64 * 32;
            let staging = |bytes: &[u64]| bytes.iter().map(|bytes| vulkan.device().region_required(*bytes)).sum::<u64>();
            let (short, half, long) = (32, LENGTH as u64 / 2 * 32, LENGTH as u64 * 32);
            let host = downloads + staging(&[half, short, short, half - 32, long]);
            assert!(taken > 0);
            match memory {
                MemoryMode::Host => assert_eq!(required, MemoryRequired { device: 0, host: host + taken }),
                _ => assert_eq!(required, MemoryRequired { device: taken, host }),
            }
            ticket.wait().unwrap();
            assert_eq!(verified.device, required.device);
            // Fetched, staged, and replayed: twelve vectors at least.
            assert!(verified.host > required.host + 3 * 6 * long, "{verified:?} {required:?}");
            recording.submit_verified().unwrap().wait().unwrap();
        }
        let cpu = Backend::new(&Options::new().device(crate::DeviceChoice::Cpu)).unwrap();
        let downloads = (2 + LENGTH / 2 - 1 + LENGTH) as u64 * 32;
        let required = MemoryRequired { device: 0, host: downloads };
        assert_eq!(recording(&cpu).memory_required().unwrap(), required);
        assert_eq!(recording(&cpu).memory_required_verified().unwrap(), required);
        assert_eq!(cpu.record().memory_required().unwrap(), MemoryRequired::default());
    }
}
