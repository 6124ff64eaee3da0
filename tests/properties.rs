//! Properties of random calls: GPU, CPU reference and oracle agree, algebra's laws hold; and every public function once.
//!
//! Elements are often edges, and failures shrink; what once failed is kept in `properties.proptest-regressions` and tried first.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::{Fq, Fr};
use ark_ff::{AdditiveGroup as _, Field as _, PrimeField};
use bls12_field_gpu::{self as root, Backend, Engine, Field, Form, MemoryMode, Operation, Options, Verify, Width, fq, fr};
use proptest::prelude::*;
use std::sync::LazyLock;
use support::{Case, Watched, any_case, cpu, element, elements, small};

/// One backend for all cases of each width. What they return is compared here, so they need not check it themselves.
static INT64: LazyLock<Watched> =
    LazyLock::new(|| Watched::new(Options::new().width(Width::Int64).memory(MemoryMode::Host).verify(Verify::Off)));
static INT32: LazyLock<Watched> =
    LazyLock::new(|| Watched::new(Options::new().width(Width::Int32).memory(MemoryMode::DeviceLocal).verify(Verify::Off)));
static CPU: LazyLock<Backend> = LazyLock::new(cpu);

/// Statics are never dropped: the log is looked at here.
fn quiet(backend: &Backend) -> Result<(), TestCaseError> {
    let messages = backend.validation_log().messages();
    prop_assert!(messages.is_empty(), "the validation layer says:\n{}", messages.join("\n"));
    Ok(())
}

fn field() -> impl Strategy<Value = Field> {
    prop::sample::select(Field::ALL.to_vec())
}

/// Two vectors of the same length.
fn pairs() -> impl Strategy<Value = (Field, Vec<u64>, Vec<u64>)> {
    field().prop_flat_map(|field| {
        let pairs = prop::collection::vec((element(field), element(field)), 0..150);
        pairs.prop_map(move |pairs| {
            let (a, b): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
            (field, a.concat(), b.concat())
        })
    })
}

fn limbs(field: Field) -> root::Limbs<'static> {
    match field {
        Field::Fq => INT64.fq(),
        Field::Fr => INT64.fr(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn gpu_and_cpu_and_oracle_agree(case in any_case(0..200)) {
        let expected = case.answer();
        for (backend, on_gpu) in [(&**INT64, true), (&**INT32, true), (&*CPU, false)] {
            let outcome = case.on(backend).unwrap();
            prop_assert_eq!((&outcome.elements, &outcome.mask), (&expected.0, &expected.1), "{}", backend.engine());
            prop_assert_eq!(outcome.report.dispatches, usize::from(on_gpu && case.length() > 0));
            prop_assert_eq!(outcome.report.verified, 0);
            quiet(backend)?;
        }
    }

    #[test]
    fn sums_can_be_taken_back((field, a, b) in pairs()) {
        let gpu = limbs(field);
        let sum = gpu.add_u64_limbs(&a, &b).unwrap();
        prop_assert_eq!(&gpu.sub_u64_limbs(&sum, &b).unwrap(), &a);
        prop_assert_eq!(&sum, &gpu.add_u64_limbs(&b, &a).unwrap());
        prop_assert_eq!(gpu.add_u64_limbs(&a, &gpu.neg_u64_limbs(&a).unwrap()).unwrap(), vec![0; a.len()]);
        quiet(&INT64)?;
    }

    #[test]
    fn products_are_what_they_should_be((field, a, b) in pairs()) {
        let gpu = limbs(field);
        let product = gpu.mul_u64_limbs(&a, &b).unwrap();
        prop_assert_eq!(&product, &gpu.mul_u64_limbs(&b, &a).unwrap());
        // (a + b)^2 = a^2 + 2 a b + b^2
        let square = gpu.square_u64_limbs(&gpu.add_u64_limbs(&a, &b).unwrap()).unwrap();
        let (a2, b2) = (gpu.square_u64_limbs(&a).unwrap(), gpu.square_u64_limbs(&b).unwrap());
        let terms = gpu.add_u64_limbs(&gpu.add_u64_limbs(&a2, &b2).unwrap(), &gpu.double_u64_limbs(&product).unwrap());
        prop_assert_eq!(square, terms.unwrap());
        prop_assert_eq!(gpu.pow_u64_limbs(&a, &[2]).unwrap(), a2);
        let to_montgomery = gpu.to_montgomery_u64_limbs(&a).unwrap();
        prop_assert_eq!(&gpu.from_montgomery_u64_limbs(&to_montgomery).unwrap(), &a);
        quiet(&INT64)?;
    }

    #[test]
    fn inverses_and_roots_are_proved_by_products((field, a, _) in pairs()) {
        let gpu = limbs(field);
        let inverses = gpu.inverse_or_zero_u64_limbs(&a).unwrap();
        let products = gpu.mul_u64_limbs(&a, &inverses).unwrap();
        let (zero, one) = (small(field, 0), small(field, 1));
        for (a, product) in a.chunks(field.limbs()).zip(products.chunks(field.limbs())) {
            prop_assert_eq!(product, if a == zero { &zero } else { &one });
        }
        if field == Field::Fq {
            // A square has the roots a and -a.
            let (roots, has_root) = gpu.sqrt_u64_limbs(&gpu.square_u64_limbs(&a).unwrap()).unwrap();
            prop_assert!(has_root.iter().all(|&flag| flag));
            let negatives = gpu.neg_u64_limbs(&a).unwrap();
            for ((root, a), negative) in roots.chunks(6).zip(a.chunks(6)).zip(negatives.chunks(6)) {
                prop_assert!(root == a || root == negative);
            }
            // -1 is no square: a^2 is one and -a^2 is not, unless it is zero.
            let (_, has_root) = gpu.sqrt_u64_limbs(&gpu.neg_u64_limbs(&gpu.square_u64_limbs(&a).unwrap()).unwrap()).unwrap();
            prop_assert_eq!(has_root, a.chunks(6).map(|a| a == zero).collect::<Vec<_>>());
        }
        quiet(&INT64)?;
    }
}

/// The process-wide backend is a GPU, else the functions on it are not tested.
fn the_process_has_a_gpu() {
    let engine = root::backend().unwrap().engine();
    assert!(matches!(engine, Engine::Vulkan { .. }), "{engine}");
}

/// Calls both forms of every function of a module on limbs.
macro_rules! every_limb_function {
    ($module:ident, $field:expr) => { every_limb_function!(@list $module, $field, a b c scalar;
        add_u64_limbs add_u64_limbs_into Add (a b);
        sub_u64_limbs sub_u64_limbs_into Sub (a b);
        neg_u64_limbs neg_u64_limbs_into Neg (a);
        double_u64_limbs double_u64_limbs_into Double (a);
        mul_u64_limbs mul_u64_limbs_into Mul (a b);
        square_u64_limbs square_u64_limbs_into Square (a);
        mul_add_u64_limbs mul_add_u64_limbs_into MulAdd (a b c);
        add_scalar_u64_limbs add_scalar_u64_limbs_into AddScalar (a scalar);
        sub_scalar_u64_limbs sub_scalar_u64_limbs_into SubScalar (a scalar);
        scale_u64_limbs scale_u64_limbs_into Scale (a scalar);
        pow_u64_limbs pow_u64_limbs_into Pow (a scalar);
        inverse_u64_limbs inverse_u64_limbs_into Inverse (a);
        inverse_or_zero_u64_limbs inverse_or_zero_u64_limbs_into InverseOrZero (a);
        to_montgomery_u64_limbs to_montgomery_u64_limbs_into ToMontgomery (a);
        from_montgomery_u64_limbs from_montgomery_u64_limbs_into FromMontgomery (a);
    ) };
    // The vectors' names come with the list: hygiene.
    (@list $module:ident, $field:expr, $a:ident $b:ident $c:ident $scalar:ident;
        $($name:ident $into:ident $operation:ident ($($argument:ident)+);)+
    ) => {
        the_process_has_a_gpu();
        let field = $field;
        // Odd salts: no zeros, which have no inverse.
        let [$a, $b, $c] = [1, 3, 5].map(|salt| elements(field, 70, salt));
        let $scalar = elements(field, 2, 7)[field.limbs()..].to_vec();
        let _ = (&$b, &$c);
        $(
            let case = Case {
                operation: Operation::$operation,
                field,
                form: Form::Canonical,
                vectors: [&$a, &$b, &$c][..Operation::$operation.row().vectors].iter().map(|&vector| vector.clone()).collect(),
                parameter: $scalar.clone(),
            };
            let (expected, _) = case.answer();
            assert_eq!($module::$name($(&$argument),+).unwrap(), expected, stringify!($name));
            let mut out = vec![u64::MAX; $a.len()];
            $module::$into($(&$argument,)+ &mut out).unwrap();
            assert_eq!(out, expected, stringify!($into));
        )+

        let mut b = $b;
        b[..field.limbs()].copy_from_slice(&$a[..field.limbs()]);
        let expected: Vec<bool> = $a.chunks(field.limbs()).zip(b.chunks(field.limbs())).map(|(a, b)| a == b).collect();
        assert!(expected[0] && !expected[1]);
        assert_eq!($module::equal_u64_limbs(&$a, &b).unwrap(), expected);
        let mut mask: Vec<bool> = expected.iter().map(|flag| !flag).collect();
        $module::equal_u64_limbs_into(&$a, &b, &mut mask).unwrap();
        assert_eq!(mask, expected);
    };
}

macro_rules! roots {
    ($module:ident) => {
        let case = Case::new(Operation::Sqrt, Field::Fq, Form::Canonical, 70);
        let expected = case.answer();
        assert!(expected.1.contains(&true) && expected.1.contains(&false));
        assert_eq!($module::sqrt_u64_limbs(&case.vectors[0]).unwrap(), expected);
        let (mut roots, mut has_root) = (vec![u64::MAX; 70 * 6], vec![true; 70]);
        $module::sqrt_u64_limbs_into(&case.vectors[0], &mut roots, &mut has_root).unwrap();
        assert_eq!((roots, has_root), expected);
    };
}

#[test]
fn every_function_of_fq() {
    every_limb_function!(fq, Field::Fq);
    roots!(fq);
}

#[test]
fn every_function_of_fr() {
    every_limb_function!(fr, Field::Fr);
}

#[test]
fn every_function_of_the_crate() {
    every_limb_function!(root, Field::Fq);
    roots!(root);
}

/// Elements of an arkworks field, edges among them; none zero.
fn ark_elements<F: PrimeField>(field: Field, salt: u64) -> Vec<F> {
    let limbs = elements(field, 70, salt);
    let bytes = |element: &[u64]| element.iter().flat_map(|limb| limb.to_le_bytes()).collect::<Vec<_>>();
    limbs.chunks(field.limbs()).map(|element| F::from_le_bytes_mod_order(&bytes(element))).collect()
}

/// Calls both forms of every function of `ark` and compares with arkworks.
macro_rules! every_ark_function {
    ($F:ty, $field:expr) => {
        every_ark_function!(@list $F, $field, a b c scalar exponent;
            add add_into (a b) (|i| a[i] + b[i]);
            sub sub_into (a b) (|i| a[i] - b[i]);
            neg neg_into (a) (|i| -a[i]);
            double double_into (a) (|i| a[i].double());
            mul mul_into (a b) (|i| a[i] * b[i]);
            square square_into (a) (|i| a[i].square());
            mul_add mul_add_into (a b c) (|i| a[i] * b[i] + c[i]);
            add_scalar add_scalar_into (a scalar) (|i| a[i] + scalar);
            sub_scalar sub_scalar_into (a scalar) (|i| a[i] - scalar);
            scale scale_into (a scalar) (|i| a[i] * scalar);
            pow pow_into (a exponent) (|i| a[i].pow(exponent));
            inverse inverse_into (a) (|i| a[i].inverse().unwrap());
            inverse_or_zero inverse_or_zero_into (a) (|i| a[i].inverse().unwrap());
        )
    };
    (@list $F:ty, $field:expr, $a:ident $b:ident $c:ident $scalar:ident $exponent:ident;
        $($name:ident $into:ident ($($argument:ident)+) ($expected:expr);)+
    ) => {
        the_process_has_a_gpu();
        let [$a, $b, $c] = [1, 3, 5].map(|salt| ark_elements::<$F>($field, salt));
        let ($scalar, $exponent) = ($a[1] + $b[1], [u64::MAX, 5, 7]);
        $(
            let expected: Vec<$F> = (0..$a.len()).map($expected).collect();
            assert_eq!(root::ark::$name($(&$argument),+).unwrap(), expected, stringify!($name));
            let mut out = vec![<$F>::from(9u64); $a.len()];
            root::ark::$into($(&$argument,)+ &mut out).unwrap();
            assert_eq!(out, expected, stringify!($into));
        )+
        let zeros = [<$F>::ZERO, <$F>::ONE];
        assert_eq!(root::ark::inverse_or_zero(&zeros).unwrap(), zeros);

        let mut b = $b;
        b[3] = $a[3];
        let expected: Vec<bool> = $a.iter().zip(&b).map(|(a, b)| a == b).collect();
        assert_eq!(root::ark::equal(&$a, &b).unwrap(), expected);
        let mut mask = vec![true; $a.len()];
        root::ark::equal_into(&$a, &b, &mut mask).unwrap();
        assert_eq!(mask, expected);
    };
}

#[test]
fn every_function_on_arkworks_fr() {
    every_ark_function!(Fr, Field::Fr);
}

#[test]
fn every_function_on_arkworks_fq() {
    every_ark_function!(Fq, Field::Fq);

    let a = ark_elements::<Fq>(Field::Fq, 1);
    let (roots, has_root) = root::ark::sqrt(&a).unwrap();
    for ((a, root), &flag) in a.iter().zip(&roots).zip(&has_root) {
        assert_eq!(flag, a.legendre().is_qr());
        // The root that is a square itself; or a root of -a.
        assert_eq!(root.square(), if flag { *a } else { -*a });
        assert!(!flag || root.legendre().is_qr());
    }
    let (mut out, mut mask) = (vec![Fq::ZERO; a.len()], vec![false; a.len()]);
    root::ark::sqrt_into(&a, &mut out, &mut mask).unwrap();
    assert_eq!((out, mask), (roots, has_root));
}

#[test]
fn conversions_are_arkworks_own() {
    the_process_has_a_gpu();
    let elements = ark_elements::<Fq>(Field::Fq, 1);
    let canonical: Vec<u64> = elements.iter().flat_map(|element| element.into_bigint().0).collect();
    let montgomery: Vec<u64> = elements.iter().flat_map(|element| element.0.0).collect();
    assert_eq!(fq::to_montgomery_u64_limbs(&canonical).unwrap(), montgomery);
    assert_eq!(fq::from_montgomery_u64_limbs(&montgomery).unwrap(), canonical);
}
