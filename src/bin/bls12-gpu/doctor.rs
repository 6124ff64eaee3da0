//! What a user pastes into a bug report.

use crate::choices::{bar, decisions, measured};
use crate::measure::{Effort, Inputs, median, text_variables};
use crate::report::{cpu, seconds_each};
use crate::tasks::folds;
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{
    Backend, CacheDirectory, DeviceChoice, DeviceError, DeviceKind, Engine, Error, Field, Form, Operation, Options,
    Placement, TABLE, Thoroughness, Validation, Verify, survey,
};
use std::time::Instant;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Looks at everything; an error if something that is here does not work. Having no device is not one.
pub(crate) fn examine(device: Option<usize>) -> Result<()> {
    machine();
    devices();
    let options = device.map_or(Options::new(), |index| Options::new().device(DeviceChoice::Index(index)));
    let begin = Instant::now();
    let backend = Backend::new(&options.clone().placement(Placement::Auto))?;
    fact("computes", backend.engine());
    let Engine::Vulkan { device: info, .. } = backend.engine() else {
        println!("\nEverything is computed by the CPU; there is no device to test or to measure.");
        return Ok(());
    };
    let asked = device.is_some() || std::env::var_os("GPU_DEVICE").is_some_and(|value| value != "auto");
    let usable = backend.verdicts().iter().filter(|verdict| verdict.turned_down.is_none()).count();
    let of_kind = if info.kind == DeviceKind::Software { "there is no GPU that can be used" } else { "the most capable" };
    fact("because", if asked { "it was asked for".into() } else { format!("{of_kind}; {usable} usable") });
    fact("opened in", format!("{:.0} ms", begin.elapsed().as_secs_f64() * 1e3));
    let directory = backend.cache_directory().map(|directory| directory.display().to_string());
    fact("cache", directory.unwrap_or_else(|| "nothing is kept".into()));
    kept(&backend);
    fact("validation", layer(&options, info.index));

    let device = options.placement(Placement::Device).verify(Verify::All);
    let wrong = self_tests(&Backend::new(&device)?);
    let begin = Instant::now();
    measured(&backend, Thoroughness::Quick)?;
    fact("calibration", format!("measured in {:.1} s", begin.elapsed().as_secs_f64()));
    speeds(&device, info.kind)?;
    decisions(&backend);
    match wrong {
        0 => Ok(()),
        wrong => Err(format!("{wrong} self-tests failed").into()),
    }
}

fn fact(name: &str, value: impl std::fmt::Display) {
    println!("{name:<14} {value}");
}

fn machine() {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let after = |text: String, prefix: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(prefix).map(str::to_owned));
        line.map(|line| line.trim_matches([' ', '\t', ':', '=', '"']).to_owned())
    };
    fact("bls12-gpu", env!("CARGO_PKG_VERSION"));
    let name = after(file("/etc/os-release"), "PRETTY_NAME").unwrap_or_else(|| std::env::consts::OS.into());
    fact("system", format!("{name} {} {}", file("/proc/sys/kernel/osrelease").trim(), std::env::consts::ARCH));
    fact("CPU", cpu());
    let mut variables: Vec<_> =
        text_variables().filter(|(name, _)| name.starts_with("GPU_") || name.starts_with("VK_")).collect();
    variables.sort();
    for (name, value) in variables {
        fact("environment", format!("{name}={value}"));
    }
}

fn devices() {
    match survey() {
        Ok(verdicts) => {
            fact("Vulkan", "the loader is here");
            verdicts.iter().for_each(|verdict| fact("device", verdict));
            if verdicts.is_empty() {
                fact("device", "none");
            }
        }
        Err(error) => fact("Vulkan", error),
    }
}

/// The files that this library keeps.
fn kept(backend: &Backend) {
    let Some(entries) = backend.cache_directory().and_then(|directory| std::fs::read_dir(directory).ok()) else { return };
    let mut files: Vec<_> =
        entries.filter_map(|entry| Some((entry.as_ref().ok()?.file_name(), entry.ok()?.metadata().ok()?.len()))).collect();
    files.sort();
    for (name, bytes) in files {
        fact("", format!("{} ({bytes} bytes)", name.display()));
    }
}

fn layer(options: &Options, index: usize) -> String {
    let options = options.clone().device(DeviceChoice::Index(index)).validation(Validation::On).cache(CacheDirectory::Off);
    match Backend::new(&options) {
        Ok(_) => "the Khronos layer is installed".into(),
        Err(Error::Device(DeviceError::NoValidationLayer)) => "the Khronos layer is not installed".into(),
        Err(error) => error.to_string(),
    }
}

/// Every kernel by its self-test and by a checked call; how many were wrong.
fn self_tests(backend: &Backend) -> usize {
    let variants =
        TABLE.iter().flat_map(|row| Field::ALL.map(|field| (row, field))).filter(|(row, field)| row.available(*field));
    let variants: Vec<_> =
        variants.flat_map(|(row, field)| [Form::Canonical, Form::Montgomery].map(|form| (row, field, form))).collect();
    let (bar, begin) = (bar(variants.len() as u64 + 2), Instant::now());
    let mut wrong = Vec::new();
    for &(row, field, form) in &variants {
        bar.set_message(format!("self-test: {} in {field}", row.name));
        let tested = Inputs::new(row.operation, field, 100).call(form, |call| backend.execute(call));
        wrong.extend(tested.err().map(|error| format!("{} in {field}, {form:?}: {error}", row.name)));
        bar.inc(1);
    }
    for tested in [folds::<Fq>(backend), folds::<Fr>(backend)] {
        wrong.extend(tested.err().map(|error| format!("reductions: {error}")));
        bar.inc(1);
    }
    bar.finish_and_clear();
    let (all, time) = (variants.len() + 2, begin.elapsed().as_secs_f64());
    fact("self-tests", format!("{} of {all} right, in {time:.1} s", all - wrong.len()));
    wrong.iter().for_each(|message| fact("", message));
    wrong.len()
}

/// A few speeds, as measured: host to host in microseconds a call, resident in G elements a second.
fn speeds(options: &Options, kind: DeviceKind) -> Result<()> {
    let software = kind == DeviceKind::Software;
    let (lengths, resident): (&[usize], usize) =
        if software { (&[64, 1 << 12, 1 << 14], 1 << 14) } else { (&[64, 1 << 12, 1 << 16, 1 << 20], 1 << 22) };
    let effort = if software { Effort::SLOW } else { Effort::FULL };
    let unverified = Backend::new(&options.clone().verify(Verify::Off))?;
    let cpu = Backend::new(&Options::new().device(DeviceChoice::Cpu).require_gpu(false))?;
    println!("\nmicroseconds a call, host to host:\n");
    println!("{:<8} {:<3} {:>9} {:>12} {:>12}", "", "", "elements", "device", "CPU");
    for operation in [Operation::Add, Operation::Mul] {
        for field in Field::ALL {
            for &length in lengths {
                let inputs = Inputs::new(operation, field, length);
                let expected = inputs.call(Form::Canonical, |call| cpu.execute(call))?.elements;
                let time = |backend: &Backend| {
                    let mut out = vec![0; expected.len()];
                    let run = |out: &mut [u64]| {
                        inputs.call(Form::Canonical, |call| backend.execute_into(call, out, &mut []).map(drop))
                    };
                    median(effort, (&mut out, u64::MAX, &expected), run).map(|time| time.as_secs_f64() * 1e6)
                };
                let (device, cpu) = (time(&unverified)?, time(&cpu)?);
                println!("{:<8} {field} {length:>9} {device:>12.1} {cpu:>12.1}", operation.name());
            }
        }
    }
    println!("\nG elements a second on resident vectors of {resident}:\n");
    for operation in [Operation::Add, Operation::Mul] {
        let (fq, fr) = (
            stream::<Fq>(&unverified, operation, resident, software)?,
            stream::<Fr>(&unverified, operation, resident, software)?,
        );
        println!("{:<8} Fq {fq:>8.3}   Fr {fr:>8.3}", operation.name());
    }
    Ok(())
}

fn stream<F: Element>(backend: &Backend, operation: Operation, length: usize, quick: bool) -> Result<f64> {
    let elements: Vec<F> = (0..length as u64).map(F::from).collect();
    let (a, b, out) = (backend.upload(&elements)?, backend.upload(&elements)?, backend.zeros(length)?);
    let each = seconds_each(backend, quick, 16, |recording| recording.apply_into(operation, &[&a, &b], &[], &out))?;
    Ok(length as f64 / each / 1e9)
}
