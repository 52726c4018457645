//! What the tests of this suite share.

use std::{env, net::IpAddr, thread, time::Duration};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    failover::{Holders, Instance, Kind, Probe, Router, Scene, start},
    registry::wait_until,
    stall::{judge, verdict},
};
use serde_json::Value;

pub use lab::figures::{judged, measured, ms};

/// Longer than any change may take, also on a busy machine.
pub const SOON: Duration = Duration::from_secs(15);

/// Whether the long versions of tests are wanted.
const LONG_VARIABLE: &str = "XDIRECTOR_LONG";

/// `short`, or `long` where `XDIRECTOR_LONG=1` asks for it.
pub fn unless_long<T>(short: T, long: T) -> T {
    if env::var_os(LONG_VARIABLE).is_some_and(|value| value == "1") { long } else { short }
}

/// Two directors of which the first should be master, with a client that asks all the time.
pub struct Pair {
    /// Before the scene: they end first.
    pub routers: Vec<Box<dyn Router>>,
    pub probe: Probe,
    pub holders: Holders,
    pub scene: Scene,
    /// A longer stall of the machine may move the address.
    pub patience: Duration,
}

impl Pair {
    /// Starts both with this instance, the second with a lower priority, and waits until the first is master.
    pub fn start(label: &str, kinds: [Kind; 2], instance: &Instance, address: IpAddr) -> Result<Self> {
        let second = instance.clone().priority(100);
        Self::start_each(label, kinds, [instance.clone(), second], address)
    }

    /// The same with an instance for each.
    pub fn start_each(
        label: &str,
        kinds: [Kind; 2],
        instances: [Instance; 2],
        address: IpAddr,
    ) -> Result<Self> {
        let scene = Scene::new(label, 2)?;
        let holders = scene.holders(address)?;
        let patience = instances[0].patience();
        let mut routers = Vec::new();
        for ((kind, machine), instance) in kinds.into_iter().zip(&scene.machines).zip(instances) {
            let router =
                start(kind, machine, &[instance]).with_context(|| format!("{kind} on {}", machine.name))?;
            routers.push(router);
            // The second one finds a master: FRR cannot announce an IPv6 address that it takes over in its first moments.
            if routers.len() == 1 {
                holders.await_only(0, SOON).with_context(|| routers[0].log())?;
            }
        }
        let probe = scene.probe(address)?;
        let pair = Self { routers, probe, holders, scene, patience };
        pair.await_master(0)?;
        Ok(pair)
    }

    /// Waits until this machine has the address alone and answers the client.
    pub fn await_master(&self, number: usize) -> Result<()> {
        let alone = self.holders.await_only(number, SOON);
        let answers = alone.and_then(|()| self.await_answer(number).map(drop));
        answers.with_context(|| self.logs())
    }

    /// Waits until this machine answers the client, whoever else has the address.
    pub fn await_answer(&self, number: usize) -> Result<Duration> {
        self.probe.await_answer(self.scene.machines[number].name, SOON).with_context(|| self.logs())
    }

    /// Fails unless this machine, which has the address alone, still does after some time.
    pub fn ensure_stays(&self, number: usize, time: Duration) -> Result<()> {
        self.await_master(number)?;
        thread::sleep(time);
        let now = self.holders.now();
        verdict(now == [number], || {
            format!("{now:?} have the address, no more {number} alone\n{}", self.logs())
        })
    }

    /// The same as a phase of its own: see [`judge`].
    pub fn judge_stays(&self, what: &str, number: usize, time: Duration) -> Result<()> {
        judge(what, self.patience, || self.ensure_stays(number, time))
    }

    /// What both have printed.
    pub fn logs(&self) -> String {
        self.routers
            .iter()
            .zip(&self.scene.machines)
            .map(|(router, machine)| {
                format!("--- {} on {}:\n{}\n", router.kind(), machine.name, router.log())
            })
            .collect()
    }
}

/// `xdirector vrrp --json`.
pub fn vrrp(director: &Director) -> Result<Value> {
    serde_json::from_str(&director.command(&["vrrp", "--json"])?)
        .context("`xdirector vrrp --json` is no JSON")
}

/// One instance of it.
pub fn instance(director: &Director, name: &str) -> Result<Value> {
    let all = vrrp(director)?;
    let found =
        all["instances"].as_array().and_then(|list| list.iter().find(|one| one["name"] == name).cloned());
    found.with_context(|| format!("no instance {name} in {all}"))
}

/// The state of one instance.
pub fn state(director: &Director, name: &str) -> Result<String> {
    Ok(instance(director, name)?["state"].as_str().context("no state")?.to_owned())
}

/// Waits until an instance is in a state.
pub fn await_state(director: &Director, name: &str, wanted: &str) -> Result<()> {
    let reached = wait_until(SOON, || state(director, name).is_ok_and(|state| state == wanted));
    ensure!(reached, "{name} is not {wanted}: {:?}\n{}", instance(director, name), director.log());
    Ok(())
}

/// How many adverts an instance has discarded, for all reasons together.
pub fn discarded(director: &Director, name: &str) -> Result<u64> {
    let all = instance(director, name)?;
    let reasons = all["discarded"].as_object().context("no `discarded`")?;
    Ok(reasons.values().filter_map(Value::as_u64).sum())
}
