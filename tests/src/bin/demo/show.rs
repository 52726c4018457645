//! The demo's output, 80 columns wide.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Result, ensure};
use lab::{
    Director,
    client::Counts,
    director,
    topology::{RealServer, Scene, VIP4, VIP6},
};

use crate::scenario::Scenario;

const WIDTH: usize = 78;

pub fn heading(scenario: Scenario) {
    let title = scenario.title();
    println!("\n== {title} {}\n", "=".repeat(WIDTH - 4 - title.len()));
    println!("{}\n", scenario.description());
}

pub fn configuration(scenario: Scenario, scene: &Scene) {
    println!(
        "The configuration{}:\n",
        match scenario {
            Scenario::S11 => "",
            _ => " (the same once more for IPv6 and for UDP)",
        }
    );
    for line in scenario.web(scene).text().lines() {
        println!("{}", format!("    {line}").trim_end());
    }
    println!();
}

pub fn attached(director: &Director) -> Result<()> {
    let status = director.status()?;
    let interfaces: Vec<String> = status["interfaces"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|interface| {
            let word = |key: &str| interface[key].as_str().unwrap_or("?").to_owned();
            format!("{} ({})", word("name"), word("mode"))
        })
        .collect();
    println!("director$ xdirector run --config demo.toml");
    println!("    running; XDP on {}\n", interfaces.join(", "));
    Ok(())
}

pub fn answers(url: &str, answers: &[String]) {
    println!("client$ curl {url}      ({} times)", answers.len());
    println!("    {}\n", answers.join(", "));
}

/// Who answered, beside what the weights ask for. An error when it is not the same.
pub fn distribution(what: &str, counts: &Counts, servers: &[RealServer], weights: &[u32]) -> Result<()> {
    let total: usize = counts.values().sum();
    let sum: u32 = weights.iter().sum();
    println!("{what} from the client, by who answered:\n");
    println!("    {:<10}{:>6}{:>8}{:>8}", "server", "weight", "asked", "got");
    let mut as_asked = true;
    for (server, weight) in servers.iter().zip(weights) {
        let got = counts.get(&server.name).copied().unwrap_or(0);
        let asked = total * *weight as usize / sum as usize;
        let bar = "#".repeat((got * 36).div_ceil(total.max(1)));
        let row = format!("    {:<10}{weight:>6}{asked:>8}{got:>8}  {bar}", server.name);
        println!("{}", row.trim_end());
        as_asked &= got == asked;
    }
    println!();
    ensure!(as_asked, "the distribution is not what the weights ask for");
    Ok(())
}

pub fn download(bytes: u64, time: Duration, sum: &str) {
    let rate = bytes as f64 / 1e6 / time.as_secs_f64();
    println!("client$ curl http://{VIP4}/bytes/{bytes} | sha256sum");
    println!(
        "    {} MB in {:.1} s, {rate:.0} MB/s (with the hashing at both ends)",
        bytes / 1_000_000,
        time.as_secs_f64()
    );
    println!("    SHA-256 as sent: {}...\n", &sum[..32.min(sum.len())]);
}

/// What happens next.
pub fn act(text: &str) {
    println!("-- {text}\n");
}

/// At most `most` lines of a command's output. Not indented: it may be 80 columns wide by itself.
pub fn command_output(command: &str, output: &str, most: usize) {
    println!("director$ {command}");
    for line in output.lines().take(most) {
        println!("{line}");
    }
    let left = output.lines().count().saturating_sub(most);
    if left > 0 {
        println!("... and {left} more lines");
    }
    println!();
}

pub fn how_to_play(scene: &Scene, directory: &Path) {
    let client = scene.client().netns.name();
    let inside = scene.director.name();
    let binary = director::binary_path();
    let binary = binary.canonicalize().unwrap_or(binary);
    println!("This lab stays up. Some things to try:\n");
    println!("    ip netns exec {client} curl http://{VIP4}/");
    println!("    ip netns exec {client} curl http://[{VIP6}]/");
    println!("    ip netns exec {inside} ip -br address");
    println!("    export XDIRECTOR_SOCKET={}", directory.join("socket").display());
    println!("    {} status", binary.display());
    println!("    {} connections", binary.display());
    println!("    less {}", directory.join("xdirector.toml").display());
    println!("    less {}\n", directory.join("log").display());
}

pub fn end(time: Duration, scenarios: usize, kept: bool) {
    println!("{}", "=".repeat(WIDTH));
    let rest =
        if kept { "`cargo xtask demo --clean` removes the lab." } else { "Everything is removed again." };
    let scenarios = if scenarios == 1 { "One scenario".to_owned() } else { format!("{scenarios} scenarios") };
    println!("{scenarios} in {:.0} s. {rest}", time.as_secs_f64());
}

/// An address of a URL.
pub fn without_default_port(address: SocketAddr) -> String {
    let text = address.to_string();
    text.strip_suffix(":80").map_or(text.clone(), str::to_owned)
}
