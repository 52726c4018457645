//! Writes a configuration as a person would.

use std::{
    fmt::{Display, Write as _},
    net::SocketAddr,
    time::Duration,
};

use lb_userspace::config::{
    Command, Config, Director, Mail, Persistence, RealServer, SchedulerFlags, SorryServer, Timeouts, Tunnel,
    VirtualServer,
    check::{HealthCheck, Http, HttpRequest, Probe, Tls, Via},
};

use crate::render_vrrp;

/// The file. Every key is spelt out, but real servers say only what their virtual server does not say.
pub fn render(config: &Config) -> String {
    let mut file = File(String::new());
    director(&config.director, &mut file);
    let Timeouts { tcp, tcp_fin, udp } = config.timeouts;
    file.header("[timeouts]");
    file.key("tcp", time(tcp));
    file.key("tcp_fin", time(tcp_fin));
    file.key("udp", time(udp));
    if let Some(metrics) = &config.metrics {
        file.header("[metrics]");
        file.key("listen", quote(metrics.listen));
    }
    if let Some(one) = &config.mail {
        mail(one, &mut file);
    }
    render_vrrp::vrrp(&config.vrrp, &mut file);
    for server in &config.virtual_servers {
        virtual_server(server, &mut file);
    }
    file.0
}

pub struct File(String);

impl File {
    pub fn header(&mut self, header: &str) {
        writeln!(self.0, "{header}").expect("memory");
    }

    pub fn key(&mut self, key: &str, value: impl Display) {
        writeln!(self.0, "{key} = {value}").expect("memory");
    }
}

fn director(director: &Director, file: &mut File) {
    let Director { instance, router_id, dataplane, interfaces, xdp_mode, max_connections, script_user } =
        director;
    file.header("[director]");
    file.key("instance", quote(instance));
    file.key("router_id", quote(router_id));
    file.key("dataplane", quote(dataplane));
    file.key("interfaces", list(interfaces.iter().map(quote)));
    file.key("xdp_mode", quote(xdp_mode));
    file.key("max_connections", max_connections);
    if let Some(user) = script_user {
        file.key("script_user", quote(user));
    }
}

fn mail(mail: &Mail, file: &mut File) {
    let Mail { server, port, tls, verify, timeout, from, to, login } = mail;
    file.header("[mail]");
    file.key("server", quote(server));
    file.key("port", port);
    file.key("tls", quote(tls));
    file.key("verify", verify);
    file.key("timeout", time(*timeout));
    file.key("from", quote(from));
    file.key("to", list(to.iter().map(quote)));
    if let Some(login) = login {
        file.key("user", quote(&login.user));
        file.key("password", quote(&login.password));
    }
}

fn virtual_server(server: &VirtualServer, file: &mut File) {
    let service = SocketAddr::new(server.address, server.port);
    file.header("[[virtual_server]]");
    file.key("name", quote(&server.name));
    file.key("address", quote(service));
    file.key("protocol", quote(server.protocol));
    if let Some(instance) = &server.bind_to {
        file.key("bind_to", quote(instance));
    }
    file.key("scheduler", quote(server.scheduler));
    let SchedulerFlags { port, fallback } = server.scheduler_flags;
    let flags = [(port, "port"), (fallback, "fallback")].into_iter().filter(|(on, _)| *on);
    file.key("scheduler_flags", list(flags.map(|(_, flag)| quote(format!("{}-{flag}", server.scheduler)))));
    if let Some(Persistence { timeout, prefix }) = server.persistence {
        file.key("persistence_timeout", time(timeout));
        file.key("persistence_granularity", prefix);
    }
    if server.one_packet {
        file.key("one_packet", true);
    }
    file.key("quorum", server.quorum);
    file.key("hysteresis", server.hysteresis);
    file.key("quorum_up", command(server.quorum_up.as_ref()));
    file.key("quorum_down", command(server.quorum_down.as_ref()));
    file.key("alpha", server.alpha);
    file.key("omega", server.omega);
    file.key("on_remove", quote(server.on_remove));
    if let Some(limit) = server.drain_timeout {
        file.key("drain_timeout", time(limit));
    }
    file.key("expire_nodest", server.expire_nodest);
    file.key("expire_quiescent", server.expire_quiescent);
    file.key("mail", server.mail);

    // What the first real server has is the default: the others say what differs.
    let defaults = server.real_servers.first().map(|first| inheritable(first, service)).unwrap_or_default();
    for (key, value) in &defaults {
        file.key(key, value);
    }
    if let Some(SorryServer { address, port, forward }) = server.sorry_server {
        let is_default = server.real_servers.first().is_some_and(|first| first.forward == forward);
        let address = quote(SocketAddr::new(address, port));
        if is_default {
            file.key("sorry_server", address);
        } else {
            file.key("sorry_server", format!("{{ address = {address}, forward = {} }}", quote(forward)));
        }
    }
    for real in &server.real_servers {
        file.header("  [[virtual_server.real_server]]");
        let address = if real.port == server.port {
            quote(real.address)
        } else {
            quote(SocketAddr::new(real.address, real.port))
        };
        file.key("  address", address);
        if real.weight != 1 {
            file.key("  weight", real.weight);
        }
        if real.tunnel != Tunnel::IPIP {
            let Tunnel { kind, port, checksum } = real.tunnel;
            let port = if port == 0 { String::new() } else { format!("port = {port}, ") };
            file.key(
                "  tunnel",
                format!("{{ type = {}, {port}checksum = {} }}", quote(kind), quote(checksum)),
            );
        }
        let own = inheritable(real, service);
        // An upper threshold of its own takes the lower one along.
        let has_thresholds = own[1] != defaults[1] || own[2] != defaults[2];
        for (default, (key, value)) in defaults.iter().zip(&own) {
            if default.1 != *value || (has_thresholds && key.ends_with("threshold")) {
                file.key(&format!("  {key}"), value);
            }
        }
    }
}

fn inheritable(server: &RealServer, service: SocketAddr) -> Vec<(&'static str, String)> {
    let checks = server.health_checks.iter().map(|one| check(one, server, service));
    vec![
        ("forward", quote(server.forward)),
        ("upper_threshold", server.upper_threshold.to_string()),
        ("lower_threshold", server.lower_threshold.to_string()),
        ("on_failure", quote(server.on_failure)),
        ("notify_up", command(server.notify_up.as_ref())),
        ("notify_down", command(server.notify_down.as_ref())),
        ("health_check", list(checks)),
    ]
}

fn check(check: &HealthCheck, server: &RealServer, service: SocketAddr) -> String {
    let mut keys = vec![
        format!("type = {}", quote(check.probe.as_str())),
        format!("interval = {}", time(check.interval)),
        format!("timeout = {}", time(check.timeout)),
        format!("rise = {}", check.rise),
        format!("fall = {}", check.fall),
        format!("retry = {}", check.retry),
        format!("delay_before_retry = {}", time(check.delay_before_retry)),
        format!("warmup = {}", time(check.warmup)),
    ];
    let default = match check.via {
        Via::Direct => SocketAddr::new(server.address, server.port),
        Via::Dataplane => service,
    };
    if check.connect.ip() != default.ip() {
        keys.push(format!("connect_address = {}", quote(check.connect.ip())));
    }
    if check.connect.port() != default.port() {
        keys.push(format!("connect_port = {}", check.connect.port()));
    }
    if let Some(bind) = check.bind {
        if !bind.ip().is_unspecified() {
            keys.push(format!("bind_address = {}", quote(bind.ip())));
        }
        if bind.port() != 0 {
            keys.push(format!("bind_port = {}", bind.port()));
        }
    }
    if check.fwmark != 0 {
        keys.push(format!("fwmark = {}", check.fwmark));
    }
    if check.via != Via::Direct {
        keys.push(format!("via = {}", quote(check.via.as_str())));
    }
    match &check.probe {
        Probe::Tcp | Probe::Ping => {}
        Probe::Http(Http { tls, requests }) => {
            if let Some(Tls { sni, verify }) = tls {
                keys.extend(sni.iter().map(|sni| format!("sni = {}", quote(sni))));
                keys.push(format!("verify = {verify}"));
            }
            keys.push(format!("requests = {}", list(requests.iter().map(request))));
        }
        Probe::Smtp { helo } => keys.push(format!("helo = {}", quote(helo))),
        Probe::Dns { record, name } => {
            keys.push(format!("record = {}", quote(record)));
            keys.push(format!("name = {}", quote(name)));
        }
        Probe::Udp { payload, expect, require_reply } => {
            keys.push(bytes("payload", payload));
            keys.push(bytes("expect", expect));
            keys.push(format!("require_reply = {require_reply}"));
        }
        Probe::Script { command: program, dynamic } => {
            keys.push(format!("command = {}", command(Some(program))));
            keys.push(format!("dynamic = {dynamic}"));
        }
        Probe::File { path } => keys.push(format!("path = {}", quote(path.display()))),
    }
    format!("{{ {} }}", keys.join(", "))
}

fn request(request: &HttpRequest) -> String {
    let HttpRequest { path, method, host, headers, status, md5, regex } = request;
    let mut keys = vec![format!("path = {}", quote(path)), format!("method = {}", quote(method))];
    keys.extend(host.iter().map(|host| format!("host = {}", quote(host))));
    let headers: Vec<_> = headers.iter().map(|(name, value)| format!("{name} = {}", quote(value))).collect();
    keys.push(format!("headers = {{ {} }}", headers.join(", ")));
    let status = status.iter().map(|range| match (range.start(), range.end()) {
        (from, to) if from == to => from.to_string(),
        (from, to) => quote(format!("{from}-{to}")),
    });
    keys.push(format!("status = {}", list(status)));
    keys.extend(md5.iter().map(|sum| format!("md5 = {}", quote(hex(sum)))));
    keys.extend(regex.iter().map(|regex| format!("regex = {}", quote(regex))));
    format!("{{ {} }}", keys.join(", "))
}

/// As a text where it is one.
fn bytes(key: &str, bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{key} = {}", quote(text)),
        _ => format!("{key}_hex = {}", quote(hex(bytes))),
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn command(command: Option<&Command>) -> String {
    list(command.iter().flat_map(|command| &command.0).map(quote))
}

pub fn time(time: Duration) -> String {
    let millis = time.as_millis();
    let (hours, minutes, seconds) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
    match millis % 1000 {
        0 => (millis / 1000).to_string(),
        millis => format!("\"{hours}h{minutes}m{seconds}s{millis}ms\""),
    }
}

pub fn quote(word: impl Display) -> String {
    format!("\"{}\"", word.to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

pub fn list(words: impl Iterator<Item = String>) -> String {
    format!("[{}]", words.collect::<Vec<_>>().join(", "))
}
