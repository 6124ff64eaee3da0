//! The example `kzg_ceremony`: the shipped file is the ceremony's, every point agrees with arkworks, and damage is named.

// clippy.toml lets tests unwrap, but not the functions that they share.
#![allow(clippy::unwrap_used)]

use bls12_field_gpu::backend;

#[path = "../examples/kzg_ceremony/decompress.rs"]
mod decompress;
#[path = "../examples/kzg_ceremony/encoding.rs"]
mod encoding;
#[path = "../examples/kzg_ceremony/setup.rs"]
mod setup;

use decompress::{Clock, decompress as decompress_with, faults};
use encoding::{Encoded, Fault, Point, arkworks};
use setup::{Setup, SetupError, check_hash};

const TEXT: &[u8] = include_bytes!("../examples/data/trusted_setup.txt");

fn shipped() -> Setup {
    Setup::parse(TEXT).unwrap()
}

type Encodings = Vec<[u8; 48]>;

fn some() -> Encodings {
    shipped().g1[..64].to_vec()
}

fn decompressed(encodings: &Encodings) -> Vec<Result<Point, Fault>> {
    let mut clock = Clock::default();
    let points = decompress_with(backend().unwrap(), encodings, &mut clock).unwrap();
    assert!(clock.stages.len() > 1 && !clock.total().is_zero());
    points
}

fn faults_in(encodings: &Encodings) -> Vec<(usize, Fault)> {
    let expected: Vec<_> = encodings.iter().map(arkworks).collect();
    faults(&decompressed(encodings), &expected)
}

/// The modulus of Fq, big-endian.
fn modulus() -> [u8; 48] {
    let mut bytes = [0; 48];
    for (bytes, limb) in bytes.chunks_mut(8).zip(bls12_field_gpu::Field::Fq.modulus().iter().rev()) {
        bytes.copy_from_slice(&limb.to_be_bytes());
    }
    bytes
}

#[test]
fn the_shipped_file_is_the_ceremonys_and_damage_to_it_is_seen() {
    check_hash(TEXT).unwrap();
    for place in [0, 5, 1000, TEXT.len() - 1] {
        let mut damaged = TEXT.to_vec();
        damaged[place] ^= 1;
        assert!(matches!(check_hash(&damaged), Err(SetupError::Hash { .. })), "byte {place}");
    }
    let error = check_hash(&TEXT[1..]).unwrap_err().to_string();
    assert!(error.contains("SHA-256") && error.contains(setup::CEREMONY), "{error}");
}

#[test]
fn every_point_agrees_with_arkworks() {
    let setup = shipped();
    assert_eq!(setup.g1.len(), 8192);
    assert_eq!(faults_in(&setup.g1), []);
    // The first point in monomial form is the generator.
    let generator = <ark_bls12_381::G1Affine as ark_ec::AffineRepr>::generator();
    assert_eq!(decompressed(&setup.g1[4096..4097].to_vec()), [Ok(Point::from(&generator))]);
}

#[test]
fn a_damaged_point_is_named_by_its_number() {
    let setup = shipped();
    assert!(setup.name(0).starts_with("point 0 (Lagrange, line 3"));
    assert!(setup.name(4095).starts_with("point 4095 (Lagrange, line 4098"));
    assert!(setup.name(4096).starts_with("point 4096 (monomial, line 4164"));
    assert!(setup.name(8191).starts_with("point 8191 (monomial, line 8259"));

    // In the text: the sixth point of the monomial form, with an x that is not on the curve.
    let line = 4169;
    let mut text: Vec<_> = std::str::from_utf8(TEXT).unwrap().lines().collect();
    let damaged = format!("80{:094x}", x_of_no_point());
    text[line - 1] = &damaged;
    let setup = Setup::parse(text.join("\n").as_bytes()).unwrap();
    assert_eq!(faults_in(&setup.g1[4090..4110].to_vec()), [(4101 - 4090, Fault::NoRoot)]);
    assert_eq!(setup.name(4101), "point 4101 (monomial, line 4169)");
}

/// The smallest such x.
fn x_of_no_point() -> u8 {
    let mut bytes = [0; 48];
    bytes[0] = 0x80;
    (0..=u8::MAX)
        .find(|&x| {
            bytes[47] = x;
            arkworks(&bytes).is_none()
        })
        .unwrap()
}

#[test]
fn each_fault_is_told_from_the_others() {
    let mut encodings = some();
    let mut no_root = [0; 48];
    (no_root[0], no_root[47]) = (0x80, x_of_no_point());
    encodings[3] = no_root;
    encodings[5][0] &= 0x7f;
    encodings[7] = modulus();
    encodings[7][0] |= 0x80;
    encodings[8] = [0xff; 48];
    encodings[8][0] = 0x9f;
    encodings[11][0] |= 0x40;
    encodings[12] = [0; 48];
    encodings[12][0] = 0xe0;
    encodings[13] = [0; 48];
    encodings[63] = no_root;
    let expected = [
        (3, Fault::NoRoot),
        (5, Fault::NotCompressed),
        (7, Fault::XNotBelowModulus),
        (8, Fault::XNotBelowModulus),
        (11, Fault::InfinityWithMore),
        (12, Fault::InfinityWithMore),
        (13, Fault::NotCompressed),
        (63, Fault::NoRoot),
    ];
    assert_eq!(faults_in(&encodings), expected);
    assert_eq!(Fault::NoRoot.to_string(), "x^3 + 4 has no square root");
}

#[test]
fn infinity_and_the_largest_x_below_p_decode() {
    let mut encodings = some();
    encodings[2] = [0; 48];
    encodings[2][0] = 0xc0;
    assert_eq!(Encoded::read(&encodings[2]), Ok(Encoded::Infinity));
    let mut largest = modulus();
    largest[47] -= 1;
    largest[0] |= 0x80;
    assert!(matches!(Encoded::read(&largest), Ok(Encoded::Affine { larger_y: false, .. })));
    assert_eq!(faults_in(&encodings), []);
    assert_eq!(decompressed(&encodings)[2], Ok(Point::Infinity));
}

/// Points are compared with what arkworks makes of the same bytes. The other sign is the encoding of another point, -P, and
/// decodes without a fault; only the file's hash tells that it is not the ceremony's.
#[test]
fn the_other_sign_is_another_point() {
    let original = some();
    let mut changed = original.clone();
    changed[9][0] ^= 0x20;
    assert_eq!(faults_in(&changed), []);
    let (before, after) = (decompressed(&original), decompressed(&changed));
    let different: Vec<_> = (0..before.len()).filter(|&i| before[i] != after[i]).collect();
    assert_eq!(different, [9]);
    assert_eq!(after[9], Ok(Point::from(&-arkworks(&original[9]).unwrap())));

    // Were the sign ours to get wrong, with the bytes unchanged, it would be seen.
    let expected: Vec<_> = original.iter().map(arkworks).collect();
    assert_eq!(faults(&after, &expected), [(9, Fault::Differs)]);
}

#[test]
fn a_malformed_text_is_named_by_its_line() {
    let point = "97f1".repeat(24);
    let small = format!("2\n1\n{point}\n{point}\n{point}{point}\n{point}\n{point}");
    assert_eq!(Setup::parse(small.as_bytes()).unwrap().g1.len(), 4);
    assert_eq!(Setup::parse(small.replace('\n', "\r\n").as_bytes()).unwrap().g1.len(), 4);
    assert_eq!(Setup::parse(small.as_bytes()).unwrap().name(2), "point 2 (monomial, line 6)");

    let lines: Vec<_> = small.lines().collect();
    let with = |line: usize, text: &str| {
        let mut lines = lines.clone();
        lines[line - 1] = text;
        lines.join("\n")
    };
    for (text, begin) in [
        (String::new(), "line 1: the number of points of G1"),
        (with(1, "two"), "line 1: the number of points of G1"),
        (with(1, "0"), "line 1: there must be"),
        (with(2, "-1"), "line 2: the number of points of G2"),
        (with(1, "18446744073709551615"), "line 5: 192 characters, a point has 96 here"),
        (with(2, "0"), "line 5: 192 characters, a point has 96 here"),
        (with(4, &point[1..]), "line 4: 95 characters"),
        (with(4, &point.replace('f', "g")), "line 4: character 3 is not"),
        (with(5, &point), "line 5: 96 characters, a point has 192 here"),
        (with(6, ""), "line 6: 0 characters"),
        (with(7, &point.replace('f', "+")), "line 7: character 3 is not"),
        (lines[..6].join("\n"), "line 7 is missing"),
        (lines[..2].join("\n"), "line 3 is missing"),
        (format!("{small}\n{point}"), "line 8: the counts leave no room"),
        (format!("{small}\n\n"), "line 8: the counts leave no room"),
    ] {
        let error = Setup::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.starts_with(begin), "{error:?} is not {begin:?}");
    }
    assert!(Setup::parse(b"\xff\xff\n").is_err());
}
