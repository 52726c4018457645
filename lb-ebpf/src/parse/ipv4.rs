//! IPv4 (RFC 791).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+-------------------------------+
//! |Version|  IHL  |      TOS      |         Total length          |
//! +-------+-------+---------------+-----+-------------------------+
//! |        Identification         |flags|    Fragment offset      |
//! +---------------+---------------+-----+-------------------------+
//! |      TTL      |    Protocol   |        Header checksum        |
//! +---------------+---------------+-------------------------------+
//! |                        Source address                         |
//! +---------------------------------------------------------------+
//! |                      Destination address                      |
//! +---------------------------------------------------------------+
//! |                        Options, padding                       |
//! +---------------------------------------------------------------+
//! ```

use lb_common::Addr;

use super::{Ip, Part};
use crate::packet::{Window, Wire};

/// Length of a header without options.
pub const LENGTH: usize = 20;
/// Don't fragment, in the half-word of flags and fragment offset.
pub const DONT_FRAGMENT: u16 = 0x4000u16.to_be();
const MORE_FRAGMENTS: u16 = 0x2000u16.to_be();
const FRAGMENT_OFFSET: u16 = 0x1fffu16.to_be();

/// The header without options, as it stands in the packet.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Header {
    /// Version and length of the header in words.
    pub version_ihl: u8,
    /// Type of service.
    pub tos: u8,
    /// Length with the header.
    pub total_len: u16,
    /// Identification.
    pub id: u16,
    /// Flags and fragment offset.
    pub fragment: u16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol.
    pub proto: u8,
    /// Header checksum.
    pub checksum: u16,
    /// Source.
    pub src: u32,
    /// Destination.
    pub dst: u32,
}

const _: () = assert!(size_of::<Header>() == LENGTH);

// SAFETY: integers only, no padding.
unsafe impl Wire for Header {}

/// Reads the header at `l3`; `None` when the frame ends before it does or it contradicts itself.
#[inline(always)]
pub fn read(window: Window, l3: usize) -> Option<Ip> {
    let header = window.from(l3).read::<Header>(0)?;
    let header_len = (header.version_ihl as usize & 0xf) * 4;
    if header.version_ihl >> 4 != 4 || header_len < LENGTH {
        return None;
    }
    let part = if header.fragment & (MORE_FRAGMENTS | FRAGMENT_OFFSET) == 0 {
        Part::Whole
    } else if header.fragment & FRAGMENT_OFFSET == 0 {
        Part::First
    } else {
        Part::Later
    };
    Some(Ip {
        v6: false,
        proto: header.proto,
        ttl: header.ttl,
        part,
        l3,
        l4: l3 + header_len,
        len: u16::from_be(header.total_len) as u32,
        src: Addr::v4(header.src),
        dst: Addr::v4(header.dst),
    })
}
