//! The driver with the real machines and the real codec, against a network of its own, in which time stands still.

mod fake;
mod links;
mod packets;
mod real;
mod reload;
mod takeover;

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use self::fake::{Fake, FakeRoles, Log};
use super::{
    Report, Wanted,
    engine::{Engine, Order, Ready},
    network::{Arrival, Channel, Kind},
    state::StateFile,
};
use crate::{
    config::vrrp::{
        Authentication, Checksum, Family, Garp, HmacMode, HmacSettings, Version, VirtualAddress,
        Vrrp as Config, VrrpInstance,
    },
    vrrp::{
        State,
        packet::{self, Advert, Endpoints, Seal, Stamp},
    },
};

const MS: Duration = Duration::from_millis(1);

/// `10.0.0.100/32`.
pub fn address(text: &str) -> VirtualAddress {
    let (address, prefix) = text.split_once('/').unwrap();
    VirtualAddress {
        address: address.parse().unwrap(),
        prefix: prefix.parse().unwrap(),
        interface: None,
        label: None,
    }
}

/// Of version 3, with an interval of 1 s and the family of its addresses.
pub fn instance(name: &str, interface: &str, vrid: u8, priority: u8, addresses: &[&str]) -> VrrpInstance {
    let addresses: Vec<VirtualAddress> = addresses.iter().map(|text| address(text)).collect();
    VrrpInstance {
        name: name.to_owned(),
        interface: interface.to_owned(),
        family: if addresses[0].address.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 },
        version: Version::V3,
        virtual_router_id: vrid,
        priority,
        advert_interval: Duration::from_secs(1),
        initial_master: false,
        nopreempt: false,
        preempt_delay: Duration::ZERO,
        authentication: Authentication::None,
        checksum: Checksum::PseudoHeader,
        source_address: None,
        unicast_peers: Vec::new(),
        check_unicast_source: false,
        skip_check_adv_addr: false,
        quick_release: true,
        addresses,
        excluded_addresses: Vec::new(),
        routes: Vec::new(),
        rules: Vec::new(),
        vmac: None,
        garp: Garp { repeat: 2, delay: Duration::ZERO, ..Garp::default() },
        dont_track_primary: false,
        tracks: Vec::new(),
        notify: None,
        notify_master: None,
        notify_backup: None,
        notify_fault: None,
        notify_stop: None,
        mail: false,
        fast_detection: None,
    }
}

/// Sealed adverts.
fn sealed() -> Authentication {
    Authentication::Hmac(HmacSettings { keys: vec![(1, vec![7; 32])], mode: HmacMode::Enforce })
}

/// An engine with what it is given and what it says.
struct Bench {
    engine: Engine<Fake>,
    reports: mpsc::UnboundedReceiver<Report>,
    log: Log,
    directory: tempfile::TempDir,
}

fn wanted(instances: &[VrrpInstance]) -> Wanted {
    let roles = (1..).zip(instances).map(|(role, instance)| (instance.name.clone(), role)).collect();
    Wanted { config: Config { instances: instances.to_vec(), ..Config::default() }, roles }
}

impl Bench {
    /// Not started.
    fn new(instances: &[VrrpInstance]) -> Self {
        Self::with(wanted(instances), tempfile::tempdir().unwrap(), |_| ())
    }

    fn with(wanted: Wanted, directory: tempfile::TempDir, prepare: impl FnOnce(&mut Fake)) -> Self {
        let log = Log::default();
        let mut fake = Fake::new(log.clone());
        prepare(&mut fake);
        let (sender, reports) = mpsc::unbounded_channel();
        let roles = Arc::new(FakeRoles(log.clone()));
        let state = StateFile::new(Some(directory.path().join("vrrp.json")));
        Self { engine: Engine::new(fake, wanted, roles, state, sender), reports, log, directory }
    }

    fn started(instances: &[VrrpInstance]) -> Self {
        let mut bench = Self::new(instances);
        bench.engine.start().unwrap();
        bench
    }

    /// Started, and master of all.
    fn master(instances: &[VrrpInstance]) -> Self {
        let mut bench = Self::started(instances);
        bench.pass(MS * 4500);
        for state in bench.states() {
            assert_eq!(state, State::Master);
        }
        bench.log.take();
        bench.notices();
        bench
    }

    fn fake(&mut self) -> &mut Fake {
        self.engine.network_mut()
    }

    fn now(&mut self) -> Instant {
        self.fake().now
    }

    /// Time goes on, and what is due is done in time.
    fn pass(&mut self, time: Duration) {
        let end = self.now() + time;
        for _ in 0..100_000 {
            let deadline = self.engine.deadline();
            if deadline > end {
                self.fake().now = end;
                return;
            }
            let now = self.now();
            self.fake().now = deadline.max(now);
            self.turn(Ready::default());
        }
        panic!("the driver does not come to rest");
    }

    fn turn(&mut self, ready: Ready) {
        self.engine.turn(ready, Vec::new());
    }

    fn order(&mut self, order: Order) {
        self.engine.turn(Ready::default(), vec![order]);
    }

    /// Something has changed on this machine.
    fn changed(&mut self, change: crate::netif::Change) {
        self.fake().changes.push(change);
        self.turn(Ready { changes: true, ..Ready::default() });
    }

    fn arrive(&mut self, arrival: Arrival) {
        self.fake().arrivals.push(arrival);
        self.turn(Ready { packets: true, ..Ready::default() });
    }

    fn states(&mut self) -> Vec<State> {
        self.engine.status().instances.into_iter().map(|instance| instance.view.state).collect()
    }

    fn reports(&mut self) -> Vec<Report> {
        std::iter::from_fn(|| self.reports.try_recv().ok()).collect()
    }

    fn notices(&mut self) -> Vec<String> {
        let notice = |report| match report {
            Report::Notice { subject, text, .. } => Some(format!("{subject}: {text}")),
            _ => None,
        };
        self.reports().into_iter().filter_map(notice).collect()
    }
}

/// An advert of an instance's other director.
fn advert(instance: &VrrpInstance, source: [u8; 4], priority: u8) -> Arrival {
    let (source, destination) = (IpAddr::from(source), IpAddr::V4(packet::GROUP_V4));
    let advert = Advert {
        version: instance.version,
        vrid: instance.virtual_router_id,
        priority,
        interval_ms: u32::try_from(instance.advert_interval.as_millis()).unwrap(),
        addresses: instance.addresses.iter().map(|address| address.address).collect(),
    };
    let seal = Seal { authentication: instance.authentication.clone(), checksum: instance.checksum };
    Arrival {
        channel: Channel { interface: 2, family: instance.family, kind: Kind::Adverts },
        source,
        destination,
        ttl: 255,
        message: packet::encode(&advert, &seal, Endpoints { source, destination }, Stamp::default()),
    }
}

fn roles(names: &[(&str, u16)]) -> BTreeMap<String, u16> {
    names.iter().map(|(name, role)| ((*name).to_owned(), *role)).collect()
}
