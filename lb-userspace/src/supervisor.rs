//! What systemd is told: ready, reloading, stopping, still alive (`sd_notify(3)`).
//!
//! Every call does nothing where nobody asked to be told, so the agent need not know how it was started.

use std::{
    env,
    ffi::OsStr,
    fmt::Write as _,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::Path,
    process,
    time::Duration,
};

use sd_notify::NotifyState;

/// The service manager that started this process, if there is one.
#[derive(Debug)]
pub struct Supervisor {
    /// Connected to its socket; never blocks.
    socket: Option<UnixDatagram>,
    watchdog: Option<Duration>,
}

impl Supervisor {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// A socket that cannot be reached is a warning, not an error: packets matter more than whom one tells of them.
    pub fn from_environment() -> Self {
        let text = |name| env::var(name).ok();
        Self::new(
            env::var_os("NOTIFY_SOCKET").as_deref(),
            watchdog(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref(), process::id()),
        )
    }

    /// Tells the socket at `address`: an absolute path, or `@NAME` for one outside the file system.
    fn new(address: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let socket = address.and_then(|address| {
            connect(address)
                .inspect_err(|error| {
                    tracing::warn!("cannot reach the service manager at {}: {error}", address.display());
                })
                .ok()
        });
        Self { socket, watchdog }
    }

    /// Packets are served. `status` is the line that `systemctl status` shows.
    ///
    /// Also ends [`Supervisor::reloading`], whether or not the new configuration was taken.
    pub fn ready(&self, status: &str) {
        self.tell(&[NotifyState::Ready, NotifyState::Status(&one_line(status))]);
    }

    /// The configuration is being read again; [`Supervisor::ready`] must follow.
    pub fn reloading(&self) {
        // systemd 253 and later compares the time with that of its own order.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.tell(&[NotifyState::Reloading, now]),
            Err(error) => tracing::warn!("cannot read the clock: {error}"),
        }
    }

    /// The agent is ending in good order.
    pub fn stopping(&self) {
        self.tell(&[NotifyState::Stopping]);
    }

    /// How often to call [`Supervisor::alive`]: half of the time after which the service manager would restart the
    /// agent. `None` when it does not watch.
    pub fn watchdog_period(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some()).map(|limit| limit / 2)
    }

    /// The event loop turns.
    pub fn alive(&self) {
        self.tell(&[NotifyState::Watchdog]);
    }

    fn tell(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let mut message = String::new();
        for state in states {
            writeln!(message, "{state}").expect("a String takes everything");
        }
        if let Err(error) = socket.send(message.as_bytes()) {
            tracing::warn!("cannot tell the service manager {:?}: {error}", message.trim_end());
        }
    }
}

fn connect(address: &OsStr) -> io::Result<UnixDatagram> {
    let address = match address.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(Path::new(address))?,
        _ => {
            let reason = "expected an absolute path or @NAME";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A service manager that does not read must not stop the event loop.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// After how long without a sign of life the service manager acts, if it watches process `own`.
fn watchdog(usec: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    // Without a process number every process is meant.
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let limit = usec?.parse().ok().filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(limit))
}

/// A status is one line of the message; another line would be another assignment.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A service manager's end, and the agent's.
    fn pair(watchdog: Option<Duration>) -> (tempfile::TempDir, UnixDatagram, Supervisor) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("the folder is ours");
        // A message that was sent is there at once; one that was not must not stop the tests.
        manager.set_nonblocking(true).expect("a socket");
        let supervisor = Supervisor::new(Some(path.as_os_str()), watchdog);
        (folder, manager, supervisor)
    }

    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 1024];
        let len = manager.recv(&mut buffer).expect("a message");
        String::from_utf8(buffer[..len].to_vec()).expect("UTF-8")
    }

    #[test]
    fn each_state_is_one_message() {
        let (_folder, manager, supervisor) = pair(None);
        supervisor.ready("serving 2 virtual servers\non eth0");
        assert_eq!(heard(&manager), "READY=1\nSTATUS=serving 2 virtual servers on eth0\n");
        supervisor.alive();
        assert_eq!(heard(&manager), "WATCHDOG=1\n");
        supervisor.stopping();
        assert_eq!(heard(&manager), "STOPPING=1\n");
        assert!(manager.recv(&mut [0; 16]).is_err(), "a message too many");
    }

    #[test]
    fn a_reload_carries_the_time_of_the_same_clock() {
        let now = || {
            let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).expect("a clock");
            i128::from(time.tv_sec()) * 1_000_000 + i128::from(time.tv_nsec()) / 1_000
        };
        let (_folder, manager, supervisor) = pair(None);
        let before = now();
        supervisor.reloading();
        let after = now();
        let message = heard(&manager);
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&message);
        let time: i128 = time.trim_end().parse().expect(&message);
        assert!((before..=after).contains(&time), "{before} <= {time} <= {after}");
    }

    #[test]
    fn a_socket_outside_the_file_system_is_reached() {
        let name = format!("xdirector-test-{}", process::id());
        let manager = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).expect("short"))
            .expect("the name is ours");
        Supervisor::new(Some(OsStr::new(&format!("@{name}"))), None).alive();
        assert_eq!(heard(&manager), "WATCHDOG=1\n");
    }

    #[test]
    fn nobody_to_tell_is_no_error() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let gone = folder.path().join("gone");
        for address in [None, Some(gone.as_os_str()), Some(OsStr::new("relative")), Some(OsStr::new(""))] {
            let supervisor = Supervisor::new(address, Some(Duration::from_secs(10)));
            assert!(supervisor.socket.is_none(), "{address:?}");
            assert_eq!(supervisor.watchdog_period(), None);
            supervisor.ready("fine");
            supervisor.reloading();
            supervisor.alive();
            supervisor.stopping();
        }
    }

    #[test]
    fn a_manager_that_does_not_read_stops_nothing() {
        let (_folder, manager, supervisor) = pair(None);
        // More than a socket's buffer or queue holds.
        for _ in 0..100_000 {
            supervisor.alive();
        }
        assert_eq!(heard(&manager), "WATCHDOG=1\n");
    }

    #[test]
    fn the_watchdog_is_fed_at_half_its_time() {
        let (_folder, _manager, supervisor) = pair(watchdog(Some("10000000"), None, 7));
        assert_eq!(supervisor.watchdog_period(), Some(Duration::from_secs(5)));
        assert_eq!(pair(None).2.watchdog_period(), None);
    }

    #[test]
    fn only_a_watchdog_of_this_process_counts() {
        let ten = Some(Duration::from_secs(10));
        assert_eq!(watchdog(Some("10000000"), Some("7"), 7), ten);
        assert_eq!(watchdog(Some("10000000"), None, 7), ten);
        for (usec, pid) in [
            (Some("10000000"), Some("8")),
            (Some("10000000"), Some("")),
            (Some("0"), Some("7")),
            (Some("soon"), Some("7")),
            (Some("-1"), None),
            (None, Some("7")),
        ] {
            assert_eq!(watchdog(usec, pid, 7), None, "{usec:?} {pid:?}");
        }
    }
}
