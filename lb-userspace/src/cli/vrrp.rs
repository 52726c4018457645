//! `xdirector vrrp`: who has the virtual addresses, and why; and giving them up for maintenance.

use std::{
    fmt::Write as _,
    io::{self, Write},
};

use clap::{Args, Subcommand};

use super::{
    SocketArgs, closed_is_done,
    status::{table::paragraph, words::duration},
};
use crate::api::{
    Client,
    vrrp::{TrackedStatus, VrrpInstanceStatus, VrrpOrder, VrrpStatus},
};

/// What stands before the words of an instance's lines.
const INDENT: &str = "    ";

/// Arguments of `xdirector vrrp`.
#[derive(Debug, Args)]
pub struct VrrpArgs {
    /// What to do; nothing: show.
    #[command(subcommand)]
    pub order: Option<VrrpCommand>,
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Print the JSON of GET /v1/vrrp
    #[arg(long)]
    pub json: bool,
}

/// What an operator can order.
#[derive(Debug, Subcommand)]
pub enum VrrpCommand {
    /// Give the addresses to the other director, for maintenance here; with the
    /// whole sync group
    Handover(OrderArgs),
    /// Lift a handover: the priority decides again
    Resume(OrderArgs),
}

/// Arguments of `xdirector vrrp handover` and `resume`.
#[derive(Debug, Args)]
pub struct OrderArgs {
    /// Name of the VRRP instance
    #[arg(value_name = "INSTANCE")]
    pub name: String,
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Asks the agent, and prints how VRRP is.
///
/// # Errors
///
/// No agent, or an order that it refuses.
pub fn run(args: &VrrpArgs) -> anyhow::Result<()> {
    let status = match &args.order {
        None => Client::new(args.socket.path())?.vrrp()?,
        Some(VrrpCommand::Handover(order)) => ask(order, false)?,
        Some(VrrpCommand::Resume(order)) => ask(order, true)?,
    };
    let mut out = io::stdout().lock();
    let text = if args.json { serde_json::to_string_pretty(&status)? + "\n" } else { render(&status) };
    Ok(closed_is_done(out.write_all(text.as_bytes()).and_then(|()| out.flush()))?)
}

fn ask(args: &OrderArgs, resume: bool) -> anyhow::Result<VrrpStatus> {
    let order = VrrpOrder { instance: args.name.clone() };
    Ok(Client::new(args.socket.path())?.vrrp_order(&order, resume)?)
}

/// The instances with what they track, then the groups; at most 80 columns wide unless a name alone is wider.
fn render(status: &VrrpStatus) -> String {
    let mut text = String::new();
    if status.instances.is_empty() {
        return "There is no VRRP instance.\n".to_owned();
    }
    let name = status.instances.iter().map(|one| one.name.len()).max().unwrap_or(0).max("Instance".len());
    let _ = writeln!(
        text,
        "{:name$} {:<6} {:>9} {:>8} {:>4} {:<15} Master",
        "Instance", "State", "Since", "Priority", "Vrid", "Interface"
    );
    for instance in &status.instances {
        write_instance(&mut text, instance, name);
    }
    if !status.groups.is_empty() {
        text.push('\n');
    }
    for group in &status.groups {
        let line = format!("Group {} {}: {}", group.name, group.state, group.instances.join(", "));
        paragraph(&mut text, "", &line);
    }
    if !status.tracked.is_empty() {
        text.push_str("\nTracked\n");
    }
    for tracked in &status.tracked {
        let TrackedStatus { track, up, number, detail } = tracked;
        let value = match (up, number) {
            (_, Some(number)) => number.to_string(),
            (Some(true), _) => "up".to_owned(),
            _ => "down".to_owned(),
        };
        let line = if detail.is_empty() {
            format!("{track}: {value}")
        } else {
            format!("{track}: {value} ({detail})")
        };
        paragraph(&mut text, INDENT, &line);
    }
    text.push('\n');
    let guard = match status.guard {
        Some(true) => "running",
        Some(false) => "not running: after a crash of the agent its addresses stay",
        None => "not wanted",
    };
    paragraph(
        &mut text,
        "",
        &format!("Guard {guard}. Longest delay {:.1} ms.", status.longest_delay_seconds * 1000.0),
    );
    for warning in &status.warnings {
        paragraph(&mut text, "", &format!("Warning: {warning}"));
    }
    text
}

fn write_instance(text: &mut String, instance: &VrrpInstanceStatus, name: usize) {
    let priority = if instance.priority == instance.effective_priority {
        instance.priority.to_string()
    } else {
        format!("{}({})", instance.effective_priority, instance.priority)
    };
    let master = match (instance.state.as_str(), instance.master) {
        ("MASTER", _) => "this director".to_owned(),
        (_, Some(master)) => master.to_string(),
        (_, None) => "-".to_owned(),
    };
    let _ = writeln!(
        text,
        "{:name$} {:<6} {:>9} {priority:>8} {:>4} {:<15} {master}",
        instance.name,
        instance.state,
        duration(instance.since_seconds),
        instance.virtual_router_id,
        instance.interface,
    );
    let mut line = |words: String| paragraph(text, INDENT, &words);
    line(instance.addresses.join(", "));
    if !instance.reason.is_empty() {
        line(instance.reason.clone());
    }
    for fault in &instance.faults {
        line(format!("fault: {fault}"));
    }
    if !instance.weights.is_empty() {
        let weights: Vec<String> =
            instance.weights.iter().map(|one| format!("{} {:+}", one.track, one.weight)).collect();
        line(format!("priority moved by {}", weights.join(", ")));
    }
    if instance.handed_over {
        line(
            "handed over: takes over only when no master is heard, until `xdirector vrrp resume`".to_owned(),
        );
    }
    let mut counts = format!("adverts: {} sent, {} received", instance.sent, instance.received);
    let discarded: u64 = instance.discarded.values().sum();
    if discarded > 0 {
        let reasons: Vec<String> =
            instance.discarded.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let _ = write!(counts, ", {discarded} discarded ({})", reasons.join(", "));
    }
    if instance.send_errors > 0 {
        let _ = write!(counts, ", {} could not be sent", instance.send_errors);
    }
    line(counts);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::samples;

    #[test]
    fn everything_is_shown_in_eighty_columns() {
        let text = render(&samples::vrrp());
        insta::assert_snapshot!(text);
        assert!(
            text.lines().all(|line| line.chars().count() <= crate::cli::status::table::COLUMNS),
            "{text}"
        );
    }

    #[test]
    fn no_instance_is_said() {
        assert_eq!(render(&VrrpStatus::default()), "There is no VRRP instance.\n");
    }
}
