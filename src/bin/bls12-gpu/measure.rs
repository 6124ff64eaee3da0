//! Timing, and the inputs that are timed.

use ark_bls12_381::Fr;
use bls12_field_gpu::{Backend, Call, Error, Field, Form, Operation, Parameter, Vector};
use std::time::{Duration, Instant};

/// The environment's variables, as far as they are text.
pub(crate) fn text_variables() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// How long and how often something is repeated.
#[derive(Clone, Copy)]
pub(crate) struct Effort {
    /// Repetitions before any is timed.
    pub(crate) warm_up: usize,
    /// The least and the most repetitions that are timed.
    pub(crate) repetitions: (usize, usize),
    /// The time after which no repetition is begun beyond the least.
    pub(crate) budget: Duration,
}

impl Effort {
    pub(crate) const FULL: Self = Self { warm_up: 3, repetitions: (7, 501), budget: Duration::from_millis(150) };
    pub(crate) const SLOW: Self = Self { warm_up: 1, repetitions: (1, 9), budget: Duration::from_millis(150) };
    pub(crate) const QUICK: Self = Self { warm_up: 0, repetitions: (1, 1), budget: Duration::ZERO };
}

/// Does something so many times, each time on a thread of its own. What a small call takes depends on the core that its caller runs on: on
/// that to which a device's interrupts go, it takes three times as long.
pub(crate) fn on_threads(
    times: usize,
    mut work: impl FnMut() -> Result<(), Box<dyn std::error::Error>> + Send,
) -> Result<(), Box<dyn std::error::Error>> {
    for _ in 0..times {
        let done = std::thread::scope(|scope| {
            let work = &mut work;
            scope.spawn(move || work().map_err(|error| error.to_string())).join()
        });
        done.map_err(|_| "what was measured has panicked")??;
    }
    Ok(())
}

/// The median duration of `work`, which writes all of `out`. Before each repetition `out` is spoiled, after it compared with
/// `expected`, neither of which is timed.
pub(crate) fn median<T: Copy + PartialEq + Send + Sync>(
    effort: Effort,
    (out, spoil, expected): (&mut [T], T, &[T]),
    mut work: impl FnMut(&mut [T]) -> Result<(), Error> + Send,
) -> Result<Duration, Box<dyn std::error::Error>> {
    let Effort { warm_up, repetitions: (least, most), budget } = effort;
    let mut once = || {
        out.fill(spoil);
        let start = Instant::now();
        work(out)?;
        let time = start.elapsed();
        if out == expected { Ok(time) } else { Err(Box::<dyn std::error::Error>::from("a result is wrong")) }
    };
    let mut times = Vec::new();
    let threads = least.clamp(1, 5);
    let each = |number: usize| number.div_ceil(threads);
    on_threads(threads, || {
        for _ in 0..each(warm_up) {
            once()?;
        }
        let (begin, before) = (Instant::now(), times.len());
        while times.len() - before < each(least)
            || (times.len() - before < each(most) && begin.elapsed() < budget / threads as u32)
        {
            times.push(once()?);
        }
        Ok(())
    })?;
    times.sort();
    Ok(times[times.len() / 2])
}

/// The inputs of an operation on `length` elements: random, below the modulus, none of them zero.
pub(crate) struct Inputs {
    operation: Operation,
    field: Field,
    vectors: Vec<Vec<u64>>,
    parameter: Vec<u64>,
}

impl Inputs {
    pub(crate) fn new(operation: Operation, field: Field, length: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(0x00b1_5123_8100_6b0f);
        let row = operation.row();
        let top = field.modulus()[field.limbs() - 1];
        let mut element = || {
            let mut limbs: Vec<u64> = (0..field.limbs()).map(|_| random.u64(..)).collect();
            limbs[field.limbs() - 1] = random.u64(1..top);
            limbs
        };
        let vectors = (0..row.vectors).map(|_| (0..length).flat_map(|_| element()).collect()).collect();
        let parameter = match row.parameter {
            Parameter::None => Vec::new(),
            Parameter::Scalar | Parameter::Exponent => element(),
        };
        Self { operation, field, vectors, parameter }
    }

    /// Runs `with` on the call that these inputs are.
    pub(crate) fn call<T>(&self, form: Form, with: impl FnOnce(&Call) -> Result<T, Error>) -> Result<T, Error> {
        let vectors: Vec<&[u64]> = self.vectors.iter().map(Vec::as_slice).collect();
        with(&Call { operation: self.operation, field: self.field, form, vectors: &vectors, parameter: &self.parameter })
    }

    pub(crate) fn vector(&self, index: usize) -> &[u64] {
        &self.vectors[index]
    }

    pub(crate) fn parameter(&self) -> &[u64] {
        &self.parameter
    }
}

/// What keeps the device busy for half a second, if not quick: its clocks fall while it waits for the host to compute or to compare results,
/// and take their time to rise; a power then takes up to five times as long.
pub(crate) fn warming(backend: &Backend, quick: bool) -> Result<impl Fn() -> Result<(), Error>, Error> {
    let light = backend.zeros(if quick { 1 } else { 1 << 22 })?;
    let time = if quick { Duration::ZERO } else { Duration::from_millis(500) };
    Ok(move || keep_busy(backend, &light, time))
}

/// Has the device double elements for some time, so that its clocks are up; which is no work that it gets so hot from that they fall again.
pub(crate) fn keep_busy(backend: &Backend, vector: &Vector<Fr>, time: Duration) -> Result<(), Error> {
    let begin = Instant::now();
    while begin.elapsed() < time {
        let mut recording = backend.record();
        (0..32).try_for_each(|_| recording.double_into(vector, vector))?;
        recording.submit()?.wait()?;
    }
    Ok(())
}
