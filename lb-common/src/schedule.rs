//! The pure part of every scheduler: which real server a new connection gets.
//!
//! The aim is that the XDP data plane picks the server that the kernel's IPVS would pick for the
//! same servers and the same packet. The agent computes tables of **positions** (places of real
//! servers in the service's list); the data plane only hashes, counts and looks up.
//!
//! | Scheduler | The agent computes | Per packet |
//! |---|---|---|
//! | `rr`, `wrr` | one full cycle: [`rr_cycle`], [`wrr_cycle`] | a counter |
//! | `lc`, `wlc` | nothing | [`overhead`] with [`wlc_better`] (`lc`: weights of 1, as [`lc_better`]) |
//! | `sh` | [`sh_table`] | [`sh_hash`]; with fallback and thresholds [`sh_probe`] |
//! | `mh` | [`mh_table`], [`mh_mask`] | [`mh_hash`], [`mh_slot`]; with fallback [`mh_probe`] |
//!
//! A server with a threshold may be overloaded ([`is_overloaded`]); every scheduler passes over it.
//!
//! **Order.** Every function takes the servers in the order of the kernel's list. IPVS adds a new
//! server at the head of that list (`__ip_vs_update_dest` in net/netfilter/ipvs/ip_vs_ctl.c), so it
//! is the reverse of the order of configuration: the server added last is asked first. See
//! [`kernel_position`].
//!
//! The tests hold picks that were observed on Linux 6.12; docs/schedulers.md tells more.

use crate::Addr;

mod least;
mod maglev;
mod round_robin;
mod source_hash;
mod threshold;

#[cfg(test)]
mod observed;

pub use least::{lc_better, overhead, wlc_better};
pub use maglev::{
    MH_DEFAULT_SIZE, MH_SIZES, MhError, MhServer, hsiphash_u32, mh_hash, mh_mask, mh_probe, mh_slot, mh_table,
};
pub use round_robin::{rr_cycle, rr_cycle_len, scale_weights, wrr_cycle, wrr_cycle_len, wrr_first_pick};
pub use source_hash::{SH_SLOTS, hash_32, sh_hash, sh_probe, sh_table};
pub use threshold::is_overloaded;

/// A table's slot that holds no server: the packet is refused (IPVS: "no destination available"),
/// or with `mh` and fallback the data plane probes on.
pub const NONE: u16 = u16::MAX;

/// The place in the kernel's list of the server that is `configured`-th (from 0) of `count` in the
/// configuration. It is its own inverse. `configured` must be below `count`.
#[inline]
#[must_use]
pub const fn kernel_position(configured: usize, count: usize) -> usize {
    count - 1 - configured
}

/// What the hashing schedulers take of an address, in host order: the value of an IPv4 address, or the
/// exclusive or of the four words of an IPv6 address.
/// The hashes add a port to it, hence the host order.
#[inline(always)]
#[must_use]
pub const fn addr_fold(address: Addr) -> u32 {
    let w = address.words();
    u32::from_be(if address.is_v4() { w[3] } else { w[0] ^ w[1] ^ w[2] ^ w[3] })
}

/// The greatest common divisor of the weights that are not 0; 0 when there is none.
fn gcd_of(weights: impl Iterator<Item = u32>) -> u32 {
    weights.fold(0, |mut a, mut b| {
        while b != 0 {
            (a, b) = (b, a % b);
        }
        a
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_configured_server_is_first_in_the_kernel_list() {
        assert_eq!(kernel_position(2, 3), 0);
        assert_eq!(kernel_position(0, 3), 2);
        assert_eq!(kernel_position(kernel_position(4, 9), 9), 4);
    }

    #[test]
    fn an_address_folds_in_host_order() {
        let v6 = core::net::Ipv6Addr::new(0x2001, 0xdb8, 0x12, 0x34, 0, 0, 0xffff, 0x5678);
        assert_eq!(addr_fold(Addr::from_ip(v6.into())), 0x2001_0db8 ^ 0x0012_0034 ^ 0xffff_5678);
        let v4 = core::net::Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(addr_fold(Addr::from_ip(v4.into())), 0xc000_0201);
    }

    #[test]
    fn gcd_ignores_zero() {
        assert_eq!(gcd_of([0, 12, 0, 18].into_iter()), 6);
        assert_eq!(gcd_of([0, 0].into_iter()), 0);
        assert_eq!(gcd_of([].into_iter()), 0);
    }
}
