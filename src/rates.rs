//! How fast kernels are by themselves, on data that stays on the device: for the report, and for the choice of formulations. Public
//! for the command-line program only.

use crate::call::{Call, Prepared};
use crate::choice;
use crate::inversion::{self, Inversion};
use crate::on_device::{Groups, Unwatched, Vulkan, arranged};
use crate::operation::{Parameter, Row, TABLE};
use crate::reduction::Reduce;
use crate::task::{Scratch, Task};
use crate::{Backend, DeviceError, Error, Field, Form, REDUCTIONS, ReductionRow, Zeros};
use cpu_reference::probes;
use field_kernels::{Formulation, Kernel, permutations};
use gpu_executor::{Batch, DeviceKind, Job, Program, Region, Slot, SlotUse, Weight};
use rayon::prelude::*;
use std::collections::HashSet;
use std::time::{Duration, Instant};

type Fq = ark_bls12_381::Fq;
type Fr = ark_bls12_381::Fr;

/// Lengths of the vectors that formulations are compared on; the shortest of what costs one multiplication.
const SHORTEST: usize = 1 << 14;
const LONGEST: usize = 1 << 22;
/// Different elements of a trial's inputs.
const DISTINCT: usize = 1 << 14;
/// How long a device is kept at work before it is measured.
const WARM_UP: Duration = Duration::from_millis(30);

/// What is measured in each formulation.
#[derive(Clone, Copy)]
enum Measured {
    Operation(&'static Row),
    Reduction(&'static ReductionRow),
    BatchInverse,
}

impl Measured {
    const fn cost(self) -> u64 {
        match self {
            Measured::Operation(row) => row.cost,
            Measured::Reduction(row) => row.cost,
            Measured::BatchInverse => inversion::COST,
        }
    }
}

/// A trial on the device.
struct Ready {
    program: Program,
    slots: [Option<(Region, bool)>; 4],
    output: Region,
    length: usize,
    steps: u32,
}

impl Ready {
    fn launch(&self, batch: &mut Batch) {
        batch.launch(&self.program, self.slots.clone(), (self.length as u32, Weight::of(1)), &[self.steps]);
    }
}

/// Inputs for a kernel that only measures, and what it has to answer.
#[derive(Debug)]
pub struct Trial {
    kernel: Kernel,
    field: Field,
    steps: u32,
    inputs: [Vec<u64>; 2],
    answers: Vec<u64>,
}

impl Trial {
    /// Inputs of `length` elements, random but for that they repeat after [`DISTINCT`] of them, so that the CPU is done soon, and the answers after
    /// so many steps; `None` for kernels that do more than to measure.
    pub fn new(kernel: Kernel, field: Field, length: usize, steps: u32) -> Option<Self> {
        let probe = match (kernel, field) {
            (Kernel::Xor, _) => probes::XOR,
            (Kernel::MulChain, Field::Fq) => probes::mul_chain::<Fq>(),
            (Kernel::MulChain, Field::Fr) => probes::mul_chain::<Fr>(),
            (Kernel::SquareChain, Field::Fq) => probes::square_chain::<Fq>(),
            (Kernel::SquareChain, Field::Fr) => probes::square_chain::<Fr>(),
            (Kernel::Mul2Chain, Field::Fq) => probes::mul2_chain::<Fq>(),
            (Kernel::Mul2Chain, Field::Fr) => probes::mul2_chain::<Fr>(),
            (Kernel::WideRate, _) => probes::WIDE,
            (Kernel::FmaRate, _) => probes::FMA,
            _ => return None,
        };
        let distinct = length.min(DISTINCT);
        let inputs = [381, 255].map(|seed| random(field, distinct, seed));
        let mut answers = vec![0; distinct * field.limbs()];
        let elements = inputs[0].par_chunks(field.limbs()).zip(inputs[1].par_chunks(field.limbs()));
        answers.par_chunks_mut(field.limbs()).zip(elements).for_each(|(r, (a, b))| probe(a, b, steps, r));
        let all = |some: Vec<u64>| some.into_iter().cycle().take(length * field.limbs()).collect::<Vec<u64>>();
        Some(Self { kernel, field, steps, inputs: inputs.map(all), answers: all(answers) })
    }

    fn length(&self) -> usize {
        self.answers.len() / self.field.limbs()
    }

    fn slots(&self) -> [SlotUse; 4] {
        let bytes = self.field.bytes();
        [SlotUse::Reads(bytes), SlotUse::Reads(bytes), SlotUse::None, SlotUse::Writes(bytes)]
    }
}

/// Elements below the modulus, none zero.
pub(crate) fn random(field: Field, length: usize, seed: u64) -> Vec<u64> {
    let mut random = fastrand::Rng::with_seed(seed);
    let (limbs, top) = (field.limbs(), field.modulus()[field.limbs() - 1]);
    let mut vector: Vec<u64> = (0..length * limbs).map(|_| random.u64(..)).collect();
    vector.chunks_exact_mut(limbs).for_each(|element| element[limbs - 1] = random.u64(1..top));
    vector
}

/// The kind of CPU; nothing, if the system does not tell.
pub fn processor() -> &'static str {
    choice::processor()
}

#[doc(hidden)]
impl Backend {
    /// Seconds that a kernel takes for a trial, every element of its last answer checked; `None` if the device has no such kernel in
    /// this formulation.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::VerificationFailed`].
    pub fn seconds(&self, trial: &Trial, formulation: Formulation, repetitions: usize) -> Result<Option<f64>, Error> {
        Ok(self.seconds_in_turn([(trial, formulation)], repetitions)?.map(|[seconds]| seconds))
    }

    /// As [`seconds`](Self::seconds), of several trials in turn, so that they can be compared: a device's clocks change with what it does.
    ///
    /// # Errors
    /// [`Error::Device`], [`Error::VerificationFailed`].
    pub fn seconds_in_turn<const N: usize>(
        &self,
        trials: [(&Trial, Formulation); N],
        repetitions: usize,
    ) -> Result<Option<[f64; N]>, Error> {
        let Some(vulkan) = self.vulkan() else { return Ok(None) };
        for (_, formulation) in trials {
            if !vulkan.is_able(formulation)? {
                return Ok(None);
            }
        }
        vulkan.seconds_in_turn(trials, repetitions)
    }

    /// Has the device choose formulations by measurement, as a thorough calibration does.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn choose_formulations(&self) -> Result<(), Error> {
        self.vulkan().map_or(Ok(()), |vulkan| vulkan.choose_formulations(self, Duration::MAX, &mut |_, _| {}))
    }

    /// In which formulations the device has a kernel.
    pub fn formulations_of(&self, kernel: Kernel, field: Field) -> Vec<Formulation> {
        let Some(vulkan) = self.vulkan() else { return Vec::new() };
        let able = |formulation: &Formulation| matches!(vulkan.is_able(*formulation), Ok(true));
        vulkan.formulations.of(kernel, field).filter(able).collect()
    }

    /// The formulation that is chosen for a kernel.
    pub fn formulation_of(&self, kernel: Kernel, field: Field) -> Option<Formulation> {
        self.vulkan().map(|vulkan| vulkan.formulations.choose(kernel, field).formulation)
    }

    /// How long the driver took to make the Vulkan instance, to tell of its devices, and to make this one.
    pub fn driver_time(&self) -> Duration {
        self.vulkan().map(|vulkan| vulkan.device().driver_time()).unwrap_or_default()
    }

    /// The kernels of the pipelines that were built, and how long each took.
    pub fn built(&self) -> Vec<(&'static str, Duration)> {
        self.vulkan().map(|vulkan| vulkan.device().build_times()).unwrap_or_default()
    }

    /// Builds a pipeline for every kernel that operations of the device can use, in both forms, and says how long each took. Cold
    /// only if neither this library nor the driver has it in a cache.
    ///
    /// # Errors
    /// [`Error::Device`].
    pub fn build_times(&self) -> Result<Vec<(String, Duration)>, Error> {
        let Some(vulkan) = self.vulkan() else { return Ok(Vec::new()) };
        let mut times = Vec::new();
        for made in permutations().filter(|made| made.width == vulkan.width) {
            let usable = vulkan.formulations.of(made.kernel, made.field).any(|usable| usable == made.formulation);
            let Some(row) = TABLE.iter().find(|row| row.kernel == made.kernel && usable) else { continue };
            let slots = crate::on_device::slots(row, made.field);
            for canonical in if row.form_matters { &[false, true][..] } else { &[false] } {
                let groups = vulkan.resident_groups(self.settings(), row);
                let kernel = vulkan.element_wise(made.shader, made.field, &slots, (*canonical, false), groups);
                let begin = Instant::now();
                // SAFETY: as in `Vulkan::program_in`.
                unsafe { vulkan.device().prepare(&kernel) }?;
                let form = if *canonical { " of canonical elements" } else { "" };
                times.push((format!("{}{form}", made.shader.name), begin.elapsed()));
            }
        }
        Ok(times)
    }
}

impl Vulkan {
    /// Whether the device computes as a formulation needs it.
    pub(crate) fn is_able(&self, formulation: Formulation) -> Result<bool, Error> {
        Ok(formulation != Formulation::Doubles || self.has_fused_doubles()?)
    }

    /// Whether the device rounds a fused multiply-add of doubles once, as what multiplies in doubles needs it, and as Vulkan does not
    /// promise it.
    fn has_fused_doubles(&self) -> Result<bool, Error> {
        if let Some(fused) = self.fused.get() {
            return Ok(*fused);
        }
        let mut fused = false;
        if let Some(trial) = Trial::new(Kernel::FmaRate, Field::Fq, 256, 1)
            && let Some(program) = self.trial_program(&trial, Formulation::Doubles)?
        {
            // As a call from host memory: the first multiplication waits for the answer, and resident memory would have to be made for it.
            let mut answers = vec![0u64; trial.answers.len()];
            let [a, b] = [&trial.inputs[0], &trial.inputs[1]].map(|vector| Slot::Read(bytemuck::cast_slice(vector)));
            let job = Job {
                elements: trial.length(),
                slots: [a, b, Slot::Unused, Slot::Write(bytemuck::cast_slice_mut(&mut answers))],
                params: &[trial.steps],
                cost: 1,
                staged: None,
                chunk_elements: None,
                share: None,
            };
            program.run(job, &Unwatched)?;
            fused = answers == trial.answers;
            if !fused {
                tracing::warn!(
                    "fused multiply-adds of doubles are rounded twice on this device: nothing is multiplied in doubles"
                );
            }
        }
        Ok(*self.fused.get_or_init(|| fused))
    }

    /// The program of a trial; `None` if the device has no such kernel in this formulation.
    fn trial_program(&self, trial: &Trial, formulation: Formulation) -> Result<Option<Program>, Error> {
        let (kernel, field) = (trial.kernel, trial.field);
        if !self.formulations.of(kernel, field).any(|usable| usable == formulation) {
            return Ok(None);
        }
        let Some(shader) = kernel.shader(field, self.width, formulation) else { return Ok(None) };
        // The flat kernel writes each quad where it has read it.
        let groups = Groups::of(self.device().workgroup_size());
        let kernel = self.element_wise(shader, field, &trial.slots(), (false, false), groups);
        // SAFETY: as in `Vulkan::program_in`; probe.comp keeps to a trial's slots.
        Ok(Some(unsafe { self.device().prepare(&kernel) }?))
    }

    /// A trial whose inputs are on the device; `None` if that has no such kernel in this formulation.
    fn ready(&self, trial: &Trial, formulation: Formulation) -> Result<Option<Ready>, Error> {
        let Some(program) = self.trial_program(trial, formulation)? else { return Ok(None) };
        let inputs = trial.inputs.iter().map(|vector| self.uploaded(vector)).collect::<Result<Vec<Region>, _>>()?;
        let output = self.device().allocate(8 * trial.answers.len() as u64)?;
        let read = |n: usize| inputs.get(n).map(|region| (region.clone(), false));
        let slots = [read(0), read(1), None, Some((output.clone(), true))];
        Ok(Some(Ready { program, slots, output, length: trial.length(), steps: trial.steps }))
    }

    /// The first limb of what a trial left that is not as it has to be.
    fn first_wrong(&self, trial: &Trial, ready: &Ready) -> Result<Option<usize>, Error> {
        let mut batch = Batch::default();
        batch.download(&ready.output);
        let mut answers = vec![0u64; trial.answers.len()];
        self.device().submit(&batch)?.finish(&mut [bytemuck::cast_slice_mut(&mut answers)])?;
        Ok(answers.iter().zip(&trial.answers).position(|(got, expected)| got != expected))
    }

    fn seconds_in_turn<const N: usize>(
        &self,
        trials: [(&Trial, Formulation); N],
        repetitions: usize,
    ) -> Result<Option<[f64; N]>, Error> {
        let mut ready = Vec::new();
        for (trial, formulation) in trials {
            let Some(trial) = self.ready(trial, formulation)? else { return Ok(None) };
            ready.push(trial);
        }
        let seconds = self.each_in_turn(repetitions, |which, batch| {
            ready[which].launch(batch);
            Ok(())
        })?;
        for ((trial, _), ready) in trials.iter().zip(&ready) {
            if let Some(limb) = self.first_wrong(trial, ready)? {
                return Err(Error::VerificationFailed {
                    operation: trial.kernel.name(),
                    field: trial.field,
                    index: limb / trial.field.limbs(),
                    device: self.device().info().to_string(),
                });
            }
        }
        Ok(Some(seconds))
    }

    fn seconds_each(&self, repetitions: usize, add: impl Fn(&mut Batch) -> Result<(), Error>) -> Result<f64, Error> {
        self.each_in_turn(repetitions, |_, batch| add(batch)).map(|[seconds]| seconds)
    }

    /// Seconds that each of several things takes, added to a batch by its number: the median of differences of batches that have it many and
    /// few times, so that what a submission costs besides cancels out.
    fn each_in_turn<const N: usize>(
        &self,
        repetitions: usize,
        add: impl Fn(usize, &mut Batch) -> Result<(), Error>,
    ) -> Result<[f64; N], Error> {
        let run = |which: usize, times: usize| -> Result<Duration, Error> {
            let mut batch = Batch::default();
            (0..times).try_for_each(|_| add(which, &mut batch))?;
            let begin = Instant::now();
            self.device().submit(&batch)?.finish(&mut [])?;
            Ok(begin.elapsed())
        };
        // A few milliseconds at least, so that what varies from submission to submission is little beside them.
        let mut few = [1; N];
        for (which, few) in few.iter_mut().enumerate() {
            *few = (0.005 / run(which, 1)?.as_secs_f64().max(1e-9)).clamp(1.0, 16.0) as usize;
        }
        // A device that was idle takes its time to raise its clocks.
        let begin = Instant::now();
        while begin.elapsed() < WARM_UP && self.device().info().kind != DeviceKind::Software {
            for (which, &few) in few.iter().enumerate() {
                run(which, few)?;
            }
        }
        let mut each = [const { Vec::new() }; N];
        for _ in 0..repetitions.max(1) {
            for (which, (&few, each)) in few.iter().zip(&mut each).enumerate() {
                let (less, more) = (run(which, few)?, run(which, 3 * few)?);
                // What was held up by something else tells nothing.
                each.push(if more > less { (more - less) / 2 } else { more / 3 }.as_secs_f64() / few as f64);
            }
        }
        Ok(each.map(|mut each| {
            each.sort_by(f64::total_cmp);
            each[each.len() / 2]
        }))
    }

    /// Measures the kernels that exist in several formulations, one after another for about as long as is given, and chooses the
    /// quickest of each from now on.
    pub(crate) fn choose_formulations(
        &self,
        backend: &Backend,
        budget: Duration,
        progress: &mut dyn FnMut(f64, &str),
    ) -> Result<(), Error> {
        let begin = Instant::now();
        let several = |&(_, kernel, field): &(Measured, Kernel, Field)| self.formulations.of(kernel, field).count() > 1;
        let operations = TABLE.iter().flat_map(|row| {
            let fields = Field::ALL.into_iter().filter(|&field| row.available(field));
            fields.map(move |field| (Measured::Operation(row), row.kernel, field))
        });
        let reductions = REDUCTIONS
            .iter()
            .flat_map(|row| Field::ALL.into_iter().map(move |field| (Measured::Reduction(row), row.first, field)));
        let inverses = Field::ALL.map(|field| (Measured::BatchInverse, Kernel::BatchInverse, field));
        let mut measured: Vec<(Measured, Kernel, Field)> =
            operations.chain(reductions).chain(inverses).filter(several).collect();
        // Operations that share a kernel share its formulation.
        let mut seen = HashSet::new();
        measured.retain(|&(_, kernel, field)| seen.insert((kernel, field)));
        for &(what, kernel, field) in &measured {
            if begin.elapsed() > budget {
                break;
            }
            progress(0.0, &format!("formulations of {} in {field}", kernel.name()));
            let mut rates: Vec<(Formulation, f64)> = Vec::new();
            let mut length = (SHORTEST / what.cost() as usize).max(64);
            let rate = |formulation, length| match what {
                Measured::Operation(row) => self.rate(backend, (row, field), formulation, length),
                Measured::Reduction(row) => {
                    let task = Reduce { reduction: row.reduction, field, segment: length, steps: None };
                    self.task_rate(backend, (&task, row.vectors, 1), formulation, length)
                }
                Measured::BatchInverse => {
                    let task = Inversion { field, zeros: Zeros::Keep, invocations: None };
                    self.task_rate(backend, (&task, 1, length), formulation, length)
                }
            };
            'lengths: loop {
                let mut at_length = Vec::new();
                for formulation in self.formulations.of(kernel, field) {
                    match rate(formulation, length) {
                        // It is not used, then.
                        Err(Error::SelfTestFailed { .. }) => {}
                        // What was measured on shorter vectors has to do.
                        Err(Error::Device(DeviceError::OutOfMemory { .. })) => break 'lengths,
                        rate => at_length.push((formulation, rate?)),
                    }
                }
                rates = at_length;
                // Long enough to fill the device, short enough for a slow one.
                let longest = rates.iter().map(|(_, rate)| length as f64 / rate).fold(0.0, f64::max);
                if longest > 1e-3 || length >= LONGEST || begin.elapsed() > budget {
                    // Something else may have held one of them up.
                    for (formulation, most) in &mut rates {
                        *most = rate(*formulation, length).map_or(*most, |again| most.max(again));
                    }
                    break;
                }
                length *= 4;
            }
            self.formulations.learn(kernel, field, &rates);
        }
        if !measured.is_empty() && backend.is_ordinary() {
            self.formulations.keep(self.device());
        }
        Ok(())
    }

    /// Elements a second of an operation on vectors in Montgomery form that stay on the device, in one formulation.
    fn rate(
        &self,
        backend: &Backend,
        (row, field): (&'static Row, Field),
        formulation: Formulation,
        length: usize,
    ) -> Result<f64, Error> {
        let element = random(field, 1, 1);
        let parameter = if row.parameter == Parameter::None { &[][..] } else { &element };
        let empty = vec![&[][..]; row.vectors];
        let call = Call { operation: row.operation, field, form: Form::Montgomery, vectors: &empty, parameter };
        let prepared = Prepared::new(&call)?;
        let groups = self.resident_groups(backend.settings(), row);
        let program = self.program_in(backend.settings(), &prepared, groups, formulation)?;
        let bytes = (length * field.bytes()) as u64;
        let region = self.uploaded(&random(field, length, 2))?;
        let input = |n: usize| (n < row.vectors).then(|| (region.clone(), false));
        let elements = if row.has_elements() { Some((self.device().allocate(bytes)?, true)) } else { None };
        let mask = if row.has_mask() { Some((self.device().allocate(4 * length as u64)?, true)) } else { None };
        let slots = arranged(row, [input(0), input(1), input(2)], elements, mask);
        let seconds = self.seconds_each(5, |batch| {
            batch.launch(&program, slots.clone(), (length as u32, Weight::of(row.cost)), &prepared.words);
            Ok(())
        })?;
        Ok(length as f64 / seconds)
    }

    /// Elements a second of a task on so many vectors, of a result of so many elements.
    fn task_rate(
        &self,
        backend: &Backend,
        (task, vectors, results): (&dyn Task, usize, usize),
        formulation: Formulation,
        length: usize,
    ) -> Result<f64, Error> {
        let field = task.field();
        let inputs = vec![Some(self.uploaded(&random(field, length, 2))?); vectors];
        let outputs = [Some(self.device().allocate((results * field.bytes()) as u64)?)];
        let add =
            |batch: &mut Batch| self.lower_in(backend, task, formulation, (batch, &Scratch::default()), (&inputs, &outputs));
        Ok(length as f64 / self.seconds_each(5, add)?)
    }

    /// A vector on the device.
    fn uploaded(&self, vector: &[u64]) -> Result<Region, Error> {
        let region = self.device().allocate(8 * vector.len() as u64)?;
        let mut batch = Batch::default();
        batch.upload(&region, bytemuck::cast_slice(vector).into());
        self.device().submit(&batch)?.finish(&mut [])?;
        Ok(region)
    }
}
