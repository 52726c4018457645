//! Servers come and go, and so does the agent; the client does not notice.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    Director,
    httpd::Server,
    registry::wait_until,
    topology::{self, PORTS, Scene},
};

use crate::show;

const SOON: Duration = Duration::from_secs(20);

/// A server dies and comes back, one drains, the agent is killed. `can_stop`: the servers are in this process.
pub fn play(scene: &mut Scene, director: &mut Director, can_stop: bool) -> Result<()> {
    ask(scene, 6)?;
    if can_stop {
        show::act("Real 2 dies");
        scene.servers[1].http = None;
        await_state(director, 1, "down")?;
        ask(scene, 4)?;
        show::act("Real 2 comes back");
        let server = &scene.servers[1];
        scene.servers[1].http = Some(Server::start(&server.netns, &server.name, &PORTS)?);
        await_state(director, 1, "up")?;
        ask(scene, 3)?;
    }

    let mut held = Held::open(scene)?;
    show::act(&format!("{} drains while it has a connection", held.server));
    let number = scene.servers.iter().position(|one| one.name == held.server).context("one of ours")?;
    let address = format!("{}", scene.servers[number].ipv4);
    show::command_output(&format!("xdirector drain {address}"), &director.command(&["drain", &address])?, 3);
    ask(scene, 4)?;
    show::command_output("xdirector status", &director.command(&["status"])?, usize::MAX);
    held.finish()?;
    println!("client$ the connection has got all its bytes\n");
    await_state(director, number, "drained")?;
    show::command_output(
        &format!("xdirector enable {address}"),
        &director.command(&["enable", &address])?,
        3,
    );
    show::command_output("xdirector events", &director.command(&["events"])?, usize::MAX);

    show::act("the agent is killed with SIGKILL; packets are forwarded on");
    director.kill()?;
    ask(scene, 6)?;
    show::act("the next one takes over what it finds");
    director.restart()?;
    ask(scene, 6)
}

fn ask(scene: &Scene, count: usize) -> Result<()> {
    let url = "http://192.168.10.50/";
    let answers = scene.client().curl_each(url, count)?;
    show::answers(url, &answers);
    Ok(())
}

fn await_state(director: &Director, server: usize, state: &str) -> Result<()> {
    let is_there = || {
        director
            .status()
            .is_ok_and(|status| status["virtual_servers"][0]["real_servers"][server]["state"] == state)
    };
    ensure!(wait_until(SOON, is_there), "Real {} is not {state}", server + 1);
    println!("director$ Real {} is {state}\n", server + 1);
    Ok(())
}

/// A connection that has asked for much and has read little of it.
struct Held {
    stream: TcpStream,
    server: String,
}

impl Held {
    const BYTES: usize = 20_000_000;

    fn open(scene: &Scene) -> Result<Self> {
        let mut stream = scene.client().connect(topology::vip4(80))?;
        write!(stream, "GET /bytes/{} HTTP/1.1\r\nHost: vip\r\n\r\n", Self::BYTES)?;
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && head.len() < 4096 {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let server = head.lines().find_map(|line| line.strip_prefix("X-Real: ")).context("no X-Real")?;
        Ok(Self { stream, server: server.trim().to_owned() })
    }

    /// Reads the rest.
    fn finish(&mut self) -> Result<()> {
        let mut buffer = vec![0; 65_536];
        let mut left = Self::BYTES;
        while left > 0 {
            let got = self.stream.read(&mut buffer)?;
            ensure!(got > 0, "the connection ended {left} bytes too early");
            left -= got;
        }
        Ok(())
    }
}
