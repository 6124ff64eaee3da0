//! What is assumed of a machine on which nothing was measured: times of an NVIDIA H200 over PCIe 5 with a quick host, and of one core of
//! it. (Hosts differ: see the rows of other runs in `benches/reports/h200.md`.)

use super::model::{Curve, Entry, Key, LEAST_SHARED, SHARES, Way, like};
use crate::{Field, Form, Operation};
use gpu_executor::DeviceKind;

/// Lengths, and microseconds of an unchecked call on the H200 in host and in device-local memory.
type Report = [(usize, f64, f64); 6];

const ADD: Report = [
    (64, 16.0, 29.0),
    (1 << 10, 24.0, 38.0),
    (1 << 12, 51.0, 59.0),
    (1 << 14, 104.0, 114.0),
    (1 << 16, 270.0, 347.0),
    (1 << 20, 3118.0, 3587.0),
];
const MUL: Report = [
    (64, 18.0, 32.0),
    (1 << 10, 26.0, 42.0),
    (1 << 12, 57.0, 67.0),
    (1 << 14, 103.0, 114.0),
    (1 << 16, 329.0, 372.0),
    (1 << 20, 3159.0, 3362.0),
];
/// A power of 381 bits, which a root is, too.
const POWER: Report = [
    (64, 291.0, 303.0),
    (1 << 10, 297.0, 311.0),
    (1 << 12, 315.0, 323.0),
    (1 << 14, 388.0, 401.0),
    (1 << 16, 1097.0, 1206.0),
    (1 << 20, 15520.0, 17420.0),
];

/// An inverse by division steps. Beyond 2^12 elements it was not measured so, but is inferred: a product, and 1.2 ns more an element
/// that the steps take, of a million while others are copied.
const INVERSE: Report = [
    (64, 40.0, 53.0),
    (1 << 10, 48.0, 61.0),
    (1 << 12, 79.0, 87.0),
    (1 << 14, 129.0, 140.0),
    (1 << 16, 407.0, 450.0),
    (1 << 20, 3300.0, 3500.0),
];

/// Microseconds for an element on one core: computing, checking.
pub(crate) fn serial(key: Key) -> (f64, f64) {
    let (compute, check) = match (like(key.operation), key.form) {
        (Operation::Mul, Form::Canonical) => (0.095, 0.095),
        (Operation::Mul, Form::Montgomery) => (0.06, 0.06),
        (Operation::Pow, _) => (17.0, 17.0),
        (Operation::Inverse, _) => (0.19, 0.1),
        (Operation::Sqrt, _) => (17.0, 0.1),
        _ => (0.025, 0.03),
    };
    let smaller = if key.field == Field::Fr { 0.5 } else { 1.0 };
    (compute * smaller, check * smaller)
}

/// How many elements a thread computes at a time of what the CPU and a device share: some 15 microseconds' worth, 512 at most. `part` is how much
/// of a whole power it computes.
pub(crate) fn piece(key: Key, part: f64) -> usize {
    // Montgomery's trick wants many.
    let least = if like(key.operation) == Operation::Inverse { 128 } else { 1 };
    ((15.0 / (serial(key).0 * part)) as usize).clamp(least, 512)
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
        Operation::Inverse => &INVERSE,
        _ => &POWER,
    };
    // What software does without Montgomery's trick: inverses by division steps.
    let kernel = match like(key.operation) {
        Operation::Inverse => 2.0,
        _ if std::ptr::eq(report, &POWER) => 17.0,
        _ => computing,
    };
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
    // One element takes a device as long as some do.
    let alone = |staged| {
        let points = lengths().enumerate().map(|(at, length)| (length, on_the_device(at.saturating_sub(1), staged)));
        curve(points.collect())
    };
    let way = Way { staged: false, workgroup_size, chunk_elements: None, cpu_percent: 0 };
    let (cpu, check) = (cpu(computing, piece), cpu(checking, 64));
    let mut device = vec![(way, alone(false)), (Way { staged: true, ..way }, alone(true))];
    // They get in each other's way a little; where the device is the CPU, nobody gains anything, but who asks for it has it.
    let shared = |alone: &Curve, percent: u8, length: usize| {
        let elements = length * usize::from(percent) / 100;
        match kind {
            DeviceKind::Software => 0.5 * alone.at(length),
            _ => 15.0 + 1.2 * cpu.at(elements).max(alone.at(length - elements)),
        }
    };
    let shares: &[u8] = match kind {
        DeviceKind::Discrete | DeviceKind::Virtual => &SHARES,
        DeviceKind::Software => &[50],
        DeviceKind::Integrated | DeviceKind::Other => &[],
    };
    let each = device.iter().flat_map(|(way, alone)| shares.iter().map(move |&cpu_percent| (way, alone, cpu_percent)));
    let shared: Vec<_> = each
        .map(|(way, alone, cpu_percent)| {
            let points = lengths().filter(|&length| length >= LEAST_SHARED);
            let points = points.map(|length| (length, shared(alone, cpu_percent, length)));
            (Way { cpu_percent, ..*way }, curve(points.collect()))
        })
        .collect();
    device.extend(shared);
    Entry { cpu, check, serial: (computing, checking), device }
}
