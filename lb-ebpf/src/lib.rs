//! xdirector's data plane: an XDP program that balances TCP and UDP connections over real servers.
//!
//! Read `pipeline.rs` first: a packet's life, top to bottom.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(core_intrinsics, asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(internal_features, reason = "core::sync::atomic has no read-modify-write operations for eBPF")
)]

mod atomic;
mod budget;
mod connection;
mod forward;
mod fragment;
mod icmp;
pub mod local;
mod maps;
mod opaque;
mod packet;
mod parse;
mod pipeline;
mod schedule;
mod service;
mod settings;
mod stats;
mod table;
mod trace;
mod transmit;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    programs::XdpContext,
};
use lb_common::Class;
use packet::Packet;
use pipeline::Outcome;

/// What becomes of one packet: runs the pipeline, counts the verdict and turns it into the action that the kernel
/// is told (`enum xdp_action`).
#[inline(always)]
pub fn run(ctx: &XdpContext) -> u32 {
    let packet = Packet::new(ctx);
    let Outcome { slot, egress } = pipeline::process(packet);
    stats::count_verdict(slot);
    trace::verdict(ctx, slot);
    match Class::of(slot) {
        Class::Pass => XDP_PASS,
        Class::Drop => XDP_DROP,
        Class::Transmit if egress == packet.ingress() => XDP_TX,
        Class::Transmit => transmit::redirect(egress),
    }
}

/// Tells the agent what time it is by the clock of the connection table: in the first four bytes of the packet, which the
/// agent passes to a run of this program.
#[inline(always)]
pub fn clock(ctx: &XdpContext) -> u32 {
    match Packet::new(ctx).window().write(0, settings::now()) {
        Some(()) => XDP_PASS,
        None => XDP_DROP,
    }
}
