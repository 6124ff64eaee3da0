//! Evaluates a real R1CS, arkworks' SHA-256 gadget over BLS12-381's Fr, as a prover does: A z, B z, C z as sparse products and
//! A z o B z = C z as one fused expression. Then plants a wrong witness value, and names the constraint that it violates.
//!
//! `cargo run --release --example r1cs [-- BLOCKS]`
//!
//! BLOCKS of 64 bytes are hashed, 8 unless given; each is 40 thousand constraints. The exit status is 0 only if every
//! constraint holds, the products agree with arkworks', and each wrong value is found where arkworks finds it. The
//! environment chooses the device: see `bls12_field_gpu::Options`.

mod circuit;
mod evaluation;

use ark_bls12_381::Fr;
use bls12_field_gpu::{Backend, DeviceKind, Engine, Options, Span, Stage};
use circuit::{Circuit, Csr, Preimage, Short, synthesize};
use evaluation::{Resident, first_violated, holds, products};
use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Whether a span is of some part.
type Belongs<'a> = &'a dyn Fn(&Span) -> bool;

const USAGE: &str = "usage: r1cs [BLOCKS]";
const BLOCKS: usize = 8;

/// What is repeated is repeated so often, or until so much time has passed. The least time is printed.
const REPETITIONS: usize = 20;
const PATIENCE: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    match blocks().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("r1cs: {error}");
            ExitCode::FAILURE
        }
    }
}

fn blocks() -> Outcome<usize> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => Ok(BLOCKS),
        [blocks] => blocks.parse().ok().filter(|&blocks| blocks > 0).ok_or_else(|| USAGE.into()),
        _ => Err(USAGE.into()),
    }
}

fn run(blocks: usize) -> Outcome<()> {
    let preimage = Preimage::of_blocks(blocks);
    let digest = preimage.digest;
    let (synthesis, cs) = timed(|| synthesize(preimage));
    let (extraction, circuit) = timed(|| Circuit::of(cs?));
    let circuit = circuit?;
    let (conversion, csr) = timed(|| -> Outcome<_> {
        let [a, b, c] = &circuit.matrices;
        Ok([Csr::new(a)?, Csr::new(b)?, Csr::new(c)?])
    });
    let csr = csr?;
    let (variables, constraints) = (circuit.z.len(), circuit.matrices[0].len());
    let [a, b, c] = circuit.nonzeros();
    fact("circuit", format_args!("{blocks} blocks of SHA-256 by arkworks' gadget, over Fr of BLS12-381"))?;
    fact("digest", format_args!("{}, as sha2 has it", digest.map(|byte| format!("{byte:02x}")).concat()))?;
    fact("constraints", constraints)?;
    fact("variables", format_args!("{variables}, of them {} public", circuit.publics()))?;
    fact("nonzeros", format_args!("A {a}, B {b}, C {c}"))?;

    let (opening, backend) = timed(|| Backend::new(&Options::new()));
    let backend = backend?;
    engine(&backend)?;
    let (matrices, resident) = timed(|| Resident::upload(&backend, &csr, variables));
    let resident = resident?;
    fact("on the device", format_args!("{} bytes of matrices", resident.bytes()))?;
    // Kernels are made, self-tested and cached by the first evaluation.
    let (first, flags) = timed(|| resident.holds(0, &circuit.z));
    if let Some(number) = first_violated(&flags?) {
        return Err(format!("constraint {number} does not hold: {}", circuit.constraint(number)).into());
    }
    let (device, flags) = best(|| Ok(resident.holds(0, &circuit.z)?))?;
    let (verified, evaluated) = best(|| Ok(resident.verified()?))?;
    let (cpu_products, expected) = best(|| Ok(products(&circuit.matrices, &circuit.z)))?;
    let (cpu_check, expected_flags) = best(|| Ok(holds(&expected)))?;
    for (ours, theirs) in evaluated.products.iter().zip(&expected) {
        if ours.download()? != *theirs {
            return Err("the products are not what arkworks computes".into());
        }
    }
    if flags != expected_flags || evaluated.holds.download()? != flags {
        return Err("the constraints that hold are not those that arkworks finds".into());
    }
    let cpu = cpu_products + cpu_check;

    heading("making ready, once per circuit")?;
    row("synthesis, by arkworks on one core", synthesis)?;
    row("its matrices, by arkworks on one core", extraction)?;
    row("conversion to compressed rows", conversion)?;
    row("open the device", opening)?;
    row("upload of the matrices", matrices)?;
    row("first evaluation, with self-tests of kernels", first)?;

    heading(&format!("for each witness, the least of up to {REPETITIONS} times"))?;
    row("upload of z, three products, the check, its flags back", device)?;
    stages(&resident, &circuit)?;
    row("products and check verified by the CPU, z being there", verified)?;

    heading(&format!("the same by arkworks on all cores: {} threads", rayon::current_num_threads()))?;
    row("three products", cpu_products)?;
    row("the check", cpu_check)?;
    row("all of it", cpu)?;

    say(format_args!(
        "\nAll {constraints} constraints hold, and the products agree with arkworks'. {}",
        quicker(device, cpu)
    ))?;
    plant(&resident, &circuit)
}

/// What the device's own clock says of an evaluation's parts, the least of each.
fn stages(resident: &Resident, circuit: &Circuit) -> Outcome<()> {
    let fused = |span: &Span| span.stage == Stage::Compute && span.name.starts_with("expression");
    let parts: [(&str, Belongs); 4] = [
        ("upload of z", &|span| span.stage == Stage::Upload),
        ("three products", &|span| span.stage == Stage::Compute && !fused(span)),
        ("the check", &fused),
        ("download of flags", &|span| span.stage == Stage::Download),
    ];
    let mut least = parts.map(|_| None);
    best(|| {
        resident.backend.start_profile()?;
        resident.holds(0, &circuit.z)?;
        let profile = resident.backend.take_profile();
        for ((_, belongs), least) in parts.iter().zip(&mut least) {
            let mut spans = profile.spans.iter().filter(|span| belongs(span)).peekable();
            if spans.peek().is_some() {
                let time = spans.map(|span| span.end.saturating_sub(span.start)).sum();
                *least = Some(least.map_or(time, |least: Duration| least.min(time)));
            }
        }
        Ok(())
    })?;
    for ((name, _), time) in parts.iter().zip(least) {
        if let Some(time) = time {
            row(&format!("  by the device's clock: {name}"), time)?;
        }
    }
    Ok(())
}

/// Wrong values, one at a time: only that element of z is written.
fn plant(resident: &Resident, circuit: &Circuit) -> Outcome<()> {
    for quarter in 1..4 {
        let variable = circuit.publics() + (circuit.z.len() - circuit.publics()) * quarter / 4;
        let mut wrong = circuit.z.clone();
        wrong[variable] += Fr::from(quarter as u64);
        let flags = resident.holds(variable, &wrong[variable..=variable])?;
        let found = first_violated(&flags).ok_or("a wrong value is not found")?;
        let expected = products(&circuit.matrices, &wrong);
        if flags != holds(&expected) {
            return Err("the violated constraints are not those that arkworks finds".into());
        }
        let [name, was, is] =
            [circuit.name(variable), Short(circuit.z[variable]).to_string(), Short(wrong[variable]).to_string()];
        let violated = flags.iter().filter(|holds| !**holds).count();
        say(format_args!(
            "\nPlanted {name} = {is} instead of {was}: constraint {found} does not hold, the first of {violated}."
        ))?;
        say(format_args!("  {}", circuit.constraint(found)))?;
        let [a, b, c] = expected.map(|product| Short(product[found]));
        say(format_args!("  but {a} * {b} is not {c}"))?;
        resident.holds(variable, &circuit.z[variable..=variable])?;
    }
    Ok(())
}

fn engine(backend: &Backend) -> Outcome<()> {
    let Engine::Vulkan { device, .. } = backend.engine() else {
        return fact("device", format_args!("none: no GPU takes part. Computed by {}", backend.engine()));
    };
    fact("device", device)?;
    if device.kind == DeviceKind::Software {
        fact("", "no GPU: this driver computes on the CPU")?;
    }
    Ok(())
}

fn quicker(device: Duration, cpu: Duration) -> String {
    let times = |less: Duration, more: Duration| more.as_secs_f64() / less.as_secs_f64().max(1e-9);
    if device < cpu {
        format!("The backend is {:.1} times as fast as arkworks on all cores.", times(device, cpu))
    } else {
        format!("arkworks on all cores is {:.1} times as fast as the backend.", times(cpu, device))
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let result = work();
    (start.elapsed(), result)
}

/// The least time, and the last result.
fn best<T>(mut work: impl FnMut() -> Outcome<T>) -> Outcome<(Duration, T)> {
    let start = Instant::now();
    let (mut least, result) = timed(&mut work);
    let mut result = result?;
    for _ in 1..REPETITIONS {
        if start.elapsed() > PATIENCE {
            break;
        }
        let (time, again) = timed(&mut work);
        (least, result) = (least.min(time), again?);
    }
    Ok((least, result))
}

fn say(line: fmt::Arguments) -> Outcome<()> {
    Ok(writeln!(io::stdout(), "{line}")?)
}

fn fact(name: &str, value: impl fmt::Display) -> Outcome<()> {
    say(format_args!("{name:<15}{value}"))
}

fn heading(name: &str) -> Outcome<()> {
    say(format_args!("\n{name:<60}{:>10}", "ms"))
}

fn row(name: &str, time: Duration) -> Outcome<()> {
    say(format_args!("  {name:<58}{:>10.2}", time.as_secs_f64() * 1e3))
}
