//! The lower part of the screen: details of the selected row, or the last events.

use std::collections::BTreeMap;

use super::{
    app::{App, Pane},
    rows::Row,
};
use crate::{
    api::types::{CheckStatus, NextHop, RealServerStatus, Stats, VirtualServerStatus},
    cli::status::{
        table::wrapped,
        words::{bound_to, duration, milliseconds, plain, quorum_lost, remarks, short, sorry_server, utc},
    },
};

impl App {
    /// What the pane is about.
    pub(super) fn pane_title(&self) -> String {
        match (self.pane, &self.status, self.selected_row()) {
            (Some(Pane::Events), ..) => "Events, newest first, times in UTC".into(),
            (_, Some(status), Some(row)) => {
                let server = &status.virtual_servers[row.virtual_server()];
                match row {
                    Row::Virtual(_) => format!("Virtual server {}", server.name),
                    Row::Real(_, real) => {
                        format!("{} of {}", server.real_servers[real].address, server.name)
                    }
                    Row::Sorry(_) => format!("Sorry server of {}", server.name),
                }
            }
            _ => "Details".into(),
        }
    }

    /// The pane's text in lines of so many columns; more of them than it has place for, when need be.
    pub(super) fn pane_lines(&self, columns: usize) -> Vec<String> {
        if self.pane == Some(Pane::Events) {
            return self.event_lines(columns);
        }
        let (Some(status), Some(row)) = (&self.status, self.selected_row()) else {
            return vec!["Nothing is selected.".into()];
        };
        let server = &status.virtual_servers[row.virtual_server()];
        match row {
            Row::Virtual(_) | Row::Sorry(_) => virtual_lines(server, columns),
            Row::Real(_, real) => real_lines(&server.real_servers[real], columns),
        }
    }

    fn event_lines(&self, columns: usize) -> Vec<String> {
        match &self.events {
            None => vec!["Asking for them ...".into()],
            Some(events) if events.is_empty() => vec!["None since the agent started.".into()],
            Some(events) => events
                .iter()
                .rev()
                .flat_map(|event| {
                    let time = utc(event.at).replace(" UTC", " ");
                    wrapped(&time, &plain(&format!("{}: {}", event.subject, event.text)), columns)
                })
                .collect(),
        }
    }
}

fn virtual_lines(server: &VirtualServerStatus, columns: usize) -> Vec<String> {
    let VirtualServerStatus { address, protocol, scheduler, scheduler_flags, .. } = server;
    let mut lines = Lines { columns, lines: Vec::new() };
    lines.add("Address", &format!("{protocol} {address}"));
    let flags =
        if scheduler_flags.is_empty() { String::new() } else { format!(" ({})", scheduler_flags.join(",")) };
    lines.add("Scheduler", &format!("{scheduler}{flags}"));
    let quorum = server.quorum;
    let held = || format!("weight {} is alive, {} is needed", quorum.alive_weight, quorum.quorum);
    let words = quorum_lost(server).unwrap_or_else(held);
    lines.add("Quorum", words.trim_start_matches("quorum "));
    if let Some(bound) = bound_to(server) {
        lines.add("Bound to", &bound);
    }
    if let Some(sorry) = sorry_server(server) {
        lines.add("Sorry server", sorry.trim_start_matches("sorry server "));
    }
    let mut states: BTreeMap<String, usize> = BTreeMap::new();
    for real in &server.real_servers {
        *states.entry(real.state.to_string()).or_default() += 1;
    }
    let states: Vec<_> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    lines.add("Real servers", &if states.is_empty() { "none".into() } else { states.join(", ") });
    lines.traffic(server.active, server.inactive, &server.stats);
    lines.lines
}

fn real_lines(server: &RealServerStatus, columns: usize) -> Vec<String> {
    let mut lines = Lines { columns, lines: Vec::new() };
    lines.add("State", &format!("{} for {}", server.state, duration(server.since_seconds)));
    for remark in remarks(server) {
        lines.add("", &remark);
    }
    let configured = match server.configured_weight {
        None => "no longer in the configuration".into(),
        Some(weight) => format!("configured {weight}"),
    };
    lines.add("Weight", &format!("{}, {configured}", server.weight));
    for check in &server.checks {
        lines.add("Check", &check_words(check));
    }
    let hop = server.next_hop.as_ref().map_or_else(|| "none".into(), hop_words);
    lines.add("Next hop", &format!("{hop} ({})", server.forward));
    lines.traffic(server.active, server.inactive, &server.stats);
    lines.lines
}

fn check_words(check: &CheckStatus) -> String {
    let CheckStatus { kind, up, detail, since_seconds, passed, failed, seconds_last, weight, .. } = check;
    let Some(up) = up else { return format!("{kind} has no result yet") };
    let state = if *up { "up" } else { "down" };
    let detail = detail.as_deref().map_or_else(String::new, |detail| format!(": {}", plain(detail)));
    let weight = weight.map_or_else(String::new, |weight| format!(", sets weight {weight}"));
    format!(
        "{kind} {state} for {}{weight}{detail} (took {}; {passed} passed, {failed} failed)",
        duration(*since_seconds),
        milliseconds(*seconds_last)
    )
}

fn hop_words(hop: &NextHop) -> String {
    let gateway = hop.gateway.map_or_else(|| "on the link".into(), |gateway| format!("gateway {gateway}"));
    let mac = hop.mac.as_deref().unwrap_or("MAC address not known");
    format!("{}, {gateway}, {mac}", hop.interface)
}

struct Lines {
    columns: usize,
    lines: Vec<String>,
}

impl Lines {
    fn add(&mut self, label: &str, words: &str) {
        self.lines.extend(wrapped(&format!("{label:<13}"), words, self.columns));
    }

    fn traffic(&mut self, active: u64, inactive: u64, stats: &Stats) {
        let Stats { connections, packets_in, packets_out, bytes_in, bytes_out } = *stats;
        self.add("Connections", &format!("{active} active, {inactive} inactive, {connections} in all"));
        let [packets_in, packets_out, bytes_in, bytes_out] =
            [packets_in, packets_out, bytes_in, bytes_out].map(|value| short(value as f64));
        self.add(
            "In all",
            &format!("in {packets_in} packets {bytes_in} bytes, out {packets_out} packets {bytes_out} bytes"),
        );
    }
}
