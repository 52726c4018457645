//! Giving up: what is done, and in which order.

use std::{
    io,
    net::IpAddr,
    num::NonZeroUsize,
    os::fd::OwnedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use nix::{
    net::if_::if_nametoindex,
    sys::mman::{MapFlags, ProtFlags, mmap, munmap},
};

use super::{InstancePlan, Plan, last_word::Mouth, surroundings};
use crate::{
    config::vrrp::{VirtualAddress, VirtualRoute, VirtualRule},
    netif::Kernel,
};

/// What the guard can do to the machine.
pub trait Hands {
    /// Gets ready for a plan. A map of roles that is given takes the place of the last one. What it will not be able to do, in
    /// words.
    fn prepare(&mut self, plan: &Plan, map: Option<OwnedFd>) -> Vec<String>;

    /// Sends an advert of priority 0.
    ///
    /// # Errors
    /// What the kernel says.
    fn last_word(
        &mut self,
        interface: u32,
        source: Option<IpAddr>,
        to: IpAddr,
        message: &[u8],
    ) -> io::Result<()>;

    /// Removes an address. False: it was not there.
    ///
    /// # Errors
    /// What the kernel says.
    fn remove_address(&mut self, interface: u32, address: &VirtualAddress) -> io::Result<bool>;

    /// Removes a route. False: it was not there.
    ///
    /// # Errors
    /// What the kernel says.
    fn remove_route(&mut self, route: &VirtualRoute) -> io::Result<bool>;

    /// Removes a rule. False: it was not there.
    ///
    /// # Errors
    /// What the kernel says.
    fn remove_rule(&mut self, rule: &VirtualRule) -> io::Result<bool>;

    /// The data plane serves this role no more.
    ///
    /// # Errors
    /// When there is no such role.
    fn role_off(&mut self, role: u16) -> io::Result<()>;
}

/// What giving up has come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Addresses that were removed.
    pub addresses: usize,
    /// What did not work, in words, at most [`MOST_FAILURES`].
    pub failures: Vec<String>,
    /// What did not work either.
    pub more_failures: usize,
}

/// So many failures are told one by one.
pub const MOST_FAILURES: usize = 5;

impl Outcome {
    fn note<T>(&mut self, what: impl FnOnce() -> String, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                if self.failures.len() < MOST_FAILURES {
                    self.failures.push(format!("{}: {error}", what()));
                } else {
                    self.more_failures += 1;
                }
                None
            }
        }
    }
}

/// Gives up instances. What others wait for comes first: their backups hear of it, then the addresses go, then what only
/// this machine sees. A failure keeps nothing else from being done.
pub fn give_up(instances: &[&InstancePlan], mute: bool, hands: &mut dyn Hands) -> Outcome {
    let mut outcome = Outcome::default();
    for plan in instances.iter().filter(|_| !mute) {
        for (to, message) in &plan.last_words {
            let sent = hands.last_word(plan.interface, plan.source, *to, message);
            outcome.note(|| format!("{}: the advert of priority 0 to {to}", plan.name), sent);
        }
    }
    for plan in instances {
        for (interface, address) in &plan.addresses {
            let removed = hands.remove_address(*interface, address);
            let removed = outcome.note(|| format!("{}: address {}", plan.name, address.address), removed);
            outcome.addresses += usize::from(removed == Some(true));
        }
    }
    for plan in instances {
        for route in &plan.routes {
            let removed = hands.remove_route(route);
            outcome.note(|| format!("{}: route to {}/{}", plan.name, route.to.0, route.to.1), removed);
        }
        for rule in &plan.rules {
            let removed = hands.remove_rule(rule);
            outcome.note(|| format!("{}: rule for table {}", plan.name, rule.table), removed);
        }
    }
    for plan in instances.iter().filter(|plan| plan.role != 0) {
        let done = hands.role_off(plan.role);
        outcome.note(|| format!("{}: the data plane's role {}", plan.name, plan.role), done);
    }
    outcome
}

/// The real ones. What a plan needs is opened when it comes: in need there may be no descriptor and no memory left.
#[derive(Debug, Default)]
pub struct RealHands {
    kernel: Option<Kernel>,
    mouth: Mouth,
    map: Option<OwnedFd>,
    roles: Option<Roles>,
}

impl RealHands {
    fn kernel(&mut self) -> io::Result<&mut Kernel> {
        match &mut self.kernel {
            Some(kernel) => Ok(kernel),
            empty => Ok(empty.insert(Kernel::open()?)),
        }
    }
}

impl Hands for RealHands {
    fn prepare(&mut self, plan: &Plan, map: Option<OwnedFd>) -> Vec<String> {
        let mut warnings = vec![];
        let mut note = |what: &str, result: io::Result<()>| {
            if let Err(error) = result {
                warnings.push(format!("the guard cannot {what}: {error}"));
            }
        };
        if let Some(map) = map {
            self.map = Some(map);
            self.roles = None;
        }
        if plan.instances.iter().any(InstancePlan::needs_kernel) {
            note("remove addresses", self.kernel().map(|_| ()));
        }
        for failure in self.mouth.prepare(plan) {
            note("send adverts of priority 0", Err(io::Error::other(failure)));
        }
        let highest = plan.instances.iter().map(|instance| instance.role).max().unwrap_or(0);
        // Without a map the data plane goes away with the agent.
        if let Some(map) = self.map.as_ref().filter(|_| highest != 0)
            && self.roles.as_ref().is_none_or(|roles| roles.len <= highest.into())
        {
            let mapped = Roles::map(map, highest);
            note("reach the data plane's roles", mapped.map(|roles| self.roles = Some(roles)));
        }
        warnings.extend(surroundings::schedule(plan.realtime_priority));
        // Last, so that everything else is in the memory by now.
        warnings.extend(surroundings::lock_memory(plan.lock_memory));
        warnings
    }

    fn last_word(
        &mut self,
        interface: u32,
        source: Option<IpAddr>,
        to: IpAddr,
        message: &[u8],
    ) -> io::Result<()> {
        self.mouth.say(interface, source, to, message)
    }

    fn remove_address(&mut self, interface: u32, address: &VirtualAddress) -> io::Result<bool> {
        self.kernel()?.remove_address(interface, address)
    }

    fn remove_route(&mut self, route: &VirtualRoute) -> io::Result<bool> {
        // Only an interface that was asked for: without one the kernel takes the route whose other properties match.
        let interface = match route.interface.as_deref().map(if_nametoindex) {
            None => None,
            Some(Ok(index)) => Some(index),
            // Its routes went with it.
            Some(Err(_)) => return Ok(false),
        };
        self.kernel()?.remove_route(interface, route)
    }

    fn remove_rule(&mut self, rule: &VirtualRule) -> io::Result<bool> {
        self.kernel()?.remove_rule(rule)
    }

    fn role_off(&mut self, role: u16) -> io::Result<()> {
        match &self.roles {
            Some(roles) => roles.off(role),
            None if self.map.is_none() => Ok(()),
            None => Err(io::Error::other("it is not mapped")),
        }
    }
}

/// The data plane's map of roles (a BPF array with BPF_F_MMAPABLE), from its start: a word of 64 bits for each, by its number.
/// 0: not served.
#[derive(Debug)]
struct Roles {
    base: NonNull<u64>,
    len: usize,
}

impl Roles {
    /// Maps the words up to `highest`. The kernel refuses it when the map has fewer (array_map_mmap in kernel/bpf/arraymap.c).
    fn map(map: &OwnedFd, highest: u16) -> io::Result<Self> {
        let len = usize::from(highest) + 1;
        let bytes = NonZeroUsize::new(len * size_of::<u64>()).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, map, 0) }?;
        Ok(Self { base: base.cast(), len })
    }

    fn off(&self, role: u16) -> io::Result<()> {
        if role == 0 || usize::from(role) >= self.len {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: just checked to lie inside the mapping, whose start is that of a page; shared by atomic access only.
        unsafe { AtomicU64::from_ptr(self.base.as_ptr().add(role.into())) }.store(0, SeqCst);
        Ok(())
    }
}

impl Drop for Roles {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`; nothing borrows it any more. It cannot fail with these values.
        let _ = unsafe { munmap(self.base.cast(), self.len * size_of::<u64>()) };
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, os::unix::fs::FileExt as _};

    use super::{
        super::tests::{FakeHands, plan},
        *,
    };

    const ALL_OF_ONE_AND_TWO: [&str; 10] = [
        "say 2 10.0.0.1 224.0.0.18 [1, 2, 3]",
        "say 2 10.0.0.2 224.0.0.18 [1, 2, 3]",
        "address 2 10.1.0.1/32",
        "address 3 fd00::1/128",
        "address 2 10.1.0.2/32",
        "address 3 fd00::2/128",
        "route 10.2.1.0/24",
        "rule 101",
        "route 10.2.2.0/24",
        "rule 102",
    ];

    #[test]
    fn others_hear_of_it_first_and_roles_go_last() {
        let plan = plan(4);
        let mut hands = FakeHands::default();
        let outcome = give_up(&[&plan.instances[1], &plan.instances[2]], false, &mut hands);
        assert_eq!(outcome, Outcome { addresses: 4, ..Outcome::default() });
        let (roles, before) = (&hands.done[10..], &hands.done[..10]);
        assert_eq!(before, ALL_OF_ONE_AND_TWO);
        assert_eq!(roles, ["role 1", "role 2"]);
    }

    #[test]
    fn without_a_role_none_is_switched_off() {
        let mut plan = plan(2);
        plan.instances[1].role = 0;
        let mut hands = FakeHands::default();
        give_up(&[&plan.instances[1]], false, &mut hands);
        assert!(!hands.done.iter().any(|done| done.starts_with("role")), "{:?}", hands.done);
    }

    #[test]
    fn nothing_is_said_twice() {
        let plan = plan(3);
        let mut hands = FakeHands::default();
        give_up(&[&plan.instances[1], &plan.instances[2]], true, &mut hands);
        assert_eq!(hands.done[..8], ALL_OF_ONE_AND_TWO[2..]);
    }

    #[test]
    fn a_failure_keeps_nothing_from_being_done() {
        let plan = plan(5);
        let all: Vec<_> = plan.instances.iter().collect();
        let mut hands = FakeHands::default();
        give_up(&all, false, &mut hands);
        let expected = hands.done;

        let mut hands =
            FakeHands { broken: vec!["say", "address 2", "route", "role 4"], ..FakeHands::default() };
        let outcome = give_up(&all, false, &mut hands);
        assert_eq!(hands.done, expected);
        assert_eq!(outcome.addresses, 5, "those on interface 3");
        assert_eq!(outcome.failures.len(), MOST_FAILURES);
        assert_eq!(outcome.failures.len() + outcome.more_failures, 16);
        assert_eq!(outcome.failures[0], "VI_0: the advert of priority 0 to 224.0.0.18: broken");
    }

    fn roles_file(len: u64) -> File {
        let file = tempfile::tempfile().unwrap();
        for role in 0..len {
            file.write_all_at(&1_u64.to_ne_bytes(), role * 8).unwrap();
        }
        file
    }

    fn served(file: &File) -> Vec<usize> {
        let len = usize::try_from(file.metadata().unwrap().len()).unwrap() / 8;
        let mut word = [0; 8];
        let served = (0..len).filter(|&role| {
            file.read_exact_at(&mut word, role as u64 * 8).unwrap();
            u64::from_ne_bytes(word) != 0
        });
        served.collect()
    }

    /// A plan that needs roles only.
    fn roles_only(roles: &[u16]) -> Plan {
        let instances = roles.iter().map(|&role| InstancePlan { role, ..InstancePlan::default() });
        Plan { instances: instances.collect(), ..Plan::default() }
    }

    #[test]
    fn roles_go_off_one_by_one() {
        let file = roles_file(6);
        let mut hands = RealHands::default();
        let map = || Some(OwnedFd::from(file.try_clone().unwrap()));
        assert_eq!(hands.prepare(&roles_only(&[0, 1, 3]), map()), [""; 0]);
        hands.role_off(3).unwrap();
        assert_eq!(served(&file), [0, 1, 2, 4, 5]);
        assert!(hands.role_off(4).is_err(), "the plan did not have it");
        assert!(hands.role_off(0).is_err(), "that one is on at all times");
        // A larger plan, with the map of before.
        assert_eq!(hands.prepare(&roles_only(&[5, 2]), None), [""; 0]);
        hands.role_off(5).unwrap();
        hands.role_off(1).unwrap();
        assert_eq!(served(&file), [0, 2, 4]);
    }

    #[test]
    fn without_a_map_there_is_nothing_to_switch_off() {
        let mut hands = RealHands::default();
        assert_eq!(hands.prepare(&roles_only(&[1]), None), [""; 0]);
        hands.role_off(1).unwrap();
    }

    #[test]
    fn a_map_that_is_none_is_told() {
        let mut hands = RealHands::default();
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        let warnings = hands.prepare(&roles_only(&[1]), Some(null));
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(warnings[0].starts_with("the guard cannot reach the data plane's roles: "), "{warnings:?}");
        assert!(hands.role_off(1).is_err());
    }
}
