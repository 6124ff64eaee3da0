//! Sparse matrices, compressed by rows.

use super::{Dots, LOG_FOLD, first_above, first_other, random};
use crate::ark::Element;
use crate::mask::FLAG;
use crate::memory::{Memory, zeroed_elements};
use crate::movement::{ANYWHERE, QUAD, an_index_each, part, told_apart};
use crate::recording::Recording;
use crate::step::{Item, Step};
use crate::task::{Lowering, Proof, Task, Trial, Values};
use crate::vector::Vector;
use crate::{Backend, Error, Field, Verify};
use ark_bls12_381::{Fq, Fr};
use cpu_reference::LimbField;
use field_kernels::Kernel;
use gpu_executor::{Region, SlotUse};
use rayon::prelude::*;
use smallvec::smallvec;
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Rows whose values lie together, as in dot.comp.
const SLICE: usize = 32;

/// Values of the longest row that one invocation takes. Longer ones are shared, each invocation taking at most as many. Chosen, not measured.
const SHORT: usize = 64;

/// The most bytes of partial sums of shared rows that wait to be folded, if they are not of one row: every device has so much in one
/// allocation.
const MOST_BYTES: usize = 1 << 27;

/// Of so many different values a table is kept, and each place has a number in it: 4 bytes in place of an element.
const MOST_KINDS: usize = 1 << 16;

/// A sparse matrix that lies where its [`Backend`] computes, compressed by rows: the values that are not zero and the column of each, about
/// row by row. Of values that repeat, as the coefficients of constraint systems do, each is kept once.
///
/// Clones share the memory.
///
/// ```
/// use ark_bls12_381::Fr;
/// let backend = bls12_field_gpu::backend()?;
/// // 2 0 3
/// // 0 0 0
/// // 0 5 0
/// let values = [2, 3, 5].map(|n: u64| Fr::from(n));
/// let matrix = backend.upload_sparse(&[0, 2, 2, 3], &[0, 2, 1], &values, 3)?;
/// let x = backend.upload(&[1, 10, 100].map(|n: u64| Fr::from(n)))?;
/// let mut recording = backend.record();
/// let y = recording.sparse_vector(&matrix, &x)?;
/// recording.submit()?;
/// assert_eq!(y.download()?, [302, 0, 50].map(|n: u64| Fr::from(n)));
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
#[derive(Clone)]
pub struct SparseMatrix<F> {
    backend: Backend,
    values: Memory,
    words: Memory,
    product: Arc<SparseProduct>,
    field: PhantomData<F>,
}

/// y = A x; inputs the values of A or their table, the words that say where they are, and x.
///
/// Short rows are sorted by length and taken in slices (as the format SELL-C-sigma has it: M. Kreutzer et al., "A Unified Sparse Matrix Data
/// Format", SIAM J. Sci. Comput. 36(5), 2014), in which values lie as their invocations read them: the first ones of all rows, the
/// second ones and so on. Zeros in column 0 make the rows of a slice equally long. Behind them are the longer rows, one after another.
///
/// The words are where slices begin and, at the end, where the last one ends; which row each place of a slice is; the columns of values;
/// if `coded`, the place in the table of each; then, for each of `shared`, where rows begin and end and which they are.
#[derive(Clone, Debug)]
struct SparseProduct {
    field: Field,
    rows: usize,
    columns: usize,
    nonzeros: usize,
    /// How many of the rows are in slices.
    short: usize,
    /// How many values there are, zeros included.
    places: usize,
    coded: bool,
    shared: Vec<SharedRows>,
    /// What proves products, if that is wanted.
    check: Option<Arc<Combination>>,
}

/// A random combination r of a matrix's rows, and r A: y = A x has r y = (r A) x. Limbs of elements in Montgomery form.
struct Combination {
    rows: Vec<u64>,
    columns: Vec<u64>,
}

impl fmt::Debug for Combination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Nobody is to know it.
        f.write_str("Combination")
    }
}

impl Combination {
    /// Of elements below 2^254 for Fr, below 2^380 for Fq, from the operating system; `None` if that has none, or there is no memory. Takes a
    /// multiplication for each value of the matrix.
    fn new<F: Element>(offsets: &[u32], columns: &[u32], values: &[F], width: usize) -> Option<Self> {
        let rows = random(F::FIELD, offsets.len().saturating_sub(1))?;
        let r = F::elements(&rows);
        // Sums of no more elements, together, than the matrix has values.
        let parts = rayon::current_num_threads().min(values.len() / width.max(1)).max(1);
        let each = r.len().div_ceil(parts).max(1);
        let parts = r.par_chunks(each).enumerate().map(|(part, r)| {
            let mut sums = zeroed_elements::<F>(width).ok()?;
            for (row, r) in (part * each..).zip(r) {
                let range = offsets[row] as usize..offsets[row + 1] as usize;
                let terms = columns[range.clone()].iter().zip(&values[range]);
                terms.for_each(|(column, value)| sums[*column as usize] += *r * value);
            }
            Some(sums)
        });
        let add = |sums: Option<Vec<F>>, others: Option<Vec<F>>| {
            let (mut sums, others) = (sums?, others?);
            sums.iter_mut().zip(others).for_each(|(sum, other)| *sum += other);
            Some(sums)
        };
        let sums = parts.reduce_with(add).unwrap_or_else(|| zeroed_elements::<F>(width).ok())?;
        let columns = F::limbs(&sums).to_vec();
        Some(Self { rows, columns })
    }

    /// Whether y, of which all elements are below the modulus, is as the matrix times x.
    fn agrees<F: LimbField>(&self, x: &[u64], y: &[u64]) -> bool {
        let dot = |a: &[u64], b: &[u64]| F::elements(a).par_iter().zip(F::elements(b)).map(|(a, b)| *a * b).sum::<F>();
        self.rows.len() == y.len() && self.columns.len() == x.len() && dot(&self.rows, y) == dot(&self.columns, x)
    }
}

/// Rows of which each is shared by 2^log_parts invocations.
#[derive(Clone, Debug)]
struct SharedRows {
    log_parts: u32,
    rows: usize,
    /// Where among the words they begin; behind these, and the last one's end, which rows they are.
    begin: usize,
}

impl Backend {
    /// Copies a sparse matrix to the device: row i has the values from `row_offsets[i]` to `row_offsets[i + 1]`, in these `columns`, of which
    /// there are `width`. Values may be zero, columns of a row in any order, and the same column come twice, whose values add up.
    ///
    /// Everything is read once or twice; values that repeat are looked up in a table. With [`Verify::Proofs`] a random combination of the rows
    /// is made as well, if there are more values than rows and columns, and kept in host memory (an element for each row and each column),
    /// which proves products.
    ///
    /// # Errors
    /// [`Error::RowOffset`] if the offsets do not begin with 0, fall, or do not end with the number of values;
    /// [`Error::IndexOutOfRange`] if a column is not below `width`; [`Error::LengthMismatch`] if there are not as many columns as values;
    /// [`Error::Device`] if the matrix does not fit the device's memory, or values or columns one allocation.
    ///
    /// ```
    /// use ark_bls12_381::Fr;
    /// use bls12_field_gpu::Error;
    /// let backend = bls12_field_gpu::backend()?;
    /// let one = Fr::from(1u64);
    /// assert_eq!(backend.upload_sparse(&[0, 1, 2], &[3, 0], &[one, one], 4)?.rows(), 2);
    /// let refused = backend.upload_sparse(&[0, 1, 2], &[3, 4], &[one, one], 4);
    /// assert!(matches!(refused, Err(Error::IndexOutOfRange { position: 1, index: 4, bound: 4 })));
    /// # Ok::<(), Error>(())
    /// ```
    pub fn upload_sparse<F: Element>(
        &self,
        row_offsets: &[u32],
        columns: &[u32],
        values: &[F],
        width: usize,
    ) -> Result<SparseMatrix<F>, Error> {
        let (mut product, placed_values, words) = compressed(row_offsets, columns, values, width)?;
        // Else it is less work to compute products again.
        let worth_it = values.len() > row_offsets.len().saturating_add(width);
        if self.verify() == Verify::Proofs && self.vulkan().is_some() && worth_it {
            product.check = Combination::new(row_offsets, columns, values, width).map(Arc::new);
        }
        let placed = |bytes: &[u8], item| -> Result<(Memory, Option<Step>), Error> {
            let memory = Memory::new(self, bytes.len() as u64)?;
            let write = |to| Step::Write { bytes: bytes.into(), to, item };
            Ok((memory.clone(), (!bytes.is_empty()).then(|| write(memory))))
        };
        let (values, write_values) = placed(bytemuck::cast_slice(F::limbs(&placed_values)), Item::Element(F::FIELD))?;
        let (words, write_words) = placed(bytemuck::cast_slice(&words), Item::Index)?;
        let mut recording = self.record();
        recording.steps.extend(write_values.into_iter().chain(write_words));
        recording.submit()?;
        Ok(SparseMatrix { backend: self.clone(), values, words, product: Arc::new(product), field: PhantomData })
    }
}

/// The task, the values or their table, and the words.
type Compressed<F> = (SparseProduct, Vec<F>, Vec<u32>);

fn compressed<F: Element>(offsets: &[u32], columns: &[u32], values: &[F], width: usize) -> Result<Compressed<F>, Error> {
    if columns.len() != values.len() {
        return Err(Error::LengthMismatch { operation: "upload_sparse", first: columns.len(), other: values.len() });
    }
    let (rows, nonzeros) = (offsets.len().saturating_sub(1), values.len());
    let mut least = 0;
    for position in 0..offsets.len().max(1) {
        let most = if position == 0 { 0 } else { nonzeros };
        least = if position == rows { nonzeros.max(least) } else { least };
        // Nothing says as much as one offset of 0 does: no rows.
        let offset = offsets.get(position).map_or(0, |&offset| offset as usize);
        if offset < least || offset > most {
            return Err(Error::RowOffset { position, offset, least, most });
        }
        least = offset;
    }
    if let Some(position) = columns.iter().position(|&column| column as usize >= width) {
        return Err(Error::IndexOutOfRange { position, index: columns[position] as usize, bound: width });
    }
    let length = |row: u32| (offsets[row as usize + 1] - offsets[row as usize]) as usize;
    let (mut sorted, mut long): (Vec<u32>, Vec<u32>) = (0..rows as u32).partition(|&row| length(row) <= SHORT);
    // Stable: neighbours stay neighbours.
    sorted.sort_by_key(|&row| length(row));
    long.sort_by_key(|&row| length(row));
    let short = sorted.len();
    // The values as they are to lie, by number; none is a zero that fills up.
    let (mut starts, mut order): (Vec<u32>, Vec<Option<usize>>) = (vec![0], Vec::new());
    for slice in sorted.chunks(SLICE) {
        let value = |row: u32, n| (n < length(row)).then(|| offsets[row as usize] as usize + n);
        for n in 0..slice.last().map_or(0, |&row| length(row)) {
            order.extend((0..SLICE).map(|at| slice.get(at).and_then(|&row| value(row, n))));
        }
        starts.push(order.len() as u32);
    }
    let mut lists = Vec::new();
    let mut shared: Vec<SharedRows> = Vec::new();
    let (mut most, mut log_parts, mut rest) = (SHORT, 0, long.as_slice());
    while !rest.is_empty() {
        most <<= LOG_FOLD;
        log_parts += LOG_FOLD;
        let (these, others) = rest.split_at(rest.partition_point(|&row| length(row) <= most));
        rest = others;
        let begin = lists.len();
        for &row in these {
            lists.push(order.len() as u32);
            order.extend((offsets[row as usize] as usize..offsets[row as usize + 1] as usize).map(Some));
        }
        lists.push(order.len() as u32);
        lists.extend(these);
        shared.push(SharedRows { log_parts, rows: these.len(), begin });
    }
    let zero = F::ZERO;
    let placed = order.iter().map(|number| number.map_or(&zero, |number| &values[number]));
    let (table, codes) = match table_of(placed.clone()) {
        Some((table, codes)) => (Some(table), codes),
        None => (None, Vec::new()),
    };
    let (coded, places) = (table.is_some(), order.len());
    let mut words = starts;
    words.extend(&sorted);
    words.extend(order.iter().map(|number| number.map_or(0, |number| columns[number])));
    words.extend(codes);
    shared.iter_mut().for_each(|shared| shared.begin += words.len());
    words.extend(lists);
    let values = table.unwrap_or_else(|| placed.copied().collect());
    let product =
        SparseProduct { field: F::FIELD, rows, columns: width, nonzeros, short, places, coded, shared, check: None };
    Ok((product, values, words))
}

/// The different values and, of each value, which it is; `None` if too few are the same.
fn table_of<'a, F: Element>(values: impl ExactSizeIterator<Item = &'a F>) -> Option<(Vec<F>, Vec<u32>)> {
    let most = MOST_KINDS.min(values.len() / 4);
    let (mut table, mut known) = (Vec::new(), HashMap::new());
    let code = |value: &F| {
        let code = *known.entry(*value).or_insert(table.len() as u32);
        if code as usize == table.len() {
            table.push(*value);
        }
        (table.len() <= most).then_some(code)
    };
    let codes = values.map(code).collect::<Option<Vec<u32>>>()?;
    Some((table, codes))
}

impl SparseProduct {
    /// Where among the words the rows of slices, columns and codes are; codes, if there are any.
    fn parts_of_words(&self) -> [usize; 3] {
        let rows = self.short.div_ceil(SLICE) + 1;
        let columns = rows + self.short;
        [rows, columns, columns + self.places]
    }

    /// What [`Kernel::Dot`] is to do with rows in slices, or with those that begin where some of the words say.
    fn dots(&self, outputs: usize, log_parts: u32, listed: Option<usize>) -> Dots {
        let [rows, columns, codes] = self.parts_of_words();
        let rows = if listed.is_some() { 0 } else { rows };
        let params = [rows, columns, if self.coded { codes } else { 0 }, listed.unwrap_or(0), 0].map(|word| word as u32);
        Dots { outputs, log_parts, cost: SHORT as u64, params }
    }
}

impl Task for SparseProduct {
    fn name(&self) -> &'static str {
        "sparse_vector"
    }

    fn field(&self) -> Field {
        self.field
    }

    fn multiplies(&self) -> Option<Kernel> {
        Some(Kernel::Dot)
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let [Some(y)] = outputs else { return Ok(()) };
        let [Some(values), Some(words), Some(x)] = inputs else {
            device.batch.zero(y);
            return Ok(());
        };
        let (field, bytes) = (self.field, self.field.bytes());
        device.dot(field, true, [values, words, x, y], &self.dots(self.short, 0, None))?;
        for SharedRows { log_parts, rows: all, begin } in self.shared.iter().filter(|shared| shared.rows > 0) {
            // As many at a time as leave so many partial sums, in the same memory.
            let most = all.min(&((MOST_BYTES / bytes) >> log_parts).max(1)).to_owned();
            let all_parts = device.scratch(((most * bytes) as u64) << log_parts)?;
            let all_sums = device.scratch((most * bytes) as u64)?;
            for start in (0..*all).step_by(most) {
                let (first, rows) = (begin + start, most.min(all - start));
                let of = |whole: &Region, bytes: u64| whole.slice(0..bytes).ok_or(Error::NoSuchDownload);
                let parts = of(&all_parts, ((rows * bytes) as u64) << log_parts)?;
                let sums = of(&all_sums, (rows * bytes) as u64)?;
                device.dot(field, true, [values, words, x, &parts], &self.dots(rows, *log_parts, Some(first)))?;
                device.fold(field, &parts, *log_parts, &sums)?;
                let uses = [SlotUse::Reads(QUAD), an_index_each(field), SlotUse::None, ANYWHERE.1];
                let places = begin + all + 1 + start;
                let places = part(words, FLAG, places..places + rows).ok_or(Error::NoSuchDownload)?;
                let whole = ([Some(&sums), Some(&places), None, Some(y)], rows);
                device.launch_quads((Kernel::Scatter, field), uses, smallvec![], whole, &[])?;
            }
        }
        Ok(())
    }

    /// By a multiplication for each row and each column, instead of one for each value: a wrong product agrees with the combination with a
    /// chance of 2^-254 or 2^-380. The matrix that it is proved of is the one that was uploaded, whatever the device holds of it.
    fn proof(&self) -> Option<Proof<'_>> {
        let check = self.check.as_ref()?;
        Some(Box::new(|inputs, outputs| {
            let (x, y) = (inputs[2].limbs(), outputs[0].limbs());
            if let Some(position) = first_above(self.field, y) {
                return Some((0, position));
            }
            let agrees = match self.field {
                Field::Fq => check.agrees::<Fq>(x, y),
                Field::Fr => check.agrees::<Fr>(x, y),
            };
            if agrees {
                return None;
            }
            // Which it is: the first, if what the device holds of the matrix is wrong.
            Some((0, first_other(self, inputs, y).unwrap_or(0)))
        }))
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        fn product<F: LimbField>(of: &SparseProduct, inputs: &[Values], outputs: &mut [Values]) {
            let (values, words, x) = (F::elements(inputs[0].limbs()), inputs[1].words(), F::elements(inputs[2].limbs()));
            let [rows, columns, codes] = of.parts_of_words();
            let y = F::elements_mut(outputs[0].limbs_mut());
            // Verification takes the words from the device, which may say anything.
            let word = |at: usize| words.get(at).map_or(0, |word| *word as usize);
            let place = |at: usize| word(at).min(of.places);
            let term = |place: usize| {
                let value = values.get(if of.coded { word(codes + place) } else { place });
                value.zip(x.get(word(columns + place))).map_or(F::ZERO, |(value, x)| *value * x)
            };
            let sliced = (0..of.short).into_par_iter().with_min_len(SLICE).map(|n| {
                let (begin, end) = (place(n / SLICE), place(n / SLICE + 1));
                (word(rows + n), (begin + n % SLICE..end).step_by(SLICE).map(term).sum::<F>())
            });
            let shared = of.shared.par_iter().flat_map(|shared| (0..shared.rows).into_par_iter().map(move |n| (shared, n)));
            let shared = shared.map(|(&SharedRows { rows, begin, .. }, n)| {
                let (first, end) = (place(begin + n), place(begin + n + 1));
                (word(begin + rows + 1 + n), (first..end).into_par_iter().with_min_len(SHORT).map(term).sum::<F>())
            });
            for (row, sum) in sliced.chain(shared).collect::<Vec<_>>() {
                if let Some(y) = y.get_mut(row) {
                    *y = sum;
                }
            }
        }
        match self.field {
            Field::Fq => product::<Fq>(self, inputs, outputs),
            Field::Fr => product::<Fr>(self, inputs, outputs),
        }
    }

    fn trials(&self) -> Vec<Trial> {
        fn of<F: Element>() -> Vec<Trial> {
            let item = Item::Element(F::FIELD);
            let width = 150;
            let x = told_apart(F::FIELD, width);
            let trial = |lengths: &[usize], kinds: usize| {
                let ends = lengths.iter().scan(0, |end, length| {
                    *end += length;
                    Some(*end as u32)
                });
                let offsets: Vec<u32> = std::iter::once(0).chain(ends).collect();
                let nonzeros: usize = lengths.iter().sum();
                let columns: Vec<u32> = (0..nonzeros).map(|n| (n * n % width) as u32).collect();
                let Values::Limbs(values) = told_apart(F::FIELD, kinds.min(nonzeros)) else { return None };
                let values: Vec<F> = F::elements(&values).iter().cycle().take(nonzeros).copied().collect();
                let (task, values, words) = compressed(&offsets, &columns, &values, width).ok()?;
                let values = Values::Limbs(F::limbs(&values).to_vec());
                let outputs = vec![(item, lengths.len())];
                Some(Trial { task: Arc::new(task), inputs: vec![values, Values::Words(words), x.clone()], outputs })
            };
            let lengths: [(&[usize], usize); 4] = [
                (&[1], 1),
                (&[0, 3, 1, 0, SHORT, SHORT + 1, 0, 2, 300], usize::MAX),
                (&[5, SHORT * SHORT + 1, 4], usize::MAX),
                (&[7, 0, 90, 1, 1, 1], 20),
            ];
            lengths.into_iter().filter_map(|(lengths, kinds)| trial(lengths, kinds)).collect()
        }
        match self.field {
            Field::Fq => of::<Fq>(),
            Field::Fr => of::<Fr>(),
        }
    }
}

impl<F: Element> SparseMatrix<F> {
    /// How many rows it has.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// let empty = backend.upload_sparse::<ark_bls12_381::Fr>(&[0, 0, 0], &[], &[], 5)?;
    /// assert_eq!(empty.rows(), 2);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn rows(&self) -> usize {
        self.product.rows
    }

    /// How many columns it has.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// let empty = backend.upload_sparse::<ark_bls12_381::Fr>(&[0, 0, 0], &[], &[], 5)?;
    /// assert_eq!(empty.columns(), 5);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn columns(&self) -> usize {
        self.product.columns
    }

    /// How many values it was given.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// let empty = backend.upload_sparse::<ark_bls12_381::Fr>(&[0, 0, 0], &[], &[], 5)?;
    /// assert_eq!(empty.nonzeros(), 0);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn nonzeros(&self) -> usize {
        self.product.nonzeros
    }

    /// Bytes that it takes where it lies.
    ///
    /// ```
    /// # let backend = bls12_field_gpu::backend()?;
    /// let empty = backend.upload_sparse::<ark_bls12_381::Fr>(&[0, 0, 0], &[], &[], 5)?;
    /// assert_eq!(empty.bytes(), 16);
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn bytes(&self) -> u64 {
        self.values.bytes() + self.words.bytes()
    }
}

impl Recording {
    /// Records the product of a sparse matrix and a vector, into new memory. A multiplication for each of the matrix's values, about half of
    /// one whose product is reduced, and half of one for each row. Long rows are shared by many invocations.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] if `x` has not as many elements as the matrix has columns, [`Error::ForeignVector`]; [`Error::Device`] if
    /// there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let x = backend.upload(&[3, 4].map(|n: u64| Fr::from(n)))?;
    /// let exchange = backend.upload_sparse(&[0, 1, 2], &[1, 0], &[Fr::from(1u64); 2], 2)?;
    /// let mut recording = backend.record();
    /// let y = recording.sparse_vector(&exchange, &x)?;
    /// recording.submit()?;
    /// assert_eq!(y.download()?, [4, 3].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sparse_vector<F: Element>(&mut self, a: &SparseMatrix<F>, x: &Vector<F>) -> Result<Vector<F>, Error> {
        self.check_sparse(a, x)?;
        let y = self.backend.vector(a.rows())?;
        self.sparse_vector_into(a, x, &y)?;
        Ok(y)
    }

    /// As [`Recording::sparse_vector`], into `y`, which has as many elements as the matrix has rows.
    ///
    /// # Errors
    /// Those of [`Recording::sparse_vector`]; [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let (x, y) = (backend.upload(&[Fr::from(3u64)])?, backend.zeros(2)?);
    /// let matrix = backend.upload_sparse(&[0, 1, 2], &[0, 0], &[1, 2].map(|n: u64| Fr::from(n)), 1)?;
    /// let mut recording = backend.record();
    /// recording.sparse_vector_into(&matrix, &x, &y)?;
    /// recording.submit()?;
    /// assert_eq!(y.download()?, [3, 6].map(|n: u64| Fr::from(n)));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn sparse_vector_into<F: Element>(
        &mut self,
        a: &SparseMatrix<F>,
        x: &Vector<F>,
        y: &Vector<F>,
    ) -> Result<(), Error> {
        self.check_sparse(a, x)?;
        self.check(a.product.name(), y, a.rows())?;
        let item = Item::Element(F::FIELD);
        let inputs = [(&a.values, item), (&a.words, Item::Index), (&x.memory, item)];
        self.task(a.product.clone(), &inputs, &[(&y.memory, item)])
    }

    fn check_sparse<F: Element>(&self, a: &SparseMatrix<F>, x: &Vector<F>) -> Result<(), Error> {
        let operation = a.product.name();
        if !self.backend.is(&a.backend) {
            return Err(Error::ForeignVector { operation });
        }
        self.check(operation, x, a.columns())
    }
}

impl<F> fmt::Debug for SparseMatrix<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SparseProduct { rows, columns, nonzeros, .. } = *self.product;
        write!(f, "SparseMatrix({rows} x {columns}, {nonzeros} values)")
    }
}
