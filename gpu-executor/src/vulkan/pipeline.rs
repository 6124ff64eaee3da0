use super::{Counters, Gpu, count, driver_error};
use crate::cache_file::CacheFile;
use crate::job::{PUSH_BYTES, SLOTS};
use crate::{Error, Kernel, Reach};
use ash::vk;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Pipelines by the SHA-256 of what they are made from, and the driver's cache behind them.
pub(crate) struct Pipelines {
    cache: vk::PipelineCache,
    file: Option<CacheFile>,
    saved: Mutex<Vec<u8>>,
    /// The layout of a descriptor set that is one buffer.
    pub(crate) set_layout: vk::DescriptorSetLayout,
    by_address: vk::PipelineLayout,
    /// Made for the first kernel that needs it: NVIDIA's driver takes 4 to 6 ms, three quarters of what a backend took beside the device.
    by_descriptor: Mutex<Option<vk::PipelineLayout>>,
    /// One lock per key, so that threads that want the same pipeline wait for one to make it, and others do not.
    made: Mutex<HashMap<[u8; 32], Built>>,
    feedback: bool,
    /// What was built, and how long each took.
    times: Mutex<Vec<(&'static str, Duration)>>,
}

type Built = Arc<Mutex<Option<vk::Pipeline>>>;

impl Pipelines {
    pub(crate) fn new(gpu: &Gpu, file: Option<CacheFile>, feedback: bool) -> Result<Self, Error> {
        let blob = file.as_ref().and_then(CacheFile::load).unwrap_or_default();
        let mut pipelines = Self {
            cache: vk::PipelineCache::null(),
            file,
            saved: Mutex::new(blob),
            set_layout: vk::DescriptorSetLayout::null(),
            by_address: vk::PipelineLayout::null(),
            by_descriptor: Mutex::default(),
            made: Mutex::default(),
            feedback,
            times: Mutex::default(),
        };
        pipelines.create(gpu).inspect_err(|_| pipelines.destroy(gpu))?;
        Ok(pipelines)
    }

    fn create(&mut self, gpu: &Gpu) -> Result<(), Error> {
        let binding = [vk::DescriptorSetLayoutBinding::default()
            .descriptor_type(vk::DescriptorType::STORAGE_BUFFER)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::COMPUTE)];
        let set_info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&binding);
        // SAFETY: a live device; the cache blob was written by this driver for this device, as its checksum and header say.
        unsafe {
            let blob = self.saved.lock();
            let cache_info = vk::PipelineCacheCreateInfo::default().initial_data(&blob);
            self.cache = gpu.raw.create_pipeline_cache(&cache_info, None).map_err(driver_error("vkCreatePipelineCache"))?;
            self.set_layout = gpu
                .raw
                .create_descriptor_set_layout(&set_info, None)
                .map_err(driver_error("vkCreateDescriptorSetLayout"))?;
        }
        self.by_address = pipeline_layout(gpu, &[])?;
        Ok(())
    }

    pub(crate) fn file(&self) -> Option<&CacheFile> {
        self.file.as_ref()
    }

    pub(crate) fn layout(&self, gpu: &Gpu, reach: Reach) -> Result<vk::PipelineLayout, Error> {
        if reach == Reach::Addresses {
            return Ok(self.by_address);
        }
        let mut made = self.by_descriptor.lock();
        let layout = made.map_or_else(|| pipeline_layout(gpu, &[self.set_layout; SLOTS]), Ok)?;
        *made = Some(layout);
        Ok(layout)
    }

    /// The pipeline of a kernel, made at most once.
    pub(crate) fn get(&self, gpu: &Gpu, counters: &Counters, kernel: &Kernel, size: u32) -> Result<vk::Pipeline, Error> {
        let entry = self.made.lock().entry(kernel.key(size)).or_default().clone();
        let mut entry = entry.lock();
        if let Some(pipeline) = *entry {
            count(&counters.pipeline_hits, 1);
            return Ok(pipeline);
        }
        let begin = Instant::now();
        let pipeline = self.build(gpu, counters, kernel, size)?;
        self.times.lock().push((kernel.name, begin.elapsed()));
        *entry = Some(pipeline);
        count(&counters.pipeline_builds, 1);
        self.save(gpu);
        Ok(pipeline)
    }

    /// What was built, and how long each took, in that order.
    pub(crate) fn times(&self) -> Vec<(&'static str, Duration)> {
        self.times.lock().clone()
    }

    fn build(&self, gpu: &Gpu, counters: &Counters, kernel: &Kernel, size: u32) -> Result<vk::Pipeline, Error> {
        let words: Vec<u32> =
            kernel.spirv.chunks_exact(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        let (mut entries, mut data) = (Vec::new(), Vec::new());
        for (id, value) in kernel.specialization(size) {
            entries.push(vk::SpecializationMapEntry { constant_id: id, offset: data.len() as u32, size: 4 });
            data.extend_from_slice(&value.to_le_bytes());
        }
        let specialization = vk::SpecializationInfo::default().map_entries(&entries).data(&data);
        let layout = self.layout(gpu, kernel.reach)?;
        // SAFETY: the SPIR-V is valid, as whoever calls `Device::prepare` promises.
        let module = unsafe { gpu.raw.create_shader_module(&vk::ShaderModuleCreateInfo::default().code(&words), None) }
            .map_err(driver_error("vkCreateShaderModule"))?;
        let stage = vk::PipelineShaderStageCreateInfo::default()
            .stage(vk::ShaderStageFlags::COMPUTE)
            .module(module)
            .name(c"main")
            .specialization_info(&specialization);
        let mut whole = vk::PipelineCreationFeedback::default();
        let mut stages = [vk::PipelineCreationFeedback::default()];
        let mut feedback = vk::PipelineCreationFeedbackCreateInfo::default()
            .pipeline_creation_feedback(&mut whole)
            .pipeline_stage_creation_feedbacks(&mut stages);
        let mut info = vk::ComputePipelineCreateInfo::default().stage(stage).layout(layout);
        if self.feedback {
            info = info.push_next(&mut feedback);
        }
        // SAFETY: the module and the layout are alive; all pointers in `info` outlive the call.
        let made = unsafe { gpu.raw.create_compute_pipelines(self.cache, &[info], None) };
        // SAFETY: a pipeline does not need its module once it is made.
        unsafe { gpu.raw.destroy_shader_module(module, None) };
        let pipeline = made.map_err(|(_, result)| driver_error("vkCreateComputePipelines")(result))?[0];
        if whole.flags.contains(vk::PipelineCreationFeedbackFlags::APPLICATION_PIPELINE_CACHE_HIT) {
            count(&counters.pipeline_cache_hits, 1);
        }
        Ok(pipeline)
    }

    /// Writes the driver's cache to disk if it has changed: the process-wide backend is never dropped, so there is no later
    /// moment to do it. A cache that cannot be written is a warning; the next process compiles again.
    fn save(&self, gpu: &Gpu) {
        let Some(file) = &self.file else { return };
        let mut saved = self.saved.lock();
        // SAFETY: the cache is alive; the driver synchronises it internally.
        let stored = match unsafe { gpu.raw.get_pipeline_cache_data(self.cache) } {
            Ok(blob) if blob == *saved => return,
            Ok(blob) => file.store(&blob).map(|()| *saved = blob).map_err(|error| error.to_string()),
            Err(result) => Err(result.to_string()),
        };
        if let Err(error) = stored {
            tracing::warn!(path = %file.path.display(), error, "pipeline cache not saved");
        }
    }

    /// Destroys everything. The device must be idle.
    pub(crate) fn destroy(&self, gpu: &Gpu) {
        // SAFETY: no command buffer that uses a pipeline is pending; destroying null handles is allowed.
        unsafe {
            for entry in self.made.lock().drain() {
                if let Some(pipeline) = entry.1.lock().take() {
                    gpu.raw.destroy_pipeline(pipeline, None);
                }
            }
            gpu.raw.destroy_pipeline_layout(self.by_address, None);
            if let Some(layout) = self.by_descriptor.lock().take() {
                gpu.raw.destroy_pipeline_layout(layout, None);
            }
            gpu.raw.destroy_descriptor_set_layout(self.set_layout, None);
            gpu.raw.destroy_pipeline_cache(self.cache, None);
        }
    }
}

/// A layout with these sets. The push constants are the same in all, so that what is pushed for one layout is there for another.
fn pipeline_layout(gpu: &Gpu, sets: &[vk::DescriptorSetLayout]) -> Result<vk::PipelineLayout, Error> {
    let push = [vk::PushConstantRange::default().stage_flags(vk::ShaderStageFlags::COMPUTE).size(PUSH_BYTES as u32)];
    let info = vk::PipelineLayoutCreateInfo::default().push_constant_ranges(&push).set_layouts(sets);
    // SAFETY: a live device; the layouts of the sets are alive.
    unsafe { gpu.raw.create_pipeline_layout(&info, None) }.map_err(driver_error("vkCreatePipelineLayout"))
}
