//! The command line: which subcommands there are, and how they end.

pub mod check;
pub mod connections;
mod dataplane;
pub mod documents;
pub mod events;
pub mod guard;
pub mod hash;
pub mod order;
pub mod reload;
pub mod run;
pub mod status;
pub mod stop;
pub mod top;
pub mod vrrp;

use std::{env, ffi::OsString, io, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    api::socket::{DEFAULT_INSTANCE, SOCKET_VARIABLE, default_path},
    config::ConfigErrors,
};

/// A layer-4 director: an XDP program forwards the packets, this agent decides.
#[derive(Debug, Parser)]
#[command(name = "xdirector", version, max_term_width = 80, after_help = EXIT_CODES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 = done, 1 = failed, 2 = wrong usage.";

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load the data plane and balance until SIGTERM or SIGINT
    Run(run::RunArgs),
    /// Check a configuration file and name every mistake in it
    Check(check::CheckArgs),
    /// Show the servers, their states, connections and rates
    Status(status::StatusArgs),
    /// List the connection table
    Connections(connections::ConnectionsArgs),
    /// Show who has the virtual addresses, and why; give them up
    Vrrp(vrrp::VrrpArgs),
    /// Exchange what moves the packets: XDP or the kernel's IPVS
    Dataplane(dataplane::DataPlaneArgs),
    /// Watch the director in the terminal; drain and enable servers
    Top(top::TopArgs),
    /// Show the last changes of state
    Events(events::EventsArgs),
    /// Read the configuration file again; a file with a mistake changes nothing
    Reload(reload::ReloadArgs),
    /// Give a real server no new connections; the old ones go on
    Drain(order::DrainArgs),
    /// Take a real server out, as if a check had failed
    Disable(order::ServerArgs),
    /// Lift what was ordered for a real server
    Enable(order::ServerArgs),
    /// Give a real server another weight than the configuration's
    Weight(order::WeightArgs),
    /// End the agent; packets are forwarded on, unless --detach
    Stop(stop::StopArgs),
    /// Print the MD5 that an http check expects of a page
    Hash(hash::HashArgs),
    /// Give virtual addresses up when the agent dies; only the agent starts this
    #[command(hide = true)]
    Guard(guard::GuardArgs),
    /// Print the completions of a shell
    Completions(documents::CompletionsArgs),
    /// Write the manual pages into a directory
    Man(documents::ManArgs),
}

/// Parses the process' arguments, does what they say and turns the result into an exit code: 0 done, 1 failed. Wrong
/// usage ends the process with 2 inside.
pub fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(args),
        Command::Status(args) => status::run(&args),
        Command::Connections(args) => connections::run(&args),
        Command::Vrrp(args) => vrrp::run(&args),
        Command::Dataplane(args) => dataplane::run(&args),
        Command::Top(args) => top::run(&args),
        Command::Events(args) => events::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Drain(args) => order::drain(&args),
        Command::Disable(args) => order::disable(&args),
        Command::Enable(args) => order::enable(&args),
        Command::Weight(args) => order::weight(&args),
        Command::Stop(args) => stop::run(&args),
        Command::Hash(args) => hash::run(&args),
        Command::Guard(args) => guard::run(&args),
        Command::Completions(args) => documents::completions(&args),
        Command::Man(args) => documents::man(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn report(error: &anyhow::Error) {
    match error.downcast_ref::<ConfigErrors>() {
        // `FILE:LINE: ...`, one per line, as editors and people expect of a checker.
        Some(errors) => eprintln!("{}", errors.to_string().trim_end()),
        // With the causes on the same line: `xdirector: cannot do this: because of that`.
        None => eprintln!("xdirector: {error:#}"),
    }
}

/// Which agent a client command asks.
#[derive(Debug, Clone, Default, Args)]
pub struct SocketArgs {
    // The environment is read in `path`, not by clap, for which it would be in conflict with --instance.
    /// Ask the xdirector that listens here [env: XDIRECTOR_SOCKET] [default:
    /// /run/xdirector/default.sock]
    #[arg(long, value_name = "PATH", conflicts_with = "instance")]
    pub socket: Option<PathBuf>,
    /// Ask the xdirector of this instance (/run/xdirector/NAME.sock)
    #[arg(long, value_name = "NAME", value_parser = instance_name)]
    pub instance: Option<String>,
}

impl SocketArgs {
    /// The socket: an option, else the environment, else the default instance's.
    pub fn path(&self) -> PathBuf {
        self.path_with(env::var_os(SOCKET_VARIABLE))
    }

    fn path_with(&self, variable: Option<OsString>) -> PathBuf {
        match (&self.socket, &self.instance) {
            (Some(path), _) => path.clone(),
            (None, Some(instance)) => default_path(instance),
            (None, None) => variable
                .filter(|path| !path.is_empty())
                .map_or_else(|| default_path(DEFAULT_INSTANCE), PathBuf::from),
        }
    }
}

fn instance_name(name: &str) -> Result<String, String> {
    if name.is_empty() || name.contains('/') {
        return Err("an instance's name is not empty and has no '/'; --socket takes a path".into());
    }
    Ok(name.into())
}

/// A reader that has seen enough (`| head`) is no error.
fn closed_is_done(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_fits_80_columns() {
        let mut cli = Cli::command();
        cli.build();
        let names: Vec<_> = cli.get_subcommands().map(|command| command.get_name().to_owned()).collect();
        for name in ["run", "check", "status", "connections"] {
            assert!(names.iter().any(|known| known == name), "no subcommand {name}");
        }
        for command in std::iter::once(cli.clone()).chain(cli.get_subcommands().cloned()) {
            let help = command.clone().max_term_width(80).render_long_help().to_string();
            for line in help.lines() {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
        }
    }

    #[test]
    fn socket_order() {
        let of = |args: &[&str], variable: Option<&str>| {
            let all = ["xdirector", "status"].iter().chain(args);
            let Command::Status(status) = Cli::try_parse_from(all).unwrap().command else { unreachable!() };
            status.socket.path_with(variable.map(OsString::from))
        };
        assert_eq!(of(&[], None), Path::new("/run/xdirector/default.sock"));
        assert_eq!(of(&[], Some("")), Path::new("/run/xdirector/default.sock"));
        assert_eq!(of(&[], Some("/e.sock")), Path::new("/e.sock"));
        assert_eq!(of(&["--instance", "two"], Some("/e.sock")), Path::new("/run/xdirector/two.sock"));
        assert_eq!(of(&["--socket", "/s.sock"], Some("/e.sock")), Path::new("/s.sock"));
    }

    #[test]
    fn wrong_usage() {
        let kind = |args: &[&str]| {
            let error = Cli::try_parse_from(["xdirector"].iter().chain(args)).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{args:?}");
            error.kind()
        };
        assert_eq!(kind(&["run"]), ErrorKind::MissingRequiredArgument);
        assert_eq!(kind(&["status", "--socket", "/a", "--instance", "b"]), ErrorKind::ArgumentConflict);
        assert_eq!(kind(&["status", "--instance", "a/b"]), ErrorKind::ValueValidation);
        assert_eq!(kind(&["status", "--json", "--rates"]), ErrorKind::ArgumentConflict);
        assert_eq!(kind(&["status", "--stats", "--rates"]), ErrorKind::ArgumentConflict);
        assert_eq!(kind(&["connections", "--limit", "-1"]), ErrorKind::UnknownArgument);
    }
}
