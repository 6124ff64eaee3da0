//! Which queue does what, and which submission waits for which.

use super::barriers::{Command, Hazard, Step, conflict, find_hazard, plan};

/// What a queue is for. Devices without a queue of its own for a role do it on the compute queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Kernels, and whatever else is not worth a queue of its own.
    Compute,
    /// Kernels beside those of `Compute`: those of every other chunk of a job.
    Beside,
    /// Copies from host memory to the device's.
    Upload,
    /// Copies from the device's memory to the host's.
    Download,
}

/// What is submitted to one queue at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submission {
    /// The queue.
    pub queue: Role,
    /// Barriers and steps; steps by their index in the whole list.
    pub commands: Vec<Command>,
    /// Earlier submissions that this one waits for, on the device.
    pub after: Vec<usize>,
}

/// Cuts steps, each with its queue, into submissions: one per run of steps on one queue, with the barriers that they need among
/// themselves; it waits for the earlier submissions that touch what it touches, one of the two writing.
///
/// ```
/// use gpu_executor::plan::{Access, Role, Stage, submissions};
/// let write = |buffer| Access { buffer, bytes: 0..64, write: true };
/// let read = |buffer| Access { buffer, bytes: 0..64, write: false };
/// let steps = [
///     (Stage::Transfer, vec![write(0)]),
///     (Stage::Compute, vec![read(0), write(1)]),
///     (Stage::Transfer, vec![read(1), write(2)]),
/// ];
/// let submissions = submissions(&steps, &[Role::Upload, Role::Compute, Role::Download]);
/// assert_eq!(submissions.len(), 3);
/// assert_eq!((&submissions[1].after[..], &submissions[2].after[..]), (&[0][..], &[1][..]));
/// ```
pub fn submissions(steps: &[impl Step], queues: &[Role]) -> Vec<Submission> {
    let mut submissions: Vec<Submission> = Vec::new();
    let mut begin = 0;
    for run in queues[..steps.len()].chunk_by(|a, b| a == b) {
        let end = begin + run.len();
        let shifted = |command| match command {
            Command::Run(step) => Command::Run(begin + step),
            barrier => barrier,
        };
        let commands = plan(&steps[begin..end]).into_iter().map(shifted).collect();
        let touches = |submission: &Submission| {
            submission.steps().any(|earlier| steps[begin..end].iter().any(|step| conflict(step, &steps[earlier])))
        };
        let after = submissions.iter().enumerate().filter(|(_, earlier)| touches(earlier)).map(|(index, _)| index).collect();
        submissions.push(Submission { queue: run[0], commands, after });
        begin = end;
    }
    submissions
}

impl Submission {
    /// The steps that it runs, in the order in which it does.
    pub fn steps(&self) -> impl Iterator<Item = usize> + '_ {
        self.commands.iter().filter_map(|command| if let Command::Run(step) = command { Some(*step) } else { None })
    }
}

/// Proves a list of submissions free of hazards, or shows one: within a submission as [`find_hazard`] does; between two steps
/// of different submissions that conflict there must be a chain of waits. Deliberately dumb, and knows nothing of how
/// [`submissions`] works.
pub fn find_hazard_across<S: Step>(steps: &[S], submissions: &[Submission]) -> Option<Hazard> {
    let all: Vec<(usize, usize)> =
        submissions.iter().enumerate().flat_map(|(number, s)| s.steps().map(move |step| (number, step))).collect();
    // The steps of a submission, in any order, are those after what the one before it has.
    let mut sorted = all.clone();
    sorted.sort();
    for index in 0..steps.len().max(all.len()) {
        if sorted.get(index).map(|(_, step)| *step) != Some(index) {
            return Some(Hazard { first: index, second: index });
        }
    }
    for submission in submissions {
        let mut mine: Vec<usize> = submission.steps().collect();
        mine.sort();
        let own: Vec<&S> = mine.iter().map(|&step| &steps[step]).collect();
        let renumbered = |command: &Command| match command {
            Command::Run(step) => Command::Run(step - mine[0]),
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
    use super::super::barriers::Stage;
    use super::super::barriers::tests::{Owned, step};
    use super::*;
    use proptest::prelude::*;

    fn role() -> impl Strategy<Value = Role> {
        prop_oneof![Just(Role::Compute), Just(Role::Beside), Just(Role::Upload), Just(Role::Download)]
    }

    proptest! {
        #[test]
        fn submissions_have_no_hazards_and_no_spare_wait(all in prop::collection::vec((step(), role()), 0..12)) {
            let (steps, queues): (Vec<Owned>, Vec<Role>) = all.into_iter().unzip();
            let planned = submissions(&steps, &queues);
            prop_assert_eq!(find_hazard_across(&steps, &planned), None);
            for (number, submission) in planned.iter().enumerate() {
                for step in submission.steps() {
                    prop_assert_eq!(queues[step], submission.queue);
                }
                for &wait in &submission.after {
                    // Without any of its waits, direct or not, the hazard is back.
                    let mut without = planned.clone();
                    without[number].after.clear();
                    prop_assert!(wait < number && find_hazard_across(&steps, &without).is_some());
                }
            }
        }
    }

    #[test]
    fn the_checker_sees_missing_steps_waits_and_barriers() {
        let touch = |write| (Stage::Transfer, [super::super::Access { buffer: 0, bytes: 0..4, write }]);
        let steps = [touch(true), touch(false), touch(true)];
        let good = submissions(&steps, &[Role::Upload, Role::Compute, Role::Compute]);
        assert_eq!(find_hazard_across(&steps, &good), None);
        assert_eq!(find_hazard_across(&steps, &good[..1]), Some(Hazard { first: 1, second: 1 }));
        let mut no_wait = good.clone();
        no_wait[1].after.clear();
        assert_eq!(find_hazard_across(&steps, &no_wait), Some(Hazard { first: 0, second: 1 }));
        let mut no_barrier = good;
        no_barrier[1].commands.retain(|command| matches!(command, Command::Run(_)));
        assert_eq!(find_hazard_across(&steps, &no_barrier), Some(Hazard { first: 1, second: 2 }));
    }
}
