//! Products of matrices, against the rate of multiplications in a chain and against the memory's.

use super::{Bench, Outcome, Row};
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{SparseMatrix, Vector};
use cpu_reference::matrices;
use rayon::prelude::*;
use std::fmt;

pub(super) fn measure(bench: &Bench) -> Outcome<Vec<Row>> {
    let n = bench.size(1 << 20);
    let side = if bench.quick { 20 } else { 1024 };
    let ones: Vec<usize> = vec![1; n];
    let mixed: Vec<usize> = (0..n).map(|i| if i % 64 == 0 { 130 } else { 2 }).collect();
    Ok(vec![
        dense::<Fr>(bench, "fr_gemm_1024_share", (side, side, side))?,
        dense::<Fq>(bench, "fq_gemm_1024_share", (side, side, side))?,
        dense::<Fr>(bench, "fr_gemv_4096", (4 * side, 4 * side, 1))?,
        dense::<Fq>(bench, "fq_gemv_4096", (4 * side, 4 * side, 1))?,
        dense::<Fr>(bench, "fr_vector_matrix_4096", (1, 4 * side, 4 * side))?,
        dense::<Fr>(bench, "fr_gemm_thin", (64, n / 4, 64))?,
        sparse::<Fr>(bench, "r1cs_spmv_share", &vec![4; n], usize::MAX, Columns::OfCircuit)?,
        sparse::<Fr>(bench, "r1cs_spmv_few_values", &vec![4; n], 20, Columns::OfCircuit)?,
        sparse::<Fr>(bench, "fr_spmv", &vec![4; n], usize::MAX, Columns::Random)?,
        sparse::<Fr>(bench, "fr_spmv_few_values", &vec![4; n], 20, Columns::Random)?,
        sparse::<Fq>(bench, "fq_spmv", &vec![4; n], usize::MAX, Columns::Random)?,
        sparse::<Fr>(bench, "fr_spmv_1_a_row", &ones, usize::MAX, Columns::Random)?,
        sparse::<Fr>(bench, "fr_spmv_32_a_row", &vec![32; n / 8], usize::MAX, Columns::Random)?,
        sparse::<Fr>(bench, "fr_spmv_mixed_rows", &mixed, usize::MAX, Columns::Random)?,
        sparse::<Fr>(bench, "fr_spmv_one_row", &[4 * n], usize::MAX, Columns::Random)?,
    ])
}

/// Products a second, against those of a chain of multiplications.
fn dense<F: Element>(bench: &Bench, name: &'static str, (rows, inner, columns): (usize, usize, usize)) -> Outcome<Row> {
    let (a, b) = (bench.elements::<F>(rows * inner, 1), bench.elements::<F>(inner * columns, 2));
    let (left, right) = (bench.backend.upload(&a)?, bench.backend.upload(&b)?);
    let out: Vector<F> = bench.backend.zeros(rows * columns)?;
    let seconds = bench.seconds(|recording| recording.matrix_product_into(&left, &right, (rows, inner, columns), &out))?;
    let random = bench.elements::<F>(columns, 3);
    if let Some(wrong) = matrices::first_wrong_product(&a, &b, &out.download()?, (inner, columns), &random) {
        return Err(format!("{name}: entry {wrong} is wrong").into());
    }
    let rate = (rows * inner * columns) as f64 / seconds;
    let detail = format!("{rows} x {inner} x {columns}: {:.2} G multiply-adds/s, {:.3} ms", rate * 1e-9, seconds * 1e3);
    Ok(Row { name, value: rate / bench.limits.chain(F::FIELD), unit: "of chain", detail })
}

/// Where the values of a sparse matrix are.
#[derive(Clone, Copy)]
enum Columns {
    /// Anywhere.
    Random,
    /// As in matrix A of arkworks' SHA-256 gadget (`examples/r1cs`): a seventh in the column of the constant one, the others as far from
    /// the diagonal as there, most of them near.
    OfCircuit,
}

impl fmt::Display for Columns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Random => "columns at random",
            Self::OfCircuit => "columns as in a circuit",
        })
    }
}

impl Columns {
    /// Of 512 values that are not in the first column, so many are less than 2^n columns from the diagonal.
    const NEAR: [(u32, u32); 7] = [(115, 4), (264, 6), (388, 8), (439, 10), (486, 12), (491, 14), (503, 16)];

    /// A column for a value in a row, of so many columns and rows.
    fn pick(self, random: &mut fastrand::Rng, row: usize, (width, rows): (usize, usize)) -> u32 {
        let anywhere = random.u32(..width as u32);
        match self {
            Self::Random => anywhere,
            Self::OfCircuit if random.u32(..7) == 0 => 0,
            Self::OfCircuit => {
                let share = random.u32(..512);
                let Some(ring) = Self::NEAR.iter().position(|(most, _)| share < *most) else { return anywhere };
                // No nearer than those of the ring within.
                let nearest = ring.checked_sub(1).map_or(0, |within| 1i64 << Self::NEAR[within].1);
                let distance = random.i64(nearest..1 << Self::NEAR[ring].1);
                let column = (row * width / rows) as i64 + if random.bool() { distance } else { -distance };
                // At the borders there is no such place on one side.
                u32::try_from(column).ok().filter(|column| (*column as usize) < width).unwrap_or(anywhere)
            }
        }
    }
}

/// Bytes a second that must be moved, values, columns, offsets, vector and result once each, against those of a copy.
fn sparse<F: Element>(bench: &Bench, name: &'static str, lengths: &[usize], kinds: usize, places: Columns) -> Outcome<Row> {
    let mut offsets = vec![0u32];
    offsets.extend(lengths.iter().scan(0, |end, length| {
        *end += *length as u32;
        Some(*end)
    }));
    let nonzeros: usize = lengths.iter().sum();
    let width = bench.size(1 << 20);
    let mut random = fastrand::Rng::with_seed(3);
    let rows = lengths.iter().enumerate().flat_map(|(row, &length)| std::iter::repeat_n(row, length));
    let columns: Vec<u32> = rows.map(|row| places.pick(&mut random, row, (width, lengths.len()))).collect();
    let different = bench.elements::<F>(kinds.min(nonzeros), 1);
    let values: Vec<F> = different.iter().cycle().take(nonzeros).copied().collect();
    let x = bench.elements::<F>(width, 2);
    let matrix: SparseMatrix<F> = bench.backend.upload_sparse(&offsets, &columns, &values, width)?;
    let (there, y) = (bench.backend.upload(&x)?, bench.backend.zeros::<F>(lengths.len())?);
    let seconds = bench.seconds(|recording| recording.sparse_vector_into(&matrix, &there, &y))?;
    let right = |(row, got): (usize, &F)| {
        let of_row = offsets[row] as usize..offsets[row + 1] as usize;
        // A single row may be long.
        *got == of_row.into_par_iter().with_min_len(1 << 10).map(|i| values[i] * x[columns[i] as usize]).sum()
    };
    if let Some(row) = y.download()?.par_iter().enumerate().position_any(|pair| !right(pair)) {
        return Err(format!("{name}: row {row} is wrong").into());
    }
    let bytes = matrix.bytes() as usize + (lengths.len() + width) * F::FIELD.bytes();
    let (rate, products) = (bytes as f64 / seconds, nonzeros as f64 / seconds);
    let detail = format!(
        "{} rows, {nonzeros} values, {places}, {:.0} MB: {:.2} TB/s, {:.2} G multiply-adds/s, {:.3} ms",
        lengths.len(),
        bytes as f64 * 1e-6,
        rate * 1e-12,
        products * 1e-9,
        seconds * 1e3
    );
    Ok(Row { name, value: rate / bench.limits.memory, unit: "of memory", detail })
}
