//! Chunks that came out: others look at them while the device, and who feeds it, are at work on the next.
//!
//! If all threads checked a chunk together, they would wait for the slowest of them chunk after chunk: on one of the H200's machines 2^24
//! products of Fq were checked in 83 ms in one piece, in 98 to 103 in eight, 16 or 64 of them.

use super::Threads;
use super::profiler::Profiler;
use super::run::{Landed, Watch};
use crate::Stage;
use parking_lot::{Condvar, Mutex};
use std::ops::Range;
use std::time::Duration;

/// Chunks of a job that others look at or are to look at: enough that they are never without, few enough that other callers' checks, which come
/// behind them, do not wait for long. H200, 2^24 products of Fq: 103 ms pinned and 148 pageable with eight, 123 and 207 with four, 108 and 152
/// with as many as come.
const MOST: usize = 8;

/// And more only if none was looked at for so long. Whom a thread wakes, with a ticket's result, may on that thread wait for memory that a job
/// holds: so no job waits for the threads for ever.
const PATIENCE: Duration = Duration::from_millis(100);

/// Where a job's chunks land.
pub(super) struct Landing<'p, 's, W: Watch> {
    pub(super) watch: &'s W,
    pub(super) threads: &'s Threads,
    /// Who looks at them later; if nobody does, the caller does at once.
    pub(super) later: Option<&'p rayon::Scope<'s>>,
    pub(super) objections: &'s Objections<W::Error>,
    pub(super) profiler: &'s Profiler,
}

/// What is wrong with chunks that landed.
pub(super) struct Objections<E> {
    state: Mutex<State<E>>,
    looked: Condvar,
}

struct State<E> {
    /// Of the first chunk that something is wrong with.
    first: Option<(usize, E)>,
    /// Chunks that others look at or are to look at.
    under_way: usize,
}

/// Counts a chunk as looked at, also if that panicked.
struct Looked<'s, E>(&'s Objections<E>);

impl<W: Watch> Copy for Landing<'_, '_, W> {}

impl<W: Watch> Clone for Landing<'_, '_, W> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'s, W: Watch> Landing<'_, 's, W> {
    /// Has somebody look at a chunk; waits while too many are to be looked at.
    pub(super) fn lands(&self, range: Range<usize>, results: Landed<'s>) {
        let (watch, threads, objections) = (self.watch, self.threads, self.objections);
        let look = move || {
            let start = range.start;
            if !objections.any_before(start)
                && let Err(error) = watch.lands(range, results, threads)
            {
                objections.raise(start, error);
            }
        };
        match self.later {
            Some(scope) => {
                let looked = objections.begin(self.profiler);
                scope.spawn(move |_| {
                    let _looked = looked;
                    look();
                });
            }
            None => look(),
        }
    }

    /// Whether something is known to be wrong, so that nothing comes of chunks that are begun now.
    pub(super) fn is_over(&self) -> bool {
        self.objections.any_before(usize::MAX)
    }
}

impl<E> Objections<E> {
    pub(super) const fn new() -> Self {
        Self { state: Mutex::new(State { first: None, under_way: 0 }), looked: Condvar::new() }
    }

    /// Waits, for a while, until there is room for one more chunk to be looked at. Only who looks at none may wait here.
    fn begin(&self, profiler: &Profiler) -> Looked<'_, E> {
        let mut state = self.state.lock();
        if state.under_way >= MOST {
            let _timed = profiler.timed(Stage::Wait, 0);
            self.looked.wait_while_for(&mut state, |state| state.under_way >= MOST, PATIENCE);
        }
        state.under_way += 1;
        Looked(self)
    }

    /// Whether there is one to a chunk that begins before an element.
    fn any_before(&self, start: usize) -> bool {
        self.state.lock().first.as_ref().is_some_and(|(first, _)| *first < start)
    }

    fn raise(&self, start: usize, error: E) {
        let first = &mut self.state.lock().first;
        if first.as_ref().is_none_or(|(first, _)| start < *first) {
            *first = Some((start, error));
        }
    }

    /// The one to the first chunk.
    pub(super) fn into_first(self) -> Result<(), E> {
        self.state.into_inner().first.map_or(Ok(()), |(_, error)| Err(error))
    }
}

impl<E> Drop for Looked<'_, E> {
    fn drop(&mut self) {
        self.0.state.lock().under_way -= 1;
        self.0.looked.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    /// Objects to chunks that begin here; or panics at all of them.
    struct To<'a> {
        starts: &'a [usize],
        panics: bool,
        looked: AtomicUsize,
    }

    impl Watch for To<'_> {
        type Error = Error;

        fn inspects(&self) -> bool {
            false
        }

        fn admits(&self, _: usize, _: &[u8]) -> bool {
            true
        }

        fn checks(&self) -> bool {
            true
        }

        fn objection(&self, _: Range<usize>, _: &Threads) -> Error {
            Error::Lost { during: "a test" }
        }

        fn lands(&self, range: Range<usize>, mut results: Landed, _: &Threads) -> Result<(), Error> {
            results.iter_mut().flatten().for_each(|bytes| bytes.fill(1));
            self.looked.fetch_add(1, Relaxed);
            assert!(!self.panics, "as it was asked to");
            match self.starts.contains(&range.start) {
                true => Err(Error::OutOfMemory { during: "a test", needed: range.start as u64, available: 0 }),
                false => Ok(()),
            }
        }

        fn computes(&self, _: Range<usize>, _: Landed) -> bool {
            false
        }
    }

    fn to(starts: &[usize]) -> To<'_> {
        To { starts, panics: false, looked: AtomicUsize::new(0) }
    }

    /// Lands chunks of ten elements; what of the first one to which there was an objection, and how many were looked at.
    fn land(threads: &Threads, (chunks, later): (usize, bool), watch: &To) -> (Option<u64>, usize) {
        let mut bytes = vec![0; 10 * chunks];
        let (objections, profiler) = (Objections::new(), Profiler::default());
        threads.scope(later, |later| {
            assert!(later.is_some() || rayon::current_thread_index().is_some() || chunks == 1);
            let landing = Landing { watch, threads, later, objections: &objections, profiler: &profiler };
            for (number, chunk) in bytes.chunks_mut(10).enumerate() {
                landing.lands(10 * number..10 * (number + 1), [None, None, None, Some(chunk)]);
            }
        });
        assert_eq!(objections.state.lock().under_way, 0);
        let first = match objections.into_first() {
            Err(Error::OutOfMemory { needed, .. }) => Some(needed),
            other => other.map(|()| None).unwrap(),
        };
        let sound = first.map_or(bytes.len(), |start| start as usize);
        assert!(bytes[..sound].iter().all(|&byte| byte == 1));
        (first, watch.looked.load(Relaxed))
    }

    #[test]
    fn no_more_are_to_be_looked_at_than_the_bound() {
        let (objections, profiler) = (Objections::<()>::new(), Profiler::default());
        let held: Vec<_> = (0..MOST).map(|_| objections.begin(&profiler)).collect();
        assert_eq!(objections.state.lock().under_way, MOST);
        std::thread::scope(|scope| {
            scope.spawn(|| drop(objections.begin(&profiler)));
            drop(held);
        });
        // Nobody has looked for too long.
        let held: Vec<_> = (0..=MOST).map(|_| objections.begin(&profiler)).collect();
        assert_eq!(objections.state.lock().under_way, MOST + 1);
        drop(held);
        assert_eq!(objections.state.lock().under_way, 0);
    }

    #[test]
    fn of_several_chunks_the_first_objection_counts_whoever_comes_to_it_first() {
        let threads = Threads::default();
        for _ in 0..50 {
            assert_eq!(land(&threads, (40, true), &to(&[])), (None, 40));
            assert_eq!(land(&threads, (40, true), &to(&[130, 70, 390])).0, Some(70));
            assert_eq!(land(&threads, (1, false), &to(&[0])), (Some(0), 1));
        }
    }

    #[test]
    fn a_rayon_worker_looks_itself_and_not_at_what_comes_behind_an_objection() {
        let (threads, pool) = (Threads::default(), rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap());
        pool.install(|| assert_eq!(land(&threads, (40, true), &to(&[130, 70])), (Some(70), 8)));
    }

    #[test]
    fn a_panic_of_who_looks_reaches_the_caller_when_all_have_looked() {
        let threads = Threads::default();
        let watch = To { panics: true, ..to(&[]) };
        let land = std::panic::AssertUnwindSafe(|| land(&threads, (40, true), &watch));
        assert!(std::panic::catch_unwind(land).is_err());
        assert_eq!(watch.looked.into_inner(), 40);
    }
}
