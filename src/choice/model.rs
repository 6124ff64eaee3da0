//! The model: how long calls take, by where they are computed and how long they are. Pure: it knows no device and no clock.

use super::decision::{Candidate, Decision, Evidence, Place, Reason, Setting};
use crate::operation::TABLE;
use crate::{Field, Form, Operation, Verify};
use gpu_executor::MemoryMode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Microseconds by number of elements: linear between the lengths that were measured, and beyond.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Curve(Vec<(usize, f64)>);

impl Curve {
    /// A curve through points in the order of their lengths. More elements never take less time: what was measured so is noise.
    pub(crate) fn new(mut points: Vec<(usize, f64)>) -> Option<Self> {
        if points.iter().any(|(_, time)| !time.is_finite()) {
            return None;
        }
        let mut least = 0.0;
        for (_, time) in &mut points {
            *time = f64::max(*time, least);
            least = *time;
        }
        let curve = Self(points);
        curve.is_sound().then_some(curve)
    }

    /// Whether it can be believed to come from `new`.
    pub(crate) fn is_sound(&self) -> bool {
        let ordered = |pair: &[(usize, f64)]| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1;
        let possible = |&(length, time): &(usize, f64)| length > 0 && time.is_finite() && time >= 0.0;
        !self.0.is_empty() && self.0.iter().all(possible) && self.0.windows(2).all(ordered)
    }

    pub(crate) fn at(&self, length: usize) -> f64 {
        let n = length as f64;
        let (first, last) = match (self.0.first(), self.0.last()) {
            (Some(first), Some(last)) => (*first, *last),
            _ => return f64::INFINITY,
        };
        let slope = |a: (usize, f64), b: (usize, f64)| (b.1 - a.1) / (b.0 - a.0) as f64;
        if length <= first.0 {
            let slope = self.0.get(1).map_or(0.0, |second| slope(first, *second));
            return (first.1 - slope * (first.0 as f64 - n)).max(first.1 * n / first.0 as f64);
        }
        if length >= last.0 {
            // A device's times hardly grow while it has idle parts: that is not how it goes on.
            let least = last.1 / last.0 as f64 / 4.0;
            let slope = match self.0.len() {
                1 => last.1 / last.0 as f64,
                _ => {
                    // Over a good stretch: neighbours differ by noise.
                    let early = self.0.partition_point(|point| point.0 <= last.0 / 16).saturating_sub(1);
                    slope(self.0[early], last).max(least)
                }
            };
            return last.1 + slope * (n - last.0 as f64);
        }
        let above = self.0.partition_point(|point| point.0 <= length);
        let (a, b) = (self.0[above - 1], self.0[above]);
        a.1 + slope(a, b) * (n - a.0 as f64)
    }
}

/// A way to have the device compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Way {
    /// Through device-local memory, rather than from host memory.
    pub(crate) staged: bool,
    pub(crate) workgroup_size: u32,
    pub(crate) chunk_elements: Option<usize>,
    /// So many of a hundred elements are computed by the CPU meanwhile.
    pub(crate) cpu_percent: u8,
}

impl Way {
    pub(crate) fn setting(self, length: usize) -> Setting {
        Setting {
            memory: if self.staged { MemoryMode::DeviceLocal } else { MemoryMode::Host },
            workgroup_size: self.workgroup_size,
            chunk_elements: self.chunk_elements,
            cpu_elements: length / 100 * usize::from(self.cpu_percent),
        }
    }

    pub(crate) fn is_shared(self) -> bool {
        self.cpu_percent > 0
    }
}

/// What the CPU may be given of a call: percent. Which is best, nothing but a measurement tells: the CPU copies what the device computes,
/// and both wait for the same memory. An H200 and 16 cores, pageable memory, microseconds by percent: 65536 additions 318 (0), 317 (20), 226
/// (50), 172 (80), 270 (100); as many multiplications 369, 325, 490, 693, 810; and 2^20 of these, on a quicker host, 3467 (0) and 4039 (20).
pub(crate) const SHARES: [u8; 4] = [10, 20, 50, 80];

/// Of fewer elements, waking the threads takes longer than computing.
pub(crate) const LEAST_SHARED: usize = 1 << 12;

/// What is known about an operation in a field and a form.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// The CPU reference, on as many threads as the model says, looking at the inputs included.
    pub(crate) cpu: Curve,
    /// Checking every element of an answer, on as many threads.
    pub(crate) check: Curve,
    /// Microseconds for an element on one thread: computing, checking.
    pub(crate) serial: (f64, f64),
    /// The device, unchecked, in each way that was tried.
    pub(crate) device: Vec<(Way, Curve)>,
}

impl Entry {
    fn is_sound(&self, most_invocations: u32) -> bool {
        let way = |(way, curve): &(Way, Curve)| {
            (1..=most_invocations).contains(&way.workgroup_size) && way.cpu_percent < 100 && curve.is_sound()
        };
        let serial = [self.serial.0, self.serial.1].iter().all(|time| time.is_finite() && *time >= 0.0);
        serial && self.cpu.is_sound() && self.check.is_sound() && !self.device.is_empty() && self.device.iter().all(way)
    }
}

/// What measurements are of. Operations of which one cannot tell the time apart share them, unless each was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) operation: Operation,
    pub(crate) field: Field,
    pub(crate) form: Form,
}

impl Key {
    /// What the measurements of an operation are under: its form only where converting between forms is a good part of the work.
    pub(crate) fn new(operation: Operation, field: Field, form: Form) -> Self {
        let form = match (like(operation), operation.row().form_matters) {
            (Operation::Mul, true) => form,
            // One multiplication, whatever the elements are.
            (Operation::Mul, false) => Form::Montgomery,
            _ => Form::Canonical,
        };
        Self { operation, field, form }
    }

    /// Every one there is.
    pub(crate) fn all() -> impl Iterator<Item = Key> {
        let pairs = TABLE.iter().flat_map(|row| Field::ALL.map(|field| (row, field)));
        let keys = pairs.filter(|(row, field)| row.available(*field)).flat_map(|(row, field)| {
            [Form::Canonical, Form::Montgomery].map(|form| (form, Key::new(row.operation, field, form)))
        });
        keys.filter(|(form, key)| *form == key.form).map(|(_, key)| key)
    }

    /// What it is called on disk.
    pub(crate) fn name(self) -> String {
        format!("{} {} {:?}", self.operation.name(), self.field, self.form)
    }
}

/// The operation that one is measured as when not each is.
pub(crate) fn like(operation: Operation) -> Operation {
    match operation {
        Operation::Add
        | Operation::Sub
        | Operation::Neg
        | Operation::Double
        | Operation::AddScalar
        | Operation::SubScalar
        | Operation::Equal => Operation::Add,
        Operation::Mul
        | Operation::Square
        | Operation::MulAdd
        | Operation::Scale
        | Operation::ToMontgomery
        | Operation::FromMontgomery => Operation::Mul,
        Operation::Pow => Operation::Pow,
        Operation::Inverse | Operation::InverseOrZero => Operation::Inverse,
        Operation::Sqrt => Operation::Sqrt,
    }
}

/// What is kept of a calibration.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measurements {
    /// Of this library.
    version: String,
    /// For whoever reads the file.
    pub(crate) device: String,
    /// Of the rayon pool that measured.
    pub(crate) threads: usize,
    /// More than any first call would measure.
    pub(crate) thorough: bool,
    pub(crate) entries: BTreeMap<String, Entry>,
}

/// Changes when measurements of an earlier library are no longer worth keeping.
const FORMAT: &str = concat!(env!("CARGO_PKG_VERSION"), " 2");

impl Measurements {
    pub(crate) fn new(device: String, threads: usize) -> Self {
        Self { version: FORMAT.into(), device, threads, thorough: false, entries: BTreeMap::new() }
    }

    /// What was kept, if it is good for this library and this many threads.
    pub(crate) fn read(text: &str, threads: usize, most_invocations: u32) -> Option<Self> {
        let kept: Self = serde_json::from_str(text).ok()?;
        let sound = kept.entries.values().all(|entry| entry.is_sound(most_invocations));
        (kept.version == FORMAT && kept.threads == threads && !kept.entries.is_empty() && sound).then_some(kept)
    }

    pub(crate) fn text(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string_pretty(self)
    }
}

/// What beats the model: settings that were asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) memory: MemoryMode,
    pub(crate) workgroup_size: Option<u32>,
    pub(crate) chunk_elements: Option<usize>,
}

impl Asked {
    /// The ways that are left, of those by the device alone and of those that are shared. Where none of those measured is what was asked
    /// for, the others stand in for it.
    fn narrow(&self, ways: &mut Vec<(Way, Curve)>) {
        let (mut shared, mut alone): (Vec<_>, Vec<_>) = ways.drain(..).partition(|(way, _)| way.is_shared());
        self.narrow_alike(&mut alone);
        self.narrow_alike(&mut shared);
        ways.append(&mut alone);
        ways.append(&mut shared);
    }

    fn narrow_alike(&self, ways: &mut Vec<(Way, Curve)>) {
        fn only<T: PartialEq + Copy>(ways: &mut Vec<(Way, Curve)>, asked: T, part: impl Fn(&mut Way) -> &mut T) {
            if ways.iter_mut().any(|(way, _)| *part(way) == asked) {
                ways.retain_mut(|(way, _)| *part(way) == asked);
            } else if let Some((first, _)) = ways.first_mut() {
                let stands_in = *part(first);
                ways.retain_mut(|(way, _)| *part(way) == stands_in);
                ways.iter_mut().for_each(|(way, _)| *part(way) = asked);
            }
        }
        if self.memory != MemoryMode::Auto {
            only(ways, self.memory == MemoryMode::DeviceLocal, |way| &mut way.staged);
        }
        if let Some(size) = self.workgroup_size {
            only(ways, size, |way| &mut way.workgroup_size);
        }
        if self.chunk_elements.is_some() {
            only(ways, self.chunk_elements, |way| &mut way.chunk_elements);
        }
    }
}

/// A call, as far as its time depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Query {
    pub(crate) operation: Operation,
    pub(crate) field: Field,
    pub(crate) form: Form,
    pub(crate) length: usize,
    pub(crate) verify: Verify,
    /// Bits of a power's exponent; `None` for as many as the modulus has.
    pub(crate) exponent_bits: Option<u64>,
    /// Threads that the CPU reference would have.
    pub(crate) threads: usize,
    /// Whether a worker of rayon calls, whom no helper helps.
    pub(crate) worker: bool,
}

impl Query {
    /// Whether the CPU may compute a part of it beside the device: not if it computes all of it anyway, to check it.
    fn shares(&self) -> bool {
        let in_part = match self.verify {
            Verify::Off => true,
            Verify::Sample(n) => n < self.length,
            Verify::All | Verify::Proofs => false,
        };
        in_part && !self.worker && self.length >= LEAST_SHARED
    }
}

/// A device must be predicted to save this share of the CPU's time.
const MARGIN: f64 = 0.05;

/// Both together must be predicted to save this share of what the device takes alone: of vectors that no cache holds, which a quick
/// calibration does not measure, they get in each other's way more than of shorter ones.
const SHARED_MARGIN: f64 = 0.1;

/// A device answers in 10 microseconds at best.
const SMALL: f64 = 5.0;

/// What every call is predicted from.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    /// By operation, field and form.
    entries: BTreeMap<Key, (Entry, Evidence)>,
    /// That the measurements used.
    threads: usize,
}

impl Model {
    /// From measurements, where there are any, and guesses.
    pub(crate) fn new(measurements: &Measurements, guess: impl Fn(Key) -> Entry, asked: Asked) -> Self {
        let measured = |key: Key| measurements.entries.get(&key.name()).cloned();
        let find = |key: Key| {
            if let Some(entry) = measured(key) {
                return (entry, Evidence::Measured);
            }
            let rough = like(key.operation);
            let same_field = [key.form, Form::Canonical, Form::Montgomery].map(|form| Key { operation: rough, form, ..key });
            // The other field's times: longer than Fr's, and most of them by as much on either side.
            let other_field = same_field.map(|key| Key { field: Field::Fq, ..key });
            let found = same_field.into_iter().chain(other_field).find_map(|key| Some((measured(key)?, key)));
            match found {
                Some((entry, like)) => (entry, Evidence::Like(like.operation, like.field)),
                None => (guess(key), Evidence::Guessed),
            }
        };
        let entries = Key::all().map(|key| {
            let (mut entry, evidence) = find(key);
            asked.narrow(&mut entry.device);
            (key, (entry, evidence))
        });
        Self { entries: entries.collect(), threads: measurements.threads.max(1) }
    }

    fn entry(&self, operation: Operation, field: Field, form: Form) -> Option<&(Entry, Evidence)> {
        self.entries.get(&Key::new(operation, field, form))
    }

    /// A curve measured with all threads, read for another number of them: never slower than one.
    fn with_threads(&self, curve: &Curve, serial: f64, query: &Query) -> f64 {
        let time = curve.at(query.length);
        match query.threads < self.threads {
            true => (time * self.threads as f64 / query.threads.max(1) as f64).min(time.max(serial * query.length as f64)),
            false => time,
        }
    }

    /// The predicted microseconds of everything that a call could be.
    fn times<'a>(&'a self, query: &'a Query) -> impl Iterator<Item = (Place, f64)> + 'a {
        let entry = self.entry(query.operation, query.field, query.form).map(|(entry, _)| entry);
        // Of a shorter power, so much less than of a whole one as there are fewer bits; what is left is like a product. Kernels
        // also make a table of small powers.
        let (whole, table) = (64 * query.field.limbs() as u64, 20);
        let bits = query.exponent_bits.filter(|_| query.operation == Operation::Pow).unwrap_or(whole).min(whole);
        let product = if bits < whole { self.entry(Operation::Mul, query.field, query.form) } else { None };
        let shorter = move |time: f64, product: Option<f64>, table: u64| {
            let least = product.unwrap_or(time).min(time);
            least + (time - least) * (bits + table) as f64 / (whole + table) as f64
        };
        let cpu = move |entry: &Entry| {
            let time = |entry: &Entry| self.with_threads(&entry.cpu, entry.serial.0, query);
            shorter(time(entry), product.map(|(product, _)| time(product)), 0)
        };
        let check = move |entry: &Entry| match query.verify {
            Verify::Off => 0.0,
            Verify::Sample(n) => {
                shorter(entry.serial.1, product.map(|(entry, _)| entry.serial.1), 0) * n.min(query.length) as f64
            }
            Verify::All | Verify::Proofs => {
                let time = |entry: &Entry| self.with_threads(&entry.check, entry.serial.1, query);
                let checking = shorter(time(entry), product.map(|(product, _)| time(product)), 0);
                // To recompute takes no less than to compute, whatever was measured.
                if query.operation.is_proved() { checking } else { checking.max(cpu(entry)) }
            }
        };
        let device = move |entry: &'a Entry| {
            let quickest = |entry: &Entry| {
                let alone = entry.device.iter().filter(|(way, _)| !way.is_shared());
                alone.map(|(_, curve)| curve.at(query.length)).reduce(f64::min)
            };
            let product = product.and_then(|(product, _)| quickest(product));
            let check = check(entry);
            let possible = |way: Way| !way.is_shared() || query.shares();
            entry.device.iter().filter(move |(way, _)| possible(*way)).map(move |(way, curve)| {
                let time = shorter(curve.at(query.length), product, table) + check;
                (Place::Device(way.setting(query.length)), time)
            })
        };
        entry.into_iter().flat_map(move |entry| std::iter::once((Place::Cpu, cpu(entry))).chain(device(entry)))
    }

    /// Where a call is computed.
    pub(crate) fn place(&self, query: &Query) -> Place {
        self.soonest(query, |_| true).unwrap_or(Place::Cpu)
    }

    /// The same if the CPU alone must not.
    pub(crate) fn on_the_device(&self, query: &Query) -> Option<Place> {
        self.soonest(query, |place| place != Place::Cpu)
    }

    fn soonest(&self, query: &Query, allowed: impl Fn(Place) -> bool) -> Option<Place> {
        let weighed = self.times(query).filter(|(place, _)| allowed(*place)).map(|(place, time)| match place {
            Place::Cpu => (place, time * (1.0 - MARGIN)),
            Place::Device(setting) if setting.cpu_elements > 0 => (place, time / (1.0 - SHARED_MARGIN)),
            Place::Device(_) => (place, time),
        });
        weighed.min_by(|a, b| a.1.total_cmp(&b.1)).map(|(place, _)| place)
    }

    /// The same, with all that was compared.
    pub(crate) fn explain(&self, query: &Query) -> Decision {
        let micros = |time: f64| Duration::try_from_secs_f64(time / 1e6).unwrap_or(Duration::MAX);
        let mut candidates: Vec<Candidate> =
            self.times(query).map(|(place, time)| Candidate { place, time: micros(time) }).collect();
        candidates.sort_by_key(|candidate| candidate.time);
        let entry = self.entry(query.operation, query.field, query.form);
        Decision {
            place: self.place(query),
            reason: Reason::Soonest,
            evidence: entry.map_or(Evidence::None, |(_, evidence)| *evidence),
            candidates,
            ..undecided(query)
        }
    }

    /// How many operations, fields and forms were measured themselves.
    pub(crate) fn measured(&self) -> usize {
        self.entries.values().filter(|(_, evidence)| *evidence == Evidence::Measured).count()
    }
}

/// Whether a call is over before a device could answer, by a guess at one thread's time for an element.
pub(crate) fn is_small(query: &Query, serial: f64) -> bool {
    serial * query.length as f64 <= SMALL
}

/// A decision that says only what it is about.
pub(crate) fn undecided(query: &Query) -> Decision {
    let Query { operation, field, form, length, verify, .. } = *query;
    let (place, reason, evidence) = (Place::Cpu, Reason::Small, Evidence::None);
    Decision {
        operation,
        field,
        form,
        length,
        verify,
        place,
        reason,
        evidence,
        multiplication: None,
        candidates: Vec::new(),
    }
}

impl Curve {
    /// Of what never ends.
    pub(crate) fn never() -> Self {
        Self(Vec::new())
    }
}
