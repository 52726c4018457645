//! What checks have said goes to the same checks of the new configuration, which may have other numbers there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use crate::{
    agent::Agent,
    config::{Config, RealServer, VirtualServer},
    desired::ServiceId,
    health::{CheckId, Report, counterparts},
};

type Reports = BTreeMap<CheckId, Report>;

/// What became of the old checks' numbers, where anything did.
#[derive(Debug, Default)]
pub(super) struct Renumbered {
    /// `None`: the check is no more.
    to: BTreeMap<CheckId, Option<CheckId>>,
    /// New checks of servers that lost one, each with those that were lost.
    instead: BTreeMap<CheckId, Vec<CheckId>>,
}

impl Renumbered {
    /// From one configuration to the next.
    pub(super) fn of(before: &Config, after: &Config) -> Self {
        let new: BTreeMap<ServiceId, &VirtualServer> =
            after.virtual_servers.iter().map(|one| (ServiceId::of(one), &**one)).collect();
        let mut renumbered = Self::default();
        for one in &before.virtual_servers {
            let other = new.get(&ServiceId::of(one)).copied();
            if !other.is_some_and(|other| std::ptr::eq(&raw const **one, other)) {
                renumbered.follow(one, other);
            }
        }
        renumbered
    }

    /// The same when only the virtual servers at these positions differ.
    pub(super) fn of_few(before: &Config, after: &Config, changed: &[usize]) -> Self {
        let mut renumbered = Self::default();
        for &position in changed {
            renumbered.follow(&before.virtual_servers[position], Some(&after.virtual_servers[position]));
        }
        renumbered
    }

    fn follow(&mut self, before: &VirtualServer, after: Option<&VirtualServer>) {
        let service = ServiceId::of(before);
        let servers = after.map(|after| after.real_servers.as_slice()).unwrap_or_default();
        let key = |server: &RealServer| (server.address, server.port);
        let after: BTreeMap<_, &RealServer> = servers.iter().map(|server| (key(server), server)).collect();
        for server in &before.real_servers {
            let new = after.get(&key(server)).map(|new| new.health_checks.as_slice()).unwrap_or_default();
            let id = |index: usize| CheckId {
                service,
                address: server.address,
                port: server.port,
                // There are at most `MAX_CHECKS_OF_A_SERVER`.
                index: index as u32,
            };
            let found = counterparts(&server.health_checks, new);
            let mut to = vec![None; server.health_checks.len()];
            for (position, old) in found.iter().enumerate() {
                old.iter().for_each(|&old| to[old] = Some(id(position)));
            }
            let lost: Vec<CheckId> =
                to.iter().enumerate().filter(|(_, to)| to.is_none()).map(|(old, _)| id(old)).collect();
            if !lost.is_empty() {
                let fresh = found.iter().enumerate().filter(|(_, old)| old.is_none());
                self.instead.extend(fresh.map(|(position, _)| (id(position), lost.clone())));
            }
            let moved = to.into_iter().enumerate().map(|(old, to)| (id(old), to));
            self.to.extend(moved.filter(|(old, to)| *to != Some(*old)));
        }
    }

    /// What the check with this number is now; `None`: there is no such check any more.
    fn new_id(&self, old: &CheckId) -> Option<CheckId> {
        self.to.get(old).copied().unwrap_or(Some(*old))
    }

    /// Gives what was said its new numbers. A new check begins afresh, but not with the server up when it takes
    /// the place of one that had failed: else a reload that mends the check would bring a dead server back.
    pub(super) fn apply(&self, reports: &mut Reports) {
        let old: Reports = self.to.keys().filter_map(|id| reports.remove_entry(id)).collect();
        for (id, lost) in &self.instead {
            let failed = lost.iter().filter_map(|id| old.get(id)).find(|report| !report.is_up);
            if let Some(report) = failed {
                let detail = format!("not checked yet; the check before it said: {}", report.detail);
                let (weight, drain, at) = (None, false, Instant::now());
                reports.insert(*id, Report { id: *id, is_up: false, weight, drain, detail, at });
            }
        }
        for (id, report) in old {
            if let Some(id) = self.new_id(&id) {
                reports.insert(id, Report { id, ..report });
            }
        }
    }
}

impl Agent {
    /// Hands over the new checks. What the old ones said until then still has their numbers.
    pub(super) fn replace_checks(
        &mut self,
        renumbered: &Renumbered,
        reports: &mut tokio::sync::mpsc::UnboundedReceiver<Report>,
    ) -> BTreeSet<ServiceId> {
        let mut late = Vec::new();
        self.health.set_after(self.wanted_checks(), || {
            while let Ok(report) = reports.try_recv() {
                late.push(report);
            }
        });
        let mut concerned = BTreeSet::new();
        for report in late {
            if let Some(id) = renumbered.new_id(&report.id).filter(|id| self.is_check(id)) {
                concerned.insert(id.service);
                self.inputs.reports.insert(id, Report { id, ..report });
            }
        }
        concerned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One virtual server with one real server for each list of types of checks.
    fn config(servers: &[&[&str]]) -> Config {
        let mut text = "[director]\ninterfaces = [\"eth0\"]\n[[virtual_server]]\nname = \"a\"\n\
                        address = \"10.0.0.50:80\"\n"
            .to_owned();
        for (number, checks) in servers.iter().enumerate() {
            text += &format!("[[virtual_server.real_server]]\naddress = \"10.0.1.{}:80\"\n", number + 1);
            let checks: Vec<String> = checks.iter().map(|kind| format!("{{ {kind} }}")).collect();
            text += &format!("health_check = [{}]\n", checks.join(", "));
        }
        let (config, ..) = crate::config::source::parse_after("a.toml", text, None).unwrap();
        config
    }

    fn id(config: &Config, server: usize, index: u32) -> CheckId {
        let virtual_server = &config.virtual_servers[0];
        let RealServer { address, port, .. } = virtual_server.real_servers[server];
        CheckId { service: ServiceId::of(virtual_server), address, port, index }
    }

    /// What is said of the checks of the first server after a reload, by position.
    fn after(old: &[&str], said: &[bool], new: &[&str]) -> Vec<Option<bool>> {
        let (before, after) = (config(&[old, &[TCP]]), config(&[new, &[TCP]]));
        let sample = |(index, is_up)| Report::sample(id(&before, 0, index), is_up, "said");
        let other = Report::sample(id(&before, 1, 0), false, "the other server's");
        let reports = (0..).zip(said.iter().copied()).map(sample).chain([other.clone()]);
        let reports: Reports = reports.map(|report| (report.id, report)).collect();
        let results =
            [Renumbered::of(&before, &after), Renumbered::of_few(&before, &after, &[0])].map(|renumbered| {
                let mut reports = reports.clone();
                renumbered.apply(&mut reports);
                assert_eq!(reports.remove(&other.id).as_ref(), Some(&other));
                assert!(reports.iter().all(|(id, report)| *id == report.id), "{reports:?}");
                let said = |index| Some(reports.remove(&id(&after, 0, index))?.is_up);
                let said: Vec<_> = (0..).take(new.len()).map(said).collect();
                assert_eq!(reports, Reports::new(), "of checks that are no more");
                said
            });
        assert_eq!(results[0], results[1]);
        results.into_iter().next().expect("two")
    }

    const TCP: &str = "type = \"tcp\"";
    const HTTP: &str = "type = \"http\", paths = [\"/\"]";
    const OTHER_HTTP: &str = "type = \"http\", paths = [\"/other\"]";
    const PING: &str = "type = \"ping\"";

    #[test]
    fn what_was_said_follows_its_check() {
        let (up, down) = (Some(true), Some(false));
        assert_eq!(after(&[TCP, HTTP], &[true, false], &[TCP, HTTP]), [up, down]);
        // The first check goes: a dead server stays dead, and one whose broken check went is up.
        assert_eq!(after(&[TCP, HTTP], &[true, false], &[HTTP]), [down]);
        assert_eq!(after(&[TCP, HTTP], &[false, true], &[HTTP]), [up]);
        assert_eq!(after(&[TCP, HTTP], &[true, false], &[HTTP, TCP]), [down, up]);
        assert_eq!(after(&[HTTP], &[false], &[PING, HTTP]), [None, down]);
        assert_eq!(after(&[TCP, HTTP], &[true, false], &[]), []);
    }

    #[test]
    fn another_check_begins_afresh_but_raises_no_dead() {
        let (up, down) = (Some(true), Some(false));
        assert_eq!(after(&[TCP], &[true], &[PING]), [None]);
        assert_eq!(after(&[TCP], &[false], &[PING]), [down]);
        assert_eq!(after(&[HTTP], &[false], &[OTHER_HTTP]), [down]);
        assert_eq!(after(&[TCP, HTTP], &[true, false], &[TCP, OTHER_HTTP]), [up, down]);
        // The failure is still there with its own check.
        assert_eq!(after(&[TCP, HTTP], &[true, false], &[PING, HTTP]), [None, down]);
    }
}
