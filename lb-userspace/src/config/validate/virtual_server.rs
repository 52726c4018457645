//! One `[[virtual_server]]` with its real servers, and the rules that several of them share.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use toml::de::DeValue;

use super::super::{
    Forward, MAX_LEAST_CONNECTION_SERVERS, MAX_REAL_SERVERS, Protocol, RealServer, Scheduler, SchedulerFlags,
    VirtualServer,
    diagnostic::Problem,
    document::{Field, Place, Read, Report, Table},
    values::{self, FlagKind},
};

/// What earlier virtual servers have taken: reading one after the other checks the rules between them.
#[derive(Default)]
pub(super) struct Rules {
    names: BTreeMap<String, usize>,
    addresses: BTreeMap<(IpAddr, u16, Protocol), Owner>,
    nat: NatUsers,
    virtual_servers: usize,
    real_servers: usize,
    first_too_many: Option<Place>,
}

/// Who has an address already: for the message about the second one.
#[derive(Clone)]
struct Owner {
    path: String,
    line: usize,
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
struct Service {
    address: Option<(IpAddr, u16)>,
    protocol: Option<Protocol>,
    forward: Option<Forward>,
}

impl Rules {
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
        let scheduler = table.value("scheduler", report, values::scheduler).or(Scheduler::Wlc);
        let scheduler_flags = scheduler_flags(&mut table, scheduler, report);
        let forward = table.value("forward", report, values::forward).or(Forward::Nat);
        let real_servers = table.tables("real_server", "[[virtual_server.real_server]]", report);

        let name = name.map(|name| self.new_name(name, report));
        let address = address.map(|field| self.new_address(&field, protocol, report));
        let service = Service { address, protocol, forward };
        let real_servers = self.real_servers(real_servers, &table, service, scheduler, report);
        table.finish(report);
        self.virtual_servers += 1;

        let (address, port) = address?;
        Some(VirtualServer {
            name: name?,
            address,
            port,
            protocol: protocol?,
            scheduler: scheduler?,
            scheduler_flags: scheduler_flags?,
            real_servers: real_servers?,
        })
    }

    /// The first real server over the limit, and how many there are.
    pub(super) fn too_many_real_servers(&self, most: usize) -> Option<(&Place, usize)> {
        self.first_too_many
            .as_ref()
            .filter(|_| self.real_servers > most)
            .map(|place| (place, self.real_servers))
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

    fn real_servers(
        &mut self,
        tables: Read<Vec<Table<'_>>>,
        owner: &Table<'_>,
        service: Service,
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

        let mut lines = BTreeMap::new();
        let mut servers = Vec::with_capacity(tables.len());
        for table in tables {
            self.real_servers += 1;
            if self.real_servers == MAX_REAL_SERVERS + 1 {
                self.first_too_many = Some(table.place());
            }
            servers.push(self.real_server(table, service, &mut lines, report));
        }
        servers.into_iter().collect()
    }

    fn real_server(
        &mut self,
        mut table: Table<'_>,
        service: Service,
        lines: &mut BTreeMap<(IpAddr, u16), usize>,
        report: &mut Report<'_>,
    ) -> Option<RealServer> {
        let address = table.value("address", report, values::real_address);
        let expected = "ADDRESS or ADDRESS:PORT, such as \"192.168.1.101:8080\"";
        let address = address.required(&table, "address", expected, report);
        let weight = |value: &DeValue<'_>| values::integer(value, 0..=65_535);
        let weight = table.value("weight", report, weight).or(1);
        let forward = match table.value("forward", report, values::forward) {
            Read::Absent => service.forward,
            Read::Wrong => None,
            Read::Given(field) => Some(field.value),
        };
        table.finish(report);

        let Field { value: (address, given_port), place } = address?;
        let (vip, vip_port) = service.address?;
        let port = given_port.unwrap_or(vip_port);
        match lines.entry((address, port)) {
            Entry::Occupied(first) => {
                let problem = Problem::new(format!("the same address and port as at line {}", first.get()))
                    .expected("each real server once in a virtual server");
                report.error(&place, problem);
            }
            Entry::Vacant(free) => {
                free.insert(report.line(&place));
            }
        }
        if address == vip {
            let problem =
                Problem::new("the virtual server's own address").expected("another machine's address");
            report.error(&place, problem);
        }

        let forward = forward?;
        if forward != Forward::Tun && address.is_ipv4() != vip.is_ipv4() {
            let family = if vip.is_ipv4() { "an IPv4" } else { "an IPv6" };
            let problem = Problem::new(format!("\"{forward}\" cannot change the address family"))
                .expected(format!("{family} address like the virtual server's, or forward = \"tun\""));
            report.error(&place, problem);
        }
        if forward != Forward::Nat && port != vip_port {
            let problem = Problem::new(format!("\"{forward}\" cannot change the port")).expected(format!(
                "port {vip_port} like the virtual server's, or none, or forward = \"nat\""
            ));
            report.error(&place, problem);
        } else if port != 0 && vip_port == 0 {
            let problem = Problem::new(
                "the virtual server has every port, which one port of a server cannot stand for",
            )
            .expected("no port");
            report.error(&place, problem);
        } else if port == 0 && vip_port != 0 {
            let problem =
                Problem::new("port 0 keeps the client's port, which needs a virtual server with port 0")
                    .expected("a port from 1 to 65535, or none");
            report.error(&place, problem);
        }
        if let (Forward::Nat, Some(protocol)) = (forward, service.protocol) {
            let owner = Owner::new(&place, self.virtual_servers, report);
            if let Some(other) = self.nat.add(protocol, address, port, owner) {
                let problem = Problem::new(format!(
                    "{} at line {} translates to the same real server; a client that uses one source port for \
                     both would mix up its connections",
                    other.path, other.line
                ));
                report.warning(&place, problem);
            }
        }

        Some(RealServer { address, port, weight: weight?, forward })
    }
}

impl Owner {
    fn new(place: &Place, index: usize, report: &Report<'_>) -> Self {
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
