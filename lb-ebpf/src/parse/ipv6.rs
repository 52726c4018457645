//! IPv6 and its extension headers (RFC 8200).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+---------------+---------------------------------------+
//! |Version| Traffic class |              Flow label               |
//! +-------+---------------+-------+---------------+---------------+
//! |        Payload length         |  Next header  |   Hop limit   |
//! +-------------------------------+---------------+---------------+
//! |                   Source address (16 bytes)                   |
//! |                 Destination address (16 bytes)                |
//! +---------------------------------------------------------------+
//! ```

use aya_ebpf::bindings::xdp_md;
use lb_common::{Addr, Verdict, ip_proto};

use super::{Ip, Part};
use crate::{
    opaque::opaque,
    packet::{Packet, Window, Wire},
};

/// Length of the fixed header.
pub const LENGTH: usize = 40;
/// Extension headers that are followed.
const MAX_EXTENSIONS: usize = 6;

/// The fixed header, as it stands in the packet.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Header {
    /// Version, traffic class, flow label.
    pub version_class_flow: u32,
    /// Length without this header.
    pub payload_len: u16,
    /// Next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source.
    pub src: [u32; 4],
    /// Destination.
    pub dst: [u32; 4],
}

const _: () = assert!(size_of::<Header>() == LENGTH);

// SAFETY: integers only, no padding.
unsafe impl Wire for Header {}

/// Reads the header at `l3` and follows the extension headers to the payload.
#[inline(always)]
pub fn read(packet: Packet, window: Window, l3: usize) -> Result<Ip, Verdict> {
    let header = window.from(l3).read::<Header>(0).ok_or(Verdict::PassMalformed)?;
    if u32::from_be(header.version_class_flow) >> 28 != 6 {
        return Err(Verdict::PassMalformed);
    }
    // Mapped addresses stand for IPv4 in every table here and have no place on a wire (RFC 4942 section 2.2).
    if is_mapped(header.src) || is_mapped(header.dst) {
        return Err(Verdict::PassMalformed);
    }
    let plain = matches!(header.next_header, ip_proto::TCP | ip_proto::UDP | ip_proto::ICMPV6);
    let payload = if plain {
        Payload { proto: header.next_header, part: Part::Whole, at: l3 + LENGTH }
    } else {
        Payload::unpack(
            // SAFETY: the program's own context.
            packet.forget(unsafe { ipv6_follow(packet.raw(), l3 as u32, header.next_header.into()) }),
        )?
    };
    Ok(Ip {
        v6: true,
        proto: payload.proto,
        ttl: header.hop_limit,
        part: payload.part,
        l3,
        l4: payload.at,
        len: LENGTH as u32 + u16::from_be(header.payload_len) as u32,
        src: Addr::v6(header.src),
        dst: Addr::v6(header.dst),
    })
}

/// [`Addr::is_v4`] in one comparison: after one for each word the verifier knows some words, and follows the rest of the program
/// three times for each address.
#[inline(always)]
fn is_mapped(words: [u32; 4]) -> bool {
    let prefix = Addr::v4(0).words();
    opaque((words[0] ^ prefix[0] | words[1] ^ prefix[1] | words[2] ^ prefix[2]) as usize) == 0
}

/// Offset that no header may lie behind: more than six headers of sane size, and a mask that bounds the verifier's sums.
pub const FARTHEST: usize = 0x3ff;

/// What stands behind the extension headers.
struct Payload {
    proto: u8,
    part: Part,
    at: usize,
}

impl Payload {
    const FAILED: u64 = 1 << 63;

    fn unpack(word: u64) -> Result<Self, Verdict> {
        if word & Self::FAILED != 0 {
            return Err(if word & 1 == 0 { Verdict::PassMalformed } else { Verdict::PassExtensionHeaders });
        }
        let part = match word >> 24 & 3 {
            0 => Part::Whole,
            1 => Part::First,
            _ => Part::Later,
        };
        Ok(Self { proto: (word >> 16) as u8, part, at: word as usize & FARTHEST })
    }
}

/// A function of its own can return one word only.
#[inline(always)]
fn pack(proto: u8, part: Part, at: usize) -> u64 {
    at as u64 & FARTHEST as u64 | (proto as u64) << 16 | (part as u64) << 24
}

/// Follows the chain from the header behind the fixed one.
#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn ipv6_follow(ctx: *mut xdp_md, l3: u32, first: u32) -> u64 {
    const MALFORMED: u64 = Payload::FAILED;
    const TOO_MANY: u64 = Payload::FAILED | 1;
    // SAFETY: the program's own context, by the contract of this function.
    let packet = unsafe { Packet::from_raw(ctx) };
    let window = packet.window();
    let (mut next, mut at, mut part) = (first as u8, (l3 as usize & 0xff) + LENGTH, Part::Whole);
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(next) {
            break;
        }
        // One range of offsets for all rounds: the verifier would count up each.
        at = packet.forget(at as u64) as usize & FARTHEST;
        let Some([following, words, high, low]) = window.from(at).read::<[u8; 4]>(0) else {
            return MALFORMED;
        };
        at += length(next, words);
        if next == ip_proto::FRAGMENT {
            let offset_and_more = u16::from_be_bytes([high, low]);
            if offset_and_more >> 3 != 0 {
                // What follows is the middle of something; only this header names the protocol.
                return pack(following, Part::Later, at);
            }
            // RFC 6946: a fragment that is all of its packet is none.
            if offset_and_more & 1 != 0 {
                part = Part::First;
            }
        }
        next = following;
        if at > FARTHEST {
            return TOO_MANY;
        }
    }
    if is_extension(next) { TOO_MANY } else { pack(next, part, at) }
}

#[inline(always)]
fn is_extension(next: u8) -> bool {
    // A set of bits, for protocol numbers below 64.
    const EXTENSIONS: u64 = 1 << ip_proto::HOP_BY_HOP
        | 1 << ip_proto::ROUTING
        | 1 << ip_proto::FRAGMENT
        | 1 << ip_proto::AH
        | 1 << ip_proto::DEST_OPTS;
    next < 64 && EXTENSIONS >> next & 1 != 0
}

/// Length of an extension header by its second byte.
#[inline(always)]
fn length(kind: u8, words: u8) -> usize {
    match kind {
        ip_proto::FRAGMENT => 8,
        ip_proto::AH => (words as usize + 2) * 4,
        _ => (words as usize + 1) * 8,
    }
}

/// The identification in the fragment header of a packet at `l3`, as it stands there.
#[inline(always)]
pub fn fragment_id(packet: Packet, window: Window, l3: usize) -> Option<u32> {
    let header = window.from(l3).read::<Header>(0)?;
    let (mut next, mut at) = (header.next_header, (l3 & 0xff) + LENGTH);
    for _ in 0..MAX_EXTENSIONS {
        at = packet.forget(at as u64) as usize & FARTHEST;
        if next == ip_proto::FRAGMENT {
            return window.from(at).read::<u32>(4);
        }
        if !is_extension(next) {
            return None;
        }
        let [following, words] = window.from(at).read::<[u8; 2]>(0)?;
        at += length(next, words);
        next = following;
    }
    None
}
