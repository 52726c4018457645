//! The configuration file.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::{Path, PathBuf},
};

/// Virtual servers.
pub const SERVICES: usize = 10_000;
/// Real servers of each.
pub const SERVERS: usize = 10;
/// Virtual servers whose first real server has a check, when there are any.
pub const CHECKED: usize = 50;
/// Virtual servers that share an address.
const PORTS: usize = 1000;
/// Small: the connection table is memory of the kernel that shows in the agent's too (docs/performance.md, Memory).
const MAX_CONNECTIONS: u32 = 65_536;

/// What of the file changes.
#[derive(Debug)]
pub struct File {
    /// Of each virtual server's first real server.
    weights: Vec<u32>,
    checks: Option<PathBuf>,
}

impl File {
    /// Every weight is 1, no checks.
    pub fn new() -> Self {
        Self { weights: vec![1; SERVICES], checks: None }
    }

    /// Changes one weight.
    pub fn change(&mut self, service: usize) {
        self.weights[service] += 1;
    }

    /// Adds checks of files in a directory, spread over the virtual servers.
    pub fn check_files(&mut self, directory: &Path) {
        self.checks = Some(directory.to_owned());
    }

    /// As TOML.
    pub fn text(&self) -> String {
        let mut text = format!(
            "[director]\ninstance = \"bench\"\nrouter_id = \"director-01\"\ninterfaces = [\"eth0\"]\n\
             max_connections = {MAX_CONNECTIONS}\n\n"
        );
        for (service, weight) in self.weights.iter().enumerate() {
            self.add(&mut text, service, *weight);
        }
        text
    }

    fn add(&self, text: &mut String, service: usize, weight: u32) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[[virtual_server]]\nname = \"service-{service}\"\naddress = \"{}:{}\"\nprotocol = \"tcp\"\n\
             scheduler = \"wlc\"\nforward = \"nat\"\n\n",
            virtual_address(service / PORTS),
            1000 + service % PORTS
        );
        for server in 0..SERVERS {
            let weight = if server == 0 { weight } else { 1 };
            let _ = write!(
                text,
                "  [[virtual_server.real_server]]\n  address = \"{}:8080\"\n  weight = {weight}\n",
                real_address(service * SERVERS + server)
            );
            let step = SERVICES / CHECKED;
            if let (0, 0, Some(directory)) = (server, service % step, &self.checks) {
                let _ = writeln!(
                    text,
                    "  [[virtual_server.real_server.health_check]]\n  type = \"file\"\n  path = \"{}\"\n  \
                     interval = \"10ms\"\n  rise = 1\n  fall = 1\n  warmup = \"0s\"",
                    checked_file(directory, service / step).display()
                );
            }
            text.push('\n');
        }
    }
}

/// The file of one check.
pub fn checked_file(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("server-{number}"))
}

/// The addresses of all virtual servers.
pub fn virtual_addresses() -> impl Iterator<Item = Ipv4Addr> {
    (0..SERVICES.div_ceil(PORTS)).map(virtual_address)
}

fn virtual_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(192, 168, 10, 1).to_bits() + u32::try_from(number).unwrap_or(0))
}

/// One of 10.0.0.0/8 for each real server.
fn real_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 1).to_bits() + u32::try_from(number).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_one_that_the_agent_takes_without_a_word() {
        let mut file = File::new();
        file.check_files(Path::new("/run/checks"));
        file.change(7);
        let (config, warnings) = lb_userspace::config::parse("f", &file.text()).unwrap();
        assert_eq!(warnings, []);
        assert_eq!(config.virtual_servers.len(), SERVICES);
        let servers = || config.virtual_servers.iter().flat_map(|one| &one.real_servers);
        assert_eq!(servers().count(), SERVICES * SERVERS);
        assert_eq!(servers().filter(|one| !one.health_checks.is_empty()).count(), CHECKED);
        assert_eq!(servers().filter(|one| one.weight == 2).count(), 1);
    }
}
