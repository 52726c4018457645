//! Any VRRP part of a configuration.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use lb_userspace::config::vrrp::{
    Authentication, Checksum, Family, FastDetection, Garp, HmacMode, HmacSettings, SyncGroup, Track,
    TrackFile, TrackKey, TrackPort, TrackProcess, UnicastPeer, Version, VirtualAddress, VirtualRoute,
    VirtualRule, Vrrp, VrrpInstance, VrrpScript, VrrpSettings,
};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::{Index, select},
};

use crate::strategy::{millis, script};

/// Any part without errors. Virtual servers are tracked under [`VIRTUAL_SERVER`] and the number of an [`Index`]: whoever
/// knows their names puts them in, see [`finish`].
pub fn vrrp() -> impl Strategy<Value = Vrrp> {
    let settings = (option::of(1..=99_u8), any::<(bool, bool)>(), millis(50..=3_600_000)).prop_map(
        |(realtime_priority, (lock_memory, guard), watchdog)| VrrpSettings {
            realtime_priority,
            lock_memory,
            guard,
            watchdog,
        },
    );
    let things = (vec(vrrp_script(), 0..3), vec(process(), 0..3), vec(file(), 0..3), vec(port(), 0..3));
    let groups = (vec(0..3_usize, 5), vec(group(), 2));
    (settings, things, vec(instance(), 0..5), groups).prop_map(
        |(settings, (scripts, processes, files, ports), instances, (members, groups))| {
            let mut vrrp = Vrrp {
                settings,
                instances: Vec::new(),
                sync_groups: Vec::new(),
                scripts,
                processes,
                files,
                ports,
            };
            // Names must be unique: the index becomes a part of each.
            vrrp.scripts.iter_mut().enumerate().for_each(|(index, one)| one.name = format!("s{index}"));
            vrrp.processes.iter_mut().enumerate().for_each(|(index, one)| one.name = format!("p{index}"));
            vrrp.files.iter_mut().enumerate().for_each(|(index, one)| one.name = format!("f{index}"));
            vrrp.ports.iter_mut().enumerate().for_each(|(index, one)| one.name = format!("t{index}"));
            let instances: Vec<_> =
                instances.into_iter().enumerate().map(|(index, draft)| draft.finish(index, &vrrp)).collect();
            for (number, (mut group, tracks)) in groups.into_iter().enumerate() {
                let instances = instances.iter().zip(&members);
                let instances =
                    instances.filter(|(_, group)| **group == number).map(|(one, _)| one.name.clone());
                group.name = format!("g{number}");
                group.instances = instances.collect();
                group.tracks = resolve(tracks, &vrrp);
                if !group.tracking_weight {
                    group.tracks.iter_mut().for_each(|track| track.weight = 0);
                }
                if !group.instances.is_empty() {
                    vrrp.sync_groups.push(group);
                }
            }
            vrrp.instances = instances;
            vrrp
        },
    )
}

/// The name of a virtual server that is not known yet, before its number.
const VIRTUAL_SERVER: &str = "?";

/// Puts in what the rest of the file says.
pub fn finish(vrrp: &mut Vrrp, has_mail: bool, virtual_servers: &[String]) {
    let tracks = vrrp.instances.iter_mut().map(|one| &mut one.tracks);
    for tracks in tracks.chain(vrrp.sync_groups.iter_mut().map(|one| &mut one.tracks)) {
        tracks.retain_mut(|track| match &mut track.key {
            TrackKey::VirtualServer(name) => {
                let number: usize = name.trim_start_matches(VIRTUAL_SERVER).parse().expect("a number");
                let found = virtual_servers.get(number);
                found.is_some_and(|found| {
                    name.clone_from(found);
                    true
                })
            }
            _ => true,
        });
    }
    vrrp.instances.iter_mut().for_each(|one| one.mail &= has_mail);
    vrrp.sync_groups.iter_mut().for_each(|one| one.mail &= has_mail);
}

/// An instance before it is known which one it is.
#[derive(Debug, Clone)]
struct Draft {
    v6: bool,
    v3: bool,
    vrid: u8,
    interval: u64,
    authentication: (Authentication, Authentication),
    source: Option<u8>,
    peers: Vec<(Option<u8>, Option<u8>)>,
    addresses: Vec<(u8, bool, bool)>,
    excluded: Vec<(bool, u8)>,
    routes: Vec<(bool, bool, u32)>,
    rules: Vec<(bool, bool, u32)>,
    vmac: Option<bool>,
    tracks: Vec<DraftTrack>,
    /// What does not depend on others.
    rest: VrrpInstance,
}

/// Kind, which of the kind, weight.
type DraftTrack = (usize, Index, i32);

impl Draft {
    fn finish(self, index: usize, vrrp: &Vrrp) -> VrrpInstance {
        let number = u8::try_from(index).expect("a few");
        let family = if self.v6 { Family::Ipv6 } else { Family::Ipv4 };
        let version = if self.v6 || self.v3 { Version::V3 } else { Version::V2 };
        let address = |v6: bool, network: u8, host: u8| -> IpAddr {
            if v6 {
                Ipv6Addr::new(0x2001, 0xdb8, network.into(), number.into(), 0, 0, 0, host.into()).into()
            } else {
                Ipv4Addr::new(10, network, number, host).into()
            }
        };
        let virtual_router_id = number * 50 + self.vrid % 50 + 1;
        let advert_interval = match version {
            Version::V2 => Duration::from_secs(self.interval % 255 + 1),
            Version::V3 => Duration::from_millis(self.interval % 4095 * 10 + 10),
        };
        let peers = self.peers.iter().zip(2..).map(|((one, other), host)| UnicastPeer {
            address: address(self.v6, 9, host),
            min_ttl: one.map(|one| one.min(other.unwrap_or(255))),
            max_ttl: other.map(|other| other.max(one.unwrap_or(1))),
        });
        let unicast_peers: Vec<_> = peers.collect();
        let source_address = self.source.map(|host| match address(self.v6, 9, 1) {
            IpAddr::V6(_) if unicast_peers.is_empty() => {
                Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(host) + 1).into()
            }
            address => address,
        });
        let most = if self.v6 { 128 } else { 32 };
        let addresses =
            self.addresses.iter().zip(1..).map(|((prefix, on_other, label), host)| VirtualAddress {
                address: address(self.v6, 50, host),
                prefix: prefix % most + 1,
                interface: on_other.then(|| "other".to_owned()),
                label: (*label && !self.v6).then(|| format!("eth{number}:{host}")),
            });
        let excluded = self.excluded.iter().zip(1..).map(|((v6, prefix), host)| VirtualAddress {
            address: address(*v6, 51, host),
            prefix: prefix % 32 + 1,
            interface: None,
            label: None,
        });
        let routes = self.routes.iter().zip(1..).map(|((v6, is_via, table), host)| VirtualRoute {
            to: (address(*v6, 60, host), if *v6 { 128 } else { 32 }),
            via: is_via.then(|| address(*v6, 61, host)),
            interface: (!is_via || *table % 2 == 0).then(|| "out".to_owned()),
            source: (*table % 3 == 0).then(|| address(*v6, 50, host)),
            table: (*table > 0).then_some(*table),
            metric: (*table > 9).then_some(*table),
        });
        let rules = self.rules.iter().zip(1..).map(|((v6, is_from, table), host)| VirtualRule {
            from: is_from.then(|| (address(*v6, 62, host), if *v6 { 128 } else { 32 })),
            to: (!is_from || *table % 2 == 0).then(|| everything(*v6)),
            // No rule twice.
            table: u32::from(host) * 100 + table,
            priority: (*table % 3 == 0).then_some(*table),
        });
        let vmac = self.vmac.map(|is_named| match (is_named, family) {
            (true, _) => format!("m{number}"),
            (false, Family::Ipv4) => format!("vrrp.{virtual_router_id}"),
            (false, Family::Ipv6) => format!("vrrp6.{virtual_router_id}"),
        });
        VrrpInstance {
            name: format!("i{number}"),
            interface: format!("eth{number}"),
            family,
            version,
            virtual_router_id,
            advert_interval,
            authentication: match version {
                Version::V2 => self.authentication.0,
                Version::V3 => self.authentication.1,
            },
            source_address,
            unicast_peers,
            addresses: addresses.collect(),
            excluded_addresses: excluded.collect(),
            routes: routes.collect(),
            rules: rules.collect(),
            vmac,
            tracks: resolve(self.tracks, vrrp),
            ..self.rest
        }
    }
}

/// A large network.
fn everything(v6: bool) -> (IpAddr, u8) {
    if v6 { (Ipv6Addr::UNSPECIFIED.into(), 0) } else { (Ipv4Addr::new(10, 0, 0, 0).into(), 8) }
}

fn instance() -> impl Strategy<Value = Draft> {
    let router = (any::<(bool, bool)>(), any::<u8>(), any::<u64>(), (pass(), hmac()));
    let ttl = || option::of(1..=255_u8);
    let addresses = (
        option::of(any::<u8>()),
        vec((ttl(), ttl()), 0..3),
        vec(any::<(u8, bool, bool)>(), 1..4),
        vec(any::<(bool, u8)>(), 0..3),
    );
    let routes = (
        vec((any::<bool>(), any::<bool>(), 0..20_u32), 0..3),
        vec((any::<bool>(), any::<bool>(), 0..20_u32), 0..3),
    );
    (router, addresses, routes, option::of(any::<bool>()), tracks(), rest()).prop_map(
        |(router, addresses, (routes, rules), vmac, tracks, rest)| {
            let ((v6, v3), vrid, interval, authentication) = router;
            let (source, peers, addresses, excluded) = addresses;
            Draft {
                v6,
                v3,
                vrid,
                interval,
                authentication,
                source,
                peers,
                addresses,
                excluded,
                routes,
                rules,
                vmac,
                tracks,
                rest,
            }
        },
    )
}

/// The keys that do not depend on others, or only on each other.
fn rest() -> impl Strategy<Value = VrrpInstance> {
    let election = (1..=255_u8, any::<(bool, bool)>(), millis(0..=86_400_000));
    let fast = (millis(1..=10_000), 2..=100_u32)
        .prop_map(|(interval, multiplier)| FastDetection { interval, multiplier });
    let flags = any::<(bool, bool, bool, bool, bool)>();
    (election, select(Checksum::ALL), flags, garp(), notify(), option::of(fast)).prop_map(
        |((priority, (initial_master, nopreempt), delay), checksum, flags, garp, notify, fast_detection)| {
            let (check_unicast_source, skip_check_adv_addr, quick_release, dont_track_primary, mail) = flags;
            // What is taken back with a warning would not come back.
            let nopreempt = nopreempt && !initial_master && priority < 255;
            let [notify, notify_master, notify_backup, notify_fault, notify_stop] = notify;
            VrrpInstance {
                name: String::new(),
                interface: String::new(),
                family: Family::Ipv4,
                version: Version::V2,
                virtual_router_id: 0,
                priority,
                advert_interval: Duration::ZERO,
                initial_master,
                nopreempt,
                preempt_delay: if nopreempt || initial_master { Duration::ZERO } else { delay },
                authentication: Authentication::None,
                checksum,
                source_address: None,
                unicast_peers: Vec::new(),
                check_unicast_source,
                skip_check_adv_addr,
                quick_release,
                addresses: Vec::new(),
                excluded_addresses: Vec::new(),
                routes: Vec::new(),
                rules: Vec::new(),
                vmac: None,
                garp,
                dont_track_primary,
                tracks: Vec::new(),
                notify,
                notify_master,
                notify_backup,
                notify_fault,
                notify_stop,
                mail,
                fast_detection,
            }
        },
    )
}

fn garp() -> impl Strategy<Value = Garp> {
    let delay = || millis(0..=86_400_000);
    ((1..=1000_u32, delay(), delay(), 1..=1000_u32), (0..=1000_u32, delay(), millis(0..=10_000))).prop_map(
        |((repeat, delay, refresh, refresh_repeat), (lower_prio_repeat, lower_prio_delay, interval))| Garp {
            repeat,
            delay,
            refresh,
            refresh_repeat,
            lower_prio_repeat,
            lower_prio_delay,
            interval,
        },
    )
}

fn pass() -> impl Strategy<Value = Authentication> {
    option::of("[ -~]{1,8}").prop_map(|password| match password {
        None => Authentication::None,
        Some(password) => {
            let mut bytes = [0; 8];
            bytes[..password.len()].copy_from_slice(password.as_bytes());
            Authentication::Pass(bytes)
        }
    })
}

fn hmac() -> impl Strategy<Value = Authentication> {
    let keys = btree_map(any::<u8>(), vec(any::<u8>(), 32..=64), 1..4);
    option::of((keys, select(HmacMode::ALL))).prop_map(|given| match given {
        None => Authentication::None,
        Some((keys, mode)) => {
            Authentication::Hmac(HmacSettings { keys: keys.into_iter().rev().collect(), mode })
        }
    })
}

fn tracks() -> impl Strategy<Value = Vec<DraftTrack>> {
    vec((0..6_usize, any::<Index>(), prop_oneof![Just(0), -253..=253_i32]), 0..6)
}

/// Finds what is meant, each once, in the order of kinds.
fn resolve(drafts: Vec<DraftTrack>, vrrp: &Vrrp) -> Vec<Track> {
    let mut tracks: Vec<(usize, Track)> = Vec::new();
    for (kind, index, weight) in drafts {
        let count =
            [3, vrrp.scripts.len(), vrrp.processes.len(), vrrp.files.len(), vrrp.ports.len(), 5][kind];
        if count == 0 {
            continue;
        }
        let number = index.index(count);
        let key = match kind {
            0 => TrackKey::Interface(format!("eth{number}")),
            1 => TrackKey::Script(format!("s{number}")),
            2 => TrackKey::Process(format!("p{number}")),
            3 => TrackKey::File(format!("f{number}")),
            4 => TrackKey::Port(format!("t{number}")),
            _ => TrackKey::VirtualServer(format!("{VIRTUAL_SERVER}{number}")),
        };
        if tracks.iter().all(|(_, track)| track.key != key) {
            tracks.push((kind, Track { key, weight }));
        }
    }
    tracks.sort_by_key(|(kind, _)| *kind);
    tracks.into_iter().map(|(_, track)| track).collect()
}

fn group() -> impl Strategy<Value = (SyncGroup, Vec<DraftTrack>)> {
    (tracks(), any::<(bool, bool)>(), notify()).prop_map(|(tracks, (tracking_weight, mail), notify)| {
        let [notify, notify_master, notify_backup, notify_fault, notify_stop] = notify;
        let group = SyncGroup {
            name: String::new(),
            instances: Vec::new(),
            tracks: Vec::new(),
            tracking_weight,
            notify,
            notify_master,
            notify_backup,
            notify_fault,
            notify_stop,
            mail,
        };
        (group, tracks)
    })
}

fn notify() -> impl Strategy<Value = [Option<lb_userspace::config::Command>; 5]> {
    let one = || option::of(script());
    [one(), one(), one(), one(), one()]
}

fn pace() -> impl Strategy<Value = Duration> {
    millis(10..=86_400_000)
}

fn vrrp_script() -> impl Strategy<Value = VrrpScript> {
    let user = option::of("[a-z_][a-z0-9_-]{0,31}");
    let counts = (1..=100_u32, 1..=100_u32, -253..=253_i32);
    (script(), pace(), pace(), counts, user, any::<bool>()).prop_map(
        |(command, interval, timeout, (rise, fall, weight), user, init_fail)| VrrpScript {
            name: String::new(),
            command,
            interval,
            timeout,
            rise,
            fall,
            weight,
            user,
            init_fail,
        },
    )
}

fn process() -> impl Strategy<Value = TrackProcess> {
    ("[ -.0-~]{1,30}", 1..=65_535_u32, pace(), -253..=253_i32).prop_map(
        |(process, quorum, interval, weight)| TrackProcess {
            name: String::new(),
            process,
            quorum,
            interval,
            weight,
        },
    )
}

fn file() -> impl Strategy<Value = TrackFile> {
    ("/[ -.0-~]{1,20}", pace(), -253..=253_i32).prop_map(|(file, interval, weight)| TrackFile {
        name: String::new(),
        file,
        interval,
        weight,
    })
}

fn port() -> impl Strategy<Value = TrackPort> {
    let address = select(vec!["127.0.0.1", "::1", "192.0.2.77", "2001:db8::77"]);
    let counts = (1..=100_u32, 1..=100_u32, -253..=253_i32);
    (address, 1..=u16::MAX, pace(), pace(), counts).prop_map(
        |(address, port, interval, timeout, (rise, fall, weight))| TrackPort {
            name: String::new(),
            address: SocketAddr::new(address.parse().expect("an address"), port),
            interval,
            timeout,
            rise,
            fall,
            weight,
        },
    )
}
