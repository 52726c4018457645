//! Words that the file may hold, and what somebody meant who wrote another one.

/// Words of keepalived, ldirectord and ipvsadm, and what they are called here. A word may mean several things.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("lb_algo", "scheduler"),
    ("lvs_sched", "scheduler"),
    ("lb_kind", "forward"),
    ("lvs_method", "forward"),
    ("masq", "nat"),
    ("masquerading", "nat"),
    ("route", "dr"),
    ("gate", "dr"),
    ("dsr", "dr"),
    ("direct", "dr"),
    ("ipip", "tun"),
    ("tunnel", "tun"),
    ("round-robin", "rr"),
    ("roundrobin", "rr"),
    ("leastconn", "lc"),
    ("maglev", "mh"),
    ("skb", "generic"),
    ("driver", "native"),
    ("uthreshold", "upper_threshold"),
    ("lthreshold", "lower_threshold"),
    ("inhibit_on_failure", "on_failure"),
    ("quiescent", "on_failure"),
    ("fallback", "sorry_server"),
    ("sorry_server_lvs_method", "sorry_server"),
    ("smtp_alert", "mail"),
    ("emailalert", "mail"),
    ("expire_nodest_conn", "expire_nodest"),
    ("smtp_server", "server"),
    ("smtp_connect_timeout", "timeout"),
    ("notification_email", "to"),
    ("notification_email_from", "from"),
    ("checktype", "type"),
    ("http_get", "http"),
    ("ssl_get", "https"),
    ("tcp_check", "tcp"),
    ("connect", "tcp"),
    ("smtp_check", "smtp"),
    ("dns_check", "dns"),
    ("udp_check", "udp"),
    ("ping_check", "ping"),
    ("icmp", "ping"),
    ("misc_check", "script"),
    ("external", "script"),
    ("file_check", "file"),
    ("delay_loop", "interval"),
    ("checkinterval", "interval"),
    ("connect_timeout", "timeout"),
    ("checktimeout", "timeout"),
    ("misc_timeout", "timeout"),
    ("failurecount", "fall"),
    ("checkcount", "fall"),
    ("nb_get_retry", "retry"),
    ("connect_ip", "connect_address"),
    ("bindto", "bind_address"),
    ("bind_to", "bind_address"),
    ("url", "requests"),
    ("uri", "paths"),
    ("url", "path"),
    ("path", "paths"),
    ("virtualhost", "host"),
    ("status_code", "status"),
    ("digest", "md5"),
    ("regex_no_match", "regex"),
    ("enable_sni", "sni"),
    ("helo_name", "helo"),
    ("misc_path", "command"),
    ("misc_dynamic", "dynamic"),
    ("track_file", "path"),
    ("vrrp_rt_priority", "realtime_priority"),
    ("vrrp_no_swap", "lock_memory"),
    ("vrrp_version", "version"),
    ("vrid", "virtual_router_id"),
    ("advert_int", "advert_interval"),
    ("auth_type", "type"),
    ("auth_pass", "password"),
    ("auth_hmac", "authentication"),
    ("active_key", "key_id"),
    ("ah", "hmac"),
    ("initial_state", "state"),
    ("no_preempt", "nopreempt"),
    ("virtual_ipaddress", "addresses"),
    ("virtual_ipaddress_excluded", "excluded_addresses"),
    ("virtual_routes", "routes"),
    ("virtual_rules", "rules"),
    ("use_vmac", "vmac"),
    ("mcast_src_ip", "source_address"),
    ("unicast_src_ip", "source_address"),
    ("unicast_peer", "unicast_peers"),
    ("check_unicast_src", "check_unicast_source"),
    ("track_interface", "track_interfaces"),
    ("track_script", "track_scripts"),
    ("track_process", "track_processes"),
    ("track_file", "track_files"),
    ("group", "instances"),
    ("sync_group_tracking_weight", "tracking_weight"),
    ("global_tracking", "tracking_weight"),
    ("script", "command"),
    ("dev", "interface"),
    ("src", "source"),
    ("gateway", "via"),
    ("lookup", "table"),
    ("preference", "priority"),
    ("ssl", "tls"),
    ("smtps", "tls"),
];

/// `one of "a", "b"`, or just `"a"`.
pub(in crate::config) fn one_of(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
    if quoted.len() == 1 { quoted.concat() } else { format!("one of {}", quoted.join(", ")) }
}

/// The known word that `word` is probably meant to be.
pub(in crate::config) fn nearest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    // Longer than any known word by far: no typing mistake, and the comparison would cost.
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase();
    let meant = OTHER_WORDS.iter().filter(|(theirs, _)| *theirs == word);
    if let Some(known) = meant.flat_map(|(_, ours)| known.iter().find(|known| *known == ours)).next() {
        return Some(known);
    }
    let slips = |known: &&&str| strsim::damerau_levenshtein(&word, known);
    let closest = known.iter().min_by_key(slips).copied()?;
    if slips(&&closest) <= most_slips(closest) {
        return Some(closest);
    }
    // Shortened words: "max_conns" for "max_connections".
    let likeness = |known: &str| strsim::jaro_winkler(&word, known);
    let alike = known.iter().copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (word.len() > 3 && likeness(alike) > 0.85).then_some(alike)
}

/// The name, of those that the file has given, that `name` is probably meant to be.
pub(in crate::config) fn nearest_name<'k>(
    name: &str,
    known: impl Iterator<Item = &'k str>,
) -> Option<&'k str> {
    let name = name.to_ascii_lowercase();
    let slips = |known: &str| strsim::damerau_levenshtein(&name, &known.to_ascii_lowercase());
    let (slips, closest) = known.map(|known| (slips(known), known)).min()?;
    (slips <= most_slips(closest)).then_some(closest)
}

/// So many slips of the pen are believed.
fn most_slips(word: &str) -> usize {
    (word.len() / 3).max(1)
}
