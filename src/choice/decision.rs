//! What was decided about a call, and why.

use super::guesses;
use super::model::Key;
use crate::call::Prepared;
use crate::{Because, Field, Form, Multiplication, Operation, Verify};
use gpu_executor::{MemoryMode, Share};
use std::fmt;
use std::time::Duration;

/// Where a call is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Place {
    /// By the CPU reference.
    #[default]
    Cpu,
    /// By the Vulkan device.
    Device(Setting),
}

/// How the device computes a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Setting {
    /// Where the vectors lie meanwhile; [`MemoryMode::Auto`] decides by their length.
    pub memory: MemoryMode,
    /// Invocations per workgroup.
    pub workgroup_size: u32,
    /// The most elements in a chunk; `None` decides by the length, the operation and the device's limits, which hold anyway.
    pub chunk_elements: Option<usize>,
    /// So many elements, the last ones, are left to the CPU, and of the others those that it comes to before the device; 0 leaves all of them
    /// to the device. (If all vectors are pinned, a sixty-fourth at most is left to the CPU, and what it comes to.)
    pub cpu_elements: usize,
}

impl Setting {
    /// Whether vectors are staged, if that is decided.
    pub(crate) fn staged(self) -> Option<bool> {
        match self.memory {
            MemoryMode::Auto => None,
            MemoryMode::DeviceLocal => Some(true),
            MemoryMode::Host => Some(false),
        }
    }

    /// As jobs are told: whether staged, in chunks of how many elements, and what the CPU computes.
    pub(crate) fn for_a_job(self, prepared: &Prepared) -> (Option<bool>, Option<usize>, Option<Share>) {
        let key = Key::new(prepared.row.operation, prepared.field, prepared.form);
        let whole = 64 * prepared.field.limbs() as u64;
        let bits = if key.operation == Operation::Pow { prepared.exponent_bits().clamp(1, whole) } else { whole };
        let share = Share { elements: self.cpu_elements, piece: guesses::piece(key, bits as f64 / whole as f64) };
        (self.staged(), self.chunk_elements, (self.cpu_elements > 0).then_some(share))
    }
}

/// What was decided about a call, and why: see [`Backend::explain`](crate::Backend::explain). Printed, it is a sentence and a
/// table of the times that were compared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decision {
    /// The operation.
    pub operation: Operation,
    /// The field.
    pub field: Field,
    /// The form of the elements.
    pub form: Form,
    /// How many there are.
    pub length: usize,
    /// How much of what a device computes is checked.
    pub verify: Verify,
    /// Where such a call is computed.
    pub place: Place,
    /// Why there.
    pub reason: Reason,
    /// What the times below rest on.
    pub evidence: Evidence,
    /// What a device's kernel multiplies in, and why. (If it does not multiply, in words, since there is no other.)
    pub multiplication: Option<Multiplication>,
    /// Everything that was compared, the soonest first. Empty if nothing had to be.
    pub candidates: Vec<Candidate>,
}

/// A place and how long a call would take there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Candidate {
    /// The place.
    pub place: Place,
    /// The predicted time of the call from host memory to host memory, checks included.
    pub time: Duration,
}

/// Why a call goes where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// There is no device, for this reason.
    NoDevice(String),
    /// [`Placement::Device`](crate::Placement::Device) or [`Placement::Both`](crate::Placement::Both) was asked for.
    Asked,
    /// The device is lost: such a call goes to it to learn that, and is computed by the CPU, unless a GPU is required.
    Lost,
    /// So little work that the CPU is done before a device has begun.
    Small,
    /// It is predicted to take the least time. A device must be predicted to save a twentieth of the CPU's, both together a tenth of the
    /// device's.
    Soonest,
}

/// What predicted times rest on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Evidence {
    /// Nothing was predicted.
    None,
    /// Measurements of this operation on this machine.
    Measured,
    /// Measurements of a similar operation on this machine.
    Like(Operation, Field),
    /// What is built in for devices of this kind.
    Guessed,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Cpu => write!(f, "CPU"),
            Place::Device(setting) => write!(f, "device, {setting}"),
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = match self.memory {
            MemoryMode::Auto => "memory by length",
            MemoryMode::DeviceLocal => "device-local memory",
            MemoryMode::Host => "host memory",
        };
        write!(f, "{memory}, workgroups of {}", self.workgroup_size)?;
        self.chunk_elements.map_or(Ok(()), |elements| write!(f, ", chunks of {elements}"))?;
        match self.cpu_elements {
            0 => Ok(()),
            elements => write!(f, "; {elements} elements left to the CPU"),
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoDevice(reason) => write!(f, "there is no device: {reason}"),
            Reason::Asked => write!(f, "it was asked for, whatever it takes (placement)"),
            Reason::Lost => write!(f, "the device is lost, which the call will say, or the CPU makes up for"),
            Reason::Small => write!(f, "the CPU is done before a device has begun"),
            Reason::Soonest => write!(f, "the least time is predicted"),
        }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Evidence::None => write!(f, "nothing was predicted"),
            Evidence::Measured => write!(f, "from measurements on this machine"),
            Evidence::Like(operation, field) => {
                write!(f, "from measurements of {} in {field} on this machine", operation.name())
            }
            Evidence::Guessed => write!(f, "from built-in guesses"),
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checked = match self.verify {
            Verify::All | Verify::Proofs => "every element checked".to_owned(),
            Verify::Sample(n) => format!("{n} elements checked"),
            Verify::Off => "unchecked".to_owned(),
        };
        let form = match self.form {
            Form::Canonical => "canonical",
            Form::Montgomery => "Montgomery",
        };
        let (name, field, length) = (self.operation.name(), self.field, self.length);
        write!(f, "{name} of {length} elements of {field} ({form} form, {checked}): {}; {}", self.place, self.reason)?;
        if !self.candidates.is_empty() {
            write!(f, ", {}", self.evidence)?;
        }
        if let Some(multiplication) = self.multiplication.filter(|multiplication| multiplication.because != Because::Only) {
            write!(f, "; the device multiplies in {multiplication}")?;
        }
        for Candidate { place, time } in &self.candidates {
            write!(f, "\n  {:>12.1} us  {place}", time.as_secs_f64() * 1e6)?;
        }
        Ok(())
    }
}
