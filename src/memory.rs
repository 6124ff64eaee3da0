//! The memory of vectors and masks: the device's, or the host's where the CPU computes; and copies in the host's of the device's.

use crate::step::Item;
use crate::{Backend, Error};
use cpu_reference::{LimbField, try_zeroed_vec};
use gpu_executor::{Batch, Region};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

/// Where the bytes of a vector or a mask lie. Clones and slices share them.
#[derive(Clone)]
pub(crate) enum Memory {
    Device(Region),
    Host(Host),
    /// No bytes need no memory.
    Nowhere,
}

/// A range of bytes in host memory.
#[derive(Clone)]
pub(crate) struct Host {
    /// Limbs, so that elements can be seen as such. Who reads them holds no lock, but what they were when he asked: whoever writes
    /// meanwhile writes to a copy.
    limbs: Arc<Mutex<Arc<Vec<u64>>>>,
    bytes: Range<usize>,
}

/// A range of bytes of a buffer, which is told apart from all others by a number.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) buffer: usize,
    pub(crate) bytes: Range<u64>,
}

impl Place {
    pub(crate) fn overlaps(&self, other: &Place) -> bool {
        self.buffer == other.buffer && self.bytes.start < other.bytes.end && other.bytes.start < self.bytes.end
    }
}

impl Memory {
    /// Memory of `bytes` bytes where the backend computes, holding nothing in particular.
    pub(crate) fn new(backend: &Backend, bytes: u64) -> Result<Self, Error> {
        match backend.vulkan() {
            _ if bytes == 0 => Ok(Memory::Nowhere),
            Some(vulkan) => Ok(Memory::Device(vulkan.device().allocate(bytes)?)),
            None => Ok(Memory::Host(Host::new(bytes)?)),
        }
    }

    /// Memory for `length` items: of more than can be counted, in 32 bits as positions are, there is none either.
    pub(crate) fn of(backend: &Backend, length: usize, item: Item) -> Result<Self, Error> {
        let bytes = (length as u64).saturating_mul(item.bytes());
        if u32::try_from(length).is_err() {
            return Err(no_memory(bytes));
        }
        Self::new(backend, bytes)
    }

    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Memory::Device(region) => region.bytes(),
            Memory::Host(host) => host.bytes.len() as u64,
            Memory::Nowhere => 0,
        }
    }

    /// A part of the memory. The range must be inside and its ends multiples of 4.
    pub(crate) fn slice(&self, range: Range<u64>) -> Memory {
        match self {
            _ if range.is_empty() => Memory::Nowhere,
            Memory::Device(region) => region.slice(range).map_or(Memory::Nowhere, Memory::Device),
            Memory::Host(host) => Memory::Host(host.slice(range.start as usize..range.end as usize)),
            Memory::Nowhere => Memory::Nowhere,
        }
    }

    pub(crate) fn region(&self) -> Option<&Region> {
        if let Memory::Device(region) = self { Some(region) } else { None }
    }

    pub(crate) fn into_region(self) -> Option<Region> {
        if let Memory::Device(region) = self { Some(region) } else { None }
    }

    /// Which bytes of which buffer; `None` if there are none.
    pub(crate) fn place(&self) -> Option<Place> {
        match self {
            Memory::Device(region) => Some(Place { buffer: region.memory(), bytes: region.range() }),
            Memory::Host(Host { limbs, bytes }) => {
                let bytes = bytes.start as u64..bytes.end as u64;
                Some(Place { buffer: Arc::as_ptr(limbs) as usize, bytes })
            }
            Memory::Nowhere => None,
        }
    }

    /// Copies what is there, after everything submitted before, to a slice of the same length.
    pub(crate) fn download(&self, backend: &Backend, target: &mut [u8]) -> Result<(), Error> {
        match (self, backend.vulkan()) {
            (Memory::Device(region), Some(vulkan)) => {
                let mut batch = Batch::default();
                batch.download(region);
                Ok(vulkan.device().submit(&batch)?.finish(&mut [target])?)
            }
            (Memory::Host(host), _) => {
                host.load_into(target);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The host has no memory of so many bytes. How many it has, nobody says.
pub(crate) fn no_memory(bytes: u64) -> Error {
    gpu_executor::Error::OutOfMemory { during: "one allocation", needed: bytes, available: 0 }.into()
}

/// Zeros, or the error that there is no memory for them.
pub(crate) fn zeroed<T: bytemuck::Zeroable>(length: usize) -> Result<Vec<T>, Error> {
    let none = |()| no_memory((length as u64).saturating_mul(size_of::<T>() as u64));
    bytemuck::allocation::try_zeroed_vec(length).map_err(none)
}

/// The same of elements.
pub(crate) fn zeroed_elements<F: LimbField>(length: usize) -> Result<Vec<F>, Error> {
    try_zeroed_vec(length).ok_or_else(|| no_memory((length as u64).saturating_mul(size_of::<F>() as u64)))
}

impl Host {
    /// All zero, without touching it.
    fn new(bytes: u64) -> Result<Self, Error> {
        let length = usize::try_from(bytes).unwrap_or(usize::MAX);
        let limbs = zeroed(length.div_ceil(size_of::<u64>()))?;
        Ok(Self { limbs: Arc::new(Mutex::new(Arc::new(limbs))), bytes: 0..length })
    }

    fn slice(&self, range: Range<usize>) -> Self {
        Self { limbs: self.limbs.clone(), bytes: self.bytes.start + range.start..self.bytes.start + range.end }
    }

    pub(crate) fn load_into(&self, target: &mut [u8]) {
        target.copy_from_slice(self.held().bytes());
    }

    /// What is there now.
    pub(crate) fn held(&self) -> Held {
        Held { limbs: self.limbs.lock().clone(), bytes: self.bytes.clone() }
    }

    pub(crate) fn store(&self, bytes: &[u8]) {
        self.write(|here| here.copy_from_slice(bytes));
    }

    pub(crate) fn clear(&self) {
        self.write(|here| here.fill(0));
    }

    fn write(&self, write: impl FnOnce(&mut [u8])) {
        let mut limbs = self.limbs.lock();
        write(&mut bytemuck::cast_slice_mut(Arc::make_mut(&mut *limbs).as_mut_slice())[self.bytes.clone()]);
    }

    /// The first byte at which other bytes, as many as there are here, differ from these.
    pub(crate) fn first_difference(&self, other: &[u8]) -> Option<usize> {
        let held = self.held();
        let bytes = held.bytes();
        if bytes == other { None } else { bytes.iter().zip(other).position(|(a, b)| a != b) }
    }
}

/// What host memory held at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    limbs: Arc<Vec<u64>>,
    bytes: Range<usize>,
}

impl Held {
    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.limbs)[self.bytes.clone()]
    }
}

/// Where the CPU finds the memory of a recording: memory in the host is itself, memory on the device has a copy here.
#[derive(Default)]
pub(crate) struct Mirror {
    /// By buffer: the copy, and which byte of the buffer its first one is.
    copies: HashMap<usize, (u64, Host)>,
}

impl Mirror {
    /// Copies, all zero so far, of the buffers that have these places, from the first byte that is in one to the last.
    pub(crate) fn of(places: impl Iterator<Item = Place>) -> Result<Self, Error> {
        let copy = |(buffer, hull): (usize, Range<u64>)| Ok((buffer, (hull.start, Host::new(hull.end - hull.start)?)));
        Ok(Self { copies: Self::hulls(places).into_iter().map(copy).collect::<Result<_, Error>>()? })
    }

    /// Bytes of such copies.
    pub(crate) fn required(places: impl Iterator<Item = Place>) -> u64 {
        Self::hulls(places).into_values().map(|hull| hull.end - hull.start).sum()
    }

    /// By buffer, what all its places lie in, from a whole limb on.
    fn hulls(places: impl Iterator<Item = Place>) -> HashMap<usize, Range<u64>> {
        let mut hulls: HashMap<usize, Range<u64>> = HashMap::new();
        for Place { buffer, bytes } in places {
            let start = bytes.start & !7;
            let hull = hulls.entry(buffer).or_insert(start..bytes.end);
            *hull = hull.start.min(start)..hull.end.max(bytes.end);
        }
        hulls
    }

    /// The memory as the CPU sees it; `None` if it has no bytes, or no copy.
    pub(crate) fn host(&self, memory: &Memory) -> Option<Host> {
        match memory {
            Memory::Host(host) => Some(host.clone()),
            Memory::Device(region) => {
                let (first, copy) = self.copies.get(&region.memory())?;
                let range = region.range();
                Some(copy.slice((range.start - first) as usize..(range.end - first) as usize))
            }
            Memory::Nowhere => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceError;

    #[test]
    fn copies_that_no_memory_has_are_refused() {
        let of = |bytes| Mirror::of([Place { buffer: 1, bytes: 0..8 }, Place { buffer: 1, bytes }].into_iter());
        let refused = of(1 << 61..1 << 62).err();
        assert!(matches!(refused, Some(Error::Device(DeviceError::OutOfMemory { needed, .. })) if needed == 1 << 62));
        assert!(of(64..68).is_ok_and(|mirror| mirror.copies[&1].1.bytes == (0..68)));
    }
}
