//! What the driver keeps for an instance beside its machine.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use super::InstanceStatus;
use crate::{
    config::vrrp::{Authentication, Family, HmacMode, MAX_ADVERTISED_ADDRESSES, VrrpInstance},
    vrrp::{
        driver::{
            burst::Target,
            heartbeat,
            holdings::{Named, Thing},
            network::{Channel, Kind},
        },
        fsm::InstanceView,
        packet::{self, Advert, Endpoints, Expectation, Receiver, ReplayGuard, Seal, Stamp},
    },
};

/// Of how many senders the last heartbeat's number is kept: only who has the key gets in.
const SENDERS: usize = 64;

/// A message or packet, with where it goes.
pub type Message = (IpAddr, Vec<u8>);

/// One instance.
#[derive(Debug)]
pub struct Instance {
    pub config: VrrpInstance,
    /// Number of its role in the data plane; 0: none.
    pub role: u16,
    pub named: Named,
    pub place: Place,
    /// Why it can neither send nor hear adverts, in words; `None`: it can, as far as its interface does.
    pub silenced: Option<String>,
    /// Whether the machine has been told of its source.
    knows_source: bool,
    /// [`Self::named`] on this machine now.
    pub things: Vec<Thing>,
    /// What it had under earlier settings, as long as that lingers.
    pub going: Vec<Thing>,
    /// Whether it is master and has its things.
    pub is_held: bool,
    /// Before that nothing is put back again.
    pub restore_after: Option<Instant>,
    pub counts: Counts,
    seal: Seal,
    ip_id: u16,
    /// The last messages, by priority, for where they do not differ from one to the next.
    encoded: Option<(u8, Vec<Message>)>,
    replays: ReplayGuard,
    sequences: BTreeMap<IpAddr, u64>,
}

/// Where an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Place {
    /// Its interface.
    pub parent: Option<u32>,
    /// Where it sends and hears adverts: its macvlan, if it has one, for what another master sends with the same MAC address
    /// comes nowhere else.
    pub adverts: Option<u32>,
    /// From which address.
    pub source: Option<IpAddr>,
}

/// See [`InstanceStatus`].
#[derive(Debug, Clone, Default)]
pub struct Counts {
    pub sent: u64,
    pub sent_zero: u64,
    pub send_errors: u64,
    pub received: u64,
    pub received_zero: u64,
    pub discarded: BTreeMap<&'static str, u64>,
    pub checksums: (u64, u64),
    pub announced: u64,
    pub restored: u64,
}

impl Instance {
    pub fn new(config: &VrrpInstance, roles: &BTreeMap<String, u16>) -> Self {
        let seal = Seal { authentication: config.authentication.clone(), checksum: config.checksum };
        Self {
            role: roles.get(&config.name).copied().unwrap_or(0),
            named: Named::of(config),
            place: Place::default(),
            silenced: None,
            knows_source: false,
            things: Vec::new(),
            going: Vec::new(),
            is_held: false,
            restore_after: None,
            counts: Counts::default(),
            seal,
            ip_id: 0,
            encoded: None,
            replays: ReplayGuard::default(),
            sequences: BTreeMap::new(),
            config: config.clone(),
        }
    }

    /// Takes over what goes on under other settings.
    pub fn continue_from(&mut self, old: Self) {
        self.is_held = old.is_held;
        self.place = old.place;
        self.things = old.things;
        self.going = old.going;
        self.restore_after = old.restore_after;
        self.counts = old.counts;
        self.ip_id = old.ip_id;
        if self.config.authentication == old.config.authentication {
            self.replays = old.replays;
            self.sequences = old.sequences;
        }
    }

    /// Where it is, and its things there, may be others now; whether they are.
    pub fn set_place(&mut self, parent: Option<u32>, adverts: Option<u32>, things: Vec<Thing>) -> bool {
        let place = Place { parent, adverts, ..self.place };
        let is_other = self.place != place || self.things != things;
        (self.place, self.things) = (place, things);
        is_other
    }

    /// Whether the machine has been told of this source.
    pub fn knows_source(&self, source: Option<IpAddr>) -> bool {
        self.knows_source && self.place.source == source
    }

    /// Sends from there from now on, which the machine knows.
    pub fn set_source(&mut self, source: Option<IpAddr>) {
        self.encoded = None;
        self.place.source = source;
        self.knows_source = true;
    }

    /// Its sockets.
    pub fn channel(&self, kind: Kind) -> Option<Channel> {
        let interface = match kind {
            Kind::Adverts => self.place.adverts,
            Kind::Heartbeats => self.place.parent.filter(|_| self.config.fast_detection.is_some()),
        };
        interface.map(|interface| Channel { interface, family: self.config.family, kind })
    }

    /// Where its messages go.
    pub fn destinations(&self) -> Vec<IpAddr> {
        if !self.config.unicast_peers.is_empty() {
            return self.config.unicast_peers.iter().map(|peer| peer.address).collect();
        }
        match self.config.family {
            Family::Ipv4 => vec![IpAddr::V4(packet::GROUP_V4)],
            Family::Ipv6 => vec![IpAddr::V6(packet::GROUP_V6)],
        }
    }

    /// Whether each of its adverts has a stamp of its own.
    pub fn is_stamped(&self) -> bool {
        matches!(&self.config.authentication, Authentication::Hmac(hmac) if hmac.mode != HmacMode::ReceiveOnly)
    }

    /// An advert, ready to be sent, for each destination; `stamp` is asked for only where it is needed. Nothing without a source.
    pub fn advert(&mut self, priority: u8, stamp: impl FnOnce() -> Stamp) -> Vec<Message> {
        let Some(source) = self.place.source else { return Vec::new() };
        if self.is_stamped() {
            let messages = self.encode(priority, source, stamp());
            return self.with_headers(source, &messages);
        }
        let messages = match self.encoded.take() {
            Some((encoded, messages)) if encoded == priority => messages,
            _ => self.encode(priority, source, Stamp::default()),
        };
        let packets = self.with_headers(source, &messages);
        self.encoded = Some((priority, messages));
        packets
    }

    /// The same for somebody else to send: it does not count as a packet of ours. Without a stamp they are always the same, to
    /// be compared.
    pub fn last_words(&mut self, stamp: Option<Stamp>) -> Vec<Message> {
        let Some(source) = self.place.source else { return Vec::new() };
        let (messages, ip_id) = (self.encode(0, source, stamp.unwrap_or_default()), self.ip_id);
        if stamp.is_none() {
            self.ip_id = 0;
        }
        let packets = self.with_headers(source, &messages);
        self.ip_id = ip_id;
        packets
    }

    fn encode(&self, priority: u8, source: IpAddr, stamp: Stamp) -> Vec<Message> {
        let config = &self.config;
        let advert = Advert {
            version: config.version,
            vrid: config.virtual_router_id,
            priority,
            interval_ms: u32::try_from(config.advert_interval.as_millis()).unwrap_or(u32::MAX),
            addresses: config.addresses.iter().take(MAX_ADVERTISED_ADDRESSES).map(|a| a.address).collect(),
        };
        let encode =
            |destination| packet::encode(&advert, &self.seal, Endpoints { source, destination }, stamp);
        self.destinations().into_iter().map(|destination| (destination, encode(destination))).collect()
    }

    /// IPv4's header before each; its id counts the instance's packets from 1, as keepalived's.
    fn with_headers(&mut self, source: IpAddr, messages: &[Message]) -> Vec<Message> {
        let mut with_header = |source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]| {
            self.ip_id = self.ip_id.checked_add(1).unwrap_or(1);
            packet::with_ipv4_header(message, source, destination, self.ip_id)
        };
        let packet = |(destination, message): &Message| match (source, *destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => (*destination, with_header(from, to, message)),
            _ => (*destination, message.clone()),
        };
        messages.iter().map(packet).collect()
    }

    /// Judges an advert that came.
    pub fn read(
        &mut self,
        message: &[u8],
        ttl: u8,
        endpoints: Endpoints,
    ) -> Result<packet::Received, packet::Discard> {
        let receiver = Receiver {
            expected: Expectation {
                version: self.config.version,
                vrid: self.config.virtual_router_id,
                seal: &self.seal,
            },
            unicast_peers: &self.config.unicast_peers,
            check_unicast_source: self.config.check_unicast_source,
        };
        packet::receive(message, ttl, endpoints, &receiver, &mut self.replays)
    }

    /// Judges a heartbeat that came; how long it lasts, zero: it was the last one.
    pub fn read_heartbeat(
        &mut self,
        message: &[u8],
        ttl: u8,
        source: IpAddr,
    ) -> Result<Duration, heartbeat::Discard> {
        let peers = &self.config.unicast_peers;
        let is_peer = peers.iter().any(|peer| peer.address == source);
        // A peer that sends from further away than this is found out by its adverts alone.
        if ttl != packet::TTL {
            return Err(heartbeat::Discard::Ttl);
        }
        if !peers.is_empty() && !is_peer {
            return Err(heartbeat::Discard::UnknownPeer);
        }
        let (heartbeat, is_sealed) = heartbeat::decode(message, &self.config.authentication, source)?;
        if is_sealed {
            let last = self.sequences.get(&source).copied();
            if last.is_some_and(|last| heartbeat.sequence <= last) {
                return Err(heartbeat::Discard::Replay);
            }
            if last.is_none() && self.sequences.len() >= SENDERS {
                self.sequences.pop_first();
            }
            self.sequences.insert(source, heartbeat.sequence);
        }
        Ok(if heartbeat.last { Duration::ZERO } else { heartbeat.lasts })
    }

    /// A reason of the machine, which takes every lack of a source for the lack of an address.
    pub fn reword(&self, reason: String) -> String {
        let Some(silenced) = &self.silenced else { return reason };
        reason.replace(&format!("interface {} has no address to send from", self.config.interface), silenced)
    }

    /// What there is to announce.
    pub fn targets(&self, links: &crate::vrrp::driver::links::Links) -> Vec<Target> {
        crate::vrrp::driver::holdings::targets(&self.things, links)
    }

    pub fn status(&self, mut view: InstanceView) -> InstanceStatus {
        view.reason = self.reword(view.reason);
        let counts = self.counts.clone();
        InstanceStatus {
            name: self.config.name.clone(),
            view,
            source: self.place.source,
            sent: counts.sent,
            sent_zero: counts.sent_zero,
            send_errors: counts.send_errors,
            received: counts.received,
            received_zero: counts.received_zero,
            discarded: counts.discarded,
            checksums: counts.checksums,
            announced: counts.announced,
            restored: counts.restored,
        }
    }
}
