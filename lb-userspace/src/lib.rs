//! xdirector's agent: decides what the data plane does, and tells people about it.
//!
//! Decisions flow one way: [`config`] -> [`desired`] -> [`reconcile`] -> [`dataplane`]. [`agent`] is the only event
//! loop; events change the inputs of `desired` and nothing else.

pub mod agent;
pub mod api;
pub mod cli;
pub mod config;
pub mod dataplane;
pub mod desired;
mod files;
pub mod health;
pub mod logging;
pub mod mail;
pub mod memory;
pub mod metrics;
pub mod netif;
pub mod netlink;
mod nl;
pub mod notify;
pub mod orders;
pub mod process;
pub mod rates;
pub mod reconcile;
pub mod supervisor;
mod turns;
mod verdicts;
pub mod vrrp;
mod writer;
