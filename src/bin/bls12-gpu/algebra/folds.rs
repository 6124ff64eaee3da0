//! Vectors folded into one element.

use super::{Bench, Outcome, Row};
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::Reduction;
use bls12_field_gpu::ark::Element;

pub(crate) fn measure(bench: &Bench) -> Outcome<Vec<Row>> {
    let fr = ["fr_sum_24", "fr_product_24", "fr_inner_product_24", "fr_extent_24"];
    let fq = ["fq_sum_24", "fq_product_24", "fq_inner_product_24", "fq_extent_24"];
    Ok([of::<Fr>(bench, fr)?, of::<Fq>(bench, fq)?].concat())
}

fn of<F: Element>(bench: &Bench, names: [&'static str; 4]) -> Outcome<Vec<Row>> {
    let length = bench.size(1 << 24);
    let (a, b) =
        (bench.backend.upload(&bench.elements::<F>(length, 1))?, bench.backend.upload(&bench.elements::<F>(length, 2))?);
    let out = bench.backend.zeros(1)?;
    let rate = |seconds: f64| length as f64 / seconds / 1e9;
    let row = |name, seconds: f64| Row {
        name,
        value: rate(seconds),
        unit: "G elem/s",
        detail: format!("{length} elements in {:.3} ms", 1e3 * seconds),
    };
    let mut rows = Vec::new();
    let reductions = [(Reduction::Sum, &[&a][..]), (Reduction::Product, &[&a]), (Reduction::InnerProduct, &[&a, &b])];
    for (name, (reduction, inputs)) in names.into_iter().zip(reductions) {
        let seconds = bench.seconds(|recording| recording.reduce_into(reduction, inputs, &out))?;
        let mut recording = bench.backend.record();
        recording.reduce_into(reduction, inputs, &out)?;
        recording.submit_verified()?.wait()?;
        rows.push(row(name, seconds));
    }
    let seconds = bench.seconds(|recording| recording.extents(&a, 1).map(drop))?;
    let mut recording = bench.backend.record();
    recording.extents(&a, 1)?;
    recording.submit_verified()?.wait()?;
    rows.push(row(names[3], seconds));
    Ok(rows)
}
