//! Scans, powers, polynomials and extents of resident vectors, at every length at which chunks, levels or workgroups change, on
//! every engine and in every formulation, against loops.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use ark_ff::Field as _;
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Error, Formulation, Options, Reduction, Scan, Validation, Vector};
use proptest::prelude::*;
use std::sync::LazyLock;
use support::{Watched, cpu, edges, engines, numbers, unwatched};

/// Chunks of 32, then of 8; up to 16 are one. Workgroups of 32, 64 or 128.
const LENGTHS: [usize; 13] = [0, 1, 2, 15, 16, 17, 32, 33, 511, 513, 2048, 2049, 4100];

/// Of sums or products; exclusive or not; from the end or not; segments from every head on.
fn scanned<F: Element>(product: bool, (exclusive, reversed): (bool, bool), heads: &[bool], elements: &[F]) -> Vec<F> {
    let start = if product { F::ONE } else { F::ZERO };
    let (mut x, mut out) = (start, elements.to_vec());
    for step in 0..elements.len() {
        let at = if reversed { elements.len() - 1 - step } else { step };
        let before = if heads.get(at + usize::from(reversed)) == Some(&true) { start } else { x };
        x = if product { before * elements[at] } else { before + elements[at] };
        out[at] = if exclusive { before } else { x };
    }
    out
}

fn scan_of(product: bool, exclusive: bool, reversed: bool) -> Scan {
    let scan = if product { Scan::product() } else { Scan::sum() };
    let scan = if exclusive { scan.exclusive() } else { scan };
    if reversed { scan.reversed() } else { scan }
}

/// Heads far from each other, next to each other, at both ends of chunks.
fn head(at: usize) -> bool {
    let chunk = (at + 1) / 32;
    let borders = (at + 1) % 32 < 2 && (chunk < 3 || chunk % 7 == 3);
    borders || at == 1 || at == 15 || at == 16 || (600..610).contains(&at) || at * at % 911 == 5
}

fn horner<F: Element>(polynomial: &[F], x: F) -> F {
    polynomial.iter().rev().fold(F::ZERO, |value, coefficient| value * x + coefficient)
}

/// The remainder, then the quotient, by X - z.
fn divided<F: Element>(polynomial: &[F], z: F) -> Vec<F> {
    let mut x = F::ZERO;
    let mut out: Vec<F> = polynomial
        .iter()
        .rev()
        .map(|e| {
            x = x * z + e;
            x
        })
        .collect();
    out.reverse();
    out
}

/// Everything, of the first `length` elements of `a`, in one verified recording.
fn check<F: Element>(backend: &Backend, a: &[F], x: F, lengths: &[usize]) {
    let there = backend.upload(a).unwrap();
    let heads = [true].into_iter().chain((0..a.len()).map(head)).collect::<Vec<bool>>();
    let heads = backend.upload_mask(&heads).unwrap();
    let points: Vec<F> = vec![x, F::ZERO, F::ONE];
    let points_there = backend.upload(&points).unwrap();
    let mut recording = backend.record();
    let mut asked: Vec<(String, Vector<F>, Vec<F>)> = Vec::new();
    let mut extents = Vec::new();
    for &length in lengths {
        let (part, known) = (there.slice(0..length).unwrap(), &a[..length]);
        // From where sixteen bytes are not aligned.
        let flags: Vec<bool> = (0..length).map(head).collect();
        let heads = heads.slice(1..length + 1).unwrap();
        for kind in 0..8 {
            let (product, exclusive, reversed) = (kind & 1 != 0, kind & 2 != 0, kind & 4 != 0);
            let scan = scan_of(product, exclusive, reversed);
            let expected = |heads: &[bool]| scanned(product, (exclusive, reversed), heads, known);
            asked.push((format!("{scan:?} of {length}"), recording.scan(scan, &part).unwrap(), expected(&[])));
            let out = recording.scan_from_heads(scan, &part, &heads).unwrap();
            asked.push((format!("{scan:?} of {length} from heads"), out, expected(&flags)));
        }
        let (quotient, remainder) = recording.divide_by_linear(&part, &x).unwrap();
        let both = divided(known, x);
        asked.push((format!("quotient of {length}"), quotient, both.get(1..).unwrap_or(&[]).to_vec()));
        asked.push((format!("remainder of {length}"), remainder, vec![both.first().copied().unwrap_or(F::ZERO)]));
        asked.push((format!("value of {length}"), recording.evaluate_point(&part, &x).unwrap(), vec![horner(known, x)]));
        let values = recording.evaluate_at(&part, &points_there).unwrap();
        asked.push((format!("values of {length}"), values, points.iter().map(|x| horner(known, *x)).collect()));
        let powers = recording.powers(&x, &points[2], length).unwrap();
        asked.push((format!("{length} powers"), powers, (0..length as u64).map(|i| x.pow([i])).collect()));
        let extent = known.iter().rposition(|x| *x != F::ZERO).map_or(0, |at| at + 1);
        extents.push((recording.extents(&part, 1).unwrap(), recording.any_nonzero(&part, 1).unwrap(), extent));
    }
    recording.submit_verified().unwrap().wait().unwrap();
    for (what, got, expected) in asked {
        assert!(got.download().unwrap() == expected, "{what} on {backend}");
    }
    for (counts, any, expected) in extents {
        assert_eq!((counts.download().unwrap(), any.download().unwrap()), (vec![expected], vec![expected > 0]));
    }
}

#[test]
fn lengths_around_chunks_and_levels() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        check::<Fq>(backend, &numbers(4100, 1), Fq::from(7u64).inverse().unwrap(), &LENGTHS);
        check::<Fr>(backend, &numbers(4100, 1), -Fr::from(7u64).inverse().unwrap(), &LENGTHS);
    }
}

/// So long that powers of the point have three digits of four bits, across the polynomial's rows and down its columns.
#[test]
fn values_of_long_polynomials() {
    fn of<F: Element>(backend: &Backend) {
        // Of rows that several teams share, the last of them shorter, too.
        let a: Vec<F> = numbers((1 << 19) + 5, 1);
        let (there, x) = (backend.upload(&a).unwrap(), F::from(7u64).inverse().unwrap());
        let mut recording = backend.record();
        let parts = [a.len(), (1 << 18) + 5, (1 << 16) + 1, 1 << 15, (1 << 15) + 1];
        let values = parts.map(|length| recording.evaluate_point(&there.slice(0..length).unwrap(), &x).unwrap());
        recording.submit().unwrap().wait().unwrap();
        for (length, value) in parts.into_iter().zip(values) {
            assert_eq!(value.download().unwrap(), [horner(&a[..length], x)], "{length} on {backend}");
        }
    }
    let backend = unwatched(Options::new());
    of::<Fq>(&backend);
    of::<Fr>(&backend);
}

#[test]
fn in_every_formulation_at_the_edges() {
    for formulation in Formulation::ALL {
        // The device may have no doubles, or not round as they need it.
        let Ok(backend) = Backend::new(&support::alone(Options::new().formulation(formulation))) else { continue };
        fn at_edges<F: Element>(backend: &Backend) {
            let edges: Vec<F> = edges(F::FIELD).iter().flat_map(|limbs| F::elements(limbs).to_vec()).collect();
            let nonzero: Vec<F> = edges.iter().copied().filter(|x| *x != F::ZERO).collect();
            let a: Vec<F> = (0..1100).map(|i| nonzero[(i * i + i) % nonzero.len()]).collect();
            let x = nonzero[nonzero.len() - 1];
            check(backend, &a, x, &[edges.len(), 64, 1100]);
            check(backend, &[-F::ONE; 700], -F::ONE, &[700]);
            check(backend, &[edges, vec![F::ZERO; 90]].concat(), F::ZERO, &[20, 100]);
        }
        at_edges::<Fq>(&backend);
        at_edges::<Fr>(&backend);
    }
}

#[test]
fn long_vectors_are_cut_into_launches() {
    for chunk in [1, 3000] {
        let backend = Watched::new(Options::new().chunk_elements(chunk));
        check::<Fq>(&backend, &numbers(7000, 2), Fq::from(3u64), &[7000]);
    }
}

#[test]
fn segments_begin_anew() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        let a: Vec<Fr> = numbers(4096, 3);
        let there = backend.upload(&a).unwrap();
        let mut recording = backend.record();
        let mut asked = Vec::new();
        for segment in [1, 2, 16, 32, 64, 1024, 4096] {
            let scans = [false, true].map(|product| {
                let scan = if product { Scan::product().exclusive() } else { Scan::sum().reversed() }.segments(segment);
                let passed = |part| scanned(product, (product, !product), &[], part);
                (recording.scan(scan, &there).unwrap(), a.chunks(segment).flat_map(passed).collect::<Vec<Fr>>())
            });
            // Of both kinds of segments.
            let flags: Vec<bool> = (0..4096).map(head).collect();
            let heads = backend.upload_mask(&flags).unwrap();
            let from_heads = [0, 1, 2, 3, 4, 5, 6, 7].map(|kind| {
                let (product, exclusive, reversed) = (kind & 1 != 0, kind & 2 != 0, kind & 4 != 0);
                let scan = scan_of(product, exclusive, reversed).segments(segment);
                let passed = |(part, flags)| scanned(product, (exclusive, reversed), flags, part);
                let expected = a.chunks(segment).zip(flags.chunks(segment)).flat_map(passed).collect::<Vec<Fr>>();
                (recording.scan_from_heads(scan, &there, &heads).unwrap(), expected)
            });
            let folds = [Reduction::Sum, Reduction::Product, Reduction::SumOfSquares].map(|reduction| {
                let out = backend.zeros(4096 / segment).unwrap();
                recording.reduce_segments_into(reduction, &[&there], &out).unwrap();
                let fold = |part: &[Fr]| match reduction {
                    Reduction::Sum => part.iter().sum(),
                    Reduction::Product => part.iter().product(),
                    _ => part.iter().map(|x| x.square()).sum::<Fr>(),
                };
                (out, a.chunks(segment).map(fold).collect::<Vec<Fr>>())
            });
            asked.push((
                segment,
                recording.extents(&there, 4096 / segment).unwrap(),
                scans.into_iter().chain(from_heads).chain(folds),
            ));
        }
        recording.submit_verified().unwrap().wait().unwrap();
        for (segment, extents, asked) in asked {
            for (got, expected) in asked {
                assert!(got.download().unwrap() == expected, "segments of {segment} on {backend}");
            }
            assert_eq!(extents.download().unwrap(), vec![segment; 4096 / segment]);
        }
    }
}

/// Comparisons say where segments begin, in the same recording.
#[test]
fn heads_that_are_computed() {
    for backend in engines(Validation::On).iter().map(|watched| &**watched).chain([&cpu()]) {
        let keys: Vec<Fr> = (0..3000u64).map(|at| Fr::from(at / 7 % 3 * (at % 2))).collect();
        let a: Vec<Fr> = numbers(3000, 2);
        let (keys_there, there) = (backend.upload(&keys).unwrap(), backend.upload(&a).unwrap());
        let mut recording = backend.record();
        let heads = recording.equal(&keys_there, &backend.zeros(3000).unwrap()).unwrap();
        let sums = recording.scan_from_heads(Scan::sum(), &there, &heads).unwrap();
        recording.submit_verified().unwrap().wait().unwrap();
        let flags: Vec<bool> = keys.iter().map(|key| *key == Fr::from(0u64)).collect();
        assert!(sums.download().unwrap() == scanned(false, (false, false), &flags, &a), "on {backend}");
    }
}

#[test]
fn what_is_wrong_is_refused() {
    let (backend, other) = (cpu(), cpu());
    let (a, foreign) = (backend.upload(&numbers::<Fr>(10, 1)).unwrap(), other.upload(&numbers::<Fr>(10, 1)).unwrap());
    let out = backend.zeros::<Fr>(11).unwrap();
    let mut recording = backend.record();
    let mismatch =
        |a, b| move |error: Error| matches!(error, Error::LengthMismatch { first, other, .. } if (first, other) == (a, b));
    assert!(mismatch(10, 3)(recording.scan(Scan::sum().segments(3), &a).unwrap_err()));
    assert!(mismatch(10, 0)(recording.scan(Scan::sum().segments(0), &a).unwrap_err()));
    assert!(mismatch(10, 11)(recording.scan_into(Scan::sum(), &a, &out).unwrap_err()));
    assert!(mismatch(10, 3)(recording.extents(&a, 3).unwrap_err()));
    assert!(mismatch(1, 10)(recording.powers_into(&a, &a, &out).unwrap_err()));
    assert!(mismatch(1, 10)(recording.divide_by_linear_into(&a, &a, &a).unwrap_err()));
    assert!(matches!(recording.scan(Scan::sum(), &foreign), Err(Error::ForeignVector { operation: "prefix_sum" })));
    assert!(matches!(recording.scan_into(Scan::product(), &a, &a), Err(Error::Overlap { operation: "prefix_product" })));
    let (short, elsewhere) = (backend.falses(9).unwrap(), other.falses(10).unwrap());
    assert!(mismatch(10, 9)(recording.scan_from_heads(Scan::sum(), &a, &short).unwrap_err()));
    assert!(matches!(recording.scan_from_heads(Scan::sum(), &a, &elsewhere), Err(Error::ForeignVector { .. })));
    let heads = backend.falses(10).unwrap();
    assert!(matches!(recording.scan_from_heads_into(Scan::sum(), &a, &heads, &a), Err(Error::Overlap { .. })));
    let at = Fr::from(3u64);
    assert!(matches!(
        recording.divide_by_linear(&foreign, &at),
        Err(Error::ForeignVector { operation: "divide_by_linear" })
    ));
    assert!(matches!(recording.evaluate_point(&foreign, &at), Err(Error::ForeignVector { operation: "evaluate_at" })));
    // Before there is memory for so many answers.
    for segments in [1 << 34, 1 << 59, usize::MAX] {
        assert!(mismatch(10, segments)(recording.extents(&a, segments).unwrap_err()));
        assert!(mismatch(10, segments)(recording.any_nonzero(&a, segments).unwrap_err()));
        assert!(mismatch(10, segments)(recording.scan(Scan::sum().segments(segments), &a).unwrap_err()));
    }
    let point = a.slice(0..1).unwrap();
    assert!(matches!(recording.evaluate_at_into(&a, &point, &point), Err(Error::Overlap { operation: "evaluate_at" })));
    assert!(recording.is_empty());
}

static DEVICE: LazyLock<Backend> = LazyLock::new(|| unwatched(Options::new()));

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Slices of a vector, cut anywhere.
    #[test]
    fn slices_are_scanned_where_they_lie(start in 0usize..200, length in 0usize..1500, x in any::<u64>(), often in 1u64..400) {
        let all: Vec<Fq> = numbers(1700, x % 7);
        let (part, at) = (&all[start..start + length], Fq::from(x));
        let there = DEVICE.upload(&all).unwrap().slice(start..start + length).unwrap();
        let out = DEVICE.zeros::<Fq>(1700).unwrap().slice(200..200 + length).unwrap();
        let mut recording = DEVICE.record();
        recording.scan_into(Scan::product(), &there, &out).unwrap();
        let sums = recording.prefix_sum(&there).unwrap();
        let flags: Vec<bool> = (0..1700).map(|at: u64| ((at * at) ^ x).is_multiple_of(often)).collect();
        let heads = DEVICE.upload_mask(&flags).unwrap().slice(start..start + length).unwrap();
        let from_heads = recording.scan_from_heads(Scan::product().reversed(), &there, &heads).unwrap();
        let value = recording.evaluate_point(&there, &at).unwrap();
        let product = recording.product(&there).unwrap();
        recording.submit().unwrap().wait().unwrap();
        prop_assert_eq!(out.download().unwrap(), scanned(true, (false, false), &[], part));
        prop_assert_eq!(sums.download().unwrap(), scanned(false, (false, false), &[], part));
        let expected = scanned(true, (false, true), &flags[start..start + length], part);
        prop_assert_eq!(from_heads.download().unwrap(), expected);
        prop_assert_eq!(value.download().unwrap(), [horner(part, at)]);
        prop_assert_eq!(product.download().unwrap(), [part.iter().product::<Fq>()]);
    }
}
