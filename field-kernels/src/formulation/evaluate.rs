//! Programs as calculations on the CPU, to the bit: the model that stands in where no device can run the GLSL.
//!
//! `f64::mul_add` is the fused operation of IEEE 754, as `fma` is on devices that have been found to fuse it.

use super::program::{Op, Program, Type, Value};

/// A value at run time. Integers are kept as what they stand for; doubles as they are.
#[derive(Clone, Copy)]
enum Scalar {
    Integer(i128),
    Double(f64),
}

impl Type {
    /// `value` as the type holds it: modulo its range.
    fn wrapped(self, value: i128) -> i128 {
        match self {
            Type::I32 => i128::from(value as i32),
            Type::U32 => i128::from(value as u32),
            Type::I64 => i128::from(value as i64),
            Type::U64 => i128::from(value as u64),
            Type::F64 => value,
        }
    }

    /// An integer in this type.
    fn scalar(self, value: i128) -> Scalar {
        match self {
            Type::F64 => {
                let double = value as f64;
                assert_eq!(double as i128, value, "no double is this integer");
                Scalar::Double(double)
            }
            _ => Scalar::Integer(self.wrapped(value)),
        }
    }
}

impl Program {
    /// What the program returns for these arguments (before `fe_reduce_once`, where it calls that). Doubles are passed and
    /// returned as the integers that they are.
    pub(super) fn evaluate(&self, arguments: &[&[i128]]) -> Vec<i128> {
        let mut values: Vec<Scalar> = Vec::with_capacity(self.nodes.len());
        for node in &self.nodes {
            let integer = |x: Value| match values[x.0] {
                Scalar::Integer(value) => value,
                Scalar::Double(_) => unreachable!("the builder checks types"),
            };
            let double = |x: Value| match values[x.0] {
                Scalar::Double(value) => value,
                Scalar::Integer(_) => unreachable!("the builder checks types"),
            };
            let wrapped = |value| Scalar::Integer(node.ty.wrapped(value));
            let value = match (node.op, node.ty) {
                (Op::Input { argument, index }, ty) => ty.scalar(arguments[argument][index]),
                (Op::Constant(value), ty) => ty.scalar(value),
                (Op::OpaqueZero, ty) => ty.scalar(0),
                (Op::Add(x, y), Type::F64) => Scalar::Double(double(x) + double(y)),
                (Op::Sub(x, y), Type::F64) => Scalar::Double(double(x) - double(y)),
                (Op::Mul(x, y), Type::F64) => Scalar::Double(double(x) * double(y)),
                (Op::Fma(x, y, z) | Op::FmaRounded(x, y, z, _), _) => {
                    Scalar::Double(double(x).mul_add(double(y), double(z)))
                }
                (Op::Add(x, y), _) => wrapped(integer(x) + integer(y)),
                (Op::Sub(x, y), _) => wrapped(integer(x) - integer(y)),
                (Op::Mul(x, y), _) => wrapped(integer(x).wrapping_mul(integer(y))),
                (Op::WideAdd(x, y, z), _) => wrapped(integer(x) * integer(y) + z.map_or(0, integer)),
                (Op::Shl(x, by), _) => wrapped(integer(x) << by),
                (Op::Shr(x, by), _) => wrapped(integer(x) >> by),
                (Op::And(x, y), _) => wrapped(integer(x) & integer(y)),
                (Op::Or(x, y), _) => wrapped(integer(x) | integer(y)),
                (Op::Convert(x), ty) => ty.scalar(integer(x)),
                (Op::Bits(x), _) => Scalar::Integer(i128::from(double(x).to_bits())),
                (Op::Biased(x, above), _) => {
                    let above = 0x4330_0000 | above.map_or(0, integer) as u64;
                    Scalar::Double(f64::from_bits(above << 32 | integer(x) as u64))
                }
                (Op::Known { value, low, high }, _) => {
                    let known = match values[value.0] {
                        Scalar::Integer(value) => value,
                        Scalar::Double(value) => value as i128,
                    };
                    assert!((low..=high).contains(&known), "{known} was known to be from {low} to {high}");
                    values[value.0]
                }
            };
            values.push(value);
        }
        let integral = |x: &Value| match values[x.0] {
            Scalar::Integer(value) => value,
            Scalar::Double(value) => value as i128,
        };
        self.outputs.iter().map(integral).collect()
    }
}
