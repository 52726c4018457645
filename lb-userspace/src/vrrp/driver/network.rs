//! Everything that the [engine](super::engine) does to the world, as a trait: tests have one without root and without waiting.

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use super::{burst::Target, holdings::Thing};
use crate::{
    config::vrrp::Family,
    netif::{Change, Interface},
    vrrp::guard::Plan,
};

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Adverts.
    Adverts,
    /// Heartbeats of fast detection.
    Heartbeats,
}

/// One socket: everything of a kind and family on an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel {
    /// Index of the interface.
    pub interface: u32,
    /// Of the packets.
    pub family: Family,
    /// What it is for.
    pub kind: Kind,
}

/// A message to send.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// With which socket.
    pub channel: Channel,
    /// From.
    pub source: IpAddr,
    /// To.
    pub destination: IpAddr,
    /// An IPv4 advert with its header; others without.
    pub packet: &'a [u8],
}

/// A message that has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Where.
    pub channel: Channel,
    /// From.
    pub source: IpAddr,
    /// To; of heartbeats the channel's group or whatever address of ours.
    pub destination: IpAddr,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Without IP and UDP headers.
    pub message: Vec<u8>,
}

/// The world.
pub trait Network {
    /// Monotonic time.
    fn now(&self) -> Instant;
    /// The wall clock: since 1970. May jump.
    fn wall(&self) -> Duration;

    /// All interfaces with their addresses.
    fn interfaces(&mut self) -> io::Result<Vec<Interface>>;
    /// What has changed since the last call. Never blocks.
    fn changes(&mut self) -> io::Result<Vec<Change>>;
    /// Adds things in this order; for each whether it was not there.
    fn add(&mut self, things: &[Thing]) -> Vec<io::Result<bool>>;
    /// Removes things in this order; for each whether it was there.
    fn remove(&mut self, things: &[Thing]) -> Vec<io::Result<bool>>;
    /// Makes a macvlan, or takes over a right one.
    fn add_macvlan(&mut self, parent: u32, name: &str, mac: [u8; 6]) -> io::Result<u32>;
    /// Removes a macvlan; whether it was there.
    fn remove_macvlan(&mut self, name: &str) -> io::Result<bool>;

    /// Opens and closes sockets until these are open. Those that cannot be opened, and why: tried again at the next call.
    fn listen(&mut self, channels: &BTreeSet<Channel>) -> Vec<(Channel, io::Error)>;
    /// What has come, at most so many of each socket. Never blocks.
    fn receive(&mut self, most: usize) -> Vec<Arrival>;
    /// Sends a message. Never blocks.
    fn send(&mut self, outgoing: Outgoing<'_>) -> io::Result<()>;
    /// Sends gratuitous ARPs or unsolicited neighbour advertisements in this order; for each how it went. Never blocks.
    fn announce(&mut self, targets: &[Target]) -> Vec<io::Result<()>>;

    /// Starts the guard or ends it without giving up anything. With `true` while it lives nothing happens.
    fn want_guard(&mut self, wanted: bool, limit: Duration) -> io::Result<()>;
    /// Whether it lives; `None`: there is none.
    fn is_guarded(&mut self) -> Option<bool>;
    /// How it has ended, in words.
    fn guard_ending(&mut self) -> Option<String>;
    /// What it will not be able to do, in words.
    fn guard_warnings(&self) -> &[String];
    /// See [`crate::vrrp::guard::Guard::hand`]. Nothing without a guard. Never blocks.
    fn plan(&mut self, plan: &Plan, roles: Option<&OwnedFd>) -> io::Result<()>;
    /// See [`crate::vrrp::guard::Guard::answered`]. True without a guard. Never blocks.
    fn has_plan(&mut self) -> io::Result<bool>;
    /// See [`crate::vrrp::guard::Guard::set_master`].
    fn mark(&mut self, instance: &str, is_master: bool);
    /// See [`crate::vrrp::guard::Guard::beat`].
    fn beat(&mut self, now: Instant);
    /// See [`crate::vrrp::guard::Guard::was_seized`].
    fn was_seized(&mut self) -> bool;
}
