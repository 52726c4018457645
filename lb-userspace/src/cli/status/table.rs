//! The status as text. The layout follows `ipvsadm -L`, so that a reader of that one finds everything where it was.

use std::fmt::Write as _;

use super::{
    View,
    words::{
        count, duration, is_on_standby, milliseconds, pinned, plain, protocol, quorum_lost, rate,
        reload_failure, remarks, sorry_server,
    },
};
use crate::api::{
    Status,
    types::{CheckStatus, Rates, RealServerStatus, Stats, VirtualServerStatus},
};

/// As wide as a terminal is at least.
pub(in crate::cli) const COLUMNS: usize = 80;

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
            View::Checks => checks(&mut text, &status.virtual_servers),
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
    let Status { instance, router_id, version, pid, connections, totals, .. } = status;
    let mut line = |label: &str, words: &str| paragraph(text, &format!("{label:<13}"), words);
    line("xdirector", &format!("{version}, instance {instance}, router {router_id}, pid {pid}"));
    line("Up", &duration(status.uptime_seconds));
    line("Data plane", &status.data_plane());
    if let Some(reason) = &status.dataplane_reason {
        line("Not xdp", reason);
    }
    if let Some(pinned) = pinned(&status.persistence) {
        line("Pinned", &pinned);
    }
    if let Some(vrrp) = &status.vrrp {
        let states: Vec<_> = vrrp.instances.iter().map(|one| format!("{} {}", one.name, one.state)).collect();
        line("VRRP", &states.join(", "));
    }
    if let Some(failure) = reload_failure(&status.configuration) {
        line("Reload", &failure);
    }
    line(
        "Connections",
        &format!("{}, {} active, {} inactive", connections.fill(), totals.active, totals.inactive),
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

/// What the addresses and states need; IPv6 widens the addresses' column as far as the screen goes, longer addresses
/// get a line of their own.
fn widths(virtual_servers: &[VirtualServerStatus], others: usize) -> (usize, usize) {
    let real_servers = || virtual_servers.iter().flat_map(|virtual_server| &virtual_server.real_servers);
    let state = real_servers().map(|server| server.state.to_string().len()).max().unwrap_or(0).max(STATE);
    let address = real_servers()
        .map(|server| server.address.to_string().len())
        .max()
        .unwrap_or(0)
        .clamp(ADDRESS, COLUMNS - MARK - 1 - state - others);
    (address, state)
}

fn servers(text: &mut String, virtual_servers: &[VirtualServerStatus]) {
    let forward_and_weight = 1 + FORWARD + 1 + WEIGHT;
    let (address, state) = widths(virtual_servers, forward_and_weight + 2 * (1 + CONNECTIONS) + 1 + CPS);
    let middle = forward_and_weight + 1 + state;
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
        if is_on_standby(virtual_server) {
            title.push_str(", standby");
        }
        let sums = numbers(
            &count(virtual_server.active, CONNECTIONS),
            &count(virtual_server.inactive, CONNECTIONS),
            &rate(virtual_server.rates.connections, CPS),
        );
        row(text, &title, left + middle, &sums);
        for remark in quorum_lost(virtual_server).into_iter().chain(sorry_server(virtual_server)) {
            paragraph(text, &" ".repeat(MARK), &remark);
        }
        for server in &virtual_server.real_servers {
            let RealServerStatus { address, forward, weight, state: now, .. } = server;
            let cells = format!(" {forward:<FORWARD$} {weight:>WEIGHT$} {now:<state$}")
                + &numbers(
                    &count(server.active, CONNECTIONS),
                    &count(server.inactive, CONNECTIONS),
                    &rate(server.rates.connections, CPS),
                );
            row(text, &format!("  -> {address}"), left, &cells);
            for remark in remarks(server) {
                paragraph(text, &" ".repeat(MARK), &remark);
            }
        }
    }
}

/// `5000 ms`, `365d 23:59:59`.
const TIME: usize = 8;
const SINCE: usize = 13;
/// The longest type of check is `script`.
const KIND: usize = 6;

fn checks(text: &mut String, virtual_servers: &[VirtualServerStatus]) {
    let (address, state) = widths(virtual_servers, 1 + SINCE);
    let left = MARK + address;
    text.push_str("Prot Address:Port Name\n");
    row(text, "  -> Address:Port", left, &format!(" {:<state$} {:>SINCE$}", "State", "Since"));
    let _ = writeln!(text, "     {:<KIND$} Now  {:>TIME$} {:>SINCE$} Last result", "Check", "Took", "Since");
    for virtual_server in virtual_servers {
        let VirtualServerStatus { address, name, .. } = virtual_server;
        let _ = writeln!(text, "{} {address} {name}", protocol(virtual_server.protocol));
        for server in &virtual_server.real_servers {
            let cells = format!(" {:<state$} {:>SINCE$}", server.state, duration(server.since_seconds));
            row(text, &format!("  -> {}", server.address), left, &cells);
            for check in &server.checks {
                let (label, detail) = check_words(check);
                paragraph(text, &format!("     {label} "), &detail);
            }
            if server.checks.is_empty() {
                text.push_str("     no checks\n");
            }
        }
    }
}

/// A check's columns, and its last result in words.
fn check_words(check: &CheckStatus) -> (String, String) {
    let CheckStatus { kind, up, detail, since_seconds, seconds_last, .. } = check;
    let (now, took) = match up {
        None => ("-", "-".into()),
        Some(true) => ("up", milliseconds(*seconds_last)),
        Some(false) => ("down", milliseconds(*seconds_last)),
    };
    let mut detail = detail.as_deref().map_or_else(|| "no result yet".into(), plain);
    if let Some(weight) = check.weight {
        let _ = write!(detail, "; sets weight {weight}");
    }
    (format!("{kind:<KIND$} {now:<4} {took:>TIME$} {:>SINCE$}", duration(*since_seconds)), detail)
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
pub(in crate::cli) fn paragraph(text: &mut String, label: &str, words: &str) {
    for line in wrapped(label, words, COLUMNS) {
        text.push_str(&line);
        text.push('\n');
    }
}

/// Words after a label as lines of at most `columns` (a longer word is not broken), wrapped under themselves.
pub fn wrapped(label: &str, words: &str, columns: usize) -> Vec<String> {
    let indent = label.chars().count();
    let mut lines = vec![label.to_owned()];
    let mut column = indent;
    for (index, word) in words.split_whitespace().enumerate() {
        let width = word.chars().count();
        if index > 0 && column + 1 + width > columns {
            lines.push(" ".repeat(indent));
            column = indent;
        } else if index > 0 {
            lines.last_mut().expect("begins with one").push(' ');
            column += 1;
        }
        lines.last_mut().expect("begins with one").push_str(word);
        column += width;
    }
    lines
}
