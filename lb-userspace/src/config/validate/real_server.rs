//! The real servers of a virtual server: what they inherit, and the rules that they share.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use toml::de::DeValue;

use super::{
    super::{
        Command, Forward, MAX_HEALTH_CHECKS, MAX_REAL_SERVERS, OnFailure, Protocol, RealServer, Tunnel,
        check::HealthCheck,
        diagnostic::Problem,
        document::{Field, Place, Read, Report, Table},
        values,
    },
    Facts,
    check::{self, Target, Template},
    ipvs,
};

/// What real servers of earlier virtual servers have taken.
#[derive(Default)]
pub(super) struct RealServers {
    nat: NatUsers,
    servers: Count,
    checks: Count,
}

/// How many there are of something, and where the first one too many stands.
#[derive(Default)]
struct Count {
    number: usize,
    first_too_many: Option<Place>,
}

/// Who has an address already: for the message about the second one.
#[derive(Clone)]
pub(super) struct Owner {
    pub(super) path: String,
    pub(super) line: usize,
    /// The index of the virtual server.
    index: usize,
}

/// Which real servers get translated packets. The director keeps its clients' ports, so two virtual servers that
/// share one cannot tell a client's two connections from the same port apart in the replies.
#[derive(Default)]
struct NatUsers {
    exact: BTreeMap<(Protocol, IpAddr, u16), Owner>,
    any: BTreeMap<(Protocol, IpAddr), Owner>,
}

/// What a real server needs to know of its virtual server; `None` where that is wrong itself.
#[derive(Clone, Copy)]
pub(super) struct Service {
    pub(super) address: Option<(IpAddr, u16)>,
    pub(super) protocol: Option<Protocol>,
    /// Its place in the file.
    pub(super) index: usize,
}

/// Keys that a virtual server has for its real servers, and that each of them may have instead.
pub(super) struct Own {
    forward: Read<Forward>,
    tunnel: Read<Tunnel>,
    on_failure: Read<OnFailure>,
    upper_threshold: Read<u32>,
    lower_threshold: Read<u32>,
    notify_up: Read<Option<Command>>,
    notify_down: Read<Option<Command>>,
    health_check: Read<Vec<Template>>,
}

/// What [`Own`] comes to together with the level above; `None` where it is wrong.
#[derive(Clone)]
pub(super) struct Inherited {
    pub(super) forward: Option<Forward>,
    tunnel: Option<Tunnel>,
    on_failure: Option<OnFailure>,
    /// The upper and the lower one.
    thresholds: Option<(u32, u32)>,
    notify_up: Option<Option<Command>>,
    notify_down: Option<Option<Command>>,
    /// Shared: there may be as many real servers as checks.
    health_check: Option<Rc<[Template]>>,
}

impl Default for Inherited {
    fn default() -> Self {
        Self {
            forward: Some(Forward::Nat),
            tunnel: Some(Tunnel::IPIP),
            on_failure: Some(OnFailure::Remove),
            thresholds: Some((0, 0)),
            notify_up: Some(None),
            notify_down: Some(None),
            health_check: Some(Rc::new([])),
        }
    }
}

impl Own {
    /// Reads the keys; `header` is how that of a check is written here.
    pub(super) fn read(table: &mut Table<'_>, header: &str, facts: &Facts, report: &mut Report<'_>) -> Self {
        let count = |value: &DeValue<'_>| values::integer(value, 0..=u32::MAX);
        Self {
            forward: table.value("forward", report, values::forward),
            tunnel: ipvs::tunnel(table, facts, report),
            on_failure: table.value("on_failure", report, values::on_failure),
            upper_threshold: table.value("upper_threshold", report, count),
            lower_threshold: table.value("lower_threshold", report, count),
            notify_up: table.value("notify_up", report, values::command),
            notify_down: table.value("notify_down", report, values::command),
            health_check: check::templates(table, header, facts, report),
        }
    }

    /// Takes from `above` what the file does not say here.
    pub(super) fn over(self, above: &Inherited, report: &mut Report<'_>) -> Inherited {
        Inherited {
            forward: self.forward.or_inherit(&above.forward),
            tunnel: self.tunnel.or_inherit(&above.tunnel),
            on_failure: self.on_failure.or_inherit(&above.on_failure),
            thresholds: thresholds(self.upper_threshold, self.lower_threshold, above.thresholds, report),
            notify_up: self.notify_up.or_inherit(&above.notify_up),
            notify_down: self.notify_down.or_inherit(&above.notify_down),
            health_check: match self.health_check {
                Read::Absent => above.health_check.clone(),
                Read::Wrong => None,
                Read::Given(field) => Some(field.value.into()),
            },
        }
    }
}

/// The two make sense together only: one that has an upper one of its own does not inherit the lower one.
fn thresholds(
    upper: Read<u32>,
    lower: Read<u32>,
    above: Option<(u32, u32)>,
    report: &mut Report<'_>,
) -> Option<(u32, u32)> {
    let lower = lower.optional()?;
    let (upper, inherited_lower) = match upper.optional()? {
        Some(field) => (field.value, 0),
        None => above?,
    };
    let Some(Field { value: lower, place }) = lower else { return Some((upper, inherited_lower)) };
    if upper == 0 && lower > 0 {
        let problem =
            Problem::new("without effect, since there is no upper_threshold").expected("both or neither");
        report.error(&place, problem);
    } else if lower > upper {
        let problem = Problem::new(format!("more than the upper_threshold, {upper}"))
            .expected(format!("a whole number from 0 to {upper}"));
        report.error(&place, problem);
    }
    Some((upper, lower))
}

impl RealServers {
    /// Reads the real servers of one virtual server. `None` means that an error was reported.
    pub(super) fn read(
        &mut self,
        tables: Vec<Table<'_>>,
        service: Service,
        inherited: &Inherited,
        facts: &Facts,
        report: &mut Report<'_>,
    ) -> Option<Vec<RealServer>> {
        let mut reading = Reading {
            service,
            inherited,
            facts,
            lines: BTreeMap::new(),
            // What is wrong with a check for one server is so for the others, and said once.
            is_refused: vec![false; inherited.health_check.as_ref().map_or(0, |checks| checks.len())],
        };
        let mut servers = Vec::with_capacity(tables.len());
        for table in tables {
            self.servers.add(1, MAX_REAL_SERVERS, || table.place());
            servers.push(self.one(table, &mut reading, report));
        }
        servers.into_iter().collect()
    }

    /// Reports what is wrong with all of them together.
    pub(super) fn finish(&self, report: &mut Report<'_>) {
        self.servers.finish("real servers in all virtual servers together", MAX_REAL_SERVERS, report);
        self.checks.finish("checks of all real servers together", MAX_HEALTH_CHECKS, report);
    }

    fn one(
        &mut self,
        mut table: Table<'_>,
        reading: &mut Reading<'_>,
        report: &mut Report<'_>,
    ) -> Option<RealServer> {
        let address = table.value("address", report, values::real_address);
        let expected = "ADDRESS or ADDRESS:PORT, such as \"192.168.1.101:8080\"";
        let address = address.required(&table, "address", expected, report);
        let weight = |value: &DeValue<'_>| values::integer(value, 0..=65_535);
        let weight = table.value("weight", report, weight).or(1);
        let header = "[[virtual_server.real_server.health_check]]";
        let own = Own::read(&mut table, header, reading.facts, report);
        let has_own_checks = own.health_check.is_given();
        let own = own.over(reading.inherited, report);
        let table_place = table.place();
        table.finish(report);

        let Field { value: (address, given_port), place } = address?;
        let (vip, vip_port) = reading.service.address?;
        let port = given_port.unwrap_or(vip_port);
        match reading.lines.entry((address, port)) {
            Entry::Occupied(first) => {
                let problem = Problem::new(format!("the same address and port as at line {}", first.get()))
                    .expected("each real server once in a virtual server");
                report.error(&place, problem);
            }
            Entry::Vacant(free) => {
                free.insert(report.line(&place));
            }
        }
        let (service, server) = (SocketAddr::new(vip, vip_port), SocketAddr::new(address, port));
        let forward = own.forward?;
        fits(service, server, forward, &place, report);
        if let (Forward::Nat, Some(protocol)) = (forward, reading.service.protocol) {
            let owner = Owner::new(&place, reading.service.index, report);
            if let Some(other) = self.nat.add(protocol, address, port, owner) {
                let problem = Problem::new(format!(
                    "{} at line {} translates to the same real server; a client that uses one source port for \
                     both would mix up its connections",
                    other.path, other.line
                ));
                report.warning(&place, problem);
            }
        }
        let target = Target { server, service, protocol: reading.service.protocol };
        let checks = own.health_check?;
        let mut own_refused = vec![false; checks.len()];
        let is_refused = if has_own_checks { &mut own_refused } else { &mut reading.is_refused };
        let health_checks = self.health_checks(&checks, &target, &table_place, is_refused, report)?;

        let (upper_threshold, lower_threshold) = own.thresholds?;
        Some(RealServer {
            address,
            port,
            weight: weight?,
            forward,
            tunnel: own.tunnel.map(|tunnel| if forward == Forward::Tun { tunnel } else { Tunnel::IPIP })?,
            upper_threshold,
            lower_threshold,
            on_failure: own.on_failure?,
            health_checks,
            notify_up: own.notify_up?,
            notify_down: own.notify_down?,
        })
    }

    fn health_checks(
        &mut self,
        checks: &[Template],
        target: &Target,
        place: &Place,
        is_refused: &mut [bool],
        report: &mut Report<'_>,
    ) -> Option<Vec<HealthCheck>> {
        self.checks.add(checks.len(), MAX_HEALTH_CHECKS, || place.clone());
        if self.checks.first_too_many.is_some() {
            return None;
        }
        let mut completed = Vec::with_capacity(checks.len());
        for (check, is_refused) in checks.iter().zip(is_refused) {
            match check.complete(target) {
                Ok(check) => completed.push(check),
                Err((place, problem)) => {
                    if !std::mem::replace(is_refused, true) {
                        report.error(place, problem);
                    }
                }
            }
        }
        (completed.len() == checks.len()).then_some(completed)
    }
}

/// What the real servers of one virtual server share while they are read.
struct Reading<'r> {
    service: Service,
    inherited: &'r Inherited,
    facts: &'r Facts,
    /// Where each address and port stands.
    lines: BTreeMap<(IpAddr, u16), usize>,
    /// The inherited checks about which something has been said.
    is_refused: Vec<bool>,
}

/// Reports what keeps packets for `service` from reaching `server`.
pub(super) fn fits(
    service: SocketAddr,
    server: SocketAddr,
    forward: Forward,
    place: &Place,
    report: &mut Report<'_>,
) {
    let (vip, vip_port, port) = (service.ip(), service.port(), server.port());
    if server.ip() == vip {
        let problem = Problem::new("the virtual server's own address").expected("another machine's address");
        report.error(place, problem);
    }
    if forward != Forward::Tun && server.is_ipv4() != vip.is_ipv4() {
        let family = if vip.is_ipv4() { "an IPv4" } else { "an IPv6" };
        let problem = Problem::new(format!("\"{forward}\" cannot change the address family"))
            .expected(format!("{family} address like the virtual server's, or forward = \"tun\""));
        report.error(place, problem);
    }
    if forward != Forward::Nat && port != vip_port {
        let problem = Problem::new(format!("\"{forward}\" cannot change the port"))
            .expected(format!("port {vip_port} like the virtual server's, or none, or forward = \"nat\""));
        report.error(place, problem);
    } else if port != 0 && vip_port == 0 {
        let problem =
            Problem::new("the virtual server has every port, which one port of a server cannot stand for")
                .expected("no port");
        report.error(place, problem);
    } else if port == 0 && vip_port != 0 {
        let problem =
            Problem::new("port 0 keeps the client's port, which needs a virtual server with port 0")
                .expected("a port from 1 to 65535, or none");
        report.error(place, problem);
    }
}

impl Count {
    fn add(&mut self, more: usize, most: usize, place: impl FnOnce() -> Place) {
        self.number += more;
        if self.number > most && self.first_too_many.is_none() {
            self.first_too_many = Some(place());
        }
    }

    fn finish(&self, what: &str, most: usize, report: &mut Report<'_>) {
        if let Some(place) = &self.first_too_many {
            let problem = Problem::new(format!("{} {what}", self.number)).expected(format!("at most {most}"));
            report.error(place, problem);
        }
    }
}

impl Owner {
    pub(super) fn new(place: &Place, index: usize, report: &Report<'_>) -> Self {
        let path = place.path.strip_suffix(".address").unwrap_or(&place.path).to_owned();
        Self { path, line: report.line(place), index }
    }
}

impl NatUsers {
    /// Notes a user; gives an earlier one of another virtual server that shares a port with it.
    fn add(&mut self, protocol: Protocol, address: IpAddr, port: u16, owner: Owner) -> Option<Owner> {
        let first = match port {
            // Port 0 stands for all of them.
            0 => self.any.get(&(protocol, address)),
            _ => {
                let same = self.exact.get(&(protocol, address, port));
                same.or_else(|| self.exact.get(&(protocol, address, 0)))
            }
        };
        let clash = first.filter(|first| first.index != owner.index).cloned();
        self.any.entry((protocol, address)).or_insert_with(|| owner.clone());
        self.exact.entry((protocol, address, port)).or_insert(owner);
        clash
    }
}
