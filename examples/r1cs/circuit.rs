//! The circuit, by arkworks: a prover knows a message of this SHA-256. And its matrices, as a backend takes them.

use ark_bls12_381::Fr;
use ark_crypto_primitives::crh::sha256::constraints::{DigestVar, Sha256Gadget};
use ark_ff::PrimeField;
use ark_r1cs_std::alloc::AllocVar;
use ark_r1cs_std::eq::EqGadget;
use ark_r1cs_std::uint8::UInt8;
use ark_relations::gr1cs::{
    ConstraintSynthesizer, ConstraintSystem, ConstraintSystemRef, Matrix, R1CS_PREDICATE_LABEL, SynthesisError,
};
use sha2::{Digest, Sha256};
use std::fmt;
use std::num::TryFromIntError;

/// The public input is the digest as `sha2` computes it: the constraints hold only if arkworks' gadget computes the same.
pub(crate) struct Preimage {
    message: Vec<u8>,
    pub(crate) digest: [u8; 32],
}

/// Bytes of SHA-256's padding: a one and the length.
const PADDING: usize = 9;

impl Preimage {
    /// Of a message that fills so many blocks of 64 bytes when it is padded; at least one.
    pub(crate) fn of_blocks(blocks: usize) -> Self {
        let text = b"Bits are spread over constraints, forty thousand to a block. ";
        let message: Vec<u8> = text.iter().copied().cycle().take(blocks.max(1) * 64 - PADDING).collect();
        let digest = Sha256::digest(&message).into();
        Self { message, digest }
    }
}

impl ConstraintSynthesizer<Fr> for Preimage {
    fn generate_constraints(self, cs: ConstraintSystemRef<Fr>) -> Result<(), SynthesisError> {
        let digest = DigestVar::new_input(cs.clone(), || Ok(self.digest.to_vec()))?;
        let message = UInt8::new_witness_vec(cs, &self.message)?;
        Sha256Gadget::digest(&message)?.enforce_equal(&digest)
    }
}

/// A rank-1 constraint system with values for its variables: A z o B z = C z, if they are right.
pub(crate) struct Circuit {
    pub(crate) cs: ConstraintSystemRef<Fr>,
    /// A, B and C, each row a list of coefficients and the variables that they are of.
    pub(crate) matrices: [Matrix<Fr>; 3],
    /// One, the public inputs, the witness.
    pub(crate) z: Vec<Fr>,
}

/// Its constraints and their values, not yet its matrices.
pub(crate) fn synthesize(circuit: impl ConstraintSynthesizer<Fr>) -> Result<ConstraintSystemRef<Fr>, SynthesisError> {
    let cs = ConstraintSystem::new_ref();
    circuit.generate_constraints(cs.clone())?;
    cs.finalize();
    Ok(cs)
}

impl Circuit {
    pub(crate) fn of(cs: ConstraintSystemRef<Fr>) -> Result<Self, SynthesisError> {
        let matrices = cs.to_matrices()?.remove(R1CS_PREDICATE_LABEL).ok_or(SynthesisError::PredicateNotFound)?;
        let matrices = matrices.try_into().map_err(|_| SynthesisError::ArityMismatch)?;
        let z = [cs.instance_assignment()?, cs.witness_assignment()?].concat();
        Ok(Self { cs, matrices, z })
    }

    /// How many of z are not the witness: one and the public inputs.
    pub(crate) fn publics(&self) -> usize {
        self.cs.num_instance_variables()
    }

    pub(crate) fn nonzeros(&self) -> [usize; 3] {
        self.matrices.each_ref().map(|matrix| matrix.iter().map(Vec::len).sum())
    }

    /// What a variable is called: 1, x of the public inputs, w of the witness.
    pub(crate) fn name(&self, variable: usize) -> String {
        match variable.checked_sub(self.publics()) {
            Some(number) => format!("w{number}"),
            None if variable == 0 => "1".into(),
            None => format!("x{variable}"),
        }
    }

    /// A constraint in short: the linear combinations whose product is to be the third.
    pub(crate) fn constraint(&self, number: usize) -> String {
        let [a, b, c] = self.matrices.each_ref().map(|matrix| self.combination(&matrix[number]));
        format!("({a}) * ({b}) = {c}")
    }

    fn combination(&self, row: &[(Fr, usize)]) -> String {
        const SHOWN: usize = 4;
        let terms = row.iter().take(SHOWN).enumerate().map(|(position, &(coefficient, variable))| {
            let negative = small(&-coefficient).is_some();
            let sign = match (position, negative) {
                (0, false) => "",
                (0, true) => "-",
                (_, false) => " + ",
                (_, true) => " - ",
            };
            match (Short(if negative { -coefficient } else { coefficient }).to_string().as_str(), variable) {
                (factor, 0) => format!("{sign}{factor}"),
                ("1", _) => format!("{sign}{}", self.name(variable)),
                (factor, _) => format!("{sign}{factor} {}", self.name(variable)),
            }
        });
        match row.len() {
            0 => "0".into(),
            length if length > SHOWN => format!("{} .. of {length} terms", terms.collect::<String>()),
            _ => terms.collect(),
        }
    }
}

/// An element as the small integer that it is, or is the negative of.
pub(crate) struct Short(pub(crate) Fr);

fn small(element: &Fr) -> Option<u64> {
    match element.into_bigint().0 {
        [low, 0, 0, 0] => Some(low),
        _ => None,
    }
}

impl fmt::Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (small(&self.0), small(&-self.0)) {
            (Some(value), _) => write!(f, "{value}"),
            (None, Some(value)) => write!(f, "-{value}"),
            _ => write!(f, "{}", self.0),
        }
    }
}

/// A matrix compressed by rows, as [`bls12_field_gpu::Backend::upload_sparse`] takes it.
pub(crate) struct Csr {
    pub(crate) offsets: Vec<u32>,
    pub(crate) columns: Vec<u32>,
    pub(crate) values: Vec<Fr>,
}

impl Csr {
    pub(crate) fn new(matrix: &Matrix<Fr>) -> Result<Self, TryFromIntError> {
        let nonzeros = matrix.iter().map(Vec::len).sum();
        let mut csr = Self { offsets: vec![0], columns: Vec::with_capacity(nonzeros), values: Vec::with_capacity(nonzeros) };
        for row in matrix {
            for &(value, column) in row {
                csr.columns.push(column.try_into()?);
                csr.values.push(value);
            }
            csr.offsets.push(csr.values.len().try_into()?);
        }
        Ok(csr)
    }
}
