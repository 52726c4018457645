//! A packet's life, top to bottom.
//!
//! The steps are functions of their own for the kernel's sake: the verifier looks at each once, whoever calls it, and
//! the stack of 512 bytes holds one of them at a time. What they tell each other is one word, [`Step`].

use aya_ebpf::bindings::xdp_md;
use lb_common::{FlowKey, Verdict, ip_proto};

use crate::{
    connection::{self, Route, Sender},
    forward, fragment, icmp,
    packet::{Packet, Window},
    parse::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, Ip, Part, Transport},
    service, settings, table, trace,
};

/// What became of a packet and, if it leaves again, on which interface.
#[derive(Clone, Copy)]
pub struct Outcome {
    /// What became of it: the slot of the [`Verdict`].
    pub slot: u32,
    /// Index of the interface, for verdicts of [`lb_common::Class::Transmit`].
    pub egress: u32,
}

/// Where a packet goes next inside the program.
#[derive(Clone, Copy)]
pub enum Step {
    /// Nowhere: this became of it.
    Done(Outcome),
    /// [`open`]: its flow is not known, or it is a first fragment, or the real server of its connection is gone or drains
    /// (`known`).
    Open {
        /// Whether its flow may have a place.
        known: bool,
    },
    /// It is a later fragment: [`fragment::follow`].
    Fragment,
    /// It is ICMP: [`icmp::resolve`].
    Icmp,
    /// It is answered: [`forward::reply::answer`].
    Reply(forward::reply::Order),
}

/// Decides about one packet and changes it accordingly.
#[inline(always)]
pub fn process(packet: Packet) -> Outcome {
    let step = match follow(packet, None) {
        Step::Open { known } => follow_found(packet, open(packet, known)),
        Step::Fragment => follow_found(packet, fragment::follow(packet)),
        Step::Icmp => follow_found(packet, icmp::resolve(packet)),
        step => step,
    };
    match step {
        Step::Done(outcome) => outcome,
        Step::Reply(order) => forward::reply::answer(packet, order),
        // With a route no packet comes back to these.
        Step::Open { .. } | Step::Fragment | Step::Icmp => Outcome::new(Verdict::PassNoConnection, 0),
    }
}

#[inline(always)]
fn follow_found(packet: Packet, found: Result<Route, Verdict>) -> Step {
    match found {
        Ok(route) => follow(packet, Some(route)),
        Err(verdict) => Step::from(verdict),
    }
}

/// Sends a packet of a known connection where that leads, or where `route` leads.
#[inline(always)]
fn follow(packet: Packet, route: Option<Route>) -> Step {
    let route = Route::pack(route);
    let step = match parse::frame(packet.window()) {
        Ok(frame) if frame.ethertype == ETHERTYPE_IPV4 => {
            // SAFETY: the program's own context.
            unsafe { pipeline_follow_v4(packet.raw(), route) }
        }
        Ok(frame) if frame.ethertype == ETHERTYPE_IPV6 => {
            // SAFETY: the program's own context.
            unsafe { pipeline_follow_v6(packet.raw(), route) }
        }
        Ok(_) => return Step::from(Verdict::PassNotIp),
        Err(verdict) => return Step::from(verdict),
    };
    Step::unpack(packet.forget(step))
}

// One function for each version of IP: in each the compiler knows which words of an address are constant.

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn pipeline_follow_v4(ctx: *mut xdp_md, route: u64) -> u64 {
    // SAFETY: the program's own context, by the contract of this function.
    let packet = unsafe { Packet::from_raw(ctx) };
    let window = packet.window();
    let step = parse::frame(window).and_then(
        #[inline(always)]
        |frame| {
            let ip = parse::ipv4::read(window, frame.payload).ok_or(Verdict::PassMalformed)?;
            follow_ip(packet, window, frame, &ip, Route::unpack(route))
        },
    );
    step.unwrap_or_else(Step::from).pack()
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn pipeline_follow_v6(ctx: *mut xdp_md, route: u64) -> u64 {
    // SAFETY: the program's own context, by the contract of this function.
    let packet = unsafe { Packet::from_raw(ctx) };
    let window = packet.window();
    let step = parse::frame(window).and_then(
        #[inline(always)]
        |frame| {
            let ip = parse::ipv6::read(packet, window, frame.payload)?;
            follow_ip(packet, window, frame, &ip, Route::unpack(route))
        },
    );
    step.unwrap_or_else(Step::from).pack()
}

const OPEN: Step = Step::Open { known: false };

#[inline(always)]
fn follow_ip(
    packet: Packet,
    window: Window,
    frame: Frame,
    ip: &Ip,
    known: Option<Route>,
) -> Result<Step, Verdict> {
    let (route, server) = match known {
        Some(route) => {
            let server = connection::server_of(&route)?;
            (route, server)
        }
        None if !ip.is_icmp() && !service::concerns(ip.src, ip.dst) => return Err(Verdict::PassNotOurs),
        None if !service::is_to_this_machine(window).unwrap_or(false) => return Err(Verdict::PassOtherHost),
        None if ip.is_icmp() => return Ok(Step::Icmp),
        None if ip.proto != ip_proto::TCP && ip.proto != ip_proto::UDP => return Err(Verdict::PassNoService),
        None if !ip.is_complete(window) => return Err(Verdict::DropBadLength),
        None if ip.part == Part::Later => return Ok(Step::Fragment),
        None if ip.part == Part::First => return Ok(OPEN),
        None => {
            let transport = parse::l4::read(window, ip)?;
            let key = key(ip, &transport);
            let Some(place) = table::find(&key, settings::hash(&key)) else { return Ok(OPEN) };
            match connection::follow(place, transport.flags, settings::now()) {
                Ok(found) => found,
                Err(step) => return Ok(step),
            }
        }
    };
    forward::send(packet, window, ip, frame.tags, &route, server)
}

/// Chooses a real server for a packet whose flow is not known, and enters the connection into the table. A flow that may be
/// known is looked up first.
#[inline(always)]
fn open(packet: Packet, known: bool) -> Result<Route, Verdict> {
    // SAFETY: the program's own context.
    connection::unpack_opened(packet.forget(unsafe { pipeline_open(packet.raw(), known.into()) }))
}

#[unsafe(no_mangle)]
#[inline(never)]
unsafe extern "C" fn pipeline_open(ctx: *mut xdp_md, known: u32) -> u64 {
    // SAFETY: the program's own context, by the contract of this function.
    connection::pack_opened(try_open(unsafe { Packet::from_raw(ctx) }, known != 0))
}

#[inline(always)]
fn try_open(packet: Packet, known: bool) -> Result<Route, Verdict> {
    let (window, frame, ip) = parse::headers(packet)?;
    let transport = parse::l4::read(window, &ip)?;
    let opening = connection::new_opening().ok_or(Verdict::PassNoConnection)?;
    opening.key = key(&ip, &transport);
    opening.hash = settings::hash_slowly(&opening.key);
    opening.now = settings::now();
    opening.flags = transport.flags;
    opening.sender = Sender::of(packet, window, frame.tags)?;
    let opening = &*opening;
    let is_first = ip.part == Part::First;
    let (route, is_new) = match follow_or_begin(opening, is_first || known) {
        Err(Verdict::PassStandby) if is_first => {
            fragment::remember(packet, None);
            return Err(Verdict::PassStandby);
        }
        found => found?,
    };
    if is_first {
        fragment::remember(packet, Some(route));
    }
    if is_new {
        trace::connection(packet, &opening.key, &route);
    }
    Ok(route)
}

/// Where the packet goes, and whether a connection has begun with it.
#[inline(always)]
fn follow_or_begin(opening: &connection::Opening, may_be_known: bool) -> Result<(Route, bool), Verdict> {
    if may_be_known {
        let index = table::find_index(&opening.key);
        if let Some(route) = connection::follow_slowly(index, opening.flags, opening.now)? {
            return Ok((route, false));
        }
    }
    Ok((connection::open(opening)?, true))
}

#[inline(always)]
fn key(ip: &Ip, transport: &Transport) -> FlowKey {
    FlowKey {
        src: ip.src,
        dst: ip.dst,
        sport: transport.sport,
        dport: transport.dport,
        proto: ip.proto as u32,
    }
}

impl Outcome {
    /// This became of it.
    #[inline(always)]
    pub fn new(verdict: Verdict, egress: u32) -> Self {
        Self { slot: verdict as u32, egress }
    }

    /// As one word: what a function of its own can return.
    #[inline(always)]
    pub fn pack(self) -> u64 {
        (self.egress as u64) << 32 | self.slot as u64
    }

    /// From [`Self::pack`].
    #[inline(always)]
    pub fn unpack(word: u64) -> Self {
        Self { slot: word as u32 & 0xff, egress: (word >> 32) as u32 }
    }
}

impl From<Verdict> for Step {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::ReplyTimeExceeded | Verdict::ReplyNoServer => {
                Self::Reply(forward::reply::Order { verdict, mtu: 0, server: None })
            }
            _ => Self::Done(Outcome::new(verdict, 0)),
        }
    }
}

impl Step {
    const KIND_SHIFT: u32 = 8;
    const OPEN: u64 = 1 << Self::KIND_SHIFT;
    const KNOWN: u64 = 1;
    const ICMP: u64 = 2 << Self::KIND_SHIFT;
    const FRAGMENT: u64 = 3 << Self::KIND_SHIFT;
    const REPLY: u64 = 4 << Self::KIND_SHIFT;

    /// As one word: a verdict in the lowest byte, the kind of step in the next, the rest as the kind says.
    #[inline(always)]
    fn pack(self) -> u64 {
        match self {
            Self::Done(outcome) => outcome.pack(),
            Self::Open { known } => Self::OPEN | if known { Self::KNOWN } else { 0 },
            Self::Fragment => Self::FRAGMENT,
            Self::Icmp => Self::ICMP,
            Self::Reply(order) => Self::REPLY | order.pack(),
        }
    }

    #[inline(always)]
    fn unpack(word: u64) -> Self {
        match word & 0xff00 {
            0 => Self::Done(Outcome::unpack(word)),
            Self::OPEN => Self::Open { known: word & Self::KNOWN != 0 },
            Self::FRAGMENT => Self::Fragment,
            Self::ICMP => Self::Icmp,
            _ => Self::Reply(forward::reply::Order::unpack(word)),
        }
    }
}
