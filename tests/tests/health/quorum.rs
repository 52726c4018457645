//! The quorum, and who is told of changes: scripts and mail.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    httpd::Server,
    registry::wait_until,
    require_director,
    smtpd::{Manner, Sink},
    topology::{self, Options, PORTS, Scene},
};
use lb_userspace::api::{Status, types::RealServerState};

use crate::{
    support::configuration,
    watch::{self, SOON, checked, ensure_only, until_all_up, until_state},
};

/// A script that writes its arguments and what it is told into `directory`/lines.
fn scribe(directory: &Path) -> Result<(String, PathBuf)> {
    let (script, lines) = (directory.join("notify.sh"), directory.join("lines"));
    let text = format!(
        "#!/bin/sh\necho \"$1 $XDIRECTOR_VIRTUAL_SERVER $XDIRECTOR_STATE $XDIRECTOR_REAL_SERVER\" >> {}\n",
        lines.display()
    );
    fs::write(&script, text)?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    Ok((script.display().to_string(), lines))
}

fn turn(scene: &mut Scene, director: &Director, index: usize, up: bool) -> Result<()> {
    let real = &mut scene.servers[index];
    real.http = if up { Some(Server::start(&real.netns, &real.name, &PORTS)?) } else { None };
    until_state(director, "web", index, if up { RealServerState::Up } else { RealServerState::Down })
        .map(drop)
}

#[test]
fn scripts_run_in_the_order_of_the_changes() -> Result<()> {
    require_director!("scripts_run_in_the_order_of_the_changes");
    let mut scene = topology::nat(&Options::new("scripts"))?;
    let directory =
        tempfile::Builder::new().prefix(&format!("{}-notify-", scene.director.name())).tempdir()?;
    let (script, lines) = scribe(directory.path())?;
    let mut web = VirtualServer::tcp("web", topology::vip4(80))
        .line("quorum = 2")
        .line("hysteresis = 1")
        .line("omega = true");
    for key in ["quorum_up", "quorum_down", "notify_up", "notify_down"] {
        web = web.line(&format!("{key} = [\"{script}\", \"{key}\"]"));
    }
    let text = configuration(&scene).serve(&checked(web, &scene, "type = \"tcp\"", 3));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    ensure!(!lines.exists(), "nothing has changed: {}", fs::read_to_string(&lines)?);

    let quorum = |director: &Director| watch::service(director, "web").map(|one| one.quorum.up);
    turn(&mut scene, &director, 0, false)?;
    turn(&mut scene, &director, 1, false)?;
    ensure!(quorum(&director)?, "2 - 1 is left");
    ensure_only(scene.client(), "http://192.168.10.50/", &[3])?;
    turn(&mut scene, &director, 2, false)?;
    ensure!(!quorum(&director)?, "none is left");
    turn(&mut scene, &director, 0, true)?;
    turn(&mut scene, &director, 1, true)?;
    ensure!(!quorum(&director)?, "2 + 1 is wanted");
    turn(&mut scene, &director, 2, true)?;
    ensure!(quorum(&director)?, "all three live");
    director.detach()?;

    let down = |number| format!("notify_down web DOWN 192.168.1.10{number}:80");
    let up = |number| format!("notify_up web UP 192.168.1.10{number}:80");
    let expected = [
        down(1),
        down(2),
        down(3),
        "quorum_down web QUORUM_DOWN ".to_owned(),
        up(1),
        up(2),
        up(3),
        "quorum_up web QUORUM_UP ".to_owned(),
        // omega: it is stopped for good.
        down(1),
        down(2),
        down(3),
        "quorum_down web QUORUM_DOWN ".to_owned(),
    ];
    let written = fs::read_to_string(&lines)?;
    ensure!(written.lines().eq(expected.iter().map(String::as_str)), "{written}\nexpected {expected:#?}");
    Ok(())
}

#[test]
fn mail_tells_of_changes_and_delays_none() -> Result<()> {
    require_director!("mail_tells_of_changes_and_delays_none");
    let mut scene = topology::nat(&Options::new("mail"))?;
    let sink = Sink::start(&scene.clients[0].netns, 2525)?;
    let mail = "\n[mail]\nserver = \"192.168.10.11\"\nport = 2525\ntls = \"none\"\ntimeout = \"1m\"\n\
                from = \"director@example.org\"\nto = [\"admin@example.org\"]";
    let web = VirtualServer::tcp("web", topology::vip4(80));
    let text = configuration(&scene).lines(mail).serve(&checked(web, &scene, "type = \"tcp\"", 3));
    let mut director = Director::start(&scene.director, text.text())?;
    until_all_up(&director, "web")?;
    ensure!(sink.sessions() == 0, "nothing has changed");

    turn(&mut scene, &director, 0, false)?;
    ensure!(wait_until(SOON, || sink.mails().len() == 1), "no mail:\n{}", director.log());
    let mail = sink.mails().remove(0);
    let subject = mail.lines().find(|line| line.starts_with("Subject: ")).unwrap_or_default();
    ensure!(subject.contains("director-01") && subject.contains("web/192.168.1.101:80"), "{mail}");
    ensure!(mail.contains("connection refused") && mail.contains("admin@example.org"), "{mail}");

    sink.set(Manner::Hanging);
    turn(&mut scene, &director, 1, false)?;
    ensure!(wait_until(SOON, || sink.sessions() == 2), "no second mail:\n{}", director.log());
    // The mailer is in the server's hands now. Nobody else waits for it.
    turn(&mut scene, &director, 0, true)?;
    turn(&mut scene, &director, 2, false)?;
    ensure_only(scene.client(), "http://192.168.10.50/", &[1])?;
    let status: Status = watch::ask(&director, "/v1/status")?;
    ensure!((status.work.mails_sent, status.work.mails_failed) == (1, 0), "{:?}", status.work);
    ensure!(sink.mails().len() == 1);

    sink.set(Manner::Serving);
    // The other two changes are one mail.
    ensure!(wait_until(SOON, || sink.mails().len() == 3), "{:?}\n{}", sink.mails(), director.log());
    let mails = sink.mails();
    ensure!(mails[1].contains("192.168.1.102"), "{mails:?}");
    ensure!(mails[2].contains("192.168.1.101") && mails[2].contains("192.168.1.103"), "{mails:?}");
    director.stop()
}

#[test]
fn a_hanging_mail_server_does_not_hold_the_end_for_long() -> Result<()> {
    require_director!("a_hanging_mail_server_does_not_hold_the_end_for_long");
    let mut scene = topology::nat(&Options::new("hanging").servers(1))?;
    let sink = Sink::start(&scene.clients[0].netns, 2525)?;
    sink.set(Manner::Hanging);
    let mail = "\n[mail]\nserver = \"192.168.10.11\"\nport = 2525\ntls = \"none\"\ntimeout = \"1m\"\n\
                from = \"director@example.org\"\nto = [\"admin@example.org\"]";
    let web = VirtualServer::tcp("web", topology::vip4(80));
    let text = configuration(&scene).lines(mail).serve(&checked(web, &scene, "type = \"tcp\"", 1));
    let mut director = Director::start(&scene.director, text.text())?;
    turn(&mut scene, &director, 0, false)?;
    ensure!(wait_until(SOON, || sink.sessions() == 1), "no mail:\n{}", director.log());
    director.command(&["stop"])?;
    let pid = director.pid().unwrap_or_default();
    let ended = wait_until(Duration::from_secs(10), || {
        fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| stat.contains(") Z "))
    });
    ensure!(ended, "it still runs:\n{}", director.log());
    ensure!(director.log().contains("mail messages were not sent"), "{}", director.log());
    director.stop()
}
