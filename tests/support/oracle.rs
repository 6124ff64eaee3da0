//! What every operation must answer, by big integers: slow, obvious, and sharing nothing with the library, its constants
//! and arkworks.

use bls12_field_gpu::{Field, Form, Operation};
use num_bigint::BigUint;
use std::sync::LazyLock;

/// A field, seen as integers modulo p.
pub(crate) struct Oracle {
    pub(crate) p: BigUint,
    pub(crate) limbs: usize,
    /// R = 2^(64 limbs) mod p.
    pub(crate) r: BigUint,
    r_inverse: BigUint,
}

/// The oracle of a field.
pub(crate) fn oracle(field: Field) -> &'static Oracle {
    const Q: &str = "1a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab";
    const R: &str = "73eda753299d7d483339d80809a1d80553bda402fffe5bfeffffffff00000001";
    static FQ: LazyLock<Oracle> = LazyLock::new(|| Oracle::new(Q, 6));
    static FR: LazyLock<Oracle> = LazyLock::new(|| Oracle::new(R, 4));
    match field {
        Field::Fq => &FQ,
        Field::Fr => &FR,
    }
}

impl Oracle {
    fn new(modulus: &str, limbs: usize) -> Self {
        let p = BigUint::parse_bytes(modulus.as_bytes(), 16).unwrap();
        let r = (BigUint::from(1u32) << (64 * limbs)) % &p;
        let r_inverse = r.modpow(&(&p - 2u32), &p);
        Self { p, limbs, r, r_inverse }
    }

    /// The limbs of an integer below 2^(64 limbs).
    pub(crate) fn limbs_of(&self, integer: &BigUint) -> Vec<u64> {
        let mut limbs = integer.to_u64_digits();
        assert!(limbs.len() <= self.limbs);
        limbs.resize(self.limbs, 0);
        limbs
    }

    /// The value of an element.
    fn value(&self, form: Form, element: &[u64]) -> BigUint {
        match form {
            Form::Canonical => integer(element),
            Form::Montgomery => integer(element) * &self.r_inverse % &self.p,
        }
    }

    /// The element that has a value.
    fn element(&self, form: Form, value: &BigUint) -> Vec<u64> {
        match form {
            Form::Canonical => self.limbs_of(value),
            Form::Montgomery => self.limbs_of(&(value * &self.r % &self.p)),
        }
    }

    /// The answer at one position: the resulting element, the resulting flag.
    fn at(
        &self,
        operation: Operation,
        form: Form,
        inputs: &[&[u64]],
        parameter: &[u64],
    ) -> (Option<Vec<u64>>, Option<bool>) {
        let p = &self.p;
        let operand = |index: usize| self.value(form, inputs[index]);
        let scalar = || self.value(form, parameter);
        let value = match operation {
            Operation::Add => operand(0) + operand(1),
            Operation::Sub => operand(0) + p - operand(1),
            Operation::Neg => p - operand(0),
            Operation::Double => operand(0) * 2u32,
            Operation::Mul => operand(0) * operand(1),
            Operation::Square => operand(0) * operand(0),
            Operation::MulAdd => operand(0) * operand(1) + operand(2),
            Operation::AddScalar => operand(0) + scalar(),
            Operation::SubScalar => operand(0) + p - scalar(),
            Operation::Scale => operand(0) * scalar(),
            Operation::Pow => operand(0).modpow(&integer(parameter), p),
            Operation::Inverse | Operation::InverseOrZero => operand(0).modinv(p).unwrap_or_default(),
            Operation::Sqrt => {
                let root = operand(0).modpow(&((p + 1u32) >> 2), p);
                let has_root = &root * &root % p == operand(0);
                return (Some(self.element(form, &root)), Some(has_root));
            }
            Operation::ToMontgomery => return (Some(self.element(Form::Montgomery, &integer(inputs[0]))), None),
            Operation::FromMontgomery => return (Some(self.limbs_of(&self.value(Form::Montgomery, inputs[0]))), None),
            Operation::Equal => return (None, Some(operand(0) == operand(1))),
            other => panic!("the oracle does not know {other:?}"),
        };
        (Some(self.element(form, &(value % p))), None)
    }

    /// The answer of a whole call: elements and mask, each empty if the operation gives none.
    pub(crate) fn answer(
        &self,
        operation: Operation,
        form: Form,
        vectors: &[&[u64]],
        parameter: &[u64],
    ) -> (Vec<u64>, Vec<bool>) {
        let (mut elements, mut mask) = (Vec::new(), Vec::new());
        for index in 0..vectors[0].len() / self.limbs {
            let inputs: Vec<&[u64]> =
                vectors.iter().map(|vector| &vector[index * self.limbs..(index + 1) * self.limbs]).collect();
            let (element, flag) = self.at(operation, form, &inputs, parameter);
            elements.extend(element.into_iter().flatten());
            mask.extend(flag);
        }
        (elements, mask)
    }
}

/// The integer that limbs stand for.
pub(crate) fn integer(limbs: &[u64]) -> BigUint {
    limbs.iter().rev().fold(BigUint::ZERO, |integer, &limb| (integer << 64) + limb)
}
