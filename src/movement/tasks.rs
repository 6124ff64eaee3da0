//! The tasks: how a device moves elements, how the CPU does, and what shows that they are where they should be.

use crate::known_answers::edges;
use crate::mask::FLAG;
use crate::step::Item;
use crate::task::{Constants, Lowering, Specialized, Task, Trial, Values};
use crate::{Error, Field};
use cpu_reference::movement;
use field_kernels::{Formulation, Kernel};
use gpu_executor::{Parts, Program, Region, Shape, SlotUse, Start, Weight};
use smallvec::smallvec;
use std::borrow::Cow;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Arc;

/// Bytes that an invocation moves.
pub(crate) const QUAD: usize = 16;

/// Quads that an invocation moves: PER in movement.comp.
const PER: u32 = 4;

/// Invocations of a workgroup. Nothing but memory is waited for, so there are to be many: on an H200 workgroups of 32 moved 1.7 TB/s, which
/// are as many invocations as it keeps in workgroups of that size.
const LANES: u32 = 256;

/// Rows and columns of the squares that a workgroup transposes: SIDE in movement.comp. Of Fr, a row of one is 512 bytes.
const LOG_SIDE: u32 = 4;

/// Flags per workgroup of a compaction, whose positions take 4 KiB of shared memory.
const GROUP: NonZeroU32 = NonZeroU32::MIN.saturating_add(1023);

/// Where the elements of a result come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Map {
    /// Element i is `first + i step`, modulo 2^32, of `from` elements; less `from` if that is not below it.
    Affine { first: usize, step: u32, from: usize },
    /// i with its bits, so many, in reverse order.
    BitReverse { bits: u32 },
    /// Element (j, i), where i is below `rows` and j below `columns`, is (i, j).
    Transpose { rows: usize, columns: usize },
}

impl Map {
    /// The position in the input of the result's element i.
    fn source(self, i: usize) -> usize {
        match self {
            Map::Affine { first, step, from } => {
                let at = (first as u32).wrapping_add((i as u32).wrapping_mul(step)) as usize;
                if at >= from { at - from } else { at }
            }
            Map::BitReverse { bits: 0 } => i,
            Map::BitReverse { bits } => i.reverse_bits() >> (usize::BITS - bits),
            Map::Transpose { rows, columns } => i % rows * columns + i / rows,
        }
    }
}

/// A movement that depends on positions only.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mapped {
    pub(super) name: &'static str,
    pub(super) field: Field,
    pub(super) map: Map,
}

/// out[i] = a[indices[i]]; inputs a, indices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gathered(pub(super) Field);

/// out[indices[i]] = a[i]; inputs a, indices and what `out` was before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scattered(pub(super) Field);

/// The elements whose flags are set, then zeros, and how many they are; inputs a, flags.
#[derive(Clone, Copy, Debug)]
pub(super) struct Compacted(pub(super) Field);

/// Quads, read and written.
pub(crate) const ANYWHERE: (SlotUse, SlotUse) = (SlotUse::ReadsAnywhere(QUAD), SlotUse::WritesAnywhere(QUAD));

/// Bytes of the items of this size from one to another.
pub(crate) fn part(region: &Region, bytes: usize, range: Range<usize>) -> Option<Region> {
    region.slice((range.start * bytes) as u64..(range.end * bytes) as u64)
}

impl Lowering<'_> {
    /// A kernel in words, in workgroups of so many invocations or as many as the device allows, each of which has so many elements for
    /// every invocation; for none, it is one element.
    pub(crate) fn grouped(
        &self,
        (kernel, field): (Kernel, Field),
        (slots, parts): ([SlotUse; 4], Parts),
        (size, each): (u32, u32),
        constants: Constants,
    ) -> Result<Program, Error> {
        let size = size.min(self.vulkan.device().most_invocations());
        let group = NonZeroU32::new(size * each).unwrap_or(NonZeroU32::MIN);
        let (formulation, shape) = (Formulation::Words, Shape::Groups(group));
        self.program(&Specialized { kernel, field, formulation, slots, shape, parts, workgroup_size: Some(size), constants })
    }

    /// A launch of a kernel whose invocations move quads of elements, so many elements in all; its first parameter is the first of them, if it
    /// has any.
    pub(crate) fn launch_quads(
        &mut self,
        (kernel, field): (Kernel, Field),
        uses: [SlotUse; 4],
        constants: Constants,
        (slots, length): ([Option<&Region>; 4], usize),
        params: &[u32],
    ) -> Result<(), Error> {
        let starts: &[Start] = match field {
            _ if params.is_empty() => &[],
            Field::Fq => const { &[Start { per: quads(Field::Fq), ..Start::at(0) }] },
            Field::Fr => const { &[Start { per: quads(Field::Fr), ..Start::at(0) }] },
        };
        let quads = quads(field);
        let program = self.grouped((kernel, field), (uses, Parts { unit: quads, starts }), (LANES, PER), constants)?;
        let written = |used| matches!(used, SlotUse::Writes(_) | SlotUse::WritesAnywhere(_));
        let slots = slots.into_iter().zip(uses).map(|(slot, used)| Some((slot?.clone(), written(used))));
        self.batch.launch(&program, slots, (length as u32 * quads.get(), Weight::of(1)), params);
        Ok(())
    }
}

/// Quads of an element.
const fn quads(field: Field) -> NonZeroU32 {
    match field {
        Field::Fq => NonZeroU32::MIN.saturating_add(2),
        Field::Fr => NonZeroU32::MIN.saturating_add(1),
    }
}

/// Reads an index for each element of which quads are moved.
pub(crate) const fn an_index_each(field: Field) -> SlotUse {
    SlotUse::ReadsPer(FLAG, quads(field))
}

impl Task for Mapped {
    fn name(&self) -> &'static str {
        self.name
    }

    fn field(&self) -> Field {
        self.field
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let ([Some(from)], [Some(to)]) = (inputs, outputs) else { return Ok(()) };
        let (reads, writes) = ANYWHERE;
        let tiles = match self.map {
            Map::Transpose { rows, columns } => {
                Some((0, rows.div_ceil(1 << LOG_SIDE) * columns.div_ceil(1 << LOG_SIDE), [rows as u32, columns as u32]))
            }
            Map::BitReverse { bits } if bits >= 2 * LOG_SIDE => Some((1, 1 << (bits - 2 * LOG_SIDE), [bits, 0])),
            _ => None,
        };
        if let Some((mode, tiles, [x, y])) = tiles {
            let slots = [reads, SlotUse::None, SlotUse::None, writes];
            const PARTS: Parts = Parts { starts: &[Start::at(0)], ..Parts::ANYWHERE };
            let constants = smallvec![(3, mode)];
            let program = device.grouped((Kernel::Transpose, self.field), (slots, PARTS), (LANES, 0), constants)?;
            let slots = [Some((from.clone(), false)), None, None, Some((to.clone(), true))];
            let weight = Weight { elements: 1 << (2 * LOG_SIDE), cost: 1 };
            device.batch.launch(&program, slots, (tiles as u32, weight), &[0, x, y]);
            return Ok(());
        }
        let (mode, [x, y, z]) = match self.map {
            Map::Affine { first, step, from } => (0, [first as u32, step, from as u32]),
            // A shift by 32 would be undefined.
            Map::BitReverse { bits: 0 } => (0, [0, 1, 1]),
            Map::BitReverse { bits } => (1, [32 - bits, 0, 0]),
            Map::Transpose { .. } => return Ok(()),
        };
        let slots = [reads, SlotUse::None, SlotUse::None, SlotUse::Writes(QUAD)];
        let whole = ([Some(from), None, None, Some(to)], to.bytes() as usize / self.field.bytes());
        device.launch_quads((Kernel::Move, self.field), slots, smallvec![(3, mode)], whole, &[0, x, y, z])
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        movement::gather(self.field.limbs(), inputs[0].limbs(), outputs[0].limbs_mut(), |i| self.map.source(i));
    }

    fn variant(&self) -> Cow<'_, str> {
        // Short vectors do not take the kernel that long ones do.
        if matches!(self.map, Map::BitReverse { bits } if bits < 2 * LOG_SIDE) { "short" } else { "" }.into()
    }

    fn trials(&self) -> Vec<Trial> {
        let maps: Vec<(Map, usize, usize)> = match self.map {
            Map::Affine { .. } => vec![
                (Map::Affine { first: 5, step: 3, from: 900 }, 900, 298),
                (Map::Affine { first: 1, step: 1, from: 257 }, 257, 257),
                (Map::Affine { first: 299, step: u32::MAX, from: 300 }, 300, 300),
            ],
            Map::BitReverse { bits } if bits < 2 * LOG_SIDE => {
                (0..2 * LOG_SIDE).map(|bits| (Map::BitReverse { bits }, 1 << bits, 1 << bits)).collect()
            }
            Map::BitReverse { .. } => {
                (2 * LOG_SIDE..12).map(|bits| (Map::BitReverse { bits }, 1 << bits, 1 << bits)).collect()
            }
            Map::Transpose { .. } => [(1, 1), (1, 40), (40, 1), (16, 32), (17, 33), (50, 15)]
                .map(|(rows, columns)| (Map::Transpose { rows, columns }, rows * columns, rows * columns))
                .to_vec(),
        };
        let trial = |(map, from, to)| Trial {
            task: Arc::new(Mapped { map, ..*self }) as Arc<dyn Task>,
            inputs: vec![told_apart(self.field, from)],
            outputs: vec![(Item::Element(self.field), to)],
        };
        maps.into_iter().map(trial).collect()
    }
}

/// Elements of which few are the same, all edges among them.
pub(crate) fn told_apart(field: Field, length: usize) -> Values {
    let edges = edges(field);
    let element = |i: usize| {
        let mut element = edges[i % edges.len()].clone();
        if i >= edges.len() {
            // Below the modulus, as it is in the top limb.
            element[field.limbs() - 1] = i as u64;
        }
        element
    };
    Values::Limbs((0..length).flat_map(element).collect())
}

impl Task for Gathered {
    fn name(&self) -> &'static str {
        "gather"
    }

    fn field(&self) -> Field {
        self.0
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let ([Some(from), Some(indices)], [Some(to)]) = (inputs, outputs) else { return Ok(()) };
        let slots = [ANYWHERE.0, an_index_each(self.0), SlotUse::None, SlotUse::Writes(QUAD)];
        let whole = ([Some(from), Some(indices), None, Some(to)], indices.bytes() as usize / FLAG);
        device.launch_quads((Kernel::Gather, self.0), slots, smallvec![], whole, &[])
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        let indices = inputs[1].words();
        movement::gather(self.0.limbs(), inputs[0].limbs(), outputs[0].limbs_mut(), |i| indices[i] as usize);
    }

    fn trials(&self) -> Vec<Trial> {
        let trial = |(from, to): (usize, usize)| Trial {
            task: Arc::new(*self),
            inputs: vec![told_apart(self.0, from), Values::Words((0..to).map(|i| (i * i % from) as u32).collect())],
            outputs: vec![(Item::Element(self.0), to)],
        };
        [(1, 3), (500, 257)].map(trial).into()
    }
}

impl Task for Scattered {
    fn name(&self) -> &'static str {
        "scatter"
    }

    fn field(&self) -> Field {
        self.0
    }

    /// The result begins as what it was.
    fn in_place(&self) -> bool {
        true
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let ([from, indices, Some(before)], [Some(to)]) = (inputs, outputs) else { return Ok(()) };
        if !before.overlaps(to) {
            device.batch.copy(before, to);
        }
        let (Some(from), Some(indices)) = (from, indices) else { return Ok(()) };
        let slots = [SlotUse::Reads(QUAD), an_index_each(self.0), SlotUse::None, ANYWHERE.1];
        let whole = ([Some(from), Some(indices), None, Some(to)], indices.bytes() as usize / FLAG);
        device.launch_quads((Kernel::Scatter, self.0), slots, smallvec![], whole, &[])
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        outputs[0].limbs_mut().copy_from_slice(inputs[2].limbs());
        movement::scatter(self.0.limbs(), inputs[0].limbs(), outputs[0].limbs_mut(), inputs[1].words());
    }

    fn trials(&self) -> Vec<Trial> {
        let trial = |(from, to): (usize, usize)| Trial {
            task: Arc::new(*self),
            inputs: vec![
                told_apart(self.0, from),
                Values::Words((0..from).map(|i| (i * 7 % to) as u32).collect()),
                told_apart(self.0, to),
            ],
            outputs: vec![(Item::Element(self.0), to)],
        };
        [(1, 1), (257, 500)].map(trial).into()
    }
}

impl Task for Compacted {
    fn name(&self) -> &'static str {
        "compact"
    }

    fn field(&self) -> Field {
        self.0
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let [elements, Some(count)] = outputs else { return Ok(()) };
        let ([Some(from), Some(flags)], Some(to)) = (inputs, elements) else {
            device.batch.zero(count);
            return Ok(());
        };
        let (group, bytes) = (GROUP.get() as usize, self.0.bytes());
        let length = flags.bytes() as usize / FLAG;
        let groups = length.div_ceil(group);
        let counts = device.scratch((groups * FLAG) as u64)?;
        let offsets = device.scratch(((groups + 1) * FLAG) as u64)?;
        let (none, shape) = (SlotUse::None, Shape::Groups(GROUP));
        let size = LANES.min(device.vulkan.device().most_invocations());
        let program = |kernel, field, slots: [SlotUse; 4], shape, parts| {
            let (formulation, constants) = (Formulation::Words, smallvec![(3, GROUP.get())]);
            let workgroup_size = Some(size);
            device.program(&Specialized { kernel, field, formulation, slots, shape, parts, workgroup_size, constants })
        };
        let slots = [none, SlotUse::Reads(FLAG), none, SlotUse::WritesPerGroup(FLAG)];
        let counting = program(Kernel::Count, Field::Fr, slots, shape, Parts { unit: GROUP, starts: &[] })?;
        let slots = [none, SlotUse::Reads(FLAG), none, SlotUse::WritesAnywhere(FLAG)];
        // By one workgroup, and so not cut.
        let (one, whole) = (Shape::Groups(NonZeroU32::MAX), Parts { unit: NonZeroU32::MAX, starts: &[] });
        let adding = program(Kernel::Offsets, Field::Fr, slots, one, whole)?;
        let slots = [SlotUse::Reads(bytes), SlotUse::Reads(FLAG), SlotUse::ReadsAnywhere(FLAG), ANYWHERE.1];
        let parts = Parts { unit: GROUP, starts: const { &[Start { per: GROUP, ..Start::at(0) }] } };
        let moving = program(Kernel::Compact, self.0, slots, shape, parts)?;
        let [counts_read, counts_written, offsets_read, offsets_written] =
            [(&counts, false), (&counts, true), (&offsets, false), (&offsets, true)]
                .map(|(region, write)| Some((region.clone(), write)));
        let [from, flags] = [from, flags].map(|region| Some((region.clone(), false)));
        let all = (length as u32, Weight::of(1));
        device.batch.launch(&counting, [None, flags.clone(), None, counts_written], all, &[]);
        let of_groups = (groups as u32, Weight::of(1));
        device.batch.launch(&adding, [None, counts_read, None, offsets_written], of_groups, &[]);
        let slots = [from, flags, offsets_read, Some((to.clone(), true))];
        device.batch.launch(&moving, slots, all, &[0, groups as u32]);
        if let Some(total) = part(&offsets, FLAG, groups..groups + 1) {
            device.batch.copy(&total, count);
        }
        Ok(())
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        let [elements, count] = outputs else { return };
        let kept = movement::compact(self.0.limbs(), inputs[0].limbs(), inputs[1].words(), elements.limbs_mut());
        count.words_mut().fill(kept as u32);
    }

    fn trials(&self) -> Vec<Trial> {
        let group = GROUP.get() as usize;
        let trial = |(length, every): (usize, usize)| Trial {
            task: Arc::new(*self),
            inputs: vec![
                told_apart(self.0, length),
                Values::Words((0..length).map(|i| u32::from(i * i % every < every / 2)).collect()),
            ],
            outputs: vec![(Item::Element(self.0), length), (Item::Index, 1)],
        };
        [(0, 2), (1, 2), (1, 1), (group, 7), (2 * group + 1, 5)].map(trial).into()
    }
}
