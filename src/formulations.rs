//! Which formulation each kernel multiplies in, and why.

use crate::options::{Calibrate, Settings};
use crate::{Error, Field};
use field_kernels::{Formulation, Kernel, Width};
use foldhash::HashMap;
use gpu_executor::{Device, DeviceInfo, DeviceKind};
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fmt;

/// What a kernel of a device multiplies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Multiplication {
    /// The formulation.
    pub formulation: Formulation,
    /// Why it is that one.
    pub because: Because,
}

/// Why a kernel multiplies in its formulation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Because {
    /// The device has no other for this kernel.
    Only,
    /// It was asked for: [`Options::formulation`](crate::Options::formulation).
    Asked,
    /// It was measured to be the quickest on this device.
    Measured,
    /// It is what is built in for devices of this kind.
    Guessed,
    /// Another was chosen, and failed its self-test on this device.
    OtherFailed,
}

/// Rates that were measured, by kernel and field and by formulation; the unit is the same for the formulations of one kernel.
type Rates = BTreeMap<String, BTreeMap<String, f64>>;

/// What is kept of them, for a device and its driver.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The hash of all kernels: others have other rates.
    kernels: String,
    rates: Rates,
}

/// The hash that rates are kept with.
fn kernels() -> String {
    Sha256::digest(field_kernels::LOCK).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) struct Formulations {
    width: Width,
    /// The name of the notes that rates are kept in.
    note: &'static str,
    usable: Vec<Formulation>,
    asked: Option<Formulation>,
    device: DeviceInfo,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    measured: Rates,
    failed: Vec<(Kernel, Field, Formulation)>,
    /// What follows from the others: every call asks.
    chosen: HashMap<(Kernel, Field), Multiplication>,
}

impl Formulations {
    /// What the settings allow on a device.
    pub(crate) fn new(settings: &Settings, device: &Device, width: Width, tiled: bool) -> Result<Self, Error> {
        let refused = |reason| Err(Error::InvalidOption { option: "formulation", reason });
        let usable: Vec<Formulation> =
            Formulation::ALL.into_iter().filter(|&formulation| can(device.info(), width, formulation)).collect();
        match settings.formulation {
            Some(asked) if !usable.contains(&asked) && width == Width::Int32 => {
                return refused("without 64-bit integers kernels multiply in words");
            }
            Some(asked) if !usable.contains(&asked) => {
                return refused("the device has no doubles");
            }
            _ => {}
        }
        let note = if tiled { "formulations-tiled" } else { "formulations" };
        let kept = if settings.calibrate == Calibrate::Off { None } else { device.recall(note) };
        let kept: Option<Kept> = kept.and_then(|text| serde_json::from_str(&text).ok());
        let measured = kept.filter(|kept| kept.kernels == kernels()).unwrap_or_default().rates;
        Ok(Self {
            width,
            note,
            usable,
            asked: settings.formulation,
            device: device.info().clone(),
            known: RwLock::new(Known { measured, ..Known::default() }),
        })
    }

    /// In which formulations a kernel exists for the device.
    pub(crate) fn of(&self, kernel: Kernel, field: Field) -> impl Iterator<Item = Formulation> {
        let exists = move |formulation: &Formulation| kernel.shader(field, self.width, *formulation).is_some();
        self.usable.iter().copied().filter(exists)
    }

    /// The one that is chosen.
    pub(crate) fn choose(&self, kernel: Kernel, field: Field) -> Multiplication {
        if let Some(chosen) = self.known.read().chosen.get(&(kernel, field)) {
            return *chosen;
        }
        let mut known = self.known.write();
        let chosen = self.weigh(&known, kernel, field);
        known.chosen.insert((kernel, field), chosen);
        chosen
    }

    fn weigh(&self, known: &Known, kernel: Kernel, field: Field) -> Multiplication {
        let chosen = |formulation, because| Multiplication { formulation, because };
        let failed = |formulation: &Formulation| known.failed.contains(&(kernel, field, *formulation));
        let candidates: Vec<Formulation> = self.of(kernel, field).filter(|formulation| !failed(formulation)).collect();
        if self.of(kernel, field).count() <= 1 {
            return chosen(Formulation::Words, Because::Only);
        }
        if let Some(asked) = self.asked.filter(|asked| candidates.contains(asked)) {
            return chosen(asked, Because::Asked);
        }
        let rates = known.measured.get(&name(kernel, field));
        let rate = |formulation: &Formulation| Some((*formulation, *rates?.get(formulation.name())?));
        let guess = guess(&self.device, field, &candidates);
        if let Some((quickest, most)) = candidates.iter().filter_map(rate).max_by(|a, b| a.1.total_cmp(&b.1)) {
            // What is known to be good is not given up for what may be noise.
            let guessed = rate(&guess).is_some_and(|(_, rate)| most < NOISE * rate);
            return chosen(if guessed { guess } else { quickest }, Because::Measured);
        }
        let other_failed = self.of(kernel, field).any(|formulation| failed(&formulation));
        chosen(guess, if other_failed { Because::OtherFailed } else { Because::Guessed })
    }

    /// Whether another is chosen from now on, since this one failed its self-test. What was asked for is not replaced, and words have
    /// no replacement.
    pub(crate) fn gives_up(&self, kernel: Kernel, field: Field, failed: Multiplication) -> bool {
        let replaceable = failed.because != Because::Asked && failed.formulation != Formulation::Words;
        if replaceable {
            let mut known = self.known.write();
            known.failed.push((kernel, field, failed.formulation));
            known.chosen.clear();
        }
        replaceable
    }

    /// Chooses by these rates of a kernel from now on.
    pub(crate) fn learn(&self, kernel: Kernel, field: Field, rates: &[(Formulation, f64)]) {
        let rates = rates.iter().map(|(formulation, rate)| (formulation.name().to_owned(), *rate));
        let mut known = self.known.write();
        known.measured.insert(name(kernel, field), rates.collect());
        known.chosen.clear();
    }

    /// Keeps what was learnt for the next process.
    pub(crate) fn keep(&self, device: &Device) {
        let kept = Kept { kernels: kernels(), rates: self.known.read().measured.clone() };
        let stored = serde_json::to_string_pretty(&kept)
            .map_err(|error| error.to_string())
            .and_then(|text| device.keep(self.note, &text).map_err(|error| error.to_string()));
        if let Err(error) = stored {
            tracing::warn!(error, "the choice of formulations is not kept");
        }
    }
}

/// Whether a device can run a formulation at all.
fn can(info: &DeviceInfo, width: Width, formulation: Formulation) -> bool {
    match formulation {
        Formulation::Words => true,
        Formulation::Digits | Formulation::Adic => width == Width::Int64,
        Formulation::Doubles => width == Width::Int64 && info.float64,
    }
}

/// By how much more a rate has to be to count as more.
const NOISE: f64 = 1.03;

/// NVIDIA's GPUs that compute doubles at half the rate of floats; most others take 32 or 64 times as long. No device says which it is.
const FULL_RATE_DOUBLES: [&str; 13] =
    ["GP100", "P100", "GV100", "V100", "A30", "A100", "A800", "H100", "H200", "H800", "GH200", "B200", "GB200"];

/// What is known to be good for a kernel, of the formulations that it has, on devices of a kind, before anything is measured: as
/// `benches/reports/h200-roofline.md` has it of the one GPU that was at hand. `bls12-gpu calibrate` measures.
fn guess(info: &DeviceInfo, field: Field, candidates: &[Formulation]) -> Formulation {
    const NVIDIA: u32 = 0x10de;
    let discrete = matches!(info.kind, DeviceKind::Discrete | DeviceKind::Virtual);
    if info.vendor != NVIDIA || !discrete {
        return Formulation::Words;
    }
    let digits = candidates.contains(&Formulation::Digits);
    let full_rate = info.name.split([' ', '-']).any(|word| FULL_RATE_DOUBLES.contains(&word));
    let doubles = full_rate && candidates.contains(&Formulation::Doubles);
    // Only what multiplies often exists to the base of the curve. Powers of Fq are 3% quicker in doubles all the same. That Fr's are
    // quicker to the base of the curve than in digits follows from chains.
    let adic = candidates.contains(&Formulation::Adic);
    match field {
        Field::Fq if doubles => Formulation::Doubles,
        _ if adic => Formulation::Adic,
        _ if digits => Formulation::Digits,
        _ => Formulation::Words,
    }
}

/// What measurements of a kernel are kept under.
fn name(kernel: Kernel, field: Field) -> String {
    format!("{} {}", field.name(), kernel.name())
}

impl fmt::Display for Multiplication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let because = match self.because {
            Because::Only => "there is no other",
            Because::Asked => "as asked for",
            Because::Measured => "measured to be the quickest",
            Because::Guessed => "by the kind of device",
            Because::OtherFailed => "another failed its self-test",
        };
        write!(f, "{}, {because}", self.formulation.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Formulation::{Adic, Digits, Doubles, Words};

    const NVIDIA: u32 = 0x10de;

    fn device(name: &str, vendor: u32, kind: DeviceKind, float64: bool) -> DeviceInfo {
        let (driver, vulkan) = (String::new(), String::new());
        DeviceInfo { index: 0, name: name.into(), kind, driver, vulkan, memory: 1 << 30, vendor, int64: true, float64 }
    }

    /// What is guessed of what a device can run, of kernels like the multiplication and like powers, for Fq and Fr.
    fn guesses(info: &DeviceInfo, width: Width) -> [Formulation; 4] {
        let able = |all: &[Formulation]| all.iter().copied().filter(|which| can(info, width, *which)).collect::<Vec<_>>();
        [
            guess(info, Field::Fq, &able(&[Words, Digits, Doubles])),
            guess(info, Field::Fq, &able(&[Words, Doubles, Adic])),
            guess(info, Field::Fr, &able(&[Words, Digits])),
            guess(info, Field::Fr, &able(&[Words, Adic])),
        ]
    }

    #[test]
    fn guesses_are_what_the_kind_of_device_can_do() {
        let of = |name, kind, float64| guesses(&device(name, NVIDIA, kind, float64), Width::Int64);
        let discrete = DeviceKind::Discrete;
        assert_eq!(of("NVIDIA H200", discrete, true), [Doubles, Doubles, Digits, Adic]);
        assert_eq!(of("NVIDIA A100-SXM4-80GB", discrete, true), [Doubles, Doubles, Digits, Adic]);
        // Its doubles are slow, or it has none.
        assert_eq!(of("NVIDIA GeForce RTX 4090", discrete, true), [Digits, Adic, Digits, Adic]);
        assert_eq!(of("NVIDIA H200", discrete, false), [Digits, Adic, Digits, Adic]);
        // Of others nothing is known.
        assert_eq!(of("NVIDIA Tegra", DeviceKind::Integrated, true), [Words; 4]);
        assert_eq!(guesses(&device("AMD Instinct MI300X", 0x1002, discrete, true), Width::Int64), [Words; 4]);
        assert_eq!(guesses(&device("llvmpipe", 0x10005, DeviceKind::Software, true), Width::Int64), [Words; 4]);
        assert_eq!(guesses(&device("NVIDIA H200", NVIDIA, discrete, true), Width::Int32), [Words; 4]);
    }
}
