//! Adverts that must not move anything, as fast as they can be sent but for a breath after each thousand.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Packet,
    failover::{Advert, Instance, Kind, VIP4},
    require_routers,
    stall::{judge, verdict},
    wire::Wire,
};

use crate::support::{Pair, discarded, measured, unless_long};

/// 224.0.0.18 and its Ethernet address.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const GROUP_MAC: [u8; 6] = [1, 0, 0x5e, 0, 0, 0x12];
/// A machine that is not there.
const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 66, 0, 9);
const STRANGER_MAC: [u8; 6] = [2, 0x66, 0, 0, 0, 9];
const VRRP: u8 = 112;
/// Lines that each director may add to its log for all of this.
const LINES: usize = 200;
/// Between adverts: those who send and receive the frames share their processors with who must not miss one.
const INTERVAL: Duration = Duration::from_secs(1);
/// After so many frames the sender lets others have its processor.
const FRAMES: u64 = 1024;
const BREATH: Duration = Duration::from_micros(200);

#[test]
fn wrong_adverts_at_full_rate_change_nothing() -> Result<()> {
    require_routers!("wrong_adverts_at_full_rate_change_nothing", Kind::Xdirector);
    let instance = Instance::ipv4(51, 150).v2().password("secret12");
    let pair = Pair::start("forged", [Kind::Xdirector; 2], &instance, VIP4.into())?;
    let right = version2(51, 255, "secret12");
    let mut sum = right.clone();
    sum[7] ^= 1;
    let mut kind = right.clone();
    kind[4] = 2;
    let frames = [
        frame(254, &right),
        frame(1, &right),
        frame(255, &sum),
        frame(255, &checked(kind)),
        frame(255, &version2(51, 255, "guessed")),
        frame(255, &version2(51, 0, "guessed")),
        frame(255, &version2(52, 255, "secret12")),
        frame(255, &right[..12]),
        frame(255, &right[..4]),
        frame(255, &[]),
        frame(255, &[&right[..], &[0; 900]].concat()),
    ];
    flood(pair, "VI_51", &frames)
}

/// With `auth_hmac` nothing can be said twice, not even by the wire itself.
#[test]
fn replayed_adverts_change_nothing() -> Result<()> {
    require_routers!("replayed_adverts_change_nothing", Kind::Xdirector);
    let key = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    let line =
        format!("authentication = {{ type = \"hmac\", key_id = 1, key = \"{key}\", mode = \"enforce\" }}");
    let instance = Instance::ipv4(53, 150).every(INTERVAL).toml_line(&line);
    let wire = |pair: &Pair| Wire::open(pair.scene.lab.switch(), pair.scene.lan.bridge());
    let mut pair = Pair::start("replayed", [Kind::Xdirector; 2], &instance, VIP4.into())?;
    // Everything that both say in a failover and back, the priority 0 of the end among it.
    let tap = wire(&pair)?;
    pair.routers[0].stop()?;
    pair.await_master(1)?;
    pair.routers[0].restart()?;
    pair.await_master(0)?;
    let mut frames = Vec::new();
    tap.find(Duration::from_millis(500), |frame| {
        if Advert::read(frame, Instant::now()).is_some() {
            frames.push(frame.to_owned());
        }
        false
    })?;
    let says_goodbye =
        |frame: &Vec<u8>| Advert::read(frame, Instant::now()).is_some_and(|one| one.priority() == 0);
    ensure!(frames.iter().any(says_goodbye), "no goodbye among {} frames", frames.len());
    flood(pair, "VI_53", &frames)
}

/// Sends them all in turn, and expects that nothing happens but counting.
fn flood(mut pair: Pair, name: &str, frames: &[Vec<u8>]) -> Result<()> {
    judge("the flood", pair.patience, || flood_once(&mut pair, name, frames))?;
    pair.routers.iter_mut().try_for_each(|router| router.stop())
}

fn flood_once(pair: &mut Pair, name: &str, frames: &[Vec<u8>]) -> Result<()> {
    pair.await_master(0)?;
    let lines = |pair: &Pair| -> Vec<usize> {
        pair.routers.iter().map(|router| router.log().lines().count()).collect()
    };
    let earlier = lines(pair);
    let mut counted = Vec::new();
    for router in &mut pair.routers {
        counted.push(discarded(router.xdirector().context("not an xdirector")?, name)?);
    }
    let record = pair.scene.holders(VIP4)?;
    let wire = Wire::open(&pair.scene.client.netns, "eth0")?;
    let begun = Instant::now();
    let time = unless_long(Duration::from_secs(3), Duration::from_mins(1));
    let mut sent = 0_u64;
    while begun.elapsed() < time {
        for frame in frames {
            // The receiver may not take them as fast.
            let _ = wire.send(frame);
            sent += 1;
            if sent.is_multiple_of(FRAMES) {
                thread::sleep(BREATH);
            }
        }
    }
    pair.await_master(0)?;
    let record = record.stop()?;
    verdict(record.takeovers(begun) == 0, || format!("{:?}\n{}", record.changes, pair.logs()))?;
    for (number, (before, after)) in earlier.into_iter().zip(lines(pair)).enumerate() {
        ensure!(after - before <= LINES, "director {number} wrote {} lines", after - before);
    }
    let label = pair.scene.machines[0].netns.name().rsplit('-').nth(1).unwrap_or_default().to_owned();
    measured(&format!("{label}_adverts_sent_a_second"), sent / time.as_secs());
    for (number, (router, before)) in pair.routers.iter_mut().zip(counted).enumerate() {
        let after = discarded(router.xdirector().context("not an xdirector")?, name)?;
        ensure!(after > before, "director {number} has not counted what it discarded: {after}");
        measured(&format!("{label}_discarded_by_{number}"), after - before);
    }
    Ok(())
}

fn frame(ttl: u8, message: &[u8]) -> Vec<u8> {
    let packet = Packet::eth(STRANGER_MAC, GROUP_MAC).ipv4(STRANGER, GROUP);
    packet.ttl(ttl).protocol(VRRP).payload(message).build()
}

/// An advert of version 2 with PASS, for the scene's address, every second (RFC 3768 5.1, RFC 2338 5.3.6).
fn version2(vrid: u8, priority: u8, password: &str) -> Vec<u8> {
    let mut message = vec![0x21, vrid, priority, 1, 1, 1, 0, 0];
    message.extend(VIP4.octets());
    let mut secret = [0; 8];
    for (place, byte) in secret.iter_mut().zip(password.bytes()) {
        *place = byte;
    }
    message.extend(secret);
    checked(message)
}

/// With the checksum of RFC 1071 over all of it.
fn checked(mut message: Vec<u8>) -> Vec<u8> {
    message[6..8].fill(0);
    let mut sum: u32 = message.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !(sum as u16);
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

#[test]
fn the_forged_adverts_are_right_but_for_one_thing() {
    let message = version2(52, 150, "");
    let text: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
    // As keepalived sends it, but for the type of authentication, which is in its checksum.
    assert!(text.starts_with("213496010101") && text.ends_with("0a4200640000000000000000"), "{text}");
    assert_eq!(&message[6..8], &0x3d23_u16.to_be_bytes());
    let advert = Advert::read(&frame(255, &message), Instant::now()).unwrap();
    assert_eq!((advert.source, advert.priority()), (IpAddr::from(STRANGER), 150));
}
