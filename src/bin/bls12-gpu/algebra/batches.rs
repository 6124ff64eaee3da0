//! Batches of operations in one recording: what a batch takes of the device and of the host.

use super::{Bench, Outcome};
use crate::report::{Sheet, number, rounded};
use ark_bls12_381::Fr;
use ark_ff::Zero as _;
use bls12_field_gpu::{Error, Recording, Scan, Vector};
use cpu_reference::matrices;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// What operands take, in bytes, at full size and to see that it works.
const SIZES: [&[(usize, &str)]; 2] =
    [&[(1 << 16, "64 KiB"), (1 << 23, "8 MiB"), (1 << 26, "64 MiB")], &[(1 << 11, "2 KiB"), (1 << 12, "4 KiB")]];

/// Operations in a batch.
const BATCHES: [&[usize]; 2] = [&[1, 16, 256], &[1, 4, 32]];

/// The operations of a batch write to so many vectors in turn.
const OUTPUTS: usize = 16;

/// A batch that would take longer is not run.
const LONGEST: f64 = 12.0;

/// How long a batch is repeated, and how often at most.
const REPEATED: (Duration, usize) = (Duration::from_millis(100), 21);

/// A batch of one operation.
pub(super) struct Batch {
    operation: &'static str,
    size: &'static str,
    /// Elements of an operand, or its rows and columns.
    shape: String,
    operations: usize,
    /// Nothing if it would take too long.
    run: Option<Run>,
}

/// What a batch took.
#[derive(Clone, Copy)]
struct Run {
    /// From the first operation recorded until all are done.
    elapsed: Duration,
    /// Until it is submitted.
    host: Duration,
    dispatches: u64,
    submits: u64,
    barriers: u64,
    descriptor_updates: u64,
    allocations: u64,
}

impl Run {
    fn host_per_dispatch(&self) -> f64 {
        self.host.as_secs_f64() * 1e6 / self.dispatches.max(1) as f64
    }
}

/// Records an operation whose output goes to a vector.
type Record<'a> = &'a dyn Fn(&mut Recording, &Vector<Fr>) -> Result<(), Error>;

/// An operation on elements of Fr.
struct Operation<'a> {
    name: &'static str,
    shape: String,
    /// Elements of its output.
    output: usize,
    record: Record<'a>,
    /// Whether an output is right.
    right: &'a dyn Fn(&[Fr]) -> bool,
}

pub(super) fn measure(bench: &Bench, batches: &mut Vec<Batch>) -> Outcome<()> {
    for &(bytes, size) in SIZES[usize::from(bench.quick)] {
        let length = bytes / size_of::<Fr>();
        let side = length.isqrt();
        let (x, y, random) = (bench.elements(length, 1), bench.elements(length, 2), bench.elements::<Fr>(side + 1, 3));
        let (a, b) = (bench.backend.upload(&x)?, bench.backend.upload(&y)?);
        let square = side * side;
        let (left, right) = (a.slice(0..square)?, b.slice(0..square)?);
        let (scalar, random) = (random[side], &random[..side]);
        let resident = bench.backend.upload(&[scalar])?;
        let axpy = |got: &[Fr]| got.par_iter().zip(&x).zip(&y).all(|((got, x), y)| *got == *x * scalar + y);
        let outputs = (0..OUTPUTS).map(|_| bench.backend.zeros(length)).collect::<Result<Vec<Vector<Fr>>, Error>>()?;
        let sum: Fr = x.par_iter().sum();
        let elements = format!("{length}");
        let operations = [
            Operation {
                name: "axpy",
                shape: elements.clone(),
                output: length,
                record: &|recording, out| recording.evaluate_into(&(&a * scalar + &b), out),
                right: &axpy,
            },
            Operation {
                name: "axpy, a resident",
                shape: elements.clone(),
                output: length,
                record: &|recording, out| recording.evaluate_into(&(&a * resident.broadcast() + &b), out),
                right: &axpy,
            },
            Operation {
                name: "sum",
                shape: elements.clone(),
                output: 1,
                record: &|recording, out| recording.sum_into(&a, out),
                right: &|got| *got == [sum],
            },
            Operation {
                name: "prefix sum",
                shape: elements,
                output: length,
                record: &|recording, out| recording.scan_into(Scan::sum(), &a, out),
                right: &|got| {
                    let before = |i: usize| if i == 0 { Fr::zero() } else { got[i - 1] };
                    (0..length).into_par_iter().all(|i| got[i] == before(i) + x[i])
                },
            },
            Operation {
                name: "GEMM",
                shape: format!("{side} x {side}"),
                output: square,
                record: &|recording, out| recording.matrix_product_into(&left, &right, (side, side, side), out),
                right: &|got| matrices::first_wrong_product(&x[..square], &y[..square], got, (side, side), random).is_none(),
            },
        ];
        for operation in &operations {
            let outputs = outputs.iter().map(|out| out.slice(0..operation.output)).collect::<Result<Vec<_>, Error>>()?;
            of_operation(bench, size, operation, &outputs, batches)?;
        }
    }
    Ok(())
}

/// Batches of one operation on one size.
fn of_operation(
    bench: &Bench,
    size: &'static str,
    operation: &Operation,
    outputs: &[Vector<Fr>],
    batches: &mut Vec<Batch>,
) -> Outcome<()> {
    let once = |operations: usize| -> Result<Run, Error> {
        let before = bench.backend.stats().device;
        let begin = Instant::now();
        let mut recording = bench.backend.record();
        for out in outputs.iter().cycle().take(operations) {
            (operation.record)(&mut recording, out)?;
        }
        let ticket = recording.submit()?;
        let host = begin.elapsed();
        ticket.wait()?;
        let elapsed = begin.elapsed();
        let after = bench.backend.stats().device;
        Ok(Run {
            elapsed,
            host,
            dispatches: after.dispatches - before.dispatches,
            submits: after.submits - before.submits,
            barriers: after.barriers - before.barriers,
            descriptor_updates: after.descriptor_updates - before.descriptor_updates,
            allocations: after.allocations - before.allocations,
        })
    };
    // Self-tests and pipelines.
    once(1)?;
    let mut fetched = vec![Fr::zero(); operation.output];
    let mut each: f64 = 0.0;
    for &operations in BATCHES[usize::from(bench.quick)] {
        let mut run = None;
        if each * operations as f64 <= LONGEST {
            let mut recording = bench.backend.record();
            outputs.iter().try_for_each(|out| recording.zero(out))?;
            recording.submit()?.wait()?;
            once(operations)?;
            bench.warm()?;
            let (begin, mut runs) = (Instant::now(), Vec::new());
            while runs.is_empty() || (!bench.quick && runs.len() < REPEATED.1 && begin.elapsed() < REPEATED.0) {
                runs.push(once(operations)?);
            }
            runs.sort_by_key(|run| run.elapsed);
            let median = runs[runs.len() / 2];
            each = median.elapsed.as_secs_f64() / operations as f64;
            run = Some(median);
            for out in outputs.iter().take(operations) {
                out.download_into(&mut fetched)?;
                if !(operation.right)(&fetched) {
                    return Err(format!("{} of {size} in a batch of {operations} is wrong", operation.name).into());
                }
            }
        }
        batches.push(Batch { operation: operation.name, size, shape: operation.shape.clone(), operations, run });
    }
    Ok(())
}

impl Batch {
    pub(super) fn json(&self) -> Value {
        let Self { operation, size, shape, operations, run } = self;
        let mut object = json!({ "operation": operation, "size": size, "shape": shape, "operations": operations });
        match run {
            None => object["not_run"] = json!(format!("would take more than {LONGEST} s")),
            Some(run) => {
                object["us"] = json!(rounded(run.elapsed.as_secs_f64() * 1e6));
                object["submits"] = json!(run.submits);
                object["dispatches"] = json!(run.dispatches);
                object["barriers"] = json!(run.barriers);
                object["descriptor_updates"] = json!(run.descriptor_updates);
                object["allocations"] = json!(run.allocations);
                object["cpu_us_per_dispatch"] = json!(rounded(run.host_per_dispatch()));
            }
        }
        object
    }

    fn line(&self) -> Vec<String> {
        let mut line = vec![self.operation.into(), self.size.into(), self.shape.clone(), self.operations.to_string()];
        match &self.run {
            None => line.resize(COLUMNS.len(), "-".into()),
            Some(run) => {
                let time = run.elapsed.as_secs_f64() * 1e6;
                line.extend([time, time / self.operations as f64].map(number));
                let counts = [run.submits, run.dispatches, run.barriers, run.descriptor_updates, run.allocations];
                line.extend(counts.map(|count| count.to_string()));
                line.push(number(run.host_per_dispatch()));
            }
        }
        line
    }
}

const COLUMNS: [&str; 12] = [
    "",
    "operand",
    "elements",
    "operations",
    "us",
    "us an operation",
    "submits",
    "dispatches",
    "barriers",
    "descriptor updates",
    "allocations",
    "CPU, us a dispatch",
];

pub(super) fn sheet(batches: &[Batch]) -> Sheet<'static> {
    Sheet {
        title: "Batches of one operation, recorded and submitted at once: Fr, resident, in steady state",
        note: "`axpy` is a x + y for one element a, of the host, which goes along with every operation, or on the device. A GEMM's \
               matrices are the largest square ones that an operand of the size holds. Time is from the first operation recorded \
               until the last one is done, CPU time until they are submitted; each batch ran at least once before, so that \
               its command buffer may be found, and the median of up to 21 is given. The operations of a batch write to 16 vectors in turn: where there are more, they \
               wait for those whose output they overwrite. Every output of each batch was checked. `-`: not run, since by the \
               time of the batch before it would take more than half a second.",
        columns: COLUMNS.to_vec(),
        lines: batches.iter().map(Batch::line).collect(),
    }
}
