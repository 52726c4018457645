//! The page's part about virtual and real servers.

use std::{collections::HashSet, fmt};

use super::labels::Families;
use crate::api::types::{
    CheckStatus, Override, RealServerState, RealServerStatus, Stats, Status, VirtualServerStatus,
};

/// Writes one family after the other, each over all servers, as the format wants it.
pub(super) fn write(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    virtual_servers(families, &status.virtual_servers)?;
    let rows = rows(&status.virtual_servers);
    real_servers(families, &rows)?;
    checks(families, &rows)
}

fn virtual_servers(families: &mut Families<'_>, servers: &[VirtualServerStatus]) -> fmt::Result {
    let mut family =
        families.info("xdirector_virtual_server", "Address, protocol and scheduler of a virtual server.")?;
    for server in servers {
        family.text(&[
            ("virtual_server", &server.name),
            ("address", &server.address.to_string()),
            ("protocol", &server.protocol.to_string().to_ascii_lowercase()),
            ("scheduler", &server.scheduler),
        ])?;
    }
    let gauges: [Gauge<VirtualServerStatus>; 3] = [
        ("xdirector_virtual_server_up", "1 if enough of it is alive.", |server| server.quorum.up.into()),
        ("xdirector_virtual_server_alive_weight", "Weight of its living real servers.", |server| {
            server.quorum.alive_weight
        }),
        ("xdirector_virtual_server_quorum", "Weight that has to be alive.", |server| {
            server.quorum.quorum.into()
        }),
    ];
    for (name, help, value) in gauges {
        let mut family = families.gauge(name, help)?;
        for server in servers {
            family.value(&[("virtual_server", &server.name)], value(server))?;
        }
    }
    let mut family = families
        .gauge("xdirector_virtual_server_sorry_server_active", "1 if its sorry server answers clients.")?;
    for server in servers {
        if let Some(sorry) = server.sorry_server {
            family.flag(&[("virtual_server", &server.name)], sorry.active)?;
        }
    }
    let mut family = families.gauge(
        "xdirector_virtual_server_served",
        "1 if it is served here: this director is master of the VRRP instance that it is bound to.",
    )?;
    for server in servers {
        if let Some(bound) = &server.bound_to {
            family.flag(&[("virtual_server", &server.name)], bound.served)?;
        }
    }
    let mut family =
        families.gauge("xdirector_virtual_server_connections", "Its connections, as IPVS counts them.")?;
    for server in servers {
        let name = ("virtual_server", server.name.as_str());
        family.value(&[name, ("state", "active")], server.active)?;
        family.value(&[name, ("state", "inactive")], server.inactive)?;
    }
    let mut family = families.counter(
        "xdirector_virtual_server_connections_scheduled",
        "Connections that were given to its real servers.",
    )?;
    for server in servers {
        family.count(&[("virtual_server", &server.name)], server.stats.connections)?;
    }
    for (name, help, values) in TRAFFIC_OF_VIRTUAL_SERVERS {
        let mut family = families.counter(name, help)?;
        for server in servers {
            let [inwards, outwards] = values(&server.stats);
            let name = ("virtual_server", server.name.as_str());
            family.count(&[name, ("direction", "in")], inwards)?;
            family.count(&[name, ("direction", "out")], outwards)?;
        }
    }
    Ok(())
}

/// A family of gauges: name, help and the value of a server.
type Gauge<T> = (&'static str, &'static str, fn(&T) -> u64);

/// A family of counters with both directions.
type Traffic = (&'static str, &'static str, fn(&Stats) -> [u64; 2]);

const TRAFFIC_OF_VIRTUAL_SERVERS: [Traffic; 2] = [
    ("xdirector_virtual_server_packets", "Packets from its clients (in) and to them (out).", |stats| {
        [stats.packets_in, stats.packets_out]
    }),
    ("xdirector_virtual_server_bytes", "Bytes of these packets, from the IP header on.", |stats| {
        [stats.bytes_in, stats.bytes_out]
    }),
];

const TRAFFIC_OF_REAL_SERVERS: [Traffic; 2] = [
    ("xdirector_real_server_packets", "Packets from its clients (in) and to them (out).", |stats| {
        [stats.packets_in, stats.packets_out]
    }),
    ("xdirector_real_server_bytes", "Bytes of these packets, from the IP header on.", |stats| {
        [stats.bytes_in, stats.bytes_out]
    }),
];

/// A real server and what its labels say; made once for all families.
struct Row<'a> {
    virtual_server: &'a str,
    address: String,
    forward: String,
    server: &'a RealServerStatus,
}

impl Row<'_> {
    fn labels(&self) -> [(&str, &str); 3] {
        [("virtual_server", self.virtual_server), ("real_server", &self.address), ("forward", &self.forward)]
    }

    fn with<'a>(&'a self, name: &'a str, value: &'a str) -> [(&'a str, &'a str); 4] {
        let [virtual_server, real_server, forward] = self.labels();
        [virtual_server, real_server, forward, (name, value)]
    }
}

/// A server that was taken out of the file and came back while it still had connections can be there twice. One sample
/// twice would make Prometheus refuse the whole page, so the first counts: the one of the configuration.
fn rows(virtual_servers: &[VirtualServerStatus]) -> Vec<Row<'_>> {
    let mut rows = Vec::with_capacity(virtual_servers.iter().map(|server| server.real_servers.len()).sum());
    for virtual_server in virtual_servers {
        let mut seen = HashSet::with_capacity(virtual_server.real_servers.len());
        for server in &virtual_server.real_servers {
            let forward = server.forward.to_string();
            if seen.insert((server.address, server.forward as u8)) {
                rows.push(Row {
                    virtual_server: &virtual_server.name,
                    address: server.address.to_string(),
                    forward,
                    server,
                });
            }
        }
    }
    rows
}

fn real_servers(families: &mut Families<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let gauges: [Gauge<RealServerStatus>; 3] = [
        ("xdirector_real_server_up", "1 if it serves: its state is up.", |server| {
            (server.state == RealServerState::Up).into()
        }),
        ("xdirector_real_server_weight", "Its share of new connections now; 0: none.", |server| {
            server.weight.into()
        }),
        (
            "xdirector_real_server_overloaded",
            "1 if it has more connections than its thresholds allow.",
            |server| server.overloaded.into(),
        ),
    ];
    for (name, help, value) in gauges {
        let mut family = families.gauge(name, help)?;
        for row in rows {
            family.value(&row.labels(), value(row.server))?;
        }
    }
    // Eleven samples each, ten of them 0, would double the page.
    let mut family = families.gauge("xdirector_real_server_state", "1 for the state that it is in.")?;
    for row in rows {
        family.value(&row.with("state", &row.server.state.to_string()), 1)?;
    }
    let mut family =
        families.gauge("xdirector_real_server_override", "1 for what an operator has ordered for it.")?;
    for row in rows {
        let action = match row.server.ordered {
            None => continue,
            Some(Override::Drain { .. }) => "drain",
            Some(Override::Disable) => "disable",
            Some(Override::Weight { .. }) => "weight",
        };
        family.value(&row.with("action", action), 1)?;
    }
    let mut family =
        families.gauge("xdirector_real_server_connections", "Its connections, as IPVS counts them.")?;
    for row in rows {
        family.value(&row.with("state", "active"), row.server.active)?;
        family.value(&row.with("state", "inactive"), row.server.inactive)?;
    }
    let mut family = families
        .counter("xdirector_real_server_connections_scheduled", "Connections that were given to it.")?;
    for row in rows {
        family.count(&row.labels(), row.server.stats.connections)?;
    }
    for (name, help, values) in TRAFFIC_OF_REAL_SERVERS {
        let mut family = families.counter(name, help)?;
        for row in rows {
            let [inwards, outwards] = values(&row.server.stats);
            family.count(&row.with("direction", "in"), inwards)?;
            family.count(&row.with("direction", "out"), outwards)?;
        }
    }
    Ok(())
}

fn checks(families: &mut Families<'_>, rows: &[Row<'_>]) -> fmt::Result {
    let mut family = families.gauge("xdirector_check_up", "1 if the check says that the server is alive.")?;
    each_check(rows, |row, check, name| match check.up {
        Some(up) => family.flag(&row.with("check", name), up),
        None => Ok(()),
    })?;
    let mut family = families.counter("xdirector_checks", "Checks by their result.")?;
    each_check(rows, |row, check, name| {
        let [virtual_server, real_server, forward, check_name] = row.with("check", name);
        let mut count = |result, times| {
            family.count(&[virtual_server, real_server, forward, check_name, ("result", result)], times)
        };
        count("passed", check.passed)?;
        count("failed", check.failed)
    })?;
    let mut family = families.durations("xdirector_check_duration_seconds", "Time that checks took.")?;
    each_check(rows, |row, check, name| {
        family.duration(
            &row.with("check", name),
            check.seconds_sum,
            check.passed.saturating_add(check.failed),
        )
    })?;
    let mut family =
        families.gauge("xdirector_check_last_duration_seconds", "Time the last attempt of a check took.")?;
    each_check(rows, |row, check, name| family.seconds(&row.with("check", name), check.seconds_last))
}

/// Calls `each` with every check and its name, as `0:http`: a server can have several of a kind.
fn each_check(
    rows: &[Row<'_>],
    mut each: impl FnMut(&Row<'_>, &CheckStatus, &str) -> fmt::Result,
) -> fmt::Result {
    for row in rows {
        for (index, check) in row.server.checks.iter().enumerate() {
            each(row, check, &format!("{index}:{}", check.kind))?;
        }
    }
    Ok(())
}
