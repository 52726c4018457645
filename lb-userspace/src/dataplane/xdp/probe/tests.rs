//! What stands in the table for a check, without namespaces and programs.

use lb_common::server::NextHop;

use super::*;
use crate::{config::Protocol, desired::ServiceId};

const SOURCE: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 7];
const VIP: [u8; 4] = [192, 0, 2, 1];

fn server(forwarding: Forwarding, port: u16) -> Server {
    Server {
        addr: Addr::from_ip(SERVER.into()),
        vip: Addr::from_ip(VIP.into()),
        port: Port::from_number(port),
        vport: Port::from_number(80),
        forwarding: forwarding as u8,
        flags: 0,
        proto: ip_proto::TCP,
        reserved: 0,
        nat_delta: 0,
        role: 0,
        service: 0,
        tunnel_source: Addr::from_ip(SOURCE.into()),
        next_hop: NextHop::default(),
        position: 0,
        last_weight: 0,
        reserved3: [0; 6],
    }
}

fn from() -> SocketAddr {
    (SOURCE, 61_000).into()
}

fn connect() -> SocketAddr {
    (VIP, 80).into()
}

#[test]
fn answers_come_from_the_server_with_nat_and_from_the_virtual_server_without() {
    for (forwarding, port, wanted) in [
        (Forwarding::Nat, 8080, SocketAddr::from((SERVER, 8080))),
        (Forwarding::Nat, 0, (SERVER, 80).into()),
        (Forwarding::Dr, 80, connect()),
        (Forwarding::Tun, 80, connect()),
    ] {
        let (forward, reverse) = keys(&server(forwarding, port), from(), connect(), ip_proto::TCP);
        assert_eq!((forward.src.to_ip(), forward.sport.number()), (from().ip(), 61_000));
        assert_eq!((forward.dst.to_ip(), forward.dport.number()), (connect().ip(), 80));
        assert_eq!((reverse.dst, reverse.dport), (forward.src, forward.sport));
        assert_eq!((reverse.src.to_ip(), reverse.sport.number()), (wanted.ip(), wanted.port()));
        assert_eq!((forward.proto, reverse.proto), (6, 6));
    }
    assert_eq!(keys(&server(Forwarding::Dr, 80), from(), connect(), ip_proto::UDP).0.proto, 17);
}

#[test]
fn both_directions_are_each_others_peer_and_lead_to_the_veth() {
    let veth = Veth { link: 77, outer_mac: [2, 1, 1, 1, 1, 1], inner_mac: [2, 2, 2, 2, 2, 2] };
    let keys = keys(&server(Forwarding::Dr, 80), from(), connect(), ip_proto::TCP);
    let (forward, reverse) = places(veth, 5, keys, 9);
    assert!(forward.is_peer(&reverse));
    assert_eq!((forward.server, forward.last_seen, forward.meta.link()), (5, 9, 77));
    assert_eq!((reverse.meta.link(), reverse.word), (77, State::None as u32));
    // What the program would have kept of the frame.
    let frame = Macs::new([2, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2]);
    assert_eq!([forward.way[1], forward.way[2]], frame.source());
    assert_eq!(reverse.way, Macs::new([2, 2, 2, 2, 2, 2], [2, 1, 1, 1, 1, 1]).words());
}

#[test]
fn the_source_is_this_machines_own_address_towards_the_server() {
    let mut server = server(Forwarding::Dr, 80);
    assert_eq!(source(&server, connect(), None, &[]), Ok(SOURCE.into()));
    assert_eq!(source(&server, connect(), Some(([0, 0, 0, 0], 7).into()), &[]), Ok(SOURCE.into()));
    assert_eq!(source(&server, connect(), Some(([10, 9, 9, 9], 0).into()), &[]), Ok([10, 9, 9, 9].into()));
    server.tunnel_source = Addr::default();
    assert!(source(&server, connect(), None, &[]).unwrap_err().contains("no way to it"));
}

#[test]
fn a_virtual_address_or_one_of_the_other_family_is_no_source() {
    let mut server = server(Forwarding::Tun, 80);
    server.next_hop.ifindex = 3;
    let v6: IpAddr = "2001:db8::5".parse().unwrap();
    let own = [(2, [10, 0, 0, 2].into()), (3, v6), (3, [10, 0, 0, 3].into())];
    let to_v6 = "[2001:db8::1]:80".parse().unwrap();
    assert_eq!(source(&server, to_v6, None, &own), Ok(v6));
    server.tunnel_source = Addr::from_ip(VIP.into());
    assert_eq!(source(&server, connect(), None, &own), Ok([10, 0, 0, 3].into()));
    assert_eq!(source(&server, connect(), None, &own[..2]), Ok([10, 0, 0, 2].into()));
    let reason = source(&server, connect(), None, &[(3, v6), (3, VIP.into())]).unwrap_err();
    assert!(reason.contains("bind_address"), "{reason}");
}

#[test]
fn a_check_without_a_namespace_fails_with_its_reason() {
    let path = Arc::new(CheckPath::default());
    path.fail("cannot make the probe namespace: not permitted".to_owned());
    let service = ServiceId { address: VIP.into(), port: 80, protocol: Protocol::Tcp };
    let id = ServerId { service, address: SERVER.into(), port: 80 };
    let reason = path.open(&id, connect(), None, Type::STREAM).err().expect("no namespace");
    assert_eq!(reason, "cannot make the probe namespace: not permitted");
}

#[test]
fn ports_go_round() {
    let path = CheckPath::default();
    let mut state = path.lock();
    let first: Vec<u16> = (0..PORTS.len()).map(|_| state.port()).collect();
    assert!(first.iter().all(|port| PORTS.contains(port)));
    assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), PORTS.len());
    assert_eq!(state.port(), first[0]);
}
