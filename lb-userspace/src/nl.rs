//! Blocking netlink requests, many at once, each with its own outcome: for addresses and links (`netif`) and for the kernel's
//! IPVS (`dataplane/ipvs`). A request to the kernel takes microseconds, so nobody needs to wait for it aside.

pub mod error;
pub mod message;
pub mod request;
