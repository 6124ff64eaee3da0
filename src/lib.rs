//! BLS12-381 field arithmetic on any Vulkan GPU. Results of calls on host memory are checked on the CPU by default; chains of operations on
//! resident vectors if they are submitted by [`Recording::submit_verified`].
//!
//! ```
//! // Vectors of little-endian 64-bit limbs, six per element of the base field Fq: here one element each.
//! let a = [7, 0, 0, 0, 0, 0];
//! let b = [35, 0, 0, 0, 0, 0];
//! let sum = bls12_field_gpu::add_u64_limbs(&a, &b)?;
//! assert_eq!(sum, [42, 0, 0, 0, 0, 0]);
//! # Ok::<(), bls12_field_gpu::Error>(())
//! ```
//!
//! # Three ways in
//! 1. Free functions on limbs, in [`fq`] and [`fr`] under the same names; those of `fq` are also at the crate's root. Elements are
//!    canonical integers below the modulus, little-endian limbs, one after another.
//! 2. Free functions on arkworks' types, in [`ark`]: `&[ark_bls12_381::Fq]` or `&[Fr]`, Montgomery form inside, read where they
//!    lie.
//! 3. [`Backend`], made from [`Options`], for those who choose the device, the memory, the checking; it has all of the above as
//!    methods, and [`Backend::execute`] for calls given as data.
//!
//! The free functions use one [`backend`] for the whole process, made on first use from the environment (see [`Options`]).
//!
//! # Representation
//! | entry point | elements and scalars |
//! |---|---|
//! | [`fq`], [`fr`], [`Backend::fq`], [`Backend::fr`] | canonical integers below p, of 6 or 4 little-endian limbs of 64 bits; `to_montgomery` and `from_montgomery` convert |
//! | [`ark`], [`Backend::add`] and the like | arkworks' `Fq` and `Fr` |
//! | [`Backend::execute`] | as [`Call::form`] says, its parameter, too |
//! | [`Vector`], [`Recording`], [`Expression`], [`Pinned`] | arkworks' `Fq` and `Fr`: Montgomery form with R = 2^384 (Fq) and 2^256 (Fr), the same bytes as blst's |
//! | exponents | plain integers, little-endian limbs of 64 bits |
//!
//! # Who computes
//! A Vulkan 1.2 device with timeline semaphores and buffer device addresses, found at run time: nothing is linked, no SDK is
//! needed. Where there is none, arkworks computes on all cores; [`Backend::engine`] says so and why, as does a warning to whoever
//! subscribes to `tracing`, and `GPU_REQUIRE=1` makes it an error instead. The same holds for a device that is lost later: calls
//! on data in host memory finish on the CPU ([`Backend::execute`]'s [`Report::fallback`] says why, [`Stats::fallbacks`] counts); what lies on
//! a lost device is gone. A software Vulkan driver counts as a device.
//!
//! Where there is a device, a call on data in host memory goes where it is predicted to be done first, checks included ([`Placement`]): to
//! the CPU, to the device or, if not everything is checked, to both, a part each;
//! with every element checked, only inverses and roots are done first on a device. [`Report::place`] says where a call went and
//! [`Backend::explain`] why. The prediction rests on measurements that are made once per machine and driver, in less than three seconds, by
//! the first call that is long enough to need it ([`Calibrate`]). Recordings on resident vectors always go to the device.
//!
//! # Trust
//! By default every element that a call on host memory gets from a device is checked on the CPU with arkworks' arithmetic ([`Verify`]), and a
//! mismatch is [`Error::VerificationFailed`], never a returned vector. Recordings on resident vectors are checked if they are
//! submitted by [`Recording::submit_verified`]. Whatever is checked, each kernel must pass a self-test at the edges (0, 1, p - 1,
//! carries) before its first result is used.
//!
//! # Secrets
//! Field elements may be witnesses. Nothing here is logged or kept on disk of them: errors and `tracing` name operations,
//! positions and lengths (that an element at a position is zero or not below p, say, not which), and the cache holds compiled
//! pipelines. But copies of the data are left where it passed: in staging and device memory that the backend keeps for reuse
//! and later gives back to the driver, which need not clear it before another process has it. [`Options::wipe`] has each such buffer
//! filled with zeros as soon as the backend finds it unused (at the next call or submission, at [`Backend::trim`], when it is
//! destroyed), before it is reused or given back: staging, resident vectors and masks, [`Pinned`] vectors, after failed calls too.
//!
//! It does not reach: the caller's own slices, and downloads; copies that the library makes on the CPU's heap, as all uploads of
//! recordings, recordings and vectors computed by the CPU, what [`Recording::submit_verified`] replays, and temporaries of arkworks;
//! scalars and exponents, which lie in the driver's command buffers; registers, caches and shared memory of the device; memory that
//! the system swaps out (nothing is locked); and what a lost device held, or one whose driver refuses the work of wiping,
//! which says so by an error of `tracing`. Who can read this process's memory, or controls the driver or the device, can see
//! everything.
//!
//! Time: in all kernels no branch and no address depends on the value of an element, but for [`Recording::extents`] and
//! [`Recording::any_nonzero`]; the exponent of `pow`, masks, indices and the places of a sparse matrix's values decide both, and count as
//! public (the exponent of `sqrt` is a constant, and inverses take a constant number of division steps). That is what the
//! shaders say; what a driver makes of them, and whether its device multiplies in constant time, is not known here. The CPU does
//! not run in constant time: arkworks' arithmetic does not claim to, and checks stop at the first bad element. Since results are
//! checked on the CPU by default, a secret whose time of processing must not show needs [`Verify::Off`] and [`Placement::Device`], and even then the inputs of
//! calls on host memory are compared with the modulus (uploads are not).
//!
//! # What to expect
//! A single operation on data that starts and ends in host memory is bound by the copying: for `add` and `mul` with every element checked,
//! 16 CPU cores are sooner than any GPU, and calls of about a hundred elements or fewer are sooner on one core, so that is where they go.
//! Unchecked, long additions are soonest if both compute a part.
//! The GPU pays for heavy operations: [`sqrt`](sqrt_u64_limbs) and [`inverse`](inverse_u64_limbs), which a multiplication checks, and
//! [`pow`](pow_u64_limbs) with [`Verify::Sample`] or [`Verify::Off`], since checking every power is computing it again. And it pays for
//! chains of operations on a [`Vector`] that stays on the device. `benches/reports/` has measured figures.
//!
//! # Features
//! `oneshot`: the baseline backend of the benches. `cli`: the program `bls12-gpu`. Neither is on by default.
//!
//! # Panics and threads
//! Nothing here panics on bad input or on a failing driver. (Host memory that is lacking is an error for vectors, downloads and what is
//! fetched to be verified; temporaries of the CPU's own computations end the process, as everywhere in Rust.) [`Backend`] is `Send + Sync`,
//! cheap to clone, and nothing depends on which thread calls. Checks of calls on host memory run on threads of the backend's, one for each
//! core, or, where a worker of rayon calls, in its pool; the CPU's part of a call that it shares with a device ([`Report::by_cpu`]) runs on
//! threads of the backend's, and in the end on the calling one; what the CPU computes alone and what [`Ticket::wait`] computes again runs in the
//! caller's; awaited tickets are verified by the backend's threads.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub mod ark;
mod backend;
mod call;
mod choice;
mod error;
mod expression;
mod extent;
mod formulations;
mod future;
mod indices;
mod inversion;
mod known_answers;
mod limbs;
mod mask;
mod matrix;
mod memory;
mod movement;
mod on_device;
#[cfg(feature = "oneshot")]
pub mod oneshot;
mod operation;
mod options;
mod passes;
mod pinned;
mod polynomial;
#[doc(hidden)]
pub mod rates;
mod recording;
mod reduction;
mod required;
mod scan;
mod step;
mod task;
mod ticket;
mod vector;
mod verification;

pub use backend::{Backend, Engine, Outcome, Report, Stats};
pub use call::Call;
pub use choice::{Candidate, Decision, Evidence, Place, Reason, Setting, Thoroughness};
pub use cpu_reference::Form;
pub use error::{Error, ErrorKind};
pub use expression::{Condition, Expression};
pub use extent::Counts;
pub use field_kernels::{Field, Formulation, Width};
pub use formulations::{Because, Multiplication};
pub use gpu_executor::{
    CacheDirectory, DeviceInfo, DeviceKind, Error as DeviceError, MemoryMode, Profile, Span, Stage, Stats as DeviceStats,
    Track, Validation, ValidationLog, Verdict,
};
#[cfg(feature = "test-faults")]
pub use gpu_executor::{CallClass, Failure, Faults, Injection};
pub use indices::Indices;
pub use inversion::Zeros;
pub use limbs::{Limbs, fq, fr};
pub use mask::Mask;
pub use matrix::SparseMatrix;
pub use operation::{Operation, Output, Parameter, Row, TABLE};
#[cfg(feature = "test-faults")]
pub use options::Fault;
pub use options::{Calibrate, DeviceChoice, Options, Placement, Verify};
pub use pinned::Pinned;
pub use recording::Recording;
pub use reduction::{REDUCTIONS, Reduction, ReductionRow};
pub use required::MemoryRequired;
pub use scan::Scan;
pub use ticket::{Download, Downloads, Ticket, Value};
pub use vector::Vector;

pub use fq::{
    add_scalar_u64_limbs, add_scalar_u64_limbs_into, add_u64_limbs, add_u64_limbs_into, double_u64_limbs,
    double_u64_limbs_into, equal_u64_limbs, equal_u64_limbs_into, from_montgomery_u64_limbs, from_montgomery_u64_limbs_into,
    inverse_or_zero_u64_limbs, inverse_or_zero_u64_limbs_into, inverse_u64_limbs, inverse_u64_limbs_into, mul_add_u64_limbs,
    mul_add_u64_limbs_into, mul_u64_limbs, mul_u64_limbs_into, neg_u64_limbs, neg_u64_limbs_into, pow_u64_limbs,
    pow_u64_limbs_into, scale_u64_limbs, scale_u64_limbs_into, sqrt_u64_limbs, sqrt_u64_limbs_into, square_u64_limbs,
    square_u64_limbs_into, sub_scalar_u64_limbs, sub_scalar_u64_limbs_into, sub_u64_limbs, sub_u64_limbs_into,
    to_montgomery_u64_limbs, to_montgomery_u64_limbs_into,
};

use parking_lot::RwLock;

/// The backend that the free functions use: one for the whole process, made from the environment by the first call and
/// never dropped. A failure is not remembered: the next call tries again. If the device is lost, the call that finds out is
/// computed by the CPU (unless `GPU_REQUIRE=1`), and the next one makes a new backend. Vectors of the lost one are foreign to it
/// ([`Error::ForeignVector`]): who keeps vectors keeps a [`Backend`] of their own.
///
/// ```
/// println!("{}", bls12_field_gpu::backend()?);
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
///
/// # Errors
/// Those of [`Backend::new`].
pub fn backend() -> Result<&'static Backend, Error> {
    static BACKEND: RwLock<Option<&'static Backend>> = RwLock::new(None);
    let usable = |backend: &Option<&'static Backend>| backend.filter(|backend| !backend.is_lost());
    if let Some(backend) = usable(&BACKEND.read()) {
        return Ok(backend);
    }
    let mut slot = BACKEND.write();
    match usable(&slot) {
        Some(backend) => Ok(backend),
        None => Ok(slot.insert(Box::leak(Box::new(Backend::new(&Options::new())?)))),
    }
}

/// Every Vulkan device of this machine, and whether it can be used.
///
/// ```
/// match bls12_field_gpu::survey() {
///     Ok(verdicts) => verdicts.iter().for_each(|verdict| println!("{verdict}")),
///     Err(error) => println!("{error}"),
/// }
/// ```
///
/// # Errors
/// [`Error::Device`] if there is no Vulkan loader or no driver.
pub fn survey() -> Result<Vec<Verdict>, Error> {
    Ok(gpu_executor::survey()?)
}
