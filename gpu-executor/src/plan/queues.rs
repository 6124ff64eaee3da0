//! Which queue does what, and which submission waits for which.

use super::barriers::{Command, Stage, Step, conflict, ordered};

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

/// Plans a recording: which queue does which step, what is submitted to each at once, in what order and in what parts, and where barriers and
/// waits go. There is one submission per run of steps on one queue, with the barriers that they need among themselves; it waits for the
/// earlier submissions that touch what it touches, one of the two writing. `queue` says which queue there is for what a step is
/// [for](Step::role).
///
/// Of two steps on one queue that conflict, since one writes what the other touches, the one recorded first runs first. Apart from that
/// steps run side by side: there are as many barriers as the longest chain of conflicts has links, however many chains there are; and what
/// the CPU reads in the end shares one more.
///
/// A function of what it is given and of nothing else.
///
/// ```
/// use gpu_executor::plan::{Access, Command, Role, Stage, find_hazard_across, plan};
/// let access = |buffer, write| Access { buffer, bytes: 0..64, write };
/// let copy = |from, to| (Stage::Transfer, [access(from, false), access(to, true)]);
/// let steps = [copy(0, 1), copy(1, 2), copy(3, 4), copy(4, 5)];
/// let one_queue = |_| Role::Compute;
/// let submissions = plan(&steps, one_queue);
/// assert_eq!(submissions.len(), 1);
/// let ordered: Vec<Option<usize>> = submissions[0].commands.iter().map(Command::step).collect();
/// assert_eq!(ordered, [Some(0), Some(2), None, Some(1), Some(3)]);
/// assert_eq!(find_hazard_across(&steps, one_queue, &submissions), None);
/// ```
pub fn plan(steps: &[impl Step], queue: impl Fn(Role) -> Role) -> Vec<Submission> {
    let mut queues: Vec<Role> = Vec::with_capacity(steps.len());
    for step in steps {
        let before = queues.last().copied().filter(|_| step.stage() == Stage::Host);
        queues.push(before.unwrap_or_else(|| queue(step.role())));
    }
    let mut submissions: Vec<Submission> = Vec::new();
    let mut begin = 0;
    for run in queues.chunk_by(|a, b| a == b) {
        let end = begin + run.len();
        let mut commands = ordered(&steps[begin..end]);
        for command in &mut commands {
            if let Command::Run(step, _) = command {
                *step += begin;
            }
        }
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
    /// The steps that it runs, in the order in which it does; each once for each of its parts.
    pub fn steps(&self) -> impl Iterator<Item = usize> + '_ {
        self.commands.iter().filter_map(Command::step)
    }
}

#[cfg(test)]
mod tests {
    use super::super::barriers::tests::step;
    use super::super::find_hazard_across;
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn submissions_have_no_hazards_and_no_spare_wait(steps in prop::collection::vec(step(), 0..12), one: bool) {
            let queue = |role| if one { Role::Compute } else { role };
            let planned = plan(&steps, queue);
            prop_assert_eq!(find_hazard_across(&steps, queue, &planned), None);
            prop_assert!(!one || planned.len() == usize::from(!steps.is_empty()));
            for (number, submission) in planned.iter().enumerate() {
                for &wait in &submission.after {
                    // Without any of its waits, direct or not, the hazard is back.
                    let mut without = planned.clone();
                    without[number].after.clear();
                    prop_assert!(wait < number && find_hazard_across(&steps, queue, &without).is_some());
                }
            }
        }
    }
}
