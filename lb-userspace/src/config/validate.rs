//! From the tables of the file to a [`Config`]: which keys there are, their defaults, and the rules between them.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use toml::de::DeValue;

use super::{
    Config, Dataplane, Director, MAX_INTERFACES, MAX_VIRTUAL_SERVERS, Timeouts, XdpMode,
    diagnostic::Problem,
    document::{Field, Place, Read, Report, Table},
    values,
};

mod check;
mod ipvs;
mod mail;
mod probe;
mod real_server;
mod virtual_server;
mod vrrp;

const DEFAULT_MAX_CONNECTIONS: u32 = 1_048_576;

/// What virtual servers and checks need to know of the rest of the file; `None` where that is wrong itself.
struct Facts {
    /// The name of this machine.
    router_id: Option<String>,
    /// Whether there is `[mail]`.
    has_mail: Option<bool>,
    /// What moves the packets.
    dataplane: Option<Dataplane>,
    /// The VRRP instances.
    bindable: vrrp::Bindable,
}

/// Reads the whole file. `others` are names of virtual servers that the file has besides those in this text. `None` means
/// that `report` holds at least one error.
pub(super) fn config(mut root: Table<'_>, others: &HashSet<&str>, report: &mut Report<'_>) -> Option<Config> {
    let director = director(&mut root, report);
    let timeouts = timeouts(&mut root, report);
    let metrics = mail::metrics(&mut root, report);
    let mail = mail::mail(&mut root, report);
    let has_mail = mail.as_ref().map(Option::is_some);
    let interfaces = director.as_ref().map(|director| &director.interfaces[..]);
    let mut vrrp = vrrp::read(&mut root, &vrrp::Surroundings { interfaces, has_mail }, report);
    let facts = Facts {
        router_id: director.as_ref().map(|director| director.router_id.clone()),
        has_mail,
        dataplane: director.as_ref().map(|director| director.dataplane),
        bindable: std::mem::take(&mut vrrp.bindable),
    };
    let (virtual_servers, mut names) = virtual_servers(&mut root, facts, report);
    for name in others {
        names.add(name);
    }
    let vrrp = vrrp.finish(&names, report);
    root.finish(report);
    Some(Config {
        director: director?,
        timeouts: timeouts?,
        metrics: metrics?,
        mail: mail?,
        vrrp: vrrp?,
        virtual_servers: virtual_servers?,
    })
}

fn director(root: &mut Table<'_>, report: &mut Report<'_>) -> Option<Director> {
    let field = root.table("director", report);
    let mut table = field.required(root, "director", "a table [director] with \"interfaces\"", report)?.value;

    let instance = table.value("instance", report, values::instance).or("default".to_owned());
    let router_id = table.value("router_id", report, values::router_id);
    let router_id = match router_id {
        Read::Absent => Some(host_name()),
        given => given.or(String::new()),
    };
    let dataplane = table.value("dataplane", report, values::dataplane).or(Dataplane::Xdp);
    let interfaces = interfaces(&mut table, dataplane, report);
    let xdp_mode = table.value("xdp_mode", report, values::xdp_mode).or(XdpMode::Auto);
    let connections = |value: &DeValue<'_>| values::integer(value, 1024..=16_777_216);
    let max_connections = table.value("max_connections", report, connections).or(DEFAULT_MAX_CONNECTIONS);
    let script_user = table.value("script_user", report, values::user_name).optional();
    table.finish(report);

    Some(Director {
        instance: instance?,
        router_id: router_id?,
        dataplane: dataplane?,
        interfaces: interfaces?,
        xdp_mode: xdp_mode?,
        max_connections: max_connections?,
        script_user: script_user?.map(|field| field.value),
    })
}

/// Only XDP needs them.
fn interfaces(
    table: &mut Table<'_>,
    dataplane: Option<Dataplane>,
    report: &mut Report<'_>,
) -> Option<Vec<String>> {
    let expected = format!("an array of 1 to {MAX_INTERFACES} interface names, such as [\"eth0\", \"eth1\"]");
    let list = table.list("interfaces", report, &expected, values::interface);
    if let (Some(Dataplane::Ipvs), Read::Absent) = (dataplane, &list) {
        return Some(Vec::new());
    }
    let Field { value: names, place } = list.required(table, "interfaces", &expected, report)?;
    if names.len() > MAX_INTERFACES {
        report.error(&place, Problem::new(format!("{} interfaces", names.len())).expected(expected));
    } else if names.is_empty() && !report.is_damaged() {
        report.error(&place, Problem::new("no interface").expected(expected));
    }
    let mut seen = std::collections::BTreeSet::new();
    for name in &names {
        if !seen.insert(&name.value) {
            report.error(&name.place, Problem::new("given twice").expected("each interface once"));
        }
    }
    Some(names.into_iter().map(|name| name.value).collect())
}

fn timeouts(root: &mut Table<'_>, report: &mut Report<'_>) -> Option<Timeouts> {
    let default = Timeouts::default();
    let mut table = match root.table("timeouts", report) {
        Read::Absent => return Some(default),
        Read::Wrong => return None,
        Read::Given(field) => field.value,
    };
    let tcp = table.value("tcp", report, values::duration).or(default.tcp);
    let tcp_fin = table.value("tcp_fin", report, values::duration).or(default.tcp_fin);
    let udp = table.value("udp", report, values::duration).or(default.udp);
    table.finish(report);
    Some(Timeouts { tcp: tcp?, tcp_fin: tcp_fin?, udp: udp? })
}

/// The virtual servers, `None` when an error was reported, and their names.
fn virtual_servers(
    root: &mut Table<'_>,
    facts: Facts,
    report: &mut Report<'_>,
) -> (Option<Vec<Arc<super::VirtualServer>>>, vrrp::Names) {
    let tables = match root.tables("virtual_server", "[[virtual_server]]", report) {
        Read::Absent => Vec::new(),
        Read::Wrong => return (None, vrrp::Names::of(BTreeMap::new(), true)),
        Read::Given(field) => field.value,
    };
    // Who only wants virtual addresses has no virtual server.
    if tables.is_empty() && !report.is_damaged() && !facts.bindable.has_instances() {
        let place = Place { path: "virtual_server".to_owned(), at: 0..0, value: None };
        report.warning(&place, Problem::new("there is none, so nothing will be balanced"));
    }
    if let Some(first_too_many) = tables.get(MAX_VIRTUAL_SERVERS) {
        let problem = Problem::new(format!("{} virtual servers", tables.len()))
            .expected(format!("at most {MAX_VIRTUAL_SERVERS}"));
        report.error(&first_too_many.place(), problem);
    }

    let mut rules = virtual_server::Rules::new(facts);
    let servers: Vec<_> = tables.into_iter().map(|table| rules.read(table, report)).collect();
    let names = rules.finish(report);
    (servers.into_iter().map(|server| server.map(Arc::new)).collect(), names)
}

/// The host name, or a stand-in where it is no usable `router_id`.
fn host_name() -> String {
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    values::router_id(&DeValue::String(name.into())).unwrap_or_else(|_| "director".to_owned())
}
