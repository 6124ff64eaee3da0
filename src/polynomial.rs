//! Polynomials as vectors of their coefficients, the constant one first: powers of an element, values at points, division by X
//! - z.

use crate::ark::Element;
use crate::known_answers::edges;
use crate::passes::{Launch, Share};
use crate::reduction::{Reduction, Second, fold};
use crate::scan::{CARRIED, Carry, DIGIT_SHIFT, EXCLUSIVE, GEOMETRIC, POWER, STARTED, Scanned, pass, squares};
use crate::step::Item;
use crate::task::{Lowering, Task, Trial, Values};
use crate::vector::Vector;
use crate::{Error, Field, Recording};
use ark_bls12_381::{Fq, Fr};
use cpu_reference::{LimbField, Walk, evaluate, powers};
use field_kernels::Kernel;
use gpu_executor::Region;
use std::borrow::Cow;
use std::sync::Arc;

/// c x^i, of inputs x and c.
#[derive(Clone, Copy, Debug)]
struct Powers {
    field: Field,
}

/// The values of a polynomial at points, of inputs polynomial and points; or at one point that the host knows, of the polynomial only.
#[derive(Clone, Debug)]
struct Evaluated {
    field: Field,
    /// The limbs of the point.
    point: Option<Vec<u64>>,
}

/// Elements to an invocation of `Powers`: a power of two. Each begins with a power that takes as many multiplications as their
/// number has bits.
const CHUNK: usize = 64;

/// How many bits the numbers below `count` have.
fn bits_below(count: usize) -> u32 {
    usize::BITS - count.saturating_sub(1).leading_zeros()
}

/// Powers of an element, to make others of: for each digit of so many bits, lowest first, those for 1, 2 and so on up to the largest.
struct Table<'a> {
    powers: &'a Region,
    /// Its first element that is used.
    first: u32,
    digit: u32,
}

impl<'a> Table<'a> {
    /// Squares, one after the other.
    fn of_squares(powers: &'a Region, first: u32) -> Self {
        Self { powers, first, digit: 1 }
    }
}

/// Bits of a digit where the host makes the table: so that there are few multiplications to wait for, and few powers to send.
const DIGIT: u32 = 4;

/// How many powers a [`Table`] has for each such digit.
const ENTRIES: usize = (1 << DIGIT) - 1;

/// The powers that a [`Table`] for so many digits of [`DIGIT`] bits has of x.
fn powers_by_digit<F: LimbField>(x: F, digits: usize) -> Vec<F> {
    let mut powers = Vec::with_capacity(digits * ENTRIES);
    let mut base = x;
    for _ in 0..digits {
        powers.extend(std::iter::successors(Some(base), |power| Some(*power * base)).take(ENTRIES));
        base *= powers[powers.len() - 1];
    }
    powers
}

/// c x^i, c = 1 if there is none, into element i of `out`.
fn powers_of(
    lowering: &mut Lowering,
    field: Field,
    (table, c): (&Table, Option<&Region>),
    out: &Region,
) -> Result<(), Error> {
    let count = (out.bytes() / field.bytes() as u64) as usize;
    let flags = if c.is_some() { STARTED } else { 0 };
    let launch = Launch {
        pass: pass(POWER, false, 1),
        field,
        slots: [None, c, Some(table.powers), Some(out)],
        written: 16,
        segments: count,
        segment: 1,
        share: Share { team: 1, steps: bits_below(count).div_ceil(table.digit) as usize, chunks: 1 },
        more: [table.first, flags | table.digit << DIGIT_SHIFT],
        cost: 1,
    };
    launch.add_to(lowering)
}

impl Task for Powers {
    fn name(&self) -> &'static str {
        "powers"
    }

    fn field(&self) -> Field {
        self.field
    }

    fn multiplies(&self) -> Option<Kernel> {
        Some(Kernel::Scan)
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let ([Some(x), Some(c)], [Some(out)]) = (inputs, outputs) else { return Ok(()) };
        let field = self.field;
        let length = (out.bytes() / field.bytes() as u64) as usize;
        let share = Share::new(length, 1, CHUNK);
        let some = |count: usize| device.scratch((count * field.bytes()) as u64);
        let table = some((CHUNK.ilog2() + bits_below(share.chunks)).max(1) as usize)?;
        let starts = some(share.chunks)?;
        squares(device, field, x, &table)?;
        powers_of(device, field, (&Table::of_squares(&table, CHUNK.ilog2()), Some(c)), &starts)?;
        let launch = Launch {
            pass: pass(GEOMETRIC, true, 1),
            field,
            slots: [None, Some(&starts), Some(&table), Some(out)],
            written: 16,
            segments: 1,
            segment: length,
            share,
            more: [0, CARRIED | EXCLUSIVE],
            cost: 1,
        };
        launch.add_to(device)
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        fn of<F: LimbField>(x: &Values, c: &Values, out: &mut Values) {
            powers(first::<F>(x), first::<F>(c), F::elements_mut(out.limbs_mut()));
        }
        let ([x, c], [out]) = (inputs, outputs) else { return };
        match self.field {
            Field::Fq => of::<Fq>(x, c, out),
            Field::Fr => of::<Fr>(x, c, out),
        }
    }

    fn trials(&self) -> Vec<Trial> {
        let edges = edges(self.field);
        let lengths = [1, 2, CHUNK, CHUNK + 1, 5 * CHUNK + 3];
        let trial = |(at, length): (usize, usize)| Trial {
            task: Arc::new(*self),
            inputs: [at, at + 2].map(|at| Values::Limbs(edges[edges.len() - 1 - at % edges.len()].clone())).into(),
            outputs: vec![(Item::Element(self.field), length)],
        };
        lengths.into_iter().enumerate().map(trial).collect()
    }
}

/// The values of a polynomial's rows, and of those: with the powers of x across the columns and down the rows.
fn folds(
    device: &mut Lowering,
    field: Field,
    polynomial: &Region,
    (across, values, down): (&Region, &Region, &Region),
    out: &Region,
) -> Result<(), Error> {
    let (row, bytes) = (Reduction::InnerProduct.row(), field.bytes() as u64);
    let (columns, rows) = ((across.bytes() / bytes) as usize, (values.bytes() / bytes) as usize);
    fold(device, (row, field), (polynomial, Some(across), Second::ForEverySegment), (columns, None), values)?;
    fold(device, (row, field), (values, Some(down), Second::Whole), (rows, None), out)
}

/// The bytes of the tables of x and, behind it, of x^columns, for so many digits.
fn tables<F: LimbField>(x: &[u64], columns: u64, [low, high]: [usize; 2]) -> Arc<[u8]> {
    let Some(&x) = F::elements(x).first() else { return Arc::new([]) };
    let across = powers_by_digit(x, low);
    let down = powers_by_digit(x.pow([columns]), high);
    bytemuck::cast_slice(F::limbs(&[across, down].concat())).into()
}

/// The first element of some limbs.
fn first<F: LimbField>(values: &Values) -> F {
    F::elements(values.limbs()).first().copied().unwrap_or(F::ZERO)
}

impl Task for Evaluated {
    fn name(&self) -> &'static str {
        "evaluate_at"
    }

    fn field(&self) -> Field {
        self.field
    }

    fn multiplies(&self) -> Option<Kernel> {
        Some(Kernel::Scan)
    }

    fn variant(&self) -> Cow<'_, str> {
        if self.point.is_some() { "point" } else { "points" }.into()
    }

    /// The coefficients as a matrix of about as many rows as columns: the inner product of each row with the powers of x, and
    /// then that of those with the powers of x^columns. One multiplication per coefficient, and reductions hardly any.
    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let ([polynomial, points @ ..], [Some(out)]) = (inputs, outputs) else { return Ok(()) };
        let Some(polynomial) = polynomial else {
            device.batch.zero(out);
            return Ok(());
        };
        let (field, bytes) = (self.field, self.field.bytes() as u64);
        // Twice as many columns as rows: the rows are left for the second pass.
        let length = (polynomial.bytes() / bytes) as usize;
        let bits = bits_below(length) / 2 + 1;
        let rows = length.div_ceil(1 << bits);
        let one = |region: &Region, at: u64| region.slice(at * bytes..(at + 1) * bytes);
        let some = |count: u64| device.scratch(count * bytes);
        let (powers_across, powers_down, values) = (some(1 << bits)?, some(rows as u64)?, some(rows as u64)?);
        let high_bits = bits_below(rows).max(1);
        if let Some(point) = &self.point {
            let [low, high] = [bits, high_bits].map(|bits| bits.div_ceil(DIGIT) as usize);
            let powers = match field {
                Field::Fq => tables::<Fq>(point, 1 << bits, [low, high]),
                Field::Fr => tables::<Fr>(point, 1 << bits, [low, high]),
            };
            let powers_of_point = some(((low + high) * ENTRIES) as u64)?;
            device.batch.upload(&powers_of_point, powers);
            let at = |first: usize| Table { powers: &powers_of_point, first: first as u32, digit: DIGIT };
            powers_of(device, field, (&at(0), None), &powers_across)?;
            powers_of(device, field, (&at(low * ENTRIES), None), &powers_down)?;
            return folds(device, field, polynomial, (&powers_across, &values, &powers_down), out);
        }
        // Squares of x, and of x^columns. The same memory for one point after the other.
        let (low, high) = (u64::from(bits), u64::from(high_bits));
        let points = points.iter().flatten();
        let (across, down) = (some(low + 1)?, some(high)?);
        let Some(x_columns) = one(&across, low) else { return Ok(()) };
        for (points, at) in points.flat_map(|points| (0..points.bytes() / bytes).map(move |at| (points, at))) {
            let (Some(x), Some(out)) = (one(points, at), one(out, at)) else { continue };
            squares(device, field, &x, &across)?;
            // Beside each other.
            powers_of(device, field, (&Table::of_squares(&across, 0), None), &powers_across)?;
            squares(device, field, &x_columns, &down)?;
            powers_of(device, field, (&Table::of_squares(&down, 0), None), &powers_down)?;
            folds(device, field, polynomial, (&powers_across, &values, &powers_down), &out)?;
        }
        Ok(())
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        fn of<F: LimbField>(polynomial: &Values, points: &[u64], out: &mut Values) {
            let (polynomial, points) = (F::elements(polynomial.limbs()), F::elements(points));
            F::elements_mut(out.limbs_mut()).iter_mut().zip(points).for_each(|(out, x)| *out = evaluate(polynomial, *x));
        }
        let ([polynomial, points @ ..], [out]) = (inputs, outputs) else { return };
        let points = self.point.as_deref().or(points.first().map(Values::limbs)).unwrap_or(&[]);
        match self.field {
            Field::Fq => of::<Fq>(polynomial, points, out),
            Field::Fr => of::<Fr>(polynomial, points, out),
        }
    }

    fn trials(&self) -> Vec<Trial> {
        let edges = edges(self.field);
        let trial = |(at, length): (usize, usize)| {
            let polynomial = (0..length).flat_map(|at| edges[(at * at + at) % edges.len()].iter().copied()).collect();
            let (mut task, mut inputs, mut values) = (self.clone(), vec![Values::Limbs(polynomial)], 1);
            match &mut task.point {
                Some(point) => point.clone_from(&edges[(5 * at + 3) % edges.len()]),
                None => {
                    values = 3 + at % 3;
                    inputs.push(Values::Limbs(edges[..values].concat()));
                }
            }
            Trial { task: Arc::new(task), inputs, outputs: vec![(Item::Element(self.field), values)] }
        };
        // One so long that powers from the host have three digits.
        let long = self.point.is_some().then_some((1 << 16) + 1);
        [0, 1, 2, 3, 16, 17, 1000, 4097].into_iter().chain(long).enumerate().map(trial).collect()
    }
}

impl Recording {
    /// Records the powers first x^i for i below `length`, into new memory. About one multiplication per element.
    ///
    /// # Errors
    /// [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let mut recording = backend.record();
    /// let powers = recording.powers(&Fr::from(3u64), &Fr::from(2u64), 4)?;
    /// recording.submit()?;
    /// assert_eq!(powers.download()?, [2u64, 6, 18, 54].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn powers<F: Element>(&mut self, x: &F, first: &F, length: usize) -> Result<Vector<F>, Error> {
        let out = self.backend.vector(length)?;
        self.all_or_nothing(|recording| {
            let (x, first) = (recording.constants(&[*x])?, recording.constants(&[*first])?);
            recording.powers_into(&x, &first, &out)
        })?;
        Ok(out)
    }

    /// Records the powers first x^i, for every position i of `out`; x and first are vectors of one element, which `out` may not
    /// overlap.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let (x, first) = (backend.upload(&[Fr::from(3u64)])?, backend.upload(&[Fr::from(2u64)])?);
    /// let out = backend.zeros(4)?;
    /// let mut recording = backend.record();
    /// recording.powers_into(&x, &first, &out)?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [2u64, 6, 18, 54].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn powers_into<F: Element>(&mut self, x: &Vector<F>, first: &Vector<F>, out: &Vector<F>) -> Result<(), Error> {
        let task = Powers { field: F::FIELD };
        self.check(task.name(), x, 1)?;
        self.check(task.name(), first, 1)?;
        self.check(task.name(), out, out.len())?;
        if out.is_empty() {
            return Ok(());
        }
        let item = Item::Element(F::FIELD);
        self.task(Arc::new(task), &[(&x.memory, item), (&first.memory, item)], &[(&out.memory, item)])
    }

    /// Records the value of a polynomial at a point, into new memory of one element. See [`Recording::evaluate_at_into`].
    ///
    /// # Errors
    /// Those of [`Recording::evaluate_at_into`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// // 2 + 3 X + X^2
    /// let polynomial = backend.upload(&[2u64, 3, 1].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let value = recording.evaluate_point(&polynomial, &Fr::from(10u64))?;
    /// recording.submit()?;
    /// assert_eq!(value.download()?, [Fr::from(132u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn evaluate_point<F: Element>(&mut self, polynomial: &Vector<F>, point: &F) -> Result<Vector<F>, Error> {
        self.check("evaluate_at", polynomial, polynomial.len())?;
        let out = self.backend.vector(1)?;
        self.evaluate_point_into(polynomial, point, &out)?;
        Ok(out)
    }

    /// As [`Recording::evaluate_point`], into `out`, a vector of one element that does not overlap the polynomial. Powers of the
    /// point come from the host, which makes this quicker than [`Recording::evaluate_at_into`] with one point.
    ///
    /// # Errors
    /// Those of [`Recording::evaluate_at_into`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let (polynomial, value) = (backend.upload(&[2u64, 3, 1].map(Fr::from))?, backend.zeros(1)?);
    /// let mut recording = backend.record();
    /// recording.evaluate_point_into(&polynomial, &Fr::from(10u64), &value)?;
    /// recording.submit()?;
    /// assert_eq!(value.download()?, [Fr::from(132u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn evaluate_point_into<F: Element>(
        &mut self,
        polynomial: &Vector<F>,
        point: &F,
        out: &Vector<F>,
    ) -> Result<(), Error> {
        let point = F::limbs(std::slice::from_ref(point)).to_vec();
        let task = Evaluated { field: F::FIELD, point: Some(point) };
        self.check(task.name(), polynomial, polynomial.len())?;
        self.check(task.name(), out, 1)?;
        let item = Item::Element(F::FIELD);
        self.task(Arc::new(task), &[(&polynomial.memory, item)], &[(&out.memory, item)])
    }

    /// Records the values of a polynomial at every point of a vector, into new memory. See [`Recording::evaluate_at_into`].
    ///
    /// # Errors
    /// Those of [`Recording::evaluate_at_into`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let polynomial = backend.upload(&[2u64, 3, 1].map(Fr::from))?;
    /// let points = backend.upload(&[0u64, 1, 10].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let values = recording.evaluate_at(&polynomial, &points)?;
    /// recording.submit()?;
    /// assert_eq!(values.download()?, [2u64, 6, 132].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn evaluate_at<F: Element>(&mut self, polynomial: &Vector<F>, points: &Vector<F>) -> Result<Vector<F>, Error> {
        self.check("evaluate_at", polynomial, polynomial.len())?;
        self.check("evaluate_at", points, points.len())?;
        let out = self.backend.vector(points.len())?;
        self.evaluate_at_into(polynomial, points, &out)?;
        Ok(out)
    }

    /// Records the values of a polynomial, given by its coefficients, the constant one first (of none it is 0), at every point
    /// of a vector, into `out`, which may overlap neither. One multiplication per coefficient and point, one point after the
    /// other; from submission until it is done, memory for about four times as many elements as the square root of the number
    /// of coefficients.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let polynomial = backend.upload(&[2u64, 3, 1].map(Fr::from))?;
    /// let (points, values) = (backend.upload(&[Fr::from(10u64)])?, backend.zeros(1)?);
    /// let mut recording = backend.record();
    /// recording.evaluate_at_into(&polynomial, &points, &values)?;
    /// recording.submit()?;
    /// assert_eq!(values.download()?, [Fr::from(132u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn evaluate_at_into<F: Element>(
        &mut self,
        polynomial: &Vector<F>,
        points: &Vector<F>,
        out: &Vector<F>,
    ) -> Result<(), Error> {
        let task = Evaluated { field: F::FIELD, point: None };
        self.check(task.name(), polynomial, polynomial.len())?;
        self.check(task.name(), points, points.len())?;
        self.check(task.name(), out, points.len())?;
        if points.is_empty() {
            return Ok(());
        }
        let item = Item::Element(F::FIELD);
        self.task(Arc::new(task), &[(&polynomial.memory, item), (&points.memory, item)], &[(&out.memory, item)])
    }

    /// Records the division of a polynomial by X - z: the quotient, of one coefficient less, and the remainder, the
    /// polynomial's value at z, a vector of one element. Both lie in the same new memory. See
    /// [`Recording::divide_by_linear_into`].
    ///
    /// # Errors
    /// Those of [`Recording::divide_by_linear_into`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// // 2 + 3 X + X^2 = (X - 4) (X + 7) + 30
    /// let polynomial = backend.upload(&[2u64, 3, 1].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let (quotient, remainder) = recording.divide_by_linear(&polynomial, &Fr::from(4u64))?;
    /// recording.submit()?;
    /// assert_eq!(quotient.download()?, [7u64, 1].map(Fr::from));
    /// assert_eq!(remainder.download()?, [Fr::from(30u64)]);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn divide_by_linear<F: Element>(&mut self, polynomial: &Vector<F>, z: &F) -> Result<(Vector<F>, Vector<F>), Error> {
        self.check("divide_by_linear", polynomial, polynomial.len())?;
        let both = self.backend.vector(polynomial.len().max(1))?;
        if polynomial.is_empty() {
            self.zero(&both)?;
        } else {
            self.all_or_nothing(|recording| {
                let z = recording.constants(&[*z])?;
                recording.divide_by_linear_into(polynomial, &z, &both)
            })?;
        }
        Ok((both.slice(1..both.len())?, both.slice(0..1)?))
    }

    /// Records the division of a polynomial by X - z, z a vector of one element, into `out`, which may overlap neither: first
    /// the remainder, then the coefficients of the quotient, together as many as the polynomial has. As a scan from the highest
    /// coefficient down: two multiplications and additions per coefficient.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`], [`Error::ForeignVector`], [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// // 2 + 3 X + X^2 = (X - 4) (X + 7) + 30
    /// let polynomial = backend.upload(&[2u64, 3, 1].map(Fr::from))?;
    /// let (z, out) = (backend.upload(&[Fr::from(4u64)])?, backend.zeros(3)?);
    /// let mut recording = backend.record();
    /// recording.divide_by_linear_into(&polynomial, &z, &out)?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [30u64, 7, 1].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn divide_by_linear_into<F: Element>(
        &mut self,
        polynomial: &Vector<F>,
        z: &Vector<F>,
        out: &Vector<F>,
    ) -> Result<(), Error> {
        let walk = Walk { segment: polynomial.len(), exclusive: false, reversed: true };
        let task = Scanned { field: F::FIELD, carry: Carry::Horner, walk, heads: false };
        self.check(task.name(), polynomial, polynomial.len())?;
        self.check(task.name(), z, 1)?;
        self.scanned(task, polynomial, Some((&z.memory, Item::Element(F::FIELD))), out)
    }

    /// Elements that the recording brings to the device itself.
    fn constants<F: Element>(&mut self, elements: &[F]) -> Result<Vector<F>, Error> {
        let vector = self.backend.vector(elements.len())?;
        self.write(&vector, elements)?;
        Ok(vector)
    }
}

#[cfg(test)]
mod tests {
    use super::{DIGIT, ENTRIES, Fr, powers_by_digit};
    use ark_ff::Field as _;

    #[test]
    fn powers_are_where_digits_look_for_them() {
        let x = Fr::from(3u64);
        let powers = powers_by_digit(x, 3);
        assert_eq!(powers.len(), 3 * ENTRIES);
        for (at, power) in powers.iter().enumerate() {
            let (step, digit) = (at / ENTRIES, (at % ENTRIES + 1) as u64);
            assert_eq!(*power, x.pow([digit << (DIGIT as usize * step)]));
        }
    }
}
