//! A client, a director and a server, joined by two cables without anything between; and the packets on them.

use std::{net::Ipv4Addr, thread, time::Instant};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode, links::FdLink},
};
use lab::{Lab, Netns, Packet};

use crate::plan::{self, Plan};

/// Flows of a measurement of new ones: a power of two, and more than its packets.
pub const FLOWS: u32 = 1 << 17;
/// Frames that the generator hands to the driver at once.
const BATCH: u32 = 64;

const VIP: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 100);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 2);
/// The first client; others follow.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);
const PORT: u16 = 9;
const CLIENT_MAC: [u8; 6] = [2, 0x77, 0, 0, 0, 1];
const DIRECTOR_MAC: [u8; 6] = [2, 0x77, 0, 0, 0, 2];

/// The three machines and the generator.
pub struct Wire {
    /// Where xdirector runs.
    pub director: Netns,
    client: Netns,
    server: Netns,
    ebpf: Ebpf,
    /// Flows that were begun; none is begun twice.
    begun: u32,
    links: Vec<FdLink>,
    _lab: Lab,
}

impl Wire {
    /// Joins them.
    pub fn new(label: &str) -> Result<Self> {
        let mut lab = Lab::new(&format!("wire-{label}"))?;
        let (client, director, server) = (lab.host("client")?, lab.host("director")?, lab.host("server")?);
        client.ip([
            format!("link add eth0 address 02:77:00:00:00:01 type veth peer name eth0 address 02:77:00:00:00:02 netns {}", director.name()),
            "address add 10.1.0.2/24 dev eth0".to_owned(),
            "link set eth0 up".to_owned(),
        ])?;
        director.ip([
            format!("link add eth1 address 02:77:00:00:00:03 type veth peer name eth0 address 02:77:00:00:00:04 netns {}", server.name()),
            "address add 10.1.0.1/24 dev eth0".to_owned(),
            "address add 10.1.0.100/32 dev eth0".to_owned(),
            "address add 10.2.0.1/24 dev eth1".to_owned(),
            "link set eth0 up".to_owned(),
            "link set eth1 up".to_owned(),
            "route add 10.128.0.0/9 via 10.1.0.2".to_owned(),
            "neighbour add 10.1.0.2 lladdr 02:77:00:00:00:01 dev eth0 nud permanent".to_owned(),
            "neighbour add 10.2.0.2 lladdr 02:77:00:00:00:04 dev eth1 nud permanent".to_owned(),
        ])?;
        director.sysctl(&[("ipv4/ip_forward", "1")])?;
        server.ip(["address add 10.2.0.2/24 dev eth0", "link set eth0 up"])?;
        let mut ebpf = Ebpf::load(&crate::object::read()?)?;
        for name in ["unwrapped", "dropped"] {
            program(&mut ebpf, name)?.load()?;
        }
        let mut wire = Self { director, client, server, ebpf, begun: 0, links: Vec::new(), _lab: lab };
        let server = wire.server.clone();
        wire.attach(&server, "dropped")?;
        // A veth takes frames that were never socket buffers only where somebody polls: XDP, or GRO once it was switched on, which is
        // how IPVS gets them.
        for state in ["off", "on"] {
            let out = wire.director.command("ethtool").args(["-K", "eth0", "gro", state]).output()?;
            ensure!(out.status.success(), "ethtool: {}", String::from_utf8_lossy(&out.stderr).trim());
        }
        Ok(wire)
    }

    fn attach(&mut self, netns: &Netns, name: &str) -> Result<()> {
        let program = program(&mut self.ebpf, name)?;
        let link = netns.enter(|| {
            let id = program.attach("eth0", XdpMode::Driver)?;
            Ok(FdLink::try_from(program.take_link(id)?)?)
        })?;
        self.links.push(link);
        Ok(())
    }

    /// Has the packets end where they come in.
    pub fn drop_at_the_director(&mut self) -> Result<()> {
        let director = self.director.clone();
        self.attach(&director, "dropped")
    }

    /// One UDP virtual server with the one real server.
    pub fn configuration(&self, dataplane: &str, kind: &str) -> String {
        let name = self.director.name();
        let short = &name[name.len().saturating_sub(32)..];
        format!(
            "[director]\ninstance = \"{short}\"\ndataplane = \"{dataplane}\"\ninterfaces = [\"eth0\", \"eth1\"]\n\n\
             [[virtual_server]]\nname = \"sink\"\naddress = \"{VIP}:{PORT}\"\nprotocol = \"udp\"\nscheduler = \"rr\"\n\
             forward = \"{kind}\"\n\n  [[virtual_server.real_server]]\n  address = \"{SERVER}\"\n"
        )
    }

    /// The least nanoseconds a packet of several measurements; `flows`: 1, or [`FLOWS`] for one packet each.
    pub fn cheapest(&mut self, runs: usize, packets: u32, flows: u32) -> Result<f64> {
        // The first ones of a flow open it, and fill the caches of routes.
        self.send(BATCH * 4, flows)?;
        let mut least = f64::INFINITY;
        for _ in 0..runs {
            least = least.min(self.send(packets, flows)?);
        }
        Ok(least)
    }

    /// Nanoseconds a packet.
    fn send(&mut self, packets: u32, flows: u32) -> Result<f64> {
        let host = u32::from(CLIENT) + if flows > 1 { self.begun } else { 0x0060_0000 };
        if flows > 1 {
            self.begun += packets;
        }
        let frame = Packet::eth(CLIENT_MAC, DIRECTOR_MAC)
            .ipv4(Ipv4Addr::from(host), VIP)
            .udp(4000, PORT)
            .checksum(0)
            .payload(&[0; 18])
            .build();
        let last_flow = if flows > 1 { FLOWS - 1 } else { 0 };
        plan::set(&mut self.ebpf, Plan { nat: 1, sums: 1, last_flow, client: host, ..plan::of(&frame)? })?;
        let is_dropped_at_once = self.links.len() > 1;
        let before = self.arrived()?;
        let interface = index(&self.client)?;
        let program = program(&mut self.ebpf, "unwrapped")?;
        let mut context = [0u8; 24];
        // struct xdp_md: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        context[4..8].copy_from_slice(&u32::try_from(frame.len())?.to_ne_bytes());
        context[12..16].copy_from_slice(&interface.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(&frame),
            ctx_in: Some(&context),
            repeat: packets,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        let spent = self
            .client
            .enter(|| {
                // On this processor, where the threads of soft interrupts run too.
                let start = Instant::now();
                program.test_run(options)?;
                // They finish what is still in the queues.
                thread::yield_now();
                Ok(start.elapsed())
            })
            .context("cannot send live frames")?;
        let arrived = self.arrived()? - before;
        ensure!(
            is_dropped_at_once || arrived >= u64::from(packets) * 99 / 100,
            "only {arrived} of {packets} packets arrived"
        );
        Ok(spent.as_nanos() as f64 / f64::from(packets))
    }

    /// Packets that the server has received so far.
    fn arrived(&self) -> Result<u64> {
        let link = self.server.ip_json(&["-s", "link", "show", "dev", "eth0"])?;
        link.pointer("/0/stats64/rx/packets").and_then(serde_json::Value::as_u64).context("no statistics")
    }
}

fn program<'e>(ebpf: &'e mut Ebpf, name: &str) -> Result<&'e mut Xdp> {
    Ok(ebpf
        .program_mut(name)
        .with_context(|| format!("{name} is not in the benchmark's object"))?
        .try_into()?)
}

fn index(netns: &Netns) -> Result<u32> {
    let link = netns.ip_json(&["link", "show", "dev", "eth0"])?;
    let index =
        link.pointer("/0/ifindex").and_then(serde_json::Value::as_u64).context("no interface eth0")?;
    Ok(u32::try_from(index)?)
}
