//! Reports side by side: of other devices, hosts or commits.

use crate::goals::Goal;
use crate::report::{Sheet, number};
use serde_json::Value;
use std::path::{Path, PathBuf};

type Failure = Box<dyn std::error::Error>;

/// The rows of a report.
struct Run {
    /// The commit that was measured, and by which command if not by `report`.
    name: String,
    head: String,
    gpu: String,
    rows: Vec<(String, f64, String)>,
}

impl Run {
    fn read(path: &Path) -> Result<Self, Failure> {
        let unfit = |what: &str| Failure::from(format!("{} is not a report: {what}", path.display()));
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let document: Value = serde_json::from_str(&text).map_err(|error| unfit(&error.to_string()))?;
        let said = |key| document[key].as_str().ok_or_else(|| unfit(&format!("it has no {key}")));
        let row =
            |row: &Value| Some((row["name"].as_str()?.to_owned(), row["value"].as_f64()?, row["unit"].as_str()?.to_owned()));
        let rows = document["rows"].as_array().ok_or_else(|| unfit("it has no rows"))?;
        let rows = rows.iter().map(|value| row(value).ok_or_else(|| unfit(&format!("{value} is not a row"))));
        let commit = said("commit")?;
        let part = if said("command")?.contains("roofline") { " (roofline)" } else { "" };
        Ok(Self {
            name: format!("{commit}{part}"),
            head: format!("{commit}{part}: {}, {}, {}, {}", said("gpu")?, said("driver")?, said("cpu")?, said("date")?),
            gpu: said("gpu")?.to_owned(),
            rows: rows.collect::<Result<_, _>>()?,
        })
    }

    fn value(&self, name: &str) -> Option<f64> {
        self.rows.iter().find(|row| row.0 == name).map(|row| row.1)
    }
}

/// Prints the rows of the first report that have a goal or that differ from another one's by more than so many percent.
pub(crate) fn print(paths: &[PathBuf], percent: f64) -> Result<(), Failure> {
    let runs = paths.iter().map(|path| Run::read(path)).collect::<Result<Vec<Run>, _>>()?;
    let Some((first, others)) = runs.split_first() else { return Ok(()) };
    runs.iter().for_each(|run| println!("- {}", run.head));
    print!("{}", sheet(first, others, percent));
    Ok(())
}

fn sheet<'a>(first: &'a Run, others: &'a [Run], percent: f64) -> Sheet<'a> {
    let differs = |value: f64, other: f64| (value - other).abs() > percent / 100.0 * value.abs().min(other.abs());
    let line = |(name, value, unit): &(String, f64, String)| {
        let values: Vec<Option<f64>> = others.iter().map(|run| run.value(name)).collect();
        let goal = Goal::of(name, &first.gpu);
        if goal.is_none() && !values.iter().flatten().any(|&other| differs(*value, other)) {
            return None;
        }
        let values = values.into_iter().map(|value| value.map_or_else(|| "-".into(), number));
        let (before, after) =
            ([format!("`{name}`"), number(*value)], [goal.map_or_else(|| "-".into(), |goal| goal.text(*value))]);
        Some(before.into_iter().chain(values).chain(after).chain([unit.clone()]).collect())
    };
    let columns =
        [""].into_iter().chain([&first.name[..]]).chain(others.iter().map(|run| &run.name[..])).chain(["goal", "unit"]);
    Sheet {
        title: "Rows of several reports",
        note: "",
        columns: columns.collect(),
        lines: first.rows.iter().filter_map(line).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, rows: &[(&str, f64)]) -> Run {
        let rows = rows.iter().map(|&(name, value)| (name.into(), value, "us".into())).collect();
        Run { name: name.into(), head: String::new(), gpu: "NVIDIA H200".into(), rows }
    }

    #[test]
    fn rows_with_goals_and_rows_that_differ_are_shown() {
        let first = run("a", &[("add_64_host_us", 21.0), ("as_before", 10.0), ("slower", 11.0), ("new", 1.0)]);
        let others = [run("b", &[("add_64_host_us", 21.0), ("as_before", 10.2)]), run("c", &[("slower", 10.0)])];
        let text = sheet(&first, &others, 5.0).to_string();
        assert!(text.contains("| | a | b | c | goal | unit |"), "{text}");
        assert!(text.contains("| `add_64_host_us` | 21 | 21 | - | at most 20, not met | us |"), "{text}");
        assert!(text.contains("| `slower` | 11 | - | 10 | - | us |"), "{text}");
        assert!(!text.contains("as_before") && !text.contains("new"), "{text}");
    }

    #[test]
    fn what_is_not_a_report_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("other.json");
        for (text, says) in [("[]", "no rows"), ("{", "not a report"), ("{\"rows\": [{}]}", "commit")] {
            std::fs::write(&path, text).unwrap();
            let refused = Run::read(&path).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(refused.contains(says), "{refused}");
        }
        assert!(Run::read(&directory.path().join("none.json")).is_err());
    }
}
