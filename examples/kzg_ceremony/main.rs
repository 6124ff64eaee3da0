//! Decompresses and checks the points of G1 that came out of the Ethereum KZG ceremony, and compares each with arkworks.
//!
//! `cargo run --release --example kzg_ceremony [-- [--any-file] [FILE]]`
//!
//! FILE is `examples/data/trusted_setup.txt` unless given. A point that does not decode, or that arkworks decodes to something
//! else, is named by its number; any other damage is noticed because the file's SHA-256 must be that of the ceremony's file,
//! except with `--any-file`, which takes any trusted setup in the same layout. The exit status is 0 only if every point decodes, lies on the curve and agrees with
//! arkworks. Membership in the subgroup is not tested. The environment chooses the device: see `bls12_field_gpu::Options`.

mod decompress;
mod encoding;
mod report;
mod setup;

use bls12_field_gpu::{Backend, Options};
use decompress::{Clock, decompress, faults};
use encoding::arkworks;
use rayon::prelude::*;
use report::Report;
use setup::{Setup, check_hash};
use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

const DEFAULT_FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/trusted_setup.txt");
const USAGE: &str = "usage: kzg_ceremony [--any-file] [FILE]";

/// Wrong points that are named; the rest are counted.
const NAMED: usize = 10;

fn main() -> ExitCode {
    let report = Arguments::parse().and_then(|arguments| run(&arguments));
    match report.and_then(|report| Ok(write!(std::io::stdout(), "{report}")?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kzg_ceremony: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    any_file: bool,
    file: PathBuf,
}

impl Arguments {
    fn parse() -> Result<Self, Box<dyn Error>> {
        let (mut any_file, mut file) = (false, None);
        for argument in std::env::args_os().skip(1) {
            match argument.to_str() {
                Some("--any-file") => any_file = true,
                Some(option) if option.starts_with('-') => return Err(USAGE.into()),
                _ if file.is_some() => return Err(USAGE.into()),
                _ => file = Some(argument.into()),
            }
        }
        Ok(Self { any_file, file: file.unwrap_or_else(|| DEFAULT_FILE.into()) })
    }
}

fn run(arguments: &Arguments) -> Result<Report, Box<dyn Error>> {
    let in_file = |error: &dyn Error| format!("{}: {error}", arguments.file.display());
    let text = std::fs::read(&arguments.file).map_err(|error| in_file(&error))?;
    // A wrong point says more than a wrong sum: the sum is reported after the points.
    let intact = if arguments.any_file { Ok(()) } else { check_hash(&text).map_err(|error| in_file(&error)) };
    let setup = Setup::parse(&text).map_err(|error| match &intact {
        Ok(()) => in_file(&error),
        Err(damaged) => format!("{damaged} ({error})"),
    })?;

    let mut cpu = Clock::default();
    let expected: Vec<_> = cpu.time("one core", || setup.g1.iter().map(arkworks).collect());
    let again: Vec<_> = cpu.time("all cores", || setup.g1.par_iter().map(arkworks).collect());
    if expected != again {
        return Err("arkworks does not agree with itself: this machine computes wrongly".into());
    }

    let mut ready = Clock::default();
    let backend = ready.time("open the device", || Backend::new(&Options::new()))?;
    // Pipelines are made, self-tested and cached by the first pass; only the second is timed stage by stage.
    let first_pass = || decompress(&backend, &setup.g1, &mut Clock::default());
    let first = ready.time("first pass", first_pass)?;
    refuse(&setup, &faults(&first, &expected))?;
    intact?;

    let mut stages = Clock::default();
    let setup = stages.time("parse", || Setup::parse(&text))?;
    let points = decompress(&backend, &setup.g1, &mut stages)?;
    let faults = stages.time("compare", || faults(&points, &expected));
    refuse(&setup, &faults)?;

    Ok(Report { file: arguments.file.clone(), points: points.len(), backend, ready, stages, cpu })
}

/// An error that names the wrong points, if there are any.
fn refuse(setup: &Setup, faults: &[(usize, encoding::Fault)]) -> Result<(), String> {
    if faults.is_empty() {
        return Ok(());
    }
    let mut lines = vec![format!("wrong points: {} of {}", faults.len(), setup.g1.len())];
    lines.extend(faults.iter().take(NAMED).map(|(number, fault)| format!("{}: {fault}", setup.name(*number))));
    if faults.len() > NAMED {
        lines.push(format!("and {} more", faults.len() - NAMED));
    }
    Err(lines.join("\n  "))
}
