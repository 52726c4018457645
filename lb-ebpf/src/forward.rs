//! Sending a packet on: to its real server by NAT, DR or TUN, or back to its client.

pub mod nat;
pub mod reply;
pub mod tun;

use lb_common::{
    Verdict,
    conn::{Direction, NONE},
    server::{Forwarding, Macs, NextHop, Server},
};

use reply::Order;

use crate::{
    connection::{Route, Sender, keep_way_back},
    packet::{Packet, Window},
    parse::Ip,
    pipeline::{Outcome, Step},
    service, stats,
    table::{self, Place},
    transmit,
};

/// Sends a packet where its route leads, `server` being that of the route.
#[inline(always)]
pub fn send(
    packet: Packet,
    window: Window,
    ip: &Ip,
    tags: u32,
    route: &Route,
    server: &Server,
) -> Result<Step, Verdict> {
    match route.direction {
        Direction::Forward => to_server(packet, window, ip, tags, route, server),
        Direction::Reverse => to_client(packet, window, ip, tags, route, server),
    }
}

#[inline(always)]
fn to_server(
    packet: Packet,
    window: Window,
    ip: &Ip,
    tags: u32,
    route: &Route,
    server: &Server,
) -> Result<Step, Verdict> {
    let hop = transmit::hop_to_server(packet, route, server)?;
    let outer = tun::outer_len(server);
    // An ICMP error is never answered by another (RFC 1122 section 3.2.2).
    if ip.ttl <= 1 {
        return Err(if ip.is_icmp() { Verdict::DropTimeExceeded } else { Verdict::ReplyTimeExceeded });
    }
    if ip.len + outer > hop.mtu as u32 {
        if ip.is_icmp() {
            return Err(Verdict::DropTooBig);
        }
        let mtu = hop.mtu.saturating_sub(outer as u16);
        return Ok(Step::Reply(Order { verdict: Verdict::ReplyTooBig, mtu, server: None }));
    }
    stats::count_in(route.server, ip.len);
    let verdict = if server.forwarding == Forwarding::Nat as u8 {
        // An ICMP error may come from any router on the way, so it says nothing about the client's.
        if !ip.is_icmp() {
            keep_way_back(route.place, &Sender::of(packet, window, tags)?);
        }
        nat::to_server(window, ip, server).ok_or(Verdict::DropBadTransport)?;
        transmit::relay(packet, window, ip.l3, tags, hop)?;
        Verdict::ForwardNat
    } else if server.forwarding == Forwarding::Dr as u8 {
        nat::age(window, ip).ok_or(Verdict::DropBadLength)?;
        transmit::relay(packet, window, ip.l3, tags, hop)?;
        Verdict::ForwardDr
    } else {
        nat::age(window, ip).ok_or(Verdict::DropBadLength)?;
        tun::wrap(packet, window, ip, tags, server, hop)?;
        Verdict::ForwardTun
    };
    let verdict = if ip.is_icmp() { Verdict::IcmpToServer } else { verdict };
    Ok(Step::Done(Outcome::new(verdict, hop.ifindex)))
}

#[inline(always)]
fn to_client(
    packet: Packet,
    window: Window,
    ip: &Ip,
    tags: u32,
    route: &Route,
    server: &Server,
) -> Result<Step, Verdict> {
    // On standby this machine's own address goes into the frame: that in the client's frames may be the virtual router's, and a
    // switch must not learn it from anybody but the master.
    let known = if service::is_on_standby(server.role) { None } else { way_back(route) };
    let hop = match known {
        Some((hop, false)) => hop,
        Some((hop, true)) => transmit::hop_by_kernel(packet, route).copied().unwrap_or(hop),
        // What has no place may be no answer at all, but meant for this machine.
        None => *transmit::hop_by_kernel(packet, route).map_err(|verdict| match route.place {
            NONE => Verdict::PassNoConnection,
            _ => verdict,
        })?,
    };
    if ip.ttl <= 1 {
        if ip.is_icmp() {
            return Err(Verdict::DropTimeExceeded);
        }
        let verdict = Verdict::ReplyTimeExceeded;
        return Ok(Step::Reply(Order { verdict, mtu: 0, server: Some(route.server) }));
    }
    if let Some(mtu) = transmit::exceeded_mtu(packet, hop.ifindex, ip.len) {
        if ip.is_icmp() {
            return Err(Verdict::DropTooBig);
        }
        let verdict = Verdict::ReplyTooBig;
        return Ok(Step::Reply(Order { verdict, mtu: mtu as u16, server: Some(route.server) }));
    }
    stats::count_out(route.server, ip.len);
    if server.forwarding == Forwarding::Nat as u8 {
        nat::to_client(window, ip, server).ok_or(Verdict::DropBadTransport)?;
    } else {
        // An answer to one of the agent's own checks: it comes from the virtual server's address already.
        nat::age(window, ip).ok_or(Verdict::DropBadLength)?;
    }
    transmit::relay(packet, window, ip.l3, tags, &hop)?;
    let verdict = if ip.is_icmp() { Verdict::IcmpToClient } else { Verdict::ReverseNat };
    Ok(Step::Done(Outcome::new(verdict, hop.ifindex)))
}

/// The way back to the client, which its own packets showed, and whether it is in doubt.
#[inline(always)]
fn way_back(route: &Route) -> Option<(NextHop, bool)> {
    let place = Place::at(route.place)?;
    let (meta, macs) = (place.meta(), Macs::from_words(place.way()));
    if meta.link() == 0 {
        return None;
    }
    // Every field is named: the compiler fills the rest of a default with zeros byte by byte.
    let mut hop =
        NextHop { ifindex: meta.link(), mtu: u16::MAX, flags: 0, tags: 0, vlan: [0; 2], macs, reserved: 0 };
    if meta.tagged() {
        tag_like_client(route.place, &mut hop);
    }
    Some((hop, meta.is_doubted()))
}

/// A tagged client gets its answers with its own tags.
#[inline(never)]
fn tag_like_client(index: u32, hop: &mut NextHop) {
    if let Some(forward) = Place::at(table::forward_of(index)) {
        let [_, outer, inner] = forward.way();
        hop.vlan = [outer, inner];
        hop.tags = if inner == 0 { 1 } else { 2 };
    }
}
