//! `xdirector status`: who is behind which address and how they are. The layout follows `ipvsadm -L`, so that a
//! reader of that one finds everything where it was.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
};

use clap::Args;

use super::{SocketArgs, closed_is_done};
use crate::api::{
    Client, Status,
    types::{Protocol, Rates, RealServerStatus, Stats, VirtualServerStatus},
};

/// Arguments of `xdirector status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Show counters since the start: connections, packets, bytes
    #[arg(long, conflicts_with = "rates")]
    pub stats: bool,
    /// Show rates: connections, packets and bytes (not bits) per second
    #[arg(long)]
    pub rates: bool,
    /// Show too how many packets met which verdict of the data plane
    #[arg(long)]
    pub verdicts: bool,
    /// Print the whole answer of GET /v1/status as JSON
    #[arg(long, conflicts_with_all = ["stats", "rates", "verdicts"])]
    pub json: bool,
}

/// Asks the agent and prints its answer.
///
/// # Errors
///
/// No agent, no answer, or standard output cannot be written.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let status = Client::new(args.socket.path())?.status()?;
    let text = if args.json {
        serde_json::to_string_pretty(&status)? + "\n"
    } else {
        let view = match (args.stats, args.rates) {
            (true, _) => View::Stats,
            (_, true) => View::Rates,
            _ => View::Servers,
        };
        render(&status, view, args.verdicts)
    };
    Ok(closed_is_done(io::stdout().lock().write_all(text.as_bytes()))?)
}

/// Which table is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// Forwarding, weights, states and connections.
    Servers,
    /// Counters.
    Stats,
    /// The same per second.
    Rates,
}

const COLUMNS: usize = 80;

/// The status as text, at most 80 columns wide unless a name or address alone is wider.
pub fn render(status: &Status, view: View, verdicts: bool) -> String {
    let mut text = String::new();
    head(&mut text, status);
    text.push('\n');
    if status.virtual_servers.is_empty() {
        text.push_str("There is no virtual server.\n");
    } else {
        match view {
            View::Servers => servers(&mut text, &status.virtual_servers),
            View::Stats => figures(
                &mut text,
                &status.virtual_servers,
                ["Conns", "InPkts", "OutPkts", "InBytes", "OutBytes"],
                |stats, _| {
                    [stats.connections, stats.packets_in, stats.packets_out, stats.bytes_in, stats.bytes_out]
                        .map(|value| count(value, FIGURE))
                },
            ),
            View::Rates => figures(
                &mut text,
                &status.virtual_servers,
                ["CPS", "InPPS", "OutPPS", "InBPS", "OutBPS"],
                |_, rates| {
                    [rates.connections, rates.packets_in, rates.packets_out, rates.bytes_in, rates.bytes_out]
                        .map(|value| rate(value, FIGURE))
                },
            ),
        }
    }
    if verdicts {
        verdict_list(&mut text, status);
    }
    text
}

fn head(text: &mut String, status: &Status) {
    let Status { instance, router_id, version, pid, dataplane, connections, totals, .. } = status;
    let mut line = |label: &str, words: &str| paragraph(text, &format!("{label:<13}"), words);
    line("xdirector", &format!("{version}, instance {instance}, router {router_id}, pid {pid}"));
    line("Up", &duration(status.uptime_seconds));
    let interfaces: Vec<_> = status
        .interfaces
        .iter()
        .map(|interface| format!("{} ({})", interface.name, interface.mode))
        .collect();
    line("Data plane", &format!("{dataplane} on {}", interfaces.join(", ")));
    let share = if connections.capacity == 0 {
        0.0
    } else {
        100.0 * connections.entries as f64 / connections.capacity as f64
    };
    line(
        "Connections",
        &format!(
            "{} of {} ({share:.1}%), {} active, {} inactive",
            connections.entries, connections.capacity, totals.active, totals.inactive
        ),
    );
    let [new, packets_in, packets_out, bytes_in, bytes_out] = [
        totals.rates.connections,
        totals.rates.packets_in,
        totals.rates.packets_out,
        totals.rates.bytes_in,
        totals.rates.bytes_out,
    ]
    .map(|value| rate(value, 6));
    line(
        "Per second",
        &format!(
            "{new} new, in {packets_in} pkts {bytes_in} bytes, out {packets_out} pkts {bytes_out} bytes"
        ),
    );
}

/// Columns of the servers' table, as wide as their widest usual content.
const FORWARD: usize = 7;
const WEIGHT: usize = 6;
const STATE: usize = 5;
const CONNECTIONS: usize = 8;
const CPS: usize = 6;
/// `  -> ` and `TCP  `.
const MARK: usize = 5;
/// `255.255.255.255:65535`.
const ADDRESS: usize = 21;

fn servers(text: &mut String, virtual_servers: &[VirtualServerStatus]) {
    let real_servers = || virtual_servers.iter().flat_map(|virtual_server| &virtual_server.real_servers);
    let state = real_servers().map(|server| server.state.to_string().len()).max().unwrap_or(0).max(STATE);
    let numbers = 2 * (1 + CONNECTIONS) + 1 + CPS;
    let middle = 1 + FORWARD + 1 + WEIGHT + 1 + state;
    // IPv6 widens the addresses' column as far as the screen goes; longer addresses get a line of their own.
    let address = real_servers()
        .map(|server| server.address.to_string().len())
        .max()
        .unwrap_or(0)
        .clamp(ADDRESS, COLUMNS - MARK - middle - numbers);
    let left = MARK + address;

    let numbers = |active: &str, inactive: &str, cps: &str| {
        format!(" {active:>CONNECTIONS$} {inactive:>CONNECTIONS$} {cps:>CPS$}")
    };
    text.push_str("Prot Address:Port Scheduler (flags) Name\n");
    let heads = format!(" {:<FORWARD$} {:>WEIGHT$} {:<state$}", "Forward", "Weight", "State");
    row(text, "  -> Address:Port", left, &(heads + &numbers("Active", "Inactive", "CPS")));
    for virtual_server in virtual_servers {
        let VirtualServerStatus { address, scheduler, scheduler_flags, name, .. } = virtual_server;
        let mut title = format!("{} {address} {scheduler} ", protocol(virtual_server.protocol));
        if !scheduler_flags.is_empty() {
            let _ = write!(title, "({}) ", scheduler_flags.join(","));
        }
        title.push_str(name);
        let sums = numbers(
            &count(virtual_server.active, CONNECTIONS),
            &count(virtual_server.inactive, CONNECTIONS),
            &rate(virtual_server.rates.connections, CPS),
        );
        row(text, &title, left + middle, &sums);
        for server in &virtual_server.real_servers {
            let RealServerStatus { address, forward, weight, state: now, .. } = server;
            let cells = format!(" {forward:<FORWARD$} {weight:>WEIGHT$} {now:<state$}")
                + &numbers(
                    &count(server.active, CONNECTIONS),
                    &count(server.inactive, CONNECTIONS),
                    &rate(server.rates.connections, CPS),
                );
            row(text, &format!("  -> {address}"), left, &cells);
            if let Some(reason) = &server.reason {
                paragraph(text, &" ".repeat(MARK), reason);
            }
        }
    }
}

/// ipvsadm's widths for `--stats` and `--rate`.
const FIGURE: usize = 8;
const FIGURES_LEFT: usize = 33;

fn figures(
    text: &mut String,
    virtual_servers: &[VirtualServerStatus],
    heads: [&str; 5],
    values: impl Fn(&Stats, &Rates) -> [String; 5],
) {
    let cells =
        |values: [String; 5]| -> String { values.iter().map(|value| format!(" {value:>FIGURE$}")).collect() };
    text.push_str("Prot Address:Port Name\n");
    row(text, "  -> Address:Port", FIGURES_LEFT, &cells(heads.map(str::to_owned)));
    for virtual_server in virtual_servers {
        let title = format!(
            "{} {} {}",
            protocol(virtual_server.protocol),
            virtual_server.address,
            virtual_server.name
        );
        row(text, &title, FIGURES_LEFT, &cells(values(&virtual_server.stats, &virtual_server.rates)));
        for server in &virtual_server.real_servers {
            let cells = cells(values(&server.stats, &server.rates));
            row(text, &format!("  -> {}", server.address), FIGURES_LEFT, &cells);
        }
    }
}

fn verdict_list(text: &mut String, status: &Status) {
    text.push_str("\nVerdict                                          Packets\n");
    let mut none = true;
    for (name, packets) in status.verdicts.iter().filter(|(_, packets)| **packets != 0) {
        let _ = writeln!(text, "{name:<35} {packets:>20}");
        none = false;
    }
    if none {
        text.push_str("none yet\n");
    }
}

/// One line; `left` gets a line of its own when it would push the cells out of their columns.
fn row(text: &mut String, left: &str, width: usize, cells: &str) {
    if left.chars().count() > width {
        let _ = writeln!(text, "{left}");
        let _ = writeln!(text, "{:width$}{cells}", "");
    } else {
        let _ = writeln!(text, "{left:<width$}{cells}");
    }
}

/// Words after a label, wrapped under themselves.
fn paragraph(text: &mut String, label: &str, words: &str) {
    let indent = label.chars().count();
    let mut column = indent;
    text.push_str(label);
    for (index, word) in words.split_whitespace().enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > COLUMNS {
            let _ = write!(text, "\n{:indent$}", "");
            column = indent;
        } else if index > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += width;
    }
    text.push('\n');
}

/// ipvsadm's `%-4s`.
fn protocol(protocol: Protocol) -> String {
    format!("{protocol:<4}")
}

/// A number in at most `width` columns: in full, else in thousands, millions and so on.
fn count(value: u64, width: usize) -> String {
    let mut text = value.to_string();
    let mut rest = value;
    for unit in ["K", "M", "G", "T", "P", "E"] {
        if text.len() <= width {
            break;
        }
        rest /= 1000;
        text = format!("{rest}{unit}");
    }
    text
}

/// As [`count`]; small rates keep one decimal, because the difference of 0 and 0.5 matters.
fn rate(value: f64, width: usize) -> String {
    match format!("{value:.1}") {
        tiny if tiny == "0.0" => "0".into(),
        small if value < 100.0 => small,
        _ => count(value.round() as u64, width),
    }
}

/// `3d 04:05:06`.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let clock = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    if days == 0 { clock } else { format!("{days}d {clock}") }
}

#[cfg(test)]
mod tests;
