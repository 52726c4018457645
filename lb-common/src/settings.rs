//! What the data plane is told once, when it is loaded: it stands in read-only memory, so that the verifier sees
//! constants and removes what is switched off.

use crate::{HashKeys, conn::STATES};

/// Settings of one loaded program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Settings {
    /// Secret of the flow hash.
    pub hash_keys: HashKeys,
    /// Buckets of the connection table.
    pub buckets: u32,
    /// [`crate::conn::Clock::shift`].
    pub clock_shift: u32,
    /// The director's network namespace (`SO_NETNS_COOKIE`, lower half first), whose own connections to virtual servers
    /// are balanced; 0: none are.
    pub netns_cookie: [u32; 2],
    /// After how many ticks the fragments of a packet are forgotten.
    pub fragment_timeout: u32,
    /// Nothing yet.
    pub reserved: u32,
    /// By [`crate::conn::State`]: after how many ticks without a packet a connection is forgotten.
    pub timeouts: [u32; STATES],
}

const _: () = assert!(size_of::<Settings>() == 40 + 8 + 8 + 8 + 64);

/// What an agent must know of a loaded program whose maps it takes over from another agent. No packet needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Identity {
    /// [`crate::ABI_VERSION`] of who wrote the maps; 0: nobody has yet.
    pub abi: u32,
    /// [`Settings::buckets`].
    pub buckets: u32,
    /// [`Settings::clock_shift`].
    pub clock_shift: u32,
    /// How many agents have taken the maps over.
    pub generation: u32,
    /// [`Settings::hash_keys`].
    pub hash_keys: HashKeys,
    /// [`Settings::netns_cookie`] of who wrote the maps.
    pub netns_cookie: [u32; 2],
}

const _: () = assert!(size_of::<Identity>() == 64);

/// Name of the program that tells the time: it writes the present tick to the first four bytes of its packet.
pub const CLOCK: &str = "clock";
/// Name of the program's variable that holds [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// Name of the program's variable (`u8`) that switches debug events on.
pub const TRACE: &str = "TRACE";
