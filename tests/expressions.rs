//! Fused expressions: whatever is computed in one kernel, or cut into several, is what arkworks computes one operation at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Error, Expression, Field, Formulation, Mask, Options, Validation, Vector, Width};
use field_kernels::Kernel;
use proptest::prelude::*;
use std::sync::LazyLock;
use support::{Watched, cpu, engines, numbers};

/// A step of a random expression: a value is made from earlier ones, found by numbers modulo how many there are.
#[derive(Clone, Debug)]
enum Step {
    Vector(usize),
    Rotated(usize, isize),
    Entry,
    Scalar(u64),
    Add(usize, usize),
    Sub(usize, usize),
    Neg(usize),
    Mul(usize, usize),
    Square(usize),
    Pow(usize, u64),
    Select(usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let pair = || (0usize..1000, 0usize..1000);
    prop_oneof![
        2 => (0..VECTORS).prop_map(Step::Vector),
        1 => (0..VECTORS, -5isize..2000).prop_map(|(vector, by)| Step::Rotated(vector, by)),
        1 => Just(Step::Entry),
        1 => (0u64..5).prop_map(Step::Scalar),
        4 => pair().prop_map(|(a, b)| Step::Add(a, b)),
        4 => pair().prop_map(|(a, b)| Step::Sub(a, b)),
        2 => (0usize..1000).prop_map(Step::Neg),
        6 => pair().prop_map(|(a, b)| Step::Mul(a, b)),
        1 => (0usize..1000).prop_map(Step::Square),
        1 => (0usize..1000, 0u64..20).prop_map(|(a, exponent)| Step::Pow(a, exponent)),
        1 => pair().prop_map(|(a, b)| Step::Select(a, b)),
    ]
}

const VECTORS: usize = 14;

/// What expressions are made from, on the host and where a backend computes.
struct Operands<F: Element> {
    host: Vec<Vec<F>>,
    flags: Vec<bool>,
    vectors: Vec<Vector<F>>,
    mask: Mask,
}

impl<F: Element> Operands<F> {
    fn new(backend: &Backend, length: usize) -> Self {
        let host: Vec<Vec<F>> = (0..VECTORS as u64).map(|seed| numbers(length, seed)).collect();
        let vectors: Vec<_> = host.iter().map(|elements| backend.upload(elements).unwrap()).collect();
        let mut recording = backend.record();
        // Zeros and ones.
        let mask = recording.evaluate_mask(&vectors[2].expression().equals(&vectors[2] * &vectors[2])).unwrap();
        recording.submit().unwrap();
        let flags = mask.download().unwrap();
        Self { host, flags, vectors, mask }
    }

    /// The value of a list of steps, on the host and as an expression.
    fn value(&self, steps: &[Step]) -> (Vec<F>, Expression<F>) {
        let length = self.host[0].len();
        let mut values: Vec<(Vec<F>, Expression<F>)> = vec![(self.host[0].clone(), self.vectors[0].expression())];
        for step in steps {
            let at = |n: &usize| &values[n % values.len()];
            let value = match step {
                Step::Vector(n) => (self.host[*n].clone(), (&self.vectors[*n]).into()),
                Step::Rotated(n, by) => {
                    let mut rotated = self.host[*n].clone();
                    rotated.rotate_left(by.rem_euclid(length as isize) as usize);
                    (rotated, self.vectors[*n].rotate(*by))
                }
                Step::Entry => {
                    let entry = length / 2;
                    let slice = self.vectors[3].slice(entry..entry + 1).unwrap();
                    (vec![self.host[3][entry]; length], slice.broadcast())
                }
                Step::Scalar(n) => (vec![F::from(*n) - F::from(2u64); length], (F::from(*n) - F::from(2u64)).into()),
                Step::Add(a, b) => (zip(&at(a).0, &at(b).0, |a, b| a + b), &at(a).1 + &at(b).1),
                Step::Sub(a, b) => (zip(&at(a).0, &at(b).0, |a, b| a - b), &at(a).1 - &at(b).1),
                Step::Neg(a) => (zip(&at(a).0, &at(a).0, |a, _| -a), -&at(a).1),
                Step::Mul(a, b) => (zip(&at(a).0, &at(b).0, |a, b| a * b), &at(a).1 * &at(b).1),
                Step::Square(a) => (zip(&at(a).0, &at(a).0, |a, b| a * b), at(a).1.square()),
                Step::Pow(a, exponent) => (zip(&at(a).0, &at(a).0, |a, _| a.pow([*exponent])), at(a).1.pow(*exponent)),
                Step::Select(a, b) => {
                    let chosen = self.flags.iter().zip(zip(&at(a).0, &at(b).0, |a, b| (a, b)));
                    let chosen = chosen.map(|(flag, (a, b))| if *flag { a } else { b }).collect();
                    (chosen, at(a).1.select(&self.mask, &at(b).1))
                }
            };
            values.push(value);
        }
        values.pop().unwrap()
    }
}

fn zip<F: Copy, T>(a: &[F], b: &[F], of: impl Fn(F, F) -> T) -> Vec<T> {
    a.iter().zip(b).map(|(a, b)| of(*a, *b)).collect()
}

fn agrees<F: Element>(backend: &Backend, length: usize, steps: &[Step]) {
    let operands = Operands::<F>::new(backend, length);
    let (expected, expression) = operands.value(steps);
    let mut recording = backend.record();
    let out = recording.evaluate(&expression).unwrap();
    let against = recording.evaluate_mask(&expression.equals(&operands.vectors[0])).unwrap();
    recording.submit_verified().unwrap().wait().unwrap();
    // An expression of scalars only has one position.
    let got = out.download().unwrap();
    assert_eq!(got, expected[..got.len()]);
    assert_eq!(against.download().unwrap(), zip(&expected, &operands.host[0], |a, b| a == b));
}

static ENGINES: LazyLock<Vec<Watched>> = LazyLock::new(|| engines(Validation::On));
static CPU: LazyLock<Backend> = LazyLock::new(cpu);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn random_expressions_are_what_arkworks_says(
        steps in prop::collection::vec(step(), 1..20),
        length in prop_oneof![Just(1usize), Just(64), Just(65), 1usize..700],
    ) {
        for backend in ENGINES.iter().map(|watched| &**watched).chain([&*CPU]) {
            agrees::<Fr>(backend, length, &steps);
            agrees::<Fq>(backend, length, &steps);
        }
    }
}

/// Which launch 100 elements at a time.
static CUT: LazyLock<Vec<Watched>> =
    LazyLock::new(|| Width::ALL.map(|width| Watched::new(Options::new().width(width).chunk_elements(100))).into());

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn and_so_they_are_if_launches_are_cut(steps in prop::collection::vec(step(), 1..20), length in 101usize..700) {
        for backend in &*CUT {
            agrees::<Fr>(backend, length, &steps);
            agrees::<Fq>(backend, length, &steps);
        }
    }
}

/// The formulations that the device can run.
fn usable() -> impl Iterator<Item = (Formulation, Backend)> {
    Formulation::ALL.into_iter().filter_map(|formulation| {
        match Backend::new(&support::alone(Options::new().formulation(formulation))) {
            Ok(backend) => Some((formulation, backend)),
            Err(Error::InvalidOption { option: "formulation", .. }) if formulation == Formulation::Doubles => None,
            Err(error) => panic!("{formulation:?}: {error}"),
        }
    })
}

/// A backend for each that expressions of a field have.
fn of_expressions(field: Field) -> Vec<Backend> {
    let exists = |formulation| Kernel::Expression.shader(field, Width::Int64, formulation).is_some();
    let backends = usable().filter(|(formulation, _)| exists(*formulation)).map(|(formulation, backend)| {
        // Expressions multiply as this kernel does.
        assert_eq!(backend.formulation_of(Kernel::MulAdd, field), Some(formulation));
        backend
    });
    backends.collect()
}

static FORMULATIONS: LazyLock<[Vec<Backend>; 2]> = LazyLock::new(|| [Field::Fq, Field::Fr].map(of_expressions));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4))]

    #[test]
    fn and_so_they_are_in_every_formulation(steps in prop::collection::vec(step(), 1..12), length in 1usize..700) {
        let [of_fq, of_fr] = &*FORMULATIONS;
        of_fq.iter().for_each(|backend| agrees::<Fq>(backend, length, &steps));
        of_fr.iter().for_each(|backend| agrees::<Fr>(backend, length, &steps));
    }
}

/// In one kernel and in every formulation that the device can run.
#[test]
fn worked_examples_in_every_formulation() {
    for (_, backend) in usable() {
        for length in [1, 255, 257, 1031] {
            gate::<Fr>(&backend, length);
            gate::<Fq>(&backend, length);
        }
    }
}

/// The gate of PLONK, and the quotient of Groth16, each by one kernel.
fn gate<F: Element>(backend: &Backend, length: usize) {
    let host: Vec<Vec<F>> = (0..9).map(|seed| numbers(length, seed)).collect();
    let vectors: Vec<Vector<F>> = host.iter().map(|elements| backend.upload(elements).unwrap()).collect();
    let [ql, a, qr, b, qm, qo, c, qc, z] = &vectors[..] else { panic!() };
    let alpha = F::from(7u64).inverse().unwrap();
    let gate = ql * a + qr * b + qm * a * b + qo * c + qc + (z.rotate(1) - z) * alpha;
    let quotient = (a * b - c) * alpha;
    let mut recording = backend.record();
    let (gate, quotient) = (recording.evaluate(&gate).unwrap(), recording.evaluate(&quotient).unwrap());
    recording.submit().unwrap().wait().unwrap();
    let (gate, quotient) = (gate.download().unwrap(), quotient.download().unwrap());
    for i in 0..length {
        let [ql, a, qr, b, qm, qo, c, qc, z] = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|n| host[n][i]);
        let next = host[8][(i + 1) % length];
        assert_eq!(gate[i], ql * a + qr * b + qm * a * b + qo * c + qc + alpha * (next - z));
        assert_eq!(quotient[i], (a * b - c) * alpha);
    }
}

#[test]
fn one_kernel_where_one_is_enough_and_none_is_built_again() {
    let backend = Watched::new(Options::new());
    let operands = Operands::<Fr>::new(&backend, 300);
    let v = &operands.vectors;
    let dispatches = |scalar: u64, by: isize| {
        let gate = &v[0] * &v[1] + &v[2] * &v[3] + &v[4] * &v[0] * &v[2] + (v[5].rotate(by) - &v[5]) * Fr::from(scalar);
        let mut recording = backend.record();
        let out = recording.evaluate(&gate).unwrap();
        let before = backend.stats().device;
        recording.submit().unwrap().wait().unwrap();
        let after = backend.stats().device;
        drop(out);
        (after.dispatches - before.dispatches, after.pipeline_builds - before.pipeline_builds)
    };
    // With its self-test's two.
    assert_eq!(dispatches(5, 1), (3, 1));
    // Other scalars and other rotations are no other kernel.
    assert_eq!(dispatches(6, -2), (1, 0));
}

/// Scalars of their own, more of them than are written at once.
fn many_scalars<F: Element>(backend: &Backend) {
    let (a, b) = (numbers::<F>(3, 1), numbers::<F>(3, 2));
    let (x, y) = (backend.upload(&a).unwrap(), backend.upload(&b).unwrap());
    let scalars = numbers::<F>(300, 3);
    // The first of its kind is tested.
    let mut recording = backend.record();
    recording.evaluate(&(&x * scalars[0] + &y)).unwrap();
    recording.submit().unwrap().wait().unwrap();
    let before = backend.stats();
    let mut recording = backend.record();
    let evaluated = scalars.iter().map(|scalar| recording.evaluate(&(&x * *scalar + &y)).unwrap());
    let outs: Vec<Vector<F>> = evaluated.collect();
    recording.submit().unwrap().wait().unwrap();
    // All wait for what writes the scalars, and for nothing else.
    assert_eq!(backend.stats().device.barriers, before.device.barriers + 1);
    for (scalar, out) in scalars.iter().zip(&outs) {
        assert_eq!(out.download().unwrap(), zip(&a, &b, |a, b| a * scalar + b));
    }
}

#[test]
fn scalars_of_many_expressions_are_written_together() {
    for backend in &engines(Validation::On) {
        many_scalars::<Fq>(backend);
        many_scalars::<Fr>(backend);
    }
    // Then they go by way of staging memory.
    many_scalars::<Fr>(&Watched::new(Options::new().wipe(true)));
}

#[test]
fn long_expressions_are_cut() {
    for backend in [Width::Int64, Width::Int32].map(|width| Watched::new(Options::new().width(width))) {
        let operands = Operands::<Fr>::new(&backend, 70);
        let (v, host) = (&operands.vectors, &operands.host);
        // More operands than a kernel has slots, and more products than it may have.
        let challenge = Fr::from(3u64);
        let combined = Expression::linear_combination(v.iter().map(Expression::from), challenge);
        let crossed =
            (0..60).fold(v[0].expression(), |sum, n| &sum * &v[n % VECTORS] + v[(n + 5) % VECTORS].rotate(n as isize));
        let mut recording = backend.record();
        let combined = recording.evaluate(&combined).unwrap();
        let crossed = recording.evaluate(&crossed).unwrap();
        recording.submit().unwrap();
        let (combined, crossed) = (combined.download().unwrap(), crossed.download().unwrap());
        for i in 0..70 {
            let expected = host.iter().rev().fold(Fr::from(0u64), |sum, vector| sum * challenge + vector[i]);
            assert_eq!(combined[i], expected);
            let step = |sum: Fr, n: usize| sum * host[n % VECTORS][i] + host[(n + 5) % VECTORS][(i + n) % 70];
            assert_eq!(crossed[i], (0..60).fold(host[0][i], step));
        }
    }
}

/// Neither to flatten nor to drop one overflows the stack.
#[test]
fn very_long_expressions_are_no_trouble() {
    let backend = cpu();
    let a = backend.upload(&[Fr::from(1u64)]).unwrap();
    let long = (0..50_000).fold(a.expression(), |sum, _| sum + &a);
    let mut recording = backend.record();
    let out = recording.evaluate(&long).unwrap();
    recording.submit().unwrap();
    assert_eq!(out.download().unwrap(), [Fr::from(50_001u64)]);
}

#[test]
fn in_place_where_it_is_safe_and_refused_where_not() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&*CPU]) {
        let a = backend.upload(&numbers::<Fr>(100, 1)).unwrap();
        let host = numbers::<Fr>(100, 1);
        let mut recording = backend.record();
        assert!(matches!(recording.evaluate_into(&(a.rotate(1) + &a), &a), Err(Error::Overlap { operation: "evaluate" })));
        let part = a.slice(0..1).unwrap();
        assert!(matches!(recording.evaluate_into(&(&a * part.broadcast()), &a), Err(Error::Overlap { .. })));
        let (low, high) = (a.slice(0..60).unwrap(), a.slice(40..100).unwrap());
        assert!(matches!(recording.evaluate_into(&(&low * &low), &high), Err(Error::Overlap { .. })));
        let mask = backend.record().equal(&a, &a).unwrap();
        let condition = (&a * &a).select(&mask, &a).equals(&a);
        assert!(matches!(recording.evaluate_mask_into(&condition, &mask), Err(Error::Overlap { .. })));
        assert!(matches!(recording.evaluate(&(&low + &a)), Err(Error::LengthMismatch { .. })));
        assert!(matches!(recording.evaluate(&(&a + a.broadcast())), Err(Error::LengthMismatch { other: 100, .. })));
        assert!(recording.is_empty());
        recording.evaluate_into(&(&a * &a - &a), &a).unwrap();
        recording.submit().unwrap();
        assert_eq!(a.download().unwrap(), host.iter().map(|x| *x * x - x).collect::<Vec<_>>());
        let empty = backend.upload::<Fr>(&[]).unwrap();
        let mut recording = backend.record();
        assert!(recording.evaluate(&(&empty + empty.rotate(3))).unwrap().is_empty());
        let one = recording.evaluate(&(Expression::from(Fr::from(2u64)) * Fr::from(3u64))).unwrap();
        recording.submit().unwrap();
        assert_eq!(one.download().unwrap(), [Fr::from(6u64)]);
    }
    let other = cpu();
    let (mine, theirs) = (CPU.upload(&[Fr::from(1u64)]).unwrap(), other.upload(&[Fr::from(1u64)]).unwrap());
    assert!(matches!(CPU.record().evaluate(&(&mine + &theirs)), Err(Error::ForeignVector { .. })));
}

/// What one kernel leaves for the next is memory for the one after that.
#[test]
fn a_long_expression_takes_no_more_memory_than_a_short_one() {
    let length = 1 << 14;
    let bytes = 32 * length as u64;
    // For a, b, the result, and two between.
    let backend = Watched::new(Options::new().device_memory(5 * bytes + (64 << 10)));
    let (a, b) = (numbers::<Fr>(length, 1), numbers::<Fr>(length, 2));
    let (x, y) = (backend.upload(&a).unwrap(), backend.upload(&b).unwrap());
    let mut expression = x.expression();
    for _ in 0..150 {
        expression = expression * &x + &y;
    }
    let mut recording = backend.record();
    let out = recording.evaluate(&expression).unwrap();
    let required = recording.memory_required().unwrap();
    assert!(required.device + required.host <= 2 * bytes + (64 << 10), "{required:?}");
    recording.submit().unwrap().wait().unwrap();
    let expected = zip(&a, &b, |a, b| (0..150).fold(a, |sum, _| sum * a + b));
    assert!(out.download().unwrap() == expected);
}

/// More of them than a kernel has parameters.
#[test]
fn any_number_of_rotations() {
    for backend in engines(Validation::On).iter().chain(&*CUT) {
        for (length, count) in [(1usize, 40usize), (2, 9), (63, 16), (700, 40)] {
            let a = numbers::<Fr>(length, 1);
            let (x, scalar) = (backend.upload(&a).unwrap(), Fr::from(5u64));
            let mut recording = backend.record();
            let parts: Vec<Expression<Fr>> = (0..count as isize).map(|by| x.rotate(by - 7)).collect();
            let out = recording.evaluate(&Expression::linear_combination(parts, scalar)).unwrap();
            recording.submit().unwrap().wait().unwrap();
            let at = |index: usize, by: usize| a[(index + by + 7 * length - 7) % length];
            let expected = |index| (0..count).rev().fold(Fr::from(0u64), |sum, by| sum * scalar + at(index, by));
            assert_eq!(out.download().unwrap(), (0..length).map(expected).collect::<Vec<Fr>>(), "{length} {count}");
        }
    }
}
