//! Every operation in every variant on one device, every result compared with the CPU reference.

use crate::measure::Inputs;
use bls12_field_gpu::{Backend, Error, Field, Form, MemoryMode, Options, TABLE, Verify, Width};

/// Lengths around workgroups, and one of many workgroups.
const LENGTHS: [usize; 6] = [1, 63, 64, 127, 129, 100_003];

/// Walks the table; prints a line per variant.
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
            println!("{}: {} elements right", backend.engine(), backend.stats().verified_elements);
        }
    }
    Ok(())
}
