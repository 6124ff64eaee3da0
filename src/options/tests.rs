use super::*;

fn settings(options: Options, environment: &[(&'static str, &str)]) -> Result<Settings, Error> {
    Settings::resolve(&options, |variable| {
        environment.iter().find(|(name, _)| *name == variable).map(|(_, value)| OsString::from(value))
    })
}

#[test]
fn defaults() {
    let s = settings(Options::new(), &[]).unwrap();
    assert_eq!((s.device, s.require_gpu, s.verify), (DeviceChoice::Auto, false, Verify::All));
    assert_eq!((s.executor.memory, s.executor.workgroup_size), (MemoryMode::Auto, None));
    assert_eq!((s.executor.validation, s.executor.cache), (Validation::Off, CacheDirectory::User));
    assert!(!s.executor.wipe);
    assert_eq!((s.placement, s.calibrate), (Placement::Auto, Calibrate::Auto));
}

#[test]
fn placements_have_names() {
    for (name, placement) in [("auto", Placement::Auto), ("device", Placement::Device), ("both", Placement::Both)] {
        assert_eq!(settings(Options::new(), &[("GPU_PLACEMENT", name)]).unwrap().placement, placement);
    }
    assert!(settings(Options::new(), &[("GPU_PLACEMENT", "cpu")]).is_err());
}

#[test]
fn the_environment_beats_the_defaults() {
    let s = settings(
        Options::new(),
        &[
            ("GPU_DEVICE", "3"),
            ("GPU_REQUIRE", "1"),
            ("GPU_DEVICE_LOCAL", "0"),
            ("GPU_VERIFY", "sample:7"),
            ("GPU_WORKGROUP_SIZE", "96"),
            ("GPU_CACHE_DIR", "/somewhere"),
            ("GPU_VALIDATION", "1"),
            ("GPU_WIPE", "1"),
            ("GPU_FORMULATION", "digits"),
            ("GPU_PLACEMENT", "device"),
            ("GPU_CALIBRATE", "0"),
        ],
    )
    .unwrap();
    assert_eq!((s.device, s.require_gpu, s.verify), (DeviceChoice::Index(3), true, Verify::Sample(7)));
    assert_eq!((s.executor.device, s.executor.memory), (Some(3), MemoryMode::Host));
    assert_eq!((s.executor.workgroup_size, s.executor.validation, s.executor.wipe), (Some(96), Validation::On, true));
    assert_eq!(s.executor.cache, CacheDirectory::At("/somewhere".into()));
    assert_eq!(s.formulation, Some(Formulation::Digits));
    assert_eq!((s.placement, s.calibrate), (Placement::Device, Calibrate::Off));
    assert_eq!(settings(Options::new(), &[("GPU_CALIBRATE", "1")]).unwrap().calibrate, Calibrate::Again);
    assert_eq!(settings(Options::new(), &[("GPU_DEVICE_LOCAL", "1")]).unwrap().executor.memory, MemoryMode::DeviceLocal);
}

#[test]
fn options_beat_the_environment() {
    let options = Options::new()
        .device(DeviceChoice::Cpu)
        .require_gpu(false)
        .memory(MemoryMode::DeviceLocal)
        .verify(Verify::Off)
        .workgroup_size(32)
        .cache(CacheDirectory::Off)
        .validation(Validation::Off)
        .placement(Placement::Device)
        .calibrate(Calibrate::Off)
        .formulation(Formulation::Words)
        .wipe(true);
    // Values that would be errors are not even looked at.
    let nonsense = [
        ("GPU_DEVICE", "x"),
        ("GPU_REQUIRE", "x"),
        ("GPU_DEVICE_LOCAL", "x"),
        ("GPU_VERIFY", "x"),
        ("GPU_WORKGROUP_SIZE", "x"),
        ("GPU_CACHE_DIR", ""),
        ("GPU_VALIDATION", "x"),
        ("GPU_WIPE", "x"),
        ("GPU_FORMULATION", "x"),
        ("GPU_PLACEMENT", "x"),
        ("GPU_CALIBRATE", "x"),
    ];
    let s = settings(options, &nonsense).unwrap();
    assert_eq!((s.device, s.verify, s.executor.memory), (DeviceChoice::Cpu, Verify::Off, MemoryMode::DeviceLocal));
    assert_eq!((s.executor.workgroup_size, s.executor.cache), (Some(32), CacheDirectory::Off));
    assert!(s.executor.wipe);
    assert_eq!(s.formulation, Some(Formulation::Words));
    assert_eq!((s.placement, s.calibrate), (Placement::Device, Calibrate::Off));
}

#[test]
fn values_that_mean_nothing_are_errors_that_name_the_variable() {
    for (variable, values) in [
        ("GPU_DEVICE", &["gpu", "-1", "", "1.5"][..]),
        ("GPU_REQUIRE", &["yes", "", "2"]),
        ("GPU_DEVICE_LOCAL", &["true", "", "2", " 1"]),
        ("GPU_VERIFY", &["", "some", "sample", "sample:", "sample:0", "sample:-1"]),
        ("GPU_WORKGROUP_SIZE", &["0", "", "many", "-64"]),
        ("GPU_CACHE_DIR", &[""]),
        ("GPU_VALIDATION", &["on", ""]),
        ("GPU_WIPE", &["yes", "2"]),
        ("GPU_FORMULATION", &["", "Words", "12x32"]),
        ("GPU_PLACEMENT", &["", "cpu", "gpu"]),
        ("GPU_CALIBRATE", &["", "2", "auto"]),
    ] {
        for value in values {
            let error = settings(Options::new(), &[(variable, value)]).unwrap_err();
            assert!(error.to_string().contains(variable), "{variable}={value}: {error}");
            assert_eq!(error.kind(), crate::ErrorKind::BadInput);
        }
    }
}

#[test]
fn options_that_cannot_be_are_errors() {
    assert!(settings(Options::new().verify(Verify::Sample(0)), &[]).is_err());
    assert!(settings(Options::new().chunk_elements(0), &[]).is_err());
    assert!(settings(Options::new().device(DeviceChoice::Cpu).require_gpu(true), &[]).is_err());
    assert!(settings(Options::new(), &[("GPU_DEVICE", "cpu"), ("GPU_REQUIRE", "1")]).is_err());
    assert!(settings(Options::new().require_gpu(true), &[("GPU_DEVICE", "cpu")]).is_err());
    assert!(settings(Options::new().device(DeviceChoice::Cpu), &[("GPU_REQUIRE", "1")]).is_ok());
}
