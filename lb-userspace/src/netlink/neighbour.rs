//! What a neighbour entry's state means for a next hop.

use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourMessage, NeighbourState};

/// One entry of the kernel's neighbour table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Neighbour {
    pub state: NeighbourState,
    pub mac: Option<[u8; 6]>,
}

/// What was reported about the same neighbour before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nothing, or that it is being asked for.
    Unknown,
    /// Its MAC address, and it has not been missing for long.
    Known([u8; 6]),
    /// That it does not answer.
    Failed,
}

/// What to report about a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    Known([u8; 6]),
    Pending,
    Failed,
}

impl Neighbour {
    /// An address that the kernel has no entry for.
    pub const MISSING: Self = Self { state: NeighbourState::None, mac: None };

    /// The MAC address, in the states in which the kernel itself would send to it.
    pub fn usable(&self) -> Option<[u8; 6]> {
        match self.state {
            NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
            | NeighbourState::Noarp => self.mac,
            _ => None,
        }
    }

    /// Judges the entry in the light of what was reported before.
    ///
    /// A known neighbour whose entry vanished (flushed, or collected as garbage) stays known while the kernel
    /// asks for it again: it most probably still has its address, and its flows should not suffer. A failed
    /// one stays failed while it is asked for again, so that `status` does not flicker.
    pub fn judge(&self, before: Before) -> Reachability {
        match (self.usable(), &self.state, before) {
            (Some(mac), _, _) => Reachability::Known(mac),
            (None, NeighbourState::Failed, _) | (None, _, Before::Failed) => Reachability::Failed,
            (None, _, Before::Known(mac)) => Reachability::Known(mac),
            (None, _, Before::Unknown) => Reachability::Pending,
        }
    }

    /// Whether the kernel does nothing by itself to find the address.
    pub fn is_idle(&self) -> bool {
        matches!(self.state, NeighbourState::None | NeighbourState::Failed)
    }

    /// Whether the kernel would confirm the address only if it sent packets there, which XDP keeps from it.
    pub fn is_stale(&self) -> bool {
        self.state == NeighbourState::Stale
    }
}

impl From<&NeighbourMessage> for Neighbour {
    fn from(message: &NeighbourMessage) -> Self {
        let mac = message.attributes.iter().find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(mac) => mac.as_slice().try_into().ok(),
            _ => None,
        });
        // An all-zero address is what a device without ARP puts there; no frame should carry it.
        Self { state: message.header.state, mac: mac.filter(|mac| *mac != [0; 6]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OLD: [u8; 6] = [2, 0, 0, 0, 0, 2];

    fn entry(state: NeighbourState, mac: Option<[u8; 6]>) -> Neighbour {
        Neighbour { state, mac }
    }

    #[test]
    fn states_in_which_the_kernel_would_send_are_usable() {
        use NeighbourState as S;
        for state in [S::Reachable, S::Stale, S::Delay, S::Probe, S::Permanent, S::Noarp] {
            for before in [Before::Unknown, Before::Known(OLD), Before::Failed] {
                assert_eq!(entry(state, Some(MAC)).judge(before), Reachability::Known(MAC), "{state:?}");
            }
        }
    }

    #[test]
    fn a_kept_address_of_a_failed_entry_is_not_used() {
        for before in [Before::Unknown, Before::Known(OLD), Before::Failed] {
            assert_eq!(entry(NeighbourState::Failed, Some(MAC)).judge(before), Reachability::Failed);
        }
    }

    #[test]
    fn while_the_kernel_asks_the_former_report_stands() {
        for missing in [Neighbour::MISSING, entry(NeighbourState::Incomplete, None)] {
            assert_eq!(missing.judge(Before::Unknown), Reachability::Pending);
            assert_eq!(missing.judge(Before::Known(OLD)), Reachability::Known(OLD));
            assert_eq!(missing.judge(Before::Failed), Reachability::Failed);
        }
    }

    #[test]
    fn only_entries_that_rest_need_a_push() {
        use NeighbourState as S;
        let idle = |state| entry(state, None).is_idle();
        assert!(idle(S::None) && idle(S::Failed));
        // A push on a permanent entry would make it an ordinary one; see `Kernel::ask`.
        for state in [S::Incomplete, S::Reachable, S::Stale, S::Delay, S::Probe, S::Permanent, S::Noarp] {
            assert!(!idle(state), "{state:?}");
        }
        assert!(entry(S::Stale, Some(MAC)).is_stale());
        assert!(!entry(S::Permanent, Some(MAC)).is_stale());
    }

    #[test]
    fn addresses_that_no_frame_should_carry_are_dropped() {
        for (bytes, expected) in [(MAC.to_vec(), Some(MAC)), (vec![0; 6], None), (vec![1; 4], None)] {
            let mut message = NeighbourMessage::default();
            message.attributes.push(NeighbourAttribute::LinkLayerAddress(bytes));
            assert_eq!(Neighbour::from(&message).mac, expected);
        }
    }
}
