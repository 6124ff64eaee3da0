//! The text of a trusted setup: two counts, then one compressed point a line, in hexadecimal.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// The SHA-256 of the ceremony's file.
pub(crate) const CEREMONY: &str = "d39b9f2d047cc9dca2de58f264b6a09448ccd34db967881a6713eacacf0f26b7";

/// Bytes in a compressed point of G1.
pub(crate) const G1_BYTES: usize = 48;

/// What the text says of G1. The points of G2 must be there too, as hexadecimal, and are not kept.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The encodings: first the points in Lagrange form, then as many in monomial form.
    pub(crate) g1: Vec<[u8; G1_BYTES]>,
    /// Lines with points of G2, which lie between the two forms.
    g2_lines: usize,
}

/// Why a text is not a trusted setup.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("its SHA-256 is {found}, that of the ceremony's file is {CEREMONY}: damaged, or another file")]
    Hash { found: String },
    #[error("line {line}: {what}")]
    Line { line: usize, what: String },
    #[error("line {missing} is missing: counts of {g1} and {g2} ask for more points")]
    TooShort { missing: usize, g1: usize, g2: usize },
}

/// Whether this is the ceremony's file, to the byte.
pub(crate) fn check_hash(text: &[u8]) -> Result<(), SetupError> {
    let mut found = String::new();
    for byte in Sha256::digest(text) {
        // Writing to a string cannot fail.
        let _ = write!(found, "{byte:02x}");
    }
    if found == CEREMONY { Ok(()) } else { Err(SetupError::Hash { found }) }
}

impl Setup {
    /// Reads a text; what the encodings encode is not looked at.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, SetupError> {
        let mut lines = Lines { rest: text, line: 0, counts: (0, 0) };
        let g1 = lines.count("points of G1")?;
        if g1 == 0 {
            return Err(lines.error("there must be points of G1".into()));
        }
        let g2 = lines.count("points of G2")?;
        lines.counts = (g1, g2);

        let mut points = Vec::new();
        for _ in 0..g1 {
            points.push(lines.point()?);
        }
        for _ in 0..g2 {
            lines.point::<{ 2 * G1_BYTES }>()?;
        }
        for _ in 0..g1 {
            points.push(lines.point()?);
        }
        if lines.next().is_some() {
            return Err(lines.error("the counts leave no room for it".into()));
        }
        Ok(Self { g1: points, g2_lines: g2 })
    }

    /// A point's number, counted from 0 through both forms, and where it is found.
    pub(crate) fn name(&self, point: usize) -> String {
        if point < self.g1.len() / 2 {
            format!("point {point} (Lagrange, line {})", point + 3)
        } else {
            format!("point {point} (monomial, line {})", point + 3 + self.g2_lines)
        }
    }
}

/// The lines not yet read, and which one was read last, counted from 1.
struct Lines<'a> {
    rest: &'a [u8],
    line: usize,
    counts: (usize, usize),
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        self.line += 1;
        let end = self.rest.iter().position(|&byte| byte == b'\n');
        let (line, rest) = match end {
            Some(end) => (&self.rest[..end], &self.rest[end + 1..]),
            None => (self.rest, &[][..]),
        };
        self.rest = rest;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }

    fn count(&mut self, of: &str) -> Result<usize, SetupError> {
        let line = self.next().unwrap_or_default();
        let number = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
        number.ok_or_else(|| self.error(format!("the number of {of} is expected here")))
    }

    fn point<const BYTES: usize>(&mut self) -> Result<[u8; BYTES], SetupError> {
        let (g1, g2) = self.counts;
        let text = self.next().ok_or(SetupError::TooShort { missing: self.line + 1, g1, g2 })?;
        if text.len() != 2 * BYTES {
            return Err(self.error(format!("{} characters, a point has {} here", text.len(), 2 * BYTES)));
        }
        let mut bytes = [0; BYTES];
        for (column, &character) in text.iter().enumerate() {
            let Some(digit) = char::from(character).to_digit(16) else {
                return Err(self.error(format!("character {} is not a hexadecimal digit", column + 1)));
            };
            bytes[column / 2] = bytes[column / 2] << 4 | digit as u8;
        }
        Ok(bytes)
    }

    fn error(&self, what: String) -> SetupError {
        SetupError::Line { line: self.line.max(1), what }
    }
}
