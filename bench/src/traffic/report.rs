//! The figures, for people and for programs.

use std::{
    collections::BTreeMap,
    fmt::{self, Display, Formatter},
};

use serde_json::{Map, Value, json};

use super::{Figures, balancer::Kind};

/// All rounds of all balancers.
#[derive(Debug, Default)]
pub struct Report(BTreeMap<Kind, Vec<Figures>>);

impl Report {
    /// Adds a round.
    pub fn add(&mut self, kind: Kind, figures: Figures) {
        self.0.entry(kind).or_default().push(figures);
    }

    fn medians(&self) -> BTreeMap<Kind, Figures> {
        let of = |rounds: &Vec<Figures>| Figures {
            connections: median(rounds.iter().map(|round| round.connections)).unwrap_or(0.0),
            bytes: median(rounds.iter().map(|round| round.bytes)).unwrap_or(0.0),
            packets: median(rounds.iter().filter_map(|round| round.packets)),
        };
        self.0.iter().map(|(kind, rounds)| (*kind, of(rounds))).collect()
    }

    /// As documented in docs/performance.md.
    pub fn json(&self) -> Value {
        let figures: Map<String, Value> = self
            .medians()
            .into_iter()
            .map(|(kind, figures)| {
                let value = json!({
                    "connections_per_second": figures.connections.round(),
                    "bytes_per_second": figures.bytes.round(),
                    "packets_per_second": figures.packets.map(f64::round),
                });
                (kind.name().to_owned(), value)
            })
            .collect();
        json!({ "traffic": figures, "rounds": super::ROUNDS })
    }
}

impl Display for Report {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let medians = self.medians();
        let Some(own) = medians.get(&Kind::Xdirector) else { return Ok(()) };
        writeln!(
            out,
            "NAT in a lab of namespaces; median of {} rounds. In brackets: xdirector is so",
            super::ROUNDS
        )?;
        writeln!(out, "many times as fast.\n")?;
        writeln!(out, "{:<11}{:>21}{:>21}{:>23}", "", "connections/s", "one download MB/s", "UDP packets/s")?;
        for (kind, figures) in &medians {
            let packets = match (figures.packets, own.packets) {
                (Some(packets), Some(own)) => format!("{packets:.0} ({:.2})", own / packets),
                _ => "TCP only".to_owned(),
            };
            writeln!(
                out,
                "{:<11}{:>21}{:>21}{:>23}",
                kind.name(),
                format!("{:.0} ({:.2})", figures.connections, own.connections / figures.connections),
                format!("{:.0} ({:.2})", figures.bytes / 1e6, own.bytes / figures.bytes),
                packets
            )?;
        }
        writeln!(out, "\nThe whole lab shares this machine's processors: compare lines, not machines.")
    }
}

fn median(of: impl Iterator<Item = f64>) -> Option<f64> {
    let mut of: Vec<f64> = of.collect();
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_slow_round_does_not_count_and_missing_figures_stay_missing() {
        let mut report = Report::default();
        for connections in [10.0, 1.0, 11.0] {
            report.add(Kind::Haproxy, Figures { connections, bytes: 5.0, packets: None });
        }
        let medians = report.medians();
        assert_eq!(medians[&Kind::Haproxy].connections, 10.0);
        assert_eq!(medians[&Kind::Haproxy].packets, None);
    }
}
