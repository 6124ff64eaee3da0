//! What callers can get wrong: each mistake is an error that says what and where, nothing is written, and the backend
//! goes on working.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use ark_bls12_381::{Fq, Fr};
use ark_ff::AdditiveGroup as _;
use bls12_field_gpu::{
    Backend, CacheDirectory, DeviceChoice, DeviceError, Error, ErrorKind, Field, Form, Operation, Options, Outcome,
    Parameter, Verify,
};
use std::sync::LazyLock;
use support::oracle::oracle;
use support::{Case, FORMS, Watched, cpu, rows, small, unwatched};

static GPU: LazyLock<Watched> = LazyLock::new(|| Watched::new(Options::new()));
static CPU: LazyLock<Backend> = LazyLock::new(cpu);

/// Both kinds of backend refuse the same input in the same words.
fn backends() -> [&'static Backend; 2] {
    [&GPU, &CPU]
}

/// The backend still computes, and the validation layer has nothing to say.
fn still_right(backend: &Backend) {
    assert_eq!(backend.fq().mul_u64_limbs(&small(Field::Fq, 6), &small(Field::Fq, 7)).unwrap(), small(Field::Fq, 42));
    assert_eq!(backend.fr().add_u64_limbs(&small(Field::Fr, 1), &small(Field::Fr, 2)).unwrap(), small(Field::Fr, 3));
    assert_eq!(backend.validation_log().messages(), [""; 0]);
}

fn refused(backend: &Backend, result: Result<Outcome, Error>, message: &str) {
    let error = result.unwrap_err();
    assert_eq!((error.to_string().as_str(), error.kind()), (message, ErrorKind::BadInput), "{backend}");
    still_right(backend);
}

#[test]
fn lengths_that_differ() {
    for (row, field) in rows().filter(|(row, _)| row.vectors > 1) {
        for operand in 1..row.vectors {
            for length in [0, 2, 4] {
                let mut case = Case::new(row.operation, field, Form::Canonical, 3);
                case.vectors[operand] = vec![1; length * field.limbs()];
                for backend in backends() {
                    let message = format!("{}: the operands have 3 and {length} elements", row.name);
                    refused(backend, case.on(backend), &message);
                }
            }
        }
    }
}

#[test]
fn vectors_that_are_not_whole_elements() {
    for (row, field) in rows() {
        for operand in 0..row.vectors {
            for limbs in [1, 3 * field.limbs() - 1, 3 * field.limbs() + 1] {
                let mut case = Case::new(row.operation, field, Form::Montgomery, 3);
                case.vectors[operand].resize(limbs, 1);
                for backend in backends() {
                    let per_element = field.limbs();
                    let message =
                        format!("{}: {limbs} limbs are not a whole number of elements of {per_element} limbs", row.name);
                    refused(backend, case.on(backend), &message);
                }
            }
        }
    }
}

#[test]
fn elements_not_below_the_modulus() {
    for (row, field) in rows() {
        let p = oracle(field).limbs_of(&oracle(field).p);
        let mut above = p.clone();
        above[0] += 1;
        let ones = vec![u64::MAX; field.limbs()];
        for form in FORMS {
            for (operand, name) in ["a", "b", "c"].into_iter().take(row.vectors).enumerate() {
                for (index, wrong) in [(0, &p), (1, &above), (9999, &ones)] {
                    let mut case = Case::new(row.operation, field, form, 10_000);
                    let limbs = field.limbs();
                    case.vectors[operand][index * limbs..(index + 1) * limbs].copy_from_slice(wrong);
                    // The first one is named.
                    case.vectors[operand][9999 * limbs..].copy_from_slice(&p);
                    let message = format!("{}: element {index} of {name} is not below the modulus of {field}", row.name);
                    for backend in backends() {
                        let error = case.on(backend).unwrap_err();
                        assert_eq!((error.to_string(), error.kind()), (message.clone(), ErrorKind::BadInput));
                    }
                }
            }
            if row.parameter == Parameter::Scalar {
                let case = Case { parameter: p.clone(), ..Case::new(row.operation, field, form, 3) };
                let message = format!("{}: element 0 of scalar is not below the modulus of {field}", row.name);
                for backend in backends() {
                    refused(backend, case.on(backend), &message);
                }
            }
        }
    }
    backends().into_iter().for_each(still_right);
}

#[test]
fn scalars_of_the_wrong_length() {
    for (row, field) in rows().filter(|(row, _)| row.parameter == Parameter::Scalar) {
        let per_element = field.limbs();
        for limbs in [0, 1, per_element - 1, per_element + 1, 2 * per_element] {
            let case = Case { parameter: vec![1; limbs], ..Case::new(row.operation, field, Form::Canonical, 3) };
            let message = format!("{}: the scalar has {limbs} limbs and an element has {per_element}", row.name);
            for backend in backends() {
                refused(backend, case.on(backend), &message);
            }
        }
    }
}

#[test]
fn another_number_of_vectors() {
    for (row, field) in rows() {
        for count in (0..5).filter(|&count| count != row.vectors) {
            let vectors = vec![vec![1; field.limbs()]; count];
            let case = Case { vectors, ..Case::new(row.operation, field, Form::Canonical, 1) };
            let message = format!("{} takes {} vectors, {count} were given", row.name, row.vectors);
            for backend in backends() {
                refused(backend, case.on(backend), &message);
            }
        }
    }
}

#[test]
fn square_roots_in_fr() {
    let case = Case { vectors: vec![vec![4, 0, 0, 0]], ..Case::new(Operation::Sqrt, Field::Fr, Form::Canonical, 0) };
    for backend in backends() {
        refused(backend, case.on(backend), "sqrt is not available for Fr");
        let error = backend.fr().sqrt_u64_limbs(&[4, 0, 0, 0]).unwrap_err();
        assert!(matches!(error, Error::NotAvailable { operation: "sqrt", field: Field::Fr }), "{error}");
    }
}

#[test]
fn inverses_of_zero() {
    for field in Field::ALL {
        for form in FORMS {
            for index in [0, 1, 8191] {
                let mut case = Case::new(Operation::Inverse, field, form, 8192);
                let limbs = field.limbs();
                case.vectors[0][index * limbs..(index + 1) * limbs].fill(0);
                case.vectors[0][8191 * limbs..].fill(0);
                for backend in backends() {
                    refused(backend, case.on(backend), &format!("inverse: element {index} is zero"));
                }
            }
        }
    }
    for backend in backends() {
        let mut a = vec![Fq::from(5u64); 70];
        (a[66], a[69]) = (Fq::ZERO, Fq::ZERO);
        assert!(matches!(backend.inverse(&a), Err(Error::ZeroInverse { index: 66 })));
        assert!(matches!(backend.inverse(&[Fr::ZERO]), Err(Error::ZeroInverse { index: 0 })));
        let mut out = vec![Fq::from(9u64); 70];
        assert!(matches!(backend.inverse_into(&a, &mut out), Err(Error::ZeroInverse { index: 66 })));
        assert_eq!(out, vec![Fq::from(9u64); 70]);
        still_right(backend);
    }
}

#[test]
fn arkworks_vectors_of_different_lengths() {
    let [two, three] = [2u64, 3].map(|length| vec![Fr::from(length); length as usize]);
    for backend in backends() {
        assert!(matches!(backend.add(&two, &three), Err(Error::LengthMismatch { operation: "add", first: 2, other: 3 })));
        assert!(matches!(backend.mul_add(&two, &two, &three), Err(Error::LengthMismatch { first: 2, other: 3, .. })));
        assert!(matches!(backend.equal(&three, &two), Err(Error::LengthMismatch { first: 3, other: 2, .. })));
        let mut out = vec![Fr::from(9u64); 3];
        assert!(matches!(backend.add_into(&two, &two, &mut out), Err(Error::OutputLength { expected: 8, got: 12, .. })));
        assert_eq!(out, vec![Fr::from(9u64); 3]);
        still_right(backend);
    }
}

#[test]
fn outputs_of_the_wrong_length_are_left_alone() {
    const MARK: u64 = 0x5555_5555_5555_5555;
    let a = small(Field::Fq, 4).repeat(3);
    for backend in backends() {
        let fq = backend.fq();
        for length in [0, 6, 17, 19, 24] {
            let mut out = vec![MARK; length];
            let error = fq.add_u64_limbs_into(&a, &a, &mut out).unwrap_err();
            assert_eq!(error.to_string(), format!("add: the output has room for {length} values and 18 are needed"));
            assert_eq!(error.kind(), ErrorKind::BadInput);
            let error = fq.sqrt_u64_limbs_into(&a, &mut out, &mut [true; 3]).unwrap_err();
            assert!(matches!(error, Error::OutputLength { operation: "sqrt", expected: 18, .. }), "{error}");
            assert_eq!(out, vec![MARK; length]);
        }
        for length in [0, 2, 4, 18] {
            let (mut mask, mut out) = (vec![true; length], vec![MARK; 18]);
            let error = fq.equal_u64_limbs_into(&a, &[0; 18], &mut mask).unwrap_err();
            assert!(matches!(error, Error::OutputLength { operation: "equal", expected: 3, got } if got == length));
            let error = fq.sqrt_u64_limbs_into(&a, &mut out, &mut mask).unwrap_err();
            assert!(matches!(error, Error::OutputLength { operation: "sqrt", expected: 3, got } if got == length));
            assert_eq!((mask, out), (vec![true; length], vec![MARK; 18]));
        }
        still_right(backend);
    }
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    const MARK: u64 = 0x5555_5555_5555_5555;
    let mut bad = small(Field::Fq, 4).repeat(3);
    bad[17] = u64::MAX;
    let good = small(Field::Fq, 4).repeat(3);
    for backend in backends() {
        let fq = backend.fq();
        let (mut out, mut mask) = (vec![MARK; 18], vec![true; 3]);
        assert!(fq.mul_u64_limbs_into(&good, &good[..12], &mut out).is_err());
        assert!(fq.scale_u64_limbs_into(&good, &bad[12..], &mut out).is_err());
        assert!(fq.scale_u64_limbs_into(&good, &[], &mut out).is_err());
        assert!(fq.neg_u64_limbs_into(&good[..17], &mut out).is_err());
        assert_eq!((&out, &mask), (&vec![MARK; 18], &vec![true; 3]));
        // Values are looked at on the way: what the output holds then is unspecified.
        assert!(fq.add_u64_limbs_into(&good, &bad, &mut out).is_err());
        assert!(fq.mul_add_u64_limbs_into(&good, &good, &bad, &mut out).is_err());
        assert!(fq.pow_u64_limbs_into(&bad, &[3], &mut out).is_err());
        assert!(fq.inverse_u64_limbs_into(&[0; 18], &mut out).is_err());
        assert!(fq.sqrt_u64_limbs_into(&bad, &mut out, &mut mask).is_err());
        assert!(fq.equal_u64_limbs_into(&good, &bad, &mut mask).is_err());
        still_right(backend);
    }
}

/// More elements than any address space has room for, and more than there are numbers for their bytes.
#[test]
fn lengths_that_no_memory_has() {
    let mut huge = vec![1 << 46, 1 << 59, (1 << 59) + 1, 1 << 62, usize::MAX];
    // Where no more is promised than there is.
    if std::fs::read_to_string("/proc/sys/vm/overcommit_memory").is_ok_and(|mode| mode.trim() != "1") {
        huge.push(1 << 40);
    }
    for backend in backends() {
        let one = Fr::from(1u64);
        let a = backend.upload(&[one; 4]).unwrap();
        let none = backend.zeros::<Fr>(0).unwrap();
        let indices = backend.upload_indices(&[3, 0, 1, 2], 4).unwrap();
        for length in huge.iter().copied() {
            let mut recording = backend.record();
            let refused = [
                backend.zeros::<Fr>(length).map(drop),
                backend.zeros::<Fq>(length).map(drop),
                backend.falses(length).map(drop),
                backend.pinned::<Fr>(length).map(drop),
                backend.pinned::<Fq>(length).map(drop),
                recording.powers(&one, &one, length).map(drop),
                recording.scatter(&a, &indices, length).map(drop),
                recording.matrix_vector(&none, &none, length).map(drop),
                recording.matrix_product(&none, &none, (length, 0, 1)).map(drop),
                recording.matrix_product(&none, &none, (length, 0, length)).map(drop),
                // No vector at all has so many segments.
                recording.extents(&none, length).map(drop),
                recording.any_nonzero(&none, length).map(drop),
            ];
            for (number, refused) in refused.into_iter().enumerate() {
                let error = refused.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::DeviceFault, "{error}");
                let memory = matches!(error, Error::Device(DeviceError::OutOfMemory { during: "one allocation", .. }));
                assert!(memory, "{number}: {error} on {backend}");
            }
            assert!(recording.strided(&a, 0, 0, length).is_err());
            assert!(recording.transpose(&a, length, length).is_err());
            assert!(a.slice(0..length).is_err());
            assert!(recording.is_empty());
            backend.vector_memory_required(Field::Fq, length);
        }
        still_right(backend);
    }
}

// ----------------------------------------------------------------------------------------------------------------- options

fn impossible(options: Options) -> Error {
    let error = Backend::new(&options).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadInput, "{error}");
    error
}

#[test]
fn workgroup_sizes_that_the_device_does_not_run() {
    let options = || Options::new().require_gpu(true).cache(CacheDirectory::Off);
    assert!(matches!(impossible(options().workgroup_size(0)), Error::InvalidOption { option: "workgroup_size", .. }));
    for size in [1 << 20, u32::MAX] {
        match impossible(options().workgroup_size(size)) {
            Error::Device(DeviceError::WorkgroupSize { requested, maximum }) => {
                assert_eq!(requested, size);
                assert!((64..1 << 20).contains(&maximum));
                still_right(&unwatched(Options::new().workgroup_size(maximum)));
                impossible(options().workgroup_size(maximum + 1));
            }
            other => panic!("{other}"),
        }
    }
    // Odd, but possible.
    for size in [1, 7] {
        still_right(&Watched::new(Options::new().workgroup_size(size)));
    }
}

#[test]
fn devices_that_do_not_exist() {
    let here = bls12_field_gpu::survey().unwrap().len();
    for index in [here, usize::MAX] {
        let error = impossible(Options::new().device(DeviceChoice::Index(index)).cache(CacheDirectory::Off));
        match error {
            Error::Device(DeviceError::NoSuchDevice { requested, available }) => {
                assert_eq!((requested, available), (index, here));
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn cache_directories_that_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "a file").unwrap();
    for path in [file.clone(), file.join("below"), file.join("far/below")] {
        let error = impossible(Options::new().require_gpu(true).cache(CacheDirectory::At(path.clone())));
        assert!(
            matches!(&error, Error::Device(DeviceError::CacheDirectory { path: named, .. }) if *named == path),
            "{error}"
        );
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "a file");
    let made = directory.path().join("made/on/demand");
    still_right(&Backend::new(&Options::new().require_gpu(true).cache(CacheDirectory::At(made.clone()))).unwrap());
    assert!(made.is_dir());
}

#[test]
fn options_that_contradict_themselves() {
    let error = impossible(Options::new().require_gpu(true).device(DeviceChoice::Cpu));
    assert!(matches!(error, Error::InvalidOption { option: "device", .. }), "{error}");
    let error = impossible(Options::new().verify(Verify::Sample(0)));
    assert!(matches!(error, Error::InvalidOption { option: "verify", .. }), "{error}");
    let error = impossible(Options::new().chunk_elements(0));
    assert!(matches!(error, Error::InvalidOption { option: "chunk_elements", .. }), "{error}");
}

/// `new_unchecked` makes elements of arkworks that are none. They are refused, rather than blamed on the device.
#[test]
fn elements_of_arkworks_that_are_not_reduced_are_refused() {
    use ark_ff::{BigInt, One as _};
    let backend = Watched::new(Options::new());
    let bad = ark_bls12_381::Fq::new_unchecked(BigInt([u64::MAX; 6]));
    let one = ark_bls12_381::Fq::one();
    for backend in [&*backend, &support::cpu()] {
        let error = backend.mul(&[one, one], &[one, bad]).unwrap_err();
        assert!(matches!(error, Error::NotBelowModulus { operand: "b", index: 1, .. }), "{error}");
    }
}

/// Limits that are no limits.
#[test]
fn huge_limits_are_fine() {
    for bytes in [u64::MAX, 1 << 63] {
        let backend = Watched::new(Options::new().device_memory(bytes).chunk_elements(usize::MAX));
        assert_eq!(backend.fr().add_u64_limbs(&[2, 0, 0, 0], &[3, 0, 0, 0]).unwrap(), [5, 0, 0, 0]);
        let allocations = backend.stats().device.allocations;
        assert_eq!(backend.fr().add_u64_limbs(&[2, 0, 0, 0], &[4, 0, 0, 0]).unwrap(), [6, 0, 0, 0]);
        assert_eq!(backend.stats().device.allocations, allocations, "buffers are reused");
    }
}

#[test]
fn memory_can_be_given_back() {
    let backend = Watched::new(Options::new());
    let call = || assert_eq!(backend.fr().add_u64_limbs(&[2, 0, 0, 0], &[3, 0, 0, 0]).unwrap(), [5, 0, 0, 0]);
    call();
    let before = backend.stats().device.allocations;
    backend.trim();
    call();
    assert!(backend.stats().device.allocations > before);
}
