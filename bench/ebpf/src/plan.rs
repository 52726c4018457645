//! What the wrapped program puts back. The benchmark on the host includes this file too, so that both have one layout.

/// What to put back after each repeat.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Plan {
    /// Bytes that the data plane puts in front, below 256.
    pub grown: u32,
    /// Whether it changes ports and checksum (TCP): 0 or 1.
    pub nat: u32,
    /// Flows - 1 (a power of two less one); 0: always the same flow. The flow's number is added to the client's
    /// address.
    pub last_flow: u32,
    /// Whether the IPv4 header's checksum must be right for each flow: 0 or 1. XDP does not look at it.
    pub sums: u32,
    /// Flows so far.
    pub count: u32,
    /// Address of the first flow's client, host byte order.
    pub client: u32,
    /// The frame's addresses.
    pub macs: [u32; 3],
    /// The IPv4 header.
    pub header: [u32; 5],
    /// Source and destination port.
    pub ports: u32,
    /// The frame's type.
    pub ethertype: u16,
    /// TCP's checksum.
    pub checksum: u16,
}

const _: () = assert!(size_of::<Plan>() == 64);
