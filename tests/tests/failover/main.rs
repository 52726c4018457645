//! VRRP between real kernels: directors that share an address, in pairs with each other, with keepalived and with FRR, and
//! the scenarios with two and three of them. `XDIRECTOR_LONG=1` makes the tests that wait for nothing to happen wait for
//! ten minutes, and the flaps a thousand.

mod balanced;
mod bytes;
mod ends;
mod flows;
mod forged;
mod groups;
mod haproxy;
mod network;
mod pairs;
mod scenarios;
mod support;
mod sync;
mod three;
