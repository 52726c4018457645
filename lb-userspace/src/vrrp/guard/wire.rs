//! What agent and guard say to each other on their socket.
//!
//! ```text
//!  0                   4
//! +-------------------+------------------------ ... -+
//! | length, in bytes, | JSON                         |
//! | little-endian     |                              |
//! +-------------------+------------------------ ... -+
//! ```
//!
//! The first byte of a plan may carry a descriptor (SCM_RIGHTS): the data plane's map of roles.

use std::{
    borrow::Cow,
    io::{self, IoSlice, IoSliceMut},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::{
    cmsg_space,
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Plan;

/// The longest message, in bytes.
pub const MAX_MESSAGE: usize = 64 << 20;
const HEADER: usize = 4;
/// How much is read at once, in bytes.
const READ_SIZE: usize = 64 << 10;

/// From the agent to the guard.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order<'a> {
    /// Takes the place of the plan before.
    Plan {
        /// Which bank of the page says who is master of what.
        generation: u32,
        /// The plan.
        plan: Cow<'a, Plan>,
    },
    /// The agent ends in good order: there is nothing to give up.
    Bye,
}

/// From the guard to the agent: it has a plan.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Which.
    pub generation: u32,
    /// What it will not be able to do, in words.
    pub warnings: Vec<String>,
}

/// A message with its length before it.
///
/// # Errors
/// When it is longer than [`MAX_MESSAGE`].
pub fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    frame_within(message, MAX_MESSAGE)
}

fn frame_within(message: &impl Serialize, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; HEADER];
    serde_json::to_writer(&mut bytes, message)?;
    let len = bytes.len() - HEADER;
    if len > most {
        let text = format!("a message of {len} bytes is too long for the guard, which takes {most}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    let len = u32::try_from(len).unwrap_or(u32::MAX);
    bytes[..HEADER].copy_from_slice(&len.to_le_bytes());
    Ok(bytes)
}

/// Puts messages together from what comes in pieces.
#[derive(Debug, Default)]
pub struct Frames {
    bytes: Vec<u8>,
}

impl Frames {
    /// More has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message, if it is there as a whole.
    ///
    /// # Errors
    /// When it is too long or cannot be understood: nothing that follows can be either.
    pub fn next<T: DeserializeOwned>(&mut self) -> io::Result<Option<T>> {
        let Some(header) = self.bytes.first_chunk::<HEADER>() else { return Ok(None) };
        let len = u32::from_le_bytes(*header) as usize;
        if len > MAX_MESSAGE {
            let text = format!("a message of {len} bytes, which is too long");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let Some(body) = self.bytes.get(HEADER..HEADER + len) else { return Ok(None) };
        let message = serde_json::from_slice(body)?;
        self.bytes.drain(..HEADER + len);
        Ok(Some(message))
    }
}

/// Sends all of `bytes`, with the first one a descriptor, until `deadline`.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`], and what the kernel says: the other side is gone.
pub fn send(
    socket: &UnixStream,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
    deadline: Instant,
) -> io::Result<()> {
    let mut sent = 0;
    loop {
        sent += send_some(socket, &bytes[sent..], fd.filter(|_| sent == 0))?;
        if sent == bytes.len() {
            return Ok(());
        }
        wait(socket, PollFlags::POLLOUT, deadline)?;
    }
}

/// Sends what there is room for, with the first byte a descriptor, without waiting; how many bytes.
///
/// # Errors
/// What the kernel says: the other side is gone.
pub fn send_some(socket: &UnixStream, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let fds: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let mut control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let mut sent = 0;
    while sent < bytes.len() {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(&bytes[sent..])], control, flags, None) {
            Ok(more) => {
                sent += more;
                control = &[];
            }
            Err(Errno::EAGAIN) => break,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

/// Waits for a message until `deadline`.
///
/// # Errors
/// [`io::ErrorKind::TimedOut`], [`io::ErrorKind::UnexpectedEof`] when the other side is gone, and those of [`Frames::next`].
#[cfg(test)]
pub fn receive<T: DeserializeOwned>(
    socket: &UnixStream,
    frames: &mut Frames,
    deadline: Instant,
) -> io::Result<T> {
    loop {
        if let Some(message) = frames.next()? {
            return Ok(message);
        }
        wait(socket, PollFlags::POLLIN, deadline)?;
        match read(socket, frames)? {
            Read::End => return Err(io::ErrorKind::UnexpectedEof.into()),
            Read::Nothing | Read::Bytes(_) => {}
        }
    }
}

/// What [`read`] found.
#[derive(Debug)]
pub enum Read {
    /// Nothing has come yet.
    Nothing,
    /// Bytes, which `frames` has now, and perhaps a descriptor.
    Bytes(Option<OwnedFd>),
    /// The other side is gone.
    End,
}

/// Reads once, without waiting.
///
/// # Errors
/// What the kernel says, other than that the other side is gone.
pub fn read(socket: &UnixStream, frames: &mut Frames) -> io::Result<Read> {
    let mut buffer = vec![0; READ_SIZE];
    let mut space = cmsg_space!(std::os::fd::RawFd);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
        Ok(received) => received,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(Read::Nothing),
        // It had not read everything when it died.
        Err(Errno::ECONNRESET) => return Ok(Read::End),
        Err(error) => return Err(error.into()),
    };
    let mut fd = None;
    for message in received.cmsgs()? {
        let ControlMessageOwned::ScmRights(fds) = message else { continue };
        for raw in fds {
            // SAFETY: the kernel has just made it for us, and nobody else knows it.
            fd = Some(unsafe { OwnedFd::from_raw_fd(raw) });
        }
    }
    let len = received.bytes;
    if len == 0 {
        return Ok(Read::End);
    }
    frames.push(&buffer[..len]);
    Ok(Read::Bytes(fd))
}

fn wait(socket: &UnixStream, flags: PollFlags, deadline: Instant) -> io::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    // Rounded up, so that the last part of a millisecond is no busy loop.
    let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(socket.as_fd(), flags)], left) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        fs::File,
        io::{Read as _, Seek as _, Write as _},
        thread,
    };

    use proptest::prelude::*;

    use super::{super::tests::plan, *};

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(20)
    }

    #[test]
    fn messages_come_whole_from_any_pieces() {
        let first = Order::Plan { generation: 7, plan: Cow::Owned(plan(3)) };
        let bytes = [frame(&first).unwrap(), frame(&Order::Bye).unwrap()].concat();
        proptest!(|(cuts in proptest::collection::vec(0..bytes.len(), 0..20))| {
            let mut cuts = cuts;
            cuts.push(bytes.len());
            cuts.sort_unstable();
            let (mut frames, mut at, mut found) = (Frames::default(), 0, vec![]);
            for cut in cuts {
                frames.push(&bytes[at..cut]);
                at = cut;
                while let Some(order) = frames.next::<Order<'_>>().unwrap() {
                    found.push(order);
                }
            }
            prop_assert_eq!(found, [Order::Plan { generation: 7, plan: Cow::Owned(plan(3)) }, Order::Bye]);
            prop_assert!(frames.bytes.is_empty());
        });
    }

    #[test]
    fn no_bytes_make_it_panic() {
        proptest!(|(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0_u32..300)| {
            let mut frames = Frames::default();
            frames.push(&len.to_le_bytes());
            frames.push(&bytes);
            // Each message takes bytes away, so this ends.
            while let Ok(Some(_)) = frames.next::<Order<'_>>() {}
        });
    }

    #[test]
    fn what_is_too_long_or_nonsense_is_refused() {
        let mut frames = Frames::default();
        frames.push(&(u32::try_from(MAX_MESSAGE).unwrap() + 1).to_le_bytes());
        assert_eq!(frames.next::<Order<'_>>().unwrap_err().kind(), io::ErrorKind::InvalidData);
        let mut frames = Frames::default();
        frames.push(&u32::try_from(MAX_MESSAGE).unwrap().to_le_bytes());
        assert!(frames.next::<Order<'_>>().unwrap().is_none(), "not yet there");
        let mut frames = Frames::default();
        frames.push(b"\x05\0\0\0nonse");
        assert!(frames.next::<Order<'_>>().is_err());
        assert_eq!(frame_within(&"1234", 5).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(frame_within(&"123", 5).unwrap(), b"\x05\0\0\0\"123\"");
    }

    #[test]
    fn a_large_plan_goes_over_a_socket_with_its_descriptor() {
        let (agent, guard) = UnixStream::pair().unwrap();
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"roles").unwrap();
        let plan = plan(5000);
        let reader = thread::spawn(move || {
            let (mut frames, mut fds) = (Frames::default(), vec![]);
            loop {
                if let Some(order) = frames.next::<Order<'_>>().unwrap() {
                    return (order, fds);
                }
                wait(&guard, PollFlags::POLLIN, soon()).unwrap();
                if let Read::Bytes(Some(fd)) = read(&guard, &mut frames).unwrap() {
                    fds.push(fd);
                }
            }
        });
        let order = Order::Plan { generation: 1, plan: Cow::Borrowed(&plan) };
        let bytes = frame(&order).unwrap();
        assert!(bytes.len() > 1 << 20, "it does not fit into the socket at once");
        send(&agent, &bytes, Some(file.as_fd()), soon()).unwrap();
        let (received, mut fds) = reader.join().unwrap();
        assert_eq!(received, order);
        let mut copy = File::from(fds.pop().unwrap());
        assert!(fds.is_empty());
        copy.rewind().unwrap();
        let mut text = String::new();
        copy.read_to_string(&mut text).unwrap();
        assert_eq!(text, "roles");
    }

    #[test]
    fn waiting_is_bounded() {
        let (agent, guard) = UnixStream::pair().unwrap();
        let over = Instant::now();
        let error = receive::<Answer>(&agent, &mut Frames::default(), over).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let error = send(&agent, &vec![0; 16 << 20], None, over).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut, "nobody reads");
        drop(guard);
        let error = receive::<Answer>(&agent, &mut Frames::default(), soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(send(&agent, b"x", None, soon()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_was_said_before_the_end_is_heard() {
        let (agent, guard) = UnixStream::pair().unwrap();
        send(&agent, &frame(&Order::Bye).unwrap(), None, soon()).unwrap();
        drop(agent);
        let mut frames = Frames::default();
        assert_eq!(receive::<Order<'_>>(&guard, &mut frames, soon()).unwrap(), Order::Bye);
        assert!(matches!(read(&guard, &mut frames).unwrap(), Read::End));
    }
}
