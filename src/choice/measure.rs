//! Calibration: measures what the model predicts from.

use super::model::{Curve, Entry, Key, LEAST_SHARED, Measurements, SHARES, Way, like};
use crate::backend::Backend;
use crate::call::{Call, Prepared};
use crate::on_device::{Checks, Groups, Vulkan};
use crate::operation::Parameter;
use crate::rates::random;
use crate::{Error, Field, Form, Operation};
use cpu_reference::{Positions, Results};
use gpu_executor::DeviceKind;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How thoroughly a calibration measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thoroughness {
    /// Two to three seconds: one operation of each kind, the device's own workgroup size.
    Quick,
    /// Every kernel in every formulation (see [`Options::formulation`](crate::Options::formulation)); every operation, and of each kind
    /// every workgroup size and several sizes of chunks. Takes no more than about this long.
    Thorough(Duration),
}

/// The time of a quick calibration; it may last longer by what the driver takes for one pipeline.
const QUICK: Duration = Duration::from_millis(2300);

/// How much is done to know a time.
#[derive(Clone, Copy)]
struct Effort {
    thorough: bool,
    lengths: &'static [usize],
    /// How long one length may be measured over and over.
    point: Duration,
    /// How long a single call may take: longer vectors are not tried.
    single: Duration,
}

impl Effort {
    const QUICK: Self = Self {
        thorough: false,
        lengths: &[1, 64, 1 << 10, 1 << 13, 1 << 16, 1 << 18],
        point: Duration::from_millis(4),
        single: Duration::from_millis(15),
    };
    const THOROUGH: Self = Self {
        thorough: true,
        lengths: &[1, 64, 1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20],
        point: Duration::from_millis(10),
        single: Duration::from_millis(60),
    };
}

const WORKGROUPS: [u32; 4] = [32, 64, 128, 256];
const CHUNKS: [usize; 3] = [1 << 13, 1 << 15, 1 << 17];

/// What is measured quickly, the most telling first: the time may run out.
const QUICK_KEYS: [(Operation, Field, Form); 11] = [
    (Operation::Mul, Field::Fq, Form::Canonical),
    (Operation::Add, Field::Fq, Form::Canonical),
    (Operation::Sqrt, Field::Fq, Form::Canonical),
    (Operation::Pow, Field::Fq, Form::Canonical),
    (Operation::Inverse, Field::Fq, Form::Canonical),
    (Operation::Mul, Field::Fr, Form::Canonical),
    (Operation::Add, Field::Fr, Form::Canonical),
    (Operation::Mul, Field::Fq, Form::Montgomery),
    (Operation::Mul, Field::Fr, Form::Montgomery),
    (Operation::Pow, Field::Fr, Form::Canonical),
    (Operation::Inverse, Field::Fr, Form::Canonical),
];

/// Measures; tells `progress` how much of it is done, from 0 to 1, and what comes next.
pub(super) fn measure(
    backend: &Backend,
    vulkan: &Vulkan,
    thoroughness: Thoroughness,
    progress: &mut dyn FnMut(f64, &str),
) -> Result<Measurements, Error> {
    let info = vulkan.device().info();
    let mut found = Measurements::new(info.to_string(), rayon::current_num_threads());
    found.thorough = thoroughness != Thoroughness::Quick;
    let own = vulkan.device().workgroup_size();
    let budget = match thoroughness {
        Thoroughness::Quick => QUICK,
        Thoroughness::Thorough(budget) => budget,
    };
    let mut bench = Bench { backend, vulkan, begin: Instant::now(), budget, effort: Effort::QUICK, vectors: HashMap::new() };
    // Where there is one memory there is nothing to stage.
    let own_memory = matches!(info.kind, DeviceKind::Discrete | DeviceKind::Virtual);
    let both: &[bool] = if own_memory { &[false, true] } else { &[false] };
    let ways = |workgroup_size| {
        both.iter().map(move |&staged| Way { staged, workgroup_size, chunk_elements: None, cpu_percent: 0 })
    };
    // First what tells most: if time runs out, it does so over details.
    let quick = QUICK_KEYS.map(|(operation, field, form)| (Key { operation, field, form }, Effort::QUICK)).into_iter();
    let keys: Vec<(Key, Effort)> = match thoroughness {
        Thoroughness::Quick => quick.collect(),
        Thoroughness::Thorough(_) => {
            let (first, rest): (Vec<Key>, Vec<Key>) = Key::all().partition(|key| key.operation == like(key.operation));
            quick.chain(first.into_iter().chain(rest).map(|key| (key, Effort::THOROUGH))).collect()
        }
    };
    for (number, &(key, effort)) in keys.iter().enumerate() {
        let usual: Vec<Way> = ways(own).collect();
        // A device that is the CPU has nothing to share with it, and no helper helps a rayon worker.
        let shares = info.kind != DeviceKind::Software && rayon::current_thread_index().is_none();
        let shared = usual.iter().take(if shares { if effort.thorough { 2 } else { 1 } } else { 0 });
        let shared = shared.flat_map(|way| SHARES.map(|cpu_percent| Way { cpu_percent, ..*way }));
        let mut ways: Vec<Way> = usual.iter().copied().chain(shared).collect();
        if effort.thorough {
            let kind = Key { operation: like(key.operation), ..key };
            match found.entries.get(&kind.name()) {
                Some(kind) if key.operation != like(key.operation) => {
                    let (best, known) = (best(&kind.device, effort.lengths), ways.clone());
                    ways.extend(best.into_iter().filter(|way| !known.contains(way)));
                }
                _ => ways.extend(others(own, vulkan.device().most_invocations(), both)),
            }
        }
        progress(f64::max(number as f64 / keys.len() as f64, bench.spent()), &key.name());
        if bench.left().is_zero() {
            break;
        }
        bench.effort = effort;
        if let Some(entry) = bench.entry(key, &ways)? {
            found.entries.insert(key.name(), entry);
        }
    }
    progress(1.0, "done");
    Ok(found)
}

/// Every other size of workgroups, and sizes of chunks.
fn others(own: u32, most: u32, both: &[bool]) -> Vec<Way> {
    let sizes = WORKGROUPS.into_iter().filter(|&size| size != own && size <= most);
    let sized = sizes.flat_map(|size| {
        both.iter().map(move |&staged| Way { staged, workgroup_size: size, chunk_elements: None, cpu_percent: 0 })
    });
    let staged = both.contains(&true);
    let cut = CHUNKS.map(|elements| Way { staged, workgroup_size: own, chunk_elements: Some(elements), cpu_percent: 0 });
    sized.chain(cut).collect()
}

/// The ways that are the soonest at some length.
fn best(device: &[(Way, Curve)], lengths: &[usize]) -> Vec<Way> {
    let alone = || device.iter().filter(|(way, _)| !way.is_shared());
    let soonest = |&length: &usize| alone().min_by(|a, b| a.1.at(length).total_cmp(&b.1.at(length)));
    let mut ways: Vec<Way> = Vec::new();
    for (way, _) in lengths.iter().filter_map(soonest) {
        if !ways.contains(way) {
            ways.push(*way);
        }
    }
    ways
}

struct Bench<'a> {
    backend: &'a Backend,
    vulkan: &'a Vulkan,
    begin: Instant,
    budget: Duration,
    effort: Effort,
    /// Three vectors for each field, none of their elements zero, as long as was needed so far.
    vectors: HashMap<Field, [Vec<u64>; 3]>,
}

impl Bench<'_> {
    fn left(&self) -> Duration {
        self.budget.saturating_sub(self.begin.elapsed())
    }

    fn spent(&self) -> f64 {
        1.0 - self.left().as_secs_f64() / self.budget.as_secs_f64().max(1e-9)
    }

    /// Everything about one operation; `None` if time ran out before something could be told.
    fn entry(&mut self, key: Key, ways: &[Way]) -> Result<Option<Entry>, Error> {
        let longest = self.effort.lengths.iter().copied().max().unwrap_or(1);
        let long_enough = |vectors: &[Vec<u64>; 3]| vectors[0].len() >= longest * key.field.limbs();
        let kept = self.vectors.remove(&key.field).filter(long_enough);
        let vectors = kept.unwrap_or_else(|| [1, 2, 3].map(|seed| random(key.field, longest, seed)));
        let entry = self.with(key, ways, &vectors);
        self.vectors.insert(key.field, vectors);
        entry
    }

    fn with(&self, key: Key, ways: &[Way], vectors: &[Vec<u64>; 3]) -> Result<Option<Entry>, Error> {
        let row = key.operation.row();
        let limbs = key.field.limbs();
        let parameter = match row.parameter {
            Parameter::None => &[][..],
            Parameter::Scalar | Parameter::Exponent => &vectors[0][..limbs],
        };
        let inputs = |length: usize| [0, 1, 2].map(|n| &vectors[n][..length * limbs]);
        let outputs = |length: usize| {
            let (elements, flags) = (usize::from(row.has_elements()), usize::from(row.has_mask()));
            (vec![0u64; elements * length * limbs], vec![0u32; flags * length])
        };
        let Key { operation, field, form } = key;
        let on_the_device = |way: Way, length: usize| {
            let (inputs, (mut elements, mut flags)) = (inputs(length), outputs(length));
            let vectors = &inputs[..row.vectors];
            let prepared = &Prepared::new(&Call { operation, field, form, vectors, parameter })?;
            let (backend, vulkan) = (self.backend, self.vulkan);
            let program = vulkan.program_of(backend.settings(), prepared, Groups::of(way.workgroup_size))?;
            self.time(|| {
                let values = rayon::current_thread_index().is_none();
                let checks = Checks { backend, vulkan, prepared, values, verify: false };
                let job = way.setting(length).for_a_job(prepared);
                vulkan.run(&program, prepared, job, (&mut elements, &mut flags), &checks).map(drop)
            })
        };
        let mut device = Vec::new();
        for &way in ways.iter().filter(|way| !way.is_shared()) {
            if self.left().is_zero() {
                break;
            }
            let curve = self.curve((1, 1), |length| on_the_device(way, length))?;
            device.extend(curve.map(|curve| (way, curve)));
        }
        let mut check = Vec::new();
        let cpu = self.curve((rayon::current_num_threads(), 1), |length| {
            let (inputs, (mut elements, mut flags)) = (inputs(length), outputs(length));
            let vectors = &inputs[..row.vectors];
            let prepared = Prepared::new(&Call { operation, field, form, vectors, parameter })?;
            let time = self.time(|| {
                prepared.part(&(0..length)).check_values()?;
                let mut results = Results { elements: &mut elements, mask: &mut flags };
                (prepared.twin.compute)(&prepared.operands(), &mut results);
                Ok(())
            })?;
            let checked = self.time(|| {
                // All of them are right: every element is looked at.
                std::hint::black_box(prepared.first_wrong(&elements, &flags, Positions::All));
                Ok(())
            })?;
            check.push((length, checked));
            Ok(time)
        })?;
        let (Some(cpu), Some(check)) = (cpu, Curve::new(check)) else { return Ok(None) };
        // So few that one thread does them.
        let serial = [&cpu, &check].map(|curve| curve.at(64) / 64.0);
        if device.is_empty() {
            return Ok(None);
        }
        // Of long vectors: what the CPU takes longer for than a device for all of it gains nothing.
        let longest = self.effort.lengths.iter().copied().max().unwrap_or(1);
        let alone = device.iter().map(|(_, curve)| curve.at(longest)).fold(f64::INFINITY, f64::min);
        for &way in ways.iter().filter(|way| way.is_shared()) {
            if self.left().is_zero() || cpu.at(way.setting(longest).cpu_elements) > 1.5 * alone {
                continue;
            }
            let curve = self.curve((1, LEAST_SHARED), |length| on_the_device(way, length))?;
            device.extend(curve.map(|curve| (way, curve)));
        }
        Ok(Some(Entry { cpu, check, serial: (serial[0], serial[1]), device }))
    }

    /// Measures one length after another, of so many elements at least, as long as there is time, and no single call is too long. `threads`
    /// share the work, 64 elements to one at a time.
    fn curve(
        &self,
        (threads, least): (usize, usize),
        mut time: impl FnMut(usize) -> Result<f64, Error>,
    ) -> Result<Option<Curve>, Error> {
        let each = |length: usize| length as f64 / threads.min(length.div_ceil(64)) as f64;
        let mut points: Vec<(usize, f64)> = Vec::new();
        for &length in self.effort.lengths.iter().filter(|&&length| length >= least) {
            // No more than in proportion: what is fixed is counted too often, which only stops a little early.
            if let Some((shorter, micros)) = points.last() {
                let expected = Duration::from_secs_f64(micros * each(length) / each(*shorter) / 1e6);
                if points.len() > 1 && (expected > self.effort.single.max(self.effort.point) || 2 * expected > self.left()) {
                    break;
                }
            } else if self.left().is_zero() {
                break;
            }
            points.push((length, time(length)?));
        }
        Ok(Curve::new(points))
    }

    /// The median of some calls, in microseconds.
    fn time(&self, mut call: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
        let mut once = || {
            let begin = Instant::now();
            call().map(|()| begin.elapsed())
        };
        let first = once()?;
        let mut times = Vec::new();
        let begin = Instant::now();
        // What takes long is not taken again; the first call of a length may have made buffers.
        while times.len() < 2 || (times.len() < 15 && begin.elapsed() < self.effort.point) {
            times.push(once()?);
            if first > self.effort.single {
                break;
            }
        }
        times.sort();
        Ok(times[times.len() / 2].as_secs_f64() * 1e6)
    }
}
