//! The data plane in force: one of the two, behind one face for the agent.
//!
//! What only one of them has does nothing in the other: the kernel's IPVS needs no next hops, no interfaces and no threads.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::Path,
    sync::Arc,
};

use lb_common::server::{Load, ServerStats};

use super::{
    Audit, DataPlane, Listed,
    ipvs::{self, IpvsPlane},
    xdp::{self, Attachment, CheckPath, Namespace, Trace, XdpPlane},
};
use crate::{
    api::types::DataPlaneKind,
    config::{Config, Forward, XdpMode},
    desired::{Server, ServerId, Service, ServiceId, State},
    netlink::{Link, Resolution},
    reconcile::Operation,
    vrrp::driver,
};

/// The data plane in force.
pub enum Plane {
    /// The program of `lb-ebpf`.
    Xdp(Box<XdpPlane>),
    /// The kernel's IPVS.
    Ipvs(Box<IpvsPlane>),
}

impl Plane {
    /// Which of them it is.
    pub const fn kind(&self) -> DataPlaneKind {
        match self {
            Self::Xdp(_) => DataPlaneKind::Xdp,
            Self::Ipvs(_) => DataPlaneKind::Ipvs,
        }
    }

    /// The XDP data plane, if that is in force.
    pub fn xdp(&mut self) -> Option<&mut XdpPlane> {
        match self {
            Self::Xdp(plane) => Some(plane),
            Self::Ipvs(_) => None,
        }
    }

    /// Attaches the program to every interface; see [`XdpPlane::attach`].
    ///
    /// # Errors
    /// [`xdp::AttachError`].
    pub async fn attach(&mut self, names: &[String], mode: XdpMode) -> anyhow::Result<()> {
        match self {
            Self::Xdp(plane) => plane.attach(names, mode).await,
            Self::Ipvs(_) => Ok(()),
        }
    }

    /// The program's debug events; `None`: there is no program.
    ///
    /// # Errors
    /// See [`XdpPlane::trace`].
    pub fn trace(&mut self) -> anyhow::Result<Option<Trace>> {
        self.xdp().map(XdpPlane::trace).transpose()
    }

    /// Which roles this machine has.
    pub fn roles(&self) -> Arc<dyn driver::Roles> {
        match self {
            Self::Xdp(plane) => plane.roles(),
            Self::Ipvs(plane) => plane.roles(),
        }
    }

    /// Whether virtual servers with this role are served.
    pub fn is_role_on(&self, role: u16) -> bool {
        match self {
            Self::Xdp(plane) => plane.is_role_on(role),
            Self::Ipvs(plane) => plane.is_role_on(role),
        }
    }

    /// Where it is pinned; `None` when nothing is.
    pub fn pins(&self) -> Option<&Path> {
        match self {
            Self::Xdp(plane) => plane.pins(),
            Self::Ipvs(_) => None,
        }
    }

    /// Whether it has no connections that anybody waits for.
    pub fn is_idle(&self) -> bool {
        match self {
            Self::Xdp(plane) => plane.is_idle(),
            Self::Ipvs(plane) => plane.is_idle(),
        }
    }

    /// Whether packets are forwarded on when this process ends.
    pub fn outlives_the_agent(&self) -> bool {
        match self {
            Self::Xdp(plane) => plane.pins().is_some(),
            Self::Ipvs(_) => true,
        }
    }

    /// Whether what an earlier agent had left was taken over.
    pub fn is_adopted(&self) -> bool {
        match self {
            Self::Xdp(plane) => plane.is_adopted(),
            Self::Ipvs(plane) => plane.is_adopted(),
        }
    }

    /// Ends it: packets are no longer forwarded.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn detach(self) -> anyhow::Result<()> {
        match self {
            Self::Xdp(plane) => plane.detach(),
            Self::Ipvs(plane) => plane.detach(),
        }
    }

    /// Attaches again where the program is missing.
    pub fn follow_interfaces(&mut self, links: &[Link], mode: XdpMode) {
        if let Self::Xdp(plane) = self {
            plane.follow_interfaces(links, mode);
        }
    }

    /// Where the program is attached.
    pub fn attachments(&self) -> &[Attachment] {
        match self {
            Self::Xdp(plane) => plane.attachments(),
            Self::Ipvs(_) => &[],
        }
    }

    /// Sets the MAC addresses whose frames are for this machine.
    pub fn set_macs(&self, macs: &BTreeSet<[u8; 6]>) {
        if let Self::Xdp(plane) = self {
            plane.set_macs(macs);
        }
    }

    /// Sets how frames reach an address.
    pub fn set_next_hop(&mut self, target: IpAddr, resolution: &Resolution, keeps_tags: bool) {
        if let Self::Xdp(plane) = self {
            plane.set_next_hop(target, resolution, keeps_tags);
        }
    }

    /// Frees what servers have left that went and have no connections any more.
    pub fn collect(&mut self) {
        if let Self::Xdp(plane) = self {
            plane.collect();
        }
    }

    /// What one virtual server is.
    pub fn service(&self, id: &ServiceId) -> Option<&Service> {
        match self {
            Self::Xdp(plane) => plane.service(id),
            Self::Ipvs(plane) => plane.service(id),
        }
    }

    /// The real servers of a virtual server with their numbers, in their order.
    pub fn servers_of(&self, id: &ServiceId) -> impl Iterator<Item = (Server, u32)> + '_ {
        let (xdp, ipvs) = match self {
            Self::Xdp(plane) => (Some(plane.servers_of(id)), None),
            Self::Ipvs(plane) => (None, Some(plane.servers_of(id))),
        };
        xdp.into_iter().flatten().chain(ipvs.into_iter().flatten())
    }

    /// The number of a server that was taken out and may still have connections. IPVS forgets those.
    pub fn gone_number(&self, id: &ServerId, forward: Forward) -> Option<u32> {
        match self {
            Self::Xdp(plane) => plane.gone_number(id, forward),
            Self::Ipvs(_) => None,
        }
    }

    /// The counters of all real servers, for a reader in another thread.
    ///
    /// # Errors
    /// When there is no descriptor left.
    pub fn stats_reader(&self) -> anyhow::Result<StatsReader> {
        Ok(match self {
            Self::Xdp(plane) => StatsReader::Xdp(plane.stats_reader()?),
            Self::Ipvs(plane) => StatsReader::Ipvs(plane.stats_reader()),
        })
    }

    /// Active and inactive connections of a real server.
    pub fn server_load(&self, number: u32) -> Load {
        match self {
            Self::Xdp(plane) => plane.server_load(number),
            Self::Ipvs(plane) => plane.server_load(number),
        }
    }

    /// The same, with IPVS as it was when all of them were last read ([`Self::stats_reader`]).
    pub fn last_load(&self, number: u32) -> Load {
        match self {
            Self::Xdp(plane) => plane.server_load(number),
            Self::Ipvs(plane) => plane.last_load(number),
        }
    }

    /// The connections as they are, for a reader in another thread.
    ///
    /// # Errors
    /// When the kernel does not tell the time.
    pub fn connection_list(&self) -> anyhow::Result<ConnectionList> {
        Ok(match self {
            Self::Xdp(plane) => ConnectionList::Xdp(plane.connection_list()?),
            Self::Ipvs(plane) => ConnectionList::Ipvs(plane.connection_list()),
        })
    }

    /// The same for who counts.
    ///
    /// # Errors
    /// As [`Self::connection_list`].
    pub fn connection_counts(&self) -> anyhow::Result<ConnectionCounts> {
        Ok(match self {
            Self::Xdp(plane) => ConnectionCounts::Xdp(plane.connection_counts()?),
            Self::Ipvs(plane) => ConnectionCounts::Ipvs(plane.connection_counts()),
        })
    }

    /// Packets by verdict and events by name; none with IPVS, which counts them for servers only.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn counters(&self) -> anyhow::Result<BTreeMap<&'static str, u64>> {
        match self {
            Self::Xdp(plane) => plane.counters(),
            Self::Ipvs(_) => Ok(BTreeMap::new()),
        }
    }

    /// Whether what is loaded has the settings of a configuration; else it must be opened again.
    pub fn has_settings_of(&self, config: &Config) -> bool {
        match self {
            Self::Xdp(plane) => plane.has_settings_of(config),
            Self::Ipvs(_) => true,
        }
    }

    /// How many virtual servers it serves.
    pub fn served(&self) -> usize {
        match self {
            Self::Xdp(plane) => plane.served(),
            Self::Ipvs(plane) => plane.served(),
        }
    }

    /// Whether it can hold a state as it is, and the checks through the data plane of `checked` servers.
    ///
    /// # Errors
    /// When no maps can.
    pub fn holds(&self, desired: &State, checked: usize) -> anyhow::Result<bool> {
        match self {
            Self::Xdp(plane) => plane.holds(desired, checked),
            Self::Ipvs(_) => Ok(true),
        }
    }

    /// Whether it can hold other settings of virtual servers that are there, and such checks.
    pub fn has_room_for(&self, changed: impl Iterator<Item = Service>, checked: usize) -> bool {
        match self {
            Self::Xdp(plane) => plane.has_room_for(changed, checked),
            Self::Ipvs(_) => true,
        }
    }

    /// Sets whose checks take their way through the data plane; gives their numbers.
    pub fn set_checked(&mut self, wanted: &BTreeMap<ServerId, Forward>) -> BTreeMap<ServerId, u32> {
        self.xdp().map(|plane| plane.set_checked(wanted)).unwrap_or_default()
    }

    /// Lets such checks in from their namespace, or nobody any more.
    ///
    /// # Errors
    /// Why that cannot be.
    pub fn attach_checks(&mut self, namespace: Option<&Namespace>) -> anyhow::Result<()> {
        match self {
            Self::Xdp(plane) => plane.attach_checks(namespace),
            Self::Ipvs(_) if namespace.is_none() => Ok(()),
            Self::Ipvs(_) => anyhow::bail!("the data plane is IPVS, which has no way for them"),
        }
    }

    /// Shows such checks their way.
    pub fn lead_checks(&self, path: &CheckPath) {
        if let Self::Xdp(plane) = self {
            plane.lead_checks(path);
        }
    }
}

impl DataPlane for Plane {
    fn observe(&self) -> State {
        match self {
            Self::Xdp(plane) => plane.observe(),
            Self::Ipvs(plane) => plane.observe(),
        }
    }

    fn damaged(&mut self, parts: usize) -> anyhow::Result<Audit> {
        match self {
            Self::Xdp(plane) => plane.damaged(parts),
            Self::Ipvs(plane) => plane.damaged(parts),
        }
    }

    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()> {
        match self {
            Self::Xdp(plane) => plane.apply(operation),
            Self::Ipvs(plane) => plane.apply(operation),
        }
    }
}

/// Reads all counters.
pub enum StatsReader {
    /// From the maps.
    Xdp(xdp::StatsReader),
    /// From IPVS.
    Ipvs(ipvs::StatsReader),
}

impl StatsReader {
    /// The counters of each server, by its number.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn read(self) -> anyhow::Result<BTreeMap<u32, ServerStats>> {
        match self {
            Self::Xdp(reader) => reader.read(),
            Self::Ipvs(reader) => reader.read(),
        }
    }
}

/// The connections.
pub enum ConnectionList {
    /// From the connection table.
    Xdp(xdp::ConnectionList),
    /// From IPVS.
    Ipvs(ipvs::ConnectionList),
}

impl ConnectionList {
    /// Calls `each` for every connection; stops when that says false.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn each(&self, each: impl FnMut(Listed) -> bool) -> anyhow::Result<()> {
        match self {
            Self::Xdp(list) => {
                list.each(each);
                Ok(())
            }
            Self::Ipvs(list) => list.each(each),
        }
    }
}

/// The connections, for who only counts.
pub enum ConnectionCounts {
    /// From the connection table.
    Xdp(xdp::ConnectionCounts),
    /// From IPVS.
    Ipvs(ipvs::ConnectionCounts),
}

impl ConnectionCounts {
    /// How many connections of each of these servers are not over yet.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn unfinished(&self, numbers: &BTreeSet<u32>) -> anyhow::Result<BTreeMap<u32, u64>> {
        match self {
            Self::Xdp(counts) => Ok(counts.unfinished(numbers)),
            Self::Ipvs(counts) => counts.unfinished(numbers),
        }
    }
}
