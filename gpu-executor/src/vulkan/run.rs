use super::memory::{Buffer, Place};
use super::{Lane, Program, Shared, count, driver_error};
use crate::job::{Job, SLOTS, Slot, push_constants};
use crate::plan::{self, Access, Barrier, Command, Stage, Stages, Step};
use crate::{Error, Reach};
use ash::vk;
use rayon::prelude::*;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// A slot in use: its bytes per element and its buffers.
struct Bound {
    slot: usize,
    width: usize,
    write: bool,
    /// What the kernel works on, as an index into the chunk's buffers.
    kernel: usize,
    /// What the CPU fills or reads: the same buffer, unless vectors are staged.
    host: usize,
}

/// What a step does; the planner sees only what it touches.
enum Work {
    Copy { from: usize, to: usize, bytes: u64 },
    Dispatch,
    ReadBack,
}

/// How long a thread spins for a result, how long it then yields to others between looks, before it sleeps. On the H200 a
/// sleep and a wake-up cost a job of 64 elements 30 us more than its 18; and sleeping after 0.1 ms rather than 1 ms cost one of
/// 65536 elements 0.1 of its 0.9 ms, because the machine takes its time to wake.
const SPIN: Duration = Duration::from_micros(100);
const YIELD: Duration = Duration::from_millis(2);

impl Program {
    /// Runs the program over a job's vectors, chunk after chunk, and returns when the results are in the job's slices, with
    /// the number of dispatches it took. Any number of threads may do so at once.
    ///
    /// # Errors
    /// [`Error::MalformedJob`] before anything is done; [`Error::OutOfMemory`], [`Error::TimedOut`], [`Error::Lost`] or what
    /// the driver answered, and then what the job's output slices hold is unspecified.
    pub fn run(&self, job: &mut Job) -> Result<usize, Error> {
        let widths = job.widths(self.name)?;
        if job.elements == 0 {
            return Ok(0);
        }
        let shared = &*self.shared;
        let settings = &shared.settings;
        let bounds = plan::Bounds {
            buffer: settings.limits.buffer.min(CHUNK_BYTES),
            memory: shared.memory.limit,
            elements: settings.chunk_elements,
            work: settings.work,
            workgroups: settings.limits.workgroups.map(u64::from).iter().product(),
            workgroup_size: self.workgroup_size,
        };
        let chunk = plan::elements_per_chunk(job.elements, &widths, job.cost, &bounds)?;
        let footprint =
            widths.iter().filter(|&&width| width > 0).map(|&width| plan::size_class((width * chunk) as u64)).sum();
        let _reservation = shared.memory.reserve(footprint);
        let mut chunks = Chunks::new(self, job, &widths, chunk)?;
        let mut dispatches = 0;
        for start in (0..job.elements).step_by(chunk) {
            chunks.run(job, start..job.elements.min(start + chunk))?;
            dispatches += 1;
        }
        Ok(dispatches)
    }
}

/// The most bytes of one vector in a chunk. Larger chunks gain nothing on any device measured, and pin more memory.
const CHUNK_BYTES: u64 = 128 << 20;

/// The buffers and the command buffer of one job; goes back to the device's pools on drop.
struct Chunks<'a> {
    program: &'a Program,
    bound: Vec<Bound>,
    buffers: Vec<Buffer>,
    lane: Option<Lane>,
}

impl<'a> Chunks<'a> {
    fn new(program: &'a Program, job: &Job, widths: &[usize; SLOTS], chunk: usize) -> Result<Self, Error> {
        let shared = &*program.shared;
        if shared.lost.load(Relaxed) {
            return Err(Error::Lost { during: "an earlier job" });
        }
        let mut chunks = Self { program, bound: Vec::new(), buffers: Vec::new(), lane: None };
        let staged = shared.settings.staging.applies(job.slots.iter().map(Slot::bytes).sum());
        for (slot, &width) in widths.iter().enumerate().filter(|(_, width)| **width > 0) {
            let mut take = |place| -> Result<usize, Error> {
                chunks.buffers.push(shared.memory.take(&shared.gpu, &shared.counters, place, (width * chunk) as u64)?);
                Ok(chunks.buffers.len() - 1)
            };
            let host = take(Place::Host)?;
            let kernel = if staged { take(Place::Device)? } else { host };
            chunks.bound.push(Bound { slot, width, write: matches!(job.slots[slot], Slot::Write(_)), kernel, host });
        }
        let idle = shared.lanes.lock().pop();
        chunks.lane = Some(match idle {
            Some(lane) => lane,
            None => shared.lane()?,
        });
        Ok(chunks)
    }

    fn run(&mut self, job: &mut Job, range: Range<usize>) -> Result<(), Error> {
        let shared = &*self.program.shared;
        let bytes = |bound: &Bound| range.start * bound.width..range.end * bound.width;
        let copies = hosts(&self.bound, &mut self.buffers).filter_map(|(bound, buffer)| match &job.slots[bound.slot] {
            Slot::Read(source) => Some(buffer.bytes().map(|to| (to, &source[bytes(bound)]))),
            _ => None,
        });
        count(&shared.counters.uploaded, shared.copier.copy(copies.collect::<Result<_, _>>()?));
        let (steps, work) = self.steps(range.len());
        let commands = plan::plan(&steps);
        debug_assert_eq!(plan::find_hazard(&steps, &commands), None);
        #[cfg(feature = "test-faults")]
        let commands: Vec<Command> = if shared.settings.omit_barriers {
            commands.into_iter().filter(|command| matches!(command, Command::Run(_))).collect()
        } else {
            commands
        };
        self.record(&commands, &work, range.len() as u32, job.params)?;
        let value = shared.submit(self.lane.as_ref())?;
        if let Err(error) = shared.wait(value) {
            // The submission may still be using these.
            let mut abandoned = shared.abandoned.lock();
            abandoned.0.extend(self.lane.take());
            abandoned.1.append(&mut self.buffers);
            return Err(error);
        }
        let mut targets: [Option<&mut [u8]>; SLOTS] = job.slots.each_mut().map(|slot| match slot {
            Slot::Write(target) => Some(&mut **target),
            _ => None,
        });
        let copies = hosts(&self.bound, &mut self.buffers).filter_map(|(bound, buffer)| {
            let target = &mut targets[bound.slot].take()?[bytes(bound)];
            Some(buffer.bytes().map(|from| {
                let from = &from[..target.len()];
                (target, from)
            }))
        });
        count(&shared.counters.downloaded, shared.copier.copy(copies.collect::<Result<_, _>>()?));
        Ok(())
    }

    /// What a chunk takes: copies in, one dispatch, copies out, the CPU's reading.
    fn steps(&self, elements: usize) -> (Vec<Step>, Vec<Work>) {
        let bytes = |bound: &Bound| (bound.width * elements) as u64;
        let touch = |buffer, bound: &Bound, write| Access { buffer, bytes: 0..bytes(bound), write };
        let (mut steps, mut work) = (Vec::new(), Vec::new());
        let mut push = |stage, accesses, what| {
            steps.push(Step { stage, accesses });
            work.push(what);
        };
        for bound in self.bound.iter().filter(|bound| !bound.write && bound.kernel != bound.host) {
            let accesses = vec![touch(bound.host, bound, false), touch(bound.kernel, bound, true)];
            push(Stage::Transfer, accesses, Work::Copy { from: bound.host, to: bound.kernel, bytes: bytes(bound) });
        }
        let accesses = self.bound.iter().map(|bound| touch(bound.kernel, bound, bound.write)).collect();
        push(Stage::Compute, accesses, Work::Dispatch);
        for bound in self.bound.iter().filter(|bound| bound.write && bound.kernel != bound.host) {
            let accesses = vec![touch(bound.kernel, bound, false), touch(bound.host, bound, true)];
            push(Stage::Transfer, accesses, Work::Copy { from: bound.kernel, to: bound.host, bytes: bytes(bound) });
        }
        let accesses = self.bound.iter().filter(|bound| bound.write).map(|bound| touch(bound.host, bound, false)).collect();
        push(Stage::Host, accesses, Work::ReadBack);
        (steps, work)
    }

    fn record(&mut self, commands: &[Command], work: &[Work], elements: u32, params: &[u32]) -> Result<(), Error> {
        let shared = &*self.program.shared;
        let gpu = &shared.gpu;
        let Some(lane) = &self.lane else { return Err(Error::Lost { during: "an earlier chunk" }) };
        let begin = vk::CommandBufferBeginInfo::default().flags(vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT);
        // SAFETY: the lane is this thread's alone and its last submission has finished.
        unsafe {
            gpu.raw
                .reset_command_pool(lane.pool, vk::CommandPoolResetFlags::empty())
                .map_err(driver_error("vkResetCommandPool"))?;
            gpu.raw.begin_command_buffer(lane.commands, &begin).map_err(driver_error("vkBeginCommandBuffer"))?;
        }
        for command in commands {
            match command {
                Command::Barrier(barrier) => {
                    let memory = [memory_barrier(barrier)];
                    let (from, to) = (pipeline_stages(barrier.from), pipeline_stages(barrier.to));
                    // SAFETY: recording outside a render pass.
                    unsafe {
                        let none = vk::DependencyFlags::empty();
                        gpu.raw.cmd_pipeline_barrier(lane.commands, from, to, none, &memory, &[], &[]);
                    }
                    count(&shared.counters.barriers, 1);
                }
                Command::Run(step) => match work[*step] {
                    Work::Copy { from, to, bytes } => {
                        let region = [vk::BufferCopy::default().size(bytes)];
                        // SAFETY: both buffers are at least `bytes` long, and different.
                        unsafe {
                            gpu.raw.cmd_copy_buffer(lane.commands, self.buffers[from].raw, self.buffers[to].raw, &region);
                        }
                    }
                    Work::Dispatch => dispatch(self.program, lane, &self.bound, &mut self.buffers, elements, params)?,
                    Work::ReadBack => {}
                },
            }
        }
        // SAFETY: recording was begun above.
        unsafe { gpu.raw.end_command_buffer(lane.commands) }.map_err(driver_error("vkEndCommandBuffer"))
    }
}

impl Drop for Chunks<'_> {
    fn drop(&mut self) {
        let shared = &*self.program.shared;
        self.buffers.drain(..).for_each(|buffer| shared.memory.give(&shared.gpu, buffer));
        shared.lanes.lock().extend(self.lane.take());
    }
}

/// The buffers that the CPU fills or reads, each with what it is for.
fn hosts<'a>(bound: &'a [Bound], buffers: &'a mut [Buffer]) -> impl Iterator<Item = (&'a Bound, &'a mut Buffer)> {
    buffers
        .iter_mut()
        .enumerate()
        .filter_map(|(index, buffer)| bound.iter().find(|bound| bound.host == index).map(|bound| (bound, buffer)))
}

fn dispatch(
    program: &Program,
    lane: &Lane,
    bound: &[Bound],
    buffers: &mut [Buffer],
    elements: u32,
    params: &[u32],
) -> Result<(), Error> {
    let shared = &*program.shared;
    let raw = &shared.gpu.raw;
    let layout = shared.pipelines.layout(program.reach);
    let mut addresses = [0; SLOTS];
    let mut sets = [vk::DescriptorSet::null(); SLOTS];
    match program.reach {
        Reach::Addresses => bound.iter().for_each(|bound| addresses[bound.slot] = buffers[bound.kernel].address),
        Reach::Descriptors => {
            let mut any = vk::DescriptorSet::null();
            for bound in bound {
                any = buffers[bound.kernel].descriptor(&shared.gpu, shared.pipelines.set_layout)?;
                sets[bound.slot] = any;
            }
            // A slot that the kernel declares and, specialized, does not read must be bound all the same.
            sets.iter_mut().filter(|set| **set == vk::DescriptorSet::null()).for_each(|set| *set = any);
        }
    }
    let push = push_constants(addresses, elements, params);
    let [x, y] = plan::workgroups(elements.div_ceil(program.workgroup_size), shared.settings.limits.workgroups);
    let point = vk::PipelineBindPoint::COMPUTE;
    // SAFETY: the pipeline, its layout and the buffers are alive until the submission has finished; every slot's buffer
    // holds `elements` elements, and the kernel looks at no index beyond them; x and y are within the device's limits.
    unsafe {
        raw.cmd_bind_pipeline(lane.commands, point, program.pipeline);
        if program.reach == Reach::Descriptors {
            raw.cmd_bind_descriptor_sets(lane.commands, point, layout, 0, &sets, &[]);
        }
        raw.cmd_push_constants(lane.commands, layout, vk::ShaderStageFlags::COMPUTE, 0, &push);
        raw.cmd_dispatch(lane.commands, x, y, 1);
    }
    count(&shared.counters.dispatches, 1);
    Ok(())
}

impl Shared {
    fn lane(&self) -> Result<Lane, Error> {
        let info = vk::CommandPoolCreateInfo::default()
            .queue_family_index(self.settings.queue_family)
            .flags(vk::CommandPoolCreateFlags::TRANSIENT);
        // SAFETY: a live device that has this queue family.
        let pool = unsafe { self.gpu.raw.create_command_pool(&info, None) }.map_err(driver_error("vkCreateCommandPool"))?;
        let info = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
        // SAFETY: the pool was just made.
        match unsafe { self.gpu.raw.allocate_command_buffers(&info) } {
            Ok(commands) => Ok(Lane { pool, commands: commands[0] }),
            Err(result) => {
                // SAFETY: nothing uses the pool.
                unsafe { self.gpu.raw.destroy_command_pool(pool, None) };
                Err(driver_error("vkAllocateCommandBuffers")(result))
            }
        }
    }

    /// Submits a recorded lane; its timeline value.
    fn submit(&self, lane: Option<&Lane>) -> Result<u64, Error> {
        let Some(lane) = lane else { return Err(Error::Lost { during: "an earlier chunk" }) };
        let mut queue = self.queue.lock();
        let value = queue.submitted + 1;
        let (commands, signals, values) = ([lane.commands], [self.timeline], [value]);
        let mut timeline = vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
        let info =
            [vk::SubmitInfo::default().command_buffers(&commands).signal_semaphores(&signals).push_next(&mut timeline)];
        // SAFETY: the command buffer is recorded and not pending; the mutex keeps the queue to this thread, and the timeline
        // values in order.
        let submitted = unsafe { self.gpu.raw.queue_submit(queue.raw, &info, vk::Fence::null()) };
        submitted.map_err(|result| self.noting_loss(driver_error("vkQueueSubmit")(result)))?;
        queue.submitted = value;
        count(&self.counters.submits, 1);
        Ok(value)
    }

    /// Waits for a submission: spins briefly, then sleeps.
    fn wait(&self, value: u64) -> Result<(), Error> {
        let raw = &self.gpu.raw;
        // A software device computes on the cores that would spin.
        if self.settings.info.kind != super::DeviceKind::Software {
            let start = Instant::now();
            while start.elapsed() < YIELD {
                // SAFETY: the semaphore is a timeline semaphore of this device.
                let reached = unsafe { raw.get_semaphore_counter_value(self.timeline) };
                if reached.map_err(|result| self.noting_loss(driver_error("vkGetSemaphoreCounterValue")(result)))? >= value {
                    return Ok(());
                }
                if start.elapsed() < SPIN {
                    std::hint::spin_loop();
                } else {
                    std::thread::yield_now();
                }
            }
        }
        let (semaphores, values) = ([self.timeline], [value]);
        let info = vk::SemaphoreWaitInfo::default().semaphores(&semaphores).values(&values);
        let timeout = u64::try_from(self.settings.timeout.as_nanos()).unwrap_or(u64::MAX);
        // SAFETY: as above.
        match unsafe { raw.wait_semaphores(&info, timeout) } {
            Ok(()) => Ok(()),
            Err(vk::Result::TIMEOUT) => {
                self.lost.store(true, Relaxed);
                Err(Error::TimedOut { after: self.settings.timeout })
            }
            Err(result) => Err(self.noting_loss(driver_error("vkWaitSemaphores")(result))),
        }
    }

    fn noting_loss(&self, error: Error) -> Error {
        if matches!(error, Error::Lost { .. }) {
            self.lost.store(true, Relaxed);
        }
        error
    }
}

fn pipeline_stages(stages: Stages) -> vk::PipelineStageFlags {
    use vk::PipelineStageFlags as Flags;
    [(Stage::Transfer, Flags::TRANSFER), (Stage::Compute, Flags::COMPUTE_SHADER), (Stage::Host, Flags::HOST)]
        .into_iter()
        .filter(|(stage, _)| stages.contains(*stage))
        .fold(Flags::empty(), |flags, (_, flag)| flags | flag)
}

fn memory_barrier(barrier: &Barrier) -> vk::MemoryBarrier<'static> {
    use vk::AccessFlags as Flags;
    let writes =
        [(Stage::Transfer, Flags::TRANSFER_WRITE), (Stage::Compute, Flags::SHADER_WRITE), (Stage::Host, Flags::HOST_WRITE)];
    let reads =
        [(Stage::Transfer, Flags::TRANSFER_READ), (Stage::Compute, Flags::SHADER_READ), (Stage::Host, Flags::HOST_READ)];
    let of = |stages: Stages, table: [(Stage, Flags); 3]| {
        table.into_iter().filter(|(stage, _)| stages.contains(*stage)).fold(Flags::empty(), |flags, (_, flag)| flags | flag)
    };
    vk::MemoryBarrier::default()
        .src_access_mask(of(barrier.from, writes))
        .dst_access_mask(of(barrier.to, reads) | of(barrier.to, writes))
}

/// Threads that copy between the caller's slices and memory that the device sees.
///
/// One thread moves about 10 GB/s, less than a PCIe slot does; with the H200, a host-to-host addition of 2^20 elements takes
/// 14.1 ms with one thread, 7.2 with 4, 6.0 with 8, 5.2 with 16. The pool is the device's own, and its threads never wait for
/// anything: a caller copies while it holds a share of the memory limit, which the threads of the caller's pool may all be
/// waiting for. For the same reason a caller that is itself a rayon worker copies alone: a worker that waits for another
/// pool meanwhile runs tasks of its own, and one of these could wait for what the worker holds.
pub(super) struct Copier {
    pool: rayon::ThreadPool,
}

impl Copier {
    pub(super) fn new() -> Result<Self, Error> {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("bls12-copy-{n}")).build();
        Ok(Self { pool: pool.map_err(|error| Error::Driver { call: "thread creation", code: error.to_string() })? })
    }

    /// Makes all copies, each to a slice that is at least as long; the number of bytes.
    fn copy(&self, copies: Vec<(&mut [u8], &[u8])>) -> u64 {
        /// Below this, waking the threads takes longer than copying.
        const ALONE: usize = 256 << 10;
        const PIECE: usize = 64 << 10;
        let bytes = copies.iter().map(|(_, from)| from.len()).sum::<usize>();
        if bytes <= ALONE || rayon::current_thread_index().is_some() {
            copies.into_iter().for_each(|(to, from)| to[..from.len()].copy_from_slice(from));
        } else {
            let pieces: Vec<_> = copies
                .into_iter()
                .flat_map(|(to, from)| to[..from.len()].chunks_mut(PIECE).zip(from.chunks(PIECE)))
                .collect();
            self.pool.install(|| pieces.into_par_iter().for_each(|(to, from)| to.copy_from_slice(from)));
        }
        bytes as u64
    }
}
