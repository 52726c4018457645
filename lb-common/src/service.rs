//! Virtual servers as the data plane sees them.

use crate::{Addr, Port};

/// By what a virtual server is found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(C)]
pub struct ServiceKey {
    /// Its address.
    pub addr: Addr,
    /// Its port; [`Port::ANY`]: every port.
    pub port: Port,
    /// IP protocol number.
    pub proto: u16,
    /// Nothing: 0, since all bytes of a key count.
    reserved: u32,
}

const _: () = assert!(size_of::<ServiceKey>() == 24);

impl ServiceKey {
    /// The key of an address, port and protocol.
    #[inline(always)]
    pub const fn new(addr: Addr, port: Port, proto: u8) -> Self {
        Self { addr, port, proto: proto as u16, reserved: 0 }
    }
}

/// How a virtual server chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Method {
    /// The next slot of a cycle that the agent laid out: rr and wrr.
    Cycle = 1,
    /// The server with the least `active * 256 + inactive`: lc.
    LeastConnection = 2,
    /// The same, divided by its weight: wlc.
    WeightedLeastConnection = 3,
    /// The slot of a 256-slot table by the client's address: sh.
    SourceHash = 4,
    /// The slot of a Maglev table by the client's address: mh.
    Maglev = 5,
}

/// Bits of [`Service::flags`].
pub mod service_flag {
    /// sh-port, mh-port: the client's port counts too.
    pub const HASH_PORT: u8 = 1;
    /// sh-fallback, mh-fallback: another slot is tried when the server of the first gets no new connections.
    pub const FALLBACK: u8 = 2;
    /// A server has a threshold, so loads are looked at before a server is chosen.
    pub const THRESHOLDS: u8 = 4;
}

/// Bits of [`Service::options`], which the agent reads back; the program goes by [`crate::server::server_flag`].
pub mod service_option {
    /// Connections of a server that goes end (`expire_nodest_conn`).
    pub const EXPIRE_NODEST: u8 = 1;
    /// UDP flows of a server that takes no new connections move.
    pub const EXPIRE_QUIESCENT: u8 = 2;
}

/// A virtual server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Service {
    /// Its index, also of its [`Cursor`].
    pub index: u32,
    /// [`Method`].
    pub method: u8,
    /// [`service_flag`]s.
    pub flags: u8,
    /// Number of the configured scheduler, which `method` does not always tell: for the agent only. 0: unknown.
    pub scheduler: u8,
    /// [`service_option`]s: for the agent only.
    pub options: u8,
    /// First slot of what the method chooses from: a cycle, a hash table, or for the least-connection methods the
    /// list of servers in IPVS's order.
    pub slots_base: u32,
    /// How many slots.
    pub slots_len: u32,
    /// First slot of the table from which a flow is served when the connection table has no place for it: slots in
    /// proportion to weights.
    pub stateless_base: u32,
    /// How many slots; 0: no server.
    pub stateless_len: u32,
    /// Number of the role that this machine must have for it to be served; 0: none, it always is.
    pub role: u16,
    /// Nothing yet.
    pub reserved: [u16; 3],
}

const _: () = assert!(size_of::<Service>() == 32);

/// Roles are numbered from 1 to below this. Of each the map of roles has a word: 0 while this machine has not the role (its
/// virtual servers are on standby), anything else while it has. The word 0 is nobody's.
pub const MAX_ROLES: u32 = 2048;

/// The largest list through which a least-connection method searches.
pub const MAX_LEAST_CONNECTION_SERVERS: u32 = 256;
/// Slots that mh-fallback tries before it takes any server.
pub const MAX_FALLBACK: u32 = 32;
/// Slots of a cycle, one after the other, that are tried for a server that is not overloaded.
pub const MAX_PASSED_OVER: u32 = 64;
/// Slots at the end of a cycle that are tried after those. There stands the last pass of wrr and all of rr: every server
/// once, so none of this many is overlooked.
pub const MAX_LAST_PASS: u32 = 192;

/// A slot: which real server a choice leads to. Eight bytes, as the kernel lays out an array that is mapped into memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Slot {
    /// Number of the real server, or [`crate::conn::NONE`].
    pub server: u32,
    /// Nothing yet.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Slot>() == 8);

impl Slot {
    /// The slot of a real server's number.
    pub const fn new(server: u32) -> Self {
        Self { server, reserved: 0 }
    }
}

/// Where the cycle of a virtual server stands; apart from [`Service`] because packets write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C, align(64))]
pub struct Cursor {
    /// Number of choices so far, modulo 2^32.
    pub count: u32,
    /// Nothing yet: each cursor has its own cache line.
    pub reserved: [u32; 15],
}

const _: () = assert!(size_of::<Cursor>() == 64);
