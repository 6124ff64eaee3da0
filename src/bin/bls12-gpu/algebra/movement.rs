//! Movements: bytes read and written each second.

use super::{Bench, Outcome, Record, Row};
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::Vector;
use bls12_field_gpu::ark::Element;
use rayon::prelude::*;

pub(super) fn measure(bench: &Bench) -> Outcome<Vec<Row>> {
    let mut rows = of::<Fr>(
        bench,
        [
            "fr_copy",
            "fr_concatenate",
            "fr_rotate",
            "fr_reverse",
            "fr_bit_reverse",
            "fr_transpose",
            "fr_strided",
            "fr_gather",
            "fr_scatter",
            "fr_compact",
        ],
    )?;
    rows.extend(of::<Fq>(
        bench,
        [
            "fq_copy",
            "fq_concatenate",
            "fq_rotate",
            "fq_reverse",
            "fq_bit_reverse",
            "fq_transpose",
            "fq_strided",
            "fq_gather",
            "fq_scatter",
            "fq_compact",
        ],
    )?);
    Ok(rows)
}

/// Bytes read and written, what is written to, where each of its elements comes from, how it is recorded.
type Movement<'a, F> = (usize, &'a Vector<F>, &'a (dyn Fn(usize) -> Option<usize> + Sync), Record<'a>);

fn of<F: Element>(bench: &Bench, names: [&'static str; 10]) -> Outcome<Vec<Row>> {
    let length = bench.size(1 << 24);
    let (bits, side) = (length.trailing_zeros(), 1usize << (length.trailing_zeros() / 2));
    let host = bench.elements::<F>(length, 1);
    let (a, out) = (bench.backend.upload(&host)?, bench.backend.zeros::<F>(length)?);
    // A permutation without pattern: an odd factor, modulo a power of two, and the bits reversed.
    let place = |i: usize| (i.wrapping_mul(0x9e37_79b1) % length).reverse_bits() >> (usize::BITS - bits);
    let places: Vec<u32> = (0..length).map(|i| place(i) as u32).collect();
    let indices = bench.backend.upload_indices(&places, length)?;
    let mut positions = vec![0; length];
    places.iter().enumerate().for_each(|(i, &place)| positions[place as usize] = i);
    let flags: Vec<F> = host.iter().enumerate().map(|(i, a)| if i % 3 == 0 { F::ZERO } else { *a }).collect();
    let mut recording = bench.backend.record();
    let mask = recording.equal(&a, &bench.backend.upload(&flags)?)?;
    recording.submit()?.wait()?;
    let (half, kept) = (length / 2, length - length.div_ceil(3));
    let [low, high] = [a.slice(0..half)?, a.slice(half..length)?];
    let quarter = out.slice(0..length / 4)?;
    let (element, index) = (F::FIELD.bytes(), 4);
    let both = 2 * length * element;
    let columns = length / side;
    let compacted = |i| (i < kept).then(|| i / 2 * 3 + 1 + i % 2);
    let movements: [Movement<F>; 10] = [
        (both, &out, &Some, &|r| r.copy_into(&a, &out)),
        (both, &out, &|i| Some((i + half) % length), &|r| r.concatenate_into(&[&high, &low], &out)),
        (both, &out, &|i| Some((i + 12345) % length), &|r| r.rotate_into(&a, 12345, &out)),
        (both, &out, &|i| Some(length - 1 - i), &|r| r.reverse_into(&a, &out)),
        (both, &out, &|i| Some(i.reverse_bits() >> (usize::BITS - bits)), &|r| r.bit_reverse_into(&a, &out)),
        (both, &out, &|i| Some(i % side * columns + i / side), &|r| r.transpose_into(&a, side, columns, &out)),
        (both / 4, &quarter, &|i| Some(4 * i + 3), &|r| r.strided_into(&a, 3, 4, &quarter)),
        (both + index * length, &out, &|i| Some(place(i)), &|r| r.gather_into(&a, &indices, &out)),
        (both + index * length, &out, &|i| Some(positions[i]), &|r| r.scatter_into(&a, &indices, &out)),
        ((length + kept) * element + 2 * index * length, &out, &compacted, &|r| r.compact_into(&a, &mask, &out).map(drop)),
    ];
    let mut rows = Vec::new();
    for (name, (bytes, out, _, record)) in names.into_iter().zip(movements) {
        let seconds = bench.seconds(record)?;
        let detail = format!("{} elements in {:.3} ms", out.len(), seconds * 1e3);
        rows.push(Row { name, value: bytes as f64 / seconds * 1e-9, unit: "GB/s", detail });
    }
    // After all are timed, for the device is not to wait. What is not written is to be zero.
    let mut fetched = vec![F::ZERO; length];
    for (name, (_, out, source, record)) in names.into_iter().zip(movements) {
        let mut recording = bench.backend.record();
        recording.zero(out)?;
        record(&mut recording)?;
        recording.submit()?.wait()?;
        let got = &mut fetched[..out.len()];
        out.download_into(got)?;
        if !got.par_iter().enumerate().all(|(i, got)| *got == source(i).map_or(F::ZERO, |from| host[from])) {
            return Err(format!("{name} is wrong").into());
        }
    }
    Ok(rows)
}
