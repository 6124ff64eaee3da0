//! Tasks: operations on resident vectors that are not one element-wise kernel. Each says how a device computes it, how the CPU does,
//! and what proves its result; a recording holds it as one step, whatever it is.

use crate::backend::Backend;
use crate::memory::Held;
use crate::on_device::Vulkan;
use crate::step::Item;
use crate::{Error, Field};
use field_kernels::{Formulation, Kernel};
use gpu_executor::{Batch, Parts, Program, Region, Shape, SlotUse};
use smallvec::SmallVec;
use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::sync::Arc;

/// An operation on vectors, masks and indices of one field.
pub(crate) trait Task: fmt::Debug + Send + Sync {
    /// Its name, as in messages.
    fn name(&self) -> &'static str;

    /// The field of its elements.
    fn field(&self) -> Field;

    /// The kernel in whose formulation it multiplies, if it does.
    fn multiplies(&self) -> Option<Kernel> {
        None
    }

    /// What tells it from tasks of the same name and field that other kernels compute: each of them is tested once.
    fn variant(&self) -> Cow<'_, str> {
        "".into()
    }

    /// Adds what computes it to a device's batch. An input or output without bytes is `None`. Outputs do not overlap inputs, or each
    /// other, unless [`Task::in_place`] says that they may be equal.
    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error>;

    /// Whether an output may be the same memory as an input.
    fn in_place(&self) -> bool {
        false
    }

    /// Computes it on the CPU. Elements are in Montgomery form; the outputs have the right lengths and are all zero.
    fn compute(&self, inputs: &[Values], outputs: &mut [Values]);

    /// What proves outputs in less work than [`Task::compute`] takes, if anything does.
    fn proof(&self) -> Option<Proof<'_>> {
        None
    }

    /// Small tasks of the same variant, whose answers are compared with the CPU's before this one is first used: the edges of the
    /// field, lengths around those of workgroups and segments.
    fn trials(&self) -> Vec<Trial>;
}

/// Of inputs and what a device says the outputs are, the first item that is wrong, as (output, position). Inputs are right. What is not
/// wrong is right, byte for byte, but for a chance that [`Verify::Proofs`](crate::Verify::Proofs) tells.
pub(crate) type Proof<'a> = Box<dyn Fn(&[Values], &[Values]) -> Option<(usize, usize)> + 'a>;

/// A task with its inputs, and what its outputs are.
pub(crate) struct Trial {
    pub(crate) task: Arc<dyn Task>,
    pub(crate) inputs: Vec<Values>,
    /// Kind and number of items of each output.
    pub(crate) outputs: Vec<(Item, usize)>,
}

/// What a vector, a mask or indices hold, on the CPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Values {
    /// Limbs of elements in Montgomery form.
    Limbs(Vec<u64>),
    /// Flags or indices.
    Words(Vec<u32>),
    /// Limbs of elements, or not, where they lie in host memory; aligned as such.
    Held(Held, bool),
}

impl Values {
    /// So many items, all zero.
    pub(crate) fn zeroed(item: Item, length: usize) -> Self {
        match item {
            Item::Element(field) => Values::Limbs(vec![0; length * field.limbs()]),
            Item::Flag | Item::Index => Values::Words(vec![0; length]),
        }
    }

    fn zeroed_like(&self) -> Self {
        match self {
            Values::Limbs(limbs) => Values::Limbs(vec![0; limbs.len()]),
            Values::Words(words) => Values::Words(vec![0; words.len()]),
            Values::Held(held, true) => Values::Limbs(vec![0; held.bytes().len() / size_of::<u64>()]),
            Values::Held(held, false) => Values::Words(vec![0; held.bytes().len() / size_of::<u32>()]),
        }
    }

    /// What host memory holds, without a copy if it is aligned.
    pub(crate) fn held(item: Item, held: Held) -> Self {
        let elements = matches!(item, Item::Element(_));
        let aligned = if elements { bytemuck::try_cast_slice::<u8, u64>(held.bytes()).is_ok() } else { true };
        if aligned { Values::Held(held, elements) } else { Self::from_bytes(item, held.bytes()) }
    }

    /// As many items as these are the bytes of.
    pub(crate) fn from_bytes(item: Item, bytes: &[u8]) -> Self {
        match item {
            Item::Element(_) => Values::Limbs(copied(bytes)),
            Item::Flag | Item::Index => Values::Words(copied(bytes)),
        }
    }

    /// The limbs; none of words.
    pub(crate) fn limbs(&self) -> &[u64] {
        match self {
            Values::Limbs(limbs) => limbs,
            Values::Held(held, true) => bytemuck::try_cast_slice(held.bytes()).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// The limbs, to be written.
    pub(crate) fn limbs_mut(&mut self) -> &mut [u64] {
        if let Values::Limbs(limbs) = self { limbs } else { &mut [] }
    }

    /// The words; none of limbs.
    pub(crate) fn words(&self) -> &[u32] {
        match self {
            Values::Words(words) => words,
            Values::Held(held, false) => bytemuck::try_cast_slice(held.bytes()).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// The words, to be written.
    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        if let Values::Words(words) = self { words } else { &mut [] }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Values::Limbs(limbs) => bytemuck::cast_slice(limbs),
            Values::Words(words) => bytemuck::cast_slice(words),
            Values::Held(held, _) => held.bytes(),
        }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            Values::Limbs(limbs) => bytemuck::cast_slice_mut(limbs),
            Values::Words(words) => bytemuck::cast_slice_mut(words),
            Values::Held(..) => &mut [],
        }
    }
}

/// Written once if they are aligned, as they nearly always are.
fn copied<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    bytemuck::try_cast_slice(bytes).map_or_else(|_| bytemuck::pod_collect_to_vec(bytes), <[T]>::to_vec)
}

/// Where a task is turned into launches: a device, a batch, and how to multiply.
pub(crate) struct Lowering<'a> {
    pub(crate) batch: &'a mut Batch,
    pub(crate) vulkan: &'a Vulkan,
    memory: &'a Scratch,
    /// What the task itself has no more use for.
    spare: Vec<Region>,
    /// The formulation chosen for the task; words if it does not multiply.
    pub(crate) formulation: Formulation,
}

/// Specialization constants. Programs are looked for by them at each launch, so that they should not take an allocation.
pub(crate) type Constants = SmallVec<[(u32, u32); 5]>;

/// A kernel of field-kernels that is not element-wise, and how to specialize it. Programs are found by it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Specialized {
    pub(crate) kernel: Kernel,
    pub(crate) field: Field,
    pub(crate) formulation: Formulation,
    pub(crate) slots: [SlotUse; 4],
    pub(crate) shape: Shape,
    pub(crate) parts: Parts,
    /// `None` leaves it to the device.
    pub(crate) workgroup_size: Option<u32>,
    pub(crate) constants: Constants,
}

/// Memory that the tasks of one batch have for themselves. Tasks that share it wait for each other, so that they do only where there
/// are many, or there is no more: a long recording does not need the more the longer it is.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// The task that is being lowered.
    task: Cell<usize>,
    /// What may be shared, and the last task that it was given to.
    given: RefCell<Vec<(usize, Region)>>,
    /// Its bytes.
    bytes: Cell<u64>,
    /// So many are given out before any are given out again.
    apart: OnceCell<u64>,
    /// If nothing is to be computed in it, how many bytes of the device's memory it would be.
    counted: Option<Cell<u64>>,
}

impl Scratch {
    /// The most bytes that are given out before any are given out again, if there are four times as many; and the most buffers.
    const APART: (u64, usize) = (1 << 28, 1 << 10);
    /// Tasks in a row that share nothing if there is memory.
    const BESIDE: usize = 4;
    /// Of what is shorter there is enough.
    const SHORT: u64 = 1 << 12;

    /// Placeholders, which take no memory and are counted.
    pub(crate) fn counted() -> Self {
        Self { counted: Some(Cell::default()), ..Self::default() }
    }

    /// How many bytes of the device's memory what was taken would be, if it is counted.
    pub(crate) fn count(&self) -> u64 {
        self.counted.as_ref().map_or(0, Cell::get)
    }

    fn allocate(&self, vulkan: &Vulkan, bytes: u64) -> Result<Region, gpu_executor::Error> {
        let Some(counted) = &self.counted else { return vulkan.device().allocate(bytes) };
        let region = vulkan.device().placeholder(bytes)?;
        counted.set(counted.get() + vulkan.device().region_required(bytes));
        Ok(region)
    }

    /// What was taken so far is that of tasks before.
    fn next(&self) {
        self.task.set(self.task.get() + 1);
    }

    fn take(&self, vulkan: &Vulkan, bytes: u64) -> Result<Region, Error> {
        if bytes < Self::SHORT {
            return Ok(self.allocate(vulkan, bytes)?);
        }
        let (most_bytes, most_buffers) = Self::APART;
        let most_bytes = *self.apart.get_or_init(|| most_bytes.min(vulkan.device().memory_left() / 4));
        let apart = self.bytes.get() + bytes <= most_bytes && self.given.borrow().len() < most_buffers;
        if let Some(region) = if apart { None } else { self.again(bytes, Self::BESIDE) } {
            return Ok(region);
        }
        match self.allocate(vulkan, bytes) {
            Ok(region) => {
                self.given.borrow_mut().push((self.task.get(), region.clone()));
                self.bytes.set(self.bytes.get() + bytes);
                Ok(region)
            }
            Err(error @ gpu_executor::Error::OutOfMemory { .. }) => self.again(bytes, 1).ok_or(error.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// What was given to a task at least so many before this one, the longest ago.
    fn again(&self, bytes: u64, before: usize) -> Option<Region> {
        let (now, mut given) = (self.task.get(), self.given.borrow_mut());
        let fits = |(last, region): &&mut (usize, Region)| {
            last.saturating_add(before) <= now && (bytes..=2 * bytes).contains(&region.bytes())
        };
        let (last, region) = given.iter_mut().filter(fits).min_by_key(|(last, _)| *last)?;
        *last = now;
        region.slice(0..bytes)
    }
}

impl Lowering<'_> {
    /// Memory that is the task's until it is done.
    pub(crate) fn scratch(&self, bytes: u64) -> Result<Region, Error> {
        self.memory.take(self.vulkan, bytes)
    }

    /// The same, or what the task has given back: then its launches wait for each other.
    pub(crate) fn spare(&mut self, bytes: u64) -> Result<Region, Error> {
        match self.spare.iter().position(|region| region.bytes() == bytes) {
            Some(at) => Ok(self.spare.swap_remove(at)),
            None => self.scratch(bytes),
        }
    }

    /// Memory that holds some bytes.
    pub(crate) fn constants(&mut self, bytes: &[u8]) -> Result<Region, Error> {
        Ok(self.batch.constants(self.vulkan.device(), bytes)?)
    }

    /// For [`Lowering::spare`].
    pub(crate) fn give_back(&mut self, regions: impl IntoIterator<Item = Region>) {
        self.spare.extend(regions);
    }

    /// The program of a kernel, made when first asked for. It is tested with the first task that uses it.
    pub(crate) fn program(&self, which: &Specialized) -> Result<Program, Error> {
        if let Some(program) = self.vulkan.specialized.lock().get(which) {
            return Ok(program.clone());
        }
        let Specialized { kernel, field, formulation, slots, shape, parts, workgroup_size, constants } = which.clone();
        let not_available = Error::NotAvailable { operation: kernel.name(), field };
        let shader = kernel.shader(field, self.vulkan.width, formulation).ok_or(not_available)?;
        let (reach, spirv) = (self.vulkan.reach(), shader.spirv.into());
        let (slots, constants) = (slots.into(), constants.into_vec());
        let name = shader.name;
        let made = gpu_executor::Kernel { name, spirv, reach, slots, shape, parts, workgroup_size, constants };
        // SAFETY: the kernel is one of field-kernels', valid by spirv-val, which CI runs. The tasks that launch it give it the slots,
        // lengths and parameters that its source asks for, those of starts among them, and no workgroup of it waits for another. A
        // device without 64-bit integers is given the 32-bit variant only, one without doubles none in doubles.
        let program = unsafe { self.vulkan.device().prepare(&made) }?;
        self.vulkan.specialized.lock().insert(which.clone(), program.clone());
        Ok(program)
    }
}

impl Vulkan {
    /// Adds a task to a batch, in the formulation chosen for it, if it has passed its trials; the first time it is put to them.
    pub(crate) fn lower(
        &self,
        backend: &Backend,
        task: &dyn Task,
        (batch, scratch): (&mut Batch, &Scratch),
        (inputs, outputs): (&[Option<Region>], &[Option<Region>]),
    ) -> Result<(), Error> {
        let formulation = match task.multiplies() {
            None => self.tested(backend, task, Formulation::Words).map(|()| Formulation::Words)?,
            Some(kernel) => self.in_the_chosen(kernel, task.field(), |formulation| {
                self.tested(backend, task, formulation).map(|()| formulation)
            })?,
        };
        scratch.next();
        task.lower(&mut Lowering { batch, vulkan: self, memory: scratch, spare: Vec::new(), formulation }, inputs, outputs)
    }

    /// The same in a given formulation.
    pub(crate) fn lower_in(
        &self,
        backend: &Backend,
        task: &dyn Task,
        formulation: Formulation,
        (batch, memory): (&mut Batch, &Scratch),
        (inputs, outputs): (&[Option<Region>], &[Option<Region>]),
    ) -> Result<(), Error> {
        self.tested(backend, task, formulation)?;
        memory.next();
        task.lower(&mut Lowering { batch, vulkan: self, memory, spare: Vec::new(), formulation }, inputs, outputs)
    }

    fn tested(&self, backend: &Backend, task: &dyn Task, formulation: Formulation) -> Result<(), Error> {
        let (key, variant) = ((task.name(), task.field(), formulation), task.variant());
        if self.tested.lock().get(&key).is_some_and(|variants| variants.contains(&*variant)) {
            return Ok(());
        }
        if !self.is_able(formulation)? {
            return Err(self.failed_self_test(task.name(), task.field(), 0));
        }
        let (mut batch, memory) = (Batch::default(), Scratch::default());
        let mut answers = Vec::new();
        for trial in task.trials() {
            let place = |bytes: u64| if bytes == 0 { Ok(None) } else { self.device().allocate(bytes).map(Some) };
            let mut inputs = Vec::new();
            for values in &trial.inputs {
                let region = place(values.bytes().len() as u64)?;
                if let Some(region) = &region {
                    batch.upload(region, values.bytes().into());
                }
                inputs.push(region);
            }
            let mut outputs = Vec::new();
            for &(item, length) in &trial.outputs {
                outputs.push(place(length as u64 * item.bytes())?);
            }
            memory.next();
            let mut lowering = Lowering { batch: &mut batch, vulkan: self, memory: &memory, spare: Vec::new(), formulation };
            trial.task.lower(&mut lowering, &inputs, &outputs)?;
            outputs.iter().flatten().for_each(|region| batch.download(region));
            answers.push(trial.outputs.iter().map(|&(item, length)| Values::zeroed(item, length)).collect::<Vec<_>>());
        }
        if !batch.is_empty() {
            let mut targets: Vec<&mut [u8]> =
                answers.iter_mut().flatten().map(Values::bytes_mut).filter(|bytes| !bytes.is_empty()).collect();
            self.device().submit(&batch)?.finish(&mut targets)?;
        }
        #[cfg(feature = "test-faults")]
        if let Some(crate::Fault::FlipBitInSelfTest(bit)) = backend.settings().fault
            && let Some(byte) = answers.iter_mut().flatten().find_map(|values| values.bytes_mut().first_mut())
        {
            *byte ^= 1 << (bit % 8);
        }
        #[cfg(not(feature = "test-faults"))]
        let _ = backend;
        for (number, (trial, got)) in task.trials().iter().zip(&answers).enumerate() {
            let mut right: Vec<Values> = got.iter().map(Values::zeroed_like).collect();
            trial.task.compute(&trial.inputs, &mut right);
            if right != *got {
                return Err(self.failed_self_test(task.name(), task.field(), number));
            }
        }
        self.tested.lock().entry(key).or_default().insert(variant.into());
        Ok(())
    }
}
