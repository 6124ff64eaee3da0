use crate::Error;
use std::num::NonZeroU32;
use std::ops::Range;

/// What limits a chunk.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most bytes of one vector: the device's largest buffer, storage range or allocation.
    pub buffer: u64,
    /// The most bytes of all of a chunk's vectors together.
    pub memory: u64,
    /// What limits the dispatch that it is.
    pub dispatch: Dispatch,
}

/// What limits a dispatch.
#[derive(Clone, Copy, Debug)]
pub struct Dispatch {
    /// The most elements of a vector.
    pub elements: usize,
    /// The most work: such elements times their cost.
    pub work: u64,
    /// The most workgroups.
    pub workgroups: u64,
    /// Invocations per workgroup.
    pub workgroup_size: u32,
}

impl Dispatch {
    /// Whether it may have so many elements of a vector.
    fn allows(&self, elements: u64, cost: u64) -> bool {
        elements <= self.elements as u64
            && elements <= u64::from(u32::MAX).min(self.workgroups.saturating_mul(self.workgroup_size.into()))
            && elements.checked_mul(cost).is_some_and(|work| work <= self.work)
    }

    /// The most elements of a vector, if each takes an invocation of this cost.
    fn most(&self, cost: u64) -> u64 {
        let invocations = self.workgroups.saturating_mul(self.workgroup_size.into()).min(u32::MAX.into());
        (self.work / cost.max(1)).min(self.elements as u64).clamp(1, invocations.max(1))
    }
}

/// How much of a step there is: so many elements, of which so many at most are done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Elements, at least one.
    pub elements: u32,
    /// The most of a part, at least one.
    pub most: u32,
    /// A part begins at a multiple of so many.
    pub unit: NonZeroU32,
}

impl Default for Extent {
    /// What cannot be cut.
    fn default() -> Self {
        Self { elements: 1, most: 1, unit: NonZeroU32::MIN }
    }
}

impl Extent {
    /// That of a launch on elements of this weight: of as many as a dispatch should have, whole units, one of these at least.
    pub fn of_launch(elements: u32, weight: Weight, unit: NonZeroU32, dispatch: &Dispatch) -> Self {
        // Nearly always, and asked of every launch: without a division.
        if dispatch.allows(u64::from(elements) * u64::from(weight.elements), weight.cost) {
            return Self { elements, most: elements, unit };
        }
        let most = (dispatch.most(weight.cost) / u64::from(weight.elements.max(1))) as u32;
        Self { elements, most: (most / unit).max(1) * unit.get(), unit }
    }

    /// The parts that it is cut into, in order: as few as may be.
    pub fn parts(self) -> impl Iterator<Item = Range<u32>> {
        let Self { elements, most, .. } = self;
        let most = most.max(1);
        (0..elements).step_by(most as usize).map(move |start| start..elements.min(start.saturating_add(most)))
    }
}

/// What an element of a launch is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// So many elements of vectors.
    pub elements: u32,
    /// How long each of these takes; see [`Job::cost`](crate::Job::cost).
    pub cost: u64,
}

impl Weight {
    /// That of one element of this cost.
    pub const fn of(cost: u64) -> Self {
        Self { elements: 1, cost }
    }
}

/// The size a buffer for `bytes` bytes is made with, so that buffers can be reused for jobs of similar size: the next of
/// eight steps between powers of two, at most an eighth more than asked for; at least 4 KiB.
pub fn size_class(bytes: u64) -> u64 {
    const SMALLEST: u64 = 4096;
    if bytes <= SMALLEST {
        return SMALLEST;
    }
    let step = (bytes - 1).ilog2().saturating_sub(3);
    bytes.div_ceil(1 << step).saturating_mul(1 << step)
}

/// The size a buffer for `bytes` bytes is made with where none may have more than `largest`.
pub fn buffer_size(bytes: u64, largest: u64) -> u64 {
    size_class(bytes).min(largest).max(bytes)
}

/// How many elements a chunk holds, for vectors of `widths` bytes per element.
///
/// # Errors
/// [`Error::OutOfMemory`] if not even one element fits.
pub fn elements_per_chunk(elements: usize, widths: &[usize], cost: u64, bounds: &Bounds) -> Result<usize, Error> {
    let footprint = |count: u64| widths.iter().filter(|&&w| w > 0).map(|&w| size_class(w as u64 * count)).sum::<u64>();
    let largest = |count: u64| widths.iter().map(|&w| size_class(w as u64 * count)).max().unwrap_or(0);
    let mut count = (elements as u64).min(bounds.dispatch.most(cost)).max(1);
    // Size classes are at most an eighth, or 4 KiB, above the size: a few rounds suffice.
    while footprint(count) > bounds.memory || largest(count) > bounds.buffer {
        if count == 1 {
            return Err(Error::OutOfMemory {
                during: "planning chunks",
                needed: footprint(1),
                available: bounds.memory.min(bounds.buffer),
            });
        }
        count -= count.div_ceil(8);
    }
    // Whole workgroups, where there are several.
    let size = u64::from(bounds.dispatch.workgroup_size);
    if count < elements as u64 && count > size { Ok((count - count % size) as usize) } else { Ok(count as usize) }
}

/// The ranges of elements of a vector's chunks, of at most `chunk` elements. Where several are `overlapped`, the first is half as
/// long as the others, so that the device has something to do soon.
pub fn ranges(elements: usize, chunk: usize, overlapped: bool) -> impl Iterator<Item = Range<usize>> {
    let first = if overlapped && elements > chunk { chunk.div_ceil(2) } else { chunk };
    let rest = (first..elements).step_by(chunk.max(1)).map(move |start| start..elements.min(start + chunk));
    std::iter::once(0..first.min(elements)).chain(rest).filter(|range| !range.is_empty())
}

/// How `count` workgroups are spread over two dimensions that allow `limits` each: the shader finds its index as
/// y * width + x, and skips what lies past the end.
pub fn workgroups(count: u32, limits: [u32; 2]) -> [u32; 2] {
    let rows = count.div_ceil(limits[0].max(1)).max(1);
    [count.div_ceil(rows), rows]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bounds() -> Bounds {
        Bounds { buffer: 1 << 27, memory: 1 << 30, dispatch: dispatch() }
    }

    fn dispatch() -> Dispatch {
        Dispatch { elements: usize::MAX, work: u64::MAX, workgroups: 65535, workgroup_size: 64 }
    }

    #[test]
    fn a_job_within_all_limits_is_one_chunk() {
        assert_eq!(elements_per_chunk(1000, &[48, 48, 0, 48], 1, &bounds()).unwrap(), 1000);
        assert_eq!(elements_per_chunk(1, &[48], 1, &bounds()).unwrap(), 1);
    }

    #[test]
    fn nothing_fits_is_an_error_that_says_how_much_was_needed() {
        let error = elements_per_chunk(10, &[48, 48], 1, &Bounds { memory: 4096, ..bounds() }).unwrap_err();
        assert!(matches!(error, Error::OutOfMemory { needed: 8192, available: 4096, .. }));
    }

    #[test]
    fn a_heavy_element_still_gets_a_chunk() {
        let heavy = Bounds { dispatch: Dispatch { work: 1 << 30, ..dispatch() }, ..bounds() };
        assert_eq!(elements_per_chunk(10, &[48], 1 << 40, &heavy).unwrap(), 1);
    }

    proptest! {
        #[test]
        fn chunks_keep_every_limit(elements in 1usize..1 << 28, width in 1usize..20, slots in 1usize..5, cost in 1u64..1000,
                                   buffer in 4096u64..1 << 30, memory in 16384u64..1 << 32, size in 1u32..1024) {
            let widths = vec![4 * width; slots];
            let bounds = Bounds { buffer, memory, dispatch: Dispatch { work: 1 << 30, workgroup_size: size, ..dispatch() } };
            let count = elements_per_chunk(elements, &widths, cost, &bounds).unwrap();
            prop_assert!(count >= 1 && count <= elements);
            let bytes = size_class((4 * width * count) as u64);
            prop_assert!(bytes <= buffer && bytes * slots as u64 <= memory);
            prop_assert!(count as u64 * cost <= 1 << 30);
            prop_assert!((count as u64).div_ceil(size.into()) <= 65535);
        }

        #[test]
        fn launches_keep_every_limit(elements in 1u32..1000, cost in 0u64..1000, unit in 1u32..300, limit in 1usize..100_000) {
            let (weight, unit) = (Weight { elements, cost }, NonZeroU32::new(unit).unwrap());
            let limits = Dispatch { elements: limit, work: 1 << 16, ..dispatch() };
            let most = Extent::of_launch(u32::MAX, weight, unit, &limits).most;
            prop_assert!(most.is_multiple_of(unit.get()));
            let worth = |count: u32| u64::from(count) * u64::from(elements);
            let parts = |count: u32| Extent::of_launch(count, weight, unit, &limits).parts().count();
            // What one part may have is one.
            prop_assert_eq!((parts(most), parts(most + unit.get())), (1, 2));
            // No part is shorter than a unit, whatever that is worth; and none could have a unit more.
            prop_assert!(most == unit.get() || worth(most) * cost <= 1 << 16 && worth(most) <= limit as u64);
            let more = worth(most + unit.get());
            prop_assert!(more * cost.max(1) > 1 << 16 || more > limit as u64);
            // What is cut into chunks is not cut again.
            let chunk = elements_per_chunk(100_000, &[], cost, &Bounds { dispatch: limits, ..bounds() }).unwrap();
            let again = Extent::of_launch(chunk as u32, Weight::of(cost), NonZeroU32::MIN, &limits);
            prop_assert_eq!(again.parts().count(), 1);
        }

        #[test]
        fn parts_are_all_of_it(elements in 1u32..10_000, most in 1u32..3000) {
            let parts: Vec<Range<u32>> = Extent { elements, most, ..Extent::default() }.parts().collect();
            prop_assert_eq!(parts.len() as u32, elements.div_ceil(most));
            prop_assert!(parts.iter().flat_map(Clone::clone).eq(0..elements));
        }

        #[test]
        fn ranges_cover_every_element_once(elements in 0usize..10_000, chunk in 1usize..3000, overlapped: bool) {
            let all: Vec<Range<usize>> = ranges(elements, chunk, overlapped).collect();
            let ends = all.iter().map(|range| range.end);
            prop_assert!(all.iter().map(|range| range.start).eq(std::iter::once(0).chain(ends).take(all.len())));
            prop_assert!(all.iter().all(|range| !range.is_empty() && range.len() <= chunk));
            prop_assert_eq!(all.last().map_or(0, |range| range.end), elements);
            prop_assert!(elements > chunk || all.len() <= 1);
        }

        #[test]
        fn size_classes_are_near_and_monotone(bytes in 1u64..1 << 40) {
            let class = size_class(bytes);
            prop_assert!(class >= bytes && (class <= 4096 || class <= bytes + bytes / 8 + 1));
            prop_assert!(size_class(bytes + 1) >= class);
            prop_assert_eq!(size_class(class), class);
            // What a device allows is made, and nothing above; what is made is found again.
            let largest = (bytes + bytes / 20).next_multiple_of(16);
            let size = buffer_size(bytes, largest);
            prop_assert!(bytes <= size && size <= largest && size <= class);
            prop_assert_eq!(buffer_size(size, largest), size);
        }

        #[test]
        fn workgroups_cover_the_launch(count in 1u32..u32::MAX / 2, x in 1u32..100_000) {
            let [width, height] = workgroups(count, [x.max(65535), 65535]);
            prop_assert!(u64::from(width) * u64::from(height) >= count.into());
            prop_assert!(width <= x.max(65535) && height <= 65535);
            // No whole row is spare.
            prop_assert!(u64::from(width) * u64::from(height - 1) < count.into());
        }
    }
}
