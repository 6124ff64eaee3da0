//! What is printed of a run in which every point was right.

use super::decompress::Clock;
use bls12_field_gpu::{Backend, DeviceKind, Engine, Field, Form, Operation, Verdict, Verify};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) file: PathBuf,
    pub(crate) points: usize,
    pub(crate) backend: Backend,
    pub(crate) ready: Clock,
    pub(crate) stages: Clock,
    pub(crate) cpu: Clock,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fact(f, "file", self.file.display())?;
        fact(
            f,
            "points",
            format_args!("{0} of G1: {1} in Lagrange form, {1} in monomial form", self.points, self.points / 2),
        )?;
        self.engine(f)?;

        heading(f, "making ready, once per process", "ms")?;
        row(f, "open the device", &self.ready, "open the device")?;
        row(f, "first pass, in which a device's pipelines are self-tested", &self.ready, "first pass")?;

        heading(f, "decompressing, as vector operations", "ms")?;
        for (stage, time) in &self.stages.stages {
            milliseconds(f, stage, *time)?;
        }
        milliseconds(f, "all of it", self.stages.total())?;

        heading(f, "the same by arkworks on the CPU, unchecked", "ms")?;
        row(f, "one core", &self.cpu, "one core")?;
        row(f, &format!("all cores: {} threads", rayon::current_num_threads()), &self.cpu, "all cores")?;

        writeln!(f, "\nAll {} points decode, lie on the curve and agree with arkworks.", self.points)?;
        writeln!(f, "Not tested: whether they are in the subgroup of prime order, and the ceremony's own proofs.")
    }
}

impl Report {
    /// Who computed, and if it was no GPU, why.
    fn engine(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Engine::Vulkan { device, device_local, width, workgroup_size, .. } = self.backend.engine() else {
            fact(f, "device", "none: no GPU takes part")?;
            fact(f, "computed by", self.backend.engine())?;
            fact(f, "memory", "the host's")?;
            return fact(f, "verification", "of nothing: what computes is what devices are verified with");
        };
        fact(f, "device", device)?;
        if device.kind == DeviceKind::Software {
            let gpu = |verdict: &Verdict| verdict.device.kind != DeviceKind::Software && verdict.turned_down.is_none();
            let which = if self.backend.verdicts().iter().any(gpu) { "not the GPU" } else { "there is no usable GPU here" };
            fact(f, "", format_args!("{which}: this runs on a driver that computes on the CPU"))?;
        }
        let stats = self.backend.stats();
        let by_device = stats.calls - stats.cpu_calls;
        fact(f, "computed by", format_args!("the device: {by_device} calls; arkworks: {}", stats.cpu_calls))?;
        let explained = self.backend.explain(Operation::Sqrt, Field::Fq, Form::Canonical, self.points).to_string();
        for (number, line) in explained.lines().enumerate() {
            fact(f, if number == 0 { "why" } else { "" }, line)?;
        }
        let fallbacks = stats.fallbacks;
        if fallbacks > 0 {
            fact(f, "", format_args!("it was lost: arkworks computed {fallbacks} of the operations"))?;
        }
        for verdict in self.backend.verdicts().iter().filter(|verdict| verdict.device != *device) {
            fact(f, "another device", verdict)?;
        }
        fact(f, "kernels", format_args!("{}, workgroups of {workgroup_size}", width.name()))?;
        fact(f, "memory", if *device_local { "device-local, through staging buffers" } else { "the host's" })?;
        match self.backend.verify() {
            Verify::All | Verify::Proofs => {
                fact(f, "verification", "every element of every operation, by arkworks on the CPU (timed too)")
            }
            Verify::Sample(n) => fact(f, "verification", format_args!("{n} random elements of every operation")),
            Verify::Off => fact(f, "verification", "off"),
        }
    }
}

fn fact(f: &mut fmt::Formatter<'_>, name: &str, value: impl fmt::Display) -> fmt::Result {
    writeln!(f, "{name:<15}{value}")
}

fn heading(f: &mut fmt::Formatter<'_>, name: &str, unit: &str) -> fmt::Result {
    writeln!(f, "\n{name:<60}{unit:>10}")
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, clock: &Clock, stage: &str) -> fmt::Result {
    let time = clock.stages.iter().find(|(name, _)| *name == stage).map_or(Duration::ZERO, |(_, time)| *time);
    milliseconds(f, name, time)
}

fn milliseconds(f: &mut fmt::Formatter<'_>, name: &str, time: Duration) -> fmt::Result {
    let milliseconds = time.as_secs_f64() * 1e3;
    writeln!(f, "  {name:<58}{milliseconds:>10.2}")
}
