//! Prefix sums and products: everything that a sum or a product becomes on its way through a vector, or through segments of it, which
//! are equally long or begin where flags say.
//!
//! On a device in passes: the vector is cut into chunks; each invocation folds a chunk; those folds are scanned the same way;
//! each invocation passes its chunk again, from what precedes it. That is two operations per element and a bit, and three times
//! the vector's bytes through memory. A single pass, in which workgroups look back at what others have written, would take two
//! thirds of the memory's time, but needs workgroups that make progress while others wait for them, which Vulkan does not
//! promise; and products are bound by multiplying, not by memory.

use crate::ark::Element;
use crate::known_answers::edges;
use crate::mask::{FLAG, Mask};
use crate::memory::Memory;
use crate::passes::{Launch, Pass, Share};
use crate::step::Item;
use crate::task::{Lowering, Proof, Task, Trial, Values};
use crate::vector::Vector;
use crate::{Error, Field, Recording};
use ark_bls12_381::{Fq, Fr};
use cpu_reference::{LimbField, Recurrence, Walk, scan, scan_first_wrong};
use field_kernels::Kernel;
use gpu_executor::Region;
use smallvec::smallvec;
use std::borrow::Cow;
use std::sync::Arc;

/// What a scan carries along: the constants of scan.comp.
pub(crate) const PRODUCT: u32 = 1;
pub(crate) const HORNER: u32 = 2;
pub(crate) const GEOMETRIC: u32 = 3;
pub(crate) const SQUARES: u32 = 4;
pub(crate) const POWER: u32 = 5;

/// Flags of its last parameter.
pub(crate) const CARRIED: u32 = 1;
pub(crate) const STARTED: u32 = 2;
pub(crate) const EXCLUSIVE: u32 = 4;
pub(crate) const REVERSED: u32 = 8;
/// Where the bits of a digit are, of `POWER`.
pub(crate) const DIGIT_SHIFT: u32 = 4;

/// The kernel that folds by teams of so many invocations, or passes everything.
pub(crate) fn pass(operation: u32, scans: bool, team: usize) -> Pass {
    pass_from(operation, scans, team, Heads::Nowhere)
}

fn pass_from(operation: u32, scans: bool, team: usize, heads: Heads) -> Pass {
    // Squares are one invocation's.
    let tile = (scans && operation != SQUARES).then_some(TILE);
    let constants = smallvec![(3, operation), (4, scans.into()), (5, team as u32), (7, heads as u32)];
    Pass { kernel: Kernel::Scan, constants, tile }
}

/// Which prefixes of a vector are folded, or suffixes, and how.
///
/// ```
/// # use ark_bls12_381::Fr;
/// use bls12_field_gpu::Scan;
/// let backend = bls12_field_gpu::backend()?;
/// let vector = backend.upload(&[2u64, 3, 4, 5].map(Fr::from))?;
/// let mut recording = backend.record();
/// let all = recording.scan(Scan::product(), &vector)?;
/// let before = recording.scan(Scan::product().exclusive(), &vector)?;
/// let pairs = recording.scan(Scan::sum().segments(2), &vector)?;
/// recording.submit()?;
/// assert_eq!(all.download()?, [2u64, 6, 24, 120].map(Fr::from));
/// assert_eq!(before.download()?, [1u64, 2, 6, 24].map(Fr::from));
/// assert_eq!(pairs.download()?, [2u64, 5, 4, 9].map(Fr::from));
/// # Ok::<(), bls12_field_gpu::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    product: bool,
    exclusive: bool,
    reversed: bool,
    segment: Option<usize>,
}

impl Scan {
    /// Sums: out\[i\] = a\[0\] + .. + a\[i\].
    ///
    /// ```
    /// assert_ne!(bls12_field_gpu::Scan::sum(), bls12_field_gpu::Scan::product());
    /// ```
    pub const fn sum() -> Self {
        Self { product: false, exclusive: false, reversed: false, segment: None }
    }

    /// Products: out\[i\] = a\[0\] .. a\[i\].
    ///
    /// ```
    /// assert_ne!(bls12_field_gpu::Scan::product(), bls12_field_gpu::Scan::sum());
    /// ```
    pub const fn product() -> Self {
        Self { product: true, exclusive: false, reversed: false, segment: None }
    }

    /// Without the element at the position itself: where a scan starts, the result is 0 or 1.
    ///
    /// ```
    /// let scan = bls12_field_gpu::Scan::product();
    /// assert_ne!(scan.exclusive(), scan);
    /// ```
    #[must_use]
    pub const fn exclusive(self) -> Self {
        Self { exclusive: true, ..self }
    }

    /// From the last element of the vector, or of each segment, to the first: of sums, out\[i\] = a\[i\] + .. + a\[n - 1\].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// use bls12_field_gpu::Scan;
    /// let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[2u64, 3, 4, 5].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let suffixes = recording.scan(Scan::sum().reversed(), &vector)?;
    /// let heads = backend.upload_mask(&[true, false, true, false])?;
    /// let of_pairs = recording.scan_from_heads(Scan::sum().reversed(), &vector, &heads)?;
    /// recording.submit()?;
    /// assert_eq!(suffixes.download()?, [14u64, 12, 9, 5].map(Fr::from));
    /// assert_eq!(of_pairs.download()?, [5u64, 3, 9, 5].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { reversed: true, ..self }
    }

    /// From the start again after every so many elements. The vector's length must be a multiple.
    ///
    /// ```
    /// let scan = bls12_field_gpu::Scan::sum();
    /// assert_ne!(scan.segments(2), scan);
    /// ```
    #[must_use]
    pub const fn segments(self, length: usize) -> Self {
        Self { segment: Some(length), ..self }
    }
}

/// What is carried along a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carry {
    Sum,
    Product,
    /// x m + e, where m is the element of the second input.
    Horner,
}

/// A scan of segments.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scanned {
    pub(crate) field: Field,
    pub(crate) carry: Carry,
    pub(crate) walk: Walk,
    /// Whether the flags of the second input are of the first elements of segments, too. Not of linear recurrences.
    pub(crate) heads: bool,
}

/// The specialization constant that [`Pass::tile`] is.
const TILE: u32 = 6;

/// Where a kernel is told that x starts anew: the constants of scan.comp.
#[derive(Clone, Copy)]
enum Heads {
    Nowhere = 0,
    Flags = 1,
    BitsOfElements = 2,
}

impl Carry {
    fn pass(self, scans: bool, heads: Heads) -> Pass {
        match self {
            Carry::Sum => Pass {
                kernel: Kernel::SumScan,
                constants: smallvec![(4, scans.into()), (7, heads as u32)],
                tile: Some(TILE),
            },
            Carry::Product => pass_from(PRODUCT, scans, 1, heads),
            Carry::Horner => pass_from(HORNER, scans, 1, heads),
        }
    }

    fn recurrence<F: LimbField>(self, m: &Values) -> Recurrence<F> {
        match self {
            Carry::Sum => Recurrence::Sum,
            Carry::Product => Recurrence::Product,
            Carry::Horner => Recurrence::Horner(F::elements(m.limbs()).first().copied().unwrap_or(F::ZERO)),
        }
    }
}

/// Elements to a chunk of the vector itself, and of what its chunks fold to: the more the less there is to scan again, the
/// fewer the sooner the device is done with one. Powers of two.
const CHUNK: usize = 32;
const CHUNK_OF_FOLDS: usize = 8;
/// So many folds one invocation passes in less time than another two launches take.
const ALONE: usize = 16;

/// Elements to a chunk, at a level of the recursion.
const fn chunk(segment: usize, level: u32) -> usize {
    match level {
        _ if segment <= ALONE => segment,
        0 => CHUNK,
        _ => CHUNK_OF_FOLDS,
    }
}

/// x^(2^j) into element j of a table, one after the other.
pub(crate) fn squares(lowering: &mut Lowering, field: Field, x: &Region, table: &Region) -> Result<(), Error> {
    let count = (table.bytes() / field.bytes() as u64) as usize;
    Launch {
        pass: pass(SQUARES, true, 1),
        field,
        slots: [None, Some(x), None, Some(table)],
        written: 16,
        segments: 1,
        segment: count,
        share: Share::new(count, 1, count),
        more: [0, STARTED | EXCLUSIVE],
        cost: 1,
    }
    .add_to(lowering)
}

impl Scanned {
    fn name_of(carry: Carry) -> &'static str {
        match carry {
            Carry::Sum => "prefix_sum",
            Carry::Product => "prefix_product",
            Carry::Horner => "divide_by_linear",
        }
    }

    /// Adds the scan of a vector to a batch, or, at higher levels, that of the folds of its chunks: `power` is the logarithm of
    /// how many elements of the vector one of these is.
    fn scan(
        &self,
        lowering: &mut Lowering,
        (a, c, out): (&Region, Option<&Region>, &Region),
        walk: Walk,
        (level, power): (u32, u32),
    ) -> Result<(), Error> {
        let field = self.field;
        let share = Share::new(walk.segment, 1, chunk(walk.segment, level));
        let segments = (a.bytes() / field.bytes() as u64) as usize / walk.segment;
        let flag = |set: bool, flag: u32| if set { flag } else { 0 };
        let heads = match (self.heads, level) {
            (false, _) => Heads::Nowhere,
            (true, 0) => Heads::Flags,
            (true, _) => Heads::BitsOfElements,
        };
        let launch = |scans: bool, carries: Option<&Region>, r: &Region, lowering: &mut Lowering| {
            let flags = flag(walk.reversed, REVERSED) | flag(walk.exclusive, EXCLUSIVE) | flag(carries.is_some(), CARRIED);
            Launch {
                pass: self.carry.pass(scans, heads),
                field,
                slots: [Some(a), carries, c, Some(r)],
                written: 16,
                segments,
                segment: walk.segment,
                share,
                more: [power, flags],
                cost: 1,
            }
            .add_to(lowering)
        };
        if share.chunks == 1 {
            return launch(true, None, out, lowering);
        }
        let bytes = (segments * share.chunks * field.bytes()) as u64;
        let (folds, carries) = (lowering.scratch(bytes)?, lowering.scratch(bytes)?);
        launch(false, None, &folds, lowering)?;
        let above = Walk { segment: share.chunks, exclusive: true, reversed: false };
        // Flags are of the vector's elements, a table of powers is for all levels.
        let c = c.filter(|_| !self.heads);
        self.scan(lowering, (&folds, c, &carries), above, (level + 1, power + share.steps.ilog2()))?;
        launch(true, Some(&carries), out, lowering)
    }
}

impl Scanned {
    fn first_wrong(&self, inputs: &[Values], outputs: &[Values]) -> Option<(usize, usize)> {
        fn of<F: LimbField>(task: &Scanned, a: &Values, second: &Values, out: &Values) -> Option<usize> {
            let (recurrence, heads) = (task.carry.recurrence(second), second.words());
            scan_first_wrong(recurrence, task.walk, heads, F::elements(a.limbs()), F::elements(out.limbs()))
        }
        let ([a, ..], [out]) = (inputs, outputs) else { return Some((0, 0)) };
        if a.limbs().len() != out.limbs().len() {
            return Some((0, 0));
        }
        // Of a sum or product without heads none: the elements, as words, are no flags.
        let second = inputs.last().unwrap_or(a);
        let wrong = match self.field {
            Field::Fq => of::<Fq>(self, a, second, out),
            Field::Fr => of::<Fr>(self, a, second, out),
        };
        wrong.map(|at| (0, at))
    }
}

impl Task for Scanned {
    fn name(&self) -> &'static str {
        Self::name_of(self.carry)
    }

    fn field(&self) -> Field {
        self.field
    }

    fn variant(&self) -> Cow<'_, str> {
        if self.heads { "heads" } else { "" }.into()
    }

    fn multiplies(&self) -> Option<Kernel> {
        (self.carry != Carry::Sum).then_some(Kernel::Scan)
    }

    fn lower(&self, device: &mut Lowering, inputs: &[Option<Region>], outputs: &[Option<Region>]) -> Result<(), Error> {
        let ([Some(a), second @ ..], [Some(out)]) = (inputs, outputs) else { return Ok(()) };
        let second = second.first().and_then(Option::as_ref);
        if let (true, Some(flags)) = (self.heads, second) {
            // Read sixteen bytes at a time, from wherever a slice of a mask begins; from the end, the flag behind each element.
            let aligned = device.scratch((flags.bytes() + FLAG as u64).next_multiple_of(16))?;
            if let Some(copy) = aligned.slice(0..flags.bytes()) {
                device.batch.copy(flags, &copy);
            }
            if let Some(behind) = aligned.slice(flags.bytes()..aligned.bytes()) {
                device.batch.zero(&behind);
            }
            return self.scan(device, (a, Some(&aligned), out), self.walk, (0, 0));
        }
        // The last factor that is asked for is m to the power of what a chunk of the highest level but one holds.
        let count = self.walk.segment.ilog2() as usize + 1;
        let table = second.map(|m| {
            let table = device.scratch((count * self.field.bytes()) as u64)?;
            squares(device, self.field, m, &table).map(|()| table)
        });
        let table = table.transpose()?;
        self.scan(device, (a, table.as_ref(), out), self.walk, (0, 0))
    }

    fn compute(&self, inputs: &[Values], outputs: &mut [Values]) {
        fn of<F: LimbField>(task: &Scanned, a: &Values, second: &Values, out: &mut Values) {
            let (recurrence, heads) = (task.carry.recurrence(second), second.words());
            scan(recurrence, task.walk, heads, F::elements(a.limbs()), F::elements_mut(out.limbs_mut()));
        }
        let ([a, ..], [out]) = (inputs, outputs) else { return };
        // Of a sum or product without heads none: the elements, as words, are no flags.
        let second = inputs.last().unwrap_or(a);
        match self.field {
            Field::Fq => of::<Fq>(self, a, second, out),
            Field::Fr => of::<Fr>(self, a, second, out),
        }
    }

    /// One operation per element, in parallel segments, where scanning on several cores takes two. Exact.
    fn proof(&self) -> Option<Proof<'_>> {
        Some(Box::new(|inputs, outputs| self.first_wrong(inputs, outputs)))
    }

    fn trials(&self) -> Vec<Trial> {
        let edges = edges(self.field);
        // Of products none that is zero, or all that follows would be.
        let some = if self.carry == Carry::Product { &edges[1..] } else { &edges };
        let second = CHUNK * CHUNK_OF_FOLDS;
        let lengths = [1, 2, ALONE, ALONE + 1, CHUNK, CHUNK + 1, CHUNK * ALONE + 1, second * ALONE + 3];
        let trial = |(at, &segment): (usize, &usize)| {
            let (exclusive, reversed) = (at % 3 == 1, at % 3 == 2);
            let segments = if segment < 100 { 3 } else { 1 };
            let vector = (0..segment * segments).flat_map(|at| some[(at * at + at) % some.len()].iter().copied()).collect();
            // Chunks without a head, with one in front, with several.
            let head = |at: usize| u32::from(!(at / CHUNK).is_multiple_of(3) && (at * at).is_multiple_of(31));
            let second = match self.carry {
                Carry::Horner => Some(Values::Limbs(edges[edges.len() - 1 - at % 3].clone())),
                _ => self.heads.then(|| Values::Words((0..segment * segments).map(head).collect())),
            };
            Trial {
                task: Arc::new(Scanned { walk: Walk { segment, exclusive, reversed }, ..*self }),
                inputs: std::iter::once(Values::Limbs(vector)).chain(second).collect(),
                outputs: vec![(Item::Element(self.field), segment * segments)],
            }
        };
        lengths.iter().enumerate().map(trial).collect()
    }
}

impl Recording {
    /// Records a scan into new memory. See [`Recording::scan_into`].
    ///
    /// # Errors
    /// Those of [`Recording::scan_into`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Scan;
    /// let vector = backend.upload(&[2u64, 3, 4].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let before = recording.scan(Scan::sum().exclusive(), &vector)?;
    /// recording.submit()?;
    /// assert_eq!(before.download()?, [0u64, 2, 5].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn scan<F: Element>(&mut self, scan: Scan, a: &Vector<F>) -> Result<Vector<F>, Error> {
        let task = self.of_scan(scan, a)?;
        let out = self.backend.vector(a.len())?;
        self.scanned(task, a, None, &out)?;
        Ok(out)
    }

    /// Records a scan of segments of any lengths, into new memory. See [`Recording::scan_from_heads_into`].
    ///
    /// # Errors
    /// Those of [`Recording::scan_from_heads_into`]; [`Error::Device`] if there is no memory.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Scan;
    /// let vector = backend.upload(&[1u64, 2, 3, 4, 5].map(Fr::from))?;
    /// let heads = backend.upload_mask(&[true, false, true, true, false])?;
    /// let mut recording = backend.record();
    /// let sums = recording.scan_from_heads(Scan::sum(), &vector, &heads)?;
    /// recording.submit()?;
    /// assert_eq!(sums.download()?, [1u64, 3, 3, 4, 9].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn scan_from_heads<F: Element>(&mut self, scan: Scan, a: &Vector<F>, heads: &Mask) -> Result<Vector<F>, Error> {
        let task = self.of_scan(scan, a)?;
        let out = self.backend.vector(a.len())?;
        self.scanned_from_heads(task, a, heads, &out)?;
        Ok(out)
    }

    /// Records a scan of segments of any lengths into `out`, which may not overlap `a`. Each position whose flag is set is the first of a
    /// segment, whether or not the first position's is, and so are those where [`Scan::segments`] has the scan start again. A
    /// [reversed](Scan::reversed) scan goes through the same segments from their ends. Takes a few bytes of memory traffic per element more
    /// than [`Recording::scan_into`], and, from submission until it is done, four more of memory.
    ///
    /// # Errors
    /// Those of [`Recording::scan_into`]; [`Error::LengthMismatch`] also if there are not as many flags as elements.
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Scan;
    /// let vector = backend.upload(&[1u64, 2, 3, 4].map(Fr::from))?;
    /// let out = backend.zeros(4)?;
    /// let mut recording = backend.record();
    /// let heads = backend.upload_mask(&[false, false, true, false])?;
    /// recording.scan_from_heads_into(Scan::product().exclusive(), &vector, &heads, &out)?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [1u64, 1, 1, 3].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn scan_from_heads_into<F: Element>(
        &mut self,
        scan: Scan,
        a: &Vector<F>,
        heads: &Mask,
        out: &Vector<F>,
    ) -> Result<(), Error> {
        let task = self.of_scan(scan, a)?;
        self.scanned_from_heads(task, a, heads, out)
    }

    /// Records a scan into `out`, which may not overlap `a`: everything that a sum or a product becomes on its way through a
    /// vector, or through segments of equal length. On a device this takes two operations per element, and, from submission
    /// until it is done, at most an eighth of the vector's memory.
    ///
    /// # Errors
    /// [`Error::LengthMismatch`] also if the vector is not so many whole segments, [`Error::ForeignVector`],
    /// [`Error::Overlap`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// use bls12_field_gpu::Scan;
    /// let vector = backend.upload(&[2u64, 3, 4, 5].map(Fr::from))?;
    /// let out = backend.zeros(4)?;
    /// let mut recording = backend.record();
    /// recording.scan_into(Scan::product().segments(2), &vector, &out)?;
    /// recording.submit()?;
    /// assert_eq!(out.download()?, [2u64, 6, 4, 20].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn scan_into<F: Element>(&mut self, scan: Scan, a: &Vector<F>, out: &Vector<F>) -> Result<(), Error> {
        let task = self.of_scan(scan, a)?;
        self.scanned(task, a, None, out)
    }

    fn scanned_from_heads<F: Element>(
        &mut self,
        task: Scanned,
        a: &Vector<F>,
        heads: &Mask,
        out: &Vector<F>,
    ) -> Result<(), Error> {
        self.check_mask(task.name(), heads, a.len())?;
        self.scanned(Scanned { heads: true, ..task }, a, Some((&heads.memory, Item::Flag)), out)
    }

    fn of_scan<F: Element>(&self, scan: Scan, a: &Vector<F>) -> Result<Scanned, Error> {
        let carry = if scan.product { Carry::Product } else { Carry::Sum };
        let operation = Scanned::name_of(carry);
        self.check(operation, a, a.len())?;
        let segment = scan.segment.unwrap_or(a.len());
        if segment == 0 && !a.is_empty() || segment > 0 && !a.len().is_multiple_of(segment) {
            return Err(Error::LengthMismatch { operation, first: a.len(), other: segment });
        }
        let walk = Walk { segment, exclusive: scan.exclusive, reversed: scan.reversed };
        Ok(Scanned { field: F::FIELD, carry, walk, heads: false })
    }

    /// Records a scan; its second input, a factor or flags, has been checked, and `a` too.
    pub(crate) fn scanned<F: Element>(
        &mut self,
        task: Scanned,
        a: &Vector<F>,
        second: Option<(&Memory, Item)>,
        out: &Vector<F>,
    ) -> Result<(), Error> {
        self.check(task.name(), out, a.len())?;
        if a.is_empty() {
            return Ok(());
        }
        let item = Item::Element(F::FIELD);
        let inputs: Vec<_> = std::iter::once((&a.memory, item)).chain(second).collect();
        self.task(Arc::new(task), &inputs, &[(&out.memory, item)])
    }

    /// Records the prefix sums a\[0\] + .. + a\[i\], into new memory. See [`Recording::scan_into`].
    ///
    /// # Errors
    /// Those of [`Recording::scan`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[2u64, 3, 4].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let sums = recording.prefix_sum(&vector)?;
    /// recording.submit()?;
    /// assert_eq!(sums.download()?, [2u64, 5, 9].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn prefix_sum<F: Element>(&mut self, a: &Vector<F>) -> Result<Vector<F>, Error> {
        self.scan(Scan::sum(), a)
    }

    /// Records the prefix products a\[0\] .. a\[i\], into new memory. See [`Recording::scan_into`].
    ///
    /// # Errors
    /// Those of [`Recording::scan`].
    ///
    /// ```
    /// # use ark_bls12_381::Fr;
    /// # let backend = bls12_field_gpu::backend()?;
    /// let vector = backend.upload(&[2u64, 3, 4].map(Fr::from))?;
    /// let mut recording = backend.record();
    /// let products = recording.prefix_product(&vector)?;
    /// recording.submit()?;
    /// assert_eq!(products.download()?, [2u64, 6, 24].map(Fr::from));
    /// # Ok::<(), bls12_field_gpu::Error>(())
    /// ```
    pub fn prefix_product<F: Element>(&mut self, a: &Vector<F>) -> Result<Vector<F>, Error> {
        self.scan(Scan::product(), a)
    }
}
