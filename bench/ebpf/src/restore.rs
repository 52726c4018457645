//! Puts a packet back to what it was before the data plane changed it.

use aya_ebpf::{helpers::generated::bpf_xdp_adjust_head, macros::map, maps::Array, programs::XdpContext};

use crate::plan::Plan;

#[map]
static PLAN: Array<Plan> = Array::with_max_entries(1, 0);

/// The plan.
#[inline(always)]
pub fn plan() -> Option<&'static mut Plan> {
    // SAFETY: one benchmark runs at a time, on one CPU.
    PLAN.get_ptr_mut(0).map(|plan| unsafe { &mut *plan })
}

/// Moves the packet's start.
#[inline(always)]
pub fn adjust_head(ctx: &XdpContext, bytes: i32) -> Option<()> {
    // SAFETY: the program's own context; no packet pointer is kept across the call.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, bytes) } == 0 { Some(()) } else { None }
}

/// The packet's start, if `LEN` bytes are there.
#[inline(always)]
pub fn start<const LEN: usize>(ctx: &XdpContext) -> Option<*mut u8> {
    let start = ctx.data();
    if start + LEN > ctx.data_end() { None } else { Some(start as *mut u8) }
}

/// Puts back every field that DR, TUN or NAT changes. Fields are written in the widths in which the data plane reads them:
/// a read that spans two writes would wait for them, which a packet from a network card never makes anybody do.
#[inline(always)]
pub fn restore(ctx: &XdpContext) -> Option<()> {
    let plan = plan()?;
    if plan.grown != 0 {
        adjust_head(ctx, plan.grown as i32 & 0xff)?;
    }
    let [version, mut id, ttl, mut source, destination] = plan.header;
    if plan.last_flow != 0 {
        plan.count += 1;
        let flow = plan.count & plan.last_flow;
        source = (plan.client + flow).to_be();
        if plan.sums != 0 {
            // What the address gains, the identification loses: the header's checksum stays right (RFC 1624; 2^16 is 1 in it).
            let old = u32::from(u16::from_be(id as u16));
            let new = (old + 2 * 65_535 - flow % 65_535) % 65_535;
            id = id & 0xffff_0000 | u32::from((new as u16).to_be());
        }
    }
    let frame = start::<54>(ctx)?;
    // SAFETY: `start` checked that 54 bytes are there, an Ethernet, an IPv4 and a TCP header; eBPF has no alignment on
    // packets.
    unsafe {
        let word = |at: usize, value: u32| frame.byte_add(at).cast::<u32>().write_volatile(value);
        let half = |at: usize, value: u16| frame.byte_add(at).cast::<u16>().write_volatile(value);
        word(0, plan.macs[0]);
        word(4, plan.macs[1]);
        word(8, plan.macs[2]);
        half(12, plan.ethertype);
        word(14, version);
        word(18, id);
        word(22, ttl);
        word(26, source);
        word(30, destination);
        if plan.nat != 0 {
            word(34, plan.ports);
            half(50, plan.checksum);
        }
    }
    Some(())
}
