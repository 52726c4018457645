//! What is known of real servers' addresses: which numbers have them, and how frames reach them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use super::entries::Hop;

/// Addresses of real servers.
#[derive(Default)]
pub struct Addresses {
    /// One set for all: one for each address would take several times the memory.
    numbers: BTreeSet<(IpAddr, u32)>,
    hops: BTreeMap<IpAddr, Arc<Hop>>,
    /// The hop that was set last: most addresses share it with the one before, being behind one router.
    last: Option<Arc<Hop>>,
}

impl Addresses {
    /// The numbers of the servers that have an address.
    pub fn numbers(&self, address: IpAddr) -> impl Iterator<Item = u32> + '_ {
        self.numbers.range((address, 0)..=(address, u32::MAX)).map(|(_, number)| *number)
    }

    /// A server has this address from now on.
    pub fn add(&mut self, address: IpAddr, number: u32) {
        self.numbers.insert((address, number));
    }

    /// It has it no more.
    pub fn remove(&mut self, address: IpAddr, number: u32) {
        self.numbers.remove(&(address, number));
    }

    /// How frames reach an address, if that is known.
    pub fn hop(&self, address: IpAddr) -> Option<Hop> {
        self.hops.get(&address).map(|hop| **hop)
    }

    /// Sets how they do.
    pub fn set_hop(&mut self, address: IpAddr, hop: Hop) {
        let shared = match &self.last {
            Some(last) if **last == hop => Arc::clone(last),
            _ => Arc::clone(self.last.insert(Arc::new(hop))),
        };
        self.hops.insert(address, shared);
    }

    /// Sets it unless it is known.
    pub fn set_hop_if_unknown(&mut self, address: IpAddr, hop: Hop) {
        if !self.hops.contains_key(&address) {
            self.set_hop(address, hop);
        }
    }
}
