//! S8: three machines share an address, without real servers: scripts, a TCP port, an interface, and a notify script.

use std::{
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    failover::{Directory, Holders, Instance, Scene, VIP4, toml_file},
    httpd::Server,
    registry::wait_until,
    require_director,
};

use crate::support::{SOON, measured, ms};

const PRIORITIES: [u8; 3] = [150, 120, 100];
const NAME: &str = "VI_8";

/// One of the three, with what can be broken on it.
struct Machine {
    director: Director,
    /// Holds `healthy`, which the script looks for, `notify` and its `log`.
    files: Directory,
    /// The port that is checked.
    service: Option<Server>,
}

#[test]
fn s8_three_machines() -> Result<()> {
    require_director!("s8_three_machines");
    let scene = Scene::new("s8", 3)?;
    let holders = scene.holders(VIP4)?;
    let mut machines = Vec::new();
    for number in 0..3 {
        machines.push(start(&scene, number)?);
    }
    at(&scene, &holders, &machines, 0)?;
    let probe = scene.probe(VIP4)?;
    let begun = Instant::now();

    // The first one's script fails, then the second one's port, then both are well again.
    std::fs::remove_file(machines[0].files.file("healthy"))?;
    at(&scene, &holders, &machines, 1)?;
    machines[1].service = None;
    at(&scene, &holders, &machines, 2)?;
    machines[1].service = Some(Server::start(&scene.machines[1].netns, "service", &[PORT])?);
    at(&scene, &holders, &machines, 1)?;
    machines[0].files.write("healthy", "")?;
    at(&scene, &holders, &machines, 0)?;
    let longest = probe.stop()?.outage(begun);
    measured("s8_longest_outage", ms(longest));

    // The master's own interface.
    scene.machines[0].port.set_link(false)?;
    at(&scene, &holders, &machines, 1)?;
    scene.machines[0].port.set_link(true)?;
    at(&scene, &holders, &machines, 0)?;

    notified(
        &machines[0],
        &["BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER"],
        150,
    )?;
    notified(
        &machines[1],
        &["BACKUP", "MASTER", "FAULT", "BACKUP", "MASTER", "BACKUP", "MASTER", "BACKUP"],
        120,
    )?;
    notified(&machines[2], &["BACKUP", "MASTER", "BACKUP"], 100)?;
    machines.iter_mut().try_for_each(|machine| machine.director.stop())
}

const PORT: u16 = 8080;

fn start(scene: &Scene, number: usize) -> Result<Machine> {
    let machine = &scene.machines[number];
    let files = Directory::new(machine.netns.name(), "files")?;
    files.write("healthy", "")?;
    let log = files.file("log");
    let notify = files.write("notify", &format!("#!/bin/sh\necho \"$@\" >> {}\n", log.display()))?;
    std::fs::set_permissions(&notify, std::fs::Permissions::from_mode(0o755))?;
    let service = Server::start(&machine.netns, "service", &[PORT])?;
    let instance = Instance::ipv4(8, PRIORITIES[number])
        .name(NAME)
        .toml_line(
            "track_scripts = [\"healthy\"]\ntrack_ports = [\"service\"]\ntrack_interfaces = [\"eth0\"]",
        )
        .toml_line(&format!("notify = [\"{}\"]", notify.display()));
    let address = SocketAddr::new(IpAddr::V4(machine.ipv4), PORT);
    let text = format!(
        "{}[[vrrp_script]]\nname = \"healthy\"\ncommand = [\"/usr/bin/test\", \"-e\", \"{}\"]\ninterval = \"500ms\"\n\
         rise = 2\nfall = 2\n\n\
         [[vrrp_track_port]]\nname = \"service\"\naddress = \"{address}\"\ninterval = \"500ms\"\nrise = 2\nfall = 2\n",
        toml_file(machine.netns.name(), &["eth0"], &[instance]),
        files.file("healthy").display()
    );
    let director = Director::start(&machine.netns, &text)?;
    Ok(Machine { director, files, service: Some(service) })
}

/// Waits until the address is on this machine alone, for the client's ARP table too.
fn at(scene: &Scene, holders: &Holders, machines: &[Machine], number: usize) -> Result<()> {
    let mac = format!("02:66:00:00:00:{:02x}", number + 1);
    let logs = || machines.iter().map(|machine| machine.director.log() + "---\n").collect::<String>();
    let moved = wait_until(SOON, || holders.now() == [number]);
    ensure!(moved, "{:?} have the address, not {number} alone\n{}", holders.now(), logs());
    // The client must have talked to it once; afterwards gratuitous ARP keeps its table right.
    let probe = scene.probe(VIP4)?;
    probe.await_answer(scene.machines[number].name, SOON)?;
    let learnt = wait_until(SOON, || scene.neighbour(VIP4).ok().flatten().as_deref() == Some(&mac));
    ensure!(learnt, "the client has {:?} for the address, not {mac}", scene.neighbour(VIP4)?);
    Ok(())
}

/// Fails unless the notify script was run for exactly these states, in this order.
fn notified(machine: &Machine, states: &[&str], priority: u8) -> Result<()> {
    let lines = || -> Vec<String> { machine.files.read("log").lines().map(ToOwned::to_owned).collect() };
    wait_until(Duration::from_secs(5), || lines().len() >= states.len());
    let said = lines();
    let wanted: Vec<String> =
        states.iter().map(|state| format!("INSTANCE {NAME} {state} {priority}")).collect();
    ensure!(said == wanted, "notified of {said:#?}\nshould be {wanted:#?}");
    machine.director.pid().context("it has ended").map(drop)
}
