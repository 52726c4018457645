use proptest::prelude::*;

use super::*;

const HEAD: &str = "[director]\ninterfaces = [\"eth0\"]\nrouter_id = \"d\"\n\n";

fn piece(number: u8, weight: u8) -> String {
    format!(
        "[[virtual_server]]\nname = \"s{number}\"\naddress = \"192.0.2.{number}:80\"\n\n  \
         [[virtual_server.real_server]]\n  address = \"10.0.{number}.1\"\n  weight = {weight}\n\n"
    )
}

fn file(pieces: &[String]) -> String {
    format!("{HEAD}{}", pieces.concat())
}

/// The head with two instances, the first of which tracks this virtual server.
fn head_with_vrrp(tracked: &str) -> String {
    let instance = |name: &str, vrid: u8, rest: &str| {
        format!(
            "[[vrrp_instance]]\nname = \"{name}\"\ninterface = \"eth0\"\nvirtual_router_id = {vrid}\n\
             addresses = [\"192.0.2.{vrid}\"]\n{rest}\n"
        )
    };
    let tracks = format!("track_virtual_servers = [\"{tracked}\"]\n");
    format!("{HEAD}{}{}", instance("A", 1, &tracks), instance("B", 2, ""))
}

/// A virtual server with the address of the instance of the same number, and bound to it.
fn bound(number: u8, instance: &str) -> String {
    piece(number, 1).replacen("\n\n", &format!("\nbind_to = \"{instance}\"\n\n"), 1)
}

/// A text that was in force, and what the next one comes to by the shortcut.
fn shortcut(before: &str, after: &str) -> Option<Config> {
    let (config, _, source) = parse_after("f", before.to_owned(), None).expect("a good file");
    let found = source?.reuse(&config, "f", after);
    found.map(|(config, pieces)| {
        assert_eq!(Some(pieces), cut(after, 0..after.len()), "the pieces for the next time");
        config
    })
}

fn whole(text: &str) -> Config {
    let (config, warnings) = parse("f", text).expect("a good file");
    assert_eq!(warnings, []);
    config
}

#[test]
fn changes_of_virtual_servers_take_the_shortcut() {
    let three: Vec<String> = (1..=3).map(|number| piece(number, 1)).collect();
    let before = file(&three);
    let changed = before.replace("192.0.2.2:80", "192.0.2.2:8080");
    let with =
        file(&[piece(9, 1), three[0].clone(), three[1].clone(), piece(8, 1), three[2].clone(), piece(7, 2)]);
    let turned = file(&[three[2].clone(), three[0].clone(), three[1].clone()]);
    for after in [&before, &changed, &with, &turned, &file(&three[1..]), &file(&three[..1])] {
        assert_eq!(shortcut(&before, after), Some(whole(after)), "{after}");
    }
}

#[test]
fn what_concerns_more_than_one_virtual_server_does_not() {
    let three: Vec<String> = (1..=3).map(|number| piece(number, 1)).collect();
    let before = file(&three);
    let add = |text: &str| format!("{before}{text}");
    let cases = [
        ("another head", before.replace("\"d\"", "\"e\"")),
        ("a mistake", before.replacen("weight = 1", "weight = x", 1)),
        ("the same name", before.replace("\"s2\"", "\"s3\"")),
        ("the same address", before.replace("192.0.2.2:80", "192.0.2.3:80")),
        ("the same piece", add(&three[0])),
        ("a real server of two", before.replace("10.0.2.1", "10.0.3.1")),
        ("a warning", add("[[virtual_server]]\nname = \"n\"\naddress = \"192.0.2.9:80\"\n")),
        ("a table of the file", add("[timeouts]\ntcp = \"5s\"\n")),
        ("a text of lines", before.replacen("\"s2\"", "\"\"\"s2\"\"\"", 1)),
        (
            "a hidden header",
            before.replacen("[[virtual_server]]\nname = \"s2\"", "[[ virtual_server ]]\nname = \"s2\"", 1),
        ),
        ("no virtual server", HEAD.to_owned()),
    ];
    for (what, after) in cases {
        assert_eq!(shortcut(&before, &after), None, "{what}");
    }
}

#[test]
fn vrrp_in_the_head_lets_virtual_servers_take_the_shortcut() {
    let file = |tracked: &str, pieces: &[String]| format!("{}{}", head_with_vrrp(tracked), pieces.concat());
    let pieces = [bound(1, "A"), bound(2, "B"), piece(3, 1)];
    let before = file("s3", &pieces);
    whole(&before);
    // The tracked one may be new, kept, or moved: it must only be there.
    for after in [
        before.clone(),
        file("s3", &[bound(1, "A"), bound(2, "B").replace("weight = 1", "weight = 7"), piece(3, 1)]),
        file("s3", &[bound(1, "A"), bound(2, "B"), piece(3, 9)]),
        file("s3", &[piece(3, 1), bound(2, "B")]),
        file("s3", &[piece(3, 1)]),
        file("s3", &[bound(1, "A"), bound(2, "B"), piece(3, 1), piece(4, 1)]),
    ] {
        let config = shortcut(&before, &after);
        assert_eq!(config, Some(whole(&after)), "{after}");
        assert_eq!(config.map(|config| config.vrrp), Some(whole(&before).vrrp));
    }
}

#[test]
fn what_concerns_vrrp_and_virtual_servers_does_not() {
    let file = |tracked: &str, pieces: &[String]| format!("{}{}", head_with_vrrp(tracked), pieces.concat());
    let pieces = [bound(1, "A"), bound(2, "B"), piece(3, 1)];
    let before = file("s3", &pieces);
    let add = |text: &str| format!("{before}{text}");
    let group = "[[vrrp_sync_group]]\nname = \"g\"\ninstances = [\"A\", \"B\"]\n";
    let cases = [
        ("another instance", before.replace("eth0\"\nvirtual", "eth1\"\nvirtual")),
        ("a bound instance that is gone", before.replace("\"B\"\ninterface", "\"C\"\ninterface")),
        ("another tracked one", file("s2", &pieces)),
        ("the tracked one is gone", file("s3", &pieces[..2])),
        ("the tracked one has another name", before.replace("\"s3\"\naddress", "\"s4\"\naddress")),
        ("bound to nobody", file("s3", &[bound(1, "A"), bound(2, "C"), piece(3, 1)])),
        ("bound to one without the address", file("s3", &[bound(1, "A"), bound(2, "A"), piece(3, 1)])),
        ("a group behind the virtual servers", add(group)),
        ("settings behind them", add("[vrrp]\nguard = false\n")),
        (
            "a script between them",
            before.replacen(
                "[[virtual_server]]\nname = \"s2\"",
                "[[vrrp_script]]\nname = \"x\"\n\
            command = [\"/x\"]\n[[virtual_server]]\nname = \"s2\"",
                1,
            ),
        ),
    ];
    for (what, after) in cases {
        assert_ne!(before, after, "{what}");
        assert_eq!(shortcut(&before, &after), None, "{what}");
        // What it comes to then is what the file says.
        let (config, _, source) = parse_after("f", before.clone(), None).expect("a good file");
        let plain = parse("f", &after);
        let after = parse_after("f", after, source.as_ref().map(|source| (&config, source)));
        assert_eq!(after.map(|(config, warnings, _)| (config, warnings)), plain, "{what}");
    }
    // A file with VRRP behind its virtual servers cannot be cut at all.
    let (_, _, source) = parse_after("f", add(group), None).expect("a good file");
    assert!(source.is_none());
}

proptest! {
    #[test]
    fn with_vrrp_too(
        tracked in 1u8..6,
        before in proptest::collection::vec((1u8..6, 0u8..4), 1..6),
        after in proptest::collection::vec((1u8..6, 0u8..4), 0..6),
        cut_at in any::<prop::sample::Index>(),
    ) {
        let unique = |pieces: Vec<(u8, u8)>| {
            let mut seen = HashSet::new();
            let pieces = pieces.into_iter().filter(|(number, _)| seen.insert(*number));
            let pieces = pieces.map(|(number, instance)| match instance {
                // Where the address is the other instance's there is a warning.
                1 => bound(number, "A"),
                2 => bound(number, "B"),
                weight => piece(number, weight + 1),
            });
            format!("{}{}", head_with_vrrp(&format!("s{tracked}")), pieces.collect::<String>())
        };
        let (before, after) = (unique(before), unique(after));
        let torn = after[..cut_at.index(after.len() + 1)].to_owned();
        let last = parse_after("f", before, None).ok();
        let last = last.as_ref().and_then(|(config, _, source)| Some((config, source.as_ref()?)));
        for after in [after, torn] {
            let plain = parse("f", &after);
            let short = parse_after("f", after, last);
            prop_assert_eq!(short.map(|(config, warnings, _)| (config, warnings)), plain);
        }
    }

    #[test]
    fn the_shortcut_comes_to_what_the_whole_file_says(
        before in proptest::collection::vec((1u8..6, 1u8..3), 1..6),
        after in proptest::collection::vec((1u8..6, 1u8..3), 0..6),
        cut_at in any::<prop::sample::Index>(),
    ) {
        let unique = |pieces: Vec<(u8, u8)>| {
            let mut seen = HashSet::new();
            let pieces = pieces.into_iter().filter(|(number, _)| seen.insert(*number));
            file(&pieces.map(|(number, weight)| piece(number, weight)).collect::<Vec<_>>())
        };
        let (before, after) = (unique(before), unique(after));
        let torn = after[..cut_at.index(after.len() + 1)].to_owned();
        let (config, _, source) = parse_after("f", before, None).expect("a good file");
        for after in [after, torn] {
            let plain = parse("f", &after);
            let short = parse_after("f", after, source.as_ref().map(|source| (&config, source)));
            prop_assert_eq!(short.map(|(config, warnings, _)| (config, warnings)), plain);
        }
    }
}
