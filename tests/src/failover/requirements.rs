//! What the other programs of a failover test need here.

use std::path::Path;

use crate::requirements;

/// Where Debian has FRR's daemons.
pub(super) const FRR: &str = "/usr/lib/frr";

/// Why no keepalived can run in a lab here; `None` when it can.
#[must_use]
pub fn missing_for_keepalived() -> Option<String> {
    requirements::missing_for_lab().or_else(|| missing_program("keepalived"))
}

/// Why no FRR can run in a lab here; `None` when it can.
#[must_use]
pub fn missing_for_frr() -> Option<String> {
    requirements::missing_for_lab().or_else(|| {
        let vrrpd = Path::new(FRR).join("vrrpd");
        (!vrrpd.exists()).then(|| format!("{} is missing; `cargo xtask setup` installs it", vrrpd.display()))
    })
}

/// Why a program cannot be run here; `None` when it can.
#[must_use]
pub fn missing_program(name: &str) -> Option<String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(name).is_file());
    (!found).then(|| format!("`{name}` is not installed; `cargo xtask setup` does it"))
}

/// Returns from a test, saying why, when one of the programs that it compares with cannot run here.
#[macro_export]
macro_rules! require_routers {
    ($test:expr, $($kind:expr),+ $(,)?) => {
        for kind in [$($kind),+] {
            let missing = match kind {
                $crate::failover::Kind::Xdirector => $crate::requirements::missing_for_director(),
                $crate::failover::Kind::Keepalived => $crate::failover::missing_for_keepalived(),
                $crate::failover::Kind::Frr => $crate::failover::missing_for_frr(),
            };
            if let Some(why) = missing {
                $crate::requirements::say_skipped($test, &why);
                return Ok(());
            }
        }
    };
}
