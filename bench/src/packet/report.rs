//! The figures, for people and for programs.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
    fs,
};

use serde_json::{Map, Value, json};

use super::{
    measure::{Measurement, Runs},
    target::{BYTES_PER_CONNECTION, allowed_ratio, target},
};

/// What was measured. [`Display`] makes a table of 80 columns.
#[derive(Debug, Default)]
pub struct Report {
    runs: Option<Runs>,
    cpu: usize,
    /// A program that does nothing.
    pub empty: Measurement,
    /// The floor program, first.
    pub floor: Measurement,
    /// The floor program again at the end: whether the machine stayed the same.
    pub floor_after: Measurement,
    paths: Vec<(&'static str, Measurement)>,
    /// The restore alone, by kind of forwarding.
    pub restore: BTreeMap<&'static str, Measurement>,
    /// Known flows in turn, by their number.
    pub sweep: BTreeMap<u32, Measurement>,
    bytes_per_connection: f64,
}

impl Report {
    /// Nothing measured yet but the memory.
    pub fn new(runs: Runs, cpu: usize, bytes_per_connection: f64) -> Self {
        Self { runs: Some(runs), cpu, bytes_per_connection, ..Self::default() }
    }

    /// Adds a path under its name in the JSON.
    pub fn path(&mut self, name: &'static str, measurement: Measurement) {
        self.paths.push((name, measurement));
    }

    /// The figures that have a target, by name.
    fn judged(&self) -> impl Iterator<Item = (String, Measurement)> + '_ {
        let paths = self.paths.iter().map(|(name, measurement)| ((*name).to_owned(), *measurement));
        paths.chain(self.sweep.iter().map(|(flows, measurement)| (flows.to_string(), *measurement)))
    }

    fn ratio(&self, measurement: Measurement) -> f64 {
        measurement.median / self.floor.median
    }

    /// As documented in docs/performance.md.
    pub fn json(&self) -> Value {
        let collect = |of: &mut dyn Iterator<Item = (String, f64)>| -> Map<String, Value> {
            of.map(|(name, value)| (name, json!(rounded(value)))).collect()
        };
        let paths = collect(&mut self.paths.iter().map(|(name, m)| ((*name).to_owned(), m.median)));
        let sweep = collect(&mut self.sweep.iter().map(|(flows, m)| (flows.to_string(), m.median)));
        let restore = collect(&mut self.restore.iter().map(|(kind, m)| ((*kind).to_owned(), m.median)));
        let ratios = collect(&mut self.judged().map(|(name, m)| (name, self.ratio(m))));
        let all = [("empty", self.empty), ("floor", self.floor), ("floor_after", self.floor_after)];
        let all = all.into_iter().map(|(name, measurement)| (name.to_owned(), measurement));
        let ranges: Map<String, Value> = all
            .chain(self.judged())
            .map(|(name, m)| (name, json!([rounded(m.min), rounded(m.max)])))
            .collect();
        let runs = self.runs.map_or((0, 0), |runs| (runs.count, runs.repeats));
        json!({
            "floor_ns": rounded(self.floor.median),
            "paths": paths,
            "sweep_tun_ns": sweep,
            "bytes_per_connection": rounded(self.bytes_per_connection),
            "empty_ns": rounded(self.empty.median),
            "floor_after_ns": rounded(self.floor_after.median),
            "restore_ns": restore,
            "ratio_to_floor": ratios,
            "min_max_ns": ranges,
            "machine": { "cpu": processor(), "kernel": kernel(), "pinned_to": self.cpu },
            "runs": runs.0,
            "repeats": runs.1,
        })
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let (runs, repeats) = self.runs.map_or((0, 0), |runs| (runs.count, runs.repeats));
        writeln!(out, "{}, Linux {}, CPU {}", processor(), kernel(), self.cpu)?;
        writeln!(out, "Median of {runs} runs of {repeats} packets; new flows: fewer to a run.\n")?;
        writeln!(out, "{:<30}{:>8}  {:<15}{:>6}  {:>11}", "path", "ns", "min - max", "floor", "target")?;
        row(out, "empty program, XDP_TX", self.empty, &format!("{:.1}x", self.ratio(self.empty)), "")?;
        row(out, "floor program", self.floor, "1.0x", "")?;
        for (name, measurement) in self.judged() {
            let ratio = self.ratio(measurement);
            let (allowed, word) = match target(&name).map(allowed_ratio) {
                Some(allowed) if ratio <= allowed => (format!("{allowed:.1}x"), "ok"),
                Some(allowed) => (format!("{allowed:.1}x"), "OVER"),
                None => (String::new(), ""),
            };
            let target = format!("{allowed:>6} {word:<4}");
            row(out, label(&name), measurement, &format!("{ratio:.1}x"), &target)?;
        }
        let memory = self.bytes_per_connection;
        let word = if memory <= BYTES_PER_CONNECTION { "ok" } else { "OVER" };
        writeln!(out, "\nbytes a NAT connection: {memory:.0} (target {BYTES_PER_CONNECTION:.0}, {word})")?;
        let restore: Vec<String> =
            self.restore.iter().map(|(kind, m)| format!("{kind} {:.1}", m.median)).collect();
        writeln!(out, "Figures of dr, tun and nat include putting the packet back, which costs alone:")?;
        writeln!(
            out,
            "  {} ns. The floor at the end of the run: {:.1} ns.",
            restore.join(", "),
            self.floor_after.median
        )
    }
}

fn row(out: &mut Formatter<'_>, label: &str, m: Measurement, ratio: &str, target: &str) -> fmt::Result {
    let range = format!("{:.1} - {:.1}", m.min, m.max);
    let line = format!("{label:<30}{:>8.1}  {range:<15}{ratio:>6}  {target:>11}", m.median);
    writeln!(out, "{}", line.trim_end())
}

fn label(name: &str) -> &str {
    match name {
        "pass_ns" => "not a virtual server: pass",
        "dr_hit_ns" => "dr, known flow",
        "tun_hit_ns" => "tun, known flow",
        "nat_forward_ns" => "nat, client to server",
        "nat_reverse_ns" => "nat, server to client",
        "new_flow_ns" => "tun, new flow, rr",
        "new_flow_nat_ns" => "nat, new flow, rr",
        "4096" => "tun, 4,096 flows in turn",
        "65536" => "tun, 65,536 flows in turn",
        "1048576" => "tun, 1,048,576 flows in turn",
        other => other,
    }
}

/// Two decimals.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or_else(|| "unknown processor".to_owned(), |(_, name)| name.trim().to_owned())
}

fn kernel() -> String {
    nix::sys::utsname::uname()
        .map_or_else(|_| "?".to_owned(), |uname| uname.release().to_string_lossy().into_owned())
}
