//! Sync groups.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    failover::{Holders, Instance, Scene, toml_file},
    registry::wait_until,
    require_director,
    stall::{Mark, judge, verdict},
};

use crate::support::{SOON, judged, measured, ms, vrrp};

/// Members of the group.
const MEMBERS: u8 = 16;
/// Between adverts: a busy machine is no reason for a takeover.
const INTERVAL: Duration = Duration::from_millis(200);
/// In which all must have moved, from the first to the last (docs/reliability.md).
const SPLIT: Duration = Duration::from_millis(50);

fn address(member: u8) -> IpAddr {
    Ipv4Addr::new(10, 66, 0, 100 + member).into()
}

/// A file with the group. The last member tracks another interface.
fn file(scene: &Scene, number: usize, priority: u8) -> String {
    let instances: Vec<Instance> = (1..=MEMBERS)
        .map(|member| {
            let instance =
                Instance::new(member, priority).every(INTERVAL).address(&format!("{}/32", address(member)));
            if member == MEMBERS { instance.toml_line("track_interfaces = [\"eth1\"]") } else { instance }
        })
        .collect();
    let names: Vec<&str> = instances.iter().map(Instance::as_name).collect();
    let group = format!("[[vrrp_sync_group]]\nname = \"all\"\ninstances = {names:?}\n");
    toml_file(scene.machines[number].netns.name(), &["eth0"], &instances) + &group
}

#[test]
fn sixteen_members_move_together() -> Result<()> {
    require_director!("sixteen_members_move_together");
    let mut scene = Scene::new("sixteen", 2)?;
    let trunk = scene.lab.network("trunk")?;
    let mut cables = Vec::new();
    for (machine, number) in scene.machines.iter().zip(1..) {
        let port = scene.lab.plug_in(&machine.netns, "eth1", &trunk, &[&format!("10.67.0.{number}/24")])?;
        cables.push(port);
    }
    let mut watches = Vec::new();
    for member in 1..=MEMBERS {
        watches.push(scene.holders(address(member))?);
    }
    let mut directors = Vec::new();
    for (number, priority) in [(0, 150), (1, 100)] {
        directors.push(Director::start(&scene.machines[number].netns, &file(&scene, number, priority))?);
    }
    await_all(&watches, 0, &directors)?;
    for (round, (up, to)) in [(false, 1), (true, 0)].into_iter().enumerate() {
        let event = Instant::now();
        cables[0].set_link(up)?;
        await_all(&watches, to, &directors)?;
        let state = if up { "MASTER" } else { "FAULT" };
        await_group(&directors[0], state)?;
        // From the first to the last: when each was seen is in the watches' own records.
        measured(&format!("group_of_16_move_{round}"), ms(event.elapsed()));
    }
    let patience = Instance::new(1, 100).every(INTERVAL).patience();
    judge("all move once", patience, || {
        cables[0].set_link(true)?;
        await_all(&watches, 0, &directors)?;
        await_group(&directors[0], "MASTER")?;
        let (begun, mark) = (Instant::now(), Mark::now());
        cables[0].set_link(false)?;
        await_all(&watches, 1, &directors)?;
        let mut times = Vec::new();
        for watch in &watches {
            let record = watch.so_far();
            let once = record.takeovers(begun) == 1;
            verdict(once, || format!("a member moved more than once: {:?}", record.changes))?;
            times.push(record.taken(begun, 1).context("a member has not moved")?);
        }
        let (first, last) = (times.iter().min().context("none")?, times.iter().max().context("none")?);
        measured("group_of_16_first_moved", ms(*first));
        measured("group_of_16_last_moved", ms(*last));
        judged("group_of_16_split_for", *last - *first, SPLIT, mark)
    })?;
    directors.iter_mut().try_for_each(Director::stop)
}

fn await_all(watches: &[Holders], machine: usize, directors: &[Director]) -> Result<()> {
    let moved = wait_until(SOON, || watches.iter().all(|watch| watch.now() == [machine]));
    let now: Vec<Vec<usize>> = watches.iter().map(Holders::now).collect();
    let logs: String = directors.iter().map(|director| director.log() + "---\n").collect();
    ensure!(moved, "not all are on machine {machine}: {now:?}\n{logs}");
    Ok(())
}

fn await_group(director: &Director, state: &str) -> Result<()> {
    let is = || -> Result<String> {
        let all = vrrp(director)?;
        Ok(all["groups"][0]["state"].as_str().context("no state of the group")?.to_owned())
    };
    ensure!(wait_until(SOON, || is().is_ok_and(|it| it == state)), "not {state}: {:?}", is());
    Ok(())
}
