//! The programs themselves.

use aya_ebpf::{
    Global,
    bindings::{TC_ACT_OK, TC_ACT_SHOT, xdp_action},
    helpers::generated::{bpf_skb_vlan_pop, bpf_skb_vlan_push},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::packet;

const ETH_LEN: usize = 14;
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const IPPROTO_IPIP: u8 = 4;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_IPV6: u8 = 41;
const IPPROTO_ICMPV6: u8 = 58;
const ECHO_PORT: [u8; 2] = 7u16.to_be_bytes();

/// The VLAN that `vlan_push` puts packets into; set before loading.
#[unsafe(no_mangle)]
static VLAN_ID: Global<u16> = Global::new(1);

/// Lets every packet through.
#[xdp]
pub fn pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

/// Takes the outer header off IPIP, IP6IP6, 4-in-6 and 6-in-4 packets; everything else passes as it is.
#[xdp]
pub fn decap(ctx: XdpContext) -> u32 {
    // What is not a tunnel packet (`None`) goes up the stack as well.
    let _ = try_decap(&ctx);
    xdp_action::XDP_PASS
}

#[inline(always)]
fn try_decap(ctx: &XdpContext) -> Option<()> {
    let macs: [u8; 12] = packet::read(ctx, 0)?;
    let (outer_len, protocol) = match u16::from_be_bytes(packet::read(ctx, 12)?) {
        ETH_P_IP => {
            let outer: [u8; 20] = packet::read(ctx, ETH_LEN)?;
            let fragment = u16::from_be_bytes([outer[6], outer[7]]) & 0x3fff != 0;
            // A tunnel device would reassemble first; the director never fragments what it encapsulates.
            if outer[0] != 0x45 || fragment {
                return None;
            }
            (20, outer[9])
        }
        ETH_P_IPV6 => (40, packet::read::<40>(ctx, ETH_LEN)?[6]),
        _ => return None,
    };
    let inner_type = match protocol {
        IPPROTO_IPIP => ETH_P_IP,
        IPPROTO_IPV6 => ETH_P_IPV6,
        _ => return None,
    };
    packet::write(ctx, outer_len, macs)?;
    packet::write(ctx, outer_len + 12, inner_type.to_be_bytes())?;
    packet::cut_front(ctx, outer_len)
}

/// Answers UDP datagrams to port 7 from the driver, with the same payload.
#[xdp]
pub fn reflect(ctx: XdpContext) -> u32 {
    match try_reflect(&ctx) {
        Some(()) => xdp_action::XDP_TX,
        None => xdp_action::XDP_PASS,
    }
}

#[inline(always)]
fn try_reflect(ctx: &XdpContext) -> Option<()> {
    if packet::read::<2>(ctx, 12)? != ETH_P_IP.to_be_bytes() {
        return None;
    }
    let ip: [u8; 20] = packet::read(ctx, ETH_LEN)?;
    let ports: [u8; 4] = packet::read(ctx, ETH_LEN + 20)?;
    if ip[0] != 0x45 || ip[9] != IPPROTO_UDP || ports[2..] != ECHO_PORT {
        return None;
    }
    // Swapping source and destination leaves every checksum right.
    let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5]: [u8; 12] = packet::read(ctx, 0)?;
    packet::write(ctx, 0, [s0, s1, s2, s3, s4, s5, d0, d1, d2, d3, d4, d5])?;
    packet::write(ctx, ETH_LEN + 12, [ip[16], ip[17], ip[18], ip[19], ip[12], ip[13], ip[14], ip[15]])?;
    packet::write(ctx, ETH_LEN + 20, [ports[2], ports[3], ports[0], ports[1]])
}

/// Tags IP packets on their way out. ARP and neighbour discovery stay untagged, because a director without an
/// 802.1Q device could not answer them.
#[classifier]
pub fn vlan_push(ctx: TcContext) -> i32 {
    if !wants_tag(&ctx) {
        return TC_ACT_OK;
    }
    // SAFETY: the pointer is the context that the kernel gave to this program.
    match unsafe { bpf_skb_vlan_push(ctx.skb.skb, ETH_P_8021Q.to_be(), VLAN_ID.load()) } {
        0 => TC_ACT_OK,
        _ => TC_ACT_SHOT,
    }
}

#[inline(always)]
fn wants_tag(ctx: &TcContext) -> bool {
    match ctx.load::<u16>(12).map(u16::from_be) {
        Ok(ETH_P_IP) => true,
        Ok(ETH_P_IPV6) => !is_neighbour_discovery(ctx),
        _ => false,
    }
}

/// ICMPv6 types 133 to 137 (RFC 4861, section 4).
#[inline(always)]
fn is_neighbour_discovery(ctx: &TcContext) -> bool {
    matches!(ctx.load::<u8>(ETH_LEN + 6), Ok(IPPROTO_ICMPV6))
        && matches!(ctx.load::<u8>(ETH_LEN + 40), Ok(133..=137))
}

/// Takes the tag off on the way in. The kernel has already moved it from the packet to the skb.
#[classifier]
pub fn vlan_pop(ctx: TcContext) -> i32 {
    // SAFETY: the pointer is the context that the kernel gave to this program.
    let skb = unsafe { &*ctx.skb.skb };
    if skb.vlan_present == 0 {
        return TC_ACT_OK;
    }
    if skb.vlan_tci & 0xfff != u32::from(VLAN_ID.load()) {
        return TC_ACT_SHOT;
    }
    // SAFETY: as above.
    match unsafe { bpf_skb_vlan_pop(ctx.skb.skb) } {
        0 => TC_ACT_OK,
        _ => TC_ACT_SHOT,
    }
}
