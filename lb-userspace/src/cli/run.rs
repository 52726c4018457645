//! `xdirector run`: the agent in the foreground.

use std::path::PathBuf;

use clap::Args;

use crate::{agent, api::socket::SOCKET_VARIABLE, logging};

/// Arguments of `xdirector run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration file
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Log the data plane's debug events: new connections, drops and their reasons
    #[arg(long)]
    pub trace: bool,
    /// Listen here instead of /run/xdirector/INSTANCE.sock
    #[arg(long, value_name = "PATH", env = SOCKET_VARIABLE, hide_env_values = true)]
    pub socket: Option<PathBuf>,
    /// Pin the data plane here instead of /sys/fs/bpf/xdirector/INSTANCE
    #[arg(long, value_name = "DIRECTORY", env = "XDIRECTOR_PINS", hide_env_values = true)]
    pub pins: Option<PathBuf>,
    /// Keep what operators order here instead of /var/lib/xdirector
    #[arg(long, value_name = "DIRECTORY", env = "XDIRECTOR_STATE", hide_env_values = true)]
    pub state: Option<PathBuf>,
    /// The log.
    #[command(flatten)]
    pub log: logging::LogArgs,
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// The agent's.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    logging::start(&args.log, args.trace)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let RunArgs { config, trace, socket, pins, state, log: _ } = args;
    runtime.block_on(agent::run(agent::Options { config, trace, socket, pins, state }))
}
