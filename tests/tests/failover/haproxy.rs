//! S7: two directors in front of HAProxy. A script looks whether it lives, and moves the address when it does not. The same with
//! keepalived, which shows that the scene is right.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director, Netns,
    failover::{
        Directory, Haproxy, Instance, Keepalived, Kind, Router, Scene, VIP4, keepalived_file,
        missing_program, toml_file,
    },
    registry::wait_until,
    require_routers, requirements,
};

use crate::support::{SOON, measured, ms};

#[test]
fn lab_s7_haproxy_with_keepalived() -> Result<()> {
    require_routers!("lab_s7_haproxy_with_keepalived", Kind::Keepalived);
    s7("lab_s7_haproxy_with_keepalived", "s7-ka", keepalived)
}

#[test]
fn s7_haproxy() -> Result<()> {
    require_routers!("s7_haproxy", Kind::Xdirector);
    s7("s7_haproxy", "s7", xdirector)
}

/// How a program is started on a machine with a script and its instance.
type Start = fn(&Netns, &str, Instance) -> Result<Box<dyn Router>>;

fn keepalived(netns: &Netns, script: &str, instance: Instance) -> Result<Box<dyn Router>> {
    let instance = instance.keepalived_line("track_script {\n        haproxy\n    }");
    let mut text = String::new();
    let _ = write!(
        text,
        "vrrp_script haproxy {{\n    script \"{script}\"\n    interval 1\n    weight 2\n    rise 2\n    fall 2\n}}\n"
    );
    let text = keepalived_file("s7", &[]) + &text + &instance.to_keepalived();
    Ok(Box::new(Keepalived::start_with(netns, &text, 1)?))
}

fn xdirector(netns: &Netns, script: &str, instance: Instance) -> Result<Box<dyn Router>> {
    let instance = instance.toml_line("track_scripts = [{ name = \"haproxy\", weight = 2 }]");
    let text = format!(
        "{}[[vrrp_script]]\nname = \"haproxy\"\ncommand = [\"{script}\"]\ninterval = \"1s\"\nrise = 2\nfall = 2\n",
        toml_file(netns.name(), &["eth0"], &[instance])
    );
    Ok(Box::new(lab::failover::Xdirector { director: Director::start(netns, &text)? }))
}

fn s7(name: &str, label: &str, start: Start) -> Result<()> {
    if let Some(why) = missing_program("haproxy") {
        requirements::say_skipped(name, &why);
        return Ok(());
    }
    let scene = Scene::new(label, 2)?;
    let holders = scene.holders(VIP4)?;
    let (mut servers, mut scripts, mut routers) = (Vec::new(), Vec::new(), Vec::new());
    for (machine, priority) in scene.machines.iter().zip([101, 100]) {
        // Both are bound to the address that only one has.
        machine.netns.sysctl(&[("ipv4/ip_nonlocal_bind", "1")])?;
        let haproxy = Haproxy::start(&machine.netns, &haproxy_file(machine.name))?;
        let (directory, script) = look_script(&machine.netns, &haproxy)?;
        routers.push(start(&machine.netns, &script, Instance::ipv4(50, priority))?);
        servers.push(haproxy);
        scripts.push(directory);
    }
    let page = || scene.client.curl(&format!("http://{VIP4}/"));
    let await_page = |number: usize| -> Result<()> {
        let node = scene.machines[number].name;
        let shown =
            wait_until(SOON, || holders.now() == [number] && page().is_ok_and(|page| page.contains(node)));
        let logs: String = logs(&routers);
        ensure!(shown, "{:?} have the address, and the page is not {node}'s\n{logs}", holders.now());
        Ok(())
    };
    await_page(0)?;
    let killed = Instant::now();
    servers[0].kill()?;
    await_page(1).context("the master's HAProxy is dead")?;
    measured(&format!("{label}_moved_after"), ms(killed.elapsed()));
    servers[0].restart()?;
    await_page(0).context("it is back")?;
    // The backup's does not matter to the master.
    servers[1].kill()?;
    std::thread::sleep(Duration::from_secs(3));
    await_page(0)?;
    drop(scripts);
    routers.iter_mut().try_for_each(|router| router.stop())
}

/// Its statistics page, which names the node.
fn haproxy_file(node: &str) -> String {
    format!(
        "global\n node {node}\ndefaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n\
         listen stats\n bind {VIP4}:80\n stats enable\n stats uri /\n stats show-node {node}\n"
    )
}

/// As `killall -0 haproxy`, for one of several on this machine.
fn look_script(netns: &Netns, haproxy: &Haproxy) -> Result<(Directory, String)> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = Directory::new(netns.name(), "script")?;
    let pid = haproxy.pid_file();
    let file = directory.write("look", &format!("#!/bin/sh\nkill -0 \"$(cat {})\"\n", pid.display()))?;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755))?;
    let path = file.to_str().context("not UTF-8")?.to_owned();
    Ok((directory, path))
}

fn logs(routers: &[Box<dyn Router>]) -> String {
    routers.iter().map(|router| router.log() + "---\n").collect()
}
