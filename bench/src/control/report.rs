//! The figures, for people and for programs.

use std::{
    fmt::{self, Display, Formatter},
    fs,
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::checks::Sustained;

/// What is wanted: milliseconds, microseconds, checks a second, megabytes.
const COLD_LOAD_MS: f64 = 2000.0;
const RELOAD_MS: f64 = 100.0;
const CHANGE_US: f64 = 1000.0;
const CHECKS: f64 = 5000.0;
const MEMORY_MB: f64 = 200.0;

/// What a process has, in megabytes (1,000,000 bytes).
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    /// All that is resident.
    pub resident: f64,
    /// Of that, its own: not the binary, and not the kernel's maps that it sees.
    pub own: f64,
    /// The most that it ever had.
    pub most: f64,
}

impl Memory {
    /// Of a process.
    pub fn of(pid: u32) -> Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let megabytes = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let number = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
            number.map(|kib| kib * 1024.0 / 1e6).with_context(|| format!("no {name} in /proc/{pid}/status"))
        };
        Ok(Self { resident: megabytes("VmRSS")?, own: megabytes("RssAnon")?, most: megabytes("VmHWM")? })
    }
}

/// Everything that was measured.
#[derive(Debug, Default)]
pub struct Report {
    /// Starts from nothing.
    pub starts: Vec<Duration>,
    /// The processor time of each.
    pub start_processor: Vec<Duration>,
    /// Reloads with one change.
    pub reloads: Vec<Duration>,
    /// From a check's result to the maps.
    pub changes: Vec<Duration>,
    /// TCP checks on one CPU.
    pub checks: Sustained,
    /// After a start and one status.
    pub memory: Memory,
    /// After the reloads that followed.
    pub memory_after_reloads: Memory,
}

impl Report {
    /// As documented in docs/performance.md.
    pub fn json(&self) -> Value {
        json!({
            "cold_load_10k_services_ms": tenths(ms(quantile(&self.starts, 0.5))),
            "reload_one_change_ms": tenths(ms(quantile(&self.reloads, 0.5))),
            "check_change_to_map_us_p99": tenths(us(quantile(&self.changes, 0.99))),
            "checks_per_second_one_core": self.checks.rate.round(),
            "rss_mb_10k_services": tenths(self.memory.resident),
        })
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let range = |times: &[Duration], unit: fn(Duration) -> f64| {
            format!("{:.0} - {:.0}", unit(quantile(times, 0.0)), unit(quantile(times, 1.0)))
        };
        writeln!(out, "10,000 virtual servers with 10 real servers each, NAT, wlc.\n")?;
        writeln!(out, "{:<38}{:>10}{:>16}{:>12}", "", "measured", "min - max", "target")?;
        let mut line = |name: &str, measured: f64, range: String, sign: &str, target: f64| {
            let passes = if sign == "<=" { measured <= target } else { measured >= target };
            let verdict = if passes { "pass" } else { "FAIL" };
            writeln!(
                out,
                "{name:<38}{measured:>10.0}{range:>16}{:>12}  {verdict}",
                format!("{sign} {target:.0}")
            )
        };
        let (starts, reloads) = (&self.starts, &self.reloads);
        line(
            "start to first answer, ms, median",
            ms(quantile(starts, 0.5)),
            range(starts, ms),
            "<=",
            COLD_LOAD_MS,
        )?;
        line(
            "reload, one change, ms, median",
            ms(quantile(reloads, 0.5)),
            range(reloads, ms),
            "<=",
            RELOAD_MS,
        )?;
        let changes = &self.changes;
        line(
            "check's result to map, us, p99",
            us(quantile(changes, 0.99)),
            range(changes, us),
            "<=",
            CHANGE_US,
        )?;
        line("TCP checks a second, one CPU", self.checks.rate, String::new(), ">=", CHECKS)?;
        line("resident memory, MB", self.memory.resident, String::new(), "<=", MEMORY_MB)?;
        writeln!(
            out,
            "\nProcessor time of a start, median: {:.0} ms; the rest of it is waiting, also for other processes here.",
            ms(quantile(&self.start_processor, 0.5))
        )?;
        writeln!(out, "Check's result to map, median: {:.0} us.", us(quantile(changes, 0.5)))?;
        let place =
            if self.checks.is_apart { "on another CPU" } else { "on the same CPU: there is no other" };
        writeln!(out, "The checked servers were {place}.")?;
        for (when, memory) in
            [("after the start and a status", self.memory), ("after the reloads", self.memory_after_reloads)]
        {
            let Memory { resident, own, most } = memory;
            writeln!(
                out,
                "Memory {when}: {resident:.0} MB resident, {own:.0} of them the agent's own and the rest the kernel's maps and \
                 the binary; {most:.0} at the most."
            )?;
        }
        Ok(())
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn tenths(number: f64) -> f64 {
    (number * 10.0).round() / 10.0
}

/// The smallest of `of` that at least this part of them does not exceed; zero for none.
fn quantile(of: &[Duration], part: f64) -> Duration {
    let mut sorted = of.to_vec();
    sorted.sort();
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_micros).collect();
        for (part, micros) in [(0.0, 1), (0.5, 100), (0.99, 198), (1.0, 200)] {
            assert_eq!(quantile(&times, part), Duration::from_micros(micros), "{part}");
        }
        assert_eq!(quantile(&[], 0.99), Duration::ZERO);
    }

    #[test]
    fn programs_get_five_numbers_and_nothing_else() {
        let report = Report { starts: vec![Duration::from_millis(7)], ..Report::default() };
        let json = report.json();
        let object = json.as_object().unwrap();
        assert_eq!(object.len(), 5);
        assert!(object.values().all(Value::is_number));
        assert_eq!(json["cold_load_10k_services_ms"], 7.0);
    }

    #[test]
    fn a_figure_past_its_target_fails() {
        let mut report = Report { reloads: vec![Duration::from_millis(101)], ..Report::default() };
        report.checks.rate = 5000.0;
        let text = report.to_string();
        let verdict =
            |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap().ends_with("pass");
        assert!(!verdict("reload") && verdict("TCP checks") && verdict("start"));
    }
}
