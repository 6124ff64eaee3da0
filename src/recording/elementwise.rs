//! Element-wise operations, recorded.

use super::Recording;
use crate::ark::Element;
use crate::call::{Call, check_scalar};
use crate::mask::Mask;
use crate::memory::Memory;
use crate::operation::{Operation, Output};
use crate::step::{Applied, Step};
use crate::vector::Vector;
use crate::{Error, Form};
use ark_bls12_381::Fq;
use smallvec::{SmallVec, smallvec};

impl Recording {
    /// Records any operation that gives elements into a vector, which may be one of the inputs itself, but not overlap one in
    /// another way. The parameter is a scalar's limbs in Montgomery form, an exponent's as a plain integer, or empty. `Inverse` maps zeros
    /// to zero here, as `InverseOrZero` does: nobody has looked at the values.
    ///
    /// # Errors
    /// [`Error::OperandCount`], [`Error::LengthMismatch`], [`Error::ScalarLength`], [`Error::ForeignVector`]; [`Error::Overlap`];
    /// [`Error::NotBelowModulus`] for a scalar that is not; [`Error::NotAvailable`] for operations that give a mask.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Operation;
    /// let vector = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mut recording = backend.record();
    /// recording.apply_into(Operation::Mul, &[&vector, &vector], &[], &vector)?;
    /// recording.submit()?;
    /// assert_eq!(vector.download()?, [Fr::from(1u64), Fr::from(4u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn apply_into<F: Element>(
        &mut self,
        operation: Operation,
        inputs: &[&Vector<F>],
        parameter: &[u64],
        output: &Vector<F>,
    ) -> Result<(), Error> {
        let row = operation.row();
        if row.output != Output::Elements {
            return Err(Error::NotAvailable { operation: row.name, field: F::FIELD });
        }
        self.apply(operation, inputs, parameter, Some(output), None)
    }

    /// The length of the operands, if an operation can be applied to them.
    fn agreed<F: Element>(&self, operation: Operation, inputs: &[&Vector<F>], parameter: &[u64]) -> Result<usize, Error> {
        let row = operation.row();
        // Everything but the vectors, which lie elsewhere, is checked as for any call.
        let vectors: SmallVec<[&[u64]; 3]> = smallvec![&[][..]; inputs.len()];
        let call = Call { operation, field: F::FIELD, form: Form::Montgomery, vectors: &vectors, parameter };
        call.check_shape()?;
        check_scalar(row, F::FIELD, parameter)?;
        let length = inputs[0].len();
        inputs.iter().try_for_each(|vector| self.check(row.name, vector, length))?;
        Ok(length)
    }

    /// Records any operation, into vectors and masks as its row says.
    fn apply<F: Element>(
        &mut self,
        operation: Operation,
        inputs: &[&Vector<F>],
        parameter: &[u64],
        elements: Option<&Vector<F>>,
        mask: Option<&Mask>,
    ) -> Result<(), Error> {
        let row = operation.row();
        let length = self.agreed(operation, inputs, parameter)?;
        elements.map_or(Ok(()), |output| self.check(row.name, output, length))?;
        mask.map_or(Ok(()), |mask| self.check_mask(row.name, mask, length))?;
        let place = elements.and_then(|output| output.memory.place());
        let overlaps = |input: Option<crate::memory::Place>| {
            input.zip(place.as_ref()).is_some_and(|(input, output)| input.overlaps(output) && input != *output)
        };
        if inputs.iter().any(|input| overlaps(input.memory.place())) {
            return Err(Error::Overlap { operation: row.name });
        }
        if length > 0 {
            let call = Applied { operation, field: F::FIELD, length, parameter: parameter.to_vec() };
            let inputs = inputs.iter().map(|vector| vector.memory.clone()).collect();
            let elements = elements.map_or(Memory::Nowhere, |elements| elements.memory.clone());
            let mask = mask.map_or(Memory::Nowhere, |mask| mask.memory.clone());
            self.steps.push(Step::Apply { call, inputs, elements, mask });
        }
        Ok(())
    }

    /// Records whether a = b, position by position, into a new mask.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let b = backend.upload(&[Fr::from(1u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let same = recording.equal(&a, &b)?;
    /// recording.submit()?;
    /// assert_eq!(same.download()?, [true, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn equal<F: Element>(&mut self, a: &Vector<F>, b: &Vector<F>) -> Result<Mask, Error> {
        self.agreed(Operation::Equal, &[a, b], &[])?;
        let mask = self.backend.mask(a.len())?;
        self.equal_into(a, b, &mask)?;
        Ok(mask)
    }

    /// Records whether a = b, position by position, into `mask`.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(1u64), Fr::from(2u64)])?;
    /// let mask = backend.falses(5)?;
    /// let mut recording = backend.record();
    /// recording.equal_into(&a, &a, &mask.slice(1..3)?)?;
    /// recording.submit()?;
    /// assert_eq!(mask.download()?, [false, true, true, false, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn equal_into<F: Element>(&mut self, a: &Vector<F>, b: &Vector<F>, mask: &Mask) -> Result<(), Error> {
        self.apply(Operation::Equal, &[a, b], &[], None, Some(mask))
    }

    /// Records square roots, into new memory: where the mask is set, a root of a (of the two, the one that is a power of a);
    /// elsewhere a has none, and it is a root of -a.
    ///
    /// # Errors
    /// [`Error::ForeignVector`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fq;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fq::from(4u64), Fq::from(2u64)])?;
    /// let mut recording = backend.record();
    /// let (root, has_root) = recording.sqrt(&a)?;
    /// let square = recording.square(&root)?;
    /// recording.submit()?;
    /// assert_eq!(square.download()?, [Fq::from(4u64), -Fq::from(2u64)]);
    /// assert_eq!(has_root.download()?, [true, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sqrt(&mut self, a: &Vector<Fq>) -> Result<(Vector<Fq>, Mask), Error> {
        self.agreed(Operation::Sqrt, &[a], &[])?;
        let (root, mask) = (self.backend.vector(a.len())?, self.backend.mask(a.len())?);
        self.sqrt_into(a, &root, &mask)?;
        Ok((root, mask))
    }

    /// Records square roots, as [`Recording::sqrt`] does, into `root`, which may be `a` itself, and `has_root`.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fq;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fq::from(0u64), Fq::from(3u64)])?;
    /// let has_root = backend.falses(2)?;
    /// let mut recording = backend.record();
    /// recording.sqrt_into(&a, &a, &has_root)?;
    /// recording.submit()?;
    /// assert_eq!(a.download()?[0], Fq::from(0u64));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sqrt_into(&mut self, a: &Vector<Fq>, root: &Vector<Fq>, has_root: &Mask) -> Result<(), Error> {
        self.apply(Operation::Sqrt, &[a], &[], Some(root), Some(has_root))
    }
}

macro_rules! operations {
    ($($name:ident $into:ident $operation:ident ($first:ident $($vector:ident)*) ($($parameter:ident: $kind:ident)?) $summary:literal;)+) => {
        impl Recording {
            $(
                #[doc = concat!("Records ", $summary, ", into new memory.\n\n# Errors\nThose of [`Recording::apply_into`]; [`Error::Device`] if there is no memory.\n\n```\n")]
                #[doc = "let one = ark_bls12_381::Fr::from(1u64);"]
                #[doc = "let backend = bls12_field_gpu::backend()?;"]
                #[doc = "let v = backend.upload(&[one])?;"]
                #[doc = "let mut recording = backend.record();"]
                #[doc = concat!("let out = recording.", stringify!($name), "(", "&v, ", $("&", operations!(@v $vector), ", ",)* $(operations!(@example $kind),)? ")?;")]
                #[doc = "recording.submit()?;"]
                #[doc = concat!("assert_eq!(out.download()?, backend.", stringify!($name), "(", "&[one], ", $("&", operations!(@one $vector), ", ",)* $(operations!(@example $kind),)? ")?);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $name<F: Element>(
                    &mut self, $first: &Vector<F>, $($vector: &Vector<F>,)* $($parameter: operations!(@type $kind))?
                ) -> Result<Vector<F>, Error> {
                    let limbs: &[u64] = operations!(@limbs $($parameter $kind)?);
                    let out = self.backend.vector(self.agreed(Operation::$operation, &[$first, $($vector),*], limbs)?)?;
                    self.$into($first, $($vector,)* $($parameter,)? &out)?;
                    Ok(out)
                }

                #[doc = concat!("Records ", $summary, ", into `out`.\n\n# Errors\nThose of [`Recording::apply_into`].\n\n```\n")]
                #[doc = "let one = ark_bls12_381::Fr::from(1u64);"]
                #[doc = "let backend = bls12_field_gpu::backend()?;"]
                #[doc = "let v = backend.upload(&[one])?;"]
                #[doc = "let mut recording = backend.record();"]
                #[doc = "let out = backend.zeros(1)?;"]
                #[doc = concat!("recording.", stringify!($into), "(", "&v, ", $("&", operations!(@v $vector), ", ",)* $(operations!(@example $kind),)? "&out)?;")]
                #[doc = "recording.submit()?;"]
                #[doc = concat!("assert_eq!(out.download()?, backend.", stringify!($name), "(", "&[one], ", $("&", operations!(@one $vector), ", ",)* $(operations!(@example $kind),)? ")?);")]
                #[doc = "# Ok::<(), bls12_field_gpu::Error>(())\n```"]
                pub fn $into<F: Element>(
                    &mut self, $first: &Vector<F>, $($vector: &Vector<F>,)* $($parameter: operations!(@type $kind),)? out: &Vector<F>,
                ) -> Result<(), Error> {
                    let parameter: &[u64] = operations!(@limbs $($parameter $kind)?);
                    self.apply_into(Operation::$operation, &[$first, $($vector),*], parameter, out)
                }
            )+
        }
    };
    (@v $vector:ident) => { "v" };
    (@one $vector:ident) => { "[one]" };
    (@example element) => { "&one, " };
    (@example exponent) => { "&[3], " };
    (@type element) => { &F };
    (@type exponent) => { &[u64] };
    (@limbs) => { &[] };
    (@limbs $parameter:ident element) => { F::limbs(std::slice::from_ref($parameter)) };
    (@limbs $parameter:ident exponent) => { $parameter };
}

operations! {
    add add_into Add (a b) () "the sums a + b";
    sub sub_into Sub (a b) () "the differences a - b";
    neg neg_into Neg (a) () "the negatives -a";
    double double_into Double (a) () "the doubles 2 a";
    mul mul_into Mul (a b) () "the products a b";
    square square_into Square (a) () "the squares a^2";
    mul_add mul_add_into MulAdd (a b c) () "a b + c";
    add_scalar add_scalar_into AddScalar (a) (scalar: element) "a + s for one element s";
    sub_scalar sub_scalar_into SubScalar (a) (scalar: element) "a - s for one element s";
    scale scale_into Scale (a) (scalar: element) "a s for one element s";
    pow pow_into Pow (a) (exponent: exponent) "the powers a^e for one exponent e";
    inverse_or_zero inverse_or_zero_into InverseOrZero (a) () "the inverses 1 / a, and 0 where a is 0";
}
