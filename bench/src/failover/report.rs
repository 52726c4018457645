//! The figures, for people and for programs.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    time::Duration,
};

use lab::failover::Kind;
use serde_json::{Map, Value, json};

use super::{
    WINDOW,
    busy::{LOOPS, Seen},
};

/// One figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The configuration's name.
    pub config: &'static str,
    /// The failure's name.
    pub failure: &'static str,
}

/// The times of a cell, by program.
type Times = BTreeMap<Kind, Vec<Duration>>;

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    runs: u32,
    /// In the order in which they came.
    cells: Vec<(Cell, Times)>,
    /// With busy loops.
    pub busy: BTreeMap<Kind, Seen>,
}

impl Report {
    /// An empty one.
    pub fn new(runs: u32) -> Self {
        Self { runs, ..Self::default() }
    }

    /// Adds the figure of one run.
    pub fn add(&mut self, cell: Cell, kind: Kind, time: Duration) {
        let position = self.cells.iter().position(|(one, _)| *one == cell).unwrap_or_else(|| {
            self.cells.push((cell, Times::new()));
            self.cells.len() - 1
        });
        self.cells[position].1.entry(kind).or_default().push(time);
    }

    /// As documented in docs/performance.md.
    pub fn json(&self) -> Value {
        let cells: Vec<Value> = self
            .cells
            .iter()
            .map(|(cell, times)| {
                let mut object = Map::new();
                object.insert("config".into(), cell.config.into());
                object.insert("failure".into(), cell.failure.into());
                for (kind, times) in times {
                    let figures = json!({ "median": ms(median(times)), "worst": ms(worst(times)) });
                    object.insert(format!("{kind}_ms"), figures);
                }
                Value::Object(object)
            })
            .collect();
        let mut busy = Map::new();
        busy.insert("loops".into(), LOOPS.into());
        for (kind, seen) in &self.busy {
            busy.insert("seconds".into(), seen.time.as_secs().into());
            let figures =
                json!({ "spurious_takeovers": seen.takeovers, "longest_gap_ms": ms(seen.longest_gap) });
            busy.insert(kind.to_string(), figures);
        }
        json!({ "runs": self.runs, "cells": cells, "busy": busy })
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        writeln!(out, "Milliseconds, median and worst of {}; the master has priority 150.\n", self.runs)?;
        writeln!(out, "{:<13}{:<17}{:>19}{:>19}", "", "", "xdirector", "keepalived")?;
        writeln!(
            out,
            "{:<13}{:<17}{:>10}{:>9}{:>10}{:>9}",
            "config", "failure", "median", "worst", "median", "worst"
        )?;
        for (cell, times) in &self.cells {
            write!(out, "{:<13}{:<17}", cell.config, cell.failure)?;
            for kind in [Kind::Xdirector, Kind::Keepalived] {
                match times.get(&kind) {
                    Some(times) => write!(out, "{:>10.1}{:>9.1}", ms(median(times)), ms(worst(times)))?,
                    None => write!(out, "{:>10}{:>9}", "-", "-")?,
                }
            }
            writeln!(out, "{}", verdict(times))?;
        }
        writeln!(
            out,
            "\nAn address that is doubled after kill -9 is watched for {:.0} ms only.",
            ms(WINDOW)
        )?;
        for (kind, seen) in &self.busy {
            writeln!(
                out,
                "{kind}, adverts every 10 ms, {LOOPS} busy loops for {} s: {} takeovers that should not be,\n\
                 \x20 at the most {:.1} ms between two adverts.",
                seen.time.as_secs(),
                seen.takeovers,
                ms(seen.longest_gap)
            )?;
        }
        Ok(())
    }
}

/// What the measurement cannot tell apart: probes are sent every millisecond.
const RESOLUTION: Duration = Duration::from_millis(1);

/// "behind" where xdirector's median is the worse one, by more than the measurement's resolution.
fn verdict(times: &Times) -> &'static str {
    match (times.get(&Kind::Xdirector), times.get(&Kind::Keepalived)) {
        (Some(ours), Some(theirs)) if median(ours) > median(theirs) + RESOLUTION => "  behind",
        _ => "",
    }
}

/// The middle one; of an even number the mean of the middle two.
fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort();
    let middle = sorted.len() / 2;
    match sorted.as_slice() {
        [] => Duration::ZERO,
        _ if sorted.len().is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2,
        _ => sorted[middle],
    }
}

fn worst(times: &[Duration]) -> Duration {
    times.iter().max().copied().unwrap_or_default()
}

/// To a tenth.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e4).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut report = Report::new(3);
        let cell = Cell { config: "v3 0.01s 254", failure: "kill -9 takeover" };
        for (kind, times) in [(Kind::Xdirector, [30, 31, 90]), (Kind::Keepalived, [40, 20, 25])] {
            for time in times {
                report.add(cell, kind, Duration::from_millis(time));
            }
        }
        report
    }

    #[test]
    fn programs_get_median_and_worst_of_each_cell() {
        let json = report().json();
        let cell = &json["cells"][0];
        assert_eq!(cell["config"], "v3 0.01s 254");
        assert_eq!(cell["xdirector_ms"], json!({ "median": 31.0, "worst": 90.0 }));
        assert_eq!(cell["keepalived_ms"], json!({ "median": 25.0, "worst": 40.0 }));
    }

    #[test]
    fn people_see_what_is_behind_within_eighty_columns() {
        let text = report().to_string();
        assert!(text.lines().any(|line| line.ends_with("behind")), "{text}");
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
    }

    #[test]
    fn of_an_even_number_the_median_is_between_two() {
        let times = [4, 1, 3, 2].map(Duration::from_millis);
        assert_eq!(median(&times), Duration::from_micros(2500));
        assert_eq!(median(&[]), Duration::ZERO);
    }
}
