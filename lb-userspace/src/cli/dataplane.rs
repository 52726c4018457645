//! `xdirector dataplane set`: exchanges what moves the packets.

use std::io::{self, Write};

use clap::{Args, Subcommand, ValueEnum};

use super::{SocketArgs, closed_is_done};
use crate::api::{
    Client,
    types::{DataPlaneKind, DataPlaneOrder},
};

/// Arguments of `xdirector dataplane`.
#[derive(Debug, Args)]
pub struct DataPlaneArgs {
    /// What to do.
    #[command(subcommand)]
    pub order: DataPlaneCommand,
}

/// What an operator can order.
#[derive(Debug, Subcommand)]
pub enum DataPlaneCommand {
    /// Have XDP or the kernel's IPVS move the packets, until the next reload
    /// or restart; connections go on where they began
    Set(SetArgs),
}

/// Arguments of `xdirector dataplane set`.
#[derive(Debug, Args)]
pub struct SetArgs {
    /// Which
    #[arg(value_enum, value_name = "DATAPLANE")]
    pub dataplane: Kind,
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// The two of them.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Kind {
    /// The XDP program
    Xdp,
    /// The kernel's IPVS
    Ipvs,
}

/// Asks the agent.
///
/// # Errors
///
/// No agent, or why the data plane cannot run.
pub fn run(args: &DataPlaneArgs) -> anyhow::Result<()> {
    let DataPlaneCommand::Set(set) = &args.order;
    let dataplane = match set.dataplane {
        Kind::Xdp => DataPlaneKind::Xdp,
        Kind::Ipvs => DataPlaneKind::Ipvs,
    };
    let done = Client::new(set.socket.path())?.set_dataplane(DataPlaneOrder { dataplane })?;
    let mut out = io::stdout().lock();
    Ok(closed_is_done(writeln!(
        out,
        "the data plane is {}, until the next reload or restart",
        done.dataplane
    ))?)
}
