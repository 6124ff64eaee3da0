//! Random programs of everything that can be recorded: on every engine, however cut into recordings, verified or not, the same
//! bytes as on the CPU one step at a time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may panic")]
#![allow(dead_code, reason = "this test needs part of the support")]

mod support;

use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{
    Backend, Download, Error, Expression, Indices, Mask, Operation, Options, Output, REDUCTIONS, Recording, Scan,
    SparseMatrix, TABLE, Validation, Vector, Verify, Zeros,
};
use proptest::prelude::*;
use std::any::Any;
use std::sync::LazyLock;
use support::{Watched, cpu, engines, numbers};

/// One step of a random program on a few registers, each a vector, and a few masks.
#[derive(Clone, Debug)]
enum Instruction {
    Apply(Operation, [usize; 3], usize),
    Sqrt(usize, usize, usize),
    Equal(usize, usize, usize),
    Reduce(usize, [usize; 2], usize),
    /// The same of segments.
    ReduceSegments(usize, [usize; 2]),
    /// Of products or of sums, exclusive, reversed, of segments, from heads.
    Scan([bool; 5], usize, usize, usize),
    /// Whether each element is other than zero, into a new mask.
    Nonzero(usize, usize),
    /// One of the operations that are not element-wise, on so many registers, into another, with a mask.
    Algebra(Algebra, [usize; 3], usize, usize),
    Write(usize, u64),
    WriteMask(usize, u64),
    Zero(usize),
    Clear(usize),
    Duplicate(usize, usize),
    Download(usize),
    DownloadMask(usize),
}

/// The operations that are not element-wise, and the list of them.
macro_rules! algebra {
    ($($kind:ident)+) => {
        #[derive(Clone, Copy, Debug)]
        enum Algebra {
            $($kind,)+
        }

        const ALGEBRA: &[Algebra] = &[$(Algebra::$kind),+];
    };
}

algebra! {
    Gate Combination Choice Compare Inverses InversesOrError Quotients QuotientsOrError Powers Value ValueAt Values ValuesInto ByLinear
    Reverse BitReverse Rotate Transpose Strided Gather Scatter Compact Copy Concatenate Outer Dot Wide Long Sparse AnyNonzero Extents
}

const REGISTERS: usize = 4;
const MASKS: usize = 2;

fn program() -> impl Strategy<Value = Vec<Instruction>> {
    let all = TABLE.iter().filter(|row| row.output == Output::Elements).map(|row| row.operation).collect::<Vec<_>>();
    let (register, mask) = (0..REGISTERS, 0..MASKS);
    let instruction = prop_oneof![
        8 => (prop::sample::select(all), prop::array::uniform3(register.clone()), register.clone())
            .prop_map(|(operation, inputs, output)| Instruction::Apply(operation, inputs, output)),
        1 => (register.clone(), register.clone(), mask.clone()).prop_map(|(a, root, mask)| Instruction::Sqrt(a, root, mask)),
        2 => (register.clone(), register.clone(), mask.clone()).prop_map(|(a, b, mask)| Instruction::Equal(a, b, mask)),
        3 => (0..REDUCTIONS.len(), prop::array::uniform2(register.clone()), register.clone())
            .prop_map(|(row, inputs, output)| Instruction::Reduce(row, inputs, output)),
        2 => (0..REDUCTIONS.len(), prop::array::uniform2(register.clone()))
            .prop_map(|(row, inputs)| Instruction::ReduceSegments(row, inputs)),
        4 => (prop::array::uniform5(any::<bool>()), register.clone(), mask.clone(), register.clone())
            .prop_map(|(how, a, mask, output)| Instruction::Scan(how, a, mask, output)),
        1 => (register.clone(), mask.clone()).prop_map(|(a, mask)| Instruction::Nonzero(a, mask)),
        12 => (prop::sample::select(ALGEBRA.to_vec()), prop::array::uniform3(register.clone()), register.clone(), mask.clone())
            .prop_map(|(kind, inputs, output, mask)| Instruction::Algebra(kind, inputs, output, mask)),
        1 => (register.clone(), 0u64..9).prop_map(|(to, salt)| Instruction::Write(to, salt)),
        1 => (mask.clone(), 0u64..9).prop_map(|(to, salt)| Instruction::WriteMask(to, salt)),
        1 => register.clone().prop_map(Instruction::Zero),
        1 => mask.clone().prop_map(Instruction::Clear),
        1 => (register.clone(), register.clone()).prop_map(|(from, to)| Instruction::Duplicate(from, to)),
        1 => register.prop_map(Instruction::Download),
        1 => mask.prop_map(Instruction::DownloadMask),
    ];
    prop::collection::vec(instruction, 0..24)
}

/// Mostly short; also none, powers of two, and just more than several workgroups or chunks.
fn length(short: usize) -> impl Strategy<Value = usize> {
    let powers = prop::sample::select(vec![1usize, 2, 64, 512]);
    prop_oneof![14 => 1..short, 1 => Just(0), 3 => powers, 1 => prop::sample::select(vec![1025usize, 2049, 4097])]
}

/// How a program is run: with registers of this length, in recordings of so many instructions, or as if in these: each in one of its
/// own. With a stride, registers are slices of one vector that begin so many elements apart, and masks so many flags.
#[derive(Clone, Copy, Debug)]
struct Setting {
    length: usize,
    per_recording: usize,
    alone: bool,
    stride: Option<usize>,
}

/// What a program downloaded on its way, what registers and masks held in the end, and what was refused.
#[derive(Debug, PartialEq, Eq)]
struct Outcome<F> {
    vectors: Vec<Vec<F>>,
    masks: Vec<Vec<bool>>,
    counts: Vec<Vec<usize>>,
    errors: Vec<String>,
}

/// What a recording is to download, and whether it refuses zeros.
struct Pending<F> {
    vectors: Vec<Download<F>>,
    masks: Vec<Download<bool>>,
    counts: Vec<Download<usize>>,
    refuses: bool,
}

struct Machine<F> {
    registers: Vec<Vector<F>>,
    /// Of one element.
    cells: Vec<Vector<F>>,
    /// Of as many elements as registers are cut into segments.
    parts: Vector<F>,
    masks: Vec<Mask>,
    /// A permutation of the positions, and a matrix of as many rows and columns.
    places: Indices,
    sparse: SparseMatrix<F>,
    /// Whether operations may write to parts of registers.
    cuts: bool,
}

/// The odd positions in order, then the even ones.
fn permutation(length: usize) -> Vec<u32> {
    (0..length as u32).filter(|n| n % 2 == 1).chain((0..length as u32).filter(|n| n % 2 == 0)).collect()
}

/// How many equally long segments registers are cut into.
fn parts(length: usize) -> usize {
    (2..8).find(|parts| length.is_multiple_of(*parts)).unwrap_or(1)
}

impl<F: Element> Machine<F> {
    fn new(backend: &Backend, Setting { length, stride, .. }: Setting) -> Self {
        let places = backend.upload_indices(&permutation(length), length).unwrap();
        // Of 0, 1, 2, 0, 1, 2, .. values a row, but for the last, which is long.
        let mut offsets: Vec<u32> = (0..=length as u32).map(|row| row / 3 * 3 + [0, 0, 1][row as usize % 3]).collect();
        offsets[length] += length as u32;
        let nonzeros = offsets[length] as usize;
        let columns: Vec<u32> = (0..nonzeros).map(|n| (n * n % length) as u32).collect();
        let sparse = backend.upload_sparse(&offsets, &columns, &numbers::<F>(nonzeros, 5), length).unwrap();
        let Some(stride) = stride else {
            // The last one has a zero.
            let register = |n| backend.upload(&numbers::<F>(length, n as u64 + n as u64 / 3 * 2)).unwrap();
            let masks = (0..MASKS).map(|_| backend.falses(length).unwrap()).collect();
            let cell = |_| backend.zeros::<F>(1).unwrap();
            let (registers, cells) = ((0..REGISTERS).map(register).collect(), (0..REGISTERS).map(cell).collect());
            let parts = backend.zeros(parts(length)).unwrap();
            return Self { registers, cells, parts, masks, places, sparse, cuts: false };
        };
        let vector = backend.upload(&numbers::<F>(length + (REGISTERS - 1) * stride, 5)).unwrap();
        let mask = backend.falses(length + (MASKS - 1) * stride).unwrap();
        Self {
            registers: (0..REGISTERS).map(|n| vector.slice(n * stride..n * stride + length).unwrap()).collect(),
            cells: (0..REGISTERS).map(|n| vector.slice(7 * n % length.max(1)..7 * n % length.max(1) + 1).unwrap()).collect(),
            parts: vector.slice(stride..stride + parts(length)).unwrap(),
            masks: (0..MASKS).map(|n| mask.slice(n * stride..n * stride + length).unwrap()).collect(),
            places,
            sparse,
            cuts: true,
        }
    }

    fn algebra(
        &self,
        recording: &mut Recording,
        (kind, [a, b, c], output, mask): (Algebra, [usize; 3], usize, usize),
        outcome: &mut Pending<F>,
    ) -> Result<(), Error> {
        let [a, b, c, out] = [a, b, c, output].map(|n| &self.registers[n]);
        let (length, parts, mask, cell) = (a.len(), self.parts.len(), &self.masks[mask], &self.cells[output]);
        let (middle, even) = (length / 2, length / 2 * 2);
        let mut download = |recording: &mut Recording, vector: Vector<F>| {
            outcome.vectors.push(recording.download(&vector)?);
            Ok(())
        };
        match kind {
            Algebra::ValuesInto | Algebra::Concatenate if !self.cuts => Ok(()),
            Algebra::Transpose | Algebra::Wide if length % 2 == 1 && !self.cuts => Ok(()),
            Algebra::Gate => {
                let gate = a * b + b * c * F::from(7u64) + a * c.rotate(1) - (a - c).square();
                recording.evaluate_into(&gate, out)
            }
            Algebra::Combination => {
                let all = [a.expression(), -b.expression(), c.rotate(-3), (a - b).pow(5)];
                recording.evaluate_into(&Expression::linear_combination(all, cell.broadcast()), out)
            }
            Algebra::Choice => recording.evaluate_into(&(a * cell.broadcast()).select(mask, b + c), out),
            Algebra::Compare => recording.evaluate_mask_into(&(a * b).equals(c * c), mask),
            Algebra::Inverses => recording.batch_inverse_into(a, Zeros::Keep, out),
            Algebra::Quotients => recording.divide_into(a, b, Zeros::Keep, out),
            Algebra::InversesOrError | Algebra::QuotientsOrError => {
                outcome.refuses = true;
                match kind {
                    Algebra::InversesOrError => recording.batch_inverse_into(a, Zeros::Refuse, out),
                    _ => recording.divide_into(a, b, Zeros::Refuse, out),
                }
            }
            Algebra::Powers => recording.powers_into(&a.slice(0..1)?, &b.slice(0..1)?, out),
            Algebra::Value => recording.evaluate_at_into(a, &b.slice(0..1)?, cell),
            Algebra::ValueAt => recording.evaluate_point_into(a, &F::from(9u64), cell),
            Algebra::Values => {
                let values = recording.evaluate_at(a, &b.slice(0..length.min(3))?)?;
                download(recording, values)
            }
            Algebra::ValuesInto => recording.evaluate_at_into(a, &b.slice(0..middle)?, &out.slice(0..middle)?),
            Algebra::ByLinear => recording.divide_by_linear_into(a, &b.slice(middle..middle + 1)?, out),
            Algebra::Reverse => recording.reverse_into(a, out),
            Algebra::BitReverse if self.cuts && length > 0 => {
                let most = 1 << length.ilog2();
                recording.bit_reverse_into(&a.slice(0..most)?, &out.slice(length - most..length)?)
            }
            Algebra::BitReverse => recording.bit_reverse_into(a, out),
            Algebra::Rotate => recording.rotate_into(a, 3, out),
            Algebra::Transpose if length % 2 == 0 => recording.transpose_into(a, 2, middle, out),
            Algebra::Transpose => recording.strided_into(a, 1, 2, &out.slice(0..middle)?),
            Algebra::Strided => {
                let strided = recording.strided(a, 0, 3, length.div_ceil(3))?;
                download(recording, strided)
            }
            Algebra::Gather => recording.gather_into(a, &self.places, out),
            Algebra::Scatter => recording.scatter_into(a, &self.places, out),
            Algebra::Compact => {
                let count = recording.compact_into(a, mask, out)?;
                outcome.counts.push(recording.download_counts(&count)?);
                Ok(())
            }
            Algebra::Copy => recording.copy_into(a, out),
            Algebra::Outer => recording.matrix_product_into(a, cell, (length, 1, 1), out),
            Algebra::Dot => recording.matrix_vector_into(a, b, cell),
            Algebra::Wide => {
                let (two, shape) = (a.slice(0..4.min(even))?, (2, 4.min(even) / 2, middle));
                recording.matrix_product_into(&two, &b.slice(0..shape.1 * middle)?, shape, &out.slice(0..even)?)
            }
            Algebra::Long => {
                let inner = length / 3;
                let product = recording.matrix_product(&a.slice(0..3 * inner)?, &b.slice(0..2 * inner)?, (3, inner, 2))?;
                download(recording, product)
            }
            Algebra::Sparse => recording.sparse_vector_into(&self.sparse, a, out),
            Algebra::AnyNonzero => {
                let any = recording.any_nonzero(a, parts)?;
                outcome.masks.push(recording.download_mask(&any)?);
                Ok(())
            }
            Algebra::Extents => {
                let extents = recording.extents(a, parts)?;
                outcome.counts.push(recording.download_counts(&extents)?);
                Ok(())
            }
            Algebra::Concatenate => recording.concatenate_into(&[&a.slice(middle..length)?, &b.slice(0..middle)?], out),
        }
    }

    /// What is refused is refused on every engine: an output that overlaps an input, or to reverse bits of other lengths than powers of
    /// two.
    fn record(
        &mut self,
        recording: &mut Recording,
        instruction: &Instruction,
        outcome: &mut Pending<F>,
    ) -> Result<(), Error> {
        if let Instruction::Algebra(kind, inputs, output, mask) = *instruction {
            return self.algebra(recording, (kind, inputs, output, mask), outcome);
        }
        let Self { registers, cells, parts, masks, .. } = self;
        let length = registers[0].len();
        match instruction {
            Instruction::Apply(operation, inputs, output) => {
                let row = operation.row();
                let inputs: Vec<&Vector<F>> = inputs.iter().take(row.vectors).map(|&n| &registers[n]).collect();
                let scalar = [F::from(77u64)];
                recording.apply_into(*operation, &inputs, F::limbs(&scalar), &registers[*output])?;
            }
            Instruction::Sqrt(a, root, mask) => {
                let of_fq = |n: usize| (&registers[n] as &dyn Any).downcast_ref::<Vector<Fq>>();
                if let (Some(a), Some(root)) = (of_fq(*a), of_fq(*root)) {
                    recording.sqrt_into(a, root, &masks[*mask])?;
                }
            }
            Instruction::Equal(a, b, mask) => recording.equal_into(&registers[*a], &registers[*b], &masks[*mask])?,
            Instruction::Reduce(row, inputs, output) => {
                let row = &REDUCTIONS[*row];
                let inputs: Vec<&Vector<F>> = inputs.iter().take(row.vectors).map(|&n| &registers[n]).collect();
                recording.reduce_into(row.reduction, &inputs, &cells[*output])?;
            }
            Instruction::ReduceSegments(row, inputs) => {
                let row = &REDUCTIONS[*row];
                let inputs: Vec<&Vector<F>> = inputs.iter().take(row.vectors).map(|&n| &registers[n]).collect();
                recording.reduce_segments_into(row.reduction, &inputs, parts)?;
            }
            Instruction::Scan([product, exclusive, reversed, segments, heads], a, mask, output) => {
                let mut scan = if *product { Scan::product() } else { Scan::sum() };
                scan = if *exclusive { scan.exclusive() } else { scan };
                scan = if *reversed { scan.reversed() } else { scan };
                scan = if *segments { scan.segments(length / parts.len()) } else { scan };
                let (a, out) = (&registers[*a], &registers[*output]);
                match heads {
                    true => recording.scan_from_heads_into(scan, a, &masks[*mask], out)?,
                    false => recording.scan_into(scan, a, out)?,
                }
            }
            Instruction::Nonzero(a, mask) => masks[*mask] = recording.any_nonzero(&registers[*a], length)?,
            Instruction::Write(to, salt) => recording.write(&registers[*to], &numbers::<F>(length, *salt))?,
            Instruction::WriteMask(to, salt) => {
                let flags: Vec<bool> = (0..length as u64).map(|n| (n * n + salt) % 5 < 2).collect();
                recording.write_mask(&masks[*to], &flags)?;
            }
            Instruction::Zero(to) => recording.zero(&registers[*to])?,
            Instruction::Clear(mask) => recording.clear(&masks[*mask])?,
            Instruction::Duplicate(from, to) => registers[*to] = recording.duplicate(&registers[*from])?,
            Instruction::Algebra(..) => {}
            Instruction::Download(from) => outcome.vectors.push(recording.download(&registers[*from])?),
            Instruction::DownloadMask(from) => outcome.masks.push(recording.download_mask(&masks[*from])?),
        }
        Ok(())
    }
}

/// Runs a program; every other recording, or all of them, verified. Of a recording that was to invert a zero nothing is downloaded.
fn run<F: Element>(backend: &Backend, program: &[Instruction], setting: Setting) -> Outcome<F> {
    let mut machine = Machine::<F>::new(backend, setting);
    let mut outcome = Outcome { vectors: Vec::new(), masks: Vec::new(), counts: Vec::new(), errors: Vec::new() };
    for (number, instructions) in program.chunks(setting.per_recording).enumerate() {
        let before = [outcome.vectors.len(), outcome.masks.len(), outcome.counts.len()];
        let mut zero = None;
        for together in instructions.chunks(if setting.alone { 1 } else { instructions.len() }) {
            let mut recording = backend.record();
            let mut pending = Pending { vectors: Vec::new(), masks: Vec::new(), counts: Vec::new(), refuses: false };
            for instruction in together {
                match machine.record(&mut recording, instruction, &mut pending) {
                    Ok(()) => {}
                    Err(
                        error @ (Error::Overlap { .. } | Error::NotAPowerOfTwo { .. } | Error::OutOfRange { length: 0, .. }),
                    ) => {
                        outcome.errors.push(error.to_string());
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            let verified = number % 2 == 0;
            let ticket = if verified { recording.submit_verified() } else { recording.submit() }.unwrap();
            let Pending { vectors, masks, counts, refuses } = pending;
            if verified || refuses || vectors.len() + masks.len() + counts.len() > 0 {
                match ticket.wait() {
                    Ok(mut downloads) => {
                        outcome.vectors.extend(vectors.iter().map(|download| downloads.take(download).unwrap()));
                        outcome.masks.extend(masks.iter().map(|download| downloads.take(download).unwrap()));
                        outcome.counts.extend(counts.iter().map(|download| downloads.take(download).unwrap()));
                        assert!(downloads.is_empty());
                    }
                    Err(error @ Error::ZeroInverse { .. }) => zero = zero.or(Some(error.to_string())),
                    Err(error) => panic!("{error}"),
                }
            }
        }
        if let Some(error) = zero {
            outcome.errors.push(error);
            outcome.vectors.truncate(before[0]);
            outcome.masks.truncate(before[1]);
            outcome.counts.truncate(before[2]);
        }
    }
    let Machine { registers, cells, parts, masks, .. } = machine;
    outcome.vectors.extend(registers.iter().chain(&cells).chain([&parts]).map(|register| register.download().unwrap()));
    outcome.masks.extend(masks.iter().map(|mask| mask.download().unwrap()));
    outcome
}

/// All made before any is used: layers of 2023 crash, once in a hundred runs, where one thread makes a device and another uses its
/// own.
static ENGINES: LazyLock<[Vec<Watched>; 2]> = LazyLock::new(|| {
    // To synchronization validation a kernel that is given a slice touches the whole buffer: not for slices. One engine proves what it can.
    [Validation::Synchronization, Validation::On].map(|validation| {
        let proves = Watched::new(Options::new().validation(validation).verify(Verify::Proofs));
        engines(validation).into_iter().chain([proves]).collect()
    })
});

fn agree<F: Element>(engines: &[Watched], program: &[Instruction], setting: Setting) -> Result<(), TestCaseError> {
    let expected = run::<F>(&cpu(), program, Setting { alone: true, ..setting });
    for engine in engines {
        prop_assert_eq!(&run::<F>(engine, program, setting), &expected);
        prop_assert_eq!(engine.validation_log().messages(), Vec::<String>::new());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn random_programs_give_the_same_bytes_everywhere(program in program(), length in length(150), per_recording in 1usize..24) {
        let setting = Setting { length, per_recording, alone: false, stride: None };
        agree::<Fq>(&ENGINES[0], &program, setting)?;
        agree::<Fr>(&ENGINES[0], &program, setting)?;
    }

    #[test]
    fn and_so_they_do_on_slices_that_overlap(
        program in program(), length in length(60), per_recording in 1usize..24, stride in 1usize..60
    ) {
        let setting = Setting { length, per_recording, alone: false, stride: Some(stride) };
        agree::<Fq>(&ENGINES[1], &program, setting)?;
        agree::<Fr>(&ENGINES[1], &program, setting)?;
    }
}
