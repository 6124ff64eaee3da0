//! `bls12-gpu algebra`: the vector algebra on resident vectors, timed and checked.

mod folds;
mod fusion;
mod inversion;
mod matrices;
mod movement;
mod scans;

use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Error, Options, Recording};
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

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

/// How long the device is kept busy before anything is timed.
const WARM: Duration = Duration::from_millis(800);

/// Where is measured.
pub(crate) struct Bench {
    pub(crate) backend: Backend,
    pub(crate) quick: bool,
}

impl Bench {
    /// A size: the full one, or a small one.
    pub(crate) fn size(&self, full: usize) -> usize {
        if self.quick { full.min(1 << 10) } else { full }
    }

    /// Random elements, the same ones for the same seed.
    pub(crate) fn elements<F: Element>(&self, length: usize, seed: u64) -> Vec<F> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut limbs = vec![0; length * F::FIELD.limbs()];
        let top = F::FIELD.modulus()[F::FIELD.limbs() - 1];
        for element in limbs.chunks_exact_mut(F::FIELD.limbs()) {
            element.iter_mut().for_each(|limb| *limb = random.u64(..));
            if let Some(last) = element.last_mut() {
                *last = random.u64(..top);
            }
        }
        F::elements(&limbs).to_vec()
    }

    /// Seconds that what `record` records takes on the device, in the steady state: it is recorded several times in one recording;
    /// the least of some submissions, from submission to completion. What it leaves is the caller's to check.
    pub(crate) fn seconds(&self, record: impl Fn(&mut Recording) -> Result<(), Error>) -> Outcome<f64> {
        let submission = |times: usize| -> Outcome<f64> {
            let mut recording = self.backend.record();
            for _ in 0..times {
                record(&mut recording)?;
            }
            let start = Instant::now();
            recording.submit()?.wait()?;
            Ok(start.elapsed().as_secs_f64())
        };
        if self.quick {
            return submission(1);
        }
        // Pipelines; and clocks, which fall while the device waits for the host's random numbers.
        let begin = Instant::now();
        let mut once = submission(1)?;
        while begin.elapsed() < WARM {
            let times = ((10e-3 / once) as usize).clamp(1, 64);
            once = submission(times)? / times as f64;
        }
        let times = ((20e-3 / once) as usize).clamp(1, 64);
        let mut least = f64::MAX;
        for _ in 0..5 {
            least = least.min(submission(times)? / times as f64);
        }
        Ok(least)
    }
}

/// Prints a family's measurements, or all, as a table.
pub(crate) fn measure(options: &Options, only: Option<&str>, quick: bool) -> Outcome<Vec<Row>> {
    let bench = Bench { backend: Backend::new(options)?, quick };
    println!("{}\n", bench.backend);
    let mut rows = Vec::new();
    for (name, family) in FAMILIES {
        if only.is_none_or(|only| only == name) {
            for row in family(&bench)? {
                println!("{:28} {:>10.3} {:12} {}", row.name, row.value, row.unit, row.detail);
                rows.push(row);
            }
        }
    }
    Ok(rows)
}
