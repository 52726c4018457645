//! What the network does to two directors: it parts them, it flaps.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    failover::{Instance, Kind, VIP4},
    registry::wait_until,
    require_routers,
    stall::Mark,
    wire::Wire,
};

use crate::support::{Pair, SOON, judged, measured, ms, unless_long};

const XDIRECTORS: [Kind; 2] = [Kind::Xdirector; 2];
/// The interval of adverts: for so long two may be master after a partition (docs/reliability.md).
const ADVERT: Duration = Duration::from_millis(100);
/// From the last flap to one master (docs/reliability.md).
const RECOVERED: Duration = Duration::from_millis(200);

#[test]
fn a_partition_heals_with_one_master() -> Result<()> {
    require_routers!("a_partition_heals_with_one_master", Kind::Xdirector);
    let mut pair = Pair::start("partition", XDIRECTORS, &Instance::ipv4(53, 150), VIP4.into())?;
    for round in 1..=3 {
        pair.scene.machines[0].port.cut()?;
        pair.await_answer(1)?;
        ensure!(wait_until(SOON, || pair.holders.now() == [0, 1]), "{:?}", pair.holders.now());
        let wire = Wire::open(pair.scene.lab.switch(), pair.scene.machines[0].port.name())?;
        let (probe, record) = (pair.scene.probe(VIP4)?, pair.scene.holders(VIP4)?);
        let (healed, mark) = (Instant::now(), Mark::now());
        pair.scene.machines[0].port.mend()?;
        pair.await_master(0)?;
        // The network must learn again where the address is: an ARP request whose sender is the virtual address.
        let told = wire.find(SOON, |frame| {
            frame.get(6..12) == Some(&[2, 0x66, 0, 0, 0, 1])
                && frame.get(12..14) == Some(&[8, 6])
                && frame.get(28..32) == Some(&VIP4.octets())
        })?;
        ensure!(told.is_some(), "no gratuitous ARP:\n{}", pair.logs());
        // Nobody changes their mind.
        pair.judge_stays("after the partition", 0, Duration::from_millis(500))?;
        let (record, trace) = (record.stop()?, probe.stop()?);
        measured(&format!("partition_{round}_outage_after_healing"), ms(trace.outage(healed)));
        judged(&format!("partition_{round}_doubled_after_healing"), record.doubled(healed), ADVERT, mark)?;
    }
    pair.routers.iter_mut().try_for_each(|router| router.stop())
}

/// Both wait a second between adverts, so that only heartbeats can tell in time; the reason says that they did.
#[test]
fn missing_heartbeats_are_noticed_before_missing_adverts() -> Result<()> {
    require_routers!("missing_heartbeats_are_noticed_before_missing_adverts", Kind::Xdirector);
    let instance = Instance::ipv4(53, 150)
        .every(Duration::from_secs(1))
        .toml_line("fast_detection = { interval = \"20ms\", multiplier = 5 }");
    let mut pair = Pair::start("heartbeats", XDIRECTORS, &instance, VIP4.into())?;
    // An advert of the master has been heard, and with it who the master is.
    thread::sleep(Duration::from_secs(2));
    let cut = Instant::now();
    pair.scene.machines[0].port.cut()?;
    pair.await_answer(1)?;
    measured("heartbeats_cut_takeover", ms(cut.elapsed()));
    let log = pair.routers[1].log();
    ensure!(log.contains("are missing"), "not by heartbeats:\n{log}");
    pair.scene.machines[0].port.mend()?;
    pair.await_master(0)?;
    pair.routers.iter_mut().try_for_each(|router| router.stop())
}

#[test]
fn an_interface_that_flaps_is_used_again() -> Result<()> {
    require_routers!("an_interface_that_flaps_is_used_again", Kind::Xdirector);
    let flaps = unless_long(40, 1000);
    let mut pair = Pair::start("flaps", XDIRECTORS, &Instance::ipv4(53, 150), VIP4.into())?;
    for round in 0..flaps {
        let port = &pair.scene.machines[round % 2].port;
        port.set_link(false)?;
        thread::sleep(Duration::from_millis(20));
        port.set_link(true)?;
        thread::sleep(Duration::from_millis(60));
    }
    let (last, mark) = (Instant::now(), Mark::now());
    pair.await_master(0)?;
    judged(&format!("flaps_{flaps}_recovered_after"), last.elapsed(), RECOVERED, mark)?;
    pair.judge_stays("after the flaps", 0, Duration::from_millis(500))?;
    let log: usize = pair.routers.iter().map(|router| router.log().lines().count()).sum();
    measured(&format!("flaps_{flaps}_log_lines"), log);
    pair.routers.iter_mut().try_for_each(|router| router.stop())
}
