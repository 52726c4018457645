//! `xdirector guard`: the process that gives the virtual addresses up when the agent dies. Not for people.

use std::{
    io,
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use clap::Args;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::vrrp::guard::process;

/// Arguments of `xdirector guard`, as the agent gives them.
#[derive(Debug, Args)]
pub struct GuardArgs {
    /// Descriptor of the memory that is shared with the agent
    #[arg(long, value_name = "FD")]
    pub shared: Option<RawFd>,
    /// Descriptor of the socket to the agent
    #[arg(long, value_name = "FD")]
    pub socket: Option<RawFd>,
}

/// Guards until the agent ends.
///
/// # Errors
///
/// When it was not the agent that has started it, and those of [`process::run`].
pub fn run(args: &GuardArgs) -> anyhow::Result<()> {
    let (Some(shared), Some(socket)) = (args.shared, args.socket) else {
        anyhow::bail!(
            "`guard` is a part of `xdirector run`, which starts and ends it itself; it does nothing by hand"
        );
    };
    anyhow::ensure!(shared != socket, "--shared and --socket are the same");
    let (shared, socket) = (inherited(shared)?, inherited(socket)?);
    process::run(shared, socket).map_err(|error| anyhow::Error::from(error).context("guard"))
}

/// Takes over a descriptor that the agent has left open.
fn inherited(fd: RawFd) -> anyhow::Result<OwnedFd> {
    let refused =
        || anyhow::anyhow!("descriptor {fd} does not come from an agent; `guard` is started by one only");
    if fd <= libc::STDERR_FILENO {
        return Err(refused());
    }
    // SAFETY: not -1. That it is open is what the call finds out.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    if fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(io::Error::from).is_err() {
        return Err(refused());
    }
    // SAFETY: it is open, and this is the start of the process: nothing in it has opened a descriptor for itself that lives on.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
