//! Adverts through real sockets.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Netns, require_lab, wire::Wire};
use lb_userspace::{
    config::vrrp::Family,
    netif::{Kernel, Received, VrrpSocket, os_code},
    vrrp::packet::{GROUP_V4, GROUP_V6},
};

use crate::{LIMIT, Pair, bytes, index, wait_for};

/// keepalived's, version 3: from 10.66.0.1 to the group, vrid 53, priority 150.
const ADVERT: &str = "45c0002000010000ff70d0570a420001e0000012 313596010032431f0a420064";
/// keepalived's, version 3 over IPv6: vrid 54.
const ADVERT_V6: &str = "3136960200643c80fe800000000000000000000000660100fd660000000000000000000000000100";
const MAC: [u8; 6] = [0, 0, 0x5e, 0, 1, 53];

fn open(host: &Netns, device: &str, family: Family) -> Result<VrrpSocket> {
    let interface = index(host, device)?;
    host.enter(|| Ok(VrrpSocket::open(interface, family)?))
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// An IPv4 packet with another source, TTL, destination or priority, and the header's checksum made right.
fn advert(source: u8, destination: IpAddr, ttl: u8, priority: u8) -> Vec<u8> {
    let IpAddr::V4(destination) = destination else { panic!("not IPv4") };
    let mut packet = bytes(ADVERT);
    packet[8] = ttl;
    packet[10..12].fill(0);
    packet[15] = source;
    packet[16..20].copy_from_slice(&destination.octets());
    let sum: u32 = packet[..20].chunks(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[10..12].copy_from_slice(&checksum.to_be_bytes());
    packet[22] = priority;
    packet
}

/// The next IPv4 packet that a socket hears.
fn hear(socket: &VrrpSocket) -> Result<Vec<u8>> {
    let mut buffer = [0; 2048];
    wait_for("an advert", || match socket.recv(&mut buffer)? {
        Some(Received::Ipv4 { packet }) => Ok(Some(packet.to_vec())),
        Some(other) => bail!("{other:?}"),
        None => Ok(None),
    })
}

/// The next IPv6 message: with source, destination and hop limit.
fn hear_v6(socket: &VrrpSocket) -> Result<(Vec<u8>, Ipv6Addr, Ipv6Addr, u8)> {
    let mut buffer = [0; 2048];
    wait_for("an advert", || match socket.recv(&mut buffer)? {
        Some(Received::Ipv6 { message, source, destination, hop_limit }) => {
            Ok(Some((message.to_vec(), source, destination, hop_limit)))
        }
        Some(other) => bail!("{other:?}"),
        None => Ok(None),
    })
}

fn is_vrrp(frame: &[u8]) -> bool {
    match frame.get(12..14) {
        Some([0x08, 0x00]) => frame.get(23) == Some(&112),
        Some([0x86, 0xdd]) => frame.get(20) == Some(&112),
        _ => false,
    }
}

#[test]
fn an_ipv4_advert_arrives_byte_for_byte() -> Result<()> {
    require_lab!("an_ipv4_advert_arrives_byte_for_byte");
    let pair = Pair::new("nvrrp4")?;
    let wire = Wire::open(&pair.b, "eth0")?;
    let (a, b) = (open(&pair.a, "eth0", Family::Ipv4)?, open(&pair.b, "eth0", Family::Ipv4)?);
    a.send(&bytes(ADVERT), ip("10.66.0.1"), GROUP_V4.into())?;
    let frame = wire.find(LIMIT, is_vrrp)?.context("nothing came")?;
    let mut expected = bytes("01005e000012");
    expected.extend(pair.a.mac("eth0")?);
    expected.extend(bytes("0800"));
    expected.extend(bytes(ADVERT));
    ensure!(frame == expected, "{frame:02x?}");
    ensure!(hear(&b)? == bytes(ADVERT));

    // From afar, and to one host alone.
    a.send(&advert(1, GROUP_V4.into(), 254, 100), ip("10.66.0.1"), GROUP_V4.into())?;
    ensure!(hear(&b)? == advert(1, GROUP_V4.into(), 254, 100));
    let unicast = advert(1, ip("10.66.0.2"), 255, 150);
    a.send(&unicast, ip("10.66.0.1"), ip("10.66.0.2"))?;
    ensure!(hear(&b)? == unicast);
    let frame =
        wire.find(LIMIT, |frame| is_vrrp(frame) && frame[..6] != expected[..6])?.context("nothing came")?;
    ensure!(frame[..6] == pair.b.mac("eth0")? && frame[14..] == unicast, "{frame:02x?}");
    Ok(())
}

#[test]
fn an_ipv6_advert_arrives_byte_for_byte() -> Result<()> {
    require_lab!("an_ipv6_advert_arrives_byte_for_byte");
    let pair = Pair::new("nvrrp6")?;
    let wire = Wire::open(&pair.b, "eth0")?;
    let (a, b) = (open(&pair.a, "eth0", Family::Ipv6)?, open(&pair.b, "eth0", Family::Ipv6)?);
    let source: Ipv6Addr = "fe80::66:1".parse()?;
    let message = bytes(ADVERT_V6);
    a.send(&message, source.into(), GROUP_V6.into())?;
    let frame = wire.find(LIMIT, is_vrrp)?.context("nothing came")?;
    ensure!(frame[..6] == bytes("333300000012")[..] && frame[6..12] == pair.a.mac("eth0")?, "{frame:02x?}");
    // Version 6, class 0xc0 (the flow label is the kernel's), length, protocol, hop limit.
    ensure!(frame[14] == 0x6c && frame[15] & 0xf0 == 0, "{frame:02x?}");
    ensure!(frame[18..22] == [0, 40, 112, 255], "{frame:02x?}");
    ensure!(frame[22..38] == source.octets() && frame[38..54] == GROUP_V6.octets(), "{frame:02x?}");
    // The checksum is the caller's.
    ensure!(frame[54..] == message, "{frame:02x?}");
    ensure!(hear_v6(&b)? == (message.clone(), source, GROUP_V6, 255));

    let peer: Ipv6Addr = "fe80::66:2".parse()?;
    a.send(&message, source.into(), peer.into())?;
    ensure!(hear_v6(&b)? == (message.clone(), source, peer, 255));

    // From afar: the same frame again with another hop limit, from the wire itself.
    let mut forged = frame;
    forged[21] = 254;
    Wire::open(&pair.a, "eth0")?.send(&forged)?;
    ensure!(hear_v6(&b)? == (message, source, GROUP_V6, 254));
    Ok(())
}

#[test]
fn the_group_is_joined_and_left() -> Result<()> {
    require_lab!("the_group_is_joined_and_left");
    let pair = Pair::new("nvrrpg")?;
    let has = |group: &str| -> Result<bool> {
        let shown = pair.a.ip_json(&["maddr", "show", "dev", "eth0"])?;
        Ok(shown[0]["maddr"].as_array().is_some_and(|all| all.iter().any(|entry| entry["address"] == group)))
    };
    for (family, group) in [(Family::Ipv4, "224.0.0.18"), (Family::Ipv6, "ff02::12")] {
        ensure!(!has(group)?);
        let socket = open(&pair.a, "eth0", family)?;
        ensure!(has(group)? && socket.family() == family && socket.interface() == index(&pair.a, "eth0")?);
        drop(socket);
        ensure!(!has(group)?, "{group} was not left");
    }
    Ok(())
}

#[test]
fn what_is_our_own_or_another_interface_s_is_not_heard() -> Result<()> {
    require_lab!("what_is_our_own_or_another_interface_s_is_not_heard");
    let mut pair = Pair::new("nvrrpo")?;
    pair.lab.cable((&pair.a, "eth1"), (&pair.b, "eth1"))?;
    pair.a.ip(["addr add 10.67.0.1/24 dev eth1"])?;
    pair.b.ip(["addr add 10.67.0.2/24 dev eth1"])?;
    let (a, b) = (open(&pair.a, "eth0", Family::Ipv4)?, open(&pair.b, "eth0", Family::Ipv4)?);
    let other_b = open(&pair.b, "eth1", Family::Ipv4)?;
    let other_a = open(&pair.a, "eth1", Family::Ipv4)?;
    let sender = {
        let interface = index(&pair.a, "eth0")?;
        pair.a.enter(|| Ok(VrrpSocket::open_to_send(interface, Family::Ipv4)?))?
    };
    let send = |socket: &VrrpSocket, source: u8, priority: u8| {
        let packet = advert(source, GROUP_V4.into(), 255, priority);
        socket.send(&packet, ip(&format!("10.66.0.{source}")), GROUP_V4.into())
    };
    // Our own, one on the other interface (which is there when it has been heard), and the one that counts.
    send(&a, 1, 1)?;
    send(&sender, 1, 2)?;
    send(&other_b, 2, 3)?;
    ensure!(hear(&other_a)?[22] == 3);
    send(&b, 2, 4)?;
    ensure!(hear(&a)?[22] == 4);
    ensure!(a.recv(&mut [0; 2048])?.is_none());
    ensure!(sender.recv(&mut [0; 2048])?.is_none(), "a socket to send with has heard something");
    // Both ways of sending have arrived.
    ensure!(hear(&b)?[22] == 1 && hear(&b)?[22] == 2);
    Ok(())
}

#[test]
fn adverts_of_a_virtual_mac_go_both_ways() -> Result<()> {
    require_lab!("adverts_of_a_virtual_mac_go_both_ways");
    let pair = Pair::new("nvrrpm")?;
    for host in [&pair.a, &pair.b] {
        let eth0 = index(host, "eth0")?;
        host.enter(|| Ok(Kernel::open()?.add_macvlan(eth0, "vrrp.53", MAC)?))?;
    }
    let wire = Wire::open(&pair.b, "eth0")?;
    // The macvlan has no address at all; the source is the one of the interface below.
    let (a, b) = (open(&pair.a, "vrrp.53", Family::Ipv4)?, open(&pair.b, "vrrp.53", Family::Ipv4)?);
    a.send(&bytes(ADVERT), ip("10.66.0.1"), GROUP_V4.into())?;
    let frame = wire.find(LIMIT, is_vrrp)?.context("nothing came")?;
    ensure!(frame[6..12] == MAC && frame[14..] == bytes(ADVERT), "{frame:02x?}");
    ensure!(hear(&b)? == bytes(ADVERT), "from the same virtual MAC");
    let real = open(&pair.a, "eth0", Family::Ipv4)?;
    let packet = advert(1, GROUP_V4.into(), 255, 99);
    real.send(&packet, ip("10.66.0.1"), GROUP_V4.into())?;
    ensure!(hear(&b)? == packet, "from a real MAC");

    let (a, b) = (open(&pair.a, "vrrp.53", Family::Ipv6)?, open(&pair.b, "vrrp.53", Family::Ipv6)?);
    let source: Ipv6Addr = "fe80::66:1".parse()?;
    a.send(&bytes(ADVERT_V6), source.into(), GROUP_V6.into())?;
    let frame = wire.find(LIMIT, |frame| is_vrrp(frame) && frame[12] == 0x86)?.context("nothing came")?;
    ensure!(frame[6..12] == MAC && frame[22..38] == source.octets(), "{frame:02x?}");
    ensure!(hear_v6(&b)? == (bytes(ADVERT_V6), source, GROUP_V6, 255));
    Ok(())
}

#[test]
fn a_socket_outlives_its_interface_s_pauses() -> Result<()> {
    require_lab!("a_socket_outlives_its_interface_s_pauses");
    let pair = Pair::new("nvrrpd")?;
    let (a, b) = (open(&pair.a, "eth0", Family::Ipv4)?, open(&pair.b, "eth0", Family::Ipv4)?);
    pair.a.ip(["link set eth0 down"])?;
    let error = a.send(&bytes(ADVERT), ip("10.66.0.1"), GROUP_V4.into()).expect_err("sent");
    ensure!(matches!(os_code(&error), Some(libc::ENETUNREACH | libc::ENETDOWN)), "{error}");
    ensure!(error.to_string().contains("on eth0 (IPv4)"), "{error}");
    pair.a.ip(["link set eth0 up"])?;
    wait_for("a carrier", || {
        let packet = advert(2, GROUP_V4.into(), 255, 7);
        // Until both ends have noticed the carrier, packets are dropped.
        let _ = b.send(&packet, ip("10.66.0.2"), GROUP_V4.into());
        match a.recv(&mut [0; 2048])? {
            Some(Received::Ipv4 { packet: heard }) => {
                ensure!(heard == packet);
                Ok(Some(()))
            }
            _ => Ok(None),
        }
    })?;
    Ok(())
}

#[test]
fn a_socket_for_no_interface_says_so() -> Result<()> {
    require_lab!("a_socket_for_no_interface_says_so");
    let pair = Pair::new("nvrrpx")?;
    pair.a.enter(|| {
        for family in [Family::Ipv4, Family::Ipv6] {
            let error = VrrpSocket::open(9999, family).expect_err("opened");
            ensure!(os_code(&error) == Some(libc::ENODEV), "{error}");
            ensure!(error.to_string().contains("interface 9999"), "{error}");
        }
        let socket = VrrpSocket::open(index(&pair.a, "eth0")?, Family::Ipv4)?;
        let error = socket.send(&bytes(ADVERT), ip("10.66.0.1"), GROUP_V6.into()).expect_err("sent");
        ensure!(error.kind() == std::io::ErrorKind::InvalidInput, "{error}");
        Ok(())
    })
}
