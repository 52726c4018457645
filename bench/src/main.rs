//! `cargo xtask bench`: what a packet costs, how much traffic goes through the lab, how fast the agent is, and how long a
//! failover takes.

mod control;
mod cpu;
mod failover;
mod ipvs;
mod object;
mod packet;
mod plan;
mod traffic;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};

/// Measure xdirector: the cost of a packet, traffic through a lab of network namespaces, the agent, or failovers
#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Nanoseconds a packet on every path, on one CPU, beside an empty program and a floor
    Packet(packet::Options),
    /// Loading, reloading, health checks and memory of an agent with ten thousand virtual servers
    Control(control::Options),
    /// How long a client is without an answer when a director fails, beside keepalived on the same script
    Failover(failover::Options),
    /// Instructions a packet by the kernel's IPVS and by XDP, in a virtual machine that counts them
    Ipvs(ipvs::Options),
    /// Connections, packets and bytes a second through a lab, beside nftables and HAProxy doing the same job
    Traffic(traffic::Options),
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    ensure!(nix::unistd::geteuid().is_root(), "benchmarks load BPF programs: run them as root");
    match &arguments.command {
        Command::Packet(options) => packet::run(options),
        Command::Control(options) => control::run(options),
        Command::Failover(options) => failover::run(options),
        Command::Ipvs(options) => ipvs::run(options),
        Command::Traffic(options) => traffic::run(options),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Arguments::command().debug_assert();
    }
}
