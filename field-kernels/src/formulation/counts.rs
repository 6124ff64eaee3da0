//! Programs as counts of instructions: what a roofline is drawn from.

use super::program::{Op, Program, Type};

/// How many operations a routine has of each kind. What a compiler makes of them may differ by what it merges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// 32x32-bit products of 64 bits, with or without a 64-bit addend.
    pub wide: usize,
    /// Double additions, multiplications and fused multiply-adds.
    pub double: usize,
    /// 32-bit products of 32 bits.
    pub multiply: usize,
    /// 64-bit additions and subtractions: two instructions each.
    pub add64: usize,
    /// 64-bit shifts: two instructions each. (Those by 32 only choose a register and are not counted.)
    pub shift64: usize,
    /// 32-bit additions, shifts and logic.
    pub simple: usize,
    /// Conversions of integers to doubles.
    pub convert: usize,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            wide: self.wide + other.wide,
            double: self.double + other.double,
            multiply: self.multiply + other.multiply,
            add64: self.add64 + other.add64,
            shift64: self.shift64 + other.shift64,
            simple: self.simple + other.simple,
            convert: self.convert + other.convert,
        }
    }
}

impl Counts {
    /// Instructions in all.
    pub const fn total(&self) -> usize {
        self.wide + self.double + self.multiply + 2 * (self.add64 + self.shift64) + self.simple + self.convert
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kinds = [
            (self.wide, "wide products"),
            (self.double, "double operations"),
            (self.multiply, "32-bit products"),
            (self.add64, "64-bit additions"),
            (self.shift64, "64-bit shifts"),
            (self.simple, "simple operations"),
            (self.convert, "conversions"),
        ];
        for (count, kind) in kinds.into_iter().filter(|&(count, _)| count > 0) {
            write!(f, "{count} {kind}, ")?;
        }
        write!(f, "{} instructions in all", self.total())
    }
}

impl Program {
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for node in &self.nodes {
            let ty = |x: super::program::Value| self.nodes[x.0].ty;
            let wide = matches!(node.ty, Type::I64 | Type::U64);
            // Compilers make shifts of products by powers of two: what is left is a shifted addition.
            let shifts =
                |x: super::program::Value| matches!(self.nodes[x.0].op, Op::Constant(c) if c > 0 && c & (c - 1) == 0);
            let kind = match node.op {
                Op::WideAdd(a, b, _) if shifts(a) || shifts(b) => &mut counts.add64,
                Op::WideAdd(..) => &mut counts.wide,
                Op::Fma(..) | Op::FmaRounded(..) => &mut counts.double,
                Op::Add(..) | Op::Sub(..) | Op::Mul(..) if node.ty == Type::F64 => &mut counts.double,
                Op::Add(..) | Op::Sub(..) if wide => &mut counts.add64,
                // The low half of one: two products for its high word.
                Op::Mul(..) if wide => {
                    counts.multiply += 2;
                    &mut counts.wide
                }
                Op::Mul(..) => &mut counts.multiply,
                Op::Shl(_, 32) | Op::Shr(_, 32) if wide => continue,
                Op::Shl(..) | Op::Shr(..) if wide => &mut counts.shift64,
                Op::Add(..) | Op::Sub(..) | Op::Shl(..) | Op::Shr(..) | Op::And(..) | Op::Or(..) => &mut counts.simple,
                Op::Convert(_) if node.ty == Type::F64 => &mut counts.convert,
                // The sign has to be spread over the high word.
                Op::Convert(x) if wide && ty(x) == Type::I32 => &mut counts.simple,
                // A view of registers that are there.
                Op::Convert(_) | Op::Bits(_) | Op::Biased(_, None) | Op::Known { .. } => continue,
                Op::Biased(_, Some(_)) => &mut counts.simple,
                Op::Input { .. } | Op::Constant(_) | Op::OpaqueZero => continue,
            };
            *kind += 1;
        }
        counts
    }
}
