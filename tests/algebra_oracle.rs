//! The vector algebra against big integers: whatever is folded, scanned, inverted, moved or multiplied is what its definition gives,
//! in both fields, at lengths around every border.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{Backend, Error, Expression, Field, Options, REDUCTIONS, Recording, Reduction, Scan, Vector, Zeros};
use fastrand::Rng;
use num_bigint::BigUint;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::time::Duration;
use support::oracle::{Oracle, integer, oracle};
use support::{Watched, edges, in_time};

/// A length; that of segments, or how many rows; one number in so many is zero, none if this is 0; where random numbers begin.
type Drawn = (usize, usize, usize, u64);

fn drawn() -> impl Strategy<Value = Drawn> {
    use prop::sample::select;
    let length = prop_oneof![
        5 => select(vec![0usize, 1, 2, 3, 7, 31, 32, 33, 63, 64, 65, 127, 128, 129]),
        3 => select(vec![256usize, 257, 512, 513]),
        2 => select(vec![1021usize, 1023, 1024, 1025, 4096, 4097]),
    ];
    let segment = select(vec![1usize, 2, 3, 7, 17, 31, 33, 64, 513]);
    // Without zeros, products are not zero.
    (length, segment, select(vec![0usize, 0, 3, 100, 1]), any::<u64>())
}

/// Checks cases in both fields, on one watched backend.
fn run(of_fq: fn(&Backend, &Drawn), of_fr: fn(&Backend, &Drawn)) {
    let backend = Watched::new(Options::new());
    let mut runner = TestRunner::new(ProptestConfig::with_cases(64));
    let right = runner.run(&drawn(), |drawn| {
        of_fq(&backend, &drawn);
        of_fr(&backend, &drawn);
        Ok(())
    });
    right.unwrap_or_else(|error| panic!("{error}"));
}

/// A source of numbers below a modulus.
struct Numbers {
    random: Rng,
    zeros: usize,
    p: &'static BigUint,
    /// Not zero; extreme as they are, or in memory.
    edges: Vec<BigUint>,
}

impl Numbers {
    fn new(field: Field, &(_, _, zeros, seed): &Drawn) -> Self {
        let Oracle { p, r, .. } = oracle(field);
        let r_inverse = r.modinv(p).unwrap();
        let edges = edges(field).into_iter().map(|limbs| integer(&limbs)).filter(|edge| *edge != BigUint::ZERO);
        let edges = edges.flat_map(|edge| [&edge * &r_inverse % p, edge]).collect();
        Self { random: Rng::with_seed(seed), zeros, p, edges }
    }

    fn one(&mut self) -> BigUint {
        match self.random.u8(0..8) {
            _ if self.zeros > 0 && self.random.usize(..self.zeros) == 0 => BigUint::ZERO,
            0 => BigUint::from(1u32),
            1 => self.p - 1u32,
            2 => self.random.choice(&self.edges).unwrap().clone(),
            _ => integer(&[0; 6].map(|_: u64| self.random.u64(..))) % (self.p - 1u32) + 1u32,
        }
    }

    fn many(&mut self, count: usize) -> Vec<BigUint> {
        (0..count).map(|_| self.one()).collect()
    }
}

/// Elements as arkworks keeps them.
fn elements<F: Element>(numbers: &[BigUint]) -> Vec<F> {
    let oracle = oracle(F::FIELD);
    let limbs: Vec<u64> = numbers.iter().flat_map(|number| oracle.limbs_of(&(number * &oracle.r % &oracle.p))).collect();
    F::elements(&limbs).to_vec()
}

/// A vector that is a slice in the middle of another.
fn uploaded<F: Element>(backend: &Backend, numbers: &[BigUint]) -> Vector<F> {
    let around = [BigUint::from(5u32)];
    let padded = elements::<F>(&[&around, numbers, &around].concat());
    backend.upload(&padded).unwrap().slice(1..1 + numbers.len()).unwrap()
}

/// What a recording is to leave.
struct Expected<F: Element>(Vec<(String, Vector<F>, Vec<BigUint>)>);

impl<F: Element> Expected<F> {
    fn is(&mut self, what: impl Into<String>, got: Result<Vector<F>, Error>, expected: Vec<BigUint>) {
        let what = what.into();
        let got = got.unwrap_or_else(|error| panic!("{what}: {error}"));
        self.0.push((what, got, expected));
    }

    /// Submits the recording and compares.
    fn check(self, recording: Recording) {
        recording.submit().unwrap().wait().unwrap();
        for (what, got, expected) in self.0 {
            let (got, expected) = (got.download().unwrap(), elements::<F>(&expected));
            assert_eq!(got.len(), expected.len(), "{what}");
            let wrong = got.iter().zip(&expected).position(|(got, expected)| got != expected);
            assert!(wrong.is_none(), "{what} of {}: position {wrong:?} of {}", F::FIELD, got.len());
        }
    }
}

/// Operands, a recording, what it is to leave, and the modulus.
fn begin<F: Element>(backend: &Backend, drawn: &Drawn) -> (Numbers, Recording, Expected<F>, &'static BigUint) {
    (Numbers::new(F::FIELD, drawn), backend.record(), Expected(Vec::new()), &oracle(F::FIELD).p)
}

fn reduced(p: &BigUint, reduction: Reduction, a: &[BigUint], b: &[BigUint]) -> BigUint {
    let folded = match reduction {
        Reduction::Sum => a.iter().sum(),
        Reduction::InnerProduct => a.iter().zip(b).map(|(a, b)| a * b).sum(),
        Reduction::Product => a.iter().fold(BigUint::from(1u32), |product, a| product * a % p),
        Reduction::SumOfSquares => a.iter().map(|a| a * a).sum(),
        other => panic!("no answer known for {other:?}"),
    };
    folded % p
}

/// One more than the last position that is not zero.
fn extent(a: &[BigUint]) -> usize {
    a.iter().rposition(|a| *a != BigUint::ZERO).map_or(0, |last| last + 1)
}

fn reductions<F: Element>(backend: &Backend, drawn: &Drawn) {
    let (mut numbers, mut recording, mut expected, p) = begin::<F>(backend, drawn);
    let &(length, segment, ..) = drawn;
    // Few segments of many elements, or many of few.
    let segments = segment.min(8192 / length.max(16));
    let (a, b) = (numbers.many(length * segments), numbers.many(length * segments));
    let all = [&a, &b].map(|operand| uploaded::<F>(backend, operand));
    let whole = [0, 1].map(|operand: usize| all[operand].slice(0..length).unwrap());
    for (there, segments) in [(&whole, 1), (&all, segments)] {
        for row in &REDUCTIONS {
            let inputs: Vec<&Vector<F>> = there.iter().take(row.vectors).collect();
            let out = backend.zeros(segments).unwrap();
            recording.reduce_segments_into(row.reduction, &inputs, &out).unwrap();
            let parts = (0..segments).map(|segment| segment * length..(segment + 1) * length);
            let folds = parts.map(|part| reduced(p, row.reduction, &a[part.clone()], &b[part])).collect();
            expected.is(format!("{} of {segments}", row.name), Ok(out), folds);
        }
    }
    // Zeros from anywhere on, in a third of the segments everywhere.
    let mut trailing = a;
    for segment in 0..segments {
        let from = if numbers.random.u8(0..3) == 0 { 0 } else { numbers.random.usize(..=length) };
        trailing[segment * length + from..(segment + 1) * length].fill(BigUint::ZERO);
    }
    let extents: Vec<usize> = (0..segments).map(|s| extent(&trailing[s * length..(s + 1) * length])).collect();
    let there = uploaded::<F>(backend, &trailing);
    let answers = [1, segments]
        .map(|segments| (recording.extents(&there, segments).unwrap(), recording.any_nonzero(&there, segments).unwrap()));
    expected.check(recording);
    for ((counts, any), extents) in answers.into_iter().zip([vec![extent(&trailing)], extents]) {
        assert_eq!(any.download().unwrap(), extents.iter().map(|extent| *extent > 0).collect::<Vec<bool>>());
        assert_eq!(counts.download().unwrap(), extents, "{}", F::FIELD);
    }
}

/// Of sums or products; exclusive or not; from the end or not; segments from wherever one starts.
type Walk = (bool, bool, bool);

fn scanned(p: &BigUint, walk: Walk, a: &[BigUint], starts: impl Fn(usize) -> bool) -> Vec<BigUint> {
    let (product, exclusive, reversed) = walk;
    let mut borders: Vec<usize> = (0..a.len()).filter(|&at| at == 0 || starts(at)).collect();
    borders.push(a.len());
    let mut out = a.to_vec();
    for border in borders.windows(2) {
        let mut before = BigUint::from(u32::from(product));
        let segment = border[0]..border[1];
        let positions: Vec<usize> = if reversed { segment.rev().collect() } else { segment.collect() };
        for at in positions {
            let after = if product { &before * &a[at] } else { &before + &a[at] } % p;
            out[at] = if exclusive { before } else { after.clone() };
            before = after;
        }
    }
    out
}

fn scans<F: Element>(backend: &Backend, drawn: &Drawn) {
    let (mut numbers, mut recording, mut expected, p) = begin::<F>(backend, drawn);
    let &(length, segment, ..) = drawn;
    let a = numbers.many(length.next_multiple_of(segment));
    let all = uploaded::<F>(backend, &a);
    let there = all.slice(0..length).unwrap();
    let often = *numbers.random.choice(&[1usize, 2, 5, 40, 700]).unwrap();
    let flags: Vec<bool> = a.iter().map(|_| numbers.random.usize(..often) == 0).collect();
    let all_heads = backend.upload_mask(&flags).unwrap();
    let heads = all_heads.slice(0..length).unwrap();
    for kind in 0..8 {
        let walk @ (product, exclusive, reversed) = (kind & 1 != 0, kind & 2 != 0, kind & 4 != 0);
        let scan = if product { Scan::product() } else { Scan::sum() };
        let scan = if exclusive { scan.exclusive() } else { scan };
        let scan = if reversed { scan.reversed() } else { scan };
        // Of all in one piece, and of segments.
        let of_segments = (scan.segments(segment), &all, &all_heads, segment);
        for (scan, there, heads, segment) in [(scan, &there, &heads, usize::MAX), of_segments] {
            let (a, starts) = (&a[..there.len()], |at: usize| at.is_multiple_of(segment));
            expected.is(format!("{scan:?}"), recording.scan(scan, there), scanned(p, walk, a, starts));
            let right = scanned(p, walk, a, |at| starts(at) || flags[at]);
            expected.is(format!("{scan:?} from heads"), recording.scan_from_heads(scan, there, heads), right);
        }
    }
    expected.check(recording);
}

fn inverses<F: Element>(backend: &Backend, drawn: &Drawn) {
    let (mut numbers, mut recording, mut expected, p) = begin::<F>(backend, drawn);
    let (a, b) = (numbers.many(drawn.0), numbers.many(drawn.0));
    let (a_there, b_there) = (uploaded::<F>(backend, &a), uploaded::<F>(backend, &b));
    let inverses: Vec<BigUint> = a.iter().map(|a| a.modpow(&(p - 2u32), p)).collect();
    let quotients = inverses.iter().zip(&b).map(|(inverse, b)| inverse * b % p).collect();
    expected.is("quotients", recording.divide(&b_there, &a_there, Zeros::Keep), quotients);
    expected.is("inverses", recording.batch_inverse(&a_there, Zeros::Keep), inverses);
    expected.check(recording);
}

fn polynomials<F: Element>(backend: &Backend, drawn: &Drawn) {
    let (mut numbers, mut recording, mut expected, p) = begin::<F>(backend, drawn);
    let &(length, segment, ..) = drawn;
    let (a, b, x, first) = (numbers.many(length), numbers.many(length), numbers.one(), numbers.one());
    let (a_there, b_there) = (uploaded::<F>(backend, &a), uploaded::<F>(backend, &b));
    let [at, first_there] = elements::<F>(&[x.clone(), first.clone()])[..] else { panic!() };
    let powers = |x: &BigUint, count: usize| -> Vec<BigUint> {
        std::iter::successors(Some(BigUint::from(1u32)), |power| Some(power * x % p)).take(count).collect()
    };
    let value = |x: &BigUint| reduced(p, Reduction::InnerProduct, &a, &powers(x, length));

    let multiples = powers(&x, length).iter().map(|power| power * &first % p).collect();
    expected.is("powers", recording.powers(&at, &first_there, length), multiples);
    expected.is("value", recording.evaluate_point(&a_there, &at), vec![value(&x)]);
    let points = [vec![BigUint::ZERO, x.clone(), p - 1u32], numbers.many(segment % 5)].concat();
    let values = recording.evaluate_at(&a_there, &uploaded(backend, &points));
    expected.is("values", values, points.iter().map(value).collect());
    let (quotient, remainder) = recording.divide_by_linear(&a_there, &at).unwrap();
    expected.is("remainder", Ok(remainder), vec![value(&x)]);
    // Each coefficient is that of X times the quotient, less x times the quotient's.
    let mut right = vec![BigUint::ZERO; length.max(1)];
    for i in (1..length).rev() {
        right[i - 1] = (&a[i] + &x * &right[i]) % p;
    }
    expected.is("quotient", Ok(quotient), right[..length.saturating_sub(1)].to_vec());

    // Of a vector, the other one backwards, their product, and again the first.
    let by = segment % length.max(1);
    let rotated = (0..length).map(|i| b[(i + length - by) % length].clone()).collect();
    let products = a.iter().zip(&b).map(|(a, b)| a * b).collect();
    let backwards = b_there.rotate(-(segment as isize));
    let parts = [a_there.expression(), backwards, &a_there * &b_there, a_there.expression()];
    let count = numbers.random.usize(..=4);
    let known: Vec<Vec<BigUint>> = vec![a.clone(), rotated, products, a.clone()];
    let terms: Vec<(&Vec<BigUint>, BigUint)> = known.iter().zip(powers(&x, count)).collect();
    let entry = |i: usize| terms.iter().map(|(part, power)| &part[i] * power).sum::<BigUint>() % p;
    // Without any vector, one zero.
    let right = if count == 0 { vec![BigUint::ZERO] } else { (0..length).map(entry).collect() };
    let combined = Expression::linear_combination(parts[..count].iter().cloned(), at);
    expected.is(format!("combination of {count}"), recording.evaluate(&combined), right);
    expected.check(recording);
}

fn movement<F: Element>(backend: &Backend, drawn: &Drawn) {
    let (mut numbers, mut recording, mut expected, _) = begin::<F>(backend, drawn);
    let &(length, segment, ..) = drawn;
    let (a, b) = (numbers.many(length), numbers.many(2 * length + 5));
    let there = uploaded::<F>(backend, &a);
    let random = &mut numbers.random;
    let taken = |positions: &mut dyn Iterator<Item = usize>| positions.map(|i| a[i].clone()).collect::<Vec<BigUint>>();

    let by = random.usize(..=2 * length + 1);
    expected.is("rotate", recording.rotate(&there, by), taken(&mut (0..length).map(|i| (i + by) % length)));
    let onwards = |i: usize| (i + length - by % length) % length;
    let rotated = recording.evaluate(&there.rotate(-(by as isize)));
    expected.is("rotate backwards", rotated, taken(&mut (0..length).map(onwards)));
    expected.is("reverse", recording.reverse(&there), taken(&mut (0..length).rev()));
    let (bits, power) = length.checked_ilog2().map_or((0, 0), |bits| (bits, 1 << bits));
    let reversed = |i: usize| (0..bits).map(|bit| (i >> bit & 1) << (bits - 1 - bit)).sum();
    let out = recording.bit_reverse(&there.slice(0..power).unwrap());
    expected.is("bit_reverse", out, taken(&mut (0..power).map(reversed)));
    let (rows, columns) = (segment, length / segment);
    let transposed = (0..columns).flat_map(|column| (0..rows).map(move |row| row * columns + column));
    let out = recording.transpose(&there.slice(0..rows * columns).unwrap(), rows, columns);
    expected.is("transpose", out, taken(&mut { transposed }));
    let (first, step) = (random.usize(..length.max(1)), random.usize(0..9));
    let count = if step == 0 { length.min(5) } else { length.saturating_sub(first).div_ceil(step) };
    let out = recording.strided(&there, first, step, count);
    expected.is("strided", out, taken(&mut (0..count).map(|i| first + i * step)));
    let out = recording.concatenate(&[&there, &there.slice(0..length / 2).unwrap(), &there]);
    expected.is("concatenate", out, [&a[..], &a[..length / 2], &a].concat());

    let indices: Vec<u32> = a.iter().chain(&a).map(|_| random.u32(..length as u32)).collect();
    let out = recording.gather(&there, &backend.upload_indices(&indices, length).unwrap());
    expected.is("gather", out, taken(&mut indices.iter().map(|&i| i as usize)));
    let mut places: Vec<u32> = (0..b.len() as u32).collect();
    random.shuffle(&mut places);
    places.truncate(length);
    let indices = backend.upload_indices(&places, b.len()).unwrap();
    let put = |to: &[BigUint]| {
        let mut out = to.to_vec();
        places.iter().zip(&a).for_each(|(&place, a)| out[place as usize] = a.clone());
        out
    };
    expected.is("scatter", recording.scatter(&there, &indices, b.len()), put(&vec![BigUint::ZERO; b.len()]));
    let out = uploaded(backend, &b);
    recording.scatter_into(&there, &indices, &out).unwrap();
    expected.is("scatter_into", Ok(out), put(&b));
    let out = uploaded(backend, &b);
    recording.copy_into(&there, &out.slice(3..3 + length).unwrap()).unwrap();
    expected.is("copy_into", Ok(out), [&b[..3], &a, &b[3 + length..]].concat());

    let often = random.usize(1..9);
    let flags: Vec<bool> = a.iter().map(|_| random.usize(..often) == 0).collect();
    let mut kept = taken(&mut (0..length).filter(|&i| flags[i]));
    let how_many = kept.len();
    kept.resize(length, BigUint::ZERO);
    let (out, count) = recording.compact(&there, &backend.upload_mask(&flags).unwrap()).unwrap();
    expected.is("compact", Ok(out), kept);
    expected.check(recording);
    assert_eq!(count.download().unwrap(), [how_many], "{}", F::FIELD);
}

fn matrices<F: Element>(backend: &Backend, drawn: &Drawn) {
    let (mut numbers, mut recording, mut expected, p) = begin::<F>(backend, drawn);

    let [m, k, n] = [0; 3].map(|_| *numbers.random.choice(&[0usize, 1, 2, 3, 5, 7, 15, 17, 33]).unwrap());
    // Rows as long as anything, if there are few.
    let k = if m * n <= 15 { drawn.0 } else { k };
    let (a, b) = (numbers.many(m * k), numbers.many(k * n));
    let (a_there, b_there) = (uploaded::<F>(backend, &a), uploaded::<F>(backend, &b));
    let entry = |i: usize, j: usize| (0..k).map(|l| &a[i * k + l] * &b[l * n + j]).sum::<BigUint>() % p;
    let product = (0..m * n).map(|at| entry(at / n, at % n)).collect();
    expected.is(format!("{m} x {k} x {n}"), recording.matrix_product(&a_there, &b_there, (m, k, n)), product);
    let x = numbers.many(k);
    let vector = a.chunks(k.max(1)).map(|row| reduced(p, Reduction::InnerProduct, row, &x));
    let right = vector.chain(std::iter::repeat(BigUint::ZERO)).take(m).collect();
    expected.is(format!("{m} x {k}"), recording.matrix_vector(&a_there, &uploaded(backend, &x), m), right);

    // Many rows are empty; one may be very long.
    let rows = numbers.random.usize(..20);
    let random = &mut numbers.random;
    let mut lengths: Vec<usize> = (0..rows).map(|_| *random.choice(&[0, 0, 0, 1, 2, 3, 63, 64, 65, 129]).unwrap()).collect();
    if random.u8(0..3) == 0 {
        lengths.insert(random.usize(..=rows), 64 * 64 + 1 + random.usize(..70));
    }
    let offsets: Vec<u32> = (0..=lengths.len()).map(|row| lengths[..row].iter().sum::<usize>() as u32).collect();
    let nonzeros = lengths.iter().sum();
    let width = *random.choice(&[1usize, 7, 64, 257]).unwrap();
    let columns: Vec<u32> = (0..nonzeros).map(|_| random.u32(..width as u32)).collect();
    // Some values that repeat are looked up in a table.
    let kinds = *random.choice(&[1, 3, nonzeros]).unwrap();
    let values: Vec<BigUint> = numbers.many(kinds).into_iter().cycle().take(nonzeros).collect();
    let x = numbers.many(width);
    let matrix = backend.upload_sparse::<F>(&offsets, &columns, &elements(&values), width).unwrap();
    let entry = |row: &[u32]| {
        let row = row[0] as usize..row[1] as usize;
        row.map(|i| &values[i] * &x[columns[i] as usize]).sum::<BigUint>() % p
    };
    let right = offsets.windows(2).map(entry).collect();
    expected.is(format!("rows of {lengths:?}"), recording.sparse_vector(&matrix, &uploaded(backend, &x)), right);
    expected.check(recording);
}

macro_rules! properties {
    ($($name:ident $check:ident;)+) => {
        $(
            #[test]
            fn $name() {
                in_time(Duration::from_secs(500), || run($check::<Fq>, $check::<Fr>));
            }
        )+
    };
}

properties! {
    reductions_are_folds reductions;
    scans_are_folds_of_what_precedes scans;
    inverses_are_powers inverses;
    polynomials_are_sums_of_powers polynomials;
    movements_are_of_positions movement;
    products_of_matrices_are_sums matrices;
}
