//! The programs themselves.

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_DROP, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};

use crate::restore::{adjust_head, plan, restore};

/// The data plane as it is.
#[xdp]
fn xdirector(ctx: XdpContext) -> u32 {
    lb_ebpf::run(&ctx)
}

/// Tells the time by the connection table's clock, as the agent's code wants of each object.
#[xdp]
fn clock(ctx: XdpContext) -> u32 {
    lb_ebpf::clock(&ctx)
}

/// The data plane, and then the packet as it was (or that of the next flow).
#[xdp]
fn wrapped(ctx: XdpContext) -> u32 {
    let action = lb_ebpf::run(&ctx);
    match restore(&ctx) {
        Some(()) => action,
        None => XDP_ABORTED,
    }
}

/// What `wrapped` costs without the data plane: the room that a tunnel takes, and putting back the packet.
#[xdp]
fn unwrapped(ctx: XdpContext) -> u32 {
    match make_room(&ctx).and_then(|()| restore(&ctx)) {
        Some(()) => XDP_TX,
        None => XDP_ABORTED,
    }
}

#[inline(always)]
fn make_room(ctx: &XdpContext) -> Option<()> {
    match plan()?.grown {
        0 => Some(()),
        grown => adjust_head(ctx, -(grown as i32 & 0xff)),
    }
}

/// The least that a tunnel costs: room in front, and off again, a new frame's header, and out.
#[xdp]
fn floor(ctx: XdpContext) -> u32 {
    match try_floor(&ctx) {
        Some(()) => XDP_TX,
        None => XDP_ABORTED,
    }
}

#[inline(always)]
fn try_floor(ctx: &XdpContext) -> Option<()> {
    const MACS: [u32; 3] = [0x0202_0202, 0x0404_0202, 0x0404_0404];
    adjust_head(ctx, -20)?;
    adjust_head(ctx, 20)?;
    let frame = crate::restore::start::<14>(ctx)?;
    // SAFETY: `start` checked that 14 bytes are there; eBPF has no alignment on packets.
    unsafe {
        frame.cast::<[u32; 3]>().write_volatile(MACS);
        frame.byte_add(12).cast::<u16>().write_volatile(0x0800u16.to_be());
    }
    Some(())
}

/// Where a packet ends.
#[xdp]
fn dropped(_ctx: XdpContext) -> u32 {
    XDP_DROP
}

/// What a program costs that does nothing.
#[xdp]
fn empty(_ctx: XdpContext) -> u32 {
    XDP_TX
}
