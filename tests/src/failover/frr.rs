//! FRR's vrrpd on a machine of the scene, with the zebra that it needs. All their files are in a directory of their own.

use std::{path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::Signal,
    unistd::{User, chown},
};

use super::{Directory, Instance, Kind, Machine, Process, Router, frr_file, requirements::FRR};
use crate::{Netns, registry::wait_until};

/// How long zebra has for what vrrpd said last.
const LAST_ORDERS: Duration = Duration::from_secs(3);

/// vrrpd with zebra.
#[derive(Debug)]
pub struct Frr {
    netns: Netns,
    directory: Directory,
    /// vrrpd before zebra: it ends first.
    processes: Option<(Process, Process)>,
}

impl Frr {
    /// Makes the macvlans that FRR has its addresses on, and starts it.
    ///
    /// # Errors
    /// When it does not start; the error has its log.
    pub fn start(machine: &Machine, instances: &[Instance]) -> Result<Self> {
        let netns = machine.netns.clone();
        // Only the macvlan answers for its address, and it does so with the virtual MAC.
        netns.sysctl(&[("ipv4/conf/all/arp_ignore", "1")])?;
        for instance in instances {
            netns.ip(instance.frr_devices())?;
        }
        let directory = Directory::new(netns.name(), "frr")?;
        directory.write("frr.conf", &frr_file(instances))?;
        directory.write("zebra.conf", "log stdout\n")?;
        // The daemons give up root for this user, who must be in the group of vtysh.
        let user = User::from_name("frr")?.context("no user `frr`")?;
        chown(directory.path(), Some(user.uid), Some(user.gid))?;
        let mut frr = Self { netns, directory, processes: None };
        frr.restart()?;
        Ok(frr)
    }

    fn macvlans_are_down(&self) -> Result<bool> {
        let links = self.netns.ip_json(&["link", "show", "type", "macvlan"])?;
        let is_up = |link: &serde_json::Value| link["operstate"] == "UP";
        Ok(!links.as_array().is_some_and(|links| links.iter().any(is_up)))
    }

    /// `show vrrp json`.
    ///
    /// # Errors
    /// When vrrpd does not answer.
    pub fn show(&self) -> Result<serde_json::Value> {
        let out = Command::new("vtysh")
            .arg("--vty_socket")
            .arg(self.directory.path())
            .arg("--config_dir")
            .arg(self.directory.path())
            .args(["-d", "vrrpd", "-c", "show vrrp json"])
            .output()
            .context("`vtysh` cannot be run")?;
        ensure!(out.status.success(), "vtysh: {}", String::from_utf8_lossy(&out.stderr).trim());
        serde_json::from_slice(&out.stdout)
            .with_context(|| format!("vtysh printed {}", String::from_utf8_lossy(&out.stdout)))
    }

    fn daemon(&self, program: &str, file: &str) -> Result<Process> {
        let mut command = self.netns.command(Path::new(FRR).join(program));
        let directory = self.directory.path();
        command
            .args(["--log", "stdout", "--vty_port", "0"])
            .arg("--config_file")
            .arg(directory.join(file))
            .arg("--pid_file")
            .arg(directory.join(format!("{program}.pid")))
            .arg("--vty_socket")
            .arg(directory)
            .arg("--socket")
            .arg(directory.join("zserv.api"));
        Process::spawn(&mut command, &self.directory.file("log"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let (vrrpd, zebra) = self.processes.as_ref().context("FRR does not run")?;
        vrrpd.signal(signal)?;
        zebra.signal(signal)
    }
}

impl Router for Frr {
    fn kind(&self) -> Kind {
        Kind::Frr
    }

    fn restart(&mut self) -> Result<()> {
        let zebra = self.daemon("zebra", "zebra.conf")?;
        let there = |name: &str| self.directory.file(name).exists();
        ensure!(
            wait_until(std::time::Duration::from_secs(10), || there("zserv.api")),
            "zebra does not start:\n{}",
            self.log()
        );
        let vrrpd = self.daemon("vrrpd", "frr.conf")?;
        self.processes = Some((vrrpd, zebra));
        let takes_part = || {
            let Ok(shown) = self.show() else { return false };
            let Some(all) = shown.as_array() else { return false };
            !all.is_empty()
                && all.iter().all(|one| {
                    ["v4", "v6"].iter().any(|family| {
                        one[family]["status"].as_str().is_some_and(|status| status != "Initialize")
                    })
                })
        };
        ensure!(
            wait_until(std::time::Duration::from_secs(10), takes_part),
            "vrrpd takes no part: {:?}\n{}",
            self.show(),
            self.log()
        );
        Ok(())
    }

    fn ask_to_stop(&mut self) -> Result<()> {
        self.processes.as_ref().context("FRR does not run")?.0.signal(Signal::SIGTERM)
    }

    fn await_end(&mut self) -> Result<()> {
        let (vrrpd, zebra) = self.processes.take().context("FRR does not run")?;
        vrrpd.wait()?;
        // What vrrpd said last has zebra take the macvlans down; ended before that, it would leave their addresses.
        wait_until(LAST_ORDERS, || self.macvlans_are_down().unwrap_or(true));
        zebra.signal(Signal::SIGTERM)?;
        zebra.wait()?;
        let _ = std::fs::remove_file(self.directory.file("zserv.api"));
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.signal(Signal::SIGKILL)?;
        let (vrrpd, zebra) = self.processes.take().context("FRR does not run")?;
        vrrpd.wait()?;
        zebra.wait()?;
        let _ = std::fs::remove_file(self.directory.file("zserv.api"));
        Ok(())
    }

    fn freeze(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    fn thaw(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn log(&self) -> String {
        self.directory.read("log")
    }
}
