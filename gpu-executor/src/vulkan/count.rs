//! How many are at something that others wait for: what they have done by then is seen by who has waited.
//!
//! This is where threads meet without a lock: who waits for the pieces of a copy, or takes back what it lent to be computed, goes by it, and what
//! was borrowed for them is gone afterwards. So the tests have a model checker (loom) try the orders of their steps, in models of both.

use crate::combine::pause;
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{self, Acquire, Relaxed, Release},
};
use std::time::{Duration, Instant};

/// An atomic number: the standard library's, or a model checker's.
pub(super) trait Atomic {
    fn load(&self, order: Ordering) -> usize;
    fn fetch_add(&self, by: usize, order: Ordering);
    fn fetch_sub(&self, by: usize, order: Ordering);
    /// Lets others go on.
    fn pause(waiting: Duration);
}

/// How many are at something.
pub(super) struct Count<A = AtomicUsize>(A);

/// Counts one as done when it is dropped, also by a panic.
pub(super) struct Done<'a, A: Atomic = AtomicUsize>(&'a Count<A>);

impl Count {
    pub(super) const fn new(number: usize) -> Self {
        Self(AtomicUsize::new(number))
    }
}

impl<A: Atomic> Count<A> {
    /// One more is at it. Who is to wait for him must come to know of it in another way: by a lock that both take.
    pub(super) fn begin(&self) -> Done<'_, A> {
        self.0.fetch_add(1, Relaxed);
        Done(self)
    }

    /// For one of those who have been counted from the beginning.
    pub(super) fn counted(&self) -> Done<'_, A> {
        Done(self)
    }

    /// So many of those who have been counted do not come.
    pub(super) fn less(&self, number: usize) {
        self.0.fetch_sub(number, Release);
    }

    /// Waits until nobody is at it: it takes them microseconds.
    pub(super) fn wait_for_none(&self) {
        let start = Instant::now();
        while self.0.load(Acquire) > 0 {
            A::pause(start.elapsed());
        }
    }
}

impl<A: Atomic> Drop for Done<'_, A> {
    fn drop(&mut self) {
        self.0.less(1);
    }
}

/// Both have these functions, and no trait in common.
macro_rules! atomic {
    ($type:ty, $pause:expr) => {
        impl Atomic for $type {
            fn load(&self, order: Ordering) -> usize {
                self.load(order)
            }

            fn fetch_add(&self, by: usize, order: Ordering) {
                self.fetch_add(by, order);
            }

            fn fetch_sub(&self, by: usize, order: Ordering) {
                self.fetch_sub(by, order);
            }

            fn pause(waiting: Duration) {
                $pause(waiting);
            }
        }
    };
}

atomic!(AtomicUsize, |waiting| pause(waiting, Duration::from_micros(50)));

#[cfg(test)]
mod tests {
    use super::*;
    use loom::cell::UnsafeCell;
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    type Modelled = loom::sync::atomic::AtomicUsize;

    atomic!(Modelled, |_| thread::yield_now());

    /// What is written by others while they are counted. The checker objects if two touch it at a time, or in no certain order.
    struct Results([UnsafeCell<u32>; 2]);

    // SAFETY: what the tests are about; loom's cells tell of every access that is not ordered.
    unsafe impl Sync for Results {}

    impl Results {
        fn new() -> Self {
            Self([UnsafeCell::new(0), UnsafeCell::new(0)])
        }

        fn write(&self, at: usize) {
            // SAFETY: loom lets the test fail if anybody else is at it.
            self.0[at].with_mut(|value| unsafe { *value += 1 });
        }

        fn read(&self) -> [u32; 2] {
            // SAFETY: as above.
            [0, 1].map(|at| self.0[at].with(|value| unsafe { *value }))
        }
    }

    struct Shared {
        count: Count<Modelled>,
        /// The pieces that nobody has begun.
        pieces: Mutex<Vec<usize>>,
        results: Results,
        /// What is borrowed for those who are counted.
        borrowed: UnsafeCell<bool>,
    }

    // SAFETY: as of `Results`.
    unsafe impl Sync for Shared {}

    impl Shared {
        fn look_at_what_is_borrowed(&self) {
            // SAFETY: as in `Results::write`.
            self.borrowed.with(|there| assert!(unsafe { *there }));
        }
    }

    fn shared(counted: usize) -> Arc<Shared> {
        let count = Count(Modelled::new(counted));
        let borrowed = UnsafeCell::new(true);
        Arc::new(Shared { count, pieces: Mutex::new(vec![0, 1]), results: Results::new(), borrowed })
    }

    /// As threads.rs copies: all pieces are counted from the beginning, helpers and the caller take them, and the caller waits for all; those
    /// that are left if it has to end early are nobody's.
    fn heap(takes: usize) {
        loom::model(move || {
            let all = shared(2);
            let work = |all: &Shared| {
                let Some(piece) = all.pieces.lock().unwrap().pop() else { return };
                let _done = all.count.counted();
                all.results.write(piece);
            };
            let its = all.clone();
            let helper = thread::spawn(move || work(&its));
            (0..takes).for_each(|_| work(&all));
            let untaken = std::mem::take(&mut *all.pieces.lock().unwrap()).len();
            all.count.less(untaken);
            all.count.wait_for_none();
            let written: u32 = all.results.read().iter().sum();
            assert_eq!(written as usize, 2 - untaken);
            helper.join().unwrap();
        });
    }

    #[test]
    fn who_waits_for_all_pieces_sees_what_was_made_of_them() {
        heap(2);
    }

    #[test]
    fn who_ends_early_sees_what_was_begun() {
        heap(0);
        heap(1);
    }

    /// As share.rs lends: helpers are counted under the lock under which they find something left, and the owner, who computes some of it or none,
    /// takes away what is left before it waits.
    fn lent(finishes: bool) {
        loom::model(move || {
            let all = shared(0);
            let work = |all: &Shared| {
                let _busy = {
                    let pieces = all.pieces.lock().unwrap();
                    if pieces.is_empty() {
                        return;
                    }
                    all.count.begin()
                };
                all.look_at_what_is_borrowed();
                loop {
                    let Some(piece) = all.pieces.lock().unwrap().pop() else { break };
                    all.results.write(piece);
                }
                all.look_at_what_is_borrowed();
            };
            let its = all.clone();
            let helper = thread::spawn(move || work(&its));
            if finishes {
                work(&all);
            }
            let left = std::mem::take(&mut *all.pieces.lock().unwrap());
            all.count.wait_for_none();
            // Its own from here on.
            // SAFETY: as in `Results::write`.
            all.borrowed.with_mut(|there| unsafe { *there = false });
            left.iter().for_each(|&piece| all.results.write(piece));
            assert_eq!(all.results.read(), [1, 1]);
            helper.join().unwrap();
        });
    }

    #[test]
    fn who_takes_back_what_it_lent_is_alone_with_it() {
        lent(false);
        lent(true);
    }
}
