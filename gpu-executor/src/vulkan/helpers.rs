//! Threads that help: to copy, which others wait for, and to compute what they are lent when there is nothing to copy.
//!
//! To wake a sleeping thread takes 30 us and more, and some microseconds of whoever wakes it. So those who are wanted are called
//! together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
// Not parking_lot's: its condition variable has those whom it wakes wake each other, one by one.
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

/// Work that any number of threads do piece by piece.
pub(super) trait Work: Send + Sync {
    /// Does pieces until there are none left to begin, and tells so. What is lent also ends, with false, when `to_copy` says that there is
    /// something to copy.
    fn work(&self, to_copy: &dyn Fn() -> bool) -> bool;
}

/// The threads; ended and joined when this is dropped.
pub(super) struct Helpers {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

struct Inner {
    state: Mutex<State>,
    called: Condvar,
    /// Whether there are heaps, for who does not hold the lock.
    to_copy: AtomicBool,
}

#[derive(Default)]
struct State {
    /// What may have pieces to copy.
    heaps: Vec<Arc<dyn Work>>,
    /// What may have pieces to compute.
    lent: Vec<Arc<dyn Work>>,
    /// Helpers that sleep and have not been called.
    asleep: usize,
    /// Helpers that have been called and have not heard it yet.
    calls: usize,
    stop: bool,
}

impl Helpers {
    /// At most so many threads; `None` if the system gives none.
    pub(super) fn new(number: usize) -> Option<Self> {
        let inner = Arc::new(Inner { state: Mutex::default(), called: Condvar::new(), to_copy: AtomicBool::new(false) });
        let start = |number: usize| {
            let its = inner.clone();
            let thread = std::thread::Builder::new().name(format!("bls12-helper-{number}")).spawn(move || its.serve());
            thread.inspect_err(|error| tracing::warn!(%error, "copying and computing with fewer threads")).ok()
        };
        let threads: Vec<_> = (0..number).map_while(start).collect();
        (!threads.is_empty()).then_some(Self { inner, threads })
    }

    /// Has so many helpers, if not others anyway, take pieces of a heap, until it is withdrawn.
    pub(super) fn offer(&self, heap: Arc<dyn Work>, wanted: usize) {
        let mut state = self.inner.lock();
        state.heaps.push(heap);
        self.inner.to_copy.store(true, Relaxed);
        self.call(state, wanted);
    }

    /// Has all helpers that have nothing to copy take pieces of it, until it is withdrawn.
    pub(super) fn lend(&self, work: Arc<dyn Work>) {
        let mut state = self.inner.lock();
        state.lent.push(work);
        self.call(state, self.threads.len());
    }

    fn call(&self, mut state: MutexGuard<State>, wanted: usize) {
        // As many as are wanted and not awake.
        let awake = self.threads.len() - state.asleep;
        let more = wanted.saturating_sub(awake).min(state.asleep);
        state.asleep -= more;
        state.calls += more;
        drop(state);
        if 2 * more > self.threads.len() {
            // At once; those who were not meant sleep on.
            self.inner.called.notify_all();
        } else {
            (0..more).for_each(|_| self.inner.called.notify_one());
        }
    }

    pub(super) fn withdraw(&self, work: &Arc<impl Work>) {
        self.inner.withdraw(&mut self.inner.lock(), Arc::as_ptr(work).cast());
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.inner.lock().stop = true;
        self.inner.called.notify_all();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// Spins first: those who are called come all at the same time, and each needs it for a moment. Nothing that can panic runs
    /// under it.
    fn lock(&self) -> MutexGuard<'_, State> {
        const SPINS: usize = 1000;
        for _ in 0..SPINS {
            match self.state.try_lock() {
                Ok(state) => return state,
                Err(TryLockError::Poisoned(state)) => return state.into_inner(),
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn withdraw(&self, state: &mut State, work: *const ()) {
        for all in [&mut state.heaps, &mut state.lent] {
            all.retain(|other| Arc::as_ptr(other).cast() != work);
        }
        self.to_copy.store(!state.heaps.is_empty(), Relaxed);
    }

    /// A thread's work.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.stop {
            if let Some(work) = state.heaps.last().or(state.lent.last()).cloned() {
                drop(state);
                let to_copy = || self.to_copy.load(Relaxed);
                let done = catch_unwind(AssertUnwindSafe(|| work.work(&to_copy)));
                // As rayon does with what it is given. Whoever waits for the piece would take it for done.
                let done = done.unwrap_or_else(|_| std::process::abort());
                state = self.lock();
                if done {
                    self.withdraw(&mut state, Arc::as_ptr(&work).cast());
                }
                continue;
            }
            state.asleep += 1;
            let uncalled = |state: &mut State| state.calls == 0 && !state.stop;
            state = self.called.wait_while(state, uncalled).unwrap_or_else(PoisonError::into_inner);
            state.calls = state.calls.saturating_sub(1);
        }
    }
}
