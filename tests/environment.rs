//! The environment, end to end: each case is a process of its own, this very test binary started again with other
//! variables, because the process-wide backend is made once.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]

mod support;

use bls12_field_gpu::{
    Because, DeviceError, Engine, Error, ErrorKind, Field, Form, Operation, Verify, add_u64_limbs, backend, fr,
};
use std::process::Command;
use support::small;

/// What a child process is to find; set for children only.
const EXPECT: &str = "BLS12_TEST_EXPECT";

/// Runs [`child`] in a process with these variables and no others of the library's.
#[track_caller]
fn in_a_child(expect: &str, variables: &[(&str, &str)]) {
    let cache = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture", "--test-threads=1"]);
    let others = ["GPU_DEVICE", "GPU_REQUIRE", "GPU_DEVICE_LOCAL", "GPU_VERIFY", "GPU_WORKGROUP_SIZE", "GPU_VALIDATION"];
    for variable in others.into_iter().chain(["GPU_CALIBRATE", "GPU_FORMULATION"]) {
        command.env_remove(variable);
    }
    command.env("GPU_CACHE_DIR", cache.path()).env("GPU_PLACEMENT", "device");
    command.env(EXPECT, expect).envs(variables.iter().copied());
    let output = command.output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{variables:?}:\n{said}");
    assert!(said.contains("as expected"), "{variables:?}: the child checked nothing:\n{said}");
}

/// Not a test by itself: what child processes do.
#[test]
fn child() {
    let Ok(expect) = std::env::var(EXPECT) else { return };
    let two = small(Field::Fq, 2);
    let sum = add_u64_limbs(&two, &two);
    match expect.split_once('=').unwrap_or((&expect, "")) {
        ("misunderstood", variable) => {
            for error in [sum.unwrap_err(), backend().unwrap_err(), add_u64_limbs(&[], &[]).unwrap_err()] {
                assert_eq!(error.kind(), ErrorKind::BadInput);
                assert!(error.to_string().starts_with(&format!("{variable}=")), "{error}");
                assert!(matches!(error, Error::Environment { variable: named, .. } if named == variable));
            }
        }
        ("contradiction", _) => {
            let error = sum.unwrap_err();
            assert!(matches!(error, Error::InvalidOption { option: "device", .. }), "{error}");
            assert!(error.to_string().contains("GPU_DEVICE=cpu") && error.to_string().contains("GPU_REQUIRE=1"));
        }
        ("no_device", _) => {
            let error = sum.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoDevice, "{error}");
            assert!(bls12_field_gpu::survey().map_or(true, |verdicts| verdicts.is_empty()));
        }
        ("no_such_device", _) => {
            let error = sum.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadInput);
            assert!(matches!(error, Error::Device(DeviceError::NoSuchDevice { requested: 99, .. })), "{error}");
        }
        ("bad_workgroup_size", _) => {
            let error = sum.unwrap_err();
            assert!(matches!(error, Error::Device(DeviceError::WorkgroupSize { requested: 4_000_000, .. })), "{error}");
        }
        ("bad_cache_directory", _) => {
            let error = sum.unwrap_err();
            assert!(matches!(error, Error::Device(DeviceError::CacheDirectory { .. })), "{error}");
        }
        ("cpu", reason) => {
            assert_eq!(sum.unwrap(), small(Field::Fq, 4));
            let backend = backend().unwrap();
            match backend.engine() {
                Engine::Cpu { reason: given } => assert!(given.contains(reason) && !given.is_empty(), "{given}"),
                other => panic!("{other}"),
            }
            let inverse = fr::inverse_u64_limbs(&small(Field::Fr, 2)).unwrap();
            assert_eq!(fr::double_u64_limbs(&inverse).unwrap(), small(Field::Fr, 1));
            assert!(backend.verdicts().is_empty());
            assert_eq!((backend.stats().calls, backend.stats().cpu_calls), (3, 3));
        }
        ("memory", expected) => {
            assert_eq!(sum.unwrap(), small(Field::Fq, 4));
            let Engine::Vulkan { device_local, .. } = *backend().unwrap().engine() else { panic!("no GPU") };
            assert_eq!(device_local, expected == "device");
        }
        ("verify", expected) => {
            assert_eq!(sum.unwrap(), small(Field::Fq, 4));
            let (verify, checked) = match expected {
                "all" => (Verify::All, 1),
                "proofs" => (Verify::Proofs, 1),
                "off" => (Verify::Off, 0),
                _ => (Verify::Sample(3), 1),
            };
            let backend = backend().unwrap();
            assert_eq!((backend.verify(), backend.stats().verified_elements), (verify, checked));
            add_u64_limbs(&two.repeat(5), &two.repeat(5)).unwrap();
            let more = match verify {
                Verify::All | Verify::Proofs => 5,
                Verify::Sample(n) => n as u64,
                Verify::Off => 0,
            };
            assert_eq!(backend.stats().verified_elements, checked + more);
        }
        ("workgroup_size", expected) => {
            assert_eq!(sum.unwrap(), small(Field::Fq, 4));
            let Engine::Vulkan { workgroup_size, .. } = *backend().unwrap().engine() else { panic!("no GPU") };
            assert_eq!(workgroup_size.to_string(), expected);
        }
        ("formulation", expected) => {
            let decision = backend().unwrap().explain(Operation::Mul, Field::Fq, Form::Canonical, 1);
            let multiplication = decision.multiplication.unwrap();
            assert_eq!((multiplication.formulation.name(), multiplication.because), (expected, Because::Asked));
        }
        ("placed", place) => {
            assert_eq!(sum.unwrap(), small(Field::Fq, 4));
            let stats = backend().unwrap().stats();
            assert_eq!((stats.calls, stats.cpu_calls, stats.fallbacks), (1, u64::from(place == "cpu"), 0));
            assert_eq!(stats.calibrations, 0, "so small a call needs none");
        }
        ("cached_in", directory) => {
            assert_eq!(sum.unwrap(), small(Field::Fq, 4));
            assert!(std::fs::read_dir(directory).unwrap().count() > 0, "nothing was cached");
        }
        other => panic!("{other:?}"),
    }
    println!("as expected");
}

#[test]
fn values_that_mean_nothing() {
    for (variable, value) in [
        ("GPU_DEVICE_LOCAL", "2"),
        ("GPU_DEVICE", "gpu"),
        ("GPU_REQUIRE", "yes"),
        ("GPU_VERIFY", "sample:0"),
        ("GPU_WORKGROUP_SIZE", "0"),
        ("GPU_CACHE_DIR", ""),
        ("GPU_VALIDATION", "on"),
        ("GPU_PLACEMENT", "gpu"),
        ("GPU_CALIBRATE", "2"),
        ("GPU_FORMULATION", "fast"),
    ] {
        in_a_child(&format!("misunderstood={variable}"), &[(variable, value)]);
    }
}

#[test]
fn values_that_cannot_be() {
    in_a_child("contradiction", &[("GPU_DEVICE", "cpu"), ("GPU_REQUIRE", "1")]);
    in_a_child("no_such_device", &[("GPU_DEVICE", "99")]);
    in_a_child("bad_workgroup_size", &[("GPU_WORKGROUP_SIZE", "4000000")]);
    let file = tempfile::NamedTempFile::new().unwrap();
    in_a_child("bad_cache_directory", &[("GPU_CACHE_DIR", file.path().join("below").to_str().unwrap())]);
}

#[test]
fn values_that_are_obeyed() {
    in_a_child("cpu=asked for", &[("GPU_DEVICE", "cpu")]);
    in_a_child("memory=device", &[("GPU_DEVICE_LOCAL", "1"), ("GPU_REQUIRE", "1")]);
    in_a_child("memory=host", &[("GPU_DEVICE_LOCAL", "0"), ("GPU_DEVICE", "0")]);
    in_a_child("verify=all", &[("GPU_REQUIRE", "1")]);
    in_a_child("verify=proofs", &[("GPU_VERIFY", "proofs"), ("GPU_REQUIRE", "1")]);
    in_a_child("verify=off", &[("GPU_VERIFY", "off"), ("GPU_REQUIRE", "1")]);
    in_a_child("verify=sample:3", &[("GPU_VERIFY", "sample:3"), ("GPU_REQUIRE", "1")]);
    in_a_child("workgroup_size=96", &[("GPU_WORKGROUP_SIZE", "96"), ("GPU_VALIDATION", "1")]);
    in_a_child("formulation=words", &[("GPU_FORMULATION", "words"), ("GPU_REQUIRE", "1")]);
    in_a_child("formulation=digits", &[("GPU_FORMULATION", "digits"), ("GPU_REQUIRE", "1")]);
    in_a_child("placed=cpu", &[("GPU_PLACEMENT", "auto"), ("GPU_REQUIRE", "1")]);
    in_a_child("placed=device", &[("GPU_REQUIRE", "1")]);
    let directory = tempfile::tempdir().unwrap();
    let below = directory.path().join("below");
    let below = below.to_str().unwrap();
    in_a_child(&format!("cached_in={below}"), &[("GPU_CACHE_DIR", below)]);
}

/// Both variables, because older loaders know only the second.
const NO_DRIVER: [(&str, &str); 2] =
    [("VK_DRIVER_FILES", "/nonexistent/driver.json"), ("VK_ICD_FILENAMES", "/nonexistent/driver.json")];

#[test]
fn without_a_driver_the_cpu_computes_and_says_why() {
    in_a_child("cpu=no Vulkan driver", &NO_DRIVER);
}

#[test]
fn without_a_driver_a_required_gpu_is_an_error() {
    in_a_child("no_device", &[NO_DRIVER[0], NO_DRIVER[1], ("GPU_REQUIRE", "1")]);
}

#[test]
fn without_a_driver_a_device_asked_for_is_an_error() {
    in_a_child("no_device", &[NO_DRIVER[0], NO_DRIVER[1], ("GPU_DEVICE", "0")]);
}
