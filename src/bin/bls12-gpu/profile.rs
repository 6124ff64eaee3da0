//! Where the time of one call goes.

use crate::measure::Inputs;
use bls12_field_gpu::{Backend, Error, Field, Form, Options, TABLE};
use std::path::Path;

/// Profiles a call on elements in host memory: prints the stages, and writes a trace.
pub(crate) fn profile(
    options: &Options,
    (operation, field, length): (&str, &str, usize),
    out: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let row = TABLE.iter().find(|row| row.name == operation);
    let row = row.ok_or_else(|| format!("there is no operation {operation}: see `doctor` for their names"))?;
    let field = Field::ALL.into_iter().find(|known| known.to_string().eq_ignore_ascii_case(field));
    let field =
        field.filter(|field| row.available(*field)).ok_or("the field is fq or fr, and not every operation is in both")?;
    let backend = Backend::new(options)?;
    println!("{operation} in {field}, {length} elements from pageable memory; {}", backend.engine());
    let inputs = Inputs::new(row.operation, field, length);
    let call = || -> Result<_, Error> { inputs.call(Form::Canonical, |call| backend.execute(call)) };
    // The first makes the kernel, and memory.
    call()?;
    backend.start_profile()?;
    let report = call()?.report;
    let profile = backend.take_profile();
    println!("{} dispatches, {} elements checked\n\n{profile}", report.dispatches, report.verified);
    std::fs::write(out, profile.trace())?;
    println!("\n{}: opens in ui.perfetto.dev", out.display());
    Ok(())
}
