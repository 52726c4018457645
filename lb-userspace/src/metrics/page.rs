//! The page: what the agent and its data plane did. [`super::servers`] adds the servers, [`super::vrrp`] the
//! VRRP instances.

use std::fmt;

use lb_common::verdict::{Event, Verdict};
use prometheus_client::{
    collector::Collector, encoding::DescriptorEncoder, encoding::text, registry::Registry,
};

use super::{labels::Families, servers, vrrp};
use crate::api::types::{DataPlaneKind, Status, Work};

/// Writes the page in the OpenMetrics text format, with its end mark, in many small pieces.
///
/// # Errors
/// The writer's only.
pub fn write_page(status: Status, out: &mut impl fmt::Write) -> fmt::Result {
    // What is registered must own its contents.
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Page(status)));
    text::encode(out, &registry)
}

#[derive(Debug)]
struct Page(Status);

impl Collector for Page {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self(status) = self;
        let mut families = Families(encoder);
        agent(&mut families, status)?;
        data_plane(&mut families, status)?;
        configuration(&mut families, status)?;
        work(&mut families, &status.work)?;
        servers::write(&mut families, status)?;
        vrrp::write(&mut families, status.vrrp.as_ref())
    }
}

fn agent(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    families.info("xdirector_build", "The running binary.")?.text(&[("version", &status.version)])?;
    families.info("xdirector", "The director.")?.text(&[
        ("director_instance", &status.instance),
        ("router_id", &status.router_id),
        ("dataplane", &status.dataplane.to_string()),
    ])?;
    families
        .gauge("xdirector_uptime_seconds", "Time since the agent started.")?
        .value(&[], status.uptime_seconds)
}

fn data_plane(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    let mut family = families
        .info("xdirector_interface", "Interfaces where packets come in, and how the program is attached.")?;
    for interface in &status.interfaces {
        family.text(&[("interface", &interface.name), ("mode", &interface.mode.to_string())])?;
    }
    families
        .gauge("xdirector_pinned", "1 if the data plane outlives the agent.")?
        .flag(&[], status.persistence.pins.is_some() || status.dataplane == DataPlaneKind::Ipvs)?;
    let reason = status.dataplane_reason.as_deref();
    families
        .gauge("xdirector_dataplane_fallback", "1 if it is IPVS, though the configuration says \"auto\".")?
        .flag(&[("reason", reason.unwrap_or_default())], reason.is_some())?;
    families
        .gauge("xdirector_adopted", "1 if the agent took over the data plane that an earlier one had left.")?
        .flag(&[], status.persistence.adopted)?;
    families
        .gauge("xdirector_connections", "Connections in the table, active and inactive.")?
        .value(&[], status.connections.entries)?;
    families
        .gauge("xdirector_connections_capacity", "Connections that the table can hold.")?
        .value(&[], status.connections.capacity)?;
    let counted = |name: &str| status.verdicts.get(name).copied();
    let mut family = families.counter("xdirector_packets", "Packets by what became of them.")?;
    for verdict in Verdict::ALL {
        if let Some(packets) = counted(verdict.name()) {
            family.count(&[("verdict", verdict.name())], packets)?;
        }
    }
    let mut family = families.counter("xdirector_events", "What happened besides.")?;
    for event in Event::ALL {
        if let Some(times) = counted(event.name()) {
            family.count(&[("event", event.name())], times)?;
        }
    }
    Ok(())
}

fn configuration(families: &mut Families<'_>, status: &Status) -> fmt::Result {
    families
        .gauge(
            "xdirector_configuration_loaded_time_seconds",
            "When the configuration came into force, since 1970-01-01 UTC.",
        )?
        .value(&[], status.configuration.loaded_at)?;
    if let Some(last) = &status.configuration.last_reload {
        families
            .gauge(
                "xdirector_last_reload_time_seconds",
                "When a reload was last asked for, since 1970-01-01 UTC.",
            )?
            .value(&[], last.at)?;
        families
            .gauge("xdirector_last_reload_succeeded", "1 if the last reload was taken.")?
            .flag(&[], last.succeeded)?;
    }
    let Work { reloads_succeeded, reloads_failed, .. } = status.work;
    let mut family = families.counter("xdirector_reloads", "Reloads of the configuration.")?;
    family.count(&[("result", "succeeded")], reloads_succeeded)?;
    family.count(&[("result", "failed")], reloads_failed)
}

fn work(families: &mut Families<'_>, work: &Work) -> fmt::Result {
    families
        .counter("xdirector_reconciles", "Times the data plane was compared with what it should be.")?
        .count(&[], work.reconciles)?;
    families.durations("xdirector_reconcile_duration_seconds", "Time that took.")?.duration(
        &[],
        work.reconcile_seconds_sum,
        work.reconciles,
    )?;
    families
        .gauge("xdirector_reconcile_last_duration_seconds", "Time the last one took.")?
        .seconds(&[], work.reconcile_seconds_last)?;
    let mut family = families.counter("xdirector_operations", "Steps that change the data plane.")?;
    family.count(&[("result", "succeeded")], work.operations)?;
    family.count(&[("result", "failed")], work.operations_failed)?;
    families
        .counter("xdirector_repairs", "Steps that put right what somebody else had changed.")?
        .count(&[], work.repairs)?;
    families
        .counter("xdirector_notifications", "Scripts that were run on changes.")?
        .count(&[], work.notifications)?;
    families
        .counter("xdirector_notifications_failed", "Scripts that failed or were ended.")?
        .count(&[], work.notifications_failed)?;
    let mut family = families.counter("xdirector_mails", "Mails on changes.")?;
    family.count(&[("result", "sent")], work.mails_sent)?;
    family.count(&[("result", "failed")], work.mails_failed)
}
