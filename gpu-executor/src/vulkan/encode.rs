//! Operations on buffers, recorded into a command buffer as planned.

use super::lanes::Lane;
use super::memory::{Buffer, Place};
use super::{Made, Program, Shared};
use crate::Stage as Profiled;
use crate::job::{MAX_SLOTS, SLOTS, push_constants};
use crate::plan::{self, Access, Barrier, Command, Extent, Role, Stage, Stages, Step, Weight};
use crate::{Error, Reach};
use ash::vk;
use ash::vk::Handle as _;
use std::borrow::{Borrow, Cow};
use std::ops::Range;

/// The most bytes that a command buffer holds to write them: to such few, a copy from staging memory is a long way. Tables of powers for
/// polynomials of up to 2^30 coefficients are among them. (Vulkan allows 64 KiB.)
pub(super) const MOST_INLINE: usize = 6 << 10;

/// What a launch gives a slot of its kernel, and whether it is written.
pub(super) type Given<'a> = Option<(Span<'a>, bool)>;

/// A range of a buffer's bytes.
#[derive(Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) buffer: &'a Buffer,
    pub(super) offset: u64,
    pub(super) bytes: u64,
    /// Whether the planner takes it for all of the buffer: of what is written once, at first, nobody asks which part is read.
    pub(super) whole: bool,
}

/// What a command buffer is made of, besides barriers.
pub(super) enum Op<'a> {
    /// Copies one span to another of the same length.
    Copy { from: Span<'a>, to: Span<'a> },
    /// Writes bytes that the command buffer itself holds: a multiple of 4, and at most [`MOST_INLINE`].
    Write { to: Span<'a>, bytes: &'a [u8] },
    /// Fills a span with zeros.
    Zero { to: Span<'a> },
    /// Runs a program. A slot is written if its flag says so.
    Launch { program: &'a Program, slots: Cow<'a, [Given<'a>]>, elements: u32, weight: Weight, params: &'a [u32] },
    /// The CPU reads a span when the submission has finished: nothing to record, but what was written must be visible to it.
    ReadBack { of: Span<'a> },
}

/// What a command buffer has bound and pushed so far. What is pushed stays, whatever is bound: all layouts have the same push constants.
#[derive(Default)]
struct State {
    pipeline: vk::Pipeline,
    /// Behind so many words, all that are pushed are zero.
    pushed: Option<usize>,
}

impl<'a> Span<'a> {
    pub(super) fn new(buffer: &'a Buffer, offset: u64, bytes: u64) -> Self {
        Self { buffer, offset, bytes, whole: false }
    }

    fn access(&self, write: bool) -> Access {
        let bytes = if self.whole { 0..self.buffer.size } else { self.offset..self.offset + self.bytes };
        Access { buffer: self.buffer.raw.as_raw() as usize, bytes, write }
    }

    fn words(&self) -> [u64; 3] {
        [self.buffer.raw.as_raw(), self.offset, self.bytes]
    }
}

/// The operation as the planner sees it.
impl Step for Op<'_> {
    fn stage(&self) -> Stage {
        match self {
            Op::Copy { .. } | Op::Write { .. } | Op::Zero { .. } => Stage::Transfer,
            Op::Launch { .. } => Stage::Compute,
            Op::ReadBack { .. } => Stage::Host,
        }
    }

    fn accesses(&self) -> impl Iterator<Item = Access> {
        let (read, written, slots) = match self {
            Op::Copy { from, to } => (Some(from), Some(to), &[][..]),
            Op::Write { to, .. } | Op::Zero { to } => (None, Some(to), &[][..]),
            Op::Launch { slots, .. } => (None, None, &slots[..]),
            Op::ReadBack { of } => (Some(of), None, &[][..]),
        };
        let moved = read.map(|span| span.access(false)).into_iter().chain(written.map(|span| span.access(true)));
        moved.chain(slots.iter().flatten().map(|(span, write)| span.access(*write)))
    }

    fn role(&self) -> Role {
        match self {
            Op::Copy { from, to } => match (from.buffer.place, to.buffer.place) {
                (Place::Host, Place::Device) => Role::Upload,
                (Place::Device, Place::Host) => Role::Download,
                _ => Role::Compute,
            },
            _ => Role::Compute,
        }
    }

    fn extent(&self) -> Extent {
        match self {
            Op::Launch { program, elements, weight, .. } => program.extent(*elements, *weight),
            _ => Extent::default(),
        }
    }
}

impl Op<'_> {
    /// Appends what tells what is recorded for the operation from what is recorded for any other, as long as no buffer is destroyed.
    pub(super) fn tell(&self, words: &mut Vec<u64>) {
        match self {
            Op::Copy { from, to } => [&[0], &from.words()[..], &to.words()].into_iter().for_each(|part| words.extend(part)),
            Op::Zero { to } => [&[1], &to.words()[..]].into_iter().for_each(|part| words.extend(part)),
            Op::Launch { program, slots, elements, weight, params } => {
                // How it is cut, and what parts have of the slots, is told by the most of a part and the kernel's form.
                words.extend([
                    2,
                    program.made.pipeline.as_raw(),
                    program.made.form,
                    (*elements).into(),
                    program.extent(*elements, *weight).most.into(),
                    params.len() as u64,
                ]);
                words.extend(params.iter().copied().map(u64::from));
                for slot in slots.iter() {
                    words.extend(slot.map_or([0; 4], |(span, write)| {
                        let [buffer, offset, bytes] = span.words();
                        [1 + u64::from(write), buffer, offset, bytes]
                    }));
                }
            }
            Op::ReadBack { of } => [&[3], &of.words()[..]].into_iter().for_each(|part| words.extend(part)),
            Op::Write { to, bytes } => {
                [&[4], &to.words()[..]].into_iter().for_each(|part| words.extend(part));
                let word = |word: &[u8]| word.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
                words.extend(bytes.chunks(4).map(word));
            }
        }
    }

    /// A part of the operation in a profile: stage, name, bytes read and written.
    pub(super) fn describe(&self, part: &Range<u32>) -> (Profiled, &'static str, u64) {
        match self {
            Op::Copy { from, to } => {
                let up = from.buffer.place == Place::Host && to.buffer.place == Place::Device;
                let stage = if up { Profiled::Upload } else { Profiled::Download };
                (stage, stage.name(), 2 * from.bytes)
            }
            Op::Write { to, .. } => (Profiled::Upload, Profiled::Upload.name(), to.bytes),
            Op::Zero { to } => (Profiled::Upload, "zero", to.bytes),
            Op::Launch { program, slots, elements, .. } => {
                let bytes: u64 = slots.iter().flatten().map(|(span, _)| span.bytes).sum();
                // Of a part that begins where the last one ended, so that those of all parts are these.
                let before =
                    |element: u32| (u128::from(bytes) * u128::from(element) / u128::from((*elements).max(1))) as u64;
                (Profiled::Compute, program.made.name, before(part.end) - before(part.start))
            }
            Op::ReadBack { .. } => (Profiled::Download, "barrier", 0),
        }
    }
}

impl Shared {
    /// Records operations as planned, into a lane that no submission uses; with so many time stamps.
    pub(super) fn record<'a>(
        &self,
        lane: &mut Lane,
        ops: &[impl Borrow<Op<'a>>],
        commands: &[Command],
        stamps: u32,
    ) -> Result<(), Error> {
        self.begin_lane(lane, stamps)?;
        let mut state = State::default();
        for command in commands {
            match command {
                Command::Barrier(barrier) => self.record_barrier(lane, barrier),
                Command::Run(step, part) => {
                    let op = ops[*step].borrow();
                    self.stamped(lane, stamps > 0, || op.describe(part), |lane| self.record_op(lane, op, part, &mut state))?;
                    lane.dispatches += u64::from(matches!(op, Op::Launch { .. }));
                }
            }
        }
        self.end_lane(lane)
    }

    fn record_barrier(&self, lane: &mut Lane, barrier: &Barrier) {
        #[cfg(feature = "test-faults")]
        if self.settings.omit_barriers {
            return;
        }
        let memory = [memory_barrier(barrier)];
        let (from, to) = (pipeline_stages(barrier.from), pipeline_stages(barrier.to));
        // SAFETY: recording outside a render pass.
        unsafe {
            self.gpu.raw.cmd_pipeline_barrier(lane.commands, from, to, vk::DependencyFlags::empty(), &memory, &[], &[]);
        }
        lane.barriers += 1;
    }

    fn record_op(&self, lane: &Lane, op: &Op, part: &Range<u32>, state: &mut State) -> Result<(), Error> {
        let raw = &self.gpu.raw;
        match op {
            Op::Copy { from, to } => {
                let region =
                    [vk::BufferCopy::default().src_offset(from.offset).dst_offset(to.offset).size(from.bytes.min(to.bytes))];
                // SAFETY: both spans lie within their buffers; batches with copies between spans that overlap are refused.
                unsafe { raw.cmd_copy_buffer(lane.commands, from.buffer.raw, to.buffer.raw, &region) };
                Ok(())
            }
            Op::Write { to, bytes } => {
                // SAFETY: the span lies within its buffer, and is as long as the bytes; offset and length are multiples of 4, the
                // length at most 65536.
                unsafe { raw.cmd_update_buffer(lane.commands, to.buffer.raw, to.offset, bytes) };
                Ok(())
            }
            Op::Zero { to } => {
                // SAFETY: the span lies within its buffer; offset and length are multiples of 4, as all elements' are.
                unsafe { raw.cmd_fill_buffer(lane.commands, to.buffer.raw, to.offset, to.bytes, 0) };
                Ok(())
            }
            Op::Launch { program, slots, params, .. } => self.record_launch(lane, (program, state), slots, part, params),
            Op::ReadBack { .. } => Ok(()),
        }
    }

    fn record_launch(
        &self,
        lane: &Lane,
        (program, state): (&Program, &mut State),
        slots: &[Given],
        part: &Range<u32>,
        params: &[u32],
    ) -> Result<(), Error> {
        let Made { layout, shape, parts, slots: uses, .. } = &*program.made;
        let (raw, layout, elements) = (&self.gpu.raw, *layout, part.len() as u32);
        let mut places = [0; MAX_SLOTS];
        let mut sets = [vk::DescriptorSet::null(); SLOTS];
        let mut any = vk::DescriptorSet::null();
        for (index, (slot, place)) in slots.iter().zip(&mut places).enumerate() {
            let Some((span, _)) = slot else { continue };
            let before = uses.get(index).map_or(0, |slot| slot.bytes_before(part.start, *shape));
            match program.made.reach {
                Reach::Addresses => *place = span.buffer.address + span.offset + before,
                Reach::Descriptors => {
                    // In words of 32 bits, since the set is the whole buffer.
                    *place = (span.offset + before) / 4;
                    any = span.buffer.descriptor(&self.gpu, &self.counters, self.pipelines.set_layout)?;
                    sets[index] = any;
                }
            }
        }
        // A slot that the kernel declares and, specialized, does not read must be bound all the same.
        sets.iter_mut().filter(|set| **set == vk::DescriptorSet::null()).for_each(|set| *set = any);
        let (mut push, used) = push_constants(&places[..slots.len()], elements, params);
        if part.start > 0 {
            parts.begin(part.start, &mut push[2 * slots.len() + 1..used]);
        }
        // What is zero in both is there already.
        let length = state.pushed.replace(used).map_or(push.len(), |before| before.max(used));
        let [x, y] = plan::workgroups(program.workgroups(elements), self.settings.limits.workgroups);
        let point = vk::PipelineBindPoint::COMPUTE;
        // SAFETY: the pipeline, its layout and the buffers are alive until the submission has finished; every slot's span
        // holds what the kernel touches for `elements` elements, and the kernel looks at no index beyond them; x and y are within the
        // device's limits.
        unsafe {
            if std::mem::replace(&mut state.pipeline, program.made.pipeline) != program.made.pipeline {
                raw.cmd_bind_pipeline(lane.commands, point, program.made.pipeline);
            }
            if program.made.reach == Reach::Descriptors {
                raw.cmd_bind_descriptor_sets(lane.commands, point, layout, 0, &sets, &[]);
            }
            let words = bytemuck::cast_slice(&push[..length]);
            raw.cmd_push_constants(lane.commands, layout, vk::ShaderStageFlags::COMPUTE, 0, words);
            raw.cmd_dispatch(lane.commands, x, y, 1);
        }
        Ok(())
    }
}

impl Program {
    /// The workgroups that have elements, in a launch on `elements` elements.
    pub(super) fn workgroups(&self, elements: u32) -> u32 {
        self.made.shape.workgroups(elements, self.made.workgroup_size)
    }

    fn extent(&self, elements: u32, weight: Weight) -> Extent {
        let Made { shared, workgroup_size, parts, .. } = &*self.made;
        Extent::of_launch(elements, weight, parts.unit, &shared.dispatch(*workgroup_size))
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
