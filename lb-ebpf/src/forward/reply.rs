//! Answers of the director's own: time exceeded, fragmentation needed / packet too big, port unreachable (RFC 792,
//! RFC 1191, RFC 4443). The packet itself becomes the answer:
//!
//! ```text
//! before  | frame | IP header | payload ...
//! after   | frame, turned round | IP | ICMP | IP header | 8 bytes of payload |
//! ```

use aya_ebpf::bindings::xdp_md;
use lb_common::{
    Addr, Event, Verdict,
    checksum::{Delta, finish},
    conn::NONE,
    ip_proto,
};

use crate::{
    budget::{Budget, may_spend},
    maps,
    packet::{Packet, Window},
    parse::{self, Ip, Part, ipv4, ipv6},
    pipeline::Outcome,
    stats,
};

/// ICMP header: type, code, checksum, four bytes that depend on the type.
const ICMP: usize = 8;
/// Bytes of the payload that are quoted.
const QUOTED: usize = 8;
/// Bytes of headers that are quoted at most: four extension headers of eight bytes and more.
const MOST_HEADERS: usize = 120;
/// Hops that the answer may take.
const TTL: u8 = 64;

/// What to answer.
#[derive(Clone, Copy)]
pub struct Order {
    /// [`Verdict::ReplyTimeExceeded`], [`Verdict::ReplyTooBig`] or [`Verdict::ReplyNoServer`].
    pub verdict: Verdict,
    /// What [`Verdict::ReplyTooBig`] tells.
    pub mtu: u16,
    /// The real server whose virtual server's address is the answer's source; without one it is the packet's
    /// destination.
    pub server: Option<u32>,
}

impl Order {
    /// As one word, which leaves the second byte free: verdict, MTU (16 bits from 16), server (from 32).
    #[inline(always)]
    pub fn pack(self) -> u64 {
        let server = self.server.unwrap_or(NONE);
        (server as u64) << 32 | (self.mtu as u64) << 16 | self.verdict as u64
    }

    /// From [`Self::pack`].
    #[inline(always)]
    pub fn unpack(word: u64) -> Self {
        let verdict = match word as u32 & 0xff {
            v if v == Verdict::ReplyTimeExceeded as u32 => Verdict::ReplyTimeExceeded,
            v if v == Verdict::ReplyTooBig as u32 => Verdict::ReplyTooBig,
            _ => Verdict::ReplyNoServer,
        };
        let server = (word >> 32) as u32;
        Self { verdict, mtu: (word >> 16) as u16, server: if server == NONE { None } else { Some(server) } }
    }
}

/// Turns the packet into the answer and sends it back where it came from. A packet that may not be answered is dropped
/// instead.
#[inline(always)]
pub fn answer(packet: Packet, order: Order) -> Outcome {
    // SAFETY: the program's own context.
    Outcome::unpack(packet.forget(unsafe { reply_build(packet.raw(), order.pack()) }))
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn reply_build(ctx: *mut xdp_md, order: u64) -> u64 {
    // SAFETY: the program's own context, by the contract of this function.
    let packet = unsafe { Packet::from_raw(ctx) };
    let order = Order::unpack(order);
    let (verdict, egress) = match try_build(packet, &order) {
        Some(()) => (order.verdict, packet.ingress()),
        None => match order.verdict {
            Verdict::ReplyTimeExceeded => (Verdict::DropTimeExceeded, 0),
            Verdict::ReplyTooBig => (Verdict::DropTooBig, 0),
            _ => (Verdict::DropNoServer, 0),
        },
    };
    Outcome::new(verdict, egress).pack()
}

#[inline(always)]
fn try_build(packet: Packet, order: &Order) -> Option<()> {
    let (window, _, ip) = parse::headers(packet).ok()?;
    if !may_be_answered(&ip) {
        return None;
    }
    if !may_spend(Budget::Reply) {
        stats::count_event(Event::ReplyLimited);
        return None;
    }
    let source = order.server.and_then(maps::server).map_or(ip.dst, |server| server.vip);
    // With its extension headers, or a receiver does not find what is behind them.
    let header_len = if ip.v6 { (ip.l4 - ip.l3).min(MOST_HEADERS) & 0x7c } else { (ip.l4 - ip.l3) & 0x3c };
    let quoted = header_len + QUOTED;
    let grown = ICMP + if ip.v6 { ipv6::LENGTH } else { ipv4::LENGTH };
    // `l3` is one of three values; the mask tells the verifier.
    let l3 = ip.l3 & 0x1f;
    let excess = window.len() as i32 - (l3 + quoted) as i32;
    if excess < 0 {
        return None;
    }
    packet.grow_front(grown as i32)?;
    let window = packet.grow_back(-excess)?;
    turn_frame(window, grown, l3)?;
    let icmp = l3 + grown - ICMP;
    let (kind, code) = kind(order.verdict, ip.v6);
    window.from(icmp).write(0, [kind, code, 0, 0])?;
    // IPv4 has the MTU in the lower half (RFC 1191 section 4), IPv6 in all of it (RFC 4443 section 3.2).
    window.from(icmp).write::<u32>(4, (order.mtu as u32).to_be())?;
    let mut sum = Delta::ZERO;
    if ip.v6 {
        let (s, d) = (source.words(), ip.src.words());
        sum = sum.add_word(s[0]).add_word(s[1]).add_word(s[2]).add_word(s[3]);
        sum = sum.add_word(d[0]).add_word(d[1]).add_word(d[2]).add_word(d[3]);
        sum = sum.add_word(((ICMP + quoted) as u32).to_be()).add_word((ip_proto::ICMPV6 as u32).to_be());
    }
    sum = sum.and(sum_of(packet, icmp, ICMP + quoted)?);
    window.from(icmp).write::<u16>(2, finish(sum))?;
    if ip.v6 {
        header_v6(window, l3, source, &ip, ICMP + quoted)
    } else {
        header_v4(packet, window, l3, source, &ip, grown + quoted)
    }
}

/// RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e): no answer to a later fragment, nor to what did not come from
/// one host. (ICMP errors never come here.)
#[inline(always)]
fn may_be_answered(ip: &Ip) -> bool {
    let first = ip.src.words()[if ip.v6 { 0 } else { 3 }].to_ne_bytes()[0];
    let multicast = if ip.v6 { first == 0xff } else { first >= 224 };
    ip.part != Part::Later && !multicast && ip.src != Addr::v4(0) && ip.src != Addr::default()
}

#[inline(always)]
fn kind(verdict: Verdict, v6: bool) -> (u8, u8) {
    match (verdict, v6) {
        (Verdict::ReplyTimeExceeded, false) => (11, 0),
        (Verdict::ReplyTimeExceeded, true) => (3, 0),
        (Verdict::ReplyTooBig, false) => (3, 4),
        (Verdict::ReplyTooBig, true) => (2, 0),
        (_, false) => (3, 3),
        (_, true) => (1, 4),
    }
}

/// Copies the frame's header to the new front, sender and receiver exchanged.
#[inline(always)]
fn turn_frame(window: Window, from: usize, l3: usize) -> Option<()> {
    let to = window.from(from).read::<[u8; 6]>(0)?;
    let by = window.from(from).read::<[u8; 6]>(6)?;
    window.write(0, by)?;
    window.write(6, to)?;
    let mut at = 12;
    // The EtherType, after up to two tags.
    for _ in 0..5 {
        if at < l3 {
            let half = window.from(from + at).read::<u16>(0)?;
            window.from(at).write(0, half)?;
            at += 2;
        }
    }
    Some(())
}

/// The sum of the 32-bit words from `at` on; `len` is a multiple of 4 and at most 136.
#[inline(always)]
fn sum_of(packet: Packet, at: usize, len: usize) -> Option<Delta> {
    // SAFETY: the program's own context.
    match unsafe { reply_sum(packet.raw(), at as u32, len as u32) } {
        FAILED => None,
        sum => Some(Delta::from_folded(sum as u16)),
    }
}

/// No folded sum.
const FAILED: u64 = 1 << 16;

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn reply_sum(ctx: *mut xdp_md, at: u32, len: u32) -> u64 {
    // SAFETY: the program's own context, by the contract of this function.
    let window = unsafe { Packet::from_raw(ctx) }.window().from(at as usize & 0xff);
    let mut sum = Delta::ZERO;
    for i in 0..34 {
        if i * 4 >= len as usize {
            break;
        }
        let Some(word) = window.from(i * 4).read::<u32>(0) else { return FAILED };
        sum = sum.add_word(word);
    }
    sum.folded().into()
}

#[inline(always)]
fn header_v4(packet: Packet, window: Window, l3: usize, source: Addr, ip: &Ip, len: usize) -> Option<()> {
    let mut header = ipv4::Header {
        version_ihl: 0x45,
        tos: 0,
        total_len: (len as u16).to_be(),
        id: 0,
        fragment: ipv4::DONT_FRAGMENT,
        ttl: TTL,
        proto: ip_proto::ICMP,
        checksum: 0,
        src: source.v4_word(),
        dst: ip.src.v4_word(),
    };
    window.from(l3).write(0, header)?;
    header.checksum = finish(sum_of(packet, l3, ipv4::LENGTH)?);
    window.from(l3).write(0, header)
}

#[inline(always)]
fn header_v6(window: Window, l3: usize, source: Addr, ip: &Ip, payload: usize) -> Option<()> {
    window.from(l3).write(
        0,
        ipv6::Header {
            version_class_flow: (6u32 << 28).to_be(),
            payload_len: (payload as u16).to_be(),
            next_header: ip_proto::ICMPV6,
            hop_limit: TTL,
            src: source.words(),
            dst: ip.src.words(),
        },
    )
}
