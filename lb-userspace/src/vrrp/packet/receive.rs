//! From what came off the wire to what the state machine may hear: all checks of RFC 3768 7.1 and RFC 9568 7.1 but those of
//! the machine itself (addresses, version 2's interval, being the owner).

use super::{Discard, Endpoints, Expectation, Received, ReplayGuard, TTL, decode};
use crate::config::vrrp::UnicastPeer;

/// What a receiving instance goes by.
#[derive(Debug, Clone)]
pub struct Receiver<'a> {
    /// What it expects of a message.
    pub expected: Expectation<'a>,
    /// Its unicast peers; empty: it hears the group.
    pub unicast_peers: &'a [UnicastPeer],
    /// Whether a unicast advert must come from one of them.
    pub check_unicast_source: bool,
}

/// Judges a message (without its IP header) that came with this TTL or hop limit.
///
/// `replays` is the instance's own; it learns from messages that are right but for, at most, their interval.
///
/// # Errors
/// Why it has to be discarded: the first reason in [`Discard`]'s order.
pub fn receive(
    message: &[u8],
    ttl: u8,
    endpoints: Endpoints,
    receiver: &Receiver<'_>,
    replays: &mut ReplayGuard,
) -> Result<Received, Discard> {
    check_way(ttl, endpoints, receiver)?;
    let received = decode(message, &receiver.expected, endpoints)?;
    if let Some((key, stamp)) = received.stamp {
        replays.accept(endpoints.source, key, stamp)?;
    }
    // RFC 9568 5.2.7: 1 at least. Who learned a zero would never be still.
    if received.advert.interval_ms == 0 {
        return Err(Discard::Interval);
    }
    Ok(received)
}

/// A message to the group comes from this link (RFC 9568 5.1.1.3). A unicast peer may be far away: as in keepalived there is
/// no limit then unless one is given.
fn check_way(ttl: u8, endpoints: Endpoints, receiver: &Receiver<'_>) -> Result<(), Discard> {
    let peers = receiver.unicast_peers;
    let peer = peers.iter().find(|peer| peer.address == endpoints.source);
    let limits = match peer {
        Some(peer) => peer.min_ttl.unwrap_or(u8::MIN)..=peer.max_ttl.unwrap_or(u8::MAX),
        None if peers.is_empty() => TTL..=TTL,
        None => u8::MIN..=u8::MAX,
    };
    if !limits.contains(&ttl) {
        return Err(Discard::Ttl);
    }
    if endpoints.destination.is_multicast() != peers.is_empty() {
        return Err(Discard::Destination);
    }
    if !peers.is_empty() && peer.is_none() && receiver.check_unicast_source {
        return Err(Discard::UnknownPeer);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
