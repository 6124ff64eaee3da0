use super::chunks::Extent;
use super::queues::Role;
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

/// One thing to be done, of which the planner knows what memory it touches, which queue it is for, and how it is cut. A stage with its
/// accesses is one.
pub trait Step {
    /// Who does it.
    fn stage(&self) -> Stage;

    /// What it touches.
    fn accesses(&self) -> impl Iterator<Item = Access>;

    /// The queue that it is for, where there is one. What the CPU reads is for that of the step before it.
    fn role(&self) -> Role {
        Role::Compute
    }

    /// How much of it there is, and how it is cut.
    fn extent(&self) -> Extent {
        Extent::default()
    }
}

impl<A: AsRef<[Access]>> Step for (Stage, A) {
    fn stage(&self) -> Stage {
        self.0
    }

    fn accesses(&self) -> impl Iterator<Item = Access> {
        self.1.as_ref().iter().cloned()
    }
}

impl<S: Step> Step for &S {
    fn stage(&self) -> Stage {
        (*self).stage()
    }

    fn accesses(&self) -> impl Iterator<Item = Access> {
        (*self).accesses()
    }

    fn role(&self) -> Role {
        (*self).role()
    }

    fn extent(&self) -> Extent {
        (*self).extent()
    }
}

fn is_read_by_host(step: &impl Step) -> bool {
    step.stage() == Stage::Host && !step.accesses().any(|access| access.write)
}

/// Whether the two touch the same memory, one of them writing it.
pub(crate) fn conflict(one: &impl Step, other: &impl Step) -> bool {
    one.accesses().any(|mine| other.accesses().any(|theirs| mine.conflicts(&theirs)))
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
    /// The step of this index: those of its elements.
    Run(usize, Range<u32>),
}

impl Command {
    /// The step that it runs, if it runs one.
    pub fn step(&self) -> Option<usize> {
        if let Command::Run(step, _) = self { Some(*step) } else { None }
    }
}

/// Orders the steps of one command buffer. Of two that conflict, since one writes what the other touches, the one recorded first
/// runs first. Apart from that steps run side by side: there are as many barriers as the longest chain of conflicts has links,
/// however many chains there are; and what the CPU reads in the end shares one more.
///
/// A step runs as early as it may, and one that others wait for right before the earliest that any of these might run: then caches may
/// still have what it wrote; and where many chains end in writing the same memory, one after another, there is other work beside
/// their ends.
///
/// A step that is cut has its parts side by side: what its elements do is independent.
///
/// Its time is proportional to the number of steps, unless many of them touch different parts of one buffer.
pub(super) fn ordered(steps: &[impl Step]) -> Vec<Command> {
    let touched = Touched::new(steps);
    let levels = touched.levels();
    // Of each stage, the first level that a step need not wait for: all below are over before it begins. In most recordings all steps are
    // kernels, and the longest chain of conflicts has a step in each level: then nothing needs to be looked up.
    let after = touched.stages.iter().any(|&stage| stage != Stage::Compute).then(|| {
        let mut after = vec![[0; Stage::ALL.len()]; steps.len()];
        touched.sweep(0..steps.len(), |step, latest| {
            after[step] = latest.map(|level| level + 1);
            levels[step]
        });
        after
    });
    let mut order: Vec<usize> = (0..steps.len()).collect();
    order.sort_by_key(|&step| levels[step]);
    // Below which level all steps of a stage are over before a step of another begins, by the barriers so far.
    let mut settled = [[0; Stage::ALL.len()]; Stage::ALL.len()];
    let mut commands = Vec::with_capacity(2 * steps.len());
    for together in order.chunk_by(|a, b| levels[*a] == levels[*b]) {
        let mut barrier = Barrier { from: Stages::default(), to: Stages::default() };
        let mut wait = |from, to| {
            barrier = Barrier { from: barrier.from.and(Stages::of(from)), to: barrier.to.and(Stages::of(to)) };
        };
        match &after {
            None if levels[together[0]] > 0 => wait(Stage::Compute, Stage::Compute),
            None => {}
            Some(after) => {
                for &step in together {
                    let stage = touched.stages[step];
                    let unsettled = |from: &Stage| after[step][*from as usize] > settled[*from as usize][stage as usize];
                    Stage::ALL.into_iter().filter(unsettled).for_each(|from| wait(from, stage));
                }
            }
        }
        if !barrier.from.is_empty() {
            for from in Stage::ALL.into_iter().filter(|stage| barrier.from.contains(*stage)) {
                for to in Stage::ALL.into_iter().filter(|stage| barrier.to.contains(*stage)) {
                    settled[from as usize][to as usize] = levels[together[0]];
                }
            }
            commands.push(Command::Barrier(barrier));
        }
        for &step in together {
            commands.extend(steps[step].extent().parts().map(|part| Command::Run(step, part)));
        }
    }
    commands
}

/// The level of no step, of which others are 0 or more.
const NONE: isize = -1;

/// The highest of levels, by stage.
fn highest([a, b, c]: [isize; Stage::ALL.len()]) -> isize {
    a.max(b).max(c)
}

/// What steps touch, in one list, with buffers numbered from 0 on: what is known of each is then found without hashing, as often as it is
/// asked for.
struct Touched {
    stages: Vec<Stage>,
    /// One step's after another's.
    accesses: Vec<Access>,
    /// Where each step's end.
    ends: Vec<usize>,
    buffers: usize,
}

/// What a sweep knows of a buffer.
struct Seen<'a> {
    access: &'a Access,
    stage: Stage,
    level: isize,
}

impl Seen<'_> {
    /// Whether what conflicts with the other conflicts with this, which is of the same stage and no lower.
    fn covers(&self, other: &Seen) -> bool {
        let (mine, others) = (&self.access.bytes, &other.access.bytes);
        self.stage == other.stage
            && self.level >= other.level
            && (self.access.write || !other.access.write)
            && mine.start <= others.start
            && others.end <= mine.end
    }
}

/// Notes one more, and leaves out what is covered, so that there is little of it.
fn note<'a>(seen: &mut SmallVec<[Seen<'a>; 2]>, new: Seen<'a>) {
    let mut index = 0;
    while let Some(other) = seen.get(index) {
        if other.covers(&new) {
            return;
        }
        if new.covers(other) {
            seen.swap_remove(index);
        } else {
            index += 1;
        }
    }
    seen.push(new);
}

impl Touched {
    fn new(steps: &[impl Step]) -> Self {
        let mut known: HashMap<usize, usize> = HashMap::default();
        let (mut accesses, mut ends) = (Vec::with_capacity(4 * steps.len()), Vec::with_capacity(steps.len()));
        for step in steps {
            for access in step.accesses() {
                let next = known.len();
                let buffer = *known.entry(access.buffer).or_insert(next);
                accesses.push(Access { buffer, ..access });
            }
            ends.push(accesses.len());
        }
        Self { stages: steps.iter().map(Step::stage).collect(), accesses, ends, buffers: known.len() }
    }

    /// What a step touches.
    fn of(&self, step: usize) -> &[Access] {
        let begin = step.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.accesses[begin..self.ends[step]]
    }

    /// After how many barriers each step runs, if one goes before each level but the lowest.
    fn levels(&self) -> Vec<isize> {
        // As early as may be.
        let mut levels = vec![0; self.stages.len()];
        let mut number = 0;
        let tail = (0..self.stages.len())
            .rfind(|&step| !is_read_by_host(&(self.stages[step], self.of(step))))
            .map_or(0, |last| last + 1);
        self.sweep(0..self.stages.len(), |step, latest| {
            let first = highest(latest) + 1;
            if step < tail {
                levels[step] = first;
                number = number.max(first + 1);
            } else {
                // What the CPU reads in the end.
                levels[step] = first.max(number);
            }
            levels[step]
        });
        if number == tail as isize {
            // One chain, and what the CPU reads of it in the end: each is where it must be.
            return levels;
        }
        // Right before the earliest that might follow. Swept from the end, with levels counted from the last: the highest of those is the
        // earliest.
        let early = levels.clone();
        let last = early.iter().copied().max().unwrap_or(0);
        self.sweep((0..self.stages.len()).rev(), |step, earliest| {
            let from_last = highest(earliest);
            if from_last != NONE {
                levels[step] = last - from_last - 1;
            }
            last - early[step]
        });
        levels
    }

    /// Looks at steps in some order, and has `place` say the level of each, given the highest level of those before it that it
    /// conflicts with, by their stage.
    fn sweep(&self, order: impl Iterator<Item = usize>, mut place: impl FnMut(usize, [isize; Stage::ALL.len()]) -> isize) {
        // By buffer.
        let mut seen: Vec<SmallVec<[Seen; 2]>> = (0..self.buffers).map(|_| SmallVec::new()).collect();
        for index in order {
            let accesses = self.of(index);
            let mut highest = [NONE; Stage::ALL.len()];
            for access in accesses {
                for other in seen[access.buffer].iter().filter(|other| access.conflicts(other.access)) {
                    let highest = &mut highest[other.stage as usize];
                    *highest = (*highest).max(other.level);
                }
            }
            let (stage, level) = (self.stages[index], place(index, highest));
            for access in accesses {
                note(&mut seen[access.buffer], Seen { access, stage, level });
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::{every_barrier_matters, find_hazard};
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    pub(crate) struct Owned {
        pub(crate) stage: Stage,
        pub(crate) role: Role,
        pub(crate) extent: Extent,
        pub(crate) accesses: Vec<Access>,
    }

    impl Step for Owned {
        fn stage(&self) -> Stage {
            self.stage
        }

        fn accesses(&self) -> impl Iterator<Item = Access> {
            self.accesses.iter().cloned()
        }

        fn role(&self) -> Role {
            self.role
        }

        fn extent(&self) -> Extent {
            self.extent
        }
    }

    fn role() -> impl Strategy<Value = Role> {
        prop_oneof![Just(Role::Compute), Just(Role::Beside), Just(Role::Upload), Just(Role::Download)]
    }

    pub(crate) fn step() -> impl Strategy<Value = Owned> {
        let access = (0usize..4, 0u64..4, 1u64..4, any::<bool>()).prop_map(|(buffer, start, length, write)| Access {
            buffer,
            bytes: start..start + length,
            write,
        });
        let extent = prop_oneof![3 => Just(Extent::default()), 1 => (1u32..10, 1u32..4, 1u32..4).prop_map(|(elements, units, unit)| {
            let unit = std::num::NonZeroU32::new(unit).unwrap();
            Extent { elements, most: units * unit.get(), unit }
        })];
        (stage(), role(), extent, prop::collection::vec(access, 0..4)).prop_map(|(stage, role, extent, accesses)| Owned {
            stage,
            role,
            extent,
            accesses,
        })
    }

    fn stage() -> impl Strategy<Value = Stage> {
        prop_oneof![Just(Stage::Transfer), Just(Stage::Compute), Just(Stage::Host)]
    }

    fn barriers(commands: &[Command]) -> usize {
        commands.iter().filter(|c| matches!(c, Command::Barrier(_))).count()
    }

    proptest! {
        #[test]
        fn plans_have_no_hazards_and_no_spare_barrier(
            steps in prop::collection::vec(step(), 0..12),
            of in prop_oneof![2 => Just(Stage::Compute), 1 => stage()],
            one: bool,
        ) {
            // Half of them of steps of one stage.
            let steps: Vec<Owned> =
                steps.into_iter().map(|step| Owned { stage: if one { of } else { step.stage }, ..step }).collect();
            let commands = ordered(&steps);
            prop_assert_eq!(find_hazard(&steps, &commands), None);
            prop_assert!(every_barrier_matters(&steps, &commands));
            // No order of the steps has fewer barriers than the longest chain of conflicts has links.
            let mut links = vec![0; steps.len()];
            for second in 0..steps.len() {
                for first in (0..second).filter(|&first| conflict(&steps[first], &steps[second])) {
                    links[second] = links[second].max(links[first] + 1);
                }
            }
            let longest = links.into_iter().max().unwrap_or(0);
            let read_in_the_end = steps.last().is_some_and(is_read_by_host);
            prop_assert!(barriers(&commands) <= longest + usize::from(read_in_the_end));
        }
    }

    #[test]
    fn what_others_wait_for_runs_right_before_the_earliest_of_them() {
        let access = |buffer, write| Access { buffer, bytes: 0..64, write };
        let kernel = |from, to| (Stage::Compute, vec![access(from, false), access(to, true)]);
        // Two of three, each of its own, into the same memory in the end.
        let chain = |n: usize| [kernel(0, 3 * n + 2), kernel(3 * n + 2, 3 * n + 3), kernel(3 * n + 3, 1)];
        let steps = [chain(0), chain(1), chain(2)].concat();
        let runs: Vec<Vec<usize>> = ordered(&steps)
            .split(|command| matches!(command, Command::Barrier(_)))
            .map(|level| level.iter().filter_map(Command::step).collect())
            .collect();
        // The second of each waits until the third might follow; the first need not.
        assert_eq!(runs, [vec![0, 3, 6], vec![1], vec![2, 4], vec![5, 7], vec![8]]);
    }

    #[test]
    fn uploads_share_one_barrier_and_so_do_downloads() {
        let (write, read) =
            (|buffer| Access { buffer, bytes: 0..64, write: true }, |buffer| Access { buffer, bytes: 0..64, write: false });
        let steps = [
            (Stage::Transfer, vec![read(10), write(0)]),
            (Stage::Transfer, vec![read(11), write(1)]),
            (Stage::Compute, vec![read(0), read(1), write(2), write(3)]),
            (Stage::Transfer, vec![read(2), write(12)]),
            (Stage::Transfer, vec![read(3), write(13)]),
            (Stage::Host, vec![read(12), read(13)]),
        ];
        assert_eq!(barriers(&ordered(&steps)), 3);
    }
}
