use super::budget::{self, Budget, Room};
use super::{Counters, Gpu, count, driver_error};
use crate::{Error, plan};
use ash::vk;
use foldhash::HashMap;
use gpu_allocator::vulkan::{Allocation, AllocationCreateDesc, AllocationScheme, Allocator, AllocatorCreateDesc};
use gpu_allocator::{AllocationError, AllocationSizes, AllocatorDebugSettings, MemoryLocation};
use parking_lot::{Condvar, Mutex};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Where a buffer lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Device-local memory.
    Device,
    /// Host memory that the CPU caches: fast to read back, and coherent with the device.
    Host,
}

/// A storage buffer, bound to memory for its whole life.
pub(crate) struct Buffer {
    pub(crate) raw: vk::Buffer,
    pub(crate) size: u64,
    pub(crate) address: vk::DeviceAddress,
    pub(crate) place: Place,
    /// Whether it may hold somebody's data.
    pub(crate) dirty: bool,
    allocation: Allocation,
    descriptor: Mutex<Option<(vk::DescriptorPool, vk::DescriptorSet)>>,
}

impl Buffer {
    /// Where the CPU finds the buffer, if it lies in host memory.
    pub(crate) fn pointer(&self) -> Result<NonNull<u8>, Error> {
        let pointer = self.allocation.mapped_ptr().map(NonNull::cast);
        pointer.ok_or(Error::Driver { call: "vkMapMemory", code: "host memory is not mapped".into() })
    }

    /// The buffer's bytes, if it lies in host memory.
    pub(crate) fn bytes(&mut self) -> Result<&mut [u8], Error> {
        self.allocation
            .mapped_slice_mut()
            .ok_or(Error::Driver { call: "vkMapMemory", code: "host memory is not mapped".into() })
    }

    /// The descriptor set that is this whole buffer, written when first asked for and never again.
    pub(crate) fn descriptor(
        &self,
        gpu: &Gpu,
        counters: &Counters,
        layout: vk::DescriptorSetLayout,
    ) -> Result<vk::DescriptorSet, Error> {
        let mut descriptor = self.descriptor.lock();
        if let Some((_, set)) = *descriptor {
            return Ok(set);
        }
        let sizes = [vk::DescriptorPoolSize { ty: vk::DescriptorType::STORAGE_BUFFER, descriptor_count: 1 }];
        let info = vk::DescriptorPoolCreateInfo::default().max_sets(1).pool_sizes(&sizes);
        // SAFETY: a live device.
        let pool = unsafe { gpu.raw.create_descriptor_pool(&info, None) }.map_err(driver_error("vkCreateDescriptorPool"))?;
        let layouts = [layout];
        let info = vk::DescriptorSetAllocateInfo::default().descriptor_pool(pool).set_layouts(&layouts);
        // SAFETY: the pool was just made with room for this set.
        let set = match unsafe { gpu.raw.allocate_descriptor_sets(&info) } {
            Ok(sets) => sets[0],
            Err(result) => {
                // SAFETY: nothing uses the pool.
                unsafe { gpu.raw.destroy_descriptor_pool(pool, None) };
                return Err(driver_error("vkAllocateDescriptorSets")(result));
            }
        };
        let whole = [vk::DescriptorBufferInfo { buffer: self.raw, offset: 0, range: vk::WHOLE_SIZE }];
        let write = vk::WriteDescriptorSet::default()
            .dst_set(set)
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .buffer_info(&whole);
        // SAFETY: the set is new, so no command buffer uses it; the buffer is alive and bound.
        unsafe { gpu.raw.update_descriptor_sets(&[write], &[]) };
        count(&counters.descriptor_updates, 1);
        *descriptor = Some((pool, set));
        Ok(set)
    }
}

/// Buffers, reused by size class, on top of gpu-allocator; and the budget that jobs share.
pub(crate) struct Memory {
    // Taken out when the device is destroyed: the allocator frees its blocks on drop and needs the device for it.
    allocator: Mutex<Option<Allocator>>,
    idle: Mutex<Idle>,
    pub(crate) limit: u64,
    /// The most bytes of one buffer.
    largest: u64,
    budget: Budget,
    /// How many buffers have been destroyed.
    pub(crate) destroyed: AtomicU64,
    used: Mutex<Used>,
    released: Condvar,
    /// The families of all queues: any of them may use any buffer.
    families: Vec<u32>,
}

/// Bytes of the memory limit that are spoken for.
#[derive(Default)]
struct Used {
    jobs: u64,
    resident: u64,
}

impl Used {
    fn all(&self) -> u64 {
        self.jobs.saturating_add(self.resident)
    }
}

#[derive(Default)]
struct Idle {
    /// By place and size: the buffers, and when one of them was last taken or given back.
    buffers: HashMap<(Place, u64), (Vec<Buffer>, u64)>,
    /// By place.
    bytes: [u64; 2],
    /// How often any was.
    turn: u64,
}

/// The most bytes of idle buffers at a place that are kept for reuse, if so many are the limit: a few jobs' worth of the largest chunks; of
/// the device's memory, if that is more, a quarter of the limit, since the vectors of a proof come and go together. Of more, those go whose size
/// was asked for the longest ago. Chosen, not measured.
fn keep(place: Place, limit: u64) -> u64 {
    const KEEP: u64 = 2 << 30;
    let most = if place == Place::Device { KEEP.max(limit / 4) } else { KEEP };
    most.min(limit.saturating_mul(2))
}

/// Buffers above this have memory of their own; smaller ones share blocks.
const SHARED: u64 = 4 << 20;

/// The first of the blocks of a kind, the least that gpu-allocator makes, and the largest; each is twice as large as the one before that is in use.
/// The first call waits for the first ones: 16 MiB of host memory, which it pins, take an H200's driver 3.5 to 6.5 ms, 1 MiB 0.3; with
/// 4 MiB first the whole call takes 3 to 6 ms instead of 7 to 9.
const FIRST_BLOCK: u64 = SHARED;
const BLOCK: u64 = 16 << 20;

impl Memory {
    pub(crate) fn new(gpu: &Gpu, (limit, largest): (u64, u64), budget: Budget, families: Vec<u32>) -> Result<Self, Error> {
        let allocator = Allocator::new(&AllocatorCreateDesc {
            instance: gpu.instance.raw.clone(),
            device: gpu.raw.clone(),
            physical_device: gpu.physical,
            debug_settings: AllocatorDebugSettings::default(),
            buffer_device_address: true,
            allocation_sizes: AllocationSizes::new(FIRST_BLOCK, FIRST_BLOCK)
                .with_max_device_memblock_size(BLOCK)
                .with_max_host_memblock_size(BLOCK),
        })
        .map_err(|error| Error::Driver { call: "gpu-allocator", code: error.to_string() })?;
        Ok(Self {
            allocator: Mutex::new(Some(allocator)),
            idle: Mutex::default(),
            limit,
            largest,
            budget,
            destroyed: AtomicU64::new(0),
            used: Mutex::default(),
            released: Condvar::new(),
            families,
        })
    }

    /// What resident vectors leave to jobs of the memory limit, and the driver gives, for jobs whose vectors lie at `place` and
    /// have `bytes` bytes.
    pub(crate) fn for_jobs(&self, gpu: &Gpu, place: Place, bytes: u64) -> u64 {
        let room = if bytes > budget::UNASKED { self.budget.room(gpu, place) } else { None };
        let idle = room.map_or(0, |_| {
            let idle = self.idle.lock();
            let here = idle.buffers.iter().filter(|((at, _), _)| *at == place);
            here.map(|((_, size), (buffers, _))| size * buffers.len() as u64).sum()
        });
        let used = self.used.lock();
        budget::for_jobs(self.limit, used.resident, used.jobs, idle, room)
    }

    /// Waits until `bytes` fit beside what other jobs have reserved. What resident vectors hold does not come back by
    /// waiting: if they leave too little, that is an error.
    pub(crate) fn reserve(&self, bytes: u64, lost: &AtomicBool) -> Result<Reservation<'_>, Error> {
        let mut used = self.used.lock();
        loop {
            let available = self.limit.saturating_sub(used.resident);
            if used.jobs.saturating_add(bytes) <= available {
                used.jobs += bytes;
                return Ok(Reservation { memory: self, bytes });
            }
            if used.jobs == 0 {
                return Err(Error::OutOfMemory { during: "the memory limit", needed: bytes, available });
            }
            // What a lost device's jobs hold may come back late.
            self.released.wait_for(&mut used, Duration::from_millis(100));
            if lost.load(Relaxed) {
                return Err(Error::Lost { during: "an earlier job" });
            }
        }
    }

    /// Reserves `bytes` for a resident vector, if they fit now, until [`Memory::release_resident`].
    pub(crate) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used())
    }

    pub(crate) fn reserve_resident(&self, bytes: u64) -> Result<(), Error> {
        let mut used = self.used.lock();
        let available = self.limit.saturating_sub(used.all());
        if bytes > available {
            return Err(Error::OutOfMemory { during: "the memory limit", needed: bytes, available });
        }
        used.resident += bytes;
        Ok(())
    }

    pub(crate) fn release_resident(&self, bytes: u64) {
        self.used.lock().resident -= bytes;
        self.released.notify_all();
    }

    /// The size of a buffer for `bytes` bytes.
    pub(crate) fn size(&self, bytes: u64) -> u64 {
        plan::buffer_size(bytes, self.largest)
    }

    /// A buffer of at least `bytes` bytes: an idle one, or a new one.
    pub(crate) fn take(&self, gpu: &Gpu, counters: &Counters, place: Place, bytes: u64) -> Result<Buffer, Error> {
        let size = self.size(bytes);
        {
            let Idle { buffers, bytes, turn } = &mut *self.idle.lock();
            *turn += 1;
            if let Some((buffers, last)) = buffers.get_mut(&(place, size)) {
                *last = *turn;
                if let Some(buffer) = buffers.pop() {
                    bytes[place as usize] -= size;
                    return Ok(Buffer { dirty: true, ..buffer });
                }
            }
        }
        // Idle buffers of other sizes must not push the total over the limit.
        let used = self.used();
        if used.saturating_add(self.idle.lock().bytes.iter().sum()) > self.limit {
            self.trim(gpu);
        }
        match self.create(gpu, place, size) {
            Err(Error::OutOfMemory { .. }) => {
                self.trim(gpu);
                self.create(gpu, place, size)
            }
            made => made,
        }
        .inspect(|_| count(&counters.allocations, 1))
    }

    /// Takes buffers back that no submission uses any more.
    pub(crate) fn give(&self, gpu: &Gpu, back: impl IntoIterator<Item = Buffer>) {
        let mut spare = Vec::new();
        {
            let Idle { buffers, bytes, turn } = &mut *self.idle.lock();
            for buffer in back {
                *turn += 1;
                bytes[buffer.place as usize] += buffer.size;
                let (same, last) = buffers.entry((buffer.place, buffer.size)).or_default();
                *last = *turn;
                same.push(buffer);
            }
            for place in [Place::Device, Place::Host] {
                while bytes[place as usize] > keep(place, self.limit) {
                    let here = buffers.iter_mut().filter(|((at, _), (some, _))| *at == place && !some.is_empty());
                    let oldest = here.map(|(_, sized)| sized).min_by_key(|(_, last)| *last);
                    let Some(oldest) = oldest.and_then(|(buffers, _)| buffers.pop()) else { break };
                    bytes[place as usize] -= oldest.size;
                    spare.push(oldest);
                }
            }
        }
        spare.into_iter().for_each(|buffer| self.destroy(gpu, buffer));
    }

    fn used(&self) -> u64 {
        self.used.lock().all()
    }

    /// All idle buffers, out of the pool.
    #[cfg(feature = "test-faults")]
    pub(crate) fn take_idle(&self) -> Vec<Buffer> {
        std::mem::take(&mut *self.idle.lock()).buffers.into_values().flat_map(|(buffers, _)| buffers).collect()
    }

    /// Gives all idle buffers back to the driver.
    pub(crate) fn trim(&self, gpu: &Gpu) {
        let idle = std::mem::take(&mut *self.idle.lock());
        idle.buffers.into_values().flat_map(|(buffers, _)| buffers).for_each(|buffer| self.destroy(gpu, buffer));
    }

    fn create(&self, gpu: &Gpu, place: Place, size: u64) -> Result<Buffer, Error> {
        // Rather than have the driver move memory about, or fail where it matters more.
        if size > SHARED
            && let Some(room) = self.budget.room(gpu, place)
            && size > room.left()
        {
            return Err(Error::OutOfMemory { during: "the memory budget", needed: size, available: room.left() });
        }
        use vk::BufferUsageFlags as Usage;
        let usage = Usage::STORAGE_BUFFER | Usage::SHADER_DEVICE_ADDRESS | Usage::TRANSFER_SRC | Usage::TRANSFER_DST;
        let mut info = vk::BufferCreateInfo::default().size(size).usage(usage);
        if self.families.len() > 1 {
            info = info.sharing_mode(vk::SharingMode::CONCURRENT).queue_family_indices(&self.families);
        }
        // SAFETY: a live device; the size is not zero.
        let raw = unsafe { gpu.raw.create_buffer(&info, None) }
            .map_err(|result| self.refused(gpu, "vkCreateBuffer", (place, size), result))?;
        // SAFETY: the buffer was just made.
        let requirements = unsafe { gpu.raw.get_buffer_memory_requirements(raw) };
        let allocation = self.allocate(gpu, place, raw, requirements).and_then(|allocation| {
            // SAFETY: the memory was allocated for this buffer's requirements and nothing else is bound to its range.
            match unsafe { gpu.raw.bind_buffer_memory(raw, allocation.memory(), allocation.offset()) } {
                Ok(()) => Ok(allocation),
                Err(result) => {
                    self.free(allocation);
                    Err(self.refused(gpu, "vkBindBufferMemory", (place, size), result))
                }
            }
        });
        let allocation = match allocation {
            Ok(allocation) => allocation,
            Err(error) => {
                // SAFETY: nothing uses the buffer.
                unsafe { gpu.raw.destroy_buffer(raw, None) };
                return Err(error);
            }
        };
        // SAFETY: the buffer is bound and was made with SHADER_DEVICE_ADDRESS.
        let address = unsafe { gpu.raw.get_buffer_device_address(&vk::BufferDeviceAddressInfo::default().buffer(raw)) };
        // Kernels read and write 16 bytes at a time.
        debug_assert!(address.is_multiple_of(16));
        Ok(Buffer { raw, size, address, place, dirty: true, allocation, descriptor: Mutex::new(None) })
    }

    fn allocate(
        &self,
        gpu: &Gpu,
        place: Place,
        raw: vk::Buffer,
        requirements: vk::MemoryRequirements,
    ) -> Result<Allocation, Error> {
        let description = AllocationCreateDesc {
            name: "vector",
            requirements,
            location: match place {
                Place::Device => MemoryLocation::GpuOnly,
                // Not `CpuToGpu`: it prefers device memory, which the CPU reads back at a thousandth of the speed.
                Place::Host => MemoryLocation::GpuToCpu,
            },
            linear: true,
            allocation_scheme: if requirements.size > SHARED {
                AllocationScheme::DedicatedBuffer(raw)
            } else {
                AllocationScheme::GpuAllocatorManaged
            },
        };
        let refused = |call, result| self.refused(gpu, call, (place, requirements.size), result);
        let mut allocator = self.allocator.lock();
        let allocator = allocator.as_mut().ok_or(Error::Lost { during: "allocation" })?;
        allocator.allocate(&description).map_err(|error| {
            let result = match &error {
                AllocationError::OutOfMemory => vk::Result::ERROR_OUT_OF_DEVICE_MEMORY,
                // For want of memory or of addresses: `vkMapMemory` has no other errors.
                AllocationError::FailedToMap(_) => {
                    return refused("vkMapMemory", vk::Result::ERROR_OUT_OF_HOST_MEMORY);
                }
                // gpu-allocator gives these on by name only.
                AllocationError::Internal(text) if text.contains("ERROR_OUT_OF_HOST_MEMORY") => {
                    vk::Result::ERROR_OUT_OF_HOST_MEMORY
                }
                AllocationError::Internal(text) if text.contains("ERROR_DEVICE_LOST") => vk::Result::ERROR_DEVICE_LOST,
                // As many allocations as the device allows: memory is short, if not in bytes.
                AllocationError::Internal(text) if text.contains("ERROR_TOO_MANY_OBJECTS") => {
                    vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
                }
                _ => return Error::Driver { call: "gpu-allocator", code: error.to_string() },
            };
            refused("vkAllocateMemory", result)
        })
    }

    /// The error of a call that was to give memory: where there is none, with how much was asked for, and how much is left of the limit
    /// and, if the driver tells it, of the budget.
    fn refused(&self, gpu: &Gpu, call: &'static str, (place, needed): (Place, u64), result: vk::Result) -> Error {
        match driver_error(call)(result) {
            Error::OutOfMemory { during, .. } => {
                let room = self.budget.room(gpu, place).map_or(u64::MAX, Room::left);
                Error::OutOfMemory { during, needed, available: room.min(self.limit.saturating_sub(self.used())) }
            }
            other => other,
        }
    }

    fn free(&self, allocation: Allocation) {
        if let Some(allocator) = self.allocator.lock().as_mut()
            && let Err(error) = allocator.free(allocation)
        {
            tracing::error!(%error, "gpu-allocator refused to free an allocation");
        }
    }

    pub(crate) fn destroy(&self, gpu: &Gpu, buffer: Buffer) {
        // Before its handle can come back.
        self.destroyed.fetch_add(1, Relaxed);
        // SAFETY: callers own the buffer, and no pending submission uses it; its descriptor set dies with its pool.
        unsafe {
            if let Some((pool, _)) = buffer.descriptor.into_inner() {
                gpu.raw.destroy_descriptor_pool(pool, None);
            }
            gpu.raw.destroy_buffer(buffer.raw, None);
        }
        self.free(buffer.allocation);
    }

    /// Frees everything. The device must be idle and all buffers given back.
    pub(crate) fn shut_down(&self, gpu: &Gpu) {
        self.trim(gpu);
        drop(self.allocator.lock().take());
    }
}

/// A share of the memory limit, given back on drop.
pub(crate) struct Reservation<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        self.memory.used.lock().jobs -= self.bytes;
        self.memory.released.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_a_part_of_the_limit() {
        const GIB: u64 = 1 << 30;
        let kept = |limit| [Place::Device, Place::Host].map(|place| keep(place, limit));
        assert_eq!(kept(112 * GIB), [28 * GIB, 2 * GIB]);
        assert_eq!(kept(6 * GIB), [2 * GIB; 2]);
        assert_eq!(kept(1 << 20), [2 << 20; 2]);
    }
}
