//! `[[vrrp_sync_group]]`.

use std::collections::{BTreeMap, btree_map::Entry};

use super::{
    super::{
        super::{
            diagnostic::Problem,
            document::{Field, Read, Report, Table},
            values,
            vrrp::{MAX_VRRP_INSTANCES, SyncGroup},
        },
        mail,
    },
    Names, Surroundings, limit, notify,
    tracks::{Known, Tracked},
};

const INSTANCES: &str = "an array of names of instances, such as [\"outside\", \"inside\"]";

/// Reads all groups. `None` means that an error was reported.
pub(super) fn read_all(
    root: &mut Table<'_>,
    around: &Surroundings<'_>,
    instances: &Names,
    known: &mut Known,
    report: &mut Report<'_>,
) -> Option<Vec<SyncGroup>> {
    let tables = match root.tables("vrrp_sync_group", "[[vrrp_sync_group]]", report) {
        Read::Absent => return Some(Vec::new()),
        Read::Wrong => return None,
        Read::Given(field) => field.value,
    };
    limit(&tables, MAX_VRRP_INSTANCES, "sync groups", report);
    let mut groups = Groups { names: Names::default(), instances, members: BTreeMap::new() };
    let all: Vec<_> = tables.into_iter().map(|table| groups.read(table, around, known, report)).collect();
    all.into_iter().collect()
}

/// What earlier groups have taken.
struct Groups<'n> {
    names: Names,
    instances: &'n Names,
    /// Where an instance is a member already.
    members: BTreeMap<String, usize>,
}

impl Groups<'_> {
    fn read(
        &mut self,
        mut table: Table<'_>,
        around: &Surroundings<'_>,
        known: &mut Known,
        report: &mut Report<'_>,
    ) -> Option<SyncGroup> {
        let name = self.names.read(&mut table, "VRRP1", report);
        let instances = self.members(&mut table, report);
        let tracks = known.read(&mut table, report);
        let tracking_weight = table.value("tracking_weight", report, values::boolean).or(false);
        let notify = notify(&mut table, report);
        let mail = mail::on_change(&mut table, around.has_mail, report).or_inherit(&around.has_mail);
        table.finish(report);
        if let (Some(false), Some(tracks)) = (tracking_weight, &tracks) {
            without_weights(tracks, report);
        }
        let notify = notify?;
        Some(SyncGroup {
            name: name?.value,
            instances: instances?,
            tracks: tracks?.into_iter().map(|tracked| tracked.track).collect(),
            tracking_weight: tracking_weight?,
            notify: notify.any,
            notify_master: notify.master,
            notify_backup: notify.backup,
            notify_fault: notify.fault,
            notify_stop: notify.stop,
            mail: mail?,
        })
    }

    fn members(&mut self, table: &mut Table<'_>, report: &mut Report<'_>) -> Option<Vec<String>> {
        let list = table.list("instances", report, INSTANCES, values::server_name);
        let Field { value: instances, place } = list.required(table, "instances", INSTANCES, report)?;
        match instances.len() {
            0 => report.error(&place, Problem::new("no instance").expected(INSTANCES)),
            1 => report.warning(&place, Problem::new("a single instance has nobody to move together with")),
            _ => {}
        }
        for instance in &instances {
            if !self.instances.find(instance, "vrrp_instance", report) {
                continue;
            }
            match self.members.entry(instance.value.clone()) {
                Entry::Occupied(first) => {
                    let problem =
                        Problem::new(format!("a member of a group at line {} already", first.get()))
                            .expected("each instance in one group, once");
                    report.error(&instance.place, problem);
                }
                Entry::Vacant(free) => {
                    free.insert(report.line(&instance.place));
                }
            }
        }
        Some(instances.into_iter().map(|field| field.value).collect())
    }
}

/// A group has no priority of its own that a weight could change.
fn without_weights(tracks: &[Tracked], report: &mut Report<'_>) {
    for Tracked { track, place } in tracks.iter().filter(|tracked| tracked.track.weight != 0) {
        let problem = Problem::new(format!("a weight of {} in a group", track.weight))
            .expected("weight = 0, or tracking_weight = true, which adds it to every member's priority");
        report.error(place, problem);
    }
}
