//! The device of a backend: its kernels, tested before they are believed, and calls on it.

use crate::backend::Backend;
use crate::call::{Call, Prepared};
use crate::expression::Pieces;
use crate::formulations::Formulations;
use crate::known_answers::KnownAnswers;
use crate::operation::{Operation, Row, TABLE};
use crate::options::Settings;
use crate::task::Specialized;
use crate::{Error, Field, Form};
use cpu_reference::{Positions, Results};
use field_kernels::expression::{Node, Root};
use field_kernels::{Formulation, Shader, Width};
use foldhash::{HashMap, HashSet};
use gpu_executor::{
    Device, Job, Kernel, Landed, Parts, Program, Ran, Reach, Shape, Share, Slot, SlotUse, Stage, Threads, Watch,
};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::OnceLock;

/// What a kernel of an expression is found by.
type Assembled = (Field, Formulation, Vec<Node>, Root);

/// How the invocations of an element-wise kernel are grouped.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Groups {
    /// Invocations of a workgroup.
    size: u32,
    /// Whether each reads its own elements, even if they exchange what they write.
    reads_straight: bool,
}

impl Groups {
    /// Workgroups of so many that exchange what they read as well as what they write, if they exchange anything.
    pub(crate) const fn of(size: u32) -> Self {
        Self { size, reads_straight: false }
    }
}

/// Variants of tasks, by name, field and formulation.
type Tested = HashMap<(&'static str, Field, Formulation), HashSet<String>>;

pub(crate) struct Vulkan {
    device: Device,
    pub(crate) width: Width,
    pub(crate) tiled: bool,
    pub(crate) formulations: Formulations,
    /// By operation, field and form; for each kind of workgroups and formulation, made when first used and after its self-test.
    programs: Vec<Mutex<HashMap<(Groups, Formulation), Program>>>,
    /// Whether fused multiply-adds of doubles were found to round once.
    pub(crate) fused: OnceLock<bool>,
    /// Programs of tasks.
    pub(crate) specialized: Mutex<HashMap<Specialized, Program>>,
    pub(crate) pieces: Mutex<Pieces>,
    /// Programs of expressions: field, formulation, what is computed.
    pub(crate) expressions: Mutex<HashMap<Assembled, Program>>,
    /// Tasks that have passed their trials.
    pub(crate) tested: Mutex<Tested>,
}

impl Vulkan {
    pub(crate) fn new(device: Device, width: Width, tiled: bool, formulations: Formulations) -> Self {
        let programs = (0..TABLE.len() * 4).map(|_| Mutex::default()).collect();
        Self {
            device,
            width,
            tiled,
            formulations,
            programs,
            fused: OnceLock::new(),
            specialized: Mutex::default(),
            pieces: Mutex::default(),
            expressions: Mutex::default(),
            tested: Mutex::default(),
        }
    }

    pub(crate) fn device(&self) -> &Device {
        &self.device
    }

    /// The program of an operation on vectors that stay on the device, made and tested when first asked for.
    pub(crate) fn program(&self, settings: &Settings, prepared: &Prepared) -> Result<Program, Error> {
        self.program_of(settings, prepared, self.resident_groups(settings, prepared.row))
    }

    /// How invocations are grouped where vectors stay on the device.
    ///
    /// An H200 has no room for more than half of the invocations that it could have if workgroups are of a subgroup, 32, and one that
    /// takes one element and hardly computes has little under way: negatives of Fr are at 52 G a second with 32, 64 with 64, 66
    /// with 128 and 63.5 with 256; doubles likewise. Products of Fr are at 44.2 G with 32, 45.9 with 64, 45.4 with 128, squares at 52, 57 and
    /// 57; products of Fq and sums are the same with 64. What takes as long as a power is as it is from host memory, and made once.
    ///
    /// In device memory each invocation may as well read its own elements, since caches hold what a load leaves of a line for the next: on an
    /// H200 products of Fq are at 26.2 G a second instead of 25.5, a b + a at 25.0 instead of 24.2 and in Fr at 43.9 instead of 41.7. In
    /// host memory that takes twice as long.
    pub(crate) fn resident_groups(&self, settings: &Settings, row: &Row) -> Groups {
        let own = self.device.workgroup_size();
        let subgroups = match row.operation {
            Operation::Pow | Operation::Inverse | Operation::InverseOrZero | Operation::Sqrt => return Groups::of(own),
            Operation::Neg | Operation::Double => 4,
            _ => 2,
        };
        let wide = own.max(subgroups * self.device.subgroup_size()).min(self.device.most_invocations());
        let size = if settings.executor.workgroup_size.is_some() { own } else { wide };
        Groups { size, reads_straight: self.tiled && self.device.is_device_local() }
    }

    /// The same in workgroups of another kind.
    pub(crate) fn program_of(&self, settings: &Settings, prepared: &Prepared, groups: Groups) -> Result<Program, Error> {
        let made = |formulation| self.program_in(settings, prepared, groups, formulation);
        self.in_the_chosen(prepared.row.kernel, prepared.field, made)
    }

    /// What is made in the formulation chosen for a kernel; if that fails its self-test, in another.
    pub(crate) fn in_the_chosen<T>(
        &self,
        kernel: field_kernels::Kernel,
        field: Field,
        make: impl Fn(Formulation) -> Result<T, Error>,
    ) -> Result<T, Error> {
        loop {
            let chosen = self.formulations.choose(kernel, field);
            match make(chosen.formulation) {
                Err(error @ Error::SelfTestFailed { .. }) if self.formulations.gives_up(kernel, field, chosen) => {
                    tracing::warn!(%error, formulation = chosen.formulation.name(), "not used on this device");
                }
                made => return made,
            }
        }
    }

    /// The same in a given formulation.
    pub(crate) fn program_in(
        &self,
        settings: &Settings,
        prepared: &Prepared,
        groups: Groups,
        formulation: Formulation,
    ) -> Result<Program, Error> {
        let canonical = prepared.row.form_matters && prepared.form == Form::Canonical;
        let slot = prepared.row.operation as usize * 4 + prepared.field as usize * 2 + usize::from(canonical);
        if let Some(program) = self.programs[slot].lock().get(&(groups, formulation)) {
            return Ok(program.clone());
        }
        if !self.is_able(formulation)? {
            return Err(self.failed_self_test(prepared.row.name, prepared.field, 0));
        }
        // Not under the lock: the self-test uses rayon, whose workers may be callers that wait for the lock. Threads that
        // arrive together each test; the pipeline is built once.
        let kernel = self.kernel(prepared.row, prepared.field, canonical, groups, formulation)?;
        // SAFETY: the kernel is one of field-kernels', valid by spirv-val, which CI runs; elementwise.comp and io.glsl keep to
        // the slots and widths that `slots` tells, guard every invocation by the number of elements and use constant 0 for
        // the workgroup size. A device without 64-bit integers is given the 32-bit variant only, one without doubles none in
        // doubles.
        let made = unsafe { self.device.prepare(&kernel) }?;
        self.self_test(settings, &made, prepared.row, prepared.field, canonical)?;
        self.programs[slot].lock().insert((groups, formulation), made.clone());
        Ok(made)
    }

    /// How the kernels of the device's width reach their slots.
    pub(crate) fn reach(&self) -> Reach {
        match self.width {
            Width::Int64 => Reach::Addresses,
            Width::Int32 => Reach::Descriptors,
        }
    }

    fn kernel(
        &self,
        row: &Row,
        field: Field,
        canonical: bool,
        groups: Groups,
        formulation: Formulation,
    ) -> Result<Kernel, Error> {
        let not_available = Error::NotAvailable { operation: row.name, field };
        let shader = row.kernel.shader(field, self.width, formulation).ok_or(not_available)?;
        Ok(self.element_wise(shader, field, &slots(row, field), (canonical, row.has_scalar()), groups))
    }

    /// An element-wise kernel, specialized.
    pub(crate) fn element_wise(
        &self,
        shader: Shader,
        field: Field,
        slots: &[SlotUse],
        (canonical, scalar): (bool, bool),
        groups: Groups,
    ) -> Kernel {
        // Every device has 16 KiB of shared memory.
        let tile = groups.size.saturating_mul(field.bytes() as u32);
        let tiled = self.tiled && tile <= 16 << 10;
        Kernel {
            name: shader.name,
            spirv: shader.spirv.into(),
            reach: self.reach(),
            slots: slots.to_vec(),
            shape: Shape::Invocations,
            parts: Parts::ANYWHERE,
            workgroup_size: Some(groups.size),
            constants: vec![
                (1, canonical.into()),
                (2, scalar.into()),
                (3, tiled.into()),
                (4, if tiled { tile / 16 } else { 1 }),
                (5, (tiled && !groups.reads_straight).into()),
            ],
        }
    }

    pub(crate) fn failed_self_test(&self, operation: &'static str, field: Field, index: usize) -> Error {
        Error::SelfTestFailed { operation, field, index, device: self.device.info().to_string() }
    }

    /// Drivers do miscompile big-integer shaders: nothing that a kernel says is believed before it has answered what is known.
    fn self_test(
        &self,
        settings: &Settings,
        program: &Program,
        row: &'static Row,
        field: Field,
        canonical: bool,
    ) -> Result<(), Error> {
        let form = if canonical { Form::Canonical } else { Form::Montgomery };
        let known = KnownAnswers::new(row, field);
        let vectors: Vec<&[u64]> = known.vectors.iter().map(Vec::as_slice).collect();
        let prepared =
            Prepared::new(&Call { operation: row.operation, field, form, vectors: &vectors, parameter: &known.parameter })?;
        let mut elements = vec![0; if row.has_elements() { prepared.length * field.limbs() } else { 0 }];
        let mut flags = vec![0; if row.has_mask() { prepared.length } else { 0 }];
        self.run(program, &prepared, (None, None, None), (&mut elements, &mut flags), &Unwatched)?;
        #[cfg(feature = "test-faults")]
        if let Some(crate::Fault::FlipBitInSelfTest(bit)) = settings.fault {
            flip(&mut elements, &mut flags, (&(0..prepared.length), prepared.length), bit);
        }
        #[cfg(not(feature = "test-faults"))]
        let _ = settings;
        // Recomputed, whatever check would prove an answer: here every bit of it is known.
        let (mut known_elements, mut known_flags) = (vec![0; elements.len()], vec![0; flags.len()]);
        (prepared.twin.compute)(
            &prepared.operands(),
            &mut Results { elements: &mut known_elements, mask: &mut known_flags },
        );
        let wrong = |index: usize| {
            let element = index * field.limbs()..(index + 1) * field.limbs();
            elements.get(element.clone()) != known_elements.get(element) || flags.get(index) != known_flags.get(index)
        };
        match (0..prepared.length).find(|&index| wrong(index)) {
            None => Ok(()),
            Some(index) => Err(self.failed_self_test(row.name, field, index)),
        }
    }

    /// Has a program compute a call: staged or not, in chunks of so many elements, the CPU some of them.
    pub(crate) fn run<W: Watch>(
        &self,
        program: &Program,
        prepared: &Prepared,
        (staged, chunk_elements, share): (Option<bool>, Option<usize>, Option<Share>),
        (elements, flags): (&mut [u64], &mut [u32]),
        watch: &W,
    ) -> Result<Ran, W::Error> {
        let row = prepared.row;
        let vectors = prepared.vectors.map(|vector| match vector {
            [] => Slot::Unused,
            limbs => Slot::Read(bytemuck::cast_slice(limbs)),
        });
        let (elements, flags) = (bytemuck::cast_slice_mut(elements), bytemuck::cast_slice_mut(flags));
        let slots = arranged(row, vectors, Slot::Write(elements), Slot::Write(flags));
        let (elements, params, cost) = (prepared.length, &prepared.words[..], row.cost);
        program.run(Job { elements, slots, params, cost, staged, chunk_elements, share }, watch)
    }
}

/// Elements whose results one thread checks sooner than others are woken to help: one piece of the check's.
const SERIAL: usize = 64;

/// Looks at a call's chunks: at what goes in, if `values`; at what comes out, if `verify`. And computes the CPU's share.
pub(crate) struct Checks<'a> {
    pub(crate) backend: &'a Backend,
    pub(crate) vulkan: &'a Vulkan,
    pub(crate) prepared: &'a Prepared<'a>,
    pub(crate) values: bool,
    pub(crate) verify: bool,
}

impl Watch for Checks<'_> {
    type Error = Error;

    fn inspects(&self) -> bool {
        // A check of every result looks at what went in, but does not mind an inverse of zero.
        self.values && (!self.verify || self.prepared.row.operation == Operation::Inverse)
    }

    fn admits(&self, _slot: usize, part: &[u8]) -> bool {
        let (field, limbs) = (self.prepared.field, bytemuck::cast_slice(part));
        let zero = |element: &[u64]| element.iter().all(|&limb| limb == 0);
        let inverted = self.prepared.row.operation == Operation::Inverse;
        field.all_canonical(limbs) && !(inverted && limbs.chunks_exact(field.limbs()).any(zero))
    }

    fn checks(&self) -> bool {
        self.verify
    }

    fn objection(&self, range: Range<usize>, threads: &Threads) -> Error {
        let found = threads.install(|| self.prepared.part(&range).check_values());
        // `admits` and `check_values` agree on what is wrong.
        let none = || Error::NotBelowModulus {
            operation: self.prepared.row.name,
            field: self.prepared.field,
            operand: "a",
            index: range.start,
        };
        found.err().unwrap_or_else(none)
    }

    fn lands(&self, range: Range<usize>, results: Landed, threads: &Threads) -> Result<(), Error> {
        let Self { backend, vulkan, prepared, .. } = *self;
        let (elements, flags) = landed(prepared.row, results);
        #[cfg(feature = "test-faults")]
        if let Some(crate::Fault::FlipBit(bit)) = backend.settings().fault {
            flip(elements, flags, (&range, prepared.length), bit);
        }
        if !self.verify {
            return Ok(());
        }
        let _timed = vulkan.device.timed(Stage::Verify, 0);
        let (part, elements, flags) = (prepared.part(&range), &*elements, &*flags);
        let first_wrong = match range.len() {
            ..=SERIAL => part.first_wrong(elements, flags, Positions::All),
            _ => threads.install(|| part.first_wrong(elements, flags, Positions::All)),
        };
        if first_wrong.is_some() {
            // Of wrong values the check finds the results wrong.
            threads.install(|| part.check_values())?;
        }
        backend.right(vulkan, prepared, first_wrong.map(|index| range.start + index))
    }

    fn computes(&self, range: Range<usize>, results: Landed) -> bool {
        let part = self.prepared.part(&range);
        if !part.vectors().iter().all(|vector| self.admits(0, bytemuck::cast_slice(vector))) {
            return false;
        }
        let (elements, mask) = landed(self.prepared.row, results);
        part.compute_alone(&mut Results { elements, mask });
        true
    }
}

/// What the answers of self-tests pass: they compare them themselves.
pub(crate) struct Unwatched;

impl Watch for Unwatched {
    type Error = gpu_executor::Error;

    fn inspects(&self) -> bool {
        false
    }

    fn admits(&self, _: usize, _: &[u8]) -> bool {
        true
    }

    fn checks(&self) -> bool {
        false
    }

    fn objection(&self, _: Range<usize>, _: &Threads) -> Self::Error {
        gpu_executor::Error::Lost { during: "the self-test" }
    }

    fn lands(&self, _: Range<usize>, _: Landed, _: &Threads) -> Result<(), Self::Error> {
        Ok(())
    }

    fn computes(&self, _: Range<usize>, _: Landed) -> bool {
        false
    }
}

/// The elements and the flags among a chunk's results; empty what the row does not give.
fn landed<'a>(row: &Row, [_, _, c, r]: Landed<'a>) -> (&'a mut [u64], &'a mut [u32]) {
    // Where `arranged` puts them.
    let (elements, flags) = match (row.has_elements(), row.has_mask()) {
        (true, true) => (r, c),
        (true, false) => (r, None),
        (false, _) => (None, r),
    };
    (elements.map_or(&mut [], bytemuck::cast_slice_mut), flags.map_or(&mut [], bytemuck::cast_slice_mut))
}

/// What the kernel of a row does with its slots.
pub(crate) fn slots(row: &Row, field: Field) -> [SlotUse; 4] {
    let (element, flag) = (field.bytes(), size_of::<u32>());
    let vectors = [0, 1, 2].map(|n| if n < row.vectors { SlotUse::Reads(element) } else { SlotUse::None });
    arranged(row, vectors, SlotUse::Writes(element), SlotUse::Writes(flag))
}

/// Where a row's kernel has its vectors and its results: the vectors first, the elements or the flags last; if there are both,
/// the flags third.
pub(crate) fn arranged<T>(row: &Row, [a, b, c]: [T; 3], elements: T, flags: T) -> [T; 4] {
    match (row.has_elements(), row.has_mask()) {
        (false, _) => [a, b, c, flags],
        (true, false) => [a, b, c, elements],
        (true, true) => [a, b, flags, elements],
    }
}

#[cfg(feature = "test-faults")]
pub(crate) fn flip(elements: &mut [u64], flags: &mut [u32], (range, length): (&Range<usize>, usize), bit: u64) {
    let words: &mut [u32] = if elements.is_empty() { flags } else { bytemuck::cast_slice_mut(elements) };
    let per_element = words.len() / range.len();
    let bit = bit % (32 * (per_element * length) as u64);
    let word = (bit / 32) as usize;
    if range.contains(&(word / per_element)) {
        words[word - range.start * per_element] ^= 1 << (bit % 32);
    }
}
