//! Writes the VRRP part of a configuration as a person would.

use std::net::IpAddr;

use lb_userspace::config::vrrp::{
    Authentication, FastDetection, Garp, HmacSettings, SyncGroup, Track, TrackFile, TrackKey, TrackPort,
    TrackProcess, UnicastPeer, VirtualAddress, VirtualRoute, VirtualRule, Vrrp, VrrpInstance, VrrpScript,
    VrrpSettings,
};

use crate::render::{File, command, hex, list, quote, time};

/// All tables. Every key is spelt out, but for those that are none.
pub fn vrrp(vrrp: &Vrrp, file: &mut File) {
    let Vrrp { settings, instances, sync_groups, scripts, processes, files, ports } = vrrp;
    let VrrpSettings { realtime_priority, lock_memory, guard, watchdog } = settings;
    file.header("[vrrp]");
    if let Some(priority) = realtime_priority {
        file.key("realtime_priority", priority);
    }
    file.key("lock_memory", lock_memory);
    file.key("guard", guard);
    file.key("watchdog", time(*watchdog));
    // Who tracks something may stand before it.
    sync_groups.iter().for_each(|one| group(one, file));
    instances.iter().for_each(|one| instance(one, file));
    scripts.iter().for_each(|one| script(one, file));
    for TrackProcess { name, process, quorum, interval, weight } in processes {
        file.header("[[vrrp_track_process]]");
        file.key("name", quote(name));
        file.key("process", quote(process));
        file.key("quorum", quorum);
        file.key("interval", time(*interval));
        file.key("weight", weight);
    }
    for TrackFile { name, file: path, interval, weight } in files {
        file.header("[[vrrp_track_file]]");
        file.key("name", quote(name));
        file.key("file", quote(path));
        file.key("interval", time(*interval));
        file.key("weight", weight);
    }
    for TrackPort { name, address, interval, timeout, rise, fall, weight } in ports {
        file.header("[[vrrp_track_port]]");
        file.key("name", quote(name));
        file.key("address", quote(address));
        file.key("interval", time(*interval));
        file.key("timeout", time(*timeout));
        file.key("rise", rise);
        file.key("fall", fall);
        file.key("weight", weight);
    }
}

fn script(script: &VrrpScript, file: &mut File) {
    let VrrpScript { name, command: program, interval, timeout, rise, fall, weight, user, init_fail } =
        script;
    file.header("[[vrrp_script]]");
    file.key("name", quote(name));
    file.key("command", command(Some(program)));
    file.key("interval", time(*interval));
    file.key("timeout", time(*timeout));
    file.key("rise", rise);
    file.key("fall", fall);
    file.key("weight", weight);
    if let Some(user) = user {
        file.key("user", quote(user));
    }
    file.key("init_fail", init_fail);
}

fn instance(instance: &VrrpInstance, file: &mut File) {
    file.header("[[vrrp_instance]]");
    file.key("name", quote(&instance.name));
    file.key("interface", quote(&instance.interface));
    file.key("version", instance.version);
    file.key("virtual_router_id", instance.virtual_router_id);
    file.key("priority", instance.priority);
    file.key("advert_interval", time(instance.advert_interval));
    file.key("state", quote(if instance.initial_master { "MASTER" } else { "BACKUP" }));
    file.key("nopreempt", instance.nopreempt);
    file.key("preempt_delay", time(instance.preempt_delay));
    authentication(&instance.authentication, file);
    file.key("checksum", quote(instance.checksum.as_str()));
    if let Some(source) = instance.source_address {
        file.key("source_address", quote(source));
    }
    file.key("unicast_peers", list(instance.unicast_peers.iter().map(peer)));
    file.key("check_unicast_source", instance.check_unicast_source);
    file.key("skip_check_adv_addr", instance.skip_check_adv_addr);
    file.key("quick_release", instance.quick_release);
    file.key("addresses", list(instance.addresses.iter().map(address)));
    file.key("excluded_addresses", list(instance.excluded_addresses.iter().map(address)));
    file.key("routes", list(instance.routes.iter().map(route)));
    file.key("rules", list(instance.rules.iter().map(rule)));
    match &instance.vmac {
        None => file.key("vmac", false),
        // By its number.
        Some(name) if name.starts_with("vrrp") => file.key("vmac", true),
        Some(name) => file.key("vmac", quote(name)),
    }
    garp(instance.garp, file);
    file.key("dont_track_primary", instance.dont_track_primary);
    tracks(&instance.tracks, file);
    file.key("notify", command(instance.notify.as_ref()));
    file.key("notify_master", command(instance.notify_master.as_ref()));
    file.key("notify_backup", command(instance.notify_backup.as_ref()));
    file.key("notify_fault", command(instance.notify_fault.as_ref()));
    file.key("notify_stop", command(instance.notify_stop.as_ref()));
    file.key("mail", instance.mail);
    if let Some(FastDetection { interval, multiplier }) = instance.fast_detection {
        let interval = time(interval);
        file.key("fast_detection", format!("{{ interval = {interval}, multiplier = {multiplier} }}"));
    }
}

fn authentication(authentication: &Authentication, file: &mut File) {
    match authentication {
        Authentication::None => {}
        Authentication::Pass(bytes) => {
            let password = String::from_utf8_lossy(bytes);
            let password = quote(password.trim_end_matches('\0'));
            file.key("authentication", format!("{{ type = \"pass\", password = {password} }}"));
        }
        Authentication::Hmac(HmacSettings { keys, mode }) => {
            let keys = match &keys[..] {
                [(id, key)] => format!("key_id = {id}, key = {}", quote(hex(key))),
                keys => {
                    let keys =
                        keys.iter().map(|(id, key)| format!("{{ id = {id}, key = {} }}", quote(hex(key))));
                    format!("keys = {}", list(keys))
                }
            };
            let mode = quote(mode.as_str());
            file.key("authentication", format!("{{ type = \"hmac\", {keys}, mode = {mode} }}"));
        }
    }
}

fn garp(garp: Garp, file: &mut File) {
    let Garp { repeat, delay, refresh, refresh_repeat, lower_prio_repeat, lower_prio_delay, interval } = garp;
    file.key("garp_master_repeat", repeat);
    file.key("garp_master_delay", time(delay));
    file.key("garp_master_refresh", time(refresh));
    file.key("garp_master_refresh_repeat", refresh_repeat);
    if lower_prio_repeat != repeat {
        file.key("garp_lower_prio_repeat", lower_prio_repeat);
    }
    if lower_prio_delay != delay {
        file.key("garp_lower_prio_delay", time(lower_prio_delay));
    }
    file.key("garp_interval", time(interval));
}

fn group(group: &SyncGroup, file: &mut File) {
    file.header("[[vrrp_sync_group]]");
    file.key("name", quote(&group.name));
    file.key("instances", list(group.instances.iter().map(quote)));
    tracks(&group.tracks, file);
    file.key("tracking_weight", group.tracking_weight);
    file.key("notify", command(group.notify.as_ref()));
    file.key("notify_master", command(group.notify_master.as_ref()));
    file.key("notify_backup", command(group.notify_backup.as_ref()));
    file.key("notify_fault", command(group.notify_fault.as_ref()));
    file.key("notify_stop", command(group.notify_stop.as_ref()));
    file.key("mail", group.mail);
}

fn tracks(tracks: &[Track], file: &mut File) {
    let kind = |key: &TrackKey| match key {
        TrackKey::Interface(name) => ("track_interfaces", name.clone()),
        TrackKey::Script(name) => ("track_scripts", name.clone()),
        TrackKey::Process(name) => ("track_processes", name.clone()),
        TrackKey::File(name) => ("track_files", name.clone()),
        TrackKey::Port(name) => ("track_ports", name.clone()),
        TrackKey::VirtualServer(name) => ("track_virtual_servers", name.clone()),
    };
    for chunk in tracks.chunk_by(|one, other| kind(&one.key).0 == kind(&other.key).0) {
        let (key, _) = kind(&chunk[0].key);
        let one = |track: &Track| {
            let name = quote(kind(&track.key).1);
            let has_default = matches!(track.key, TrackKey::Interface(_) | TrackKey::VirtualServer(_));
            if has_default && track.weight == 0 {
                name
            } else {
                format!("{{ name = {name}, weight = {} }}", track.weight)
            }
        };
        file.key(key, list(chunk.iter().map(one)));
    }
}

fn peer(peer: &UnicastPeer) -> String {
    let UnicastPeer { address, min_ttl, max_ttl } = peer;
    if min_ttl.is_none() && max_ttl.is_none() {
        return quote(address);
    }
    let mut keys = vec![format!("address = {}", quote(address))];
    keys.extend(min_ttl.iter().map(|ttl| format!("min_ttl = {ttl}")));
    keys.extend(max_ttl.iter().map(|ttl| format!("max_ttl = {ttl}")));
    table(&keys)
}

fn address(address: &VirtualAddress) -> String {
    let VirtualAddress { address, prefix, interface, label } = address;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let text = if *prefix == most { quote(address) } else { quote(format!("{address}/{prefix}")) };
    if interface.is_none() && label.is_none() {
        return text;
    }
    let mut keys = vec![format!("address = {text}")];
    keys.extend(interface.iter().map(|name| format!("interface = {}", quote(name))));
    keys.extend(label.iter().map(|name| format!("label = {}", quote(name))));
    table(&keys)
}

fn route(route: &VirtualRoute) -> String {
    let VirtualRoute { to, via, interface, source, table: number, metric } = route;
    let mut keys = vec![format!("to = {}", network(*to))];
    keys.extend(via.iter().map(|via| format!("via = {}", quote(via))));
    keys.extend(interface.iter().map(|name| format!("interface = {}", quote(name))));
    keys.extend(source.iter().map(|source| format!("source = {}", quote(source))));
    keys.extend(number.iter().map(|number| format!("table = {number}")));
    keys.extend(metric.iter().map(|metric| format!("metric = {metric}")));
    table(&keys)
}

fn rule(rule: &VirtualRule) -> String {
    let VirtualRule { from, to, table: number, priority } = rule;
    let mut keys = vec![format!("table = {number}")];
    keys.extend(from.iter().map(|from| format!("from = {}", network(*from))));
    keys.extend(to.iter().map(|to| format!("to = {}", network(*to))));
    keys.extend(priority.iter().map(|priority| format!("priority = {priority}")));
    table(&keys)
}

fn network((address, prefix): (IpAddr, u8)) -> String {
    quote(format!("{address}/{prefix}"))
}

fn table(keys: &[String]) -> String {
    format!("{{ {} }}", keys.join(", "))
}
