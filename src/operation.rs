//! The table: each operation is one row, with its kernel, its CPU twin (which also checks it) and what it costs.

use crate::Field;
use cpu_reference::Twin;
use field_kernels::Kernel;

/// An element-wise operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Operation {
    /// a + b
    Add,
    /// a - b
    Sub,
    /// -a
    Neg,
    /// 2 a
    Double,
    /// a b
    Mul,
    /// a^2
    Square,
    /// a b + c
    MulAdd,
    /// a + s, one scalar s for the whole vector
    AddScalar,
    /// a - s, one scalar s for the whole vector
    SubScalar,
    /// a s, one scalar s for the whole vector
    Scale,
    /// a^e, one exponent e for the whole vector, of any length
    Pow,
    /// 1 / a; a zero is an error
    Inverse,
    /// 1 / a, and 0 where a is 0
    InverseOrZero,
    /// A square root of a and whether there is one; where there is none, a root of -a. Fq only.
    Sqrt,
    /// a R mod p: from canonical to Montgomery form
    ToMontgomery,
    /// a / R mod p: from Montgomery to canonical form
    FromMontgomery,
    /// Whether a = b, as a mask
    Equal,
}

/// What an operation takes besides its vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parameter {
    /// Nothing.
    None,
    /// One element, in the form the vectors are in.
    Scalar,
    /// An exponent: little-endian limbs, as many as one likes.
    Exponent,
}

/// What an operation gives, one per position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// An element.
    Elements,
    /// A flag.
    Mask,
    /// An element and a flag.
    ElementsAndMask,
}

/// An operation's row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The operation.
    pub operation: Operation,
    /// Its name, as in messages and in the names of functions.
    pub name: &'static str,
    /// How many vectors it takes.
    pub vectors: usize,
    /// What it takes besides.
    pub parameter: Parameter,
    /// What it gives.
    pub output: Output,
    /// Whether its result depends on the form its elements are in. (The sum of two vectors does not; their product does.)
    pub form_matters: bool,
    pub(crate) kernel: Kernel,
    /// What the operation gives its kernel in place of a caller's scalar or exponent.
    pub(crate) fixed: Option<Fixed>,
    pub(crate) twins: Twins,
    /// Multiplications per element, or about.
    pub(crate) cost: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fixed {
    /// The exponent (p + 1) / 4: for p = 3 mod 4 the square of a^((p + 1) / 4) is a or -a.
    Root,
    /// The scalar R^2: a R^2 / R is the Montgomery form of a.
    IntoMontgomery,
    /// The scalar 1: a / R is what a is the Montgomery form of.
    OutOfMontgomery,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Twins {
    fq: Twin,
    fr: Option<Twin>,
}

macro_rules! twins {
    ($name:ident) => {
        Twins { fq: cpu_reference::$name::<ark_bls12_381::Fq>(), fr: Some(cpu_reference::$name::<ark_bls12_381::Fr>()) }
    };
    ($name:ident fq) => {
        Twins { fq: cpu_reference::$name::<ark_bls12_381::Fq>(), fr: None }
    };
}

const fn row(operation: Operation, name: &'static str, vectors: usize, kernel: Kernel, twins: Twins) -> Row {
    Row {
        operation,
        name,
        vectors,
        parameter: Parameter::None,
        output: Output::Elements,
        form_matters: false,
        kernel,
        fixed: None,
        twins,
        cost: 1,
    }
}

impl Row {
    const fn product(self) -> Self {
        Self { form_matters: true, cost: 2, ..self }
    }

    const fn takes(self, parameter: Parameter) -> Self {
        Self { parameter, ..self }
    }

    const fn gives(self, output: Output) -> Self {
        Self { output, ..self }
    }

    /// A power by sliding windows, and what else a bit of the exponent takes: about 1.3 multiplications.
    const fn power(self, fixed: Option<Fixed>) -> Self {
        Self { form_matters: true, fixed, cost: 490, ..self }
    }

    /// Division steps take about as long as so many multiplications.
    const fn inverse(self) -> Self {
        Self { form_matters: true, cost: 40, ..self }
    }

    const fn by(self, fixed: Fixed) -> Self {
        Self { fixed: Some(fixed), ..self }
    }
}

/// Every operation.
pub static TABLE: [Row; 17] = [
    row(Operation::Add, "add", 2, Kernel::Add, twins!(add)),
    row(Operation::Sub, "sub", 2, Kernel::Sub, twins!(sub)),
    row(Operation::Neg, "neg", 1, Kernel::Neg, twins!(neg)),
    row(Operation::Double, "double", 1, Kernel::Double, twins!(double)),
    row(Operation::Mul, "mul", 2, Kernel::Mul, twins!(mul)).product(),
    row(Operation::Square, "square", 1, Kernel::Square, twins!(square)).product(),
    row(Operation::MulAdd, "mul_add", 3, Kernel::MulAdd, twins!(mul_add)).product(),
    row(Operation::AddScalar, "add_scalar", 1, Kernel::Add, twins!(add_scalar)).takes(Parameter::Scalar),
    row(Operation::SubScalar, "sub_scalar", 1, Kernel::Sub, twins!(sub_scalar)).takes(Parameter::Scalar),
    row(Operation::Scale, "scale", 1, Kernel::Mul, twins!(scale)).takes(Parameter::Scalar).product(),
    row(Operation::Pow, "pow", 1, Kernel::Pow, twins!(pow)).takes(Parameter::Exponent).power(None),
    row(Operation::Inverse, "inverse", 1, Kernel::Inverse, twins!(inverse)).inverse(),
    row(Operation::InverseOrZero, "inverse_or_zero", 1, Kernel::Inverse, twins!(inverse)).inverse(),
    row(Operation::Sqrt, "sqrt", 1, Kernel::Sqrt, twins!(sqrt fq)).power(Some(Fixed::Root)).gives(Output::ElementsAndMask),
    row(Operation::ToMontgomery, "to_montgomery", 1, Kernel::Mul, twins!(to_montgomery)).by(Fixed::IntoMontgomery),
    row(Operation::FromMontgomery, "from_montgomery", 1, Kernel::Mul, twins!(from_montgomery)).by(Fixed::OutOfMontgomery),
    row(Operation::Equal, "equal", 2, Kernel::Equal, twins!(equal)).gives(Output::Mask),
];

// `Operation::row` finds a row by its number.
const _: () = {
    let mut i = 0;
    while i < TABLE.len() {
        assert!(TABLE[i].operation as usize == i);
        i += 1;
    }
};

impl Operation {
    /// The operation's row.
    ///
    /// ```
    /// use bls12_field_gpu::Operation;
    /// assert_eq!(Operation::MulAdd.row().vectors, 3);
    /// ```
    pub fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }

    /// The operation's name.
    ///
    /// ```
    /// assert_eq!(bls12_field_gpu::Operation::MulAdd.name(), "mul_add");
    /// ```
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether a result is checked by something cheaper than computing it again.
    pub(crate) fn is_proved(self) -> bool {
        matches!(self, Operation::Inverse | Operation::InverseOrZero | Operation::Sqrt)
    }
}

impl Row {
    /// Whether the operation exists for a field.
    ///
    /// ```
    /// use bls12_field_gpu::{Field, Operation};
    /// assert!(Operation::Sqrt.row().available(Field::Fq) && !Operation::Sqrt.row().available(Field::Fr));
    /// ```
    pub fn available(&self, field: Field) -> bool {
        self.twin(field).is_some()
    }

    pub(crate) fn twin(&self, field: Field) -> Option<Twin> {
        match field {
            Field::Fq => Some(self.twins.fq),
            Field::Fr => self.twins.fr,
        }
    }

    /// Whether the kernel is given more than vectors: the caller's parameter, or a fixed one.
    pub(crate) fn is_given_more(&self) -> bool {
        self.parameter != Parameter::None || self.fixed.is_some()
    }

    /// Whether one element, from the caller or fixed, takes the place of the second vector.
    pub(crate) fn has_scalar(&self) -> bool {
        self.parameter == Parameter::Scalar || matches!(self.fixed, Some(Fixed::IntoMontgomery | Fixed::OutOfMontgomery))
    }

    pub(crate) fn has_elements(&self) -> bool {
        self.output != Output::Mask
    }

    pub(crate) fn has_mask(&self) -> bool {
        self.output != Output::Elements
    }
}
