//! A DNS query over UDP (RFC 1035), as keepalived's DNS_CHECK: any answer to the question without an error code passes,
//! also an empty or truncated one. NXDOMAIN fails there and here: ask for a name that exists.

use std::str::FromStr;

use hickory_proto::{
    ProtoError,
    op::{Header, Message, MessageType, Query, ResponseCode},
    rr::{Name, RecordType},
    serialize::binary::{BinDecodable, BinDecoder},
};

use super::{Outcome, Passed, Way, words};

/// Bytes of an answer that are looked at; header and question are in its first 512.
const MAX_ANSWER: usize = 4096;

/// One attempt. It waits for as long as nothing comes but what is no answer to it: the caller bounds the time.
///
/// # Errors
/// An error code, an answer to something else, a refusal (ICMP), or a question that cannot be asked.
pub async fn attempt(record: &str, name: &str, way: &Way) -> Outcome {
    let question = Question::new(fastrand::u16(..), record, name)
        .map_err(|error| format!("cannot ask for {record} of {name}: {error}"))?;
    let query = question.message().map_err(|error| format!("cannot ask for {record} of {name}: {error}"))?;
    let socket = way.udp().await.map_err(|error| words::datagram(&error))?;
    socket.send(&query).await.map_err(|error| words::datagram(&error))?;
    let mut buffer = [0; MAX_ANSWER];
    loop {
        let length = socket.recv(&mut buffer).await.map_err(|error| words::datagram(&error))?;
        match judge(&question, &buffer[..length]) {
            Verdict::Foreign => {}
            Verdict::Passed => return Ok(Passed { detail: "DNS NOERROR".into(), ..Passed::default() }),
            Verdict::Failed(why) => return Err(why),
        }
    }
}

/// What is asked, and the number by which its answer is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    id: u16,
    query: Query,
}

impl Question {
    /// A question with the transaction number `id`, for a record type's name as `SOA` and a domain name. The name is
    /// absolute, with its last dot or without; `.` is the root.
    ///
    /// # Errors
    /// An unknown record type, or what is no domain name.
    pub fn new(id: u16, record: &str, name: &str) -> Result<Self, ProtoError> {
        let record = RecordType::from_str(&record.to_ascii_uppercase())?;
        let mut name = Name::from_ascii(name)?;
        name.set_fqdn(true);
        Ok(Self { id, query: Query::query(name, record) })
    }

    /// The query's bytes: class IN, recursion desired.
    ///
    /// # Errors
    /// When the name is longer than the protocol allows.
    pub fn message(&self) -> Result<Vec<u8>, ProtoError> {
        let mut message = Message::new();
        message.set_id(self.id).set_recursion_desired(true).add_query(self.query.clone());
        message.to_vec()
    }
}

/// What a datagram says about a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Answered without an error.
    Passed,
    /// It is no answer to this question: too short, another number, or no response at all. The right one may still
    /// come.
    Foreign,
    /// Answered with an error, or about something else.
    Failed(String),
}

/// Judges a datagram by header and question. The records are not read: that keeps truncated answers right, and makes a
/// server's data none of the check's business.
pub fn judge(question: &Question, answer: &[u8]) -> Verdict {
    let mut decoder = BinDecoder::new(answer);
    let Ok(header) = Header::read(&mut decoder) else { return Verdict::Foreign };
    if header.id() != question.id || header.message_type() != MessageType::Response {
        return Verdict::Foreign;
    }
    // Before the question: who answers FORMERR or REFUSED may leave it out.
    if header.response_code() != ResponseCode::NoError {
        return Verdict::Failed(format!("DNS {}", name(header.response_code())));
    }
    match Query::read(&mut decoder) {
        Ok(query) if header.query_count() == 1 && query == question.query => Verdict::Passed,
        _ => Verdict::Failed("DNS answer to another question".into()),
    }
}

/// The code as `dig` names it.
fn name(code: ResponseCode) -> String {
    match code {
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        ResponseCode::NotImp => "NOTIMP".into(),
        ResponseCode::Refused => "REFUSED".into(),
        other => format!("error {}", other.low()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;
    use tokio::net::UdpSocket;

    use super::*;

    /// A server that answers a query with the datagrams that `answers` makes of it.
    async fn server(answers: fn(&[u8]) -> Vec<Vec<u8>>) -> Way {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let way = Way { connect: socket.local_addr().unwrap(), bind: None, fwmark: 0, through: None };
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                for answer in answers(&buffer[..length]) {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        });
        way
    }

    /// The query turned into a response with this code.
    fn response(query: &[u8], code: u8) -> Vec<u8> {
        let mut answer = query.to_vec();
        answer[2] |= 0x80;
        answer[3] = answer[3] & 0xf0 | code;
        answer
    }

    async fn bounded(record: &str, name: &str, way: &Way) -> Outcome {
        tokio::time::timeout(Duration::from_secs(20), attempt(record, name, way)).await.expect("an answer")
    }

    #[tokio::test]
    async fn good_answers() {
        let way = server(|query| vec![response(query, 0)]).await;
        for (record, name) in
            [("SOA", "."), ("A", "www.example.com"), ("AAAA", "www.example.com."), ("NS", "EXAMPLE")]
        {
            assert_eq!(bounded(record, name, &way).await.unwrap().detail, "DNS NOERROR", "{record} {name}");
        }
    }

    #[tokio::test]
    async fn error_codes() {
        let servfail = server(|query| vec![response(query, 2)]).await;
        assert_eq!(bounded("SOA", ".", &servfail).await.unwrap_err(), "DNS SERVFAIL");
        let nxdomain = server(|query| vec![response(query, 3)]).await;
        assert_eq!(bounded("A", "no.example", &nxdomain).await.unwrap_err(), "DNS NXDOMAIN");
        // As servers that refuse: nothing but the header.
        let refused = server(|query| {
            let mut header = response(&query[..12], 5);
            header[5] = 0;
            vec![header]
        })
        .await;
        assert_eq!(bounded("A", "no.example", &refused).await.unwrap_err(), "DNS REFUSED");
    }

    #[tokio::test]
    async fn what_is_not_ours_is_passed_over() {
        let way = server(|query| {
            let mut other_id = response(query, 2);
            other_id[1] ^= 1;
            vec![other_id, query.to_vec(), b"garbage".to_vec(), vec![], response(query, 0)]
        })
        .await;
        assert!(bounded("SOA", ".", &way).await.is_ok());

        let only_wrong = server(|query| {
            let mut other_id = response(query, 0);
            other_id[0] ^= 0x80;
            vec![other_id]
        })
        .await;
        let outcome =
            tokio::time::timeout(Duration::from_millis(100), attempt("SOA", ".", &only_wrong)).await;
        assert!(outcome.is_err(), "{outcome:?}");
    }

    #[tokio::test]
    async fn refused() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let way = Way { connect: socket.local_addr().unwrap(), bind: None, fwmark: 0, through: None };
        drop(socket);
        assert_eq!(bounded("SOA", ".", &way).await.unwrap_err(), "port unreachable");
    }

    #[tokio::test]
    async fn impossible_questions() {
        let way = Way { connect: "127.0.0.1:9".parse().unwrap(), bind: None, fwmark: 0, through: None };
        let long = "x".repeat(64);
        for (record, name) in [("NONSENSE", "."), ("A", long.as_str()), ("A", "a..b")] {
            let error = attempt(record, name, &way).await.unwrap_err();
            assert!(error.starts_with(&format!("cannot ask for {record} of {name}: ")), "{error}");
        }
    }

    #[test]
    fn judgement() {
        let question = Question::new(7, "A", "www.example.com").unwrap();
        let query = question.message().unwrap();
        assert_eq!(query[..4], [0, 7, 1, 0], "the number, a query with recursion desired");
        assert!(query.ends_with(b"\x03www\x07example\x03com\0\0\x01\0\x01"));

        let right = response(&query, 0);
        assert_eq!(judge(&question, &right), Verdict::Passed);
        assert_eq!(judge(&question, &query), Verdict::Foreign, "our own query is no answer");

        let mut truncated = right.clone();
        truncated[2] |= 2;
        truncated[7] = 9;
        truncated.extend(b"\xc0\x0c\0");
        assert_eq!(judge(&question, &truncated), Verdict::Passed);

        let upper = right.to_ascii_uppercase();
        assert_eq!(judge(&question, &upper), Verdict::Passed, "names have no case");

        for other in [("AAAA", "www.example.com"), ("A", "example.com")] {
            let other = Question::new(7, other.0, other.1).unwrap();
            assert!(matches!(judge(&other, &right), Verdict::Failed(_)));
        }
        let mut none = right.clone();
        none[5] = 0;
        assert!(matches!(judge(&question, &none), Verdict::Failed(_)));
        // A name that points at itself.
        let loops = [&right[..12], b"\xc0\x0c\0\x01\0\x01"].concat();
        assert!(matches!(judge(&question, &loops), Verdict::Failed(_)));
        for length in 0..12 {
            assert_eq!(judge(&question, &right[..length]), Verdict::Foreign);
        }
        for length in 12..right.len() {
            assert!(matches!(judge(&question, &right[..length]), Verdict::Failed(_)), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes(id: u16, mut bytes in prop::collection::vec(any::<u8>(), 0..600), ours: bool) {
            let question = Question::new(id, "SOA", ".").unwrap();
            if ours && bytes.len() > 3 {
                bytes[..2].copy_from_slice(&id.to_be_bytes());
                bytes[2] |= 0x80;
                prop_assert!(bytes.len() < 12 || judge(&question, &bytes) != Verdict::Foreign);
            }
            if judge(&question, &bytes) == Verdict::Passed {
                prop_assert_eq!(&bytes[..2], &id.to_be_bytes());
                prop_assert_eq!(bytes[3] & 0x0f, 0);
            }
        }
    }
}
