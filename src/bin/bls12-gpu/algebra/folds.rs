//! Vectors folded into one element.

use super::{Bench, Outcome, Record, Row};
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;

pub(super) fn measure(bench: &Bench) -> Outcome<Vec<Row>> {
    let fr = ["fr_sum_24", "fr_product_24", "fr_inner_product_24", "fr_extent_24"];
    let fq = ["fq_sum_24", "fq_product_24", "fq_inner_product_24", "fq_extent_24"];
    Ok([of::<Fr>(bench, fr)?, of::<Fq>(bench, fq)?].concat())
}

fn of<F: Element>(bench: &Bench, names: [&'static str; 4]) -> Outcome<Vec<Row>> {
    let length = bench.size(1 << 24);
    let (a, b) =
        (bench.backend.upload(&bench.elements::<F>(length, 1))?, bench.backend.upload(&bench.elements::<F>(length, 2))?);
    // Each into memory of its own, or they would wait for each other.
    let records: [Record; 4] = [
        &|recording| recording.sum(&a).map(drop),
        &|recording| recording.product(&a).map(drop),
        &|recording| recording.inner_product(&a, &b).map(drop),
        &|recording| recording.extents(&a, 1).map(drop),
    ];
    let mut rows = Vec::new();
    for (name, record) in names.into_iter().zip(records) {
        let seconds = bench.seconds(record)?;
        let alone = bench.seconds_alone(record)?;
        let detail = format!("{length} elements in {:.3} ms; one alone {:.3} ms", 1e3 * seconds, 1e3 * alone);
        rows.push(Row { name, value: length as f64 / seconds / 1e9, unit: "G elem/s", detail });
    }
    // After all are timed, for the device is not to wait.
    records.into_iter().try_for_each(|record| bench.verify(record))?;
    Ok(rows)
}
