//! Programs that the agent runs: no shell, a process group of their own, a bounded time and output.
//!
//! A program gets a clean environment, `/` as its directory, nothing to read, default signals and no descriptor of
//! the agent. Its time includes its start. When it is over, the whole group gets SIGKILL at once: a SIGTERM first
//! would only make the time longer than configured. What has left the group (`setsid`) is out of reach.

use std::{
    io,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::AsyncReadExt,
    net::unix::pipe::Receiver,
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::turns::Turns;

mod child;
mod safety;

pub use safety::check_safe;

/// Where programs find other programs.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How much of the output is kept, in bytes.
const OUTPUT_KEPT: usize = 4096;
/// How much of the output is read at once, in bytes.
const READ_SIZE: usize = 16 * 1024;
/// How long a killed program is waited for: one that hangs in the kernel dies later, without us.
const DEATH: Duration = Duration::from_secs(1);

/// So many starts of one program at a time. One whose file system hangs holds a thread each, and no more than these: the
/// next wait for their turn until their time is over. More than one, since the same script may check thousands of servers.
const STARTS_AT_ONCE: usize = 4;
static STARTS: Turns = Turns::new(STARTS_AT_ONCE);

/// The user as whom programs run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Number of its group.
    pub gid: u32,
    /// Numbers of all its groups. Read once: the user database may be slow, and is not to be asked for each program.
    pub groups: Vec<u32>,
}

impl User {
    /// Looks up a user and its groups.
    ///
    /// # Errors
    /// When there is none of this name, or the user database cannot be read.
    pub fn find(name: &str) -> io::Result<Self> {
        let user = nix::unistd::User::from_name(name)?.ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no user `{name}` on this machine; make it or name another one"),
            )
        })?;
        let c_name = std::ffi::CString::new(name)?;
        let groups = nix::unistd::getgrouplist(&c_name, user.gid)?;
        Ok(Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        })
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// It took too long and was killed with all that it had started.
    TimedOut,
}

/// What a program left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// The first 4 KiB of what it printed, standard output and error together; what is not UTF-8 is replaced.
    pub output: String,
}

impl Finished {
    /// The first line of the output that is not empty, at most `most` characters, without anything that could
    /// disturb a terminal or a log. Empty when nothing was printed.
    pub fn first_line(&self, most: usize) -> String {
        let line = self.output.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
        let printable = |c: char| c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric();
        line.chars().take(most).map(|c| if printable(c) { c } else { '?' }).collect()
    }
}

impl From<ExitStatus> for Ending {
    fn from(status: ExitStatus) -> Self {
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Exited(code),
            // Linux has no third way to end.
            (None, signal) => Self::Signaled(signal.unwrap_or_default()),
        }
    }
}

/// Runs a program and waits for its end, at most `timeout`. Cancelling the future kills its process group.
///
/// It ends with the program itself: what the program left running in the background is neither waited for nor
/// killed, but can print no more (it should redirect its output).
///
/// # Errors
/// When it cannot be started; [`io::ErrorKind::PermissionDenied`] also when [`check_safe`] refuses it, which counts
/// only when it would run as root.
pub async fn run(
    command: &[String],
    environment: &[(String, String)],
    user: Option<&User>,
    timeout: Duration,
) -> io::Result<Finished> {
    let (command, environment, user) = (command.to_vec(), environment.to_vec(), user.cloned());
    let mut deadline = std::pin::pin!(sleep(timeout));
    // Starting waits for the file system, so it has a thread of its own. If that comes too late, what was started
    // is dropped there, and killed.
    let program = command.first().cloned().unwrap_or_default();
    let start = move || Running::start(&command, &environment, user.as_ref());
    let starting = STARTS.take(Path::new(&program), start);
    let mut running = tokio::select! {
        started = starting => started.map_err(io::Error::other)??,
        () = &mut deadline => return Ok(Finished { ending: Ending::TimedOut, output: String::new() }),
    };
    let mut kept = Vec::new();
    let status = running.watch(&mut kept, deadline).await?;
    if status.is_none() {
        running.kill();
        // Its status no longer matters, and a failure to get it even less.
        let _ = tokio::time::timeout(DEATH, running.child().wait()).await;
    }
    running.take_rest(&mut kept);
    Ok(Finished {
        ending: status.map_or(Ending::TimedOut, Ending::from),
        output: String::from_utf8_lossy(&kept).into_owned(),
    })
}

/// A started program. Dropping it kills its group unless the program has ended.
#[derive(Debug)]
struct Running {
    /// `None` only while being dropped.
    child: Option<Child>,
    output: Receiver,
}

impl Running {
    /// Blocks for as long as the kernel needs to execute the program.
    fn start(command: &[String], environment: &[(String, String)], user: Option<&User>) -> io::Result<Self> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let as_root = match user {
            Some(user) => user.uid == 0,
            None => nix::unistd::geteuid().is_root(),
        };
        if as_root {
            safety::inspect(Path::new(program))?;
        }
        let (read, write) = io::pipe()?;
        let output = Receiver::from_owned_fd(read.into())?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(write.try_clone()?)
            .stderr(write)
            .process_group(0);
        child::prepare(&mut command, user);
        // `command` and with it our writing ends go away here, so the output can end.
        Ok(Self { child: Some(command.spawn()?), output })
    }

    /// Waits for the program's end, `None`: for the deadline. The output beyond what is kept is thrown away, so that
    /// the program never waits for us.
    async fn watch(
        &mut self,
        kept: &mut Vec<u8>,
        mut deadline: impl Future<Output = ()> + Unpin,
    ) -> io::Result<Option<ExitStatus>> {
        let Self { child, output } = self;
        let child = child.as_mut().expect("only `drop` takes the child");
        let mut buffer = vec![0; READ_SIZE];
        let mut open = true;
        loop {
            tokio::select! {
                biased;
                status = child.wait() => return status.map(Some),
                () = &mut deadline => return Ok(None),
                read = output.read(&mut buffer), if open => match read {
                    Ok(read) if read > 0 => keep(kept, &buffer[..read]),
                    _ => open = false,
                },
            }
        }
    }

    /// What was printed just before the end. Reads past tokio, which may not have heard of it yet. Never waits,
    /// though something may still hold the pipe open: it does not block.
    fn take_rest(&self, kept: &mut Vec<u8>) {
        let mut buffer = [0; OUTPUT_KEPT];
        while kept.len() < OUTPUT_KEPT {
            match nix::unistd::read(&self.output, &mut buffer) {
                Ok(read) if read > 0 => keep(kept, &buffer[..read]),
                Err(Errno::EINTR) => {}
                _ => return,
            }
        }
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("only `drop` takes the child")
    }

    fn kill(&mut self) {
        kill_group(self.child());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take().filter(|child| child.id().is_some()) else { return };
        kill_group(&child);
        // Somebody has to collect it. Without a runtime tokio's own list of orphans does, at the next SIGCHLD.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { timeout(DEATH, child.wait()).await });
        }
    }
}

/// Kills the program's group if the program has not been collected: only so long its number is surely not another's.
fn kill_group(child: &Child) {
    let group = child.id().and_then(|id| i32::try_from(id).ok());
    if let Some(group) = group
        && let Err(error) = killpg(Pid::from_raw(group), Signal::SIGKILL)
    {
        tracing::warn!("cannot kill the process group {group}: {error}");
    }
}

fn keep(kept: &mut Vec<u8>, more: &[u8]) {
    let room = OUTPUT_KEPT.saturating_sub(kept.len());
    kept.extend_from_slice(&more[..more.len().min(room)]);
}

#[cfg(test)]
mod tests;
