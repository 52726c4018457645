//! What the lab writes is what xdirector reads. Needs no privileges.

use lab::{
    configuration::{Configuration, VirtualServer},
    topology,
};
use lb_userspace::config;

#[test]
fn written_files_are_accepted() {
    let servers = [("192.168.1.101:8080", 3), ("192.168.1.102:8080", 0)];
    let fill = |server: VirtualServer, servers: [(&str, u32); 2]| {
        servers
            .into_iter()
            .fold(server, |server, (address, weight)| server.real(address.parse().unwrap(), weight))
    };
    let web =
        VirtualServer::tcp("web", topology::vip4(80)).scheduler("sh").line("scheduler_flags = [\"sh-port\"]");
    let echo = VirtualServer::udp("echo-ipv6", topology::vip6(80)).forward("tun");
    let text = Configuration::new("xd4194304-label", &["eth0", "eth1"])
        .lines("xdp_mode = \"generic\"")
        .lines("\n[timeouts]\nudp = \"1s\"")
        .serve(&fill(web, servers))
        .serve(&fill(echo, [("[fd00:1::101]:80", 1), ("[fd00:1::102]:80", 1)]))
        .lines("  forward = \"dr\"");
    let (config, warnings) = match config::parse("lab.toml", text.text()) {
        Ok(read) => read,
        Err(errors) => panic!("{errors}\n{}", text.text()),
    };
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(config.virtual_servers.len(), 2);
    assert_eq!(config.virtual_servers[0].real_servers.len(), 2);
}
