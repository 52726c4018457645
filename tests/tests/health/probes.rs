//! The checks of other protocols: DNS, UDP, SMTP.

use anyhow::{Result, ensure};
use lab::{
    Director,
    configuration::VirtualServer,
    dnsd::{Code, Responder},
    httpd::Server,
    require_director,
    smtpd::{Manner, Sink},
    topology::{self, Options, PORTS},
};
use lb_userspace::api::types::RealServerState;

use crate::{
    support::configuration,
    watch::{IMPATIENT, QUICK, SILENT, ensure_told, until_all_up, until_state, with_times},
};

#[test]
fn dns_udp_and_smtp() -> Result<()> {
    require_director!("dns_udp_and_smtp");
    let mut scene = topology::nat(&Options::new("protocols").servers(2))?;
    let mut names: Vec<Option<Responder>> = scene
        .servers
        .iter()
        .map(|real| Responder::start(&real.netns, 53).map(Some))
        .collect::<Result<_>>()?;
    let mut mails: Vec<Option<Sink>> =
        scene.servers.iter().map(|real| Sink::start(&real.netns, 25).map(Some)).collect::<Result<_>>()?;
    let dns = "type = \"dns\", connect_port = 53, record = \"A\", name = \"www.example.org\"";
    let echo = "type = \"udp\", payload = \"hello\", expect = \"Real \", require_reply = true";
    let smtp = "type = \"smtp\", connect_port = 25, helo = \"director.example.org\"";
    let services = [
        (VirtualServer::udp("dns", topology::vip4(8080)), dns),
        (VirtualServer::udp("echo", topology::vip4(80)), echo),
        (VirtualServer::tcp("smtp", topology::vip4(80)), smtp),
    ];
    // One of them will be silent.
    let text = services.into_iter().fold(configuration(&scene), |text, (server, check)| {
        let times = if check == smtp { IMPATIENT } else { QUICK };
        text.serve(&with_times(times, 80, server, &scene, check, 2))
    });
    let mut director = Director::start(&scene.director, text.text())?;
    for name in ["dns", "echo", "smtp"] {
        until_all_up(&director, name)?;
    }
    let down = |name: &str, reason: &str| -> Result<()> {
        let down = until_state(&director, name, 0, RealServerState::Down)?;
        ensure!(down.reason.as_ref().is_some_and(|said| said.starts_with(reason)), "{reason}: {down:?}");
        Ok(())
    };
    let up = |name: &str| until_state(&director, name, 0, RealServerState::Up).map(drop);

    for (code, reason) in [(Code::ServFail, "dns: DNS SERVFAIL"), (Code::NxDomain, "dns: DNS NXDOMAIN")] {
        names[0].as_ref().expect("it runs").set(code);
        down("dns", reason)?;
        names[0].as_ref().expect("it runs").set(Code::NoError);
        up("dns")?;
    }
    names[0] = None;
    down("dns", "dns: port unreachable")?;
    names[0] = Some(Responder::start(&scene.servers[0].netns, 53)?);
    up("dns")?;

    mails[0].as_ref().expect("it runs").set(Manner::Refusing);
    down("smtp", "smtp: SMTP 554 to the greeting")?;
    mails[0].as_ref().expect("it runs").set(Manner::Serving);
    up("smtp")?;
    mails[0].as_ref().expect("it runs").set(Manner::Hanging);
    down("smtp", &format!("smtp: {SILENT}"))?;
    mails[0] = None;
    mails[0] = Some(Sink::start(&scene.servers[0].netns, 25)?);
    up("smtp")?;

    scene.servers[0].http = None;
    down("echo", "udp: port unreachable")?;
    let answers = scene.client().udp_counts(topology::vip4(80), 6)?;
    ensure!(answers.keys().eq(["Real 2"]), "{answers:?}");
    scene.servers[0].http = Some(Server::start(&scene.servers[0].netns, "Another", &PORTS)?);
    // It answers, with other words.
    crate::watch::until(&director, "echo", |one| {
        let detail = one.real_servers[0].checks[0].detail.clone();
        detail.is_some_and(|detail| detail.starts_with("answer begins with \"Anoth\""))
    })?;
    scene.servers[0].http = None;
    scene.servers[0].http = Some(Server::start(&scene.servers[0].netns, "Real 1", &PORTS)?);
    up("echo")?;
    let answers = scene.client().udp_counts(topology::vip4(80), 6)?;
    ensure!(answers.len() == 2, "{answers:?}");

    let address = scene.servers[0].ipv4;
    ensure_told(&director, "echo", (address, 80).into(), &["down: udp: port unreachable", "up"])?;
    let smtp = ["down: smtp: SMTP 554", "up", "down: smtp: no answer", "up"];
    ensure_told(&director, "smtp", (address, 80).into(), &smtp)?;
    director.stop()
}
