//! Launches of reductions and scans, in passes over what the last ones left.

use crate::task::{Constants, Lowering, Specialized};
use crate::{Error, Field};
use field_kernels::{Formulation, Kernel};
use gpu_executor::{Parts, Region, Shape, SlotUse, Start, Weight};
use std::num::NonZeroU32;

/// Invocations in a team, a workgroup's: every device has so many, and a tree through shared memory takes a power of two.
pub(crate) const TEAM: usize = TEAM_SIZE.get() as usize;
const TEAM_SIZE: NonZeroU32 = NonZeroU32::new(128).unwrap();

/// How segments are shared out: to single invocations or to teams, so many elements to each invocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) team: usize,
    pub(crate) steps: usize,
    /// In a segment.
    pub(crate) chunks: usize,
}

impl Share {
    pub(crate) fn new(segment: usize, team: usize, steps: usize) -> Self {
        Self { team, steps, chunks: segment.div_ceil(steps * team).max(1) }
    }

    /// For a fold: by teams where that gives each invocation some elements, of which it gets the more the more there are, up
    /// to `most`: the device wants to be filled, and the tree to be a small part of it all.
    pub(crate) fn of_fold(segment: usize, segments: usize, most: usize) -> Self {
        /// Workgroups that fill any device. Chosen on the H200, which has room for about 500 to 2000 at a time: with fewer,
        /// what is left for the second pass is less.
        const WORKGROUPS: usize = 1024;
        if segment < 8 * TEAM {
            // So few that one invocation, or two passes of such, will do.
            return Self::new(segment, 1, if segment <= 64 { segment.max(1) } else { 32 });
        }
        let steps = (segment * segments / (TEAM * WORKGROUPS)).clamp(8, most);
        let whole = segment.div_ceil(TEAM);
        // One pass rather than two if it does for many segments.
        let one_pass = whole <= most && segments >= WORKGROUPS / 2;
        Self::new(segment, TEAM, if one_pass { whole } else { steps })
    }
}

/// A kernel of scan.comp or reduce.comp, and its specialization constants.
pub(crate) struct Pass {
    pub(crate) kernel: Kernel,
    pub(crate) constants: Constants,
    /// The constant that says how many invocations put away for each other, all of a workgroup's, if they do.
    pub(crate) tile: Option<u32>,
}

/// A launch of such a kernel.
pub(crate) struct Launch<'a> {
    pub(crate) pass: Pass,
    pub(crate) field: Field,
    /// a, b, c and r, and the bytes of an item of r.
    pub(crate) slots: [Option<&'a Region>; 4],
    pub(crate) written: u64,
    pub(crate) segments: usize,
    pub(crate) segment: usize,
    pub(crate) share: Share,
    /// The two parameters that follow.
    pub(crate) more: [u32; 2],
    /// Multiplications per element, or about.
    pub(crate) cost: u64,
}

impl Launch<'_> {
    /// Adds the launch to a batch.
    pub(crate) fn add_to(self, lowering: &mut Lowering) -> Result<(), Error> {
        let Self { pass: Pass { kernel, mut constants, tile }, field, slots, written, segments, segment, share, .. } = self;
        // The fewer the less they wait for each other: on the H200 prefix products are at 17.2 G a second with 32, 16.8 with 64.
        let together = lowering.vulkan.device().subgroup_size().clamp(32, 64);
        constants.extend(tile.map(|constant| (constant, together)));
        let reads = SlotUse::ReadsAnywhere(16);
        let mut uses = [reads, reads, reads, SlotUse::WritesAnywhere(written as usize)];
        uses.iter_mut().zip(&slots).filter(|(_, slot)| slot.is_none()).for_each(|(used, _)| *used = SlotUse::None);
        // Where it does not multiply, there are words only.
        let several = kernel.shader(field, lowering.vulkan.width, lowering.formulation).is_some();
        let program = lowering.program(&Specialized {
            kernel,
            field,
            formulation: if several { lowering.formulation } else { Formulation::Words },
            slots: uses,
            shape: Shape::Invocations,
            parts: Parts { unit: TEAM_SIZE, starts: const { &[Start::at(0)] } },
            workgroup_size: Some(if tile.is_some() { together } else { TEAM as u32 }),
            constants,
        })?;
        let slots = slots.iter().enumerate().map(|(at, slot)| Some(((*slot)?.clone(), at == 3)));
        let invocations = segments * share.chunks * share.team;
        let [invocations, segment, chunks, steps] =
            [invocations, segment, share.chunks, share.steps].map(|size| size as u32);
        let params = [0, segment, chunks, steps, self.more[0], self.more[1]];
        lowering.batch.launch(&program, slots, (invocations, Weight { elements: steps, cost: self.cost }), &params);
        Ok(())
    }
}
