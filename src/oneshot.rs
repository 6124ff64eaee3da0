//! The one-shot backend: everything is made for a call and destroyed after it. The baseline that the persistent
//! [`Backend`] is measured against; it gives the same answers.

use crate::{Backend, CacheDirectory, Call, Error, MemoryMode, Options, Outcome, Placement};

/// Computes a call on a backend of its own, by the device if there is one: instance, device, memory and pipelines are made and destroyed, vectors lie in
/// host memory, nothing is kept on disk. The other `options` are as given. What a call pays for is what any first use of a new
/// backend pays for, the kernel's self-test (a dispatch of a few hundred elements) included; most of it, on the H200, is the
/// instance and the device (130 ms, and 65 if the process has had a backend before) and the pipeline.
///
/// ```
/// # #[cfg(feature = "oneshot")] {
/// use bls12_field_gpu::{Call, Field, Form, Operation, Options, oneshot};
/// let call = Call {
///     operation: Operation::Add,
///     field: Field::Fr,
///     form: Form::Canonical,
///     vectors: &[&[2, 0, 0, 0], &[3, 0, 0, 0]],
///     parameter: &[],
/// };
/// assert_eq!(oneshot::execute(&Options::new(), &call)?.elements, [5, 0, 0, 0]);
/// # }
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
///
/// # Errors
/// Those of [`Backend::new`] and [`Backend::execute`].
pub fn execute(options: &Options, call: &Call) -> Result<Outcome, Error> {
    let options = options.clone().memory(MemoryMode::Host).cache(CacheDirectory::Off).placement(Placement::Device);
    Backend::new(&options)?.execute(call)
}
