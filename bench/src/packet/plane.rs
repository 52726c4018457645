//! The data plane as the benchmark drives it: loaded from the benchmark's object, attached to nothing.

use std::{collections::BTreeMap, net::IpAddr, os::fd::AsFd as _, time::Duration};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use aya::{
    maps::Map,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use lab::packet::tcp_flags;
use lb_common::{
    Event, Verdict,
    conn::{Connection, TagBucket, WAYS, buckets_for},
    map_name,
};
use lb_userspace::{
    config,
    dataplane::{DataPlane as _, xdp::XdpPlane},
    desired::desired,
    netlink::{NextHop, Resolution},
    reconcile::Operation,
};

use super::{
    frames::{DIRECTOR_MAC, Frames, Kind, NAT_PORT, PORT, SERVER_MAC, TUNNEL_SOURCE, segment},
    measure::{Measurement, Runs},
    memory,
};
use crate::plan::{self, Plan};

/// The client of the first flow, 10.0.0.0; those of the others follow.
pub const FIRST_FLOW: u32 = 0x0a00_0000;
/// Real servers of a virtual server.
const SERVERS: u8 = 4;
/// The interface on which BPF_PROG_TEST_RUN says that packets arrive: the loopback's index, 1 in every namespace.
const INTERFACE: u32 = 1;
/// What the programs without a data plane return (include/uapi/linux/bpf.h).
const XDP_TX: u32 = 3;

/// The loaded data plane.
pub struct Plane {
    xdp: XdpPlane,
    buckets: u32,
}

impl Plane {
    /// Loads the data plane with one virtual server of each kind, four real servers each, scheduler rr.
    pub fn load(max_connections: u32) -> Result<Self> {
        let (config, _) = config::parse("bench", &configuration(max_connections))?;
        let state = desired(&config);
        let mut xdp = XdpPlane::load_object(&crate::object::read()?, &config, &state, false)?;
        for (id, service) in &state {
            xdp.apply(&Operation::Add(*id, service.clone()))?;
            for server in &service.servers {
                xdp.set_next_hop(server.address, &Resolution::Resolved(next_hop().into()), true);
            }
        }
        Ok(Self { xdp, buckets: buckets_for(max_connections) })
    }

    /// Runs a program that returns XDP_TX on a packet `repeats` times; nanoseconds a packet.
    pub fn run(&mut self, program: &str, packet: &[u8], repeats: u32) -> Result<f64> {
        let options = TestRunOptions { data_in: Some(packet), repeat: repeats, ..TestRunOptions::new() };
        let before = cpu_time()?;
        let result =
            self.program(program)?.test_run(options).with_context(|| format!("running {program}"))?;
        let spent = cpu_time()? - before;
        ensure!(result.return_value == XDP_TX, "{program} returned {}", result.return_value);
        Ok(spent.as_secs_f64() * 1e9 / f64::from(repeats))
    }

    /// Runs any program, and checks that a packet came out as `output` and that `verdict` was counted for every repeat.
    fn run_checked(
        &mut self,
        program: &str,
        frames: (&[u8], &[u8]),
        expected: (Verdict, Option<Event>),
        repeats: u32,
    ) -> Result<f64> {
        let (input, output) = frames;
        let (verdict, event) = expected;
        let before = self.xdp.counters()?;
        let mut out = vec![0; 2048];
        let options = TestRunOptions {
            data_in: Some(input),
            data_out: Some(&mut out),
            repeat: repeats,
            ..TestRunOptions::new()
        };
        let start = cpu_time()?;
        let result =
            self.program(program)?.test_run(options).with_context(|| format!("running {program}"))?;
        let spent = cpu_time()? - start;
        out.truncate(usize::try_from(result.data_size_out)?);
        let after = self.xdp.counters()?;
        for name in [Some(verdict.name()), event.map(Event::name)].into_iter().flatten() {
            let counted = after.get(name).unwrap_or(&0) - before.get(name).unwrap_or(&0);
            ensure!(
                counted == u64::from(repeats),
                "{program}: {counted} of {repeats} packets were counted as {name}; what changed: {}",
                changes(&before, &after)
            );
        }
        if let Some(difference) = lab::hexdump::difference(output, &out) {
            bail!("{program}: another packet came out than should:\n{difference}");
        }
        Ok(spent.as_secs_f64() * 1e9 / f64::from(repeats))
    }

    fn once(&mut self, packet: &[u8]) -> Result<Vec<u8>> {
        let mut out = vec![0; 2048];
        let options =
            TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), ..TestRunOptions::new() };
        let result = self.program("xdirector")?.test_run(options)?;
        out.truncate(usize::try_from(result.data_size_out)?);
        Ok(out)
    }

    fn program(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.xdp.ebpf().program_mut(name);
        Ok(program.with_context(|| format!("the benchmark's object has no program {name}"))?.try_into()?)
    }
}

/// Single flows.
impl Plane {
    /// Opens the first flow to the virtual server of a kind and establishes it.
    pub fn establish(&mut self, kind: Kind) -> Result<Frames> {
        self.once(&segment(kind.vip(), tcp_flags::SYN))?;
        let sent = self.once(&segment(kind.vip(), tcp_flags::ACK))?;
        Frames::known(kind, &sent)
    }

    /// The cost of a packet that the data plane does not change.
    pub fn unchanged(&mut self, frames: &Frames, verdict: Verdict, runs: Runs) -> Result<Measurement> {
        runs.measure(runs.repeats, |repeats| {
            self.run_checked("xdirector", (&frames.input, &frames.output), (verdict, None), repeats)
        })
    }

    /// The cost of a packet that it changes, with the restore.
    pub fn changed(
        &mut self,
        kind: Kind,
        frames: &Frames,
        verdict: Verdict,
        runs: Runs,
    ) -> Result<Measurement> {
        self.run_checked("xdirector", (&frames.input, &frames.output), (verdict, None), 1)?;
        self.set_plan(kind, &frames.input, 1)?;
        runs.measure(runs.repeats, |repeats| {
            self.run_checked("wrapped", (&frames.input, &frames.input), (verdict, None), repeats)
        })
    }

    /// The cost of the restore without the data plane.
    pub fn restore_alone(&mut self, kind: Kind, runs: Runs) -> Result<Measurement> {
        let input = segment(kind.vip(), tcp_flags::ACK);
        self.set_plan(kind, &input, 1)?;
        runs.measure(runs.repeats, |repeats| self.run("unwrapped", &input, repeats))
    }
}

/// Many flows.
impl Plane {
    /// The cost of a packet that opens a connection; `flows` of them in each run, in an empty table.
    pub fn new_flows(&mut self, kind: Kind, flows: u32, runs: Runs) -> Result<Measurement> {
        runs.measure(flows, |flows| {
            self.clear()?;
            self.open(kind, flows)
        })
    }

    /// The cost of a packet of a known flow behind a tunnel, with `flows` of them taking turns.
    pub fn known_flows(&mut self, flows: u32, runs: Runs) -> Result<Measurement> {
        let kind = Kind::Tun;
        self.clear()?;
        self.open(kind, flows)?;
        // Their first segment after the SYN establishes them.
        self.turn(kind, flows, flows)?;
        runs.measure(runs.repeats.max(flows), |repeats| self.turn(kind, flows, repeats))
    }

    fn open(&mut self, kind: Kind, flows: u32) -> Result<f64> {
        let syn = segment(kind.vip(), tcp_flags::SYN);
        let expected = (kind.verdict(), Some(Event::ConnectionNew));
        self.run_flows(kind, &syn, flows.next_power_of_two(), expected, flows)
    }

    fn turn(&mut self, kind: Kind, flows: u32, repeats: u32) -> Result<f64> {
        let ack = segment(kind.vip(), tcp_flags::ACK);
        self.run_flows(kind, &ack, flows, (kind.verdict(), None), repeats)
    }

    /// `flows`: a power of two.
    fn run_flows(
        &mut self,
        kind: Kind,
        packet: &[u8],
        flows: u32,
        expected: (Verdict, Option<Event>),
        repeats: u32,
    ) -> Result<f64> {
        self.set_plan(kind, packet, flows)?;
        // The packet that is put back last is that of the next flow.
        let mut last = packet.to_vec();
        let next = FIRST_FLOW + (repeats & (flows - 1));
        last.get_mut(26..30).context("a short packet")?.copy_from_slice(&next.to_be_bytes());
        self.run_checked("wrapped", (packet, &last), expected, repeats)
    }
}

/// Maps.
impl Plane {
    /// Bytes that the kernel charges for the two maps of the connection table, for each NAT connection (which takes
    /// two places) that they surely hold.
    pub fn bytes_per_connection(&mut self, max_connections: u32) -> Result<f64> {
        let mut bytes = 0;
        for name in [map_name::TAGS, map_name::CONNECTIONS] {
            bytes += memory::charged(self.array(name)?.fd().as_fd())?;
        }
        Ok(bytes as f64 / f64::from(max_connections))
    }

    /// Forgets all connections.
    pub fn clear(&mut self) -> Result<()> {
        let buckets = self.buckets as usize;
        for (name, bytes) in [
            (map_name::TAGS, buckets * size_of::<TagBucket>()),
            (map_name::CONNECTIONS, buckets * WAYS as usize * size_of::<Connection>()),
        ] {
            memory::clear(self.array(name)?.fd(), bytes).with_context(|| format!("clearing {name}"))?;
        }
        Ok(())
    }

    fn array(&mut self, name: &str) -> Result<&aya::maps::MapData> {
        match self.xdp.ebpf().map(name) {
            Some(Map::Array(data)) => Ok(data),
            _ => Err(anyhow!("the benchmark's object has no array {name}")),
        }
    }

    /// `flows`: a power of two.
    fn set_plan(&mut self, kind: Kind, packet: &[u8], flows: u32) -> Result<()> {
        let plan = Plan {
            grown: kind.grown(),
            nat: u32::from(kind == Kind::Nat),
            last_flow: flows - 1,
            client: FIRST_FLOW,
            ..plan::of(packet)?
        };
        plan::set(self.xdp.ebpf(), plan)
    }
}

impl Kind {
    const fn verdict(self) -> Verdict {
        match self {
            Self::Dr => Verdict::ForwardDr,
            Self::Tun => Verdict::ForwardTun,
            Self::Nat => Verdict::ForwardNat,
        }
    }
}

/// Time that this thread has spent, in user space and in the kernel: other processes on the CPU do not count.
fn cpu_time() -> Result<Duration> {
    Ok(nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

fn changes(before: &BTreeMap<&'static str, u64>, after: &BTreeMap<&'static str, u64>) -> String {
    let changed = after.iter().map(|(name, count)| (name, count - before.get(name).unwrap_or(&0)));
    let parts: Vec<String> =
        changed.filter(|(_, count)| *count > 0).map(|(name, count)| format!("{name} +{count}")).collect();
    parts.join(", ")
}

fn configuration(max_connections: u32) -> String {
    let mut configuration = lab::configuration::Configuration::new("bench", &["lo"])
        .lines(&format!("max_connections = {max_connections}"));
    for kind in Kind::ALL {
        let mut server = lab::configuration::VirtualServer::tcp(kind.name(), (kind.vip(), PORT).into())
            .forward(kind.name());
        let port = if kind == Kind::Nat { NAT_PORT } else { PORT };
        for number in 0..SERVERS {
            server = server.real((kind.real(number), port).into(), 1);
        }
        configuration = configuration.serve(&server);
    }
    configuration.text().to_owned()
}

fn next_hop() -> NextHop {
    NextHop {
        ifindex: INTERFACE,
        interface: "lo".to_owned(),
        vlans: Vec::new(),
        source_mac: DIRECTOR_MAC,
        destination_mac: SERVER_MAC,
        mtu: 1500,
        source: IpAddr::V4(TUNNEL_SOURCE),
        gateway: None,
    }
}
