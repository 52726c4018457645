//! More than there is room for.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use lab::{
    Client, Director, Packet,
    configuration::VirtualServer,
    require_director,
    topology::{self, Options},
    wire::Wire,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    common::{measured, web},
    support::{configuration, fill, status},
};

/// Frames of a flood; it ends with them even if nobody stops it.
const FLOOD: u32 = 1_000_000;
/// Frames of it in a row, about a millisecond apart: much for the table and not more than a virtual cable's queue holds, whose
/// overflow would be no work of the director's.
const BURST: u64 = 40;
const REQUESTS: usize = 300;

fn rate(client: &Client) -> Result<f64> {
    let begun = Instant::now();
    client.http_counts(topology::vip4(8080), REQUESTS)?;
    Ok(REQUESTS as f64 / begun.elapsed().as_secs_f64())
}

#[test]
fn a_flood_on_one_virtual_server_leaves_the_other_alone() -> Result<()> {
    require_director!("a_flood_on_one_virtual_server_leaves_the_other_alone");
    let scene = topology::nat(&Options::new("flood").clients(2))?;
    let other = fill(VirtualServer::tcp("other", topology::vip4(8080)), &scene, false, 8080, &[1, 1, 1]);
    let file =
        configuration(&scene).lines("max_connections = 16384").serve(&web(&scene, &[1, 1, 1])).serve(&other);
    let mut director = Director::start(&scene.director, file.text())?;
    let flooder = &scene.clients[1].netns;
    let wire = Wire::open(flooder, "eth0")?;
    let (from, to) = (flooder.mac("eth0")?, scene.director.mac("eth0")?);
    let quiet = rate(scene.client())?;
    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let (loud, seconds) = thread::scope(|scope| {
        let flood = scope.spawn(|| {
            for number in 0..FLOOD {
                if stop.load(Relaxed) {
                    break;
                }
                let [_, a, b, c] = number.to_be_bytes();
                let frame = Packet::eth(from, to)
                    .ipv4([10, a, b, c], [192, 168, 10, 50])
                    .tcp(1024 + (number % 50_000) as u16, 80)
                    .syn();
                // A full queue loses it, as a full cable would.
                let _ = wire.send(&frame.build());
                if sent.fetch_add(1, Relaxed) % BURST == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        let begun = Instant::now();
        while sent.load(Relaxed) < 1000 && !flood.is_finished() {
            thread::yield_now();
        }
        let loud = rate(scene.client());
        stop.store(true, Relaxed);
        (loud, begun.elapsed().as_secs_f64())
    });
    let loud = loud?;
    measured("flood_frames_per_second", format!("{:.0}", sent.load(Relaxed) as f64 / seconds));
    measured("flood_other_ratio", format!("{:.2}", loud / quiet));
    let now = status(&director)?;
    ensure!(now.virtual_servers[0].stats.connections > 1000, "the flood did not arrive: {:?}", now.totals);
    // The ratio is reported and not judged: sender, director, servers and clients share the processors here. That every
    // request was answered is what `rate` makes sure of.
    director.stop()
}

#[test]
fn a_table_at_twice_its_size_serves_on() -> Result<()> {
    require_director!("a_table_at_twice_its_size_serves_on");
    const ROOM: usize = 1024;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    if most < 12_000 {
        lab::requirements::say_skipped(
            "a_table_at_twice_its_size_serves_on",
            "too few open files are allowed",
        );
        return Ok(());
    }
    let scene = topology::nat(&Options::new("twice"))?;
    let file =
        configuration(&scene).lines(&format!("max_connections = {ROOM}")).serve(&web(&scene, &[1, 1, 1]));
    let mut director = Director::start(&scene.director, file.text())?;
    let mut held: Vec<TcpStream> = scene.client().netns.enter(|| {
        (0..2 * ROOM)
            .map(|_| Ok(TcpStream::connect_timeout(&topology::vip4(80), std::time::Duration::from_secs(5))?))
            .collect()
    })?;
    let now = status(&director)?;
    measured("twice_table", format!("{} of {}", now.connections.entries, now.connections.capacity));
    let counts = scene.client().http_counts(topology::vip4(80), 60)?;
    ensure!(counts.values().sum::<usize>() == 60, "{counts:?}");
    let mut alive = [0, 0];
    for (number, socket) in held.iter_mut().enumerate() {
        socket.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        let mut answer = String::new();
        let asked = socket
            .write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")
            .and_then(|()| socket.read_to_string(&mut answer));
        alive[number / ROOM] += usize::from(asked.is_ok() && answer.starts_with("HTTP/1.1 200 "));
    }
    measured("twice_first_alive", format!("{} of {ROOM}", alive[0]));
    measured("twice_second_alive", format!("{} of {ROOM}", alive[1]));
    ensure!(alive == [ROOM, ROOM], "{alive:?} of {ROOM} each");
    director.stop()
}
