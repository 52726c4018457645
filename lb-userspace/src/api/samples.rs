//! A director with something in every field, for tests.

use std::collections::BTreeMap;

use lb_common::verdict::{Event, Verdict};

use super::types::{
    BoundTo, CheckStatus, ConfigurationStatus, ConnectionTable, DataPlaneKind, Forward, InterfaceStatus,
    LastReload, NextHop, Override, Persistence, Protocol, QuorumStatus, Rates, RealServerState,
    RealServerStatus, SorryServerStatus, Stats, Status, Totals, VirtualServerStatus, Work, XdpMode,
};
use super::vrrp::{
    TrackedStatus, VrrpChecksums, VrrpGroupStatus, VrrpInstanceStatus, VrrpStatus, VrrpWeight,
};

/// One instance in a group, with something in every field.
pub(crate) fn vrrp() -> VrrpStatus {
    VrrpStatus {
        instances: vec![VrrpInstanceStatus {
            name: "VI_50".into(),
            state: "MASTER".into(),
            since_seconds: 3661,
            reason: "master down: nothing heard from 192.168.10.2 for 3.6s".into(),
            interface: "eth0".into(),
            virtual_router_id: 50,
            version: 2,
            master: Some("192.168.10.1".parse().unwrap()),
            master_priority: Some(102),
            advert_interval_seconds: 1.0,
            priority: 100,
            effective_priority: 102,
            weights: vec![VrrpWeight { track: "script haproxy".into(), weight: 2 }],
            faults: vec!["interface eth1 is down".into()],
            handed_over: false,
            source: Some("192.168.10.1".parse().unwrap()),
            addresses: vec!["192.168.10.50/32".into()],
            sent: 3700,
            sent_zero: 1,
            send_errors: 2,
            received: 4,
            received_zero: 1,
            discarded: BTreeMap::from([("checksum".to_owned(), 3)]),
            checksums: VrrpChecksums { pseudo_header: 3, rfc9568: 1 },
            announced: 10,
            restored: 1,
            became_master: 2,
            released_master: 1,
        }],
        groups: vec![VrrpGroupStatus {
            name: "VRRP1".into(),
            state: "MASTER".into(),
            instances: vec!["VI_50".into()],
        }],
        tracked: vec![TrackedStatus {
            track: "script haproxy".into(),
            up: Some(true),
            number: None,
            detail: "exit code 0".into(),
        }],
        unknown_vrid: 7,
        guard: Some(true),
        warnings: vec!["no real-time priority: operation not permitted".into()],
        longest_delay_seconds: 0.0012,
    }
}

/// Two virtual servers; the first with two real servers, of which one drains and has two checks.
pub(crate) fn status() -> Status {
    let stats = Stats { connections: 1, packets_in: 2, packets_out: 3, bytes_in: 4, bytes_out: u64::MAX };
    let rates = Rates { connections: 0.5, packets_in: 1.5, packets_out: 2.5, bytes_in: 3.5, bytes_out: 4.5 };
    let names =
        Verdict::ALL.iter().map(|verdict| verdict.name()).chain(Event::ALL.iter().map(|event| event.name()));
    Status {
        instance: "default".into(),
        router_id: "director-01".into(),
        version: "0.1.0".into(),
        pid: 812,
        uptime_seconds: 61,
        dataplane: DataPlaneKind::Xdp,
        dataplane_reason: None,
        interfaces: vec![
            InterfaceStatus { name: "eth0".into(), ifindex: 2, mode: XdpMode::Native },
            InterfaceStatus { name: "a\"b\\c".into(), ifindex: 3, mode: XdpMode::Generic },
        ],
        connections: ConnectionTable { entries: 3, capacity: 1_048_576 },
        totals: Totals { active: 1, inactive: 2, stats, rates },
        virtual_servers: vec![
            VirtualServerStatus {
                name: "web".into(),
                address: "[2001:db8::50]:443".parse().unwrap(),
                protocol: Protocol::Tcp,
                scheduler: "sh".into(),
                scheduler_flags: vec!["sh-port".into()],
                active: 1,
                inactive: 2,
                stats,
                rates,
                quorum: QuorumStatus { up: true, alive_weight: 1, quorum: 1, hysteresis: 0 },
                sorry_server: Some(SorryServerStatus {
                    address: "192.168.1.99:8443".parse().unwrap(),
                    forward: Forward::Nat,
                    active: false,
                }),
                bound_to: Some(BoundTo { instance: "VI_50".into(), served: true }),
                real_servers: vec![draining(stats, rates), unreachable(stats, rates)],
            },
            VirtualServerStatus {
                name: "dns".into(),
                address: "192.0.2.53:53".parse().unwrap(),
                protocol: Protocol::Udp,
                scheduler: "rr".into(),
                scheduler_flags: Vec::new(),
                active: 0,
                inactive: 0,
                stats: Stats::default(),
                rates: Rates::default(),
                quorum: QuorumStatus { up: false, alive_weight: 0, quorum: 1, hysteresis: 0 },
                sorry_server: None,
                bound_to: None,
                real_servers: Vec::new(),
            },
        ],
        verdicts: names.zip(0..).map(|(name, count)| (name.to_owned(), count)).collect::<BTreeMap<_, _>>(),
        configuration: ConfigurationStatus {
            path: "/etc/xdirector/xdirector.toml".into(),
            loaded_at: 1_795_200_001,
            last_reload: Some(LastReload {
                at: 1_795_200_060,
                succeeded: false,
                message: "xdirector.toml:3: no port".into(),
            }),
        },
        persistence: Persistence {
            pins: Some("/sys/fs/bpf/xdirector/default".into()),
            reason: None,
            adopted: true,
        },
        vrrp: Some(vrrp()),
        work: Work {
            reloads_succeeded: 1,
            reloads_failed: 2,
            reconciles: 3,
            reconcile_seconds_sum: 0.5,
            reconcile_seconds_last: 0.25,
            operations: 4,
            operations_failed: 5,
            repairs: 6,
            notifications: 7,
            notifications_failed: 8,
            mails_sent: 9,
            mails_failed: 10,
        },
    }
}

fn draining(stats: Stats, rates: Rates) -> RealServerStatus {
    let check = |kind: &str, up, weight| CheckStatus {
        kind: kind.into(),
        up,
        detail: Some("HTTP 200 for /health".into()),
        since_seconds: 60,
        passed: 12,
        failed: 1,
        seconds_last: 0.001,
        seconds_sum: 0.125,
        weight,
    };
    RealServerStatus {
        address: "192.168.1.101:8443".parse().unwrap(),
        forward: Forward::Nat,
        weight: 0,
        configured_weight: Some(2),
        ordered: Some(Override::Drain { until: Some(1_795_200_600) }),
        since_seconds: 30,
        checks: vec![check("http", Some(true), None), check("script", None, Some(7))],
        overloaded: false,
        state: RealServerState::Draining,
        reason: None,
        next_hop: None,
        active: 1,
        inactive: 2,
        stats,
        rates,
    }
}

fn unreachable(stats: Stats, rates: Rates) -> RealServerStatus {
    RealServerStatus {
        address: "192.168.1.102:8443".parse().unwrap(),
        forward: Forward::Tun,
        weight: 1,
        configured_weight: Some(1),
        ordered: None,
        since_seconds: 0,
        checks: Vec::new(),
        overloaded: true,
        state: RealServerState::NoNeighbour,
        reason: Some("192.168.1.102 does not answer ARP on eth0".into()),
        next_hop: Some(NextHop {
            interface: "eth0".into(),
            gateway: Some("192.168.1.1".parse().unwrap()),
            mac: Some("02:00:00:00:01:01".into()),
        }),
        active: 0,
        inactive: 0,
        stats,
        rates,
    }
}
