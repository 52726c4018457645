//! `[vrrp]`, `[[vrrp_instance]]` and what belongs to them: what there is, and who names whom.
//!
//! Things come before those that track them, instances before groups and before the virtual servers that are bound to
//! them. Only tracked virtual servers are known later: [`Reading::finish`].

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    time::Duration,
};

use toml::de::DeValue;

use super::super::{
    Command,
    diagnostic::Problem,
    document::{Field, Read, Report, Table},
    values,
    vrrp::{Vrrp, VrrpSettings},
};

mod addresses;
mod authentication;
mod groups;
mod instance;
mod names;
mod routes;
mod things;
mod tracks;

pub(super) use names::Names;

/// What has been read, and what the rest of the file needs to know of it.
pub(super) struct Reading {
    /// `None`: an error was reported.
    vrrp: Option<Vrrp>,
    /// To which instances virtual servers may be bound.
    pub(super) bindable: Bindable,
    /// The virtual servers that are tracked.
    wanted: Vec<Field<String>>,
}

/// The instances, for `bind_to`.
#[derive(Default)]
pub(super) struct Bindable {
    pub(super) names: Names,
    /// All addresses of those that are right.
    pub(super) addresses: BTreeMap<String, BTreeSet<IpAddr>>,
    has_instances: bool,
}

impl Bindable {
    /// Whether there are any, right or wrong.
    pub(super) const fn has_instances(&self) -> bool {
        self.has_instances
    }
}

/// What instances need to know of the rest of the file; `None` where that is wrong itself.
pub(super) struct Surroundings<'s> {
    /// `director.interfaces`.
    pub(super) interfaces: Option<&'s [String]>,
    /// Whether there is `[mail]`.
    pub(super) has_mail: Option<bool>,
}

/// Reads everything about VRRP but the virtual servers' part.
pub(super) fn read(root: &mut Table<'_>, around: &Surroundings<'_>, report: &mut Report<'_>) -> Reading {
    let settings = settings(root, report);
    let mut things = things::read(root, report);
    let (instances, bindable) = instance::read_all(root, around, &mut things.known, report);
    let groups = groups::read_all(root, around, &bindable.names, &mut things.known, report);
    let vrrp = || {
        let sync_groups = groups?;
        let members: HashSet<&String> = sync_groups.iter().flat_map(|group| &group.instances).collect();
        // One mail for the group instead of one for each of its instances, unless the file wants them.
        let mails = |name: &String| around.has_mail.map(|has_mail| has_mail && !members.contains(name));
        let instances = instances?.into_iter().map(|(mut instance, own)| {
            instance.mail = own.or_else(|| mails(&instance.name))?;
            Some(instance)
        });
        let (mut settings, watchdog) = settings?;
        let instances: Vec<_> = instances.collect::<Option<_>>()?;
        settings.watchdog = watchdog.unwrap_or_else(|| VrrpSettings::watchdog_for(&instances));
        Some(Vrrp {
            settings,
            instances,
            sync_groups,
            scripts: things.scripts?,
            processes: things.processes?,
            files: things.files?,
            ports: things.ports?,
        })
    };
    Reading { vrrp: vrrp(), bindable, wanted: things.known.wanted }
}

impl Reading {
    /// Everything, once the virtual servers are known too.
    pub(super) fn finish(self, virtual_servers: &Names, report: &mut Report<'_>) -> Option<Vrrp> {
        for wanted in &self.wanted {
            virtual_servers.find(wanted, "virtual_server", report);
        }
        self.vrrp
    }
}

/// `[vrrp]`, and its `watchdog` if that is given.
fn settings(root: &mut Table<'_>, report: &mut Report<'_>) -> Option<(VrrpSettings, Option<Duration>)> {
    let default = VrrpSettings::default();
    let mut table = match root.table("vrrp", report) {
        Read::Absent => return Some((default, None)),
        Read::Wrong => return None,
        Read::Given(field) => field.value,
    };
    let realtime = |value: &DeValue<'_>| values::byte(value, 1..=99);
    let realtime_priority = table.value("realtime_priority", report, realtime).optional();
    let lock_memory = table.value("lock_memory", report, values::boolean).or(default.lock_memory);
    let guard = table.value("guard", report, values::boolean).or(default.guard);
    let watchdog = table.value("watchdog", report, values::silence).optional();
    table.finish(report);
    if let (Some(false), Some(Some(field))) = (guard, &watchdog) {
        report.warning(&field.place, Problem::new("without effect beside guard = false"));
    }
    let settings = VrrpSettings {
        realtime_priority: realtime_priority?.map(|field| field.value),
        lock_memory: lock_memory?,
        guard: guard?,
        watchdog: default.watchdog,
    };
    Some((settings, watchdog?.map(|field| field.value)))
}

/// The scripts of an instance or a group.
struct Notify {
    any: Option<Command>,
    master: Option<Command>,
    backup: Option<Command>,
    fault: Option<Command>,
    stop: Option<Command>,
}

fn notify(table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Notify> {
    let mut script = |key| table.value(key, report, values::command).or(None);
    let (any, master) = (script("notify"), script("notify_master"));
    let (backup, fault, stop) = (script("notify_backup"), script("notify_fault"), script("notify_stop"));
    Some(Notify { any: any?, master: master?, backup: backup?, fault: fault?, stop: stop? })
}

/// How many there may be of a kind; says so when there are more.
fn limit(tables: &[Table<'_>], most: usize, what: &str, report: &mut Report<'_>) {
    if let Some(first_too_many) = tables.get(most) {
        let problem = Problem::new(format!("{} {what}", tables.len())).expected(format!("at most {most}"));
        report.error(&first_too_many.place(), problem);
    }
}
