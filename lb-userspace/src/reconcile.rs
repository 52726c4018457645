//! What has to be done so that the data plane does what it should: pure.

use std::collections::BTreeSet;

use crate::desired::{Service, ServiceId, State};

/// One step; each leaves the data plane in a state that serves packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A virtual server that is not there yet.
    Add(ServiceId, Service),
    /// One that is there with other contents. Servers that stay keep their connections.
    Change(ServiceId, Service),
    /// One that should not be there.
    Remove(ServiceId),
}

/// The steps from `observed` to `desired`: new ones first, since they take from nobody; what goes, goes last. What is
/// `damaged` is written again even if it is what it should be.
pub fn reconcile(desired: &State, observed: &State, damaged: &BTreeSet<ServiceId>) -> Vec<Operation> {
    let (mut operations, mut changes) = (Vec::new(), Vec::new());
    for (id, service) in desired {
        match observed.get(id) {
            None => operations.push(Operation::Add(*id, service.clone())),
            Some(there) if there != service || damaged.contains(id) => {
                changes.push(Operation::Change(*id, service.clone()));
            }
            Some(_) => {}
        }
    }
    operations.append(&mut changes);
    operations
        .extend(observed.keys().filter(|id| !desired.contains_key(id)).map(|id| Operation::Remove(*id)));
    operations
}

impl Operation {
    /// The virtual server.
    pub const fn id(&self) -> &ServiceId {
        match self {
            Self::Add(id, _) | Self::Change(id, _) | Self::Remove(id) => id,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{Forward, Protocol, Scheduler, SchedulerFlags, Tunnel},
        dataplane::{DataPlane, fake::Fake},
        desired::Server,
    };

    fn any_state() -> impl Strategy<Value = State> {
        let server = (1u8..6, 0u32..4).prop_map(|(host, weight)| Server {
            address: [10, 0, 0, host].into(),
            port: 80,
            forward: Forward::Nat,
            weight,
            tunnel: Tunnel::IPIP,
            is_leaving: false,
            upper_threshold: 0,
            lower_threshold: 0,
        });
        let service = (0..Scheduler::ALL.len(), 0u16..3, proptest::collection::vec(server, 0..4)).prop_map(
            |(s, role, servers)| Service {
                scheduler: Scheduler::ALL[s],
                flags: SchedulerFlags::default(),
                persistence: None,
                one_packet: false,
                expire_nodest: true,
                expire_quiescent: false,
                role,
                servers,
            },
        );
        let id = (1u8..6).prop_map(|host| ServiceId {
            address: [192, 0, 2, host].into(),
            port: 80,
            protocol: Protocol::Tcp,
        });
        proptest::collection::btree_map(id, service, 0..5)
    }

    proptest! {
        #[test]
        fn once_applied_nothing_is_left_to_do(before in any_state(), after in any_state()) {
            let mut plane = Fake::new(before.clone());
            for id in before.keys().step_by(2) {
                plane.damage(*id);
            }
            let damaged = plane.damaged(1).expect("the fake knows").damaged;
            for operation in reconcile(&after, &before, &damaged) {
                plane.apply(&operation).expect("the fake takes every operation that fits its state");
            }
            prop_assert_eq!(plane.observe(), after.clone());
            let damaged: BTreeSet<_> =
                plane.damaged(1).expect("the fake knows").damaged.into_iter().filter(|id| after.contains_key(id)).collect();
            prop_assert!(reconcile(&after, &plane.observe(), &damaged).is_empty());
        }

        #[test]
        fn another_role_is_a_change(state in any_state()) {
            let mut other = state.clone();
            other.values_mut().for_each(|service| service.role += 1);
            let changes: Vec<_> =
                other.iter().map(|(id, service)| Operation::Change(*id, service.clone())).collect();
            prop_assert_eq!(reconcile(&other, &state, &BTreeSet::new()), changes);
        }

        #[test]
        fn what_stays_the_same_is_not_touched(state in any_state()) {
            prop_assert!(reconcile(&state, &state, &BTreeSet::new()).is_empty());
        }
    }
}
