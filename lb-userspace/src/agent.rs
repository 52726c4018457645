//! The only event loop: everyone who talks to everyone is visible here.
//!
//! ```text
//! signals --------.
//! socket requests -+-> Agent -> desired -> reconcile -> data plane
//! netlink changes -+
//! timers ---------'
//! ```

mod report;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval, timeout_at},
};

use crate::{
    api::{self, ConnectionBatch, Request},
    config::{self, Config},
    dataplane::{DataPlane, xdp::XdpPlane},
    desired::desired,
    netlink::{self, Change, Reason, Resolution, Timing, Watcher, WatcherHandle},
    rates::{Estimator, SAMPLE_PERIOD},
    reconcile::reconcile,
};

/// How often a part of the connection table is looked through, and how large a part: all of it every two seconds, so
/// a connection ends at most that much later than its timeout says.
const SWEEP_PERIOD: Duration = Duration::from_millis(250);
const SWEEP_PART: f64 = 0.125;
/// How long the start waits for the neighbours of real servers before it serves the others.
const FIRST_NEXT_HOPS: Duration = Duration::from_secs(2);

/// How to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Configuration file.
    pub config: PathBuf,
    /// Log the data plane's debug events.
    pub trace: bool,
    /// Socket of the admin interface, if not the instance's default.
    pub socket: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT; then detaches and ends.
///
/// # Errors
/// [`config::ConfigErrors`], or why the data plane cannot run. Nothing is attached then.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let (config, warnings) = config::load(&options.config)?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;

    let instance = config.director.instance.clone();
    let socket = options.socket.unwrap_or_else(|| api::default_path(&instance));
    XdpPlane::check_interfaces(&config.director.interfaces).await?;
    let api::BoundSocket { listener, file: _socket_file } = api::bind(&socket, &instance)?;
    let (mut agent, mut changes) = Agent::start(config, options.trace).await?;

    let (to_agent, mut requests) = mpsc::channel::<Request>(16);
    let server = api::serve(listener, to_agent);
    tokio::pin!(server);
    let mut trace = if options.trace { Some(agent.plane.trace()?) } else { None };
    let mut sweep = interval(SWEEP_PERIOD);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sample = interval(SAMPLE_PERIOD);
    sample.set_missed_tick_behavior(MissedTickBehavior::Delay);
    agent.say_ready();
    loop {
        tokio::select! {
            _ = terminate.recv() => break tracing::info!("SIGTERM: ending"),
            _ = interrupt.recv() => break tracing::info!("SIGINT: ending"),
            _ = hangup.recv() => tracing::warn!("SIGHUP: live configuration is not there yet; restart to change it"),
            Some(request) = requests.recv() => agent.answer(request),
            Some(change) = changes.recv() => agent.next_hop_changed(change).await,
            _ = sweep.tick() => agent.sweep(),
            _ = sample.tick() => {
                agent.sample();
                agent.look_at_links().await;
            }
            error = async { trace.as_mut().expect("guarded").print().await }, if trace.is_some() => {
                tracing::warn!("no more debug events: {error}");
                trace = None;
            }
            ended = &mut server => return ended.context("the admin socket failed"),
        }
    }
    Ok(())
}

/// What the agent knows; all of it changes in [`run`]'s loop only.
struct Agent {
    config: Config,
    plane: XdpPlane,
    started: Instant,
    /// This machine's interfaces, as of the last look.
    links: Vec<netlink::Link>,
    /// How each real server's address is reached.
    resolutions: BTreeMap<IpAddr, Resolution>,
    /// Rates of each real server, by number.
    rates: BTreeMap<u32, Estimator>,
    /// Keeps the watcher alive.
    _watcher: WatcherHandle,
}

impl Agent {
    /// Loads and fills the data plane, finds the next hops, and only then attaches.
    async fn start(config: Config, trace: bool) -> anyhow::Result<(Self, mpsc::Receiver<Change>)> {
        let wanted = desired(&config);
        let mut plane = XdpPlane::load(&config, &wanted, trace)?;
        for operation in reconcile(&wanted, &plane.observe()) {
            plane.apply(&operation)?;
        }
        let (watcher, mut changes) = Watcher::spawn(Timing::default())?;
        let targets: BTreeSet<IpAddr> =
            wanted.values().flat_map(|service| &service.servers).map(|server| server.address).collect();
        watcher.set_targets(targets.clone());
        let mut agent = Self {
            config,
            plane,
            started: Instant::now(),
            links: Vec::new(),
            resolutions: BTreeMap::new(),
            rates: BTreeMap::new(),
            _watcher: watcher,
        };
        agent.look_at_links().await;
        agent.say_missing_addresses();
        agent.first_next_hops(&targets, &mut changes).await;
        let director = agent.config.director.clone();
        agent.plane.attach(&director.interfaces, director.xdp_mode).await?;
        Ok((agent, changes))
    }

    /// Waits a moment for every real server's next hop, so that the first connections find all of them.
    async fn first_next_hops(&mut self, targets: &BTreeSet<IpAddr>, changes: &mut mpsc::Receiver<Change>) {
        let until = tokio::time::Instant::now() + FIRST_NEXT_HOPS;
        let is_open = |resolution: Option<&Resolution>| {
            matches!(resolution, None | Some(Resolution::Unresolved(Reason::NeighbourPending { .. })))
        };
        while targets.iter().any(|target| is_open(self.resolutions.get(target))) {
            match timeout_at(until, changes.recv()).await {
                Ok(Some(change)) => self.next_hop_changed(change).await,
                Ok(None) | Err(_) => break,
            }
        }
    }

    async fn next_hop_changed(&mut self, change: Change) {
        let Change { target, resolution } = change;
        match &resolution {
            Resolution::Resolved(hop) => tracing::info!("real server {target}: by way of {}", hop.interface),
            Resolution::Unresolved(Reason::NeighbourPending { .. }) => {}
            Resolution::Unresolved(reason) => tracing::warn!("real server {target}: no way to it: {reason}"),
        }
        let keeps_tags = match &resolution {
            // VLAN devices on an interface say which tags its frames have; without any, frames keep theirs.
            Resolution::Resolved(hop) => {
                !self.links.iter().any(|link| link.vlan.is_some_and(|vlan| vlan.parent == hop.ifindex))
            }
            Resolution::Unresolved(_) => false,
        };
        if let Err(error) = self.plane.set_next_hop(target, &resolution, keeps_tags) {
            tracing::error!("cannot set the next hop of real server {target}: {error:#}");
        }
        self.resolutions.insert(target, resolution);
    }

    /// Virtual addresses that this machine does not have: nobody answers ARP or neighbour discovery for them here. That is
    /// right on a director that stands by, and where a router sends them here.
    fn say_missing_addresses(&self) {
        let own: BTreeSet<IpAddr> =
            self.links.iter().flat_map(|link| link.addresses.iter().copied()).collect();
        let wanted: BTreeSet<IpAddr> =
            self.config.virtual_servers.iter().map(|server| server.address).collect();
        for address in wanted.difference(&own) {
            tracing::warn!(
                "virtual address {address} is on no interface of this machine; unless a router or another program brings its \
                 packets here: ip address add {address}/{} dev {}",
                if address.is_ipv4() { 32 } else { 128 },
                self.config.director.interfaces[0]
            );
        }
    }

    /// Keeps up with this machine's interfaces and their MAC addresses.
    async fn look_at_links(&mut self) {
        match netlink::links().await {
            Ok(links) if links != self.links => {
                self.plane.set_macs(&links.iter().filter_map(|link| link.mac).collect());
                self.plane.follow_interfaces(&links, self.config.director.xdp_mode);
                self.links = links;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!("cannot list the interfaces: {error}"),
        }
    }

    fn sweep(&mut self) {
        match self.plane.sweep(SWEEP_PART) {
            Ok(0) => {}
            Ok(ended) => tracing::trace!("{ended} connections ended"),
            Err(error) => tracing::error!("cannot end connections whose time is over: {error:#}"),
        }
    }

    fn sample(&mut self) {
        let now = self.started.elapsed();
        for number in self.plane.server_numbers() {
            match self.plane.server_stats(number) {
                Ok(stats) => {
                    let stats = report::stats(&stats);
                    self.rates.entry(number).or_insert_with(|| Estimator::new(now, stats)).sample(now, stats);
                }
                Err(error) => tracing::error!("cannot read the counters of a real server: {error:#}"),
            }
        }
    }

    fn answer(&self, request: Request) {
        match request {
            Request::Status(reply) => match self.status() {
                // A client that left is no matter.
                Ok(status) => drop(reply.send(status)),
                Err(error) => tracing::error!("cannot read the status: {error:#}"),
            },
            Request::Connections { limit, reply } => {
                let list = self.plane.connection_list();
                tokio::task::spawn_blocking(move || match list {
                    Ok(list) => report::send_connections(&list, limit, &reply),
                    // A client that left does not miss the answer.
                    Err(error) => drop(reply.blocking_send(ConnectionBatch::Failed(format!("{error:#}")))),
                });
            }
        }
    }

    fn say_ready(&self) {
        let interfaces: Vec<String> =
            self.plane.attachments().iter().map(|a| format!("{} ({})", a.name, a.mode)).collect();
        tracing::info!(
            "instance {}: serving {} virtual servers on {}",
            self.config.director.instance,
            self.config.virtual_servers.len(),
            interfaces.join(", ")
        );
    }
}
