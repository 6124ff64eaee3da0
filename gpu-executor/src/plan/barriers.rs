use foldhash::HashMap;
use smallvec::SmallVec;
use std::ops::Range;

/// Who touches memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Copies.
    Transfer,
    /// Kernels.
    Compute,
    /// The CPU, after the submission.
    Host,
}

impl Stage {
    const ALL: [Self; 3] = [Self::Transfer, Self::Compute, Self::Host];
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stages(u8);

impl Stages {
    /// The set of one stage.
    pub const fn of(stage: Stage) -> Self {
        Self(1 << stage as u8)
    }

    /// Whether the set has `stage`.
    pub const fn contains(self, stage: Stage) -> bool {
        self.0 & Self::of(stage).0 != 0
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
    pub accesses: SmallVec<[Access; 4]>,
}

impl Step {
    /// A step of a stage, and what it touches.
    pub fn new(stage: Stage, accesses: impl IntoIterator<Item = Access>) -> Self {
        Self { stage, accesses: accesses.into_iter().collect() }
    }

    fn is_read_by_host(&self) -> bool {
        self.stage == Stage::Host && !self.accesses.iter().any(|access| access.write)
    }

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

/// Orders the steps of one command buffer. Of two that conflict, since one writes what the other touches, the one recorded first
/// runs first; apart from that every step runs as early as it may: after as many barriers as the longest chain of conflicts that
/// leads to it has links. So a recording of many operations that have nothing to do with one another takes no more barriers than
/// the longest of them. What the CPU reads in the end shares one.
///
/// Its time is proportional to the number of steps, unless many of them touch different parts of one buffer.
///
/// ```
/// use gpu_executor::plan::{Access, Command, Stage, Step, plan};
/// let access = |buffer, write| Access { buffer, bytes: 0..64, write };
/// let copy = |from, to| Step::new(Stage::Transfer, [access(from, false), access(to, true)]);
/// let commands = plan(&[copy(0, 1), copy(1, 2), copy(3, 4), copy(4, 5)]);
/// assert!(matches!(
///     commands[..],
///     [Command::Run(0), Command::Run(2), Command::Barrier(_), Command::Run(1), Command::Run(3)]
/// ));
/// ```
pub fn plan(steps: &[Step]) -> Vec<Command> {
    let places = places(steps);
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|&step| places[step].level);
    // Below which level all steps of a stage are over before a step of another begins.
    let mut settled = [[0; Stage::ALL.len()]; Stage::ALL.len()];
    let mut commands = Vec::with_capacity(2 * steps.len());
    for steps_of_level in order.chunk_by(|a, b| places[*a].level == places[*b].level) {
        let mut barrier = Barrier { from: Stages::default(), to: Stages::default() };
        for &step in steps_of_level {
            let stage = steps[step].stage;
            for from in Stage::ALL {
                if places[step].after[from as usize] > settled[from as usize][stage as usize] {
                    barrier = Barrier { from: barrier.from.and(Stages::of(from)), to: barrier.to.and(Stages::of(stage)) };
                }
            }
        }
        if !barrier.from.is_empty() {
            let level = places[steps_of_level[0]].level;
            for from in Stage::ALL.into_iter().filter(|stage| barrier.from.contains(*stage)) {
                for to in Stage::ALL.into_iter().filter(|stage| barrier.to.contains(*stage)) {
                    settled[from as usize][to as usize] = level;
                }
            }
            commands.push(Command::Barrier(barrier));
        }
        commands.extend(steps_of_level.iter().copied().map(Command::Run));
    }
    commands
}

/// Where a step goes.
struct Place {
    /// Links in the longest chain of conflicts that leads to it; or more.
    level: usize,
    /// Of each stage, one more than the highest level of a step that must be over before; 0 if there is none.
    after: [usize; Stage::ALL.len()],
}

fn places(steps: &[Step]) -> Vec<Place> {
    struct Earlier<'a> {
        access: &'a Access,
        stage: Stage,
        level: usize,
    }
    impl Earlier<'_> {
        /// Whether what conflicts with the other, and must wait for it, conflicts with this and waits at least as long.
        fn covers(&self, other: &Earlier) -> bool {
            let (mine, others) = (&self.access.bytes, &other.access.bytes);
            self.stage == other.stage
                && self.level >= other.level
                && (self.access.write || !other.access.write)
                && mine.start <= others.start
                && others.end <= mine.end
        }
    }
    // What the CPU reads in the end.
    let tail = steps.iter().rposition(|step| !step.is_read_by_host()).map_or(0, |last| last + 1);
    // By buffer. What is covered is left out, so that there is little of it.
    let mut earlier: HashMap<usize, SmallVec<[Earlier; 2]>> = HashMap::default();
    let mut places = Vec::with_capacity(steps.len());
    let mut levels = 0;
    for (index, step) in steps.iter().enumerate() {
        let mut after = [0; Stage::ALL.len()];
        for access in &step.accesses {
            let same_buffer = earlier.get(&access.buffer).into_iter().flatten();
            for e in same_buffer.filter(|e| access.conflicts(e.access)) {
                after[e.stage as usize] = after[e.stage as usize].max(e.level + 1);
            }
        }
        let level = after.into_iter().fold(if index < tail { 0 } else { levels }, usize::max);
        if index < tail {
            levels = levels.max(level + 1);
        }
        for access in &step.accesses {
            let new = Earlier { access, stage: step.stage, level };
            let same_buffer = earlier.entry(access.buffer).or_default();
            if !same_buffer.iter().any(|e| e.covers(&new)) {
                same_buffer.retain(|e| !new.covers(e));
                same_buffer.push(new);
            }
        }
        places.push(Place { level, after });
    }
    places
}

/// Two steps that may run at once though one writes what the other touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hazard {
    /// The step recorded first.
    pub first: usize,
    /// The step recorded second.
    pub second: usize,
}

/// Proves a plan free of hazards, or shows one: every pair of steps is looked at, and of two that conflict the one recorded first
/// must run first, with a barrier between them from its stage to the other's. Deliberately dumb, and knows nothing of how
/// [`plan`] works.
///
/// A plan that leaves out a step, or runs one twice, shows up as that step's hazard with itself.
pub fn find_hazard(steps: &[Step], commands: &[Command]) -> Option<Hazard> {
    let mut positions = vec![None; steps.len()];
    for (position, command) in commands.iter().enumerate() {
        let Command::Run(step) = *command else { continue };
        match positions.get_mut(step) {
            Some(unknown @ None) => *unknown = Some(position),
            _ => return Some(Hazard { first: step, second: step }),
        }
    }
    if let Some(missing) = positions.iter().position(Option::is_none) {
        return Some(Hazard { first: missing, second: missing });
    }
    for second in 0..steps.len() {
        for first in (0..second).filter(|&first| steps[first].conflicts(&steps[second])) {
            let between = positions[first].zip(positions[second]).and_then(|(a, b)| commands.get(a..b)).unwrap_or(&[]);
            let ordered = between.iter().any(|command| match command {
                Command::Barrier(Barrier { from, to }) => {
                    from.contains(steps[first].stage) && to.contains(steps[second].stage)
                }
                Command::Run(_) => false,
            });
            if !ordered {
                return Some(Hazard { first, second });
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
        (stage, prop::collection::vec(access, 0..4)).prop_map(|(stage, accesses)| Step::new(stage, accesses))
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
            // No order of the steps has fewer barriers than the longest chain of conflicts has links.
            let mut links = vec![0; steps.len()];
            for second in 0..steps.len() {
                for first in (0..second).filter(|&first| steps[first].conflicts(&steps[second])) {
                    links[second] = links[second].max(links[first] + 1);
                }
            }
            let longest = links.into_iter().max().unwrap_or(0);
            let read_in_the_end = steps.last().is_some_and(Step::is_read_by_host);
            prop_assert!(barriers(&commands) <= longest + usize::from(read_in_the_end));
        }
    }

    #[test]
    fn the_checker_sees_missing_repeated_and_swapped_steps() {
        let steps = vec![Step::new(Stage::Compute, []); 2];
        assert_eq!(find_hazard(&steps, &[Command::Run(0), Command::Run(1)]), None);
        // They do not conflict.
        assert_eq!(find_hazard(&steps, &[Command::Run(1), Command::Run(0)]), None);
        assert!(find_hazard(&steps, &[Command::Run(0)]).is_some());
        assert!(find_hazard(&steps, &[Command::Run(0), Command::Run(0), Command::Run(1)]).is_some());
        assert!(find_hazard(&steps, &[Command::Run(0), Command::Run(1), Command::Run(2)]).is_some());
        let written = Access { buffer: 0, bytes: 0..4, write: true };
        let steps = vec![Step::new(Stage::Compute, [written]); 2];
        let stages = Stages::of(Stage::Compute);
        let barrier = || Command::Barrier(Barrier { from: stages, to: stages });
        assert_eq!(find_hazard(&steps, &[Command::Run(0), barrier(), Command::Run(1)]), None);
        assert!(find_hazard(&steps, &[Command::Run(1), barrier(), Command::Run(0)]).is_some());
        assert!(find_hazard(&steps, &[barrier(), Command::Run(0), Command::Run(1)]).is_some());
    }

    #[test]
    fn a_barrier_the_wrong_way_round_does_not_count() {
        let touch = |stage, write| Step::new(stage, [Access { buffer: 0, bytes: 0..4, write }]);
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
            Step::new(Stage::Transfer, [read(10), write(0)]),
            Step::new(Stage::Transfer, [read(11), write(1)]),
            Step::new(Stage::Compute, [read(0), read(1), write(2), write(3)]),
            Step::new(Stage::Transfer, [read(2), write(12)]),
            Step::new(Stage::Transfer, [read(3), write(13)]),
            Step::new(Stage::Host, [read(12), read(13)]),
        ];
        assert_eq!(barriers(&plan(&steps)), 3);
    }
}
