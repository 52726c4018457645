//! What xdirector stands on is missing, full or not writable.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director, registry, require_director,
    topology::{self, Options},
};
use nix::mount::{MsFlags, mount};

use crate::{
    common::{address, real, web},
    support::{configuration, ensure_in_turn, status},
};

/// A file system of its own in memory.
struct Memory(PathBuf);

impl Memory {
    /// With room for one page, which `content` takes.
    fn full(path: &Path) -> Result<Self> {
        let memory = Self::new(path, MsFlags::empty())?;
        fs::write(path.join("content"), vec![0; 4096])?;
        Ok(memory)
    }

    fn read_only(path: &Path) -> Result<Self> {
        Self::new(path, MsFlags::MS_RDONLY)
    }

    fn new(path: &Path, flags: MsFlags) -> Result<Self> {
        fs::create_dir(path)?;
        mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("size=4096"))
            .with_context(|| format!("cannot mount {}", path.display()))?;
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        registry::unmount(&self.0);
    }
}

#[test]
fn without_a_bpf_file_system_it_serves_and_says_what_is_missing() -> Result<()> {
    require_director!("without_a_bpf_file_system_it_serves_and_says_what_is_missing");
    let scene = topology::nat(&Options::new("nobpffs"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::prepared(&scene.director, file.text())?;
    let plain = director.directory().join("plain");
    director.set_environment("XDIRECTOR_PINS", &plain);
    director.restart()?;
    let log = director.log();
    ensure!(log.contains("WARN") && log.contains("nothing is pinned"), "{log}");
    let persistence = status(&director)?.persistence;
    let reason = persistence.reason.context("no reason")?;
    ensure!(persistence.pins.is_none() && reason.contains("BPF file system"), "{reason}");
    let table = director.command(&["status"])?;
    ensure!(table.contains("Pinned       nothing: "), "{table}");
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;

    director.reload(configuration(&scene).serve(&web(&scene, &[1, 1])).text())?;
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 4)?, 2)?;
    director.write_configuration(file.clone().lines("\n[timeouts]\ntcp = \"700s\"").text())?;
    let refused = director.output(&["reload"])?;
    let said = String::from_utf8(refused.stderr)?;
    ensure!(refused.status.code() == Some(1) && said.contains("without pins"), "{said}");
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 4)?, 2)?;
    director.stop()?;
    ensure!(director.log().contains("packets are not forwarded any more"), "{}", director.log());
    for device in scene.interfaces {
        ensure!(scene.director.xdp(device)?.is_none(), "the program is left on {device}");
    }
    ensure!(!plain.exists());
    Ok(())
}

#[test]
fn orders_that_cannot_be_kept_are_followed() -> Result<()> {
    require_director!("orders_that_cannot_be_kept_are_followed");
    let scene = topology::nat(&Options::new("stateless"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::prepared(&scene.director, file.text())?;
    let (full, sealed) = (director.directory().join("full"), director.directory().join("sealed"));
    let _mounts = (Memory::full(&full)?, Memory::read_only(&sealed)?);
    let third = address(&scene, 2);
    for (state, reason) in [(&full, "No space left"), (&sealed, "Read-only file system")] {
        director.set_environment("XDIRECTOR_STATE", state);
        director.restart()?;
        let ordered = director.output(&["disable", &third])?;
        let said = String::from_utf8_lossy(&ordered.stderr).into_owned();
        ensure!(ordered.status.success() && said.contains(reason), "{ordered:?}");
        ensure!(director.log().contains("will not survive a restart"), "{}", director.log());
        ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 4)?, 2)?;
        director.stop()?;
    }
    // A file of something else costs the orders, not the service.
    let state = director.directory().join("state");
    fs::create_dir_all(&state)?;
    let name = scene.director.name().trim_end_matches("-director").to_owned();
    fs::write(state.join(format!("{name}.orders.json")), "no orders")?;
    director.set_environment("XDIRECTOR_STATE", &state);
    director.restart()?;
    ensure!(director.log().contains("orders.json"), "{}", director.log());
    ensure!(real(&status(&director)?, &scene, 2)?.ordered.is_none());
    ensure_in_turn(&scene.client().curl_each("http://192.168.10.50/", 6)?, 3)?;
    director.stop()
}

#[test]
fn a_socket_that_cannot_be_made_is_named() -> Result<()> {
    require_director!("a_socket_that_cannot_be_made_is_named");
    let scene = topology::nat(&Options::new("socketless"))?;
    let file = configuration(&scene).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::prepared(&scene.director, file.text())?;
    let run = director.directory().join("run");
    let _mount = Memory::read_only(&run)?;
    for path in [run.join("web.sock"), run.join("deeper/web.sock")] {
        director.set_environment("XDIRECTOR_SOCKET", &path);
        let (status, log) = director.refused()?;
        ensure!(status.code() == Some(1), "{status}");
        let parent = path.parent().context("a directory")?.display().to_string();
        ensure!(log.contains(&parent) && log.contains("Read-only file system"), "{log}");
        for device in scene.interfaces {
            ensure!(scene.director.xdp(device)?.is_none(), "XDP on {device}");
        }
    }
    Ok(())
}
