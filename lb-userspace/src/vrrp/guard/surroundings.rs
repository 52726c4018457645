//! What makes the guard hard to disturb: signals, memory, its place in the scheduler and before the OOM killer.

use std::{fs, io};

use nix::sys::{
    mman::{MlockAllFlags, mlockall, munlockall},
    prctl,
    signal::{SigHandler, Signal, signal},
};

/// What `ps` shows: 15 bytes are the most.
const NAME: &std::ffi::CStr = c"xdirector-guard";
/// As the agent's in its unit.
const OOM_SCORE_ADJ: i32 = -900;
/// What a service manager or a terminal sends to all processes at once; SIGABRT is systemd's watchdog. The guard ends when the
/// agent does, and only then.
const IGNORED: [Signal; 9] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGABRT,
    Signal::SIGPIPE,
    Signal::SIGTSTP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// Ignores signals. Makes system calls only, so it can be used between `fork` and `exec`, which keeps them ignored.
///
/// # Errors
/// What the kernel says.
pub fn ignore_signals() -> io::Result<()> {
    for ignored in IGNORED {
        // SAFETY: SIG_IGN is no function of ours.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// Takes its name and its place before the OOM killer. Neither is needed, so failures do not matter: without
/// CAP_SYS_RESOURCE the place stays that of the agent, which a unit may have set to the same.
pub fn settle() {
    let _ = prctl::set_name(NAME);
    let path = "/proc/self/oom_score_adj";
    let now = fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<i32>().ok());
    if now.is_some_and(|now| now > OOM_SCORE_ADJ) {
        let _ = fs::write(path, OOM_SCORE_ADJ.to_string());
    }
}

/// Takes on a plan's place in the scheduler, one step before the driver's own: a driver that spins must not keep its guard from
/// seeing that. What cannot be had, in words.
pub fn schedule(driver: Option<u8>) -> Option<String> {
    let (policy, priority) = match driver {
        Some(priority) => (libc::SCHED_FIFO, i32::from(priority).saturating_add(1).min(99)),
        None => (libc::SCHED_OTHER, 0),
    };
    // SAFETY: an all-zero `sched_param` is a valid value on every libc.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: the pointer is that of a `sched_param` that outlives the call. Raw, since musl's function only says that it is
    // not implemented.
    let result = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, policy, &raw const parameters) };
    // An ordinary place needs no right, and is no loss.
    (result != 0 && driver.is_some()).then(|| {
        let error = io::Error::last_os_error();
        format!("the guard does not run with SCHED_FIFO priority {priority}: {error}")
    })
}

/// Keeps the memory of this moment from being paged out, or lets it be. What cannot be had, in words.
///
/// Not that of the future (MCL_FUTURE): it has the plan already, and an allocation that would exceed RLIMIT_MEMLOCK would end
/// the process.
pub fn lock_memory(is_locked: bool) -> Option<String> {
    let result = if is_locked { mlockall(MlockAllFlags::MCL_CURRENT) } else { munlockall() };
    result.err().map(|error| format!("the guard's memory is not locked: {}", io::Error::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_shown_as_a_whole() {
        assert!(NAME.count_bytes() <= 15);
    }
}
