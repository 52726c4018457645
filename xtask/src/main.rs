//! Every developer command of xdirector: `cargo xtask <command>`.
//!
//! Each command first installs what it needs and is missing, so that a fresh clone has no steps before it.

mod audit;
mod ebpf_build;
mod fuzz;
mod invariants;
mod linker;
mod package;
mod packages;
mod progress;
mod setup;
mod test;
mod test_output;
mod toolchain;
mod unpack;
mod vm;
mod workspace;

use std::{ffi::OsString, os::unix::process::CommandExt as _, process::ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};

use crate::{setup::Need, workspace::Workspace};

/// The developer commands of xdirector. Each installs what it needs and says what it does.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Install what is missing for every other command but `audit`
    Setup,
    /// Build the eBPF programs, then the agent and the tools (release)
    Build,
    /// Show S1, S2 and S3 with real traffic in a lab of namespaces (root)
    Demo {
        /// Arguments for the demo itself; `cargo xtask demo -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run every check and test (root); the last line is the count
    Test(test::Options),
    /// Try random input on what reads files, requests and answers
    Fuzz(fuzz::Options),
    /// Measure the cost of a packet, or traffic through the lab (root)
    Bench {
        /// Arguments for the benchmark; `cargo xtask bench -- --help` lists them
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Run a command in another kernel, in a virtual machine over this machine's files
    Vm(vm::Options),
    /// Build everything, then the Debian package in target/debian
    Package,
    /// Check the dependencies' licences, bans and sources with cargo-deny
    Audit,
    /// Format the source
    Fmt,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    match command {
        Command::Setup => {
            let tools = setup::ensure_ebpf(&workspace)?;
            setup::ensure_packages(&workspace, &[Need::Lab, Need::Bench, Need::Failover, Need::Fuzz])?;
            package::ensure_tools(&workspace)?;
            vm::ensure(&workspace)?;
            println!("eBPF toolchain: {}", tools.toolchain);
            println!("bpf-linker:     {}", tools.linker);
            println!("Everything that xdirector's commands need is here.");
        }
        Command::Build => {
            ebpf_build::build(&workspace)?;
            println!("The agent is {}.", workspace.release_binary("xdirector")?.display());
        }
        Command::Demo { args } => {
            workspace::require_root("demo")?;
            setup::ensure_packages(&workspace, &[Need::Lab])?;
            ebpf_build::build(&workspace)?;
            return Err(hand_over(&workspace, "xdirector-demo", &args));
        }
        Command::Bench { args } => {
            workspace::require_root("bench")?;
            setup::ensure_packages(&workspace, &[Need::Lab, Need::Bench, Need::Failover])?;
            ebpf_build::build(&workspace)?;
            if args.first().is_some_and(|first| first == "ipvs") {
                // Instructions are counted in a machine for that, whose kernel has IPVS.
                return Ok(vm::run(
                    &workspace,
                    &vm::Options::counted(workspace.release_binary("bench")?, args),
                ));
            }
            return Err(hand_over(&workspace, "bench", &args));
        }
        Command::Test(options) => return test::run(&workspace, &options),
        Command::Fuzz(options) => fuzz::run(&workspace, &options)?,
        Command::Vm(options) => return Ok(vm::run(&workspace, &options)),
        Command::Package => {
            ebpf_build::build(&workspace)?;
            println!("The package is {}.", package::make(&workspace)?.display());
        }
        Command::Audit => audit::run(&workspace)?,
        Command::Fmt => {
            for args in [&["fmt", "--all"][..], &["fmt", "--manifest-path", "fuzz/Cargo.toml"]] {
                let status = workspace.cargo().args(args).status().context("could not start `cargo fmt`")?;
                if !status.success() {
                    bail!("`cargo {}` failed", args.join(" "));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Replaces this process by a program of the project, so that its signals and exit code are the user's own.
///
/// Returns only when that fails.
fn hand_over(workspace: &Workspace, program: &str, args: &[OsString]) -> anyhow::Error {
    let binary = match workspace.release_binary(program) {
        Ok(binary) => binary,
        Err(error) => return error,
    };
    let mut command = std::process::Command::new(&binary);
    workspace::remove_cargo_run_variables(&mut command);
    let error = command.args(args).exec();
    anyhow::Error::new(error).context(format!("could not run {}", binary.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn demo_and_bench_pass_options_through() {
        let cli = Cli::try_parse_from(["cargo xtask", "bench", "packet", "--json"]).unwrap();
        let Command::Bench { args } = cli.command else { panic!("not bench") };
        assert_eq!(args, ["packet", "--json"]);
        let cli = Cli::try_parse_from(["cargo xtask", "demo", "--keep"]).unwrap();
        let Command::Demo { args } = cli.command else { panic!("not demo") };
        assert_eq!(args, ["--keep"]);
    }
}
