//! Staying on one CPU.

use anyhow::{Context as _, Result, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Pins this thread to the wanted CPU, or to the last of those that it may use: the first serves most interrupts. Gives
/// its number.
pub fn pin(wanted: Option<usize>) -> Result<usize> {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this)?;
    let is_allowed = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
    let cpu = match wanted {
        Some(cpu) if !is_allowed(&cpu) => bail!("CPU {cpu} is not there, or not for this process"),
        Some(cpu) => cpu,
        None => (0..CpuSet::count()).rev().find(is_allowed).context("no CPU")?,
    };
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(this, &only).with_context(|| format!("cannot stay on CPU {cpu}"))?;
    Ok(cpu)
}
