//! Whether a plan is right: a checker that is deliberately dumb, and knows nothing of how plans are made.

use super::barriers::{Barrier, Command, Stage, Step, conflict};
use super::chunks::Extent;
use super::queues::{Role, Submission};
use std::ops::Range;

/// Two steps that may run at once though one writes what the other touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hazard {
    /// The step recorded first.
    pub first: usize,
    /// The step recorded second.
    pub second: usize,
}

/// Proves the commands of one queue free of hazards, or shows one: every pair of steps is looked at, and of two that conflict all of the one
/// recorded first must run first, with a barrier between them from its stage to the other's. Deliberately dumb, and knows nothing of how
/// they were ordered.
///
/// A step of which an element is left out, or runs twice, or more of which run at once than its extent says, or a part of which begins where
/// none may, shows up as that step's hazard with itself.
pub fn find_hazard(steps: &[impl Step], commands: &[Command]) -> Option<Hazard> {
    let mut positions: Vec<Vec<usize>> = vec![Vec::new(); steps.len()];
    for (position, command) in commands.iter().enumerate() {
        let Some(step) = command.step() else { continue };
        match positions.get_mut(step) {
            Some(positions) => positions.push(position),
            None => return Some(Hazard { first: step, second: step }),
        }
    }
    for (step, positions) in positions.iter().enumerate() {
        let part = |position: &usize| if let Command::Run(_, part) = &commands[*position] { part.clone() } else { 0..0 };
        let mut parts: Vec<Range<u32>> = positions.iter().map(part).collect();
        parts.sort_by_key(|part| part.start);
        let Extent { elements, most, unit } = steps[step].extent();
        let mut end = 0;
        for part in parts {
            if part.start != end || part.start % unit != 0 || part.is_empty() || part.len() > most as usize {
                return Some(Hazard { first: step, second: step });
            }
            end = part.end;
        }
        if end != elements || positions.is_empty() {
            return Some(Hazard { first: step, second: step });
        }
    }
    for second in 0..steps.len() {
        for first in (0..second).filter(|&first| conflict(&steps[first], &steps[second])) {
            let (last, begin) = (positions[first].iter().max(), positions[second].iter().min());
            let between = last.zip(begin).and_then(|(a, b)| commands.get(*a..*b)).unwrap_or(&[]);
            let ordered = between.iter().any(|command| match command {
                Command::Barrier(Barrier { from, to }) => {
                    from.contains(steps[first].stage()) && to.contains(steps[second].stage())
                }
                Command::Run(..) => false,
            });
            if !ordered {
                return Some(Hazard { first, second });
            }
        }
    }
    None
}

/// Whether taking any one barrier out of a plan leaves a hazard: none is spare, and the checker would notice each one missing.
pub fn every_barrier_matters(steps: &[impl Step], commands: &[Command]) -> bool {
    let barriers = commands.iter().enumerate().filter(|(_, command)| matches!(command, Command::Barrier(_)));
    barriers.map(|(position, _)| position).all(|position| {
        let mut without = commands.to_vec();
        without.remove(position);
        find_hazard(steps, &without).is_some()
    })
}

/// Proves a list of submissions free of hazards, or shows one: within a submission as [`find_hazard`] does; between two steps
/// of different submissions that conflict there must be a chain of waits. And each step must be on the queue that `queue` says, or, if the CPU
/// reads, on that of the step before it: else it shows up as its own hazard. Deliberately dumb, and knows nothing of how
/// [`plan`](super::plan) works.
pub fn find_hazard_across<S: Step>(steps: &[S], queue: impl Fn(Role) -> Role, submissions: &[Submission]) -> Option<Hazard> {
    let mut all: Vec<(usize, usize)> =
        submissions.iter().enumerate().flat_map(|(number, s)| s.steps().map(move |step| (number, step))).collect();
    // Each step once, in one submission: whether all of its parts are there is seen in that one.
    all.sort();
    all.dedup();
    // The steps of a submission, in any order, are those after what the one before it has.
    let sorted = &all;
    for index in 0..steps.len().max(all.len()) {
        if sorted.get(index).map(|(_, step)| *step) != Some(index) {
            return Some(Hazard { first: index, second: index });
        }
    }
    for &(number, step) in &all {
        let expected = match (steps[step].stage(), step.checked_sub(1)) {
            (Stage::Host, Some(before)) => {
                all[before].0 == number || submissions[all[before].0].queue == submissions[number].queue
            }
            _ => queue(steps[step].role()) == submissions[number].queue,
        };
        if !expected {
            return Some(Hazard { first: step, second: step });
        }
    }
    for submission in submissions {
        let mut mine: Vec<usize> = submission.steps().collect();
        mine.sort();
        mine.dedup();
        let own: Vec<&S> = mine.iter().map(|&step| &steps[step]).collect();
        let renumbered = |command: &Command| match command {
            Command::Run(step, part) => Command::Run(step - mine[0], part.clone()),
            barrier => barrier.clone(),
        };
        let commands: Vec<Command> = submission.commands.iter().map(renumbered).collect();
        if let Some(hazard) = find_hazard(&own, &commands) {
            return Some(Hazard { first: mine[hazard.first], second: mine[hazard.second] });
        }
    }
    for &(later, second) in &all {
        // Everything that `later` waits for, however indirectly.
        let mut waits = vec![false; submissions.len()];
        let mut todo = submissions[later].after.clone();
        while let Some(earlier) = todo.pop() {
            if earlier < later && !std::mem::replace(&mut waits[earlier], true) {
                todo.extend(&submissions[earlier].after);
            }
        }
        for &(earlier, first) in all.iter().filter(|(earlier, _)| *earlier < later) {
            if conflict(&steps[first], &steps[second]) && !waits[earlier] {
                return Some(Hazard { first, second });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::barriers::ordered;
    use super::super::barriers::tests::Owned;
    use super::super::{Access, Stages, plan};
    use super::*;
    use std::num::NonZeroU32;

    /// Every queue is there.
    fn own(role: Role) -> Role {
        role
    }

    fn run(step: usize) -> Command {
        Command::Run(step, 0..1)
    }

    #[test]
    fn the_checker_sees_missing_repeated_and_swapped_steps() {
        let steps = vec![(Stage::Compute, vec![]); 2];
        assert_eq!(find_hazard(&steps, &[run(0), run(1)]), None);
        // They do not conflict.
        assert_eq!(find_hazard(&steps, &[run(1), run(0)]), None);
        assert!(find_hazard(&steps, &[run(0)]).is_some());
        assert!(find_hazard(&steps, &[run(0), run(0), run(1)]).is_some());
        assert!(find_hazard(&steps, &[run(0), run(1), run(2)]).is_some());
        let written = Access { buffer: 0, bytes: 0..4, write: true };
        let steps = vec![(Stage::Compute, vec![written]); 2];
        let stages = Stages::of(Stage::Compute);
        let barrier = || Command::Barrier(Barrier { from: stages, to: stages });
        assert_eq!(find_hazard(&steps, &[run(0), barrier(), run(1)]), None);
        assert!(find_hazard(&steps, &[run(1), barrier(), run(0)]).is_some());
        assert!(find_hazard(&steps, &[barrier(), run(0), run(1)]).is_some());
    }

    #[test]
    fn the_checker_sees_parts_that_are_missing_repeated_or_too_long() {
        let accesses = vec![Access { buffer: 0, bytes: 0..4, write: true }];
        let long = Owned {
            stage: Stage::Compute,
            role: Role::Compute,
            extent: Extent { elements: 10, most: 4, unit: NonZeroU32::new(2).unwrap() },
            accesses,
        };
        let part = |part: Range<u32>| Command::Run(0, part);
        let alone = |parts: &[Range<u32>]| {
            let commands: Vec<Command> = parts.iter().cloned().map(part).collect();
            find_hazard(std::slice::from_ref(&long), &commands)
        };
        assert_eq!(ordered(std::slice::from_ref(&long)), [part(0..4), part(4..8), part(8..10)]);
        assert_eq!(alone(&[8..10, 0..4, 4..8]), None);
        for wrong in [
            &[0..4, 4..8][..],
            &[0..4, 4..8, 9..10],
            &[0..4, 3..7, 7..10],
            &[0..5, 5..8, 8..10],
            &[0..4, 4..8, 8..11],
            &[0..4, 4..7, 7..10],
            &[],
        ] {
            assert_eq!(alone(wrong), Some(Hazard { first: 0, second: 0 }), "{wrong:?}");
        }
        // A barrier that only a part of a step is before orders nothing.
        let steps = [long.clone(), Owned { extent: Extent::default(), ..long.clone() }];
        let stages = Stages::of(Stage::Compute);
        let barrier = || Command::Barrier(Barrier { from: stages, to: stages });
        let after = [part(0..4), part(4..8), part(8..10), barrier(), run(1)];
        assert_eq!(find_hazard(&steps, &after), None);
        let between = [part(0..4), part(4..8), barrier(), part(8..10), run(1)];
        assert_eq!(find_hazard(&steps, &between), Some(Hazard { first: 0, second: 1 }));
    }

    #[test]
    fn a_barrier_the_wrong_way_round_does_not_count() {
        let touch = |stage, write| (stage, vec![Access { buffer: 0, bytes: 0..4, write }]);
        let steps = [touch(Stage::Transfer, true), touch(Stage::Compute, false)];
        let with = |from, to| {
            let barrier = Barrier { from: Stages::of(from), to: Stages::of(to) };
            find_hazard(&steps, &[run(0), Command::Barrier(barrier), run(1)])
        };
        assert_eq!(with(Stage::Transfer, Stage::Compute), None);
        assert!(with(Stage::Compute, Stage::Transfer).is_some());
    }

    #[test]
    fn the_checker_sees_missing_steps_waits_and_barriers() {
        let accesses = |write| vec![Access { buffer: 0, bytes: 0..4, write }];
        let touch = |role, write| Owned {
            stage: Stage::Transfer,
            role,
            extent: Extent { elements: 3, most: 2, ..Extent::default() },
            accesses: accesses(write),
        };
        let steps = [touch(Role::Upload, true), touch(Role::Compute, false), touch(Role::Compute, true)];
        let good = plan(&steps, own);
        assert_eq!(good.len(), 2);
        assert_eq!(find_hazard_across(&steps, own, &good), None);
        assert_eq!(find_hazard_across(&steps, own, &good[..1]), Some(Hazard { first: 1, second: 1 }));
        let mut no_wait = good.clone();
        no_wait[1].after.clear();
        assert_eq!(find_hazard_across(&steps, own, &no_wait), Some(Hazard { first: 0, second: 1 }));
        let mut no_barrier = good.clone();
        no_barrier[1].commands.retain(|command| command.step().is_some());
        assert_eq!(find_hazard_across(&steps, own, &no_barrier), Some(Hazard { first: 1, second: 2 }));
        let mut another = good.clone();
        another[1].queue = Role::Upload;
        assert_eq!(find_hazard_across(&steps, own, &another), Some(Hazard { first: 1, second: 1 }));
        let mut no_end = good;
        no_end[0].commands.pop();
        assert_eq!(find_hazard_across(&steps, own, &no_end), Some(Hazard { first: 0, second: 0 }));
    }
}
