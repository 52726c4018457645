//! Properties of the configuration reader: it never panics, and what is written is what is read.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use lb_userspace::config::{
    Config, Dataplane, Director, Forward, Protocol, RealServer, Scheduler, SchedulerFlags, Timeouts,
    VirtualServer, XdpMode, parse,
};
use proptest::{collection::vec, prelude::*, sample::select};

/// Pieces of which something like a configuration can be put together.
const PIECES: &[&str] = &[
    "[director]\n",
    "[timeouts]\n",
    "[[virtual_server]]\n",
    "  [[virtual_server.real_server]]\n",
    "[virtual_server]\n",
    "[[director]]\n",
    "[a.b]\n",
    "interfaces = ",
    "address = ",
    "port = ",
    "name = ",
    "weight = ",
    "tcp = ",
    "scheduler = ",
    "scheduler_flags = ",
    "forward = ",
    "max_connections = ",
    "real_server",
    "virtual_server",
    ".",
    " = ",
    "\n",
    "\r\n",
    "\"web\"",
    "\"192.0.2.1:80\"",
    "\"[2001:db8::1]:443\"",
    "\"\"",
    "[\"eth0\"]",
    "[\"sh-port\", 3]",
    "{ address = \"10.0.0.1\" }",
    "[{}]",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    "\"\"\"",
    "#",
    "0",
    "-1",
    "99999999999999999999999999999999999999999999",
    "0x_",
    "1e9",
    "nan",
    "true",
    "1979-05-27",
    "\"1h30m\"",
    "\"\\u0000\"",
    "\u{feff}",
    "\u{e9}",
    "\u{1b}",
    ",",
];

proptest! {
    #[test]
    fn any_text_gives_a_configuration_or_errors(text in any::<String>()) {
        check(&text)?;
    }

    #[test]
    fn pieces_of_a_configuration_never_panic(pieces in vec(select(PIECES), 0..60)) {
        check(&pieces.concat())?;
    }

    /// A good file with one piece put in somewhere or some bytes taken out.
    #[test]
    fn a_damaged_configuration_never_panics(
        config in config(),
        from in any::<prop::sample::Index>(),
        length in 0..20_usize,
        piece in select(PIECES),
    ) {
        let letters: Vec<char> = render(&config).chars().collect();
        let from = from.index(letters.len());
        let to = (from + length).min(letters.len());
        let text: String = letters[..from].iter().copied().chain(piece.chars()).chain(letters[to..].iter().copied())
            .collect();
        check(&text)?;
    }

    #[test]
    fn what_is_written_is_read(config in config()) {
        let text = render(&config);
        match parse("f", &text) {
            Ok((read, _)) => prop_assert_eq!(read, config),
            Err(errors) => prop_assert!(false, "refused:\n{}\nin:\n{}", errors, text),
        }
    }
}

/// A refusal names at least one error, and each diagnostic a line that the text has.
fn check(text: &str) -> Result<(), TestCaseError> {
    let lines = text.split('\n').count();
    let (diagnostics, errors) = match parse("f", text) {
        Ok((_, warnings)) => (warnings, 0),
        Err(errors) => (errors.diagnostics().to_vec(), errors.error_count().max(1)),
    };
    prop_assert_eq!(
        diagnostics.iter().filter(|one| one.to_string().contains(": warning:")).count() + errors,
        diagnostics.len()
    );
    prop_assert!(diagnostics.is_sorted_by_key(|one| one.line));
    for one in &diagnostics {
        let line = one.line.expect("a text has lines");
        prop_assert!((1..=lines).contains(&line), "line {} of {}: {}", line, lines, one);
        prop_assert_eq!(one.to_string().lines().count(), 1);
    }
    Ok(())
}

fn config() -> impl Strategy<Value = Config> {
    let director = (
        "[a-z0-9_-]{1,32}",
        "[!-~][ -~]{0,63}",
        prop::collection::hash_set("[a-zA-Z0-9_.@%-]{1,14}[a-z]", 1..6),
        select(XdpMode::ALL),
        1024..=16_777_216_u32,
    );
    let director =
        director.prop_map(|(instance, router_id, interfaces, xdp_mode, max_connections)| Director {
            instance,
            router_id,
            dataplane: Dataplane::Xdp,
            interfaces: interfaces.into_iter().collect(),
            xdp_mode,
            max_connections,
        });
    let time = || (1000..=31 * 86_400_000_u64).prop_map(Duration::from_millis);
    let timeouts = (time(), time(), time()).prop_map(|(tcp, tcp_fin, udp)| Timeouts { tcp, tcp_fin, udp });
    (director, timeouts, vec(virtual_server(), 0..6)).prop_map(|(director, timeouts, mut virtual_servers)| {
        // Names and addresses must be unique: the index becomes part of both.
        for (index, server) in virtual_servers.iter_mut().enumerate() {
            let number = u8::try_from(index).expect("a few");
            write!(server.name, "{index}").expect("memory");
            server.address = numbered(server.address, number);
        }
        Config { director, timeouts, virtual_servers }
    })
}

fn virtual_server() -> impl Strategy<Value = VirtualServer> {
    (
        "[A-Za-z0-9._-]{0,62}",
        any::<bool>(),
        any::<u16>(),
        select(Protocol::ALL),
        select(Scheduler::ALL),
        any::<(bool, bool)>(),
        vec((any::<bool>(), any::<u16>(), 0..=65_535_u32, select(Forward::ALL)), 0..8),
    )
        .prop_map(|(name, v4, port, protocol, scheduler, (by_port, fallback), servers)| {
            let has_flags = matches!(scheduler, Scheduler::Sh | Scheduler::Mh);
            let real_servers =
                servers.into_iter().enumerate().map(|(index, (server_v4, own_port, weight, forward))| {
                    let number = u8::try_from(index).expect("a few");
                    RealServer {
                        address: numbered(
                            base(if forward == Forward::Tun { server_v4 } else { v4 }, 2),
                            number,
                        ),
                        port: match forward {
                            Forward::Nat if port == 0 => own_port,
                            Forward::Nat => own_port.max(1),
                            Forward::Dr | Forward::Tun => port,
                        },
                        weight,
                        forward,
                    }
                });
            VirtualServer {
                name,
                address: base(v4, 1),
                port,
                protocol,
                scheduler,
                scheduler_flags: SchedulerFlags {
                    port: has_flags && by_port,
                    fallback: has_flags && fallback,
                },
                real_servers: real_servers.collect(),
            }
        })
}

fn base(v4: bool, network: u8) -> IpAddr {
    if v4 {
        Ipv4Addr::new(10, 0, network, 0).into()
    } else {
        Ipv6Addr::new(0x2001, 0xdb8, network.into(), 0, 0, 0, 0, 0).into()
    }
}

fn numbered(address: IpAddr, number: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() + u32::from(number) + 1).into(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() + u128::from(number) + 1).into(),
    }
}

/// Writes a configuration as a person would, every key spelt out.
fn render(config: &Config) -> String {
    let mut text = String::new();
    let quote = |word: &str| format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""));
    let list = |words: Vec<String>| format!("[{}]", words.join(", "));
    let mut line = |indent: &str, key: &str, value: String| {
        writeln!(text, "{indent}{key}{}{value}", if value.is_empty() { "" } else { " = " }).expect("memory");
    };
    let Director { instance, router_id, dataplane, interfaces, xdp_mode, max_connections } = &config.director;
    line("", "[director]", String::new());
    line("", "instance", quote(instance));
    line("", "router_id", quote(router_id));
    line("", "dataplane", quote(dataplane.as_str()));
    line("", "interfaces", list(interfaces.iter().map(|name| quote(name)).collect()));
    line("", "xdp_mode", quote(xdp_mode.as_str()));
    line("", "max_connections", max_connections.to_string());
    let Timeouts { tcp, tcp_fin, udp } = config.timeouts;
    line("", "[timeouts]", String::new());
    for (key, time) in [("tcp", tcp), ("tcp_fin", tcp_fin), ("udp", udp)] {
        let millis = time.as_millis();
        let units = format!(
            "\"{}h{}m{}s{}ms\"",
            millis / 3_600_000,
            millis / 60_000 % 60,
            millis / 1000 % 60,
            millis % 1000
        );
        line("", key, if millis % 1000 == 0 { (millis / 1000).to_string() } else { units });
    }
    for server in &config.virtual_servers {
        line("", "[[virtual_server]]", String::new());
        line("", "name", quote(&server.name));
        line("", "address", quote(&SocketAddr::new(server.address, server.port).to_string()));
        line("", "protocol", quote(server.protocol.as_str()));
        line("", "scheduler", quote(server.scheduler.as_str()));
        let SchedulerFlags { port, fallback } = server.scheduler_flags;
        let flags = [(port, "port"), (fallback, "fallback")].into_iter().filter(|(on, _)| *on);
        let flags = flags.map(|(_, flag)| quote(&format!("{}-{flag}", server.scheduler)));
        line("", "scheduler_flags", list(flags.collect()));
        // The servers that have the default say nothing, the others override it.
        let default = server.real_servers.first().map_or(Forward::Nat, |first| first.forward);
        line("", "forward", quote(default.as_str()));
        for real in &server.real_servers {
            line("  ", "[[virtual_server.real_server]]", String::new());
            let address = if real.port == server.port {
                real.address.to_string()
            } else {
                SocketAddr::new(real.address, real.port).to_string()
            };
            line("  ", "address", quote(&address));
            if real.weight != 1 {
                line("  ", "weight", real.weight.to_string());
            }
            if real.forward != default {
                line("  ", "forward", quote(real.forward.as_str()));
            }
        }
    }
    text
}
