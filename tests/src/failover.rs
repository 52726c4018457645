//! Directors that share an address: scenes with two or three of them, the programs that run VRRP (xdirector, keepalived,
//! FRR) behind one trait, and instruments that see what a failover is like for a client, for the machines and on the wire.
//!
//! ```text
//! client 10.66.0.11 --- lan --- alpha 10.66.0.1, beta 10.66.0.2, gamma 10.66.0.3     VIP 10.66.0.100, fd66::100
//! ```

mod adverts;
mod balanced;
mod frr;
mod haproxy;
mod holders;
mod instance;
mod keepalived;
mod ours;
mod probe;
mod process;
mod requirements;
mod router;
mod scene;

pub use adverts::{Advert, Adverts, Watch};
pub use balanced::{Balanced, Side};
pub use frr::Frr;
pub use haproxy::Haproxy;
pub use holders::{Change, Holders, Record};
pub use instance::{Instance, frr_file, keepalived_file, toml_file};
pub use keepalived::Keepalived;
pub use ours::{Xdirector, guard_of};
pub use probe::{Answer, PORT as PROBE_PORT, Probe, Trace};
pub use process::{Directory, Process};
pub use requirements::{missing_for_frr, missing_for_keepalived, missing_program};
pub use router::{Kind, Router, start};
pub use scene::{LINK_LOCAL_VIP6, Machine, NAMES, Scene, VIP4, VIP6};
