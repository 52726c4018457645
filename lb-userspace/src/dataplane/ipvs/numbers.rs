//! Numbers for real servers: what the rest of the agent knows them by.

use std::{collections::BTreeMap, net::IpAddr};

use crate::desired::{Server, ServiceId};

/// A number for each real server of each virtual server, for as long as it is there.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    by_server: BTreeMap<ServiceId, BTreeMap<(IpAddr, u16), u32>>,
    by_number: BTreeMap<u32, ServiceId>,
    next: u32,
}

impl Numbers {
    /// The servers that a virtual server has from now on; those that stay keep their numbers.
    pub fn set(&mut self, id: ServiceId, servers: &[Server]) {
        let known = self.by_server.remove(&id).unwrap_or_default();
        let mut now = BTreeMap::new();
        for server in servers {
            let place = (server.address, server.port);
            if now.contains_key(&place) {
                continue;
            }
            let number = known.get(&place).copied().unwrap_or_else(|| {
                self.next += 1;
                self.next
            });
            now.insert(place, number);
            self.by_number.insert(number, id);
        }
        for (place, number) in &known {
            if !now.contains_key(place) {
                self.by_number.remove(number);
            }
        }
        if !now.is_empty() {
            self.by_server.insert(id, now);
        }
    }

    /// A server's number.
    pub fn of(&self, id: &ServiceId, server: &Server) -> Option<u32> {
        self.at(id, server.address, server.port)
    }

    /// The same by its address and port.
    pub fn at(&self, id: &ServiceId, address: IpAddr, port: u16) -> Option<u32> {
        self.by_server.get(id)?.get(&(address, port)).copied()
    }

    /// The numbers of a virtual server's servers.
    pub fn all_of(&self, id: &ServiceId) -> impl Iterator<Item = u32> + '_ {
        self.by_server.get(id).into_iter().flat_map(|servers| servers.values().copied())
    }

    /// Whose server has a number.
    pub fn service(&self, number: u32) -> Option<&ServiceId> {
        self.by_number.get(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Forward, Protocol, Tunnel};

    fn server(host: u8) -> Server {
        Server {
            address: [10, 0, 0, host].into(),
            port: 80,
            forward: Forward::Nat,
            weight: 1,
            tunnel: Tunnel::IPIP,
            is_leaving: false,
            upper_threshold: 0,
            lower_threshold: 0,
        }
    }

    #[test]
    fn a_number_means_the_same_server_for_as_long_as_it_is_there() {
        let id = ServiceId { address: [192, 0, 2, 1].into(), port: 80, protocol: Protocol::Tcp };
        let mut numbers = Numbers::default();
        numbers.set(id, &[server(1), server(2)]);
        let (one, two) = (numbers.of(&id, &server(1)).unwrap(), numbers.of(&id, &server(2)).unwrap());
        assert_ne!(one, two);
        numbers.set(id, &[server(3), server(2), server(2)]);
        assert_eq!(numbers.of(&id, &server(2)), Some(two));
        assert_eq!((numbers.of(&id, &server(1)), numbers.service(one)), (None, None));
        let three = numbers.of(&id, &server(3)).unwrap();
        assert!(three != one && numbers.service(three) == Some(&id));
        numbers.set(id, &[]);
        assert!(numbers.by_number.is_empty() && numbers.by_server.is_empty());
    }
}
