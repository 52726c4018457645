//! The whole text for sample directors: what an operator sees is compared, not pieces of it.

use std::collections::BTreeMap;

use super::{table::COLUMNS, *};
use crate::api::types::{
    BoundTo, CheckStatus, ConfigurationStatus, ConnectionTable, DataPlaneKind, Forward, InterfaceStatus,
    LastReload, Override, Persistence, Protocol, QuorumStatus, Rates, RealServerState, RealServerStatus,
    SorryServerStatus, Stats, Totals, VirtualServerStatus, Work, XdpMode,
};

fn real_server(address: &str, forward: Forward, weight: u32) -> RealServerStatus {
    RealServerStatus {
        address: address.parse().unwrap(),
        forward,
        weight,
        configured_weight: Some(weight),
        ordered: None,
        since_seconds: 0,
        checks: Vec::new(),
        overloaded: false,
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
        quorum: QuorumStatus { up: true, alive_weight: 1, quorum: 1, hysteresis: 0 },
        sorry_server: None,
        bound_to: None,
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
        dataplane_reason: None,
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
        configuration: ConfigurationStatus {
            path: "/etc/xdirector/xdirector.toml".into(),
            loaded_at: 0,
            last_reload: None,
        },
        persistence: Persistence { pins: None, reason: None, adopted: false },
        vrrp: None,
        work: Work::default(),
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

/// One of everything that a row does not say.
fn eventful() -> Status {
    let check = |kind: &str, up, detail: Option<&str>, weight| CheckStatus {
        kind: kind.into(),
        up,
        detail: detail.map(Into::into),
        since_seconds: 93_784,
        passed: 10,
        failed: 2,
        seconds_last: 0.0123,
        seconds_sum: 1.0,
        weight,
    };
    let server = |host: u8, weight, state, change: &dyn Fn(&mut RealServerStatus)| {
        let mut server = real_server(&format!("192.168.1.{host}:80"), Forward::Nat, weight);
        server.state = state;
        server.since_seconds = 723;
        server.configured_weight = Some(1);
        change(&mut server);
        server
    };
    use RealServerState as State;
    let mut web = virtual_server(
        "web",
        "192.168.10.50:80",
        vec![
            server(1, 0, State::Down, &|server| {
                server.reason = Some("http: HTTP 503 for\n/health\x1b[31m".into());
                server.checks = vec![
                    check(
                        "http",
                        Some(false),
                        Some("HTTP 503 for /health, and it says: all workers are busy"),
                        None,
                    ),
                    check("script", Some(true), Some("exit 0"), Some(3)),
                    check("tcp", None, None, None),
                ];
            }),
            server(2, 0, State::Draining, &|server| server.ordered = Some(Override::Drain { until: None })),
            server(3, 0, State::Drained, &|server| {
                server.ordered = Some(Override::Drain { until: Some(1_763_664_955) });
            }),
            server(4, 0, State::Disabled, &|server| server.ordered = Some(Override::Disable)),
            server(5, 5, State::Up, &|server| server.ordered = Some(Override::Weight { weight: 5 })),
            server(6, 3, State::Up, &|server| server.overloaded = true),
            server(7, 0, State::Inhibited, &|_| {}),
            server(8, 0, State::Removed, &|server| server.configured_weight = None),
            server(9, 1, State::Checking, &|_| {}),
        ],
    );
    web.quorum = QuorumStatus { up: false, alive_weight: 8, quorum: 9, hysteresis: 2 };
    web.sorry_server = Some(SorryServerStatus {
        address: "192.168.1.200:80".parse().unwrap(),
        forward: Forward::Dr,
        active: true,
    });
    director(vec![web])
}

#[test]
fn a_virtual_server_on_standby_says_so() {
    let mut web = virtual_server("web", "192.168.10.50:80", Vec::new());
    web.bound_to = Some(BoundTo { instance: "VI_50".into(), served: false });
    assert_text(
        &director(vec![web.clone()]),
        View::Servers,
        "\
Prot Address:Port Scheduler (flags) Name
  -> Address:Port          Forward Weight State   Active Inactive    CPS
TCP  192.168.10.50:80 wrr web, standby                24      680   16.9
",
    );
    web.bound_to = Some(BoundTo { instance: "VI_50".into(), served: true });
    assert!(!render(&director(vec![web]), View::Servers, false).contains("standby"));
}

#[test]
fn what_a_row_does_not_say() {
    assert_text(
        &eventful(),
        View::Servers,
        "\
Prot Address:Port Scheduler (flags) Name
  -> Address:Port          Forward Weight State       Active Inactive    CPS
TCP  192.168.10.50:80 wrr web                             24      680   16.9
     quorum lost: weight 8 is alive, 11 is needed
     sorry server 192.168.1.200:80 (dr) answers now
  -> 192.168.1.1:80        nat          0 down            12      340    8.5
     http: HTTP 503 for /health?[31m
  -> 192.168.1.2:80        nat          0 draining        12      340    8.5
     drain by operator
  -> 192.168.1.3:80        nat          0 drained         12      340    8.5
     drain by operator, taken out at 2025-11-20 18:55:55 UTC
  -> 192.168.1.4:80        nat          0 disabled        12      340    8.5
     disable by operator
  -> 192.168.1.5:80        nat          5 up              12      340    8.5
     weight 5 by operator, configured 1
  -> 192.168.1.6:80        nat          3 up              12      340    8.5
     weight 3 by its checks, configured 1
     overloaded: over its connection limit, gets no new connections
  -> 192.168.1.7:80        nat          0 inhibited       12      340    8.5
  -> 192.168.1.8:80        nat          0 removed         12      340    8.5
  -> 192.168.1.9:80        nat          1 checking        12      340    8.5
",
    );
}

#[test]
fn health_checks() {
    let mut status = eventful();
    status.virtual_servers[0].real_servers.truncate(2);
    assert_text(
        &status,
        View::Checks,
        "\
Prot Address:Port Name
  -> Address:Port          State            Since
     Check  Now      Took         Since Last result
TCP  192.168.10.50:80 web
  -> 192.168.1.1:80        down          00:12:03
     http   down  12.3 ms   1d 02:03:04 HTTP 503 for /health, and it says: all
                                        workers are busy
     script up    12.3 ms   1d 02:03:04 exit 0; sets weight 3
     tcp    -           -   1d 02:03:04 no result yet
  -> 192.168.1.2:80        draining      00:12:03
     no checks
",
    );
}

/// Lines of the head that begin with `label`, and those wrapped under them.
fn head_lines(status: &Status, label: &str) -> String {
    let text = render(status, View::Servers, false);
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
    let lines = text.lines().skip_while(|line| !line.starts_with(label));
    let mut taken = lines.enumerate().take_while(|(index, line)| *index == 0 || line.starts_with("     "));
    let first = taken.next().map(|(_, line)| line.to_owned());
    first.into_iter().chain(taken.map(|(_, line)| line.to_owned())).collect::<Vec<_>>().join("\n")
}

#[test]
fn pins_in_the_head() {
    let mut status = ipv4();
    assert_eq!(head_lines(&status, "Pinned"), "");
    status.persistence.reason = Some("/sys/fs/bpf is no BPF file system; mount one there".into());
    assert_eq!(
        head_lines(&status, "Pinned"),
        "Pinned       nothing: /sys/fs/bpf is no BPF file system; mount one there"
    );
    status.persistence =
        Persistence { pins: Some("/sys/fs/bpf/xdirector/default".into()), reason: None, adopted: false };
    assert_eq!(head_lines(&status, "Pinned"), "Pinned       in /sys/fs/bpf/xdirector/default");
    status.persistence.adopted = true;
    assert_eq!(
        head_lines(&status, "Pinned"),
        "Pinned       in /sys/fs/bpf/xdirector/default, taken over from an earlier agent"
    );
}

#[test]
fn a_failed_reload_in_the_head() {
    let mut status = ipv4();
    let mut reload = LastReload {
        at: 1_763_664_955,
        succeeded: true,
        message: "x.toml:3: port: 99999 is too large\nx.toml:7: weight: missing\n".into(),
    };
    status.configuration.last_reload = Some(reload.clone());
    assert_eq!(head_lines(&status, "Reload"), "");
    reload.succeeded = false;
    status.configuration.last_reload = Some(reload);
    assert_eq!(
        head_lines(&status, "Reload"),
        "Reload       failed at 2025-11-20 18:55:55 UTC: x.toml:3: port: 99999 is too\n             \
         large; x.toml:7: weight: missing"
    );
}

#[test]
fn filters() {
    let shown = |name: Option<&str>, server: Option<&str>| {
        let mut status = ipv4();
        status.virtual_servers.extend(ipv6().virtual_servers);
        let server = server.map(|server| server_address(server).unwrap());
        filter(&mut status, name, server).map(|()| {
            let names = status.virtual_servers.iter().flat_map(|virtual_server| {
                std::iter::once(virtual_server.name.clone())
                    .chain(virtual_server.real_servers.iter().map(|server| server.address.to_string()))
            });
            names.collect::<Vec<_>>()
        })
    };
    assert_eq!(shown(None, None).unwrap().len(), 9);
    assert_eq!(shown(Some("dns"), None).unwrap(), ["dns"]);
    assert_eq!(shown(None, Some("192.168.1.101")).unwrap(), ["web", "192.168.1.101:8080"]);
    assert_eq!(shown(Some("web"), Some("192.168.1.101:8080")).unwrap(), ["web", "192.168.1.101:8080"]);
    for address in ["2001:db8:1::101", "[2001:db8:1::101]", "[2001:db8:1::101]:8443"] {
        assert_eq!(
            shown(None, Some(address)).unwrap(),
            ["web-with-a-rather-long-name", "[2001:db8:1::101]:8443"]
        );
    }
    let error = shown(Some("wep"), None).unwrap_err().to_string();
    assert_eq!(error, "there is no virtual server wep; there are: web, web-with-a-rather-long-name, dns");
    let error = shown(None, Some("192.168.1.101:80")).unwrap_err().to_string();
    assert!(error.contains("192.168.1.101 with port 80"), "{error}");
    assert!(server_address("web").is_err());
}
