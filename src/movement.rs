//! Movements of elements: each result is elements of one vector, or zeros, in another order. Devices move quads of 16 bytes,
//! neighbours by neighbouring invocations; no time and no address depends on an element.

mod tasks;

use crate::Error;
use crate::ark::Element;
use crate::extent::Counts;
use crate::indices::Indices;
use crate::mask::Mask;
use crate::memory::Memory;
use crate::recording::Recording;
use crate::step::Item;
use crate::vector::Vector;
use std::sync::Arc;
pub(crate) use tasks::{ANYWHERE, QUAD, an_index_each, part, told_apart};
use tasks::{Compacted, Gathered, Map, Mapped, Scattered};

impl Recording {
    fn mapped<F: Element>(&mut self, name: &'static str, map: Map, a: &Vector<F>, out: &Vector<F>) -> Result<(), Error> {
        self.check(name, a, a.len())?;
        self.check(name, out, out.len())?;
        let (item, task) = (Item::Element(F::FIELD), Mapped { name, field: F::FIELD, map });
        if out.is_empty() { Ok(()) } else { self.task(Arc::new(task), &[(&a.memory, item)], &[(&out.memory, item)]) }
    }

    /// Records a copy of `a` into `out`, of the same length. Memory is read and written once.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2, 3].map(|n: u64| Fr::from(n)))?;
    /// let mut recording = backend.record();
    /// recording.copy_into(&a.slice(2..3)?, &a.slice(0..1)?)?;
    /// recording.submit()?;
    /// assert_eq!(a.download()?, [3, 2, 3].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn copy_into<F: Element>(&mut self, a: &Vector<F>, out: &Vector<F>) -> Result<(), Error> {
        self.concatenate_into(&[a], out)
    }

    /// Records that vectors are put one after another, into new memory. Memory is read and written once.
    ///
    /// # Errors
    /// [`Error::ForeignVector`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2, 3].map(|n: u64| Fr::from(n)))?;
    /// let mut recording = backend.record();
    /// let both = recording.concatenate(&[&a, &a.slice(0..1)?])?;
    /// recording.submit()?;
    /// assert_eq!(both.download()?, [1, 2, 3, 1].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn concatenate<F: Element>(&mut self, parts: &[&Vector<F>]) -> Result<Vector<F>, Error> {
        parts.iter().try_for_each(|part| self.check("concatenate", part, part.len()))?;
        let out = self.backend.vector(parts.iter().map(|part| part.len()).sum())?;
        self.concatenate_into(parts, &out)?;
        Ok(out)
    }

    /// As [`Recording::concatenate`], into `out`, which must be as long as all parts together.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2].map(|n: u64| Fr::from(n)))?;
    /// let out = backend.zeros(4)?;
    /// let mut recording = backend.record();
    /// recording.concatenate_into(&[&a, &a], &out)?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [1, 2, 1, 2].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn concatenate_into<F: Element>(&mut self, parts: &[&Vector<F>], out: &Vector<F>) -> Result<(), Error> {
        let operation = "concatenate";
        self.check(operation, out, parts.iter().map(|part| part.len()).sum())?;
        let place = out.memory.place();
        for part in parts {
            self.check(operation, part, part.len())?;
            if place.as_ref().zip(part.memory.place()).is_some_and(|(out, part)| out.overlaps(&part)) {
                return Err(Error::Overlap { operation });
            }
        }
        let mut at = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            // Not a copy of the driver's: on an H200 those took five times as long.
            let map = Map::Affine { first: 0, step: 1, from: part.len() };
            self.mapped(operation, map, part, &out.slice(at..at + part.len())?)?;
            at += part.len();
        }
        Ok(())
    }

    /// Records `count` elements that are `step` apart, the first at `first`, into new memory: a\[first\], a\[first + step\] and so on. A
    /// step of 0 repeats one element. What lies between them is read too, in part.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] if the last one is not in the vector, [`Error::ForeignVector`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2, 3, 4, 5].map(|n: u64| Fr::from(n)))?;
    /// let mut recording = backend.record();
    /// let odd = recording.strided(&a, 0, 2, 3)?;
    /// recording.submit()?;
    /// assert_eq!(odd.download()?, [1, 3, 5].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn strided<F: Element>(
        &mut self,
        a: &Vector<F>,
        first: usize,
        step: usize,
        count: usize,
    ) -> Result<Vector<F>, Error> {
        self.check("strided", a, a.len())?;
        check_stride(a.len(), first, step, count)?;
        let out = self.backend.vector(count)?;
        self.strided_into(a, first, step, &out)?;
        Ok(out)
    }

    /// As [`Recording::strided`], into `out`, whose length is how many elements there are.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::ForeignVector`], [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2, 3, 4].map(|n: u64| Fr::from(n)))?;
    /// let out = backend.zeros(2)?;
    /// let mut recording = backend.record();
    /// recording.strided_into(&a, 1, 2, &out)?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [2, 4].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn strided_into<F: Element>(
        &mut self,
        a: &Vector<F>,
        first: usize,
        step: usize,
        out: &Vector<F>,
    ) -> Result<(), Error> {
        check_stride(a.len(), first, step, out.len())?;
        self.mapped("strided", Map::Affine { first, step: step as u32, from: a.len() }, a, out)
    }

    /// Records a compaction: the elements of `a` whose flags are set, in their order and followed by zeros, into new memory as long as
    /// `a`; and how many they are, as the only one of [`Counts`]. Two passes over the flags, one over the elements.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2, 3].map(|n: u64| Fr::from(n)))?;
    /// let b = backend.upload(&[1, 0, 3].map(|n: u64| Fr::from(n)))?;
    /// let mut recording = backend.record();
    /// let same = recording.equal(&a, &b)?;
    /// let (kept, count) = recording.compact(&a, &same)?;
    /// recording.submit()?;
    /// assert_eq!(kept.download()?, [1, 3, 0].map(|n: u64| Fr::from(n)));
    /// assert_eq!(count.download()?, [2]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn compact<F: Element>(&mut self, a: &Vector<F>, mask: &Mask) -> Result<(Vector<F>, Counts), Error> {
        self.check("compact", a, a.len())?;
        self.check_mask("compact", mask, a.len())?;
        let out = self.backend.vector(a.len())?;
        let count = self.compact_into(a, mask, &out)?;
        Ok((out, count))
    }

    /// As [`Recording::compact`], into `out`, as long as `a`.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let (a, out) = (backend.upload(&[Fr::from(1u64)])?, backend.upload(&[Fr::from(7u64)])?);
    /// let mut recording = backend.record();
    /// let same = recording.equal(&a, &out)?;
    /// let count = recording.compact_into(&a, &same, &out)?;
    /// recording.submit()?;
    /// assert_eq!((out.download()?[0], count.download()?[0]), (Fr::from(0u64), 0));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn compact_into<F: Element>(&mut self, a: &Vector<F>, mask: &Mask, out: &Vector<F>) -> Result<Counts, Error> {
        self.check("compact", a, a.len())?;
        self.check_mask("compact", mask, a.len())?;
        self.check("compact", out, a.len())?;
        let (memory, item) = (Memory::new(&self.backend, Item::Index.bytes())?, Item::Element(F::FIELD));
        let inputs = [(&a.memory, item), (&mask.memory, Item::Flag)];
        self.task(Arc::new(Compacted(F::FIELD)), &inputs, &[(&out.memory, item), (&memory, Item::Index)])?;
        Ok(Counts { backend: self.backend.clone(), memory, length: 1 })
    }

    /// Records that element i of `a` becomes element indices\[i\] of a new vector of `length` elements, whose others are zero. Memory is
    /// written at random, in pieces of an element.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] if there are not as many indices as elements, [`Error::IndexBound`], [`Error::RepeatedIndices`],
    /// [`Error::ForeignVector`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2].map(|n: u64| Fr::from(n)))?;
    /// let positions = backend.upload_indices(&[2, 0], 3)?;
    /// let mut recording = backend.record();
    /// let scattered = recording.scatter(&a, &positions, 3)?;
    /// recording.submit()?;
    /// assert_eq!(scattered.download()?, [2, 0, 1].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn scatter<F: Element>(&mut self, a: &Vector<F>, indices: &Indices, length: usize) -> Result<Vector<F>, Error> {
        self.check_scatter(a, indices, length)?;
        let out = self.backend.vector(length)?;
        self.all_or_nothing(|recording| {
            recording.zero(&out)?;
            recording.scatter_into(a, indices, &out)
        })?;
        Ok(out)
    }

    /// As [`Recording::scatter`], into `out`, whose other elements stay as they are.
    ///
    /// # Errors
    /// Those of [`Recording::scatter`]; [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let (a, out) = (backend.upload(&[Fr::from(7u64)])?, backend.upload(&[1, 2].map(|n: u64| Fr::from(n)))?);
    /// let mut recording = backend.record();
    /// recording.scatter_into(&a, &backend.upload_indices(&[1], 2)?, &out)?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [1, 7].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn scatter_into<F: Element>(&mut self, a: &Vector<F>, indices: &Indices, out: &Vector<F>) -> Result<(), Error> {
        let operation = "scatter";
        self.check(operation, out, out.len())?;
        self.check_scatter(a, indices, out.len())?;
        // Only what it was before may be the result.
        if out.memory.place().zip(a.memory.place()).is_some_and(|(out, a)| out.overlaps(&a)) {
            return Err(Error::Overlap { operation });
        }
        let item = Item::Element(F::FIELD);
        let inputs = [(&a.memory, item), (&indices.memory, Item::Index), (&out.memory, item)];
        self.task(Arc::new(Scattered(F::FIELD)), &inputs, &[(&out.memory, item)])
    }

    /// So many indices, each of which is a position in a vector of `elements` elements.
    fn check_scatter<F: Element>(&self, a: &Vector<F>, indices: &Indices, length: usize) -> Result<(), Error> {
        let operation = "scatter";
        self.check(operation, a, a.len())?;
        self.check_indices(operation, indices, a.len(), length)?;
        if indices.are_distinct() { Ok(()) } else { Err(Error::RepeatedIndices { operation }) }
    }

    fn check_indices(&self, operation: &'static str, of: &Indices, length: usize, elements: usize) -> Result<(), Error> {
        self.check_operand(operation, &of.backend, of.len(), length)?;
        if !of.is_empty() && of.bound() > elements {
            return Err(Error::IndexBound { operation, bound: of.bound(), length: elements });
        }
        Ok(())
    }
}

fn check_stride(length: usize, first: usize, step: usize, count: usize) -> Result<(), Error> {
    let last = count.checked_sub(1).map(|steps| steps.saturating_mul(step).saturating_add(first));
    match last {
        // No device has a vector of so many elements, and no more of them need be counted.
        Some(last) if last >= length || count > u32::MAX as usize => {
            Err(Error::OutOfRange { start: first, end: last.saturating_add(1), length })
        }
        _ => Ok(()),
    }
}

macro_rules! movements {
    ($($name:ident $into:ident ($($parameter:ident: $of:ty),*) $length:expr, $make:expr, $summary:literal, $example:literal, $gives:literal;)+) => {
        impl Recording {
            $(
                #[doc = concat!("Records ", $summary, ", into new memory. Memory is read and written once.\n\n# Errors\nThose of [`Recording::", stringify!($into), "`] but for overlaps; [`Error::Device`] if there is no memory.\n\n```\n")]
                #[doc = "# use ark_bls12_381::Fr;"]
                #[doc = "# let backend = bls12_field_gpu::backend()?;"]
                #[doc = "let a = backend.upload(&[1, 2, 3, 4].map(|n: u64| Fr::from(n)))?;"]
                #[doc = "let mut recording = backend.record();"]
                #[doc = concat!("let out = recording.", stringify!($name), "(&a", $example, ")?;")]
                #[doc = "recording.submit()?;"]
                #[doc = concat!("assert_eq!(out.download()?, ", $gives, ".map(|n: u64| Fr::from(n)));")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $name<F: Element>(&mut self, a: &Vector<F>, $($parameter: $of),*) -> Result<Vector<F>, Error> {
                    let length: fn(&Recording, &Vector<F>, $($of),*) -> Result<usize, Error> = $length;
                    self.check(stringify!($name), a, a.len())?;
                    let out = self.backend.vector(length(self, a, $($parameter),*)?)?;
                    self.$into(a, $($parameter,)* &out)?;
                    Ok(out)
                }

                #[doc = concat!("Records ", $summary, ", into `out`, which may not overlap what is read.\n\n# Errors\n[`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`]; [`Error::NotAPowerOfTwo`] of a reversal of bits, [`Error::IndexBound`] if an index may be past the end of `a`.\n\n```\n")]
                #[doc = "# use ark_bls12_381::Fr;"]
                #[doc = "# let backend = bls12_field_gpu::backend()?;"]
                #[doc = "let a = backend.upload(&[1, 2, 3, 4].map(|n: u64| Fr::from(n)))?;"]
                #[doc = "let out = backend.zeros(4)?;"]
                #[doc = "let mut recording = backend.record();"]
                #[doc = concat!("recording.", stringify!($into), "(&a", $example, ", &out)?;")]
                #[doc = "recording.submit()?;"]
                #[doc = concat!("assert_eq!(out.download()?, ", $gives, ".map(|n: u64| Fr::from(n)));")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $into<F: Element>(&mut self, a: &Vector<F>, $($parameter: $of,)* out: &Vector<F>) -> Result<(), Error> {
                    let make: fn(&mut Recording, &Vector<F>, $($of,)* &Vector<F>) -> Result<(), Error> = $make;
                    make(self, a, $($parameter,)* out)
                }
            )+
        }
    };
}

movements! {
    rotate rotate_into (by: usize) |_, a, _| Ok(a.len()), |recording, a, by, out| {
        recording.check("rotate", out, a.len())?;
        recording.mapped("rotate", Map::Affine { first: by % a.len().max(1), step: 1, from: a.len() }, a, out)
    }, "the elements of a, each moved so many places towards the front and, from there, to the end", ", 1", "[2, 3, 4, 1]";

    reverse reverse_into () |_, a| Ok(a.len()), |recording, a, out| {
        recording.check("reverse", out, a.len())?;
        let map = Map::Affine { first: a.len().saturating_sub(1), step: u32::MAX, from: a.len() };
        recording.mapped("reverse", map, a, out)
    }, "the elements of a in reverse order", "", "[4, 3, 2, 1]";

    bit_reverse bit_reverse_into () |_, a| Ok(a.len()), |recording, a, out| {
        let operation = "bit_reverse";
        recording.check(operation, out, a.len())?;
        if !a.is_empty() && !a.len().is_power_of_two() {
            return Err(Error::NotAPowerOfTwo { operation, length: a.len() });
        }
        recording.mapped(operation, Map::BitReverse { bits: a.len().max(1).trailing_zeros() }, a, out)
    }, "the elements of a, a power of two, at the positions whose bits are theirs in reverse order", "", "[1, 3, 2, 4]";

    transpose transpose_into (rows: usize, columns: usize) |recording, a, rows, columns| {
        recording.check("transpose", a, rows.saturating_mul(columns)).map(|()| a.len())
    }, |recording, a, rows, columns, out| {
        recording.check("transpose", a, rows.saturating_mul(columns))?;
        recording.check("transpose", out, a.len())?;
        recording.mapped("transpose", Map::Transpose { rows, columns }, a, out)
    }, "the transpose of a matrix a, given and left row by row", ", 2, 2", "[1, 3, 2, 4]";

    gather gather_into (indices: &Indices) |recording, a, indices| {
        recording.check_indices("gather", indices, indices.len(), a.len()).map(|()| indices.len())
    }, |recording, a, indices, out| {
        recording.check("gather", a, a.len())?;
        recording.check("gather", out, indices.len())?;
        recording.check_indices("gather", indices, indices.len(), a.len())?;
        let item = Item::Element(F::FIELD);
        let inputs: [(&Memory, Item); 2] = [(&a.memory, item), (&indices.memory, Item::Index)];
        recording.task(Arc::new(Gathered(F::FIELD)), &inputs, &[(&out.memory, item)])
    }, "the elements a\\[indices\\[i\\]\\]", ", &backend.upload_indices(&[3, 0, 0, 1], 4)?", "[4, 1, 1, 2]";
}
