//! xdirector between real kernels: every test has its own lab of namespaces, runs `xdirector` in it and watches what
//! ordinary clients get.

mod distribution;
mod forwarding;
mod local;
mod neighbours;
mod operation;
mod path_checks;
mod path_mtu;
mod restart;
mod scenarios;
mod support;
mod transfer;
