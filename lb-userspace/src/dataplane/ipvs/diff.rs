//! From what the kernel has of a service to what it should have: pure.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{
    render::Rendered,
    words::{Command, Destination, Encapsulation, KernelService, Method},
};

/// The steps, in an order in which there is somebody to take connections at every moment: who comes, who changes, who goes.
/// `None` for `there`: the service is not in the kernel.
///
/// The order of destinations is the kernel's own: it puts a new one first, and moves none.
pub fn steps(there: Option<(&KernelService, &[Destination])>, wanted: &Rendered) -> Vec<Command> {
    let key = wanted.service.key;
    let (mut steps, destinations) = match there {
        None => (vec![Command::AddService(wanted.service.clone())], [].as_slice()),
        Some((service, destinations)) if *service == wanted.service => (Vec::new(), destinations),
        Some((_, destinations)) => (vec![Command::SetService(wanted.service.clone())], destinations),
    };
    let there: BTreeMap<SocketAddr, &Destination> =
        destinations.iter().map(|one| (one.address, one)).collect();
    let (mut changes, mut leaves) = (Vec::new(), Vec::new());
    for one in &wanted.destinations {
        match there.get(&one.address) {
            None => steps.push(Command::AddDestination(key, *one)),
            Some(old) if is_same(old, one) => {}
            // Who gets none any more goes last: somebody else may be about to get more.
            Some(_) if one.weight == 0 => leaves.push(Command::SetDestination(key, *one)),
            Some(_) => changes.push(Command::SetDestination(key, *one)),
        }
    }
    steps.append(&mut changes);
    steps.append(&mut leaves);
    let stays = |address: &SocketAddr| wanted.destinations.iter().any(|one| one.address == *address);
    steps.extend(
        destinations
            .iter()
            .filter(|one| !stays(&one.address))
            .map(|one| Command::RemoveDestination(key, one.address)),
    );
    steps
}

/// Whether the kernel has what it should. It shows a destination on this machine itself as [`Method::Local`], whatever was asked
/// for.
fn is_same(there: &Destination, wanted: &Destination) -> bool {
    let shown = match there.method {
        Method::Local => {
            Destination { method: Method::Local, encapsulation: Encapsulation::default(), ..*wanted }
        }
        _ => *wanted,
    };
    *there == shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::words::Key, *};
    use crate::config::Protocol;

    fn any_rendered() -> impl Strategy<Value = Rendered> {
        let destination = (1u8..5, 0u32..3, 0u8..2).prop_map(|(host, weight, method)| Destination {
            address: SocketAddr::new([10, 0, 0, host].into(), 80),
            method: if method == 0 { Method::Masquerade } else { Method::Route },
            encapsulation: Encapsulation::default(),
            weight,
            upper: 0,
            lower: 0,
        });
        (0u32..2, prop::collection::vec(destination, 0..5)).prop_map(|(flags, mut destinations)| {
            destinations.sort_by_key(|one| one.address);
            destinations.dedup_by_key(|one| one.address);
            let key = Key::Address { address: [192, 0, 2, 1].into(), port: 80, protocol: Protocol::Tcp };
            let service = KernelService { key, scheduler: "rr".to_owned(), flags, timeout: 0, prefix: 32 };
            Rendered { service, destinations }
        })
    }

    /// What the kernel does, as far as it matters here.
    #[derive(Default)]
    struct Table {
        service: Option<KernelService>,
        destinations: Vec<Destination>,
    }

    impl Table {
        fn take(&mut self, step: &Command) {
            match step {
                Command::AddService(service) => {
                    assert!(self.service.is_none());
                    self.service = Some(service.clone());
                }
                Command::SetService(service) => {
                    assert!(self.service.is_some());
                    self.service = Some(service.clone());
                }
                Command::AddDestination(_, one) => {
                    assert!(self.destinations.iter().all(|other| other.address != one.address));
                    self.destinations.insert(0, *one);
                }
                Command::SetDestination(_, one) => {
                    let there = self.destinations.iter_mut().find(|other| other.address == one.address);
                    *there.expect("it is there") = *one;
                }
                Command::RemoveDestination(_, address) => {
                    let before = self.destinations.len();
                    self.destinations.retain(|one| one.address != *address);
                    assert_eq!(self.destinations.len() + 1, before);
                }
                Command::RemoveService(_) | Command::SetTimeouts(_) => panic!("not among these steps"),
            }
        }

        fn serves(&self) -> bool {
            self.destinations.iter().any(|one| one.weight > 0)
        }
    }

    proptest! {
        #[test]
        fn the_steps_lead_there_and_somebody_always_serves(before in any_rendered(), after in any_rendered()) {
            let mut table = Table::default();
            steps(None, &before).iter().for_each(|step| table.take(step));
            let is_served = table.serves() && after.destinations.iter().any(|one| one.weight > 0);
            let todo = steps(table.service.as_ref().map(|service| (service, table.destinations.as_slice())), &after);
            for step in &todo {
                table.take(step);
                prop_assert!(!is_served || table.serves());
            }
            prop_assert_eq!(table.service.as_ref(), Some(&after.service));
            let mut there = table.destinations.clone();
            there.sort_by_key(|one| one.address);
            prop_assert_eq!(&there, &after.destinations);
            prop_assert!(steps(Some((&after.service, &there)), &after).is_empty());
        }
    }
}
