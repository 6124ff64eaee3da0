//! The functions of an [`ash::Device`] are replaced by those below, which count calls, answer some of them as a failing driver
//! would, and count the objects that live. gpu-allocator, which clones the device, calls them too. The functions find the real
//! ones by the handle that they are given: of a device, of one of its queues or of one of its command buffers.

use super::super::driver_error;
use super::{CallClass, Failure, Faults};
use crate::Error;
use ash::vk;
use ash::vk::Handle as _;
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

impl Faults {
    /// Makes a device whose calls are counted and fail as planned.
    pub(in super::super) fn device(
        &self,
        instance: &ash::Instance,
        make: impl FnOnce() -> Result<ash::Device, Error>,
    ) -> Result<ash::Device, Error> {
        let failed = match self.count("vkCreateDevice", CallClass::Create) {
            Some(Failure::DeviceLost) => Some(vk::Result::ERROR_DEVICE_LOST),
            Some(failure) => failure.code(),
            None => None,
        };
        if let Some(result) = failed {
            return Err(driver_error("vkCreateDevice")(result));
        }
        let real = make()?;
        self.add("Device", 1);
        let handle = real.handle();
        let layer = Layer {
            real,
            plan: self.clone(),
            lost: AtomicBool::new(false),
            hung: AtomicBool::new(false),
            queues: Mutex::new(()),
            seen: Mutex::default(),
        };
        LAYERS.write().insert(handle.as_raw(), Arc::new(layer));
        let get_real = instance.fp_v1_0().get_device_proc_addr;
        let load = |name: &CStr| {
            // SAFETY: a live device; the name ends with a zero.
            let real = unsafe { get_real(handle, name.as_ptr()) };
            match (real, replacement(name)) {
                (Some(_), Some(replacement)) => replacement,
                (Some(real), None) => real as *const c_void,
                (None, _) => ptr::null(),
            }
        };
        // SAFETY: each name is given the driver's function of that name, or one of the same type that calls it.
        Ok(unsafe { ash::Device::load_with(load, handle) })
    }
}

/// One device, and what has become of it.
struct Layer {
    real: ash::Device,
    plan: Faults,
    lost: AtomicBool,
    hung: AtomicBool,
    /// Held while anything is done to a queue: waiting for the whole device must not meet a submission.
    queues: Mutex<()>,
    /// The last value seen of each semaphore: what a device that stands still goes on showing.
    seen: Mutex<BTreeMap<u64, u64>>,
}

/// The layers of this process, by the handles of their devices, queues and command buffers, which are all pointers to different
/// things.
static LAYERS: RwLock<BTreeMap<u64, Arc<Layer>>> = RwLock::new(BTreeMap::new());

/// What a handle that no layer knows is answered; there is none.
const NOT_OURS: vk::Result = vk::Result::ERROR_INITIALIZATION_FAILED;

fn layer(handle: impl vk::Handle) -> Option<Arc<Layer>> {
    LAYERS.read().get(&handle.as_raw()).cloned()
}

impl Layer {
    /// Counts a call; what to answer, unless the driver is to be asked.
    fn verdict(&self, name: &'static str, class: CallClass) -> Option<vk::Result> {
        match self.plan.count(name, class) {
            Some(Failure::DeviceLost) => self.lose(),
            Some(Failure::Hang) => self.hung.store(true, SeqCst),
            Some(failure) => return failure.code(),
            None => {}
        }
        let may_say_so = matches!(class, CallClass::Submit | CallClass::Wait);
        (may_say_so && self.is_lost()).then_some(vk::Result::ERROR_DEVICE_LOST)
    }

    fn lose(&self) {
        if !self.lost.swap(true, SeqCst) {
            // A lost device uses nothing any more.
            let _ = self.idle();
        }
    }

    fn is_lost(&self) -> bool {
        self.lost.load(SeqCst)
    }

    fn idle(&self) -> vk::Result {
        let _queues = self.queues.lock();
        // SAFETY: a live device, none of whose queues is used meanwhile: all submissions hold the lock.
        unsafe { (self.real.fp_v1_0().device_wait_idle)(self.real.handle()) }
    }

    fn call(&self, name: &'static str, class: CallClass, real: impl FnOnce() -> vk::Result) -> vk::Result {
        self.verdict(name, class).unwrap_or_else(real)
    }

    /// A call that touches a queue.
    fn on_queue(&self, name: &'static str, class: CallClass, real: impl FnOnce() -> vk::Result) -> vk::Result {
        self.call(name, class, || {
            let _queues = self.queues.lock();
            if self.is_lost() { vk::Result::ERROR_DEVICE_LOST } else { real() }
        })
    }

    fn saw(&self, semaphore: vk::Semaphore, value: u64) {
        let mut seen = self.seen.lock();
        let last = seen.entry(semaphore.as_raw()).or_default();
        *last = value.max(*last);
    }

    fn last_seen(&self, semaphore: vk::Semaphore) -> u64 {
        self.seen.lock().get(&semaphore.as_raw()).copied().unwrap_or(0)
    }
}

type Callbacks<'a> = *const vk::AllocationCallbacks<'a>;

/// Functions that make and destroy one object.
macro_rules! objects {
    ($($class:ident $object:ident $create:ident $create_name:literal ($info:ident) $destroy:ident $destroy_name:literal;)+) => {
        $(
            /// # Safety
            /// That of the function of this name.
            unsafe extern "system" fn $create(
                device: vk::Device, info: *const vk::$info<'_>, callbacks: Callbacks<'_>, made: *mut vk::$object,
            ) -> vk::Result {
                let Some(layer) = layer(device) else { return NOT_OURS };
                let result = layer.call($create_name, CallClass::$class, || {
                    // SAFETY: the caller's arguments.
                    unsafe { (layer.real.fp_v1_0().$create)(device, info, callbacks, made) }
                });
                if result == vk::Result::SUCCESS {
                    layer.plan.add(stringify!($object), 1);
                } else {
                    // SAFETY: the caller's pointer. A failed call makes nothing.
                    unsafe { *made = vk::$object::null() };
                }
                result
            }

            /// # Safety
            /// That of the function of this name.
            unsafe extern "system" fn $destroy(device: vk::Device, object: vk::$object, callbacks: Callbacks<'_>) {
                let Some(layer) = layer(device) else { return };
                if object != vk::$object::null() {
                    layer.plan.add(stringify!($object), -1);
                }
                // SAFETY: the caller's arguments.
                unsafe { (layer.real.fp_v1_0().$destroy)(device, object, callbacks) };
            }
        )+

        fn object_replacement(name: &[u8]) -> Option<*const c_void> {
            $(
                if name == $create_name.as_bytes() {
                    let same: unsafe extern "system" fn(vk::Device, *const vk::$info<'_>, Callbacks<'_>, *mut vk::$object)
                        -> vk::Result = $create;
                    return Some(same as *const c_void);
                }
                if name == $destroy_name.as_bytes() {
                    let same: unsafe extern "system" fn(vk::Device, vk::$object, Callbacks<'_>) = $destroy;
                    return Some(same as *const c_void);
                }
            )+
            None
        }
    };
}

objects! {
    Allocate Buffer create_buffer "vkCreateBuffer" (BufferCreateInfo) destroy_buffer "vkDestroyBuffer";
    Create CommandPool create_command_pool "vkCreateCommandPool" (CommandPoolCreateInfo)
        destroy_command_pool "vkDestroyCommandPool";
    Create DescriptorPool create_descriptor_pool "vkCreateDescriptorPool" (DescriptorPoolCreateInfo)
        destroy_descriptor_pool "vkDestroyDescriptorPool";
    Create DescriptorSetLayout create_descriptor_set_layout "vkCreateDescriptorSetLayout" (DescriptorSetLayoutCreateInfo)
        destroy_descriptor_set_layout "vkDestroyDescriptorSetLayout";
    Create Fence create_fence "vkCreateFence" (FenceCreateInfo) destroy_fence "vkDestroyFence";
    Create PipelineCache create_pipeline_cache "vkCreatePipelineCache" (PipelineCacheCreateInfo)
        destroy_pipeline_cache "vkDestroyPipelineCache";
    Create PipelineLayout create_pipeline_layout "vkCreatePipelineLayout" (PipelineLayoutCreateInfo)
        destroy_pipeline_layout "vkDestroyPipelineLayout";
    Create QueryPool create_query_pool "vkCreateQueryPool" (QueryPoolCreateInfo) destroy_query_pool "vkDestroyQueryPool";
    Create Semaphore create_semaphore "vkCreateSemaphore" (SemaphoreCreateInfo) destroy_semaphore "vkDestroySemaphore";
    Create ShaderModule create_shader_module "vkCreateShaderModule" (ShaderModuleCreateInfo)
        destroy_shader_module "vkDestroyShaderModule";
}

/// Functions that answer a result and nothing else that a failure would have to clear. The first argument is the handle by
/// which the layer is found.
macro_rules! plain {
    ($($class:ident $table:ident $call:ident $function:ident $name:literal
        ($handle:ident: $type:ty $(, $argument:ident: $argument_type:ty)*);)+) => {
        $(
            /// # Safety
            /// That of the function of this name.
            unsafe extern "system" fn $function($handle: $type $(, $argument: $argument_type)*) -> vk::Result {
                let Some(layer) = layer($handle) else { return NOT_OURS };
                layer.$call($name, CallClass::$class, || {
                    // SAFETY: the caller's arguments.
                    unsafe { (layer.real.$table().$function)($handle $(, $argument)*) }
                })
            }
        )+

        fn plain_replacement(name: &[u8]) -> Option<*const c_void> {
            $(
                if name == $name.as_bytes() {
                    return Some($function as unsafe extern "system" fn($type $(, $argument_type)*) -> vk::Result as *const c_void);
                }
            )+
            None
        }
    };
}

plain! {
    Allocate fp_v1_0 call bind_buffer_memory "vkBindBufferMemory"
        (device: vk::Device, buffer: vk::Buffer, memory: vk::DeviceMemory, offset: vk::DeviceSize);
    Allocate fp_v1_1 call bind_buffer_memory2 "vkBindBufferMemory2"
        (device: vk::Device, count: u32, infos: *const vk::BindBufferMemoryInfo<'_>);
    Allocate fp_v1_0 call flush_mapped_memory_ranges "vkFlushMappedMemoryRanges"
        (device: vk::Device, count: u32, ranges: *const vk::MappedMemoryRange<'_>);
    Allocate fp_v1_0 call invalidate_mapped_memory_ranges "vkInvalidateMappedMemoryRanges"
        (device: vk::Device, count: u32, ranges: *const vk::MappedMemoryRange<'_>);
    Create fp_v1_0 call get_pipeline_cache_data "vkGetPipelineCacheData"
        (device: vk::Device, cache: vk::PipelineCache, size: *mut usize, data: *mut c_void);
    Record fp_v1_0 call reset_command_pool "vkResetCommandPool"
        (device: vk::Device, pool: vk::CommandPool, flags: vk::CommandPoolResetFlags);
    Record fp_v1_0 call begin_command_buffer "vkBeginCommandBuffer"
        (commands: vk::CommandBuffer, info: *const vk::CommandBufferBeginInfo<'_>);
    Record fp_v1_0 call end_command_buffer "vkEndCommandBuffer" (commands: vk::CommandBuffer);
    Record fp_v1_0 call reset_command_buffer "vkResetCommandBuffer"
        (commands: vk::CommandBuffer, flags: vk::CommandBufferResetFlags);
    Submit fp_v1_0 on_queue queue_submit "vkQueueSubmit"
        (queue: vk::Queue, count: u32, infos: *const vk::SubmitInfo<'_>, fence: vk::Fence);
    Submit fp_v1_3 on_queue queue_submit2 "vkQueueSubmit2"
        (queue: vk::Queue, count: u32, infos: *const vk::SubmitInfo2<'_>, fence: vk::Fence);
    Wait fp_v1_0 on_queue queue_wait_idle "vkQueueWaitIdle" (queue: vk::Queue);
    Wait fp_v1_0 on_queue device_wait_idle "vkDeviceWaitIdle" (device: vk::Device);
    Wait fp_v1_0 call get_query_pool_results "vkGetQueryPoolResults"
        (device: vk::Device, pool: vk::QueryPool, first: u32, count: u32, size: usize, data: *mut c_void,
        stride: vk::DeviceSize, flags: vk::QueryResultFlags);
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn allocate_memory(
    device: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    callbacks: Callbacks<'_>,
    made: *mut vk::DeviceMemory,
) -> vk::Result {
    let Some(layer) = layer(device) else { return NOT_OURS };
    let result = layer.call("vkAllocateMemory", CallClass::Allocate, || {
        // SAFETY: the caller's arguments.
        unsafe { (layer.real.fp_v1_0().allocate_memory)(device, info, callbacks, made) }
    });
    if result == vk::Result::SUCCESS {
        // SAFETY: the caller's pointers; the call has written what it made.
        let (handle, bytes) = unsafe { ((*made).as_raw(), (*info).allocation_size) };
        layer.plan.add("DeviceMemory", 1);
        layer.plan.0.lock().memory.insert((device.as_raw(), handle), bytes);
    } else {
        // SAFETY: the caller's pointer. A failed call makes nothing.
        unsafe { *made = vk::DeviceMemory::null() };
    }
    result
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn free_memory(device: vk::Device, memory: vk::DeviceMemory, callbacks: Callbacks<'_>) {
    let Some(layer) = layer(device) else { return };
    if memory != vk::DeviceMemory::null() {
        layer.plan.add("DeviceMemory", -1);
        layer.plan.0.lock().memory.remove(&(device.as_raw(), memory.as_raw()));
    }
    // SAFETY: the caller's arguments.
    unsafe { (layer.real.fp_v1_0().free_memory)(device, memory, callbacks) };
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn map_memory(
    device: vk::Device,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    flags: vk::MemoryMapFlags,
    mapped: *mut *mut c_void,
) -> vk::Result {
    let Some(layer) = layer(device) else { return NOT_OURS };
    let result = layer.call("vkMapMemory", CallClass::Allocate, || {
        // SAFETY: the caller's arguments.
        unsafe { (layer.real.fp_v1_0().map_memory)(device, memory, offset, size, flags, mapped) }
    });
    if result != vk::Result::SUCCESS {
        // SAFETY: the caller's pointer.
        unsafe { *mapped = ptr::null_mut() };
    }
    result
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn create_compute_pipelines(
    device: vk::Device,
    cache: vk::PipelineCache,
    count: u32,
    infos: *const vk::ComputePipelineCreateInfo<'_>,
    callbacks: Callbacks<'_>,
    made: *mut vk::Pipeline,
) -> vk::Result {
    let Some(layer) = layer(device) else { return NOT_OURS };
    // SAFETY: the caller's pointer to room for so many; null handles are valid ones.
    unsafe { ptr::write_bytes(made, 0, count as usize) };
    let result = layer.call("vkCreateComputePipelines", CallClass::Create, || {
        // SAFETY: the caller's arguments.
        unsafe { (layer.real.fp_v1_0().create_compute_pipelines)(device, cache, count, infos, callbacks, made) }
    });
    // SAFETY: written above, or by the call.
    let pipelines = unsafe { std::slice::from_raw_parts(made, count as usize) };
    let made = pipelines.iter().filter(|pipeline| **pipeline != vk::Pipeline::null()).count();
    layer.plan.add("Pipeline", made as i64);
    result
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn destroy_pipeline(device: vk::Device, pipeline: vk::Pipeline, callbacks: Callbacks<'_>) {
    let Some(layer) = layer(device) else { return };
    if pipeline != vk::Pipeline::null() {
        layer.plan.add("Pipeline", -1);
    }
    // SAFETY: the caller's arguments.
    unsafe { (layer.real.fp_v1_0().destroy_pipeline)(device, pipeline, callbacks) };
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn allocate_command_buffers(
    device: vk::Device,
    info: *const vk::CommandBufferAllocateInfo<'_>,
    made: *mut vk::CommandBuffer,
) -> vk::Result {
    let Some(layer) = layer(device) else { return NOT_OURS };
    // SAFETY: the caller's pointers, the second to room for so many; null handles are valid ones.
    let count = unsafe {
        let count = (*info).command_buffer_count as usize;
        ptr::write_bytes(made, 0, count);
        count
    };
    let result = layer.call("vkAllocateCommandBuffers", CallClass::Create, || {
        // SAFETY: the caller's arguments.
        unsafe { (layer.real.fp_v1_0().allocate_command_buffers)(device, info, made) }
    });
    if result == vk::Result::SUCCESS {
        // SAFETY: written by the call.
        let made = unsafe { std::slice::from_raw_parts(made, count) };
        let mut layers = LAYERS.write();
        layers.extend(made.iter().map(|commands| (commands.as_raw(), layer.clone())));
    }
    result
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn allocate_descriptor_sets(
    device: vk::Device,
    info: *const vk::DescriptorSetAllocateInfo<'_>,
    made: *mut vk::DescriptorSet,
) -> vk::Result {
    let Some(layer) = layer(device) else { return NOT_OURS };
    // SAFETY: the caller's pointers, the second to room for so many; null handles are valid ones.
    unsafe { ptr::write_bytes(made, 0, (*info).descriptor_set_count as usize) };
    layer.call("vkAllocateDescriptorSets", CallClass::Create, || {
        // SAFETY: the caller's arguments.
        unsafe { (layer.real.fp_v1_0().allocate_descriptor_sets)(device, info, made) }
    })
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn get_device_queue(device: vk::Device, family: u32, index: u32, queue: *mut vk::Queue) {
    let Some(layer) = layer(device) else { return };
    // SAFETY: the caller's arguments; the call writes the queue.
    let queue = unsafe {
        (layer.real.fp_v1_0().get_device_queue)(device, family, index, queue);
        *queue
    };
    LAYERS.write().insert(queue.as_raw(), layer);
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn destroy_device(device: vk::Device, callbacks: Callbacks<'_>) {
    let Some(layer) = layer(device) else { return };
    layer.plan.add("Device", -1);
    // First, since another device may be given the same handles at once.
    LAYERS.write().retain(|_, other| !Arc::ptr_eq(other, &layer));
    // SAFETY: the caller's arguments.
    unsafe { (layer.real.fp_v1_0().destroy_device)(device, callbacks) };
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn wait_semaphores(
    device: vk::Device,
    info: *const vk::SemaphoreWaitInfo<'_>,
    timeout: u64,
) -> vk::Result {
    let Some(layer) = layer(device) else { return NOT_OURS };
    // SAFETY: the caller's pointers.
    let waits: Vec<(vk::Semaphore, u64)> = unsafe {
        let (info, count) = (&*info, (*info).semaphore_count as usize);
        let semaphores = std::slice::from_raw_parts(info.p_semaphores, count).iter().copied();
        semaphores.zip(std::slice::from_raw_parts(info.p_values, count).iter().copied()).collect()
    };
    // SAFETY: the caller's pointer.
    let any = unsafe { (*info).flags }.contains(vk::SemaphoreWaitFlags::ANY);
    layer.call("vkWaitSemaphores", CallClass::Wait, || {
        if layer.hung.load(SeqCst) {
            let mut done = waits.iter().map(|&(semaphore, value)| layer.last_seen(semaphore) >= value);
            let done = if any { done.any(|done| done) } else { done.all(|done| done) };
            return if done { vk::Result::SUCCESS } else { vk::Result::TIMEOUT };
        }
        // SAFETY: the caller's arguments.
        let result = unsafe { (layer.real.fp_v1_2().wait_semaphores)(device, info, timeout) };
        if result == vk::Result::SUCCESS && !any {
            waits.iter().for_each(|&(semaphore, value)| layer.saw(semaphore, value));
        }
        result
    })
}

/// # Safety
/// That of the function of this name.
unsafe extern "system" fn get_semaphore_counter_value(
    device: vk::Device,
    semaphore: vk::Semaphore,
    value: *mut u64,
) -> vk::Result {
    let Some(layer) = layer(device) else { return NOT_OURS };
    layer.call("vkGetSemaphoreCounterValue", CallClass::Wait, || {
        if layer.hung.load(SeqCst) {
            // SAFETY: the caller's pointer.
            unsafe { *value = layer.last_seen(semaphore) };
            return vk::Result::SUCCESS;
        }
        // SAFETY: the caller's arguments.
        let result = unsafe { (layer.real.fp_v1_2().get_semaphore_counter_value)(device, semaphore, value) };
        if result == vk::Result::SUCCESS {
            // SAFETY: the call has written it.
            layer.saw(semaphore, unsafe { *value });
        }
        result
    })
}

/// What stands in for a function of the driver's. The types are those of ash's table, so that it is the same one that is called
/// and replaced.
fn replacement(name: &CStr) -> Option<*const c_void> {
    let name = name.to_bytes();
    let pointer = match name {
        b"vkAllocateMemory" => allocate_memory as vk::PFN_vkAllocateMemory as *const c_void,
        b"vkFreeMemory" => free_memory as vk::PFN_vkFreeMemory as *const c_void,
        b"vkMapMemory" => map_memory as vk::PFN_vkMapMemory as *const c_void,
        b"vkCreateComputePipelines" => create_compute_pipelines as vk::PFN_vkCreateComputePipelines as *const c_void,
        b"vkDestroyPipeline" => destroy_pipeline as vk::PFN_vkDestroyPipeline as *const c_void,
        b"vkAllocateCommandBuffers" => allocate_command_buffers as vk::PFN_vkAllocateCommandBuffers as *const c_void,
        b"vkAllocateDescriptorSets" => allocate_descriptor_sets as vk::PFN_vkAllocateDescriptorSets as *const c_void,
        b"vkGetDeviceQueue" => get_device_queue as vk::PFN_vkGetDeviceQueue as *const c_void,
        b"vkDestroyDevice" => destroy_device as vk::PFN_vkDestroyDevice as *const c_void,
        b"vkWaitSemaphores" => wait_semaphores as vk::PFN_vkWaitSemaphores as *const c_void,
        b"vkGetSemaphoreCounterValue" => get_semaphore_counter_value as vk::PFN_vkGetSemaphoreCounterValue as *const c_void,
        _ => return object_replacement(name).or_else(|| plain_replacement(name)),
    };
    Some(pointer)
}
