//! The device's own threads, and copying between the caller's slices and memory that the device sees.

use super::count::Count;
use super::helpers::{Helpers, Work};
use parking_lot::Mutex;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Threads that copy between the caller's slices and memory that the device sees, and check results meanwhile.
///
/// One thread moves 10 to 17 GB/s, less than a PCIe slot does; on the H200's machine 16 threads move up to 180. The threads are
/// the device's own, and never wait for anything: a caller copies while it holds a share of the memory limit, which
/// the threads of the caller's pool may all be waiting for. For the same reason a caller that is itself a rayon worker copies
/// alone: a worker that waits for another pool meanwhile runs tasks of its own, and one of these could wait for what the
/// worker holds.
#[derive(Default)]
pub struct Threads {
    /// What checks. Made when first needed, as the helpers are; `None` if the system gives no threads: then callers work alone.
    pool: OnceLock<Option<rayon::ThreadPool>>,
    /// What copies, and computes what it is lent.
    helpers: OnceLock<Option<Helpers>>,
}

/// Whether the copied bytes are next read by the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Towards {
    Device,
    Caller,
}

/// Part of a slot of a job on its way in: looked at and, if there is a target, which is at least as long, copied.
pub(super) struct Entering<'a> {
    pub(super) slot: usize,
    pub(super) from: &'a [u8],
    pub(super) to: Option<&'a mut [u8]>,
}

/// Below this, waking the threads takes longer than copying.
const ALONE: usize = 128 << 10;

/// What a thread does at a time; a whole number of elements of either field. On the H200's machine 65536 additions from host
/// memory take 270 to 300 us in pieces of 72 to 144 KiB, some 15 more of 48, and 370 of 36 and 480 of 24, when waking the many
/// threads for the many pieces begins to show.
const PIECE: usize = 72 << 10;
const _: () = assert!(PIECE.is_multiple_of(32) && PIECE.is_multiple_of(48));

/// The most helpers that are woken only to look at what the device reads at the same time: enough to be faster than it, and no more,
/// since they take host memory's bandwidth from it. H200, Fq add of 2^24 pinned elements, G a second: 0.46 with 4, 0.495 with 6, 0.502
/// with 8, 0.498 with 15; 0.504 if nobody looks.
const INSPECTORS: usize = 8;

/// The bytes from which on copies to the device, and to the caller, go past the caches. What the CPU writes for the device must
/// not stay in a core's cache: the H200 fetches it from there at 5 to 20 GB/s, and at 40 to 50 from memory. What nobody reads
/// before it is gone from the caches need not go there either.
const PAST_CACHES: [usize; 2] = [64 << 10, 64 << 20];

impl Threads {
    fn pool(&self) -> Option<&rayon::ThreadPool> {
        let make = || {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let builder = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("bls12-check-{n}"));
            builder.build().inspect_err(|error| tracing::warn!(%error, "checking with one thread")).ok()
        };
        self.pool.get_or_init(make).as_ref()
    }

    /// Runs `work`, which may use rayon, on these threads; at once, on the caller's, if that is a rayon worker.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let alone = rayon::current_thread_index().is_some();
        match if alone { None } else { self.pool() } {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Runs `work` at once, on the caller's thread; what it spawns, if it is given the means, which it is if `wanted`, these threads do
    /// meanwhile, and all of it is done when this returns.
    pub(super) fn scope<'s, T>(&self, wanted: bool, work: impl FnOnce(Option<&rayon::Scope<'s>>) -> T) -> T {
        let alone = !wanted || rayon::current_thread_index().is_some();
        match if alone { None } else { self.pool() } {
            Some(pool) => pool.in_place_scope(|scope| work(Some(scope))),
            None => work(None),
        }
    }

    /// Runs `work` on one of these threads, some time; at once, on the caller's, if there are none.
    pub(super) fn spawn(&self, work: impl FnOnce() + Send + 'static) {
        match self.pool() {
            Some(pool) => pool.spawn(work),
            None => work(),
        }
    }

    /// Looks at everything that enters and copies it; whether `admits` admits every piece, given by slot and bytes.
    pub(super) fn take_in(&self, entering: Vec<Entering>, admits: &Admits) -> bool {
        let bytes: usize = entering.iter().map(|part| part.from.len()).sum();
        let most = if entering.iter().all(|part| part.to.is_none()) { INSPECTORS } else { usize::MAX };
        let pieces = entering.into_iter().flat_map(|Entering { slot, from, to }| {
            let mut targets = to.map(|to| to[..from.len()].chunks_mut(PIECE));
            let pieces = from.chunks(PIECE);
            pieces.map(move |from| Piece { slot, from, to: targets.as_mut().and_then(Iterator::next) })
        });
        self.share_out((bytes, most), pieces.collect(), copy_of(bytes, Towards::Device), admits)
    }

    /// Makes all copies, each to a slice that is at least as long; the number of bytes.
    pub(super) fn copy(&self, copies: Vec<(&mut [u8], &[u8])>, towards: Towards) -> u64 {
        let bytes = copies.iter().map(|(_, from)| from.len()).sum::<usize>();
        let pieces = copies.into_iter().flat_map(|(to, from)| {
            let pairs = to[..from.len()].chunks_mut(PIECE).zip(from.chunks(PIECE));
            pairs.map(|(to, from)| Piece { slot: 0, from, to: Some(to) })
        });
        self.share_out((bytes, usize::MAX), pieces.collect(), copy_of(bytes, towards), &|_, _| true);
        bytes as u64
    }

    /// Copies pieces and looks at them; wakes so many helpers at most.
    fn share_out(&self, (bytes, most): (usize, usize), pieces: Vec<Piece>, copy: Copy, admits: &Admits) -> bool {
        let Some(helpers) = self.helpers(bytes) else {
            return pieces.into_iter().fold(true, |all, piece| piece.take_in(copy, admits) & all);
        };
        let wanted = most.min(pieces.len() / 2);
        let left = Count::new(pieces.len());
        // SAFETY: nobody touches what the pieces and `admits` borrow after this function has returned: pieces are taken out of
        // the heap only by those who then count them as done, this function waits, also if it panics, until all are counted,
        // and whoever comes later finds the heap empty.
        let (pieces, admits) = unsafe {
            let admits = std::mem::transmute::<*const Admits<'_>, *const Admits<'static>>(admits);
            (std::mem::transmute::<Vec<Piece<'_>>, Vec<Piece<'static>>>(pieces), admits)
        };
        let pieces = Mutex::new(pieces.into_iter());
        let heap = Arc::new(Heap { pieces, left, admitted: AtomicBool::new(true), admits, copy });
        let finish = Finish(&heap);
        helpers.offer(heap.clone(), wanted);
        heap.work(&|| false);
        helpers.withdraw(&heap);
        drop(finish);
        heap.admitted.load(Relaxed)
    }

    /// Who helps to copy so many bytes.
    fn helpers(&self, bytes: usize) -> Option<&Helpers> {
        if bytes <= ALONE { None } else { self.to_compute() }
    }

    /// Who helps to compute; nobody helps a rayon worker.
    pub(super) fn to_compute(&self) -> Option<&Helpers> {
        let alone = rayon::current_thread_index().is_some();
        let make = || {
            // The caller is one more thread. More than these do not copy faster.
            let threads = std::thread::available_parallelism().map_or(1, usize::from).clamp(2, 16) - 1;
            Helpers::new(threads)
        };
        if alone { None } else { self.helpers.get_or_init(make).as_ref() }
    }
}

type Copy = fn(&mut [u8], &[u8]);
type Admits<'a> = dyn Fn(usize, &[u8]) -> bool + Sync + 'a;

/// What a thread copies and looks at at a time.
struct Piece<'a> {
    slot: usize,
    from: &'a [u8],
    to: Option<&'a mut [u8]>,
}

impl Piece<'_> {
    /// Looked at while it is copied, a piece comes from memory once.
    fn take_in(self, copy: Copy, admits: &Admits) -> bool {
        if let Some(to) = self.to {
            copy(to, self.from);
        }
        admits(self.slot, self.from)
    }
}

/// Pieces to be taken by any thread.
struct Heap {
    pieces: Mutex<std::vec::IntoIter<Piece<'static>>>,
    /// Pieces that are not done.
    left: Count,
    admitted: AtomicBool,
    admits: *const Admits<'static>,
    copy: Copy,
}

// SAFETY: what `admits` points to is `Sync`, and only `share_out` and those who take its pieces use it.
unsafe impl Send for Heap {}
// SAFETY: as above.
unsafe impl Sync for Heap {}

/// Waits until all pieces are done; those that nobody has taken are left.
struct Finish<'a>(&'a Heap);

impl Work for Heap {
    fn work(&self, _: &dyn Fn() -> bool) -> bool {
        loop {
            let Some(piece) = self.pieces.lock().next() else { return true };
            let _done = self.left.counted();
            // SAFETY: `share_out` waits for this piece, and keeps what it was given until then.
            let admits = unsafe { &*self.admits };
            if !piece.take_in(self.copy, admits) {
                self.admitted.store(false, Relaxed);
            }
        }
    }
}

impl Drop for Finish<'_> {
    fn drop(&mut self) {
        let untaken = self.0.pieces.lock().by_ref().count();
        self.0.left.less(untaken);
        self.0.left.wait_for_none();
    }
}

fn copy_of(bytes: usize, towards: Towards) -> Copy {
    if bytes >= PAST_CACHES[towards as usize] { copy_past_caches } else { |to, from| to.copy_from_slice(from) }
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Threads")
    }
}

/// Copies between slices of the same length without leaving what was written in the caches (where the processor can).
#[cfg(target_arch = "x86_64")]
fn copy_past_caches(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    /// A cache line: written whole, it goes to memory at once.
    const LINE: usize = 64;
    let head = to.as_ptr().align_offset(LINE).min(to.len());
    let body = (to.len() - head) / LINE * LINE;
    to[..head].copy_from_slice(&from[..head]);
    to[head + body..].copy_from_slice(&from[head + body..]);
    let (lines, sources) = (to[head..head + body].chunks_exact_mut(LINE), from[head..head + body].chunks_exact(LINE));
    for (line, source) in lines.zip(sources) {
        let (line, source) = (line.as_mut_ptr().cast::<__m128i>(), source.as_ptr().cast::<__m128i>());
        // SAFETY: SSE2 is part of x86-64; both pointers are good for 64 bytes, and `line` is aligned to 64.
        unsafe {
            let words = [0, 1, 2, 3].map(|n| _mm_loadu_si128(source.add(n)));
            for (n, word) in words.into_iter().enumerate() {
                _mm_stream_si128(line.add(n), word);
            }
        }
    }
    // SAFETY: no preconditions. Such stores are ordered by a fence only.
    unsafe { _mm_sfence() };
}

#[cfg(not(target_arch = "x86_64"))]
fn copy_past_caches(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    #[test]
    fn every_piece_is_copied_and_looked_at_once() {
        let threads = Threads::default();
        for length in [0, 1, ALONE, ALONE + 1, 3 * ALONE + 5] {
            let from: Vec<u8> = (0..length).map(|i| (i * 31 + i / 777) as u8).collect();
            let (mut to, seen) = (vec![0; length + 3], AtomicUsize::new(0));
            let admits = |slot: usize, piece: &[u8]| {
                assert_eq!(slot, 2);
                seen.fetch_add(piece.len(), Relaxed);
                !piece.contains(&1) || length < ALONE
            };
            let entering = vec![
                Entering { slot: 2, from: &from, to: Some(&mut to) },
                Entering { slot: 2, from: &from[..length / 2], to: None },
            ];
            assert_eq!(threads.take_in(entering, &admits), length < ALONE);
            assert_eq!((&to[..length], &to[length..], seen.into_inner()), (&from[..], &[0; 3][..], length + length / 2));
            assert_eq!(threads.copy(vec![(&mut to[1..], &from)], Towards::Caller), length as u64);
            assert_eq!(to[1..=length], from);
        }
    }

    #[test]
    fn many_callers_share_many_helpers() {
        let threads = Threads::default();
        assert!(threads.helpers.set(Helpers::new(8)).is_ok());
        std::thread::scope(|scope| {
            for caller in 1..=4u8 {
                let threads = &threads;
                scope.spawn(move || {
                    let from = vec![caller; 6 * PIECE + usize::from(caller)];
                    for _ in 0..40 {
                        let mut to = vec![0; from.len()];
                        assert_eq!(threads.copy(vec![(&mut to, &from)], Towards::Caller), from.len() as u64);
                        assert_eq!(to, from);
                    }
                });
            }
        });
    }

    #[test]
    fn past_the_caches_every_byte_arrives_and_no_other() {
        let from: Vec<u8> = (0..2000u32).map(|i| (i * 7 + i / 251) as u8).collect();
        for start in [0, 1, 15, 63, 64, 65] {
            for length in [0, 1, 16, 63, 64, 65, 127, 128, 500, 1000] {
                let mut to = vec![0xaa; 1200];
                copy_past_caches(&mut to[start..start + length], &from[3..3 + length]);
                assert_eq!(to[start..start + length], from[3..3 + length]);
                assert!(to[..start].iter().chain(&to[start + length..]).all(|&byte| byte == 0xaa));
            }
        }
    }
}
