//! One `[[virtual_server]]`: its own keys, its sorry server, and the rules between several of them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::{IpAddr, SocketAddr},
};

use toml::de::DeValue;

use super::{
    super::{
        Command, Dataplane, Forward, MAX_LEAST_CONNECTION_SERVERS, MAX_SERVERS_OF_A_VIRTUAL_SERVER, OnRemove,
        Protocol, RealServer, Scheduler, SchedulerFlags, SorryServer, VirtualServer,
        check::Probe,
        diagnostic::Problem,
        document::{Either, Field, Place, Read, Report, Table},
        values::{self, FlagKind},
    },
    Facts, ipvs, mail,
    real_server::{Inherited, Own, Owner, RealServers, Service},
    vrrp::Names,
};

/// The largest quorum: it and a hysteresis below it add up without overflow.
const LARGEST_QUORUM: u32 = i32::MAX.cast_unsigned();

/// What earlier virtual servers have taken: reading one after the other checks the rules between them.
pub(super) struct Rules {
    facts: Facts,
    names: BTreeMap<String, usize>,
    /// A name could not be read.
    has_gaps: bool,
    addresses: BTreeMap<(IpAddr, u16, Protocol), Owner>,
    virtual_servers: usize,
    real_servers: RealServers,
}

/// The keys about losing and reaching the quorum; `None` where one is wrong.
struct Quorum {
    quorum: Option<u32>,
    hysteresis: Option<u32>,
    up: Option<Option<Command>>,
    down: Option<Option<Command>>,
    /// For a warning about both.
    place: Option<Place>,
}

/// The keys about connections of servers that went; `None` where one is wrong.
struct Connections {
    on_remove: Option<OnRemove>,
    drain_timeout: Option<Option<std::time::Duration>>,
    expire_nodest: Option<bool>,
    expire_quiescent: Option<bool>,
}

impl Rules {
    pub(super) fn new(facts: Facts) -> Self {
        Self {
            facts,
            names: BTreeMap::new(),
            has_gaps: false,
            addresses: BTreeMap::new(),
            virtual_servers: 0,
            real_servers: RealServers::default(),
        }
    }

    /// Reads one virtual server. `None` means that an error was reported.
    pub(super) fn read(&mut self, mut table: Table<'_>, report: &mut Report<'_>) -> Option<VirtualServer> {
        let name = table.value("name", report, values::server_name);
        if let Read::Given(name) = &name {
            table.call(&name.value);
        }
        let name = name.required(&table, "name", "a name of your choice, such as \"web\"", report);
        let address = table.value("address", report, values::virtual_address);
        let address =
            address.required(&table, "address", "ADDRESS:PORT, such as \"192.168.10.50:80\"", report);
        let protocol = table.value("protocol", report, values::protocol).or(Protocol::Tcp);
        let bind_to = self.bind_to(&mut table, address.as_ref().map(|field| field.value.0), report);
        let scheduler = self.scheduler(&mut table, report);
        let family = address.as_ref().map(|field| field.value.0.is_ipv6());
        let persistence = ipvs::persistence(&mut table, family, &self.facts, report);
        if let (Some(Field { value: (_, 0), place }), Some(None), Some(Dataplane::Ipvs)) =
            (&address, persistence, self.facts.dataplane)
        {
            let problem = Problem::new("IPVS serves every port of an address with persistence only")
                .expected("a port, or a persistence_timeout");
            report.error(place, problem);
        }
        let one_packet = ipvs::one_packet(&mut table, protocol, &self.facts, report);
        let scheduler_flags = scheduler_flags(&mut table, scheduler, report);
        let quorum = quorum(&mut table, report);
        let sorry_server = table.value_or_table("sorry_server", report, values::real_address);
        let alpha = table.value("alpha", report, values::boolean).or(false);
        let omega = table.value("omega", report, values::boolean).or(false);
        let connections = connections(&mut table, report);
        let mail = mail::on_change(&mut table, self.facts.has_mail, report).or_inherit(&self.facts.has_mail);
        let header = "[[virtual_server.health_check]]";
        let own = Own::read(&mut table, header, &self.facts, report);
        let real_servers = table.tables("real_server", "[[virtual_server.real_server]]", report);

        self.has_gaps |= name.is_none();
        let name = name.map(|name| self.new_name(name, report));
        let address = address.map(|field| self.new_address(&field, protocol, report));
        let service = Service { address, protocol, index: self.virtual_servers };
        let inherited = own.over(&Inherited::default(), report);
        let sorry_server = sorry(sorry_server, service, inherited.forward, report);
        let servers = self.servers(real_servers, &table, service, inherited, scheduler, report);
        if let (Some(Some((sorry, place))), Some(servers)) = (&sorry_server, &servers)
            && servers.iter().any(|one| (one.address, one.port) == (sorry.address, sorry.port))
        {
            let problem = Problem::new("the sorry server is one of the real servers too");
            report.warning(place, problem);
        }
        if let Some(servers) = &servers {
            quorum.can_be_reached(servers, report);
        }
        table.finish(report);
        self.virtual_servers += 1;

        let (address, port) = address?;
        Some(VirtualServer {
            name: name?,
            address,
            port,
            protocol: protocol?,
            bind_to: bind_to?,
            scheduler: scheduler?,
            scheduler_flags: scheduler_flags?,
            persistence: persistence?,
            one_packet: one_packet?,
            quorum: quorum.quorum?,
            hysteresis: quorum.hysteresis?,
            quorum_up: quorum.up?,
            quorum_down: quorum.down?,
            sorry_server: sorry_server?.map(|(server, _)| server),
            alpha: alpha?,
            omega: omega?,
            on_remove: connections.on_remove?,
            drain_timeout: connections.drain_timeout?,
            expire_nodest: connections.expire_nodest?,
            expire_quiescent: connections.expire_quiescent?,
            mail: mail?,
            real_servers: servers?,
        })
    }

    /// Reports what is wrong with all of them together, and gives their names.
    pub(super) fn finish(self, report: &mut Report<'_>) -> Names {
        self.real_servers.finish(report);
        Names::of(self.names, self.has_gaps)
    }

    /// Reads `scheduler`; `None` when an error was reported.
    fn scheduler(&self, table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Scheduler> {
        let Some(field) = table.value("scheduler", report, values::scheduler).optional()? else {
            return Some(Scheduler::Wlc);
        };
        if !field.value.is_in_xdp() {
            ipvs::only(&field.place, &self.facts, report)?;
        }
        Some(field.value)
    }

    /// Reads `bind_to`. The outer `None` means that an error was reported.
    fn bind_to(
        &self,
        table: &mut Table<'_>,
        address: Option<IpAddr>,
        report: &mut Report<'_>,
    ) -> Option<Option<String>> {
        let Some(name) = table.value("bind_to", report, values::server_name).optional()? else {
            return Some(None);
        };
        let bindable = &self.facts.bindable;
        if !bindable.names.find(&name, "vrrp_instance", report) {
            return None;
        }
        if let (Some(address), Some(addresses)) = (address, bindable.addresses.get(&name.value))
            && !addresses.contains(&address)
        {
            let problem = Problem::new(format!("{address} is none of the instance's addresses"));
            report.warning(&name.place, problem);
        }
        Some(Some(name.value))
    }

    fn new_name(&mut self, name: Field<String>, report: &mut Report<'_>) -> String {
        match self.names.entry(name.value.clone()) {
            Entry::Occupied(first) => {
                let problem = Problem::new(format!("the name is taken at line {}", first.get()))
                    .expected("another name for each virtual server");
                report.error(&name.place, problem);
            }
            Entry::Vacant(free) => {
                free.insert(report.line(&name.place));
            }
        }
        name.value
    }

    fn new_address(
        &mut self,
        field: &Field<(IpAddr, u16)>,
        protocol: Option<Protocol>,
        report: &mut Report<'_>,
    ) -> (IpAddr, u16) {
        let (address, port) = field.value;
        if let Some(protocol) = protocol {
            match self.addresses.entry((address, port, protocol)) {
                Entry::Occupied(first) => {
                    let Owner { path, line, .. } = first.get();
                    let problem = Problem::new(format!(
                        "{path} at line {line} has the same address, port and protocol ({protocol})"
                    ))
                    .expected("one virtual server for each");
                    report.error(&field.place, problem);
                }
                Entry::Vacant(free) => {
                    free.insert(Owner::new(&field.place, self.virtual_servers, report));
                }
            }
        }
        field.value
    }

    fn servers(
        &mut self,
        tables: Read<Vec<Table<'_>>>,
        owner: &Table<'_>,
        service: Service,
        inherited: Inherited,
        scheduler: Option<Scheduler>,
        report: &mut Report<'_>,
    ) -> Option<Vec<RealServer>> {
        let tables = match tables {
            Read::Wrong => return None,
            Read::Absent => Vec::new(),
            Read::Given(field) => field.value,
        };
        if tables.is_empty() && !report.is_damaged() {
            let problem = Problem::new("no real server, so every new connection is refused");
            report.warning(&owner.place(), problem);
        }
        if let (Some(scheduler @ (Scheduler::Lc | Scheduler::Wlc)), Some(first_too_many)) =
            (scheduler, tables.get(MAX_LEAST_CONNECTION_SERVERS))
        {
            let problem =
                Problem::new(format!("{} real servers for scheduler \"{scheduler}\"", tables.len()))
                    .expected(format!("at most {MAX_LEAST_CONNECTION_SERVERS}, or another scheduler"));
            report.error(&first_too_many.place(), problem);
        }
        if let Some(first_too_many) = tables.get(MAX_SERVERS_OF_A_VIRTUAL_SERVER) {
            let problem = Problem::new(format!("{} real servers", tables.len()))
                .expected(format!("at most {MAX_SERVERS_OF_A_VIRTUAL_SERVER} in one virtual server"));
            report.error(&first_too_many.place(), problem);
        }
        self.real_servers.read(tables, service, &inherited, &self.facts, report)
    }
}

fn quorum(table: &mut Table<'_>, report: &mut Report<'_>) -> Quorum {
    let number = |least| move |value: &DeValue<'_>| values::integer(value, least..=LARGEST_QUORUM);
    let quorum = table.value("quorum", report, number(1)).optional();
    let hysteresis = table.value("hysteresis", report, number(0)).optional();
    let up = table.value("quorum_up", report, values::command).or(None);
    let down = table.value("quorum_down", report, values::command).or(None);

    let place =
        [&quorum, &hysteresis].into_iter().flatten().flatten().next().map(|field| field.place.clone());
    let quorum = quorum.map(|field| field.map_or(1, |field| field.value));
    let hysteresis = hysteresis.and_then(|field| match (field, quorum) {
        (None, _) => Some(0),
        (Some(field), Some(quorum)) if field.value >= quorum => {
            let problem = Problem::new(format!("not less than the quorum, {quorum}"))
                .expected(format!("a whole number from 0 to {}", quorum - 1));
            report.error(&field.place, problem);
            None
        }
        (Some(field), _) => Some(field.value),
    });
    Quorum { quorum, hysteresis, up, down, place }
}

impl Quorum {
    /// Warns when not even all servers together come back from below the quorum.
    fn can_be_reached(&self, servers: &[RealServer], report: &mut Report<'_>) {
        let (Some(quorum), Some(hysteresis), Some(place)) = (self.quorum, self.hysteresis, &self.place)
        else {
            return;
        };
        let checks = servers.iter().flat_map(|server| &server.health_checks);
        let mut probes = checks.map(|check| &check.probe);
        if probes.any(|probe| matches!(probe, Probe::Script { dynamic: true, .. } | Probe::File { .. })) {
            // They set the weight.
            return;
        }
        let total: u64 = servers.iter().map(|server| u64::from(server.weight)).sum();
        let needed = u64::from(quorum) + u64::from(hysteresis);
        if total < needed && !servers.is_empty() {
            let problem = Problem::new(format!(
                "once lost it is never reached again: that takes a weight of {needed}, and all real servers together \
                 have {total}"
            ));
            report.warning(place, problem);
        }
    }
}

fn connections(table: &mut Table<'_>, report: &mut Report<'_>) -> Connections {
    let on_remove = table.value("on_remove", report, values::on_remove).or(OnRemove::Drain);
    let drain_timeout = table.value("drain_timeout", report, values::duration).optional();
    if let (Some(OnRemove::Drop), Some(Some(field))) = (on_remove, &drain_timeout) {
        report.warning(&field.place, Problem::new("without effect beside on_remove = \"drop\""));
    }
    Connections {
        on_remove,
        drain_timeout: drain_timeout.map(|field| field.map(|field| field.value)),
        expire_nodest: table.value("expire_nodest", report, values::boolean).or(true),
        expire_quiescent: table.value("expire_quiescent", report, values::boolean).or(false),
    }
}

/// Reads `sorry_server`: an address, or a table that also says how packets get there. The outer `None`: an error was
/// reported.
fn sorry(
    read: Read<Either<'_, (IpAddr, Option<u16>)>>,
    service: Service,
    forward: Option<Forward>,
    report: &mut Report<'_>,
) -> Option<Option<(SorryServer, Place)>> {
    let (field, forward) = match read {
        Read::Absent => return Some(None),
        Read::Wrong => return None,
        Read::Given(Field { value: Either::Value(value), place }) => (Field { value, place }, forward),
        Read::Given(Field { value: Either::Table(mut table), .. }) => {
            let address = table.value("address", report, values::real_address);
            let expected = "ADDRESS or ADDRESS:PORT, such as \"192.168.1.200:80\"";
            let address = address.required(&table, "address", expected, report);
            let forward = table.value("forward", report, values::forward).or_inherit(&forward);
            table.finish(report);
            (address?, forward)
        }
    };
    let (address, given_port) = field.value;
    let forward = forward?;
    let (vip, vip_port) = service.address?;
    let port = given_port.unwrap_or(vip_port);
    let server = SocketAddr::new(address, port);
    super::real_server::fits(SocketAddr::new(vip, vip_port), server, forward, &field.place, report);
    Some(Some((SorryServer { address, port, forward }, field.place)))
}

/// `None` when a flag is wrong or does not belong to the scheduler.
fn scheduler_flags(
    table: &mut Table<'_>,
    scheduler: Option<Scheduler>,
    report: &mut Report<'_>,
) -> Option<SchedulerFlags> {
    let words: Vec<_> = values::FLAGS.iter().map(|flag| flag.word).collect();
    let expected = format!("an array with some of {}", values::one_of(&words).trim_start_matches("one of "));
    let given = table.list("scheduler_flags", report, &expected, values::flag);
    let mut flags = SchedulerFlags::default();
    let given = match given {
        Read::Absent => return Some(flags),
        Read::Wrong => return None,
        Read::Given(field) => field.value,
    };
    let scheduler = scheduler?;
    for Field { value: flag, place } in given {
        if flag.scheduler != scheduler {
            let own = values::FLAGS.iter().filter(|flag| flag.scheduler == scheduler);
            let own: Vec<_> = own.map(|flag| flag.word).collect();
            let problem = Problem::new(format!("not a flag of scheduler \"{scheduler}\"")).expected(
                if own.is_empty() { "no flags for this scheduler".to_owned() } else { values::one_of(&own) },
            );
            report.error(&place, problem);
            continue;
        }
        let slot = match flag.kind {
            FlagKind::Port => &mut flags.port,
            FlagKind::Fallback => &mut flags.fallback,
        };
        if std::mem::replace(slot, true) {
            report.error(&place, Problem::new("given twice").expected("each flag once"));
        }
    }
    Some(flags)
}
