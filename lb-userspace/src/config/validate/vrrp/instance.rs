//! `[[vrrp_instance]]`: its keys, and the rules between them and between several instances.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

use toml::de::DeValue;

use super::{
    super::{
        super::{
            diagnostic::Problem,
            document::{Field, Place, Read, Report, Table},
            values::{self, Vmac},
            vrrp::{Checksum, Family, FastDetection, Garp, MAX_VRRP_INSTANCES, Track, Version, VrrpInstance},
        },
        mail,
    },
    Bindable, Surroundings, addresses, authentication, limit, notify, routes,
    tracks::{Known, Tracked},
};

/// The priority of the addresses' owner.
const OWNER: u8 = 255;
const DEFAULT_PRIORITY: u8 = 100;
const DEFAULT_INTERVAL: Duration = Duration::from_secs(1);
/// The most gratuitous ARP in one burst, for each address.
const MOST_REPEATS: u32 = 1000;

/// Every instance with what the file says of its mail; `None` when an error was reported.
type Instances = Option<Vec<(VrrpInstance, Option<bool>)>>;

/// Reads all instances.
pub(super) fn read_all(
    root: &mut Table<'_>,
    around: &Surroundings<'_>,
    known: &mut Known,
    report: &mut Report<'_>,
) -> (Instances, Bindable) {
    let mut rules = Rules::new(around);
    let tables = match root.tables("vrrp_instance", "[[vrrp_instance]]", report) {
        Read::Absent => return (Some(Vec::new()), rules.bindable),
        Read::Wrong => {
            rules.bindable.names.has_gaps();
            return (None, rules.bindable);
        }
        Read::Given(field) => field.value,
    };
    limit(&tables, MAX_VRRP_INSTANCES, "instances", report);
    rules.bindable.has_instances = !tables.is_empty();
    let all: Vec<_> = tables.into_iter().map(|table| rules.read(table, known, report)).collect();
    rules.finish(report);
    (all.into_iter().collect(), rules.bindable)
}

/// What earlier instances have taken.
struct Rules<'r> {
    around: &'r Surroundings<'r>,
    bindable: Bindable,
    /// Where each virtual router of an interface stands.
    routers: BTreeMap<(String, Family, u8), usize>,
    addresses: addresses::Taken,
    /// The interfaces of all instances.
    interfaces: BTreeSet<String>,
    macvlans: Vec<Field<String>>,
}

/// Who the virtual router is; `None` where a part is wrong.
struct Router {
    interface: Option<String>,
    vrid: Option<u8>,
    addresses: addresses::Virtual,
    version: Option<Version>,
}

/// How it comes to be master; `None` where a part is wrong.
struct Election {
    priority: Option<u8>,
    advert_interval: Option<Duration>,
    initial_master: Option<bool>,
    nopreempt: Option<bool>,
    preempt_delay: Option<Duration>,
}

impl<'r> Rules<'r> {
    fn new(around: &'r Surroundings<'r>) -> Self {
        Self {
            around,
            bindable: Bindable::default(),
            routers: BTreeMap::new(),
            addresses: addresses::Taken::default(),
            interfaces: BTreeSet::new(),
            macvlans: Vec::new(),
        }
    }

    fn read(
        &mut self,
        mut table: Table<'_>,
        known: &mut Known,
        report: &mut Report<'_>,
    ) -> Option<(VrrpInstance, Option<bool>)> {
        let name = self.bindable.names.read(&mut table, "VI_50", report);
        let router = self.router(&mut table, report);
        let family = router.addresses.family;
        let election = election(&mut table, router.version, report);
        let authentication = authentication::read(&mut table, router.version, report);
        let checksum = checksum(&mut table, router.version, family, report);
        let source = addresses::source(&mut table, family, report);
        let peers = addresses::peers(&mut table, family, source.as_ref().and_then(Option::as_ref), report);
        if let (Some(Some(source)), Some([])) = (&source, peers.as_deref()) {
            addresses::fits_group(source, report);
        }
        let check_unicast_source = table.value("check_unicast_source", report, values::boolean).optional();
        if let (Some(Some(Field { value: true, place })), Some([])) =
            (&check_unicast_source, peers.as_deref())
        {
            report.warning(place, Problem::new("without effect, since there are no unicast_peers"));
        }
        let skip_check_adv_addr = table.value("skip_check_adv_addr", report, values::boolean).or(false);
        let quick_release = table.value("quick_release", report, values::boolean).or(true);
        let routes = routes::routes(&mut table, report);
        let rules = routes::rules(&mut table, report);
        let vmac = self.vmac(&mut table, family, router.vrid, report);
        let garp = garp(&mut table, report);
        let dont_track_primary = table.value("dont_track_primary", report, values::boolean).or(false);
        let tracks = tracks(&mut table, known, election.priority, report);
        let notify = notify(&mut table, report);
        let mail = mail::on_change(&mut table, self.around.has_mail, report).optional();
        let fast_detection = fast_detection(&mut table, report);
        table.finish(report);

        let name = name?.value;
        let (addresses, excluded_addresses) = (router.addresses.addresses?, router.addresses.excluded?);
        let all = addresses.iter().chain(&excluded_addresses).map(|one| one.address);
        self.bindable.addresses.insert(name.clone(), all.collect());
        let notify = notify?;
        let instance = VrrpInstance {
            name,
            interface: router.interface?,
            family: family?,
            version: router.version?,
            virtual_router_id: router.vrid?,
            priority: election.priority?,
            advert_interval: election.advert_interval?,
            initial_master: election.initial_master?,
            nopreempt: election.nopreempt?,
            preempt_delay: election.preempt_delay?,
            authentication: authentication?,
            checksum: checksum?,
            source_address: source?.map(|field| field.value),
            unicast_peers: peers?,
            check_unicast_source: check_unicast_source?.is_some_and(|field| field.value),
            skip_check_adv_addr: skip_check_adv_addr?,
            quick_release: quick_release?,
            addresses,
            excluded_addresses,
            routes: routes?,
            rules: rules?,
            vmac: vmac?,
            garp: garp?,
            dont_track_primary: dont_track_primary?,
            tracks: tracks?,
            notify: notify.any,
            notify_master: notify.master,
            notify_backup: notify.backup,
            notify_fault: notify.fault,
            notify_stop: notify.stop,
            // Whether it is in a group is not known yet.
            mail: false,
            fast_detection: fast_detection?,
        };
        Some((instance, mail?.map(|field| field.value)))
    }

    fn router(&mut self, table: &mut Table<'_>, report: &mut Report<'_>) -> Router {
        let interface = table.value("interface", report, values::interface);
        let expected = "the interface for adverts, such as \"eth0\"";
        let interface = interface.required(table, "interface", expected, report).map(|field| field.value);
        let version = table.value("version", report, values::version);
        let vrid = table.value("virtual_router_id", report, |value| values::byte(value, 1..=255));
        let vrid = vrid.required(table, "virtual_router_id", "a whole number from 1 to 255", report);
        let addresses = self.addresses.read(table, interface.as_deref(), report);
        if let Some(interface) = &interface {
            self.interfaces.insert(interface.clone());
        }
        if let (Some(interface), Some(family), Some(vrid)) = (&interface, addresses.family, &vrid) {
            match self.routers.entry((interface.clone(), family, vrid.value)) {
                Entry::Occupied(first) => {
                    let problem = Problem::new(format!(
                        "taken at line {} for {family} on \"{interface}\"",
                        first.get()
                    ))
                    .expected("another number for each virtual router of an interface");
                    report.error(&vrid.place, problem);
                }
                Entry::Vacant(free) => {
                    free.insert(report.line(&vrid.place));
                }
            }
        }
        let version = match (version, addresses.family) {
            (Read::Wrong, _) | (Read::Absent, None) => None,
            (Read::Absent, Some(Family::Ipv4)) => Some(Version::V2),
            (Read::Absent, Some(Family::Ipv6)) => Some(Version::V3),
            (Read::Given(Field { value: Version::V2, place }), Some(Family::Ipv6)) => {
                let problem = Problem::new("version 2 has no IPv6").expected("3, or no version");
                report.error(&place, problem);
                None
            }
            (Read::Given(field), _) => Some(field.value),
        };
        Router { interface, vrid: vrid.map(|field| field.value), addresses, version }
    }

    /// The outer `None` means that an error was reported.
    fn vmac(
        &mut self,
        table: &mut Table<'_>,
        family: Option<Family>,
        vrid: Option<u8>,
        report: &mut Report<'_>,
    ) -> Option<Option<String>> {
        let Some(Field { value, place }) = table.value("vmac", report, values::vmac).optional()? else {
            return Some(None);
        };
        let name = match value {
            Vmac::Off => return Some(None),
            Vmac::Named(name) => name,
            Vmac::On => match family? {
                Family::Ipv4 => format!("vrrp.{}", vrid?),
                Family::Ipv6 => format!("vrrp6.{}", vrid?),
            },
        };
        self.macvlans.push(Field { value: name.clone(), place });
        Some(Some(name))
    }

    /// What can be said of all instances together only.
    fn finish(&self, report: &mut Report<'_>) {
        let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
        for Field { value: name, place } in &self.macvlans {
            let is_directors = self.around.interfaces.is_some_and(|all| all.contains(name));
            if is_directors || self.interfaces.contains(name) {
                let what = if is_directors { "director.interfaces" } else { "an instance" };
                let problem = Problem::new(format!("\"{name}\" is an interface of {what}"))
                    .expected("a name for a new interface");
                report.error(place, problem);
            }
            match lines.entry(name) {
                Entry::Occupied(first) => {
                    let problem =
                        Problem::new(format!("\"{name}\" is made for line {} already", first.get()))
                            .expected("another name for each");
                    report.error(place, problem);
                }
                Entry::Vacant(free) => {
                    free.insert(report.line(place));
                }
            }
        }
    }
}

fn election(table: &mut Table<'_>, version: Option<Version>, report: &mut Report<'_>) -> Election {
    let priority = table.value("priority", report, |value| values::byte(value, 1..=255));
    let priority = priority.or(DEFAULT_PRIORITY);
    let interval = table.value("advert_interval", report, values::advert_interval).optional();
    let interval = interval.and_then(|field| match (field, version) {
        (None, _) => Some(DEFAULT_INTERVAL),
        (Some(field), None) => Some(field.value),
        (Some(Field { value, place }), Some(version)) => match values::exact_interval(value, version) {
            Ok(()) => Some(value),
            Err(problem) => {
                report.error(&place, problem);
                None
            }
        },
    });
    let initial_master = table.value("state", report, values::state).or(false);
    let nopreempt = table.value("nopreempt", report, values::boolean).optional();
    let delay = table.value("preempt_delay", report, values::delay).optional();
    let (nopreempt, preempt_delay) = preemption(priority, initial_master, nopreempt, delay, report);
    Election { priority, advert_interval: interval, initial_master, nopreempt, preempt_delay }
}

/// What goes together of `nopreempt` and `preempt_delay`. Where keepalived takes one of them back with a warning, so is
/// it done here.
fn preemption(
    priority: Option<u8>,
    initial_master: Option<bool>,
    nopreempt: Option<Option<Field<bool>>>,
    delay: Option<Option<Field<Duration>>>,
    report: &mut Report<'_>,
) -> (Option<bool>, Option<Duration>) {
    let ignored = |place: &Place, beside: &str, report: &mut Report<'_>| {
        let problem = Problem::new(format!("not together with {beside}: ignored, as keepalived does"));
        report.warning(place, problem);
    };
    let master = "state = \"MASTER\"";
    let nopreempt = match nopreempt {
        None => None,
        Some(Some(Field { value: true, place })) => match (initial_master, priority) {
            (_, Some(OWNER)) => {
                let problem = Problem::new("the owner of the addresses, priority 255, always takes over")
                    .expected("nopreempt = false, or a priority from 1 to 254");
                report.error(&place, problem);
                None
            }
            (Some(true), _) => {
                ignored(&place, master, report);
                Some(false)
            }
            _ => Some(true),
        },
        Some(_) => Some(false),
    };
    let delay = delay.map(|delay| match delay.filter(|field| !field.value.is_zero()) {
        None => Duration::ZERO,
        Some(field) if initial_master == Some(true) => {
            ignored(&field.place, master, report);
            Duration::ZERO
        }
        Some(field) if nopreempt == Some(true) => {
            ignored(&field.place, "nopreempt", report);
            Duration::ZERO
        }
        Some(field) => field.value,
    });
    (nopreempt, delay)
}

fn checksum(
    table: &mut Table<'_>,
    version: Option<Version>,
    family: Option<Family>,
    report: &mut Report<'_>,
) -> Option<Checksum> {
    let Some(field) = table.value("checksum", report, values::checksum).optional()? else {
        return Some(Checksum::default());
    };
    if version == Some(Version::V2) || family == Some(Family::Ipv6) {
        report.warning(&field.place, Problem::new("without effect: only version 3 over IPv4 has the choice"));
    }
    Some(field.value)
}

fn garp(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Garp> {
    let default = Garp::default();
    let count = |least| move |value: &DeValue<'_>| values::integer(value, least..=MOST_REPEATS);
    let repeat = table.value("garp_master_repeat", report, count(1)).or(default.repeat);
    let delay = table.value("garp_master_delay", report, values::delay).or(default.delay);
    let refresh = table.value("garp_master_refresh", report, values::delay).or(default.refresh);
    let refresh_repeat =
        table.value("garp_master_refresh_repeat", report, count(1)).or(default.refresh_repeat);
    let lower_prio_repeat = table.value("garp_lower_prio_repeat", report, count(0)).or_inherit(&repeat);
    let lower_prio_delay = table.value("garp_lower_prio_delay", report, values::delay).or_inherit(&delay);
    let interval = table.value("garp_interval", report, values::pause).or(default.interval);
    Some(Garp {
        repeat: repeat?,
        delay: delay?,
        refresh: refresh?,
        refresh_repeat: refresh_repeat?,
        lower_prio_repeat: lower_prio_repeat?,
        lower_prio_delay: lower_prio_delay?,
        interval: interval?,
    })
}

fn tracks(
    table: &mut Table<'_>,
    known: &mut Known,
    priority: Option<u8>,
    report: &mut Report<'_>,
) -> Option<Vec<Track>> {
    let tracks = known.read(table, report)?;
    if priority == Some(OWNER) {
        for Tracked { track, place } in tracks.iter().filter(|tracked| tracked.track.weight != 0) {
            let problem =
                Problem::new(format!("a weight of {}, and nothing changes priority 255", track.weight));
            report.warning(place, problem);
        }
    }
    Some(tracks.into_iter().map(|tracked| tracked.track).collect())
}

/// The outer `None` means that an error was reported.
fn fast_detection(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Option<FastDetection>> {
    let mut table = match table.table("fast_detection", report) {
        Read::Absent => return Some(None),
        Read::Wrong => return None,
        Read::Given(field) => field.value,
    };
    let interval = table.value("interval", report, values::heartbeat);
    let interval = interval.required(&table, "interval", "a time, such as \"10ms\"", report);
    let count = |value: &DeValue<'_>| values::integer(value, 2..=100);
    let multiplier = table.value("multiplier", report, count).or(3);
    table.finish(report);
    Some(Some(FastDetection { interval: interval?.value, multiplier: multiplier? }))
}
