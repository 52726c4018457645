//! Ethernet with up to two VLAN tags.
//!
//! ```text
//!  0                   6                   12          14
//! +-------------------+-------------------+-----------+---------
//! | destination MAC   | source MAC        | EtherType | payload
//! +-------------------+-------------------+-----------+---------
//! each tag before the EtherType: TPID (0x8100 or 0x88a8), TCI
//! ```

use lb_common::Verdict;

use crate::packet::Window;

/// Length of an untagged header.
pub const ETHERNET: usize = 14;
/// Length of a tag.
pub const VLAN_TAG: usize = 4;
/// IPv4 as it stands in the frame.
pub const ETHERTYPE_IPV4: u16 = 0x0800u16.to_be();
/// IPv6 as it stands in the frame.
pub const ETHERTYPE_IPV6: u16 = 0x86ddu16.to_be();
const TPID_8021Q: u16 = 0x8100u16.to_be();
const TPID_8021AD: u16 = 0x88a8u16.to_be();

/// Where the payload of a frame is.
#[derive(Clone, Copy)]
pub struct Frame {
    /// EtherType of the payload, as it stands in the frame.
    pub ethertype: u16,
    /// Number of VLAN tags.
    pub tags: u32,
    /// Offset of the payload.
    pub payload: usize,
}

/// Reads the frame's header; a frame with more than two tags is left to the kernel.
#[inline(always)]
pub fn frame(window: Window) -> Result<Frame, Verdict> {
    let ethertype = window.read::<u16>(12).ok_or(Verdict::PassMalformed)?;
    if !is_tag(ethertype) {
        return Ok(Frame { ethertype, tags: 0, payload: ETHERNET });
    }
    let ethertype = window.read::<u16>(16).ok_or(Verdict::PassMalformed)?;
    if !is_tag(ethertype) {
        return Ok(Frame { ethertype, tags: 1, payload: ETHERNET + VLAN_TAG });
    }
    let ethertype = window.read::<u16>(20).ok_or(Verdict::PassMalformed)?;
    if !is_tag(ethertype) {
        return Ok(Frame { ethertype, tags: 2, payload: ETHERNET + 2 * VLAN_TAG });
    }
    Err(Verdict::PassVlan)
}

#[inline(always)]
fn is_tag(ethertype: u16) -> bool {
    ethertype == TPID_8021Q || ethertype == TPID_8021AD
}
