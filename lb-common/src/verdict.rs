//! What became of a packet: one name, one counter, one documented meaning for each.

/// What the kernel is told about a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// On to this machine's own network stack.
    Pass,
    /// Gone.
    Drop,
    /// Out again, changed.
    Transmit,
}

impl Class {
    /// The class of a slot: sixteen slots for verdicts that pass, as many for those that transmit, all others drop.
    #[inline(always)]
    pub const fn of(slot: u32) -> Self {
        match slot >> 4 {
            0 => Self::Pass,
            1 => Self::Transmit,
            _ => Self::Drop,
        }
    }
}

macro_rules! verdicts {
    ($($(#[$doc:meta])+ $variant:ident = $slot:literal $class:ident $name:literal),+ $(,)?) => {
        /// What became of a packet. The number is the slot of its counter.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u32)]
        pub enum Verdict { $($(#[$doc])+ $variant = $slot),+ }

        impl Verdict {
            /// Every verdict.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name under which it is counted, shown and documented.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }

            /// The verdict of a slot.
            pub const fn from_slot(slot: u32) -> Option<Self> {
                match slot { $($slot => Some(Self::$variant),)+ _ => None }
            }

            /// What the kernel is told.
            #[inline(always)]
            pub const fn class(self) -> Class {
                Class::of(self as u32)
            }
        }

        // Each stands in the range of its class.
        const _: () = { $(assert!(Class::of($slot) as u32 == Class::$class as u32);)+ };
    };
}

verdicts! {
    /// Neither IPv4 nor IPv6: ARP and others.
    PassNotIp = 0 Pass "pass_not_ip",
    /// Neither for a virtual server nor from a real server behind NAT.
    PassNotOurs = 1 Pass "pass_not_ours",
    /// For an address of a virtual server, but not for its port or protocol.
    PassNoService = 2 Pass "pass_no_service",
    /// TCP without SYN, and no connection: the kernel answers with RST, as with IPVS.
    PassNoConnection = 3 Pass "pass_no_connection",
    /// ICMP that tells of no error, such as echo: this machine answers.
    PassIcmp = 4 Pass "pass_icmp",
    /// An ICMP error about no connection that is known here.
    PassIcmpUnrelated = 5 Pass "pass_icmp_unrelated",
    /// The frame ends before its header does, or the IP header contradicts itself: the kernel counts it.
    PassMalformed = 6 Pass "pass_malformed",
    /// More than two VLAN tags.
    PassVlan = 7 Pass "pass_vlan",
    /// An IPv6 packet with more extension headers than are followed.
    PassExtensionHeaders = 8 Pass "pass_extension_headers",
    /// For another machine's MAC address: the interface is promiscuous or a bridge floods. The kernel drops it.
    PassOtherHost = 9 Pass "pass_other_host",
    /// To a virtual server on standby: it is bound to a VRRP instance of which another director is master.
    PassStandby = 10 Pass "pass_standby",

    /// Client to real server, translated.
    ForwardNat = 16 Transmit "forward_nat",
    /// Real server to client, translated back.
    ReverseNat = 17 Transmit "reverse_nat",
    /// To a real server on the same network, by its MAC address.
    ForwardDr = 18 Transmit "forward_dr",
    /// To a real server inside an outer IP packet.
    ForwardTun = 19 Transmit "forward_tun",
    /// An ICMP error on its way to the real server that it is about.
    IcmpToServer = 20 Transmit "icmp_to_server",
    /// An ICMP error from the servers' side on its way to the client.
    IcmpToClient = 21 Transmit "icmp_to_client",
    /// The packet's time to live ended here: answered with time exceeded.
    ReplyTimeExceeded = 22 Transmit "reply_time_exceeded",
    /// The packet does not fit the way to its server: answered with fragmentation needed or packet too big.
    ReplyTooBig = 23 Transmit "reply_too_big",
    /// No real server takes new connections: answered with port unreachable, as IPVS does.
    ReplyNoServer = 24 Transmit "reply_no_server",

    /// The packet says that it is longer than it is, or its lengths contradict each other.
    DropBadLength = 32 Drop "drop_bad_length",
    /// The TCP or UDP header is cut off or contradicts itself.
    DropBadTransport = 33 Drop "drop_bad_transport",
    /// A fragment whose first fragment has not been seen: nothing says where it belongs.
    DropFragment = 34 Drop "drop_fragment",
    /// The neighbour of the next hop is not known (yet).
    DropNoNextHop = 35 Drop "drop_no_next_hop",
    /// A packet that may not be answered (an ICMP error, a later fragment) with its time to live at an end.
    DropTimeExceeded = 36 Drop "drop_time_exceeded",
    /// A packet that may not be answered and does not fit.
    DropTooBig = 37 Drop "drop_too_big",
    /// No real server, and the packet may not be answered.
    DropNoServer = 38 Drop "drop_no_server",
    /// The frame could not be made larger or smaller: the driver left no room.
    DropNoRoom = 39 Drop "drop_no_room",
    /// Client and port already have a connection to this real server by way of another virtual server; the
    /// answers could not be told apart.
    DropCollision = 40 Drop "drop_collision",
    /// The connection's real server is not there, and the packet may not go elsewhere.
    DropServerGone = 41 Drop "drop_server_gone",
    /// An ICMP error that quotes too little to say what it is about, or is cut off.
    DropIcmpMalformed = 42 Drop "drop_icmp_malformed",
}

macro_rules! events {
    ($($(#[$doc:meta])+ $variant:ident = $slot:literal $name:literal),+ $(,)?) => {
        /// What happened besides; counted next to the verdicts.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        #[repr(u32)]
        pub enum Event { $($(#[$doc])+ $variant = $slot),+ }

        impl Event {
            /// Every event.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name under which it is counted.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

events! {
    /// A connection was entered into the table.
    ConnectionNew = 48 "connection_new",
    /// A packet was served without a place in the table, which was full.
    Stateless = 49 "stateless",
    /// A connection whose time was over gave its place to a new one.
    ConnectionExpired = 50 "connection_expired",
    /// A client used the port of a closed connection again.
    ConnectionReused = 51 "connection_reused",
    /// The next hop was not in the server's entry and came from the kernel's routing table.
    FibLookup = 52 "fib_lookup",
    /// A connection of the director's own to a virtual server was given to a real server.
    ConnectionLocal = 54 "connection_local",
    /// A connection lost its real server, which is gone or drains: its packet began a new one or, TCP, ended it.
    ConnectionMoved = 55 "connection_moved",
    /// An answer (time exceeded, too big, port unreachable) was not sent because this CPU had sent its share of
    /// this second.
    ReplyLimited = 53 "reply_limited",
}

/// Counters of one CPU: verdicts and events by their slots.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Counters(pub [u64; SLOTS]);

/// Slots of [`Counters`].
pub const SLOTS: usize = 64;

const _: () = assert!(size_of::<Counters>() == 512);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_verdict_and_event_has_its_own_slot_and_name() {
        let slots: Vec<u32> =
            Verdict::ALL.iter().map(|&v| v as u32).chain(Event::ALL.iter().map(|&e| e as u32)).collect();
        let names: BTreeSet<&str> =
            Verdict::ALL.iter().map(|v| v.name()).chain(Event::ALL.iter().map(|e| e.name())).collect();
        assert_eq!(slots.iter().collect::<BTreeSet<_>>().len(), slots.len());
        assert_eq!(names.len(), slots.len());
        assert!(slots.iter().all(|&slot| (slot as usize) < SLOTS));
    }
}
