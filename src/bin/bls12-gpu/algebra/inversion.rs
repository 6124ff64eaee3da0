//! Inverses and quotients.

use super::{Bench, Outcome, Row};
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Error, Recording, Vector, Zeros};
use rayon::prelude::*;

type Record<F> = fn(&mut Recording, &Vector<F>, &Vector<F>, &Vector<F>) -> Result<(), Error>;

pub(super) fn measure(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    of_field::<Fq>(
        bench,
        &mut rows,
        ["fq_batch_inverse_22", "fq_divide_22", "fq_inverse_or_zero_20"],
        ["fq_batch_inverse_10", "fq_batch_inverse_14", "fq_inverse_or_zero_10"],
    )?;
    of_field::<Fr>(
        bench,
        &mut rows,
        ["fr_batch_inverse_22", "fr_divide_22", "fr_inverse_or_zero_20"],
        ["fr_batch_inverse_10", "fr_batch_inverse_14", "fr_inverse_or_zero_10"],
    )?;
    Ok(rows)
}

fn of_field<F: Element>(
    bench: &Bench,
    rows: &mut Vec<Row>,
    rates: [&'static str; 3],
    latencies: [&'static str; 3],
) -> Outcome<()> {
    let batch: Record<F> = |recording, a, _, out| recording.batch_inverse_into(a, Zeros::Keep, out);
    let divide: Record<F> = |recording, a, b, out| recording.divide_into(b, a, Zeros::Keep, out);
    let single: Record<F> = |recording, a, _, out| recording.inverse_or_zero_into(a, out);
    let most = bench.size(1 << 22);
    let (a, b) = (bench.elements::<F>(most, 1), bench.elements::<F>(most, 2));
    let all = [bench.backend.upload(&a)?, bench.backend.upload(&b)?, bench.backend.zeros::<F>(most)?];
    let measured = [
        (rates[0], batch, 1 << 22),
        (rates[1], divide, 1 << 22),
        (rates[2], single, 1 << 20),
        (latencies[0], batch, 1 << 10),
        (latencies[1], batch, 1 << 14),
        (latencies[2], single, 1 << 10),
    ];
    let on_first = |length: usize| -> Outcome<[Vector<F>; 3]> {
        let first = |n: usize| all[n].slice(0..bench.size(length));
        Ok([first(0)?, first(1)?, first(2)?])
    };
    for (name, record, length) in measured {
        let [a, b, out] = on_first(length)?;
        let seconds = bench.seconds(|recording| record(recording, &a, &b, &out))?;
        let detail = format!("{} elements, {:.1} us", a.len(), 1e6 * seconds);
        let (value, unit) = match rates.contains(&name) {
            true => (a.len() as f64 / seconds / 1e9, "G elem/s"),
            false => (1e6 * seconds, "us"),
        };
        rows.push(Row { name, value, unit, detail });
    }
    // After all are timed, for the device is not to wait.
    let one = F::from(1u64);
    for (name, record, length) in measured {
        let [there, other, out] = on_first(length)?;
        let mut recording = bench.backend.record();
        recording.zero(&out)?;
        record(&mut recording, &there, &other, &out)?;
        recording.submit()?.wait()?;
        let right = |((a, b), x): ((&F, &F), &F)| *a * x == if name == rates[1] { *b } else { one };
        if !a.par_iter().zip(&b).zip(&out.download()?).all(right) {
            return Err(format!("{name} is wrong").into());
        }
    }
    Ok(())
}
