//! Properties of the configuration reader: it never panics, and what is written is what is read.

use lb_userspace::config::parse;
use proptest::{collection::vec, prelude::*, sample::select};

#[path = "config_properties/render.rs"]
mod render;
#[path = "config_properties/render_vrrp.rs"]
mod render_vrrp;
#[path = "config_properties/strategy.rs"]
mod strategy;
#[path = "config_properties/strategy_vrrp.rs"]
mod strategy_vrrp;

use render::render;
use strategy::config;

/// Pieces of which something like a configuration can be put together.
const PIECES: &[&str] = &[
    "[director]\n",
    "[timeouts]\n",
    "[[virtual_server]]\n",
    "  [[virtual_server.real_server]]\n",
    "  [[virtual_server.health_check]]\n",
    "[vrrp]\n",
    "[[vrrp_instance]]\n",
    "[[vrrp_sync_group]]\n",
    "[[vrrp_script]]\n",
    "[[vrrp_track_port]]\n",
    "virtual_router_id = ",
    "addresses = ",
    "unicast_peers = ",
    "routes = ",
    "rules = ",
    "vmac = ",
    "track_scripts = ",
    "instances = ",
    "bind_to = ",
    "advert_interval = ",
    "authentication = ",
    "{ type = \"hmac\", key = \"00\" }",
    "[mail]\n",
    "[metrics]\n",
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
    "type = \"https\"\n",
    "type = \"script\"\n",
    "health_check = ",
    "requests = ",
    "headers = ",
    "status = ",
    "regex = ",
    "command = ",
    "sorry_server = ",
    "connect_port = ",
    "interval = ",
    "password = ",
    "listen = ",
    "[{ type = \"tcp\" }]",
    "[200, \"300-399\"]",
    "\"/\"",
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

    /// As below for a key of adverts.
    #[test]
    fn a_damaged_configuration_hides_its_keys(
        config in config(),
        from in any::<prop::sample::Index>(),
        length in 0..20_usize,
        piece in select(PIECES),
    ) {
        let instance = "[[vrrp_instance]]\nname = \"secretive\"\nversion = 3\n[vrrp_instance.authentication]\n\
            type = \"hmac\"\nkey = \"o5e5a3e\"\n";
        let text = format!("{}{instance}[timeouts.x]\n", render(&config));
        let letters: Vec<char> = text.chars().collect();
        let from = letters.len().saturating_sub(from.index(300)).max(1) - 1;
        let to = (from + length).min(letters.len());
        let before: String = letters[..from].iter().collect();
        let after: String = letters[to..].iter().collect();
        let key = "\nkey = \"o";
        prop_assume!(before.contains(key) || after.contains(key));
        if let Err(errors) = parse("f", &format!("{before}{piece}{after}")) {
            prop_assert!(!errors.to_string().contains("5e5a3e"), "{}\nin:\n{}{}{}", errors, before, piece, after);
        }
    }

    /// Whatever is wrong around it, and even inside of it, a password is not shown. (Its key must be legible.)
    #[test]
    fn a_damaged_configuration_hides_its_password(
        config in config(),
        from in any::<prop::sample::Index>(),
        length in 0..20_usize,
        piece in select(PIECES),
    ) {
        let mail = "[mail]\npassword = \"open-sesame\"\n";
        let text = render(&config);
        let text = if text.contains("[mail]\n") { text.replace("[mail]\n", mail) } else { format!("{mail}{text}") };
        let letters: Vec<char> = text.chars().collect();
        let from = from.index(letters.len());
        let to = (from + length).min(letters.len());
        let before: String = letters[..from].iter().collect();
        let after: String = letters[to..].iter().collect();
        let key = "\npassword = \"o";
        prop_assume!(before.contains(key) || after.contains(key));
        if let Err(errors) = parse("f", &format!("{before}{piece}{after}")) {
            prop_assert!(!errors.to_string().contains("sesame"), "{}\nin:\n{}{}{}", errors, before, piece, after);
        }
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
