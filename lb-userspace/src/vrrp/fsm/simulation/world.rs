//! The world that a [`Plan`] runs in.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fmt::Write as _,
    time::{Duration, Instant},
};

use super::plan::{Disturbance, FILE, NodePlan, Plan, Time, address, interface, virtual_address};
use crate::{
    config::vrrp::TrackKey,
    vrrp::{
        State, TrackValue,
        fsm::{Command, Event, Machine, tests},
        packet::Advert,
    },
};

const NEVER: Time = Time::MAX;
/// A guard says that its agent is dead after so much of an advert interval.
const GUARD: Time = 10;

pub(super) struct World {
    pub(super) plan: Plan,
    rng: fastrand::Rng,
    epoch: Instant,
    pub(super) now: Time,
    pub(super) nodes: Vec<Node>,
    packets: BinaryHeap<Reverse<Packet>>,
    sent: u64,
    /// Of 100 packets.
    lost: u8,
    doubled: u8,
    late: u8,
    /// For each receiver and virtual router, a bit for each sender who does not reach it.
    cuts: Vec<u8>,
    pub(super) routers: Vec<Router>,
    /// From when on nothing may change any more.
    quiet: Time,
    trace: Option<Vec<String>>,
}

pub(super) struct Node {
    /// `None`: dead.
    pub(super) machine: Option<Machine>,
    /// When its machine is due.
    due: Time,
    paused: Option<Time>,
    /// What came while it stood still.
    queue: Vec<Packet>,
    pub(super) is_down: Vec<bool>,
    pub(super) number: i64,
    pub(super) is_handed_over: bool,
    pub(super) states: Vec<State>,
    has_acquired: Vec<bool>,
}

/// A virtual router as somebody would see it who sees all nodes.
pub(super) struct Router {
    pub(super) masters: usize,
    /// Since when it is so many.
    pub(super) odd: Time,
    /// Adverts since everything has to be quiet, by node.
    pub(super) adverts: Vec<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Packet {
    at: Time,
    number: u64,
    from: usize,
    to: usize,
    router: usize,
    message: Message,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Advert { priority: u8, interval_ms: u32 },
    Heartbeat { lasts: Time },
}

pub(super) type Outcome = Result<(), String>;

impl World {
    pub(super) fn new(plan: Plan, has_trace: bool) -> Self {
        let count = plan.routers;
        let node = |_: &NodePlan| Node {
            machine: None,
            due: NEVER,
            paused: None,
            queue: Vec::new(),
            is_down: vec![false; count],
            number: 0,
            is_handed_over: false,
            states: vec![State::Init; count],
            has_acquired: vec![false; count],
        };
        let router = |_| Router { masters: 0, odd: 0, adverts: vec![0; plan.nodes.len()] };
        Self {
            rng: fastrand::Rng::with_seed(plan.seed ^ 0x5eed),
            epoch: tests::epoch(),
            now: 0,
            nodes: plan.nodes.iter().map(node).collect(),
            packets: BinaryHeap::new(),
            sent: 0,
            lost: 0,
            doubled: 0,
            late: 0,
            cuts: vec![0; plan.nodes.len() * count],
            routers: (0..count).map(router).collect(),
            quiet: quiet(&plan),
            trace: has_trace.then(Vec::new),
            plan,
        }
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.trace.clone().unwrap_or_default()
    }

    /// Until everything must have been quiet for a while.
    pub(super) fn run(&mut self) -> Outcome {
        if self.trace.is_some() {
            self.describe();
        }
        let end = self.quiet + self.plan.down;
        for node in 0..self.nodes.len() {
            self.start(node)?;
        }
        let disturbances = std::mem::take(&mut self.plan.disturbances);
        let mut next = disturbances.into_iter().peekable();
        let mut is_quiet = false;
        loop {
            let (node, due) = self.first_due();
            let arrives = self.packets.peek().map_or(NEVER, |Reverse(packet)| packet.at);
            let happens = next.peek().map_or(NEVER, |(at, _)| *at);
            self.now = due.min(arrives).min(happens).max(self.now);
            self.check_times()?;
            if !is_quiet && self.now > self.quiet {
                is_quiet = true;
                self.check_masters()?;
            }
            if self.now > end {
                return self.check_adverts();
            }
            if happens <= self.now {
                if let Some((_, disturbance)) = next.next() {
                    self.disturb(&disturbance)?;
                }
            } else if arrives <= due {
                // What has come is handled before what a timer wants.
                if let Some(Reverse(packet)) = self.packets.pop() {
                    self.deliver(packet)?;
                }
            } else {
                self.event(node, Event::Timeout)?;
            }
        }
    }

    fn first_due(&self) -> (usize, Time) {
        let mut first = (0, NEVER);
        for (node, state) in self.nodes.iter().enumerate() {
            if state.due < first.1 && state.paused.is_none() {
                first = (node, state.due);
            }
        }
        first
    }

    fn local(&self, node: usize) -> Instant {
        self.epoch + Duration::from_nanos(self.now * self.plan.nodes[node].rate / 1_000_000)
    }

    fn start(&mut self, node: usize) -> Outcome {
        self.note(|| format!("node {node} starts"));
        let now = self.local(node);
        self.nodes[node].machine = Some(Machine::new(self.plan.nodes[node].settings.clone(), now));
        let number = TrackValue::Number(self.nodes[node].number);
        self.event(node, tracked(TrackKey::File(FILE.to_owned()), number))?;
        for router in 0..self.plan.routers {
            self.link(node, router)?;
        }
        self.event(node, Event::Start)
    }

    fn link(&mut self, node: usize, router: usize) -> Outcome {
        let value = if self.nodes[node].is_down[router] { TrackValue::Down } else { TrackValue::Up };
        self.event(node, tracked(TrackKey::Interface(interface(router)), value))
    }

    fn disturb(&mut self, disturbance: &Disturbance) -> Outcome {
        self.note(|| format!("{disturbance:?}"));
        match *disturbance {
            Disturbance::Network { lost, doubled, late } => {
                (self.lost, self.doubled, self.late) = (lost, doubled, late);
            }
            Disturbance::Cut { from, to, router } => {
                for other in 0..self.plan.routers {
                    if router.is_none_or(|router| router == other) {
                        self.cuts[to * self.plan.routers + other] |= 1 << from;
                    }
                }
            }
            Disturbance::Mend { but } => {
                for (place, cuts) in self.cuts.iter_mut().enumerate() {
                    if but != Some(place % self.plan.routers) {
                        *cuts = 0;
                    }
                }
            }
            Disturbance::Pause { node } => {
                self.nodes[node].paused.get_or_insert(self.now);
            }
            Disturbance::Wake { node } => return self.wake(node),
            Disturbance::Crash { node } => self.crash(node),
            Disturbance::Restart { node } => {
                if self.nodes[node].machine.is_none() {
                    return self.start(node);
                }
            }
            Disturbance::Link { node, router, is_up } => {
                self.nodes[node].is_down[router] = !is_up;
                return self.link(node, router);
            }
            Disturbance::Number { node, number } => {
                self.nodes[node].number = number;
                return self
                    .event(node, tracked(TrackKey::File(FILE.to_owned()), TrackValue::Number(number)));
            }
            Disturbance::Handover { node, is_over } => {
                if self.nodes[node].machine.is_some() {
                    self.nodes[node].is_handed_over = !is_over;
                }
                for instance in 0..self.plan.routers {
                    self.event(
                        node,
                        match is_over {
                            true => Event::Resume { instance },
                            false => Event::Handover { instance },
                        },
                    )?;
                }
            }
        }
        Ok(())
    }

    /// A node goes on: what the guard has done meanwhile, then what it has received, then its timers.
    fn wake(&mut self, node: usize) -> Outcome {
        let Some(since) = self.nodes[node].paused.take() else { return Ok(()) };
        let slept = self.now - since;
        if self.plan.nodes[node].has_guard && slept > self.plan.interval {
            self.event(node, Event::Seized)?;
        }
        self.event(node, Event::Woke { slept: Duration::from_nanos(slept) })?;
        for packet in std::mem::take(&mut self.nodes[node].queue) {
            self.deliver(packet)?;
        }
        self.event(node, Event::Timeout)
    }

    fn crash(&mut self, node: usize) {
        if self.nodes[node].machine.take().is_none() {
            return;
        }
        for router in 0..self.plan.routers {
            if self.nodes[node].states[router] == State::Master {
                self.count_masters(router, -1);
                if self.plan.nodes[node].has_guard {
                    self.last_words(node, router);
                }
            }
            self.nodes[node].states[router] = State::Init;
            self.nodes[node].has_acquired[router] = false;
        }
        let node = &mut self.nodes[node];
        (node.due, node.paused, node.is_handed_over) = (NEVER, None, false);
        node.queue.clear();
    }

    /// The guard says for a dead agent that it gives up.
    fn last_words(&mut self, node: usize, router: usize) {
        let interval_ms = self.interval_ms(node, router);
        let wait = self.plan.interval / GUARD;
        self.send(node, router, wait, Message::Advert { priority: 0, interval_ms });
    }

    pub(super) fn interval_ms(&self, node: usize, router: usize) -> u32 {
        self.plan.nodes[node].settings.instances[router].advert_interval.as_millis() as u32
    }

    fn deliver(&mut self, packet: Packet) -> Outcome {
        let Packet { from, to, router, message, .. } = packet;
        if self.cuts[to * self.plan.routers + router] & (1 << from) != 0 {
            return Ok(());
        }
        if self.nodes[to].paused.is_some() {
            self.nodes[to].queue.push(packet);
            return Ok(());
        }
        let source = address(from, router);
        let event = match message {
            Message::Advert { priority, interval_ms } => {
                let settings = &self.plan.nodes[to].settings.instances[router];
                Event::Advert {
                    instance: router,
                    source,
                    advert: Advert {
                        version: settings.version,
                        vrid: settings.virtual_router_id,
                        priority,
                        interval_ms,
                        addresses: vec![virtual_address(router)],
                    },
                }
            }
            Message::Heartbeat { lasts } => {
                Event::Heartbeat { instance: router, source, lasts: Duration::from_nanos(lasts) }
            }
        };
        self.event(to, event)
    }

    fn send(&mut self, from: usize, router: usize, wait: Time, message: Message) {
        for to in 0..self.nodes.len() {
            if to == from || self.rng.u8(..100) < self.lost {
                continue;
            }
            let copies = 1 + u8::from(self.rng.u8(..100) < self.doubled);
            for _ in 0..copies {
                let longest = if self.rng.u8(..100) < self.late { self.plan.late } else { self.plan.delay };
                let at = self.now + wait + 1 + self.rng.u64(..longest);
                self.sent += 1;
                self.packets.push(Reverse(Packet { at, number: self.sent, from, to, router, message }));
            }
        }
    }

    /// One event for one node, if it lives, and everything that it leads to.
    fn event(&mut self, node: usize, event: Event) -> Outcome {
        let now = self.local(node);
        if self.trace.is_some() && !matches!(event, Event::Timeout) {
            self.note(|| format!("node {node} <- {event:?}"));
        }
        let is_timeout = event == Event::Timeout;
        let Some(machine) = &mut self.nodes[node].machine else { return Ok(()) };
        let commands = machine.handle(event, now);
        let due = machine.poll_timeout();
        if is_timeout && due.is_some_and(|due| due <= now) {
            return Err(format!("node {node}: after a time-out another is due at once"));
        }
        let rate = self.plan.nodes[node].rate;
        self.nodes[node].due = due.map_or(NEVER, |due| {
            // A minute or two of nanoseconds.
            let local = due.saturating_duration_since(self.epoch).as_nanos() as u64;
            (local * 1_000_000).div_ceil(rate)
        });
        let has_changed = !commands.is_empty();
        for command in commands {
            self.obey(node, command)?;
        }
        if has_changed
            && self.plan.is_grouped
            && self.nodes[node].states.windows(2).any(|two| two[0] != two[1])
        {
            return Err(format!("node {node}: its group does not agree: {:?}", self.nodes[node].states));
        }
        Ok(())
    }

    fn obey(&mut self, node: usize, command: Command) -> Outcome {
        self.note(|| format!("node {node} -> {command:?}"));
        match command {
            Command::Advertise { instance, priority } => {
                if self.now > self.quiet {
                    self.routers[instance].adverts[node] += 1;
                }
                let interval_ms = self.interval_ms(node, instance);
                self.send(node, instance, 0, Message::Advert { priority, interval_ms });
            }
            Command::Heartbeat { instance, last } => {
                let detection = self.plan.nodes[node].settings.instances[instance].fast_detection;
                let detection =
                    detection.ok_or_else(|| format!("node {node}: a heartbeat that is not wanted"))?;
                let lasts = if last { Duration::ZERO } else { detection.interval * detection.multiplier };
                // Seconds at most.
                self.send(node, instance, 0, Message::Heartbeat { lasts: lasts.as_nanos() as u64 });
            }
            Command::Acquire { instance } => {
                if std::mem::replace(&mut self.nodes[node].has_acquired[instance], true) {
                    return Err(format!("node {node}: instance {instance} is acquired twice"));
                }
            }
            Command::Release { instance } => {
                if !std::mem::replace(&mut self.nodes[node].has_acquired[instance], false) {
                    return Err(format!(
                        "node {node}: instance {instance} is released, and was not acquired"
                    ));
                }
            }
            Command::Changed { instance, from, to, reason } => {
                if reason.contains("preempts") && !self.does_preempt(node, instance) {
                    return Err(format!("node {node}: instance {instance} preempts, and must not"));
                }
                let before = std::mem::replace(&mut self.nodes[node].states[instance], to);
                if before != from || (to == State::Master) != self.nodes[node].has_acquired[instance] {
                    return Err(format!(
                        "node {node}: instance {instance} goes from {from:?} to {to:?}, was {before:?}"
                    ));
                }
                if self.now > self.quiet {
                    return Err(format!(
                        "node {node}: instance {instance} changes without a reason: flapping"
                    ));
                }
                self.count_masters(instance, i8::from(to == State::Master) - i8::from(from == State::Master));
            }
            Command::Announce { .. }
            | Command::GroupChanged { .. }
            | Command::Notice { .. }
            | Command::Discarded { .. } => {}
        }
        Ok(())
    }

    fn count_masters(&mut self, router: usize, change: i8) {
        let router = &mut self.routers[router];
        let before = router.masters;
        router.masters = before.wrapping_add_signed(change.into());
        // From none to two in no time is no case: events come one after the other.
        if router.masters != before {
            router.odd = self.now;
        }
    }

    fn describe(&mut self) {
        let mut text = format!("seed {}, {} routers", self.plan.seed, self.plan.routers);
        for (index, node) in self.plan.nodes.iter().enumerate() {
            let instance = &node.settings.instances[0];
            let _ = write!(
                text,
                "\nnode {index}: version {}, priority {}, interval {:?}, nopreempt {}, preempt_delay {:?}, {:?}, clock {}",
                instance.version,
                instance.priority,
                instance.advert_interval,
                instance.nopreempt,
                instance.preempt_delay,
                instance.fast_detection,
                node.rate
            );
        }
        self.note(|| text);
    }

    fn note(&mut self, text: impl FnOnce() -> String) {
        let now = Duration::from_nanos(self.now);
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{now:>12.3?} {}", text()));
        }
    }
}

/// When whoever preempts has waited for a master of lower priority, and for its group.
fn quiet(plan: &Plan) -> Time {
    let Plan { healed, patience, down, interval, delay, .. } = plan;
    let waits = patience + 2 * down + 2 * interval;
    healed + waits + waits / 50 + 20 * delay
}

fn tracked(key: TrackKey, value: TrackValue) -> Event {
    Event::Tracked { key, value, detail: String::new() }
}
