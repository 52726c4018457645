use std::{net::SocketAddr, time::Instant};

use proptest::prelude::*;

use super::*;
use crate::config::{Login, MailTls};

mod sink;

use sink::{Behaviour, Sink};

const LONG: Duration = Duration::from_secs(60);
/// Gathers until somebody finishes, and does not wait between attempts.
const PATIENT: Pace = Pace { gather: Duration::from_secs(3600), retries: [Duration::ZERO; 2] };
const IMMEDIATE: Pace = Pace { gather: Duration::ZERO, retries: [Duration::ZERO; 2] };

fn settings(server: SocketAddr) -> Mail {
    Mail {
        server: server.ip().to_string(),
        port: server.port(),
        tls: MailTls::None,
        verify: true,
        timeout: LONG,
        from: "Director <xdirector@example.com>".into(),
        to: vec!["admin@example.com".into()],
        login: None,
    }
}

fn mailer(settings: &Mail, pace: Pace) -> Mailer {
    Mailer::with_pace(settings, "lb1", pace).expect("good settings")
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_mail_arrives() {
    let sink = Sink::start(Behaviour::default()).await;
    let mut settings = settings(sink.address);
    settings.to.push("Second <second@example.org>".into());
    let mailer = mailer(&settings, PATIENT);
    mailer.send("real server 192.0.2.1:80 of web: DOWN", "It did not answer.\n.\nSecond line.\n".into());
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: 1, failed: 0 });

    let mails = sink.mails();
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(mail.from, "<xdirector@example.com>");
    assert_eq!(mail.to, ["<admin@example.com>", "<second@example.org>"]);
    assert_eq!(mail.header("Subject"), "[lb1] real server 192.0.2.1:80 of web: DOWN");
    assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
    assert!(mail.header("Date").contains("+0000"), "{mail:?}");
    let id = mail.header("Message-ID");
    assert!(id.starts_with('<') && id.ends_with("@example.com>"), "{id}");
    assert_eq!(mail.body(), "It did not answer.\r\n.\r\nSecond line.\r\n");
}

#[tokio::test]
async fn messages_that_come_together_are_one_mail() {
    let sink = Sink::start(Behaviour::default()).await;
    let mailer = mailer(&settings(sink.address), PATIENT);
    for number in 1..=3 {
        mailer.send(&format!("change {number}"), format!("line {number}\nand more"));
    }
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: 3, failed: 0 });
    let mails = sink.mails();
    let [mail] = &mails[..] else { panic!("{mails:?}") };
    assert_eq!(mail.header("Subject"), "[lb1] 3 changes");
    let part = |number| format!("change {number}\r\n    line {number}\r\n    and more\r\n");
    assert_eq!(mail.body(), format!("{}{}{}", part(1), part(2), part(3)));
}

#[tokio::test]
async fn a_slow_server_holds_up_nobody_and_its_queue_is_bounded() {
    let sink = Sink::start(Behaviour { gated: true, ..Behaviour::default() }).await;
    let mailer = mailer(&settings(sink.address), IMMEDIATE);
    mailer.send("first", String::new());
    eventually("nobody connects", || sink.connections() == 1).await;
    for number in 0..MAX_WAITING + 10 {
        mailer.send(&format!("change {number}"), String::new());
    }
    assert_eq!(mailer.counts(), Counts { sent: 0, failed: 10 });
    assert!(sink.mails().is_empty());
    sink.open();
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: MAX_WAITING as u64 + 1, failed: 10 });
    let mails = sink.mails();
    let [first, rest] = &mails[..] else { panic!("{} mails", mails.len()) };
    assert_eq!(first.header("Subject"), "[lb1] first");
    assert_eq!(rest.header("Subject"), format!("[lb1] {MAX_WAITING} changes"));
    assert!(rest.body().starts_with("change 10\r\n"));
    assert!(rest.body().contains("10 older messages were dropped"), "{}", rest.body());
}

#[tokio::test]
async fn an_attempt_has_a_limit() {
    let sink = Sink::start(Behaviour { gated: true, ..Behaviour::default() }).await;
    let settings = Mail { timeout: Duration::from_millis(100), ..settings(sink.address) };
    let mailer = mailer(&settings, IMMEDIATE);
    mailer.send("lost", String::new());
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: 0, failed: 1 });
    assert_eq!(sink.connections(), 3);
}

#[tokio::test]
async fn tries_again_when_the_server_goes_away() {
    let sink = Sink::start(Behaviour { hang_up: 2, ..Behaviour::default() }).await;
    let mailer = mailer(&settings(sink.address), IMMEDIATE);
    mailer.send("a change", String::new());
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: 1, failed: 0 });
    assert_eq!((sink.connections(), sink.mails().len()), (3, 1));
}

#[tokio::test]
async fn gives_up_when_there_is_no_server() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("its address")
    };
    let mailer = mailer(&settings(address), IMMEDIATE);
    mailer.send("a change", String::new());
    mailer.send("another", String::new());
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: 0, failed: 2 });
}

#[tokio::test]
async fn a_final_no_is_not_asked_again() {
    let sink = Sink::start(Behaviour { refuse: vec!["admin@"], ..Behaviour::default() }).await;
    let mailer = mailer(&settings(sink.address), IMMEDIATE);
    mailer.send("a change", String::new());
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: 0, failed: 1 });
    assert_eq!(sink.connections(), 1);
}

#[tokio::test]
async fn one_refused_recipient_does_not_keep_it_from_the_others() {
    let sink = Sink::start(Behaviour { refuse: vec!["gone@"], ..Behaviour::default() }).await;
    let to = ["gone@example.com", "admin@example.com"].map(String::from).to_vec();
    let mailer = mailer(&Mail { to, ..settings(sink.address) }, IMMEDIATE);
    mailer.send("a change", String::new());
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: 1, failed: 0 });
    assert_eq!(sink.mails()[0].to, ["<admin@example.com>"]);
}

#[tokio::test]
async fn a_server_without_a_goodbye_gets_the_mail_once() {
    let sink = Sink::start(Behaviour { no_goodbye: true, ..Behaviour::default() }).await;
    let mailer = mailer(&settings(sink.address), IMMEDIATE);
    mailer.send("a change", String::new());
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: 1, failed: 0 });
    assert_eq!((sink.connections(), sink.mails().len()), (1, 1));
}

#[tokio::test]
async fn logs_in() {
    let sink = Sink::start(Behaviour::default()).await;
    let login = Some(Login { user: "user".into(), password: "secret".into() });
    let mailer = mailer(&Mail { login, ..settings(sink.address) }, IMMEDIATE);
    mailer.send("a change", String::new());
    mailer.finish(LONG).await;
    // RFC 4616: base64 of NUL user NUL password.
    assert_eq!(sink.mails()[0].login.as_deref(), Some("PLAIN AHVzZXIAc2VjcmV0"));
    assert!(!format!("{mailer:?}").contains("secret"));
}

#[tokio::test]
async fn the_password_is_not_in_reasons() {
    let sink = Sink::start(Behaviour { refuse: vec!["admin@"], ..Behaviour::default() }).await;
    // The sink's refusal ends in these words.
    let login = Some(Login { user: "user".into(), password: "lives here".into() });
    let settings = Mail { login, ..settings(sink.address) };
    let head = Letterhead::new(&settings, "lb1").expect("good settings");
    let server = Server::new(&settings).expect("good settings");
    let failure = server.deliver(head.from(), &head.to(), b"").await.expect_err("refused");
    assert!(failure.permanent);
    assert!(failure.reason.ends_with("nobody of this name ***"), "{}", failure.reason);
}

#[tokio::test]
async fn nor_is_what_the_password_becomes_on_its_way() {
    let sink = Sink::start(Behaviour { parrot: true, ..Behaviour::default() }).await;
    // Base64 with and without padding.
    for (password, plain) in [("secret", "AHVzZXIAc2VjcmV0"), ("secrets", "AHVzZXIAc2VjcmV0cw")] {
        let login = Some(Login { user: "user".into(), password: password.into() });
        let settings = Mail { login, ..settings(sink.address) };
        let head = Letterhead::new(&settings, "lb1").expect("good settings");
        let server = Server::new(&settings).expect("good settings");
        let failure = server.deliver(head.from(), &head.to(), b"").await.expect_err("refused");
        assert!(failure.reason.contains("PLAIN ***"), "{}", failure.reason);
        assert!(!failure.reason.contains(plain), "{}", failure.reason);
    }
}

#[tokio::test]
async fn mails_are_encrypted_as_configured() {
    for tls in [MailTls::StartTls, MailTls::Tls] {
        for verify in [false, true] {
            let sink = Sink::start(Behaviour { tls, ..Behaviour::default() }).await;
            let mailer = mailer(&Mail { tls, verify, ..settings(sink.address) }, IMMEDIATE);
            mailer.send("a change", String::new());
            mailer.finish(LONG).await;
            // The sink's certificate is its own work: only who does not look takes it.
            let expected = if verify { Counts { sent: 0, failed: 1 } } else { Counts { sent: 1, failed: 0 } };
            assert_eq!(mailer.counts(), expected, "{tls:?} {verify}");
            assert!(sink.mails().iter().all(|mail| mail.encrypted));
            assert_eq!(sink.mails().len() as u64, expected.sent);
        }
    }
}

#[tokio::test]
async fn starttls_is_not_given_up_for_a_server_without_it() {
    let sink = Sink::start(Behaviour::default()).await;
    let login = Some(Login { user: "user".into(), password: "secret".into() });
    let settings = Mail { tls: MailTls::StartTls, verify: false, login, ..settings(sink.address) };
    let mailer = mailer(&settings, IMMEDIATE);
    mailer.send("a change", String::new());
    mailer.finish(LONG).await;
    assert_eq!(mailer.counts(), Counts { sent: 0, failed: 1 });
    assert!(sink.mails().is_empty());
}

#[tokio::test]
async fn a_dropped_mailer_sends_what_waits() {
    let sink = Sink::start(Behaviour::default()).await;
    let mailer = mailer(&settings(sink.address), PATIENT);
    mailer.send("a change", String::new());
    drop(mailer);
    eventually("it is not sent", || sink.mails().len() == 1).await;
}

#[tokio::test]
async fn wrong_settings_are_errors() {
    let good = settings("127.0.0.1:25".parse().expect("an address"));
    for (wrong, says) in [
        (Mail { from: "nobody".into(), ..good.clone() }, "`from`: `nobody`"),
        (Mail { to: vec!["a@b@c".into()], ..good.clone() }, "`to`: `a@b@c`"),
        (Mail { to: vec!["ä@example.com".into()], ..good.clone() }, "not ASCII"),
        (Mail { to: Vec::new(), ..good.clone() }, "names nobody"),
        (Mail { server: "mail server".into(), ..good.clone() }, "`server`: `mail server`"),
        (Mail { server: String::new(), ..good.clone() }, "`server`"),
    ] {
        let error = Mailer::new(&wrong, "lb1").expect_err("wrong");
        assert!(error.to_string().contains(says), "{error}");
    }
    for server in ["localhost", "mail.example.com", "::1"] {
        Mailer::new(&Mail { server: server.into(), ..good.clone() }, "lb1").expect("good");
    }
}

#[test]
fn subjects_are_one_short_line() {
    let settings = settings("127.0.0.1:25".parse().expect("an address"));
    let head = Letterhead::new(&settings, "lb1").expect("good settings");
    let note = Note { subject: format!("two\nlines{}", "x".repeat(500)), body: String::new() };
    let expected = format!("two lines{}", "x".repeat(191));
    let single = head.mail(std::slice::from_ref(&note), 0);
    let unfolded = String::from_utf8(single).expect("ASCII").replace("\r\n ", " ");
    assert!(unfolded.contains(&format!("Subject: [lb1] {expected}\r\n")), "{unfolded}");
    let joined = String::from_utf8(head.mail(&[note.clone(), note], 0)).expect("ASCII");
    assert!(joined.replace("=\r\n", "").ends_with(&format!("{expected}\r\n{expected}")), "{joined}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_text_makes_another_header(
        subject in "([a-z :é<>]|\r|\n|\t|\0|\r\nBcc: x@example\\.com\r\n){0,300}",
        body in "([a-z :é<>]|\r|\n|\0|\r\n\\.\r\n){0,300}",
        router_id in "([a-z :é<>]|\r|\n|\0){0,40}",
    ) {
        let settings = settings("127.0.0.1:25".parse().expect("an address"));
        let head = Letterhead::new(&settings, &router_id).expect("good settings");
        let mail = head.mail(&[Note { subject, body }], 0);
        // SMTP without extensions: RFC 5321 4.5.3.1.6.
        prop_assert!(mail.is_ascii());
        let text = String::from_utf8(mail).expect("ASCII");
        prop_assert!(text.split("\r\n").all(|line| line.len() <= 998));
        let (head, _) = text.split_once("\r\n\r\n").expect("an empty line");
        let mut names: Vec<&str> = head
            .split("\r\n")
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split(':').next().unwrap_or_default())
            .collect();
        names.sort_unstable();
        prop_assert_eq!(
            names,
            [
                "Auto-Submitted", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "Message-ID",
                "Subject", "To"
            ]
        );
    }
}
