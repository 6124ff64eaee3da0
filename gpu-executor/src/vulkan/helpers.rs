//! Threads that help to copy, and stay for as long as a job may need them.
//!
//! To wake a sleeping thread takes 30 us and more, and some microseconds of whoever wakes it. A job needs help several times, with
//! pauses in which the device is at work. So its helpers are called once, together, when it begins; then they look for work until
//! it ends, or has had none for them for a while, or somebody else wants the cores.

use super::threads::Heap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{
    AtomicUsize,
    Ordering::{Acquire, Relaxed, Release},
};
// Not parking_lot's: its condition variable has those whom it wakes wake each other, one by one.
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The threads; ended and joined when this is dropped.
pub(super) struct Helpers {
    inner: Arc<Inner>,
    threads: Vec<JoinHandle<()>>,
}

struct Inner {
    state: Mutex<State>,
    called: Condvar,
    /// Heaps that have come so far: who stays watches it.
    heaps: AtomicUsize,
    /// Jobs under way that helpers stay for.
    jobs: AtomicUsize,
    /// Those who want the cores for something else.
    others: AtomicUsize,
    /// How long a helper stays without work.
    patience: Duration,
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

/// A number that is higher by one until this is dropped.
#[must_use]
pub(super) struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn new(number: &'a AtomicUsize) -> Self {
        number.fetch_add(1, Relaxed);
        Self(number)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Helpers {
    /// At most so many threads; `None` if the system gives none.
    pub(super) fn new(number: usize, patience: Duration) -> Option<Self> {
        let inner = Arc::new(Inner {
            state: Mutex::default(),
            called: Condvar::new(),
            heaps: AtomicUsize::new(0),
            jobs: AtomicUsize::new(0),
            others: AtomicUsize::new(0),
            patience,
        });
        let start = |number: usize| {
            let its = inner.clone();
            let thread = std::thread::Builder::new().name(format!("bls12-copy-{number}")).spawn(move || its.serve());
            thread.inspect_err(|error| tracing::warn!(%error, "copying with fewer threads")).ok()
        };
        let threads: Vec<_> = (0..number).map_while(start).collect();
        (!threads.is_empty()).then_some(Self { inner, threads })
    }

    pub(super) fn number(&self) -> usize {
        self.threads.len()
    }

    /// Calls so many helpers, who stay for a job until the answer is dropped.
    pub(super) fn stay(&self, wanted: usize) -> Counted<'_> {
        let staying = Counted::new(&self.inner.jobs);
        self.call(self.inner.lock(), wanted);
        staying
    }

    /// Nobody stays until the answer is dropped.
    pub(super) fn dismiss(&self) -> Counted<'_> {
        Counted::new(&self.inner.others)
    }

    /// Has so many helpers, if not others anyway, take pieces of a heap, until it is withdrawn.
    pub(super) fn offer(&self, heap: Arc<Heap>, wanted: usize) {
        let mut state = self.inner.lock();
        state.heaps.push(heap);
        self.inner.heaps.fetch_add(1, Release);
        self.call(state, wanted);
    }

    pub(super) fn withdraw(&self, heap: &Arc<Heap>) {
        self.inner.lock().withdraw(heap);
    }

    /// Wakes as many as are wanted and not awake.
    fn call(&self, mut state: MutexGuard<State>, wanted: usize) {
        let awake = self.number() - state.asleep;
        let more = wanted.saturating_sub(awake).min(state.asleep);
        state.asleep -= more;
        state.calls += more;
        drop(state);
        if 2 * more > self.number() {
            // At once; those who were not meant sleep on.
            self.inner.called.notify_all();
        } else {
            (0..more).for_each(|_| self.inner.called.notify_one());
        }
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
    /// Spins first: those who stayed come all at the same time, and each needs it for a moment. Nothing that can panic runs
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
            let heaps = self.heaps.load(Relaxed);
            drop(state);
            self.watch(heaps);
            state = self.lock();
            if state.heaps.is_empty() && !state.stop {
                state.asleep += 1;
                let uncalled = |state: &mut State| state.calls == 0 && !state.stop;
                state = self.called.wait_while(state, uncalled).unwrap_or_else(PoisonError::into_inner);
                state.calls = state.calls.saturating_sub(1);
            }
        }
    }

    /// Waits for another heap, as long as it is worth while. Where several jobs are under way, their own threads are what
    /// the cores are for.
    fn watch(&self, heaps: usize) {
        let start = Instant::now();
        while self.heaps.load(Acquire) == heaps
            && self.jobs.load(Relaxed) == 1
            && self.others.load(Relaxed) == 0
            && start.elapsed() < self.patience
        {
            std::hint::spin_loop();
        }
    }
}
