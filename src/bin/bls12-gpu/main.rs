//! `bls12-gpu`: what a machine's GPUs are, and how fast this library is on them.

mod algebra;
mod check;
mod choices;
mod compare;
mod doctor;
mod engine;
mod goals;
mod kernels;
mod measure;
mod profile;
mod report;
mod roofline;
mod tasks;

use bls12_field_gpu::{Backend, DeviceChoice, Options, Placement, Verify, survey};
use clap::{Parser, Subcommand};
use kernels::{Kernels, millis};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// BLS12-381 field arithmetic on Vulkan GPUs: devices and measurements.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the Vulkan devices and whether they can be used.
    Devices,
    /// Says what there is and what was decided about it, tests every kernel, measures, and prints what belongs into a bug report.
    Doctor {
        /// The device's index; by default the one the library would choose.
        #[arg(long)]
        device: Option<usize>,
    },
    /// Measures who is sooner, the CPU or the device, at every operation, and keeps it for the library to decide by.
    Calibrate {
        /// The device's index; by default the one the library would choose.
        #[arg(long)]
        device: Option<usize>,
        /// About how long it may take.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Runs every operation in every variant on one device and compares every result with the CPU reference.
    Check {
        /// The device's index; by default the one the library would choose.
        #[arg(long)]
        device: Option<usize>,
        /// What is checked, for the head; by default what git says.
        #[arg(long)]
        commit: Option<String>,
    },
    /// Profiles one call on elements in host memory: where its time went, and a trace that opens in Perfetto.
    Profile {
        /// The operation.
        #[arg(default_value = "mul")]
        operation: String,
        /// The field, fq or fr.
        #[arg(long, default_value = "fq")]
        field: String,
        /// How many elements.
        #[arg(long, default_value_t = 1 << 22)]
        length: usize,
        /// Has no result checked, so that the CPU may compute a part of them.
        #[arg(long)]
        unverified: bool,
        /// Where the trace goes.
        #[arg(long, default_value = "bls12-gpu-trace.json")]
        out: PathBuf,
        /// The device's index; by default the one the library would choose.
        #[arg(long)]
        device: Option<usize>,
    },
    /// Prints how many milliseconds the driver took to make a device, the rest of the backend took, and the first call; used by `report`.
    #[command(hide = true)]
    FirstCall {
        cache: PathBuf,
        #[arg(long)]
        device: Option<usize>,
    },
    /// Measures the library on one device, checking every output; prints tables.
    Report {
        /// Writes NAME.md and NAME.json as well, and NAME-roofline.md and .svg, NAME being this path without an extension.
        #[arg(long)]
        out: Option<PathBuf>,
        /// The device's index; by default the one the library would choose.
        #[arg(long)]
        device: Option<usize>,
        /// What is measured, for the head of the report; by default what git says.
        #[arg(long)]
        commit: Option<String>,
        /// Few repetitions and small sizes: to see that it works.
        #[arg(long)]
        quick: bool,
    },
    /// Prints reports' rows side by side: those with goals, and those that differ.
    Compare {
        /// What `report` or `roofline` wrote (NAME.json), the one that is looked at first.
        #[arg(required = true)]
        reports: Vec<PathBuf>,
        /// From how many percent on rows differ.
        #[arg(long, default_value_t = 5.0)]
        percent: f64,
    },
    /// Measures the vector algebra on resident vectors, checking every output.
    Algebra {
        /// One family of operations only, or `batches`.
        #[arg(long)]
        only: Option<String>,
        /// The device's index; by default the one the library would choose.
        #[arg(long)]
        device: Option<usize>,
        /// Few repetitions and small sizes: to see that it works.
        #[arg(long)]
        quick: bool,
        /// Prints as well when each launch of a last repetition began, and how long it took.
        #[arg(long)]
        launches: bool,
    },
    /// Measures how near each kernel is to what the memory and the multipliers allow, checking every output; a table, and a chart.
    Roofline {
        /// Writes NAME.md, NAME.svg and NAME.json, NAME being this path without an extension; without it, prints the table.
        #[arg(long)]
        out: Option<PathBuf>,
        /// The device's index; by default the one the library would choose.
        #[arg(long)]
        device: Option<usize>,
        /// What is measured, for the head of the table; by default what git says.
        #[arg(long)]
        commit: Option<String>,
        /// Few repetitions and small sizes: to see that it works.
        #[arg(long)]
        quick: bool,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bls12-gpu: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What measures and checks the device must not choose the CPU.
fn on(device: Option<usize>) -> Options {
    let device = device.map_or(DeviceChoice::Auto, DeviceChoice::Index);
    Options::new().device(device).require_gpu(true).placement(Placement::Device)
}

fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Devices => {
            for verdict in survey()? {
                println!("{verdict}");
            }
        }
        Command::Doctor { device } => doctor::examine(device)?,
        Command::Calibrate { device, seconds } => choices::calibrate(&on(device), Duration::from_secs(seconds))?,
        Command::Check { device, commit } => {
            let head = report::head(&Backend::new(&on(device))?, commit.unwrap_or_else(report::commit_here), "check", false);
            head.iter().for_each(|(name, value)| println!("{name}: {value}"));
            check::check(&on(device))?;
        }
        Command::Profile { operation, field, length, unverified, out, device } => {
            let options = if unverified { on(device).verify(Verify::Off).placement(Placement::Both) } else { on(device) };
            profile::profile(&options, (&operation, &field, length), &out)?;
        }
        Command::FirstCall { cache, device } => {
            let times = engine::first_call(&on(device), &cache)?;
            println!("{}", times.map(|time| millis(time).to_string()).join(" "));
        }
        Command::Report { out, device, commit, quick } => {
            let commit = commit.unwrap_or_else(report::commit_here);
            // What has been measured is kept, whatever comes of the rest.
            let save = |report: &report::Report, kernels: &Kernels| -> Result<(), Box<dyn std::error::Error>> {
                let Some(out) = &out else { return Ok(()) };
                std::fs::write(out.with_extension("md"), report.markdown())?;
                std::fs::write(out.with_extension("json"), report.json()?)?;
                let name = out.file_stem().map_or_else(String::new, |name| name.display().to_string());
                Ok(roofline::write(kernels, &report.head, &out.with_file_name(format!("{name}-roofline")))?)
            };
            let begin = Instant::now();
            let tell = |what: &str| eprintln!("{:6.1} s: {what}", begin.elapsed().as_secs_f64());
            let (mut report, kernels) = report::measure(&on(device), device, commit, quick, &save, &tell)?;
            let bench = algebra::Bench::new(&on(device), Some(&kernels), quick)?;
            let measured = algebra::parts().try_for_each(|(part, name)| {
                report.algebra.measure(&bench, part)?;
                tell(name);
                save(&report, &kernels)
            });
            if let Some(time) = bench.slowest_build() {
                report.row("pipeline_worst_algebra_ms", millis(time), "ms");
                save(&report, &kernels)?;
            }
            print!("{}", report.markdown());
            measured?;
        }
        Command::Compare { reports, percent } => compare::print(&reports, percent)?,
        Command::Algebra { only, device, quick, launches } => {
            algebra::print(&on(device), only.as_deref(), quick, launches)?;
        }
        Command::Roofline { out, device, commit, quick } => {
            let kernels = Kernels::measure(&on(device), quick)?;
            let backend = Backend::new(&on(device))?;
            let head = report::head(&backend, commit.unwrap_or_else(report::commit_here), "roofline", quick);
            match out {
                None => print!("{}", roofline::markdown(&kernels, &head, "roofline.svg")),
                Some(out) => {
                    roofline::write(&kernels, &head, &out)?;
                    std::fs::write(out.with_extension("json"), report::of_kernels(&kernels, head).json()?)?;
                }
            }
        }
    }
    Ok(())
}
