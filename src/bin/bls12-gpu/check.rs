//! Every operation in every variant on one device, every result compared with the CPU reference.

use crate::measure::Inputs;
use ark_bls12_381::{Fq, Fr};
use bls12_field_gpu::ark::Element;
use bls12_field_gpu::{
    Backend, Error, Field, Form, MemoryMode, Operation, Options, REDUCTIONS, TABLE, Vector, Verify, Width,
};

/// Lengths around workgroups, and one of many workgroups.
const LENGTHS: [usize; 6] = [1, 63, 64, 127, 129, 100_003];

/// Walks the tables; prints a line per variant.
pub(crate) fn check(options: &Options) -> Result<(), Error> {
    for width in Width::ALL {
        for memory in [MemoryMode::DeviceLocal, MemoryMode::Host] {
            let options = options.clone().width(width).memory(memory).verify(Verify::All);
            let backend = match Backend::new(&options) {
                Err(Error::InvalidOption { option: "width", reason }) => {
                    println!("{}: skipped, {reason}", width.name());
                    continue;
                }
                made => made?,
            };
            for row in &TABLE {
                for field in Field::ALL.into_iter().filter(|&field| row.available(field)) {
                    for length in LENGTHS {
                        let inputs = Inputs::new(row.operation, field, length);
                        inputs.call(Form::Canonical, |call| backend.execute(call))?;
                        inputs.call(Form::Montgomery, |call| backend.execute(call))?;
                    }
                }
            }
            reductions::<Fq>(&backend)?;
            reductions::<Fr>(&backend)?;
            println!("{}: {} elements right", backend.engine(), backend.stats().verified_elements);
        }
    }
    Ok(())
}

/// Every reduction, in one verified recording.
fn reductions<F: Element>(backend: &Backend) -> Result<(), Error> {
    let mut recording = backend.record();
    for length in LENGTHS {
        let inputs = Inputs::new(Operation::Mul, F::FIELD, length);
        let vectors = [backend.upload(F::elements(inputs.vector(0)))?, backend.upload(F::elements(inputs.vector(1)))?];
        for row in &REDUCTIONS {
            let inputs: Vec<&Vector<F>> = vectors.iter().take(row.vectors).collect();
            recording.reduce_into(row.reduction, &inputs, &backend.zeros(1)?)?;
        }
    }
    recording.submit_verified()?.wait().map(drop)
}
