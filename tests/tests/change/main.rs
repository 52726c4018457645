//! What traffic notices of changes: restarts, reloads, orders, failures of what xdirector stands on. Nothing, if it can be.

mod common;
mod drain;
mod drift;
mod interfaces;
mod leftovers;
mod pressure;
mod refusal;
mod reload;
mod restart;
#[path = "../netns/support.rs"]
#[expect(dead_code, reason = "shared with the suite of the scenarios, which uses all of it")]
mod support;
mod surroundings;
