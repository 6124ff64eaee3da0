//! Faults, injected between ash's function table and the driver, for tests only: the plan of them, and what it saw. The functions that carry it
//! out are in `table`.

mod table;

use ash::vk;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// What calls of Vulkan are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallClass {
    /// Buffers and their memory: making, binding, mapping.
    Allocate,
    /// Making anything else, and fetching a pipeline cache's data.
    Create,
    /// Resetting, beginning and ending command buffers.
    Record,
    /// Submitting to a queue.
    Submit,
    /// Waiting, and asking whether something has finished.
    Wait,
    /// Any of them.
    Any,
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// `VK_ERROR_OUT_OF_DEVICE_MEMORY`.
    OutOfDeviceMemory,
    /// `VK_ERROR_OUT_OF_HOST_MEMORY`.
    OutOfHostMemory,
    /// `VK_ERROR_UNKNOWN`.
    Unknown,
    /// The device is lost when the call is made: this call, if Vulkan lets it, and every later one that may say so, does.
    DeviceLost,
    /// The device stands still when the call is made: nothing is seen to finish any more, and every wait for it times out, at
    /// once.
    Hang,
}

/// When which calls fail, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Injection {
    /// The calls that count.
    pub class: CallClass,
    /// The first that fails; the first call of all is 0.
    pub at: u64,
    /// How many of the calls from there on fail.
    pub times: u64,
    /// How.
    pub failure: Failure,
}

/// A plan of faults, and what it saw: clones share both. By itself it injects nothing, and counts.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    injection: Option<Injection>,
    calls: BTreeMap<CallClass, u64>,
    failed: Vec<&'static str>,
    live: BTreeMap<&'static str, i64>,
    /// What the driver seems to say that this process may allocate, if anything.
    budget: Option<u64>,
    /// Bytes of device memory by device and handle.
    memory: BTreeMap<(u64, u64), u64>,
}

impl Faults {
    /// Injects this from now on, instead of what was injected before. Calls are counted from here.
    pub fn inject(&self, injection: Injection) {
        let mut state = self.0.lock();
        (state.injection, state.calls, state.failed) = (Some(injection), BTreeMap::new(), Vec::new());
    }

    /// Injects nothing from now on, and counts calls from here. (A lost device stays lost.)
    pub fn clear(&self) {
        let mut state = self.0.lock();
        (state.injection, state.calls, state.failed) = (None, BTreeMap::new(), Vec::new());
    }

    /// How many calls of this class were made since [`Faults::inject`] or [`Faults::clear`].
    pub fn calls(&self, class: CallClass) -> u64 {
        self.0.lock().calls.get(&class).copied().unwrap_or(0)
    }

    /// The calls at which faults were injected.
    pub fn failed(&self) -> Vec<&'static str> {
        self.0.lock().failed.clone()
    }

    /// How many objects live, by type, types without any left out. All types that this crate and gpu-allocator use are counted,
    /// except those that go with their pool.
    pub fn live(&self) -> BTreeMap<&'static str, i64> {
        self.0.lock().live.iter().filter(|(_, count)| **count != 0).map(|(name, count)| (*name, *count)).collect()
    }

    /// Has the driver seem to say that this process may allocate so many bytes (of each kind of memory), of which those that
    /// [`Faults::memory`] tells are in use.
    pub fn set_budget(&self, bytes: Option<u64>) {
        self.0.lock().budget = bytes;
    }

    pub(super) fn budget(&self) -> Option<u64> {
        self.0.lock().budget
    }

    /// Bytes of all memory allocated and not freed.
    pub fn memory(&self) -> u64 {
        self.0.lock().memory.values().sum()
    }

    /// Counts a call; how it fails, if it does.
    fn count(&self, name: &'static str, class: CallClass) -> Option<Failure> {
        let mut state = self.0.lock();
        let mut failure = None;
        for class in [class, CallClass::Any] {
            let number = state.calls.entry(class).or_default();
            *number += 1;
            let number = *number - 1;
            if let Some(injection) = state.injection
                && injection.class == class
                && (injection.at..injection.at.saturating_add(injection.times)).contains(&number)
            {
                failure = Some(injection.failure);
            }
        }
        if failure.is_some() {
            state.failed.push(name);
        }
        failure
    }

    fn add(&self, object: &'static str, by: i64) {
        *self.0.lock().live.entry(object).or_default() += by;
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faults({:?})", self.0.lock().injection)
    }
}

impl Failure {
    /// What the call answers, if that is all there is to it.
    fn code(self) -> Option<vk::Result> {
        match self {
            Failure::OutOfDeviceMemory => Some(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
            Failure::OutOfHostMemory => Some(vk::Result::ERROR_OUT_OF_HOST_MEMORY),
            Failure::Unknown => Some(vk::Result::ERROR_UNKNOWN),
            Failure::DeviceLost | Failure::Hang => None,
        }
    }
}
