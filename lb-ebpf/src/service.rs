//! Which packets concern the data plane, and which virtual server they are for.

use lb_common::{
    Addr, Port,
    filter::{Role, mac_position, position},
    service::{Service, ServiceKey},
};

use crate::{maps, packet::Window};

/// Whether a packet may concern the data plane: it goes to an address of a virtual server, or comes from a real
/// server behind NAT. False positives are possible, false negatives are not.
#[inline(always)]
pub fn concerns(src: Addr, dst: Addr) -> bool {
    is_virtual(dst) || is_marked(src, Role::NatServer)
}

/// Whether an address may be that of a virtual server.
#[inline(always)]
pub fn is_virtual(addr: Addr) -> bool {
    is_marked(addr, Role::Virtual)
}

/// Whether a frame is for one of this machine's MAC addresses.
#[inline(always)]
pub fn is_to_this_machine(window: Window) -> Option<bool> {
    let (word, bit) = mac_position(window.read(0)?, window.read(4)?);
    Some(maps::filter(word) & bit != 0)
}

#[inline(always)]
fn is_marked(addr: Addr, role: Role) -> bool {
    let (word, bit) = position(addr, role);
    maps::filter(word) & bit != 0
}

/// Whether what needs a role is on standby, since this machine has not that role.
#[inline(always)]
pub fn is_on_standby(role: u16) -> bool {
    role != 0 && !maps::has_role(role)
}

/// The virtual server of an address, port and protocol: its own, or one of every port.
#[inline(always)]
pub fn find(addr: Addr, port: Port, proto: u8) -> Option<Service> {
    maps::service(&ServiceKey::new(addr, port, proto))
        .or_else(|| maps::service(&ServiceKey::new(addr, Port::ANY, proto)))
}
