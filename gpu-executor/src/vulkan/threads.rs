//! The device's own threads, and copying between the caller's slices and memory that the device sees.

use rayon::prelude::*;
use std::fmt;
use std::sync::OnceLock;

/// Threads that copy between the caller's slices and memory that the device sees, and check results meanwhile.
///
/// One thread moves 10 to 17 GB/s, less than a PCIe slot does; on the H200's machine 16 threads move up to 180. The pool is the
/// device's own, and its threads never wait for anything: a caller copies while it holds a share of the memory limit, which
/// the threads of the caller's pool may all be waiting for. For the same reason a caller that is itself a rayon worker copies
/// alone: a worker that waits for another pool meanwhile runs tasks of its own, and one of these could wait for what the
/// worker holds.
#[derive(Default)]
pub struct Threads {
    /// Made when first needed; `None` if the system gives no threads: then callers copy alone.
    pool: OnceLock<Option<rayon::ThreadPool>>,
}

/// Whether the copied bytes are next read by the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Towards {
    Device,
    Caller,
}

impl Threads {
    fn pool(&self) -> Option<&rayon::ThreadPool> {
        let make = || {
            let threads = std::thread::available_parallelism().map_or(1, usize::from).min(16);
            let builder = rayon::ThreadPoolBuilder::new().num_threads(threads).thread_name(|n| format!("bls12-copy-{n}"));
            builder.build().inspect_err(|error| tracing::warn!(%error, "copying with one thread")).ok()
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

    /// Makes all copies, each to a slice that is at least as long; the number of bytes.
    pub(super) fn copy(&self, copies: Vec<(&mut [u8], &[u8])>, towards: Towards) -> u64 {
        /// Below this, waking the threads takes longer than copying: 16 threads take 20 to 30 us for anything up to 1 MiB.
        const ALONE: usize = 384 << 10;
        /// From 32 to 128 KiB make no difference on the H200; 512 KiB leaves threads idle.
        const PIECE: usize = 64 << 10;
        /// What the CPU writes for the device must not stay in a core's cache: the H200 fetches it from there at 5 to 20 GB/s,
        /// and at 40 to 50 from memory. What nobody reads before it is gone from the caches need not go there either.
        const STREAM: [usize; 2] = [64 << 10, 64 << 20];
        let bytes = copies.iter().map(|(_, from)| from.len()).sum::<usize>();
        let copy: fn(&mut [u8], &[u8]) =
            if bytes >= STREAM[towards as usize] { copy_past_caches } else { |to, from| to.copy_from_slice(from) };
        let alone = bytes <= ALONE || rayon::current_thread_index().is_some();
        match if alone { None } else { self.pool() } {
            None => copies.into_iter().for_each(|(to, from)| copy(&mut to[..from.len()], from)),
            Some(pool) => {
                let pieces: Vec<_> = copies
                    .into_iter()
                    .flat_map(|(to, from)| to[..from.len()].chunks_mut(PIECE).zip(from.chunks(PIECE)))
                    .collect();
                pool.install(|| pieces.into_par_iter().for_each(|(to, from)| copy(to, from)));
            }
        }
        bytes as u64
    }
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
