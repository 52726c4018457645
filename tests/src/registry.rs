//! What this process has made outside itself, so that it can be removed on every way out.
//!
//! The owners (`Lab`, `Director`) remove their own things when they are dropped; the registry is for the ways out
//! on which nothing is dropped: SIGINT, SIGTERM, SIGHUP, and an earlier process that was killed.

use std::{
    collections::BTreeSet,
    env, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, umount2},
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, geteuid},
};

/// Where `ip netns` keeps the names.
pub const NETNS_DIR: &str = "/run/netns";

/// What is to be removed when the process is stopped.
#[derive(Debug, Default)]
pub struct Registry {
    /// Names of network namespaces.
    pub namespaces: BTreeSet<String>,
    /// Child processes.
    pub children: BTreeSet<u32>,
    /// Directories with their contents.
    pub directories: BTreeSet<PathBuf>,
}

/// The registry of this process. Make things while holding it: the clean-up after a signal holds it too and never
/// gives it back, so nothing can be made behind its back.
pub fn lock() -> MutexGuard<'static, Registry> {
    static REGISTRY: Mutex<Registry> = Mutex::new(Registry {
        namespaces: BTreeSet::new(),
        children: BTreeSet::new(),
        directories: BTreeSet::new(),
    });
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Prepares the process: signal handlers, and the removal of what dead processes left. Cheap when repeated.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // A process that has its own handler already has to call `remove_everything` there.
        let _ = ctrlc::set_handler(|| {
            eprintln!("\nstopped: removing the lab");
            remove_everything(&mut lock());
            process::exit(130);
        });
        sweep();
    });
}

/// Removes all that the registry knows. Goes on after failures: the rest is still worth removing.
pub fn remove_everything(registry: &mut Registry) {
    let children: Vec<u32> = std::mem::take(&mut registry.children).into_iter().collect();
    stop_children(&children);
    for name in std::mem::take(&mut registry.namespaces) {
        delete_namespace(&name);
    }
    for directory in std::mem::take(&mut registry.directories) {
        remove_directory(&directory);
    }
}

/// Removes a directory of a lab, with the BPF file system that may be mounted in it.
fn remove_directory(directory: &Path) {
    unmount(&directory.join("bpf"));
    let _ = fs::remove_dir_all(directory);
}

/// Unmounts a file system of a lab; what is pinned in it goes.
pub fn unmount(path: &Path) {
    // Not mounted, or gone already: nothing to do.
    let _ = umount2(path, MntFlags::MNT_DETACH);
}

/// Ends the processes that run in the namespace `name`, and removes the namespace. For namespaces of our own only.
pub fn remove_namespace_with_processes(name: &str) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for pid in processes(name) {
            let _ = kill(pid, signal);
        }
        // A process that ended but was not waited for is in no namespace any more.
        if wait_until(Duration::from_secs(2), || processes(name).is_empty()) {
            break;
        }
    }
    delete_namespace(name);
}

fn processes(namespace: &str) -> Vec<Pid> {
    let listed = Command::new("ip").args(["netns", "pids", namespace]).stderr(Stdio::null()).output();
    let listed = listed.map(|out| String::from_utf8_lossy(&out.stdout).into_owned()).unwrap_or_default();
    let pids = listed.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw);
    pids.filter(|pid| *pid != Pid::this()).collect()
}

/// Removes the namespace `name`; its interfaces go with it.
pub fn delete_namespace(name: &str) {
    let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
}

/// Waits at most `limit` until `done` says so, and returns what it said last.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + limit;
    while !done() {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(Duration::from_millis(20));
    }
    true
}

/// Removes what labs whose process is gone have left.
fn sweep() {
    let dead = |name: &str| owner(name).is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists());
    for name in namespaces() {
        if dead(&name) {
            remove_namespace_with_processes(&name);
        }
    }
    remove_temporary_directories(dead);
}

/// Removes this user's temporary directories of labs whose name `unwanted` accepts.
pub fn remove_temporary_directories(unwanted: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let ours = entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == geteuid().as_raw());
        if ours && entry.file_name().to_str().is_some_and(&unwanted) {
            remove_directory(&entry.path());
        }
    }
}

/// The names of all network namespaces of this machine.
#[must_use]
pub fn namespaces() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NETNS_DIR) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// The process in a name such as `xd1234-nat-client`; `None` for names that are not a lab's.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix("xd")?.split_once('-')?.0.parse().ok()
}

/// SIGTERM, up to 3 s for all, then SIGKILL. Only for children of this process.
fn stop_children(children: &[u32]) {
    let mut left: Vec<Pid> =
        children.iter().filter_map(|pid| i32::try_from(*pid).ok()).map(Pid::from_raw).collect();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for pid in &left {
            let _ = kill(*pid, signal);
        }
        wait_until(Duration::from_secs(3), || {
            left.retain(|pid| {
                matches!(waitpid(*pid, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::StillAlive))
            });
            left.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_labs_have_an_owner() {
        assert_eq!(owner("xd1234-nat-client"), Some(1234));
        assert_eq!(owner("xdkeep-nat-client"), None);
        assert_eq!(owner("xd1234"), None);
        assert_eq!(owner("other-1234"), None);
    }
}
