//! What a VRRP instance is to be, in the words of each program that can run it.

use std::{fmt::Write as _, time::Duration};

/// One VRRP instance on one machine. Made for the scene of [`super::Scene`] unless told otherwise.
#[derive(Clone, Debug)]
#[must_use]
pub struct Instance {
    name: String,
    interface: String,
    version: u8,
    vrid: u8,
    priority: u8,
    interval: Duration,
    addresses: Vec<Address>,
    password: Option<String>,
    vmac: Option<String>,
    nopreempt: bool,
    unicast: Option<(String, Vec<String>)>,
    toml: String,
    keepalived: String,
}

#[derive(Clone, Debug)]
struct Address {
    address: String,
    interface: Option<String>,
}

impl Instance {
    /// `VI_<vrid>` on `eth0`: version 3, an advert every 100 ms, no address yet.
    pub fn new(vrid: u8, priority: u8) -> Self {
        Self {
            name: format!("VI_{vrid}"),
            interface: "eth0".to_owned(),
            version: 3,
            vrid,
            priority,
            interval: Duration::from_millis(100),
            addresses: Vec::new(),
            password: None,
            vmac: None,
            nopreempt: false,
            unicast: None,
            toml: String::new(),
            keepalived: String::new(),
        }
    }

    /// Another name.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// On another interface.
    pub fn on(mut self, interface: &str) -> Self {
        interface.clone_into(&mut self.interface);
        self
    }

    /// Version 2, an advert every second.
    pub fn v2(mut self) -> Self {
        (self.version, self.interval) = (2, Duration::from_secs(1));
        self
    }

    /// Another interval between adverts.
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Another priority.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// One more address with its prefix, such as "10.66.0.100/32".
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(Address { address: address.to_owned(), interface: None });
        self
    }

    /// One more address on another interface.
    pub fn address_on(mut self, address: &str, interface: &str) -> Self {
        self.addresses.push(Address { address: address.to_owned(), interface: Some(interface.to_owned()) });
        self
    }

    /// Authentication PASS.
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self
    }

    /// With the virtual MAC address, on a macvlan of this name.
    pub fn vmac(mut self, device: &str) -> Self {
        self.vmac = Some(device.to_owned());
        self
    }

    /// Leaves a living master alone.
    pub fn nopreempt(mut self) -> Self {
        self.nopreempt = true;
        self
    }

    /// Adverts to these peers instead of the multicast group.
    pub fn unicast(mut self, source: &str, peers: &[&str]) -> Self {
        self.unicast = Some((source.to_owned(), peers.iter().map(|&peer| peer.to_owned()).collect()));
        self
    }

    /// One more line of its table for xdirector.
    pub fn toml_line(mut self, line: &str) -> Self {
        self.toml += line;
        self.toml.push('\n');
        self
    }

    /// One more line of its block for keepalived.
    pub fn keepalived_line(mut self, line: &str) -> Self {
        let _ = writeln!(self.keepalived, "    {line}");
        self
    }

    /// Its name.
    #[must_use]
    pub fn as_name(&self) -> &str {
        &self.name
    }

    /// For how long a backup of `priority` waits: three intervals and the skew (RFC 9568 6.1; RFC 3768 6.1).
    #[must_use]
    pub fn master_down(&self, priority: u8) -> Duration {
        let unit = if self.version == 2 { Duration::from_secs(1) } else { self.interval };
        self.interval * 3 + unit * (256 - u32::from(priority)) / 256
    }

    /// For how long the machine may stand still without any say in who is master: half of what a backup waits at least, and three
    /// quarters of what an xdirector's guard waits (`watchdog`, when it is not given).
    #[must_use]
    pub fn patience(&self) -> Duration {
        let watchdog = (self.interval * 2).clamp(Duration::from_millis(150), Duration::from_millis(500));
        (self.interval * 3 / 2).min(watchdog * 3 / 4)
    }

    /// `[[vrrp_instance]]` for xdirector.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let Self { name, interface, version, vrid, priority, .. } = self;
        let mut text = format!(
            "[[vrrp_instance]]\nname = \"{name}\"\ninterface = \"{interface}\"\nversion = {version}\n\
             virtual_router_id = {vrid}\npriority = {priority}\nadvert_interval = \"{}ms\"\n",
            self.interval.as_millis()
        );
        let addresses: Vec<String> = self
            .addresses
            .iter()
            .map(|one| match &one.interface {
                None => format!("\"{}\"", one.address),
                Some(device) => {
                    format!("{{ address = \"{}\", interface = \"{device}\" }}", one.address)
                }
            })
            .collect();
        let _ = writeln!(text, "addresses = [{}]", addresses.join(", "));
        if let Some(password) = &self.password {
            // Eight bytes go over the wire; keepalived cuts the rest itself.
            let password = password.get(..8).unwrap_or(password);
            let _ = writeln!(text, "authentication = {{ type = \"pass\", password = \"{password}\" }}");
        }
        if let Some(device) = &self.vmac {
            let _ = writeln!(text, "vmac = \"{device}\"");
        }
        if self.nopreempt {
            text += "nopreempt = true\n";
        }
        if let Some((source, peers)) = &self.unicast {
            let _ = writeln!(text, "source_address = \"{source}\"\nunicast_peers = {peers:?}");
        }
        text + &self.toml + "\n"
    }

    /// `vrrp_instance` for keepalived.
    #[must_use]
    pub fn to_keepalived(&self) -> String {
        let Self { name, interface, version, vrid, priority, .. } = self;
        let mut text = format!(
            "vrrp_instance {name} {{\n    state BACKUP\n    interface {interface}\n    version {version}\n    \
             virtual_router_id {vrid}\n    priority {priority}\n    advert_int {}\n",
            self.interval.as_secs_f64()
        );
        if let Some(password) = &self.password {
            let _ = writeln!(
                text,
                "    authentication {{\n        auth_type PASS\n        auth_pass {password}\n    }}"
            );
        }
        if let Some(device) = &self.vmac {
            let _ = writeln!(text, "    use_vmac {device}");
        }
        if self.nopreempt {
            text += "    nopreempt\n";
        }
        if let Some((source, peers)) = &self.unicast {
            let _ = writeln!(text, "    unicast_src_ip {source}\n    unicast_peer {{");
            for peer in peers {
                let _ = writeln!(text, "        {peer}");
            }
            text += "    }\n";
        }
        text += &self.keepalived;
        text += "    virtual_ipaddress {\n";
        for one in &self.addresses {
            let device = one.interface.as_ref().map(|name| format!(" dev {name}")).unwrap_or_default();
            let _ = writeln!(text, "        {}{device}", one.address);
        }
        text + "    }\n}\n"
    }

    /// The lines of `interface` for FRR, which has its addresses on macvlans: [`Self::frr_devices`].
    #[must_use]
    pub fn to_frr(&self) -> String {
        let Self { interface, version, vrid, priority, .. } = self;
        let mut text = format!(
            "interface {interface}\n vrrp {vrid} version {version}\n vrrp {vrid} priority {priority}\n \
             vrrp {vrid} advertisement-interval {}\n",
            self.interval.as_millis()
        );
        if self.nopreempt {
            let _ = writeln!(text, " no vrrp {vrid} preempt");
        }
        for one in &self.addresses {
            let plain = one.address.split('/').next().unwrap_or_default();
            let word = if plain.contains(':') { "ipv6" } else { "ip" };
            // FRR adds the macvlan's own link-local address by itself.
            let _ = writeln!(text, " vrrp {vrid} {word} {plain}");
        }
        text + "exit\n"
    }

    /// The lines of `ip` that make FRR's macvlans with the addresses on them.
    #[must_use]
    pub fn frr_devices(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (family, mac) in [(4, 1), (6, 2)] {
            let of_family: Vec<&Address> =
                self.addresses.iter().filter(|one| one.address.contains(':') == (family == 6)).collect();
            if of_family.is_empty() {
                continue;
            }
            let device = format!("vrrp{family}-{}", self.vrid);
            let mac = format!("00:00:5e:00:{mac:02x}:{:02x}", self.vrid);
            lines.push(format!(
                "link add {device} link {} address {mac} type macvlan mode bridge",
                self.interface
            ));
            lines.push(format!("link set {device} up"));
            for one in of_family {
                lines.push(crate::network::add_address(&one.address, &device));
            }
        }
        lines
    }
}

/// A whole file for xdirector: a director of its own name on some interfaces, and its instances.
#[must_use]
pub fn toml_file(name: &str, interfaces: &[&str], instances: &[Instance]) -> String {
    // An instance's name has 32 bytes at most; the end of the namespace's tells directors apart.
    let short = &name[name.len().saturating_sub(32)..];
    let mut text = format!(
        "[director]\ninstance = \"{short}\"\nrouter_id = \"{name}\"\ninterfaces = {interfaces:?}\n\n"
    );
    text.extend(instances.iter().map(Instance::to_toml));
    text
}

/// A whole file for keepalived.
#[must_use]
pub fn keepalived_file(name: &str, instances: &[Instance]) -> String {
    let mut text = format!("global_defs {{\n    router_id {name}\n    script_user root\n}}\n");
    text.extend(instances.iter().map(Instance::to_keepalived));
    text
}

/// A whole file for FRR.
#[must_use]
pub fn frr_file(instances: &[Instance]) -> String {
    let mut text = "log stdout\nlog timestamp precision 6\n".to_owned();
    text.extend(instances.iter().map(Instance::to_frr));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_waits_three_intervals_and_the_skew() {
        let instance = Instance::new(1, 150);
        assert_eq!(instance.master_down(100), Duration::from_micros(360_937) + Duration::from_nanos(500));
        assert_eq!(instance.v2().master_down(100), Duration::from_micros(3_609_375));
    }

    #[test]
    fn macvlans_are_made_for_the_families_that_are_there() {
        let lines = Instance::new(5, 150).address("10.66.0.100/24").frr_devices();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("vrrp4-5") && lines[0].contains("00:00:5e:00:01:05"), "{lines:?}");
    }
}
