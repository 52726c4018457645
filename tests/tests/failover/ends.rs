//! Ways in which a master ends, and what is left of it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    failover::{Instance, Kind, VIP4, guard_of},
    registry::wait_until,
    require_routers,
    stall::{Mark, judge, verdict},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::support::{Pair, SOON, await_state, judged, measured, ms};

const XDIRECTORS: [Kind; 2] = [Kind::Xdirector; 2];
const NAME: &str = "VI_53";
/// What docs/reliability.md allows: how long nobody may answer in a handover, ...
const HANDOVER: Duration = Duration::from_millis(3);
/// ... how long two machines may have the address after one has died, ...
const DOUBLED: Duration = Duration::from_millis(100);
/// ... and until what a dead run has left is removed, from the start of the process on.
const LEFTOVERS: Duration = Duration::from_millis(100);

fn pair(label: &str, instance: &Instance) -> Result<Pair> {
    Pair::start(label, XDIRECTORS, instance, VIP4.into())
}

fn director(pair: &mut Pair, number: usize) -> Result<&mut Director> {
    pair.routers[number].xdirector().context("not an xdirector")
}

fn stop(mut pair: Pair) -> Result<()> {
    pair.routers.iter_mut().try_for_each(|router| router.stop())
}

#[test]
fn a_graceful_stop_hands_over() -> Result<()> {
    require_routers!("a_graceful_stop_hands_over", Kind::Xdirector);
    let both = [("v2", Instance::ipv4(53, 150).v2(), 20), ("v3", Instance::ipv4(53, 150), 5)];
    for (name, instance, pass) in both {
        let mut pair = pair(&format!("graceful-{name}"), &instance)?;
        let probe = pair.scene.probe(VIP4)?;
        let (begun, mark) = (Instant::now(), Mark::now());
        pair.routers[0].ask_to_stop()?;
        pair.await_answer(1)?;
        pair.routers[0].await_end()?;
        pair.await_master(1)?;
        let outage = probe.stop()?.outage(begun);
        judged(&format!("graceful_stop_{name}_outage"), outage, Duration::from_millis(pass), mark)?;
        pair.routers[1].stop()?;
    }
    Ok(())
}

#[test]
fn a_planned_handover_and_back() -> Result<()> {
    require_routers!("a_planned_handover_and_back", Kind::Xdirector);
    let mut pair = pair("handover", &Instance::ipv4(53, 150))?;
    let probe = pair.scene.probe(VIP4)?;
    let (begun, mark) = (Instant::now(), Mark::now());
    director(&mut pair, 0)?.command(&["vrrp", "handover", NAME])?;
    pair.await_master(1)?;
    await_state(director(&mut pair, 0)?, NAME, "BACKUP")?;
    await_state(director(&mut pair, 1)?, NAME, "MASTER")?;
    judged("handover_outage", probe.stop()?.outage(begun), HANDOVER, mark)?;
    // It stays there, although the first one has the higher priority.
    pair.judge_stays("handed over", 1, Duration::from_secs(1))?;
    let probe = pair.scene.probe(VIP4)?;
    let (begun, mark) = (Instant::now(), Mark::now());
    director(&mut pair, 0)?.command(&["vrrp", "resume", NAME])?;
    pair.await_master(0)?;
    judged("handover_back_outage", probe.stop()?.outage(begun), HANDOVER, mark)?;
    // What cannot be.
    let refused = director(&mut pair, 1)?.output(&["vrrp", "handover", NAME])?;
    ensure!(!refused.status.success(), "a backup has nothing to hand over");
    let refused = director(&mut pair, 0)?.output(&["vrrp", "handover", "nobody"])?;
    ensure!(!refused.status.success(), "there is no such instance");
    stop(pair)
}

#[test]
fn after_sigkill_the_address_is_not_doubled_for_long() -> Result<()> {
    require_routers!("after_sigkill_the_address_is_not_doubled_for_long", Kind::Xdirector);
    let instance = Instance::ipv4(53, 150);
    let master_down = instance.master_down(100);
    let mut pair = pair("killed", &instance)?;
    let (probe, record) = (pair.scene.probe(VIP4)?, pair.scene.holders(VIP4)?);
    let (begun, mark) = (Instant::now(), Mark::now());
    pair.routers[0].kill()?;
    pair.await_master(1)?;
    let (trace, record) = (probe.stop()?, record.stop()?);
    let takeover = trace.takeover(begun, pair.scene.machines[1].name).context("nobody took over")?;
    judged("kill_takeover", takeover, master_down, mark)?;
    judged("kill_outage", trace.outage(begun), master_down, mark)?;
    judged("kill_doubled", record.doubled(begun), DOUBLED, mark)?;
    pair.routers[0].restart()?;
    pair.await_master(0)?;
    stop(pair)
}

#[test]
fn after_sigkill_keepalived_takes_over() -> Result<()> {
    require_routers!("after_sigkill_keepalived_takes_over", Kind::Xdirector, Kind::Keepalived);
    let kinds = [Kind::Xdirector, Kind::Keepalived];
    let mut pair = Pair::start("killed-ka", kinds, &Instance::ipv4(53, 150), VIP4.into())?;
    let record = pair.scene.holders(VIP4)?;
    let (begun, mark) = (Instant::now(), Mark::now());
    pair.routers[0].kill()?;
    pair.await_master(1)?;
    judged("kill_doubled_with_keepalived", record.stop()?.doubled(begun), DOUBLED, mark)?;
    pair.routers[1].stop()
}

#[test]
fn an_agent_that_stands_still_gives_up_and_looks_before_it_speaks() -> Result<()> {
    let name = "an_agent_that_stands_still_gives_up_and_looks_before_it_speaks";
    require_routers!(name, Kind::Xdirector);
    let mut pair = pair("standstill", &Instance::ipv4(53, 150))?;
    judge("the standstill", pair.patience, || stand_still(&mut pair))?;
    stop(pair)
}

fn stand_still(pair: &mut Pair) -> Result<()> {
    // Where this is tried again it may have been left asleep.
    pair.routers[0].thaw()?;
    pair.await_master(0)?;
    let (probe, record) = (pair.scene.probe(VIP4)?, pair.scene.holders(VIP4)?);
    let (begun, mark) = (Instant::now(), Mark::now());
    pair.routers[0].freeze()?;
    // While it stands still: only the guard can have done it.
    pair.await_master(1)?;
    thread::sleep(Duration::from_millis(1500).saturating_sub(begun.elapsed()));
    let woken = Instant::now();
    pair.routers[0].thaw()?;
    // A second master would still say so.
    pair.ensure_stays(0, Duration::from_millis(500))?;
    let (trace, record) = (probe.stop()?, record.stop()?);
    judged("standstill_doubled", record.doubled(begun), DOUBLED, mark)?;
    measured("standstill_outage", ms(trace.outage(begun)));
    judged("standstill_doubled_after_waking", record.doubled(woken), DOUBLED, mark)?;
    let changes = trace.changes(woken);
    verdict(changes <= 1, || format!("two answered after it woke: {changes} changes\n{}", pair.logs()))?;
    verdict(record.takeovers(woken) == 1, || format!("{:?}\n{}", record.changes, pair.logs()))
}

#[test]
fn leftovers_of_a_dead_run_are_removed_at_the_start() -> Result<()> {
    require_routers!("leftovers_of_a_dead_run_are_removed_at_the_start", Kind::Xdirector);
    let mut pair = pair("leftovers", &Instance::ipv4(53, 150))?;
    let guard = guard_of(director(&mut pair, 0)?)?;
    // In this order nobody can do anything about it: the agent cannot start another guard.
    pair.routers[0].freeze()?;
    kill(Pid::from_raw(guard.cast_signed()), Signal::SIGKILL)?;
    pair.routers[0].kill()?;
    pair.await_answer(1)?;
    // The probe may be a moment ahead of the kernel's notifications.
    wait_until(SOON, || pair.holders.now() == [0, 1]);
    ensure!(pair.holders.now() == [0, 1], "nothing was left: {:?}", pair.holders.now());
    let record = pair.scene.holders(VIP4)?;
    let (begun, mark) = (Instant::now(), Mark::now());
    pair.routers[0].restart()?;
    pair.await_master(0)?;
    let record = record.stop()?;
    let first = record.changes.iter().find(|one| one.machine == 0 && one.at > begun);
    let first = first.context("the address was never removed")?;
    ensure!(!first.holds, "{:?}", record.changes);
    judged("leftovers_removed_after_start", first.at - begun, LEFTOVERS, mark)?;
    stop(pair)
}

#[test]
fn an_address_that_somebody_deletes_comes_back() -> Result<()> {
    require_routers!("an_address_that_somebody_deletes_comes_back", Kind::Xdirector);
    let pair = pair("deleted", &Instance::ipv4(53, 150))?;
    let probe = pair.scene.probe(VIP4)?;
    let begun = Instant::now();
    pair.scene.machines[0].netns.ip([format!("addr del {VIP4}/32 dev eth0")])?;
    let back = wait_until(SOON, || pair.scene.machines[0].has(VIP4).unwrap_or(false));
    ensure!(back, "{}", pair.logs());
    pair.await_master(0)?;
    measured("deleted_address_outage", ms(probe.stop()?.outage(begun)));
    ensure!(!pair.scene.machines[1].has(VIP4)?, "the other one has it");
    stop(pair)
}
