//! S9: NAT with two instances in a sync group. A client keeps its server by the scheduler `sh`.

use std::time::Instant;

use anyhow::{Result, ensure};
use lab::{
    configuration::VirtualServer,
    failover::{Balanced, Holders, Instance},
    registry::wait_until,
    require_director,
    smtpd::Sink,
    topology::{self, Mode, VIP4},
};

use crate::{
    balanced::{URL, await_answers, logs, start_both},
    support::{SOON, measured, ms},
};

const SMTP: u16 = 2525;

fn file(scene: &Balanced, side: usize, priority: u8) -> String {
    let web = VirtualServer::tcp("web", topology::vip4(80)).scheduler("sh").line("bind_to = \"outside\"");
    let web = scene.servers.iter().fold(web, |web, real| web.real((real.ipv4, 80).into(), 1));
    let mail = format!(
        "\n[mail]\nserver = \"{}\"\nport = {SMTP}\ntls = \"none\"\nfrom = \"director@example.org\"\n\
         to = [\"administrator@example.org\"]\n",
        Balanced::OFFICE
    );
    let outside = Instance::new(21, priority).name("outside").address(&format!("{VIP4}/32"));
    let inside =
        Instance::new(22, priority).name("inside").on("eth1").address(&format!("{}/24", Balanced::GATEWAY));
    let group = "[[vrrp_sync_group]]\nname = \"VRRP1\"\ninstances = [\"outside\", \"inside\"]\nmail = true\n";
    let tables = [mail, outside.to_toml(), inside.to_toml(), group.to_owned()].join("\n");
    scene.configuration(side).lines(&tables).serve(&web).text().to_owned()
}

#[test]
fn s9_two_instances_in_a_group() -> Result<()> {
    require_director!("s9_two_instances_in_a_group");
    let scene = Balanced::new(Mode::Nat, "s9", 3)?;
    let mails = Sink::start(&scene.office, SMTP)?;
    let texts = [file(&scene, 0, 150), file(&scene, 1, 100)];
    let machines = || scene.sides.iter().map(|side| &side.netns);
    let outside = scene.holders()?;
    let inside = Holders::start(machines(), Balanced::GATEWAY.parse()?)?;
    let mut directors = start_both(&scene, &texts)?;
    let both = |side: usize| wait_until(SOON, || outside.now() == [side] && inside.now() == [side]);
    ensure!(both(0), "{:?} and {:?}\n{}", outside.now(), inside.now(), logs(&directors));
    // One client, one server.
    await_answers(&scene, 1, &directors)?;
    let server = scene.client.curl(URL)?;

    for (name, cable) in
        [("outside", Some(&scene.sides[0].outside)), ("inside", scene.sides[0].inside.as_ref())]
    {
        let Some(cable) = cable else { continue };
        let pulled = Instant::now();
        cable.set_link(false)?;
        ensure!(both(1), "{name}: {:?} and {:?}\n{}", outside.now(), inside.now(), logs(&directors));
        measured(&format!("s9_{name}_both_moved_after"), ms(pulled.elapsed()));
        await_answers(&scene, 1, &directors)?;
        ensure!(scene.client.curl(URL)? == server, "{name}: the client has another server");
        cable.set_link(true)?;
        ensure!(both(0), "{name}: {:?} and {:?}\n{}", outside.now(), inside.now(), logs(&directors));
        await_answers(&scene, 1, &directors)?;
        ensure!(scene.client.curl(URL)? == server, "{name}, back: the client has another server");
    }
    let told = || {
        let all = mails.mails();
        all.iter().any(|mail| mail.contains("VRRP1") && mail.contains("MASTER"))
    };
    ensure!(wait_until(SOON, told), "no mail of the group: {:?}\n{}", mails.mails(), logs(&directors));
    let instances = mails.mails().iter().filter(|mail| mail.contains("administrator@example.org")).count();
    ensure!(instances == mails.mails().len(), "{:?}", mails.mails());
    directors.iter_mut().try_for_each(lab::Director::stop)
}
