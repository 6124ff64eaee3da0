//! The steps of a recording: plain data that a device is given, or that the CPU computes.

use crate::call::{Call, Prepared};
use crate::mask::FLAG;
use crate::memory::{Memory, Mirror};
use crate::on_device::{Vulkan, arranged};
use crate::operation::Operation;
use crate::task::{Scratch, Task, Values};
use crate::ticket::Landed;
use crate::verification::Verification;
use crate::{Backend, Error, Field, Form};
use cpu_reference::{Positions, Results};
use gpu_executor::{Batch, Program, Region, Weight};
use smallvec::SmallVec;
use std::sync::Arc;

#[derive(Clone)]
pub(crate) enum Step {
    /// One of `elements` and `mask` may be nowhere.
    Apply {
        call: Applied,
        inputs: SmallVec<[Memory; 3]>,
        elements: Memory,
        mask: Memory,
    },
    /// `items` says what the inputs hold.
    Task {
        task: Arc<dyn Task>,
        inputs: Vec<Memory>,
        items: Vec<Item>,
        outputs: Vec<(Memory, Item)>,
    },
    Write {
        bytes: Arc<[u8]>,
        to: Memory,
        item: Item,
    },
    Copy {
        from: Memory,
        to: Memory,
        item: Item,
    },
    Zero {
        to: Memory,
        item: Item,
    },
    Fetch(Fetch),
}

/// An application of an operation to vectors that lie elsewhere.
#[derive(Clone)]
pub(crate) struct Applied {
    pub(crate) operation: Operation,
    pub(crate) field: Field,
    pub(crate) length: usize,
    pub(crate) parameter: Vec<u64>,
}

/// A download.
#[derive(Clone)]
pub(crate) struct Fetch {
    /// Told apart from all others by its address.
    pub(crate) key: Arc<()>,
    pub(crate) from: Memory,
    pub(crate) item: Item,
    pub(crate) length: usize,
    /// Whether it is no download of the caller's, but says where an element is zero that must not be.
    pub(crate) refuses: bool,
}

/// What memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Element(Field),
    Flag,
    /// A position in a vector, four bytes.
    Index,
}

impl Item {
    pub(crate) fn bytes(self) -> u64 {
        match self {
            Item::Element(field) => field.bytes() as u64,
            Item::Flag | Item::Index => FLAG as u64,
        }
    }

    /// The field; Fq for flags and indices of which no more is known.
    pub(crate) fn field(self) -> Field {
        match self {
            Item::Element(field) => field,
            Item::Flag | Item::Index => Field::Fq,
        }
    }
}

/// Steps as a device's work.
pub(crate) struct Lowered {
    pub(crate) batch: Batch,
    pub(crate) scratch: Scratch,
    /// Those of operations so far. There are few, and most steps ask for one again.
    programs: Vec<((Operation, Field), Program)>,
}

impl Lowered {
    /// All steps, and what is fetched to verify them, each in its place.
    pub(crate) fn new(
        scratch: Scratch,
        steps: Vec<Step>,
        (backend, vulkan): (&Backend, &Vulkan),
        verified: Option<(&Verification, &[Step])>,
    ) -> Result<Self, Error> {
        // Most steps are one launch each.
        let mut lowered = Self { batch: Batch::with_capacity(steps.len()), scratch, programs: Vec::new() };
        if let Some((verification, _)) = verified {
            verification.fetch_inputs(&mut lowered.batch);
        }
        for (number, step) in steps.into_iter().enumerate() {
            step.add_to(&mut lowered, backend, vulkan)?;
            if let Some((verification, step)) =
                verified.and_then(|(verification, kept)| Some((verification, kept.get(number)?)))
            {
                verification.fetch_said(number, step, &mut lowered.batch);
            }
        }
        if let Some((verification, _)) = verified {
            verification.fetch_outputs(&mut lowered.batch);
        }
        Ok(lowered)
    }

    fn apply(
        &mut self,
        call: &Applied,
        inputs: SmallVec<[Memory; 3]>,
        (elements, mask): (Memory, Memory),
        backend: &Backend,
        vulkan: &Vulkan,
    ) -> Result<(), Error> {
        let Self { batch, programs, .. } = self;
        let row = call.operation.row();
        let kind = (call.operation, call.field);
        let known = programs.iter().position(|(known, _)| *known == kind);
        let mut words = Vec::new();
        if known.is_none() || row.is_given_more() {
            let nowhere: [&[u64]; 3] = [&[]; 3];
            let prepared = Prepared::new(&call.call(&nowhere[..row.vectors]))?;
            if known.is_none() {
                programs.push((kind, vulkan.program(backend.settings(), &prepared)?));
            }
            if row.is_given_more() {
                words = prepared.words;
            }
        }
        let (_, program) = &programs[known.unwrap_or(programs.len() - 1)];
        let mut inputs = inputs.into_iter().map(Memory::into_region);
        let vectors = [(); 3].map(|()| Some((inputs.next()??, false)));
        let [elements, mask] = [elements, mask].map(|memory| Some((memory.into_region()?, true)));
        let whole = (call.length as u32, Weight::of(row.cost));
        batch.launch(program, arranged(row, vectors, elements, mask), whole, &words);
        Ok(())
    }
}

/// What a step writes.
pub(crate) struct Output<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) item: Item,
}

impl Step {
    /// The name of what the step does, as in messages.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Step::Apply { call, .. } => call.operation.name(),
            Step::Task { task, .. } => task.name(),
            Step::Write { .. } => "write",
            Step::Copy { .. } => "duplicate",
            Step::Zero { .. } => "zero",
            Step::Fetch(_) => "download",
        }
    }

    /// The field that the step is about.
    pub(crate) fn field(&self) -> Field {
        match self {
            Step::Apply { call: Applied { field, .. }, .. } => *field,
            Step::Task { task, .. } => task.field(),
            Step::Write { item, .. }
            | Step::Copy { item, .. }
            | Step::Zero { item, .. }
            | Step::Fetch(Fetch { item, .. }) => item.field(),
        }
    }

    /// The memory that the step reads, before it writes.
    pub(crate) fn reads(&self) -> &[Memory] {
        match self {
            Step::Apply { inputs, .. } => inputs,
            Step::Task { inputs, .. } => inputs,
            Step::Copy { from, .. } | Step::Fetch(Fetch { from, .. }) => std::slice::from_ref(from),
            Step::Write { .. } | Step::Zero { .. } => &[],
        }
    }

    /// The memory that the step writes, every byte of it.
    pub(crate) fn writes(&self) -> impl Iterator<Item = Output<'_>> {
        let (mut more, mut outputs) = (&[][..], [None, None]);
        match self {
            Step::Task { outputs, .. } => more = outputs,
            Step::Apply { call, elements, mask, .. } => {
                outputs = [Some((elements, Item::Element(call.field))), Some((mask, Item::Flag))];
            }
            Step::Write { to, item, .. } | Step::Copy { to, item, .. } | Step::Zero { to, item } => {
                outputs[0] = Some((to, *item));
            }
            Step::Fetch(_) => {}
        }
        let more = more.iter().map(|(memory, item)| (memory, *item));
        outputs.into_iter().flatten().chain(more).map(|(memory, item)| Output { memory, item })
    }

    /// Whether something proves what the step writes in less work than computing it.
    pub(crate) fn is_provable(&self) -> bool {
        match self {
            Step::Apply { call, .. } => call.operation.is_proved(),
            Step::Task { task, .. } => task.proof().is_some(),
            _ => false,
        }
    }

    /// Proves what a device says that the step writes, which then is there: as after [`Step::compute`]. What is wrong, as an output and
    /// a position in it.
    pub(crate) fn prove(&self, mirror: &Mirror, said: &[Vec<u8>]) -> Result<Option<(usize, usize)>, Error> {
        let values = || self.writes().zip(said).map(|(Output { item, .. }, bytes)| Values::from_bytes(item, bytes));
        let wrong = match self {
            Step::Apply { call, inputs, .. } => {
                let vectors: Vec<Values> =
                    inputs.iter().map(|memory| held(mirror, memory, Item::Element(call.field))).collect();
                let vectors: Vec<&[u64]> = vectors.iter().map(Values::limbs).collect();
                let answers: Vec<Values> = values().collect();
                let (elements, flags) =
                    (answers.first().map_or(&[][..], Values::limbs), answers.get(1).map_or(&[][..], Values::words));
                let wrong = Prepared::new(&call.call(&vectors))?.first_wrong(elements, flags, Positions::All);
                wrong.map(|position| (0, position))
            }
            Step::Task { task, inputs, items, .. } => {
                let inputs: Vec<Values> =
                    inputs.iter().zip(items).map(|(memory, item)| held(mirror, memory, *item)).collect();
                task.proof().map_or(Some((0, 0)), |first_wrong| first_wrong(&inputs, &values().collect::<Vec<_>>()))
            }
            _ => Some((0, 0)),
        };
        if wrong.is_none() {
            self.writes().zip(said).for_each(|(output, bytes)| store(mirror, output.memory, bytes));
        }
        Ok(wrong)
    }

    /// Adds the step to a device's work.
    fn add_to(self, lowered: &mut Lowered, backend: &Backend, vulkan: &Vulkan) -> Result<(), Error> {
        match self {
            Step::Write { bytes, to: Memory::Device(to), .. } => lowered.batch.upload(&to, bytes),
            Step::Copy { from: Memory::Device(from), to: Memory::Device(to), .. } => lowered.batch.copy(&from, &to),
            Step::Zero { to: Memory::Device(to), .. } => lowered.batch.zero(&to),
            Step::Fetch(Fetch { from: Memory::Device(from), .. }) => lowered.batch.download(&from),
            Step::Apply { call, inputs, elements, mask } => {
                lowered.apply(&call, inputs, (elements, mask), backend, vulkan)?;
            }
            Step::Task { task, inputs, outputs, .. } => {
                type Regions = SmallVec<[Option<Region>; 4]>;
                let inputs: Regions = inputs.into_iter().map(Memory::into_region).collect();
                let outputs: Regions = outputs.into_iter().map(|(memory, _)| memory.into_region()).collect();
                vulkan.lower(backend, &*task, (&mut lowered.batch, &mut lowered.scratch), (&inputs, &outputs))?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Computes the step on the CPU; what it downloads goes to the end of `landed`.
    pub(crate) fn compute(&self, mirror: &Mirror, landed: &mut Vec<Landed>) -> Result<(), Error> {
        let store = |memory: &Memory, bytes: &[u8]| store(mirror, memory, bytes);
        match self {
            Step::Write { bytes, to, .. } => store(to, bytes),
            Step::Zero { to, .. } => {
                if let Some(host) = mirror.host(to) {
                    host.clear();
                }
            }
            // By way of a copy, since both may be parts of the same memory.
            Step::Copy { from, to, .. } => {
                let bytes = mirror.host(from).map_or_else(Vec::new, |host| host.held().bytes().to_vec());
                store(to, &bytes);
            }
            Step::Fetch(fetch) => {
                let mut values = Landed::new(fetch)?;
                if let Some(host) = mirror.host(&fetch.from) {
                    host.load_into(values.bytes_mut());
                }
                landed.push(values);
            }
            Step::Apply { call, inputs, elements, mask } => {
                let inputs: Vec<Values> =
                    inputs.iter().map(|memory| held(mirror, memory, Item::Element(call.field))).collect();
                let vectors: Vec<&[u64]> = inputs.iter().map(Values::limbs).collect();
                let prepared = Prepared::new(&call.call(&vectors))?;
                let row = call.operation.row();
                let mut answers = vec![0u64; if row.has_elements() { call.length * call.field.limbs() } else { 0 }];
                let mut flags = vec![0u32; if row.has_mask() { call.length } else { 0 }];
                (prepared.twin.compute)(&prepared.operands(), &mut Results { elements: &mut answers, mask: &mut flags });
                // What is still held would be copied before it is written.
                drop(inputs);
                store(elements, bytemuck::cast_slice(&answers));
                store(mask, bytemuck::cast_slice(&flags));
            }
            Step::Task { task, inputs, items, outputs } => {
                let inputs: Vec<Values> =
                    inputs.iter().zip(items).map(|(memory, item)| held(mirror, memory, *item)).collect();
                let zeroed =
                    |(memory, item): &(Memory, Item)| Values::zeroed(*item, (memory.bytes() / item.bytes()) as usize);
                let mut results: Vec<Values> = outputs.iter().map(zeroed).collect();
                task.compute(&inputs, &mut results);
                drop(inputs);
                outputs.iter().zip(&results).for_each(|((memory, _), values)| store(memory, values.bytes()));
            }
        }
        Ok(())
    }
}

fn store(mirror: &Mirror, memory: &Memory, bytes: &[u8]) {
    if let Some(host) = mirror.host(memory) {
        host.store(bytes);
    }
}

/// All items of some memory.
fn held(mirror: &Mirror, memory: &Memory, item: Item) -> Values {
    mirror.host(memory).map_or_else(|| Values::zeroed(item, 0), |host| Values::held(item, host.held()))
}

impl Applied {
    fn call<'a>(&'a self, vectors: &'a [&'a [u64]]) -> Call<'a> {
        let Self { operation, field, .. } = *self;
        Call { operation, field, form: Form::Montgomery, vectors, parameter: &self.parameter }
    }
}
