//! Keys that only the kernel's IPVS understands.

use std::time::Duration;

use super::{
    super::{
        Dataplane, Persistence, Protocol, Tunnel, TunnelChecksum, TunnelKind,
        diagnostic::Problem,
        document::{Place, Read, Report, Table},
        values::{self, Granularity},
    },
    Facts,
};

/// keepalived's.
const DEFAULT_PERSISTENCE: Duration = Duration::from_secs(360);

/// Reports a key that XDP does not have, where XDP is what is asked for. `None` when an error was reported.
pub(super) fn only(place: &Place, facts: &Facts, report: &mut Report<'_>) -> Option<()> {
    if facts.dataplane != Some(Dataplane::Xdp) {
        return Some(());
    }
    let problem = Problem::new("the XDP data plane does not have this")
        .expected("none of it, or director.dataplane = \"ipvs\" or \"auto\"");
    report.error(place, problem);
    None
}

/// Reads `persistence_timeout` and `persistence_granularity`. The outer `None` means that an error was reported.
pub(super) fn persistence(
    table: &mut Table<'_>,
    is_ipv6: Option<bool>,
    facts: &Facts,
    report: &mut Report<'_>,
) -> Option<Option<Persistence>> {
    let timeout = table.value("persistence_timeout", report, values::duration).optional();
    let granularity = table.value("persistence_granularity", report, values::granularity).optional();
    let (timeout, granularity) = (timeout?, granularity?);
    let Some(place) =
        timeout.as_ref().map(|field| &field.place).or(granularity.as_ref().map(|field| &field.place))
    else {
        return Some(None);
    };
    only(place, facts, report)?;
    let is_ipv6 = is_ipv6?;
    let prefix = match &granularity {
        None if is_ipv6 => 128,
        None => 32,
        Some(field) => match field.value {
            Granularity::Mask(_) if is_ipv6 => {
                let problem = Problem::new("an IPv4 mask for an IPv6 address")
                    .expected("a number of bits from 1 to 128, such as 64");
                report.error(&field.place, problem);
                return None;
            }
            Granularity::Prefix(bits) if bits > 32 && !is_ipv6 => {
                let problem = Problem::new("an IPv4 address has 32 bits").expected("a number from 1 to 32");
                report.error(&field.place, problem);
                return None;
            }
            Granularity::Mask(bits) | Granularity::Prefix(bits) => bits,
        },
    };
    Some(Some(Persistence { timeout: timeout.map_or(DEFAULT_PERSISTENCE, |field| field.value), prefix }))
}

/// Reads `one_packet`. `None` means that an error was reported.
pub(super) fn one_packet(
    table: &mut Table<'_>,
    protocol: Option<Protocol>,
    facts: &Facts,
    report: &mut Report<'_>,
) -> Option<bool> {
    let Some(field) = table.value("one_packet", report, values::boolean).optional()? else {
        return Some(false);
    };
    if field.value {
        only(&field.place, facts, report)?;
        if protocol == Some(Protocol::Tcp) {
            let problem = Problem::new("TCP is more than single packets").expected("protocol = \"udp\"");
            report.error(&field.place, problem);
            return None;
        }
    }
    Some(field.value)
}

/// Reads `tunnel = { type, port, checksum }`.
pub(super) fn tunnel(table: &mut Table<'_>, facts: &Facts, report: &mut Report<'_>) -> Read<Tunnel> {
    let field = match table.table("tunnel", report) {
        Read::Absent => return Read::Absent,
        Read::Wrong => return Read::Wrong,
        Read::Given(field) => field,
    };
    let (mut inner, place) = (field.value, field.place);
    let kind = inner.value("type", report, values::tunnel_kind);
    let kind = kind.required(&inner, "type", "\"ipip\", \"gue\" or \"gre\"", report);
    let port = inner.value("port", report, |value| values::integer(value, 1..=65_535)).optional();
    let checksum = inner.value("checksum", report, values::tunnel_checksum).optional();
    inner.finish(report);
    let (Some(kind), Some(port), Some(checksum)) = (kind, port, checksum) else { return Read::Wrong };
    if kind.value != TunnelKind::Ipip && only(&kind.place, facts, report).is_none() {
        return Read::Wrong;
    }
    let mut is_wrong = false;
    let mut wrong = |place: &Place, problem: Problem, report: &mut Report<'_>| {
        is_wrong = true;
        report.error(place, problem);
    };
    match (&port, kind.value) {
        (None, TunnelKind::Gue) => {
            wrong(&place, Problem::new("GUE without a port").expected("port = 6080, or another one"), report);
        }
        (Some(field), TunnelKind::Ipip | TunnelKind::Gre) => {
            let problem = Problem::new(format!("\"{}\" has no port", kind.value)).expected("none");
            wrong(&field.place, problem, report);
        }
        _ => {}
    }
    if let Some(field) = &checksum {
        let has_it = match field.value {
            TunnelChecksum::None => true,
            TunnelChecksum::Full => kind.value != TunnelKind::Ipip,
            TunnelChecksum::Remote => kind.value == TunnelKind::Gue,
        };
        if !has_it {
            let problem = Problem::new(format!("\"{}\" does not have it", kind.value))
                .expected("\"none\"; \"full\" with \"gue\" and \"gre\"; \"remote\" with \"gue\"");
            wrong(&field.place, problem, report);
        }
    }
    if is_wrong {
        return Read::Wrong;
    }
    let tunnel = Tunnel {
        kind: kind.value,
        port: port.map_or(0, |field| u16::try_from(field.value).expect("in range")),
        checksum: checksum.map_or(TunnelChecksum::None, |field| field.value),
    };
    Read::Given(super::super::document::Field { value: tunnel, place })
}
