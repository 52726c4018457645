//! Debug events for `xdirector run --trace`. With the switch off the verifier removes all of this.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::{debug, info};
use lb_common::{Addr, Class, FlowKey};

use crate::{
    budget::{Budget, may_spend},
    connection::Route,
    packet::Packet,
    parse, settings,
};

/// The address for the log, which prints sixteen bytes as IPv6 (IPv4 as `::ffff:a.b.c.d`).
#[inline(always)]
fn bytes(addr: Addr) -> [u8; 16] {
    let [a, b, c, d] = addr.words().map(u32::to_ne_bytes);
    let mut all = [0; 16];
    all[..4].copy_from_slice(&a);
    all[4..8].copy_from_slice(&b);
    all[8..12].copy_from_slice(&c);
    all[12..].copy_from_slice(&d);
    all
}

/// A flow was given to a real server.
#[inline(always)]
pub fn connection(packet: Packet, key: &FlowKey, route: &Route) {
    if settings::trace() {
        send_connection(packet, key, route.server);
    }
}

#[inline(never)]
fn send_connection(packet: Packet, key: &FlowKey, server: u32) {
    if may_spend(Budget::Trace) {
        let ctx = XdpContext::new(packet.raw());
        info!(
            &ctx,
            "connection protocol {} {:i} port {} -> {:i} port {} server {}",
            key.proto,
            bytes(key.src),
            key.sport.number(),
            bytes(key.dst),
            key.dport.number(),
            server
        );
    }
}

/// A packet was dropped.
#[inline(always)]
pub fn verdict(ctx: &XdpContext, slot: u32) {
    if settings::trace() && Class::of(slot) == Class::Drop {
        send_drop(Packet::new(ctx), slot);
    }
}

#[inline(never)]
fn send_drop(packet: Packet, verdict: u32) {
    if !may_spend(Budget::Trace) {
        return;
    }
    let ctx = XdpContext::new(packet.raw());
    match parse::headers(packet) {
        Ok((_, _, ip)) => debug!(
            &ctx,
            "drop verdict {} protocol {} {:i} -> {:i} interface {}",
            verdict,
            ip.proto,
            bytes(ip.src),
            bytes(ip.dst),
            packet.ingress()
        ),
        Err(_) => debug!(&ctx, "drop verdict {} interface {}", verdict, packet.ingress()),
    }
}
