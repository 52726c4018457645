//! Somebody else changes what is in the kernel: it is put right.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, HashMap, Map, MapData};
use lab::{
    Director,
    configuration::VirtualServer,
    registry::wait_until,
    require_director,
    topology::{self, Options, Scene},
};
use lb_common::{
    Addr, Port, map_name,
    server::{Load, Server},
    service::{Service, ServiceKey, Slot},
};

use crate::{
    common::{SOON, wait_for_event, web},
    support::{configuration, fill, status},
};

/// A pinned map, as any other program would open it.
fn open(director: &Director, name: &str) -> Result<MapData> {
    let version = director.pins().join(format!("v{}", lb_common::ABI_VERSION));
    let path = fs::read_dir(&version)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find_map(|path: PathBuf| Some(path.join("maps").join(name)).filter(|map| map.exists()))
        .with_context(|| format!("no {name} in {}", version.display()))?;
    Ok(MapData::from_pin(path)?)
}

/// A pinned hash map.
fn hash<V: aya::Pod>(director: &Director, name: &str) -> Result<HashMap<MapData, ServiceKey, V>> {
    Ok(HashMap::try_from(Map::HashMap(open(director, name)?))?)
}

/// The same, of an array.
pub fn array<V: aya::Pod>(director: &Director, name: &str) -> Result<Array<MapData, V>> {
    Ok(Array::try_from(Map::Array(open(director, name)?))?)
}

fn vip(port: u16) -> ServiceKey {
    ServiceKey::new(Addr::from_ip(topology::VIP4.into()), Port::from_number(port), 6)
}

fn scene(label: &str) -> Result<(Scene, Director)> {
    let scene = topology::nat(&Options::new(label))?;
    let other = fill(VirtualServer::tcp("other", topology::vip4(8080)), &scene, false, 8080, &[1, 1, 1]);
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1])).serve(&other);
    let director = Director::start(&scene.director, file.text())?;
    Ok((scene, director))
}

fn ensure_serves(scene: &Scene, what: &str) -> Result<()> {
    for port in [80, 8080] {
        let counts = scene.client().http_counts(topology::vip4(port), 6).context(what.to_owned())?;
        ensure!(counts.values().all(|count| *count == 2), "{what}: {counts:?}");
    }
    Ok(())
}

#[test]
fn a_reload_puts_right_what_somebody_has_changed() -> Result<()> {
    require_director!("a_reload_puts_right_what_somebody_has_changed");
    let (scene, mut director) = scene("drift-now")?;
    let held = scene.client().connect(topology::vip4(80))?;
    let numbers: Vec<u32> = {
        let servers = array::<Server>(&director, map_name::SERVERS)?;
        (0..servers.len())
            .filter(|number| servers.get(number, 0).is_ok_and(|one| one.forwarding != 0))
            .collect()
    };
    ensure!(numbers.len() == 6, "{numbers:?}");
    let damages: [(&str, &dyn Fn() -> Result<()>); 7] = [
        ("a virtual server is deleted", &|| {
            Ok(hash::<Service>(&director, map_name::SERVICES)?.remove(&vip(80))?)
        }),
        ("a virtual server is changed", &|| {
            let mut map = hash::<Service>(&director, map_name::SERVICES)?;
            let entry = map.get(&vip(80), 0)?;
            Ok(map.insert(vip(80), Service { slots_len: 1, ..entry }, 0)?)
        }),
        ("slots are cleared", &|| {
            let mut map = array::<Slot>(&director, map_name::SLOTS)?;
            let none = map.get(&(map.len() - 1), 0)?;
            (0..64).try_for_each(|slot| Ok(map.set(slot, none, 0)?))
        }),
        ("a real server is cleared", &|| {
            let mut map = array::<Server>(&director, map_name::SERVERS)?;
            let entry = map.get(&numbers[1], 0)?;
            Ok(map.set(numbers[1], Server { forwarding: 0, ..entry }, 0)?)
        }),
        ("a next hop is cleared", &|| {
            let mut map = array::<Server>(&director, map_name::SERVERS)?;
            let entry = map.get(&numbers[0], 0)?;
            Ok(map.set(numbers[0], Server { next_hop: Default::default(), ..entry }, 0)?)
        }),
        ("a weight is changed", &|| {
            let mut map = array::<Load>(&director, map_name::LOADS)?;
            let entry = map.get(&numbers[2], 0)?;
            Ok(map.set(numbers[2], Load { weight: 77, ..entry }, 0)?)
        }),
        ("a way back is deleted", &|| {
            let key = ServiceKey::new(Addr::from_ip(scene.servers[0].ipv4.into()), Port::from_number(80), 6);
            Ok(hash::<u32>(&director, map_name::NAT_SERVERS)?.remove(&key)?)
        }),
    ];
    for (what, damage) in damages {
        let before = status(&director)?.work.repairs;
        damage().context(what)?;
        director.command(&["reload"])?;
        let repairs = status(&director)?.work.repairs;
        ensure!(repairs > before, "{what}: nothing was put right");
        ensure_serves(&scene, what)?;
    }
    ensure!(status(&director)?.work.operations_failed == 0);
    let held = status(&director)?.virtual_servers[0].active > 0 && held.peer_addr().is_ok();
    ensure!(held, "the connection that was there is not counted any more");
    director.stop()
}

#[test]
fn a_real_server_of_two_virtual_servers_stays_known() -> Result<()> {
    require_director!("a_real_server_of_two_virtual_servers_stays_known");
    let scene = topology::nat(&Options::new("shared"))?;
    let other = fill(VirtualServer::tcp("other", topology::vip4(8080)), &scene, false, 80, &[1, 1, 1]);
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let both = file.clone().serve(&other.line("on_remove = \"drop\""));
    let mut director = Director::start(&scene.director, both.text())?;
    // Whichever of the two goes: the way back that they share stays for the other.
    for text in [file.text(), both.text(), &both.text().replace("192.168.10.50:80\"", "192.168.10.50:81\"")] {
        director.reload(text)?;
        let map = hash::<u32>(&director, map_name::NAT_SERVERS)?;
        let servers = array::<Server>(&director, map_name::SERVERS)?;
        for server in &scene.servers {
            let (addr, port) = (Addr::from_ip(server.ipv4.into()), Port::from_number(80));
            let number = map.get(&ServiceKey::new(addr, port, 6), 0).context("no way back")?;
            let entry = servers.get(&number, 0)?;
            ensure!(
                entry.addr == addr && entry.flags & lb_common::server::server_flag::GONE == 0,
                "{entry:?}"
            );
        }
        director.command(&["reload"])?;
        ensure!(status(&director)?.work.repairs == 0, "{}", director.log());
    }
    director.stop()
}

#[test]
fn the_audit_puts_right_what_somebody_has_changed() -> Result<()> {
    require_director!("the_audit_puts_right_what_somebody_has_changed");
    let (scene, mut director) = scene("drift-soon")?;
    let mut services = hash::<Service>(&director, map_name::SERVICES)?;
    let entry = services.get(&vip(80), 0)?;
    services.remove(&vip(8080))?;
    services.insert(vip(9999), entry, 0)?;
    let links = director.pins().join(format!("v{}/links", lb_common::ABI_VERSION));
    fs::remove_file(links.join("eth0"))?;
    ensure!(wait_until(SOON, || scene.director.xdp("eth0").is_ok_and(|mode| mode.is_none())));
    let again = wait_until(SOON, || {
        scene.director.xdp("eth0").is_ok_and(|mode| mode.is_some()) && links.join("eth0").exists()
    });
    ensure!(again, "the program is not attached again: {}", director.log());
    wait_for_event(&director, "other", "put right")?;
    let gone = wait_until(SOON, || services.get(&vip(9999), 0).is_err());
    ensure!(gone, "the stranger's virtual server is still there");
    ensure!(director.log().contains("somebody else had put into the map"), "{}", director.log());
    ensure_serves(&scene, "after the audit")?;
    director.stop()
}
