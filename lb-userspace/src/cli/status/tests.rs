//! The whole text for sample directors: what an operator sees is compared, not pieces of it.

use std::collections::BTreeMap;

use super::*;
use crate::api::types::{
    ConnectionTable, DataPlaneKind, Forward, InterfaceStatus, RealServerState, Totals, XdpMode,
};

fn real_server(address: &str, forward: Forward, weight: u32) -> RealServerStatus {
    RealServerStatus {
        address: address.parse().unwrap(),
        forward,
        weight,
        state: RealServerState::Up,
        reason: None,
        next_hop: None,
        active: 12,
        inactive: 340,
        stats: Stats {
            connections: 1234,
            packets_in: 99_999_999,
            packets_out: 100_000_000,
            bytes_in: 123_456_789_012,
            bytes_out: 0,
        },
        rates: Rates {
            connections: 8.46,
            packets_in: 1234.5,
            packets_out: 0.04,
            bytes_in: 1.25e9,
            bytes_out: 99.96,
        },
    }
}

fn virtual_server(name: &str, address: &str, real_servers: Vec<RealServerStatus>) -> VirtualServerStatus {
    VirtualServerStatus {
        name: name.into(),
        address: address.parse().unwrap(),
        protocol: Protocol::Tcp,
        scheduler: "wrr".into(),
        scheduler_flags: Vec::new(),
        active: 24,
        inactive: 680,
        stats: Stats { connections: 2468, ..Stats::default() },
        rates: Rates { connections: 16.92, ..Rates::default() },
        real_servers,
    }
}

fn director(virtual_servers: Vec<VirtualServerStatus>) -> Status {
    let interface = |name: &str, ifindex, mode| InterfaceStatus { name: name.into(), ifindex, mode };
    Status {
        instance: "default".into(),
        router_id: "director-01".into(),
        version: "0.1.0".into(),
        pid: 812,
        uptime_seconds: 3 * 86_400 + 4 * 3600 + 5 * 60 + 6,
        dataplane: DataPlaneKind::Xdp,
        interfaces: vec![interface("eth0", 2, XdpMode::Native), interface("eth1", 3, XdpMode::Generic)],
        connections: ConnectionTable { entries: 1234, capacity: 1_048_576 },
        totals: Totals {
            active: 24,
            inactive: 1210,
            stats: Stats::default(),
            rates: Rates {
                connections: 16.92,
                packets_in: 12_345.0,
                packets_out: 23_456.0,
                bytes_in: 9_876_543.0,
                bytes_out: 123_456_789.0,
            },
        },
        virtual_servers,
        verdicts: BTreeMap::from([("nat-forward".into(), 77), ("drop-short".into(), 0), ("pass".into(), 5)]),
    }
}

fn ipv4() -> Status {
    let mut lost = real_server("192.168.1.102:8080", Forward::Dr, 0);
    lost.state = RealServerState::NoRoute;
    lost.reason = Some("no route to 192.168.1.102: network is unreachable".into());
    let far = real_server("255.255.255.255:65535", Forward::Tun, 65_535);
    let web = virtual_server(
        "web",
        "192.168.10.50:80",
        vec![real_server("192.168.1.101:8080", Forward::Nat, 2), lost, far],
    );
    director(vec![web])
}

fn ipv6() -> Status {
    let mut lost = real_server("[2001:db8:1::102]:8443", Forward::Tun, 1);
    lost.state = RealServerState::NoNeighbour;
    lost.reason = Some(
        "2001:db8:1::102 does not answer neighbour discovery on eth1; packets to it are kept back until it does".into(),
    );
    let long = real_server("[2001:db8:1111:2222:3333:4444:5555:6666]:8443", Forward::Nat, 1);
    let mut web = virtual_server(
        "web-with-a-rather-long-name",
        "[2001:db8::50]:443",
        vec![real_server("[2001:db8:1::101]:8443", Forward::Nat, 1), lost, long],
    );
    web.scheduler = "mh".into();
    web.scheduler_flags = vec!["mh-port".into(), "mh-fallback".into()];
    let mut name = virtual_server("dns", "[2001:db8::53]:53", Vec::new());
    name.protocol = Protocol::Udp;
    director(vec![web, name])
}

const HEAD: &str = "\
xdirector    0.1.0, instance default, router director-01, pid 812
Up           3d 04:05:06
Data plane   xdp on eth0 (native), eth1 (generic)
Connections  1234 of 1048576 (0.1%), 24 active, 1210 inactive
Per second   16.9 new, in 12345 pkts 9876K bytes, out 23456 pkts 123M bytes

";

#[track_caller]
fn assert_text(status: &Status, view: View, expected: &str) {
    let text = render(status, view, false);
    assert_eq!(text, format!("{HEAD}{expected}"));
    for line in text.lines() {
        assert!(line.chars().count() <= COLUMNS, "wider than {COLUMNS}: {line}");
    }
}

#[test]
fn ipv4_servers() {
    assert_text(
        &ipv4(),
        View::Servers,
        "\
Prot Address:Port Scheduler (flags) Name
  -> Address:Port          Forward Weight State      Active Inactive    CPS
TCP  192.168.10.50:80 wrr web                            24      680   16.9
  -> 192.168.1.101:8080    nat          2 up             12      340    8.5
  -> 192.168.1.102:8080    dr           0 no-route       12      340    8.5
     no route to 192.168.1.102: network is unreachable
  -> 255.255.255.255:65535 tun      65535 up             12      340    8.5
",
    );
}

#[test]
fn ipv6_servers() {
    assert_text(
        &ipv6(),
        View::Servers,
        "\
Prot Address:Port Scheduler (flags) Name
  -> Address:Port           Forward Weight State          Active Inactive    CPS
TCP  [2001:db8::50]:443 mh (mh-port,mh-fallback) web-with-a-rather-long-name
                                                              24      680   16.9
  -> [2001:db8:1::101]:8443 nat          1 up                 12      340    8.5
  -> [2001:db8:1::102]:8443 tun          1 no-neighbour       12      340    8.5
     2001:db8:1::102 does not answer neighbour discovery on eth1; packets to it
     are kept back until it does
  -> [2001:db8:1111:2222:3333:4444:5555:6666]:8443
                            nat          1 up                 12      340    8.5
UDP  [2001:db8::53]:53 wrr dns                                24      680   16.9
",
    );
}

#[test]
fn stats() {
    assert_text(
        &ipv4(),
        View::Stats,
        "\
Prot Address:Port Name
  -> Address:Port                    Conns   InPkts  OutPkts  InBytes OutBytes
TCP  192.168.10.50:80 web             2468        0        0        0        0
  -> 192.168.1.101:8080               1234 99999999  100000K  123456M        0
  -> 192.168.1.102:8080               1234 99999999  100000K  123456M        0
  -> 255.255.255.255:65535            1234 99999999  100000K  123456M        0
",
    );
}

#[test]
fn rates_of_long_addresses() {
    assert_text(
        &ipv6(),
        View::Rates,
        "\
Prot Address:Port Name
  -> Address:Port                      CPS    InPPS   OutPPS    InBPS   OutBPS
TCP  [2001:db8::50]:443 web-with-a-rather-long-name
                                      16.9        0        0        0        0
  -> [2001:db8:1::101]:8443            8.5     1235        0 1250000K    100.0
  -> [2001:db8:1::102]:8443            8.5     1235        0 1250000K    100.0
  -> [2001:db8:1111:2222:3333:4444:5555:6666]:8443
                                       8.5     1235        0 1250000K    100.0
UDP  [2001:db8::53]:53 dns            16.9        0        0        0        0
",
    );
}

#[test]
fn verdicts_without_zeros() {
    let text = render(&ipv4(), View::Servers, true);
    let (_, list) = text.rsplit_once("\n\n").unwrap();
    assert_eq!(
        list,
        "\
Verdict                                          Packets
nat-forward                                           77
pass                                                   5
"
    );
    let mut quiet = ipv4();
    quiet.verdicts.values_mut().for_each(|packets| *packets = 0);
    assert!(render(&quiet, View::Servers, true).ends_with("\nnone yet\n"));
}

#[test]
fn nothing_configured() {
    assert_text(&director(Vec::new()), View::Servers, "There is no virtual server.\n");
}

#[test]
fn many_interfaces_wrap() {
    let mut status = ipv4();
    status.interfaces = (0..12)
        .map(|index| InterfaceStatus {
            name: format!("enp{index}s0f1"),
            ifindex: index,
            mode: XdpMode::Native,
        })
        .collect();
    let text = render(&status, View::Servers, false);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for index in 0..12 {
        assert!(words.contains(&format!("enp{index}s0f1 (native)")), "{text}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
}

#[test]
fn numbers_keep_to_their_columns() {
    assert_eq!(count(0, 8), "0");
    assert_eq!(count(99_999_999, 8), "99999999");
    assert_eq!(count(100_000_000, 8), "100000K");
    assert_eq!(count(u64::MAX, 8), "18446P");
    assert_eq!(count(u64::MAX, 6), "18446P");
    assert_eq!(rate(0.04, 6), "0");
    assert_eq!(rate(0.06, 6), "0.1");
    assert_eq!(rate(99.94, 6), "99.9");
    assert_eq!(rate(99.96, 6), "100.0");
    assert_eq!(rate(100.4, 6), "100");
    assert_eq!(rate(1.25e9, 6), "1250M");
}

#[test]
fn durations() {
    assert_eq!(duration(59), "00:00:59");
    assert_eq!(duration(86_399), "23:59:59");
    assert_eq!(duration(86_400), "1d 00:00:00");
}
