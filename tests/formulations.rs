//! Every formulation that the device can run, in every operation that multiplies, against the oracle.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{
    Backend, Because, CacheDirectory, Calibrate, Error, Field, Form, Formulation, Operation, Options, Parameter, Placement,
    Reduction, Validation, Width,
};
use field_kernels::Kernel;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::{Case, FORMS, Watched, alone, case_of, edges, rows, unwatched};

/// What multiplies, by kernels of its own.
const OPERATIONS: [Operation; 6] =
    [Operation::Mul, Operation::Square, Operation::MulAdd, Operation::Scale, Operation::Pow, Operation::Sqrt];

fn fields(operation: Operation) -> impl Iterator<Item = Field> {
    Field::ALL.into_iter().filter(move |&field| operation.row().available(field))
}

/// Every edge, and for operations of several vectors every pair of them.
fn at_the_edges(operation: Operation, field: Field, form: Form) -> Case {
    let (edges, row) = (edges(field), operation.row());
    let pairs = if row.vectors == 1 { 1 } else { edges.len() };
    let at = |operand: usize, index: usize| match operand {
        0 => index % edges.len(),
        1 => index / edges.len(),
        _ => (index * 7 + index / edges.len()) % edges.len(),
    };
    let vector = |operand| (0..pairs * edges.len()).flat_map(|index| edges[at(operand, index)].clone()).collect();
    let parameter = match row.parameter {
        Parameter::None => Vec::new(),
        Parameter::Scalar => edges[3].clone(),
        // Windows of every width, and zeros below them.
        Parameter::Exponent => vec![0xfedc_ba98_7654_3210 << 3, 0x8001_0203_0506_0fff],
    };
    Case { operation, field, form, vectors: (0..row.vectors).map(vector).collect(), parameter }
}

/// The formulations that the device can run. None but doubles may be missing, and those only for what they rest on: their CPU model
/// is tested in field-kernels, and `bls12-gpu check` runs them on devices that can.
fn usable() -> impl Iterator<Item = (Formulation, Backend)> {
    Formulation::ALL.into_iter().filter_map(|formulation| {
        match Backend::new(&alone(Options::new().formulation(formulation))) {
            Ok(backend) => Some((formulation, backend)),
            Err(Error::InvalidOption { option: "formulation", reason }) if formulation == Formulation::Doubles => {
                println!("not in doubles: {reason}");
                None
            }
            Err(error) => panic!("{formulation:?}: {error}"),
        }
    })
}

#[test]
fn each_gives_the_right_answer() {
    for (formulation, backend) in usable() {
        for (operation, field) in OPERATIONS.into_iter().flat_map(|operation| fields(operation).map(move |f| (operation, f)))
        {
            for form in FORMS {
                let case = at_the_edges(operation, field, form);
                let outcome = case.on(&backend).unwrap();
                assert_eq!(
                    (outcome.elements, outcome.mask),
                    case.answer(),
                    "{formulation:?}: {operation:?} {field} {form:?}"
                );
            }
        }
    }
}

/// Products have kernels in several formulations; those of inner products are in words, whatever is asked for.
#[test]
fn reductions_in_each() {
    fn check<F: Element>(backend: &Backend, formulation: Formulation) {
        // As many edges as there are, against one another, but for 0, which all products with it are; whole in two passes.
        let some: Vec<F> =
            edges(F::FIELD).iter().flat_map(|limbs| F::elements(limbs).to_vec()).filter(|x| *x != F::ZERO).collect();
        let (a, b): (Vec<F>, Vec<F>) = some.iter().flat_map(|x| some.iter().map(move |y| (*x, *y))).unzip();
        let (there, other) = (backend.upload(&a).unwrap(), backend.upload(&b).unwrap());
        for segment in [a.len(), some.len()] {
            let [products, sums] = [(); 2].map(|()| backend.zeros::<F>(a.len() / segment).unwrap());
            let mut recording = backend.record();
            recording.reduce_segments_into(Reduction::Product, &[&there], &products).unwrap();
            recording.reduce_segments_into(Reduction::InnerProduct, &[&there, &other], &sums).unwrap();
            backend.start_profile().unwrap();
            recording.submit().unwrap().wait().unwrap();
            let profile = backend.take_profile();
            let what = format!("{formulation:?} {} by {segment}", F::FIELD);
            let expected: Vec<F> = a.chunks(segment).map(|a| a.iter().fold(F::ONE, |product, x| product * x)).collect();
            assert_eq!(products.download().unwrap(), expected, "{what}");
            let inner = |a: &[F], b: &[F]| a.iter().zip(b).fold(F::ZERO, |sum, (x, y)| sum + *x * y);
            let expected: Vec<F> = a.chunks(segment).zip(b.chunks(segment)).map(|(a, b)| inner(a, b)).collect();
            assert_eq!(sums.download().unwrap(), expected, "{what}");
            // What was asked for was chosen and, where the device stamps times, seen to be launched.
            if Kernel::Scan.shader(F::FIELD, Width::Int64, formulation).is_some() {
                assert_eq!(backend.formulation_of(Kernel::Scan, F::FIELD), Some(formulation), "{what}");
                let names =
                    Width::ALL.map(|width| Kernel::Scan.shader(F::FIELD, width, formulation).map(|shader| shader.name));
                let launched = profile.spans.iter().map(|span| span.name).filter(|name| name.contains("_scan_"));
                launched.for_each(|name| assert!(names.contains(&Some(name)), "{name}: {what}"));
            }
        }
    }
    for (formulation, backend) in usable() {
        check::<Fq>(&backend, formulation);
        check::<Fr>(&backend, formulation);
    }
}

#[test]
fn each_gives_the_right_answer_to_anything() {
    let cases = (prop::sample::select(OPERATIONS.to_vec()), prop::sample::select(FORMS.to_vec()));
    for (formulation, backend) in usable() {
        let cases = cases.clone().prop_flat_map(|(operation, form)| {
            let fields: Vec<Field> = fields(operation).collect();
            prop::sample::select(fields).prop_flat_map(move |field| case_of(operation, field, form, 1..20))
        });
        let mut runner = TestRunner::new(ProptestConfig::with_cases(64));
        let right = runner.run(&cases, |case| {
            let outcome = case.on(&backend).unwrap();
            prop_assert_eq!((outcome.elements, outcome.mask), case.answer());
            Ok(())
        });
        right.unwrap_or_else(|error| panic!("{formulation:?}: {error}"));
    }
}

/// Short and long exponents, around the lengths at which the table changes.
#[test]
fn powers_of_every_length() {
    let backend = unwatched(Options::new());
    for bits in [0, 1, 2, 3, 22, 23, 24, 25, 31, 32, 33, 78, 79, 80, 81, 127, 128, 254] {
        for low in [0u64, 1, 0xb6db_6db6_db6d_b6db, u64::MAX] {
            let exponent: Vec<u64> = (0..4)
                .map(|limb| match bits - 64 * limb {
                    ..=0 => 0,
                    left @ 1..64 => (1 << (left - 1)) | (low & ((1 << (left - 1)) - 1)),
                    64 => (1 << 63) | low,
                    _ => low,
                })
                .collect();
            for field in Field::ALL {
                let case = Case { parameter: exponent.clone(), ..Case::new(Operation::Pow, field, Form::Canonical, 5) };
                assert_eq!(case.on(&backend).unwrap().elements, case.answer().0, "{field} to the {exponent:x?}");
            }
        }
    }
}

#[test]
fn what_a_device_cannot_multiply_in_is_an_error() {
    for formulation in [Formulation::Digits, Formulation::Doubles, Formulation::Adic] {
        let error = Backend::new(&Options::new().require_gpu(true).width(Width::Int32).formulation(formulation));
        assert!(matches!(error, Err(Error::InvalidOption { option: "formulation", .. })), "{error:?}");
    }
}

#[test]
fn what_is_measured_is_kept_and_obeyed() {
    let directory = tempfile::tempdir().unwrap();
    let made = |calibrate| {
        let options = Options::new().require_gpu(true).placement(Placement::Device).calibrate(calibrate);
        Backend::new(&options.cache(CacheDirectory::At(directory.path().into()))).unwrap()
    };
    let of =
        |backend: &Backend, operation| backend.explain(operation, Field::Fr, Form::Montgomery, 1000).multiplication.unwrap();
    let backend = made(Calibrate::Auto);
    assert_eq!(of(&backend, Operation::Mul).because, Because::Guessed);
    backend.choose_formulations().unwrap();
    let chosen = of(&backend, Operation::Mul);
    assert_eq!(chosen.because, Because::Measured);
    assert_eq!(of(&backend, Operation::Add).because, Because::Only);
    assert_eq!(of(&made(Calibrate::Auto), Operation::Mul), chosen);
    assert_eq!(of(&made(Calibrate::Off), Operation::Mul).because, Because::Guessed);
    for form in FORMS {
        let case = Case::new(Operation::Mul, Field::Fr, form, 100);
        assert_eq!(case.on(&backend).unwrap().elements, case.answer().0);
    }
}

#[test]
fn the_choice_is_explained() {
    let backend = Watched::validated(Options::new().formulation(Formulation::Words), Validation::On);
    for (row, field) in rows() {
        let decision = backend.explain(row.operation, field, Form::Montgomery, 1000);
        let multiplication = decision.multiplication.unwrap();
        assert_eq!(multiplication.formulation, Formulation::Words);
        assert!(matches!(multiplication.because, Because::Asked | Because::Only), "{decision}");
    }
}
