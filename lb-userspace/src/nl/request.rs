//! The netlink socket for requests: many at once, each with its own answer.
//!
//! The kernel does a request within `sendmsg`, so its answer is there when that returns. Waiting is only a safeguard.

use std::{
    io,
    marker::PhantomData,
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkSerializable,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{setsockopt, sockopt},
};

use super::{
    error::Refusal,
    message::{HEADER, Message, messages},
};

/// How long an answer may take once the request has been done.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Requests in one `sendmsg`: their answers fit into the smallest receive buffer that a kernel is set up with.
const BATCH: usize = 128;
/// Bytes that one answer may have; the kernel makes the datagrams of a dump 32 KiB at most.
const ANSWER_SIZE: usize = 1 << 16;
/// Asked for; a process without CAP_NET_ADMIN gets what `net.core.rmem_max` allows.
const RECEIVE_BUFFER: usize = 1 << 20;
/// How often a dump during which a table has changed is made again.
const DUMP_ATTEMPTS: usize = 5;

/// A request, with its flags beyond `NLM_F_REQUEST | NLM_F_ACK`.
pub(crate) type Request<M = RouteNetlinkMessage> = (M, u16);

/// A socket for requests of one netlink protocol.
#[derive(Debug)]
pub(crate) struct Requests<M = RouteNetlinkMessage> {
    socket: Socket,
    sequence: u32,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    kind: PhantomData<fn(&M)>,
}

impl<M: NetlinkSerializable + Clone> Requests<M> {
    /// Of a protocol, as `NETLINK_ROUTE`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Answers repeat no more of the request than its header, and say in words what is wrong.
        socket.set_cap_ack(true)?;
        socket.set_ext_ack(true)?;
        enlarge(&socket);
        Ok(Self {
            socket,
            sequence: 0,
            outgoing: Vec::with_capacity(ANSWER_SIZE),
            incoming: Vec::with_capacity(ANSWER_SIZE),
            kind: PhantomData,
        })
    }

    /// How many requests were made, dumps among them.
    #[cfg(test)]
    pub const fn requests(&self) -> u32 {
        self.sequence
    }

    /// Does one request.
    pub fn ask(&mut self, request: Request<M>) -> Result<(), Refusal> {
        self.exchange(&[request], |_| ()).pop().unwrap_or_else(|| Err(Refusal::of(libc::EIO)))
    }

    /// Does all of them, in their order; one that fails does not keep the others from being done.
    pub fn ask_all(&mut self, requests: &[Request<M>]) -> Vec<Result<(), Refusal>> {
        requests.chunks(BATCH).flat_map(|batch| self.exchange(batch, |_| ())).collect()
    }

    /// One request's single answer.
    pub fn get<T>(&mut self, request: M, read: impl Fn(&Message<'_>) -> Option<T>) -> Result<T, Refusal> {
        let mut answer = None;
        let outcome =
            self.exchange(&[(request, 0)], |message| answer = answer.take().or_else(|| read(message)));
        outcome.into_iter().next().unwrap_or(Ok(()))?;
        answer.ok_or_else(|| Refusal::of(libc::EPROTO))
    }

    /// A whole table: what `read` makes of each entry.
    pub fn dump<T>(
        &mut self,
        request: &M,
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Refusal> {
        let request = (request.clone(), NLM_F_DUMP);
        for _ in 0..DUMP_ATTEMPTS {
            let (mut table, mut has_changed) = (vec![], false);
            let outcome = self.exchange(std::slice::from_ref(&request), |message| {
                has_changed |= message.flags & NLM_F_DUMP_INTR != 0;
                table.extend(read(message));
            });
            outcome.into_iter().next().unwrap_or(Ok(()))?;
            if !has_changed {
                return Ok(table);
            }
        }
        Err(Refusal { code: libc::EAGAIN, text: "the table keeps changing".to_owned() })
    }

    /// Sends at most [`BATCH`] requests at once and reads until each has its outcome; other answers go to `each`.
    fn exchange(
        &mut self,
        requests: &[Request<M>],
        mut each: impl FnMut(&Message<'_>),
    ) -> Vec<Result<(), Refusal>> {
        let first = self.sequence.wrapping_add(1);
        self.serialize(requests);
        let mut outcomes: Vec<Option<Result<(), Refusal>>> = vec![None; requests.len()];
        let mut missing = requests.len();
        let mut failure = self.send().err();
        let deadline = Instant::now() + ANSWER_LIMIT;
        while missing > 0 && failure.is_none() {
            if let Err(refusal) = self.receive(deadline) {
                failure = Some(refusal);
                break;
            }
            for message in messages(&self.incoming) {
                // An answer to an earlier request that was given up is not ours.
                let position = message.sequence.wrapping_sub(first) as usize;
                let Some(outcome) = outcomes.get_mut(position).filter(|outcome| outcome.is_none()) else {
                    continue;
                };
                match message.outcome() {
                    Some(result) => {
                        *outcome = Some(result);
                        missing -= 1;
                    }
                    None => each(&message),
                }
            }
        }
        let failure = failure.unwrap_or_else(|| Refusal::of(libc::ETIMEDOUT));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(failure.clone()))).collect()
    }

    fn serialize(&mut self, requests: &[Request<M>]) {
        self.outgoing.clear();
        for (request, flags) in requests {
            self.sequence = self.sequence.wrapping_add(1);
            // A dump is acknowledged by its end.
            let is_dump = flags & NLM_F_DUMP == NLM_F_DUMP;
            let flags = NLM_F_REQUEST | flags | if is_dump { 0 } else { NLM_F_ACK };
            let start = self.outgoing.len();
            let len = HEADER + request.buffer_len();
            self.outgoing.resize((start + len).next_multiple_of(4), 0);
            let mut message = NetlinkBuffer::new(&mut self.outgoing[start..start + len]);
            message.set_length(u32::try_from(len).unwrap_or(u32::MAX));
            message.set_message_type(request.message_type());
            message.set_flags(flags);
            message.set_sequence_number(self.sequence);
            request.serialize(message.payload_mut());
        }
    }

    fn send(&self) -> Result<(), Refusal> {
        loop {
            match self.socket.send(&self.outgoing, 0) {
                Ok(len) if len == self.outgoing.len() => return Ok(()),
                Ok(_) => return Err(Refusal::of(libc::EMSGSIZE)),
                // Interrupted before the kernel has looked at it.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The next datagram from the kernel, into `incoming`.
    fn receive(&mut self, deadline: Instant) -> Result<(), Refusal> {
        loop {
            self.incoming.clear();
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            match self.socket.recv_from(&mut self.incoming, flags) {
                Ok((len, _)) if len > self.incoming.len() => return Err(Refusal::of(libc::EMSGSIZE)),
                Ok((_, sender)) if sender.port_number() == 0 => return Ok(()),
                // Any process may send to a netlink socket.
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Refusal::of(libc::ETIMEDOUT));
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let fd = self.socket.as_fd();
            match poll(&mut [PollFd::new(fd, PollFlags::POLLIN)], timeout) {
                Ok(_) | Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// More room for answers, as far as this process may have it.
fn enlarge(socket: &Socket) {
    if setsockopt(socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        // What the kernel grants is enough for a batch in any case.
        let _ = setsockopt(socket, sockopt::RcvBuf, &RECEIVE_BUFFER);
    }
}
