//! Fused expressions against one kernel per operation, and against kernels written by hand.

use super::{Bench, Outcome, Row};
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::Vector;
use bls12_field_gpu::ark::Element;
use rayon::prelude::*;

pub(super) fn measure(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = gate(bench)?;
    rows.push(by_hand::<Fr>(bench, "fused_vs_hand")?);
    rows.push(by_hand::<Fq>(bench, "fq_fused_vs_hand")?);
    Ok(rows)
}

/// The gate of PLONK: ql a + qr b + qm a b + qo c + qc + alpha (z(wX) - z).
fn gate(bench: &Bench) -> Outcome<Vec<Row>> {
    let length = bench.size(1 << 22);
    let host: Vec<Vec<Fr>> = (0..9).map(|seed| bench.elements(length, seed)).collect();
    let vectors: Vec<Vector<Fr>> = host.iter().map(|elements| bench.backend.upload(elements)).collect::<Result<_, _>>()?;
    let [ql, a, qr, b, qm, qo, c, qc, z] = &vectors[..] else { return Err("nine vectors".into()) };
    let alpha = bench.elements::<Fr>(1, 9)[0];
    let zeros = || bench.backend.zeros::<Fr>(length);
    let (out, term, other) = (zeros()?, zeros()?, zeros()?);
    let (fused_out, careful_out) = (zeros()?, zeros()?);
    let fused = bench.seconds(|recording| {
        let gate = ql * a + qr * b + qm * a * b + qo * c + qc + (z.rotate(1) - z) * alpha;
        recording.evaluate_into(&gate, &fused_out)
    })?;
    let unfused = bench.seconds(|recording| {
        recording.mul_into(ql, a, &out)?;
        recording.mul_into(qr, b, &term)?;
        recording.add_into(&out, &term, &out)?;
        recording.mul_into(qm, a, &term)?;
        recording.mul_into(&term, b, &term)?;
        recording.add_into(&out, &term, &out)?;
        recording.mul_into(qo, c, &term)?;
        recording.add_into(&out, &term, &out)?;
        recording.add_into(&out, qc, &out)?;
        recording.evaluate_into(&z.rotate(1), &term)?;
        recording.sub_into(&term, z, &other)?;
        recording.scale_into(&other, &alpha, &other)?;
        recording.add_into(&out, &other, &out)
    })?;
    // As somebody would who knows the kernels.
    let careful = bench.seconds(|recording| {
        recording.mul_add_into(ql, a, qc, &careful_out)?;
        recording.mul_add_into(qr, b, &careful_out, &careful_out)?;
        recording.mul_into(qm, a, &term)?;
        recording.mul_add_into(&term, b, &careful_out, &careful_out)?;
        recording.mul_add_into(qo, c, &careful_out, &careful_out)?;
        recording.evaluate_into(&z.rotate(1), &term)?;
        recording.sub_into(&term, z, &other)?;
        recording.scale_into(&other, &alpha, &other)?;
        recording.add_into(&careful_out, &other, &careful_out)
    })?;
    let right = |(i, got): (usize, &Fr)| {
        let [ql, a, qr, b, qm, qo, c, qc, z] = [0, 1, 2, 3, 4, 5, 6, 7, 8].map(|n| host[n][i]);
        *got == ql * a + qr * b + qm * a * b + qo * c + qc + alpha * (host[8][(i + 1) % length] - z)
    };
    for (how, out) in [("fused", fused_out), ("by an operation a kernel", out), ("with mul_add", careful_out)] {
        if !out.download()?.par_iter().enumerate().all(right) {
            return Err(format!("the gate, {how}, is wrong").into());
        }
    }
    let ms = |seconds: f64| format!("{:.3} ms", seconds * 1e3);
    let row = |name, against: f64, what: &str| Row {
        name,
        value: against / fused,
        unit: "ratio",
        detail: format!("Fr, {length} elements: {} fused, {} {what}", ms(fused), ms(against)),
    };
    Ok(vec![
        row("plonk_gate_fusion", unfused, "by an operation a kernel"),
        row("plonk_gate_against_mul_add", careful, "with mul_add"),
    ])
}

/// a b + c as an expression, and as the kernel that is committed.
fn by_hand<F: Element>(bench: &Bench, name: &'static str) -> Outcome<Row> {
    let length = bench.size(1 << 24);
    let (x, y, z) = (bench.elements::<F>(length, 1), bench.elements::<F>(length, 2), bench.elements::<F>(length, 3));
    let (a, b, c) = (bench.backend.upload(&x)?, bench.backend.upload(&y)?, bench.backend.upload(&z)?);
    // Into the same memory, in turn.
    let out = bench.backend.zeros::<F>(length)?;
    let (mut hand, mut fused) = (f64::MAX, f64::MAX);
    for _ in 0..2 {
        hand = hand.min(bench.seconds(|recording| recording.mul_add_into(&a, &b, &c, &out))?);
        fused = fused.min(bench.seconds(|recording| recording.evaluate_into(&(&a * &b + &c), &out))?);
    }
    let right = |(((r, x), y), z): (((&F, &F), &F), &F)| *r == *x * y + z;
    for by_hand in [false, true] {
        if by_hand {
            let mut recording = bench.backend.record();
            recording.zero(&out)?;
            recording.mul_add_into(&a, &b, &c, &out)?;
            recording.submit()?;
        }
        if !out.download()?.par_iter().zip(&x).zip(&y).zip(&z).all(right) {
            return Err("a b + c is wrong".into());
        }
    }
    let rate = |seconds: f64| format!("{:.1} G/s", length as f64 / seconds / 1e9);
    let detail = format!("{}, {length} elements: {} by hand, {} fused", F::FIELD, rate(hand), rate(fused));
    Ok(Row { name, value: hand / fused, unit: "ratio", detail })
}
