//! Straight-line programs: what a formulation is written in.
//!
//! A [`Program`] is a list of values in static single assignment form: each is made once, by one operation on earlier ones.
//! It has no branches, no loops and no memory; the loops are those of the Rust code that builds it. One such description is
//! then read in several ways: as GLSL (`text`), as counts of instructions (`counts`), and, by the tests, as a calculation on the
//! CPU (`evaluate`) and as bounds that hold for all inputs (`bounds`).
//!
//! Signed integers are meant exactly: that none overflows is for the bounds to prove. Unsigned ones are meant modulo 2^32 or
//! 2^64. Doubles hold integers, and every operation on them is meant to be exact.

use std::collections::HashMap;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Type {
    I32,
    U32,
    I64,
    U64,
    F64,
}

/// A value of the program that the builder is building.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Value(pub(super) usize);

/// How a value is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Element `index` of argument `argument`.
    Input {
        argument: usize,
        index: usize,
    },
    /// A constant; of doubles, too, an integer.
    Constant(i128),
    /// Zero, as an `I32`, in a way that compilers do not see through (see [`Builder::opaque_zero`]).
    OpaqueZero,
    Add(Value, Value),
    Sub(Value, Value),
    /// The low half of the product of integers, or the product of doubles.
    Mul(Value, Value),
    /// x y + z, all 64 bits of a product of 32-bit integers, both signed or neither. Signed ones may be added to an unsigned z, if the sum
    /// is not negative either.
    WideAdd(Value, Value, Option<Value>),
    /// x y + z, exactly.
    Fma(Value, Value, Value),
    /// x y + z, rounded to the nearest multiple of 2^unit: of which size the result is makes the unit what it is.
    FmaRounded(Value, Value, Value, u32),
    Shl(Value, u32),
    /// Arithmetic for signed values, logical for unsigned ones.
    Shr(Value, u32),
    And(Value, Value),
    Or(Value, Value),
    /// The same integer in another type: the value, or as much of it as the type holds.
    Convert(Value),
    /// The bits of a double, as `U64`.
    Bits(Value),
    /// 2^52 + x as a double, from a `U32`: its bits are the word 0x43300000 above x. With a second `U32` y below 2^20, 2^52 + x +
    /// 2^32 y.
    Biased(Value, Option<Value>),
    /// The same value, of which is known, by something that bounds of digits cannot show, that it is from `low` up to `high`.
    Known {
        value: Value,
        low: i128,
        high: i128,
    },
}

/// What a program takes or returns: `struct NAME { T MEMBER[len]; }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Struct {
    pub(super) name: &'static str,
    pub(super) member: &'static str,
    pub(super) element: Type,
    pub(super) len: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) op: Op,
    pub(super) ty: Type,
    /// The variable that holds the value. Several values may share one, one after the other.
    pub(super) name: Option<String>,
    /// A comment to stand above it.
    pub(super) note: Option<String>,
}

/// A function without branches.
#[derive(Clone, Debug)]
pub(super) struct Program {
    pub(super) name: &'static str,
    /// What it computes, by which algorithm, and within which bounds.
    pub(super) prose: String,
    pub(super) arguments: Vec<(&'static str, Struct)>,
    pub(super) nodes: Vec<Node>,
    pub(super) result: Struct,
    pub(super) outputs: Vec<Value>,
    /// The outputs are the words of a value below 2p, which `fe_reduce_once` makes canonical.
    pub(super) reduce_once: bool,
}

impl Op {
    /// The values it is made of.
    pub(super) fn operands(self) -> impl Iterator<Item = Value> {
        let operands = match self {
            Op::Input { .. } | Op::Constant(_) | Op::OpaqueZero => [None, None, None],
            Op::Add(x, y) | Op::Sub(x, y) | Op::Mul(x, y) | Op::And(x, y) | Op::Or(x, y) => [Some(x), Some(y), None],
            Op::WideAdd(x, y, z) => [Some(x), Some(y), z],
            Op::Fma(x, y, z) | Op::FmaRounded(x, y, z, _) => [Some(x), Some(y), Some(z)],
            Op::Biased(x, y) => [Some(x), y, None],
            Op::Known { value, .. } => [Some(value), None, None],
            Op::Shl(x, _) | Op::Shr(x, _) | Op::Convert(x) | Op::Bits(x) => [Some(x), None, None],
        };
        operands.into_iter().flatten()
    }
}

/// Builds a [`Program`], operation by operation; operands of the wrong type are a mistake in the caller and panic.
#[derive(Debug)]
pub(super) struct Builder {
    name: &'static str,
    prose: String,
    arguments: Vec<(&'static str, Struct)>,
    nodes: Vec<Node>,
    constants: HashMap<(Type, i128), Value>,
    note: Option<String>,
}

impl Builder {
    pub(super) fn new(name: &'static str, prose: impl Into<String>) -> Self {
        Self { name, prose: prose.into(), arguments: Vec::new(), nodes: Vec::new(), constants: HashMap::new(), note: None }
    }

    fn push(&mut self, op: Op, ty: Type) -> Value {
        self.nodes.push(Node { op, ty, name: None, note: None });
        Value(self.nodes.len() - 1)
    }

    pub(super) fn ty(&self, x: Value) -> Type {
        self.nodes[x.0].ty
    }

    fn same_type(&self, x: Value, y: Value) -> Type {
        assert_eq!(self.ty(x), self.ty(y), "operands of different types");
        self.ty(x)
    }

    /// One more argument: its elements.
    pub(super) fn argument(&mut self, name: &'static str, of: Struct) -> Vec<Value> {
        let argument = self.arguments.len();
        self.arguments.push((name, of));
        (0..of.len).map(|index| self.push(Op::Input { argument, index }, of.element)).collect()
    }

    /// Puts the value into a variable, unless it is in one. If the variable held another value before, that is not to be used
    /// any more.
    pub(super) fn named(&mut self, x: Value, name: impl Into<String>) -> Value {
        let node = &mut self.nodes[x.0];
        if node.name.is_none() {
            node.name = Some(name.into());
            node.note = self.note.take();
        }
        x
    }

    /// A comment above the next value that gets a name.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        self.note = Some(text.into());
    }

    pub(super) fn constant(&mut self, ty: Type, value: impl Into<i128>) -> Value {
        let value = value.into();
        if let Some(&known) = self.constants.get(&(ty, value)) {
            return known;
        }
        let made = self.push(Op::Constant(value), ty);
        self.constants.insert((ty, value), made);
        made
    }

    /// A zero that the including shader defines as `OPAQUE_ZERO`, from something the compiler cannot know.
    ///
    /// Some compilers compute x - y on the multiplication pipe, as x + y * -1, where there are few other additions in
    /// sight. x - y + 0 is one addition of three terms to them, which that pipe cannot do.
    pub(super) fn opaque_zero(&mut self) -> Value {
        self.push(Op::OpaqueZero, Type::I32)
    }

    pub(super) fn add(&mut self, x: Value, y: Value) -> Value {
        let ty = self.same_type(x, y);
        self.push(Op::Add(x, y), ty)
    }

    pub(super) fn sub(&mut self, x: Value, y: Value) -> Value {
        let ty = self.same_type(x, y);
        self.push(Op::Sub(x, y), ty)
    }

    pub(super) fn mul(&mut self, x: Value, y: Value) -> Value {
        let ty = self.same_type(x, y);
        self.push(Op::Mul(x, y), ty)
    }

    pub(super) fn add_constant(&mut self, x: Value, y: impl Into<i128>) -> Value {
        let y = self.constant(self.ty(x), y);
        self.add(x, y)
    }

    /// All 64 bits of x y, plus `addend` where there is one.
    pub(super) fn wide_add(&mut self, x: Value, y: Value, addend: Option<Value>) -> Value {
        let ty = match self.same_type(x, y) {
            Type::I32 => Type::I64,
            Type::U32 => Type::U64,
            other => unreachable!("no wide product of {other:?}"),
        };
        let ty = addend.map_or(ty, |z| self.ty(z));
        assert!(ty == Type::U64 || ty == Type::I64 && self.ty(x) == Type::I32, "no sum of {ty:?}");
        self.push(Op::WideAdd(x, y, addend), ty)
    }

    pub(super) fn fma(&mut self, x: Value, y: Value, addend: Value) -> Value {
        assert!([x, y, addend].iter().all(|&v| self.ty(v) == Type::F64));
        self.push(Op::Fma(x, y, addend), Type::F64)
    }

    pub(super) fn shl(&mut self, x: Value, by: u32) -> Value {
        self.push(Op::Shl(x, by), self.ty(x))
    }

    pub(super) fn shr(&mut self, x: Value, by: u32) -> Value {
        self.push(Op::Shr(x, by), self.ty(x))
    }

    pub(super) fn and(&mut self, x: Value, y: Value) -> Value {
        let ty = self.same_type(x, y);
        self.push(Op::And(x, y), ty)
    }

    pub(super) fn mask(&mut self, x: Value, bits: u32) -> Value {
        let mask = self.constant(self.ty(x), (1i128 << bits) - 1);
        self.and(x, mask)
    }

    pub(super) fn or(&mut self, x: Value, y: Value) -> Value {
        let ty = self.same_type(x, y);
        self.push(Op::Or(x, y), ty)
    }

    pub(super) fn convert(&mut self, x: Value, to: Type) -> Value {
        assert!(self.ty(x) != Type::F64 && (to != Type::F64 || self.ty(x) == Type::I32), "no such conversion");
        self.push(Op::Convert(x), to)
    }

    pub(super) fn bits(&mut self, x: Value) -> Value {
        assert_eq!(self.ty(x), Type::F64);
        self.push(Op::Bits(x), Type::U64)
    }

    pub(super) fn biased(&mut self, x: Value, above: Option<Value>) -> Value {
        assert!([Some(x), above].into_iter().flatten().all(|word| self.ty(word) == Type::U32));
        self.push(Op::Biased(x, above), Type::F64)
    }

    pub(super) fn fma_rounded(&mut self, x: Value, y: Value, addend: Value, unit: u32) -> Value {
        assert!([x, y, addend].iter().all(|&v| self.ty(v) == Type::F64));
        self.push(Op::FmaRounded(x, y, addend, unit), Type::F64)
    }

    pub(super) fn known(&mut self, value: Value, low: i128, high: i128) -> Value {
        self.push(Op::Known { value, low, high }, self.ty(value))
    }

    pub(super) fn finish(self, result: Struct, outputs: Vec<Value>) -> Program {
        assert_eq!(result.len, outputs.len());
        assert!(outputs.iter().all(|&x| self.ty(x) == result.element));
        let Self { name, prose, arguments, nodes, .. } = self;
        Program { name, prose, arguments, nodes, result, outputs, reduce_once: false }
    }
}

impl Program {
    /// How often each value is used.
    pub(super) fn uses(&self) -> Vec<usize> {
        let mut uses = vec![0; self.nodes.len()];
        for node in &self.nodes {
            node.op.operands().for_each(|x| uses[x.0] += 1);
        }
        self.outputs.iter().for_each(|x| uses[x.0] += 1);
        uses
    }
}
