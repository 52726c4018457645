//! The actor that keeps a set of targets resolved.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    hash::{BuildHasher, RandomState},
    io, mem,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, mpsc as std_mpsc},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Builder,
    select,
    sync::mpsc,
    time::{sleep, sleep_until},
};

use super::{
    Change, Error, NextHop, Reason, Resolution,
    event::{Dirty, Event, NeighbourKey},
    kernel::{Events, Kernel},
    link::{Egress, LinkTable},
    neighbour::{Before, Neighbour, Reachability},
    pace::{Pace, Timing},
    route::Route,
};

/// How many changes may wait for the receiver. More wait as the latest value for each target.
const CHANGES: usize = 1024;

/// Wait between attempts to open netlink again.
const REOPEN: Duration = Duration::from_secs(1);

/// Resolves targets and keeps them current; see the [module](super).
pub struct Watcher {
    timing: Timing,
    kernel: Kernel,
    events: Events,
    commands: mpsc::UnboundedReceiver<BTreeSet<IpAddr>>,
    links: LinkTable,
    targets: BTreeMap<IpAddr, Target>,
    /// The turn of every target, the next one first: with a hundred thousand targets nobody looks through them all for it.
    turns: BTreeSet<(Instant, IpAddr)>,
    /// Targets whose answer is another than the one last sent.
    outbox: BTreeSet<IpAddr>,
    /// The last next hop that was found: most targets share it with the one before.
    last: Option<Arc<NextHop>>,
    dirty: Dirty,
    /// When the gathered events are to be acted upon.
    look_at: Instant,
    random: RandomState,
}

/// Tells a [`Watcher`] what to watch. The watcher ends when every handle, or the receiver, is dropped.
#[derive(Clone, Debug)]
pub struct WatcherHandle {
    commands: mpsc::UnboundedSender<BTreeSet<IpAddr>>,
}

impl WatcherHandle {
    /// Replaces the set of watched addresses. An address that was not in the set before is reported at least
    /// once; one that stays is not reported again.
    pub fn set_targets(&self, targets: BTreeSet<IpAddr>) {
        // The watcher ends on its own only after its receiver has gone, and then nobody waits for an answer.
        let _ = self.commands.send(targets);
    }
}

/// What is known about one target.
struct Target {
    resolution: Option<Resolution>,
    sent: Option<Resolution>,
    /// The neighbour its frames go to, if the lookup came that far.
    neighbour: Option<NeighbourKey>,
    /// Since when that neighbour's entry has been unusable.
    missing_since: Option<Instant>,
    pace: Pace,
}

impl Target {
    fn new(now: Instant) -> Self {
        Self { resolution: None, sent: None, neighbour: None, missing_since: None, pace: Pace::fresh(now) }
    }
}

/// What one look at a target found.
struct Look {
    resolution: Resolution,
    neighbour: Option<NeighbourKey>,
    /// The neighbour's entry is usable as it stands in the kernel.
    settled: bool,
    /// The kernel was asked to find the neighbour.
    asked: bool,
}

impl Look {
    fn unresolved(reason: Reason) -> Self {
        Self { resolution: Resolution::unresolved(reason), neighbour: None, settled: false, asked: false }
    }
}

impl Watcher {
    /// Starts a watcher in a thread of its own, in the network namespace of the calling one: looking at a hundred thousand targets
    /// keeps nobody else waiting.
    ///
    /// The receiver gets a [`Change`] for each target, and again whenever the answer differs from the last one
    /// sent. A slow receiver misses intermediate values, never the last.
    ///
    /// # Errors
    ///
    /// [`Error::Open`]. Lookups need no privilege; asking for neighbours needs `CAP_NET_ADMIN`.
    pub fn spawn(timing: Timing) -> Result<(WatcherHandle, mpsc::Receiver<Change>), Error> {
        let (to_watch, commands) = mpsc::unbounded_channel();
        let (changes, change_receiver) = mpsc::channel(CHANGES);
        let (opened, is_open) = std_mpsc::channel();
        let watch = move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            // Sockets belong to the runtime in which they were opened.
            let watched = runtime.map_err(Error::Open).and_then(|runtime| {
                let watcher = runtime.block_on(async { Self::open(timing, commands) })?;
                // Who waits for it has not gone.
                let _ = opened.send(Ok(()));
                runtime.block_on(watcher.run(changes));
                Ok(())
            });
            if let Err(error) = watched {
                let _ = opened.send(Err(error));
            }
        };
        thread::Builder::new().name("next-hops".to_owned()).spawn(watch).map_err(Error::Open)?;
        let ended = || Error::Open(io::Error::other("its thread has ended"));
        is_open.recv().map_err(|_| ended())??;
        Ok((WatcherHandle { commands: to_watch }, change_receiver))
    }

    fn open(timing: Timing, commands: mpsc::UnboundedReceiver<BTreeSet<IpAddr>>) -> Result<Self, Error> {
        // Subscribed before the first lookup: what changes in between is then seen as an event.
        let events = Events::open()?;
        let kernel = Kernel::open()?;
        Ok(Self {
            timing,
            kernel,
            events,
            commands,
            links: LinkTable::default(),
            targets: BTreeMap::new(),
            turns: BTreeSet::new(),
            outbox: BTreeSet::new(),
            last: None,
            dirty: Dirty::everything(),
            look_at: Instant::now(),
            random: RandomState::new(),
        })
    }

    async fn run(mut self, changes: mpsc::Sender<Change>) {
        loop {
            let wake = self.wake_at();
            select! {
                command = self.commands.recv() => match command {
                    Some(targets) => self.set_targets(&targets),
                    None => return,
                },
                event = self.events.next() => match event {
                    Ok(event) => self.note(event),
                    Err(error) => self.reopen(&error, &changes).await,
                },
                permit = changes.reserve(), if !self.outbox.is_empty() => match permit {
                    Ok(permit) => send_one(permit, &mut self.outbox, &mut self.targets),
                    Err(_) => return,
                },
                () = changes.closed() => return,
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {
                    if let Err(error) = self.look().await {
                        self.reopen(&error, &changes).await;
                    }
                }
            }
        }
    }

    fn set_targets(&mut self, wanted: &BTreeSet<IpAddr>) {
        let now = Instant::now();
        let turns = &mut self.turns;
        self.targets.retain(|target, known| {
            let stays = wanted.contains(target);
            if !stays {
                turns.remove(&(known.pace.due(), *target));
            }
            stays
        });
        self.outbox.retain(|target| wanted.contains(target));
        if self.targets.is_empty() {
            // Made at once, trees have full nodes; one by one in order they would be half empty.
            self.targets = wanted.iter().map(|target| (*target, Target::new(now))).collect();
            self.turns = wanted.iter().map(|target| (now, *target)).collect();
            return;
        }
        for target in wanted {
            if let Entry::Vacant(new) = self.targets.entry(*target) {
                turns.insert((now, *target));
                new.insert(Target::new(now));
            }
        }
    }

    fn note(&mut self, event: Event) {
        if event == Event::Overrun {
            tracing::warn!("netlink notifications were lost; looking at everything again");
        }
        let was_clean = self.dirty.is_clean();
        self.dirty.note(event, self.targets.iter().map(|(target, known)| (*target, known.neighbour)));
        if was_clean {
            // Counted from the first event, so that an endless stream of them cannot put the look off. Not
            // before the rest that the last look earned; see `look`.
            self.look_at = self.look_at.max(Instant::now() + self.timing.debounce);
        }
    }

    fn wake_at(&self) -> Option<Instant> {
        if self.targets.is_empty() {
            return None;
        }
        let dirty = (!self.dirty.is_clean()).then_some(self.look_at);
        self.turns.first().map(|(due, _)| *due).into_iter().chain(dirty).min()
    }

    /// Looks at every target that an event may concern or whose turn it is.
    async fn look(&mut self) -> Result<(), Error> {
        let start = Instant::now();
        let dirty =
            if start >= self.look_at { mem::take(&mut self.dirty) } else { self.dirty_before_its_time() };
        if dirty.links {
            self.links = self.kernel.links().await?;
        }
        if dirty.everything {
            for known in self.targets.values_mut() {
                known.pace = Pace::fresh(start);
            }
            self.turns = self.targets.keys().map(|target| (start, *target)).collect();
        }
        let mut concerned = dirty.targets;
        concerned.extend(self.turns.iter().take_while(|(due, _)| *due <= start).map(|(_, target)| *target));
        let mut seen = BTreeMap::new();
        for target in concerned {
            self.look_at_target(target, &mut seen).await?;
        }
        // Events without end must not take a whole processor: rest as long as the look took.
        let end = Instant::now();
        self.look_at = end + (end - start);
        Ok(())
    }

    /// A target's turn came while events are still being gathered: those stay, except that a first look needs
    /// the table of interfaces.
    fn dirty_before_its_time(&mut self) -> Dirty {
        Dirty { links: mem::take(&mut self.dirty.links), ..Dirty::default() }
    }

    async fn look_at_target(
        &mut self,
        target: IpAddr,
        seen: &mut BTreeMap<NeighbourKey, Neighbour>,
    ) -> Result<(), Error> {
        let look = match self.resolve(target, seen).await {
            Ok(look) => look,
            Err(Error::Request { request, source }) => self.refused(target, request, &source),
            Err(error) => return Err(error),
        };
        let now = Instant::now();
        let jitter = self.jitter(target, now);
        let Some(known) = self.targets.get_mut(&target) else { return Ok(()) };
        let spent = look.asked || known.pace.is_due(now);
        self.turns.remove(&(known.pace.due(), target));
        known.pace.plan(look.settled, spent, now, &self.timing, jitter);
        self.turns.insert((known.pace.due(), target));
        known.missing_since = if look.settled { None } else { known.missing_since.or(Some(now)) };
        known.neighbour = look.neighbour;
        known.resolution = Some(look.resolution);
        if known.resolution == known.sent {
            self.outbox.remove(&target);
        } else {
            self.outbox.insert(target);
        }
        Ok(())
    }

    async fn resolve(
        &mut self,
        target: IpAddr,
        seen: &mut BTreeMap<NeighbourKey, Neighbour>,
    ) -> Result<Look, Error> {
        let route = match self.kernel.route(target).await? {
            Ok(route) => route,
            Err(reason) => return Ok(Look::unresolved(reason)),
        };
        if !self.links.contains(route.oif) {
            self.links = self.kernel.links().await?;
        }
        let egress = match self.links.egress(route.oif) {
            Ok(egress) => egress,
            Err(reason) => return Ok(Look::unresolved(reason)),
        };
        let key = (route.oif, route.gateway.unwrap_or(target));
        let neighbour = match seen.get(&key) {
            Some(neighbour) => neighbour.clone(),
            None => self.kernel.neighbour(key).await?,
        };
        let asked = self.wants_to_ask(target, key, &neighbour);
        if asked && !seen.contains_key(&key) {
            self.kernel.ask(key).await?;
        }
        let reachability = neighbour.judge(self.before(target, key));
        let settled = neighbour.usable().is_some();
        seen.insert(key, neighbour);
        let interface = egress.interface.clone();
        let resolution = match reachability {
            Reachability::Known(mac) => {
                Resolution::Resolved(self.share(next_hop(target, route, egress, mac)))
            }
            Reachability::Pending => {
                Resolution::unresolved(Reason::NeighbourPending { address: key.1, interface })
            }
            Reachability::Failed => {
                Resolution::unresolved(Reason::NeighbourFailed { address: key.1, interface })
            }
        };
        Ok(Look { resolution, neighbour: Some(key), settled, asked })
    }

    /// The same next hop in one place.
    fn share(&mut self, next_hop: NextHop) -> Arc<NextHop> {
        match &self.last {
            Some(last) if **last == next_hop => Arc::clone(last),
            _ => Arc::clone(self.last.insert(Arc::new(next_hop))),
        }
    }

    /// An idle neighbour is asked for at once where it is new to this target or was usable until now, else at
    /// the target's turn, so that one that does not answer is asked at a bounded rate.
    fn wants_to_ask(&self, target: IpAddr, key: NeighbourKey, neighbour: &Neighbour) -> bool {
        let Some(known) = self.targets.get(&target) else { return false };
        let turn = known.pace.is_due(Instant::now());
        let news = known.neighbour != Some(key) || known.missing_since.is_none();
        (neighbour.is_idle() && (turn || news)) || (neighbour.is_stale() && turn)
    }

    /// What was last found out about the neighbour `key` for this target.
    fn before(&self, target: IpAddr, key: NeighbourKey) -> Before {
        let Some(known) = self.targets.get(&target) else { return Before::Unknown };
        if known.neighbour != Some(key) {
            return Before::Unknown;
        }
        match &known.resolution {
            Some(Resolution::Resolved(next_hop))
                if known.missing_since.is_none_or(|since| since.elapsed() < self.timing.grace) =>
            {
                Before::Known(next_hop.destination_mac)
            }
            Some(Resolution::Unresolved(reason)) if matches!(**reason, Reason::NeighbourFailed { .. }) => {
                Before::Failed
            }
            _ => Before::Unknown,
        }
    }

    /// The kernel refused a lookup (out of memory, no permission): keep what worked, and try again later.
    fn refused(&self, target: IpAddr, request: &str, error: &std::io::Error) -> Look {
        tracing::warn!(%target, request, %error, "next hop lookup refused");
        let known = self.targets.get(&target);
        match known.and_then(|known| known.resolution.clone()) {
            Some(resolution @ Resolution::Resolved(_)) => Look {
                resolution,
                neighbour: known.and_then(|known| known.neighbour),
                settled: false,
                asked: true,
            },
            _ => {
                Look { asked: true, ..Look::unresolved(Reason::LookupFailed(format!("{request}: {error}"))) }
            }
        }
    }

    fn jitter(&self, target: IpAddr, now: Instant) -> f64 {
        f64::from(self.random.hash_one((target, now)) as u32) / f64::from(u32::MAX)
    }

    /// Opens both sockets anew after one broke, and starts over.
    async fn reopen(&mut self, error: &Error, changes: &mpsc::Sender<Change>) {
        tracing::warn!(%error, "netlink failed; opening it again");
        while !changes.is_closed() && !self.commands.is_closed() {
            sleep(REOPEN).await;
            match Events::open().and_then(|events| Ok((events, Kernel::open()?))) {
                Ok((events, kernel)) => {
                    (self.events, self.kernel) = (events, kernel);
                    break;
                }
                Err(error) => tracing::warn!(%error, "netlink does not open"),
            }
        }
        self.dirty = Dirty::everything();
        self.look_at = Instant::now();
    }
}

fn send_one(
    permit: mpsc::Permit<'_, Change>,
    outbox: &mut BTreeSet<IpAddr>,
    targets: &mut BTreeMap<IpAddr, Target>,
) {
    let Some(target) = outbox.pop_first() else { return };
    let Some(known) = targets.get_mut(&target) else { return };
    if let Some(resolution) = known.resolution.clone() {
        known.sent = Some(resolution.clone());
        permit.send(Change { target, resolution });
    }
}

fn next_hop(target: IpAddr, route: Route, egress: Egress, destination_mac: [u8; 6]) -> NextHop {
    let unspecified = match target {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    NextHop {
        ifindex: egress.ifindex,
        interface: egress.interface,
        vlans: egress.vlans,
        source_mac: egress.source_mac,
        destination_mac,
        mtu: route.mtu.map_or(egress.mtu, |mtu| mtu.min(egress.mtu)),
        source: route.source.unwrap_or(unspecified),
        gateway: route.gateway,
    }
}
