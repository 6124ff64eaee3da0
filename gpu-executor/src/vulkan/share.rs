//! What the CPU computes of a job: chunks for the device are cut from the front, and helpers that have nothing to copy take pieces from the
//! end, until there is nothing between them.

use super::count::{Count, Done};
use super::helpers::{Helpers, Work};
use super::profiler::Timed;
use super::run::Landed;
use crate::job::SLOTS;
use parking_lot::Mutex;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Computes elements on the CPU.
pub(super) trait Compute: Sync {
    /// What a thread holds while it computes one piece after the other.
    fn timed(&self) -> Option<Timed<'_>>;

    /// Computes elements into where their results go; whether they may go in.
    fn compute(&self, range: Range<usize>, results: Landed) -> bool;
}

/// The elements of a job that nobody has begun.
struct Rest<'a> {
    range: Range<usize>,
    results: Landed<'a>,
    /// Bytes per element of each slot.
    widths: [usize; SLOTS],
}

impl<'a> Rest<'a> {
    /// The first of them, at most so many.
    fn front(&mut self, most: usize) -> Option<(Range<usize>, Landed<'a>)> {
        let elements = most.min(self.range.len());
        let cut = self.range.start + elements;
        let range = std::mem::replace(&mut self.range.start, cut)..cut;
        (!range.is_empty()).then(|| (range, self.cut(elements, true)))
    }

    /// The last of them, at most so many.
    fn back(&mut self, most: usize) -> Option<(Range<usize>, Landed<'a>)> {
        let left = self.range.len() - most.min(self.range.len());
        let cut = self.range.start + left;
        let range = cut..std::mem::replace(&mut self.range.end, cut);
        (!range.is_empty()).then(|| (range, self.cut(left, false)))
    }

    /// Cuts the results behind so many elements, and takes the first part, or the second one.
    fn cut(&mut self, elements: usize, first: bool) -> Landed<'a> {
        let mut taken: Landed = [const { None }; SLOTS];
        for ((taken, result), width) in taken.iter_mut().zip(&mut self.results).zip(self.widths) {
            if let Some(whole) = result.take() {
                let (front, back) = whole.split_at_mut(elements * width);
                let (this, other) = if first { (front, back) } else { (back, front) };
                (*taken, *result) = (Some(this), Some(other));
            }
        }
        taken
    }
}

/// A job as it is cut up. When it is dropped, nobody computes any of it any more.
pub(super) struct Cutting<'a> {
    lent: Arc<Lent>,
    helpers: Option<&'a Helpers>,
    borrows: PhantomData<Rest<'a>>,
}

/// What helpers take pieces of.
struct Lent {
    rest: Mutex<Rest<'static>>,
    /// Elements of a piece.
    piece: usize,
    /// Threads that take pieces.
    busy: Count,
    /// Elements that the CPU has begun.
    begun: AtomicUsize,
    /// Where the first piece begins of which something may not go in; else the largest number.
    objection: AtomicUsize,
    computer: *const (dyn Compute + 'static),
}

// SAFETY: what `computer` points to is `Sync`. It is used by threads that are counted as busy only, and `Cutting`, which borrows it, takes
// away what is left, so that nobody becomes busy any more, and waits for these, before it is gone.
unsafe impl Send for Lent {}
// SAFETY: as above.
unsafe impl Sync for Lent {}

impl<'a> Cutting<'a> {
    /// So many elements, whose results go to these slices, of so many bytes an element. Helpers, if there are any, take so many elements
    /// at a time from the end. A panic of `computer` ends the process, if it was on a helper.
    ///
    /// # Safety
    /// It must be dropped (and not forgotten) before what it borrows is gone.
    pub(super) unsafe fn new(
        elements: usize,
        (results, widths): (Landed<'a>, [usize; SLOTS]),
        helpers: Option<(&'a Helpers, usize)>,
        computer: &'a dyn Compute,
    ) -> Self {
        let rest = Rest { range: 0..elements, results, widths };
        // SAFETY: only lifetimes change. What is borrowed is touched by who takes some of `rest`: `front` gives it for 'a, and `drop`
        // takes what is left away, so that nobody can begin, and waits for those who have begun.
        let (rest, computer) = unsafe {
            let computer = std::mem::transmute::<*const (dyn Compute + 'a), *const (dyn Compute + 'static)>(computer);
            (std::mem::transmute::<Rest<'a>, Rest<'static>>(rest), computer)
        };
        let lent = Arc::new(Lent {
            rest: Mutex::new(rest),
            piece: helpers.map_or(1, |(_, piece)| piece.max(1)),
            busy: Count::new(0),
            begun: AtomicUsize::new(0),
            objection: AtomicUsize::new(usize::MAX),
            computer,
        });
        let cutting = Self { lent, helpers: helpers.map(|(helpers, _)| helpers), borrows: PhantomData };
        if let Some(helpers) = cutting.helpers {
            helpers.lend(cutting.lent.clone());
        }
        cutting
    }

    /// The next elements for the device, at most so many, if the CPU has not begun them.
    pub(super) fn front(&self, most: usize) -> Option<(Range<usize>, Landed<'a>)> {
        self.lent.rest.lock().front(most)
    }

    /// Computes what is left and waits for the helpers. How many elements the CPU has computed; or the first piece of which something may
    /// not go in.
    pub(super) fn finish(&self) -> Result<usize, Range<usize>> {
        self.lent.work(&|| false);
        self.lent.busy.wait_for_none();
        match self.lent.objection.load(Relaxed) {
            usize::MAX => Ok(self.lent.begun.load(Relaxed)),
            start => Err(start..start + self.lent.piece),
        }
    }
}

impl Drop for Cutting<'_> {
    fn drop(&mut self) {
        self.lent.rest.lock().front(usize::MAX);
        if let Some(helpers) = self.helpers {
            helpers.withdraw(&self.lent);
        }
        self.lent.busy.wait_for_none();
    }
}

impl Lent {
    /// Counts a thread as busy, if there is something to do.
    fn begin(&self) -> Option<Done<'_>> {
        // Under the lock: who has taken away what is left sees everybody who found something.
        let rest = self.rest.lock();
        (!rest.range.is_empty()).then(|| self.busy.begin())
    }
}

impl Work for Lent {
    fn work(&self, to_copy: &dyn Fn() -> bool) -> bool {
        let Some(_busy) = self.begin() else { return true };
        // SAFETY: `Cutting`, which borrows it, is there as long as a thread is counted as busy.
        let computer = unsafe { &*self.computer };
        let _timed = computer.timed();
        while !to_copy() {
            let Some((range, results)) = self.rest.lock().back(self.piece) else { return true };
            self.begun.fetch_add(range.len(), Relaxed);
            let start = range.start;
            if !computer.compute(range, results) {
                self.objection.fetch_min(start, Relaxed);
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Adds 1 to bytes; objects to some elements.
    struct Increments<'a>(&'a [usize]);

    impl Compute for Increments<'_> {
        fn timed(&self) -> Option<Timed<'_>> {
            None
        }

        fn compute(&self, range: Range<usize>, mut results: Landed) -> bool {
            assert!(results[0].is_none() && results[2].is_none());
            assert_eq!(results[1].as_ref().unwrap().len(), 3 * range.len());
            assert_eq!(results[3].as_ref().unwrap().len(), range.len());
            results.iter_mut().flatten().flat_map(|bytes| bytes.iter_mut()).for_each(|byte| *byte += 1);
            !self.0.iter().any(|element| range.contains(element))
        }
    }

    fn cut(length: usize, piece: usize, helpers: &Helpers, chunks: &[usize], bad: &[usize]) -> Result<usize, Range<usize>> {
        let (mut three, mut one) = (vec![0; 3 * length], vec![0; length]);
        let computer = Increments(bad);
        let done = {
            let results = [None, Some(&mut three[..]), None, Some(&mut one[..])];
            // SAFETY: it is dropped here.
            let cutting = unsafe { Cutting::new(length, (results, [0, 3, 0, 1]), Some((helpers, piece)), &computer) };
            for &chunk in chunks {
                if let Some((range, results)) = cutting.front(chunk) {
                    assert!(range.len() <= chunk);
                    computer.compute(range, results);
                }
            }
            cutting.finish()
        };
        // All of them, and each once.
        assert!(three.iter().chain(&one).all(|&byte| byte == 1));
        done
    }

    #[test]
    fn every_element_is_computed_once_by_somebody() {
        let helpers = Helpers::new(7).unwrap();
        for length in [1, 2, 63, 64, 65, 1000, 4097] {
            for piece in [1, 64, 5000] {
                assert_eq!(cut(length, piece, &helpers, &[], &[]), Ok(length));
                let by_cpu = cut(length, piece, &helpers, &[1, length / 3, 7], &[]).unwrap();
                assert!(by_cpu <= length);
                // What the CPU has not begun is the device's.
                let by_cpu = cut(length, piece, &helpers, &[0, length], &[]).unwrap();
                assert!(by_cpu.is_multiple_of(piece) || by_cpu == length);
            }
        }
    }

    #[test]
    fn the_first_piece_that_may_not_go_in_is_told() {
        let helpers = Helpers::new(3).unwrap();
        assert_eq!(cut(1000, 100, &helpers, &[], &[950, 310, 999]), Err(300..400));
        assert_eq!(cut(1000, 100, &helpers, &[], &[5]), Err(0..100));
    }

    #[test]
    fn several_callers_lend_at_once_and_some_leave_early() {
        let helpers = Helpers::new(4).unwrap();
        std::thread::scope(|scope| {
            for caller in 0..4 {
                let helpers = &helpers;
                scope.spawn(move || {
                    for round in 0..50 {
                        assert_eq!(cut(500 + caller, 10 + round, helpers, &[], &[]), Ok(500 + caller));
                        let mut bytes = vec![0u8; 4096];
                        let results = [None, None, None, Some(&mut bytes[..])];
                        struct Once;
                        impl Compute for Once {
                            fn timed(&self) -> Option<Timed<'_>> {
                                None
                            }
                            fn compute(&self, _: Range<usize>, mut results: Landed) -> bool {
                                results[3].as_mut().unwrap().iter_mut().for_each(|byte| *byte += 1);
                                true
                            }
                        }
                        // SAFETY: as above.
                        drop(unsafe { Cutting::new(4096, (results, [0, 0, 0, 1]), Some((helpers, 64)), &Once) });
                        // Some of them may be computed, from the end; now nobody is at it any more.
                        let untouched = bytes.iter().position(|&byte| byte == 1).unwrap_or(bytes.len());
                        assert!(bytes[untouched..].iter().all(|&byte| byte == 1));
                    }
                });
            }
        });
    }
}
