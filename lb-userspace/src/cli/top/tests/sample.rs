//! A director with one of everything.

use std::{collections::BTreeMap, net::SocketAddr};

use crate::api::{
    Status,
    types::{
        BoundTo, CheckStatus, ConfigurationStatus, ConnectionTable, DataPlaneKind, Forward, InterfaceStatus,
        NextHop, Override, Persistence, Protocol, QuorumStatus, Rates, RealServerState, RealServerStatus,
        SorryServerStatus, Stats, Totals, VirtualServerStatus, Work, XdpMode,
    },
};

fn rates(connections: f64, packets: f64, bytes: f64) -> Rates {
    Rates {
        connections,
        packets_in: packets,
        packets_out: 1.4 * packets,
        bytes_in: bytes / 10.0,
        bytes_out: bytes,
    }
}

fn check(kind: &str, up: Option<bool>, detail: &str) -> CheckStatus {
    CheckStatus {
        kind: kind.into(),
        up,
        detail: up.map(|_| detail.into()),
        since_seconds: 723,
        passed: 8123,
        failed: 5,
        seconds_last: 0.0123,
        seconds_sum: 100.0,
        weight: None,
    }
}

fn real(address: &str, forward: Forward, weight: u32, load: (u64, u64, Rates)) -> RealServerStatus {
    let (active, inactive, rates) = load;
    RealServerStatus {
        address: address.parse().unwrap(),
        forward,
        weight,
        configured_weight: Some(weight),
        ordered: None,
        state: RealServerState::Up,
        since_seconds: 273_000,
        checks: vec![check("http", Some(true), "HTTP 200 for /health")],
        overloaded: false,
        reason: None,
        next_hop: Some(NextHop {
            interface: "eth1".into(),
            gateway: None,
            mac: Some("02:00:00:00:01:01".into()),
        }),
        active,
        inactive,
        stats: Stats {
            connections: 1_234_567,
            packets_in: 98_765_432,
            packets_out: 123_456_789,
            bytes_in: 9_876_543_210,
            bytes_out: 123_456_789_012,
        },
        rates,
    }
}

fn virtual_server(
    name: &str,
    address: &str,
    protocol: Protocol,
    real_servers: Vec<RealServerStatus>,
) -> VirtualServerStatus {
    let sum = |part: fn(&RealServerStatus) -> f64| real_servers.iter().map(part).sum::<f64>();
    VirtualServerStatus {
        name: name.into(),
        address: address.parse().unwrap(),
        protocol,
        scheduler: "wrr".into(),
        scheduler_flags: Vec::new(),
        active: real_servers.iter().map(|server| server.active).sum(),
        inactive: real_servers.iter().map(|server| server.inactive).sum(),
        stats: Stats::default(),
        rates: Rates {
            connections: sum(|server| server.rates.connections),
            packets_in: sum(|server| server.rates.packets_in),
            packets_out: sum(|server| server.rates.packets_out),
            bytes_in: sum(|server| server.rates.bytes_in),
            bytes_out: sum(|server| server.rates.bytes_out),
        },
        quorum: QuorumStatus { up: true, alive_weight: 3, quorum: 1, hysteresis: 0 },
        sorry_server: None,
        bound_to: None,
        real_servers,
    }
}

fn with(virtual_servers: Vec<VirtualServerStatus>) -> Status {
    let active = virtual_servers.iter().map(|server| server.active).sum();
    let inactive = virtual_servers.iter().map(|server| server.inactive).sum();
    Status {
        instance: "default".into(),
        router_id: "director-01".into(),
        version: "0.1.0".into(),
        pid: 812,
        uptime_seconds: 3 * 86_400 + 4 * 3600 + 5 * 60 + 6,
        dataplane: DataPlaneKind::Xdp,
        dataplane_reason: None,
        interfaces: vec![
            InterfaceStatus { name: "eth0".into(), ifindex: 2, mode: XdpMode::Native },
            InterfaceStatus { name: "eth1".into(), ifindex: 3, mode: XdpMode::Native },
        ],
        connections: ConnectionTable { entries: active + inactive, capacity: 1_048_576 },
        totals: Totals {
            active,
            inactive,
            stats: Stats::default(),
            rates: rates(4321.0, 654_321.0, 98_765_432.0),
        },
        virtual_servers,
        verdicts: BTreeMap::new(),
        configuration: ConfigurationStatus {
            path: "/etc/xdirector/xdirector.toml".into(),
            loaded_at: 0,
            last_reload: None,
        },
        persistence: Persistence {
            pins: Some("/sys/fs/bpf/xdirector/default".into()),
            reason: None,
            adopted: true,
        },
        vrrp: None,
        work: Work::default(),
    }
}

/// Four virtual servers.
pub fn director() -> Status {
    let mut down = real("192.168.1.102:8080", Forward::Nat, 0, (3, 41, rates(0.0, 12.3, 4567.0)));
    down.configured_weight = Some(1);
    down.state = RealServerState::Down;
    down.since_seconds = 723;
    down.reason = Some("http: HTTP 503 for /health".into());
    down.checks = vec![
        check("http", Some(false), "HTTP 503 for /health"),
        check("tcp", Some(true), "connected"),
        check("script", None, ""),
    ];
    let mut heavy =
        real("192.168.1.103:8080", Forward::Nat, 5, (5120, 9876, rates(123.4, 43_210.0, 56_789_012.0)));
    heavy.configured_weight = Some(1);
    heavy.ordered = Some(Override::Weight { weight: 5 });
    let mut draining = real("[2001:db8:1::104]:8080", Forward::Tun, 0, (17, 230, rates(0.0, 99.0, 7890.0)));
    draining.configured_weight = Some(1);
    draining.ordered = Some(Override::Drain { until: None });
    draining.state = RealServerState::Draining;
    let mut web = virtual_server(
        "web",
        "192.168.10.50:80",
        Protocol::Tcp,
        vec![
            real("192.168.1.101:8080", Forward::Nat, 2, (1234, 3210, rates(45.6, 12_345.0, 12_345_678.0))),
            down,
            heavy,
        ],
    );
    web.sorry_server = Some(SorryServerStatus {
        address: "192.168.1.200:80".parse().unwrap(),
        forward: Forward::Nat,
        active: false,
    });
    let v6 = virtual_server("web-v6", "[2001:db8::50]:443", Protocol::Tcp, vec![draining]);
    let mut dns = virtual_server(
        "dns",
        "192.168.10.53:53",
        Protocol::Udp,
        vec![
            real("192.168.3.11:53", Forward::Dr, 1, (0, 65_432, rates(2000.0, 2000.0, 160_000.0))),
            real("192.168.3.12:53", Forward::Dr, 1, (0, 165_432, rates(2150.0, 2150.0, 170_000.0))),
        ],
    );
    dns.bound_to = Some(BoundTo { instance: "VI_53".into(), served: false });
    let mut lost = real("192.168.2.11:25", Forward::Dr, 1, (0, 0, Rates::default()));
    lost.state = RealServerState::NoNeighbour;
    lost.reason = Some("192.168.2.11 does not answer ARP on eth1".into());
    let mut mail = virtual_server("mail", "192.168.10.25:25", Protocol::Tcp, vec![lost]);
    mail.quorum = QuorumStatus { up: false, alive_weight: 0, quorum: 1, hysteresis: 1 };
    mail.sorry_server = Some(SorryServerStatus {
        address: "192.168.2.99:25".parse().unwrap(),
        forward: Forward::Dr,
        active: true,
    });
    mail.bound_to = Some(BoundTo { instance: "VI_25".into(), served: true });
    let legacy =
        virtual_server("legacy-application-with-a-long-name", "192.168.10.99:0", Protocol::Tcp, Vec::new());
    with(vec![web, v6, dns, mail, legacy])
}

/// So many virtual servers with two real servers each.
pub fn many(count: u32) -> Status {
    let virtual_servers = (0..count).map(|number| {
        let reals = (1..=2)
            .map(|host| {
                let bits = 0x0a00_0000 | number << 8 | host;
                let mut server =
                    real("10.0.0.1:80", Forward::Dr, 1, (u64::from(number), 0, Rates::default()));
                server.address = SocketAddr::from((bits.to_be_bytes(), 80));
                server
            })
            .collect();
        let mut server = virtual_server(&format!("vs-{number:05}"), "10.0.0.1:80", Protocol::Tcp, reals);
        server.address = SocketAddr::from(((0xc0a8_0000_u32 | number).to_be_bytes(), 80));
        server
    });
    let mut status = with(virtual_servers.collect());
    status.connections.capacity = 1 << 27;
    status
}
