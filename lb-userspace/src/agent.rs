//! The only event loop: everyone who talks to everyone is visible here.
//!
//! ```text
//! signals ---------.
//! socket requests --+
//! health reports ---+-> Agent: inputs -> desired -> reconcile -> data plane
//! netlink changes --+          '-> log, events, scripts, mail
//! VRRP's reports ---+          '-> VRRP: settings, virtual servers' health
//! timers -----------'
//! ```

mod changes;
mod checks;
mod clock;
mod dead;
mod events;
mod failover;
mod operator;
mod planes;
mod reload;
mod report;
mod serving;
mod start;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::IpAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use nix::fcntl::Flock;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
    time::{Interval, MissedTickBehavior, interval},
};

use crate::{
    api::{
        self, Request,
        types::{LastReload, Work},
    },
    config::{self, Config, Source},
    dataplane::{
        Plane,
        xdp::{CheckPath, Pins, pins},
    },
    desired::{Inputs, Outcome, ServerId, ServiceId},
    health::Health,
    mail::Mailer,
    memory,
    netlink::{self, Resolution, WatcherHandle},
    notify::Notifier,
    orders,
    process::User,
    rates::{Estimators, SAMPLE_PERIOD},
    supervisor::Supervisor,
};
use clock::Clock;
use events::Events;

/// How often a part of the maps is compared with what was written to them; all of them every ten seconds.
const AUDIT_PERIOD: Duration = Duration::from_millis(250);
/// How long the end waits for scripts and mails that are still to be sent.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long after a reload its memory is kept: the next one would have to fetch it from the kernel again.
const MEMORY_KEPT: Duration = Duration::from_secs(5);

/// How long answers that are being written have at the end.
const LAST_ANSWERS: Duration = Duration::from_millis(100);

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration file.
    pub config: PathBuf,
    /// Log the data plane's debug events.
    pub trace: bool,
    /// Socket of the admin interface, if not the instance's default.
    pub socket: Option<PathBuf>,
    /// Directory of the pins, if not the instance's default.
    pub pins: Option<PathBuf>,
    /// Directory of what outlives the agent, if not the default.
    pub state: Option<PathBuf>,
}

/// What becomes of the data plane when the agent ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// Packets are forwarded on; the next agent takes over.
    Keep,
    /// Nothing stays.
    Detach,
}

/// Runs until SIGTERM, which leaves a pinned data plane forwarding, SIGINT, which does not, or an order to stop.
///
/// # Errors
/// [`config::ConfigErrors`], or why the data plane cannot run. What an earlier agent had left goes on then.
pub async fn run(options: Options) -> anyhow::Result<()> {
    memory::share();
    let (config, warnings, source) = config::load_after(&options.config, None)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let supervisor = Supervisor::from_environment();

    let instance = config.director.instance.clone();
    let socket = options.socket.clone().unwrap_or_else(|| api::default_path(&instance));
    let api::BoundSocket { listener, file: _socket_file } = api::bind(&socket, &instance)?;
    let (to_agent, mut requests) = mpsc::channel::<Request>(16);
    let (mut agent, mut incoming) = Agent::start(options, (config, source), to_agent.clone()).await?;

    let server = api::serve(listener, to_agent);
    tokio::pin!(server);
    let mut trace = if agent.options.trace { agent.plane.trace()? } else { None };
    let mut sample = every(SAMPLE_PERIOD);
    let mut audit = every(AUDIT_PERIOD);
    let mut watchdog = every(supervisor.watchdog_period().unwrap_or(Duration::from_secs(3600)));
    supervisor.ready(&agent.say_ready());
    give_memory_back();
    // Whatever ends it: scripts, mails and addresses have their end too.
    let (mut failure, mut is_heard) = (None, true);
    let ending = loop {
        tokio::select! {
            // What packets depend on comes first.
            biased;
            Some(report) = incoming.reports.recv() => agent.reported(report, &mut incoming.reports),
            report = failover::next(&mut incoming.failover) => match report {
                Ok(report) => agent.vrrp_reported(report),
                Err(error) => {
                    failure = Some(error);
                    break Ending::Keep;
                }
            },
            _ = terminate.recv() => { tracing::info!("SIGTERM: ending"); break Ending::Keep }
            _ = interrupt.recv() => { tracing::info!("SIGINT: ending"); break Ending::Detach }
            _ = hangup.recv() => {
                supervisor.reloading();
                // Said in the log; nobody waits for it.
                let _ = agent.reload(&mut incoming).await;
                supervisor.ready(&agent.say_ready());
                agent.gives_back_at = Some(Instant::now() + MEMORY_KEPT);
            }
            Some(change) = incoming.changes.recv() => agent.next_hop_changed(change),
            Some(links) = incoming.links.recv() => agent.links_seen(links),
            Some(request) = requests.recv() => if let Some(ending) = agent.answer(request, &mut incoming).await { break ending },
            Some(counts) = incoming.unfinished.recv() => agent.drains_counted(&counts),
            _ = sample.tick() => {
                agent.take_sample();
                agent.follow_drains();
                agent.follow_retiring();
                agent.ask_for_links();
                if agent.gives_back_at.take_if(|at| *at <= Instant::now()).is_some() {
                    give_memory_back();
                }
            }
            _ = audit.tick() => agent.audit(),
            () = tokio::task::yield_now(), if agent.audit_bites > 0 => agent.audit_bite(),
            _ = watchdog.tick() => supervisor.alive(),
            error = async { trace.as_mut().expect("guarded").print().await }, if trace.is_some() => {
                tracing::warn!("no more debug events: {error}");
                trace = None;
            }
            ended = &mut server => {
                failure = ended.context("the admin socket failed").err();
                is_heard = false;
                break Ending::Keep;
            }
        }
        if std::mem::take(&mut agent.was_reopened) && agent.options.trace {
            trace = agent
                .plane
                .trace()
                .inspect_err(|error| tracing::warn!("no debug events: {error:#}"))
                .ok()
                .flatten();
        }
    };
    // The other director should not wait for anything else.
    agent.give_up_addresses(&mut incoming);
    supervisor.stopping();
    if is_heard {
        // The answer to an order to stop is still on its way.
        let _ = tokio::time::timeout(LAST_ANSWERS, &mut server).await;
    }
    let ended = agent.end(ending).await;
    failure.map_or(ended, Err)
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Who talks to the agent by channels of its own.
struct Incoming {
    /// Health checks.
    reports: mpsc::UnboundedReceiver<crate::health::Report>,
    /// Next hops.
    changes: mpsc::Receiver<netlink::Change>,
    /// This machine's interfaces.
    links: mpsc::Receiver<Vec<netlink::Link>>,
    /// Connections of draining servers, counted by a thread.
    unfinished: mpsc::Receiver<BTreeMap<u32, u64>>,
    /// VRRP; `None` while there is none.
    failover: Option<mpsc::UnboundedReceiver<crate::vrrp::Report>>,
}

/// What the agent knows; all of it changes in [`run`]'s loop only.
struct Agent {
    options: Options,
    config: Config,
    /// Its text, for the next reload.
    source: Option<Source>,
    /// Where each virtual server stands in the configuration.
    positions: BTreeMap<ServiceId, usize>,
    plane: Plane,
    /// IPVS, while it finishes connections that it had before XDP took over.
    retiring: Option<planes::Retiring>,
    /// An operator has ordered it, against the configuration.
    plane_by_order: bool,
    /// Why `auto` did not take XDP.
    fallback: Option<String>,
    /// Why nothing is pinned.
    unpinned: Option<String>,
    inputs: Inputs,
    /// What followed from the inputs the last time.
    outcomes: BTreeMap<ServiceId, Outcome>,
    /// When each server's condition last changed.
    since: BTreeMap<ServerId, Instant>,
    /// Drained servers that have been told of.
    drained: BTreeSet<ServerId>,
    orders: orders::Store,
    /// Writes them.
    kept_orders: orders::Keeper,
    /// Who is dead where nobody serves.
    kept_dead: dead::Kept,
    /// By which limits of time end.
    clock: Clock,
    health: Health,
    /// The way of checks through the data plane.
    check_path: Arc<CheckPath>,
    /// VRRP; `None` without an instance in the configuration.
    failover: Option<failover::Failover>,
    /// What was configured before the last reload: what that has ended has scripts for its end.
    vrrp_before: config::vrrp::Vrrp,
    /// As whom scripts run; `None`: as the agent.
    script_user: Option<User>,
    notifier: Notifier,
    mailer: Option<Mailer>,
    metrics: Option<JoinHandle<()>>,
    to_agent: mpsc::Sender<Request>,
    events: Events,
    work: Work,
    loaded_at: u64,
    last_reload: Option<LastReload>,
    started: Instant,
    /// This machine's interfaces, as of the last look.
    links: Vec<netlink::Link>,
    /// How each real server's address is reached.
    resolutions: BTreeMap<IpAddr, Resolution>,
    watcher: WatcherHandle,
    /// Rates of each real server, by number. Another thread has them too while it reads the counters, so that a check's
    /// result does not wait for a hundred thousand of them.
    rates: Arc<Mutex<Estimators>>,
    /// Takes the connections of draining servers from the thread that counts them; one count at a time.
    to_unfinished: mpsc::Sender<BTreeMap<u32, u64>>,
    /// Takes the list of interfaces; one at a time.
    to_links: mpsc::Sender<Vec<netlink::Link>>,
    /// What is left of the look at a part of the maps.
    audit_bites: usize,
    /// When memory that a reload took is given back.
    gives_back_at: Option<Instant>,
    /// The program has been loaded again: its debug events come from elsewhere now.
    was_reopened: bool,
    /// Keeps other agents from these pins.
    _pins_lock: Option<Flock<File>>,
}

impl Agent {
    /// By which limits of time end.
    fn now(&self) -> u64 {
        self.clock.at(Instant::now())
    }

    /// Ends what runs, and the data plane if that is wanted.
    async fn end(self, ending: Ending) -> anyhow::Result<()> {
        let Self { plane, retiring, config, outcomes, notifier, mailer, orders, kept_orders, .. } = self;
        let ending = if plane.outlives_the_agent() { ending } else { Ending::Detach };
        if ending == Ending::Detach {
            changes::say_goodbye(&config, &outcomes, &notifier);
        }
        let by = plane
            .pins()
            .map_or("the kernel's IPVS".to_owned(), |pins| format!("what is pinned in {}", pins.display()));
        match ending {
            Ending::Keep => {
                tracing::info!("packets are forwarded on by {by}; `xdirector stop --detach` ends that");
            }
            Ending::Detach => tracing::info!("detached: packets are not forwarded any more"),
        }
        let detached = match ending {
            Ending::Detach => plane.detach().and(planes::end_retiring(retiring)),
            Ending::Keep => Ok(()),
        };
        notifier.finish(LAST_WORDS).await;
        if let Some(mailer) = mailer {
            mailer.finish(LAST_WORDS).await;
        }
        if !kept_orders.finish(LAST_WORDS) {
            tracing::error!("{} is not written: the disk does not answer", orders.path().display());
        }
        detached
    }
}

/// Seconds since 1970-01-01 UTC: what people and files understand. Nothing is measured with it.
fn unix_now() -> u64 {
    wall_clock().as_secs()
}

fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Has the allocator give back what a file took while it was read: for a large one as much again as all that is kept.
fn give_memory_back() {
    tokio::task::spawn_blocking(memory::give_back);
}

/// Where an instance's pins are.
fn pins_directory(options: &Options, config: &Config) -> PathBuf {
    options.pins.clone().unwrap_or_else(|| pins::default_directory(&config.director.instance))
}

/// The pins, or why there are none.
fn open_pins(options: &Options, config: &Config) -> Result<Pins, String> {
    Pins::open(&pins_directory(options, config))
}
