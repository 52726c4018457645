//! TCP (RFC 9293) and UDP (RFC 768) headers, as far as a director needs them.
//!
//! ```text
//!       0      2      4                              12  13    14    16    18
//!      +------+------+---------------+---------------+---+-----+-----+-----+
//! TCP  |source| dest.| sequence      | acknowledgment|off|flags|wind.|check|
//!      +------+------+------+------+-+---------------+---+-----+-----+-----+
//! UDP  |source| dest.|length|check |
//!      +------+------+------+------+
//! ```

use lb_common::{Port, Verdict, ip_proto};

use super::{Ip, Part, Transport};
use crate::packet::Window;

/// Offset of TCP's checksum.
pub const TCP_CHECKSUM: usize = 16;
/// Offset of UDP's checksum.
pub const UDP_CHECKSUM: usize = 6;
/// Length of a TCP header without options.
const TCP_LENGTH: u32 = 20;
/// Length of a UDP header.
const UDP_LENGTH: u32 = 8;

/// Reads the ports and TCP's flags, and checks that the header is whole.
///
/// A first fragment that does not hold all of the header is dropped like any other that lies about its length:
/// senders have no reason to make one (RFC 1858, RFC 7112).
#[inline(always)]
pub fn read(window: Window, ip: &Ip) -> Result<Transport, Verdict> {
    const BAD: Verdict = Verdict::DropBadTransport;
    let payload = ip.len - (ip.l4 - ip.l3) as u32;
    let [sport, dport] = ports(window, ip.l4).ok_or(BAD)?;
    let flags = match ip.proto {
        ip_proto::TCP => {
            let [offset, flags] = window.from(ip.l4).read::<[u8; 2]>(12).ok_or(BAD)?;
            let header = (offset >> 4) as u32 * 4;
            // The checksum is rewritten later, so it must be there: the window is checked once more there.
            if header < TCP_LENGTH || header > payload {
                return Err(BAD);
            }
            flags
        }
        _ => {
            let length = u16::from_be(window.from(ip.l4).read::<u16>(4).ok_or(BAD)?) as u32;
            if payload < UDP_LENGTH || length < UDP_LENGTH || (ip.part == Part::Whole && length > payload) {
                return Err(BAD);
            }
            0
        }
    };
    Ok(Transport { sport, dport, flags })
}

/// The two ports at the start of a TCP or UDP header.
#[inline(always)]
pub fn ports(window: Window, l4: usize) -> Option<[Port; 2]> {
    let word = window.from(l4).read::<u32>(0)?;
    Some([Port::from_wire(word as u16), Port::from_wire((word >> 16) as u16)])
}
