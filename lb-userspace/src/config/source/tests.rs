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

proptest! {
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
