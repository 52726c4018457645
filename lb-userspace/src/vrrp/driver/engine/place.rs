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

    /// Brings names to indexes again; whether something is elsewhere now. A macvlan's name counts only once the macvlan was
    /// made or found right: until then the interface of that name, if there is one, is somebody else's.
    pub(super) fn resolve(&mut self) -> bool {
        let Self { instances, links, macvlans, config, .. } = self;
        let vmacs = holdings::macvlans(&config.instances);
        let index = |name: &str| {
            let index = links.get(name)?.index;
            let is_right = !vmacs.contains_key(name) || macvlans.get(name) == Some(&index);
            is_right.then_some(index)
        };
        let mut is_other = false;
        for instance in instances {
            let parent = index(&instance.config.interface);
            let adverts = match &instance.config.vmac {
                Some(vmac) => index(vmac),
                None => parent,
            };
            let things = instance.named.resolve_by(index);
            is_other |= instance.set_place(parent, adverts, things);
        }
        self.by_vrid = self.addressees();
        is_other
    }

    /// Opens the sockets that are needed and closes the others; notes who is deaf and mute. Those that cannot be opened.
    fn open_sockets(&mut self) -> Vec<(Channel, io::Error)> {
        let kinds = [Kind::Adverts, Kind::Heartbeats];
        let channels: BTreeSet<Channel> = self
            .instances
            .iter()
            .flat_map(|instance| kinds.into_iter().filter_map(|kind| instance.channel(kind)))
            .collect();
        let failures = self.network.listen(&channels);
        let Self { instances, links, .. } = self;
        for instance in instances {
            let channel = instance.channel(Kind::Adverts);
            let failure = failures.iter().find(|(failed, _)| Some(*failed) == channel);
            instance.silenced = match (&instance.config.vmac, channel, failure) {
                (_, Some(_), Some((_, error))) => Some(format!("it has no socket for adverts: {error}")),
                (Some(vmac), None, _) if links.get(vmac).is_some() => {
                    Some(format!("{vmac} is not its macvlan but another interface"))
                }
                (Some(vmac), None, _) => Some(format!("there is no macvlan {vmac}")),
                _ => None,
            };
        }
        failures
    }

    /// The same, and says which cannot be opened; they are tried again.
    pub(super) fn settle_sockets(&mut self) {
        for (channel, error) in self.open_sockets() {
            let text = self.describe(channel, &error);
            self.notice("driver", "socket", true, text);
            self.try_again();
        }
    }

    /// From where each instance would send now. One that can neither send nor hear adverts has no source, which is a fault: it
    /// would believe that it is alone.
    pub(super) fn sources(&self) -> Vec<(InstanceId, Option<IpAddr>)> {
        let virtuals: BTreeSet<IpAddr> = self
            .instances
            .iter()
            .flat_map(|instance| instance.named.addresses.iter().map(|(_, address)| address.address))
            .collect();
        let source = |instance: &super::Instance| match instance.silenced {
            Some(_) => None,
            None => self.links.source(&instance.config, &virtuals),
        };
        self.instances.iter().map(source).enumerate().collect()
    }

    fn addressees(&self) -> BTreeMap<(u32, crate::config::vrrp::Family, u8), InstanceId> {
        let addressee = |(id, instance): (InstanceId, &super::Instance)| {
            let channel = instance.channel(Kind::Adverts)?;
            Some(((channel.interface, channel.family, instance.config.virtual_router_id), id))
        };
        self.instances.iter().enumerate().filter_map(addressee).collect()
    }
}
