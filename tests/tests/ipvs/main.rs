//! The kernel's IPVS as data plane: what stands in the kernel, beside ipvsadm; going from one data plane to the other; and the
//! same decisions as XDP's. Only kernels with IPVS run it: `cargo xtask test` boots one.

#[path = "../change/common.rs"]
#[expect(dead_code, unused_imports, reason = "shared with the suite of changes, which uses all of it")]
mod common;
mod exchange;
mod kernel;
mod parity;
#[path = "../netns/support.rs"]
#[expect(dead_code, reason = "shared with the suite of the scenarios, which uses all of it")]
mod support;

use anyhow::{Context as _, Result, ensure};
use lab::{Director, topology::Scene};

/// What `ipvsadm` prints on the director's machine.
fn ipvsadm(scene: &Scene, arguments: &[&str]) -> Result<String> {
    let out =
        scene.director.command("ipvsadm").args(arguments).output().context("`ipvsadm` cannot be run")?;
    ensure!(out.status.success(), "ipvsadm {arguments:?}: {}", String::from_utf8_lossy(&out.stderr).trim());
    Ok(String::from_utf8(out.stdout)?)
}

/// Fails unless the status names this data plane.
fn ensure_is(director: &Director, dataplane: &str) -> Result<()> {
    let status = director.status()?;
    ensure!(status["dataplane"] == dataplane, "{}: {}", status["dataplane"], status["dataplane_reason"]);
    Ok(())
}
