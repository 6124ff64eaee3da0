//! What is assumed of a machine on which nothing was measured. The figures are those of `benches/reports/h200.md`: an NVIDIA
//! H200 over PCIe 5, and one core of its host.

use super::model::{Curve, Entry, Key, Way, like};
use crate::{Field, Form, Operation};
use gpu_executor::DeviceKind;

/// Lengths, and microseconds of an unchecked call on the H200 in host and in device-local memory.
type Report = [(usize, f64, f64); 6];

const ADD: Report = [
    (64, 20.0, 33.0),
    (1 << 10, 31.0, 46.0),
    (1 << 12, 54.0, 62.0),
    (1 << 14, 129.0, 143.0),
    (1 << 16, 304.0, 408.0),
    (1 << 20, 3153.0, 3456.0),
];
const MUL: Report = [
    (64, 24.0, 37.0),
    (1 << 10, 37.0, 51.0),
    (1 << 12, 61.0, 67.0),
    (1 << 14, 127.0, 148.0),
    (1 << 16, 379.0, 410.0),
    (1 << 20, 3245.0, 3662.0),
];
/// A power of 381 bits, which an inverse and a root are, too.
const POWER: Report = [
    (64, 623.0, 633.0),
    (1 << 10, 628.0, 639.0),
    (1 << 12, 660.0, 664.0),
    (1 << 14, 722.0, 745.0),
    (1 << 16, 2077.0, 2138.0),
    (1 << 20, 27960.0, 29860.0),
];

/// Microseconds for an element on one core: computing, checking.
pub(crate) fn serial(key: Key) -> (f64, f64) {
    let (compute, check) = match (like(key.operation), key.form) {
        (Operation::Mul, Form::Canonical) => (0.095, 0.095),
        (Operation::Mul, Form::Montgomery) => (0.06, 0.06),
        (Operation::Pow, _) => (17.0, 17.0),
        (Operation::Inverse, _) => (0.19, 0.1),
        (Operation::Sqrt, _) => (17.0, 0.1),
        _ => (0.038, 0.038),
    };
    let smaller = if key.field == Field::Fr { 0.5 } else { 1.0 };
    (compute * smaller, check * smaller)
}

/// What is assumed of an operation on a device of a kind, beside a CPU of so many threads.
pub(crate) fn entry(key: Key, kind: DeviceKind, threads: usize, workgroup_size: u32) -> Entry {
    let (computing, checking) = serial(key);
    // The fewest elements that a thread is given: Montgomery's trick wants many.
    let piece = if like(key.operation) == Operation::Inverse { 1024 } else { 64 };
    let on_the_cpu = |each: f64, length: usize, piece: usize| {
        let busy = threads.min(length.div_ceil(piece)).max(1);
        each * length as f64 / busy as f64 + if busy > 1 { 10.0 } else { 0.5 }
    };
    let report = match like(key.operation) {
        Operation::Add => &ADD,
        Operation::Mul => &MUL,
        _ => &POWER,
    };
    // What software does without Montgomery's trick.
    let kernel = if std::ptr::eq(report, &POWER) { 17.0 } else { computing };
    let on_the_device = |index: usize, staged: bool| {
        let (length, host, local) = report[index];
        let beyond_copies = (host - ADD[index].1).max(0.0);
        let time = match kind {
            DeviceKind::Discrete => return if staged { local } else { host },
            DeviceKind::Virtual => return 2.0 * if staged { local } else { host },
            // A tenth of the H200's rate, or less; no bus between it and the memory.
            DeviceKind::Integrated | DeviceKind::Other => 50.0 + ADD[index].1 + 15.0 * beyond_copies,
            // Compiled code on the same cores, and all of the copying besides.
            DeviceKind::Software => 200.0 + 4.0 * on_the_cpu(kernel, length, 64),
        };
        if staged { 20.0 + 1.5 * time } else { time }
    };
    // The lengths ascend and the times are finite: there is always a curve.
    let curve = |points: Vec<(usize, f64)>| Curve::new(points).unwrap_or_else(Curve::never);
    let lengths = || [1].into_iter().chain(report.iter().map(|(length, ..)| *length));
    let cpu = |each, piece| curve(lengths().map(|length| (length, on_the_cpu(each, length, piece))).collect());
    let ways = [false, true].map(|staged| {
        // One element takes a device as long as some do.
        let points = lengths().enumerate().map(|(at, length)| (length, on_the_device(at.saturating_sub(1), staged)));
        (Way { staged, workgroup_size, chunk_elements: None }, curve(points.collect()))
    });
    Entry { cpu: cpu(computing, piece), check: cpu(checking, 64), serial: (computing, checking), device: ways.to_vec() }
}
