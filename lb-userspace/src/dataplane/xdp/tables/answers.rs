//! Whose answers the map of NAT servers leads back, read at once: with a hundred thousand servers a system call for each takes
//! longer than all else of a look at them.

use std::{io, os::fd::AsFd};

use lb_common::{server::Server, service::ServiceKey};

use super::{
    super::{mapped::Mapped, syscall},
    entries,
};

/// A bit for each server number.
pub struct Answers(Vec<u64>);

impl Answers {
    /// What the map says now.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(map: impl AsFd, servers: &Mapped<Server>) -> io::Result<Self> {
        let mut bits = vec![0; servers.len().div_ceil(u64::BITS) as usize];
        syscall::each(map, size_of::<u32>(), |key: ServiceKey, value| {
            let number = value.first_chunk().map_or(u32::MAX, |bytes| u32::from_ne_bytes(*bytes));
            let is_its = |entry: &Server| {
                (entry.addr, entry.port, u16::from(entry.proto)) == (key.addr, key.port, key.proto)
            };
            if entries::in_use(servers, number).as_ref().is_some_and(is_its) {
                bits[(number / u64::BITS) as usize] |= 1 << (number % u64::BITS);
            }
            true
        })?;
        Ok(Self(bits))
    }

    /// Whether the map leads from a server's address, port and protocol to this number.
    pub fn lead_to(&self, number: u32) -> bool {
        self.0.get((number / u64::BITS) as usize).is_some_and(|word| word >> (number % u64::BITS) & 1 != 0)
    }
}
