//! The usual reload: a few virtual servers have other settings, and everything else is as it was. Then nobody needs to look at the
//! others, of which there may be ten thousand.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    agent::Agent,
    config::{Config, VirtualServer},
    desired::{Inputs, Outcome, ServiceId, outcome},
};

/// With more than this many changes at once the whole is looked at.
const MOST: usize = 256;

/// Positions of the virtual servers that differ, when nothing else of what is served does; `None` when more than that has
/// changed.
pub(super) fn few_changes(old: &Config, new: &Config) -> Option<Vec<usize>> {
    let is_same_place = old.virtual_servers.len() == new.virtual_servers.len() && old.vrrp == new.vrrp;
    if !is_same_place {
        return None;
    }
    let pairs = || old.virtual_servers.iter().zip(&new.virtual_servers);
    // The same memory: what the reader of the file has taken over.
    let changed: Vec<usize> = pairs()
        .enumerate()
        .filter(|(_, (one, other))| !Arc::ptr_eq(one, other))
        .map(|(position, _)| position)
        .take(MOST + 1)
        .collect();
    let has_same_servers = |&at: &usize| old.virtual_servers[at].has_same_servers(&new.virtual_servers[at]);
    (changed.len() <= MOST && changed.iter().all(has_same_servers)).then_some(changed)
}

impl Agent {
    /// Whether the maps have room for these virtual servers of `new` beside what is there.
    pub(super) fn has_room_for_few(&self, new: &Config, changed: &[usize]) -> bool {
        // With every server up: as much room as they can ever need.
        let inputs = Inputs { roles: self.inputs.roles.clone(), ..Inputs::default() };
        let services =
            changed.iter().map(|&position| outcome(&new.virtual_servers[position], &inputs).service);
        self.plane.has_room_for(services, new.servers_checked_through_dataplane())
    }

    /// Works out what follows for virtual servers that have changed; gives what followed before.
    pub(super) fn take_few(&mut self, changed: &[usize]) -> BTreeMap<ServiceId, Outcome> {
        let mut before = BTreeMap::new();
        for &position in changed {
            let virtual_server = &self.config.virtual_servers[position];
            let id = ServiceId::of(virtual_server);
            let new = outcome(virtual_server, &self.inputs);
            self.inputs.quorum.insert(id, new.quorum.is_up);
            before.extend(self.outcomes.insert(id, new).map(|old| (id, old)));
        }
        self.keep_dead(before.keys().copied());
        before
    }
}

/// Whether these virtual servers are checked as before.
pub(super) fn has_same_checks(old: &Config, new: &Config, changed: &[usize]) -> bool {
    changed.iter().all(|&position| {
        let (one, other) = (&old.virtual_servers[position], &new.virtual_servers[position]);
        let checks = |server: &VirtualServer| {
            server.real_servers.iter().map(|one| one.health_checks.clone()).collect::<Vec<_>>()
        };
        one.alpha == other.alpha && checks(one) == checks(other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(weight: u32, host: u8, more: &str) -> String {
        let one = |name: &str, port: u16, weight: u32, host: u8| {
            format!(
                "[[virtual_server]]\nname = \"{name}\"\naddress = \"10.0.0.50:{port}\"\n\
                 [[virtual_server.real_server]]\naddress = \"10.0.1.{host}:{port}\"\nweight = {weight}\n"
            )
        };
        let head = "[director]\ninterfaces = [\"eth0\"]\n";
        format!("{head}{}{}{more}", one("a", 80, 1, 1), one("b", 81, weight, host))
    }

    fn after(old: &str, new: &str) -> Option<Vec<usize>> {
        let (old, _, source) = crate::config::source::parse_after("a.toml", old.into(), None).unwrap();
        let source = source.expect("a file without warnings");
        let (new, ..) =
            crate::config::source::parse_after("a.toml", new.into(), Some((&old, &source))).unwrap();
        few_changes(&old, &new)
    }

    #[test]
    fn only_what_has_changed_is_looked_at() {
        let old = text(1, 1, "");
        assert_eq!(after(&old, &old), Some(vec![]));
        assert_eq!(after(&old, &text(2, 1, "")), Some(vec![1]));
        // Another real server, another virtual server: the whole.
        assert_eq!(after(&old, &text(1, 2, "")), None);
        let more = "[[virtual_server]]\nname = \"c\"\naddress = \"10.0.0.50:82\"\n\
                    [[virtual_server.real_server]]\naddress = \"10.0.1.3:82\"\n";
        assert_eq!(after(&old, &text(1, 1, more)), None);
    }
}
