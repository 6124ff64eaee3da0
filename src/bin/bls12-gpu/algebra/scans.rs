//! Scans, powers and polynomials.

use super::{Bench, Outcome, Record, Row};
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::Scan;
use bls12_field_gpu::ark::Element;

pub(super) fn measure(bench: &Bench) -> Outcome<Vec<Row>> {
    let fr = [
        "fr_prefix_sum_24",
        "fr_prefix_product_24",
        "fr_products_from_heads_24",
        "fr_powers_24",
        "fr_divide_by_linear_24",
        "fr_poly_eval_22_ms",
    ];
    let fq = [
        "fq_prefix_sum_24",
        "fq_prefix_product_24",
        "fq_products_from_heads_24",
        "fq_powers_24",
        "fq_divide_by_linear_24",
        "fq_poly_eval_22_ms",
    ];
    Ok([of::<Fr>(bench, fr)?, of::<Fq>(bench, fq)?].concat())
}

fn of<F: Element>(bench: &Bench, names: [&'static str; 6]) -> Outcome<Vec<Row>> {
    let length = bench.size(1 << 24);
    let points = bench.elements::<F>(2, 3);
    let (a, x) = (bench.backend.upload(&bench.elements::<F>(length, 1))?, bench.backend.upload(&points[..1])?);
    let (out, c) = (bench.backend.zeros(length)?, bench.backend.upload(&points[1..])?);
    let polynomial = a.slice(0..bench.size(1 << 22))?;
    let heads = bench.backend.upload_mask(&(0..length).map(|at| at * at % 101 == 5).collect::<Vec<bool>>())?;
    let records: [Record; 6] = [
        &|recording| recording.scan_into(Scan::sum(), &a, &out),
        &|recording| recording.scan_into(Scan::product(), &a, &out),
        &|recording| recording.scan_from_heads_into(Scan::product(), &a, &heads, &out),
        &|recording| recording.powers_into(&x, &c, &out),
        &|recording| recording.divide_by_linear_into(&a, &x, &out),
        &|recording| recording.evaluate_point(&polynomial, &points[0]).map(drop),
    ];
    let mut rows = Vec::new();
    for (name, record) in names.into_iter().zip(records) {
        let seconds = bench.seconds(record)?;
        let (value, unit, length) = match name.ends_with("_ms") {
            true => (1e3 * seconds, "ms", polynomial.len()),
            false => (length as f64 / seconds / 1e9, "G elem/s", length),
        };
        let alone = bench.seconds_alone(record)?;
        let detail = format!("{length} elements in {:.3} ms; one alone {:.3} ms", 1e3 * seconds, 1e3 * alone);
        rows.push(Row { name, value, unit, detail });
    }
    // After all are timed, for the device is not to wait.
    records.into_iter().try_for_each(|record| bench.verify(record))?;
    Ok(rows)
}
