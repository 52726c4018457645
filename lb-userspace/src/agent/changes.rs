//! What changes in the servers' state mean for people: log, events, scripts, mail.

use std::{collections::BTreeMap, net::SocketAddr, time::Instant};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    sync::mpsc::{self, error::TryRecvError},
    task::JoinHandle,
};

use super::{Agent, events::Severity};
use crate::{
    api::Request,
    config::{Command, Config, RealServer, VirtualServer},
    desired::{Condition, Outcome, ServerId, ServiceId},
    health::{CheckId, Report},
    metrics,
    notify::{Notification, Notifier},
};

/// How many reports are taken before other events have their turn.
const REPORTS_AT_ONCE: usize = 1000;

/// Target of the debug messages that say how long results took from the check to the maps; `cargo xtask bench control` reads
/// them.
const LATENCY: &str = "xdirector::latency";

impl Agent {
    /// Checks have had something to say: this one, and what else waits.
    pub(super) fn reported(&mut self, first: Report, more: &mut mpsc::UnboundedReceiver<Report>) {
        let mut concerned = std::collections::BTreeSet::new();
        let mut came = Vec::new();
        let mut next = Ok(first);
        let mut left = REPORTS_AT_ONCE;
        while let Ok(report) = next {
            // What was said of a check before a reload removed it may still be on its way.
            if self.is_check(&report.id) {
                concerned.insert(report.id.service);
                came.push(report.at);
                self.inputs.reports.insert(report.id, report);
            }
            left -= 1;
            next = if left == 0 { Err(TryRecvError::Empty) } else { more.try_recv() };
        }
        self.refresh(concerned);
        for at in came {
            tracing::debug!(target: LATENCY, "a check's result is in force after {} us", at.elapsed().as_micros());
        }
    }

    pub(super) fn is_check(&self, id: &CheckId) -> bool {
        let servers =
            self.positions.get(&id.service).map(|&at| &self.config.virtual_servers[at].real_servers);
        let server =
            servers.into_iter().flatten().find(|one| (one.address, one.port) == (id.address, id.port));
        server.is_some_and(|server| (id.index as usize) < server.health_checks.len())
    }

    /// Tells what has changed at one virtual server.
    pub(super) fn tell_changes(&mut self, id: &ServiceId, old: &Outcome, new: &Outcome) {
        let Some(&position) = self.positions.get(id) else { return };
        let head = self.config.virtual_servers[position].clone_head();
        for (index, after) in new.conditions.iter().enumerate() {
            let (address, port) = new.servers[index];
            // Mostly where it was; a search for each would take the square of thousands.
            let same = old.servers.get(index).is_some_and(|one| *one == (address, port)).then_some(index);
            let Some(at) = same.or_else(|| old.position_of(address, port)) else { continue };
            let before = &old.conditions[at];
            let server = self.config.virtual_servers[position].real_servers[index].clone();
            if std::mem::discriminant(before) == std::mem::discriminant(after) {
                let (old, new) = (old.set_weights[at], new.set_weights[index]);
                if *after == Condition::Up && old != new {
                    self.tell_weight(&head, &server, new);
                }
                continue;
            }
            let server_id = ServerId { service: *id, address, port };
            self.since.insert(server_id, Instant::now());
            self.drained.remove(&server_id);
            self.tell_server(&head, &server, before, after);
        }
        if old.quorum.is_up != new.quorum.is_up {
            self.tell_quorum(&head, new);
        }
    }

    fn tell_server(&mut self, head: &Head, server: &RealServer, before: &Condition, after: &Condition) {
        let subject = format!("{}/{}", head.name, SocketAddr::new(server.address, server.port));
        let (severity, text) = match after {
            Condition::Up => (Severity::Good, "up".to_owned()),
            Condition::Quiet => (Severity::Good, "its check asks for no new connections".to_owned()),
            Condition::Down { reason } => (Severity::Bad, format!("down: {reason}")),
            Condition::Checking => (Severity::Bad, "down until its first check".to_owned()),
            Condition::Draining => (Severity::Good, "draining by operator".to_owned()),
            Condition::Disabled if *before == Condition::Draining => {
                (Severity::Good, "taken out: its time to drain is over".to_owned())
            }
            Condition::Disabled => (Severity::Good, "taken out by operator".to_owned()),
        };
        self.mail(head, &format!("{subject}: {text}"));
        self.events.tell(severity, &subject, text);
        let (script, state) = match (before.is_alive(), after.is_alive()) {
            (false, true) => (&server.notify_up, "UP"),
            (true, false) => (&server.notify_down, "DOWN"),
            _ => return,
        };
        if let Some(script) = script {
            self.notifier.run(notification(head, script, state, Some(server)));
        }
    }

    /// Not by mail: a script may find another weight with every check.
    fn tell_weight(&mut self, head: &Head, server: &RealServer, set: Option<u32>) {
        let subject = format!("{}/{}", head.name, SocketAddr::new(server.address, server.port));
        let text = match set {
            Some(weight) => format!("its check sets weight {weight}"),
            None => format!("its check sets no weight any more, so it is {}", server.weight),
        };
        self.events.tell(Severity::Good, &subject, text);
    }

    fn tell_quorum(&mut self, head: &Head, new: &Outcome) {
        let is_up = new.quorum.is_up;
        let sorry = match head.sorry_server {
            Some(address) if is_up => format!(", sorry server {address} is not needed any more"),
            Some(address) => format!(", sorry server {address} takes over"),
            None => String::new(),
        };
        let text = format!(
            "quorum {}: living servers have weight {}, {} wanted{sorry}",
            if is_up { "reached" } else { "lost" },
            new.quorum.alive_weight,
            head.quorum
        );
        self.mail(head, &format!("{}: {text}", head.name));
        self.events.tell(if is_up { Severity::Good } else { Severity::Bad }, &head.name, text);
        let (script, state) =
            if is_up { (&head.quorum_up, "QUORUM_UP") } else { (&head.quorum_down, "QUORUM_DOWN") };
        if let Some(script) = script {
            self.notifier.run(notification(head, script, state, None));
        }
    }

    fn mail(&self, head: &Head, text: &str) {
        if let (true, Some(mailer)) = (head.mail, &self.mailer) {
            mailer.send(text, format!("{text}\n"));
        }
    }
}

/// What stays the same while a virtual server's changes are told.
pub(super) struct Head {
    name: String,
    address: SocketAddr,
    quorum: u32,
    quorum_up: Option<Command>,
    quorum_down: Option<Command>,
    sorry_server: Option<SocketAddr>,
    mail: bool,
}

impl VirtualServer {
    fn clone_head(&self) -> Head {
        Head {
            name: self.name.clone(),
            address: SocketAddr::new(self.address, self.port),
            quorum: self.quorum,
            quorum_up: self.quorum_up.clone(),
            quorum_down: self.quorum_down.clone(),
            sorry_server: self.sorry_server.map(|sorry| SocketAddr::new(sorry.address, sorry.port)),
            mail: self.mail,
        }
    }
}

fn notification(head: &Head, script: &Command, state: &str, server: Option<&RealServer>) -> Notification {
    let mut environment = vec![
        ("XDIRECTOR_VIRTUAL_SERVER".to_owned(), head.name.clone()),
        ("XDIRECTOR_VIRTUAL_ADDRESS".to_owned(), head.address.to_string()),
        ("XDIRECTOR_STATE".to_owned(), state.to_owned()),
    ];
    if let Some(server) = server {
        let address = SocketAddr::new(server.address, server.port).to_string();
        environment.push(("XDIRECTOR_REAL_SERVER".to_owned(), address));
    }
    Notification { queue: head.name.clone(), command: script.clone(), arguments: Vec::new(), environment }
}

/// The scripts for "down" of virtual servers that want them at the end (keepalived's `omega`).
pub(super) fn say_goodbye(config: &Config, outcomes: &BTreeMap<ServiceId, Outcome>, notifier: &Notifier) {
    for virtual_server in config.virtual_servers.iter().filter(|one| one.omega) {
        let head = virtual_server.clone_head();
        let Some(outcome) = outcomes.get(&ServiceId::of(virtual_server)) else { continue };
        for (server, condition) in virtual_server.real_servers.iter().zip(&outcome.conditions) {
            if let (true, Some(script)) = (condition.is_alive(), &server.notify_down) {
                notifier.run(notification(&head, script, "DOWN", Some(server)));
            }
        }
        if let (true, Some(script)) = (outcome.quorum.is_up, &virtual_server.quorum_down) {
            notifier.run(notification(&head, script, "QUORUM_DOWN", None));
        }
    }
}

/// Listens where the configuration wants metrics to be found.
///
/// # Errors
/// When the address cannot be listened on.
pub(super) async fn spawn_metrics(
    config: &Config,
    to_agent: &mpsc::Sender<Request>,
) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(metrics) = &config.metrics else { return Ok(None) };
    let listener = TcpListener::bind(metrics.listen)
        .await
        .with_context(|| format!("metrics.listen = \"{}\"", metrics.listen))?;
    let to_agent = to_agent.clone();
    Ok(Some(tokio::spawn(async move {
        if let Err(error) = metrics::serve(listener, to_agent).await {
            tracing::error!("metrics are not served any more: {error}");
        }
    })))
}
