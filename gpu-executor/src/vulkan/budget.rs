//! How much memory the driver lets this process have, where it says so (`VK_EXT_memory_budget`): less than there is, if others use
//! the device too.

use super::Gpu;
use super::memory::Place;
use ash::vk;

/// What the driver says of a heap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// How much this process may allocate, all in all, before the driver gets into trouble.
    pub(super) budget: u64,
    /// How much it has allocated.
    pub(super) usage: u64,
}

impl Room {
    pub(super) fn left(self) -> u64 {
        self.budget.saturating_sub(self.usage)
    }
}

/// The heaps of device and host memory, if the driver tells budgets.
pub(super) struct Budget {
    heaps: Option<[usize; 2]>,
    #[cfg(feature = "test-faults")]
    faults: Option<super::Faults>,
}

impl Budget {
    pub(super) fn new(gpu: &Gpu, told: bool, #[cfg(feature = "test-faults")] faults: Option<super::Faults>) -> Self {
        use vk::MemoryPropertyFlags as Flags;
        // SAFETY: a live instance, of which this device is.
        let memory = unsafe { gpu.instance.raw.get_physical_device_memory_properties(gpu.physical) };
        // The types that gpu-allocator prefers for the two places.
        let heap = |flags| {
            let types = memory.memory_types_as_slice();
            types.iter().find(|kind| kind.property_flags.contains(flags)).map(|kind| kind.heap_index as usize)
        };
        let heaps = heap(Flags::DEVICE_LOCAL)
            .zip(heap(Flags::HOST_VISIBLE | Flags::HOST_COHERENT | Flags::HOST_CACHED))
            .filter(|_| told)
            .map(|(device, host)| [device, host]);
        Self {
            heaps,
            #[cfg(feature = "test-faults")]
            faults,
        }
    }

    /// What the driver says of a place's heap now; `None` if it does not say.
    pub(super) fn room(&self, gpu: &Gpu, place: Place) -> Option<Room> {
        #[cfg(feature = "test-faults")]
        if let Some(faults) = &self.faults
            && let Some(budget) = faults.budget()
        {
            return Some(Room { budget, usage: faults.memory() });
        }
        let heap = self.heaps?[place as usize];
        let mut budgets = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
        let mut memory = vk::PhysicalDeviceMemoryProperties2::default().push_next(&mut budgets);
        // SAFETY: a live instance; the device has the extension, since there are heaps.
        unsafe { gpu.instance.raw.get_physical_device_memory_properties2(gpu.physical, &mut memory) };
        let room = Room { budget: *budgets.heap_budget.get(heap)?, usage: *budgets.heap_usage.get(heap)? };
        // A driver that says nothing of a heap says 0.
        (room.budget > 0).then_some(room)
    }
}

/// A job of this many bytes, which a block or two have room for, does not have the driver asked how much there is.
pub(super) const UNASKED: u64 = 16 << 20;

/// What jobs, all together, may have: what resident vectors leave of the limit; no more than what they have, what is kept idle and
/// what the driver gives beside that, but for a little, which is not asked about.
pub(super) fn for_jobs(limit: u64, resident: u64, jobs: u64, idle: u64, room: Option<Room>) -> u64 {
    let left = limit.saturating_sub(resident);
    room.map_or(left, |room| left.min(room.left().saturating_add(idle).saturating_add(jobs).max(UNASKED)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const LIMIT: u64 = 1000 * MIB;

    fn in_mib(resident: u64, jobs: u64, idle: u64, room: Option<[u64; 2]>) -> u64 {
        let room = room.map(|[budget, usage]| Room { budget: budget * MIB, usage: usage * MIB });
        for_jobs(LIMIT, resident * MIB, jobs * MIB, idle * MIB, room) / MIB
    }

    #[test]
    fn where_nothing_is_said_the_limit_counts() {
        assert_eq!(in_mib(0, 300, 200, None), 1000);
        assert_eq!(in_mib(400, 300, 200, None), 600);
        assert_eq!(in_mib(1400, 0, 0, None), 0);
    }

    #[test]
    fn what_the_driver_gives_counts_with_what_can_be_had_without_it() {
        // Plenty: the limit counts.
        assert_eq!(in_mib(400, 0, 0, Some([5000, 100])), 600);
        assert_eq!(in_mib(400, 0, 0, Some([500, 400])), 100);
        // Idle buffers are there to be used, and what jobs have comes back.
        assert_eq!(in_mib(400, 0, 150, Some([650, 550])), 250);
        assert_eq!(in_mib(400, 200, 150, Some([850, 750])), 450);
        // Others have taken what was ours: small jobs are done all the same.
        assert_eq!(in_mib(400, 0, 0, Some([300, 400])), 16);
        assert_eq!(in_mib(990, 0, 0, Some([300, 400])), 10);
        assert_eq!(for_jobs(LIMIT, 0, u64::MAX, 1, Some(Room { budget: u64::MAX, usage: 0 })), LIMIT);
    }
}
