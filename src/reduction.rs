//! Reductions: operations that fold vectors into one element. Each is one row, with its kernels, its CPU twin and its cost.

use crate::known_answers::edges;
use crate::on_device::Vulkan;
use crate::options::Settings;
use crate::{Error, Field, Form};
use cpu_reference::{Fold, Operands};
use field_kernels::{Formulation, Kernel};
use gpu_executor::{Batch, Device, Program, Region, Shape, SlotUse};
use std::num::NonZeroU32;

/// An operation that folds vectors into one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reduction {
    /// The sum of the elements of a; 0 if there are none
    Sum,
    /// The sum of the products a b, position by position; 0 if there are none
    InnerProduct,
}

/// A reduction's row.
#[derive(Clone, Copy, Debug)]
pub struct ReductionRow {
    /// The reduction.
    pub reduction: Reduction,
    /// Its name, as in messages and in the names of functions.
    pub name: &'static str,
    /// How many vectors it takes.
    pub vectors: usize,
    /// Folds the elements of a workgroup into one.
    pub(crate) first: Kernel,
    /// Folds such results into one.
    again: Kernel,
    fq: Fold,
    fr: Fold,
    /// Multiplications per element, or about.
    pub(crate) cost: u64,
}

macro_rules! folds {
    ($reduction:ident $name:ident $vectors:literal $first:ident $again:ident $cost:literal) => {
        ReductionRow {
            reduction: Reduction::$reduction,
            name: stringify!($name),
            vectors: $vectors,
            first: Kernel::$first,
            again: Kernel::$again,
            fq: cpu_reference::$name::<ark_bls12_381::Fq>(),
            fr: cpu_reference::$name::<ark_bls12_381::Fr>(),
            cost: $cost,
        }
    };
}

/// Every reduction.
pub static REDUCTIONS: [ReductionRow; 2] =
    [folds!(Sum sum 1 Sum Sum 1), folds!(InnerProduct inner_product 2 InnerProduct Sum 2)];

// `Reduction::row` finds a row by its number.
const _: () = {
    let mut i = 0;
    while i < REDUCTIONS.len() {
        assert!(REDUCTIONS[i].reduction as usize == i && REDUCTIONS[i].vectors <= 2);
        i += 1;
    }
};

impl Reduction {
    /// The reduction's row.
    ///
    /// ```
    /// assert_eq!(bls12_field_gpu::Reduction::InnerProduct.row().vectors, 2);
    /// ```
    pub fn row(self) -> &'static ReductionRow {
        &REDUCTIONS[self as usize]
    }

    /// The reduction's name.
    ///
    /// ```
    /// assert_eq!(bls12_field_gpu::Reduction::InnerProduct.name(), "inner_product");
    /// ```
    pub fn name(self) -> &'static str {
        self.row().name
    }
}

impl ReductionRow {
    /// Computes the reduction on the CPU, of vectors in Montgomery form: the limbs of one element.
    pub(crate) fn compute(&self, field: Field, vectors: &[&[u64]]) -> Vec<u64> {
        let vector = |index: usize| vectors.get(index).copied().unwrap_or(&[]);
        let vectors = [vector(0), vector(1), &[]];
        let mut result = vec![0; field.limbs()];
        let fold = match field {
            Field::Fq => self.fq,
            Field::Fr => self.fr,
        };
        (fold.compute)(&Operands { vectors, parameter: &[], form: Form::Montgomery }, &mut result);
        result
    }
}

/// Elements that an invocation folds before its workgroup folds what its invocations have: enough that the tree through shared
/// memory and the further passes cost little beside them. Chosen, not measured.
const PER_INVOCATION: u32 = 16;

/// A reduction made ready for a device.
#[derive(Clone)]
pub(crate) struct Reducer {
    row: &'static ReductionRow,
    field: Field,
    first: Program,
    again: Program,
    /// Elements per workgroup.
    group: usize,
}

impl Vulkan {
    /// The programs of a reduction, made and tested when first asked for.
    pub(crate) fn reducer(&self, settings: &Settings, row: &'static ReductionRow, field: Field) -> Result<Reducer, Error> {
        self.in_the_chosen(row.first, field, |formulation| self.reducer_in(settings, row, field, formulation))
    }

    /// The same in a given formulation.
    pub(crate) fn reducer_in(
        &self,
        settings: &Settings,
        row: &'static ReductionRow,
        field: Field,
        formulation: Formulation,
    ) -> Result<Reducer, Error> {
        let slot = &self.reducers[row.reduction as usize * Field::ALL.len() + field as usize];
        if let Some(reducer) = slot.lock().get(&formulation) {
            return Ok(reducer.clone());
        }
        if !self.is_able(formulation)? {
            return Err(self.failed_self_test(row.name, field, 0));
        }
        // Not under the lock: the self-test uses rayon, as that of the operations does.
        let group = NonZeroU32::new(PER_INVOCATION * self.device().workgroup_size()).unwrap_or(NonZeroU32::MIN);
        let first = self.fold(row, (row.first, formulation), field, group)?;
        // What is folded again is not multiplied again.
        let again = self.fold(row, (row.again, Formulation::Words), field, group)?;
        let made = Reducer { row, field, first, again, group: group.get() as usize };
        made.self_test(settings, self.device())?;
        slot.lock().insert(formulation, made.clone());
        Ok(made)
    }

    fn fold(
        &self,
        row: &ReductionRow,
        (kernel, formulation): (Kernel, Formulation),
        field: Field,
        group: NonZeroU32,
    ) -> Result<Program, Error> {
        let not_available = Error::NotAvailable { operation: row.name, field };
        let shader = kernel.shader(field, self.width, formulation).ok_or(not_available)?;
        let reads = |n: usize| {
            let vectors = if kernel == row.first { row.vectors } else { 1 };
            if n < vectors { SlotUse::Reads(field.bytes()) } else { SlotUse::None }
        };
        let kernel = gpu_executor::Kernel {
            name: shader.name,
            spirv: shader.spirv.into(),
            reach: self.reach(),
            slots: vec![reads(0), reads(1), SlotUse::None, SlotUse::WritesPerGroup(field.bytes())],
            shape: Shape::Groups(group),
            workgroup_size: None,
            constants: vec![(3, group.get())],
        };
        // SAFETY: the kernel is one of field-kernels', valid by spirv-val, which CI runs; reduce.comp and io.glsl keep to these
        // slots and widths, give each workgroup the elements that constant 3 says and no others, use constant 0 for the
        // workgroup size, and take no more shared memory than every device has. A device without 64-bit integers is given the
        // 32-bit variant only.
        Ok(unsafe { self.device().prepare(&kernel) }?)
    }
}

impl Reducer {
    /// Adds the reduction of `length` elements to a batch: passes in which each workgroup folds its elements into one, until
    /// there is one. What they leave to each other lies in memory from the device's pool, until the batch is done. The output
    /// may overlap the inputs.
    pub(crate) fn add_to(
        &self,
        batch: &mut Batch,
        device: &Device,
        inputs: &[&Region],
        length: usize,
        output: &Region,
    ) -> Result<(), Error> {
        if length == 0 {
            batch.zero(output);
            return Ok(());
        }
        let bytes = self.field.bytes() as u64;
        let part = |region: &Region, range: std::ops::Range<usize>| {
            region.slice(range.start as u64 * bytes..range.end as u64 * bytes)
        };
        let mut operands: Vec<Region> = inputs.iter().copied().cloned().collect();
        let (mut program, mut cost, mut length) = (&self.first, self.row.cost, length);
        loop {
            let groups = length.div_ceil(self.group);
            let last = groups == 1 && !operands.iter().any(|operand| operand.overlaps(output));
            let results = if last { output.clone() } else { device.allocate(groups as u64 * bytes)? };
            // Launches of whole workgroups.
            let most = (device.launch_elements(cost) / self.group).max(1) * self.group;
            for start in (0..length).step_by(most) {
                let end = length.min(start + most);
                let read = |n: usize| Some((part(operands.get(n)?, start..end)?, false));
                let written = part(&results, start / self.group..end.div_ceil(self.group)).map(|region| (region, true));
                batch.launch(program, [read(0), read(1), None, written], (end - start) as u32, &[]);
            }
            if groups == 1 {
                if !last {
                    batch.copy(&results, output);
                }
                return Ok(());
            }
            (program, cost, length, operands) = (&self.again, 1, groups, vec![results]);
        }
    }

    /// Nothing that a kernel says is believed before it has answered what is known: vectors of every edge, of lengths around that
    /// of a workgroup's.
    fn self_test(&self, settings: &Settings, device: &Device) -> Result<(), Error> {
        let (limbs, bytes) = (self.field.limbs(), self.field.bytes() as u64);
        let lengths = [0, 1, 2, self.group - 1, self.group, self.group + 1, 2 * self.group + 1];
        let longest = 2 * self.group + 1;
        let edges = edges(self.field);
        // Against every edge, every edge.
        let at =
            |operand: usize, index: usize| &edges[(if operand == 0 { index } else { index / edges.len() }) % edges.len()];
        let vectors: Vec<Vec<u64>> = (0..self.row.vectors)
            .map(|operand| (0..longest).flat_map(|index| at(operand, index).iter().copied()).collect())
            .collect();
        let mut batch = Batch::default();
        let mut inputs = Vec::new();
        for vector in &vectors {
            let region = device.allocate(longest as u64 * bytes)?;
            batch.upload(&region, bytemuck::cast_slice(vector).into());
            inputs.push(region);
        }
        let outputs = device.allocate(lengths.len() as u64 * bytes)?;
        for (n, &length) in lengths.iter().enumerate() {
            let of_length: Vec<Region> = inputs.iter().filter_map(|region| region.slice(0..length as u64 * bytes)).collect();
            let output = outputs.slice(n as u64 * bytes..(n + 1) as u64 * bytes);
            let of_length: Vec<&Region> = of_length.iter().collect();
            output.map_or(Ok(()), |output| self.add_to(&mut batch, device, &of_length, length, &output))?;
        }
        batch.download(&outputs);
        let mut answers = vec![0u64; lengths.len() * limbs];
        device.submit(&batch)?.finish(&mut [bytemuck::cast_slice_mut(&mut answers)])?;
        #[cfg(feature = "test-faults")]
        if let Some(crate::Fault::FlipBitInSelfTest(bit)) = settings.fault {
            crate::on_device::flip(&mut answers, &mut [], (&(0..lengths.len()), lengths.len()), bit);
        }
        #[cfg(not(feature = "test-faults"))]
        let _ = settings;
        for (index, (&length, answer)) in lengths.iter().zip(answers.chunks(limbs)).enumerate() {
            let of_length: Vec<&[u64]> = vectors.iter().map(|vector| &vector[..length * limbs]).collect();
            if self.row.compute(self.field, &of_length) != answer {
                let (operation, device) = (self.row.name, device.info().to_string());
                return Err(Error::SelfTestFailed { operation, field: self.field, index, device });
            }
        }
        Ok(())
    }
}
