//! Products of matrices and vectors, dense and sparse.

mod sparse;

use crate::ark::Element;
use crate::mask::FLAG;
use crate::memory::zeroed;
use crate::movement::{ANYWHERE, told_apart};
use crate::recording::Recording;
use crate::reduction::{self, Second};
use crate::step::Item;
use crate::task::{Lowering, Proof, Task, Trial, Values};
use crate::vector::Vector;
use crate::{Error, Field, Reduction};
use ark_bls12_381::{Fq, Fr};
use cpu_reference::{LimbField, matrices};
use field_kernels::Kernel;
use gpu_executor::{Parts, Region, SlotUse, Start, Weight};
use smallvec::smallvec;
use std::sync::Arc;

pub use sparse::SparseMatrix;

/// Outputs that are too few to occupy a device, or too long, are shared by 2^6 invocations, or its square, and so on.
const LOG_FOLD: u32 = 6;

/// Invocations of a workgroup that multiplies by a sparse matrix, where memory is waited for more than by the default's few.
const SPARSE_LANES: u32 = 64;

/// Outputs that are enough to occupy a device, if every one is an invocation's. Chosen, not measured.
const ENOUGH: usize = 1 << 15;

/// c = a b; inputs a, of `rows` x `inner`, and b, of `inner` x `columns`, row by row.
#[derive(Clone, Copy, Debug)]
struct Product {
    name: &'static str,
    field: Field,
    rows: usize,
    inner: usize,
    columns: usize,
}

/// What [`Kernel::Dot`] is given besides slots: its parameters but for the first two, and how many outputs there are.
struct Dots {
    outputs: usize,
    /// The base-2 logarithm of the parts of each output.
    log_parts: u32,
    /// Products per part, or about.
    cost: u64,
    params: [u32; 5],
}

impl Lowering<'_> {
    /// A launch of [`Kernel::Dot`] on its slots a, b and c, into r.
    fn dot(&mut self, field: Field, sparse: bool, slots: [&Region; 4], dots: &Dots) -> Result<(), Error> {
        let (reads, writes) = ANYWHERE;
        let uses = [reads, SlotUse::ReadsAnywhere(FLAG), reads, writes];
        let size = if sparse { SPARSE_LANES } else { self.vulkan.device().workgroup_size() };
        const PARTS: Parts = Parts { starts: &[Start::at(1)], ..Parts::ANYWHERE };
        let program = self.grouped((Kernel::Dot, field), (uses, PARTS), (size, 1), smallvec![(3, sparse.into())])?;
        let [a, b, c, r] = slots.map(Region::clone);
        let slots = [Some((a, false)), Some((b, false)), Some((c, false)), Some((r, true))];
        let count = (dots.outputs << dots.log_parts) as u32;
        let params: Vec<u32> = [dots.log_parts, 0].into_iter().chain(dots.params).collect();
        self.batch.launch(&program, slots, (count, Weight::of(dots.cost)), &params);
        Ok(())
    }

    /// Sums of 2^log_parts elements each, of so many times as many, into `sums`.
    fn fold(&mut self, field: Field, parts: &Region, log_parts: u32, sums: &Region) -> Result<(), Error> {
        reduction::fold(self, (Reduction::Sum.row(), field), (parts, None, Second::Whole), (1 << log_parts, None), sums)
    }
}

/// Limbs of so many random elements below 2^254 for Fr, below 2^380 for Fq, from the operating system, if it has any, and memory.
fn random(field: Field, length: usize) -> Option<Vec<u64>> {
    let limbs = field.limbs();
    let mut random: Vec<u64> = zeroed(length.checked_mul(limbs)?).ok()?;
    getrandom::fill(bytemuck::cast_slice_mut(&mut random)).ok()?;
    let top = (1 << ((field.bits() - 1) % 64)) - 1;
    random.chunks_exact_mut(limbs).for_each(|element| element[limbs - 1] &= top);
    Some(random)
}

/// The first element that is not below the modulus.
fn first_above(field: Field, elements: &[u64]) -> Option<usize> {
    elements.chunks_exact(field.limbs()).position(|element| !field.is_canonical(element))
}

/// The first element that is not as the CPU computes it.
fn first_other(task: &dyn Task, inputs: &[Values], elements: &[u64]) -> Option<usize> {
    let mut again = [Values::Limbs(vec![0; elements.len()])];
    task.compute(inputs, &mut again);
    let differs = again[0].limbs().iter().zip(elements).position(|(right, got)| right != got);
    differs.map(|limb| limb / task.field().limbs())
}

impl Product {
    /// The base-2 logarithm of how many invocations share an output.
    fn log_parts(&self) -> u32 {
        let outputs = self.rows * self.columns;
        let mut log_parts = 0;
        while outputs << log_parts < ENOUGH && self.inner >> log_parts >= 4 << LOG_FOLD {
            log_parts += LOG_FOLD;
        }
        log_parts
    }

    /// Freivalds' check, with a vector of random elements below 2^254 for Fr, below 2^380 for Fq, from the operating system: a wrong row
    /// passes with a chance of 2^-254 or 2^-380. It takes a multiplication per element of a, b and the product, where computing them
    /// again takes one for each element of a and each column.
    fn first_wrong(&self, inputs: &[Values], outputs: &[Values]) -> Option<(usize, usize)> {
        fn wrong<F: LimbField>(of: &Product, inputs: &[Values], c: &[u64], random: &[u64]) -> Option<usize> {
            let [a, b] = [0, 1].map(|n| F::elements(inputs[n].limbs()));
            matrices::first_wrong_product(a, b, F::elements(c), (of.inner, of.columns), F::elements(random))
        }
        let c = outputs[0].limbs();
        if let Some(position) = first_above(self.field, c) {
            return Some((0, position));
        }
        if c.is_empty() {
            // Of no rows, however long.
            return None;
        }
        let random = random(self.field, self.columns).filter(|_| self.rows * self.inner * self.columns > 0);
        let Some(random) = random else { return first_other(self, inputs, c).map(|position| (0, position)) };
        let wrong = match self.field {
            Field::Fq => wrong::<Fq>(self, inputs, c, &random),
            Field::Fr => wrong::<Fr>(self, inputs, c, &random),
        };
        wrong.map(|position| (0, position))
    }
}

impl Task for Product {
    fn name(&self) -> &'static str {
        self.name
    }

    fn field(&self) -> Field {
        self.field
    }

    fn multiplies(&self) -> Option<Kernel> {
        Some(Kernel::Dot)
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let [Some(c)] = outputs else { return Ok(()) };
        let [Some(a), Some(b)] = inputs else {
            device.batch.zero(c);
            return Ok(());
        };
        let Self { field, rows, inner, columns, .. } = *self;
        let log_parts = self.log_parts();
        // Tiles of 256 outputs, as square as the matrix allows.
        let log = |length: usize| length.next_power_of_two().trailing_zeros();
        let tile_columns = log(columns).min(8 - log(rows).min(4));
        let tile_rows = log(rows).min(8 - tile_columns);
        let tiles = rows.div_ceil(1 << tile_rows) * columns.div_ceil(1 << tile_columns);
        let dots = Dots {
            outputs: tiles << (tile_rows + tile_columns),
            log_parts,
            cost: (inner >> log_parts) as u64,
            params: [rows as u32, inner as u32, columns as u32, tile_rows, tile_columns],
        };
        if log_parts == 0 {
            return device.dot(field, false, [a, a, b, c], &dots);
        }
        let parts = device.scratch(c.bytes() << log_parts)?;
        device.dot(field, false, [a, a, b, &parts], &dots)?;
        device.fold(field, &parts, log_parts, c)
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        fn product<F: LimbField>(of: &Product, inputs: &[Values], outputs: &mut [Values]) {
            let [a, b] = [0, 1].map(|n| F::elements(inputs[n].limbs()));
            matrices::product(a, b, F::elements_mut(outputs[0].limbs_mut()), of.inner, of.columns);
        }
        match self.field {
            // No products: zeros, as the output is.
            _ if self.rows * self.inner * self.columns == 0 => {}
            Field::Fq => product::<Fq>(self, inputs, outputs),
            Field::Fr => product::<Fr>(self, inputs, outputs),
        }
    }

    /// Freivalds' check: for square matrices of n rows 3 n^2 multiplications and not n^3. A product with a vector is computed again, which
    /// costs less.
    fn proof(&self) -> Option<Proof<'_>> {
        let check: Proof = Box::new(|inputs, outputs| self.first_wrong(inputs, outputs));
        (self.columns > 1).then_some(check)
    }

    fn trials(&self) -> Vec<Trial> {
        let trial = |(rows, inner, columns), a, b| Trial {
            task: Arc::new(Product { rows, inner, columns, ..*self }) as Arc<dyn Task>,
            inputs: vec![a, b],
            outputs: vec![(Item::Element(self.field), rows * columns)],
        };
        // Of the largest elements, sums as large as they get.
        let largest: Vec<u64> = self.field.modulus().iter().enumerate().map(|(n, limb)| limb - u64::from(n == 0)).collect();
        let all = |length| Values::Limbs(largest.repeat(length));
        let edges = [(1, 1, 1), (2, 3, 5), (17, 9, 18), (3, 270, 2), (1, 16_500, 1)];
        let edges = edges.map(|(m, k, n)| trial((m, k, n), told_apart(self.field, m * k), told_apart(self.field, k * n)));
        edges
            .into_iter()
            .chain([(2, 255, 2), (1, 300, 1)].map(|(m, k, n)| trial((m, k, n), all(m * k), all(k * n))))
            .collect()
    }
}

impl Recording {
    /// Records the product of a matrix, given row by row, and a vector `x`, into new memory. A multiplication for each element of the
    /// matrix.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] if the matrix has not `rows` rows as long as `x`, [`Error::ForeignVector`]; [`Error::Device`] if there is
    /// no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2, 3, 4].map(|n: u64| Fr::from(n)))?;
    /// let x = backend.upload(&[5, 6].map(|n: u64| Fr::from(n)))?;
    /// let mut recording = backend.record();
    /// let y = recording.matrix_vector(&a, &x, 2)?;
    /// recording.submit()?;
    /// assert_eq!(y.download()?, [17, 39].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn matrix_vector<F: Element>(&mut self, a: &Vector<F>, x: &Vector<F>, rows: usize) -> Result<Vector<F>, Error> {
        self.check("matrix_vector", x, x.len())?;
        self.check("matrix_vector", a, rows.saturating_mul(x.len()))?;
        let y = self.backend.vector(rows)?;
        self.matrix_vector_into(a, x, &y)?;
        Ok(y)
    }

    /// As [`Recording::matrix_vector`], into `y`, which has as many elements as the matrix has rows.
    ///
    /// # Errors
    /// Those of [`Recording::matrix_vector`]; [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2, 3, 4].map(|n: u64| Fr::from(n)))?;
    /// let (x, y) = (backend.upload(&[Fr::from(1u64)])?, backend.zeros(4)?);
    /// let mut recording = backend.record();
    /// recording.matrix_vector_into(&a, &x, &y)?;
    /// recording.submit()?;
    /// assert_eq!(y.download()?, a.download()?);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn matrix_vector_into<F: Element>(&mut self, a: &Vector<F>, x: &Vector<F>, y: &Vector<F>) -> Result<(), Error> {
        self.dense("matrix_vector", (a, x, y), (y.len(), x.len(), 1))
    }

    /// Records the product of two matrices, given row by row, into new memory: `a` of `rows` x `inner`, `b` of `inner` x `columns`. Rows
    /// times inner times columns multiplications, each about half of one whose product is reduced.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] if a matrix has another number of elements, [`Error::ForeignVector`]; [`Error::Device`] if there is no
    /// memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2, 3, 4].map(|n: u64| Fr::from(n)))?;
    /// let b = backend.upload(&[0, 1, 1, 0].map(|n: u64| Fr::from(n)))?;
    /// let mut recording = backend.record();
    /// let product = recording.matrix_product(&a, &b, (2, 2, 2))?;
    /// recording.submit()?;
    /// assert_eq!(product.download()?, [2, 1, 4, 3].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn matrix_product<F: Element>(
        &mut self,
        a: &Vector<F>,
        b: &Vector<F>,
        (rows, inner, columns): (usize, usize, usize),
    ) -> Result<Vector<F>, Error> {
        self.check("matrix_product", a, rows.saturating_mul(inner))?;
        self.check("matrix_product", b, inner.saturating_mul(columns))?;
        // Without number, perhaps, where the matrices have no elements: then there is no memory.
        let c = self.backend.vector(rows.saturating_mul(columns))?;
        self.matrix_product_into(a, b, (rows, inner, columns), &c)?;
        Ok(c)
    }

    /// As [`Recording::matrix_product`], into `c`, of `rows` x `columns`.
    ///
    /// # Errors
    /// Those of [`Recording::matrix_product`]; [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let a = backend.upload(&[1, 2].map(|n: u64| Fr::from(n)))?;
    /// let c = backend.zeros(4)?;
    /// let mut recording = backend.record();
    /// recording.matrix_product_into(&a, &a, (2, 1, 2), &c)?;
    /// recording.submit()?;
    /// assert_eq!(c.download()?, [1, 2, 2, 4].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn matrix_product_into<F: Element>(
        &mut self,
        a: &Vector<F>,
        b: &Vector<F>,
        shape: (usize, usize, usize),
        c: &Vector<F>,
    ) -> Result<(), Error> {
        self.dense("matrix_product", (a, b, c), shape)
    }

    fn dense<F: Element>(
        &mut self,
        name: &'static str,
        (a, b, c): (&Vector<F>, &Vector<F>, &Vector<F>),
        (rows, inner, columns): (usize, usize, usize),
    ) -> Result<(), Error> {
        self.check(name, a, rows.saturating_mul(inner))?;
        self.check(name, b, inner.saturating_mul(columns))?;
        self.check(name, c, rows.saturating_mul(columns))?;
        let (item, task) = (Item::Element(F::FIELD), Product { name, field: F::FIELD, rows, inner, columns });
        self.task(Arc::new(task), &[(&a.memory, item), (&b.memory, item)], &[(&c.memory, item)])
    }
}
