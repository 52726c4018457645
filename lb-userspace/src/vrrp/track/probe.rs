//! One attempt at a tracked thing.

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::sync::Mutex;

use super::{file, program};
use crate::{
    config::{Command, vrrp::VrrpScript},
    health::probe::{Outcome, Way, script, tcp, tidy},
    process::{self, Finished, User},
    vrrp::TrackValue,
};

/// What to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Probe {
    Script {
        command: Command,
        timeout: Duration,
        /// As whom it runs; `None`: as all others do.
        user: Option<String>,
    },
    Port {
        address: SocketAddr,
        timeout: Duration,
    },
    Process {
        name: String,
        quorum: u32,
    },
    File {
        path: PathBuf,
    },
}

/// As whom scripts run.
#[derive(Debug, Clone, Default)]
pub(super) struct Users {
    /// Those that name nobody.
    pub(super) default: Option<Arc<User>>,
    /// The one whom this script names, once it has been found: the user database may be slow. Locked while it is asked, so
    /// that it is asked once at a time however long it takes.
    pub(super) own: Arc<Mutex<Option<User>>>,
}

/// What an attempt has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) value: TrackValue,
    /// Printable and short.
    pub(super) detail: String,
}

impl Finding {
    pub(super) fn down(detail: &str) -> Self {
        Self { value: TrackValue::Down, detail: detail.to_owned() }
    }
}

impl From<Outcome> for Finding {
    fn from(outcome: Outcome) -> Self {
        let (value, detail) = match outcome {
            Ok(passed) => (TrackValue::Up, passed.detail),
            Err(why) => (TrackValue::Down, why),
        };
        Self { value, detail: tidy(detail) }
    }
}

impl Probe {
    pub(super) fn script(script: &VrrpScript) -> Self {
        let VrrpScript { command, timeout, user, .. } = script.clone();
        Self::Script { command, timeout, user }
    }

    /// Looks. Dropping the future ends it, and with it what it has started.
    pub(super) async fn attempt(&self, users: &Users) -> Finding {
        match self {
            Self::Script { command, timeout, user } => {
                match run(command, *timeout, user.as_deref(), users).await {
                    Ok(finished) => script::judge(&finished, false, *timeout).into(),
                    Err(error) => Err(format!("cannot run the script: {error}")).into(),
                }
            }
            Self::Port { address, timeout } => {
                let way = Way { connect: *address, bind: None, fwmark: 0, through: None };
                match tokio::time::timeout(*timeout, tcp::attempt(&way)).await {
                    Ok(outcome) => outcome.into(),
                    Err(_) => Err(format!("no answer within {} s", timeout.as_secs_f64())).into(),
                }
            }
            Self::Process { name, quorum } => {
                let wanted = name.clone();
                match blocking(move || program::count(&wanted)).await {
                    Ok(count) => {
                        let value = if count >= *quorum { TrackValue::Up } else { TrackValue::Down };
                        Finding { value, detail: format!("{count} running, {quorum} wanted") }
                    }
                    Err(error) => Err(format!("cannot look for processes: {error}")).into(),
                }
            }
            Self::File { path } => {
                let (number, detail) = file::attempt(path).await;
                Finding { value: TrackValue::Number(number), detail: tidy(detail) }
            }
        }
    }
}

async fn run(
    command: &Command,
    timeout: Duration,
    user: Option<&str>,
    users: &Users,
) -> io::Result<Finished> {
    let user = match user {
        Some(name) => {
            let found = tokio::time::timeout(timeout, find(name, &users.own)).await;
            let silent = || io::Error::other(format!("the user database says nothing about `{name}`"));
            Some(Arc::new(found.map_err(|_| silent())??))
        }
        None => users.default.clone(),
    };
    process::run(&command.0, &[], user.as_deref(), timeout).await
}

async fn find(name: &str, own: &Arc<Mutex<Option<User>>>) -> io::Result<User> {
    let mut own = Arc::clone(own).lock_owned().await;
    if let Some(user) = &*own {
        return Ok(user.clone());
    }
    let name = name.to_owned();
    blocking(move || Ok(own.insert(User::find(&name)?).clone())).await
}

/// On a thread where it may wait.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
