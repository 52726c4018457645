//! `routes` and `rules` of an instance.

use std::net::IpAddr;

use toml::de::DeValue;

use super::super::super::{
    diagnostic::Problem,
    document::{Field, Read, Report, Table},
    values,
    vrrp::{Family, VirtualRoute, VirtualRule},
};

/// The most routes, and the most rules, of one instance.
const MOST: usize = 1024;

/// Reads `routes`. `None` means that an error was reported.
pub(super) fn routes(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Vec<VirtualRoute>> {
    each(table, "routes", "[{ to = \"0.0.0.0/0\", via = \"192.168.10.1\" }]", report, route)
}

/// Reads `rules`. `None` means that an error was reported.
pub(super) fn rules(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Vec<VirtualRule>> {
    each(table, "rules", "[{ from = \"192.168.10.50/32\", table = 100 }]", report, rule)
}

fn each<T: PartialEq>(
    table: &mut Table<'_>,
    key: &'static str,
    example: &str,
    report: &mut Report<'_>,
    one: impl Fn(&mut Table<'_>, &mut Report<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    let tables = match table.tables(key, example, report) {
        Read::Absent => return Some(Vec::new()),
        Read::Wrong => return None,
        Read::Given(field) => field.value,
    };
    super::limit(&tables, MOST, key, report);
    let mut all = Vec::new();
    let mut is_right = true;
    for mut table in tables {
        let read = one(&mut table, report);
        let place = table.place();
        table.finish(report);
        match read {
            Some(one) if all.contains(&one) => {
                report.error(&place, Problem::new("given twice").expected("each once"));
            }
            Some(one) => all.push(one),
            None => is_right = false,
        }
    }
    is_right.then_some(all)
}

fn route(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<VirtualRoute> {
    let to = table.value("to", report, values::network);
    let to = to.required(table, "to", "a network, such as \"10.0.0.0/8\"", report);
    let via = table.value("via", report, values::neighbour).optional();
    let interface = table.value("interface", report, values::interface).optional();
    let source = table.value("source", report, values::neighbour).optional();
    let number = |value: &DeValue<'_>| values::integer(value, 1..=u32::MAX);
    let number_of_table = table.value("table", report, number).optional();
    let metric = table.value("metric", report, number).optional();
    if let (Some(None), Some(None)) = (&via, &interface) {
        let problem = Problem::new("leads nowhere").expected("\"via\", \"interface\", or both");
        report.error(&table.place(), problem);
    }
    let (to, via, source) = (to?.value, via?, source?);
    let is_one_family =
        [&via, &source].into_iter().flatten().all(|field| is_like(field, Family::of(to.0), report));
    Some(VirtualRoute {
        to,
        via: via.map(|field| field.value),
        interface: interface?.map(|field| field.value),
        source: source.map(|field| field.value),
        table: number_of_table?.map(|field| field.value),
        metric: metric?.map(|field| field.value),
    })
    .filter(|_| is_one_family)
}

/// Whether an address is of the destination's family.
fn is_like(address: &Field<IpAddr>, family: Family, report: &mut Report<'_>) -> bool {
    let is_like = Family::of(address.value) == family;
    if !is_like {
        let problem =
            Problem::new("not of the destination's family").expected(format!("an {family} address"));
        report.error(&address.place, problem);
    }
    is_like
}

fn rule(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<VirtualRule> {
    let from = table.value("from", report, values::network).optional();
    let to = table.value("to", report, values::network).optional();
    let number = |value: &DeValue<'_>| values::integer(value, 1..=u32::MAX);
    let number_of_table = table.value("table", report, number);
    let number_of_table =
        number_of_table.required(table, "table", "the number of the routing table to look in", report);
    let priority = table.value("priority", report, |value| values::integer(value, 0..=u32::MAX)).optional();
    let (from, to) = (from?, to?);
    match (&from, &to) {
        (None, None) => {
            let problem = Problem::new("for every packet").expected("\"from\", \"to\", or both");
            report.error(&table.place(), problem);
        }
        (Some(from), Some(to)) if Family::of(from.value.0) != Family::of(to.value.0) => {
            let family = Family::of(from.value.0);
            let problem =
                Problem::new("not of the family of \"from\"").expected(format!("an {family} network"));
            report.error(&to.place, problem);
        }
        _ => {}
    }
    Some(VirtualRule {
        from: from.map(|field| field.value),
        to: to.map(|field| field.value),
        table: number_of_table?.value,
        priority: priority?.map(|field| field.value),
    })
}
