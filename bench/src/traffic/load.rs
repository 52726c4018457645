//! What is sent, and how fast it arrives.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, UdpSocket},
    thread,
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use lab::{Client, Packet, client::Counts, topology::Scene};

use super::balancer::DISCARD;
use crate::plan::{self, Plan};

/// Connections of one measurement.
pub const CONNECTIONS: usize = 6000;
/// Threads of the client.
const THREADS: usize = 4;
/// Bytes of one download.
const DOWNLOAD: u64 = 400_000_000;
/// Packets of one measurement.
const PACKETS: u32 = 1_000_000;
/// Frames that the generator hands to the driver at once.
const BATCH: u32 = 64;

/// HTTP requests a second, and who answered.
pub fn connections(client: &Client, server: SocketAddr) -> Result<(f64, Counts)> {
    let start = Instant::now();
    let parts = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|_| scope.spawn(|| client.http_counts(server, CONNECTIONS / THREADS))).collect();
        let join = |thread: thread::ScopedJoinHandle<'_, Result<Counts>>| {
            thread.join().map_err(|_| anyhow!("a client panicked"))?
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    let spent = start.elapsed();
    let mut counts = Counts::new();
    for (name, count) in parts.into_iter().flatten() {
        *counts.entry(name).or_default() += count;
    }
    Ok((CONNECTIONS as f64 / spent.as_secs_f64(), counts))
}

/// Bytes a second of one download.
pub fn download(client: &Client, server: SocketAddr) -> Result<f64> {
    let mut stream = client.connect(server)?;
    let start = Instant::now();
    write!(stream, "GET /bytes/{DOWNLOAD} HTTP/1.1\r\nHost: lab\r\nConnection: close\r\n\r\n")?;
    let mut buffer = vec![0; 256 * 1024];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => received += count as u64,
        }
    }
    ensure!(received > DOWNLOAD, "only {received} of {DOWNLOAD} bytes came");
    Ok(DOWNLOAD as f64 / start.elapsed().as_secs_f64())
}

/// On every real server a UDP socket that nobody reads: packets end there, and nobody answers.
pub fn sinks(scene: &Scene) -> Result<Vec<UdpSocket>> {
    let sink =
        |real: &lab::topology::RealServer| real.netns.enter(|| Ok(UdpSocket::bind((real.ipv4, DISCARD))?));
    scene.servers.iter().map(sink).collect()
}

/// Sends packets without a network stack: an XDP program that writes them and returns XDP_TX, run by BPF_PROG_TEST_RUN
/// with "live frames". It must write all headers, since the kernel uses a frame again as it comes back from whoever
/// changed it.
pub struct Generator {
    ebpf: Ebpf,
}

impl Generator {
    const PROGRAM: &str = "unwrapped";

    /// Loads the program.
    pub fn load() -> Result<Self> {
        let mut ebpf = Ebpf::load(&crate::object::read()?)?;
        let program: &mut Xdp =
            ebpf.program_mut(Self::PROGRAM).context("not in the benchmark's object")?.try_into()?;
        program.load()?;
        Ok(Self { ebpf })
    }

    /// UDP packets a second that arrive at the real servers, sent from the client as fast as it can. Sender and director
    /// share one CPU, so that the sender waits while the director works.
    pub fn packets(&mut self, scene: &Scene, client: &Client, target: SocketAddr) -> Result<f64> {
        let frame = frame(scene, client, target)?;
        let interface = interface(client)?;
        plan::set(&mut self.ebpf, Plan { nat: 1, ..plan::of(&frame)? })?;
        let program: &Xdp =
            self.ebpf.program(Self::PROGRAM).context("not in the benchmark's object")?.try_into()?;
        let mut context = [0u8; 24];
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        context[4..8].copy_from_slice(&u32::try_from(frame.len())?.to_ne_bytes());
        context[12..16].copy_from_slice(&interface.to_ne_bytes());
        let send = |count: u32| {
            let options = TestRunOptions {
                data_in: Some(&frame),
                ctx_in: Some(&context),
                repeat: count,
                attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
                ..TestRunOptions::new()
            };
            program.test_run(options)
        };
        let sent = client.netns.enter(|| {
            crate::cpu::pin(None)?;
            // The first ones open the flow.
            send(BATCH)?;
            let before = arrived(scene)?;
            let start = Instant::now();
            send(PACKETS)?;
            let spent = start.elapsed();
            Ok((before, spent))
        });
        let (before, spent) = sent.context("cannot send live frames")?;
        let arrived = arrived(scene)? - before;
        ensure!(arrived > u64::from(PACKETS) / 100, "only {arrived} of {PACKETS} packets arrived");
        Ok(arrived as f64 / spent.as_secs_f64())
    }
}

/// The smallest frame: 60 bytes. Without UDP's checksum, which NAT would change in place.
fn frame(scene: &Scene, client: &Client, target: SocketAddr) -> Result<Vec<u8>> {
    let IpAddr::V4(destination) = target.ip() else { bail!("{target} is not IPv4") };
    let number = scene.clients.iter().position(|other| other.netns.name() == client.netns.name());
    let host = 11 + u8::try_from(number.context("a client of another scene")?)?;
    let (client, director) = (client.netns.mac("eth0")?, scene.director.mac("eth0")?);
    let packet = Packet::eth(client, director).ipv4([192, 168, 10, host], destination);
    Ok(packet.udp(4000, target.port()).checksum(0).payload(&[0; 18]).build())
}

fn interface(client: &Client) -> Result<u32> {
    let link = client.netns.ip_json(&["link", "show", "dev", "eth0"])?;
    let index =
        link.pointer("/0/ifindex").and_then(serde_json::Value::as_u64).context("no interface eth0")?;
    Ok(u32::try_from(index)?)
}

/// Packets that all real servers have received so far.
fn arrived(scene: &Scene) -> Result<u64> {
    let of = |real: &lab::topology::RealServer| {
        let link = real.netns.ip_json(&["-s", "link", "show", "dev", "eth0"])?;
        link.pointer("/0/stats64/rx/packets").and_then(serde_json::Value::as_u64).context("no statistics")
    };
    scene.servers.iter().map(of).sum()
}
