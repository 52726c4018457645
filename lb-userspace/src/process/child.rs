//! What a child does between `fork` and `exec`.

use std::{io, ptr};

use tokio::process::Command;

use super::User;

/// Lets the child reset its signals, inherit no descriptor and become `user`.
pub(super) fn prepare(command: &mut Command, user: Option<&User>) {
    let user = user.map(Identity::of);
    let prepare = move || {
        reset_signals()?;
        close_on_exec();
        user.as_ref().map_or(Ok(()), Identity::take_on)
    };
    // SAFETY: another thread may have held any lock at the fork. `prepare` only makes system calls on memory that
    // exists already: it takes no lock, allocates nothing and cannot panic.
    unsafe {
        command.pre_exec(prepare);
    }
}

/// `exec` resets the handled signals; the ignored and the blocked ones would stay as the agent has them.
fn reset_signals() -> io::Result<()> {
    for signal in 1..=libc::SIGRTMAX() {
        // SAFETY: SIG_DFL is no function of ours. Refused for SIGKILL, SIGSTOP and libc's own two, which are as
        // they should be.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: an all-zero `sigset_t` is a valid value, `sigemptyset` fills it, and it outlives both calls.
    let result = unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut())
    };
    check(result)
}

/// All descriptors should close by themselves; a library that forgot the flag must not hand a map or a socket to a
/// script. Kernels before 5.11 do not know the call: there it stays at "should".
fn close_on_exec() {
    // SAFETY: takes three numbers and touches no memory.
    unsafe {
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
}

/// The numbers of a user, in the kernel's types.
#[derive(Debug)]
struct Identity {
    uid: libc::uid_t,
    gid: libc::gid_t,
    groups: Vec<libc::gid_t>,
    /// We are this user already and may not be allowed to "become" it.
    already: bool,
}

impl Identity {
    fn of(user: &User) -> Self {
        let effective = nix::unistd::geteuid();
        Self {
            uid: user.uid,
            gid: user.gid,
            groups: user.groups.clone(),
            already: !effective.is_root() && effective.as_raw() == user.uid,
        }
    }

    /// Groups first: afterwards the right to set them is gone.
    fn take_on(&self) -> io::Result<()> {
        // An agent with ambient capabilities would hand them on to every user but root.
        // SAFETY: takes numbers only.
        check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) })?;
        if self.already {
            return Ok(());
        }
        // SAFETY: the pointer is that of a list of the given length; the others take numbers only.
        unsafe {
            check(libc::setgroups(self.groups.len(), self.groups.as_ptr()))?;
            check(libc::setresgid(self.gid, self.gid, self.gid))?;
            check(libc::setresuid(self.uid, self.uid, self.uid))
        }
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
