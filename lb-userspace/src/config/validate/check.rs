//! `health_check`: a check as the file has it, and what it becomes for one real server.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use toml::de::DeValue;

use super::{
    super::{
        Dataplane, MAX_CHECKS_OF_A_SERVER, Protocol,
        check::{HealthCheck, Probe, Via},
        diagnostic::Problem,
        document::{Field, Place, Read, Report, Table},
        values,
    },
    Facts, probe,
};

/// Keys that not every type of check has, and which types have them.
const SPECIAL_KEYS: &[(&[&str], &str)] = &[
    (
        &["connect_address", "bind_address", "fwmark", "via"],
        "\"tcp\", \"http\", \"https\", \"smtp\", \"dns\", \"udp\" and \"ping\"",
    ),
    (&["connect_port", "bind_port"], "\"tcp\", \"http\", \"https\", \"smtp\", \"dns\" and \"udp\""),
    (&["paths", "requests", "method", "host", "headers", "status", "md5", "regex"], "\"http\" and \"https\""),
    (&["sni", "verify"], "\"https\""),
    (&["helo"], "\"smtp\""),
    (&["record", "name"], "\"dns\""),
    (&["payload", "payload_hex", "expect", "expect_hex", "require_reply"], "\"udp\""),
    (&["command", "dynamic"], "\"script\""),
    (&["path"], "\"file\""),
];

/// A check of which the file does not say yet whom it asks.
pub(super) struct Template {
    place: Place,
    probe: Probe,
    interval: Duration,
    timeout: Duration,
    rise: u32,
    fall: u32,
    retry: u32,
    delay_before_retry: Duration,
    warmup: Duration,
    way: Way,
}

/// The keys about a check's packets.
#[derive(Default)]
struct Way {
    connect_address: Option<Field<IpAddr>>,
    connect_port: Option<Field<u16>>,
    bind_address: Option<Field<IpAddr>>,
    bind_port: Option<Field<u16>>,
    fwmark: Option<Field<u32>>,
    via: Option<Field<Via>>,
}

/// For whom a check is.
pub(super) struct Target {
    /// The real server's address and port; 0: every port.
    pub(super) server: SocketAddr,
    /// The virtual server's address and port; 0: every port.
    pub(super) service: SocketAddr,
    /// `None` when it is wrong.
    pub(super) protocol: Option<Protocol>,
}

/// Reads the key `health_check`, which replaces the one of the level above.
pub(super) fn templates(
    table: &mut Table<'_>,
    header: &str,
    facts: &Facts,
    report: &mut Report<'_>,
) -> Read<Vec<Template>> {
    table.tables("health_check", header, report).and_then(|Field { value: tables, place }| {
        if let Some(first_too_many) = tables.get(MAX_CHECKS_OF_A_SERVER) {
            let problem = Problem::new(format!("{} checks", tables.len()))
                .expected(format!("at most {MAX_CHECKS_OF_A_SERVER} for a real server"));
            report.error(&first_too_many.place(), problem);
        }
        let all: Vec<_> = tables.into_iter().map(|table| template(table, facts, report)).collect();
        match all.into_iter().collect() {
            Some(value) => Read::Given(Field { value, place }),
            None => Read::Wrong,
        }
    })
}

fn template(mut table: Table<'_>, facts: &Facts, report: &mut Report<'_>) -> Option<Template> {
    let kind = table.value("type", report, values::check_type);
    let kind = kind.required(&table, "type", &values::one_of(Probe::TYPES), report).map(|field| field.value);
    let count = |least| move |value: &DeValue<'_>| values::integer(value, least..=100);
    let interval = table.value("interval", report, values::pace).or(Duration::from_secs(5));
    let timeout = table.value("timeout", report, values::pace).or(Duration::from_secs(3));
    let rise = table.value("rise", report, count(1)).or(2);
    let fall = table.value("fall", report, count(1)).or(3);
    let retry = table.value("retry", report, count(0)).or(0);
    let delay_before_retry =
        table.value("delay_before_retry", report, values::delay).or(Duration::from_secs(1));
    let warmup = table.value("warmup", report, values::delay).or_inherit(&interval);
    // Without the type it is not known which of the other keys are right.
    let kind = kind?;
    let way = Way::read(kind, &mut table, facts, report);
    let probe = probe::read(kind, &mut table, facts, report);
    for (keys, types) in SPECIAL_KEYS {
        for key in *keys {
            table.refuse(key, || Problem::new(format!("a key of type {types}, not of \"{kind}\"")), report);
        }
    }
    let place = table.place();
    table.finish(report);

    Some(Template {
        place,
        probe: probe?,
        interval: interval?,
        timeout: timeout?,
        rise: rise?,
        fall: fall?,
        retry: retry?,
        delay_before_retry: delay_before_retry?,
        warmup: warmup?,
        way: way?,
    })
}

impl Way {
    /// `None` means that an error was reported.
    fn read(kind: &str, table: &mut Table<'_>, facts: &Facts, report: &mut Report<'_>) -> Option<Self> {
        if matches!(kind, "script" | "file") {
            return Some(Self::default());
        }
        let connect_address = table.value("connect_address", report, values::check_address).optional();
        let bind_address = table.value("bind_address", report, values::check_address).optional();
        let (connect_port, bind_port) = if kind == "ping" {
            (Some(None), Some(None))
        } else {
            (
                table.value("connect_port", report, values::port).optional(),
                table.value("bind_port", report, values::port).optional(),
            )
        };
        let mark = |value: &DeValue<'_>| values::integer(value, 0..=u32::MAX);
        let fwmark = table.value("fwmark", report, mark).optional();
        let via = table.value("via", report, values::via).optional();
        if let (Some(Some(field)), Some(Dataplane::Ipvs)) = (&via, facts.dataplane)
            && field.value == Via::Dataplane
        {
            let problem = Problem::new("IPVS has no way for checks").expected("via = \"direct\"");
            report.error(&field.place, problem);
        }
        Some(Self {
            connect_address: connect_address?,
            connect_port: connect_port?,
            bind_address: bind_address?,
            bind_port: bind_port?,
            fwmark: fwmark?,
            via: via?,
        })
    }
}

impl Template {
    /// The check of one real server, or where and why it cannot be made.
    pub(super) fn complete(&self, target: &Target) -> Result<HealthCheck, (&Place, Problem)> {
        let via = self.way.via.as_ref().map_or(Via::Direct, |field| field.value);
        let connect = match via {
            Via::Direct => self.direct(target)?,
            Via::Dataplane => self.by_dataplane(target)?,
        };
        Ok(HealthCheck {
            probe: self.probe.clone(),
            interval: self.interval,
            timeout: self.timeout,
            rise: self.rise,
            fall: self.fall,
            retry: self.retry,
            delay_before_retry: self.delay_before_retry,
            warmup: self.warmup,
            connect,
            bind: self.bind(connect)?,
            fwmark: self.way.fwmark.as_ref().map_or(0, |field| field.value),
            via,
        })
    }

    fn direct(&self, target: &Target) -> Result<SocketAddr, (&Place, Problem)> {
        let address = self.way.connect_address.as_ref().map_or(target.server.ip(), |field| field.value);
        let port = self.way.connect_port.as_ref().map_or(target.server.port(), |field| field.value);
        let needs_port = !matches!(self.probe, Probe::Ping | Probe::Script { .. } | Probe::File { .. });
        if port == 0 && needs_port {
            let problem = Problem::new("the real server has every port, and a check needs one")
                .expected("connect_port");
            return Err((&self.place, problem));
        }
        Ok(SocketAddr::new(address, port))
    }

    /// Where clients connect: that is what such a check tries out.
    fn by_dataplane(&self, target: &Target) -> Result<SocketAddr, (&Place, Problem)> {
        let place = self.way.via.as_ref().map_or(&self.place, |field| &field.place);
        let kind = self.probe.as_str();
        let protocol = match self.probe {
            Probe::Tcp | Probe::Http(_) | Probe::Smtp { .. } => Protocol::Tcp,
            Probe::Dns { .. } | Probe::Udp { .. } => Protocol::Udp,
            Probe::Ping | Probe::Script { .. } | Probe::File { .. } => {
                let problem = Problem::new(format!("\"{kind}\" does not go through the data plane"))
                    .expected("via = \"direct\", or another type");
                return Err((place, problem));
            }
        };
        if let Some(other) = target.protocol.filter(|other| *other != protocol) {
            let problem = Problem::new(format!(
                "\"{kind}\" goes over {protocol}, and the virtual server takes {other}"
            ))
            .expected("via = \"direct\", or another type");
            return Err((place, problem));
        }
        if let Some(field) = &self.way.connect_address {
            let problem = Problem::new("the data plane leads to the virtual server's address")
                .expected("no connect_address, or via = \"direct\"");
            return Err((&field.place, problem));
        }
        if let Some(field) = self.way.fwmark.as_ref().filter(|field| field.value != 0) {
            let problem = Problem::new("marks have no part in the way through the data plane")
                .expected("no fwmark, or via = \"direct\"");
            return Err((&field.place, problem));
        }
        match (target.service.port(), &self.way.connect_port) {
            (0, None) => {
                let problem = Problem::new("the virtual server has every port, and a check needs one")
                    .expected("connect_port");
                Err((&self.place, problem))
            }
            (0, Some(port)) => Ok(SocketAddr::new(target.service.ip(), port.value)),
            (_, None) => Ok(target.service),
            (port, Some(field)) => {
                let problem =
                    Problem::new(format!("the data plane leads to the virtual server's port {port}"))
                        .expected("no connect_port, or via = \"direct\"");
                Err((&field.place, problem))
            }
        }
    }

    fn bind(&self, connect: SocketAddr) -> Result<Option<SocketAddr>, (&Place, Problem)> {
        let port = self.way.bind_port.as_ref().map(|field| field.value);
        let address = match (&self.way.bind_address, port) {
            (None, None) => return Ok(None),
            (Some(field), _) if field.value.is_ipv4() != connect.is_ipv4() => {
                let problem = Problem::new(format!(
                    "not of the family of {}, to which the check connects",
                    connect.ip()
                ))
                .expected(if connect.is_ipv4() {
                    "an IPv4 address"
                } else {
                    "an IPv6 address"
                });
                return Err((&field.place, problem));
            }
            (Some(field), _) => field.value,
            (None, Some(_)) if connect.is_ipv4() => Ipv4Addr::UNSPECIFIED.into(),
            (None, Some(_)) => Ipv6Addr::UNSPECIFIED.into(),
        };
        Ok(Some(SocketAddr::new(address, port.unwrap_or(0))))
    }
}
