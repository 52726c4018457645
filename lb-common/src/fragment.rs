//! What the first fragment of a packet decided, for the fragments that follow it.

use crate::Addr;

/// By what the fragments of one packet belong together (RFC 791 section 3.2, RFC 8200 section 4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct FragmentKey {
    /// Source of the packet.
    pub src: Addr,
    /// Its destination.
    pub dst: Addr,
    /// Identification, in network order.
    pub id: u32,
    /// IP protocol number of the packet.
    pub proto: u32,
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// Where the others go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct Fragment {
    /// Place of the connection, or [`crate::conn::NONE`] for one that has no place.
    pub place: u32,
    /// [`crate::conn::Word`] of that place at the time.
    pub word: u32,
    /// Real server, or [`crate::conn::NONE`] for a packet that was passed since its virtual server is on standby.
    pub server: u32,
    /// [`crate::conn::Direction`].
    pub direction: u32,
    /// When the first fragment came, in ticks.
    pub seen: u32,
    /// Nothing yet.
    pub reserved: u32,
}

const _: () = assert!(size_of::<Fragment>() == 24);

/// Packets whose fragments are remembered at one time.
pub const ENTRIES: u32 = 16_384;

/// How long fragments of one packet may take: the kernel's `ipfrag_time`, in nanoseconds.
pub const TIMEOUT: u64 = 30_000_000_000;
