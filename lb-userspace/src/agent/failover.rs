//! VRRP in the agent: what it is told, and what its changes mean for people.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::sync::mpsc;

use super::{Agent, Incoming, events::Severity};
use crate::{
    api::vrrp::{TrackedStatus, VrrpChecksums, VrrpGroupStatus, VrrpInstanceStatus, VrrpStatus, VrrpWeight},
    config::{
        Command, Config,
        vrrp::{self as config, TrackKey, VrrpInstance},
    },
    notify::Notification,
    orders,
    vrrp::{
        Report, State, TrackValue, Tracked, Vrrp,
        driver::{InstanceStatus, Wanted},
        track::Trackers,
    },
};

/// How long the end waits until the addresses are given up.
const LAST_ADVERTS: Duration = Duration::from_secs(1);

/// The running VRRP; there only while the configuration has instances.
pub(super) struct Failover {
    vrrp: Vrrp,
    trackers: Trackers,
    /// What the driver was last told of the virtual servers that are tracked.
    told: BTreeMap<String, bool>,
}

/// The next report of VRRP; never while there is none.
///
/// # Errors
/// When its thread has ended by itself: it has given its addresses up, and nothing here would take them again.
pub(super) async fn next(reports: &mut Option<mpsc::UnboundedReceiver<Report>>) -> anyhow::Result<Report> {
    match reports {
        Some(receiver) => {
            receiver.recv().await.context("the VRRP driver has failed; its last words are above")
        }
        None => std::future::pending().await,
    }
}

/// The file in which the driver remembers what it may leave on the machine.
pub(super) fn state_file(orders: &orders::Store, config: &Config) -> PathBuf {
    orders.directory().join(format!("{}.vrrp.json", config.director.instance))
}

/// Gives each instance the number of its role in the data plane. One that stays keeps its number, and one that has just gone is
/// not given to another as long as there are others: virtual servers that drain still carry it.
pub(super) fn assign_roles(roles: &mut BTreeMap<String, u16>, config: &Config) {
    let names: BTreeSet<&str> = config.vrrp.instances.iter().map(|one| one.name.as_str()).collect();
    let used: BTreeSet<u16> = roles.values().copied().collect();
    roles.retain(|name, _| names.contains(name.as_str()));
    let most = u16::try_from(config::MAX_VRRP_INSTANCES).unwrap_or(u16::MAX);
    for instance in &config.vrrp.instances {
        if roles.contains_key(&instance.name) {
            continue;
        }
        let is_free = |roles: &BTreeMap<String, u16>, number: &u16| !roles.values().any(|one| one == number);
        let number = (1..=most)
            .find(|number| is_free(roles, number) && !used.contains(number))
            .or_else(|| (1..=most).find(|number| is_free(roles, number)));
        // The configuration has no more instances than there are numbers.
        roles.extend(number.map(|number| (instance.name.clone(), number)));
    }
}

impl Agent {
    fn vrrp_wanted(&self) -> Wanted {
        Wanted { config: self.config.vrrp.clone(), roles: self.inputs.roles.clone() }
    }

    /// Starts, changes or ends VRRP as the configuration wants it.
    ///
    /// # Errors
    /// When it cannot be started; nothing of it runs then.
    pub(super) fn follow_vrrp(&mut self, incoming: &mut Incoming) -> anyhow::Result<()> {
        let wants = !self.config.vrrp.instances.is_empty();
        match (&mut self.failover, wants) {
            (None, false) => {}
            (Some(failover), true) => {
                let config = &self.config.vrrp;
                failover.vrrp.set(Wanted { config: config.clone(), roles: self.inputs.roles.clone() });
                failover.trackers.set(config);
            }
            (Some(_), false) => {
                self.give_up_addresses(incoming);
                self.failover = None;
            }
            (None, true) => {
                // Where that cannot be, the driver says so.
                let _ = std::fs::create_dir_all(self.orders.directory());
                let state = state_file(&self.orders, &self.config);
                let (vrrp, reports) = Vrrp::spawn(self.vrrp_wanted(), self.plane.roles(), Some(state))
                    .context("VRRP cannot be started")?;
                let tracks = vrrp.tracks();
                let trackers = Trackers::spawn(self.script_user.clone(), move |tracked| tracks.send(tracked))
                    .context("no thread for what VRRP tracks")?;
                trackers.set(&self.config.vrrp);
                incoming.failover = Some(reports);
                self.failover = Some(Failover { vrrp, trackers, told: BTreeMap::new() });
            }
        }
        self.tell_virtual_servers();
        Ok(())
    }

    /// The data plane has been loaded again.
    pub(super) fn lead_roles(&self) {
        if let Some(failover) = &self.failover {
            failover.vrrp.set_roles(self.plane.roles());
        }
    }

    /// Tells VRRP which of the tracked virtual servers are up, as far as it does not know.
    pub(super) fn tell_virtual_servers(&mut self) {
        let Some(failover) = &mut self.failover else { return };
        let config = &self.config.vrrp;
        let instances = config.instances.iter().flat_map(|one| &one.tracks);
        let groups = config.sync_groups.iter().flat_map(|one| &one.tracks);
        let tracked: BTreeSet<&str> = instances
            .chain(groups)
            .filter_map(|track| match &track.key {
                TrackKey::VirtualServer(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        failover.told.retain(|name, _| tracked.contains(name.as_str()));
        if tracked.is_empty() {
            return;
        }
        let tracks = failover.vrrp.tracks();
        for virtual_server in &self.config.virtual_servers {
            if !tracked.contains(virtual_server.name.as_str()) {
                continue;
            }
            let id = crate::desired::ServiceId::of(virtual_server);
            let Some(quorum) = self.outcomes.get(&id).map(|outcome| outcome.quorum) else { continue };
            let name = virtual_server.name.clone();
            if failover.told.insert(name.clone(), quorum.is_up) == Some(quorum.is_up) {
                continue;
            }
            let value = if quorum.is_up { TrackValue::Up } else { TrackValue::Down };
            let detail = format!(
                "living servers have weight {}, {} wanted",
                quorum.alive_weight, virtual_server.quorum
            );
            tracks.send(Tracked { key: TrackKey::VirtualServer(name), value, detail });
        }
    }

    /// Gives up all addresses and tells of it.
    pub(super) fn give_up_addresses(&mut self, incoming: &mut Incoming) {
        let Some(Failover { vrrp, trackers, told: _ }) = self.failover.take() else { return };
        vrrp.stop(LAST_ADVERTS);
        // Its end waits for its thread.
        drop(trackers);
        if let Some(mut reports) = incoming.failover.take() {
            while let Ok(report) = reports.try_recv() {
                self.vrrp_reported(report);
            }
        }
    }

    /// VRRP has something to say.
    pub(super) fn vrrp_reported(&mut self, report: Report) {
        match report {
            Report::Instance { name, from, to, priority, reason, took } => {
                let word = word(to);
                let severity = if to == State::Fault { Severity::Bad } else { Severity::Good };
                let text = format!("{} -> {word}: {reason}", from.as_str());
                self.events.tell(severity, &format!("vrrp {name}"), text);
                tracing::debug!("vrrp {name}: done {} us after what caused it", took.as_micros());
                let all = self.config.vrrp.instances.iter().chain(&self.vrrp_before.instances);
                let Some(instance) = all.into_iter().find(|one| one.name == name) else { return };
                let scripts = Scripts {
                    kind: "INSTANCE",
                    name: &name,
                    priority,
                    of_state: script_of(instance, to),
                    always: instance.notify.as_ref(),
                };
                scripts.run(to, &self.notifier);
                if let (true, Some(mailer)) = (instance.mail, &self.mailer) {
                    let text = format!("VRRP instance {name} - entering {word} state");
                    mailer.send(&text, format!("{text}: {reason}\n"));
                }
            }
            Report::Group { name, to, reason } => {
                let word = word(to);
                let severity = if to == State::Fault { Severity::Bad } else { Severity::Good };
                self.events.tell(severity, &format!("vrrp group {name}"), format!("{word}: {reason}"));
                let all = self.config.vrrp.sync_groups.iter().chain(&self.vrrp_before.sync_groups);
                let Some(group) = all.into_iter().find(|one| one.name == name) else { return };
                let of_state = match to {
                    State::Master => &group.notify_master,
                    State::Backup => &group.notify_backup,
                    State::Fault => &group.notify_fault,
                    State::Init => &group.notify_stop,
                };
                let scripts = Scripts {
                    kind: "GROUP",
                    name: &name,
                    priority: 0,
                    of_state: of_state.as_ref(),
                    always: group.notify.as_ref(),
                };
                scripts.run(to, &self.notifier);
                if let (true, Some(mailer)) = (group.mail, &self.mailer) {
                    let text = format!("VRRP group {name} - entering {word} state");
                    mailer.send(&text, format!("{text}: {reason}\n"));
                }
            }
            Report::Notice { subject, is_bad, text } => {
                let severity = if is_bad { Severity::Bad } else { Severity::Good };
                self.events.tell(severity, &format!("vrrp {subject}"), text);
            }
        }
    }

    /// An instance gives up for maintenance, or that is lifted.
    pub(super) fn vrrp_order(&mut self, instance: &str, resume: bool) -> Result<VrrpStatus, String> {
        let none = || "there is no VRRP instance in the configuration".to_owned();
        let failover = self.failover.as_ref().ok_or_else(none)?;
        if !self.config.vrrp.instances.iter().any(|one| one.name == instance) {
            let names: Vec<&str> = self.config.vrrp.instances.iter().map(|one| one.name.as_str()).collect();
            return Err(format!("there is no VRRP instance \"{instance}\"; there are {}", names.join(", ")));
        }
        let done = if resume { failover.vrrp.resume(instance) } else { failover.vrrp.handover(instance) };
        done?;
        let text = if resume { "the handover is lifted by operator" } else { "handed over by operator" };
        self.events.tell(Severity::Good, &format!("vrrp {instance}"), text.to_owned());
        Ok(self.vrrp_status().unwrap_or_default())
    }

    /// How VRRP is; `None` without it.
    pub(super) fn vrrp_status(&self) -> Option<VrrpStatus> {
        let status = self.failover.as_ref()?.vrrp.status();
        let config = &self.config.vrrp;
        let known: BTreeMap<&str, &VrrpInstance> =
            config.instances.iter().map(|one| (one.name.as_str(), one)).collect();
        let instances = status
            .instances
            .iter()
            .filter_map(|one| Some(instance_status(one, known.get(one.name.as_str())?)))
            .collect();
        let members: BTreeMap<&str, &Vec<String>> =
            config.sync_groups.iter().map(|one| (one.name.as_str(), &one.instances)).collect();
        let groups = status.groups.iter().map(|(name, state)| VrrpGroupStatus {
            name: name.clone(),
            state: state.as_str().to_owned(),
            instances: members.get(name.as_str()).map(|members| (*members).clone()).unwrap_or_default(),
        });
        Some(VrrpStatus {
            instances,
            groups: groups.collect(),
            tracked: status.tracked.iter().map(tracked_status).collect(),
            unknown_vrid: status.unknown_vrid,
            guard: status.guard,
            warnings: status.warnings,
            longest_delay_seconds: status.longest_delay.as_secs_f64(),
        })
    }
}

fn instance_status(status: &InstanceStatus, config: &VrrpInstance) -> VrrpInstanceStatus {
    let view = &status.view;
    let address = |one: &config::VirtualAddress| format!("{}/{}", one.address, one.prefix);
    VrrpInstanceStatus {
        name: status.name.clone(),
        state: view.state.as_str().to_owned(),
        since_seconds: Instant::now().saturating_duration_since(view.since).as_secs(),
        reason: view.reason.clone(),
        interface: config.interface.clone(),
        virtual_router_id: config.virtual_router_id,
        version: match config.version {
            config::Version::V2 => 2,
            config::Version::V3 => 3,
        },
        master: view.master,
        master_priority: view.master_priority,
        advert_interval_seconds: f64::from(view.master_interval_ms) / 1000.0,
        priority: config.priority,
        effective_priority: view.effective_priority,
        weights: view
            .weights
            .iter()
            .map(|(key, weight)| VrrpWeight { track: key.to_string(), weight: *weight })
            .collect(),
        faults: view.faults.clone(),
        handed_over: view.is_handed_over,
        source: status.source,
        addresses: config.addresses.iter().chain(&config.excluded_addresses).map(address).collect(),
        sent: status.sent,
        sent_zero: status.sent_zero,
        send_errors: status.send_errors,
        received: status.received,
        received_zero: status.received_zero,
        discarded: status.discarded.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        checksums: VrrpChecksums { pseudo_header: status.checksums.0, rfc9568: status.checksums.1 },
        announced: status.announced,
        restored: status.restored,
        became_master: view.became_master,
        released_master: view.released_master,
    }
}

fn tracked_status(tracked: &Tracked) -> TrackedStatus {
    let (up, number) = match tracked.value {
        TrackValue::Up => (Some(true), None),
        TrackValue::Down => (Some(false), None),
        TrackValue::Number(number) => (None, Some(number)),
    };
    TrackedStatus { track: tracked.key.to_string(), up, number, detail: tracked.detail.clone() }
}

/// keepalived's word for scripts: an instance that has ended is in STOP.
fn word(state: State) -> &'static str {
    match state {
        State::Init => "STOP",
        other => other.as_str(),
    }
}

fn script_of(instance: &VrrpInstance, state: State) -> Option<&Command> {
    match state {
        State::Master => instance.notify_master.as_ref(),
        State::Backup => instance.notify_backup.as_ref(),
        State::Fault => instance.notify_fault.as_ref(),
        State::Init => instance.notify_stop.as_ref(),
    }
}

/// The scripts of one change: first the state's own, without more arguments, then the one for all, with keepalived's.
struct Scripts<'a> {
    kind: &'static str,
    name: &'a str,
    priority: u8,
    of_state: Option<&'a Command>,
    always: Option<&'a Command>,
}

impl Scripts<'_> {
    fn run(&self, to: State, notifier: &crate::notify::Notifier) {
        let environment = vec![
            ("XDIRECTOR_VRRP_KIND".to_owned(), self.kind.to_owned()),
            ("XDIRECTOR_VRRP_NAME".to_owned(), self.name.to_owned()),
            ("XDIRECTOR_STATE".to_owned(), word(to).to_owned()),
        ];
        let arguments = [self.kind, self.name, word(to), &self.priority.to_string()].map(str::to_owned);
        let scripts = [(self.of_state, Vec::new()), (self.always, arguments.to_vec())];
        for (command, arguments) in scripts {
            let Some(command) = command else { continue };
            notifier.run(Notification {
                queue: format!("vrrp {} {}", self.kind.to_ascii_lowercase(), self.name),
                command: command.clone(),
                arguments,
                environment: environment.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(names: &[&str]) -> Config {
        let mut text = String::from("[director]\ninterfaces = [\"eth0\"]\n");
        for (vrid, name) in (1..).zip(names) {
            text += &format!(
                "[[vrrp_instance]]\nname = \"{name}\"\ninterface = \"eth0\"\nvirtual_router_id = {vrid}\n\
                 addresses = [\"10.0.0.{vrid}\"]\n"
            );
        }
        crate::config::parse("test.toml", &text).expect("a right file").0
    }

    #[test]
    fn roles_stay_with_their_instances() {
        let mut roles = BTreeMap::new();
        assign_roles(&mut roles, &config(&["a", "b", "c"]));
        assert_eq!(roles, [("a".into(), 1), ("b".into(), 2), ("c".into(), 3)].into());
        // The number of one that has gone is not at once another's.
        assign_roles(&mut roles, &config(&["d", "c", "a"]));
        assert_eq!(roles, [("a".into(), 1), ("c".into(), 3), ("d".into(), 4)].into());
        assign_roles(&mut roles, &config(&["e", "a"]));
        assert_eq!(roles, [("a".into(), 1), ("e".into(), 2)].into());
    }
}
