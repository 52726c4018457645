//! Taking a new configuration while serving: all of it or nothing.

mod few;
mod renumber;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use few::{few_changes, has_same_checks};
use renumber::Renumbered;

use super::{
    Agent, Incoming, changes::spawn_metrics, events::Severity, failover::assign_roles, open_pins, unix_now,
};
use crate::{
    api::types::{DataPlaneKind, LastReload, Reloaded},
    config::{self, Config, Dataplane},
    dataplane::{
        DataPlane as _, Plane,
        xdp::{Pins, XdpPlane},
    },
    desired::{Draining, Outcome, ServerId, ServiceId, State, desired_with, outcome},
    mail::Mailer,
};

/// How long a reload waits for the next hops of new servers before it serves them.
const NEW_NEXT_HOPS: Duration = Duration::from_millis(300);

impl Agent {
    /// Reads the configuration file again. A file with a mistake, or one that cannot be put into force, changes nothing.
    pub(super) async fn reload(&mut self, incoming: &mut Incoming) -> Result<Reloaded, String> {
        let result = self.try_reload(incoming).await;
        let (succeeded, message) = match &result {
            Ok(done) => {
                (true, format!("{} added, {} changed, {} removed", done.added, done.changed, done.removed))
            }
            Err(mistakes) => (false, mistakes.clone()),
        };
        if succeeded {
            self.work.reloads_succeeded += 1;
            self.loaded_at = unix_now();
            self.events.tell(
                Severity::Good,
                "configuration",
                format!("reloaded: virtual servers: {message}"),
            );
        } else {
            self.work.reloads_failed += 1;
            for line in message.lines() {
                tracing::error!("{line}");
            }
            let first = message.lines().next().unwrap_or_default();
            self.events.tell(
                Severity::Bad,
                "configuration",
                format!("not reloaded, nothing has changed: {first}"),
            );
        }
        self.last_reload = Some(LastReload { at: unix_now(), succeeded, message });
        result
    }

    async fn try_reload(&mut self, incoming: &mut Incoming) -> Result<Reloaded, String> {
        let last = self.source.as_ref().map(|source| (&self.config, source));
        let (mut new, warnings, source) = config::load_after(&self.options.config, last)
            .map_err(|errors| errors.to_string().trim_end().to_owned())?;
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let needs_restart = self.check_head(&new)?;
        // What runs scripts was made with this one; the file's is asked for again at every reload.
        new.director.script_user.clone_from(&self.config.director.script_user);

        // Everything that can fail without having changed anything comes first.
        let mailer = match &new.mail {
            Some(_)
                if new.mail == self.config.mail
                    && new.director.router_id == self.config.director.router_id =>
            {
                None
            }
            Some(mail) => Some(
                Mailer::new(mail, &new.director.router_id).map_err(|error| format!("[mail]: {error:#}"))?,
            ),
            None => None,
        };
        let metrics = if new.metrics == self.config.metrics {
            None
        } else {
            Some(spawn_metrics(&new, &self.to_agent).await.map_err(|error| format!("{error:#}"))?)
        };
        let few = few_changes(&self.config, &new).filter(|_| self.inputs.draining.is_empty());
        if let Err(error) = self.reopen_if_needed(&new, few.as_deref()).await {
            if let Some(Some(task)) = metrics {
                task.abort();
            }
            return Err(format!("{error:#}"));
        }

        if new.mail != self.config.mail || mailer.is_some() {
            self.mailer = mailer;
        }
        if let Some(metrics) = metrics
            && let Some(old) = std::mem::replace(&mut self.metrics, metrics)
        {
            old.abort();
        }
        // From here on the file is in force, whatever the kernel says.
        let before = std::mem::replace(&mut self.config, new);
        self.source = source;
        self.vrrp_before = before.vrrp.clone();
        self.inputs.now = self.now();
        assign_roles(&mut self.inputs.roles, &self.config);
        // With a hundred thousand servers, looking for those that came and went takes longer than all the rest.
        let has_same_servers = self.config.has_same_servers(&before);
        if !has_same_servers || !self.inputs.draining.is_empty() {
            let served = self.plane.observe();
            let drained_before = self.inputs.draining.clone();
            self.inputs.draining.follow(&served, Some(&before), &self.config, self.inputs.now);
            self.tell_leavers(&before, &drained_before);
        }
        let renumbered = match &few {
            Some(changed) => Renumbered::of_few(&before, &self.config, changed),
            None => Renumbered::of(&before, &self.config),
        };
        renumbered.apply(&mut self.inputs.reports);
        let outcomes = match &few {
            Some(changed) => self.take_few(changed),
            None => self.take_configuration(),
        };
        if !has_same_servers {
            let known: BTreeSet<IpAddr> = self.resolutions.keys().copied().collect();
            let targets = self.set_targets();
            let new_targets = targets.difference(&known).copied().collect();
            self.wait_for_next_hops(&new_targets, NEW_NEXT_HOPS, &mut incoming.changes).await;
            self.resolutions.retain(|address, _| targets.contains(address));
        }
        let damaged = match self.plane.damaged(1) {
            Ok(audit) => audit.damaged,
            Err(error) => {
                tracing::error!("cannot read the maps: {error:#}");
                BTreeSet::new()
            }
        };
        let done = match &few {
            Some(_) => self.reconcile_some(outcomes.keys().chain(&damaged).copied().collect(), &damaged),
            None => self.reconcile(&damaged),
        };
        let repaired: Vec<ServiceId> = damaged.into_iter().collect();
        self.tell_repaired(&repaired);
        let mut late = BTreeSet::new();
        if !few.as_ref().is_some_and(|changed| has_same_checks(&before, &self.config, changed)) {
            self.open_check_path().await;
            late = self.replace_checks(&renumbered, &mut incoming.reports);
        }
        self.tell_outcomes(&outcomes);
        self.refresh(late);
        if !has_same_servers {
            self.forget_servers();
        }
        let mut warnings: Vec<String> = warnings.iter().map(ToString::to_string).collect();
        if let Err(error) = self.follow_vrrp(incoming) {
            // The next reload tries again.
            self.events.tell(Severity::Bad, "vrrp", format!("{error:#}"));
            warnings.push(format!("{error:#}"));
        }
        if done.failed > 0 {
            warnings.push(format!(
                "the kernel refuses {} changes, which are tried again: see `xdirector events`",
                done.failed
            ));
        }
        Ok(Reloaded {
            added: done.added,
            changed: done.changed,
            removed: done.removed,
            warnings,
            needs_restart,
        })
    }

    /// What of `[director]` cannot change while the agent runs.
    fn check_head(&self, new: &Config) -> Result<Vec<String>, String> {
        let (old, new) = (&self.config.director, &new.director);
        if old.instance != new.instance {
            return Err(format!(
                "{}: director.instance = \"{}\": cannot change while it runs as \"{}\"; stop this director and start the \
                 other",
                self.options.config.display(),
                new.instance,
                old.instance
            ));
        }
        let mut needs_restart = Vec::new();
        if old.script_user != new.script_user {
            needs_restart.push("director.script_user".to_owned());
        }
        Ok(needs_restart)
    }

    /// Settings that stand in the program itself, interfaces, and more servers than the maps hold, need the program to be
    /// loaded again: it takes the place of the old one in one step.
    async fn reopen_if_needed(&mut self, new: &Config, few: Option<&[usize]>) -> anyhow::Result<()> {
        let old = &self.config.director;
        let is_attached_right =
            old.interfaces == new.director.interfaces && old.xdp_mode == new.director.xdp_mode;
        if is_attached_right
            && self.plane.kind() == DataPlaneKind::Xdp
            && !self.wants_other_plane(new)
            && self.plane.has_settings_of(new)
            && few.is_some_and(|changed| self.has_room_for_few(new, changed))
        {
            return Ok(());
        }
        let mut inputs_draining = self.inputs.draining.clone();
        if !new.has_same_servers(&self.config) {
            inputs_draining.follow(&self.plane.observe(), Some(&self.config), new, self.now());
        }
        let wanted = {
            // With every server up: as much room as it can ever need.
            let mut roles = self.inputs.roles.clone();
            assign_roles(&mut roles, new);
            let inputs = crate::desired::Inputs { draining: inputs_draining, roles, ..Default::default() };
            desired_with(new, &inputs)
        };
        if self.wants_other_plane(new) {
            return self.exchange_plane(new, &wanted).await;
        }
        if let Plane::Ipvs(plane) = &mut self.plane {
            // Its settings are few, and are compared with the kernel's.
            plane.configure(new, &wanted);
            if new.director.dataplane != Dataplane::Auto {
                self.fallback = None;
            }
            return Ok(());
        }
        if is_attached_right
            && self.plane.has_settings_of(new)
            && self.plane.holds(&wanted, new.servers_checked_through_dataplane())?
        {
            return Ok(());
        }
        let pins = match open_pins(&self.options, new) {
            Ok(pins) if self.plane.pins().is_some() => pins,
            _ => anyhow::bail!(
                "director.interfaces, director.xdp_mode, director.max_connections, timeouts, or more servers than there is room \
                 for: without pins these need a restart of the agent ({})",
                self.unpinned.as_deref().unwrap_or("the pins are gone")
            ),
        };
        if let Err(error) = XdpPlane::check_interfaces(&new.director.interfaces, Some(&pins)).await {
            pins.abandon();
            return Err(error);
        }
        // Two threads would sweep one table.
        self.plane.xdp().into_iter().for_each(XdpPlane::retire);
        match self.reopened(new, &wanted, pins).await {
            Ok(mut plane) => {
                if let Some(Err(error)) = self.plane.xdp().map(|old| plane.take_over_checks(old)) {
                    tracing::warn!("checks through the data plane are interrupted: {error:#}");
                }
                plane.lead_checks(&self.check_path);
                self.plane = Plane::Xdp(Box::new(plane));
                self.lead_roles();
            }
            Err(error) => {
                self.plane.xdp().map_or(Ok(()), XdpPlane::resume)?;
                // An interface whose mode was to change has lost the program.
                self.look_at_links().await;
                return Err(error);
            }
        }
        self.was_reopened = true;
        Ok(())
    }

    /// The program loaded again and in the place of the old one.
    async fn reopened(&self, new: &Config, wanted: &State, pins: Pins) -> anyhow::Result<XdpPlane> {
        let mut plane = XdpPlane::open(new, wanted, self.options.trace, pins)?;
        // Also of servers that are not in service now.
        for (target, resolution) in &self.resolutions {
            plane.set_next_hop(*target, resolution, self.keeps_tags(resolution));
        }
        plane.attach(&new.director.interfaces, new.director.xdp_mode).await?;
        Ok(plane)
    }

    /// Looks up where virtual servers stand, and what follows from the inputs for them; gives what followed before.
    pub(super) fn take_configuration(&mut self) -> BTreeMap<ServiceId, Outcome> {
        self.positions = self
            .config
            .virtual_servers
            .iter()
            .enumerate()
            .map(|(position, virtual_server)| (ServiceId::of(virtual_server), position))
            .collect();
        let outcomes = self
            .config
            .virtual_servers
            .iter()
            .map(|virtual_server| (ServiceId::of(virtual_server), outcome(virtual_server, &self.inputs)))
            .collect();
        let before = std::mem::replace(&mut self.outcomes, outcomes);
        self.keep_all_dead();
        self.inputs.quorum = self.outcomes.iter().map(|(id, outcome)| (*id, outcome.quorum.is_up)).collect();
        before
    }

    /// Tells what the new configuration has changed in the state of servers that it keeps.
    fn tell_outcomes(&mut self, before: &BTreeMap<ServiceId, Outcome>) {
        for (id, old) in before {
            if let Some(new) = self.outcomes.get(id).filter(|new| new.differs_for_people(old)).cloned() {
                self.tell_changes(id, old, &new);
            }
        }
    }

    /// Forgets what was known of servers that are no more.
    fn forget_servers(&mut self) {
        let mut there: BTreeSet<ServerId> =
            self.inputs.draining.all().map(|(service, leaver)| leaver.server.id(service)).collect();
        for (service, outcome) in &self.outcomes {
            let id = |(address, port): (IpAddr, u16)| ServerId { service: *service, address, port };
            there.extend(outcome.servers.iter().copied().map(id));
        }
        self.since.retain(|id, _| there.contains(id));
        self.drained.retain(|id| there.contains(id));
    }

    /// Says which servers the new configuration no longer has.
    fn tell_leavers(&mut self, before: &Config, drained_before: &Draining) {
        let names: BTreeMap<ServiceId, &str> =
            before.virtual_servers.iter().map(|one| (ServiceId::of(one), one.name.as_str())).collect();
        let mut told = Vec::new();
        for (service, leaver) in self.inputs.draining.all() {
            let is_new =
                !drained_before.leavers(&service).iter().any(|one| one.server.key() == leaver.server.key());
            if let (true, Some(name)) = (is_new, names.get(&service)) {
                let id = leaver.server.id(service);
                told.push((id, format!("{name}/{}", SocketAddr::new(id.address, id.port))));
            }
        }
        for (id, subject) in told {
            self.drained.remove(&id);
            self.since.insert(id, Instant::now());
            self.events.tell(
                Severity::Good,
                &subject,
                "not in the configuration any more: draining".to_owned(),
            );
        }
    }
}
