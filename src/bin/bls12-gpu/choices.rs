//! Who computes what: calibration, and what comes of it.

use bls12_field_gpu::{
    Backend, Because, Error, Evidence, Field, Form, Operation, Options, Place, Placement, TABLE, Thoroughness, Verify,
};
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// Measures as thoroughly as time allows; prints what is decided by it.
pub(crate) fn calibrate(options: &Options, time: Duration) -> Result<(), Box<dyn std::error::Error>> {
    let backend = Backend::new(&options.clone().placement(Placement::Auto))?;
    println!("{}", backend.engine());
    measured(&backend, Thoroughness::Thorough(time))?;
    match backend.cache_directory() {
        Some(directory) => println!("kept in {}", directory.display()),
        None => println!("not kept: there is no cache directory"),
    }
    decisions(&backend);
    Ok(())
}

/// Has a backend measure, behind a bar.
pub(crate) fn measured(backend: &Backend, thoroughness: Thoroughness) -> Result<(), Error> {
    let bar = bar(1000);
    let result = backend.calibrate(thoroughness, &mut |done, what| {
        bar.set_position((1000.0 * done) as u64);
        bar.set_message(what.to_owned());
    });
    bar.finish_and_clear();
    result
}

/// A bar on the terminal; nothing where there is none.
pub(crate) fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {percent:>3}% {msg}") {
        bar.set_style(style);
    }
    bar
}

/// For every operation and field: at which lengths a device computes it, if everything is checked and if nothing is.
pub(crate) fn decisions(backend: &Backend) {
    println!(
        "\nlengths at which the device computes a call on canonical elements in host memory, alone or, unchecked, with the CPU:\n"
    );
    println!("{:<16} {:<3} {:<22} {:<22} {:<14} multiplies in", "operation", "", "every element checked", "unchecked", "by");
    for row in &TABLE {
        for field in Field::ALL.into_iter().filter(|&field| row.available(field)) {
            let lengths = |verify| lengths(backend, verify, row.operation, field);
            let decision = backend.explain(row.operation, field, Form::Canonical, 1 << 20);
            let evidence = match decision.evidence {
                Evidence::Measured => "measurement".to_owned(),
                Evidence::Like(operation, field) => format!("{} in {field}", operation.name()),
                Evidence::Guessed => "guess".to_owned(),
                _ => "-".to_owned(),
            };
            let multiplies = decision.multiplication.filter(|multiplication| multiplication.because != Because::Only);
            let multiplies = multiplies.map(|multiplication| multiplication.to_string()).unwrap_or_default();
            let (checked, unchecked) = (lengths(Verify::All), lengths(Verify::Off));
            println!("{:<16} {field} {checked:<22} {unchecked:<22} {evidence:<14} {multiplies}", row.name);
        }
    }
}

/// Powers of two, from 1 to 16 million.
fn lengths(backend: &Backend, verify: Verify, operation: Operation, field: Field) -> String {
    let on_device =
        |exponent: &u32| backend.explain_with(verify, operation, field, Form::Canonical, 1 << exponent).place != Place::Cpu;
    let most = 24;
    let Some(first) = (0..=most).find(on_device) else { return "none".into() };
    match (first..=most).find(|exponent| !on_device(exponent)) {
        None if first == 0 => "all".into(),
        None => format!("from {}", 1 << first),
        Some(end) => {
            format!("{} to {}{}", 1 << first, 1 << (end - 1), if (end..=most).any(|e| on_device(&e)) { ", ..." } else { "" })
        }
    }
}
