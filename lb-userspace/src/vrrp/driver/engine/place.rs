//! Where the instances are: interfaces, macvlans, sockets.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use super::Engine;
use crate::vrrp::{
    driver::{
        holdings,
        links::Links,
        network::{Channel, Kind, Network},
    },
    fsm::InstanceId,
};

impl<N: Network> Engine<N> {
    pub(super) fn read_links(&mut self) -> io::Result<()> {
        self.links = Links::new(self.network.interfaces()?);
        Ok(())
    }

    /// Makes the macvlans that are missing; whether there were any.
    pub(super) fn make_macvlans(&mut self) -> bool {
        let wanted: Vec<(String, String, [u8; 6])> = holdings::macvlans(&self.config.instances)
            .into_iter()
            .map(|(name, (parent, mac))| (name.to_owned(), parent.to_owned(), mac))
            .collect();
        let mut made = false;
        for (name, parent, mac) in wanted {
            let there = self.links.get(&name).map(|interface| interface.index);
            let Some(parent) = self.links.get(&parent).map(|interface| interface.index) else { continue };
            if there.is_some() && self.macvlans.get(&name).copied() == there {
                continue;
            }
            match self.network.add_macvlan(parent, &name, mac) {
                Ok(index) => {
                    self.macvlans.insert(name, index);
                    made = true;
                }
                Err(error) => {
                    self.notice(&name, "macvlan", true, format!("the macvlan cannot be made: {error}"));
                    self.try_again();
                }
            }
        }
        made
    }

    pub(super) fn remove_macvlan(&mut self, name: &str) {
        if let Err(error) = self.network.remove_macvlan(name) {
            self.notice(name, "macvlan", true, format!("the macvlan cannot be removed: {error}"));
        }
    }

    /// Brings names to indexes again; whether something is elsewhere now.
    pub(super) fn resolve(&mut self) -> bool {
        let Self { instances, links, .. } = self;
        let mut is_other = false;
        for instance in instances {
            let index = |name: &str| links.get(name).map(|interface| interface.index);
            let parent = index(&instance.config.interface);
            let adverts = match &instance.config.vmac {
                Some(vmac) => index(vmac),
                None => parent,
            };
            let things = instance.named.resolve(links);
            is_other |= instance.set_place(parent, adverts, things);
        }
        self.by_vrid = self.addressees();
        is_other
    }

    /// Opens the sockets that are needed and closes the others. Those that cannot be opened.
    pub(super) fn open_sockets(&mut self) -> Vec<(Channel, io::Error)> {
        let kinds = [Kind::Adverts, Kind::Heartbeats];
        let channels: BTreeSet<Channel> = self
            .instances
            .iter()
            .flat_map(|instance| kinds.into_iter().filter_map(|kind| instance.channel(kind)))
            .collect();
        self.network.listen(&channels)
    }

    /// From where each instance would send now.
    pub(super) fn sources(&self) -> Vec<(InstanceId, Option<IpAddr>)> {
        let virtuals: BTreeSet<IpAddr> = self
            .instances
            .iter()
            .flat_map(|instance| instance.named.addresses.iter().map(|(_, address)| address.address))
            .collect();
        let sources = self.instances.iter().map(|instance| self.links.source(&instance.config, &virtuals));
        sources.enumerate().collect()
    }

    fn addressees(&self) -> BTreeMap<(u32, crate::config::vrrp::Family, u8), InstanceId> {
        let addressee = |(id, instance): (InstanceId, &super::Instance)| {
            let channel = instance.channel(Kind::Adverts)?;
            Some(((channel.interface, channel.family, instance.config.virtual_router_id), id))
        };
        self.instances.iter().enumerate().filter_map(addressee).collect()
    }
}
