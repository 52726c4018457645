use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::OwnedFd,
};

use super::{InstancePlan, Plan, hands::Hands};
use crate::config::vrrp::{VirtualAddress, VirtualRoute, VirtualRule};

/// `count` instances that have one of everything; the first has no role.
pub fn plan(count: u16) -> Plan {
    Plan { watchdog_ms: 500, instances: (0..count).map(instance).collect(), ..Plan::default() }
}

fn instance(n: u16) -> InstancePlan {
    let [high, low] = n.to_be_bytes();
    let address = |address: IpAddr, prefix| VirtualAddress { address, prefix, interface: None, label: None };
    InstancePlan {
        name: format!("VI_{n}"),
        interface: 2,
        source: Some(Ipv4Addr::new(10, 0, high, low).into()),
        last_words: vec![(Ipv4Addr::new(224, 0, 0, 18).into(), vec![1, 2, 3])],
        addresses: vec![
            (2, address(Ipv4Addr::new(10, 1, high, low).into(), 32)),
            (3, address(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, n).into(), 128)),
        ],
        routes: vec![VirtualRoute {
            to: (Ipv4Addr::new(10, 2, low, 0).into(), 24),
            via: Some(Ipv4Addr::new(10, 0, 0, 254).into()),
            interface: None,
            source: None,
            table: None,
            metric: Some(u32::from(n)),
        }],
        rules: vec![VirtualRule { from: None, to: None, table: 100 + u32::from(n), priority: None }],
        role: n,
    }
}

/// Writes down what it is asked to do.
#[derive(Debug, Default)]
pub struct FakeHands {
    pub done: Vec<String>,
    /// What begins with one of these fails.
    pub broken: Vec<&'static str>,
    /// What it says to every plan.
    pub warnings: Vec<String>,
}

impl FakeHands {
    fn act(&mut self, what: String) -> io::Result<bool> {
        let is_broken = self.broken.iter().any(|start| what.starts_with(start));
        self.done.push(what);
        if is_broken { Err(io::Error::other("broken")) } else { Ok(true) }
    }
}

impl Hands for FakeHands {
    fn prepare(&mut self, _: &Plan, _: Option<OwnedFd>) -> Vec<String> {
        self.warnings.clone()
    }

    fn last_word(
        &mut self,
        interface: u32,
        source: Option<IpAddr>,
        to: IpAddr,
        message: &[u8],
    ) -> io::Result<()> {
        self.act(format!("say {interface} {} {to} {message:?}", source.unwrap())).map(|_| ())
    }

    fn remove_address(&mut self, interface: u32, address: &VirtualAddress) -> io::Result<bool> {
        self.act(format!("address {interface} {}/{}", address.address, address.prefix))
    }

    fn remove_route(&mut self, route: &VirtualRoute) -> io::Result<bool> {
        self.act(format!("route {}/{}", route.to.0, route.to.1))
    }

    fn remove_rule(&mut self, rule: &VirtualRule) -> io::Result<bool> {
        self.act(format!("rule {}", rule.table))
    }

    fn role_off(&mut self, role: u16) -> io::Result<()> {
        self.act(format!("role {role}")).map(|_| ())
    }
}

#[test]
fn plans_survive_their_trip() {
    let mut before = plan(3);
    before.realtime_priority = Some(50);
    before.lock_memory = true;
    let json = serde_json::to_vec(&before).unwrap();
    assert_eq!(serde_json::from_slice::<Plan>(&json).unwrap(), before);
}
