//! A call of an operation as data: whether it makes sense, and what engines are given for it.

use crate::operation::{Fixed, Operation, Parameter, Row};
use crate::{Error, Field, Form};
use cpu_reference::{Operands, Positions, Results};
use num_bigint::BigUint;
use rayon::prelude::*;
use std::ops::Range;

/// One application of an operation, as data: the form in which the table of operations is walked.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The operation.
    pub operation: Operation,
    /// The field.
    pub field: Field,
    /// The form of all elements.
    pub form: Form,
    /// The vectors, [`Row::vectors`] of them, as little-endian limbs.
    pub vectors: &'a [&'a [u64]],
    /// The scalar or the exponent; empty if the operation takes neither.
    pub parameter: &'a [u64],
}

const OPERANDS: [&str; 3] = ["a", "b", "c"];

impl Call<'_> {
    /// Whether the call makes sense, values aside; its length in elements.
    pub(crate) fn check_shape(&self) -> Result<usize, Error> {
        let row = self.operation.row();
        let (operation, per_element) = (row.name, self.field.limbs());
        if !row.available(self.field) {
            return Err(Error::NotAvailable { operation, field: self.field });
        }
        if self.vectors.len() != row.vectors {
            return Err(Error::OperandCount { operation, expected: row.vectors, got: self.vectors.len() });
        }
        for vector in self.vectors {
            if !vector.len().is_multiple_of(per_element) {
                return Err(Error::PartialElement { operation, limbs: vector.len(), per_element });
            }
        }
        let first = self.vectors[0].len() / per_element;
        if let Some(other) = self.vectors.iter().map(|vector| vector.len() / per_element).find(|&other| other != first) {
            return Err(Error::LengthMismatch { operation, first, other });
        }
        if row.parameter == Parameter::Scalar && self.parameter.len() != per_element {
            return Err(Error::ScalarLength { operation, limbs: self.parameter.len(), per_element });
        }
        Ok(first)
    }
}

/// The index of the first element with a property, looked for in parallel in long vectors.
fn first_element(vector: &[u64], per_element: usize, property: impl Fn(&[u64]) -> bool + Sync) -> Option<usize> {
    const PIECE: usize = 4096;
    let serial = |piece: &[u64]| piece.chunks_exact(per_element).position(&property);
    if vector.len() <= PIECE * per_element {
        return serial(vector);
    }
    let pieces = vector.par_chunks(PIECE * per_element).enumerate();
    pieces.find_map_first(|(number, piece)| serial(piece).map(|index| number * PIECE + index))
}

/// A call that passed its checks.
pub(crate) struct Prepared<'a> {
    pub(crate) row: &'static Row,
    pub(crate) field: Field,
    pub(crate) form: Form,
    pub(crate) length: usize,
    pub(crate) vectors: [&'a [u64]; 3],
    /// The scalar, or the exponent, of no more limbs than an element has.
    parameter: Vec<u64>,
    /// The same in words, as the kernel takes it.
    pub(crate) words: Vec<u32>,
    pub(crate) twin: cpu_reference::Twin,
}

impl<'a> Prepared<'a> {
    pub(crate) fn new(call: &Call<'a>) -> Result<Self, Error> {
        let row = call.operation.row();
        let not_available = || Error::NotAvailable { operation: row.name, field: call.field };
        let twin = row.twin(call.field).ok_or_else(not_available)?;
        let vector = |index: usize| call.vectors.get(index).copied().unwrap_or(&[]);
        let parameter = match row.fixed {
            Some(fixed) => fixed.of(call.field),
            None => call.parameter.to_vec(),
        };
        let parameter =
            if row.parameter == Parameter::Exponent { reduced_exponent(&parameter, call.field) } else { parameter };
        Ok(Self {
            row,
            field: call.field,
            form: call.form,
            length: vector(0).len() / call.field.limbs(),
            vectors: [vector(0), vector(1), vector(2)],
            words: parameter.iter().flat_map(|&limb| [limb as u32, (limb >> 32) as u32]).collect(),
            twin,
            parameter,
        })
    }

    /// The same on a range of positions.
    pub(crate) fn part(&self, range: &Range<usize>) -> Part<'_> {
        let limbs = self.field.limbs();
        let vectors = self.vectors.map(|vector| vector.get(range.start * limbs..range.end * limbs).unwrap_or(&[]));
        let operands = Operands { vectors, ..self.operands() };
        Part { row: self.row, field: self.field, start: range.start, operands, twin: self.twin }
    }

    /// The lowest of the positions at which an answer is wrong.
    pub(crate) fn first_wrong(&self, elements: &[u64], flags: &[u32], positions: Positions) -> Option<usize> {
        self.part(&(0..self.length)).first_wrong(elements, flags, positions)
    }

    /// Bits of the exponent, if there is one.
    pub(crate) fn exponent_bits(&self) -> u64 {
        let top = self.parameter.iter().rposition(|&limb| limb != 0);
        top.map_or(0, |top| 64 * top as u64 + u64::from(64 - self.parameter[top].leading_zeros()))
    }

    pub(crate) fn operands(&self) -> Operands<'_> {
        Operands { vectors: self.vectors, parameter: &self.parameter, form: self.form }
    }
}

/// Whether the scalar, if the operation takes one, is below the modulus.
pub(crate) fn check_scalar(row: &Row, field: Field, parameter: &[u64]) -> Result<(), Error> {
    if row.parameter == Parameter::Scalar && !field.is_canonical(parameter) {
        return Err(Error::NotBelowModulus { operation: row.name, field, operand: "scalar", index: 0 });
    }
    Ok(())
}

/// A call on a range of its positions.
pub(crate) struct Part<'a> {
    row: &'static Row,
    field: Field,
    start: usize,
    operands: Operands<'a>,
    twin: cpu_reference::Twin,
}

impl Part<'_> {
    /// Whether every element is below the modulus and, where it must not be, none is zero.
    pub(crate) fn check_values(&self) -> Result<(), Error> {
        let (row, field, per_element) = (self.row, self.field, self.field.limbs());
        let not_below = |operand, index| Error::NotBelowModulus { operation: row.name, field, operand, index };
        for (operand, vector) in OPERANDS.into_iter().zip(self.operands.vectors) {
            if let Some(index) = first_element(vector, per_element, |element| !field.is_canonical(element)) {
                return Err(not_below(operand, self.start + index));
            }
        }
        check_scalar(row, field, self.operands.parameter)?;
        if row.operation == Operation::Inverse {
            let zero = |element: &[u64]| element.iter().all(|&limb| limb == 0);
            if let Some(index) = first_element(self.operands.vectors[0], per_element, zero) {
                return Err(Error::ZeroInverse { index: self.start + index });
            }
        }
        Ok(())
    }

    pub(crate) fn vectors(&self) -> &[&[u64]; 3] {
        &self.operands.vectors
    }

    /// Computes it on the calling thread alone.
    pub(crate) fn compute_alone(&self, results: &mut Results) {
        (self.twin.compute_alone)(&self.operands, results);
    }

    /// As [`Prepared::first_wrong`], positions counted from the range's beginning.
    pub(crate) fn first_wrong(&self, elements: &[u64], flags: &[u32], positions: Positions) -> Option<usize> {
        (self.twin.first_wrong)(&self.operands, elements, flags, positions)
    }
}

impl Fixed {
    fn of(self, field: Field) -> Vec<u64> {
        let p = integer(field.modulus());
        match self {
            Fixed::Root => BigUint::to_u64_digits(&((p + 1u32) >> 2)),
            Fixed::IntoMontgomery => field.r2().to_vec(),
            Fixed::OutOfMontgomery => (0..field.limbs()).map(|limb| u64::from(limb == 0)).collect(),
        }
    }
}

fn integer(limbs: &[u64]) -> BigUint {
    BigUint::from_slice(&limbs.iter().flat_map(|&limb| [limb as u32, (limb >> 32) as u32]).collect::<Vec<_>>())
}

/// An exponent of as many limbs as an element that gives the same powers: a^(p - 1) = 1 for a != 0. A multiple of p - 1 other
/// than 0 becomes p - 1, not 0, because 0^0 = 1.
fn reduced_exponent(exponent: &[u64], field: Field) -> Vec<u64> {
    if exponent.len() <= field.limbs() {
        return exponent.to_vec();
    }
    let (exponent, order) = (integer(exponent), integer(field.modulus()) - 1u32);
    let reduced = &exponent % &order;
    let zero = BigUint::ZERO;
    if reduced == zero && exponent != zero { order } else { reduced }.to_u64_digits()
}
