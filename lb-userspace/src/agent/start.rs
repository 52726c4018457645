//! From nothing, or from what an earlier agent has left, to a data plane that serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use tokio::{sync::mpsc, time::timeout_at};

use super::{
    Agent, Incoming, Options,
    changes::spawn_metrics,
    clock::Clock,
    dead,
    events::{Events, Severity},
    failover::{self, assign_roles},
    pins_directory, planes,
    serving::configured_addresses,
    unix_now, wall_clock,
};
use crate::{
    api::{
        Request,
        types::{DataPlaneKind, Override, Work},
    },
    config::{Config, OnFailure, RealServer, Source, vrrp::MAX_VRRP_INSTANCES},
    dataplane::{
        DataPlane as _,
        xdp::{
            CheckPath,
            pins::{self, is_on_bpffs},
        },
    },
    desired::{Inputs, ServerId, ServiceId, State, desired_with},
    health::{CheckId, Health, Report},
    mail::Mailer,
    netlink::{Change, Resolution, Timing, Watcher},
    notify::Notifier,
    orders,
    process::User,
    verdicts::{self, Dead},
    vrrp::{self, driver},
};

/// How long the start waits for the neighbours of real servers before it serves the others.
const FIRST_NEXT_HOPS: Duration = Duration::from_secs(2);

impl Agent {
    /// Takes over what an earlier agent has left, brings it to what the configuration asks for, finds the next hops, and only
    /// then attaches.
    pub(super) async fn start(
        options: Options,
        (config, source): (Config, Option<Source>),
        to_agent: mpsc::Sender<Request>,
    ) -> anyhow::Result<(Self, Incoming)> {
        let pins_lock = match pins_directory(&options, &config) {
            directory if is_on_bpffs(&directory).is_ok() => Some(pins::lock(&directory)?),
            _ => None,
        };
        let store = orders::Store::new(&state_directory(&options), &config.director.instance);
        remove_leftovers(&config, &store);
        // Begins to look for the next hops, beside the work until they are needed.
        let (watcher, changes) = Watcher::spawn(Timing::default())?;
        watcher.set_targets(configured_addresses(&config).collect());
        let user = script_user(&config)?;
        let mailer =
            config.mail.as_ref().map(|mail| Mailer::new(mail, &config.director.router_id)).transpose()?;
        let metrics = spawn_metrics(&config, &to_agent).await?;
        let clock = Clock::new(Instant::now(), wall_clock());
        let now = clock.at(Instant::now());
        let mut inputs = Inputs { orders: load_orders(&store), now, ..Inputs::default() };

        assign_roles(&mut inputs.roles, &config);

        // Without what is left the state is that of the configuration alone: enough to know the sizes.
        let wanted = desired_with(&config, &inputs);
        let planes::Opened { plane, unpinned, fallback } =
            planes::open(&options, &config, &wanted, &store).await?;
        // Whoever was master here is it no more.
        let roles = plane.roles();
        (1..=MAX_VRRP_INSTANCES)
            .filter_map(|role| u16::try_from(role).ok())
            .for_each(|role| roles.set(role, false));
        let left = plane.observe();
        let mut events = Events::default();
        let how = match plane.is_adopted() {
            true => "took over the data plane that an earlier agent had left, with its connections",
            false => "started without connections",
        };
        events.tell(Severity::Good, "director", how.to_owned());
        inputs.draining.follow(&left, None, &config, inputs.now);
        let dead_store = verdicts::Store::new(store.directory(), &config.director.instance);
        let dead = dead_store.load().unwrap_or_else(|error| {
            tracing::warn!("who was dead is not known: {}: {error}", dead_store.path().display());
            Dead::new()
        });
        inputs.reports = known(&config, &inputs.orders, &left, &dead);
        inputs.quorum = known_quorum(&config, &left);

        let check_path = Arc::new(CheckPath::default());
        let (health, reports) = Health::spawn(user.clone(), Some(Arc::new(Arc::clone(&check_path))))
            .context("no thread for health checks")?;
        let (to_unfinished, unfinished) = mpsc::channel(1);
        let (to_links, links) = mpsc::channel(1);
        let mut agent = Self {
            options,
            positions: BTreeMap::new(),
            plane,
            retiring: None,
            plane_by_order: false,
            fallback,
            unpinned,
            inputs,
            outcomes: BTreeMap::new(),
            since: BTreeMap::new(),
            drained: BTreeSet::new(),
            kept_dead: dead::Kept::spawn(dead_store, dead).context("no thread for verdicts")?,
            kept_orders: orders::Keeper::spawn(store.clone()).context("no thread for orders")?,
            orders: store,
            clock,
            health,
            check_path,
            failover: None,
            vrrp_before: crate::config::vrrp::Vrrp::default(),
            script_user: user.clone(),
            notifier: Notifier::new(user),
            mailer,
            metrics,
            to_agent,
            events,
            work: Work::default(),
            loaded_at: unix_now(),
            last_reload: None,
            started: Instant::now(),
            links: Vec::new(),
            resolutions: BTreeMap::new(),
            watcher,
            rates: Arc::default(),
            to_unfinished,
            to_links,
            audit_bites: 0,
            gives_back_at: None,
            was_reopened: false,
            _pins_lock: pins_lock,
            config,
            source,
        };
        let mut incoming = Incoming { reports, changes, links, unfinished, failover: None };
        agent.take_configuration();
        let damaged = agent.plane.damaged(1)?.damaged;
        agent.reconcile(&damaged);
        let targets = agent.set_targets();
        agent.open_check_path().await;
        agent.look_at_links().await;
        agent.say_missing_addresses();
        agent.wait_for_next_hops(&targets, FIRST_NEXT_HOPS, &mut incoming.changes).await;
        agent.attach().await?;
        agent.set_checks();
        // Last: a director that cannot serve yet had better not be master.
        agent.follow_vrrp(&mut incoming)?;
        Ok((agent, incoming))
    }

    /// Waits a moment for the next hops of `targets`, so that the first connections find all of them.
    pub(super) async fn wait_for_next_hops(
        &mut self,
        targets: &BTreeSet<IpAddr>,
        limit: Duration,
        changes: &mut mpsc::Receiver<Change>,
    ) {
        let until = tokio::time::Instant::now() + limit;
        let is_open = |resolution: Option<&Resolution>| resolution.is_none_or(Resolution::is_pending);
        let mut open: BTreeSet<IpAddr> =
            targets.iter().filter(|target| is_open(self.resolutions.get(target))).copied().collect();
        while !open.is_empty() {
            match timeout_at(until, changes.recv()).await {
                Ok(Some(change)) => {
                    if !is_open(Some(&change.resolution)) {
                        open.remove(&change.target);
                    } else if targets.contains(&change.target) {
                        open.insert(change.target);
                    }
                    self.next_hop_changed(change);
                }
                Ok(None) | Err(_) => break,
            }
        }
    }

    /// One line for the log and the service manager.
    pub(super) fn say_ready(&self) -> String {
        let interfaces: Vec<String> =
            self.plane.attachments().iter().map(|a| format!("{} ({})", a.name, a.mode)).collect();
        let place = match self.plane.kind() {
            DataPlaneKind::Xdp => format!("on {}", interfaces.join(", ")),
            DataPlaneKind::Ipvs => "by the kernel's IPVS".to_owned(),
        };
        let text = format!(
            "instance {}: serving {} virtual servers {place}",
            self.config.director.instance,
            self.config.virtual_servers.len(),
        );
        tracing::info!("{text}");
        text
    }

    /// Virtual addresses that this machine does not have: nobody answers ARP or neighbour discovery for them here. That is
    /// right on a director that stands by, and where a router sends them here.
    pub(super) fn say_missing_addresses(&self) {
        let own: BTreeSet<IpAddr> =
            self.links.iter().flat_map(|link| link.addresses.iter().copied()).collect();
        let by_vrrp: BTreeSet<IpAddr> = self
            .config
            .vrrp
            .instances
            .iter()
            .flat_map(|instance| instance.addresses.iter().chain(&instance.excluded_addresses))
            .map(|one| one.address)
            .collect();
        let wanted: BTreeSet<IpAddr> =
            self.config.virtual_servers.iter().map(|server| server.address).collect();
        for address in wanted.difference(&own).filter(|address| !by_vrrp.contains(address)) {
            tracing::warn!(
                "virtual address {address} is on no interface of this machine; unless a router or another program brings its \
                 packets here: ip address add {address}/{} dev {}",
                if address.is_ipv4() { 32 } else { 128 },
                self.config.director.interfaces.first().map_or("INTERFACE", String::as_str)
            );
        }
    }
}

/// Removes addresses of an agent that has died, before anything that takes time. What keeps it from that is said again when VRRP
/// itself starts.
fn remove_leftovers(config: &Config, store: &orders::Store) {
    let wanted = driver::Wanted { config: config.vrrp.clone(), roles: BTreeMap::new() };
    let state = failover::state_file(store, config);
    if wanted.config.instances.is_empty() && !state.exists() {
        return;
    }
    match driver::remove_leftovers(wanted, state) {
        Ok(reports) => {
            for report in reports {
                if let vrrp::Report::Notice { subject, text, .. } = report {
                    tracing::warn!("vrrp {subject}: {text}");
                }
            }
        }
        Err(error) => tracing::error!("vrrp: what an earlier run may have left is not removed: {error}"),
    }
}

/// The user as whom scripts run.
///
/// # Errors
/// When the configuration names one that does not exist.
fn script_user(config: &Config) -> anyhow::Result<Option<User>> {
    let name = config.director.script_user.as_ref();
    name.map(|name| User::find(name).with_context(|| format!("director.script_user = \"{name}\"")))
        .transpose()
}

fn state_directory(options: &Options) -> PathBuf {
    // systemd tells where `StateDirectory=` is.
    let by_systemd =
        || std::env::var_os("STATE_DIRECTORY").filter(|path| !path.is_empty()).map(PathBuf::from);
    options
        .state
        .clone()
        .or_else(by_systemd)
        .unwrap_or_else(|| Path::new(orders::DEFAULT_DIRECTORY).to_owned())
}

/// Orders of an earlier agent's operators. A file that cannot be read costs the orders, not the service.
fn load_orders(store: &orders::Store) -> Orders {
    let problem = |error: &io::Error| {
        // The next order writes the file anew.
        let kept = store.put_aside().map_or_else(
            |error| format!("cannot be put aside: {error}"),
            |path| format!("is kept as {}", path.display()),
        );
        tracing::error!(
            "what operators had ordered is not known, since {} cannot be read: {error}; it {kept}",
            store.path().display()
        );
    };
    store.load().inspect_err(problem).unwrap_or_default()
}

type Orders = BTreeMap<ServerId, Override>;

/// What an earlier agent's checks had said, as far as the data plane shows it: until the first results of this agent's checks
/// that holds, so that a restart neither brings dead servers back nor takes living ones out.
fn known(config: &Config, orders: &Orders, left: &State, dead: &Dead) -> BTreeMap<CheckId, Report> {
    let mut reports = BTreeMap::new();
    for virtual_server in &config.virtual_servers {
        let service = ServiceId::of(virtual_server);
        let Some(there) = left.get(&service) else { continue };
        // With nobody in service those that are missing may just as well be new in the file; who was dead stands elsewhere.
        let was_dead = |server: &RealServer| {
            dead.get(&service).is_some_and(|dead| dead.contains(&(server.address, server.port)))
        };
        let has_serving = there.servers.iter().any(|server| !server.is_leaving);
        let is_by_order = |server: &RealServer| {
            let id = ServerId { service, address: server.address, port: server.port };
            matches!(orders.get(&id), Some(Override::Weight { .. }))
        };
        for server in &virtual_server.real_servers {
            let key = (server.address, server.port, server.forward);
            let (is_up, drain, weight) = match there.servers.iter().find(|one| one.key() == key) {
                // Inhibited: its weight is 0 and nobody has said so.
                Some(one)
                    if server.on_failure == OnFailure::Inhibit
                        && (one.is_leaving
                            || one.weight == 0 && server.weight != 0 && !is_by_order(server)) =>
                {
                    (false, false, None)
                }
                Some(one) if !one.is_leaving => {
                    (true, false, (one.weight != server.weight).then_some(one.weight))
                }
                // Its check had asked for silence, or the sorry server stood in.
                Some(_) => (true, true, None),
                None if has_serving || was_dead(server) => (false, false, None),
                None => continue,
            };
            for (index, check) in (0..).zip(&server.health_checks) {
                let id = CheckId { service, address: server.address, port: server.port, index };
                let weight = weight.filter(|_| check.probe.sets_weight());
                let detail = "as it was before this agent started, and not checked since".to_owned();
                reports.insert(id, Report { id, is_up, weight, drain, detail, at: Instant::now() });
            }
        }
    }
    reports
}

/// Whether an earlier agent had seen the quorum reached, where the data plane shows it: by who was in service.
fn known_quorum(config: &Config, left: &State) -> BTreeMap<ServiceId, bool> {
    let mut quorum = BTreeMap::new();
    for virtual_server in config.virtual_servers.iter().filter(|one| one.sorry_server.is_some()) {
        let id = ServiceId::of(virtual_server);
        let Some(there) = left.get(&id) else { continue };
        let is_real = |server: &crate::desired::Server| {
            virtual_server.real_servers.iter().any(|one| (one.address, one.port, one.forward) == server.key())
        };
        if there.servers.iter().any(|server| !server.is_leaving) {
            quorum.insert(id, there.servers.iter().any(|server| !server.is_leaving && is_real(server)));
        }
    }
    quorum
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::desired::outcome;

    #[test]
    fn who_was_dead_where_nobody_serves_stays_dead() {
        let text = "[director]\ninterfaces = [\"eth0\"]\n[[virtual_server]]\nname = \"a\"\n\
                    address = \"10.0.0.50:80\"\nhealth_check = [{ type = \"tcp\" }]\n\
                    [[virtual_server.real_server]]\naddress = \"10.0.1.1:80\"\n\
                    [[virtual_server.real_server]]\naddress = \"10.0.1.2:80\"\n";
        let config = crate::config::parse("test.toml", text).expect("a right file").0;
        let service = ServiceId::of(&config.virtual_servers[0]);
        let id = |host| CheckId { service, address: [10, 0, 1, host].into(), port: 80, index: 0 };
        // Both had failed.
        let reports = [1, 2].map(|host| (id(host), Report::sample(id(host), false, "refused")));
        let before = Inputs { reports: reports.into(), ..Inputs::default() };
        let last = outcome(&config.virtual_servers[0], &before);
        let dead: Dead = verdicts::dead(&last).map(|dead| (service, dead)).into_iter().collect();
        assert_eq!(dead[&service].len(), 2);
        let left = State::from([(service, last.service)]);

        let known_up = |dead: &Dead| {
            let reports = known(&config, &Orders::new(), &left, dead);
            reports.into_values().map(|report| report.is_up).collect::<Vec<_>>()
        };
        assert_eq!(known_up(&dead), [false, false]);
        assert_eq!(known_up(&Dead::new()), [false; 0], "new in the file, for all that the maps say");
        // The second one is new in the file.
        let one = Dead::from([(service, BTreeSet::from([([10, 0, 1, 1].into(), 80)]))]);
        assert_eq!(known_up(&one), [false]);
        // Where somebody serves the maps say it all.
        let half = Inputs {
            reports: BTreeMap::from([(id(1), Report::sample(id(1), false, "refused"))]),
            ..Inputs::default()
        };
        assert_eq!(verdicts::dead(&outcome(&config.virtual_servers[0], &half)), None);
    }
}
