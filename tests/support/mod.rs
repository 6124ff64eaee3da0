//! What the integration tests share: an oracle, elements to compute with, and engines to compute on.
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod oracle;

use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{
    Backend, CacheDirectory, Call, DeviceChoice, Engine, Error, Field, Form, MemoryMode, Operation, Options, Outcome,
    Parameter, Placement, Row, TABLE, Validation, Width, oneshot,
};
use num_bigint::BigUint;
use oracle::oracle;
use proptest::prelude::*;
use std::ops::{Deref, Range};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::Duration;

pub(crate) const FORMS: [Form; 2] = [Form::Canonical, Form::Montgomery];

/// Every operation with every field that has it.
pub(crate) fn rows() -> impl Iterator<Item = (&'static Row, Field)> {
    TABLE.iter().flat_map(|row| Field::ALL.map(|field| (row, field))).filter(|(row, field)| row.available(*field))
}

// ---------------------------------------------------------------------------------------------------------------- elements

/// Elements at which carries, borrows and reductions go wrong, if they do anywhere.
pub(crate) fn edges(field: Field) -> Vec<Vec<u64>> {
    let oracle = oracle(field);
    let (p, r) = (&oracle.p, &oracle.r);
    let one = &BigUint::from(1u32);
    let mut integers = vec![
        BigUint::ZERO,
        one.clone(),
        one + one,
        p - one,
        p - one - one,
        (p - one) >> 1,
        (p + one) >> 1,
        r.clone(),
        p - r,
        r - one,
        r * r % p,
        BigUint::from(u32::MAX),
        BigUint::from(u64::MAX),
    ];
    for word in 1..2 * oracle.limbs as u32 {
        // All-ones words, a single one, and the top of the modulus with zeros below.
        integers.extend([(one << (32 * word)) - one, one << (32 * word), p >> (32 * word) << (32 * word)]);
    }
    for limb in 0..oracle.limbs as u32 - 1 {
        integers.push(BigUint::from(u64::MAX) << (64 * limb));
    }
    // The top limb just below the modulus', ones below.
    let top = 64 * (oracle.limbs as u32 - 1);
    integers.push(((p >> top) << top) - one);
    integers.iter().map(|integer| oracle.limbs_of(integer)).collect()
}

/// The limbs of a small integer.
pub(crate) fn small(field: Field, value: u64) -> Vec<u64> {
    oracle(field).limbs_of(&BigUint::from(value))
}

/// A vector of `length` elements, every fourth an edge and the others without pattern; the same for the same `salt`. None is
/// zero if `salt` is odd.
pub(crate) fn elements(field: Field, length: usize, salt: u64) -> Vec<u64> {
    let edges = edges(field);
    let edges = if salt % 2 == 1 { &edges[1..] } else { &edges[..] };
    let mut limbs = Vec::with_capacity(length * field.limbs());
    for index in 0..length {
        if index % 4 == 0 {
            limbs.extend(&edges[(index / 4 + salt as usize) % edges.len()]);
        } else {
            limbs.extend(scattered(field, index as u64, salt));
        }
    }
    limbs
}

/// An element without pattern, other than zero.
pub(crate) fn scattered(field: Field, index: u64, salt: u64) -> impl Iterator<Item = u64> {
    let limbs = field.limbs() as u64;
    (0..limbs).map(move |limb| {
        // SplitMix64.
        let mut z = (index * 8 + limb + 1).wrapping_add(salt << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // Below either modulus.
        if limb + 1 == limbs { z >> 4 } else { z | 1 }
    })
}

/// An element: often an edge, else anything; shrinks towards zero.
pub(crate) fn element(field: Field) -> BoxedStrategy<Vec<u64>> {
    let reduced = move |limbs: [u64; 6]| {
        let oracle = oracle(field);
        oracle.limbs_of(&(oracle::integer(&limbs[..oracle.limbs]) % &oracle.p))
    };
    let single = (0..field.limbs() - 1, any::<u64>()).prop_map(move |(limb, value)| {
        let mut limbs = vec![0; field.limbs()];
        limbs[limb] = value;
        limbs
    });
    prop_oneof![
        4 => prop::sample::select(edges(field)),
        1 => single,
        5 => prop::array::uniform6(any::<u64>()).prop_map(reduced),
    ]
    .boxed()
}

/// An exponent: small, as long as an element, or longer; also around multiples of p - 1.
pub(crate) fn exponent(field: Field) -> BoxedStrategy<Vec<u64>> {
    let around_order = (0u32..4, 0u32..3).prop_map(move |(times, more)| {
        let order = &oracle(field).p - 1u32;
        (order * times + more).to_u64_digits()
    });
    prop_oneof![prop::collection::vec(any::<u64>(), 0..2), prop::collection::vec(any::<u64>(), 3..10), around_order].boxed()
}

// ------------------------------------------------------------------------------------------------------------------- calls

/// A call that owns its operands.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) operation: Operation,
    pub(crate) field: Field,
    pub(crate) form: Form,
    pub(crate) vectors: Vec<Vec<u64>>,
    pub(crate) parameter: Vec<u64>,
}

impl Case {
    /// A call of `length` elements, a quarter of them edges; inverses get no zero.
    pub(crate) fn new(operation: Operation, field: Field, form: Form, length: usize) -> Self {
        let row = operation.row();
        let salt = |operand: usize| 2 * operand as u64 + u64::from(operation == Operation::Inverse);
        let mut vectors: Vec<_> = (0..row.vectors).map(|operand| elements(field, length, salt(operand))).collect();
        if operation == Operation::Equal {
            // Else hardly any are equal.
            let (limbs, (a, b)) = (field.limbs(), vectors.split_at_mut(1));
            for (a, b) in a[0].chunks(limbs).zip(b[0].chunks_mut(limbs)).step_by(3) {
                b.copy_from_slice(a);
            }
        }
        let parameter = match row.parameter {
            Parameter::None => Vec::new(),
            Parameter::Scalar => scattered(field, 77, 5).collect(),
            Parameter::Exponent => vec![0xfedc_ba98_7654_3210, 0x1234_5678_9abc_def0],
        };
        Self { operation, field, form, vectors, parameter }
    }

    pub(crate) fn length(&self) -> usize {
        self.vectors[0].len() / self.field.limbs()
    }

    /// Has the call executed.
    pub(crate) fn execute<T>(&self, execute: impl FnOnce(&Call) -> T) -> T {
        let vectors: Vec<&[u64]> = self.vectors.iter().map(Vec::as_slice).collect();
        let Self { operation, field, form, .. } = *self;
        execute(&Call { operation, field, form, vectors: &vectors, parameter: &self.parameter })
    }

    /// What a backend answers.
    pub(crate) fn on(&self, backend: &Backend) -> Result<Outcome, Error> {
        self.execute(|call| backend.execute(call))
    }

    /// The right answer.
    pub(crate) fn answer(&self) -> (Vec<u64>, Vec<bool>) {
        self.execute(|call| oracle(call.field).answer(call.operation, call.form, call.vectors, call.parameter))
    }
}

/// Any call of any operation that has a result, with a length in `lengths`.
pub(crate) fn any_case(lengths: Range<usize>) -> impl Strategy<Value = Case> {
    let rows: Vec<_> = rows().map(|(row, field)| (row.operation, field)).collect();
    (prop::sample::select(rows), prop::sample::select(FORMS.to_vec()))
        .prop_flat_map(move |((operation, field), form)| case_of(operation, field, form, lengths.clone()))
}

/// Any call of an operation that has a result.
pub(crate) fn case_of(operation: Operation, field: Field, form: Form, lengths: Range<usize>) -> impl Strategy<Value = Case> {
    let row = operation.row();
    let parameter = match row.parameter {
        Parameter::None => Just(Vec::new()).boxed(),
        Parameter::Scalar => element(field),
        Parameter::Exponent => exponent(field),
    };
    // Position by position, so that shrinking removes a position from all vectors.
    let positions = prop::collection::vec(prop::collection::vec(element(field), row.vectors), lengths);
    (positions, parameter).prop_map(move |(positions, parameter)| {
        let mut vectors = vec![Vec::new(); row.vectors];
        for position in positions {
            for (vector, mut element) in vectors.iter_mut().zip(position) {
                if operation == Operation::Inverse && element.iter().all(|&limb| limb == 0) {
                    element[0] = 1;
                }
                vector.extend(element);
            }
        }
        Case { operation, field, form, vectors, parameter }
    })
}

// ----------------------------------------------------------------------------------------------------------------- engines

/// Whatever would be sooner: these tests are there to see the device at work.
pub(crate) fn on_device(options: Options) -> Options {
    options.placement(Placement::Device)
}

/// A backend on a Vulkan device, watched by the validation layer: a message is a failure, and so is having no device.
pub(crate) struct Watched(Option<Backend>);

impl Watched {
    /// With the validation layer's default checks.
    pub(crate) fn new(options: Options) -> Self {
        Self::validated(options, Validation::On)
    }

    pub(crate) fn validated(options: Options, validation: Validation) -> Self {
        Self::made(options.require_gpu(true), validation)
    }

    /// One that may compute on the CPU when it loses its device.
    pub(crate) fn not_required(options: Options, validation: Validation) -> Self {
        let watched = Self::made(options.require_gpu(false), validation);
        assert!(matches!(watched.engine(), Engine::Vulkan { .. }), "{}", watched.engine());
        watched
    }

    fn made(options: Options, validation: Validation) -> Self {
        Self::placed(on_device(options), validation)
    }

    /// One that computes where it is told to.
    pub(crate) fn placed(options: Options, validation: Validation) -> Self {
        let options = options.validation(validation).cache(CacheDirectory::Off);
        Self(Some(Backend::new(&options).expect("these tests need a Vulkan device and the validation layer")))
    }
}

impl Deref for Watched {
    type Target = Backend;

    fn deref(&self) -> &Backend {
        self.0.as_ref().unwrap()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let log = self.validation_log();
        // The layer reports what leaks when the device goes.
        drop(self.0.take());
        let messages = log.messages();
        if !std::thread::panicking() {
            assert!(messages.is_empty(), "the validation layer says:\n{}", messages.join("\n"));
        }
    }
}

/// Elements without much pattern, as arkworks' types; the same for the same `salt`.
pub(crate) fn numbers<F: Element>(length: usize, salt: u64) -> Vec<F> {
    (0..length as u64).map(|i| F::from(i + 3).pow([salt % 5 + 1]) - F::from(salt)).collect()
}

/// Every variant of kernels and memory.
pub(crate) fn engines(descriptors: Validation) -> Vec<Watched> {
    let gpu = |width, memory, validation| Watched::validated(Options::new().width(width).memory(memory), validation);
    vec![
        gpu(Width::Int64, MemoryMode::DeviceLocal, Validation::On),
        gpu(Width::Int64, MemoryMode::Host, Validation::On),
        // Descriptors: synchronization validation sees what kernels touch.
        gpu(Width::Int32, MemoryMode::DeviceLocal, descriptors),
        gpu(Width::Int32, MemoryMode::Host, descriptors),
    ]
}

/// A Vulkan backend without the layer, for tests that make many.
pub(crate) fn unwatched(options: Options) -> Backend {
    Backend::new(&alone(options)).expect("these tests need a Vulkan device")
}

/// Options of a backend without the layer, and without what others have learnt.
pub(crate) fn alone(options: Options) -> Options {
    on_device(options).require_gpu(true).validation(Validation::Off).cache(CacheDirectory::Off)
}

/// The CPU reference as a backend.
pub(crate) fn cpu() -> Backend {
    Backend::new(&Options::new().require_gpu(false).device(DeviceChoice::Cpu)).unwrap()
}

/// A way to have a call computed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    Vulkan(Width, MemoryMode, Validation),
    Cpu,
    OneShot,
}

/// Every way that results can come about.
pub(crate) const WAYS: [(&str, Way); 6] = [
    ("int64_device_local", Way::Vulkan(Width::Int64, MemoryMode::DeviceLocal, Validation::On)),
    ("int64_host", Way::Vulkan(Width::Int64, MemoryMode::Host, Validation::On)),
    // These kernels use descriptors, which synchronization validation sees through.
    ("int32_device_local", Way::Vulkan(Width::Int32, MemoryMode::DeviceLocal, Validation::Synchronization)),
    ("int32_host", Way::Vulkan(Width::Int32, MemoryMode::Host, Validation::Synchronization)),
    ("cpu", Way::Cpu),
    ("one_shot", Way::OneShot),
];

/// A [`Way`], set up.
pub(crate) enum Computer {
    Vulkan(Watched),
    Cpu(Backend),
    OneShot(Options),
}

impl Way {
    pub(crate) fn set_up(self) -> Computer {
        match self {
            Way::Vulkan(width, memory, validation) => {
                Computer::Vulkan(Watched::validated(Options::new().width(width).memory(memory), validation))
            }
            Way::Cpu => Computer::Cpu(cpu()),
            Way::OneShot => Computer::OneShot(on_device(Options::new()).require_gpu(true)),
        }
    }
}

impl Computer {
    pub(crate) fn execute(&self, case: &Case) -> Outcome {
        let outcome = match self {
            Computer::Vulkan(backend) => case.on(backend),
            Computer::Cpu(backend) => case.on(backend),
            Computer::OneShot(options) => case.execute(|call| oneshot::execute(options, call)),
        };
        outcome.unwrap_or_else(|error| panic!("{error}: {case:?}"))
    }

    /// The backend, if there is one that lives.
    pub(crate) fn backend(&self) -> Option<&Backend> {
        match self {
            Computer::Vulkan(backend) => Some(backend),
            Computer::Cpu(backend) => Some(backend),
            Computer::OneShot(_) => None,
        }
    }

    /// Whether a Vulkan device computes.
    pub(crate) fn is_gpu(&self) -> bool {
        !matches!(self, Computer::Cpu(_))
    }

    pub(crate) fn workgroup_size(&self) -> usize {
        match self.backend().map(Backend::engine) {
            Some(&Engine::Vulkan { workgroup_size, .. }) => workgroup_size as usize,
            _ => 64,
        }
    }
}

// ------------------------------------------------------------------------------------------------------------------- hangs

/// Runs `work`, which may make devices, and fails instead of hanging. One at a time: validation layer 1.3.239 crashes when a device
/// is made while others are being used.
pub(crate) fn in_time(limit: Duration, work: impl FnOnce() + Send + 'static) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let (done, finished) = mpsc::channel();
    let worker = thread::spawn(move || {
        work();
        let _ = done.send(());
    });
    match finished.recv_timeout(limit) {
        Ok(()) => worker.join().unwrap(),
        Err(mpsc::RecvTimeoutError::Disconnected) => std::panic::resume_unwind(worker.join().unwrap_err()),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
    }
}
