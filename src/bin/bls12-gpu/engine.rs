//! The part of the report about the engine: long calls from host memory, checked while they run; chains of recorded operations;
//! counters in steady state; the first call of a process.

use crate::measure::{Effort, Inputs, median, warming};
use crate::report::{Report, Table, micros, with_the_cpu};
use ark_bls12_381::Fq;
use bls12_field_gpu::{
    Backend, CacheDirectory, Error, Field, Form, MemoryMode, Operation, Options, Pinned, Recording, Stage, Vector, Verify,
};
use cpu_reference::{LimbField as _, Operands, Positions};
use rayon::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

type Failure = Box<dyn std::error::Error>;

/// How long the parts of a first call took: what the driver took of making the backend, the rest of it, the call.
pub(crate) fn first_call(options: &Options, cache: &Path) -> Result<[Duration; 3], Failure> {
    let options = options.clone().cache(CacheDirectory::At(cache.into())).verify(Verify::Off);
    let begin = Instant::now();
    let backend = Backend::new(&options)?;
    let made = begin.elapsed();
    let inputs = Inputs::new(Operation::Mul, Field::Fq, 64);
    let begin = Instant::now();
    let outcome = inputs.call(Form::Montgomery, |call| backend.execute(call))?;
    let called = begin.elapsed();
    let (a, b) = (Fq::elements(inputs.vector(0)), Fq::elements(inputs.vector(1)));
    let right = Fq::elements(&outcome.elements).iter().zip(a).zip(b).all(|((r, a), b)| *r == *a * b);
    let driver = backend.driver_time();
    if right { Ok([driver, made.saturating_sub(driver), called]) } else { Err("a first multiplication is wrong".into()) }
}

impl Report {
    /// Everything about the engine.
    pub(crate) fn engine(&mut self, options: &Options, device: Option<usize>, quick: bool) -> Result<(), Failure> {
        self.long_calls(options, quick)?;
        self.chain(&Backend::new(&options.clone().verify(Verify::Off))?, quick)?;
        self.steady_state(&Backend::new(options)?)?;
        self.together(&Backend::new(&options.clone().verify(Verify::Off))?, quick)?;
        self.first_calls(device)
    }

    /// Additions and multiplications of vectors that no cache holds.
    fn long_calls(&mut self, options: &Options, quick: bool) -> Result<(), Failure> {
        let length = if quick { 1 << 16 } else { 1 << 24 };
        let effort = Effort { warm_up: 1, repetitions: (if quick { 1 } else { 7 }, 7), budget: Duration::ZERO };
        let element =
            |i: usize, salt: u64| Fq::from((i as u64 ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15)) * Fq::from(i as u64);
        let vector = |salt| (0..length).into_par_iter().map(|i| element(i, salt)).collect::<Vec<Fq>>();
        let (a, b) = (vector(1), vector(2));
        let of = |f: fn(&Fq, &Fq) -> Fq| a.par_iter().zip(&b).map(|(a, b)| f(a, b)).collect::<Vec<Fq>>();
        let (sums, products) = (of(|a, b| *a + b), of(|a, b| *a * b));
        let spoil = Fq::from(0u64);
        let rate = |time: Duration| length as f64 / time.as_secs_f64() / 1e9;
        let title = "Fq add, 2^24 elements, host to host, unverified (2^16 if quick): G elements a second";
        let mut table = Table { title, columns: vec!["pageable", "pinned"], lines: Vec::new() };
        let alone = options.clone().verify(Verify::Off);
        for (name, prefix, options) in [
            ("kernels in host memory", None, alone.clone().memory(MemoryMode::Host)),
            ("staged", None, alone.clone().memory(MemoryMode::DeviceLocal)),
            ("device", Some("device_"), alone),
            ("device, with the CPU", Some(""), with_the_cpu(options, quick)),
        ] {
            let backend = Backend::new(&options)?;
            let mut out = vec![spoil; length];
            let pageable = median(effort, (&mut out, spoil, &sums), |out| backend.add_into(&a, &b, out))?;
            let (mut x, mut y, mut z) = (backend.pinned(length)?, backend.pinned(length)?, backend.pinned(length)?);
            x.copy_from_slice(&a);
            y.copy_from_slice(&b);
            let pinned = median(effort, (&mut z, spoil, &sums), |z| backend.add_into(&x, &y, z))?;
            table.lines.push((name.into(), vec![Some(rate(pageable)), Some(rate(pinned))]));
            if let Some(prefix) = prefix {
                self.row(format!("{prefix}fq_add_pageable_gelems"), rate(pageable), "G elem/s");
                self.row(format!("{prefix}fq_add_pinned_gelems"), rate(pinned), "G elem/s");
                backend.start_profile()?;
                backend.add_into(&a, &b, &mut out)?;
                let title = match prefix {
                    "" => "Where the time of the pageable addition goes, with the CPU",
                    _ => "Where the time of the pageable addition goes, by the device alone",
                };
                self.texts.push((title, backend.take_profile().to_string()));
            }
        }
        self.tables.push(table);

        let calls = |verify| -> Result<_, Error> {
            let backend = Backend::new(&options.clone().verify(verify))?;
            let (mut x, mut y, z) = (backend.pinned(length)?, backend.pinned(length)?, backend.pinned(length)?);
            x.copy_from_slice(&a);
            y.copy_from_slice(&b);
            Ok((backend, x, y, z))
        };
        let mut calls = [calls(Verify::Off)?, calls(Verify::All)?];
        let twin = cpu_reference::mul::<Fq>();
        let vectors = [Fq::limbs(&a), Fq::limbs(&b), &[]];
        let operands = Operands { vectors, parameter: &[], form: Form::Montgomery };
        let check = || {
            let begin = Instant::now();
            let wrong = (twin.first_wrong)(&operands, Fq::limbs(&products), &[], Positions::All);
            if wrong.is_none() { Ok(begin.elapsed()) } else { Err("the check finds a right product wrong") }
        };
        // In turn, since a host's speed varies. The first round does not count.
        let mut times = [const { Vec::new() }; 3];
        for round in 0..if quick { 2 } else { 16 } {
            let once = |(backend, x, y, z): &mut (Backend, Pinned<Fq>, Pinned<Fq>, Pinned<Fq>)| {
                median(Effort::QUICK, (z, spoil, &products), |z| backend.mul_into(x, y, z))
            };
            let took = [once(&mut calls[0])?, once(&mut calls[1])?, check()?];
            if round > 0 {
                times.iter_mut().zip(took).for_each(|(times, time)| times.push(time));
            }
        }
        let [unverified, verified, check] = times.map(|mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        });
        let title = "Fq mul, 2^24 pinned elements, host to host (2^16 if quick): milliseconds";
        let columns = vec!["unverified", "the CPU's check alone", "verified", "verified over the larger"];
        let ratio = verified.as_secs_f64() / unverified.max(check).as_secs_f64();
        let line = [micros(unverified) / 1e3, micros(check) / 1e3, micros(verified) / 1e3, ratio].map(Some).to_vec();
        self.tables.push(Table { title, columns, lines: vec![("time".into(), line)] });
        self.row("verify_all_unverified_ms", micros(unverified) / 1e3, "ms");
        self.row("verify_all_check_ms", micros(check) / 1e3, "ms");
        self.row("verify_all_ms", micros(verified) / 1e3, "ms");
        self.row("verify_all_overlap", ratio, "ratio");
        Ok(())
    }

    /// A hundred operations, each of which reads what the one before it wrote, in one submission.
    fn chain(&mut self, backend: &Backend, quick: bool) -> Result<(), Failure> {
        let length = if quick { 1 << 10 } else { 1 << 20 };
        let vector = |salt: u64| (0..length as u64).map(|i| Fq::from(i.wrapping_mul(salt) + 3)).collect::<Vec<Fq>>();
        let (first, second) = (vector(0x9e37_79b9), vector(0x85eb_ca6b));
        let (a, b) = (backend.upload(&first)?, backend.upload(&second)?);
        // An operation's own time: by the device's clock, alone; and as one of many that do not depend on one another, less few of
        // them, so that also what a kernel takes to begin and to end drops out.
        let outputs = (0..24).map(|_| backend.zeros(length)).collect::<Result<Vec<Vector<Fq>>, Error>>()?;
        let repetitions = if quick { 1 } else { 21 };
        let warm = warming(backend, quick)?;
        let median = |mut each: Vec<f64>| {
            each.sort_by(f64::total_cmp);
            each[each.len() / 2]
        };
        let own = |operation| -> Result<[f64; 2], Failure> {
            let run = |count: usize| -> Result<Duration, Error> {
                let mut recording = backend.record();
                for out in &outputs[..count] {
                    recording.apply_into(operation, &[&a, &b], &[], out)?;
                }
                timed(recording)
            };
            run(24)?;
            warm()?;
            let among_many = (0..repetitions).map(|_| Ok((run(24)?.as_secs_f64() - run(4)?.as_secs_f64()) / 20.0));
            let among_many = median(among_many.collect::<Result<_, Error>>()?);
            backend.start_profile()?;
            (0..repetitions).try_for_each(|_| run(1).map(drop))?;
            let spans = backend.take_profile().spans.into_iter().filter(|span| span.stage == Stage::Compute);
            let alone: Vec<f64> = spans.map(|span| (span.end - span.start).as_secs_f64()).collect();
            // Not every device has a clock.
            Ok([if alone.is_empty() { among_many } else { median(alone) }, among_many])
        };
        let (add, mul) = (own(Operation::Add)?, own(Operation::Mul)?);
        let [alone, among_many] = [0, 1].map(|n| 50.0 * (add[n] + mul[n]));
        let mut times = Vec::new();
        for _ in 0..if quick { 1 } else { 21 } {
            let a = backend.upload(&first)?;
            let mut recording = backend.record();
            for _ in 0..50 {
                recording.add_into(&a, &b, &a)?;
                recording.mul_into(&a, &b, &a)?;
            }
            warm()?;
            times.push(timed(recording)?);
            let expected = |(a, b): (&Fq, &Fq)| (0..50).fold(*a, |a, _| (a + b) * b);
            let right =
                a.download()?.into_par_iter().zip(first.par_iter().zip(&second)).all(|(a, pair)| a == expected(pair));
            if !right {
                return Err("a chain of operations is wrong".into());
            }
        }
        times.sort();
        let elapsed = times[times.len() / 2].as_secs_f64();
        self.row("chain_100_us", elapsed * 1e6, "us");
        self.row("chain_100_kernels_us", alone * 1e6, "us");
        self.row("chain_100_efficiency", alone / elapsed, "ratio");
        self.row("chain_100_against_independent", among_many / elapsed, "ratio");
        Ok(())
    }

    /// 64 recordings of 8 dispatches, of which every second reads what the one before it wrote, the second time round.
    fn steady_state(&mut self, backend: &Backend) -> Result<(), Failure> {
        let vectors = |_| backend.upload(&[Fq::from(3u64); 1000]);
        let sets = (0..64).map(|_| (0..12).map(vectors).collect()).collect::<Result<Vec<Vec<Vector<Fq>>>, Error>>()?;
        let round = || -> Result<(), Error> {
            for set in &sets {
                let mut recording = backend.record();
                for triple in set.chunks_exact(3) {
                    recording.mul_into(&triple[0], &triple[1], &triple[2])?;
                    recording.add_into(&triple[2], &triple[0], &triple[1])?;
                }
                recording.submit()?.wait()?;
            }
            Ok(())
        };
        round()?;
        let before = backend.stats().device;
        round()?;
        let after = backend.stats().device;
        let dispatches = (after.dispatches - before.dispatches) as f64;
        self.row("barriers_per_dispatch", (after.barriers - before.barriers) as f64 / dispatches, "ratio");
        let updates = after.descriptor_updates - before.descriptor_updates;
        self.row("descriptor_updates_per_dispatch", updates as f64 / dispatches, "ratio");
        self.row("steady_allocations", (after.allocations - before.allocations) as f64, "count");
        self.row("steady_pipeline_builds", (after.pipeline_builds - before.pipeline_builds) as f64, "count");
        Ok(())
    }

    /// Small calls of sixteen threads at a time, which share submissions. The threads take them from one count, since the one on the core that
    /// the device's interrupts go to is slower than the others.
    fn together(&mut self, backend: &Backend, quick: bool) -> Result<(), Failure> {
        const THREADS: usize = 16;
        let calls = if quick { 2 } else { 2000 };
        let (a, b) = ([Fq::from(7u64); 64], [Fq::from(5u64); 64]);
        let call = || -> Result<bool, Error> { Ok(backend.add(&a, &b)? == [Fq::from(12u64); 64]) };
        call()?;
        let begun = AtomicUsize::new(0);
        let work = || -> Result<bool, Error> {
            let mut right = true;
            while begun.fetch_add(1, Relaxed) < THREADS * calls {
                right &= call()?;
            }
            Ok(right)
        };
        let before = backend.stats().device.submits;
        let begin = Instant::now();
        let right = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
            threads.into_iter().try_fold(true, |right, thread| -> Result<bool, Failure> {
                Ok(thread.join().map_err(|_| "what was measured has panicked")?? && right)
            })
        })?;
        let elapsed = begin.elapsed();
        if !right {
            return Err("a sum of several threads' is wrong".into());
        }
        let submits = (backend.stats().device.submits - before) as f64;
        self.row("add_64_16_threads_us", micros(elapsed) / calls as f64, "us");
        self.row("add_64_16_threads_calls_per_submit", (THREADS * calls) as f64 / submits, "ratio");
        Ok(())
    }

    /// First calls of processes that share a cache directory: the first fills it.
    fn first_calls(&mut self, device: Option<usize>) -> Result<(), Failure> {
        let directory = std::env::temp_dir().join(format!("bls12-gpu-first-{}", std::process::id()));
        let title =
            "First Fq mul of a process, this library's cache filled by another one, the driver's own off: milliseconds";
        let columns = vec!["instance and device", "the rest of the backend", "first call"];
        let mut table = Table { title, columns, lines: Vec::new() };
        let mut warm = Vec::new();
        for process in 0..6 {
            let mut command = std::process::Command::new(std::env::current_exe()?);
            command.arg("first-call").arg(&directory).env("__GL_SHADER_DISK_CACHE", "0");
            if let Some(device) = device {
                command.arg("--device").arg(device.to_string());
            }
            let output = command.output()?;
            let text = String::from_utf8(output.stdout)?;
            let numbers: Vec<f64> = text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
            let [driver, rest, called] = numbers[..] else {
                return Err(format!("a process failed: {}", String::from_utf8_lossy(&output.stderr)).into());
            };
            let line = [driver, rest, called].map(Some).to_vec();
            table.lines.push((if process == 0 { "cold" } else { "warm" }.into(), line));
            if process > 0 {
                warm.push((rest + called, driver));
            }
        }
        std::fs::remove_dir_all(directory)?;
        warm.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (library, driver) = warm[warm.len() / 2];
        self.row("warm_start_ms", library, "ms");
        self.row("instance_and_device_ms", driver, "ms");
        self.tables.push(table);
        Ok(())
    }
}

/// From submission to the end.
fn timed(recording: Recording) -> Result<Duration, Error> {
    let begin = Instant::now();
    recording.submit()?.wait()?;
    Ok(begin.elapsed())
}
