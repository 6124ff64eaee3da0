//! Inverses and quotients.

use super::{Bench, Outcome, Row};
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Error, Recording, Vector, Zeros};

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
    for (name, record, length, divides) in [
        (rates[0], batch, 1 << 22, false),
        (rates[1], divide, 1 << 22, true),
        (rates[2], single, 1 << 20, false),
        (latencies[0], batch, 1 << 10, false),
        (latencies[1], batch, 1 << 14, false),
        (latencies[2], single, 1 << 10, false),
    ] {
        let length = bench.size(length);
        let (a, b) = (bench.elements::<F>(length, 1), bench.elements::<F>(length, 2));
        let (on_device, other) = (bench.backend.upload(&a)?, bench.backend.upload(&b)?);
        let out = bench.backend.zeros::<F>(length)?;
        let seconds = bench.seconds(|recording| record(recording, &on_device, &other, &out))?;
        let quotients = out.download()?;
        let one = F::from(1u64);
        if a.iter().zip(&b).zip(&quotients).any(|((a, b), x)| *a * x != if divides { *b } else { one }) {
            return Err(format!("{name} is wrong").into());
        }
        let detail = format!("{length} elements, {:.1} us", 1e6 * seconds);
        let (value, unit) =
            if length > 1 << 16 { (length as f64 / seconds / 1e9, "G elements/s") } else { (1e6 * seconds, "us") };
        rows.push(Row { name, value, unit, detail });
    }
    Ok(())
}
