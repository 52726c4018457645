//! Files that are not taken: nothing changes, and the message says why.

use std::{fs, net::TcpListener};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director, Load,
    load::Options as LoadOptions,
    registry::wait_until,
    require_director,
    topology::{self, Options},
};
use nix::sys::signal::Signal;

use crate::{
    common::{SOON, wait_for_event, wait_for_status, web},
    support::{configuration, status},
};

#[test]
fn a_wrong_file_changes_nothing() -> Result<()> {
    require_director!("a_wrong_file_changes_nothing");
    let scene = topology::nat(&Options::new("refuse"))?;
    let good = configuration(&scene).serve(&web(&scene, &[1, 1, 1])).text().to_owned();
    let mut director = Director::start(&scene.director, &good)?;
    let load = Load::start(scene.client(), topology::vip4(80), LoadOptions::default())?;
    let before = status(&director)?;

    let bad = good.replace("\"rr\"", "\"round-robin\"").replace("weight = 1", "weight = 70000");
    let at = |word: &str| bad.lines().position(|line| line.contains(word)).map(|line| line + 1);
    director.write_configuration(&bad)?;
    director.signal(Signal::SIGHUP)?;
    let after = wait_for_status(&director, "a failed reload", |status| status.work.reloads_failed == 1)?;
    let last = after.configuration.last_reload.clone().context("no last reload")?;
    ensure!(!last.succeeded, "{last:?}");
    let ordered = director.output(&["reload"])?;
    ensure!(ordered.status.code() == Some(1), "{ordered:?}");
    let printed = String::from_utf8(ordered.stderr)?;
    for said in [&last.message, &printed, &director.log()] {
        for (word, parts) in [
            ("round-robin", ["scheduler", "\"round-robin\"", "wlc"]),
            ("70000", ["weight", "70000", "65535"]),
        ] {
            let place = format!("xdirector.toml:{}:", at(word).context("it is in the file")?);
            let line = said
                .lines()
                .find(|line| line.contains(&place))
                .with_context(|| format!("{place}\n{said}"))?;
            // Numbers may be written with separators.
            let plain = line.replace([',', '_'], "");
            ensure!(parts.iter().all(|part| plain.contains(part)), "{line}");
        }
    }
    wait_for_event(&director, "configuration", "nothing has changed")?;
    ensure!(director.command(&["status"])?.contains("round-robin"), "{}", director.command(&["status"])?);
    let after = status(&director)?;
    ensure!(
        after.work.reloads_failed == 2 && after.work.operations == before.work.operations,
        "{:?}",
        after.work
    );
    ensure!(after.configuration.loaded_at == before.configuration.loaded_at);

    director.write_configuration(&good.replace("\"rr\"", "\"lc\""))?;
    director.signal(Signal::SIGHUP)?;
    wait_for_status(&director, "reloaded", |status| {
        status.work.reloads_succeeded == 1
            && status.virtual_servers[0].scheduler == "lc"
            && status.configuration.last_reload.as_ref().is_some_and(|last| last.succeeded)
    })?;
    load.stop().ensure_clean()?;
    director.stop()
}

#[test]
fn what_cannot_be_put_into_force_changes_nothing() -> Result<()> {
    require_director!("what_cannot_be_put_into_force_changes_nothing");
    let scene = topology::nat(&Options::new("force"))?;
    // A bridge takes no program in its driver, for it has none.
    scene.director.ip(["link add br9 type bridge", "link set br9 up"])?;
    let good = configuration(&scene)
        .lines("xdp_mode = \"native\"")
        .serve(&web(&scene, &[1, 1, 1]))
        .text()
        .to_owned();
    let mut director = Director::start(&scene.director, &good)?;
    let load = Load::start(scene.client(), topology::vip4(80), LoadOptions::default())?;
    let before = status(&director)?;
    let taken = scene.director.enter(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let listen = format!("\n[metrics]\nlisten = \"{}\"\n", taken.local_addr()?);
    let fewer = good.replace("192.168.1.103:80", "192.168.1.104:80");
    let instance = good.lines().find(|line| line.starts_with("instance")).context("no instance")?;
    let cases = [
        (fewer.replace("\"eth1\"]", "\"eth1\", \"eth9\"]"), ["eth9", "does not exist"]),
        (fewer.replace("\"eth1\"]", "\"eth1\", \"br9\"]"), ["br9", "cannot run XDP in its driver"]),
        (fewer.replace(instance, "instance = \"other\""), ["director.instance", "\"other\""]),
        (format!("{fewer}{listen}"), ["metrics.listen", "in use"]),
    ];
    for (number, (text, words)) in (1..).zip(&cases) {
        director.write_configuration(text)?;
        let refused = director.output(&["reload"])?;
        let said = String::from_utf8(refused.stderr)?;
        ensure!(refused.status.code() == Some(1), "{said}");
        ensure!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
        let now = status(&director)?;
        ensure!(
            now.work.reloads_failed == number && now.work.operations == before.work.operations,
            "{:?}",
            now.work
        );
        ensure!(
            now.virtual_servers[0]
                .real_servers
                .iter()
                .all(|one| one.address.to_string() != "192.168.1.104:80")
        );
        ensure!(now.interfaces.len() == 2, "{:?}", now.interfaces);
        for device in scene.interfaces {
            ensure!(scene.director.xdp(device)?.is_some(), "the program is off {device}");
        }
        load.wait_for(5)?;
    }
    fs::remove_file(director.configuration())?;
    let refused = director.output(&["reload"])?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(1) && said.contains("xdirector.toml"), "{said}");
    director.reload(&good.replace("weight = 1", "weight = 2"))?;
    let now = wait_until(SOON, || {
        status(&director).is_ok_and(|it| it.virtual_servers[0].real_servers[0].weight == 2)
    });
    ensure!(now, "{:?}", status(&director)?);
    load.stop().ensure_clean()?;
    director.stop()
}
