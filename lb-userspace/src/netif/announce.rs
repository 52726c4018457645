//! Sending gratuitous ARP and unsolicited neighbour advertisements.

use std::{
    collections::BTreeMap,
    fs, io, mem,
    net::IpAddr,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::{
    arp_frame,
    error::{Capability::NetRaw, Refusal},
    link, na_frame,
};

/// Sends gratuitous ARP and unsolicited neighbour advertisements.
#[derive(Debug)]
pub struct Announcer {
    socket: OwnedFd,
}

impl Announcer {
    /// Opens the packet socket, which receives nothing.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open() -> io::Result<Self> {
        // Protocol 0: frames are only sent.
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, None)
            .map_err(|error| Refusal::from(error).during("cannot open a packet socket", NetRaw))?;
        Ok(Self { socket })
    }

    /// Tells an interface's network that `address` is at `mac`: an ARP request with sender = target (RFC 5227's announcement,
    /// as keepalived sends it), or an unsolicited neighbour advertisement with the override flag (and the router flag where
    /// this machine forwards). Never waits: what finds the interface's queue full is an error.
    ///
    /// # Errors
    /// What the kernel says, with the interface's name.
    pub fn announce(&self, interface: u32, mac: [u8; 6], address: IpAddr) -> io::Result<()> {
        self.announce_all([(interface, mac, address)]).pop().unwrap_or(Ok(()))
    }

    /// [`Self::announce`] for many, each with interface and MAC address, in their order; one that fails does not keep the others
    /// from being sent. The results are in the same order. Whether this machine is a router is looked up once for each
    /// interface.
    pub fn announce_all(
        &self,
        announcements: impl IntoIterator<Item = (u32, [u8; 6], IpAddr)>,
    ) -> Vec<io::Result<()>> {
        let mut routers = Routers::default();
        let send = |(interface, mac, address): (u32, [u8; 6], IpAddr)| {
            let is_router = routers.flag(interface, address, is_router);
            self.send(interface, mac, address, is_router)
        };
        announcements.into_iter().map(send).collect()
    }

    fn send(&self, interface: u32, mac: [u8; 6], address: IpAddr, is_router: bool) -> io::Result<()> {
        let sent = match address {
            IpAddr::V4(address) => self.send_frame(interface, &arp_frame(mac, address)),
            IpAddr::V6(address) => self.send_frame(interface, &na_frame(mac, address, is_router)),
        };
        sent.map_err(|error| {
            let what = format_args!("cannot announce {address} on {}", link::name(interface)).to_string();
            Refusal::from(error).during(what, NetRaw)
        })
    }

    fn send_frame(&self, interface: u32, frame: &[u8]) -> io::Result<()> {
        // SAFETY: a sockaddr_ll is plain data; all zeroes is a valid one.
        let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
        to.sll_family = libc::AF_PACKET as u16;
        to.sll_ifindex = interface.cast_signed();
        // SAFETY: frame and address outlive the call, and their lengths are theirs.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                mem::size_of_val(&to) as libc::socklen_t,
            )
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// On which interfaces this machine is a router.
#[derive(Debug, Default)]
struct Routers(BTreeMap<u32, bool>);

impl Routers {
    /// The router flag of an advertisement. `look_up` takes a file's opening and reading.
    fn flag(&mut self, interface: u32, address: IpAddr, look_up: impl FnOnce(u32) -> bool) -> bool {
        address.is_ipv6() && *self.0.entry(interface).or_insert_with(|| look_up(interface))
    }
}

/// Whether this machine forwards IPv6 packets from an interface, and so is a router there (RFC 4861 4.4).
fn is_router(interface: u32) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{}/forwarding", link::name(interface));
    fs::read(path).is_ok_and(|value| value.first().is_some_and(|digit| *digit != b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_interface_is_looked_up_once_and_only_for_ipv6() {
        let (mut routers, mut looked_up) = (Routers::default(), Vec::new());
        let mut flag = |interface, address: &str| {
            let look_up = |interface| {
                looked_up.push(interface);
                interface == 3
            };
            routers.flag(interface, address.parse().unwrap(), look_up)
        };
        assert!(!flag(3, "10.0.0.1"));
        for _ in 0..100 {
            assert!(!flag(2, "fd00::1"));
            assert!(flag(3, "fd00::2"));
        }
        assert_eq!(looked_up, [2, 3]);
    }
}
