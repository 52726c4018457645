//! Who may speak, and that no message tells how.

use lb_userspace::config::vrrp::{Authentication, HmacMode, HmacSettings};

use super::{DIRECTOR, diagnostics, first, good, instance, instance_v6, messages, one};

const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn with(keys: &str) -> String {
    instance(&format!("authentication = {{ {keys} }}"))
}

/// The same in version 3.
fn with_v3(keys: &str) -> String {
    instance(&format!("authentication = {{ {keys} }}\nversion = 3"))
}

#[test]
fn passwords() {
    let pass =
        |password: &str| first(&with(&format!("type = \"pass\", password = \"{password}\""))).authentication;
    assert_eq!(pass("123456"), Authentication::Pass(*b"123456\0\0"));
    assert_eq!(pass("12345678"), Authentication::Pass(*b"12345678"));
    assert_eq!(messages(&with("type = \"pass\", password = \"12345678\"")), [""; 0]);
    // As keepalived does it.
    assert_eq!(pass("secret12345"), Authentication::Pass(*b"secret12"));
    let path = "vrrp_instance[0] \"a\".authentication.";
    one(
        &with("type = \"pass\", password = \"secret12345\""),
        &format!("f:8: warning: {path}password = ***: adverts have room for 8 bytes: it is cut there"),
    );
    for (keys, what) in [
        ("type = \"pass\"", "password: missing; expected a text of 1 to 8 bytes"),
        ("type = \"pass\", password = \"\"", "password = ***: empty, too long, or a control character in it"),
        ("type = \"pass\", password = 123456", "password = ***: wrong type, an integer"),
        ("type = \"ah\", password = \"x\"", "type = \"ah\": unknown type of authentication; expected one of"),
        ("password = \"x\"", "type: missing"),
        (
            "type = \"pass\", password = \"x\", mode = \"enforce\"",
            "mode = \"enforce\": not a key of type \"pass\"",
        ),
        ("type = \"pass\", password = \"x\", auth_pass = \"y\"", "auth_pass = ***: unknown key"),
    ] {
        one(&with(keys), &format!("f:8: {path}{what}"));
    }
    let what = "type = \"pass\": version 3 has no passwords (RFC 9568 section 9); expected type = \"hmac\", or version = 2";
    one(&with_v3("type = \"pass\", password = \"x\""), &format!("f:8: {path}{what}"));
    one(
        &instance_v6("authentication = { type = \"pass\", password = \"x\" }"),
        &format!("f:8: {path}type = \"pass\": version 3 has no passwords"),
    );
}

#[test]
fn keys() {
    let hmac = |keys: &str| match first(&with_v3(&format!("type = \"hmac\", {keys}"))).authentication {
        Authentication::Hmac(settings) => settings,
        other => panic!("{other:?}"),
    };
    let bytes: Vec<u8> = (0..32).collect();
    assert_eq!(
        hmac(&format!("key = \"{KEY}\"")),
        HmacSettings { keys: vec![(1, bytes.clone())], mode: HmacMode::Enforce }
    );
    assert_eq!(
        hmac(&format!("key = \"{KEY}{KEY}\", key_id = 0, mode = \"receive-only\"")),
        HmacSettings { keys: vec![(0, [&bytes[..], &bytes].concat())], mode: HmacMode::ReceiveOnly }
    );
    assert_eq!(
        hmac(&format!(
            "keys = [{{ id = 7, key = \"{KEY}\" }}, {{ id = 3, key = \"{KEY}\" }}], mode = \"permissive\""
        )),
        HmacSettings { keys: vec![(7, bytes.clone()), (3, bytes)], mode: HmacMode::Permissive }
    );

    let path = "vrrp_instance[0] \"a\".authentication.";
    for (keys, what) in [
        ("mode = \"enforce\"".to_owned(), "key: missing; expected the key: 64 to 128 hexadecimal digits"),
        (format!("key = \"{}\"", &KEY[2..]), "key = ***: too short; expected 64 to 128 hexadecimal digits"),
        (format!("key = \"{KEY}{KEY}00\""), "key = ***: too long"),
        (format!("key = \"hex:{KEY}\""), "key = ***: not pairs of hexadecimal digits"),
        (format!("key = \"{KEY}\", key_id = 256"), "key_id = 256: out of range"),
        (
            format!("key = \"{KEY}\", mode = \"lax\""),
            "mode = \"lax\": unknown mode; expected one of \"receive-only\"",
        ),
        (format!("key = \"{KEY}\", password = \"x\""), "password = ***: not a key of type \"hmac\""),
        (format!("key = \"{KEY}\", keys = []"), "keys = ***: there is a key too; expected one of them"),
        ("keys = []".to_owned(), "keys = ***: no key"),
        ("keys = [{ id = 1 }]".to_owned(), "keys[0].key: missing"),
        (format!("keys = [{{ key = \"{KEY}\" }}]"), "keys[0].id: missing"),
        (
            format!("keys = [{{ id = 1, key = \"{KEY}\" }}], key_id = 1"),
            "key_id = 1: the first of \"keys\" is the one to send with",
        ),
        (
            format!("keys = [{{ id = 1, key = \"{KEY}\" }}, {{ id = 1, key = \"{KEY}\" }}]"),
            "keys[1].id = 1: the number is taken at line 8; expected another number for each key",
        ),
    ] {
        one(&with_v3(&format!("type = \"hmac\", {keys}")), &format!("f:8: {path}{what}"));
    }
    one(
        &with(&format!("type = \"hmac\", key = \"{KEY}\"")),
        &format!("f:8: {path}type = \"hmac\": not with version 2; expected type = \"pass\", or version = 3"),
    );
    good(&instance_v6(&format!("authentication = {{ type = \"hmac\", key = \"{KEY}\" }}")));
}

#[test]
fn no_message_holds_a_password_or_a_key() {
    let secret = "5e5a3e5e5a3e";
    let inline = |keys: &str| instance(&format!("version = 3\nauthentication = {{ {keys} }}"));
    let table = |lines: &str| instance(&format!("version = 3\n[vrrp_instance.authentication]\n{lines}"));
    for text in [
        inline(&format!("type = \"hmac\", key = \"{secret}\"")),
        inline(&format!("type = \"hmac\", key = [\"{secret}\"]")),
        inline(&format!("type = \"hmac\", keys = [\"{secret}\"]")),
        inline(&format!("type = \"hmac\", keys = \"{secret}\"")),
        inline(&format!("type = \"hmac\", keys = [{{ id = 1, key = \"{secret}\" }}]")),
        inline(&format!("type = \"hmac\", keys = [{{ id = 1, key = \"{secret}\" }}, \"{secret}\"]")),
        inline(&format!("type = \"hmac\", keys = [{{ id = 1, kee = \"{secret}\" }}]")),
        inline(&format!("type = \"hmac\", Key = \"{secret}\"")),
        inline(&format!("type = \"hmac\", hmac_key = \"{secret}\"")),
        inline(&format!("type = \"hmac\", anything = \"{secret}\"")),
        inline(&format!("type = \"hmac\", key = \"{secret}")),
        inline(&format!("type = \"hmac\", key = {secret}")),
        inline(&format!("type = \"pass\", password = \"{secret}\\u0007\"")),
        inline(&format!("type = \"pass\", pass = \"{secret}\"")),
        inline(&format!("type = \"pass\", password = \"{secret}-and-more\"")).replace("version = 3\n", ""),
        table(&format!("type = \"hmac\"\nkey = {secret}")),
        table(&format!("type = \"hmac\"\nkey = \"{secret}")),
        table(&format!("type = \"hmac\"\nkey \"{secret}\"")),
        table(&format!("type = \"hmac\"\nkey = \"open\n{secret}\"")),
        table(&format!("type = \"hmac\"\nkeys = [\n  {{ id = 1, key = \"{secret}\" }},\n  3\n]")),
        table(&format!("type = \"pass\"\nauth_pass = \"{secret}\"")),
        instance(&format!("authentication = \"{secret}\"")),
        instance(&format!("authentication = [\"PASS\", \"{secret}\"]")),
        instance(&format!("authentification = {{ password = \"{secret}\" }}")),
        instance(&format!("auth_pass = \"{secret}\"")),
        format!("{DIRECTOR}[vrrp.authentication]\nword = \"{secret}\"\n"),
        instance(&format!("key = \"{secret}\"")),
    ] {
        let got = messages(&text);
        assert!(!got.is_empty(), "{text}");
        assert!(!got.concat().contains(&secret[..6]), "{got:#?}\nin:\n{text}");
    }
    // Nor does what is printed for debugging.
    let read = first(&with_v3(&format!("type = \"hmac\", key_id = 9, key = \"{KEY}\"")));
    let shown = format!("{:?}", read.authentication);
    assert!(shown.contains("[9]") && !shown.contains("31"), "{shown}");
    let read = first(&with("type = \"pass\", password = \"123456\""));
    assert_eq!(format!("{:?}", read.authentication), "Pass(***)");
    assert!(diagnostics(&with("type = \"pass\", password = \"123456\"")).is_empty());
}
