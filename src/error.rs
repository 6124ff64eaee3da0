use crate::Field;

/// Why there is no result. [`Recording::submit`](crate::Recording::submit) that fails on a device has done nothing. Where
/// [`Ticket::wait`](crate::Ticket::wait) fails, the recording has been done all the same and its vectors are written; after a loss of the
/// device nobody knows. The backend is usable afterwards, unless its device is lost (and then still for calls from host memory, if no GPU
/// is required: see [`Report::fallback`](crate::Report::fallback)). What the output slices of an `_into` function hold after an error is
/// unspecified.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no device to compute on, or the device failed.
    #[error(transparent)]
    Device(#[from] gpu_executor::Error),

    /// Two vectors of one call have different lengths, in elements.
    #[error("{operation}: the operands have {first} and {other} elements")]
    LengthMismatch {
        /// The operation.
        operation: &'static str,
        /// Elements in the first operand.
        first: usize,
        /// Elements in the other.
        other: usize,
    },
    /// A vector of limbs does not end with a whole element.
    #[error("{operation}: {limbs} limbs are not a whole number of elements of {per_element} limbs")]
    PartialElement {
        /// The operation.
        operation: &'static str,
        /// Limbs in the vector.
        limbs: usize,
        /// Limbs per element: 6 for Fq, 4 for Fr.
        per_element: usize,
    },
    /// An operand's element is not below the modulus.
    #[error("{operation}: element {index} of {operand} is not below the modulus of {field}")]
    NotBelowModulus {
        /// The operation.
        operation: &'static str,
        /// The field.
        field: Field,
        /// Which operand: `a`, `b`, `c` or `scalar`.
        operand: &'static str,
        /// The first such element.
        index: usize,
    },
    /// An output slice has the wrong length.
    #[error("{operation}: the output has room for {got} values and {expected} are needed")]
    OutputLength {
        /// The operation.
        operation: &'static str,
        /// The length needed, in limbs, elements or flags as the slice has.
        expected: usize,
        /// The slice's length.
        got: usize,
    },
    /// The scalar operand is not exactly one element.
    #[error("{operation}: the scalar has {limbs} limbs and an element has {per_element}")]
    ScalarLength {
        /// The operation.
        operation: &'static str,
        /// Limbs given.
        limbs: usize,
        /// Limbs per element.
        per_element: usize,
    },
    /// The operation takes another number of vectors.
    #[error("{operation} takes {expected} vectors, {got} were given")]
    OperandCount {
        /// The operation.
        operation: &'static str,
        /// Vectors it takes.
        expected: usize,
        /// Vectors given.
        got: usize,
    },
    /// A vector on a device was used with another backend than its own.
    #[error("{operation}: a vector belongs to another backend")]
    ForeignVector {
        /// The operation.
        operation: &'static str,
    },
    /// An output overlaps an input without being the same slice: its elements would be overwritten before they are read.
    #[error("{operation}: the output overlaps an input that it is not equal to")]
    Overlap {
        /// The operation.
        operation: &'static str,
    },
    /// A download was asked for where it is not: it was recorded in another recording, or has been taken.
    #[error("the download was not recorded in this recording, or has been taken")]
    NoSuchDownload,
    /// A slice goes past the end of its vector.
    #[error("slice {start}..{end} of a vector of {length} elements")]
    OutOfRange {
        /// The slice's first element.
        start: usize,
        /// The first element after it.
        end: usize,
        /// Elements in the vector.
        length: usize,
    },
    /// An index, or a column of a sparse matrix, is not below the bound that was given with it.
    #[error("index {position} is {index} and not below {bound}")]
    IndexOutOfRange {
        /// Which index.
        position: usize,
        /// The index.
        index: usize,
        /// What it must be below.
        bound: usize,
    },
    /// The indices of an operation may be positions in a longer vector than it has.
    #[error("{operation}: the indices are below {bound}, the vector has {length} elements")]
    IndexBound {
        /// The operation.
        operation: &'static str,
        /// What the indices are known to be below.
        bound: usize,
        /// Elements in the vector.
        length: usize,
    },
    /// Two elements would be written to the same place.
    #[error("{operation}: the indices are not distinct")]
    RepeatedIndices {
        /// The operation.
        operation: &'static str,
    },
    /// The operation needs a length that is a power of two.
    #[error("{operation}: {length} is not a power of two")]
    NotAPowerOfTwo {
        /// The operation.
        operation: &'static str,
        /// Elements in the vector.
        length: usize,
    },
    /// Where the rows of a sparse matrix begin is not told by numbers that start with 0, never fall, and end with the number of its values;
    /// or there are 2^32 values or more.
    #[error("row offset {position} of a sparse matrix is {offset}, between {least} and {most} expected")]
    RowOffset {
        /// Which offset.
        position: usize,
        /// The offset.
        offset: usize,
        /// The least that it may be.
        least: usize,
        /// The most that it may be.
        most: usize,
    },
    /// Zero has no inverse.
    #[error("inverse: element {index} is zero")]
    ZeroInverse {
        /// The first zero.
        index: usize,
    },
    /// The operation does not exist for the field: square roots in Fr.
    #[error("{operation} is not available for {field}")]
    NotAvailable {
        /// The operation.
        operation: &'static str,
        /// The field.
        field: Field,
    },
    /// An environment variable has a value that means nothing.
    #[error("{variable}={value:?} is not understood: expected {expected}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// An option has a value that cannot be.
    #[error("option {option}: {reason}")]
    InvalidOption {
        /// The option.
        option: &'static str,
        /// What is wrong with it.
        reason: &'static str,
    },

    /// A result computed by the device is wrong: the CPU reference disagrees. A call on host memory has no result then; the vectors that
    /// a recording wrote still hold what is wrong.
    #[error("{operation} in {field} on {device}: element {index} is wrong")]
    VerificationFailed {
        /// The operation.
        operation: &'static str,
        /// The field.
        field: Field,
        /// The first wrong element that was found.
        index: usize,
        /// The device.
        device: String,
    },
    /// A kernel gave a wrong answer to the self-test that it must pass before its first use: the driver miscompiles it, or
    /// the device is faulty.
    #[error("{operation} in {field} fails its self-test on {device} (known answer {index})")]
    SelfTestFailed {
        /// The operation.
        operation: &'static str,
        /// The field.
        field: Field,
        /// The first wrong answer.
        index: usize,
        /// The device.
        device: String,
    },
}

/// The four kinds of error there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no device of the kind asked for.
    NoDevice,
    /// The device or its driver failed: lost, out of memory, timed out.
    DeviceFault,
    /// The caller's data, options or environment are wrong.
    BadInput,
    /// The device computed something wrong, and was caught.
    FailedCheck,
}

impl Error {
    /// Which of the four kinds this error is.
    ///
    /// ```
    /// use bls12_field_gpu::{ErrorKind, add_u64_limbs};
    /// assert_eq!(add_u64_limbs(&[1], &[2]).unwrap_err().kind(), ErrorKind::BadInput);
    /// ```
    pub fn kind(&self) -> ErrorKind {
        use gpu_executor::Error as Device;
        match self {
            Error::Device(Device::NoDevice { .. }) => ErrorKind::NoDevice,
            Error::Device(
                Device::NoSuchDevice { .. }
                | Device::NoValidationLayer
                | Device::WorkgroupSize { .. }
                | Device::CacheDirectory { .. }
                | Device::MalformedJob { .. },
            ) => ErrorKind::BadInput,
            Error::Device(_) => ErrorKind::DeviceFault,
            Error::VerificationFailed { .. } | Error::SelfTestFailed { .. } => ErrorKind::FailedCheck,
            _ => ErrorKind::BadInput,
        }
    }
}
