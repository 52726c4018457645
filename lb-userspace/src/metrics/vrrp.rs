//! The page's part about VRRP.

use std::fmt;

use super::labels::Families;
use crate::api::vrrp::{VrrpInstanceStatus, VrrpStatus};

/// The states of an instance, as the label `state` has them.
const STATES: [&str; 4] = ["INIT", "BACKUP", "MASTER", "FAULT"];

/// Writes the families of VRRP; nothing where there is none.
pub(super) fn write(families: &mut Families<'_>, vrrp: Option<&VrrpStatus>) -> fmt::Result {
    let Some(vrrp) = vrrp else { return Ok(()) };
    states(families, vrrp)?;
    for (name, help, value) in GAUGES {
        let mut family = families.gauge(name, help)?;
        for instance in &vrrp.instances {
            family.value(&[("vrrp_instance", &instance.name)], value(instance))?;
        }
    }
    for (name, help, value) in COUNTERS {
        let mut family = families.counter(name, help)?;
        for instance in &vrrp.instances {
            family.count(&[("vrrp_instance", &instance.name)], value(instance))?;
        }
    }
    let mut family = families.counter(
        "xdirector_vrrp_adverts_discarded",
        "Adverts for the instance that were thrown away, by reason.",
    )?;
    for instance in &vrrp.instances {
        for (reason, count) in &instance.discarded {
            family.count(&[("vrrp_instance", &instance.name), ("reason", reason)], *count)?;
        }
    }
    families
        .counter(
            "xdirector_vrrp_unknown_adverts",
            "Adverts on the instances' interfaces that are for none of them.",
        )?
        .count(&[], vrrp.unknown_vrid)?;
    if let Some(guard) = vrrp.guard {
        families
            .gauge(
                "xdirector_vrrp_guard",
                "1 if the guard runs that gives the addresses up when the agent dies.",
            )?
            .flag(&[], guard)?;
    }
    families
        .gauge("xdirector_vrrp_longest_delay_seconds", "The longest time by which the driver was late.")?
        .seconds(&[], vrrp.longest_delay_seconds)
}

fn states(families: &mut Families<'_>, vrrp: &VrrpStatus) -> fmt::Result {
    let mut family = families.gauge("xdirector_vrrp_state", "1 for the state that the instance has.")?;
    for instance in &vrrp.instances {
        for state in STATES {
            family.flag(&[("vrrp_instance", &instance.name), ("state", state)], instance.state == state)?;
        }
    }
    let mut family =
        families.gauge("xdirector_vrrp_group_state", "1 for the state that the sync group has.")?;
    for group in &vrrp.groups {
        for state in STATES {
            family.flag(&[("vrrp_group", &group.name), ("state", state)], group.state == state)?;
        }
    }
    Ok(())
}

/// A family: name, help and the value of an instance.
type Of = (&'static str, &'static str, fn(&VrrpInstanceStatus) -> u64);

const GAUGES: [Of; 2] = [
    ("xdirector_vrrp_priority", "Configured priority.", |one| one.priority.into()),
    ("xdirector_vrrp_effective_priority", "Priority with what is tracked.", |one| {
        one.effective_priority.into()
    }),
];

const COUNTERS: [Of; 7] = [
    ("xdirector_vrrp_adverts_sent", "Adverts sent.", |one| one.sent),
    ("xdirector_vrrp_adverts_received", "Adverts received and found right.", |one| one.received),
    ("xdirector_vrrp_send_errors", "Adverts that could not be sent.", |one| one.send_errors),
    ("xdirector_vrrp_announcements", "Gratuitous ARPs and neighbour advertisements sent.", |one| {
        one.announced
    }),
    ("xdirector_vrrp_addresses_restored", "Addresses put back after somebody had removed them.", |one| {
        one.restored
    }),
    ("xdirector_vrrp_became_master", "Times it became master.", |one| one.became_master),
    ("xdirector_vrrp_released_master", "Times it gave up being master.", |one| one.released_master),
];
