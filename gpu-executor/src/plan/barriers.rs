use std::ops::Range;

/// Who touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Copies.
    Transfer = 1,
    /// Kernels.
    Compute = 2,
    /// The CPU, after the submission.
    Host = 4,
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stages(u8);

impl Stages {
    /// The set of one stage.
    pub const fn of(stage: Stage) -> Self {
        Self(stage as u8)
    }

    /// Whether the set has `stage`.
    pub const fn contains(self, stage: Stage) -> bool {
        self.0 & stage as u8 != 0
    }

    /// Both sets together.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set has no stage.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// A range of a buffer that a step reads or writes. Buffers are told apart by any numbers the caller likes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Which buffer.
    pub buffer: usize,
    /// Which of its bytes.
    pub bytes: Range<u64>,
    /// Written, or only read.
    pub write: bool,
}

impl Access {
    fn conflicts(&self, other: &Access) -> bool {
        self.buffer == other.buffer
            && (self.write || other.write)
            && self.bytes.start < other.bytes.end
            && other.bytes.start < self.bytes.end
    }
}

/// One thing to be done, of which the planner knows only what memory it touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Who does it.
    pub stage: Stage,
    /// What it touches.
    pub accesses: Vec<Access>,
}

impl Step {
    /// Whether the two touch the same memory, one of them writing it.
    pub(crate) fn conflicts(&self, other: &Step) -> bool {
        self.accesses.iter().any(|mine| other.accesses.iter().any(|theirs| mine.conflicts(theirs)))
    }
}

/// A memory barrier over everything: what `from` did is finished and visible before `to` goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// Stages waited for.
    pub from: Stages,
    /// Stages that wait.
    pub to: Stages,
}

/// What is recorded, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A barrier.
    Barrier(Barrier),
    /// The step of this index.
    Run(usize),
}

/// Orders steps in one command buffer: a barrier before a step exactly where it touches what an earlier step touched, one of
/// the two writing, and no barrier before has settled it; all of a step's barriers in one.
///
/// ```
/// use gpu_executor::plan::{Access, Command, Stage, Step, plan};
/// let write = |buffer| Access { buffer, bytes: 0..64, write: true };
/// let read = |buffer| Access { buffer, bytes: 0..64, write: false };
/// let steps = [
///     Step { stage: Stage::Transfer, accesses: vec![write(0)] },
///     Step { stage: Stage::Transfer, accesses: vec![write(1)] },
///     Step { stage: Stage::Compute, accesses: vec![read(0), read(1), write(2)] },
/// ];
/// let commands = plan(&steps);
/// assert_eq!(commands.len(), 4);
/// assert!(matches!(commands[2], Command::Barrier(_)));
/// ```
pub fn plan(steps: &[Step]) -> Vec<Command> {
    struct Earlier<'a> {
        access: &'a Access,
        stage: Stage,
        settled: Stages,
    }
    let mut earlier: Vec<Earlier> = Vec::new();
    let mut commands = Vec::with_capacity(2 * steps.len());
    for (index, step) in steps.iter().enumerate() {
        let from = earlier
            .iter()
            .filter(|e| !e.settled.contains(step.stage) && step.accesses.iter().any(|access| access.conflicts(e.access)))
            .fold(Stages::default(), |stages, e| stages.and(Stages::of(e.stage)));
        if !from.is_empty() {
            let to = Stages::of(step.stage);
            commands.push(Command::Barrier(Barrier { from, to }));
            earlier.iter_mut().filter(|e| from.contains(e.stage)).for_each(|e| e.settled = e.settled.and(to));
        }
        commands.push(Command::Run(index));
        // What the step now covers need not be looked at again: whatever conflicts with it conflicts with the step, too, and the
        // barrier between the two is from the same stage. So the list does not grow with the number of steps.
        let covers = |access: &Access, e: &Earlier| {
            e.stage == step.stage
                && e.access.buffer == access.buffer
                && (access.write || !e.access.write)
                && access.bytes.start <= e.access.bytes.start
                && e.access.bytes.end <= access.bytes.end
        };
        earlier.retain(|e| !step.accesses.iter().any(|access| covers(access, e)));
        earlier.extend(step.accesses.iter().map(|access| Earlier { access, stage: step.stage, settled: Stages::default() }));
    }
    commands
}

/// Two steps that may run at once though one writes what the other touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hazard {
    /// The step recorded first.
    pub first: usize,
    /// The step recorded second.
    pub second: usize,
}

/// Proves a plan free of hazards, or shows one: every pair of steps is looked at, and between two that conflict there must
/// be a barrier from the one's stage to the other's. Deliberately dumb, and knows nothing of how [`plan`] works.
///
/// A plan that leaves out a step, or runs one twice or out of order, shows up as that step's hazard with itself.
pub fn find_hazard(steps: &[Step], commands: &[Command]) -> Option<Hazard> {
    let runs: Vec<usize> = commands.iter().filter_map(|c| if let Command::Run(i) = c { Some(*i) } else { None }).collect();
    for index in 0..steps.len().max(runs.len()) {
        if runs.get(index) != Some(&index) || index >= steps.len() {
            return Some(Hazard { first: index, second: index });
        }
    }
    for (position_b, command_b) in commands.iter().enumerate() {
        let Command::Run(b) = *command_b else { continue };
        for (position_a, command_a) in commands[..position_b].iter().enumerate() {
            let Command::Run(a) = *command_a else { continue };
            let conflict = steps[a].conflicts(&steps[b]);
            let ordered = commands[position_a..position_b].iter().any(|command| match command {
                Command::Barrier(barrier) => barrier.from.contains(steps[a].stage) && barrier.to.contains(steps[b].stage),
                Command::Run(_) => false,
            });
            if conflict && !ordered {
                return Some(Hazard { first: a, second: b });
            }
        }
    }
    None
}

/// Whether taking any one barrier out of a plan leaves a hazard: none is spare, and the checker would notice each one missing.
pub fn every_barrier_matters(steps: &[Step], commands: &[Command]) -> bool {
    let barriers = commands.iter().enumerate().filter(|(_, command)| matches!(command, Command::Barrier(_)));
    barriers.map(|(position, _)| position).all(|position| {
        let mut without = commands.to_vec();
        without.remove(position);
        find_hazard(steps, &without).is_some()
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn step() -> impl Strategy<Value = Step> {
        let stage = prop_oneof![Just(Stage::Transfer), Just(Stage::Compute), Just(Stage::Host)];
        let access = (0usize..4, 0u64..4, 1u64..4, any::<bool>()).prop_map(|(buffer, start, length, write)| Access {
            buffer,
            bytes: start..start + length,
            write,
        });
        (stage, prop::collection::vec(access, 0..4)).prop_map(|(stage, accesses)| Step { stage, accesses })
    }

    fn barriers(commands: &[Command]) -> usize {
        commands.iter().filter(|c| matches!(c, Command::Barrier(_))).count()
    }

    proptest! {
        #[test]
        fn plans_have_no_hazards_and_no_spare_barrier(steps in prop::collection::vec(step(), 0..12)) {
            let commands = plan(&steps);
            prop_assert_eq!(find_hazard(&steps, &commands), None);
            prop_assert!(every_barrier_matters(&steps, &commands));
        }
    }

    #[test]
    fn the_checker_sees_missing_repeated_and_swapped_steps() {
        let steps = vec![Step { stage: Stage::Compute, accesses: vec![] }; 2];
        assert_eq!(find_hazard(&steps, &[Command::Run(0), Command::Run(1)]), None);
        assert!(find_hazard(&steps, &[Command::Run(0)]).is_some());
        assert!(find_hazard(&steps, &[Command::Run(1), Command::Run(0)]).is_some());
        assert!(find_hazard(&steps, &[Command::Run(0), Command::Run(0), Command::Run(1)]).is_some());
        assert!(find_hazard(&steps, &[Command::Run(0), Command::Run(1), Command::Run(2)]).is_some());
    }

    #[test]
    fn a_barrier_the_wrong_way_round_does_not_count() {
        let touch = |stage, write| Step { stage, accesses: vec![Access { buffer: 0, bytes: 0..4, write }] };
        let steps = [touch(Stage::Transfer, true), touch(Stage::Compute, false)];
        let with = |from, to| {
            let barrier = Barrier { from: Stages::of(from), to: Stages::of(to) };
            find_hazard(&steps, &[Command::Run(0), Command::Barrier(barrier), Command::Run(1)])
        };
        assert_eq!(with(Stage::Transfer, Stage::Compute), None);
        assert!(with(Stage::Compute, Stage::Transfer).is_some());
    }

    #[test]
    fn uploads_share_one_barrier_and_so_do_downloads() {
        let (write, read) =
            (|buffer| Access { buffer, bytes: 0..64, write: true }, |buffer| Access { buffer, bytes: 0..64, write: false });
        let steps = [
            Step { stage: Stage::Transfer, accesses: vec![read(10), write(0)] },
            Step { stage: Stage::Transfer, accesses: vec![read(11), write(1)] },
            Step { stage: Stage::Compute, accesses: vec![read(0), read(1), write(2), write(3)] },
            Step { stage: Stage::Transfer, accesses: vec![read(2), write(12)] },
            Step { stage: Stage::Transfer, accesses: vec![read(3), write(13)] },
            Step { stage: Stage::Host, accesses: vec![read(12), read(13)] },
        ];
        assert_eq!(barriers(&plan(&steps)), 3);
    }
}
