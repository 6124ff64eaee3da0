//! The example `r1cs`, on a smaller circuit: the honest witness satisfies every constraint on every engine, products agree with
//! arkworks', and wrong values are found at the constraint that arkworks names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support and of the example")]

#[path = "../examples/r1cs/circuit.rs"]
mod circuit;
#[path = "../examples/r1cs/evaluation.rs"]
mod evaluation;
mod support;

use ark_bls12_381::Fr;
use ark_ff::Field as _;
use ark_relations::gr1cs::{ConstraintSynthesizer, ConstraintSystemRef, LinearCombination, SynthesisError, Variable};
use ark_relations::utils::matrix::mat_vec_mul;
use bls12_field_gpu::{Backend, Validation};
use circuit::{Circuit, Csr, Preimage, Short, synthesize};
use evaluation::{Resident, first_violated, holds, products};
use support::{cpu, engines};

fn circuit(of: impl ConstraintSynthesizer<Fr>) -> Circuit {
    Circuit::of(synthesize(of).unwrap()).unwrap()
}

fn resident(backend: &Backend, circuit: &Circuit) -> Resident {
    let csr = circuit.matrices.each_ref().map(|matrix| Csr::new(matrix).unwrap());
    Resident::upload(backend, &csr, circuit.z.len()).unwrap()
}

/// What arkworks says of other values: in words, since that is how it does.
fn arkworks(circuit: &Circuit, z: &[Fr]) -> Option<String> {
    let (instance, witness) = z.split_at(circuit.publics());
    let mut cs = circuit.cs.borrow_mut().unwrap();
    cs.assignments.instance_assignment = instance.to_vec();
    cs.assignments.witness_assignment = witness.to_vec();
    // What it remembers of the values before.
    cs.assignments.lc_assignment.clear();
    cs.which_is_unsatisfied().unwrap()
}

#[test]
fn the_honest_witness_satisfies_every_constraint_and_a_wrong_value_does_not() {
    let circuit = circuit(Preimage::of_blocks(1));
    let expected = circuit.matrices.each_ref().map(|matrix| mat_vec_mul(matrix, &circuit.z));
    assert!(products(&circuit.matrices, &circuit.z) == expected);
    assert_eq!(first_violated(&holds(&expected)), None);
    assert_eq!(arkworks(&circuit, &circuit.z), None);

    // Of the public inputs the first and the last, of the witness the first, the last, and some between. The last is free: it
    // says what inverse a difference has, were the digest another.
    let (publics, all) = (circuit.publics(), circuit.z.len());
    let variables = [1, publics - 1, publics, all - 1].into_iter().chain((publics..all).step_by(7919));
    let wrong = variables.enumerate().map(|(number, variable)| {
        let mut z = circuit.z.clone();
        // Also bits that are another bit, and what is no small integer.
        z[variable] = [Fr::from(1u64) - z[variable], z[variable] + Fr::from(2u64), Fr::from(-5i64).pow([9])][number % 3];
        let flags = holds(&circuit.matrices.each_ref().map(|matrix| mat_vec_mul(matrix, &z)));
        let first = first_violated(&flags).map(|first| format!("R1CS - {first}"));
        assert_eq!(arkworks(&circuit, &z), first, "{}", circuit.name(variable));
        assert_eq!(first.is_none(), variable == all - 1, "{}", circuit.name(variable));
        (variable, z[variable], flags)
    });
    let wrong: Vec<_> = wrong.collect();

    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        let resident = resident(backend, &circuit);
        assert_eq!(first_violated(&resident.holds(0, &circuit.z).unwrap()), None, "{backend}");
        let evaluated = resident.verified().unwrap();
        for (ours, theirs) in evaluated.products.iter().zip(&expected) {
            assert!(ours.download().unwrap() == *theirs, "{backend}");
        }
        assert_eq!(first_violated(&evaluated.holds.download().unwrap()), None, "{backend}");
        for (variable, value, flags) in &wrong {
            assert!(resident.holds(*variable, &[*value]).unwrap() == *flags, "{} on {backend}", circuit.name(*variable));
            resident.holds(*variable, &circuit.z[*variable..=*variable]).unwrap();
        }
        assert_eq!(first_violated(&resident.holds(0, &[]).unwrap()), None, "{backend}");
    }
}

#[test]
fn another_digest_is_refused() {
    let mut preimage = Preimage::of_blocks(1);
    preimage.digest[31] ^= 1;
    let circuit = circuit(preimage);
    let first = first_violated(&resident(&cpu(), &circuit).holds(0, &circuit.z).unwrap()).unwrap();
    assert_eq!(arkworks(&circuit, &circuit.z), Some(format!("R1CS - {first}")));
}

#[test]
fn four_blocks_are_enough() {
    assert!(synthesize(Preimage::of_blocks(4)).unwrap().num_constraints() >= 1 << 17);
}

/// Of a public x and a witness w: w w = x, and (w + 3 x - 7 + ..) 0 = 0.
struct Small;

impl ConstraintSynthesizer<Fr> for Small {
    fn generate_constraints(self, cs: ConstraintSystemRef<Fr>) -> Result<(), SynthesisError> {
        let x = cs.new_input_variable(|| Ok(Fr::from(9u64)))?;
        let w = cs.new_witness_variable(|| Ok(Fr::from(3u64)))?;
        cs.enforce_r1cs_constraint(|| w.into(), || w.into(), || x.into())?;
        let more: Vec<_> = (0..3).map(|_| cs.new_witness_variable(|| Ok(Fr::from(0u64)))).collect::<Result<_, _>>()?;
        let sum = LinearCombination::from(w) + (Fr::from(3u64), x) - (Fr::from(7u64), Variable::one());
        let sum = more.into_iter().fold(sum, |sum, variable| sum - variable);
        cs.enforce_r1cs_constraint(|| sum, LinearCombination::zero, LinearCombination::zero)
    }
}

#[test]
fn a_constraint_is_told_in_short() {
    let circuit = circuit(Small);
    assert_eq!(circuit.constraint(0), "(w0) * (w0) = x1");
    assert_eq!(circuit.constraint(1), "(-7 + 3 x1 + w0 - w1 .. of 6 terms) * (0) = 0");
    let short = [0, -1, 7].map(|n: i64| Short(Fr::from(n)).to_string());
    assert_eq!(short, ["0", "-1", "7"]);
    let long = Fr::from(u64::MAX) + Fr::from(1u64);
    assert_eq!(Short(long).to_string(), "18446744073709551616");

    let csr = Csr::new(&circuit.matrices[2]).unwrap();
    assert_eq!((csr.offsets, csr.columns, csr.values), (vec![0, 1, 1], vec![1], vec![Fr::from(1u64)]));
    assert_eq!(circuit.nonzeros(), [7, 1, 1]);
}
