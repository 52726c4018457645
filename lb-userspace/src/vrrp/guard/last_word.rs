//! Sends adverts that are ready made.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    io,
    net::IpAddr,
};

use super::Plan;
use crate::{config::vrrp::Family, netif::VrrpSocket};

/// The sockets for all last words of a plan, which never wait and hear nothing: the driver's own kind, so that what the driver
/// can send the guard can send as well.
#[derive(Debug, Default)]
pub struct Mouth {
    sockets: BTreeMap<(u32, Family), VrrpSocket>,
}

impl Mouth {
    /// Opens what a plan needs and is not open yet, and closes what it does not need. Needs CAP_NET_RAW. What could not be
    /// opened, in words.
    pub fn prepare(&mut self, plan: &Plan) -> Vec<String> {
        let with_words = plan
            .instances
            .iter()
            .flat_map(|instance| instance.last_words.iter().map(|(to, _)| (instance.interface, family(*to))));
        let needed: BTreeSet<(u32, Family)> = with_words.collect();
        self.sockets.retain(|way, _| needed.contains(way));
        let mut failures = Vec::new();
        for way in needed {
            if let Err(error) = self.socket(way) {
                failures.push(error.to_string());
            }
        }
        failures
    }

    /// Sends out of an interface: over IPv4 a packet with its header, over IPv6 a message to which the kernel makes the header,
    /// with `source` in it.
    ///
    /// # Errors
    /// What the kernel says; `InvalidInput` without a source or with one of the other family.
    pub fn say(
        &mut self,
        interface: u32,
        source: Option<IpAddr>,
        to: IpAddr,
        message: &[u8],
    ) -> io::Result<()> {
        let source = source.ok_or(io::ErrorKind::InvalidInput)?;
        self.socket((interface, family(to)))?.send(message, source, to)
    }

    fn socket(&mut self, way: (u32, Family)) -> io::Result<&VrrpSocket> {
        match self.sockets.entry(way) {
            Entry::Occupied(open) => Ok(open.into_mut()),
            Entry::Vacant(missing) => Ok(missing.insert(VrrpSocket::open_to_send(way.0, way.1)?)),
        }
    }
}

const fn family(address: IpAddr) -> Family {
    match address {
        IpAddr::V4(_) => Family::Ipv4,
        IpAddr::V6(_) => Family::Ipv6,
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read as _, net::Ipv6Addr, os::fd::AsRawFd as _, process::Command, thread, time::Duration};

    use nix::{
        net::if_::if_nametoindex,
        sched::{CloneFlags, unshare},
        sys::socket::{LinkAddr, SockaddrLike as _},
        unistd::Uid,
    };
    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;
    use crate::vrrp::{guard::InstancePlan, packet::PROTOCOL};

    /// Every frame, also our own.
    const ETH_P_ALL: u16 = 0x0003;

    fn ip(arguments: &str) {
        let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
        assert!(status.success(), "ip {arguments}");
    }

    /// A packet socket on an interface.
    fn tap(interface: u32) -> Socket {
        let protocol = i32::from(ETH_P_ALL.to_be());
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(protocol))).unwrap();
        // SAFETY: an all-zero address is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ETH_P_ALL.to_be();
        address.sll_ifindex = interface as i32;
        // SAFETY: the pointer is that of an address of the given length.
        let address =
            unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(size_of_val(&address) as u32)) };
        nix::sys::socket::bind(socket.as_raw_fd(), &address.unwrap()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// The next frame of VRRP: neighbour discovery and the like are skipped.
    fn next_advert(socket: &mut Socket) -> Vec<u8> {
        for _ in 0..1000 {
            let mut frame = [0; 2048];
            let len = socket.read(&mut frame).unwrap();
            let protocol = match frame[12..14] {
                [0x08, 0x00] => frame[14 + 9],
                [0x86, 0xdd] => frame[14 + 6],
                _ => 0,
            };
            if protocol == PROTOCOL {
                return frame[..len].to_vec();
            }
        }
        panic!("no advert in 1000 frames")
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn unhex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn what_is_said_stands_on_the_wire() {
        if !Uid::effective().is_root() {
            println!("SKIPPED what_is_said_stands_on_the_wire: needs root");
            return;
        }
        // The namespace goes with the thread.
        thread::spawn(on_the_wire).join().unwrap();
    }

    fn on_the_wire() {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        ip("link add v0 address 02:66:00:00:00:01 type veth peer name v1");
        ip("link add v2 type veth peer name v3");
        for interface in ["v0", "v1", "v2", "v3"] {
            ip(&format!("link set {interface} addrgenmode none"));
            ip(&format!("link set {interface} up"));
        }
        // The same network twice: only the interface that is asked for is right.
        ip("addr add 10.66.0.9/24 dev v2");
        ip("addr add 10.66.0.1/24 dev v0");
        ip("addr add fe80::66:2/64 dev v0 nodad");
        ip("addr add fe80::66:1/64 dev v0 nodad");
        let (v0, v1) = (if_nametoindex("v0").unwrap(), if_nametoindex("v1").unwrap());
        let mut tap = tap(v1);
        let mut mouth = Mouth::default();

        // keepalived 2.2.7, version 2 without authentication, at its end.
        let packet = "45c0002800010000ff70d04f0a420001e0000012213400010001d4230a4200640000000000000000";
        let (source4, group4) = (Some([10, 66, 0, 1].into()), IpAddr::from([224, 0, 0, 18]));
        mouth.say(v0, source4, group4, &unhex(packet)).unwrap();
        assert_eq!(hex(&next_advert(&mut tap)), format!("01005e0000120266000000010800{packet}"));

        let message = "3136000100643c80fe800000000000000000000000660100";
        let source: Ipv6Addr = "fe80::66:1".parse().unwrap();
        let group: Ipv6Addr = "ff02::12".parse().unwrap();
        // What the kernel makes of it: version 6, class c0, a flow label of its own.
        let check = |frame: &str, ethernet: &str| {
            assert_eq!(frame[..28], format!("333300000012{ethernet}86dd"));
            assert_eq!(frame[28..31], *"6c0");
            let addresses = [source.octets(), group.octets()].concat();
            assert_eq!(frame[36..], format!("001870ff{}{message}", hex(&addresses)));
        };
        mouth.say(v0, Some(source.into()), group.into(), &unhex(message)).unwrap();
        check(&hex(&next_advert(&mut tap)), "026600000001");

        // With a VMAC: from the macvlan, with the source of the interface below it.
        ip("link add link v0 name vrrp.54 address 00:00:5e:00:02:36 type macvlan mode private");
        ip("link set vrrp.54 addrgenmode none");
        ip("link set vrrp.54 up");
        let macvlan = if_nametoindex("vrrp.54").unwrap();
        mouth.say(macvlan, Some(source.into()), group.into(), &unhex(message)).unwrap();
        check(&hex(&next_advert(&mut tap)), "00005e000236");
        mouth.say(macvlan, source4, group4, &unhex(packet)).unwrap();
        assert_eq!(hex(&next_advert(&mut tap)), format!("01005e00001200005e0002360800{packet}"));

        let gone = mouth.say(u32::MAX, source4, group4, &unhex(packet));
        assert!(gone.unwrap_err().to_string().contains("cannot open a VRRP socket"));
        let nobody = mouth.say(v0, None, group4, &unhex(packet));
        assert_eq!(nobody.unwrap_err().kind(), io::ErrorKind::InvalidInput);

        // A plan closes what it does not need, opens what it does, and says what cannot be.
        let words = |interface, to| InstancePlan {
            interface,
            last_words: vec![(to, Vec::new())],
            ..InstancePlan::default()
        };
        let silent = InstancePlan { interface: macvlan, ..InstancePlan::default() };
        let instances = vec![words(v0, group4), silent, words(u32::MAX, group.into())];
        let failures = mouth.prepare(&Plan { instances, ..Plan::default() });
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(mouth.sockets.keys().copied().collect::<Vec<_>>(), [(v0, Family::Ipv4)]);
    }
}
