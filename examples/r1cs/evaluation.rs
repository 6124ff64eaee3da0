//! A z, B z, C z and whether A z o B z = C z: on a backend, and by arkworks on all cores.

use super::circuit::Csr;
use ark_bls12_381::Fr;
use ark_ff::One;
use ark_relations::gr1cs::Matrix;
use bls12_field_gpu::{Backend, Error, Mask, Recording, SparseMatrix, Vector};
use rayon::prelude::*;

/// The matrices and z where a backend computes.
pub(crate) struct Resident {
    pub(crate) backend: Backend,
    matrices: [SparseMatrix<Fr>; 3],
    z: Vector<Fr>,
}

/// What a recording leaves there.
pub(crate) struct Evaluated {
    /// A z, B z, C z.
    pub(crate) products: [Vector<Fr>; 3],
    /// Which constraints hold.
    pub(crate) holds: Mask,
}

impl Resident {
    /// The matrices, and a z of zeros.
    pub(crate) fn upload(backend: &Backend, [a, b, c]: &[Csr; 3], variables: usize) -> Result<Self, Error> {
        let upload = |csr: &Csr| backend.upload_sparse(&csr.offsets, &csr.columns, &csr.values, variables);
        let matrices = [upload(a)?, upload(b)?, upload(c)?];
        Ok(Self { backend: backend.clone(), matrices, z: backend.zeros(variables)? })
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.matrices.iter().map(SparseMatrix::bytes).sum()
    }

    /// Records three products and, in one kernel, a multiplication and a comparison.
    fn evaluate(&self, recording: &mut Recording) -> Result<Evaluated, Error> {
        let [a, b, c] = &self.matrices;
        let az = recording.sparse_vector(a, &self.z)?;
        let bz = recording.sparse_vector(b, &self.z)?;
        let cz = recording.sparse_vector(c, &self.z)?;
        let holds = recording.evaluate_mask(&(&az * &bz).equals(&cz))?;
        Ok(Evaluated { products: [az, bz, cz], holds })
    }

    /// Writes to z from `first` on, and evaluates: which constraints hold.
    pub(crate) fn holds(&self, first: usize, values: &[Fr]) -> Result<Vec<bool>, Error> {
        let mut recording = self.backend.record();
        recording.write(&self.z.slice(first..first + values.len())?, values)?;
        let evaluated = self.evaluate(&mut recording)?;
        let holds = recording.download_mask(&evaluated.holds)?;
        recording.submit()?.wait()?.take(&holds)
    }

    /// Evaluates, every byte compared with what the CPU computes.
    pub(crate) fn verified(&self) -> Result<Evaluated, Error> {
        let mut recording = self.backend.record();
        let evaluated = self.evaluate(&mut recording)?;
        recording.submit_verified()?.wait()?;
        Ok(evaluated)
    }
}

/// A z, B z, C z by arkworks, row by row on all cores; coefficients of one are not multiplied by, as in arkworks' own provers.
pub(crate) fn products(matrices: &[Matrix<Fr>; 3], z: &[Fr]) -> [Vec<Fr>; 3] {
    let term = |&(coefficient, variable): &(Fr, usize)| {
        if coefficient.is_one() { z[variable] } else { coefficient * z[variable] }
    };
    matrices.each_ref().map(|matrix| matrix.par_iter().map(|row| row.iter().map(term).sum()).collect())
}

/// Which constraints hold.
pub(crate) fn holds([az, bz, cz]: &[Vec<Fr>; 3]) -> Vec<bool> {
    (az, bz, cz).into_par_iter().map(|(a, b, c)| *a * b == *c).collect()
}

/// The first constraint that does not hold.
pub(crate) fn first_violated(holds: &[bool]) -> Option<usize> {
    holds.iter().position(|holds| !holds)
}
