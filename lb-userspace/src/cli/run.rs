//! `xdirector run`: the agent in the foreground.

use std::{io::IsTerminal, path::PathBuf};

use clap::Args;

use tracing_subscriber::EnvFilter;

use crate::{agent, api::socket::SOCKET_VARIABLE, dataplane::xdp};

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
}

/// Runs until SIGTERM or SIGINT.
///
/// # Errors
///
/// The agent's.
pub fn run(args: RunArgs) -> anyhow::Result<()> {
    start_log(args.trace)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let RunArgs { config, trace, socket } = args;
    runtime.block_on(agent::run(agent::Options { config, trace, socket }))
}

/// Logs to standard error; `XDIRECTOR_LOG` takes the directives of tracing's `EnvFilter`.
fn start_log(trace: bool) -> anyhow::Result<()> {
    let default = if trace { "debug" } else { "info" };
    let filter = EnvFilter::try_from_env("XDIRECTOR_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // The data plane's events come through `log`, and so does every detail of how it is loaded.
    tracing_log::LogTracer::builder().ignore_all(xdp::CHATTY).init()?;
    let format = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .finish();
    tracing::subscriber::set_global_default(format)?;
    Ok(())
}
