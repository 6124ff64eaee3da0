use crate::Error;
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::num::NonZeroU32;

/// Words of parameters that a launch of a kernel of four slots can carry beside them: 23.
pub const MAX_PARAMS: usize = max_params(SLOTS);

/// Slots that the kernel of a job has.
pub(crate) const SLOTS: usize = 4;

/// Slots that the kernel of a [`Batch`](crate::Batch) can have at most, if it reaches them by [`Reach::Addresses`]: 12. By
/// descriptors it has 4.
pub const MAX_SLOTS: usize = 12;

/// A compiled kernel and how to specialize it.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// For messages and debuggers.
    pub name: &'static str,
    /// The SPIR-V, little-endian words; entry point `main`.
    pub spirv: Cow<'static, [u8]>,
    /// How the kernel reaches its slots.
    pub reach: Reach,
    /// What the kernel does with each slot, four or up to [`MAX_SLOTS`]; jobs and batches that give it anything else are refused. Jobs
    /// take kernels of four slots that are used per element.
    pub slots: Vec<SlotUse>,
    /// How the elements of a launch are shared out among workgroups.
    pub shape: Shape,
    /// How a launch is cut, where the device should not be kept as long as all of it would. Jobs take what is cut
    /// [anywhere](Parts::ANYWHERE).
    pub parts: Parts,
    /// Invocations per workgroup; `None` leaves it to the device.
    pub workgroup_size: Option<u32>,
    /// Specialization constants besides constant 0, which is the workgroup size: (id, value).
    pub constants: Vec<(u32, u32)>,
}

/// What a kernel does with a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SlotUse {
    /// Nothing.
    #[default]
    None,
    /// Reads this many bytes per element.
    Reads(usize),
    /// Writes this many bytes per element.
    Writes(usize),
    /// Writes this many bytes per workgroup that has elements, of [`Shape::Groups`].
    WritesPerGroup(usize),
    /// Reads this many bytes per so many elements.
    ReadsPer(usize, NonZeroU32),
    /// Reads anywhere in the slot, however long it is: items of this many bytes.
    ReadsAnywhere(usize),
    /// Writes anywhere in the slot, however long it is: items of this many bytes.
    WritesAnywhere(usize),
}

/// How the elements of a launch are shared out among workgroups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Shape {
    /// One invocation per element.
    #[default]
    Invocations,
    /// One workgroup per this many elements; the last has what is left.
    Groups(NonZeroU32),
}

/// How a launch is cut into parts. Each is a launch of its own on some of the elements, with those parts of the slots that belong to them;
/// what is read or written anywhere it has whole. Parts run side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parts {
    /// A part begins at a multiple of so many elements.
    pub unit: NonZeroU32,
    /// The parameters that say where.
    pub starts: &'static [Start],
}

/// A parameter that says where a launch begins: a part's is that of the whole launch, and as many more as lie before the part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// The parameter's index.
    pub param: usize,
    /// How many elements of the launch are one more.
    pub per: NonZeroU32,
    /// The parameter that it is smaller than, modulo which it is counted, if there is one.
    pub modulo: Option<usize>,
}

impl Start {
    /// A parameter that is the number of the launch's first element.
    pub const fn at(param: usize) -> Self {
        Self { param, per: NonZeroU32::MIN, modulo: None }
    }
}

impl Parts {
    /// What may be cut anywhere, and does not need to know where.
    pub const ANYWHERE: Self = Self { unit: NonZeroU32::MIN, starts: &[] };

    /// Why these cannot be the parts of a kernel with such slots, if they cannot.
    pub(crate) fn refused(&self, slots: &[SlotUse], shape: Shape) -> Option<&'static str> {
        let whole = |per: NonZeroU32| self.unit.get().is_multiple_of(per.get());
        let most = max_params(slots.len());
        let begins = |param: usize| self.starts.iter().any(|start| start.param == param);
        let fits = |start: &Start| {
            let modulo = start.modulo.is_none_or(|modulo| modulo < most && !begins(modulo));
            modulo && start.param < most && whole(start.per)
        };
        let slot = |slot: &SlotUse| match (*slot, shape) {
            (SlotUse::ReadsPer(width, per), _) | (SlotUse::WritesPerGroup(width), Shape::Groups(per)) => {
                width.is_multiple_of(4) && whole(per)
            }
            (SlotUse::WritesPerGroup(_), Shape::Invocations) => false,
            (SlotUse::Reads(width) | SlotUse::Writes(width), _) => width.is_multiple_of(4),
            _ => true,
        };
        if !self.starts.iter().all(fits) {
            Some("a parameter that says where a part begins is none, or cannot say it")
        } else if !slots.iter().all(slot) {
            Some("parts begin within a word, or within what a slot has for several elements")
        } else {
            None
        }
    }

    /// Changes the parameters of a launch to those of a part that begins at an element.
    pub(crate) fn begin(&self, element: u32, params: &mut [u32]) {
        for &Start { param, per, modulo } in self.starts {
            let modulo = modulo.and_then(|modulo| params.get(modulo).copied()).map_or(1 << 32, u64::from);
            if let Some(param) = params.get_mut(param) {
                *param = (u64::from(*param) + u64::from(element / per)).checked_rem(modulo).unwrap_or(0) as u32;
            }
        }
    }
}

impl Shape {
    /// The workgroups that have elements.
    pub(crate) fn workgroups(self, elements: u32, workgroup_size: u32) -> u32 {
        match self {
            Shape::Invocations => elements.div_ceil(workgroup_size),
            Shape::Groups(group) => elements.div_ceil(group.get()),
        }
    }
}

impl SlotUse {
    /// Whether a launch on `elements` elements in `workgroups` workgroups may be given `bytes` bytes in this slot, to be written or
    /// only read.
    pub(crate) fn suits(self, elements: u32, workgroups: u32, (bytes, write): (u64, bool)) -> bool {
        let of = |count: u32, width: usize| u64::from(count).saturating_mul(width as u64) == bytes;
        match self {
            SlotUse::None => false,
            SlotUse::Reads(width) => of(elements, width) && !write,
            SlotUse::Writes(width) => of(elements, width) && write,
            SlotUse::WritesPerGroup(width) => of(workgroups, width) && write,
            SlotUse::ReadsPer(width, per) => of(elements.div_ceil(per.get()), width) && !write,
            SlotUse::ReadsAnywhere(width) => bytes.is_multiple_of(width as u64) && !write,
            SlotUse::WritesAnywhere(width) => bytes.is_multiple_of(width as u64) && write,
        }
    }

    /// How many bytes of the slot lie before what a part has of it that begins at an element.
    pub(crate) fn bytes_before(self, element: u32, shape: Shape) -> u64 {
        let (count, width) = match (self, shape) {
            (SlotUse::Reads(width) | SlotUse::Writes(width), _) => (element, width),
            (SlotUse::ReadsPer(width, per), _) | (SlotUse::WritesPerGroup(width), Shape::Groups(per)) => {
                (element / per, width)
            }
            _ => return 0,
        };
        u64::from(count) * width as u64
    }

    /// Whether element i of the slot is read for invocation i only, and written by its workgroup once that has what it reads.
    pub(crate) fn is_element_wise(self) -> bool {
        matches!(self, SlotUse::Reads(_) | SlotUse::Writes(_))
    }

    /// What the addresses of a slot are multiples of: kernels read and write up to 16 bytes at a time.
    pub(crate) fn alignment(self) -> u64 {
        match self {
            SlotUse::None => 1,
            SlotUse::Reads(width)
            | SlotUse::Writes(width)
            | SlotUse::WritesPerGroup(width)
            | SlotUse::ReadsPer(width, _)
            | SlotUse::ReadsAnywhere(width)
            | SlotUse::WritesAnywhere(width) => 1 << width.trailing_zeros().min(4),
        }
    }
}

/// How a kernel reaches its slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// By buffer device address, in the first bytes of the push constants, eight for each slot.
    Addresses,
    /// By storage buffer, binding 0 of descriptor set k for slot k.
    Descriptors,
}

/// One slot of a job: a vector in host memory.
#[derive(Debug, Default)]
pub enum Slot<'a> {
    /// The kernel does not use this slot.
    #[default]
    Unused,
    /// The kernel reads this vector.
    Read(&'a [u8]),
    /// The kernel writes this vector, every byte of it.
    Write(&'a mut [u8]),
}

/// A program applied to vectors of `elements` elements.
#[derive(Debug)]
pub struct Job<'a> {
    /// Elements per vector. Each slot must have the kernel's bytes per element.
    pub elements: usize,
    /// The vectors.
    pub slots: [Slot<'a>; SLOTS],
    /// Parameters, the same for all elements; at most [`MAX_PARAMS`] words.
    pub params: &'a [u32],
    /// How long an element takes, in multiplications or about: expensive jobs run in smaller chunks, so that no single
    /// dispatch keeps a display or a watchdog waiting.
    pub cost: u64,
    /// Whether the vectors are copied to device memory and back; `None` leaves it to the device's
    /// [`MemoryMode`](crate::MemoryMode).
    pub staged: Option<bool>,
    /// The most elements in a chunk; `None` leaves it to the device. Its limits hold all the same.
    pub chunk_elements: Option<usize>,
    /// What the CPU computes of it meanwhile; `None` leaves all of it to the device. A caller that is a rayon worker leaves it to the
    /// device in any case: its own pool may wait for it.
    pub share: Option<Share>,
}

/// What the CPU computes of a job while the device is at work on the rest (see [`Watch::computes`](crate::Watch::computes)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// So many elements at the end, or all but the first; and of those before them what the device has not begun when these are done. Of a job
    /// that nothing is copied for, a sixty-fourth at the end at most.
    pub elements: usize,
    /// So many at a time, on one thread.
    pub piece: usize,
}

impl Slot<'_> {
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Slot::Unused => 0,
            Slot::Read(bytes) => bytes.len(),
            Slot::Write(bytes) => bytes.len(),
        }
    }
}

impl Job<'_> {
    /// Bytes per element of each slot; 0 for unused ones. Refuses a job whose slots are not those of the kernel.
    pub(crate) fn widths(&self, kernel: &'static str, slots: &[SlotUse]) -> Result<[usize; SLOTS], Error> {
        let malformed = |reason: String| Error::MalformedJob { kernel, reason };
        if slots.len() != SLOTS {
            return Err(malformed(format!("{} slots, a job has {SLOTS}", slots.len())));
        }
        if self.params.len() > MAX_PARAMS {
            return Err(malformed(format!("{} parameters, at most {MAX_PARAMS}", self.params.len())));
        }
        let mut widths = [0; SLOTS];
        for (index, (slot, needed)) in self.slots.iter().zip(slots).enumerate() {
            widths[index] = match (slot, needed) {
                (Slot::Unused, SlotUse::None) => 0,
                (Slot::Read(_), SlotUse::Reads(width)) | (Slot::Write(_), SlotUse::Writes(width)) => *width,
                _ => return Err(malformed(format!("slot {index} is not used as the kernel uses it"))),
            };
            if self.elements.checked_mul(widths[index]) != Some(slot.bytes()) {
                let bytes = slot.bytes();
                return Err(malformed(format!("slot {index} has {bytes} bytes for {} elements", self.elements)));
            }
        }
        Ok(widths)
    }
}

impl Kernel {
    /// What the pipeline of this kernel is found by: SHA-256 over the SPIR-V, the reach and the specialization data.
    pub(crate) fn key(&self, workgroup_size: u32) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update((self.spirv.len() as u64).to_le_bytes());
        hash.update(&self.spirv);
        hash.update([self.reach as u8]);
        for (id, value) in self.specialization(workgroup_size) {
            hash.update(id.to_le_bytes());
            hash.update(value.to_le_bytes());
        }
        hash.finalize().into()
    }

    pub(crate) fn specialization(&self, workgroup_size: u32) -> impl Iterator<Item = (u32, u32)> + '_ {
        std::iter::once((0, workgroup_size)).chain(self.constants.iter().copied())
    }
}

/// Bytes of push constants that every Vulkan device offers.
pub(crate) const PUSH_BYTES: usize = 128;

/// The most words of parameters of a kernel with so many slots.
pub(crate) const fn max_params(slots: usize) -> usize {
    (PUSH_BYTES - 8 * slots - 4) / 4
}

/// Words of push constants.
pub(crate) const PUSH_WORDS: usize = PUSH_BYTES / size_of::<u32>();

/// The push constants of a launch, as `io.glsl` of the kernels declares them: an address for each slot, its lower word first, the number of
/// elements, the parameters; then zeros. And where the zeros begin.
pub(crate) fn push_constants(addresses: &[u64], count: u32, params: &[u32]) -> ([u32; PUSH_WORDS], usize) {
    let mut words = [0; PUSH_WORDS];
    for (to, &address) in words.chunks_exact_mut(2).zip(addresses) {
        to.copy_from_slice(&[address as u32, (address >> 32) as u32]);
    }
    let begin = (2 * addresses.len()).min(PUSH_WORDS);
    words[begin..].iter_mut().zip(std::iter::once(&count).chain(params)).for_each(|(to, word)| *to = *word);
    (words, (begin + 1 + params.len()).min(PUSH_WORDS))
}

#[cfg(test)]
mod tests {
    use super::*;

    const READS_A: [SlotUse; SLOTS] = [SlotUse::Reads(4), SlotUse::None, SlotUse::None, SlotUse::None];

    fn kernel() -> Kernel {
        Kernel {
            name: "k",
            spirv: Cow::Borrowed(&[1, 2, 3, 4]),
            reach: Reach::Addresses,
            slots: READS_A.to_vec(),
            shape: Shape::Invocations,
            parts: Parts::ANYWHERE,
            workgroup_size: None,
            constants: vec![(1, 0)],
        }
    }

    #[test]
    fn keys_tell_apart_whatever_changes_the_pipeline() {
        let key = kernel().key(64);
        assert_eq!(key, kernel().key(64));
        assert_ne!(key, kernel().key(128));
        assert_ne!(key, Kernel { spirv: Cow::Owned(vec![1, 2, 3, 5]), ..kernel() }.key(64));
        assert_ne!(key, Kernel { reach: Reach::Descriptors, ..kernel() }.key(64));
        assert_ne!(key, Kernel { constants: vec![(1, 1)], ..kernel() }.key(64));
        assert_ne!(key, Kernel { constants: vec![(2, 0)], ..kernel() }.key(64));
    }

    #[test]
    fn extents_are_what_a_launch_touches() {
        let group = Shape::Groups(NonZeroU32::new(10).unwrap());
        for (elements, groups) in [(1, 1), (10, 1), (11, 2), (20, 2), (u32::MAX, u32::MAX / 10 + 1)] {
            assert_eq!(group.workgroups(elements, 64), groups);
            let (all, few) = (48 * u64::from(elements), 48 * u64::from(groups));
            assert!(SlotUse::Reads(48).suits(elements, groups, (all, false)));
            assert!(!SlotUse::Reads(48).suits(elements, groups, (all, true)));
            assert!(!SlotUse::Reads(48).suits(elements, groups, (all + 48, false)));
            assert!(SlotUse::WritesPerGroup(48).suits(elements, groups, (few, true)));
            assert!(SlotUse::ReadsAnywhere(48).suits(elements, groups, (480, false)));
            assert!(!SlotUse::WritesAnywhere(48).suits(elements, groups, (481, true)));
        }
        assert_eq!(Shape::Invocations.workgroups(65, 64), 2);
        assert!(!SlotUse::None.suits(7, 1, (0, false)));
        let alignments = [4, 32, 48, 8, 1].map(|width| SlotUse::Reads(width).alignment());
        assert_eq!(alignments, [4, 16, 16, 8, 1]);
    }

    #[test]
    fn parts_have_what_belongs_to_them() {
        let n = |n| NonZeroU32::new(n).unwrap();
        let group = Shape::Groups(n(10));
        let of = |slot: SlotUse| slot.bytes_before(40, group);
        let slots = [
            SlotUse::Reads(48),
            SlotUse::WritesPerGroup(4),
            SlotUse::ReadsPer(8, n(5)),
            SlotUse::ReadsAnywhere(16),
            SlotUse::None,
        ];
        assert_eq!(slots.map(of), [40 * 48, 4 * 4, 8 * 8, 0, 0]);
        assert!(slots[2].suits(41, 5, (9 * 8, false)) && !slots[2].suits(40, 4, (9 * 8, false)));
        let start = |param, per, modulo| Start { param, per: n(per), modulo };
        const STARTS: &[Start] = &[Start::at(0), Start { modulo: Some(1), ..Start::at(2) }];
        let parts = Parts { unit: n(10), starts: STARTS };
        let mut params = [7, 100, 90];
        parts.begin(0, &mut params);
        assert_eq!(params, [7, 100, 90]);
        parts.begin(30, &mut params);
        assert_eq!(params, [37, 100, 20]);
        // What wraps around, and a modulus of nothing.
        let mut params = [u32::MAX, 0, 1];
        parts.begin(30, &mut params);
        assert_eq!(params, [29, 0, 0]);

        assert_eq!(parts.refused(&slots[..4], group), None);
        assert!(Parts::ANYWHERE.refused(&slots[..4], group).is_some());
        assert!(parts.refused(&slots[..2], Shape::Invocations).is_some());
        assert!(parts.refused(&[SlotUse::Reads(2)], group).is_some());
        for wrong in [start(0, 3, None), start(23, 1, None), start(0, 1, Some(23)), start(1, 1, Some(1))] {
            let parts = Parts { unit: n(10), starts: Box::leak(Box::new([wrong])) };
            assert!(parts.refused(&slots[..4], group).is_some(), "{wrong:?}");
        }
    }

    #[test]
    fn push_constants_lie_where_the_kernels_look() {
        let (words, zeros) = push_constants(&[1, 2, 3, 4 | 9 << 32], 5, &[6, 7]);
        assert_eq!(words[..zeros], [1, 0, 2, 0, 3, 0, 4, 9, 5, 6, 7]);
        assert_eq!(words[zeros..], [0; 21]);
        let (words, zeros) = push_constants(&[1; MAX_SLOTS], 5, &[6; 7]);
        assert_eq!((max_params(MAX_SLOTS), max_params(SLOTS)), (7, 23));
        assert_eq!((words[31], zeros), (6, PUSH_WORDS));
    }

    #[test]
    fn jobs_that_do_not_fit_are_refused() {
        let job = |elements, read: &'static [u8]| Job {
            elements,
            slots: [Slot::Read(read), Slot::Unused, Slot::Unused, Slot::Unused],
            params: &[],
            cost: 1,
            staged: None,
            chunk_elements: None,
            share: None,
        };
        let widths = |job: Job| job.widths("k", &READS_A);
        assert_eq!(widths(job(2, &[0; 8])).unwrap(), [4, 0, 0, 0]);
        assert_eq!(widths(job(0, &[])).unwrap(), [4, 0, 0, 0]);
        assert!(widths(job(3, &[0; 8])).is_err());
        assert!(widths(job(usize::MAX, &[0; 8])).is_err());
        assert!(widths(job(0, &[0; 8])).is_err());
        assert!(widths(Job { params: &[0; 24], ..job(2, &[0; 8]) }).is_err());
        assert!(widths(Job { slots: Default::default(), ..job(2, &[0; 8]) }).is_err());
        let mut out = [0; 8];
        let extra = [Slot::Read(&[0; 8]), Slot::Unused, Slot::Unused, Slot::Write(&mut out)];
        assert!(widths(Job { slots: extra, ..job(2, &[0; 8]) }).is_err());
    }
}
