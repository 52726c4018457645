//! `xdirector stop`: ends the agent, and with `--detach` the data plane too.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;

use super::{SocketArgs, closed_is_done};
use crate::{
    api::{
        Client, Status, Stop, client::ClientError, default_path, socket::DEFAULT_INSTANCE,
        types::DataPlaneKind,
    },
    dataplane::{
        ipvs,
        xdp::{pins, remove_pinned},
    },
    orders,
};

/// Arguments of `xdirector stop`.
#[derive(Debug, Args)]
pub struct StopArgs {
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Remove the data plane too: packets are no longer forwarded. Also
    /// removes what an agent that has ended left
    #[arg(long)]
    pub detach: bool,
    /// Where an agent that has ended had pinned its data plane, if not at
    /// /sys/fs/bpf/xdirector/INSTANCE
    #[arg(long, value_name = "DIRECTORY", env = "XDIRECTOR_PINS", hide_env_values = true)]
    pub pins: Option<PathBuf>,
    /// Where an agent that has ended had written which of IPVS's services
    /// are its own, if not in /var/lib/xdirector
    #[arg(long, value_name = "DIRECTORY", env = "XDIRECTOR_STATE", hide_env_values = true)]
    pub state: Option<PathBuf>,
}

/// How long the agent may take to end.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(50);

/// Asks the agent and waits until its socket is gone.
///
/// # Errors
///
/// No agent, or one that does not end.
pub fn run(args: &StopArgs) -> anyhow::Result<()> {
    let path = args.socket.path();
    let client = Client::new(&path)?;
    // Only for the last word: an agent that cannot tell its status can still be stopped.
    let status = client.status().ok();
    let before = identity(&path);
    let text = match client.stop(Stop { detach: args.detach }) {
        Err(ClientError::NotRunning { .. }) if args.detach => {
            if detach_without_agent(args)? {
                "no xdirector was running; removed the data plane that it had left"
            } else {
                "no xdirector was running, and none had left a data plane"
            }
        }
        // An agent that is gone before its answer is out has stopped as well, which its socket tells.
        Ok(()) | Err(ClientError::Transport { .. }) => {
            let until = Instant::now() + PATIENCE;
            wait_until_gone(&path, before, || Instant::now() < until)?;
            last_word(args.detach, status.as_ref())
        }
        Err(error) => return Err(error.into()),
    };
    Ok(closed_is_done(writeln!(io::stdout().lock(), "{text}"))?)
}

/// Removes the pinned data plane of an instance whose agent has ended; false when there is none.
fn detach_without_agent(args: &StopArgs) -> anyhow::Result<bool> {
    let is_nameless = args.socket.instance.is_none() && args.socket.path() != default_path(DEFAULT_INSTANCE);
    if is_nameless && args.pins.is_none() {
        bail!(
            "no xdirector is running at {}, and a socket does not say whose data plane is meant: give --instance NAME or --pins \
             DIRECTORY",
            args.socket.path().display()
        );
    }
    let instance = args.socket.instance.as_deref().unwrap_or(DEFAULT_INSTANCE);
    let directory = args.pins.clone().unwrap_or_else(|| pins::default_directory(instance));
    let _lock = if directory.exists() { Some(pins::lock(&directory)?) } else { None };
    let had_pins = if directory.exists() {
        remove_pinned(&directory).with_context(|| format!("cannot remove {}", directory.display()))
    } else {
        Ok(false)
    };
    // Pins do not say whose services are meant.
    let had_services = if is_nameless && args.state.is_none() {
        Ok(false)
    } else {
        let state = args.state.clone().unwrap_or_else(|| PathBuf::from(orders::DEFAULT_DIRECTORY));
        ipvs::remove_owned(ipvs::owned_file(&state, instance)).context("IPVS's services stay")
    };
    Ok(had_pins? | had_services?)
}

fn last_word(detach: bool, status: Option<&Status>) -> &'static str {
    match status {
        _ if detach => "stopped; packets are no longer forwarded",
        Some(status) if status.persistence.pins.is_some() || status.dataplane == DataPlaneKind::Ipvs => {
            "stopped; packets are forwarded on (xdirector stop --detach ends that too)"
        }
        Some(_) => "stopped; packets are no longer forwarded: nothing of the data plane was pinned",
        None => "stopped",
    }
}

/// Which file the socket is. Another agent may have put its own there at once.
fn identity(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

fn wait_until_gone(
    path: &Path,
    before: Option<(u64, u64, i64, i64)>,
    may_wait: impl Fn() -> bool,
) -> anyhow::Result<()> {
    while before.is_some() && identity(path) == before {
        if !may_wait() {
            bail!(
                "xdirector was told to end, but its socket {} is still there after {} s; see its log",
                path.display(),
                PATIENCE.as_secs()
            );
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn the_wait_ends_when_the_socket_is_gone_or_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        wait_until_gone(&path, identity(&path), || false).unwrap();
        fs::write(&path, "old").unwrap();
        let before = identity(&path);
        let waits = Cell::new(0);
        wait_until_gone(&path, before, || {
            waits.set(waits.get() + 1);
            if waits.get() == 2 {
                fs::remove_file(&path).unwrap();
            }
            true
        })
        .unwrap();
        assert_eq!(waits.get(), 2);
        fs::write(&path, "new").unwrap();
        assert_ne!(identity(&path), before, "the times differ where the number is used again");
        wait_until_gone(&path, before, || false).unwrap();
    }

    #[test]
    fn the_wait_is_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.sock");
        fs::write(&path, "").unwrap();
        let error = wait_until_gone(&path, identity(&path), || false).unwrap_err().to_string();
        assert!(error.contains("still there"), "{error}");
    }

    #[test]
    fn the_last_word_says_what_became_of_the_packets() {
        let mut status = crate::api::samples::status();
        status.persistence.pins = None;
        assert!(last_word(false, Some(&status)).contains("no longer"));
        status.persistence.pins = Some("/sys/fs/bpf/xdirector/default".into());
        assert!(last_word(false, Some(&status)).contains("forwarded on"));
        assert!(last_word(true, Some(&status)).contains("no longer"));
        assert_eq!(last_word(false, None), "stopped");
    }
}
