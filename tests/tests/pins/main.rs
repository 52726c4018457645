//! The pinned data plane without an agent: what one load writes, the next one reads back, whatever happened in between.

mod million;

use std::{
    collections::BTreeSet,
    fs,
    num::NonZeroUsize,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use lab::{bpffs::BpfMount, registry, require_director};
use lb_common::{ABI_VERSION, map_name, server, service::MAX_ROLES};
use lb_userspace::{
    config::{self, Config, Forward, Scheduler, SchedulerFlags, Tunnel},
    dataplane::{
        DataPlane as _,
        xdp::{Pins, XdpPlane, remove_pinned},
    },
    desired::{Server, Service, ServiceId, State},
    reconcile::reconcile,
};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use proptest::{
    prelude::*,
    test_runner::{Config as Cases, TestRunner},
};
use tempfile::TempDir;

/// A place for pins.
struct Place {
    _mount: BpfMount,
    directory: TempDir,
}

impl Place {
    fn new() -> Result<Self> {
        registry::install();
        let name = format!("xd{}-pins-", std::process::id());
        let directory = tempfile::Builder::new().prefix(&name).tempdir()?;
        registry::lock().directories.insert(directory.path().to_owned());
        Ok(Self { _mount: BpfMount::new(directory.path().join("bpf"))?, directory })
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("bpf/director")
    }

    /// Loads the data plane as an agent does, on no interface.
    fn open(&self, config: &Config, wanted: &State) -> Result<XdpPlane> {
        let pins = Pins::open(&self.path()).map_err(anyhow::Error::msg)?;
        XdpPlane::open(config, wanted, false, pins)
    }

    fn attach(&self, plane: &mut XdpPlane) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(plane.attach(&[], config::XdpMode::Auto))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        registry::lock().directories.remove(self.directory.path());
    }
}

fn config(max_connections: u32) -> Config {
    let text = format!("[director]\ninterfaces = [\"lo\"]\nmax_connections = {max_connections}\n");
    config::parse("pins.toml", &text).expect("a good file").0
}

fn bring(plane: &mut XdpPlane, wanted: &State) -> Result<usize> {
    let damaged = plane.damaged(1)?.damaged;
    let operations = reconcile(wanted, &plane.observe(), &damaged);
    for operation in &operations {
        plane.apply(operation)?;
    }
    Ok(operations.len())
}

fn any_state() -> impl Strategy<Value = State> {
    let server = (1u8..9, 0u32..4, any::<bool>(), 0u32..3).prop_map(|(host, weight, is_leaving, upper)| {
        let server = Server {
            address: [10, 0, 0, host].into(),
            port: 80,
            forward: Forward::Nat,
            weight,
            tunnel: Tunnel::IPIP,
            is_leaving: false,
            upper_threshold: upper * 10,
            lower_threshold: upper * 5,
        };
        if is_leaving { server.leaving() } else { server }
    });
    let servers = proptest::collection::vec(server, 0..6).prop_map(|mut servers| {
        let mut seen = BTreeSet::new();
        servers.retain(|server| seen.insert(server.address));
        servers
    });
    let schedulers: Vec<Scheduler> = Scheduler::ALL.iter().copied().filter(|one| one.is_in_xdp()).collect();
    let service = (0..schedulers.len(), servers, any::<[bool; 3]>(), 0u16..3).prop_map(
        move |(scheduler, servers, [expire_nodest, expire_quiescent, flag], role)| {
            let scheduler = schedulers[scheduler];
            let has_flags = matches!(scheduler, Scheduler::Sh | Scheduler::Mh);
            let flags = SchedulerFlags { port: flag && has_flags, fallback: flag && has_flags };
            Service {
                scheduler,
                flags,
                persistence: None,
                one_packet: false,
                expire_nodest,
                expire_quiescent,
                role,
                servers,
            }
        },
    );
    let id = (1u8..6, any::<bool>()).prop_map(|(host, udp)| ServiceId {
        address: [192, 0, 2, host].into(),
        port: 80,
        protocol: if udp { config::Protocol::Udp } else { config::Protocol::Tcp },
    });
    proptest::collection::btree_map(id, service, 0..5)
}

#[test]
fn what_one_load_writes_the_next_one_reads_back() -> Result<()> {
    require_director!("what_one_load_writes_the_next_one_reads_back");
    let place = Place::new()?;
    let config = config(1024);
    let mut runner = TestRunner::new(Cases { cases: 8, failure_persistence: None, ..Cases::default() });
    let states = proptest::collection::vec(any_state(), 1..4);
    runner
        .run(&states, |states| {
            let test = || -> Result<()> {
                for state in &states {
                    let mut plane = place.open(&config, state)?;
                    bring(&mut plane, state)?;
                    ensure!(plane.observe() == *state, "told {state:?}, has {:?}", plane.observe());
                    ensure!(plane.damaged(1)?.damaged.is_empty());
                    place.attach(&mut plane)?;
                    drop(plane);
                    let mut plane = place.open(&config, state)?;
                    ensure!(plane.is_adopted());
                    ensure!(plane.observe() == *state, "wrote {state:?}, read {:?}", plane.observe());
                    ensure!(bring(&mut plane, state)? == 0, "something was left to do");
                    place.attach(&mut plane)?;
                }
                Ok(())
            };
            test().map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
        .map_err(|error| anyhow::anyhow!("{error}"))
}

/// A state of `services` virtual servers with two real servers each.
fn many(services: u16) -> State {
    (0..services)
        .map(|number| {
            let [high, low] = number.to_be_bytes();
            let id =
                ServiceId { address: [192, 0, high, low].into(), port: 80, protocol: config::Protocol::Tcp };
            let server = |net: u8| Server {
                address: [10, net, high, low].into(),
                port: 80,
                forward: Forward::Nat,
                weight: 1,
                tunnel: Tunnel::IPIP,
                is_leaving: false,
                upper_threshold: 0,
                lower_threshold: 0,
            };
            let service = Service {
                scheduler: Scheduler::Rr,
                flags: SchedulerFlags::default(),
                persistence: None,
                one_packet: false,
                expire_nodest: true,
                expire_quiescent: false,
                role: 0,
                servers: vec![server(1), server(2)],
            };
            (id, service)
        })
        .collect()
}

#[test]
fn maps_grow_and_keep_what_they_held() -> Result<()> {
    require_director!("maps_grow_and_keep_what_they_held");
    let place = Place::new()?;
    let config = config(1024);
    let (few, more) = (many(10), many(2000));
    let mut plane = place.open(&config, &few)?;
    bring(&mut plane, &few)?;
    place.attach(&mut plane)?;
    let first: Vec<_> = few.keys().flat_map(|id| plane.servers_of(id)).collect();
    ensure!(!plane.holds(&more, 0)?, "2000 virtual servers fit into the smallest maps");
    let mut grown = place.open(&config, &more)?;
    ensure!(grown.observe() == few, "something was lost on the way");
    let still: Vec<_> = few.keys().flat_map(|id| grown.servers_of(id)).collect();
    ensure!(first == still, "servers have other numbers");
    bring(&mut grown, &more)?;
    place.attach(&mut grown)?;
    drop((plane, grown));
    let mut again = place.open(&config, &more)?;
    ensure!(again.observe() == more && bring(&mut again, &more)? == 0);
    Ok(())
}

/// The same with other roles: the n-th virtual server has `role(n)`.
fn with_roles(mut state: State, role: impl Fn(u16) -> u16) -> State {
    for (number, service) in (0..).zip(state.values_mut()) {
        service.role = role(number);
    }
    state
}

/// A new agent over the same maps, one that needs larger ones, and one with another connection table: none of them takes or
/// gives a role, and what the first has open still switches the last one's program.
#[test]
fn roles_outlive_every_change_of_the_maps() -> Result<()> {
    require_director!("roles_outlive_every_change_of_the_maps");
    let place = Place::new()?;
    let state = with_roles(many(4), |number| number % 3);
    let mut plane = place.open(&config(1024), &state)?;
    bring(&mut plane, &state)?;
    let is_on = |plane: &XdpPlane| [0, 1, 2, 3].map(|role| plane.is_role_on(role));
    ensure!(is_on(&plane) == [true, false, false, false], "a new data plane has {:?}", is_on(&plane));
    let roles = plane.roles();
    roles.set(1, true);
    roles.set(3, true);
    roles.set(3, false);
    ensure!(is_on(&plane) == [true, true, false, false]);
    ensure!(bring(&mut plane, &state)? == 0, "a role is no part of what is compared");
    place.attach(&mut plane)?;
    drop(plane);

    let mut again = place.open(&config(1024), &state)?;
    ensure!(again.is_adopted() && again.observe() == state && is_on(&again) == [true, true, false, false]);
    place.attach(&mut again)?;

    let more = with_roles(many(2000), |number| number % 5);
    ensure!(!again.holds(&more, 0)?, "2000 virtual servers fit into the smallest maps");
    let mut grown = place.open(&config(1024), &more)?;
    ensure!(grown.observe() == state && is_on(&grown) == [true, true, false, false]);
    // VRRP goes on while the agent is busy with that.
    roles.set(2, true);
    bring(&mut grown, &more)?;
    place.attach(&mut grown)?;
    drop(again);
    ensure!(grown.observe() == more && is_on(&grown) == [true, true, true, false]);

    let mut another = place.open(&config(4096), &more)?;
    place.attach(&mut another)?;
    drop(grown);
    roles.set(1, false);
    ensure!(is_on(&another) == [true, false, true, false]);
    Ok(())
}

/// The guard's way: the map by its descriptor, mapped into memory as anybody can.
#[test]
fn the_map_of_roles_works_without_the_data_plane() -> Result<()> {
    require_director!("the_map_of_roles_works_without_the_data_plane");
    let place = Place::new()?;
    let (config, state) = (config(1024), many(1));
    let mut plane = place.open(&config, &state)?;
    bring(&mut plane, &state)?;
    place.attach(&mut plane)?;
    let roles = plane.roles();
    roles.set(7, true);
    let map = roles.map().context("the data plane is pinned")?;
    drop((plane, roles));
    let bytes = NonZeroUsize::new(MAX_ROLES as usize * size_of::<u64>()).context("some roles")?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let words = unsafe { mmap(None, bytes, protection, MapFlags::MAP_SHARED, &map, 0) }?.cast::<AtomicU64>();
    // SAFETY: eight of the words just mapped, shared by atomic access only.
    let word = |role: usize| unsafe { words.add(role).as_ref() };
    ensure!(word(7).load(SeqCst) != 0 && word(6).load(SeqCst) == 0);
    word(7).store(0, SeqCst);
    word(6).store(1, SeqCst);
    // SAFETY: the mapping made above, which nobody uses any more.
    unsafe { munmap(words.cast(), bytes.get()) }?;
    let plane = place.open(&config, &state)?;
    ensure!(plane.is_role_on(6) && !plane.is_role_on(7));
    Ok(())
}

#[test]
fn a_data_plane_that_is_not_pinned_has_no_map_for_others() -> Result<()> {
    require_director!("a_data_plane_that_is_not_pinned_has_no_map_for_others");
    let plane = XdpPlane::load(&config(1024), &many(1), false)?;
    let roles = plane.roles();
    ensure!(roles.map().is_none());
    // Numbers that no virtual server can have change nothing.
    roles.set(0, false);
    roles.set(u16::MAX, true);
    ensure!(plane.is_role_on(0) && !plane.is_role_on(u16::MAX) && !plane.is_role_on(1));
    Ok(())
}

/// Connections of servers that were taken out wait for the role that their virtual server has now.
#[test]
fn servers_that_were_taken_out_follow_a_change_of_roles() -> Result<()> {
    require_director!("servers_that_were_taken_out_follow_a_change_of_roles");
    let place = Place::new()?;
    let config = config(1024);
    let before = with_roles(many(3), |_| 1);
    let mut plane = place.open(&config, &before)?;
    bring(&mut plane, &before)?;
    let (id, service) = before.iter().nth(1).context("three virtual servers")?;
    let number = plane.servers_of(id).next().context("two real servers")?.1;
    let mut after = before.clone();
    after.insert(*id, Service { role: 2, servers: vec![service.servers[1]], ..service.clone() });
    ensure!(bring(&mut plane, &after)? == 1);
    ensure!(plane.gone_number(&service.servers[0].id(*id), Forward::Nat) == Some(number));
    let map = place.path().join(format!("v{ABI_VERSION}/1/maps/{}", map_name::SERVERS));
    let entries: Array<_, server::Server> = Array::try_from(Map::Array(MapData::from_pin(map)?))?;
    let role = |number: u32| anyhow::Ok(entries.get(&number, 0)?.role);
    ensure!(role(number)? == 2, "the server that was taken out has role {}", role(number)?);
    let stays = plane.servers_of(id).next().context("a real server")?.1;
    ensure!(role(stays)? == 2);
    for other in before.keys().filter(|other| *other != id) {
        for (_, number) in plane.servers_of(other) {
            ensure!(role(number)? == 1);
        }
    }
    Ok(())
}

#[test]
fn an_unfinished_generation_is_removed_and_the_finished_one_stays() -> Result<()> {
    require_director!("an_unfinished_generation_is_removed_and_the_finished_one_stays");
    let place = Place::new()?;
    let config = config(1024);
    let state = many(3);
    let mut plane = place.open(&config, &state)?;
    bring(&mut plane, &state)?;
    place.attach(&mut plane)?;
    drop(plane);
    // An agent that dies before it attaches.
    drop(place.open(&config, &state)?);
    let generations = || -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(place.path().join(format!("v{ABI_VERSION}")))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.retain(|name| name.parse::<u64>().is_ok());
        names.sort();
        Ok(names)
    };
    ensure!(generations()? == ["1", "2"], "{:?}", generations()?);
    let mut plane = place.open(&config, &state)?;
    ensure!(plane.is_adopted() && plane.observe() == state);
    place.attach(&mut plane)?;
    ensure!(generations()?.len() == 1, "{:?}", generations()?);
    drop(plane);
    ensure!(remove_pinned(&place.path())? && !place.path().exists());
    ensure!(!remove_pinned(&place.path())?, "there was nothing left to remove");
    Ok(())
}

#[test]
fn maps_that_are_not_what_they_should_be_are_not_taken() -> Result<()> {
    require_director!("maps_that_are_not_what_they_should_be_are_not_taken");
    let place = Place::new()?;
    let config = config(1024);
    let state = many(3);
    let mut plane = place.open(&config, &state)?;
    bring(&mut plane, &state)?;
    place.attach(&mut plane)?;
    drop(plane);
    let maps = place.path().join(format!("v{ABI_VERSION}/1/maps"));
    // Another map of the same place: as if another version had made it.
    fs::rename(maps.join("SLOTS"), maps.join("OTHER")).context("the pins are ours")?;
    fs::rename(maps.join("COUNTERS"), maps.join("SLOTS"))?;
    let plane = place.open(&config, &state)?;
    ensure!(!plane.is_adopted() && plane.observe().is_empty());
    Ok(())
}
