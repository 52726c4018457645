//! Other settings while running: which instances and groups stay.

use std::time::Instant;

use super::{Command, Settings, instance::Instance, unit::Unit};
use crate::{
    config::vrrp::{Track, VrrpInstance},
    vrrp::State,
};

/// Says of groups that are no more that they have ended.
pub(super) fn drop_groups(before: &Settings, units: &[Unit], settings: &Settings, out: &mut Vec<Command>) {
    for (index, (group, unit)) in before.groups.iter().zip(units).enumerate() {
        if unit.state != State::Init && !settings.groups.iter().any(|other| other.name == group.name) {
            let reason = "removed from the configuration".to_owned();
            out.push(Command::GroupChanged { group: index, to: State::Init, reason });
        }
    }
}

/// The new units; groups that stay by name have told their state already.
pub(super) fn units(
    before: &Settings,
    told: &[Unit],
    settings: &Settings,
    mut units: Vec<Unit>,
) -> Vec<Unit> {
    for (group, unit) in settings.groups.iter().zip(&mut units) {
        let position = before.groups.iter().position(|other| other.name == group.name);
        unit.state = position.map_or(State::Init, |position| told[position].state);
    }
    units
}

/// The new instances; those that stay by name go on unless they have to begin anew.
pub(super) fn instances(
    mut before: Vec<Instance>,
    settings: &Settings,
    tracks: Vec<Vec<Track>>,
    now: Instant,
    out: &mut Vec<Command>,
) -> Vec<Instance> {
    for instance in &mut before {
        match settings.instances.iter().find(|other| other.name == instance.settings.name) {
            None => instance.end("removed from the configuration", now, out),
            Some(other) => match difference(&instance.settings, other) {
                Some(what) => instance.end(&format!("its {what} has changed"), now, out),
                None if other.fast_detection.is_none() => instance.end_heartbeats(out),
                None => {}
            },
        }
    }
    let mut new = Vec::with_capacity(settings.instances.len());
    for ((id, settings), tracks) in settings.instances.iter().enumerate().zip(tracks) {
        let position = before.iter().position(|instance| {
            instance.settings.name == settings.name && difference(&instance.settings, settings).is_none()
        });
        new.push(match position {
            Some(position) => {
                let mut instance = before.swap_remove(position);
                instance.change(id, settings.clone(), tracks, now);
                instance
            }
            None => Instance::new(id, settings.clone(), tracks, now),
        });
    }
    new
}

/// What makes an instance another virtual router, or one in another place.
fn difference(before: &VrrpInstance, after: &VrrpInstance) -> Option<&'static str> {
    let mut kept = before.addresses.iter().map(|address| address.address);
    if before.interface != after.interface {
        Some("interface")
    } else if before.virtual_router_id != after.virtual_router_id {
        Some("virtual router id")
    } else if before.version != after.version {
        Some("version")
    } else if before.family != after.family {
        Some("family")
    } else if before.vmac != after.vmac {
        Some("virtual MAC address")
    } else if !kept.any(|old| after.addresses.iter().any(|new| new.address == old)) {
        Some("whole address list")
    } else {
        None
    }
}
