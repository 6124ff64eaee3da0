//! Every operation of a recording that is not one element-wise kernel, on one device.

use crate::check::LENGTHS;
use crate::measure::Inputs;
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Error, Expression, Operation, REDUCTIONS, Scan, Vector, Zeros};

/// All of them, at all lengths, in verified recordings; how many recordings that was.
pub(crate) fn check<F: Element>(backend: &Backend) -> Result<usize, Error> {
    folds::<F>(backend)?;
    for length in LENGTHS {
        let inputs = Inputs::new(Operation::Mul, F::FIELD, length);
        let (x, y) = (F::elements(inputs.vector(0)), F::elements(inputs.vector(1)));
        let (a, b) = (backend.upload(x)?, backend.upload(y)?);
        scans(backend, &a)?;
        algebra(backend, (&a, &b), (x[0], y[0]))?;
        movements(backend, &a)?;
        matrices(backend, &a, &b, y)?;
    }
    Ok(1 + 4 * LENGTHS.len())
}

/// The largest number up to `most` that divides a length.
fn divisor(length: usize, most: usize) -> usize {
    (1..=most).rev().find(|number| length.is_multiple_of(*number)).unwrap_or(1)
}

/// Every fold, at all lengths, in one verified recording.
pub(crate) fn folds<F: Element>(backend: &Backend) -> Result<(), Error> {
    let mut recording = backend.record();
    for length in LENGTHS {
        let inputs = Inputs::new(Operation::Mul, F::FIELD, length);
        let vectors = [backend.upload(F::elements(inputs.vector(0)))?, backend.upload(F::elements(inputs.vector(1)))?];
        for row in &REDUCTIONS {
            let inputs: Vec<&Vector<F>> = vectors.iter().take(row.vectors).collect();
            recording.reduce_into(row.reduction, &inputs, &backend.zeros(1)?)?;
            recording.reduce_segments_into(row.reduction, &inputs, &backend.zeros(divisor(length, 40))?)?;
        }
        recording.extents(&vectors[0], 1)?;
        recording.any_nonzero(&vectors[0], 1)?;
    }
    recording.submit_verified()?.wait().map(drop)
}

fn scans<F: Element>(backend: &Backend, a: &Vector<F>) -> Result<(), Error> {
    let mut recording = backend.record();
    let heads = backend.upload_mask(&(0..a.len()).map(|n| n % 1000 == 3).collect::<Vec<bool>>())?;
    for scan in [Scan::sum(), Scan::product()] {
        for scan in [scan, scan.exclusive(), scan.reversed(), scan.exclusive().reversed()] {
            recording.scan(scan, a)?;
            recording.scan(scan.segments(divisor(a.len(), 100)), a)?;
            recording.scan_from_heads(scan, a, &heads)?;
        }
    }
    recording.submit_verified()?.wait().map(drop)
}

fn algebra<F: Element>(backend: &Backend, (a, b): (&Vector<F>, &Vector<F>), (x, z): (F, F)) -> Result<(), Error> {
    let mut recording = backend.record();
    recording.batch_inverse(a, Zeros::Refuse)?;
    recording.divide(a, b, Zeros::Keep)?;
    let powers = recording.powers(&x, &z, a.len())?;
    recording.evaluate_point(a, &x)?;
    let points = backend.upload(&[x, z])?;
    recording.evaluate_at(b, &points)?;
    recording.divide_by_linear(a, &z)?;
    let same = recording.equal(a, a)?;
    let gate = a * b * x + a.rotate(1) * &powers - b.rotate(-2).square() + (a - b).pow(5);
    recording.evaluate(&(a * b + &powers))?;
    recording.evaluate(&gate.select(&same, b))?;
    recording.evaluate_mask(&gate.equals(a * b))?;
    // Of several kernels.
    let long = (0..30).fold(a.expression(), |sum, _| sum * b + a);
    recording.evaluate(&long)?;
    let parts: Vec<Expression<F>> = (0..9).map(|n| a.rotate(n)).collect();
    recording.evaluate(&Expression::linear_combination(parts, x))?;
    recording.submit_verified()?.wait().map(drop)
}

fn movements<F: Element>(backend: &Backend, a: &Vector<F>) -> Result<(), Error> {
    let mut recording = backend.record();
    let length = a.len();
    recording.rotate(a, 5)?;
    recording.reverse(a)?;
    let whole = 1 << length.ilog2();
    recording.bit_reverse(&a.slice(0..whole)?)?;
    let rows = divisor(length, 40);
    recording.transpose(a, rows, length / rows)?;
    recording.strided(a, 0, 3, length.div_ceil(3))?;
    recording.concatenate(&[a, &a.slice(0..length / 2)?])?;
    let places = backend.upload_indices(&(0..length as u32).rev().collect::<Vec<u32>>(), length)?;
    recording.gather(a, &places)?;
    recording.scatter(a, &places, length)?;
    let some = backend.upload_mask(&(0..length).map(|n| n % 3 != 1).collect::<Vec<bool>>())?;
    recording.compact(a, &some)?;
    recording.duplicate(a)?;
    recording.submit_verified()?.wait().map(drop)
}

fn matrices<F: Element>(backend: &Backend, a: &Vector<F>, b: &Vector<F>, values: &[F]) -> Result<(), Error> {
    let mut recording = backend.record();
    let length = a.len();
    let inner = divisor(length, 300);
    let some = length.min(7 * inner) / inner;
    let (left, right) = (a.slice(0..some * inner)?, b.slice(0..some * inner)?);
    recording.matrix_product(&left, &right, (some, inner, some))?;
    recording.matrix_vector(a, &b.slice(0..inner)?, length / inner)?;
    // Rows of none, one, two values, and one of all that are left.
    let mut offsets: Vec<u32> = vec![0];
    for row in 0..length / 2 {
        offsets.push(offsets[row] + (row % 3).min(length - offsets[row] as usize) as u32);
    }
    offsets.push(length as u32);
    let columns: Vec<u32> = (0..length as u64).map(|n| (n * n % length as u64) as u32).collect();
    let matrix = backend.upload_sparse(&offsets, &columns, values, length)?;
    recording.sparse_vector(&matrix, a)?;
    recording.submit_verified()?.wait().map(drop)
}
