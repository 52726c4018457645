//! Real servers as processes of their own, so that they outlive the demo.

use std::{
    env, io,
    os::unix::process::CommandExt as _,
    process::{Child, Stdio},
    sync::mpsc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    httpd::Server,
    registry::{self, wait_until},
    topology::{PORTS, Scene},
};

/// The running processes; dropping this ends them.
#[derive(Debug, Default)]
pub struct Servers {
    children: Vec<Child>,
}

impl Servers {
    /// Starts one per real server of the scene, and waits until they answer.
    pub fn start(scene: &Scene) -> Result<Self> {
        let mut servers = Self::default();
        let program = env::current_exe()?;
        for server in &scene.servers {
            let mut registry = registry::lock();
            let child = server
                .netns
                .command(&program)
                .args(["--serve", &server.name])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .process_group(0)
                .spawn()
                .context("cannot start a real server")?;
            registry.children.insert(child.id());
            servers.children.push(child);
        }
        for server in &scene.servers {
            let listens = || {
                let listeners = server.netns.command("ss").args(["-Hltn", "sport", "=", ":80"]).output();
                listeners.is_ok_and(|out| !out.stdout.is_empty())
            };
            ensure!(wait_until(Duration::from_secs(5), listens), "{} does not listen", server.name);
        }
        Ok(servers)
    }

    /// Leaves them running.
    pub fn keep(mut self) {
        self.forget();
    }

    fn forget(&mut self) -> Vec<Child> {
        let mut registry = registry::lock();
        for child in &self.children {
            registry.children.remove(&child.id());
        }
        std::mem::take(&mut self.children)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for mut child in self.forget() {
            // It may have ended by itself.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What `--serve` does: serve until a signal comes.
pub fn serve_forever(name: &str) -> Result<()> {
    let _server = Server::start_here(name, &PORTS)?;
    let (stop, stopped) = mpsc::channel();
    ctrlc::set_handler(move || {
        let _ = stop.send(());
    })
    .map_err(io::Error::other)?;
    stopped.recv()?;
    Ok(())
}
