//! Evaluates a real R1CS, arkworks' SHA-256 gadget over BLS12-381's Fr, as a prover does: A z, B z, C z as sparse products and
//! A z o B z = C z as one fused expression. Then plants a wrong witness value, and names the constraint that it violates.
//!
//! `cargo run --release --example r1cs [-- BLOCKS]`
//!
//! BLOCKS of 64 bytes are hashed, 8 unless given; each is 40 thousand constraints. The exit status is 0 only if every constraint
//! holds, the products agree with arkworks', and each wrong value is found where arkworks finds it. The environment chooses the
//! device: see `bls12_field_gpu::Options`.

mod circuit;
mod evaluation;

use ark_bls12_381::Fr;
use bls12_field_gpu::{Backend, DeviceKind, Engine, Options, Span, Stage, Vector};
use circuit::{Circuit, Csr, Preimage, Short, synthesize};
use evaluation::{Resident, first_violated, holds, products};
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn Error>>;

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
    fact("circuit", format_args!("{blocks} blocks of SHA-256 by arkworks' gadget, over Fr of BLS12-381"));
    fact("digest", format_args!("{}, as sha2 has it", digest.map(|byte| format!("{byte:02x}")).concat()));
    fact("constraints", constraints);
    fact("variables", format_args!("{variables}, of them {} public", circuit.publics()));
    fact("nonzeros", format_args!("A {a}, B {b}, C {c}"));

    let (opening, backend) = timed(|| Backend::new(&Options::new()));
    let backend = backend?;
    engine(&backend);
    let (matrices, resident) = timed(|| Resident::upload(&backend, &csr, variables));
    let resident = resident?;
    fact("on the device", format_args!("{} bytes of matrices", resident.bytes()));
    let z = backend.upload(&circuit.z)?;
    // Kernels are made, self-tested and cached by the first evaluation. All of it is compared with the CPU, byte for byte.
    let (first, evaluated) = timed(|| {
        let mut recording = backend.record();
        let evaluated = resident.evaluate(&mut recording, &z)?;
        recording.submit_verified()?.wait()?;
        Ok::<_, bls12_field_gpu::Error>(evaluated)
    });
    let evaluated = evaluated?;
    let (verified, ()) = best(|| {
        let mut recording = backend.record();
        resident.evaluate(&mut recording, &z)?;
        Ok(recording.submit_verified()?.wait().map(drop)?)
    })?;
    if let Some(number) = first_violated(&evaluated.holds.download()?) {
        return Err(format!("constraint {number} does not hold: {}", circuit.constraint(number)).into());
    }

    let (device, flags) = best(|| evaluate(&backend, &resident, &z, &circuit.z))?;
    let (cpu_products, expected) = best(|| Ok(products(&circuit.matrices, &circuit.z)))?;
    let (cpu_check, expected_flags) = best(|| Ok(holds(&expected)))?;
    for (ours, theirs) in evaluated.products.iter().zip(&expected) {
        if ours.download()? != *theirs {
            return Err("the products are not what arkworks computes".into());
        }
    }
    if flags != expected_flags {
        return Err("the constraints that hold are not those that arkworks finds".into());
    }

    heading("making ready, once per circuit");
    row("synthesis, by arkworks on one core", synthesis);
    row("its matrices, by arkworks on one core", extraction);
    row("conversion to compressed rows", conversion);
    row("open the device", opening);
    row("upload of the matrices", matrices);
    row("first evaluation, with self-tests of kernels", first);

    heading(&format!("for each witness, the least of {REPETITIONS} or fewer"));
    row("upload of z, three products, the check, its flags back", device);
    stages(&backend, &resident, &z, &circuit.z)?;
    row("products and check verified by the CPU, z being there", verified);

    heading(&format!("the same by arkworks on all cores: {} threads", rayon::current_num_threads()));
    row("three products", cpu_products);
    row("the check", cpu_check);
    row("all of it", cpu_products + cpu_check);

    println!(
        "\nAll {constraints} constraints hold, and the products agree with arkworks'. {}",
        quicker(device, cpu_products + cpu_check)
    );
    plant(&backend, &resident, &z, &circuit)
}

/// z there, the constraints that hold back.
fn evaluate(backend: &Backend, resident: &Resident, z: &Vector<Fr>, values: &[Fr]) -> Outcome<Vec<bool>> {
    let mut recording = backend.record();
    recording.write(z, values)?;
    let evaluated = resident.evaluate(&mut recording, z)?;
    let flags = recording.download_mask(&evaluated.holds)?;
    Ok(recording.submit()?.wait()?.take(&flags)?)
}

/// What the device's own clock says of an evaluation's parts, the least of each.
fn stages(backend: &Backend, resident: &Resident, z: &Vector<Fr>, values: &[Fr]) -> Outcome<()> {
    let fused = |span: &Span| span.stage == Stage::Compute && span.name.starts_with("expression");
    let parts: [(&str, &dyn Fn(&Span) -> bool); 4] = [
        ("upload of z", &|span| span.stage == Stage::Upload),
        ("three products", &|span| span.stage == Stage::Compute && !fused(span)),
        ("the check", &fused),
        ("download of flags", &|span| span.stage == Stage::Download),
    ];
    let mut least = parts.map(|_| None);
    best(|| {
        backend.start_profile()?;
        evaluate(backend, resident, z, values)?;
        let profile = backend.take_profile();
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
        time.into_iter().for_each(|time| row(&format!("  by the device's clock: {name}"), time));
    }
    Ok(())
}

/// Wrong values, one at a time: of z on the device only one element is written.
fn plant(backend: &Backend, resident: &Resident, z: &Vector<Fr>, circuit: &Circuit) -> Outcome<()> {
    for (part, of) in [(1, 4), (2, 4), (3, 4)] {
        let variable = circuit.publics() + (circuit.z.len() - circuit.publics()) * part / of;
        let mut wrong = circuit.z.clone();
        wrong[variable] += Fr::from(part as u64);
        let place = variable..variable + 1;
        let flags = evaluate(backend, resident, &z.slice(place.clone())?, &wrong[place])?;
        let found = first_violated(&flags).ok_or("a wrong value is not found")?;
        let expected = products(&circuit.matrices, &wrong);
        if flags != holds(&expected) {
            return Err("the violated constraints are not those that arkworks finds".into());
        }
        let (name, honest) = (circuit.name(variable), Short(circuit.z[variable]));
        println!("\nPlanted {name} = {} instead of {honest}: constraint {found} does not hold.", Short(wrong[variable]));
        println!("  {}", circuit.constraint(found));
        let [a, b, c] = expected.map(|product| Short(product[found]));
        println!("  but {a} * {b} is not {c}; {} constraints are violated", flags.iter().filter(|holds| !**holds).count());
        evaluate(backend, resident, z, &circuit.z)?;
    }
    Ok(())
}

fn engine(backend: &Backend) {
    let Engine::Vulkan { device, .. } = backend.engine() else {
        return fact("device", format_args!("none: no GPU takes part. Computed by {}", backend.engine()));
    };
    fact("device", device);
    if device.kind == DeviceKind::Software {
        fact("", "no GPU: this driver computes on the CPU");
    }
}

fn quicker(device: Duration, cpu: Duration) -> String {
    let times = |less: Duration, more: Duration| more.as_secs_f64() / less.as_secs_f64().max(1e-9);
    if device < cpu {
        format!("The device is {:.1} times as fast as arkworks on all cores.", times(device, cpu))
    } else {
        format!("arkworks on all cores is {:.1} times as fast as the device.", times(cpu, device))
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

fn fact(name: &str, value: impl std::fmt::Display) {
    println!("{name:<15}{value}");
}

fn heading(name: &str) {
    println!("\n{name:<60}{:>10}", "ms");
}

fn row(name: &str, time: Duration) {
    println!("  {name:<58}{:>10.2}", time.as_secs_f64() * 1e3);
}
