//! The lab: network namespaces joined by veth pairs, in which xdirector, clients and real servers run as they
//! would on separate machines. The tests, the demo and the traffic benchmark share it.
//!
//! A test reads like this:
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! lab::require_lab!("dr_alternates");
//! let scene = lab::topology::dr(&lab::topology::Options::new("alternates"))?;
//! let mut director = lab::Director::start(&scene.director, "[director]\n...")?;
//! let answers = scene.client().curl_each("http://192.168.10.50/", 4)?;
//! director.stop()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything that a [`Lab`] makes is in namespaces whose names begin with `xd<pid>-`, and is removed when the lab
//! is dropped, on a panic, and on SIGINT, SIGTERM or SIGHUP. What a killed process left behind is removed by the
//! next lab.

pub mod bpffs;
pub mod client;
pub mod configuration;
mod daemon;
pub mod dataplane;
pub mod director;
pub mod dnsd;
pub mod ethtool;
pub mod failover;
pub mod figures;
pub mod hexdump;
pub mod httpd;
pub mod load;
pub mod moody;
pub mod netns;
pub mod network;
pub mod packet;
pub mod programs;
pub mod registry;
pub mod requirements;
pub mod smtpd;
pub mod stall;
pub mod stream;
pub mod topology;
mod udp;
pub mod wire;

pub use client::Client;
pub use director::Director;
pub use load::Load;
pub use netns::Netns;
pub use network::{Lab, Network};
pub use packet::Packet;
