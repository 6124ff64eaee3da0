//! Fused expressions on resident vectors.

mod fused;
mod graph;

use crate::ark::Element;
use crate::mask::Mask;
use crate::recording::Recording;
use crate::step::Item;
use crate::vector::Vector;
use crate::{Backend, Error};
use foldhash::HashMap;
use fused::Fused;
pub(crate) use fused::Pieces;
use graph::{Builder, FEW, Root, Term, few};
use std::fmt;
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

/// An element-wise expression of vectors that lie on the device: what operators on [`Vector`]s give. Nothing is computed
/// before it is recorded by [`Recording::evaluate`]; then one kernel reads each operand once and writes once.
///
/// Operands are vectors of one length, [rotations](Vector::rotate) of them, single elements of the host (`Fq`, `Fr`) and of the device
/// ([`Vector::broadcast`]). Elements are in Montgomery form, as everywhere on the device. A clone shares what it is made of.
///
/// ```
/// use ark_bls12_381::Fr;
/// let backend = bls12_field_gpu::backend()?;
/// let a = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;
/// let b = backend.upload(&[Fr::from(5u64), Fr::from(7u64)])?;
/// let mut recording = backend.record();
/// let out = recording.evaluate(&((&a * &b - &a) * Fr::from(10u64)))?;
/// recording.submit()?;
/// assert_eq!(out.download()?, [Fr::from(80u64), Fr::from(180u64)]);
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
///
/// A prover's sums of products are one kernel each. The quotient of Groth16, (a b - c) / z with z, the vanishing polynomial's value,
/// the same everywhere on a coset:
///
/// ```
/// # use ark_bls12_381::Fr;
/// # use ark_ff::Field;
/// # let backend = bls12_field_gpu::backend()?;
/// # let vector = |from: u64| backend.upload(&[from, from + 1, from + 5].map(Fr::from));
/// # let (a, b, c, z) = (vector(10)?, vector(20)?, vector(30)?, Fr::from(7u64));
/// let z_inverse = z.inverse().unwrap_or_default();
/// let mut recording = backend.record();
/// let quotient = recording.evaluate(&((&a * &b - &c) * z_inverse))?;
/// recording.submit()?;
/// assert_eq!(quotient.download()?[0] * z, Fr::from(170u64));
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
///
/// A gate of PLONK with part of its permutation, whose z(wX) is z one position on. That a is a factor of two products is seen: five
/// multiplications, two of them reduced, where the text has six. And axpy, x s + y:
///
/// ```
/// # use ark_bls12_381::Fr;
/// # let backend = bls12_field_gpu::backend()?;
/// # let vector = |from: u64| backend.upload(&[from, from + 1, from + 5].map(Fr::from));
/// # let [ql, qr, qm, qo, qc, a, b, c, z] = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(vector);
/// # let (ql, qr, qm, qo, qc, a, b, c, z) = (ql?, qr?, qm?, qo?, qc?, a?, b?, c?, z?);
/// # let (alpha, s) = (Fr::from(11u64), Fr::from(3u64));
/// let gate = &ql * &a + &qr * &b + &qm * &a * &b + &qo * &c + &qc + (z.rotate(1) - &z) * alpha;
/// let mut recording = backend.record();
/// let gate = recording.evaluate(&gate)?;
/// let axpy = recording.evaluate(&(&a * s + &b))?;
/// recording.submit()?;
/// let right = 6 + 2 * 7 + 3 * 6 * 7 + 4 * 8 + 5 + 11;
/// assert_eq!((gate.download()?[0], axpy.download()?[0]), (Fr::from(right as u64), Fr::from(25u64)));
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
pub struct Expression<F: Element> {
    node: Arc<Node<F>>,
}

/// Whether two expressions are equal, position by position: what [`Expression::equals`] gives and [`Recording::evaluate_mask`] records.
pub struct Condition<F: Element> {
    a: Expression<F>,
    b: Expression<F>,
}

struct Node<F: Element> {
    kind: Kind<F>,
    operands: Vec<Arc<Node<F>>>,
}

enum Kind<F: Element> {
    Vector(Vector<F>),
    Rotated(Vector<F>, isize),
    Entry(Vector<F>),
    Scalar(F),
    Add,
    Sub,
    Neg,
    Mul,
    Select(Mask),
}

impl<F: Element> Drop for Node<F> {
    /// Not by recursion: expressions may be longer than the stack is deep.
    fn drop(&mut self) {
        let mut waiting = std::mem::take(&mut self.operands);
        while let Some(node) = waiting.pop() {
            if let Some(mut node) = Arc::into_inner(node) {
                waiting.append(&mut node.operands);
            }
        }
    }
}

impl<F: Element> Expression<F> {
    fn new(kind: Kind<F>, operands: &[&Self]) -> Self {
        let operands = operands.iter().map(|operand| operand.node.clone()).collect();
        Self { node: Arc::new(Node { kind, operands }) }
    }

    /// The square.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let out = recording.evaluate(&(&a + Fr::from(1u64)).square())?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [Fr::from(16u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    #[must_use]
    pub fn square(&self) -> Self {
        Self::new(Kind::Mul, &[self, self])
    }

    /// A power, by squarings and multiplications: about 1.5 for each bit of the exponent. The power 0 is 1, of 0 too. For long
    /// exponents [`Recording::pow`] takes fewer and one kernel.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(2u64)])?;
    /// let mut recording = backend.record();
    /// let out = recording.evaluate(&(a.expression().pow(5) - &a))?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [Fr::from(30u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    #[must_use]
    pub fn pow(&self, exponent: u64) -> Self {
        let Some(top) = exponent.checked_ilog2() else { return F::ONE.into() };
        (0..top).rev().fold(self.clone(), |power, bit| {
            let square = power.square();
            if exponent >> bit & 1 == 1 { square * self } else { square }
        })
    }

    /// Where a flag of the mask is set this, elsewhere the other.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;
    /// let b = backend.upload(&[Fr::from(2u64), Fr::from(4u64)])?;
    /// let mut recording = backend.record();
    /// let same = recording.equal(&a, &b)?;
    /// let out = recording.evaluate(&(&a * &b).select(&same, Fr::from(0u64)))?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [Fr::from(4u64), Fr::from(0u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    #[must_use]
    pub fn select(&self, mask: &Mask, otherwise: impl Into<Self>) -> Self {
        Self::new(Kind::Select(mask.clone()), &[self, &otherwise.into()])
    }

    /// Whether it is equal to another, position by position.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let squares = recording.evaluate_mask(&(&a * &a).equals(Fr::from(4u64)))?;
    /// recording.submit()?;
    /// assert_eq!(squares.download()?, [true, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn equals(&self, other: impl Into<Self>) -> Condition<F> {
        Condition { a: self.clone(), b: other.into() }
    }

    /// The sum of expressions times the powers of a challenge, 1 for the first: sum of x^i v_i. As Horner's rule has it, a
    /// multiplication by one element for each but the last.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Expression;
    /// let vectors = [1u64, 2, 3].map(|n| backend.upload(&[Fr::from(n)]).unwrap());
    /// let combined = Expression::linear_combination(vectors.iter().map(Expression::from), Fr::from(10u64));
    /// let mut recording = backend.record();
    /// let out = recording.evaluate(&combined)?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [Fr::from(321u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn linear_combination(
        parts: impl IntoIterator<Item = Self, IntoIter: DoubleEndedIterator>,
        challenge: impl Into<Self>,
    ) -> Self {
        let challenge = challenge.into();
        let sum = parts.into_iter().rev().reduce(|sum, part| sum * &challenge + part);
        sum.unwrap_or_else(|| F::ZERO.into())
    }
}

impl<F: Element> Vector<F> {
    /// The vector as an expression.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let out = recording.evaluate(&(a.expression() + &a))?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [Fr::from(6u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn expression(&self) -> Expression<F> {
        self.into()
    }

    /// The element `by` positions further on, around the end, at each position: of the values of a polynomial Z at the powers of
    /// w, `rotate(1)` are those of Z(w X).
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let z = backend.upload(&[1u64, 2, 4].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let out = recording.evaluate(&(z.rotate(1) - z.rotate(-1)))?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [Fr::from(2u64) - Fr::from(4u64), Fr::from(3u64), Fr::from(1u64) - Fr::from(2u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn rotate(&self, by: isize) -> Expression<F> {
        Expression::new(Kind::Rotated(self.clone(), by), &[])
    }

    /// The one element of this vector at all positions: a challenge or a sum that was computed on the device. Of a vector
    /// that has not one element, an error when it is recorded.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1u64, 2, 4].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let sum = recording.sum(&a)?;
    /// let out = recording.evaluate(&(&a * sum.broadcast()))?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [7u64, 14, 28].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn broadcast(&self) -> Expression<F> {
        Expression::new(Kind::Entry(self.clone()), &[])
    }
}

impl Recording {
    /// Records an expression, into new memory. Its length is that of its vectors; of an expression without any, 1.
    ///
    /// On a device one kernel computes it, in one pass over the operands. An expression of very many operands or multiplications is
    /// cut where one kernel would have more operands than slots, twelve multiplications or 64 terms: what is heaviest is computed before, into
    /// memory of the device that is given back, for what comes later, when its last reader is done. What two kernels need and neither leaves in
    /// memory both compute. An operand is read once, and once more for each number that it is rotated by. Sums of up to six products (in
    /// doubles and digits of 30 bits, of two) share one reduction. The first evaluation of an expression has the driver build its kernel, for
    /// some hundred milliseconds at most; this is kept, also on disk, whatever the scalars and rotations are.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], also of a [broadcast](Vector::broadcast) vector of other than one element; [`Error::ForeignVector`];
    /// [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// let out = recording.evaluate(&(&a * &a + Fr::from(1u64)))?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [Fr::from(5u64), Fr::from(10u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn evaluate<F: Element>(&mut self, expression: &Expression<F>) -> Result<Vector<F>, Error> {
        let out = self.backend.vector(length([expression])?)?;
        self.evaluate_into(expression, &out)?;
        Ok(out)
    }

    /// As [`Recording::evaluate`], into a vector. It may be an operand itself if none is rotated or broadcast.
    ///
    /// # Errors
    /// Those of [`Recording::evaluate`]; [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[Fr::from(2u64), Fr::from(3u64)])?;
    /// let mut recording = backend.record();
    /// recording.evaluate_into(&(&a * &a + Fr::from(1u64)), &a)?;
    /// recording.submit()?;
    /// assert_eq!(a.download()?, [Fr::from(5u64), Fr::from(10u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn evaluate_into<F: Element>(&mut self, expression: &Expression<F>, out: &Vector<F>) -> Result<(), Error> {
        self.check(NAME, out, out.len())?;
        let mut flattened = Flattened::new(&self.backend, out.len(), F::FIELD);
        let root = Root::Elements(flattened.position(&expression.node)?);
        self.fused(flattened, root, (&out.memory, Item::Element(F::FIELD)))
    }

    /// Records at which positions two expressions are equal, into a new mask: as [`Recording::evaluate`], in one kernel.
    ///
    /// # Errors
    /// Those of [`Recording::evaluate`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let (a, b) = (backend.upload(&[2u64, 3].map(Fr::from))?, backend.upload(&[3u64, 3].map(Fr::from))?);
    /// let c = backend.upload(&[6u64, 8].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let holds = recording.evaluate_mask(&(&a * &b).equals(&c))?;
    /// recording.submit()?;
    /// assert_eq!(holds.download()?, [true, false]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn evaluate_mask<F: Element>(&mut self, condition: &Condition<F>) -> Result<Mask, Error> {
        let mask = self.backend.mask(length([&condition.a, &condition.b])?)?;
        self.evaluate_mask_into(condition, &mask)?;
        Ok(mask)
    }

    /// As [`Recording::evaluate_mask`], into a mask, which must not be part of the condition.
    ///
    /// # Errors
    /// Those of [`Recording::evaluate`]; [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let (a, mask) = (backend.upload(&[2u64, 3].map(Fr::from))?, backend.falses(2)?);
    /// let mut recording = backend.record();
    /// recording.evaluate_mask_into(&a.expression().equals(Fr::from(3u64)), &mask)?;
    /// recording.submit()?;
    /// assert_eq!(mask.download()?, [false, true]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn evaluate_mask_into<F: Element>(&mut self, condition: &Condition<F>, mask: &Mask) -> Result<(), Error> {
        self.check_mask(NAME, mask, mask.len())?;
        let mut flattened = Flattened::new(&self.backend, mask.len(), F::FIELD);
        let root = Root::Equal(flattened.position(&condition.a.node)?, flattened.position(&condition.b.node)?);
        self.fused(flattened, root, (&mask.memory, Item::Flag))
    }

    fn fused<F: Element>(
        &mut self,
        flattened: Flattened<F>,
        root: Root,
        out: (&crate::memory::Memory, Item),
    ) -> Result<(), Error> {
        let length = flattened.length;
        let (graph, inputs) = flattened.builder.finish(root);
        if length == 0 {
            return Ok(());
        }
        let inputs: Vec<_> = inputs.iter().map(|(memory, item)| (memory, *item)).collect();
        self.task(Arc::new(Fused { graph, length }), &inputs, &[out])
    }
}

/// What messages call it.
const NAME: &str = "evaluate";

/// The length of the first vector in an expression.
fn length<'a, F: Element + 'a>(expressions: impl IntoIterator<Item = &'a Expression<F>>) -> Result<usize, Error> {
    let mut waiting: Vec<&Arc<Node<F>>> = expressions.into_iter().map(|expression| &expression.node).collect();
    let mut seen = std::collections::HashSet::new();
    while let Some(node) = waiting.pop() {
        match &node.kind {
            Kind::Vector(vector) | Kind::Rotated(vector, _) => return Ok(vector.len()),
            Kind::Select(mask) => return Ok(mask.len()),
            _ => waiting.extend(node.operands.iter().filter(|operand| seen.insert(Arc::as_ptr(operand)))),
        }
    }
    Ok(1)
}

/// An expression on its way to plain data.
struct Flattened<F: Element> {
    backend: Backend,
    length: usize,
    builder: Builder,
    /// Positions of nodes that have been flattened.
    known: HashMap<*const Node<F>, usize>,
}

impl<F: Element> Flattened<F> {
    fn new(backend: &Backend, length: usize, field: crate::Field) -> Self {
        Self { backend: backend.clone(), length, builder: Builder::new(field), known: few() }
    }

    /// The position of a node. Not by recursion, as in `drop`.
    fn position(&mut self, root: &Arc<Node<F>>) -> Result<usize, Error> {
        let mut waiting = Vec::with_capacity(FEW);
        waiting.push(root);
        while let Some(&node) = waiting.last() {
            let missing = node.operands.iter().filter(|operand| !self.known.contains_key(&Arc::as_ptr(operand)));
            let before = waiting.len();
            waiting.extend(missing);
            if waiting.len() == before {
                let position = self.term(node)?;
                self.known.insert(Arc::as_ptr(node), position);
                waiting.pop();
            }
        }
        Ok(self.known[&Arc::as_ptr(root)])
    }

    /// The term of a node whose operands are known.
    fn term(&mut self, node: &Node<F>) -> Result<usize, Error> {
        let element = Item::Element(F::FIELD);
        let operand = |n: usize| self.known[&Arc::as_ptr(&node.operands[n])];
        let term = match &node.kind {
            Kind::Vector(vector) => {
                self.check(&vector.backend, vector.len(), self.length)?;
                Term::Vector(self.builder.input(&vector.memory, element, false))
            }
            Kind::Rotated(vector, by) => {
                self.check(&vector.backend, vector.len(), self.length)?;
                let input = self.builder.input(&vector.memory, element, false);
                match by.rem_euclid(self.length.max(1) as isize) as usize {
                    0 => Term::Vector(input),
                    by => Term::Rotated { input, by },
                }
            }
            Kind::Entry(vector) => {
                self.check(&vector.backend, vector.len(), 1)?;
                Term::Entry(self.builder.input(&vector.memory, element, true))
            }
            Kind::Scalar(scalar) => Term::Scalar(self.builder.scalar(F::limbs(std::slice::from_ref(scalar)))),
            Kind::Add => Term::Add(operand(0), operand(1)),
            Kind::Sub => Term::Sub(operand(0), operand(1)),
            Kind::Neg => Term::Neg(operand(0)),
            Kind::Mul => Term::Mul(operand(0), operand(1)),
            Kind::Select(mask) => {
                let (yes, no) = (operand(0), operand(1));
                self.check(&mask.backend, mask.len(), self.length)?;
                Term::Select { flags: self.builder.input(&mask.memory, Item::Flag, false), yes, no }
            }
        };
        Ok(self.builder.term(term))
    }

    fn check(&self, of: &Backend, other: usize, first: usize) -> Result<(), Error> {
        if !self.backend.is(of) {
            return Err(Error::ForeignVector { operation: NAME });
        }
        if first != other {
            return Err(Error::LengthMismatch { operation: NAME, first, other });
        }
        Ok(())
    }
}

impl<F: Element> Clone for Expression<F> {
    fn clone(&self) -> Self {
        Self { node: self.node.clone() }
    }
}

impl<F: Element> fmt::Debug for Expression<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Expression(..)")
    }
}

impl<F: Element> fmt::Debug for Condition<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Condition(..)")
    }
}

impl<F: Element> From<F> for Expression<F> {
    fn from(scalar: F) -> Self {
        Self::new(Kind::Scalar(scalar), &[])
    }
}

impl<F: Element> From<&Vector<F>> for Expression<F> {
    fn from(vector: &Vector<F>) -> Self {
        Self::new(Kind::Vector(vector.clone()), &[])
    }
}

impl<F: Element> From<&Expression<F>> for Expression<F> {
    fn from(expression: &Expression<F>) -> Self {
        expression.clone()
    }
}

macro_rules! operators {
    ($($trait:ident $method:ident $kind:ident;)+) => {
        $(
            operators!(@for $trait $method $kind Expression<F>);
            operators!(@for $trait $method $kind &Expression<F>);
            operators!(@for $trait $method $kind &Vector<F>);
        )+
    };
    (@for $trait:ident $method:ident $kind:ident $left:ty) => {
        impl<F: Element, T: Into<Expression<F>>> $trait<T> for $left {
            type Output = Expression<F>;

            fn $method(self, other: T) -> Expression<F> {
                Expression::new(Kind::$kind, &[&self.into(), &other.into()])
            }
        }
    };
    (@neg $($operand:ty;)+) => {
        $(
            impl<F: Element> Neg for $operand {
                type Output = Expression<F>;

                fn neg(self) -> Expression<F> {
                    Expression::new(Kind::Neg, &[&self.into()])
                }
            }
        )+
    };
}

operators! {
    Add add Add;
    Sub sub Sub;
    Mul mul Mul;
}
operators! { @neg Expression<F>; &Expression<F>; &Vector<F>; }
