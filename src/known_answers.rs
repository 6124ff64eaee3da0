//! The inputs of self-tests: the edges, where carries and reductions go wrong if they go wrong anywhere.

use crate::Field;
use crate::operation::{Parameter, Row};

/// Inputs of an operation, in whatever form: every value is below the modulus, and the CPU reference knows the answers.
pub(crate) struct KnownAnswers {
    pub(crate) vectors: Vec<Vec<u64>>,
    pub(crate) parameter: Vec<u64>,
}

impl KnownAnswers {
    pub(crate) fn new(row: &Row, field: Field) -> Self {
        let edges = edges(field);
        // Every pair of edges for operations of two vectors; powers are slow and take each edge once.
        let indices: Vec<[usize; 3]> = match row.vectors {
            1 => (0..edges.len()).map(|i| [i; 3]).collect(),
            _ => (0..edges.len() * edges.len())
                .map(|pair| [pair % edges.len(), pair / edges.len(), (pair * 7 + pair / edges.len()) % edges.len()])
                .collect(),
        };
        let vectors = (0..row.vectors).map(|operand| indices.iter().flat_map(|at| edges[at[operand]].clone()).collect());
        let parameter = match row.parameter {
            Parameter::None => vec![],
            Parameter::Scalar => edges[4].clone(),
            // Every digit of four bits, zero among them, and not a whole number of limbs.
            Parameter::Exponent => vec![0xfedc_ba98_7654_3210, 0x0f00_0000_0000_0001, 0xabc],
        };
        Self { vectors: vectors.collect(), parameter }
    }
}

/// Values below the modulus: 0, 1, 2, p - 1, p - 2, (p - 1) / 2, (p + 1) / 2, R, R - 1, p - R, R^2, and values whose words are all
/// ones or all zeros up to some word, or whose balanced digits are extremes.
pub(crate) fn edges(field: Field) -> Vec<Vec<u64>> {
    let p = field.modulus();
    let limbs = field.limbs();
    let small = |value: u64| (0..limbs).map(|i| if i == 0 { value } else { 0 }).collect::<Vec<_>>();
    let minus = |value: &[u64], subtrahend: &[u64]| {
        let mut borrow = 0u64;
        let subtract = |(&a, &b): (&u64, &u64)| {
            let (difference, b0) = a.overflowing_sub(b);
            let (difference, b1) = difference.overflowing_sub(borrow);
            borrow = u64::from(b0 | b1);
            difference
        };
        value.iter().zip(subtrahend).map(subtract).collect::<Vec<_>>()
    };
    let half: Vec<u64> = (0..limbs).map(|i| p[i] >> 1 | p.get(i + 1).map_or(0, |next| next << 63)).collect();
    let mut edges = vec![
        small(0),
        small(1),
        small(2),
        minus(p, &small(1)),
        minus(p, &small(2)),
        half.clone(),
        minus(p, &half),
        field.r().to_vec(),
        minus(field.r(), &small(1)),
        minus(p, field.r()),
        field.r2().to_vec(),
        small(u64::from(u32::MAX)),
        small(u64::MAX),
        small(1 << 32),
    ];
    for limb in 1..limbs {
        // 2^(64 limb) - 1, 2^(64 limb), and the modulus' top with ones or zeros below.
        edges.push((0..limbs).map(|i| if i < limb { u64::MAX } else { 0 }).collect());
        edges.push((0..limbs).map(|i| u64::from(i == limb)).collect());
        edges.push((0..limbs).map(|i| if i < limb { 0 } else { p[i] }).collect());
    }
    edges.push((0..limbs).map(|i| if i + 1 < limbs { u64::MAX } else { p[i] - 1 }).collect());
    edges.push((0..limbs).map(|i| if i + 1 < limbs { 0xffff_ffff_0000_0000 } else { p[i] - 1 }).collect());
    // Balanced digits of 32 bits that are all as small, and all as large, as they get, but for the highest.
    let balanced = [[0x7fff_ffff_8000_0000, 0x7fff_ffff_7fff_ffff], [0x7fff_ffff_7fff_ffff; 2]];
    edges.extend(balanced.map(|[first, others]| {
        (0..limbs)
            .map(|i| match i {
                0 => first,
                _ if i + 1 < limbs => others,
                _ => (((p[i] >> 32) - 1) << 32) | 0x7fff_ffff,
            })
            .collect()
    }));
    edges
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::TABLE;

    #[test]
    fn every_known_answer_has_inputs_below_the_modulus() {
        for field in Field::ALL {
            assert!(edges(field).iter().all(|edge| edge.len() == field.limbs() && field.is_canonical(edge)));
            for row in &TABLE {
                let known = KnownAnswers::new(row, field);
                assert_eq!(known.vectors.len(), row.vectors);
                let lengths: Vec<_> = known.vectors.iter().map(Vec::len).collect();
                assert!(lengths.iter().all(|&length| length == lengths[0] && length >= 20 * field.limbs()));
            }
        }
    }
}
