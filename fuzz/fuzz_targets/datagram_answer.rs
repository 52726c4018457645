//! A datagram that a DNS check or a UDP check gets for an answer.

#![no_main]

use lb_userspace::health::probe::{
    dns::{self, Question, Verdict},
    udp,
};
use libfuzzer_sys::fuzz_target;

// A line with record type and name, the datagram.
fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (line, answer) = (&bytes[..end], bytes.get(end + 1..).unwrap_or_default());
    assert_eq!(udp::judge(line, answer).is_ok(), answer.starts_with(line));

    let Ok(line) = std::str::from_utf8(line) else { return };
    let (record, name) = line.split_once(' ').unwrap_or(("SOA", line));
    let Ok(question) = Question::new(0x0708, record, name) else { return };
    dns::judge(&question, answer);
    let Ok(query) = question.message() else { return };
    assert_eq!(dns::judge(&question, &query), Verdict::Foreign);
    // Past the two checks that random bytes seldom pass: the number, and that it is a response.
    let mut ours = answer.to_vec();
    ours.resize(ours.len().max(12), 0);
    ours[..2].copy_from_slice(&query[..2]);
    ours[2] |= 0x80;
    assert_ne!(dns::judge(&question, &ours), Verdict::Foreign);
});
