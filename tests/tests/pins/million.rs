//! A million connections, opened through the kernel's test run of the program.

use std::io::Write as _;

use anyhow::{Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use lab::{Packet, require_director};
use lb_userspace::{
    config::{self, Scheduler, SchedulerFlags, Tunnel},
    dataplane::{DataPlane as _, xdp::XdpPlane},
    desired::{Server, Service, ServiceId},
    reconcile::Operation,
};

const CONNECTIONS: u32 = 1_000_000;

#[test]
fn a_million_connections_are_kept() -> Result<()> {
    require_director!("a_million_connections_are_kept");
    let config = super::config(CONNECTIONS);
    let id = ServiceId { address: [192, 0, 2, 1].into(), port: 80, protocol: config::Protocol::Udp };
    let server = |host: u8| Server {
        address: [10, 0, 0, host].into(),
        port: 80,
        forward: config::Forward::Nat,
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
        servers: (1..=4).map(server).collect(),
    };
    let before = resident_kilobytes()?;
    let mut plane = XdpPlane::load(&config, &[(id, service.clone())].into(), false)?;
    plane.apply(&Operation::Add(id, service))?;
    let mut packet = Packet::eth([2; 6], [4; 6])
        .ipv4([198, 18, 0, 0], [192, 0, 2, 1])
        .udp(1024, 80)
        .checksum(0)
        .payload(b"x")
        .build();
    let mut output = vec![0; packet.len() + 64];
    for number in 0..CONNECTIONS {
        // The client's address, for which the header's sum is wrong then; the kernel would not look at it either.
        let [_, a, b, c] = number.to_be_bytes();
        packet[27..30].copy_from_slice(&[a, b, c]);
        let options = TestRunOptions {
            data_in: Some(&packet),
            data_out: Some(&mut output),
            ..TestRunOptions::default()
        };
        plane.program()?.test_run(options)?;
    }
    let counters = plane.counters()?;
    ensure!(
        counters["connection_new"] == u64::from(CONNECTIONS),
        "{} were entered",
        counters["connection_new"]
    );
    ensure!(plane.sweep(1)? == 0, "the sweep has ended some");
    let mut listed = 0;
    plane.connection_list()?.each(|_| {
        listed += 1;
        true
    });
    ensure!(listed == CONNECTIONS, "{listed} are listed");
    let counted: u32 =
        plane.server_numbers().into_iter().map(|number| plane.server_load(number).inactive).sum();
    ensure!(counted == CONNECTIONS, "{counted} are counted");
    let resident = resident_kilobytes()?.saturating_sub(before) / 1024;
    // Past the capture of a passing test's output.
    let _ = writeln!(std::io::stdout(), "MEASURED million_resident_mb={resident}");
    Ok(())
}

fn resident_kilobytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    Ok(line.unwrap_or_default().trim().trim_end_matches(" kB").parse()?)
}
