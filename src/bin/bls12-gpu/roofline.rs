//! The roofline: how near each kernel is to what bounds it, the memory or the multipliers, beside the best that others do on the
//! same GPU; as a table and as a chart.

use crate::goals;
use crate::kernels::{Kernels, Rate, Work, name};
use crate::report::number;
use bls12_field_gpu::{Field, Operation, Reduction};
use field_kernels::Kernel;
use field_kernels::formulation::{Routine, counts};
use std::fmt::Write as _;
use std::path::Path;

/// A kernel and what bounds it.
struct Point<'a> {
    rate: &'a Rate,
    /// What the memory and the multiplier allow, in G elements a second.
    memory: Option<f64>,
    multiplier: Option<f64>,
    count: Count,
    peer: Option<(f64, &'static str)>,
}

impl Point<'_> {
    /// The lower of the limits, and its color.
    fn limit(&self) -> Option<(f64, &'static str)> {
        let limits = [(self.memory, MEMORY), (self.multiplier, MULTIPLIER)];
        limits.into_iter().filter_map(|(limit, color)| Some((limit?, color))).min_by(|a, b| a.0.total_cmp(&b.0))
    }
}

/// What an element takes of a device.
#[derive(Clone, Copy, Default)]
struct Count {
    /// Wide integer multiply-adds.
    wide: u64,
    /// Multiply-adds and other operations on doubles.
    double: u64,
    /// Instructions in all, where the program is one that counts them.
    all: Option<u64>,
}

impl Count {
    /// What a routine takes so many times over.
    fn of(rate: &Rate, routine: Routine, times: u64) -> Self {
        let Some(counts) = counts(rate.field, rate.formulation, routine) else {
            // In words: as shaders/words_form.glsl says.
            let n = 2 * rate.field.limbs() as u64;
            let reduction = n * n + n;
            let wide = match routine {
                Routine::Mul | Routine::Product => n * n + reduction,
                Routine::Square => n * (n + 1) / 2 + reduction,
                Routine::Mul2 => 2 * n * n + reduction,
                Routine::SumAdd => n * n,
                Routine::SumResult => reduction,
                Routine::Left | Routine::Right | Routine::Root | Routine::Result => 0,
            };
            return Self { wide: times * wide, double: 0, all: None };
        };
        let times_of = |count: usize| times * count as u64;
        Self { wide: times_of(counts.wide), double: times_of(counts.double), all: Some(times_of(counts.total())) }
    }

    /// What a kernel multiplies for an element, conversions of its operands included; loads, stores and sums are not counted.
    fn new(rate: &Rate) -> Self {
        let product = &[(Routine::Left, 1), (Routine::Right, 1), (Routine::Product, 1)][..];
        let routines = match rate.work {
            Work::Stream(Operation::Mul) => product,
            Work::Stream(Operation::Square) => &[(Routine::Root, 1), (Routine::Square, 1), (Routine::Result, 1)],
            // About, for an exponent of 381 random bits: shaders/power.glsl.
            Work::Stream(Operation::Pow) => &[(Routine::Square, 381), (Routine::Mul, 84)],
            Work::Chain(Kernel::MulChain) => &[(Routine::Mul, 1)],
            Work::Chain(Kernel::SquareChain) => &[(Routine::Square, 1)],
            Work::Chain(Kernel::Mul2Chain) => &[(Routine::Mul2, 1)],
            Work::Fold(Reduction::Product) => &[(Routine::Left, 1), (Routine::Mul, 1)],
            // Reduced once for many.
            Work::Fold(Reduction::InnerProduct | Reduction::SumOfSquares) => &[(Routine::SumAdd, 1)],
            _ => &[],
        };
        let counts = routines.iter().map(|&(routine, times)| Self::of(rate, routine, times));
        counts.fold(Self { all: Some(0), ..Self::default() }, |sum, count| Self {
            wide: sum.wide + count.wide,
            double: sum.double + count.double,
            all: sum.all.zip(count.all).map(|(sum, count)| sum + count),
        })
    }
}

impl<'a> Point<'a> {
    fn new(kernels: &Kernels, rate: &'a Rate) -> Self {
        let (bytes, count) = (rate.bytes() as f64, Count::new(rate));
        // The flat kernel reads two vectors and writes one.
        let flat = kernels.flat(rate.field).map(|flat| 3.0 * rate.field.bytes() as f64 * flat);
        // Both multipliers work at the same time.
        let bound = |(count, rate): (u64, Option<f64>)| if count == 0 { None } else { Some(rate? / count as f64) };
        let multiplier = [count.wide, count.double].into_iter().zip(kernels.multipliers).filter_map(bound).reduce(f64::min);
        let peer = goals::peer(&rate.name, &kernels.device);
        Self { rate, memory: flat.filter(|_| bytes > 0.0).map(|flat| flat / bytes), multiplier, count, peer }
    }
}

/// Writes OUT.md and OUT.svg.
pub(crate) fn write(kernels: &Kernels, head: &[(&'static str, String)], out: &Path) -> std::io::Result<()> {
    let svg = out.with_extension("svg");
    let chart_name = svg.file_name().map_or_else(String::new, |name| name.display().to_string());
    std::fs::write(out.with_extension("md"), markdown(kernels, head, &chart_name))?;
    std::fs::write(svg, chart(kernels))
}

/// The table, with what it rests on.
pub(crate) fn markdown(kernels: &Kernels, head: &[(&'static str, String)], chart: &str) -> String {
    let mut text = format!("# Roofline: {}\n\n![how near each kernel is to its limit]({chart})\n\n", kernels.device);
    for (name, value) in head {
        let _ = writeln!(text, "- {name}: {value}");
    }
    let flat = |field: &(Field, f64)| format!("{} {} G elements a second", name(field.0), number(field.1));
    let flat: Vec<String> = kernels.flat.iter().map(flat).collect();
    let _ = writeln!(text, "- memory's limit, by the flat kernel c = a ^ b in the same run: {}", flat.join(", "));
    let [wide, fma] = kernels.multipliers.map(|rate| rate.map_or("not measured".into(), number));
    let _ = writeln!(
        text,
        "- multipliers' limits, in the same run: wide multiply-adds {wide} G/s, double multiply-adds {fma} G/s"
    );
    text.push_str(
        "\nMultiply-adds, wide ones and doubles', and all instructions where they are known, are counted from the formulations, in which products \
         by powers of two are additions; loads, stores, addresses and sums of elements are not counted. Of a stream the bytes are those of \
         inputs and output. What a device uses, and the quickest chain, is in bold. Chains are \
         256 dependent operations an invocation; the rest are vectors that no cache holds.\n\n\
         | kernel | formulation | G elem/s | bytes | of memory | wide | double | all | of multiplier | best of others | ratio |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|---|---:|\n",
    );
    let first = |rate: &&Rate| kernels.rates.iter().position(|other| other.name == rate.name);
    let mut rates: Vec<&Rate> = kernels.rates.iter().collect();
    rates.sort_by_key(first);
    for rate in rates {
        let Point { memory, multiplier, count, peer, .. } = Point::new(kernels, rate);
        let bold = if rate.chosen { "**" } else { "" };
        let share = |limit: Option<f64>| limit.map_or("-".into(), |limit| format!("{:.0}%", 100.0 * rate.rate / limit));
        let all = count.all.filter(|&all| all > 0).map_or("-".into(), |all| all.to_string());
        let bytes = if rate.bytes() > 0 { rate.bytes().to_string() } else { "-".into() };
        let (best, ratio) =
            peer.map_or(("-".into(), "-".into()), |(best, who)| (format!("{best} ({who})"), number(rate.rate / best)));
        let _ = writeln!(
            text,
            "| {bold}{}{bold} | {} | {bold}{}{bold} | {bytes} | {} | {} | {} | {} | {} | {best} | {ratio} |",
            rate.name,
            rate.formulation.name(),
            number(rate.rate),
            share(memory),
            count.wide,
            count.double,
            all,
            share(multiplier)
        );
    }
    text
}

/// Colors of the chart.
const MEMORY: &str = "#4a90d9";
const MULTIPLIER: &str = "#e0913a";
const PEER: &str = "#c0392b";
const LEGEND: [(&str, &str); 3] =
    [("the memory's limit", MEMORY), ("the multiplier's limit", MULTIPLIER), ("the best of others", PEER)];

/// Sizes of the chart, in pixels.
const ROW: usize = 22;
const LEFT: usize = 210;
const FULL: usize = 520;
const WIDTH: usize = LEFT + FULL * 13 / 10 + 290;
const TOP: usize = 70;

/// The chart: for each kernel a bar that ends where it is between nothing and the lower of its limits, and a mark where the best of
/// others is.
fn chart(kernels: &Kernels) -> String {
    let chosen = kernels.rates.iter().filter(|rate| rate.chosen);
    let points: Vec<Point> = chosen.map(|rate| Point::new(kernels, rate)).collect();
    let bottom = TOP + ROW * points.len();
    let at = |share: f64| LEFT as f64 + share.min(1.3) * FULL as f64;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">{}: share of the limit that binds</text>\n",
        bottom + 20,
        escaped(&kernels.device)
    );
    for (index, (what, color)) in LEGEND.iter().enumerate() {
        let x = LEFT + 170 * index;
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"36\" width=\"12\" height=\"12\" fill=\"{color}\"/>");
        let _ = writeln!(svg, "<text x=\"{}\" y=\"46\">{what}</text>", x + 17);
    }
    for percent in [0, 25, 50, 75, 100] {
        let x = at(f64::from(percent) / 100.0);
        let stroke = if percent == 100 { "black" } else { "#ddd" };
        let _ = writeln!(svg, "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"{stroke}\"/>");
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{percent}%</text>", TOP - 6);
    }
    for (index, point) in points.iter().enumerate() {
        let (y, rate) = (TOP + ROW * index, point.rate);
        let label = LEFT - 8;
        let _ = writeln!(svg, "<text x=\"{label}\" y=\"{}\" text-anchor=\"end\">{}</text>", y + 15, escaped(&rate.name));
        let Some((limit, color)) = point.limit() else { continue };
        let share = rate.rate / limit;
        let width = at(share) - LEFT as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"{color}\"/>",
            y + 3,
            ROW - 6
        );
        if let Some((best, _)) = point.peer {
            let x = at(best / limit);
            let (from, to) = (y + 1, y + ROW - 1);
            let _ = writeln!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{from}\" x2=\"{x:.1}\" y2=\"{to}\" stroke=\"{}\" stroke-width=\"3\"/>",
                PEER
            );
        }
        let beside = point.peer.map_or(0.0, |(best, _)| best / limit).max(share);
        let against = point.peer.map_or(String::new(), |(best, _)| format!(", {:.2} x others", rate.rate / best));
        let text = format!("{} G/s, {}, {:.0}%{against}", number(rate.rate), rate.formulation.name(), 100.0 * share);
        let _ =
            writeln!(svg, "<text x=\"{:.1}\" y=\"{}\" fill=\"#333\">{}</text>", at(beside) + 8.0, y + 15, escaped(&text));
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
