//! The way of health checks through the data plane.

use std::{collections::BTreeMap, net::IpAddr};

use super::Agent;
use crate::{
    config::Forward,
    desired::{ServerId, ServiceId},
};

impl Agent {
    /// Opens the way for the checks that take it, or closes it when there are none. Where it cannot be opened those checks fail,
    /// and say why.
    pub(super) async fn open_check_path(&mut self) {
        let wanted = self.checked_through();
        if wanted.is_empty() {
            self.plane.set_checked(&wanted);
            // Detaching cannot fail.
            let _ = self.plane.attach_checks(None);
            self.check_path.close();
            return;
        }
        let problem = match self.check_path.namespace(&self.config.director.instance).await {
            Ok(namespace) => match self.plane.attach_checks(Some(&namespace)) {
                Ok(()) => None,
                Err(error) => Some(format!("{error:#}")),
            },
            Err(reason) => Some(reason),
        };
        if let Some(reason) = problem {
            tracing::warn!("checks with via = \"dataplane\" will fail: {reason}");
            self.check_path.fail(reason);
        }
        let numbers = self.plane.set_checked(&wanted);
        if numbers.len() < wanted.len() {
            tracing::warn!("no room in the maps for the checks of {} servers", wanted.len() - numbers.len());
        }
        self.check_path.set_numbers(numbers);
        self.plane.lead_checks(&self.check_path);
        // Frames from there are for one more MAC address of this machine.
        self.look_at_links().await;
        self.tell_own_addresses();
    }

    /// Which addresses such checks may come from.
    pub(super) fn tell_own_addresses(&self) {
        let is_virtual =
            |address: IpAddr| self.config.virtual_servers.iter().any(|one| one.address == address);
        let is_usable = |address: IpAddr| {
            let is_local = match address {
                IpAddr::V4(address) => address.is_link_local(),
                IpAddr::V6(address) => address.is_unicast_link_local(),
            };
            !is_local && !address.is_loopback() && !is_virtual(address)
        };
        let all =
            self.links.iter().flat_map(|link| link.addresses.iter().map(|address| (link.index, *address)));
        self.check_path.set_own_addresses(all.filter(|(_, address)| is_usable(*address)).collect());
    }

    /// Real servers with such a check.
    fn checked_through(&self) -> BTreeMap<ServerId, Forward> {
        let mut wanted = BTreeMap::new();
        for virtual_server in &self.config.virtual_servers {
            let service = ServiceId::of(virtual_server);
            for server in &virtual_server.real_servers {
                if server.is_checked_through_dataplane() {
                    let id = ServerId { service, address: server.address, port: server.port };
                    wanted.insert(id, server.forward);
                }
            }
        }
        wanted
    }
}
