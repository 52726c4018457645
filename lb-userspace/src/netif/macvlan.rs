//! Macvlans that have a virtual router's MAC address.
//!
//! The interface below a macvlan would answer ARP requests for the macvlan's addresses with its own MAC, so it gets
//! `arp_ignore = 1` as well, as with keepalived. What it had before is kept in the macvlan's alias, where the next run or the
//! guard finds it.

use std::io;

use super::{
    Kernel,
    error::{Capability::NetAdmin, Refusal},
    link::{self, Link, get_links, ipv4},
    message,
    request::Request,
};

/// `MACVLAN_MODE_PRIVATE`.
const PRIVATE: u32 = 1;
/// Begins the MAC addresses of virtual routers (RFC 9568 7.3); 1 for IPv4 or 2 for IPv6 and the id follow.
const VIRTUAL_ROUTER: [u8; 4] = [0x00, 0x00, 0x5e, 0x00];
/// Begins our alias; the number follows.
const ALIAS: &str = "xdirector; arp_ignore below was ";

impl Kernel {
    /// Makes a macvlan (mode private) with a MAC address on `parent`, up; takes over one of that name which is right, and
    /// replaces one of ours which is not. Its index.
    ///
    /// Sets what keeps it from answering ARP for others' addresses, and lets it hear other routers of the same address:
    /// arp_ignore 1, rp_filter 0, accept_local 1, promote_secondaries 1, and arp_ignore 1 of `parent`, as keepalived does.
    /// What cannot be set is logged.
    ///
    /// Adverts of another master with the same MAC address arrive on the macvlan only, those of one with another MAC address
    /// on both: instances with a VMAC have to listen on the macvlan.
    ///
    /// # Errors
    /// What the kernel says; also when an interface of that name is something else.
    pub fn add_macvlan(&mut self, parent: u32, name: &str, mac: [u8; 6]) -> io::Result<u32> {
        let during = |refusal: Refusal| {
            refusal.during(format_args!("cannot make the macvlan {name} on {}", link::name(parent)), NetAdmin)
        };
        let mut existing = self.link(name)?;
        if let Some(link) = existing.take_if(|link| !is_right(link, parent, mac)) {
            if !is_ours(&link) {
                return Err(during(not_ours(name)));
            }
            self.remove_macvlan(name)?;
        }
        let link = match existing {
            Some(link) => link,
            None => {
                self.requests.ask(message::new_macvlan(parent, name, mac)).map_err(during)?;
                self.link(name)?.ok_or_else(|| during(Refusal::of(libc::ENODEV)))?
            }
        };
        self.quieten_parent(parent, &link)?;
        let parameters = [
            (ipv4::ARP_IGNORE, 1),
            (ipv4::RP_FILTER, 0),
            (ipv4::ACCEPT_LOCAL, 1),
            (ipv4::PROMOTE_SECONDARIES, 1),
        ];
        self.try_to(message::set_ipv4_parameters(link.index, &parameters), name, "set its IPv4 parameters");
        self.try_to(message::set_no_link_local(link.index), name, "have no link-local address made");
        self.requests.ask(message::set_up(link.index)).map_err(during)?;
        Ok(link.index)
    }

    /// Removes a macvlan of ours. False: it was not there. With the last one on an interface, that gets its arp_ignore back.
    ///
    /// # Errors
    /// What the kernel says; also when an interface of that name is something else.
    pub fn remove_macvlan(&mut self, name: &str) -> io::Result<bool> {
        let Some(link) = self.link(name)? else { return Ok(false) };
        let during =
            |refusal: Refusal| refusal.during(format_args!("cannot remove the macvlan {name}"), NetAdmin);
        if !is_ours(&link) {
            return Err(during(not_ours(name)));
        }
        let others = self.links()?.into_iter().filter(|other| other.index != link.index);
        let is_last = !others.into_iter().any(|other| other.parent == link.parent && is_ours(&other));
        match self.requests.ask(message::remove_link(link.index)) {
            Ok(()) => {}
            Err(refusal) if refusal.code == libc::ENODEV => return Ok(false),
            Err(refusal) => return Err(during(refusal)),
        }
        if let (Some(parent), Some(before), true) = (link.parent, remembered(&link.alias), is_last) {
            let request = message::set_ipv4_parameters(parent, &[(ipv4::ARP_IGNORE, before)]);
            self.try_to(request, &link::name(parent), "give arp_ignore back");
        }
        Ok(true)
    }

    /// Sets the parent's arp_ignore unless it has one, and notes in the macvlan's alias what it was.
    fn quieten_parent(&mut self, parent: u32, macvlan: &Link) -> io::Result<()> {
        if remembered(&macvlan.alias).is_none() {
            let links = self.links()?;
            // One that was here before knows how it was.
            let siblings = links.iter().filter(|link| link.parent == Some(parent) && is_ours(link));
            let noted = siblings.filter_map(|link| remembered(&link.alias)).next();
            let now = links.iter().find(|link| link.index == parent).and_then(|link| link.arp_ignore);
            let before = noted.or(now).unwrap_or(0);
            self.try_to(
                message::set_alias(macvlan.index, &format!("{ALIAS}{before}")),
                &macvlan.name,
                "set its alias",
            );
            if now.is_some_and(|now| now != 0) {
                return Ok(());
            }
        }
        let request = message::set_ipv4_parameters(parent, &[(ipv4::ARP_IGNORE, 1)]);
        self.try_to(request, &link::name(parent), "set arp_ignore");
        Ok(())
    }

    /// The interface of a name.
    fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        match self.requests.get(get_links(Some(name)), link::link) {
            Ok(link) => Ok(Some(link)),
            Err(refusal) if refusal.code == libc::ENODEV => Ok(None),
            Err(refusal) => Err(refusal.during(format_args!("cannot look for interface {name}"), NetAdmin)),
        }
    }

    fn try_to(&mut self, request: Request, interface: &str, what: &str) {
        if let Err(refusal) = self.requests.ask(request) {
            let error = refusal.during(format_args!("{interface}: cannot {what}"), NetAdmin);
            tracing::warn!("{error}");
        }
    }
}

fn is_right(link: &Link, parent: u32, mac: [u8; 6]) -> bool {
    link.macvlan_mode == Some(PRIVATE) && link.parent == Some(parent) && link.mac == Some(mac)
}

/// Whether it is a macvlan that a run of ours has made, or could have.
fn is_ours(link: &Link) -> bool {
    let is_virtual_router = link.mac.is_some_and(|mac| mac.starts_with(&VIRTUAL_ROUTER));
    link.macvlan_mode == Some(PRIVATE) && (is_virtual_router || remembered(&link.alias).is_some())
}

fn not_ours(name: &str) -> Refusal {
    let text = format!("{name} is no macvlan of a virtual router");
    Refusal { code: libc::EEXIST, text }
}

fn remembered(alias: &str) -> Option<u32> {
    alias.strip_prefix(ALIAS)?.parse().ok()
}
