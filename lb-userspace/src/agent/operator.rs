//! What people ask for through the socket.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{Agent, Ending, Incoming, events::Severity, report, wall_clock};
use crate::{
    api::{
        ConnectionBatch, Request, ServerAddress,
        types::{Action, Order, Ordered, OrderedServer, Override},
    },
    config::RealServer,
    desired::{Condition, Server, ServerId, ServiceId},
};

/// How long an operator waits until an order is written.
const KEPT: Duration = Duration::from_secs(2);

impl Agent {
    /// Answers a request; says how to end if that was asked for.
    pub(super) async fn answer(&mut self, request: Request, incoming: &mut Incoming) -> Option<Ending> {
        // A client that left does not miss its answer.
        match request {
            Request::Status(reply) => match self.status() {
                Ok(status) => drop(reply.send(status)),
                Err(error) => tracing::error!("cannot read the status: {error:#}"),
            },
            Request::Connections { limit, reply } => {
                let list = self.plane.connection_list();
                tokio::task::spawn_blocking(move || match list {
                    Ok(list) => report::send_connections(&list, limit, &reply),
                    Err(error) => drop(reply.blocking_send(ConnectionBatch::Failed(format!("{error:#}")))),
                });
            }
            Request::Events(reply) => drop(reply.send(self.events.list())),
            Request::Reload(reply) => {
                drop(reply.send(self.reload(incoming).await));
                self.gives_back_at = Some(Instant::now() + super::MEMORY_KEPT);
            }
            Request::DataPlane { order, reply } => drop(reply.send(self.set_plane(order).await)),
            Request::Order { order, reply } => match self.order(&order) {
                Ok(servers) => self.keep_orders(servers, reply),
                Err(error) => drop(reply.send(Err(error))),
            },
            Request::Vrrp(reply) => drop(reply.send(self.vrrp_status().unwrap_or_default())),
            Request::VrrpOrder { instance, resume, reply } => {
                drop(reply.send(self.vrrp_order(&instance, resume)));
            }
            Request::Stop { stop, reply } => return Some(stopped(stop.detach, reply)),
        }
        None
    }

    /// Keeps the orders for later agents; the operator hears of it in time. A disk that hangs is not waited for here.
    fn keep_orders(&self, servers: Vec<OrderedServer>, reply: oneshot::Sender<Result<Ordered, String>>) {
        let kept = self.kept_orders.keep(self.orders_on_wall());
        let path = self.orders.path().display().to_string();
        tokio::spawn(async move {
            let not_kept = match tokio::time::timeout(KEPT, kept).await {
                Ok(Ok(kept)) => kept.err(),
                // Its thread is gone or still at it.
                Ok(Err(_)) | Err(_) => Some(format!("{path} is not written yet: the disk does not answer")),
            };
            drop(reply.send(Ok(Ordered { servers, not_kept })));
        });
    }

    /// Does what an operator orders.
    fn order(&mut self, order: &Order) -> Result<Vec<OrderedServer>, String> {
        let now = self.now();
        let concerned = self.find_servers(order)?;
        for (_, id) in &concerned {
            let order = match order.action {
                Action::Drain { timeout_seconds } => Some(Override::Drain {
                    until: timeout_seconds.map(|seconds| now.saturating_add(seconds)),
                }),
                Action::Disable => Some(Override::Disable),
                Action::Weight { weight } => Some(Override::Weight { weight }),
                Action::Enable => None,
            };
            match order {
                Some(order) => self.inputs.orders.insert(*id, order),
                None => self.inputs.orders.remove(id),
            };
            self.drained.remove(id);
        }
        for (name, id) in &concerned {
            let subject = format!("{name}/{}", SocketAddr::new(id.address, id.port));
            match order.action {
                Action::Weight { weight } => {
                    self.events.tell(Severity::Good, &subject, format!("weight {weight} by operator"));
                }
                Action::Enable => {
                    self.events.tell(Severity::Good, &subject, "orders lifted by operator".to_owned());
                }
                // The change of its condition says it.
                Action::Drain { .. } | Action::Disable => {}
            }
        }
        self.refresh(concerned.iter().map(|(_, id)| id.service).collect::<BTreeSet<_>>());
        Ok(concerned
            .into_iter()
            .map(|(virtual_server, id)| OrderedServer {
                virtual_server,
                address: SocketAddr::new(id.address, id.port),
                connections: self.connections_of(&id),
            })
            .collect())
    }

    /// As the next agent has to read them.
    fn orders_on_wall(&self) -> BTreeMap<ServerId, Override> {
        let (now, wall) = (Instant::now(), wall_clock());
        let on_wall = |(id, order): (&ServerId, &Override)| (*id, self.clock.on_wall(*order, now, wall));
        self.inputs.orders.iter().map(on_wall).collect()
    }

    /// The real servers that an order means, each with the name of its virtual server.
    fn find_servers(&self, order: &Order) -> Result<Vec<(String, ServerId)>, String> {
        let wanted: ServerAddress = order.server.parse()?;
        let mut found = Vec::new();
        let is_meant = |name: &str| order.virtual_server.as_ref().is_none_or(|wanted| wanted == name);
        for virtual_server in self.config.virtual_servers.iter().filter(|one| is_meant(&one.name)) {
            for server in &virtual_server.real_servers {
                if wanted.matches(SocketAddr::new(server.address, server.port)) {
                    let service = ServiceId::of(virtual_server);
                    let id = ServerId { service, address: server.address, port: server.port };
                    found.push((virtual_server.name.clone(), id));
                }
            }
        }
        if order.action == Action::Enable {
            // An order outlives its server in the configuration, and can be lifted then too.
            for id in self.inputs.orders.keys() {
                let name = self.name_of(&id.service);
                let is_known = found.iter().any(|(_, known)| known == id);
                if !is_known && is_meant(&name) && wanted.matches(SocketAddr::new(id.address, id.port)) {
                    found.push((name, *id));
                }
            }
        }
        if found.is_empty() { Err(self.not_found(order)) } else { Ok(found) }
    }

    fn not_found(&self, order: &Order) -> String {
        let names: Vec<&str> = self.config.virtual_servers.iter().map(|one| one.name.as_str()).collect();
        if let Some(name) = order.virtual_server.as_deref().filter(|name| !names.contains(name)) {
            return format!(
                "there is no virtual server \"{name}\"; {}",
                some_of(names.iter().map(ToString::to_string))
            );
        }
        let servers = self
            .config
            .virtual_servers
            .iter()
            .filter(|one| order.virtual_server.as_ref().is_none_or(|name| *name == one.name))
            .flat_map(|one| {
                let address = |server: &RealServer| SocketAddr::new(server.address, server.port);
                one.real_servers.iter().map(move |server| format!("{}/{}", one.name, address(server)))
            });
        format!("there is no real server {}; {}", order.server, some_of(servers))
    }

    /// Active and inactive connections of a real server, also of one that has been taken out.
    pub(super) fn connections_of(&self, id: &ServerId) -> u64 {
        self.numbers_of(id)
            .map(|number| {
                let load = self.plane.server_load(number);
                u64::from(load.active) + u64::from(load.inactive)
            })
            .sum::<u64>()
            + self.retiring_connections_of(id)
    }

    fn numbers_of(&self, id: &ServerId) -> impl Iterator<Item = u32> + '_ {
        let (address, port) = (id.address, id.port);
        self.plane
            .servers_of(&id.service)
            .filter(move |(server, _)| (server.address, server.port) == (address, port))
            .map(|(_, number)| number)
    }

    /// Looks at what drains: has the connections counted that are left, ends what has had its time, and takes out what the
    /// configuration no longer has.
    pub(super) fn follow_drains(&mut self) {
        let now = self.now();
        let mut concerned = BTreeSet::new();
        for (id, order) in &self.inputs.orders {
            if let Override::Drain { until: Some(until) } = order
                && *until <= now
                && self.condition_of(id).is_some_and(|one| *one == Condition::Draining)
            {
                concerned.insert(id.service);
            }
        }
        let empty = |service: &ServiceId, server: &Server| self.connections_of(&server.id(*service)) == 0;
        let mut draining = self.inputs.draining.clone();
        let ended = draining.end(now, empty);
        if !ended.is_empty() {
            self.inputs.draining = draining;
            for id in &ended {
                if !self.drained.remove(id) {
                    match self.connections_of(id) {
                        0 => self.tell_drained(id, "drained: all its connections have ended".to_owned()),
                        left => self.tell_drained(
                            id,
                            format!("taken out with {left} connections: its time to drain is over"),
                        ),
                    }
                }
                concerned.insert(id.service);
            }
        }
        if !concerned.is_empty() {
            self.refresh(concerned);
            self.set_targets();
        }
        self.count_unfinished();
    }

    /// Servers that drain and of which nobody has said yet that they are done, with their numbers.
    fn undone_drains(&self) -> BTreeMap<u32, ServerId> {
        let mut undone = BTreeMap::new();
        for (service, outcome) in &self.outcomes {
            if !outcome.conditions.iter().any(Condition::is_draining) {
                continue;
            }
            let Some(&position) = self.positions.get(service) else { continue };
            let servers = &self.config.virtual_servers[position].real_servers;
            for (server, _) in servers.iter().zip(&outcome.conditions).filter(|(_, one)| one.is_draining()) {
                let id = ServerId { service: *service, address: server.address, port: server.port };
                undone.extend(self.numbers_of(&id).map(|number| (number, id)));
            }
        }
        for (service, leaver) in self.inputs.draining.all() {
            let id = leaver.server.id(service);
            undone.extend(self.numbers_of(&id).map(|number| (number, id)));
        }
        undone.retain(|_, id| !self.drained.contains(id));
        undone
    }

    /// Has the connections of draining servers counted, in another thread: that looks at all of the table.
    fn count_unfinished(&self) {
        let idle: BTreeSet<u32> = self
            .undone_drains()
            .into_keys()
            .filter(|number| self.plane.server_load(*number).active == 0)
            .collect();
        if idle.is_empty() {
            return;
        }
        let Ok(permit) = self.to_unfinished.clone().try_reserve_owned() else { return };
        match self.plane.connection_counts() {
            Ok(list) => drop(tokio::task::spawn_blocking(move || match list.unfinished(&idle) {
                Ok(counts) => drop(permit.send(counts)),
                Err(error) => {
                    tracing::error!("cannot count the connections of draining servers: {error:#}");
                }
            })),
            Err(error) => tracing::error!("cannot count the connections of draining servers: {error:#}"),
        }
    }

    /// Connections of draining servers have been counted.
    pub(super) fn drains_counted(&mut self, counts: &BTreeMap<u32, u64>) {
        for (number, id) in self.undone_drains() {
            let is_idle = self.plane.server_load(number).active == 0;
            if is_idle && counts.get(&number) == Some(&0) {
                self.drained.insert(id);
                self.since.insert(id, Instant::now());
                self.tell_drained(&id, "drained: all its connections have ended".to_owned());
            }
        }
    }

    fn tell_drained(&mut self, id: &ServerId, text: String) {
        let subject = format!("{}/{}", self.name_of(&id.service), SocketAddr::new(id.address, id.port));
        self.events.tell(Severity::Good, &subject, text);
    }

    fn condition_of(&self, id: &ServerId) -> Option<&Condition> {
        self.outcomes.get(&id.service)?.condition_of(id.address, id.port)
    }
}

fn stopped(detach: bool, reply: oneshot::Sender<()>) -> Ending {
    tracing::info!("ordered to stop{}", if detach { " and to detach" } else { "" });
    let _ = reply.send(());
    if detach { Ending::Detach } else { Ending::Keep }
}

/// The first few of many names.
fn some_of(names: impl Iterator<Item = String>) -> String {
    const MOST: usize = 8;
    let mut names = names.fuse();
    let first: Vec<String> = names.by_ref().take(MOST).collect();
    match (first.len(), names.count()) {
        (0, _) => "there are none".to_owned(),
        (_, 0) => format!("there are {}", first.join(", ")),
        (_, more) => format!("there are {}, and {more} more", first.join(", ")),
    }
}
