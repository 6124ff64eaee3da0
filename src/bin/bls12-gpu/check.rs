//! Every operation in every variant on one device, every result compared with the CPU reference.

use crate::measure::Inputs;
use crate::tasks;
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::{
    Backend, DeviceError, DeviceKind, Engine, Error, Field, Form, Formulation, MemoryMode, Operation, Options, TABLE, Track,
    Verify, Width,
};
use cpu_reference::LimbField as _;
use field_kernels::permutations;
use std::collections::BTreeSet;

/// Lengths around workgroups, and one of many workgroups.
pub(crate) const LENGTHS: [usize; 6] = [1, 63, 64, 127, 129, 100_003];

/// Walks the tables; prints a line per variant.
pub(crate) fn check(options: &Options) -> Result<(), Error> {
    let variants = Width::ALL.into_iter().flat_map(|width| Formulation::ALL.map(|formulation| (width, formulation)));
    for (width, formulation) in variants.filter(|variant| has_kernels(*variant)) {
        for memory in [MemoryMode::DeviceLocal, MemoryMode::Host] {
            let options = options.clone().width(width).formulation(formulation).memory(memory).verify(Verify::All);
            let name = format!("{}, {}", width.name(), formulation.name());
            let backend = match Backend::new(&options) {
                Err(Error::InvalidOption { option: "width" | "formulation", reason }) => {
                    println!("{name}: skipped, {reason}");
                    continue;
                }
                made => made?,
            };
            for row in &TABLE {
                for field in Field::ALL.into_iter().filter(|&field| row.available(field)) {
                    let decision = backend.explain(row.operation, field, Form::Montgomery, 1);
                    // What does not multiply is the same in every formulation.
                    if decision.multiplication.is_none_or(|multiplication| multiplication.formulation != formulation) {
                        continue;
                    }
                    for length in LENGTHS {
                        let inputs = Inputs::new(row.operation, field, length);
                        inputs.call(Form::Canonical, |call| backend.execute(call))?;
                        inputs.call(Form::Montgomery, |call| backend.execute(call))?;
                    }
                }
            }
            let recordings = tasks::check::<Fq>(&backend)? + tasks::check::<Fr>(&backend)?;
            let verified = backend.stats().verified_elements;
            println!("{name}: {verified} elements right, of calls and {recordings} recordings; {}", backend.engine());
            chunks(&Backend::new(&options.chunk_elements(9000))?)?;
        }
    }
    for limit in [None, Some(u64::MAX)] {
        nearly_full(options, limit)?;
    }
    Ok(())
}

/// A call that needs several times what resident vectors leave of the device's memory, or of three quarters of it, which is what a
/// backend keeps to by itself. Where a device shares the CPU's memory, that is left alone.
fn nearly_full(options: &Options, limit: Option<u64>) -> Result<(), Error> {
    let staged = options.clone().memory(MemoryMode::DeviceLocal).verify(Verify::All);
    let backend = Backend::new(&limit.map_or(staged.clone(), |limit| staged.device_memory(limit)))?;
    let Engine::Vulkan { device, .. } = backend.engine() else { return Ok(()) };
    let memory = device.memory;
    if device.kind != DeviceKind::Discrete {
        println!("a full device: skipped on a device that is {:?}", device.kind);
        return Ok(());
    }
    let inputs = Inputs::new(Operation::Add, Field::Fq, 1 << 22);
    let call = || inputs.call(Form::Canonical, |call| backend.execute(call)).map(|outcome| outcome.report.dispatches);
    let usual = call()?;
    let (mut resident, mut refused) = (Vec::new(), None);
    // 3 GiB, half of that where it is refused, and so on.
    let mut length = 1 << 26;
    while length > 1 << 16 {
        match backend.zeros::<Fq>(length) {
            Ok(vector) => resident.push(vector),
            Err(error @ Error::Device(DeviceError::OutOfMemory { .. })) => {
                length /= 2;
                refused = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    let full = call()?;
    let bytes = resident.iter().map(|vector| vector.len() * Field::Fq.bytes()).sum::<usize>();
    drop(resident);
    let again = call()?;
    println!(
        "a full device: with {:.2} of {:.2} GB resident, {} additions right in {full} dispatches, {usual} before and {again} \
         afterwards; {}",
        bytes as f64 / 1e9,
        memory as f64 / 1e9,
        1 << 22,
        refused.map_or_else(String::new, |error| error.to_string())
    );
    Ok(())
}

/// Whether any operation can run in this variant.
fn has_kernels((width, formulation): (Width, Formulation)) -> bool {
    permutations().any(|made| made.width == width && made.formulation == formulation)
}

/// Every operation in several chunks under way at a time, over all queues that the device has for it; from pageable and from
/// pinned memory.
fn chunks(backend: &Backend) -> Result<(), Error> {
    let mut queues = BTreeSet::new();
    for row in &TABLE {
        for field in Field::ALL.into_iter().filter(|&field| row.available(field)) {
            let inputs = Inputs::new(row.operation, field, LENGTHS[5]);
            // The first call also tests the kernel.
            inputs.call(Form::Montgomery, |call| backend.execute(call))?;
            backend.start_profile()?;
            inputs.call(Form::Montgomery, |call| backend.execute(call))?;
            queues.extend(backend.take_profile().spans.into_iter().filter_map(|span| match span.track {
                Track::Queue(queue) => Some(format!("{} on {queue}", span.stage.name())),
                Track::Thread(_) => None,
            }));
        }
    }
    let inputs = Inputs::new(Operation::Mul, Field::Fq, LENGTHS[5]);
    let (a, b) = (Fq::elements(inputs.vector(0)), Fq::elements(inputs.vector(1)));
    let (mut x, mut y, mut z) = (backend.pinned(a.len())?, backend.pinned(a.len())?, backend.pinned(a.len())?);
    x.copy_from_slice(a);
    y.copy_from_slice(b);
    // All pinned; some pinned, and slices of it.
    backend.mul_into(&x, &y, &mut z)?;
    backend.mul_into(&x[7..], &b[7..], &mut z[..a.len() - 7])?;
    let queues: Vec<String> = queues.into_iter().collect();
    println!(
        "  in chunks, pageable and pinned: {} elements right; {}",
        backend.stats().verified_elements,
        queues.join(", ")
    );
    Ok(())
}
