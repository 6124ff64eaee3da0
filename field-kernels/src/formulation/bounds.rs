//! Bounds that hold for all inputs within given ranges: that no signed integer overflows where it is looked at, that every
//! factor of a wide product fits 32 bits, that every operation on doubles is exact.
//!
//! Plain intervals lose too much: Karatsuba's x0 y0 + x1 y1 + (x0 - x1)(y1 - y0) is x0 y1 + x1 y0, two products and not
//! six. So each value is a polynomial, of degree two at most, over atoms: the inputs, and whatever came out of an operation
//! that is not one of the ring of integers, such as a shift to the right or a mask, with an interval for each. Sums and
//! products of polynomials cancel as they should; only at the end is a polynomial bounded, monomial by monomial.
//!
//! A sum of 64-bit integers may leave the type's range on the way, since what follows may bring it back and addition modulo
//! 2^64 does not mind. So polynomials stand for integers without a modulus. It is where the value is looked at (shifted to the
//! right, masked, converted to a wider type or a double, multiplied into a wide product) that signed ones must fit, and that
//! unsigned ones are taken modulo their range.

use super::program::{Op, Program, Type, Value};
use std::collections::BTreeMap;

/// All integers from `low` to `high`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interval {
    pub(super) low: i128,
    pub(super) high: i128,
}

/// An atom's number; 0 is the constant 1.
type Atom = usize;

/// A sum of products of two atoms with coefficients, none of them zero.
#[derive(Clone, Debug, Default)]
struct Polynomial(BTreeMap<(Atom, Atom), i128>);

/// What is known of a program.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    /// Of each output.
    pub(super) outputs: Vec<Interval>,
    /// The largest magnitude of a signed 64-bit integer that is looked at.
    pub(super) column: i128,
    /// The largest magnitude of a double.
    pub(super) double: i128,
}

impl Interval {
    pub(super) const fn new(low: i128, high: i128) -> Self {
        assert!(low <= high);
        Self { low, high }
    }

    pub(super) const fn within(self, outer: Interval) -> bool {
        outer.low <= self.low && self.high <= outer.high
    }

    fn magnitude(self) -> i128 {
        self.high.max(-self.low)
    }

    fn product(self, other: Interval) -> Interval {
        let corners = [self.low, self.high].into_iter().flat_map(|x| [x * other.low, x * other.high]);
        let (low, high) = corners.fold((i128::MAX, i128::MIN), |(low, high), x| (low.min(x), high.max(x)));
        Interval { low, high }
    }

    fn square(self) -> Interval {
        let low = if self.low <= 0 && 0 <= self.high { 0 } else { self.low.abs().min(self.high.abs()) };
        Interval { low: low * low, high: self.magnitude() * self.magnitude() }
    }
}

impl Type {
    fn range(self) -> Interval {
        match self {
            Type::I32 => Interval::new(i32::MIN.into(), i32::MAX.into()),
            Type::U32 => Interval::new(0, u32::MAX.into()),
            Type::I64 => Interval::new(i64::MIN.into(), i64::MAX.into()),
            Type::U64 => Interval::new(0, u64::MAX.into()),
            Type::F64 => Type::doubles(0),
        }
    }
}

impl Type {
    /// Where every multiple of 2^unit is a double.
    fn doubles(unit: u32) -> Interval {
        Interval::new(-(1 << (53 + unit)), 1 << (53 + unit))
    }
}

impl Polynomial {
    fn constant(value: i128) -> Self {
        let mut polynomial = Self::default();
        polynomial.add_term((0, 0), value);
        polynomial
    }

    fn atom(atom: Atom) -> Self {
        Self(BTreeMap::from([((0, atom), 1)]))
    }

    fn add_term(&mut self, monomial: (Atom, Atom), coefficient: i128) {
        let sum = self.0.entry(monomial).or_insert(0);
        *sum += coefficient;
        if *sum == 0 {
            self.0.remove(&monomial);
        }
    }

    fn plus(mut self, other: &Self, times: i128) -> Self {
        other.0.iter().for_each(|(&monomial, coefficient)| self.add_term(monomial, coefficient * times));
        self
    }

    fn is_linear(&self) -> bool {
        self.0.keys().all(|&(first, _)| first == 0)
    }

    fn as_constant(&self) -> Option<i128> {
        match self.0.len() {
            0 => Some(0),
            1 => self.0.get(&(0, 0)).copied(),
            _ => None,
        }
    }

    /// The product, unless it has a degree above two.
    fn times(&self, other: &Self) -> Option<Self> {
        let mut product = Self::default();
        if let Some(factor) = self.as_constant() {
            return Some(product.plus(other, factor));
        }
        if let Some(factor) = other.as_constant() {
            return Some(product.plus(self, factor));
        }
        if !(self.is_linear() && other.is_linear()) {
            return None;
        }
        for (&(_, x), a) in &self.0 {
            for (&(_, y), b) in &other.0 {
                product.add_term((x.min(y), x.max(y)), a * b);
            }
        }
        Some(product)
    }
}

/// The state of the analysis: a polynomial per value so far, an interval per atom.
struct Analysis<'a> {
    program: &'a Program,
    wraps: bool,
    values: Vec<Polynomial>,
    /// Of each double, the power of two of which it is a multiple.
    units: Vec<u32>,
    atoms: Vec<Interval>,
    column: i128,
    double: i128,
}

impl Program {
    /// What follows from these ranges of the arguments' elements; the first thing that may go wrong, if there is one.
    /// Unsigned integers may be shifted that are meant modulo 2^64 only if `wraps`.
    pub(super) fn bounds(&self, arguments: &[&[Interval]], wraps: bool) -> Result<Bounds, String> {
        let atoms = vec![Interval::new(1, 1)];
        let mut analysis =
            Analysis { program: self, wraps, values: Vec::new(), units: Vec::new(), atoms, column: 0, double: 0 };
        for index in 0..self.nodes.len() {
            let made = analysis.made(index, arguments).map_err(|what| {
                let name = self.nodes[index].name.as_deref().unwrap_or("unnamed");
                format!("{}, value {index} ({name}): {what}", self.name)
            })?;
            analysis.values.push(made);
        }
        let mut outputs = Vec::new();
        for &output in &self.outputs {
            let (_, interval) = analysis.looked_at(output)?;
            outputs.push(interval);
        }
        Ok(Bounds { outputs, column: analysis.column, double: analysis.double })
    }
}

impl Analysis<'_> {
    fn interval(&self, polynomial: &Polynomial) -> Interval {
        let mut sum = Interval::new(0, 0);
        for (&(first, second), &coefficient) in &polynomial.0 {
            let (x, y) = (self.atoms[first], self.atoms[second]);
            let monomial = if first == second { x.square() } else { x.product(y) };
            let term = monomial.product(Interval::new(coefficient, coefficient));
            sum = Interval { low: sum.low + term.low, high: sum.high + term.high };
        }
        sum
    }

    fn new_atom(&mut self, interval: Interval) -> Polynomial {
        if interval.low == interval.high {
            return Polynomial::constant(interval.low);
        }
        self.atoms.push(interval);
        Polynomial::atom(self.atoms.len() - 1)
    }

    /// An integer in a type that takes it modulo its range: the same one up to a multiple of 2^bits if the multiple is
    /// always the same, and any that the type holds otherwise.
    fn modulo(&mut self, polynomial: &Polynomial, ty: Type) -> (Polynomial, Interval) {
        let range = ty.range();
        let modulus = range.high - range.low + 1;
        let Interval { low, high } = self.interval(polynomial);
        let quotient = (low - range.low).div_euclid(modulus);
        if quotient != (high - range.low).div_euclid(modulus) {
            return (self.new_atom(range), range);
        }
        let by = -quotient * modulus;
        (polynomial.clone().plus(&Polynomial::constant(1), by), Interval::new(low + by, high + by))
    }

    /// A value as its type holds it.
    fn looked_at(&mut self, x: Value) -> Result<(Polynomial, Interval), String> {
        let ty = self.program.nodes[x.0].ty;
        let polynomial = self.values[x.0].clone();
        match ty {
            Type::U32 | Type::U64 => Ok(self.modulo(&polynomial, ty)),
            Type::I32 | Type::I64 => {
                let interval = self.fitting(&polynomial, ty)?;
                Ok((polynomial, interval))
            }
            // That it fits was seen when it was made.
            Type::F64 => {
                let interval = self.interval(&polynomial);
                Ok((polynomial, interval))
            }
        }
    }

    fn fitting(&mut self, polynomial: &Polynomial, ty: Type) -> Result<Interval, String> {
        let interval = self.interval(polynomial);
        if !interval.within(ty.range()) {
            let log = (interval.magnitude() as f64).log2();
            return Err(format!("a magnitude up to 2^{log:.3} does not fit {ty:?}"));
        }
        if ty == Type::I64 {
            self.column = self.column.max(interval.magnitude());
        }
        Ok(interval)
    }

    /// Of which power of two a double is a multiple.
    fn unit(&self, op: Op) -> u32 {
        let unit = |x: Value| self.units[x.0];
        match op {
            Op::Constant(0) => 64,
            Op::Constant(value) => value.trailing_zeros().min(64),
            Op::Add(x, y) | Op::Sub(x, y) => unit(x).min(unit(y)),
            Op::Mul(x, y) => unit(x) + unit(y),
            Op::Fma(x, y, z) => unit(z).min(unit(x) + unit(y)),
            Op::FmaRounded(_, _, _, unit) => unit,
            Op::Known { value: x, .. } => unit(x),
            _ => 0,
        }
    }

    /// A new double, which is a multiple of 2^unit, is one exactly.
    fn exact(&mut self, polynomial: &Polynomial, unit: u32) -> Result<(), String> {
        let interval = self.interval(polynomial);
        if !interval.within(Type::doubles(unit)) {
            let log = (interval.magnitude() as f64).log2();
            return Err(format!("a magnitude up to 2^{log:.3} of multiples of 2^{unit} is rounded"));
        }
        self.double = self.double.max(interval.magnitude() >> unit);
        Ok(())
    }

    /// The polynomial of the next value.
    fn made(&mut self, index: usize, arguments: &[&[Interval]]) -> Result<Polynomial, String> {
        let node = &self.program.nodes[index];
        let made = match node.op {
            Op::Input { argument, index } => self.new_atom(arguments[argument][index]),
            Op::Constant(value) => Polynomial::constant(value),
            Op::OpaqueZero => Polynomial::constant(0),
            Op::Add(x, y) => self.values[x.0].clone().plus(&self.values[y.0], 1),
            Op::Sub(x, y) => self.values[x.0].clone().plus(&self.values[y.0], -1),
            Op::Mul(x, y) => {
                let (x, y) = (self.values[x.0].clone(), self.values[y.0].clone());
                self.product(&x, &y)
            }
            Op::WideAdd(x, y, z) => {
                let ((x, _), (y, _)) = (self.looked_at(x)?, self.looked_at(y)?);
                let product = self.product(&x, &y);
                z.map_or(product.clone(), |z| product.plus(&self.values[z.0], 1))
            }
            Op::Fma(x, y, z) => {
                let (x, y) = (self.values[x.0].clone(), self.values[y.0].clone());
                self.product(&x, &y).plus(&self.values[z.0], 1)
            }
            Op::Shl(x, by) => Polynomial::default().plus(&self.values[x.0], 1 << by),
            Op::Shr(x, by) => {
                // Modulo 2^64 it would be anything.
                if !self.wraps && node.ty == Type::U64 && !self.interval(&self.values[x.0]).within(Type::U64.range()) {
                    return Err("what is shifted does not fit U64".into());
                }
                let (_, x) = self.looked_at(x)?;
                self.new_atom(Interval::new(x.low >> by, x.high >> by))
            }
            Op::And(x, y) => self.masked(x, y)?,
            Op::Or(x, y) => {
                let ((_, x), (_, y)) = (self.looked_at(x)?, self.looked_at(y)?);
                assert!(x.low >= 0 && y.low >= 0, "only of what is not negative");
                let bits = 128 - (x.high | y.high).leading_zeros();
                self.new_atom(Interval::new(0, (1 << bits) - 1))
            }
            Op::Convert(x) => self.converted(x, node.ty)?,
            Op::Bits(x) => {
                let (polynomial, interval) = self.looked_at(x)?;
                // There a double's bits are those of the range's lowest, plus the units by which it exceeds that.
                let unit = (interval.low.max(1).ilog2().saturating_sub(52)).min(self.units[x.0]);
                self.within_binade(interval, unit)?;
                let lowest = i128::from(0x433 + unit) << 52;
                if unit == 0 {
                    polynomial.plus(&Polynomial::constant(1), lowest - (1 << 52))
                } else {
                    let offset = |x: i128| lowest + ((x - (1 << (52 + unit))) >> unit);
                    self.new_atom(Interval::new(offset(interval.low), offset(interval.high)))
                }
            }
            Op::Biased(x, above) => {
                let (polynomial, _) = self.looked_at(x)?;
                let biased = polynomial.plus(&Polynomial::constant(1), 1 << 52);
                match above {
                    None => biased,
                    Some(above) => {
                        let (above, interval) = self.looked_at(above)?;
                        assert!(interval.within(Interval::new(0, (1 << 20) - 1)), "would run into the exponent");
                        biased.plus(&above, 1 << 32)
                    }
                }
            }
            Op::FmaRounded(x, y, z, unit) => {
                let (x, y) = (self.values[x.0].clone(), self.values[y.0].clone());
                let rounded = self.new_atom(Interval::new(-(1 << (unit - 1)), 1 << (unit - 1)));
                let sum = self.product(&x, &y).plus(&self.values[z.0], 1).plus(&rounded, 1);
                let interval = self.interval(&sum);
                self.within_binade(interval, unit)?;
                sum
            }
            Op::Known { value, low, high } => {
                let (_, interval) = self.looked_at(value)?;
                assert!(interval.low <= high && low <= interval.high, "known is what cannot be");
                self.new_atom(Interval::new(low.max(interval.low), high.min(interval.high)))
            }
        };
        let unit = self.unit(node.op);
        self.units.push(unit);
        if node.ty == Type::F64 {
            self.exact(&made, unit)?;
        }
        Ok(made)
    }

    /// Doubles there are the multiples of 2^unit.
    fn within_binade(&self, interval: Interval, unit: u32) -> Result<(), String> {
        if interval.within(Interval::new(1 << (52 + unit), (1 << (53 + unit)) - 1)) {
            return Ok(());
        }
        let size = (1u64 << 46) as f64 * 2f64.powi(unit as i32);
        let (low, high) = (interval.low as f64 / size, interval.high as f64 / size);
        Err(format!("{low:.3} to {high:.3} times 2^{} is not between 64 and 128 times", 46 + unit))
    }

    fn product(&mut self, x: &Polynomial, y: &Polynomial) -> Polynomial {
        x.times(y).unwrap_or_else(|| {
            let interval = self.interval(x).product(self.interval(y));
            self.new_atom(interval)
        })
    }

    /// x & y: a mask of low bits leaves a value alone that has no others; otherwise the result is below either.
    fn masked(&mut self, x: Value, y: Value) -> Result<Polynomial, String> {
        let ((polynomial, x), (_, y)) = (self.looked_at(x)?, self.looked_at(y)?);
        let low_bits = y.low == y.high && (y.high & (y.high + 1)) == 0;
        if low_bits && x.within(Interval::new(0, y.high)) {
            return Ok(polynomial);
        }
        // Of two's complement, a negative x is as good as any bits.
        let least = if x.low < 0 { y.high } else { x.high.min(y.high) };
        assert!(y.low >= 0, "the second is not negative");
        Ok(self.new_atom(Interval::new(0, least)))
    }

    fn converted(&mut self, x: Value, to: Type) -> Result<Polynomial, String> {
        let from = self.program.nodes[x.0].ty;
        let size = |ty| if matches!(ty, Type::I32 | Type::U32) { 32 } else { 64 };
        Ok(match (from, to) {
            // Modulo something: no more than the residue is needed.
            (_, Type::U32) => self.values[x.0].clone(),
            // Meant exactly.
            (Type::I64, Type::I32) => {
                let (polynomial, _) = self.looked_at(x)?;
                self.fitting(&polynomial, Type::I32)?;
                polynomial
            }
            // The other way to read the same bits.
            (Type::U32, Type::I32) | (Type::U64, Type::I64) | (Type::I64, Type::U64) => {
                let polynomial = self.values[x.0].clone();
                self.modulo(&polynomial, to).0
            }
            _ => {
                assert!(size(from) < size(to), "no conversion from {from:?} to {to:?}");
                self.looked_at(x)?.0
            }
        })
    }
}
