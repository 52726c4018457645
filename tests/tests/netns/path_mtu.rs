//! Clients behind a link that takes smaller packets. The link's router complains to the virtual address; only the
//! real server that has the connection can do something about it, so the director has to pass the complaint on.

use anyhow::{Context as _, Result};
use lab::{
    Director,
    configuration::VirtualServer,
    require_director,
    topology::{self, Mode, Options},
};

use crate::support::{configuration, fill, forward};

#[test]
fn nat_passes_icmp_errors_on() -> Result<()> {
    require_director!("nat_passes_icmp_errors_on");
    downloads_through_the_narrow_link(Mode::Nat, "mtu-nat")
}

#[test]
fn dr_passes_icmp_errors_on() -> Result<()> {
    require_director!("dr_passes_icmp_errors_on");
    downloads_through_the_narrow_link(Mode::Dr, "mtu-dr")
}

#[test]
fn tun_passes_icmp_errors_on() -> Result<()> {
    require_director!("tun_passes_icmp_errors_on");
    downloads_through_the_narrow_link(Mode::Tun, "mtu-tun")
}

fn downloads_through_the_narrow_link(mode: Mode, label: &str) -> Result<()> {
    let mut scene = topology::build(mode, &Options::new(label))?;
    let far = scene.add_narrow_client()?;
    let (vip4, vip6) = (topology::vip4(80), topology::vip6(80));
    let [web, web6] = [("web", vip4), ("web-ipv6", vip6)].map(|(name, vip)| {
        fill(VirtualServer::tcp(name, vip).forward(forward(mode)), &scene, vip.is_ipv6(), 80, &[1, 1, 1])
    });
    let configuration = configuration(&scene).serve(&web).serve(&web6);
    let mut director = Director::start(&scene.director, configuration.text())?;
    for vip in [vip4, vip6] {
        // One for each server: each has to learn by itself.
        for _ in 0..3 {
            far.download(&vip.to_string(), 3_000_000).with_context(|| format!("download from {vip}"))?;
        }
    }
    director.stop()
}
