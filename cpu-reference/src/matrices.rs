//! Products of matrices, row by row in memory, and of sparse matrices and vectors.

use crate::LimbField;
use rayon::prelude::*;

/// Products that are worth handing to another thread.
const PIECE: usize = 512;

fn dot<F: LimbField>(length: usize, term: impl Fn(usize) -> F + Sync + Send) -> F {
    if length <= 2 * PIECE {
        return (0..length).map(term).sum();
    }
    (0..length).into_par_iter().with_min_len(PIECE).map(term).sum()
}

/// c = a b, where a has rows of `inner` elements and b of `columns`; neither is 0.
pub fn product<F: LimbField>(a: &[F], b: &[F], c: &mut [F], inner: usize, columns: usize) {
    let rows = c.par_chunks_mut(columns).zip(a.par_chunks(inner));
    rows.for_each(|(c, a)| {
        let entries = c.par_iter_mut().enumerate().with_min_len(PIECE.div_ceil(inner));
        entries.for_each(|(j, c)| *c = dot(inner, |i| a[i] * b[i * columns + j]));
    });
}

/// The first entry of c that is wrong as the product of a and b, if one is, by Freivalds' check (R. Freivalds, "Probabilistic Machines Can
/// Use Less Running Time", IFIP 1977): c r and a (b r) are compared, for a vector r of as many elements as there are columns. If each
/// element of r is drawn from a set of so many, a wrong row is found to be right with a chance of one in so many. Entries of the first
/// wrong row are computed again to tell which. As many multiplications as a, b and c have elements together.
pub fn first_wrong_product<F: LimbField>(
    a: &[F],
    b: &[F],
    c: &[F],
    (inner, columns): (usize, usize),
    r: &[F],
) -> Option<usize> {
    let times_r = |row: &[F]| dot(columns, |j| row[j] * r[j]);
    let b_r: Vec<F> = b.par_chunks(columns).map(times_r).collect();
    let rows = c.par_chunks(columns).zip(a.par_chunks(inner)).enumerate();
    let wrong = |(_, (c, a)): &(usize, (&[F], &[F]))| times_r(c) != dot(inner, |i| a[i] * b_r[i]);
    let (row, (got, a)) = rows.filter(wrong).find_first(|_| true)?;
    let mut right = vec![F::ZERO; columns];
    product(a, b, &mut right, inner, columns);
    Some(row * columns + right.iter().zip(got).position(|(right, got)| right != got).unwrap_or(0))
}

/// y = A x: row i of A has the values numbered from `offsets[i]` to `offsets[i + 1]`, which stand in these columns.
pub fn sparse_product<F: LimbField>(
    offsets: &[u32],
    columns: &[u32],
    value: impl Fn(usize) -> F + Sync,
    x: &[F],
    y: &mut [F],
) {
    y.par_iter_mut().enumerate().with_min_len(64).for_each(|(row, y)| {
        let (first, end) = (offsets[row] as usize, offsets[row + 1] as usize);
        *y = dot(end - first, |j| value(first + j) * x[columns[first + j] as usize]);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use ark_bls12_381::Fr;

    #[test]
    fn products_agree_with_loops_and_wrong_entries_are_found() {
        for (rows, inner, columns) in [(1, 1, 1), (3, 5, 2), (2, 1500, 3), (1, 2, 700)] {
            let numbers = |length: usize, salt: u64| (0..length as u64).map(|i| Fr::from(i * i + salt)).collect::<Vec<_>>();
            let (a, b, r) = (numbers(rows * inner, 1), numbers(inner * columns, 7), numbers(columns, 5));
            let mut c = vec![Fr::from(0u64); rows * columns];
            product(&a, &b, &mut c, inner, columns);
            for (n, &c) in c.iter().enumerate() {
                let (row, column) = (n / columns, n % columns);
                assert_eq!(c, (0..inner).map(|i| a[row * inner + i] * b[i * columns + column]).sum());
            }
            assert_eq!(first_wrong_product(&a, &b, &c, (inner, columns), &r), None);
            for wrong in [0, rows * columns / 2, rows * columns - 1] {
                let mut c = c.clone();
                c[wrong] += Fr::from(1u64);
                assert_eq!(first_wrong_product(&a, &b, &c, (inner, columns), &r), Some(wrong));
            }
        }
    }

    #[test]
    fn rows_of_sparse_matrices_may_be_empty_or_long() {
        let (offsets, x) = ([0, 0, 3000, 3001], [3u64, 5, 7].map(Fr::from));
        let columns: Vec<u32> = (0..3001).map(|i| i % 3).collect();
        let mut y = [Fr::from(1u64); 3];
        sparse_product(&offsets, &columns, |i| Fr::from(i as u64), &x, &mut y);
        let long: u64 = (0..3000).map(|i| i * [3, 5, 7][i as usize % 3]).sum();
        assert_eq!(y, [0, long, 9000].map(Fr::from));
    }
}
