//! Reductions: operations that fold vectors, or segments of them, into one element each. Each is one row, with its kernels, its
//! CPU twin and its cost.

use crate::ark::Element;
use crate::known_answers::edges;
use crate::memory::Memory;
use crate::passes::{Launch, Pass, Share, TEAM};
use crate::scan;
use crate::step::{Item, Step};
use crate::task::{Lowering, Task, Trial, Values};
use crate::vector::Vector;
use crate::{Error, Field, Form, Recording};
use cpu_reference::{Fold, Operands};
use field_kernels::Kernel;
use gpu_executor::Region;
use rayon::prelude::*;
use smallvec::smallvec;
use std::sync::Arc;

/// An operation that folds vectors into one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reduction {
    /// The sum of the elements of a; 0 if there are none
    Sum,
    /// The sum of the products a b, position by position; 0 if there are none
    InnerProduct,
    /// The product of the elements of a; 1 if there are none
    Product,
    /// The sum of the squares of the elements of a; 0 if there are none
    SumOfSquares,
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
    /// Folds elements into fewer.
    pub(crate) first: Kernel,
    /// Folds such results into fewer.
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
pub static REDUCTIONS: [ReductionRow; 4] = [
    folds!(Sum sum 1 Sum Sum 1),
    folds!(InnerProduct inner_product 2 InnerProduct Sum 1),
    folds!(Product product 1 Scan Scan 1),
    folds!(SumOfSquares sum_of_squares 1 InnerProduct Sum 1),
];

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
    fn compute(&self, field: Field, vectors: [&[u64]; 2], result: &mut [u64]) {
        let fold = match field {
            Field::Fq => self.fq,
            Field::Fr => self.fr,
        };
        let [a, b] = vectors;
        (fold.compute)(&Operands { vectors: [a, b, &[]], parameter: &[], form: Form::Montgomery }, result);
    }
}

/// A reduction of segments of equal length, as many as the output has elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reduce {
    pub(crate) reduction: Reduction,
    pub(crate) field: Field,
    /// Elements in a segment.
    pub(crate) segment: usize,
    /// Elements of each invocation of a team, if not what suits the device.
    pub(crate) steps: Option<usize>,
}

/// The most elements of an invocation of a team: more only keep fewer invocations busy.
const MOST: usize = 128;

/// Vectors of at most so many elements are in caches, or as good as.
const CACHED: usize = 1 << 14;

// The trials are of both kinds.
const _: () = assert!(TEAM * MOST <= CACHED && 2 * TEAM * MOST > CACHED);

/// How inner products take their second vector.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Second {
    /// Position by position.
    Whole,
    /// The same elements for every segment.
    ForEverySegment,
}

/// Adds a reduction of segments, of which the last may be shorter, to a batch: passes that fold chunks into one element each,
/// until there is one for each segment. What they leave to each other lies in memory from the device's pool, until the batch is
/// done; another fold of the same task has it, too.
pub(crate) fn fold(
    lowering: &mut Lowering,
    (row, field): (&ReductionRow, Field),
    (a, b, second): (&Region, Option<&Region>, Second),
    (segment, steps): (usize, Option<usize>),
    output: &Region,
) -> Result<(), Error> {
    let bytes = field.bytes() as u64;
    let mut length = (a.bytes() / bytes) as usize;
    let segments = length.div_ceil(segment);
    let (mut kernel, mut inputs, mut segment) = (row.first, [Some(a.clone()), b.cloned()], segment);
    let mut option = u32::from(second == Second::ForEverySegment);
    let mut left = Vec::new();
    loop {
        let share = match steps {
            Some(steps) if segment >= TEAM => Share::new(segment, TEAM, steps.min(MOST)),
            _ => Share::of_fold(segment, segments, MOST),
        };
        let results =
            if share.chunks == 1 { output.clone() } else { lowering.spare((segments * share.chunks) as u64 * bytes)? };
        let [a, b] = &inputs;
        let slots = [a.as_ref(), b.as_ref(), None, Some(&results)];
        let mut constants = smallvec![(3, share.team as u32)];
        if kernel == Kernel::InnerProduct {
            constants.push((4, (option == 1 || length <= CACHED).into()));
        }
        let (pass, more) = match kernel {
            Kernel::Scan => (scan::pass(scan::PRODUCT, false, share.team), [0, 0]),
            _ => (Pass { kernel, constants, tile: None }, [length as u32, option]),
        };
        let launch = Launch { pass, field, slots, written: 16, segments, segment, share, more, cost: row.cost };
        launch.add_to(lowering)?;
        if share.chunks == 1 {
            lowering.give_back(left);
            return Ok(());
        }
        left.push(results.clone());
        (kernel, inputs, segment, option) = (row.again, [Some(results), None], share.chunks, 0);
        length = segments * segment;
    }
}

impl Task for Reduce {
    fn name(&self) -> &'static str {
        self.reduction.name()
    }

    fn field(&self) -> Field {
        self.field
    }

    fn multiplies(&self) -> Option<Kernel> {
        Some(self.reduction.row().first)
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let row = self.reduction.row();
        match (inputs, outputs) {
            ([Some(a), rest @ ..], [Some(output)]) => {
                let squared = self.reduction == Reduction::SumOfSquares;
                let b = if squared { Some(a) } else { rest.first().and_then(Option::as_ref) };
                fold(device, (row, self.field), (a, b, Second::Whole), (self.segment, self.steps), output)
            }
            // Of no elements.
            (_, [Some(output)]) => {
                match self.reduction {
                    Reduction::Product => {
                        let (bytes, one) = (self.field.bytes() as u64, self.field.r());
                        let ones = one.repeat((output.bytes() / bytes) as usize);
                        device.batch.upload(output, bytemuck::cast_slice(&ones).into());
                    }
                    _ => device.batch.zero(output),
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        let (row, limbs) = (self.reduction.row(), self.field.limbs());
        let [output] = outputs else { return };
        output.limbs_mut().par_chunks_mut(limbs).enumerate().for_each(|(at, result)| {
            let segment = at * self.segment * limbs..(at + 1) * self.segment * limbs;
            let of = |n: usize| inputs.get(n).and_then(|values| values.limbs().get(segment.clone())).unwrap_or(&[]);
            row.compute(self.field, [of(0), of(1)], result);
        });
    }

    fn trials(&self) -> Vec<Trial> {
        let edges = edges(self.field);
        let row = self.reduction.row();
        let largest =
            [self.field.modulus().iter().enumerate().map(|(n, limb)| limb - u64::from(n == 0)).collect::<Vec<_>>()];
        // (elements in a segment, segments): single invocations, several of them, teams, several of them; and invocations of teams with as
        // many elements as they get when vectors are long, whose sums are as large as they get, in caches and not.
        let shapes =
            [(0, 1), (1, 1), (2, 3), (64, 2), (65, 1), (1023, 1), (1024, 1), (1025, 2), (2500, 3)].map(|of| (of, None));
        let long = [1, 2].map(|teams| ((teams * TEAM * MOST, 1), Some(MOST)));
        let trial = |((segment, segments), steps): ((usize, usize), Option<usize>)| {
            // Against every edge, every edge; of a product none that is zero, or it would be.
            let at = |operand: usize, index: usize| {
                let some = match steps {
                    Some(_) => &largest[..],
                    None if row.reduction == Reduction::Product => &edges[1..],
                    None => &edges,
                };
                &some[(if operand == 0 { index } else { index / some.len() }) % some.len()]
            };
            let vector = |operand| (0..segment * segments).flat_map(|index| at(operand, index).iter().copied()).collect();
            Trial {
                task: Arc::new(Reduce { segment, steps, ..*self }),
                inputs: (0..row.vectors).map(|operand| Values::Limbs(vector(operand))).collect(),
                outputs: vec![(Item::Element(self.field), segments)],
            }
        };
        shapes.into_iter().chain(long).map(trial).collect()
    }
}

impl Recording {
    /// Records any reduction into a vector of one element, which may be part of the inputs. On a device this takes one to three
    /// passes, and in all about an addition or a multiplication per element; what the passes leave to each other takes less
    /// than a twentieth of the input's memory, from submission until it is done.
    ///
    /// # Errors
    /// [`Error::OperandCount`], [`Error::LengthMismatch`] also if `output` has not one element, [`Error::ForeignVector`];
    /// [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Reduction;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// recording.reduce_into(Reduction::Sum, &[&vector], &vector.slice(0..1)?)?;
    /// recording.submit()?;
    /// assert_eq!(vector.download()?[0], Fr::from(6u64));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn reduce_into<F: Element>(
        &mut self,
        reduction: Reduction,
        inputs: &[&Vector<F>],
        output: &Vector<F>,
    ) -> Result<(), Error> {
        self.check(reduction.name(), output, 1)?;
        self.reduce_segments_into(reduction, inputs, output)
    }

    /// Records a reduction of each of several segments of equal length, one after another in the inputs: as many as `output`
    /// has elements. The output may be part of the inputs. Costs as [`Recording::reduce_into`] does.
    ///
    /// # Errors
    /// Those of [`Recording::reduce_into`]; [`Error::LengthMismatch`] if the inputs cannot be cut into as many equal segments.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Reduction;
    /// let vector = backend.upload(&[1u64, 2, 3, 4, 5, 6].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let products = backend.zeros(3)?;
    /// recording.reduce_segments_into(Reduction::Product, &[&vector], &products)?;
    /// recording.submit()?;
    /// assert_eq!(products.download()?, [2u64, 12, 30].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn reduce_segments_into<F: Element>(
        &mut self,
        reduction: Reduction,
        inputs: &[&Vector<F>],
        output: &Vector<F>,
    ) -> Result<(), Error> {
        let row = reduction.row();
        if inputs.len() != row.vectors {
            return Err(Error::OperandCount { operation: row.name, expected: row.vectors, got: inputs.len() });
        }
        let length = inputs[0].len();
        inputs.iter().try_for_each(|vector| self.check(row.name, vector, length))?;
        let segment = self.segment(row.name, length, output.len())?;
        self.check(row.name, output, output.len())?;
        if output.is_empty() {
            return Ok(());
        }
        let item = Item::Element(F::FIELD);
        let read: Vec<(&Memory, Item)> = inputs.iter().map(|vector| (&vector.memory, item)).collect();
        let task = Arc::new(Reduce { reduction, field: F::FIELD, segment, steps: None });
        let place = output.memory.place();
        let overlaps = inputs
            .iter()
            .any(|input| input.memory.place().zip(place.as_ref()).is_some_and(|(input, output)| input.overlaps(output)));
        if !overlaps {
            return self.task(task, &read, &[(&output.memory, item)]);
        }
        let apart = self.backend.vector::<F>(output.len())?;
        self.task(task, &read, &[(&apart.memory, item)])?;
        self.push(Step::Copy { from: apart.memory, to: output.memory.clone(), item });
        Ok(())
    }

    /// The length of a segment, if `length` elements are so many segments.
    pub(crate) fn segment(&self, operation: &'static str, length: usize, segments: usize) -> Result<usize, Error> {
        match length.checked_div(segments) {
            Some(segment) if segment * segments == length => Ok(segment),
            None if length == 0 => Ok(0),
            _ => Err(Error::LengthMismatch { operation, first: length, other: segments }),
        }
    }
}

macro_rules! reductions {
    ($($name:ident $into:ident $reduction:ident ($first:ident $($vector:ident)*) $summary:literal, $example:literal;)+) => {
        impl Recording {
            $(
                #[doc = concat!("Records ", $summary, ", into new memory of one element. See [`Recording::reduce_into`].\n\n# Errors\nThose of [`Recording::reduce_into`]; [`Error::Device`] if there is no memory.\n\n```\n")]
                #[doc = "# use ark_bls12_381::Fr;"]
                #[doc = "# let backend = bls12_field_gpu::backend()?;"]
                #[doc = "let v = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;"]
                #[doc = "let mut recording = backend.record();"]
                #[doc = concat!("let out = recording.", stringify!($name), "(", "&v", $(reductions!(@v $vector),)* ")?;")]
                #[doc = "recording.submit()?;"]
                #[doc = concat!("assert_eq!(out.download()?, [Fr::from(", $example, "u64)]);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $name<F: Element>(&mut self, $first: &Vector<F>, $($vector: &Vector<F>),*) -> Result<Vector<F>, Error> {
                    let out = self.backend.vector(1)?;
                    self.$into($first, $($vector,)* &out)?;
                    Ok(out)
                }

                #[doc = concat!("Records ", $summary, ", into `out`, a vector of one element. See [`Recording::reduce_into`].\n\n# Errors\nThose of [`Recording::reduce_into`].\n\n```\n")]
                #[doc = "# use ark_bls12_381::Fr;"]
                #[doc = "# let backend = bls12_field_gpu::backend()?;"]
                #[doc = "let v = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;"]
                #[doc = "let out = backend.zeros(1)?;"]
                #[doc = "let mut recording = backend.record();"]
                #[doc = concat!("recording.", stringify!($into), "(", "&v", $(reductions!(@v $vector),)* ", &out)?;")]
                #[doc = "recording.submit()?;"]
                #[doc = concat!("assert_eq!(out.download()?, [Fr::from(", $example, "u64)]);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $into<F: Element>(&mut self, $first: &Vector<F>, $($vector: &Vector<F>,)* out: &Vector<F>) -> Result<(), Error> {
                    self.reduce_into(Reduction::$reduction, &[$first, $($vector),*], out)
                }
            )+
        }
    };
    (@v $vector:ident) => { ", &v" };
}

reductions! {
    sum sum_into Sum (a) "the sum of the elements of a", "5";
    inner_product inner_product_into InnerProduct (a b) "the inner product, the sum of the products a b", "13";
    product product_into Product (a) "the product of the elements of a", "6";
    sum_of_squares sum_of_squares_into SumOfSquares (a) "the sum of the squares of the elements of a", "13";
}
