//! The addresses of an instance: virtual ones, its own, its peers'.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    net::IpAddr,
};

use toml::de::DeValue;

use super::super::super::{
    diagnostic::Problem,
    document::{Either, Field, Place, Read, Report, Table},
    values,
    vrrp::{Family, MAX_ADVERTISED_ADDRESSES, MAX_VRRP_ADDRESSES, UnicastPeer, VirtualAddress},
};

/// The most unicast peers of one instance.
const MOST_PEERS: usize = 255;
const ADDRESSES: &str = "an array of addresses, such as [\"192.168.10.50/24\"]";
const PEERS: &str = "an array of addresses, such as [\"192.168.10.12\"]";

/// Who has which virtual address already, over all instances.
#[derive(Default)]
pub(super) struct Taken {
    /// A link-local address is another one on another interface.
    addresses: BTreeMap<(IpAddr, Option<String>), (String, usize)>,
}

/// `addresses` and `excluded_addresses` of an instance; `None` where they are wrong.
pub(super) struct Virtual {
    /// Of all `addresses`.
    pub(super) family: Option<Family>,
    pub(super) addresses: Option<Vec<VirtualAddress>>,
    pub(super) excluded: Option<Vec<VirtualAddress>>,
}

impl Taken {
    /// Reads both keys. `interface` is the instance's.
    pub(super) fn read(
        &mut self,
        table: &mut Table<'_>,
        interface: Option<&str>,
        report: &mut Report<'_>,
    ) -> Virtual {
        let advertised = table.list_or_tables("addresses", report, ADDRESSES, values::instance_address);
        let excluded =
            table.list_or_tables("excluded_addresses", report, ADDRESSES, values::instance_address);
        let advertised = advertised.required(table, "addresses", ADDRESSES, report);
        let place = advertised.as_ref().map(|field| field.place.clone());
        let addresses = advertised.and_then(|field| self.each(field.value, interface, report));
        let family = addresses.as_ref().and_then(|addresses| family(addresses, report));
        if let (Some(place), Some(addresses)) = (&place, &addresses) {
            match addresses.len() {
                0 => report.error(place, Problem::new("no address").expected(ADDRESSES)),
                1..=MAX_ADVERTISED_ADDRESSES => {}
                count => {
                    let problem = Problem::new(format!("{count} addresses, and adverts count to 255"))
                        .expected(format!(
                            "at most {MAX_ADVERTISED_ADDRESSES}, and others in \"excluded_addresses\""
                        ));
                    report.error(place, problem);
                }
            }
        }
        let excluded = match excluded {
            Read::Absent => Some((Vec::new(), None)),
            Read::Wrong => None,
            Read::Given(field) => {
                self.each(field.value, interface, report).map(|addresses| (addresses, Some(field.place)))
            }
        };
        if let (Some(addresses), Some((excluded, Some(place)))) = (&addresses, &excluded)
            && addresses.len() + excluded.len() > MAX_VRRP_ADDRESSES
        {
            let problem = Problem::new(format!("{} addresses together", addresses.len() + excluded.len()))
                .expected(format!("at most {MAX_VRRP_ADDRESSES} in one instance"));
            report.error(place, problem);
        }
        let values = |all: Vec<Field<VirtualAddress>>| all.into_iter().map(|field| field.value).collect();
        Virtual {
            family,
            addresses: addresses.map(values),
            excluded: excluded.map(|(excluded, _)| values(excluded)),
        }
    }

    fn each(
        &mut self,
        elements: Vec<Field<Either<'_, (IpAddr, u8)>>>,
        interface: Option<&str>,
        report: &mut Report<'_>,
    ) -> Option<Vec<Field<VirtualAddress>>> {
        let all: Vec<_> = elements
            .into_iter()
            .map(|Field { value, place }| {
                let address = match value {
                    Either::Value((address, prefix)) => {
                        let value = VirtualAddress { address, prefix, interface: None, label: None };
                        Field { value, place }
                    }
                    Either::Table(table) => address(table, report)?,
                };
                self.take(&address, interface, report);
                Some(address)
            })
            .collect();
        all.into_iter().collect()
    }

    fn take(&mut self, address: &Field<VirtualAddress>, interface: Option<&str>, report: &mut Report<'_>) {
        let VirtualAddress { address: ip, interface: own, .. } = &address.value;
        let link = match ip {
            IpAddr::V6(v6) if v6.is_unicast_link_local() => own.as_deref().or(interface).map(str::to_owned),
            _ => None,
        };
        match self.addresses.entry((*ip, link)) {
            Entry::Occupied(first) => {
                let (path, line) = first.get();
                let problem = Problem::new(format!("{path} at line {line} has the same address"))
                    .expected("each address once, in one instance");
                report.error(&address.place, problem);
            }
            Entry::Vacant(free) => {
                let path = address.place.path.strip_suffix(".address").unwrap_or(&address.place.path);
                free.insert((path.to_owned(), report.line(&address.place)));
            }
        }
    }
}

/// `{ address = "192.168.10.50/24", interface = "eth1", label = "eth1:1" }`.
fn address(mut table: Table<'_>, report: &mut Report<'_>) -> Option<Field<VirtualAddress>> {
    let address = table.value("address", report, values::instance_address);
    let address = address.required(&table, "address", "ADDRESS or ADDRESS/PREFIX", report);
    let interface = table.value("interface", report, values::interface).optional();
    let label = table.value("label", report, values::label).optional();
    table.finish(report);
    let Field { value: (address, prefix), place } = address?;
    let label = label?;
    if let (Some(label), IpAddr::V6(_)) = (&label, address) {
        report.error(&label.place, Problem::new("IPv6 addresses have no labels").expected("none"));
    }
    let interface = interface?.map(|field| field.value);
    let value = VirtualAddress { address, prefix, interface, label: label.map(|field| field.value) };
    Some(Field { value, place })
}

/// The family that all of them have.
fn family(addresses: &[Field<VirtualAddress>], report: &mut Report<'_>) -> Option<Family> {
    let family = Family::of(addresses.first()?.value.address);
    let mut others = addresses.iter().filter(|field| Family::of(field.value.address) != family).peekable();
    let is_one = others.peek().is_none();
    for other in others {
        let problem = Problem::new("not of the family of the first address").expected(format!(
            "an {family} address, or another place: \"excluded_addresses\" may be of both"
        ));
        report.error(&other.place, problem);
    }
    is_one.then_some(family)
}

/// Reads `source_address`. The outer `None` means that an error was reported.
pub(super) fn source(
    table: &mut Table<'_>,
    family: Option<Family>,
    report: &mut Report<'_>,
) -> Option<Option<Field<IpAddr>>> {
    let source = table.value("source_address", report, values::neighbour).optional()?;
    if let (Some(source), Some(family)) = (&source, family)
        && !is_of(source.value, family, &source.place, report)
    {
        return None;
    }
    Some(source)
}

/// Adverts to the group come from a link-local address in IPv6 (RFC 9568 section 5.1.2.1).
pub(super) fn fits_group(source: &Field<IpAddr>, report: &mut Report<'_>) {
    if matches!(source.value, IpAddr::V6(v6) if !v6.is_unicast_link_local()) {
        let problem = Problem::new("IPv6 adverts go to the group from a link-local address only")
            .expected("an address of fe80::/10, or \"unicast_peers\"");
        report.error(&source.place, problem);
    }
}

/// Reads `unicast_peers`. `None` means that an error was reported.
pub(super) fn peers(
    table: &mut Table<'_>,
    family: Option<Family>,
    source: Option<&Field<IpAddr>>,
    report: &mut Report<'_>,
) -> Option<Vec<UnicastPeer>> {
    let elements = match table.list_or_tables("unicast_peers", report, PEERS, values::neighbour) {
        Read::Absent => return Some(Vec::new()),
        Read::Wrong => return None,
        Read::Given(field) => field,
    };
    if elements.value.len() > MOST_PEERS {
        let problem =
            Problem::new(format!("{} peers", elements.value.len())).expected(format!("at most {MOST_PEERS}"));
        report.error(&elements.place, problem);
    }
    let mut lines: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let all: Vec<_> = elements
        .value
        .into_iter()
        .map(|Field { value, place }| {
            let (peer, place) = match value {
                Either::Value(address) => (UnicastPeer { address, min_ttl: None, max_ttl: None }, place),
                Either::Table(table) => peer(table, report)?,
            };
            if source.is_some_and(|source| source.value == peer.address) {
                let problem =
                    Problem::new("our own source_address").expected("the addresses of the other directors");
                report.error(&place, problem);
            }
            match lines.entry(peer.address) {
                Entry::Occupied(first) => {
                    let problem = Problem::new(format!("the same peer as at line {}", first.get()))
                        .expected("each once");
                    report.error(&place, problem);
                }
                Entry::Vacant(free) => {
                    free.insert(report.line(&place));
                }
            }
            family.is_none_or(|family| is_of(peer.address, family, &place, report)).then_some(peer)
        })
        .collect();
    all.into_iter().collect()
}

/// `{ address = "192.168.10.12", min_ttl = 254, max_ttl = 255 }`.
fn peer(mut table: Table<'_>, report: &mut Report<'_>) -> Option<(UnicastPeer, Place)> {
    let address = table.value("address", report, values::neighbour);
    let address = address.required(&table, "address", "the address of the other director", report);
    let ttl = |value: &DeValue<'_>| values::byte(value, 1..=255);
    let min_ttl = table.value("min_ttl", report, ttl).optional();
    let max_ttl = table.value("max_ttl", report, ttl).optional();
    table.finish(report);
    let Field { value: address, place } = address?;
    let (min_ttl, max_ttl) = (min_ttl?.map(|field| field.value), max_ttl?);
    if let (Some(least), Some(most)) = (min_ttl, &max_ttl)
        && most.value < least
    {
        let problem = Problem::new(format!("less than the min_ttl, {least}"))
            .expected(format!("a whole number from {least} to 255"));
        report.error(&most.place, problem);
    }
    Some((UnicastPeer { address, min_ttl, max_ttl: max_ttl.map(|field| field.value) }, place))
}

fn is_of(address: IpAddr, family: Family, place: &Place, report: &mut Report<'_>) -> bool {
    let is_of = Family::of(address) == family;
    if !is_of {
        let problem = Problem::new("not of the family of the instance's addresses")
            .expected(format!("an {family} address"));
        report.error(place, problem);
    }
    is_of
}
