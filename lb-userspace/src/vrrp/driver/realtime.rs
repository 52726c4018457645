//! How the driver's thread is scheduled, and whether the agent's memory stays where it is.
//!
//! Nothing here is an error: what cannot be had is said, and the driver runs on as an ordinary thread.

use std::io;

use nix::sys::{
    mman::{MlockAllFlags, mlockall, munlockall},
    prctl,
    resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
};

use crate::config::vrrp::VrrpSettings;

/// With less than this much RLIMIT_RTTIME the thread stays an ordinary one, in microseconds.
const ENOUGH_RTTIME: u64 = 200_000;
/// Bit of CAP_IPC_LOCK in `/proc/self/status` (`linux/capability.h`).
const CAP_IPC_LOCK: u32 = 14;

/// Brings the calling thread, and for its memory the process, from what it is to what is wanted. What could not be had, in words.
pub fn apply(wanted: &VrrpSettings, before: Option<&VrrpSettings>) -> Vec<String> {
    let mut warnings = Vec::new();
    if before.is_none() {
        // The kernel lets ordinary threads sleep 50 us longer than asked for, to save wake-ups.
        if let Err(error) = prctl::set_timerslack(1) {
            warnings.push(format!("timers are not exact: {error}"));
        }
    }
    if let Err(text) = schedule(wanted.realtime_priority, before.and_then(|before| before.realtime_priority))
    {
        warnings.push(text);
    }
    if let Err(text) = lock(wanted.lock_memory, before.is_some_and(|before| before.lock_memory)) {
        warnings.push(text);
    }
    warnings
}

fn schedule(priority: Option<u8>, before: Option<u8>) -> Result<(), String> {
    let (policy, level) = match (priority, before) {
        (None, None) => return Ok(()),
        // Without CAP_SYS_NICE the flag cannot be taken back.
        (None, Some(_)) => (libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK, 0),
        (Some(priority), _) => {
            give_time().map_err(|text| format!("not SCHED_FIFO: {text}"))?;
            // What this thread starts (the guard) is an ordinary process again.
            (libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, i32::from(priority))
        }
    };
    let parameters = libc::sched_param { sched_priority: level };
    // SAFETY: the pointer is to a live sched_param, which the call only reads; 0 is the calling thread.
    let result = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    Err(format!("not SCHED_FIFO {level}: {error} (CAP_SYS_NICE or a high enough RLIMIT_RTPRIO is needed)"))
}

/// RLIMIT_RTTIME kills the whole process with SIGXCPU when a real-time thread computes for longer without a wait.
fn give_time() -> Result<(), String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_RTTIME).map_err(|error| error.to_string())?;
    if soft == RLIM_INFINITY {
        return Ok(());
    }
    let raised = [RLIM_INFINITY, hard]
        .into_iter()
        .find(|&limit| setrlimit(Resource::RLIMIT_RTTIME, limit, limit.max(hard)).is_ok());
    match raised.unwrap_or(soft) {
        limit if limit >= ENOUGH_RTTIME => Ok(()),
        limit => Err(format!("RLIMIT_RTTIME is {limit} us, after which the kernel would kill the agent")),
    }
}

fn lock(wanted: bool, before: bool) -> Result<(), String> {
    match (wanted, before) {
        (false, false) => Ok(()),
        (false, true) => munlockall().map_err(|error| format!("memory stays locked: {error}")),
        (true, true) => Ok(()),
        (true, false) => {
            let (soft, _) = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|error| error.to_string())?;
            // Under a limit that counts, a later mmap would fail, and with it a thread's start or an allocation.
            if soft != RLIM_INFINITY && !may_lock_all() {
                return Err(format!(
                    "memory is not locked: RLIMIT_MEMLOCK is {soft} bytes (unlimited, or CAP_IPC_LOCK, is needed)"
                ));
            }
            let text = |error| format!("memory is not locked: {error}");
            mlockall(MlockAllFlags::MCL_CURRENT).map_err(text)?;
            // What comes later is locked page by page as it is used: whole stacks of threads would cost megabytes each.
            let on_fault = MlockAllFlags::from_bits_retain(libc::MCL_ONFAULT);
            mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE | on_fault).map_err(text)
        }
    }
}

fn may_lock_all() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective_capabilities(&status).is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        assert_eq!(effective_capabilities("Name:\tx\nCapEff:\t0000000000004000\n"), Some(1 << CAP_IPC_LOCK));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }

    #[test]
    fn an_ordinary_thread_is_left_alone_and_a_wish_is_fulfilled_or_said() {
        let thread = std::thread::spawn(|| {
            let ordinary = VrrpSettings::default();
            assert_eq!(apply(&ordinary, None), Vec::<String>::new());
            let wanted = VrrpSettings { realtime_priority: Some(1), ..VrrpSettings::default() };
            let warnings = apply(&wanted, Some(&ordinary));
            // SAFETY: 0 is the calling thread; no memory is passed.
            let policy = unsafe { libc::sched_getscheduler(0) };
            let is_fifo = policy & !libc::SCHED_RESET_ON_FORK == libc::SCHED_FIFO;
            assert_eq!(is_fifo, warnings.is_empty(), "{policy} {warnings:?}");
            assert_eq!(apply(&ordinary, Some(&wanted)), Vec::<String>::new());
            // SAFETY: as above.
            let policy = unsafe { libc::sched_getscheduler(0) };
            assert_eq!(policy & !libc::SCHED_RESET_ON_FORK, libc::SCHED_OTHER);
        });
        thread.join().unwrap();
    }
}
