//! A compressed point of G1: 48 bytes, the x coordinate big-endian, with three flags in the bits that x leaves free.

use super::setup::G1_BYTES;
use ark_bls12_381::{Fq, G1Affine};
use ark_ec::AffineRepr;
use ark_ff::PrimeField;
use ark_serialize::CanonicalDeserialize;
use bls12_field_gpu::Field;

/// An element of Fq: canonical, little-endian limbs.
pub(crate) type Limbs = [u64; 6];

const COMPRESSED: u8 = 0b1000_0000;
const INFINITY: u8 = 0b0100_0000;
const LARGER_Y: u8 = 0b0010_0000;

/// What an encoding says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoded {
    Infinity,
    Affine {
        x: Limbs,
        /// Which of the two y is meant: the larger one, as an integer.
        larger_y: bool,
    },
}

/// A point, decompressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    Infinity,
    Affine { x: Limbs, y: Limbs },
}

/// What is wrong with a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fault {
    #[error("the compression bit is missing")]
    NotCompressed,
    #[error("the infinity bit is set and others are not zero")]
    InfinityWithMore,
    #[error("x is not below p")]
    XNotBelowModulus,
    #[error("x^3 + 4 has no square root")]
    NoRoot,
    #[error("y^2 is not x^3 + 4")]
    NotOnCurve,
    #[error("differs from arkworks")]
    Differs,
}

impl Encoded {
    /// Reads flags and x; whether there is a point with that x is not known yet.
    pub(crate) fn read(bytes: &[u8; G1_BYTES]) -> Result<Self, Fault> {
        let flags = bytes[0];
        let mut bytes = *bytes;
        bytes[0] &= !(COMPRESSED | INFINITY | LARGER_Y);
        if flags & COMPRESSED == 0 {
            return Err(Fault::NotCompressed);
        }
        let larger_y = flags & LARGER_Y != 0;
        if flags & INFINITY != 0 {
            let nothing_else = !larger_y && bytes == [0; G1_BYTES];
            return if nothing_else { Ok(Self::Infinity) } else { Err(Fault::InfinityWithMore) };
        }
        let mut x = [0; 6];
        for (limb, bytes) in x.iter_mut().rev().zip(bytes.as_chunks::<8>().0) {
            *limb = u64::from_be_bytes(*bytes);
        }
        if Field::Fq.is_canonical(&x) { Ok(Self::Affine { x, larger_y }) } else { Err(Fault::XNotBelowModulus) }
    }
}

/// arkworks' own decompression, the judge of ours: `None` where it refuses. It does not test for the subgroup, and neither
/// does anything here.
pub(crate) fn arkworks(bytes: &[u8; G1_BYTES]) -> Option<G1Affine> {
    G1Affine::deserialize_compressed_unchecked(&bytes[..]).ok()
}

impl From<&G1Affine> for Point {
    fn from(point: &G1Affine) -> Self {
        let limbs = |element: Fq| element.into_bigint().0;
        point.xy().map_or(Self::Infinity, |(x, y)| Self::Affine { x: limbs(x), y: limbs(y) })
    }
}
