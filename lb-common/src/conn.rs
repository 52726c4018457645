//! The connection table: its layout, the protocol by which both sides change it, and TCP's states.
//!
//! The table is two arrays, mapped into the agent's memory. [`TagBucket`]s hold the tags of 16 places each, one
//! cache line; a flow stands in one of two buckets ([`crate::FlowHash`]). [`Connection`]s hold the places
//! themselves, one cache line each, at `bucket * 16 + way`. A NAT connection takes two places, one for each
//! direction; DR and TUN take one.
//!
//! A place is claimed by changing its tag from [`TAG_FREE`] to [`TAG_BUSY`], filled, and published by its tag.
//! Whoever changes [`Connection::word`] from one state to another, always by compare-and-exchange, also moves
//! the server's counts; whoever changes it to [`State::Free`] counts the connection out and then clears the tag.
//! So each change is counted once, whoever else looks at the place at that moment.

use crate::{Addr, FlowKey, Port};

/// Places in a bucket.
pub const WAYS: u32 = 16;
/// A tag that says: nothing here.
pub const TAG_FREE: u32 = 0;
/// A tag that says: somebody is filling this place.
pub const TAG_BUSY: u32 = 1;
/// No place, no server.
pub const NONE: u32 = u32::MAX;

/// The tags of one bucket.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct TagBucket(pub [u32; WAYS as usize]);

const _: () = assert!(size_of::<TagBucket>() == 64);

/// Buckets for `max_connections` NAT connections (two places each) at three quarters full, where two choices of
/// bucket still all but never fail.
pub const fn buckets_for(max_connections: u32) -> u32 {
    let places = max_connections as u64 * 2 * 4 / 3;
    places.div_ceil(WAYS as u64) as u32
}

/// The clock of the table: the kernel's jiffies, some of them together a tick of 12 to 24 ms, so that 32 bits last for more
/// than a year. The kernel puts jiffies into the program as a plain load; every other clock is a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Nanoseconds of one jiffy.
    jiffy: u64,
}

impl Clock {
    /// The shortest tick.
    const TICK: u64 = 12_000_000;

    /// The clock of a kernel whose jiffy takes so many nanoseconds.
    pub const fn new(jiffy: u64) -> Self {
        Self { jiffy: if jiffy == 0 { 1 } else { jiffy } }
    }

    /// Jiffies of one tick, as a power of two.
    pub const fn shift(self) -> u32 {
        let mut shift = 0;
        while (self.jiffy << shift) < Self::TICK {
            shift += 1;
        }
        shift
    }

    /// A length of time in ticks, at least one.
    pub const fn ticks(self, nanoseconds: u64) -> u32 {
        let ticks = nanoseconds / (self.jiffy << self.shift());
        if ticks == 0 { 1 } else { ticks as u32 }
    }

    /// Ticks in whole seconds.
    pub const fn seconds(self, ticks: u32) -> u32 {
        (ticks as u64 * (self.jiffy << self.shift()) / 1_000_000_000) as u32
    }
}

/// How long ago `then` was. A packet on another CPU may carry a `then` that lies after `now`; that is no time.
#[inline(always)]
pub const fn age(now: u32, then: u32) -> u32 {
    let age = now.wrapping_sub(then);
    if (age as i32) < 0 { 0 } else { age }
}

/// Which direction of a connection a place stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Direction {
    /// Client to real server: the key is (client, virtual server).
    Forward = 0,
    /// Real server to client: the key is (real server, client). NAT only, but for the agent's own checks: with DR and TUN
    /// their answers come to the director too, as (virtual server, client).
    Reverse = 1,
}

/// One place of the table.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct Connection {
    /// Source of the packets.
    pub src: Addr,
    /// Destination of the packets.
    pub dst: Addr,
    /// Source port.
    pub sport: Port,
    /// Destination port.
    pub dport: Port,
    /// [`Meta`]: protocol, direction and the interface of the way back.
    pub meta: Meta,
    /// [`Word`]: generation and state; changed by compare-and-exchange only.
    pub word: u32,
    /// When the last packet came, in ticks.
    pub last_seen: u32,
    /// Index of the real server.
    pub server: u32,
    /// [`Direction::Forward`]: the place of the other direction ([`NONE`] without NAT), then the client's two VLAN tags
    /// or, untagged, its MAC address. [`Direction::Reverse`]: the [`crate::server::Macs`] of the way back.
    pub way: [u32; 3],
}

const _: () = assert!(size_of::<Connection>() == 64);

impl Connection {
    /// The flow whose packets belong here.
    #[inline(always)]
    pub const fn key(&self) -> FlowKey {
        FlowKey {
            src: self.src,
            dst: self.dst,
            sport: self.sport,
            dport: self.dport,
            proto: self.meta.proto() as u32,
        }
    }

    /// Whether `reverse` is the other direction of this forward place. Two processors that open one connection at the same
    /// moment may leave a forward place whose peer has become somebody else's.
    #[inline(always)]
    pub fn is_peer(&self, reverse: &Self) -> bool {
        reverse.meta.direction() as u32 == Direction::Reverse as u32
            && reverse.dst.words()[3] == self.src.words()[3]
            && reverse.dst.words()[2] == self.src.words()[2]
            && reverse.dport.wire() == self.sport.wire()
            && reverse.server == self.server
    }

    /// The place of the other direction ([`Direction::Forward`] only); [`NONE`] without NAT.
    #[inline(always)]
    pub const fn peer(&self) -> u32 {
        self.way[0]
    }
}

/// Protocol (8 bits), direction (1), whether the client's frames are tagged (1), whether the way back is in doubt (1), interface
/// index (20).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Meta(u32);

impl Meta {
    const DIRECTION_SHIFT: u32 = 8;
    const TAGGED: u32 = 1 << 9;
    const DOUBTED: u32 = 1 << 10;
    const LINK_SHIFT: u32 = 12;
    /// Interface indices from here on do not fit; such a way back is looked up in the kernel's tables instead.
    pub const LINK_LIMIT: u32 = 1 << 20;

    /// `link` is the index of the interface on which the client's packets arrive, 0 when unknown.
    #[inline(always)]
    pub const fn new(proto: u8, direction: Direction, tagged: bool, link: u32) -> Self {
        let link = if link < Self::LINK_LIMIT { link } else { 0 };
        let tagged = if tagged { Self::TAGGED } else { 0 };
        Self(proto as u32 | (direction as u32) << Self::DIRECTION_SHIFT | tagged | link << Self::LINK_SHIFT)
    }

    /// IP protocol number.
    #[inline(always)]
    pub const fn proto(self) -> u8 {
        self.0 as u8
    }

    /// Which direction the place stands for.
    #[inline(always)]
    pub const fn direction(self) -> Direction {
        if self.0 >> Self::DIRECTION_SHIFT & 1 == 0 { Direction::Forward } else { Direction::Reverse }
    }

    /// Whether the client's frames carry VLAN tags (then the place of the forward direction holds them).
    #[inline(always)]
    pub const fn tagged(self) -> bool {
        self.0 & Self::TAGGED != 0
    }

    /// The same with a way back that is used only if the kernel knows none.
    #[inline(always)]
    pub const fn doubted(self) -> Self {
        Self(self.0 | Self::DOUBTED)
    }

    /// Whether the way back may have changed: the client has been silent while the server went on sending, or its packets
    /// came by another interface.
    #[inline(always)]
    pub const fn is_doubted(self) -> bool {
        self.0 & Self::DOUBTED != 0
    }

    /// As a plain number, for who changes it by compare and exchange.
    pub const fn to_raw(self) -> u32 {
        self.0
    }

    /// Interface of the way back, 0 when unknown.
    #[inline(always)]
    pub const fn link(self) -> u32 {
        self.0 >> Self::LINK_SHIFT
    }
}

/// Generation (24 bits) and [`State`] (8 bits) of a place. The generation changes whenever the place is freed, so
/// that nobody changes or follows a connection that has taken the place of the one that he looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct Word(pub u32);

impl Word {
    /// The raw number of the state; see [`State::from_raw`].
    #[inline(always)]
    pub const fn state(self) -> u8 {
        self.0 as u8
    }

    /// The same generation in another state.
    #[inline(always)]
    pub const fn with_state(self, state: u8) -> Self {
        Self(self.0 & !0xff | state as u32)
    }

    /// The next generation, free.
    #[inline(always)]
    pub const fn freed(self) -> Self {
        Self((self.0 & !0xff).wrapping_add(0x100))
    }

    /// Whether both are of one generation.
    #[inline(always)]
    pub const fn same_generation(self, other: Self) -> bool {
        self.0 >> 8 == other.0 >> 8
    }
}

/// A connection's state: those of IPVS (`include/net/ip_vs.h`), with a number for "no connection".
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[repr(u8)]
pub enum State {
    /// No connection here.
    Free = 0,
    /// Seen from the middle.
    None = 1,
    /// ESTABLISHED.
    Established = 2,
    /// SYN_SENT.
    SynSent = 3,
    /// SYN_RECV.
    SynRecv = 4,
    /// FIN_WAIT.
    FinWait = 5,
    /// TIME_WAIT.
    TimeWait = 6,
    /// CLOSE.
    Close = 7,
    /// CLOSE_WAIT.
    CloseWait = 8,
    /// LAST_ACK.
    LastAck = 9,
    /// LISTEN.
    Listen = 10,
    /// SYNACK.
    SynAck = 11,
    /// The one state of UDP.
    Udp = 12,
}

/// Numbers of states, for tables indexed by them; a power of two, so that a mask keeps an index inside.
pub const STATES: usize = 16;

impl State {
    /// Every state that a connection can be in.
    pub const ALL: [Self; 12] = [
        Self::None,
        Self::Established,
        Self::SynSent,
        Self::SynRecv,
        Self::FinWait,
        Self::TimeWait,
        Self::Close,
        Self::CloseWait,
        Self::LastAck,
        Self::Listen,
        Self::SynAck,
        Self::Udp,
    ];

    /// From the number in a map; `None` for one that is no state.
    pub fn from_raw(raw: u8) -> Option<Self> {
        if raw == 0 { Some(Self::Free) } else { Self::ALL.get(raw as usize - 1).copied() }
    }

    /// The name that `ipvsadm -Lnc` prints.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Free => "FREE",
            Self::None => "NONE",
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait => "FIN_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::SynAck => "SYNACK",
            Self::Udp => "UDP",
        }
    }

    /// Seconds after which IPVS forgets a connection in this state (`ip_vs_proto_tcp.c` `tcp_timeouts`,
    /// `ip_vs_proto_udp.c` `udp_timeouts`).
    pub const fn default_timeout(self) -> u32 {
        match self {
            Self::Free => 0,
            Self::None => 2,
            Self::Established => 900,
            Self::SynSent | Self::FinWait | Self::TimeWait | Self::Listen | Self::SynAck => 120,
            Self::SynRecv | Self::CloseWait => 60,
            Self::Close => 10,
            Self::LastAck => 30,
            Self::Udp => 300,
        }
    }
}

/// Whether IPVS counts a connection in this state as active (`tcp_state_active_table`); UDP never is.
#[inline(always)]
pub const fn is_active(state: u8) -> bool {
    const ACTIVE: u32 = 1 << State::Established as u32
        | 1 << State::SynSent as u32
        | 1 << State::SynRecv as u32
        | 1 << State::SynAck as u32;
    ACTIVE >> (state & 31) & 1 != 0
}

/// Whether a SYN that arrives in this state starts a new connection (`is_new_conn_expected`, `conn_reuse_mode`
/// 1). Where the answers do not pass the director FIN_WAIT is as good as TIME_WAIT: the server's FIN is never
/// seen (`conn_reuse_mode` 3).
#[inline(always)]
pub const fn may_be_reused(state: u8, input_only: bool) -> bool {
    state == State::TimeWait as u8
        || state == State::Close as u8
        || (input_only && state == State::FinWait as u8)
}

/// TCP flags that change a state.
pub mod tcp_flag {
    /// FIN.
    pub const FIN: u8 = 1;
    /// SYN.
    pub const SYN: u8 = 2;
    /// RST.
    pub const RST: u8 = 4;
    /// ACK.
    pub const ACK: u8 = 16;
}

/// Which way a segment goes, as far as the director sees the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub enum Side {
    /// From the client; the answers pass here too (NAT).
    Input = 0,
    /// From the real server.
    Output = 4,
    /// From the client; the answers go another way (DR, TUN).
    InputOnly = 8,
}

/// The state after a segment (`ip_vs_proto_tcp.c` `tcp_states`, RST before SYN before FIN before ACK). A segment
/// without any of the four flags changes nothing.
#[inline(always)]
pub fn tcp_next(state: u8, side: Side, flags: u8) -> u8 {
    let event = if flags & tcp_flag::RST != 0 {
        3
    } else if flags & tcp_flag::SYN != 0 {
        0
    } else if flags & tcp_flag::FIN != 0 {
        1
    } else if flags & tcp_flag::ACK != 0 {
        2
    } else {
        return state;
    };
    let row = (side as usize + event) & 15;
    // 64-bit words of nibbles, one for each row: a constant that both a BPF program and a test read.
    (TCP_STATES[row] >> ((state as u32 & 15) * 4)) as u8 & 15
}

/// Rows of [`tcp_next`]: [`Side`] + event; in each the next state of state `n` is nibble `n`.
static TCP_STATES: [u64; 16] = tcp_rows();

const fn tcp_rows() -> [u64; 16] {
    use State::{Close, CloseWait, Established, FinWait, LastAck, Listen, SynRecv, SynSent, TimeWait};
    const ES: State = Established;
    const SS: State = SynSent;
    const SR: State = SynRecv;
    const FW: State = FinWait;
    const TW: State = TimeWait;
    const CL: State = Close;
    const CW: State = CloseWait;
    const LA: State = LastAck;
    const LI: State = Listen;
    // Columns: the state before, in the order NO ES SS SR FW TW CL CW LA LI SA.
    const TABLE: [[State; 11]; 12] = [
        // Input: SYN, FIN, ACK, RST.
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, CW, SS, TW, TW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, SR],
        // Output.
        [SS, ES, SS, SR, SS, SS, SS, SS, SS, LI, SR],
        [TW, FW, SS, TW, FW, TW, CL, TW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, LA, ES, ES],
        [CL, CL, SS, CL, CL, TW, CL, CL, CL, CL, CL],
        // Input only.
        [SR, ES, ES, SR, SR, SR, SR, SR, SR, SR, SR],
        [CL, FW, SS, TW, FW, TW, CL, CW, LA, LI, TW],
        [ES, ES, SS, ES, FW, TW, CL, CW, CL, LI, ES],
        [CL, CL, CL, SR, CL, CL, CL, CL, LA, LI, CL],
    ];
    let mut rows = [0; 16];
    let mut row = 0;
    while row < 12 {
        let mut column = 0;
        while column < 11 {
            rows[row] |= (TABLE[row][column] as u64) << ((column + 1) * 4);
            column += 1;
        }
        row += 1;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use tcp_flag::{ACK, FIN, RST, SYN};

    fn walk(start: State, steps: &[(Side, u8)]) -> Vec<&'static str> {
        let mut state = start as u8;
        steps
            .iter()
            .map(|&(side, flags)| {
                state = tcp_next(state, side, flags);
                State::from_raw(state).expect("a state").name()
            })
            .collect()
    }

    #[test]
    fn a_connection_through_nat_lives_and_ends() {
        use Side::{Input, Output};
        let steps = [
            (Input, SYN),
            (Output, SYN | ACK),
            (Input, ACK),
            (Output, ACK),
            (Input, FIN | ACK),
            (Output, FIN | ACK),
            (Input, ACK),
        ];
        let seen = walk(State::None, &steps);
        assert_eq!(
            seen,
            ["SYN_RECV", "SYN_RECV", "ESTABLISHED", "ESTABLISHED", "CLOSE_WAIT", "TIME_WAIT", "TIME_WAIT"]
        );
    }

    #[test]
    fn dr_sees_one_side_only() {
        use Side::InputOnly;
        let seen = walk(
            State::None,
            &[(InputOnly, SYN), (InputOnly, ACK), (InputOnly, FIN | ACK), (InputOnly, ACK)],
        );
        assert_eq!(seen, ["SYN_RECV", "ESTABLISHED", "FIN_WAIT", "FIN_WAIT"]);
    }

    #[test]
    fn rst_goes_before_all_other_flags() {
        assert_eq!(walk(State::Established, &[(Side::Input, RST | SYN | FIN | ACK)]), ["CLOSE"]);
        assert_eq!(walk(State::Established, &[(Side::Input, SYN | FIN)]), ["ESTABLISHED"]);
    }

    #[test]
    fn a_segment_without_flags_changes_nothing() {
        for state in State::ALL {
            assert_eq!(tcp_next(state as u8, Side::Input, 0), state as u8);
        }
    }

    #[test]
    fn every_transition_ends_in_a_state() {
        for state in &State::ALL[..11] {
            for side in [Side::Input, Side::Output, Side::InputOnly] {
                for flags in [FIN, SYN, RST, ACK] {
                    let next = tcp_next(*state as u8, side, flags);
                    assert!((1..=11).contains(&next), "{state:?} {side:?} {flags} -> {next}");
                }
            }
        }
    }

    #[test]
    fn names_and_numbers_agree() {
        for (index, state) in State::ALL.into_iter().enumerate() {
            assert_eq!(state as usize, index + 1);
            assert_eq!(State::from_raw(state as u8), Some(state));
        }
        assert_eq!(State::from_raw(13), None);
        assert!(
            is_active(State::SynRecv as u8)
                && !is_active(State::FinWait as u8)
                && !is_active(State::Udp as u8)
        );
    }

    #[test]
    fn meta_and_word_keep_their_parts() {
        let meta = Meta::new(17, Direction::Reverse, true, 0xf_ffff);
        assert_eq!(
            (meta.proto(), meta.direction(), meta.tagged(), meta.link()),
            (17, Direction::Reverse, true, 0xf_ffff)
        );
        assert_eq!(Meta::new(6, Direction::Forward, false, Meta::LINK_LIMIT).link(), 0);
        let word = Word(0xffff_ff00).with_state(State::Udp as u8);
        assert_eq!(word.state(), State::Udp as u8);
        assert_eq!(word.freed(), Word(0));
        assert!(!word.freed().same_generation(word) && word.with_state(3).same_generation(word));
    }

    #[test]
    fn ticks_are_short_and_last_long_at_every_frequency_of_linux() {
        for hz in [100, 250, 300, 1000] {
            let clock = Clock::new(1_000_000_000 / hz);
            let second = clock.ticks(1_000_000_000);
            assert!((41..=84).contains(&second), "{hz} Hz: {second} ticks a second");
            let month = clock.ticks(31 * 86_400 * 1_000_000_000);
            assert!(month < i32::MAX as u32 / 4, "{hz} Hz: {month} ticks a month");
            assert!(clock.seconds(month).abs_diff(31 * 86_400) <= 1, "{hz} Hz");
        }
    }

    #[test]
    fn the_clock_survives_its_wrap() {
        assert_eq!(age(5, u32::MAX - 4), 10);
        assert_eq!(age(5, 7), 0);
    }
}
