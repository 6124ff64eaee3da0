//! Threads that help to copy.
//!
//! To wake a sleeping thread takes 30 us and more, and some microseconds of whoever wakes it. So those who are wanted are called
//! together.

use super::threads::Heap;
use std::panic::{AssertUnwindSafe, catch_unwind};
// Not parking_lot's: its condition variable has those whom it wakes wake each other, one by one.
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;

/// The threads; ended and joined when this is dropped.
pub(super) struct Helpers {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

struct Inner {
    state: Mutex<State>,
    called: Condvar,
}

#[derive(Default)]
struct State {
    /// Heaps that may have pieces.
    heaps: Vec<Arc<Heap>>,
    /// Helpers that sleep and have not been called.
    asleep: usize,
    /// Helpers that have been called and have not heard it yet.
    calls: usize,
    stop: bool,
}

impl Helpers {
    /// At most so many threads; `None` if the system gives none.
    pub(super) fn new(number: usize) -> Option<Self> {
        let inner = Arc::new(Inner { state: Mutex::default(), called: Condvar::new() });
        let start = |number: usize| {
            let its = inner.clone();
            let thread = std::thread::Builder::new().name(format!("bls12-copy-{number}")).spawn(move || its.serve());
            thread.inspect_err(|error| tracing::warn!(%error, "copying with fewer threads")).ok()
        };
        let threads: Vec<_> = (0..number).map_while(start).collect();
        (!threads.is_empty()).then_some(Self { inner, threads })
    }

    /// Has so many helpers, if not others anyway, take pieces of a heap, until it is withdrawn.
    pub(super) fn offer(&self, heap: Arc<Heap>, wanted: usize) {
        let mut state = self.inner.lock();
        state.heaps.push(heap);
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

    pub(super) fn withdraw(&self, heap: &Arc<Heap>) {
        self.inner.lock().withdraw(heap);
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

impl State {
    fn withdraw(&mut self, heap: &Arc<Heap>) {
        self.heaps.retain(|other| !Arc::ptr_eq(other, heap));
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

    /// A thread's work.
    fn serve(&self) {
        let mut state = self.lock();
        while !state.stop {
            if let Some(heap) = state.heaps.last().cloned() {
                drop(state);
                if catch_unwind(AssertUnwindSafe(|| heap.work())).is_err() {
                    // As rayon does with what it is given. Whoever waits for the piece would take it for done.
                    std::process::abort();
                }
                state = self.lock();
                state.withdraw(&heap);
                continue;
            }
            state.asleep += 1;
            let uncalled = |state: &mut State| state.calls == 0 && !state.stop;
            state = self.called.wait_while(state, uncalled).unwrap_or_else(PoisonError::into_inner);
            state.calls = state.calls.saturating_sub(1);
        }
    }
}
