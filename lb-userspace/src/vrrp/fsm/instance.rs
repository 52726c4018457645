//! One instance: what it notes, and what changes of state mean for it. When they happen is decided by its [unit](super::unit).

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    Command, InstanceId, InstanceView,
    timers::{self, Down, Timers},
    tracking::{self, Known, OWNER, Standing},
};
use crate::{
    config::vrrp::{Track, TrackKey, Version, VrrpInstance},
    vrrp::State,
};

mod backup;
mod hear;
mod master;

/// One instance, with everything that is known of it.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) unit: usize,
    pub(super) settings: VrrpInstance,
    tracks: Vec<Track>,
    /// The addresses of its adverts, in order.
    advertised: Vec<IpAddr>,
    pub(super) state: State,
    since: Instant,
    reason: String,
    /// As in [`super::Event::Source`]; the outer `None`: not told yet.
    pub(super) source: Option<Option<IpAddr>>,
    pub(super) standing: Standing,
    /// BACKUP: it would be master, if its unit lets it, and why.
    pub(super) wish: Option<String>,
    /// MASTER: it cannot stay master.
    pub(super) yields: Option<Yield>,
    pub(super) is_handed_over: bool,
    /// MASTER, and the caller has not run for a while.
    pub(super) has_slept: bool,
    /// It has been master for an advert interval.
    pub(super) is_settled: bool,
    /// Whose adverts it follows, or followed last.
    leader: Option<Leader>,
    /// `Master_Adver_Interval`, `Active_Adver_Interval`: the leader's interval.
    interval: Duration,
    /// BACKUP: the wait for the master to be down; `None`: it is over.
    down: Option<Down>,
    /// BACKUP: fast detection's view of the leader.
    pulse: Option<Pulse>,
    /// BACKUP: who of lower priority has been heard since the wait began.
    lower: Option<Leader>,
    /// BACKUP: until then masters of lower priority are followed (`preempt_delay`); `None`: it has not begun.
    patience: Option<Instant>,
    timers: Timers,
    /// MASTER: when gratuitous ARP last answered an advert of lower priority.
    answered: Option<Instant>,
    /// With which other owner of priority 255 an operator has been bothered already.
    rival: Option<IpAddr>,
    became_master: u64,
    released_master: u64,
}

/// Another router, by its adverts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leader {
    address: IpAddr,
    priority: u8,
}

/// Heartbeats of the leader.
#[derive(Debug, Clone, Copy)]
struct Pulse {
    /// The last sign of life.
    felt: Instant,
    /// How long one counts.
    lasts: Duration,
}

/// Why and how a master steps back.
#[derive(Debug)]
pub(super) struct Yield {
    pub(super) why: String,
    pub(super) farewell: Farewell,
}

/// What a master says when it steps back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// That others are to take over: priority 0.
    Zero,
    /// Somebody else is master already (RFC 9568 6.4.3); only heartbeats end.
    Quiet,
    /// All has been said by the guard.
    Nothing,
}

impl Instance {
    pub(super) fn new(id: InstanceId, settings: VrrpInstance, tracks: Vec<Track>, now: Instant) -> Self {
        Self {
            id,
            unit: 0,
            tracks,
            advertised: sorted(settings.addresses.iter().map(|address| address.address).collect()),
            state: State::Init,
            since: now,
            reason: "not started".to_owned(),
            source: settings.source_address.map(Some),
            standing: Standing::default(),
            wish: None,
            yields: None,
            is_handed_over: false,
            has_slept: false,
            is_settled: false,
            leader: None,
            interval: settings.advert_interval,
            down: None,
            pulse: None,
            lower: None,
            patience: None,
            timers: Timers::default(),
            answered: None,
            rival: None,
            became_master: 0,
            released_master: 0,
            settings,
        }
    }

    /// Takes other settings and another place.
    pub(super) fn change(
        &mut self,
        id: InstanceId,
        settings: VrrpInstance,
        tracks: Vec<Track>,
        now: Instant,
    ) {
        if settings.version == Version::V2 || self.leader.is_none() || self.state == State::Master {
            self.interval = settings.advert_interval;
        }
        if settings.source_address.is_some() && settings.source_address != self.settings.source_address {
            self.source = settings.source_address.map(Some);
        }
        if self.state == State::Master && settings != self.settings {
            self.timers.advert = Some(now);
            self.timers.heartbeat = settings.fast_detection.map(|_| now);
            if settings.addresses != self.settings.addresses
                || settings.excluded_addresses != self.settings.excluded_addresses
            {
                self.timers.burst = Some(now);
            }
        }
        self.advertised = sorted(settings.addresses.iter().map(|address| address.address).collect());
        self.id = id;
        self.settings = settings;
        self.tracks = tracks;
        if self.settings.nopreempt {
            self.let_preempted_live(now);
        }
    }

    /// Looks again at everything tracked. Whether the priority has changed.
    pub(super) fn assess(&mut self, known: &BTreeMap<TrackKey, Known>) -> bool {
        let standing = tracking::assess(&self.settings, &self.tracks, self.source, known);
        let before = std::mem::replace(&mut self.standing, standing);
        before.effective != self.standing.effective
    }

    pub(super) fn does_track(&self, key: &TrackKey) -> bool {
        self.tracks.iter().any(|track| track.key == *key)
    }

    /// Whether it is master and stays so, or would be.
    pub(super) fn is_ready(&self) -> bool {
        match self.state {
            State::Master => self.yields.is_none(),
            State::Init | State::Backup | State::Fault => self.wish.is_some(),
        }
    }

    /// Out of INIT or FAULT the owner of the addresses is master at once (RFC 3768 and RFC 9568 6.4.1).
    pub(super) fn wish_at_start(&mut self) {
        self.wish = (self.settings.priority == OWNER && !self.is_handed_over)
            .then(|| "priority 255, the owner of the addresses".to_owned());
    }

    /// The guard has given up for it.
    pub(super) fn seize(&mut self) {
        if self.state == State::Master {
            let why = "the guard has given up its addresses, since the agent was silent".to_owned();
            self.yields = Some(Yield { why, farewell: Farewell::Nothing });
        }
    }

    /// Gives up for maintenance.
    pub(super) fn hand_over(&mut self, now: Instant) {
        self.is_handed_over = true;
        self.let_preempted_live(now);
        if self.state == State::Master {
            self.yields = Some(Yield { why: "handed over".to_owned(), farewell: Farewell::Zero });
        }
    }

    /// When it does something by itself.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Init | State::Fault => None,
            State::Backup => self.takeover(),
            State::Master => self.timers.due(),
        }
    }

    /// Does what is due.
    pub(super) fn fire(&mut self, now: Instant, out: &mut Vec<Command>) {
        match self.state {
            State::Init | State::Fault => {}
            State::Backup => self.miss_master(now),
            State::Master => self.work(now, out),
        }
    }

    /// BACKUP begins, with a wait of its own.
    pub(super) fn listen(&mut self, why: String, now: Instant, out: &mut Vec<Command>) {
        self.leader = None;
        self.wait_afresh(now);
        self.patience = timers::after(self.settings.preempt_delay, now);
        self.enter(State::Backup, why, now, out);
    }

    /// Takes no part any more, or is backup again.
    pub(super) fn leave(
        &mut self,
        to: State,
        why: String,
        farewell: Farewell,
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        if self.state == State::Master {
            self.step_back(farewell, out);
            if to == State::Backup && farewell == Farewell::Quiet {
                // Whom it yields to has been noted, with its interval.
                self.down = Some(Down { since: now, given_up: None });
            } else {
                self.leader = None;
                self.wait_afresh(now);
            }
        }
        if to != State::Backup {
            self.down = None;
        }
        (self.wish, self.yields, self.pulse, self.lower, self.patience) = (None, None, None, None, None);
        self.has_slept = false;
        self.enter(to, why, now, out);
    }

    /// To INIT, if it is not there.
    pub(super) fn end(&mut self, why: &str, now: Instant, out: &mut Vec<Command>) {
        if self.state != State::Init {
            self.leave(State::Init, why.to_owned(), Farewell::Zero, now, out);
        }
    }

    fn enter(&mut self, to: State, reason: String, now: Instant, out: &mut Vec<Command>) {
        let from = std::mem::replace(&mut self.state, to);
        self.since = now;
        self.reason.clone_from(&reason);
        out.push(Command::Changed { instance: self.id, from, to, reason });
    }

    /// Its own source address.
    fn address(&self) -> Option<IpAddr> {
        self.source.flatten()
    }

    /// As in [`super::Machine::view`].
    pub(super) fn view(&self) -> InstanceView {
        let (master, master_priority) = match self.state {
            State::Master => (self.address(), Some(self.standing.effective)),
            State::Init | State::Backup | State::Fault => {
                let leader = self.leader.or(self.lower);
                (leader.map(|leader| leader.address), leader.map(|leader| leader.priority))
            }
        };
        let mut reason = self.reason.clone();
        if matches!(self.state, State::Init | State::Fault)
            && self.standing.faults.is_empty()
            && !self.standing.unknown.is_empty()
        {
            reason += &format!("; not known yet: {}", self.standing.unknown.join(", "));
        }
        InstanceView {
            state: self.state,
            since: self.since,
            reason,
            master,
            master_priority,
            // At most 255 s.
            master_interval_ms: self.interval.as_millis() as u32,
            effective_priority: self.standing.effective,
            weights: self.standing.weights.clone(),
            faults: self.standing.faults.clone(),
            is_handed_over: self.is_handed_over,
            timer: self.due(),
            became_master: self.became_master,
            released_master: self.released_master,
        }
    }
}

/// A list of addresses as a set.
fn sorted(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}
