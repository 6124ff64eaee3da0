//! `bls12-gpu algebra`: the vector algebra on resident vectors, timed and checked; a part of the report, too.

mod batches;
mod folds;
mod fusion;
mod inversion;
mod matrices;
mod movement;
mod scans;

use crate::goals;
use crate::kernels::Kernels;
use crate::measure::keep_busy;
use crate::report::{Sheet, number};
use ark_bls12_381::Fr;
use batches::Batch;
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, CacheDirectory, Error, Field, Options, Recording, Track, Vector, Verify};
use rayon::prelude::*;
use serde_json::Value;
use std::cell::Cell;
use std::time::{Duration, Instant};

pub(crate) type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// What records an operation.
type Record<'a> = &'a dyn Fn(&mut Recording) -> Result<(), Error>;

/// One measurement.
#[derive(Clone)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    /// What was timed, and how long it took.
    pub(crate) detail: String,
}

/// A group of measurements: all of some family of operations, at full size or, to see that it works, at small ones.
type Family = fn(&Bench) -> Outcome<Vec<Row>>;

const FAMILIES: [(&str, Family); 6] = [
    ("fusion", fusion::measure),
    ("movement", movement::measure),
    ("matrices", matrices::measure),
    ("folds", folds::measure),
    ("scans", scans::measure),
    ("inversion", inversion::measure),
];

/// How long the device is kept busy before anything is timed if it has been left alone for longer than [`ALONE`], and if not.
const WARM: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(20)];
const ALONE: Duration = Duration::from_millis(100);

/// What a device can do at most, which shares are of.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Multiplications a second in chains, of Fq and of Fr.
    chains: [f64; 2],
    /// Bytes a second.
    memory: f64,
}

impl Limits {
    /// Of `benches/reports/h200-roofline.md`.
    const H200: Self = Self { chains: [32.3e9, 73.9e9], memory: 4.33e12 };

    /// What was measured, and of the [H200](Self::H200) what was not.
    fn measured(kernels: &Kernels) -> Self {
        let chains = ["fq_mul_chain", "fr_mul_chain"].map(|name| kernels.rate(name).map(|rate| rate * 1e9));
        // The flat kernel reads two vectors and writes one.
        let memory = kernels.flat(Field::Fr).map(|flat| 3.0 * Field::Fr.bytes() as f64 * flat * 1e9);
        let [fq, fr] = [0, 1].map(|n| chains[n].unwrap_or(Self::H200.chains[n]));
        Self { chains: [fq, fr], memory: memory.unwrap_or(Self::H200.memory) }
    }

    fn chain(&self, field: Field) -> f64 {
        self.chains[usize::from(field == Field::Fr)]
    }
}

/// Where is measured.
pub(crate) struct Bench {
    backend: Backend,
    quick: bool,
    limits: Limits,
    /// When the device was last seen to work.
    worked: Cell<Option<Instant>>,
    /// What keeps it busy without heating it.
    light: Vector<Fr>,
    /// Whether what each launch took is printed.
    launches: bool,
}

impl Bench {
    /// Shares are of what the kernels were measured to do.
    pub(crate) fn new(options: &Options, kernels: Option<&Kernels>, quick: bool) -> Outcome<Self> {
        let limits = kernels.map_or(Limits::H200, Limits::measured);
        // What is built is built anew, and timed.
        let backend = Backend::new(&options.clone().verify(Verify::Proofs).cache(CacheDirectory::Off))?;
        let light = backend.zeros(if quick { 1 } else { 1 << 22 })?;
        Ok(Self { backend, quick, limits, worked: Cell::new(None), light, launches: false })
    }

    /// How long the slowest of the pipelines took that were built so far.
    pub(crate) fn slowest_build(&self) -> Option<Duration> {
        self.backend.built().into_iter().map(|(_, time)| time).max()
    }

    /// A size: the full one, or a small one.
    fn size(&self, full: usize) -> usize {
        if self.quick { full.min(1 << 10) } else { full }
    }

    /// Random elements, the same ones for the same seed.
    fn elements<F: Element>(&self, length: usize, seed: u64) -> Vec<F> {
        let top = F::FIELD.modulus()[F::FIELD.limbs() - 1];
        let element = |index: u64| {
            let mut random = fastrand::Rng::with_seed((seed << 40 | index).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut element = F::ZERO;
            let limbs = F::limbs_mut(std::slice::from_mut(&mut element));
            limbs.iter_mut().for_each(|limb| *limb = random.u64(..));
            if let Some(last) = limbs.last_mut() {
                *last = random.u64(..top);
            }
            element
        };
        (0..length as u64).into_par_iter().map(element).collect()
    }

    /// Gets the device's clocks up, which fall while it waits for the host to make numbers or to check them.
    fn warm(&self) -> Outcome<()> {
        let [alone, busy] = WARM;
        let time = if self.worked.get().is_none_or(|last| last.elapsed() > ALONE) { alone } else { busy };
        if !self.quick {
            keep_busy(&self.backend, &self.light, time)?;
        }
        self.worked.set(Some(Instant::now()));
        Ok(())
    }

    /// Seconds from the submission of a recording that has what `record` records so many times, until it is known to be done.
    fn submission(&self, record: impl Fn(&mut Recording) -> Result<(), Error>, times: usize) -> Outcome<f64> {
        let mut recording = self.backend.record();
        for _ in 0..times {
            record(&mut recording)?;
        }
        let start = Instant::now();
        recording.submit()?.wait()?;
        Ok(start.elapsed().as_secs_f64())
    }

    /// Seconds that what `record` records takes on the device: it is recorded several times in one recording; the least of some
    /// submissions, from submission to completion. What it leaves is the caller's to check.
    fn seconds(&self, record: impl Fn(&mut Recording) -> Result<(), Error>) -> Outcome<f64> {
        // Self-tests and pipelines.
        self.submission(&record, 1)?;
        self.warm()?;
        let once = self.submission(&record, 4)? / 4.0;
        let (submissions, times) = if self.quick { (1, 1) } else { (5, ((20e-3 / once) as usize).clamp(1, 64)) };
        let mut least = f64::MAX;
        for _ in 0..submissions {
            self.warm()?;
            least = least.min(self.submission(&record, times)? / times as f64);
        }
        self.worked.set(Some(Instant::now()));
        if self.launches {
            self.print_launches(&record)?;
        }
        Ok(least)
    }

    /// Seconds from the submission of what `record` records, once, until it is known to be done: the median of several times.
    fn seconds_alone(&self, record: impl Fn(&mut Recording) -> Result<(), Error>) -> Outcome<f64> {
        let mut times = Vec::new();
        for _ in 0..if self.quick { 1 } else { 21 } {
            self.warm()?;
            times.push(self.submission(&record, 1)?);
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    /// When each launch of what is recorded began and how long it took, by the device's clock, for the last of three submissions.
    fn print_launches(&self, record: impl Fn(&mut Recording) -> Result<(), Error>) -> Outcome<()> {
        let mut spans = Vec::new();
        self.warm()?;
        for _ in 0..3 {
            let mut recording = self.backend.record();
            record(&mut recording)?;
            self.backend.start_profile()?;
            recording.submit()?.wait()?;
            spans = self.backend.take_profile().spans;
        }
        let mut launches: Vec<_> = spans.iter().filter(|span| matches!(span.track, Track::Queue(_))).collect();
        launches.sort_by_key(|span| span.start);
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        let first = launches.first().map_or(Duration::ZERO, |span| span.start);
        for span in launches {
            println!("  {:>10.1} us {:>10.1} us {}", micros(span.start - first), micros(span.end - span.start), span.name);
        }
        Ok(())
    }

    /// What is recorded, done once more, and all that it leaves proved or compared with what the CPU computes.
    fn verify(&self, record: impl Fn(&mut Recording) -> Result<(), Error>) -> Outcome<()> {
        let mut recording = self.backend.record();
        record(&mut recording)?;
        recording.submit_verified()?.wait()?;
        Ok(())
    }
}

/// The parts of all that is measured of the vector algebra, and their names.
pub(crate) fn parts() -> impl Iterator<Item = (usize, &'static str)> {
    FAMILIES.iter().map(|(name, _)| *name).chain(["batches"]).enumerate()
}

/// Everything that is measured of the vector algebra.
#[derive(Default)]
pub(crate) struct Algebra {
    pub(crate) rows: Vec<Row>,
    batches: Vec<Batch>,
}

impl Algebra {
    /// Measures a part, which has a number among [`parts`].
    pub(crate) fn measure(&mut self, bench: &Bench, part: usize) -> Outcome<()> {
        match FAMILIES.get(part) {
            Some((_, family)) => self.rows.extend(family(bench)?),
            None => batches::measure(bench, &mut self.batches)?,
        }
        Ok(())
    }

    /// As tables, measured on this device.
    pub(crate) fn sheets(&self, device: &str) -> [Sheet<'static>; 2] {
        [self.table(device), batches::sheet(&self.batches)]
    }

    fn table(&self, device: &str) -> Sheet<'static> {
        let line = |row: &Row| {
            let [goal, peer] = goals::texts(row.name, row.value, device);
            let name = format!("`{}`", row.name);
            vec![name, number(row.value), row.unit.into(), goal, peer, row.detail.clone()]
        };
        Sheet {
            title: "Vector algebra",
            note: "Resident vectors; the best of five submissions of about 20 ms each, between which the device does work that does not heat \
                   it. A submission has what is measured up to 64 times; folds and values of polynomials side by side, since they have \
                   nothing to do with one another, and what writes to the same vector one after the other. `One alone` is from \
                   submission until the host knows that it is done, the median of 21. Goals are for an H200; the best of others \
                   was measured on the same GPU unless another one is named. Shares of the chain are of `fq_mul_chain` and \
                   `fr_mul_chain`, and shares of the memory of what the flat kernel moves, all in this report.",
            columns: vec!["", "value", "unit", "goal", "best of others", "what"],
            lines: self.rows.iter().map(line).collect(),
        }
    }

    /// The batches as objects.
    pub(crate) fn batches(&self) -> Vec<Value> {
        self.batches.iter().map(Batch::json).collect()
    }
}

/// Prints measurements as they are made: a family's, or all and the batches.
pub(crate) fn print(options: &Options, only: Option<&str>, quick: bool, launches: bool) -> Outcome<()> {
    let bench = Bench { launches, ..Bench::new(options, None, quick)? };
    println!("{}\n", bench.backend);
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    for (_, family) in FAMILIES.iter().filter(|(name, _)| wanted(name)) {
        for row in family(&bench)? {
            println!("{:28} {:>10.3} {:12} {}", row.name, row.value, row.unit, row.detail);
        }
    }
    if wanted("batches") {
        let mut batches = Vec::new();
        let outcome = batches::measure(&bench, &mut batches);
        print!("{}", batches::sheet(&batches));
        outcome?;
    }
    Ok(())
}
