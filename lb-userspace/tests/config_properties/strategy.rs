//! Any configuration.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::PathBuf,
    time::Duration,
};

use lb_userspace::config::{
    Command, Config, Dataplane, Director, Forward, Login, Mail, MailTls, Metrics, OnFailure, OnRemove,
    Persistence, Protocol, RealServer, Scheduler, SchedulerFlags, SorryServer, Timeouts, Tunnel,
    TunnelChecksum, TunnelKind, VirtualServer, XdpMode,
    check::{HealthCheck, Http, HttpRequest, Probe, Tls, Via},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::strategy_vrrp::{self, vrrp};

/// Any configuration without errors.
pub fn config() -> impl Strategy<Value = Config> {
    let servers = vec((virtual_server(), option::of(any::<prop::sample::Index>())), 0..5);
    (director(), timeouts(), option::of(metrics()), option::of(mail()), vrrp(), servers).prop_map(
        |(director, timeouts, metrics, mail, mut vrrp, servers)| {
            let mut virtual_servers = Vec::new();
            // Names and addresses must be unique: the index becomes part of both.
            for (index, (mut server, instance)) in servers.into_iter().enumerate() {
                suit(&mut server, director.dataplane);
                let number = u8::try_from(index).expect("a few");
                write!(server.name, "{index}").expect("memory");
                let old = server.address;
                server.address = numbered(old, number);
                for check in server.real_servers.iter_mut().flat_map(|real| &mut real.health_checks) {
                    if check.via == Via::Dataplane {
                        check.connect.set_ip(server.address);
                    }
                }
                server.mail &= mail.is_some();
                server.bind_to = instance
                    .filter(|_| !vrrp.instances.is_empty())
                    .map(|index| index.get(&vrrp.instances).name.clone());
                virtual_servers.push(std::sync::Arc::new(server));
            }
            let names: Vec<_> = virtual_servers.iter().map(|server| server.name.clone()).collect();
            strategy_vrrp::finish(&mut vrrp, mail.is_some(), &names);
            Config { director, timeouts, metrics, mail, vrrp, virtual_servers }
        },
    )
}

/// Takes away what the data plane has not.
fn suit(server: &mut VirtualServer, dataplane: Dataplane) {
    if dataplane == Dataplane::Xdp {
        server.persistence = None;
        server.one_packet = false;
        server.real_servers.iter_mut().for_each(|real| real.tunnel = Tunnel::IPIP);
        if !server.scheduler.is_in_xdp() {
            server.scheduler = Scheduler::Wlc;
        }
    }
    if dataplane == Dataplane::Ipvs {
        let whole = if server.address.is_ipv4() { 32 } else { 128 };
        if server.port == 0 && server.persistence.is_none() {
            server.persistence = Some(Persistence { timeout: Duration::from_secs(300), prefix: whole });
        }
        for real in &mut server.real_servers {
            real.health_checks.retain(|check| check.via == Via::Direct);
        }
    }
}

fn director() -> impl Strategy<Value = Director> {
    (
        "[a-z0-9_-]{1,32}",
        "[!-~][ -~]{0,63}",
        prop::collection::hash_set("[a-zA-Z0-9_.@%-]{1,14}[a-z]", 1..6),
        select(XdpMode::ALL),
        1024..=16_777_216_u32,
        option::of("[a-z_][a-z0-9_-]{0,31}"),
        select(Dataplane::ALL),
    )
        .prop_map(
            |(instance, router_id, interfaces, xdp_mode, max_connections, script_user, dataplane)| Director {
                instance,
                router_id,
                dataplane,
                interfaces: interfaces.into_iter().collect(),
                xdp_mode,
                max_connections,
                script_user,
            },
        )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    let time = || millis(1000..=31 * 86_400_000);
    (time(), time(), time()).prop_map(|(tcp, tcp_fin, udp)| Timeouts { tcp, tcp_fin, udp })
}

fn metrics() -> impl Strategy<Value = Metrics> {
    let address = select(vec!["127.0.0.1", "0.0.0.0", "::", "::1", "192.0.2.9", "2001:db8::9"]);
    (address, 1..=u16::MAX).prop_map(|(address, port)| Metrics {
        listen: SocketAddr::new(address.parse().expect("an address"), port),
    })
}

fn mail() -> impl Strategy<Value = Mail> {
    let address = || {
        "[a-z][a-z0-9.+_-]{0,10}[a-z]@[a-z]{1,10}\\.example"
            .prop_filter("no dots side by side", |text| !text.contains(".."))
    };
    let server = select(vec!["mail.example.org", "localhost", "192.0.2.25", "2001:db8::25"]);
    let login = ("[ -~]{1,20}", "[ -~]{1,20}").prop_map(|(user, password)| Login { user, password });
    (
        (server, 1..=u16::MAX, select(MailTls::ALL), any::<bool>(), millis(1000..=3_600_000)),
        (address(), vec(address(), 1..4), option::of(login)),
    )
        .prop_map(|((server, port, tls, verify, timeout), (from, to, login))| Mail {
            server: server.to_owned(),
            port,
            tls,
            verify,
            timeout,
            from,
            to,
            login,
        })
}

fn virtual_server() -> impl Strategy<Value = VirtualServer> {
    let shape = (
        "[A-Za-z0-9._-]{0,62}",
        any::<bool>(),
        prop_oneof![Just(0), any::<u16>()],
        select(Protocol::ALL),
        select(Scheduler::ALL),
        any::<(bool, bool)>(),
        (option::of((millis(1000..=31 * 86_400_000), any::<prop::sample::Index>())), any::<bool>()),
    );
    let quorum = (1..=i32::MAX.cast_unsigned(), any::<prop::sample::Index>(), scripts());
    let connections =
        (select(OnRemove::ALL), option::of(millis(1000..=31 * 86_400_000)), any::<(bool, bool)>());
    let servers = (vec(real_server(), 0..6), vec(check(), 0..3), option::of(real_server()));
    (shape, quorum, connections, servers, any::<(bool, bool, bool)>()).prop_map(
        |(shape, quorum, connections, servers, (alpha, omega, mail))| {
            let (name, v4, port, protocol, scheduler, (by_port, fallback), (persistence, one_packet)) = shape;
            let (quorum, hysteresis, (quorum_up, quorum_down)) = quorum;
            let (on_remove, drain_timeout, (expire_nodest, expire_quiescent)) = connections;
            let (servers, common_checks, sorry) = servers;
            let has_flags = matches!(scheduler, Scheduler::Sh | Scheduler::Mh);
            let service = SocketAddr::new(base(v4, 1), port);
            let hysteresis = hysteresis.index(usize::try_from(quorum).expect("64 bits"));
            let finish = |(index, server)| finish(server, index, service, protocol, &common_checks);
            let sorry_server = sorry.map(|server| {
                let RealServer { address, port, forward, .. } = finish((100, server));
                SorryServer { address, port, forward }
            });
            VirtualServer {
                name,
                address: service.ip(),
                port,
                protocol,
                bind_to: None,
                scheduler,
                scheduler_flags: SchedulerFlags {
                    port: has_flags && by_port,
                    fallback: has_flags && fallback,
                },
                persistence: persistence.map(|(timeout, prefix)| Persistence {
                    timeout,
                    prefix: u8::try_from(prefix.index(if v4 { 32 } else { 128 }) + 1).expect("a byte"),
                }),
                one_packet: one_packet && protocol == Protocol::Udp,
                quorum,
                hysteresis: u32::try_from(hysteresis).expect("less than the quorum"),
                quorum_up,
                quorum_down,
                sorry_server,
                alpha,
                omega,
                on_remove,
                drain_timeout,
                expire_nodest,
                expire_quiescent,
                mail,
                real_servers: servers.into_iter().enumerate().map(finish).collect(),
            }
        },
    )
}

/// A real server before it is known for which virtual server: it has all kinds of addresses and ports at once.
#[derive(Debug, Clone)]
struct Draft {
    v4: bool,
    own_port: u16,
    weight: u32,
    forward: Forward,
    tunnel: Tunnel,
    thresholds: (u32, prop::sample::Index),
    on_failure: OnFailure,
    /// `None`: those that its neighbours have.
    checks: Option<Vec<DraftCheck>>,
    notify: (Option<Command>, Option<Command>),
}

fn tunnel() -> impl Strategy<Value = Tunnel> {
    let made = |(kind, port, checksum)| match kind {
        TunnelKind::Ipip => Tunnel::IPIP,
        TunnelKind::Gue => Tunnel { kind, port, checksum },
        TunnelKind::Gre if checksum == TunnelChecksum::Remote => {
            Tunnel { kind, port: 0, checksum: TunnelChecksum::Full }
        }
        TunnelKind::Gre => Tunnel { kind, port: 0, checksum },
    };
    (select(TunnelKind::ALL), 1..=u16::MAX, select(TunnelChecksum::ALL)).prop_map(made)
}

fn real_server() -> impl Strategy<Value = Draft> {
    let thresholds = (prop_oneof![Just(0), any::<u32>()], any::<prop::sample::Index>());
    (
        (any::<bool>(), any::<u16>(), 0..=65_535_u32, select(Forward::ALL), tunnel()),
        (thresholds, select(OnFailure::ALL), option::of(vec(check(), 0..3)), scripts()),
    )
        .prop_map(
            |((v4, own_port, weight, forward, tunnel), (thresholds, on_failure, checks, notify))| Draft {
                v4,
                own_port,
                weight,
                forward,
                tunnel,
                thresholds,
                on_failure,
                checks,
                notify,
            },
        )
}

fn finish(
    draft: Draft,
    index: usize,
    service: SocketAddr,
    protocol: Protocol,
    common_checks: &[DraftCheck],
) -> RealServer {
    let number = u8::try_from(index).expect("a few");
    let forward = draft.forward;
    let v4 = if forward == Forward::Tun { draft.v4 } else { service.is_ipv4() };
    let address = numbered(base(v4, 2), number);
    let port = match forward {
        Forward::Nat if service.port() == 0 => 0,
        Forward::Nat => draft.own_port.max(1),
        Forward::Dr | Forward::Tun => service.port(),
    };
    let (upper_threshold, lower) = draft.thresholds;
    let lower = lower.index(usize::try_from(upper_threshold).expect("64 bits") + 1);
    let checks = draft.checks.as_deref().unwrap_or(common_checks);
    let server = SocketAddr::new(address, port);
    RealServer {
        address,
        port,
        weight: draft.weight,
        forward,
        tunnel: if forward == Forward::Tun { draft.tunnel } else { Tunnel::IPIP },
        upper_threshold,
        lower_threshold: u32::try_from(lower).expect("at most the upper one"),
        on_failure: draft.on_failure,
        health_checks: checks.iter().map(|check| finish_check(check, server, service, protocol)).collect(),
        notify_up: draft.notify.0,
        notify_down: draft.notify.1,
    }
}

/// A check before it is known for which server.
#[derive(Debug, Clone)]
struct DraftCheck {
    probe: Probe,
    times: [Duration; 4],
    counts: (u32, u32, u32),
    connect: (Option<IpAddr>, Option<u16>),
    /// Where it needs a port and none is given: this one.
    port: u16,
    bind: (bool, Option<u16>),
    fwmark: u32,
    via: Via,
}

fn check() -> impl Strategy<Value = DraftCheck> {
    let pace = || millis(10..=86_400_000);
    let delay = || millis(0..=86_400_000);
    let address = select(vec!["192.0.2.77", "2001:db8::77", "127.0.0.1", "::1"]);
    let address = address.prop_map(|text| text.parse::<IpAddr>().expect("an address"));
    let port = || 1..=u16::MAX;
    (
        probe(),
        [pace().boxed(), pace().boxed(), delay().boxed(), delay().boxed()],
        (1..=100_u32, 1..=100_u32, 0..=100_u32),
        (option::of(address), option::of(port()), port()),
        (any::<bool>(), option::of(port())),
        (prop_oneof![Just(0), any::<u32>()], select(Via::ALL)),
    )
        .prop_map(|(probe, times, counts, (address, own_port, port), bind, (fwmark, via))| DraftCheck {
            probe,
            times,
            counts,
            connect: (address, own_port),
            port,
            bind,
            fwmark,
            via,
        })
}

fn finish_check(
    draft: &DraftCheck,
    server: SocketAddr,
    service: SocketAddr,
    protocol: Protocol,
) -> HealthCheck {
    let probe_protocol = match draft.probe {
        Probe::Tcp | Probe::Http(_) | Probe::Smtp { .. } => Some(Protocol::Tcp),
        Probe::Dns { .. } | Probe::Udp { .. } => Some(Protocol::Udp),
        Probe::Ping | Probe::Script { .. } | Probe::File { .. } => None,
    };
    let has_way = !matches!(draft.probe, Probe::Script { .. } | Probe::File { .. });
    let via = if probe_protocol == Some(protocol) { draft.via } else { Via::Direct };
    let with_port = |at: SocketAddr| {
        let port = if at.port() == 0 && probe_protocol.is_some() { draft.port } else { at.port() };
        SocketAddr::new(at.ip(), port)
    };
    let connect = match via {
        Via::Dataplane => with_port(service),
        Via::Direct if has_way => {
            let port = draft.connect.1.filter(|_| probe_protocol.is_some()).unwrap_or(server.port());
            with_port(SocketAddr::new(draft.connect.0.unwrap_or(server.ip()), port))
        }
        Via::Direct => server,
    };
    let unspecified: IpAddr =
        if connect.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let bind_port = draft.bind.1.filter(|_| probe_protocol.is_some());
    let bind = match (draft.bind.0, bind_port) {
        (true, port) => Some(SocketAddr::new(base(connect.is_ipv4(), 9), port.unwrap_or(0))),
        (false, Some(port)) => Some(SocketAddr::new(unspecified, port)),
        (false, None) => None,
    };
    let [interval, timeout, delay_before_retry, warmup] = draft.times;
    let (rise, fall, retry) = draft.counts;
    HealthCheck {
        probe: draft.probe.clone(),
        interval,
        timeout,
        rise,
        fall,
        retry,
        delay_before_retry,
        warmup,
        connect,
        bind: bind.filter(|_| has_way),
        fwmark: if has_way && via == Via::Direct { draft.fwmark } else { 0 },
        via,
    }
}

fn probe() -> impl Strategy<Value = Probe> {
    let bytes = || prop_oneof![vec(any::<u8>(), 0..20), "[ -~]{0,20}".prop_map(String::into_bytes)];
    let helo = select(vec!["director.example.org", "a", "[192.0.2.1]", "[IPv6:2001:db8::1]"]);
    let dns = (
        select(vec!["SOA", "A", "AAAA", "MX", "ANY", "DNSKEY"]),
        select(vec![".", "example.org", "_sip._udp.example.org."]),
    );
    prop_oneof![
        Just(Probe::Tcp),
        http(),
        helo.prop_map(|helo| Probe::Smtp { helo: helo.to_owned() }),
        dns.prop_map(|(record, name)| Probe::Dns { record: record.to_owned(), name: name.to_owned() }),
        (bytes(), bytes(), any::<bool>()).prop_map(|(payload, expect, require_reply)| Probe::Udp {
            payload,
            expect,
            require_reply
        }),
        Just(Probe::Ping),
        (script(), any::<bool>()).prop_map(|(command, dynamic)| Probe::Script { command, dynamic }),
        "/[ -.0-~]{1,20}".prop_map(|path| Probe::File { path: PathBuf::from(path) }),
    ]
}

fn http() -> impl Strategy<Value = Probe> {
    let sni = option::of(select(vec!["www.example.org", "a"]).prop_map(str::to_owned));
    let tls = option::of((sni, any::<bool>()).prop_map(|(sni, verify)| Tls { sni, verify }));
    (tls, vec(request(), 1..4)).prop_map(|(tls, mut requests)| {
        if matches!(tls, Some(Tls { sni: None, .. })) {
            // Else its name would become the one of the handshake.
            requests[0].host = None;
        }
        Probe::Http(Http { tls, requests })
    })
}

fn request() -> impl Strategy<Value = HttpRequest> {
    let host = select(vec!["www.example.org", "a:8080", "192.0.2.1", "[2001:db8::1]:80"]);
    let value = "([!-~]([ -~]{0,20}[!-~])?)?";
    let headers = prop::collection::btree_map("X-[a-z0-9]{1,5}", value, 0..3)
        .prop_map(|headers| headers.into_iter().collect::<Vec<_>>());
    let status = (100..=599_u16, 100..=599_u16)
        .prop_map(|(one, other)| -> RangeInclusive<u16> { one.min(other)..=one.max(other) });
    let regex = select(vec!["ok", "^\\s*\"up\"\\s*$", "(?i)fine|\\bgood\\b", "[^\\\\]+"]);
    (
        "/[!-\"$-~]{0,30}",
        select(vec!["GET", "HEAD", "OPTIONS", "POST"]),
        option::of(host),
        headers.prop_shuffle(),
        vec(status, 1..4),
        option::of(any::<[u8; 16]>()),
        option::of(regex),
    )
        .prop_map(|(path, method, host, headers, status, md5, regex)| {
            let has_body = method != "HEAD";
            HttpRequest {
                path,
                method: method.to_owned(),
                host: host.map(str::to_owned),
                headers,
                status,
                md5: md5.filter(|_| has_body),
                regex: regex.filter(|_| has_body).map(str::to_owned),
            }
        })
}

fn scripts() -> impl Strategy<Value = (Option<Command>, Option<Command>)> {
    (option::of(script()), option::of(script()))
}

pub fn script() -> impl Strategy<Value = Command> {
    ("/[ -.0-~]{1,20}", vec("[ -~]{0,20}", 0..4)).prop_map(|(program, mut arguments)| {
        arguments.insert(0, program);
        Command(arguments)
    })
}

pub fn millis(range: RangeInclusive<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

fn base(v4: bool, network: u8) -> IpAddr {
    if v4 {
        Ipv4Addr::new(10, 0, network, 0).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, network.into(), 0, 0, 0, 0, 0).into()
    }
}

fn numbered(address: IpAddr, number: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() + u32::from(number) + 1).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() + u128::from(number) + 1).into(),
    }
}
