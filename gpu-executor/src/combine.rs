//! Threads that want the same thing done at the same time have one of them do it for all.

use parking_lot::{Condvar, Mutex, MutexGuard};
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

/// What a thread does between two looks at what it has been waiting for: for so long it spins, then it yields to others.
pub(crate) fn pause(waiting: Duration, spins: Duration) {
    if waiting < spins { std::hint::spin_loop() } else { std::thread::yield_now() }
}

/// Gathers the items that threads bring while a batch is under way into the next batch. A thread that finds nobody at work does
/// the work at once: nobody ever waits for company.
///
/// At most `bound` items wait; a thread that brings one more waits for room.
pub(crate) struct Combiner<T, R> {
    state: Mutex<State<T, R>>,
    /// How many batches are done, for those who wait for one: changed under the lock, and looked at without it.
    done: AtomicU64,
    changed: Condvar,
    bound: usize,
}

struct State<T, R> {
    waiting: Vec<T>,
    /// The number of the batch that `waiting` will be.
    next: u64,
    /// Results of batches that not everybody has fetched: number, how many are still to come for it, result.
    results: Vec<(u64, usize, R)>,
}

/// How long a thread spins for somebody else's batch, and for how long it then yields before it sleeps. It looks at a number that does not change
/// meanwhile, and so disturbs nobody: on an H200's host, sixteen threads that add 64 elements at a time have a result each in 88 to 98 us, and in
/// 121 to 134 if they take the lock to look, and yield from the first time on.
const SPIN: Duration = Duration::from_micros(20);
const PATIENCE: Duration = Duration::from_micros(50);

impl<T, R: Clone> Combiner<T, R> {
    pub(crate) fn new(bound: usize) -> Self {
        let state = State { waiting: Vec::new(), next: 0, results: Vec::new() };
        Self { state: Mutex::new(state), done: AtomicU64::new(0), changed: Condvar::new(), bound }
    }

    /// Has `item` worked on by `work`, alone or with others' items, by this thread or another, before this returns; the result of that batch,
    /// or `unfinished` if the thread that was at work on it has panicked.
    pub(crate) fn run(&self, item: T, unfinished: R, work: impl Fn(&[T]) -> R) -> R {
        let mut state = self.state.lock();
        while state.waiting.len() >= self.bound {
            self.changed.wait(&mut state);
        }
        state.waiting.push(item);
        let mine = state.next;
        loop {
            if let Some(result) = state.fetched(mine) {
                return result;
            }
            let taken = state.next > mine;
            if !taken && self.done.load(Relaxed) == mine {
                // Only one's own batch: a thread that also did the next ones might never come back.
                let batch = std::mem::take(&mut state.waiting);
                state.next += 1;
                if batch.len() >= self.bound {
                    // There is room again.
                    self.changed.notify_all();
                }
                drop(state);
                let mut working = Working { combiner: self, number: mine, others: batch.len() - 1, result: unfinished };
                working.result = work(&batch);
                return working.result.clone();
            }
            // Until it is done, or up to somebody to do.
            let wanted = mine + u64::from(taken);
            MutexGuard::unlocked(&mut state, || {
                let start = Instant::now();
                while self.done.load(Acquire) < wanted && start.elapsed() < PATIENCE {
                    pause(start.elapsed(), SPIN);
                }
            });
            while self.done.load(Relaxed) < wanted {
                self.changed.wait(&mut state);
            }
        }
    }
}

/// A batch that is being worked on, until it is dropped: after the work, also if that panics, so that nobody uses what others brought when these
/// go on.
struct Working<'a, T, R: Clone> {
    combiner: &'a Combiner<T, R>,
    number: u64,
    /// How many others wait for it.
    others: usize,
    result: R,
}

impl<T, R: Clone> Drop for Working<'_, T, R> {
    fn drop(&mut self) {
        let mut state = self.combiner.state.lock();
        if self.others > 0 {
            state.results.push((self.number, self.others, self.result.clone()));
        }
        self.combiner.done.store(self.number + 1, Release);
        self.combiner.changed.notify_all();
    }
}

impl<T, R: Clone> State<T, R> {
    /// The result of a batch, if it is done.
    fn fetched(&mut self, number: u64) -> Option<R> {
        let index = self.results.iter().position(|(other, ..)| *other == number)?;
        let (_, left, result) = &mut self.results[index];
        *left -= 1;
        Some(if *left == 0 { self.results.swap_remove(index).2 } else { result.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// While the first batch is under way, `others` threads bring an item each; how large the batches were.
    fn batches(others: usize, bound: usize) -> Vec<usize> {
        let combiner = Combiner::new(bound);
        let arrived = || combiner.state.lock().waiting.len();
        let sizes = Mutex::new(Vec::new());
        let begun = AtomicUsize::new(0);
        let work = |batch: &[usize]| {
            begun.fetch_add(1, SeqCst);
            // The first to work waits until as many wait as can.
            while sizes.lock().is_empty() && arrived() < others.min(bound) {
                std::thread::yield_now();
            }
            sizes.lock().push(batch.len());
            batch.iter().sum::<usize>()
        };
        let sum = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| sum.fetch_add(combiner.run(1000, 0, work), SeqCst));
            while begun.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            for _ in 0..others {
                scope.spawn(|| combiner.run(1, 0, work));
            }
        });
        assert_eq!(sum.into_inner(), 1000);
        assert!(combiner.state.lock().results.is_empty());
        sizes.into_inner()
    }

    #[test]
    fn what_waits_is_done_at_once() {
        assert_eq!(batches(0, 8), [1]);
        assert_eq!(batches(1, 8), [1, 1]);
        assert_eq!(batches(7, 8), [1, 7]);
    }

    #[test]
    fn no_more_wait_than_the_bound() {
        let sizes = batches(20, 4);
        assert_eq!(sizes.iter().sum::<usize>(), 21);
        assert!(sizes.iter().all(|&size| size <= 4), "{sizes:?}");
    }

    #[test]
    fn who_waits_for_a_thread_that_panics_is_told() {
        let combiner = Combiner::new(8);
        let arrived = || combiner.state.lock().waiting.len();
        let (first, told) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let panics = |batch: &[u32]| {
            assert!(batch.len() == 1, "a batch of {}", batch.len());
            first.fetch_add(1, SeqCst);
            while arrived() < 5 {
                std::thread::yield_now();
            }
            1
        };
        let panicked = std::thread::scope(|scope| {
            let mut threads = vec![scope.spawn(|| combiner.run(0, 0, panics))];
            while first.load(SeqCst) == 0 {
                std::thread::yield_now();
            }
            threads.extend((0..5).map(|_| {
                scope.spawn(|| {
                    let result = combiner.run(0, 7, panics);
                    told.fetch_add(result, SeqCst);
                    result
                })
            }));
            threads.into_iter().filter_map(|thread| thread.join().err()).count()
        });
        assert_eq!((panicked, told.into_inner()), (1, 4 * 7));
        assert_eq!(combiner.run(0, 0, |_| 3), 3);
        assert!(combiner.state.lock().results.is_empty());
    }

    #[test]
    fn everybody_gets_the_result_of_his_own_batch() {
        let combiner = Combiner::new(16);
        let calls = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for thread in 0..8usize {
                let (combiner, calls) = (&combiner, &calls);
                scope.spawn(move || {
                    for round in 0..2000 {
                        let item = thread * 10_000 + round;
                        let batch = combiner.run(item, Vec::new(), |batch: &[usize]| {
                            calls.fetch_add(1, SeqCst);
                            batch.to_vec()
                        });
                        assert!(batch.contains(&item));
                    }
                });
            }
        });
        assert!(calls.into_inner() <= 16_000);
        assert!(combiner.state.lock().results.is_empty());
    }
}
