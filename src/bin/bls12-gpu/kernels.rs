//! What kernels do with vectors that stay on the device, and what the device could do: the flat pass over the same bytes and the rates
//! of its multipliers, measured in the same run.

use crate::measure::warming;
use crate::report::{Report, Table, seconds_each};
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::rates::Trial;
use bls12_field_gpu::{
    Backend, CacheDirectory, DeviceChoice, Engine, Error, Field, Form, Formulation, Operation, Options, REDUCTIONS,
    Recording, Reduction, Vector, Verify,
};
use field_kernels::{Kernel, permutations};
use rayon::prelude::*;
use std::cell::Cell;
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// Steps of a chain.
const STEPS: u32 = 256;

/// Launches of a stream that is timed once, and a third of those that it is timed with. With 4 the H200 was slower at what the memory bounds (Fr's
/// additions 43.1 G a second instead of 45.3, its products 41.6 instead of 45.7), as if its clocks were still rising; after some 30 ms of Fq's
/// multiplications, which these are, it is at its limit of power, which is another row.
const BURST: usize = 16;

/// Launches that are to run side by side write to so many vectors.
const OUTPUTS: usize = 8;

/// How long the device is kept at work to see what it sustains.
const SUSTAINED: Duration = Duration::from_secs(3);

/// One after the other, and again from the first one.
fn in_turn<'a, T>(all: &'a [T]) -> impl Fn() -> &'a T {
    let turn = Cell::new(0);
    move || &all[turn.replace((turn.get() + 1) % all.len())]
}

/// Everything that was measured about kernels.
pub(crate) struct Kernels {
    pub(crate) device: String,
    /// Elements a second, in G, of the flat kernel, by field.
    pub(crate) flat: Vec<(Field, f64)>,
    /// Wide integer multiply-adds and fused multiply-adds of doubles a second, in G, where the device has them.
    pub(crate) multipliers: [Option<f64>; 2],
    pub(crate) rates: Vec<Rate>,
    /// How long two multiplications take over how long a b + c d takes, both in the quickest formulation and measured in turn.
    mul2_ratios: Vec<(Field, f64)>,
    /// Fq multiplications without a pause for seconds, in G elements a second: at the device's limit of power, if it has one.
    sustained: Option<f64>,
    builds: Vec<(String, Duration)>,
}

/// How many elements a second, in G, a kernel computes.
pub(crate) struct Rate {
    /// As in the report's rows.
    pub(crate) name: String,
    pub(crate) field: Field,
    pub(crate) work: Work,
    pub(crate) formulation: Formulation,
    /// Whether it is what the device uses; of kernels that only measure, whether it is the quickest.
    pub(crate) chosen: bool,
    pub(crate) rate: f64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// An operation on long vectors, or one that folds them.
    Stream(Operation),
    Fold(Reduction),
    /// 256 steps that depend on one another.
    Chain(Kernel),
}

impl Rate {
    /// Bytes that an element of the result takes from memory and to it.
    pub(crate) fn bytes(&self) -> usize {
        match self.work {
            Work::Stream(operation) => (operation.row().vectors + 1) * self.field.bytes(),
            Work::Fold(reduction) => reduction.row().vectors * self.field.bytes(),
            Work::Chain(_) => 0,
        }
    }
}

impl Kernels {
    /// Measures everything on the device of these options.
    pub(crate) fn measure(options: &Options, quick: bool) -> Result<Self, Failure> {
        // First, while the driver has not seen any of them.
        let builds = Backend::new(&options.clone().cache(CacheDirectory::Off))?.build_times()?;
        // What is measured for a report is not what the library is to go by.
        let options = options.clone().verify(Verify::Off).cache(CacheDirectory::Off);
        let backend = Backend::new(&options)?;
        backend.choose_formulations()?;
        let Engine::Vulkan { device, .. } = backend.engine() else { return Err("kernels need a device".into()) };
        let mut kernels = Self {
            device: device.name.clone(),
            flat: Vec::new(),
            multipliers: [None; 2],
            rates: Vec::new(),
            mul2_ratios: Vec::new(),
            sustained: None,
            builds,
        };
        // The device's clocks fell while the host built pipelines.
        warming(&backend, quick)?()?;
        kernels.limits(&backend, quick)?;
        kernels.streams::<Fq>(&backend, &options, quick)?;
        kernels.streams::<Fr>(&backend, &options, quick)?;
        kernels.powers(&backend, &options, quick)?;
        kernels.chains(&backend, quick)?;
        Ok(kernels)
    }

    fn limits(&mut self, backend: &Backend, quick: bool) -> Result<(), Failure> {
        let repetitions = if quick { 1 } else { 9 };
        // At 2^24 a single launch of it runs at half this rate on the H200, and so do, of Fr, launches side by side that write to different
        // vectors; nobody knows why. So these write to the same one, in turn, and what runs side by side may come out above this limit.
        let length = if quick { 1 << 10 } else { 1 << 23 };
        for field in Field::ALL {
            let trial = Trial::new(Kernel::Xor, field, length, 0).ok_or("no flat kernel")?;
            let seconds = backend.seconds(&trial, Formulation::Words, repetitions)?;
            self.flat.extend(seconds.map(|seconds| (field, length as f64 / seconds / 1e9)));
        }
        let (length, steps) = if quick { (1 << 8, 2) } else { (1 << 20, STEPS) };
        let multipliers = [(Kernel::WideRate, Formulation::Words), (Kernel::FmaRate, Formulation::Doubles)];
        for (found, (kernel, formulation)) in self.multipliers.iter_mut().zip(multipliers) {
            let trial = Trial::new(kernel, Field::Fq, length, steps).ok_or("no kernel of multiplications")?;
            let seconds = backend.seconds(&trial, formulation, repetitions)?;
            *found = seconds.map(|seconds| 64.0 * f64::from(steps) * length as f64 / seconds / 1e9);
        }
        Ok(())
    }

    /// c = a op b over vectors that no cache holds; of what multiplies, in every formulation.
    fn streams<F: Element>(&mut self, backend: &Backend, options: &Options, quick: bool) -> Result<(), Failure> {
        let length = if quick { 1 << 10 } else { 1 << 24 };
        let elements = |salt: u64| -> Vec<F> {
            (0..length as u64)
                .into_par_iter()
                .map(|i| F::from(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ salt).square())
                .collect()
        };
        let (x, y) = (elements(1), elements(2));
        let field = F::FIELD;
        for formulation in backend.formulations_of(Kernel::Mul, field) {
            let with = Backend::new(&options.clone().formulation(formulation))?;
            let (a, b) = (with.upload(&x)?, with.upload(&y)?);
            // In turn, or each launch would wait for the one before it. As many as there is memory for, and some to spare.
            let mut outs: Vec<Vector<F>> = vec![with.zeros(length)?];
            outs.extend((1..=OUTPUTS).map_while(|_| with.zeros(length).ok()));
            if outs.len() > 1 {
                outs.pop();
            }
            let next = in_turn(&outs);
            let sums = [Operation::Add, Operation::Sub, Operation::Neg, Operation::Double];
            let sums = if formulation == Formulation::Words { &sums[..] } else { &[] };
            for &operation in sums.iter().chain(&[Operation::Mul, Operation::Square]) {
                let inputs: Vec<&Vector<F>> = [&a, &b].into_iter().take(operation.row().vectors).collect();
                let record = |recording: &mut Recording| recording.apply_into(operation, &inputs, &[], next());
                let each = seconds_each(&with, quick, BURST, record)?;
                let expected = |i: usize| match operation {
                    Operation::Add => x[i] + y[i],
                    Operation::Sub => x[i] - y[i],
                    Operation::Neg => -x[i],
                    Operation::Double => x[i].double(),
                    Operation::Mul => x[i] * y[i],
                    _ => x[i].square(),
                };
                // The others are compared with the first one where they are.
                let mut right = outs[0].download()?.par_iter().enumerate().all(|(i, element)| *element == expected(i));
                for other in &outs[1..] {
                    let mut recording = with.record();
                    recording.sub_into(&outs[0], other, other)?;
                    let extents = recording.extents(other, 1)?;
                    recording.submit()?.wait()?;
                    right &= extents.download()? == [0];
                }
                if !right {
                    return Err(format!("resident {} in {field} is wrong", operation.name()).into());
                }
                let decision = backend.explain(operation, field, Form::Montgomery, length);
                let chosen = decision.multiplication.is_some_and(|chosen| chosen.formulation == formulation);
                if field == Field::Fq && operation == Operation::Mul && chosen {
                    let begin = Instant::now();
                    let mut launches = 0;
                    while launches == 0 || (!quick && begin.elapsed() < SUSTAINED) {
                        let mut recording = with.record();
                        for _ in 0..64 {
                            recording.apply_into(operation, &inputs, &[], next())?;
                        }
                        recording.submit()?.wait()?;
                        launches += 64;
                    }
                    self.sustained = Some((launches * length) as f64 / begin.elapsed().as_secs_f64() / 1e9);
                }
                self.rates.push(Rate {
                    name: format!("{}_{}_stream", name(field), operation.name()),
                    field,
                    work: Work::Stream(operation),
                    formulation,
                    chosen,
                    rate: length as f64 / each / 1e9,
                });
            }
            let ones = outs.iter().map(|out| out.slice(0..1)).collect::<Result<Vec<_>, Error>>()?;
            let next = in_turn(&ones);
            for row in &REDUCTIONS {
                let kernel = match row.reduction {
                    Reduction::Sum => Kernel::Sum,
                    Reduction::Product => Kernel::Scan,
                    _ => Kernel::InnerProduct,
                };
                if !backend.formulations_of(kernel, field).contains(&formulation) {
                    continue;
                }
                let inputs: Vec<&Vector<F>> = [&a, &b].into_iter().take(row.vectors).collect();
                let each =
                    seconds_each(&with, quick, 16, |recording| recording.reduce_into(row.reduction, &inputs, next()))?;
                let mut recording = with.record();
                recording.reduce_into(row.reduction, &inputs, &ones[0])?;
                recording.submit_verified()?.wait()?;
                let right = ones[0].download()?;
                if ones.iter().any(|one| !matches!(one.download(), Ok(one) if one == right)) {
                    return Err(format!("resident {} in {field} is wrong", row.name).into());
                }
                self.rates.push(Rate {
                    name: format!("{}_{}_stream", name(field), row.name),
                    field,
                    work: Work::Fold(row.reduction),
                    formulation,
                    chosen: backend.formulation_of(kernel, field) == Some(formulation),
                    rate: length as f64 / each / 1e9,
                });
            }
        }
        Ok(())
    }

    /// Powers of 381 bits, as inverses and roots are, in every formulation.
    fn powers(&mut self, backend: &Backend, options: &Options, quick: bool) -> Result<(), Failure> {
        let length = if quick { 1 << 6 } else { 1 << 20 };
        let mut random = fastrand::Rng::with_seed(381);
        let mut exponent: Vec<u64> = (0..Field::Fq.limbs()).map(|_| random.u64(..)).collect();
        exponent[5] = 1 << 60 | random.u64(..1 << 60);
        let x: Vec<Fq> = (0..length as u64).into_par_iter().map(|i| Fq::from(i + 2)).collect();
        let cpu = Backend::new(&Options::new().device(DeviceChoice::Cpu).require_gpu(false))?;
        let expected = cpu.pow(&x, &exponent)?;
        let decision = backend.explain(Operation::Pow, Field::Fq, Form::Montgomery, length);
        for formulation in backend.formulations_of(Kernel::Pow, Field::Fq) {
            let with = Backend::new(&options.clone().formulation(formulation))?;
            let (a, out) = (with.upload(&x)?, with.zeros(length)?);
            let each = seconds_each(&with, quick, 1, |recording| recording.pow_into(&a, &exponent, &out))?;
            if out.download()? != expected {
                return Err("a resident power is wrong".into());
            }
            self.rates.push(Rate {
                name: "fq_pow381_stream".into(),
                field: Field::Fq,
                work: Work::Stream(Operation::Pow),
                formulation,
                chosen: decision.multiplication.is_some_and(|chosen| chosen.formulation == formulation),
                rate: length as f64 / each / 1e9,
            });
        }
        Ok(())
    }

    fn chains(&mut self, backend: &Backend, quick: bool) -> Result<(), Failure> {
        let (length, steps, repetitions) = if quick { (1 << 7, 3, 1) } else { (1 << 20, STEPS, 5) };
        for (kernel, what) in [(Kernel::MulChain, "mul"), (Kernel::SquareChain, "sqr"), (Kernel::Mul2Chain, "mul2")] {
            for field in Field::ALL {
                let formulations = backend.formulations_of(kernel, field);
                let trial = Trial::new(kernel, field, length, steps).ok_or("no chain")?;
                let first = self.rates.len();
                for formulation in formulations {
                    let Some(seconds) = backend.seconds(&trial, formulation, repetitions)? else { continue };
                    self.rates.push(Rate {
                        name: format!("{}_{what}_chain", name(field)),
                        field,
                        work: Work::Chain(kernel),
                        formulation,
                        chosen: false,
                        rate: f64::from(steps) * length as f64 / seconds / 1e9,
                    });
                }
                if let Some(quickest) = self.rates[first..].iter_mut().max_by(|a, b| a.rate.total_cmp(&b.rate)) {
                    quickest.chosen = true;
                }
            }
        }
        // What two multiplications take and a b + c d takes.
        for field in Field::ALL {
            let chosen = |what: &str| Some(self.chosen(&format!("{}_{what}_chain", name(field)))?.formulation);
            let trial = |kernel| Trial::new(kernel, field, length, steps).ok_or("no chain");
            let (mul, mul2) = (trial(Kernel::MulChain)?, trial(Kernel::Mul2Chain)?);
            if let (Some(one), Some(two)) = (chosen("mul"), chosen("mul2"))
                && let Some([one, two]) = backend.seconds_in_turn([(&mul, one), (&mul2, two)], 2 * repetitions)?
            {
                self.mul2_ratios.push((field, 2.0 * one / two));
            }
        }
        Ok(())
    }

    pub(crate) fn flat(&self, field: Field) -> Option<f64> {
        self.flat.iter().find(|(of, _)| *of == field).map(|(_, rate)| *rate)
    }

    /// The rate of what is chosen.
    pub(crate) fn rate(&self, name: &str) -> Option<f64> {
        self.chosen(name).map(|rate| rate.rate)
    }

    fn chosen(&self, name: &str) -> Option<&Rate> {
        self.rates.iter().find(|rate| rate.name == name && rate.chosen)
    }

    /// Adds the rows and tables about kernels to a report.
    pub(crate) fn add_to(&self, report: &mut Report) {
        for rate in self.rates.iter().filter(|rate| rate.chosen) {
            report.row(rate.name.clone(), rate.rate, "G elem/s");
        }
        if let Some(sustained) = self.sustained {
            report.row("fq_mul_stream_sustained", sustained, "G elem/s");
        }
        for &(field, flat) in &self.flat {
            report.row(format!("{}_flat_stream", name(field)), flat, "G elem/s");
            if let Some(add) = self.rate(&format!("{}_add_stream", name(field))) {
                report.row(format!("{}_add_roof", name(field)), add / flat, "ratio");
            }
        }
        for &(field, ratio) in &self.mul2_ratios {
            report.row(format!("{}_mul2_ratio", name(field)), ratio, "ratio");
        }
        for (what, rate) in ["wide_multiply_adds", "double_fmas"].iter().zip(self.multipliers) {
            if let Some(rate) = rate {
                report.row(*what, rate, "G/s");
            }
        }
        if let Some((_, worst)) = self.builds.iter().max_by_key(|(_, time)| *time) {
            report.row("pipeline_worst_ms", millis(*worst), "ms");
        }
        let spirv: usize = permutations().map(|made| made.shader.spirv.len()).sum();
        report.row("spirv_bytes", spirv as f64, "bytes");
        report.tables.extend([self.resident(), self.side_by_side(), self.slowest_builds()]);
    }

    fn resident(&self) -> Table {
        let title = "Resident vectors: one recording of independent operations, G elements a second, G bytes a second";
        let mut table = Table { title, columns: vec!["G elem/s", "GB/s"], lines: Vec::new() };
        for rate in self.rates.iter().filter(|rate| rate.chosen && rate.bytes() > 0) {
            table.lines.push((rate.name.clone(), vec![Some(rate.rate), Some(rate.rate * rate.bytes() as f64)]));
        }
        table
    }

    fn side_by_side(&self) -> Table {
        let title = "Multiplication in each formulation: G elements a second";
        let columns = Formulation::ALL.map(Formulation::name).to_vec();
        let mut table = Table { title, columns, lines: Vec::new() };
        for rate in &self.rates {
            let several = self.rates.iter().filter(|other| other.name == rate.name).count() > 1;
            if several && !table.lines.iter().any(|(name, _)| *name == rate.name) {
                let of = |formulation| self.rates.iter().find(|r| r.name == rate.name && r.formulation == formulation);
                let values = Formulation::ALL.map(|formulation| of(formulation).map(|rate| rate.rate));
                table.lines.push((rate.name.clone(), values.to_vec()));
            }
        }
        table
    }

    fn slowest_builds(&self) -> Table {
        let mut slowest: Vec<_> = self.builds.iter().collect();
        slowest.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        let lines = slowest.iter().take(12).map(|(name, time)| (name.clone(), vec![Some(millis(*time))])).collect();
        Table { title: "The slowest pipelines to build: milliseconds", columns: vec!["ms"], lines }
    }
}

/// A field in the names of rows.
pub(crate) fn name(field: Field) -> &'static str {
    match field {
        Field::Fq => "fq",
        Field::Fr => "fr",
    }
}

pub(crate) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
