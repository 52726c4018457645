//! What a privileged test needs, and how it says that it was skipped.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::Command,
};

use crate::{director, programs};

/// Why the lab cannot run here; `None` when it can.
#[must_use]
pub fn missing_for_lab() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    for program in ["ip", "curl"] {
        if Command::new(program).arg("--help").output().is_err() {
            return Some(format!("`{program}` is not installed"));
        }
    }
    missing_file(programs::object_path())
}

/// Why xdirector cannot run in a lab here; `None` when it can.
#[must_use]
pub fn missing_for_director() -> Option<String> {
    missing_for_lab().or_else(|| missing_file(director::binary_path()))
}

/// Why xdirector cannot drive IPVS here; `None` when it can.
#[must_use]
pub fn missing_for_ipvs() -> Option<String> {
    missing_for_director().or_else(|| {
        let has_module = Command::new("modprobe").arg("ip_vs").output().is_ok_and(|out| out.status.success());
        if !has_module && !PathBuf::from("/proc/net/ip_vs").exists() {
            return Some("this kernel has no IPVS; `cargo xtask vm` boots one that has".to_owned());
        }
        let has_ipvsadm = Command::new("ipvsadm").arg("--help").output().is_ok();
        (!has_ipvsadm).then(|| "`ipvsadm` is not installed".to_owned())
    })
}

/// Prints `SKIPPED <test>: <why>`, past the test harness, which would hide it for a test that passes.
pub fn say_skipped(test: &str, why: &str) {
    // Nothing better can be done where standard output is closed.
    let _ = writeln!(io::stdout(), "SKIPPED {test}: {why}");
}

fn missing_file(path: PathBuf) -> Option<String> {
    (!path.exists()).then(|| format!("{} is missing; `cargo xtask build` makes it", path.display()))
}

/// Returns from a test, saying why, when the lab cannot run here.
#[macro_export]
macro_rules! require_lab {
    ($test:expr) => {
        if let Some(why) = $crate::requirements::missing_for_lab() {
            $crate::requirements::say_skipped($test, &why);
            return Ok(());
        }
    };
}

/// Returns from a test, saying why, when the lab or xdirector cannot run here.
#[macro_export]
macro_rules! require_director {
    ($test:expr) => {
        if let Some(why) = $crate::requirements::missing_for_director() {
            $crate::requirements::say_skipped($test, &why);
            return Ok(());
        }
    };
}
