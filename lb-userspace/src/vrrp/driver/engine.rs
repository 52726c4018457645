//! What the driver does, without its thread: takes what came, asks the [machines](crate::vrrp::fsm), and does what they say by
//! means of a [`Network`].
//!
//! ```text
//!  turn: seized? -> woke -> changes of links -> packets -> orders -> timers      (input, settings)
//!           '--------- Machine::handle ---------'
//!                            |
//!                 commands, in their order                                      (execute)
//! ```

mod execute;
mod guarding;
mod input;
mod instance;
mod place;
mod settings;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{Arc, mpsc as std_mpsc},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;

use self::instance::Instance;
use super::{
    InstanceStatus, Roles, Status, Wanted,
    burst::Bursts,
    holdings::Thing,
    links::Links,
    mark::Mark,
    network::{Channel, Network},
    pace::Notices,
    stamp::Stamps,
    state::StateFile,
};
use crate::{
    config::vrrp::{Family, SyncGroup, TrackKey, Vrrp as Config},
    vrrp::{
        Report, State, Tracked,
        fsm::{Event, InstanceId, Machine},
        guard::Plan,
    },
};

/// How many messages of one socket are taken in a turn, so that a flood delays neither timers nor orders for long.
const PACKETS: usize = 64;
/// And after a stop: all that a socket's buffer can hold.
const PACKETS_AFTER_STOP: usize = 4096;
/// How many announcements are sent in a turn.
const ANNOUNCEMENTS: usize = 128;
/// When something that could not be done is tried again, and how often the guard is looked after.
const RETRY: Duration = Duration::from_secs(1);
/// How often everything is compared with the kernel, should a change have been missed.
const AUDIT: Duration = Duration::from_secs(10);
/// How often everything is compared with the kernel because of changes of what is not ours, at most.
const FOREIGN: Duration = Duration::from_millis(100);
/// How often addresses that somebody else deletes are put back at most.
const RESTORE: Duration = Duration::from_millis(100);

/// What the agent wants of the driver.
#[derive(Debug)]
pub enum Order {
    /// See [`super::Vrrp::set`].
    Set(Wanted),
    /// See [`super::Vrrp::set_roles`].
    SetRoles(Arc<dyn Roles>),
    /// See [`super::TrackSender::send`].
    Tracked(Tracked),
    /// See [`super::Vrrp::handover`].
    Handover(String, std_mpsc::SyncSender<Result<(), String>>),
    /// See [`super::Vrrp::resume`].
    Resume(String, std_mpsc::SyncSender<Result<(), String>>),
    /// See [`super::Vrrp::status`].
    Status(std_mpsc::SyncSender<Status>),
    /// See [`super::Vrrp::stop`]: until then the thread has to be over.
    Stop(Instant),
}

/// What has woken the thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ready {
    /// Links or addresses have changed.
    pub changes: bool,
    /// Messages have come.
    pub packets: bool,
    /// The thread was stopped for so long.
    pub stalled: Option<Duration>,
}

/// The driver without its thread.
#[derive(Debug)]
pub struct Engine<N> {
    network: N,
    machine: Machine,
    /// The instances' names as the machine has them: while it is reconfigured, [`Self::instances`] are still the old ones.
    names: Vec<String>,
    config: Config,
    instances: Vec<Instance>,
    /// Whose adverts come where.
    by_vrid: BTreeMap<(u32, Family, u8), InstanceId>,
    links: Links,
    /// What is tracked by somebody.
    keys: BTreeSet<TrackKey>,
    tracked: BTreeMap<TrackKey, Tracked>,
    roles: Arc<dyn Roles>,
    /// Whether the guard has their map.
    roles_are_known: bool,
    /// What the guard has, but for stamps and packet ids.
    plan: Option<Plan>,
    /// Since when; `None`: it is to be told in any case.
    told: Option<Instant>,
    /// There is something to tell it once it has answered.
    has_news: bool,
    /// Index of each macvlan that was made or found right.
    macvlans: BTreeMap<String, u32>,
    /// What could not be removed.
    lingering: Vec<Thing>,
    bursts: Bursts,
    stamps: Stamps,
    mark: Mark,
    notices: Notices,
    state: StateFile,
    reports: mpsc::UnboundedSender<Report>,
    timers: Timers,
    /// The guard has taken the addresses in the middle of something.
    is_seized: bool,
    /// The machine has other settings already than [`Self::instances`]: it must not be told of anything now.
    is_reloading: bool,
    unknown_vrid: u64,
    longest_delay: Duration,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct Timers {
    /// Something is to be tried again or looked at.
    look: Option<Instant>,
    /// When everything was compared with the kernel last.
    looked: Option<Instant>,
    /// Routes and rules of masters are to be put back.
    routes: Option<Instant>,
    /// When they were last.
    routes_done: Option<Instant>,
    /// The guard's plan grows old.
    plan: Option<Instant>,
    /// The guard's answer to it is late; `None`: it has answered.
    answer: Option<Instant>,
    guard: Instant,
    audit: Instant,
}

impl<N: Network> Engine<N> {
    /// Nothing is done before [`Self::start`].
    pub fn new(
        network: N,
        wanted: Wanted,
        roles: Arc<dyn Roles>,
        state: StateFile,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Self {
        let now = network.now();
        let stamps = Stamps::new(network.wall());
        let Wanted { config, roles: numbers } = wanted;
        let machine = Machine::new(settings::of_machine(&config), now);
        let instances: Vec<Instance> =
            config.instances.iter().map(|instance| Instance::new(instance, &numbers)).collect();
        Self {
            network,
            machine,
            names: settings::names(&config),
            keys: settings::keys(&config),
            config,
            instances,
            by_vrid: BTreeMap::new(),
            links: Links::default(),
            tracked: BTreeMap::new(),
            roles,
            roles_are_known: false,
            plan: None,
            told: None,
            has_news: false,
            macvlans: BTreeMap::new(),
            lingering: Vec::new(),
            bursts: Bursts::default(),
            stamps,
            mark: Mark::beside(state.path()),
            notices: Notices::default(),
            state,
            reports,
            timers: Timers {
                look: None,
                looked: None,
                routes: None,
                routes_done: None,
                plan: None,
                answer: None,
                guard: now + RETRY,
                audit: now + AUDIT,
            },
            is_seized: false,
            is_reloading: false,
            unknown_vrid: 0,
            longest_delay: Duration::ZERO,
            warnings: Vec::new(),
        }
    }

    /// Removes what a dead run has left, and nothing else.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn clean(&mut self) -> io::Result<()> {
        self.read_links()?;
        self.remove_leftovers();
        Ok(())
    }

    /// Removes what a dead run has left, starts the guard, opens sockets, and begins. An instance whose socket cannot be opened
    /// begins in FAULT: one of them is no reason to serve nothing.
    ///
    /// # Errors
    /// When the guard cannot be had, or the kernel not be asked.
    pub fn start(&mut self) -> io::Result<()> {
        self.clean()?;
        self.remember();
        self.begin_stamps();
        self.apply_roles();
        self.make_macvlans();
        self.read_links()?;
        self.resolve();
        self.settle_sockets();
        if self.config.settings.guard {
            self.network.want_guard(true, Duration::ZERO).map_err(|error| {
                io::Error::new(error.kind(), format!("the guard cannot be started: {error}"))
            })?;
        }
        self.make_plan();
        self.tell();
        self.feed(Event::Start, self.network.now());
        Ok(())
    }

    /// Masters give up and say so; the guard and the macvlans go, and nothing is left to remember. At most `limit` for the
    /// guard.
    pub fn stop(&mut self, limit: Duration) {
        self.feed(Event::Stop, self.network.now());
        self.release_all();
        if let Err(error) = self.network.want_guard(false, limit) {
            self.notice("guard", "guard", true, format!("the guard does not end: {error}"));
        }
        let names: Vec<String> = std::mem::take(&mut self.macvlans).into_keys().collect();
        for name in names {
            self.remove_macvlan(&name);
        }
        if self.lingering.is_empty() {
            self.config.instances.clear();
            self.remember();
        }
    }

    /// Something in here has failed: masters give up without asking the machines, which may be in any state. They are said to
    /// be in FAULT, so that the scripts of who depends on them run.
    pub fn abandon(&mut self) {
        let held: Vec<InstanceId> =
            (0..self.instances.len()).filter(|id| self.instances[*id].is_held).collect();
        for id in &held {
            self.advertise(*id, 0);
        }
        self.release_all();
        let reason = "the VRRP driver has failed".to_owned();
        let mut names = BTreeSet::new();
        for config in held.iter().map(|id| &self.instances[*id].config) {
            names.insert(config.name.as_str());
            self.say(Report::Instance {
                name: config.name.clone(),
                from: State::Master,
                to: State::Fault,
                priority: config.priority,
                reason: reason.clone(),
                took: Duration::ZERO,
            });
        }
        let is_concerned =
            |group: &&SyncGroup| group.instances.iter().any(|name| names.contains(name.as_str()));
        for group in self.config.sync_groups.iter().filter(is_concerned) {
            let (name, reason) = (group.name.clone(), reason.clone());
            self.say(Report::Group { name, to: State::Fault, reason });
        }
    }

    /// When the next turn is due.
    pub fn deadline(&self) -> Instant {
        let Timers { look, looked: _, routes, routes_done: _, plan, answer, guard, audit } = self.timers;
        let timers = [look, routes, plan, answer, self.machine.poll_timeout(), self.bursts.deadline()];
        timers.into_iter().flatten().fold(guard.min(audit), Instant::min)
    }

    /// One turn: what has come, first, then what is due.
    pub fn turn(&mut self, ready: Ready, orders: Vec<Order>) {
        // Before the beat: what the guard has begun it must not take back.
        if self.network.was_seized() {
            self.seized();
        }
        let now = self.network.now();
        self.network.beat(now);
        if let Some(slept) = ready.stalled {
            self.feed(Event::Woke { slept }, now);
        }
        if ready.changes || ready.stalled.is_some() {
            self.changes();
        }
        if ready.packets || ready.stalled.is_some() {
            let most = if ready.stalled.is_some() { PACKETS_AFTER_STOP } else { PACKETS };
            for arrival in self.network.receive(most) {
                self.arrived(arrival, now);
            }
        }
        for order in orders {
            self.order(order, now);
        }
        if ready.stalled.is_some() {
            // Whether something is due or not: everything has been handed over.
            self.time_out();
        }
        self.due();
        // The guard has come between some that were added.
        if self.is_seized {
            self.seized();
        }
    }

    /// How everything is.
    pub fn status(&mut self) -> Status {
        let statuses = self.instances.iter().enumerate();
        Status {
            instances: statuses.map(|(id, instance)| instance.status(self.machine.view(id))).collect(),
            groups: self.groups(),
            tracked: self.tracked.values().cloned().collect(),
            unknown_vrid: self.unknown_vrid,
            guard: self.config.settings.guard.then(|| self.network.is_guarded() == Some(true)),
            warnings: self.warnings.iter().chain(self.network.guard_warnings()).cloned().collect(),
            longest_delay: self.longest_delay,
        }
    }

    /// Why the thread is not as wanted.
    pub fn warn(&mut self, warnings: Vec<String>) {
        for text in &warnings {
            let report = Report::Notice { subject: "driver".to_owned(), is_bad: true, text: text.clone() };
            self.say(report);
        }
        self.warnings = warnings;
    }

    /// What it works by.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it works with.
    pub fn network(&self) -> &N {
        &self.network
    }

    /// For tests.
    #[cfg(test)]
    pub fn network_mut(&mut self) -> &mut N {
        &mut self.network
    }

    /// For tests.
    #[cfg(test)]
    pub fn wait_for_mark(&self) {
        self.mark.finish();
    }

    fn groups(&self) -> Vec<(String, State)> {
        let groups = self.config.sync_groups.iter().enumerate();
        groups.map(|(id, group)| (group.name.clone(), self.machine.group_state(id))).collect()
    }

    fn due(&mut self) {
        let now = self.network.now();
        if self.machine.poll_timeout().is_some_and(|due| due <= now) {
            self.time_out();
        }
        let due = self.bursts.due(now, ANNOUNCEMENTS);
        self.announce_due(&due);
        if self.timers.look.is_some_and(|due| due <= now) {
            self.timers.look = None;
            self.look();
        }
        if self.timers.routes.is_some_and(|due| due <= now) {
            self.timers.routes = None;
            self.timers.routes_done = Some(now);
            self.restore_routes();
        }
        self.hear_guard();
        if self.timers.plan.is_some_and(|due| due <= now) {
            self.make_plan();
        }
        if self.timers.guard <= now {
            self.timers.guard = now + RETRY;
            self.look_after_guard();
        }
        if self.timers.audit <= now {
            self.timers.audit = now + AUDIT;
            self.keep_stamps();
            self.look();
            // A guard of an earlier run that was stopped in its work may switch them off when it goes on.
            self.apply_roles();
        }
    }

    fn time_out(&mut self) {
        let now = self.network.now();
        let due = self.machine.poll_timeout().map_or(now, |due| due.min(now));
        self.longest_delay = self.longest_delay.max(now - due);
        self.feed(Event::Timeout, due);
    }

    /// Looks again soon.
    fn try_again(&mut self) {
        self.look_at(self.network.now() + RETRY);
    }

    fn look_at(&mut self, when: Instant) {
        self.timers.look = Some(self.timers.look.map_or(when, |look| look.min(when)));
    }

    /// Tells the agent, unless it has heard the like of it lately.
    fn notice(&mut self, subject: &str, kind: &'static str, is_bad: bool, text: String) {
        self.notice_up_to(1, subject, kind, is_bad, text);
    }

    fn notice_up_to(&mut self, most: u32, subject: &str, kind: &'static str, is_bad: bool, mut text: String) {
        let Some(left_out) = self.notices.admit(subject, kind, most, self.network.now()) else { return };
        if left_out > 0 {
            text.push_str(&format!(" (and {left_out} more since the last message of this kind)"));
        }
        self.say(Report::Notice { subject: subject.to_owned(), is_bad, text });
    }

    fn say(&self, report: Report) {
        // Nobody listens any more: the agent ends.
        let _ = self.reports.send(report);
    }

    fn describe(&self, channel: Channel, error: &io::Error) -> String {
        let is_its = |instance: &&Instance| instance.channel(channel.kind) == Some(channel);
        let concerned = self.instances.iter().find(is_its);
        let name = concerned.map_or("?", |instance| &instance.config.name);
        let interface = concerned.map_or("?", |instance| &instance.config.interface);
        format!("VRRP instance `{name}`: no socket for {:?} on {interface}: {error}", channel.kind)
    }
}
