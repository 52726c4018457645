//! `[mail]`, `[metrics]`, and secrets.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use lb_userspace::config::MailTls;

use super::{DIRECTOR, checked, good, messages, one, served};

const MAIL: &str =
    "[mail]\nserver = \"mail.example.org\"\nfrom = \"a@example.org\"\nto = [\"b@example.org\"]\n";

#[test]
fn mail_has_defaults() {
    let mail = |rest: &str| good(&format!("{}{MAIL}{rest}", served(""))).mail.expect("given");
    let plain = mail("");
    assert_eq!((plain.port, plain.tls, plain.verify), (25, MailTls::StartTls, true));
    assert_eq!((plain.timeout, &plain.login), (Duration::from_secs(30), &None));
    assert_eq!((plain.from.as_str(), &plain.to[..]), ("a@example.org", &["b@example.org".to_owned()][..]));
    assert_eq!(mail("tls = \"tls\"").port, 465);
    assert_eq!(mail("tls = \"none\"").port, 25);
    assert_eq!(mail("user = \"u\"\npassword = \"p\"").port, 587);
    assert_eq!(mail("user = \"u\"\npassword = \"p\"\nport = 26").port, 26);
    // Whoever gets mail gets it for every virtual server that does not say otherwise.
    assert!(good(&format!("{}{MAIL}", served(""))).virtual_servers[0].mail);
    assert!(!good(&format!("{}{MAIL}", served("mail = false"))).virtual_servers[0].mail);
    one(
        &served("mail = true"),
        "f:7: virtual_server[0] \"web\".mail = true: to nobody; expected a table [mail], or false",
    );
}

#[test]
fn mail_that_cannot_be_sent() {
    let text = |rest: &str| format!("{}[mail]\n{rest}\n", served(""));
    assert_eq!(
        messages(&text("")),
        [
            "f:10: mail.server: missing; expected a host name or an address",
            "f:10: mail.from: missing; expected a mail address, such as \"xdirector@example.org\"",
            "f:10: mail.to: missing; expected an array of 1 to 100 mail addresses, such as [\"admin@example.org\"]",
        ]
    );
    let with = |rest: &str| format!("{}{MAIL}{rest}\n", served(""));
    for (rest, expected) in [
        (
            "tls = \"ssl\"",
            "f:14: mail.tls = \"ssl\": unknown choice; expected one of \"none\", \"starttls\", \"tls\"",
        ),
        ("port = 0", "f:14: mail.port = 0: out of range"),
        ("timeout = \"2h\"", "f:14: mail.timeout = \"2h\": too long"),
        ("user = \"u\"", "f:14: mail.user = \"u\": no password"),
        ("password = \"p\"", "f:14: mail.password = ***: no user"),
        ("smtp_server = \"a\"", "f:14: mail.smtp_server = \"a\": unknown key"),
    ] {
        one(&with(rest), expected);
    }
    one(
        &with("").replace("\"mail.example.org\"", "\"mail.example.org:25\""),
        "f:11: mail.server = \"mail.example.org:25\": a port, which has a key of its own",
    );
    one(&with("").replace("\"a@example.org\"", "\"a\""), "f:12: mail.from = \"a\": not a mail address");
    one(&with("").replace("[\"b@example.org\"]", "[]"), "f:13: mail.to = []: 0 mail addresses");
    one(&with("").replace("[\"b@example.org\"]", "[\"b\"]"), "f:13: mail.to[0] = \"b\": not a mail address");
    one(
        &with("tls = \"none\"\nuser = \"u\"\npassword = \"p\""),
        "f:15: warning: mail.user = \"u\": the password goes over the network in the clear",
    );
}

#[test]
fn a_password_may_stand_in_a_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("word");
    let shown = path.display();
    let text = format!("{}{MAIL}user = \"u\"\npassword_file = \"{shown}\"\n", served(""));
    let start = format!("mail.password_file = \"{shown}");
    // The path may be too long for a message.
    let start = &start[..start.len().min(60)];
    let start = |line: &str| {
        ["f:15: ", "f:15: warning: "].iter().any(|one| line.starts_with(&format!("{one}{start}")))
    };
    let error = |end: &str| {
        let got = messages(&text);
        assert!(got.len() == 1 && start(&got[0]) && got[0].contains(end), "{got:#?}");
    };
    error(": cannot read: No such file or directory; expected a file of one line with the password");
    for content in ["", "\n", "two\nlines\n", "a\u{7}b", &"x".repeat(5000)] {
        fs::write(&path, content).expect("the folder is ours");
        error("the file is empty, too large, or has more than one line");
    }
    fs::write(&path, "open sesame\n").expect("the folder is ours");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("the file is ours");
    error(": every user of this machine can read the file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file is ours");
    assert_eq!(messages(&text), [""; 0]);
    let login = good(&text).mail.and_then(|mail| mail.login).expect("given");
    assert_eq!((login.user.as_str(), login.password.as_str()), ("u", "open sesame"));
    assert!(!format!("{login:?}").contains("sesame"));
    let both = messages(&format!("{text}password = \"p\"\n"));
    assert!(
        both.len() == 1 && both[0].contains(": there is a password too; expected one of them"),
        "{both:#?}"
    );

    fs::remove_file(&path).expect("it is there");
    fs::create_dir(&path).expect("the folder is ours");
    error("not a file");
}

#[test]
fn no_message_holds_a_password() {
    let mail = |rest: &str| format!("{}{MAIL}{rest}\n", served(""));
    for text in [
        mail("user = \"u\"\npassword = \"sesame\\u0007\""),
        mail("user = \"u\"\npassword = [\"sesame\"]"),
        mail("user = \"u\"\npasword = \"sesame\""),
        mail("user = \"u\"\nPassword = \"sesame\""),
        mail("user = \"u\"\npassword = sesame"),
        mail("user = \"u\"\npassword = \"sesame"),
        mail("user = \"u\"\npassword: \"sesame\""),
        mail("user = \"u\"\npassword \"sesame\""),
        mail("user = \"u\"\npassword = \"open\nsesame\""),
        mail("user = \"u\"\npassword = \"x\"\npassword = \"sesame\""),
        mail("user = 3\npassword = \"sesame\"\npassword_file = \"/a\""),
        format!("{DIRECTOR}mail = {{ user = \"u\", password = \"sesame }}\n"),
        format!("mail = [1, {{ password = \"sesame\" }}]\n{}", served("")),
        format!("{}[mail.password]\nword = \"sesame\"\n", served("")),
        checked("type = \"http\", headers = { Authorization = \"sesame\\n\" }"),
        checked("type = \"http\", headers = { Cookie = [\"sesame\"] }"),
    ] {
        let got = messages(&text);
        assert!(!got.is_empty(), "{text}");
        assert!(!got.concat().contains("sesame"), "{got:#?}\nin:\n{text}");
    }
}

#[test]
fn metrics_and_the_user_of_scripts() {
    let listen = |value: &str| format!("{}[metrics]\nlisten = {value}\n", served(""));
    let read = |value: &str| good(&listen(value)).metrics.expect("given").listen.to_string();
    assert_eq!(read("\"127.0.0.1:9108\""), "127.0.0.1:9108");
    assert_eq!(read("\"0.0.0.0:9108\""), "0.0.0.0:9108");
    assert_eq!(read("\"[::]:9108\""), "[::]:9108");
    for (value, what) in [
        ("9108", "wrong type, an integer; expected ADDRESS:PORT"),
        ("\"127.0.0.1\"", "no port"),
        ("\"127.0.0.1:0\"", "port 0"),
        ("\"224.0.0.1:1\"", "not the address of one machine"),
        ("\"[fe80::1]:1\"", "a link-local address"),
        ("\"localhost:1\"", "not an IP address"),
    ] {
        one(&listen(value), &format!("f:11: metrics.listen = {value}: {what}"));
    }
    one(&format!("{}[metrics]\n", served("")), "f:10: metrics.listen: missing; expected ADDRESS:PORT");
    let user =
        |value: &str| served("").replace("router_id", &format!("script_user = \"{value}\"\nrouter_id"));
    assert_eq!(good(&user("nobody")).director.script_user.as_deref(), Some("nobody"));
    for value in ["", "0", "-a", "a b", "a:b"] {
        one(&user(value), &format!("f:3: director.script_user = \"{value}\": "));
    }
}
