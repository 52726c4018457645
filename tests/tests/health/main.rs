//! xdirector's health checks between real kernels: servers are killed, frozen, slow and wrong, and every test watches
//! what clients get, what the status shows and what the log says.

mod connections;
mod failures;
mod kinds;
mod latency;
mod probes;
mod quorum;
mod restart;
#[path = "../netns/support.rs"]
#[expect(
    dead_code,
    reason = "it is the whole of what the suite `netns` shares; not all of it is of use here"
)]
mod support;
mod tls;
mod watch;
