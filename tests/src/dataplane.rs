//! Which data plane the lab's directors have: the same scenarios are run with both.

use std::env;

/// Names the data plane of all directors whose configuration does not: `xdp` or `ipvs`.
pub const VARIABLE: &str = "XDIRECTOR_LAB_DATAPLANE";

/// A data plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPlane {
    /// The XDP program.
    Xdp,
    /// The kernel's IPVS.
    Ipvs,
}

/// The one that is tried now.
///
/// # Panics
/// When [`VARIABLE`] holds something else: a run that tries the wrong one would prove nothing.
#[must_use]
pub fn tried() -> DataPlane {
    match env::var(VARIABLE).as_deref() {
        Err(_) | Ok("xdp") => DataPlane::Xdp,
        Ok("ipvs") => DataPlane::Ipvs,
        Ok(other) => panic!("{VARIABLE}={other}: neither xdp nor ipvs"),
    }
}

/// The same text, with the data plane that is tried unless it names one.
#[must_use]
pub fn named(configuration: &str) -> String {
    match tried() {
        DataPlane::Ipvs if !configuration.contains("\ndataplane = ") => with(configuration, "ipvs"),
        _ => configuration.to_owned(),
    }
}

/// The same text with this data plane; it must not name one.
#[must_use]
pub fn with(configuration: &str, dataplane: &str) -> String {
    let line = |line: &str| match line {
        // As a line of its own: comments speak of it too.
        "[director]" => format!("[director]\ndataplane = \"{dataplane}\"\n"),
        other => format!("{other}\n"),
    };
    configuration.lines().map(line).collect()
}

/// Returns from a test of the XDP program, saying so, when another data plane is tried.
#[macro_export]
macro_rules! require_xdp {
    ($test:expr) => {
        if $crate::dataplane::tried() != $crate::dataplane::DataPlane::Xdp {
            $crate::requirements::say_skipped($test, "it is about XDP");
            return Ok(());
        }
    };
}

/// Returns from a test, saying why, when this kernel has no IPVS.
#[macro_export]
macro_rules! require_ipvs {
    ($test:expr) => {
        if let Some(why) = $crate::requirements::missing_for_ipvs() {
            // Where a kernel was booted for it, a skip would hide that it has none.
            if ::std::env::var_os("XDIRECTOR_LAB_NEEDS_IPVS").is_some() {
                return Err(::anyhow::anyhow!(why));
            }
            $crate::requirements::say_skipped($test, &why);
            return Ok(());
        }
    };
}
