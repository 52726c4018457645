//! The pinned data plane without an agent: what one load writes, the next one reads back, whatever happened in between.

mod million;

use std::{collections::BTreeSet, fs, path::PathBuf};

use anyhow::{Context as _, Result, ensure};
use lab::{bpffs::BpfMount, registry, require_director};
use lb_userspace::{
    config::{self, Config, Forward, Scheduler, SchedulerFlags},
    dataplane::{
        DataPlane as _,
        xdp::{Pins, XdpPlane, remove_pinned},
    },
    desired::{Server, Service, ServiceId, State},
    reconcile::reconcile,
};
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
    let service = (0..Scheduler::ALL.len(), servers, any::<[bool; 3]>()).prop_map(
        |(scheduler, servers, [expire_nodest, expire_quiescent, flag])| {
            let scheduler = Scheduler::ALL[scheduler];
            let has_flags = matches!(scheduler, Scheduler::Sh | Scheduler::Mh);
            let flags = SchedulerFlags { port: flag && has_flags, fallback: flag && has_flags };
            Service { scheduler, flags, expire_nodest, expire_quiescent, servers }
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
                is_leaving: false,
                upper_threshold: 0,
                lower_threshold: 0,
            };
            let service = Service {
                scheduler: Scheduler::Rr,
                flags: SchedulerFlags::default(),
                expire_nodest: true,
                expire_quiescent: false,
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
    ensure!(!plane.holds(&more)?, "2000 virtual servers fit into the smallest maps");
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
        for entry in fs::read_dir(place.path().join(format!("v{}", lb_common::ABI_VERSION)))? {
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
    let maps = place.path().join(format!("v{}/1/maps", lb_common::ABI_VERSION));
    // Another map of the same place: as if another version had made it.
    fs::rename(maps.join("SLOTS"), maps.join("OTHER")).context("the pins are ours")?;
    fs::rename(maps.join("COUNTERS"), maps.join("SLOTS"))?;
    let plane = place.open(&config, &state)?;
    ensure!(!plane.is_adopted() && plane.observe().is_empty());
    Ok(())
}
