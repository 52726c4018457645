//! Long transfers: every byte arrives, in both directions, with full-size packets.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use lab::{
    Director,
    configuration::VirtualServer,
    ethtool::Offloads,
    require_director,
    topology::{self, Mode, Options},
};

use crate::support::{configuration, fill, forward};

const DOWNLOAD: u64 = 100_000_000;
const UPLOAD: u64 = 10_000_000;

#[test]
fn nat_transfers() -> Result<()> {
    require_director!("nat_transfers");
    transfers(Mode::Nat, &Options::new("nat-transfer"))
}

#[test]
fn dr_transfers() -> Result<()> {
    require_director!("dr_transfers");
    transfers(Mode::Dr, &Options::new("dr-transfer"))
}

/// The uploads also need the director's "fragmentation needed" and "packet too big": a full-size packet of the
/// client does not fit into the tunnel.
#[test]
fn tun_transfers() -> Result<()> {
    require_director!("tun_transfers");
    transfers(Mode::Tun, &Options::new("tun-transfer"))
}

/// As machines are by default: the stack hands packets larger than the MTU to the interface.
#[test]
fn nat_transfers_with_segmentation_offload() -> Result<()> {
    require_director!("nat_transfers_with_segmentation_offload");
    transfers(Mode::Nat, &Options::new("nat-offload").offloads(Offloads::Segmentation))
}

fn transfers(mode: Mode, options: &Options) -> Result<()> {
    let scene = topology::build(mode, &options.clone().servers(1))?;
    let (vip4, vip6) = (topology::vip4(80), topology::vip6(80));
    let server = |name, vip: SocketAddr| {
        fill(VirtualServer::tcp(name, vip).forward(forward(mode)), &scene, vip.is_ipv6(), 80, &[1])
    };
    let configuration = configuration(&scene).serve(&server("web", vip4)).serve(&server("web-ipv6", vip6));
    let mut director = Director::start(&scene.director, configuration.text())?;
    for vip in [vip4, vip6] {
        scene
            .client()
            .download(&vip.to_string(), DOWNLOAD)
            .with_context(|| format!("download from {vip}"))?;
        scene.client().upload(&vip.to_string(), UPLOAD).with_context(|| format!("upload to {vip}"))?;
    }
    director.stop()
}
