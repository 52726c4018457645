//! The socket's file: where it is, who may open it, and that one instance has one agent.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt},
            net::{UnixListener as StdListener, UnixStream as StdStream},
        },
    },
    path::{Path, PathBuf},
};

use nix::sys::{
    socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind as bind_address, listen, socket},
    stat::{Mode, fchmod},
};
use tokio::net::UnixListener;

/// Environment variable with the socket's path, for the agent and its clients.
pub const SOCKET_VARIABLE: &str = "XDIRECTOR_SOCKET";

/// The instance that clients mean when they name none.
pub const DEFAULT_INSTANCE: &str = "default";

const RUN_DIRECTORY: &str = "/run/xdirector";
const BACKLOG: i32 = 128;
/// Losing the lock file to an agent that just exits costs one attempt each; more than a few is no accident.
const LOCK_ATTEMPTS: usize = 16;

/// Where the agent of `instance` listens unless it is told otherwise.
pub fn default_path(instance: &str) -> PathBuf {
    Path::new(RUN_DIRECTORY).join(format!("{instance}.sock"))
}

/// A socket that clients can connect to.
#[derive(Debug)]
pub struct BoundSocket {
    /// For [`super::serve`].
    pub listener: UnixListener,
    /// Keep it as long as the listener: dropping it removes the file.
    pub file: SocketFile,
}

/// The socket's file and the lock that says that this agent is the only one of its instance.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: Option<(u64, u64)>,
    lock: LockFile,
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// One agent per instance.
    #[error("another xdirector instance {instance} is running (socket {})", path.display())]
    Running {
        /// Name of the instance.
        instance: String,
        /// Its socket.
        path: PathBuf,
    },
    /// Something that is not ours to remove.
    #[error("{}: exists and is not a socket; remove it or choose another --socket", .0.display())]
    NotASocket(PathBuf),
    /// A step failed.
    #[error("cannot {step} {}", path.display())]
    Io {
        /// What was tried, as `create the directory`.
        step: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Makes the socket at `path`, mode 0600, its directory too (0755) if there is none. The file of a dead agent is
/// replaced. Must be called inside a Tokio runtime.
///
/// # Errors
///
/// [`SocketError::Running`] when an agent answers there or is just starting; the others name the file and the step.
pub fn bind(path: &Path, instance: &str) -> Result<BoundSocket, SocketError> {
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(failed("create the directory", parent))?;
    }
    let running = || SocketError::Running { instance: instance.into(), path: path.into() };
    // From here on no other agent probes, removes or makes this socket.
    let lock = LockFile::take(path)?.ok_or_else(running)?;
    let mut file = SocketFile { path: path.into(), inode: None, lock };
    if is_live(path)? {
        return Err(running());
    }
    let listener = listen_privately(path, &mut file).map_err(failed("listen on", path))?;
    Ok(BoundSocket { listener, file })
}

/// Whether an agent answers at `path`; removes the socket of a dead one.
fn is_live(path: &Path) -> Result<bool, SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(failed("look at", path)(error)),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.into()));
        }
        Ok(_) => {}
    }
    match StdStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(failed("remove the stale socket", path))?;
            Ok(false)
        }
        Err(error) => Err(failed("probe", path)(error)),
    }
}

fn listen_privately(path: &Path, file: &mut SocketFile) -> io::Result<UnixListener> {
    let fd: OwnedFd = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    // The kernel takes the file's mode from the unbound socket (net/unix/af_unix.c, unix_bind_bsd) and the umask can
    // only take bits away, so the file never exists with more, and the process-wide umask stays alone.
    fchmod(fd.as_fd(), Mode::from_bits_truncate(0o600))?;
    bind_address(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
    file.inode = Some(inode(&fs::symlink_metadata(path)?));
    listen(&fd, Backlog::new(BACKLOG)?)?;
    UnixListener::from_std(StdListener::from(fd))
}

impl SocketFile {
    /// Path of the socket.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Only the file that was made here: an operator may have removed it and put something else there.
        let ours = |metadata: fs::Metadata| Some(inode(&metadata)) == self.inode;
        if fs::symlink_metadata(&self.path).is_ok_and(ours)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!("cannot remove the socket {}: {error}", self.path.display());
        }
        self.lock.remove();
    }
}

/// `<socket>.lock`, locked as long as the agent lives. Probing, removing and making the socket are three steps; with
/// the lock two agents that start together cannot take each other's socket for a stale one.
#[derive(Debug)]
struct LockFile {
    path: PathBuf,
    /// Never read: the kernel keeps the lock while it is open.
    _file: File,
}

impl LockFile {
    /// `None` when another agent has it.
    fn take(socket: &Path) -> Result<Option<Self>, SocketError> {
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        for _ in 0..LOCK_ATTEMPTS {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW)
                .open(&path)
                .map_err(failed("open the lock file", &path))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
            }
            // An agent that was exiting may have removed the file between `open` and the lock: then this is the lock
            // of a name that nobody can see any more.
            let locked = file.metadata().map_err(failed("look at", &path))?;
            if fs::symlink_metadata(&path).is_ok_and(|named| inode(&named) == inode(&locked)) {
                return Ok(Some(Self { path, _file: file }));
            }
        }
        Ok(None)
    }

    /// Removes the name while the lock is still held, so that nobody else's lock loses its name.
    fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!("cannot remove the lock file {}: {error}", self.path.display());
        }
    }
}

fn inode(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    move |source| SocketError::Io { step, path: path.into(), source }
}
