//! From one data plane to the other, while clients are served.

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director, Load,
    dataplane::with,
    load::Options as LoadOptions,
    registry::wait_until,
    require_ipvs,
    topology::{self, Mode, Options},
};

use super::{
    common::{SOON, web},
    ensure_is, ipvsadm,
    support::{configuration, ensure_in_turn, fill, forward},
};

/// New connections are never refused, and the old ones go on in the data plane where they began.
#[test]
fn a_reload_exchanges_the_data_plane_under_load() -> Result<()> {
    require_ipvs!("a_reload_exchanges_the_data_plane_under_load");
    for mode in [Mode::Nat, Mode::Dr] {
        let scene = topology::build(mode, &Options::new(&format!("swap-{}", forward(mode))))?;
        let web = web(&scene, &[1, 1, 1]);
        let file = configuration(&scene)
            .lines("[timeouts]\ntcp = \"60s\"\ntcp_fin = \"2s\"")
            .serve(&web.forward(forward(mode)));
        let (xdp, ipvs) = (with(file.text(), "xdp"), with(file.text(), "ipvs"));
        let mut director = Director::start(&scene.director, &xdp)?;
        let load = Load::start(
            scene.client(),
            topology::vip4(80),
            LoadOptions { held: 4, ..LoadOptions::default() },
        )?;
        for (text, dataplane) in [(&ipvs, "ipvs"), (&xdp, "xdp"), (&ipvs, "ipvs"), (&xdp, "xdp")] {
            director.reload(text)?;
            ensure_is(&director, dataplane)?;
            ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 1)?, 1)?;
        }
        let before = scene.client().connect(topology::vip4(80))?;
        director.reload(&ipvs)?;
        load.stop().ensure_clean().with_context(|| format!("{mode:?}\n{}", director.log()))?;
        // XDP stays for as long as it has connections.
        ensure!(scene.director.xdp("eth0")?.is_some(), "the program has left its connections");
        drop(before);
        let gone = wait_until(SOON * 3, || scene.director.xdp("eth0").is_ok_and(|program| program.is_none()));
        ensure!(gone, "XDP's program stays:\n{}", director.log());
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
        director.reload(&xdp)?;
        let gone = wait_until(SOON * 3, || ipvsadm(&scene, &["-Sn"]).is_ok_and(|left| left.is_empty()));
        ensure!(gone, "IPVS's services stay:\n{}\n{}", ipvsadm(&scene, &["-Sn"])?, director.log());
        director.stop()?;
    }
    Ok(())
}

#[test]
fn auto_takes_xdp_where_it_can_and_says_why_where_not() -> Result<()> {
    require_ipvs!("auto_takes_xdp_where_it_can_and_says_why_where_not");
    let scene = topology::nat(&Options::new("auto"))?;
    let web = web(&scene, &[1, 1, 1]);
    let auto = with(configuration(&scene).serve(&web).text(), "auto");
    let mut director = Director::start(&scene.director, &auto)?;
    ensure_is(&director, "xdp")?;
    // By order, until the next reload.
    director.command(&["dataplane", "set", "ipvs"])?;
    ensure_is(&director, "ipvs")?;
    director.reload(&auto)?;
    ensure_is(&director, "xdp")?;
    // And because the file asks for what XDP does not have.
    let sed = auto.replace("scheduler = \"rr\"", "scheduler = \"sed\"");
    director.reload(&sed)?;
    ensure_is(&director, "ipvs")?;
    let refused = director.command(&["dataplane", "set", "xdp"]).err().map(|error| error.to_string());
    ensure!(refused.is_some_and(|text| text.contains("XDP has no scheduler")), "it should be refused");
    ensure_is(&director, "ipvs")?;
    scene.client().curl("http://192.168.10.50/")?;
    director.command(&["stop", "--detach"])?;
    director.stop()?;

    let reason = |director: &Director| -> Result<String> {
        Ok(director.status()?["dataplane_reason"].as_str().unwrap_or_default().to_owned())
    };
    // What XDP does not have.
    let persistent = fill(web.clone(), &scene, false, 80, &[]).line("persistence_timeout = \"1m\"");
    let text = with(configuration(&scene).serve(&persistent).text(), "auto");
    let mut director = Director::start(&scene.director, &text)?;
    ensure_is(&director, "ipvs")?;
    ensure!(reason(&director)? == "virtual server \"web\": XDP has no persistence", "{}", reason(&director)?);
    ensure!(
        director.log().contains("the data plane is IPVS, since XDP cannot run here"),
        "{}",
        director.log()
    );
    scene.client().curl("http://192.168.10.50/")?;
    director.command(&["stop", "--detach"])?;
    director.stop()?;

    // Where XDP cannot be attached.
    let missing = auto.replace("\"eth1\"", "\"eth1\", \"eth7\"");
    let mut director = Director::start(&scene.director, &missing)?;
    ensure_is(&director, "ipvs")?;
    ensure!(reason(&director)?.contains("eth7"), "{}", reason(&director)?);
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
    let said = director.command(&["status"])?;
    ensure!(said.contains("Data plane   ipvs of the kernel\n") && said.contains("eth7"), "{said}");
    director.stop()
}

/// What an earlier agent with the other data plane has left does not stay.
#[test]
fn a_start_with_the_other_data_plane_takes_over() -> Result<()> {
    require_ipvs!("a_start_with_the_other_data_plane_takes_over");
    let scene = topology::nat(&Options::new("other"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::start(&scene.director, &with(file.text(), "xdp"))?;
    director.kill()?;
    ensure!(scene.director.xdp("eth0")?.is_some(), "a killed agent's program goes on");
    director.write_configuration(&with(file.text(), "ipvs"))?;
    director.restart()?;
    ensure!(scene.director.xdp("eth0")?.is_none(), "XDP's program is still there");
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
    director.kill()?;
    director.write_configuration(&with(file.text(), "xdp"))?;
    director.restart()?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
    let gone = wait_until(SOON * 2, || ipvsadm(&scene, &["-Sn"]).is_ok_and(|left| left.is_empty()));
    ensure!(gone, "IPVS's services stay:\n{}", ipvsadm(&scene, &["-Sn"])?);
    director.stop()
}
