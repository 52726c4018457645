//! Taking netlink's datagrams apart: pure, and content with whatever bytes come.
//!
//! ```text
//!  struct nlmsghdr                        struct nlattr
//!   0      4      6      8      12    16   0    2    4
//!   +------+------+------+------+------+   +----+----+-------+
//!   | len  | type | flags| seq  | port |   |len |type| value |   each padded to 4 bytes, in the machine's byte order
//!   +------+------+------+------+------+   +----+----+-------+
//! ```

use super::error::Refusal;

/// `sizeof(struct nlmsghdr)`.
pub const HEADER: usize = 16;
/// `NLMSG_ERROR`: an error, or with number 0 an acknowledgement.
pub const ERROR: u16 = 2;
/// `NLMSG_DONE`: the end of a dump.
pub const DONE: u16 = 3;
/// `NLMSGERR_ATTR_MSG`.
const ERROR_TEXT: u16 = 1;
/// The kernel's words are not longer than this; it is untrusted all the same.
const MAX_ERROR_TEXT: usize = 256;

/// One message of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// `RTM_NEWADDR` and so on.
    pub kind: u16,
    /// `NLM_F_*`.
    pub flags: u16,
    /// That of the request it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// What an [`ERROR`] or [`DONE`] says; `None` for any other message.
    pub fn outcome(&self) -> Option<Result<(), Refusal>> {
        if !matches!(self.kind, ERROR | DONE) {
            return None;
        }
        // A DONE may come without a number.
        let code = u32_at(self.payload, 0).unwrap_or(0).cast_signed();
        if code == 0 {
            return Some(Ok(()));
        }
        // With NETLINK_CAP_ACK only the header of the request is repeated.
        let words = self.payload.get(4 + HEADER..).unwrap_or_default();
        let text = attributes(words).find(|(kind, _)| *kind == ERROR_TEXT).map(|(_, value)| text(value));
        let text = text.unwrap_or_default().chars().take(MAX_ERROR_TEXT).collect();
        Some(Err(Refusal { code: code.saturating_abs(), text }))
    }
}

/// The messages of a datagram, up to the first that is not whole.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = usize::try_from(u32_at(datagram, 0)?).ok()?;
        let message = datagram.get(..len).filter(|message| message.len() >= HEADER)?;
        datagram = datagram.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(Message {
            kind: u16_at(message, 4)?,
            flags: u16_at(message, 6)?,
            sequence: u32_at(message, 8)?,
            payload: &message[HEADER..],
        })
    })
}

/// Type (without `NLA_F_NESTED`) and value of each attribute, up to the first that is not whole.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The number at an offset.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// The number at an offset.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// A string, which ends at a NUL.
pub fn text(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = u32::try_from(HEADER + payload.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(0u16.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = u16::try_from(4 + value.len()).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn a_datagram_has_several_messages() {
        let datagram = [message(20, 7, b"abcde"), message(DONE, 7, &[])].concat();
        let found: Vec<_> = messages(&datagram).collect();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0], Message { kind: 20, flags: 0, sequence: 7, payload: b"abcde" });
        assert_eq!(found[0].outcome(), None);
        assert_eq!(found[1].outcome(), Some(Ok(())));
        assert_eq!(messages(&datagram[..30]).count(), 1);
    }

    #[test]
    fn an_error_has_its_number_and_its_words() {
        let mut payload = (-libc::EEXIST).to_ne_bytes().to_vec();
        payload.extend([0; HEADER]);
        let bare = message(ERROR, 1, &payload);
        let refusal = Refusal::of(libc::EEXIST);
        assert_eq!(messages(&bare).next().unwrap().outcome(), Some(Err(refusal)));
        payload.extend(attribute(2, &[0; 4]));
        payload.extend(attribute(ERROR_TEXT, b"ipv4: Address already assigned\0"));
        let worded = message(ERROR, 1, &payload);
        let refusal = Refusal { code: libc::EEXIST, text: "ipv4: Address already assigned".to_owned() };
        assert_eq!(messages(&worded).next().unwrap().outcome(), Some(Err(refusal)));
        let acknowledgement = message(ERROR, 1, &[0; 20]);
        assert_eq!(messages(&acknowledgement).next().unwrap().outcome(), Some(Ok(())));
    }

    #[test]
    fn attributes_nest() {
        let inner = [attribute(1, b"macvlan\0"), attribute(2, &4u32.to_ne_bytes())].concat();
        let outer = attribute(0x8012, &inner);
        let (kind, value) = attributes(&outer).next().unwrap();
        assert_eq!(kind, 0x12);
        let nested: Vec<_> = attributes(value).collect();
        assert_eq!(text(nested[0].1), "macvlan");
        assert_eq!(u32_at(nested[1].1, 0), Some(4));
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4 + 1);
            for message in messages(&bytes) {
                let _ = message.outcome();
            }
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER);
        }
    }
}
