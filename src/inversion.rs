//! Inverses and quotients of whole vectors: Montgomery's trick on the device.

use crate::ark::Element;
use crate::known_answers::edges;
use crate::memory::Memory;
use crate::step::Item;
use crate::task::{Lowering, Proof, Specialized, Task, Trial, Values};
use crate::vector::Vector;
use crate::{Error, Field, Recording};
use ark_bls12_381::{Fq, Fr};
use cpu_reference::{first_wrong_inverse, inverses};
use field_kernels::Kernel;
use gpu_executor::{DeviceKind, Parts, Region, Shape, SlotUse, Start, Weight};
use smallvec::smallvec;
use std::borrow::Cow;
use std::sync::Arc;

/// What becomes of zeros, which have no inverse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zeros {
    /// The inverse of 0 is 0, and so is a / 0.
    Keep,
    /// The same, and waiting for the recording's ticket is an error: [`Error::ZeroInverse`].
    Refuse,
}

impl Recording {
    /// Records the inverses 1 / a, into new memory. Zeros stay zero or are refused.
    ///
    /// O(n), three multiplications and five passes over memory per element, whatever the elements are: each invocation inverts the product
    /// of some elements and takes them out again (Montgomery's trick). [`Recording::inverse_or_zero`], which inverts each element by
    /// itself, takes seven times as long on long vectors.
    ///
    /// # Errors
    /// Those of [`Recording::batch_inverse_into`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::{Error, Zeros};
    /// let a = backend.upload(&[Fr::from(2u64), Fr::from(0u64)])?;
    /// let mut recording = backend.record();
    /// let inverses = recording.batch_inverse(&a, Zeros::Keep)?;
    /// let twos = recording.add(&a, &a)?;
    /// let ones = recording.mul(&twos, &inverses)?;
    /// recording.submit()?;
    /// assert_eq!(ones.download()?, [Fr::from(2u64), Fr::from(0u64)]);
    ///
    /// let mut recording = backend.record();
    /// recording.batch_inverse(&a, Zeros::Refuse)?;
    /// assert!(matches!(recording.submit()?.wait(), Err(Error::ZeroInverse { index: 1 })));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn batch_inverse<F: Element>(&mut self, a: &Vector<F>, zeros: Zeros) -> Result<Vector<F>, Error> {
        self.check("batch_inverse", a, a.len())?;
        let out = self.backend.vector(a.len())?;
        self.batch_inverse_into(a, zeros, &out)?;
        Ok(out)
    }

    /// Records the inverses 1 / a, as [`Recording::batch_inverse`] does, into `out`, which may be `a` itself, or overlap it: then
    /// a copy of `a` is made.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Zeros;
    /// let a = backend.upload(&[Fr::from(2u64), Fr::from(1u64)])?;
    /// let mut recording = backend.record();
    /// recording.batch_inverse_into(&a, Zeros::Refuse, &a)?;
    /// recording.double_into(&a, &a)?;
    /// recording.submit()?.wait()?;
    /// assert_eq!(a.download()?, [Fr::from(1u64), Fr::from(2u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn batch_inverse_into<F: Element>(&mut self, a: &Vector<F>, zeros: Zeros, out: &Vector<F>) -> Result<(), Error> {
        let task = Inversion { field: F::FIELD, zeros, invocations: None };
        self.check(task.name(), a, a.len())?;
        self.check(task.name(), out, a.len())?;
        if a.is_empty() {
            return Ok(());
        }
        let element = Item::Element(F::FIELD);
        let mut outputs = vec![(&out.memory, element)];
        let found = match zeros {
            Zeros::Keep => Memory::Nowhere,
            Zeros::Refuse => Memory::of(&self.backend, 1, Item::Index)?,
        };
        if zeros == Zeros::Refuse {
            outputs.push((&found, Item::Index));
        }
        // Last of what may be refused.
        let a = if overlap(a, out) { self.duplicate(a)? } else { a.clone() };
        self.task(Arc::new(task), &[(&a.memory, element)], &outputs)?;
        if zeros == Zeros::Refuse {
            self.fetch::<bool>(&found, Item::Index, 1, true);
        }
        Ok(())
    }

    /// Records the quotients a / b, into new memory: 0 where b is 0, or that is refused.
    ///
    /// O(n), four multiplications and eight passes over memory per element: the inverses of [`Recording::batch_inverse`], times a.
    ///
    /// # Errors
    /// Those of [`Recording::divide_into`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fq;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Zeros;
    /// let a = backend.upload(&[Fq::from(6u64), Fq::from(5u64)])?;
    /// let b = backend.upload(&[Fq::from(2u64), Fq::from(0u64)])?;
    /// let mut recording = backend.record();
    /// let quotients = recording.divide(&a, &b, Zeros::Keep)?;
    /// recording.submit()?;
    /// assert_eq!(quotients.download()?, [Fq::from(3u64), Fq::from(0u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    ///
    /// Many additions of points in affine coordinates, of different x, are one such division and four kernels:
    ///
    /// ```
    /// # use ark_bls12_381::{Fq, G1Affine};
    /// # use ark_ec::AffineRepr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// # let g = G1Affine::generator();
    /// # let (p, sum): (G1Affine, G1Affine) = ((g + g).into(), (g + g + g).into());
    /// # let [x1, y1, x2, y2] = [g.x, g.y, p.x, p.y].map(|x| backend.upload(&[x]));
    /// # let (x1, y1, x2, y2) = (x1?, y1?, x2?, y2?);
    /// use bls12_field_gpu::Zeros;
    /// let mut recording = backend.record();
    /// let (rise, run) = (recording.sub(&y2, &y1)?, recording.sub(&x2, &x1)?);
    /// let slope = recording.divide(&rise, &run, Zeros::Refuse)?;
    /// let x = recording.evaluate(&(&slope * &slope - &x1 - &x2))?;
    /// let y = recording.evaluate(&(&slope * (&x1 - &x) - &y1))?;
    /// recording.submit()?.wait()?;
    /// assert_eq!((x.download()?, y.download()?), (vec![sum.x], vec![sum.y]));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn divide<F: Element>(&mut self, a: &Vector<F>, b: &Vector<F>, zeros: Zeros) -> Result<Vector<F>, Error> {
        self.check("divide", a, a.len())?;
        self.check("divide", b, a.len())?;
        let out = self.backend.vector(a.len())?;
        self.divide_into(a, b, zeros, &out)?;
        Ok(out)
    }

    /// Records the quotients a / b, as [`Recording::divide`] does, into `out`, which may be `a` or `b` itself, but not overlap `a` in
    /// another way. Where it overlaps one of them, the inverses take memory of their own.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Zeros;
    /// let a = backend.upload(&[Fr::from(6u64), Fr::from(5u64)])?;
    /// let mut recording = backend.record();
    /// recording.divide_into(&a, &a, Zeros::Refuse, &a)?;
    /// recording.submit()?.wait()?;
    /// assert_eq!(a.download()?, [Fr::from(1u64); 2]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn divide_into<F: Element>(
        &mut self,
        a: &Vector<F>,
        b: &Vector<F>,
        zeros: Zeros,
        out: &Vector<F>,
    ) -> Result<(), Error> {
        for vector in [a, b, out] {
            self.check("divide", vector, a.len())?;
        }
        if overlap(a, out) && a.memory.place() != out.memory.place() {
            return Err(Error::Overlap { operation: "divide" });
        }
        let apart = overlap(a, out) || overlap(b, out);
        let inverses = if apart { self.backend.vector(a.len())? } else { out.clone() };
        self.all_or_nothing(|recording| {
            recording.batch_inverse_into(b, zeros, &inverses)?;
            recording.mul_into(a, &inverses, out)
        })
    }
}

fn overlap<F>(a: &Vector<F>, b: &Vector<F>) -> bool {
    a.memory.place().zip(b.memory.place()).is_some_and(|(a, b)| a.overlaps(&b))
}

/// What the word that looks for zeros says: 0 if there are none, else the complement of the first one's position.
pub(crate) fn first_zero(word: u32) -> Option<usize> {
    (word != 0).then_some(!word as usize)
}

#[derive(Clone, Debug)]
pub(crate) struct Inversion {
    pub(crate) field: Field,
    pub(crate) zeros: Zeros,
    /// How many invocations share the elements, if not as many as suit the device.
    pub(crate) invocations: Option<usize>,
}

/// Multiplications per element, or about, an invocation's inversion included.
pub(crate) const COST: u64 = 4;

/// How many invocations share the elements of a vector, unless each had more than [`MOST_EACH`]: enough to keep a device busy, and no more, since
/// each inverts. On the H200, which has room for 384 on each of its 132 parts, 2^22 Fq elements take 615 us with 2^15, 569 with
/// 384 * 132, 643 with 2^16, 675 with 2^17; as many Fr elements 381 with 11 * 2^12, 350 with 3 * 2^14, 378 with 7 * 2^13, 344 with 2^16,
/// 377 with 576 * 132. Others were not measured.
const fn invocations(kind: DeviceKind, field: Field) -> usize {
    match kind {
        DeviceKind::Discrete | DeviceKind::Virtual => match field {
            Field::Fq => 3 << 14,
            Field::Fr => 1 << 16,
        },
        DeviceKind::Integrated | DeviceKind::Other => 1 << 13,
        DeviceKind::Software => 1 << 9,
    }
}

/// The most elements of an invocation: its inversion is nothing beside them, and where launches are cut each part has invocations enough. At most an
/// eighth of a [`chunk`](crate::Options::chunk_elements), if there is one, so that a part has a few.
const MOST_EACH: usize = 1 << 12;

/// The second parameter is the first invocation.
const PARTS: Parts = Parts { starts: &[Start::at(1)], ..Parts::ANYWHERE };

impl Inversion {
    fn first_wrong(&self, inputs: &[Values], outputs: &[Values]) -> Option<(usize, usize)> {
        let ([a], [out, found @ ..]) = (inputs, outputs) else { return Some((0, 0)) };
        if a.limbs().len() != out.limbs().len() {
            return Some((0, 0));
        }
        let wrong = match self.field {
            Field::Fq => first_wrong_inverse::<Fq>(a.limbs(), out.limbs()),
            Field::Fr => first_wrong_inverse::<Fr>(a.limbs(), out.limbs()),
        };
        let zero = |element: &[u64]| element.iter().all(|&limb| limb == 0);
        let first = || a.limbs().chunks_exact(self.field.limbs()).position(zero);
        let mistaken = found.first().is_some_and(|found| first_zero(found.words().first().copied().unwrap_or(0)) != first());
        wrong.map(|index| (0, index)).or(mistaken.then_some((1, 0)))
    }
}

impl Task for Inversion {
    fn name(&self) -> &'static str {
        "batch_inverse"
    }

    fn field(&self) -> Field {
        self.field
    }

    fn multiplies(&self) -> Option<Kernel> {
        Some(Kernel::BatchInverse)
    }

    fn variant(&self) -> Cow<'_, str> {
        if self.zeros == Zeros::Refuse { "refuse" } else { "keep" }.into()
    }

    fn lower(&self, lowering: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let [Some(a)] = inputs else { return Ok(()) };
        let [Some(out), found @ ..] = outputs else { return Ok(()) };
        let found = found.first().cloned().flatten();
        let element = self.field.bytes();
        let refuses = self.zeros == Zeros::Refuse;
        let words = if refuses { SlotUse::WritesAnywhere(size_of::<u32>()) } else { SlotUse::None };
        let program = lowering.program(&Specialized {
            kernel: Kernel::BatchInverse,
            field: self.field,
            formulation: lowering.formulation,
            slots: [SlotUse::ReadsAnywhere(element), SlotUse::None, words, SlotUse::WritesAnywhere(element)],
            shape: Shape::Invocations,
            parts: PARTS,
            workgroup_size: None,
            constants: smallvec![(1, refuses.into())],
        })?;
        if let Some(found) = &found {
            lowering.batch.zero(found);
        }
        let device = lowering.vulkan.device();
        let length = (a.bytes() / element as u64) as usize;
        let invocations = self.invocations.unwrap_or_else(|| invocations(device.info().kind, self.field));
        let each = length.div_ceil(invocations).min(MOST_EACH).min((device.chunk_elements() / 8).max(1));
        let count = length.div_ceil(each) as u32;
        let slots = [Some((a.clone(), false)), None, found.map(|found| (found, true)), Some((out.clone(), true))];
        let weight = Weight { elements: each as u32, cost: COST };
        lowering.batch.launch(&program, slots, (count, weight), &[length as u32, 0, count]);
        Ok(())
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        let ([a], [out, found @ ..]) = (inputs, outputs) else { return };
        let first = match self.field {
            Field::Fq => inverses::<Fq>(a.limbs(), out.limbs_mut()),
            Field::Fr => inverses::<Fr>(a.limbs(), out.limbs_mut()),
        };
        if let Some(found) = found.first_mut() {
            found.words_mut().fill(first.map_or(0, |index| !(index as u32)));
        }
    }

    /// By one multiplication for each element, instead of three: a a^-1 = 1. Exact.
    fn proof(&self) -> Option<Proof<'_>> {
        Some(Box::new(|inputs, outputs| self.first_wrong(inputs, outputs)))
    }

    fn trials(&self) -> Vec<Trial> {
        let (edges, limbs) = (edges(self.field), self.field.limbs());
        // With zeros and without, of one element for each invocation and of several, also of one more for some.
        let trial = |length: usize, from: usize, invocations: usize| {
            let element = |index: usize| edges[from + index % (edges.len() - from)].iter().copied();
            let inputs = vec![Values::Limbs((0..length).flat_map(element).collect())];
            let elements = (Item::Element(self.field), inputs[0].limbs().len() / limbs);
            let outputs = match self.zeros {
                Zeros::Keep => vec![elements],
                Zeros::Refuse => vec![elements, (Item::Index, 1)],
            };
            Trial { task: Arc::new(Self { invocations: Some(invocations), ..self.clone() }), inputs, outputs }
        };
        vec![trial(1, 0, 1), trial(1, 1, 1), trial(edges.len(), 0, 64), trial(3 * edges.len() + 1, 1, 9), trial(700, 0, 70)]
    }
}
