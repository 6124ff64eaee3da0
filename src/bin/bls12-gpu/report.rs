//! The report: a fixed set of cases, each checked against the CPU reference, as tables and as rows of name, value and unit.

use crate::algebra::{Algebra, Outcome};
use crate::goals::{self, Goal};
use crate::kernels::Kernels;
use crate::measure::{Effort, Inputs, median, on_threads, text_variables, warming};
use ark_bls12_381::Fq;
use ark_ff::{Field as _, batch_inversion};
use bls12_field_gpu::{
    Backend, CacheDirectory, Calibrate, DeviceChoice, Engine, Error, Field, Form, MemoryMode, Operation, Options, Placement,
    Recording, Verify, oneshot, rates,
};
use cpu_reference::LimbField as _;
use serde_json::json;
use std::fmt::{self, Write as _};
use std::time::{Duration, Instant, SystemTime};

pub(crate) struct Report {
    /// Lines of name and value: the machine, the commit, the date.
    pub(crate) head: Vec<(&'static str, String)>,
    pub(crate) tables: Vec<Table>,
    /// Titles and preformatted text.
    pub(crate) texts: Vec<(&'static str, String)>,
    pub(crate) algebra: Algebra,
    rows: Vec<Row>,
}

/// A name and a value for each column.
pub(crate) type Line = (String, Vec<Option<f64>>);

pub(crate) struct Table {
    pub(crate) title: &'static str,
    pub(crate) columns: Vec<&'static str>,
    pub(crate) lines: Vec<Line>,
}

/// A table whose cells are text, after some words about it.
pub(crate) struct Sheet<'a> {
    pub(crate) title: &'static str,
    pub(crate) note: &'static str,
    pub(crate) columns: Vec<&'a str>,
    pub(crate) lines: Vec<Vec<String>>,
}

/// Host-to-host additions by the persistent backend of the project that this one grew from, in microseconds, as published, on
/// a GPU that it does not name.
const SEEDS: [(usize, f64); 5] = [(64, 3900.0), (1 << 10, 4440.0), (1 << 12, 4970.0), (1 << 14, 7710.0), (1 << 16, 17220.0)];

#[derive(Clone)]
struct Row {
    name: String,
    value: f64,
    unit: &'static str,
}

const SIZES: [(usize, &str); 6] =
    [(64, "64"), (1 << 10, "1k"), (1 << 12, "4k"), (1 << 14, "16k"), (1 << 16, "64k"), (1 << 20, "1m")];

/// Who computes in a column of the tables.
enum Column {
    OneShot,
    Backend(Backend),
    /// The CPU reference on a pool of one thread.
    OneCore(Backend, rayon::ThreadPool),
}

impl Column {
    /// Computes into `out`, which the caller keeps, as one does who cares for time.
    fn run(&self, options: &Options, inputs: &Inputs, out: &mut [u64]) -> Result<(), Error> {
        inputs.call(Form::Canonical, |call| match self {
            Column::OneShot => {
                let outcome = oneshot::execute(&options.clone().verify(Verify::Off), call)?;
                out.copy_from_slice(&outcome.elements);
                Ok(())
            }
            Column::Backend(backend) => backend.execute_into(call, out, &mut []).map(drop),
            Column::OneCore(backend, pool) => pool.install(|| backend.execute_into(call, out, &mut []).map(drop)),
        })
    }

    fn effort(&self, quick: bool) -> Effort {
        match self {
            _ if quick => Effort::QUICK,
            Column::OneShot => Effort::SLOW,
            _ => Effort::FULL,
        }
    }
}

/// Measures everything but the vector algebra. Says what has been measured, and saves it.
pub(crate) fn measure(
    options: &Options,
    device: Option<usize>,
    commit: String,
    quick: bool,
    save: &dyn Fn(&Report, &Kernels) -> Outcome<()>,
    tell: &dyn Fn(&str),
) -> Outcome<(Report, Kernels)> {
    let kernels = Kernels::measure(options, quick)?;
    tell("kernels");
    let backend = Backend::new(options)?;
    let mut report = Report {
        head: head(&backend, commit, "report", quick),
        tables: Vec::new(),
        texts: Vec::new(),
        algebra: Algebra::default(),
        rows: Vec::new(),
    };
    let one_core = || rayon::ThreadPoolBuilder::new().num_threads(1).build();
    let with = |memory: Option<MemoryMode>, verify| {
        let options = options.clone().verify(verify);
        let options = memory.into_iter().fold(options, Options::memory);
        Backend::new(&options).map(Column::Backend)
    };
    let cpu = Backend::new(&Options::new().device(DeviceChoice::Cpu))?;
    let both = Backend::new(&with_the_cpu(options, quick))?;
    let columns = vec![
        ("one-shot", Column::OneShot),
        ("host memory", with(Some(MemoryMode::Host), Verify::Off)?),
        ("device-local", with(Some(MemoryMode::DeviceLocal), Verify::Off)?),
        ("device", with(None, Verify::Off)?),
        ("device, with the CPU", Column::Backend(both)),
        ("device, all verified", with(None, Verify::All)?),
        ("CPU, one core", Column::OneCore(cpu.clone(), one_core()?)),
        ("CPU, all cores", Column::Backend(cpu.clone())),
    ];
    for (operation, title) in [
        (Operation::Add, "Fq add, host to host, canonical limbs: microseconds a call"),
        (Operation::Mul, "Fq mul, host to host, canonical limbs: microseconds a call"),
        (Operation::Inverse, "Fq inverse, host to host, canonical limbs: microseconds a call"),
    ] {
        let mut table = Table { title, columns: columns.iter().map(|(name, _)| *name).collect(), lines: Vec::new() };
        let sizes = SIZES.iter().filter(|(length, _)| !quick || *length <= 1 << 10);
        for &(length, size) in sizes {
            let inputs = Inputs::new(operation, Field::Fq, length);
            let expected = inputs.call(Form::Canonical, |call| cpu.execute(call))?;
            let mut line = Vec::new();
            for (name, column) in &columns {
                let mut out = vec![0; expected.elements.len()];
                let checked = (&mut out[..], u64::MAX, &expected.elements[..]);
                let time = median(column.effort(quick), checked, |out| column.run(options, &inputs, out))
                    .map_err(|error| format!("{} of {length} elements by {name}: {error}", operation.name()))?;
                line.push(Some(micros(time)));
                let prefix = match *name {
                    "one-shot" => "oneshot_",
                    "device" => "device_",
                    "device, with the CPU" => "",
                    _ => continue,
                };
                report.row(format!("{prefix}{}_{size}_host_us", operation.name()), micros(time), "us");
            }
            table.lines.push((format!("{length}"), line));
        }
        report.tables.push(table);
        tell(title);
        save(&report, &kernels)?;
    }
    report.beside_the_seeds();
    let unverified = Backend::new(&options.clone().verify(Verify::Off))?;
    report.against_one_core(&unverified, quick)?;
    report.resident(&unverified, quick)?;
    kernels.add_to(&mut report);
    tell("operations against one core, and of resident vectors");
    report.pipelines(options)?;
    tell("pipelines");
    report.engine(options, device, quick)?;
    tell("engine");
    save(&report, &kernels)?;
    Ok((report, kernels))
}

/// The rows about kernels alone.
pub(crate) fn of_kernels(kernels: &Kernels, head: Vec<(&'static str, String)>) -> Report {
    let mut report = Report { head, tables: Vec::new(), texts: Vec::new(), algebra: Algebra::default(), rows: Vec::new() };
    kernels.add_to(&mut report);
    report
}

/// These options for calls that the device and the CPU compute together, as they do by default where neither is sooner alone; how, from
/// measurements on this machine, which the first call makes.
pub(crate) fn with_the_cpu(options: &Options, quick: bool) -> Options {
    let calibrate = if quick { Calibrate::Off } else { Calibrate::Again };
    options.clone().verify(Verify::Off).placement(Placement::Both).calibrate(calibrate)
}

/// What git says is checked out here.
pub(crate) fn commit_here() -> String {
    let output = std::process::Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output();
    let text = output.ok().filter(|output| output.status.success()).and_then(|output| String::from_utf8(output.stdout).ok());
    text.map_or_else(|| "unknown".into(), |text| text.trim().to_owned())
}

pub(crate) fn head(backend: &Backend, commit: String, command: &str, quick: bool) -> Vec<(&'static str, String)> {
    let mut head = Vec::new();
    if let Engine::Vulkan { device, device_local, width, workgroup_size, .. } = backend.engine() {
        let memory = if *device_local { "device-local" } else { "host" };
        head.push(("gpu", device.name.clone()));
        head.push(("driver", device.driver.clone()));
        head.push(("vulkan", device.vulkan.clone()));
        head.push(("defaults", format!("{memory} memory, {} kernels, workgroups of {workgroup_size}", width.name())));
    }
    head.push(("cpu", cpu()));
    head.push(("commit", commit));
    head.push(("date", humantime::format_rfc3339_seconds(SystemTime::now()).to_string()));
    let environment = text_variables().filter(|(name, _)| name.starts_with("GPU_") || name.starts_with("__GL_"));
    let environment: String = environment.map(|(name, value)| format!("{name}={value} ")).collect();
    head.push(("command", format!("{environment}bls12-gpu {command}{}", if quick { " --quick" } else { "" })));
    head
}

/// The CPU and how many threads of it are used.
pub(crate) fn cpu() -> String {
    let model = match rates::processor() {
        "" => "unknown",
        model => model,
    };
    format!("{model}, {} threads", rayon::current_num_threads())
}

impl Report {
    pub(crate) fn row(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.rows.push(Row { name: name.into(), value, unit });
    }

    fn beside_the_seeds(&mut self) {
        let columns = vec!["theirs", "device, with the CPU", "theirs over that"];
        let title =
            "Fq add, host to host, unverified, beside the figures of the project this one grew from: microseconds a call";
        let mut table = Table { title, columns, lines: Vec::new() };
        for (length, theirs) in SEEDS {
            let size = SIZES.iter().find(|(size, _)| *size == length).map_or("", |(_, name)| name);
            let name = format!("add_{size}_host_us");
            if let Some(row) = self.rows.iter().find(|row| row.name == name) {
                table.lines.push((length.to_string(), vec![Some(theirs), Some(row.value), Some(theirs / row.value)]));
            }
        }
        self.tables.push(table);
    }

    /// Heavy operations on arkworks' types, host to host, against arkworks on one core.
    fn against_one_core(&mut self, backend: &Backend, quick: bool) -> Result<(), Box<dyn std::error::Error>> {
        let effort = if quick { Effort::QUICK } else { Effort::FULL };
        let slow = if quick { Effort::QUICK } else { Effort::SLOW };
        let columns = vec!["GPU, us", "one core, us", "one core over GPU"];
        let title =
            "Fq on arkworks' types, host to host, unverified, after half a second of work (none if quick), against one core";
        let mut table = Table { title, columns, lines: Vec::new() };
        let cpu = Backend::new(&Options::new().device(DeviceChoice::Cpu))?;
        let spoil = Fq::from(0u64);
        let warm = warming(backend, quick)?;
        for (length, size) in SIZES {
            // One core takes ten seconds for a million inverses.
            if length > if quick { 1 << 10 } else { 1 << 16 } {
                break;
            }
            let pow = Inputs::new(Operation::Pow, Field::Fq, length);
            let a = Fq::elements(pow.vector(0));
            let mut out = vec![spoil; length];
            let ratio = |cpu: Duration, gpu: Duration| cpu.as_secs_f64() / gpu.as_secs_f64();

            let expected = cpu.inverse(a)?;
            warm()?;
            let gpu = median(effort, (&mut out, spoil, &expected), |out| backend.inverse_into(a, out))?;
            let one = median(slow, (&mut out, spoil, &expected), |out| {
                out.iter_mut().zip(a).for_each(|(to, from)| *to = from.inverse().unwrap_or_default());
                Ok(())
            })?;
            let batch = median(slow, (&mut out, spoil, &expected), |out| {
                out.copy_from_slice(a);
                batch_inversion(out);
                Ok(())
            })?;
            table.line(format!("inverse(), {length}"), gpu, one);
            table.line(format!("batch_inversion, {length}"), gpu, batch);
            self.row(format!("inverse_{size}_vs_1core"), ratio(one, gpu), "ratio");
            self.row(format!("inverse_{size}_vs_batch_1core"), ratio(batch, gpu), "ratio");

            let exponent = pow.parameter();
            let expected = cpu.pow(a, exponent)?;
            warm()?;
            let gpu = median(effort, (&mut out, spoil, &expected), |out| backend.pow_into(a, exponent, out))?;
            let one = median(slow, (&mut out, spoil, &expected), |out| {
                out.iter_mut().zip(a).for_each(|(to, from)| *to = from.pow(exponent));
                Ok(())
            })?;
            table.line(format!("pow, 381 bits, {length}"), gpu, one);
            self.row(format!("pow_{size}_vs_1core"), ratio(one, gpu), "ratio");
            self.row(format!("pow_{size}_host_us"), micros(gpu), "us");
        }
        self.tables.push(table);
        if !quick {
            // The kernel's rate shows in a long vector, where a second goes by on one core for every 50 000 elements.
            let length = 1 << 20;
            let pow = Inputs::new(Operation::Pow, Field::Fq, length);
            let a = Fq::elements(pow.vector(0));
            let expected = cpu.pow(a, pow.parameter())?;
            let mut out = vec![spoil; length];
            warm()?;
            let gpu = median(effort, (&mut out, spoil, &expected), |out| backend.pow_into(a, pow.parameter(), out))?;
            self.row("pow_1m_host_us", micros(gpu), "us");
        }
        Ok(())
    }

    /// Vectors that stay on the device.
    fn resident(&mut self, backend: &Backend, quick: bool) -> Result<(), Box<dyn std::error::Error>> {
        let (seven, eleven) = (backend.upload(&[Fq::from(7u64); 64])?, backend.upload(&[Fq::from(11u64); 64])?);
        let (out, mut sums, mut expected) = (backend.zeros(64)?, [Fq::from(0u64); 64], 0u64);
        let mut times = Vec::new();
        // Of a recording that was submitted before, and of one that was not: no two of these have the same order.
        let (mut repeated, mut new) = (Vec::new(), Vec::new());
        let (threads, rounds) = if quick { (1, 3) } else { (6, 50) };
        let mut round = 0;
        on_threads(threads, || {
            for (launches, differs) in [(1, false), (256, false), (256, true)] {
                // The first few are not counted.
                for counted in (0..rounds + 5).map(|number| number >= 5) {
                    round += 1;
                    let begin = Instant::now();
                    let mut recording = backend.record();
                    for launch in 0..launches {
                        let (addend, value) =
                            if differs && round >> (launch % 16) & 1 == 0 { (&eleven, 11) } else { (&seven, 7) };
                        recording.add_into(&out, addend, &out)?;
                        expected += value;
                    }
                    let ticket = recording.submit()?;
                    let submitted = begin.elapsed();
                    ticket.wait()?;
                    let elapsed = begin.elapsed();
                    match (launches, differs) {
                        _ if !counted => {}
                        (1, _) => times.push(elapsed),
                        (_, true) => new.push(submitted),
                        (_, false) => repeated.push(submitted),
                    }
                }
                // Each adds to what all before it made.
                out.download_into(&mut sums)?;
                if sums != [Fq::from(expected); 64] {
                    return Err("a resident addition is wrong".into());
                }
            }
            Ok(())
        })?;
        times.sort();
        repeated.sort();
        new.sort();
        self.row("add_64_resident_us", micros(times[times.len() / 2]), "us");
        self.row("cpu_per_dispatch_us", micros(new[new.len() / 2]) / 256.0, "us");
        self.row("cpu_per_repeated_dispatch_us", micros(repeated[repeated.len() / 2]) / 256.0, "us");
        Ok(())
    }

    /// The first multiplication of a process, with this library's cache cold and warm.
    fn pipelines(&mut self, options: &Options) -> Result<(), Box<dyn std::error::Error>> {
        let directory = std::env::temp_dir().join(format!("bls12-gpu-report-{}", std::process::id()));
        let options = options.clone().cache(CacheDirectory::At(directory.clone())).verify(Verify::Off);
        let cpu = Backend::new(&Options::new().device(DeviceChoice::Cpu))?;
        let inputs = Inputs::new(Operation::Mul, Field::Fq, 64);
        let expected = inputs.call(Form::Montgomery, |call| cpu.execute(call))?.elements;
        let mut table = Table {
            title: "First Fq mul of a new backend: milliseconds, and hits in the pipeline cache kept on disk",
            columns: vec!["backend", "first call", "second call", "hits"],
            lines: Vec::new(),
        };
        for name in ["cold", "warm"] {
            let begin = Instant::now();
            let backend = Backend::new(&options)?;
            let made = begin.elapsed();
            let call = || -> Result<Duration, Box<dyn std::error::Error>> {
                let begin = Instant::now();
                let outcome = inputs.call(Form::Montgomery, |call| backend.execute(call))?;
                let time = begin.elapsed();
                if outcome.elements == expected { Ok(time) } else { Err("a first multiplication is wrong".into()) }
            };
            let (first, second) = (call()?, call()?);
            let hits = backend.stats().device.pipeline_cache_hits as f64;
            let millis = |time| micros(time) / 1000.0;
            table.lines.push((name.into(), vec![Some(millis(made)), Some(millis(first)), Some(millis(second)), Some(hits)]));
            self.row(format!("first_mul_{name}_ms"), millis(first), "ms");
            self.row(format!("pipeline_cache_hits_{name}"), hits, "count");
        }
        std::fs::remove_dir_all(directory)?;
        self.tables.push(table);
        Ok(())
    }

    fn rows(&self) -> impl Iterator<Item = Row> {
        let algebra = self.algebra.rows.iter().map(|row| Row { name: row.name.into(), value: row.value, unit: row.unit });
        self.rows.iter().cloned().chain(algebra)
    }

    /// The device's name.
    fn device(&self) -> &str {
        self.head.iter().find(|(name, _)| *name == "gpu").map_or("", |(_, device)| device)
    }

    /// The report as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from("# bls12-gpu report\n\n");
        for (name, value) in &self.head {
            let _ = writeln!(text, "- {name}: {value}");
        }
        text.push_str(
            "\nMedians after warm-up. `device` is the device alone; with the CPU, calls of at least 4096 elements are computed by \
             both where that was predicted, from measurements on this machine, to be sooner. Every output of every repetition \
             was compared with the CPU reference (of the streams, of the vector algebra and of batches, those of one \
             repetition). Goals are for an NVIDIA H200, and so are, unless another GPU is named, the rates of others.\n",
        );
        self.tables.iter().for_each(|table| text.push_str(&table.sheet().to_string()));
        self.algebra.sheets(self.device()).iter().for_each(|sheet| text.push_str(&sheet.to_string()));
        for (title, lines) in &self.texts {
            let _ = write!(text, "\n## {title}\n\n```text\n{lines}\n```\n");
        }
        text.push_str("\n## Rows\n\n| name | value | unit | goal | best of others |\n|---|---:|---|---|---|\n");
        for row in self.rows() {
            let [goal, peer] = goals::texts(&row.name, row.value, self.device());
            let _ = writeln!(text, "| `{}` | {} | {} | {goal} | {peer} |", row.name, number(row.value), row.unit);
        }
        text
    }

    /// The report as JSON.
    pub(crate) fn json(&self) -> Result<String, serde_json::Error> {
        let mut document = serde_json::Map::new();
        for (name, value) in &self.head {
            document.insert((*name).into(), json!(value));
        }
        let row = |row: Row| {
            let mut object = json!({ "name": row.name, "value": rounded(row.value), "unit": row.unit });
            if let Some(goal) = Goal::of(&row.name, self.device()) {
                object["goal"] = json!(goal.goal);
                object["better"] = json!(if goal.less { "lower" } else { "higher" });
            }
            if let Some((best, who)) = goals::peer(&row.name, self.device()) {
                object["peer"] = json!(best);
                object["peer_is"] = json!(who);
            }
            object
        };
        document.insert("rows".into(), self.rows().map(row).collect());
        document.insert("batches".into(), self.algebra.batches().into());
        serde_json::to_string_pretty(&document).map(|text| text + "\n")
    }
}

impl Table {
    fn sheet(&self) -> Sheet<'_> {
        let line = |(name, values): &Line| {
            let values = values.iter().map(|value| value.map_or("-".into(), number));
            std::iter::once(name.clone()).chain(values).collect()
        };
        let columns = std::iter::once("").chain(self.columns.iter().copied()).collect();
        Sheet { title: self.title, note: "", columns, lines: self.lines.iter().map(line).collect() }
    }

    fn line(&mut self, name: String, gpu: Duration, cpu: Duration) {
        self.lines.push((name, vec![Some(micros(gpu)), Some(micros(cpu)), Some(micros(cpu) / micros(gpu))]));
    }
}

impl fmt::Display for Sheet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n## {}\n\n", self.title)?;
        if !self.note.is_empty() {
            write!(f, "{}\n\n", self.note)?;
        }
        f.write_str("|")?;
        self.columns.iter().try_for_each(|column| write!(f, " {column}{}|", if column.is_empty() { "" } else { " " }))?;
        f.write_str("\n|---|")?;
        // Numbers to the right.
        for column in 1..self.columns.len() {
            let numbers = self.lines.iter().all(|line| line[column] == "-" || line[column].parse::<f64>().is_ok());
            f.write_str(if numbers { "---:|" } else { "---|" })?;
        }
        f.write_str("\n")?;
        self.lines.iter().try_for_each(|line| writeln!(f, "| {} |", line.join(" | ")))
    }
}

pub(crate) fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Four significant digits.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}

pub(crate) fn number(value: f64) -> String {
    format!("{}", rounded(value))
}

/// Between measurements. Within tens of milliseconds of multiplying without a pause a large GPU is at its limit of power, and lowers its
/// clocks for a while; left alone, it lowers them, too. So it is given little to do.
const PAUSE: Duration = Duration::from_millis(100);

/// How long an operation on resident vectors takes: the difference of recordings of so many and of three times as many, so that what a submission costs
/// besides cancels out.
pub(crate) fn seconds_each(
    backend: &Backend,
    quick: bool,
    launches: usize,
    record: impl Fn(&mut Recording) -> Result<(), Error>,
) -> Result<f64, Error> {
    let run = |launches: usize| -> Result<Duration, Error> {
        let mut recording = backend.record();
        for _ in 0..launches {
            record(&mut recording)?;
        }
        let begin = Instant::now();
        recording.submit()?.wait()?;
        Ok(begin.elapsed())
    };
    // What is done once, such as a kernel's self-test.
    run(1)?;
    let mut each = Vec::new();
    let few_elements = backend.zeros::<Fq>(64)?;
    for _ in 0..if quick { 1 } else { 7 } {
        let begin = Instant::now();
        while !quick && begin.elapsed() < PAUSE {
            let mut little = backend.record();
            little.apply_into(Operation::Add, &[&few_elements, &few_elements], &[], &few_elements)?;
            little.submit()?.wait()?;
        }
        let (few, many) = (run(launches)?, run(3 * launches)?);
        each.push(many.saturating_sub(few).as_secs_f64().max(1e-9) / (2 * launches) as f64);
    }
    each.sort_by(f64::total_cmp);
    Ok(each[each.len() / 2])
}
