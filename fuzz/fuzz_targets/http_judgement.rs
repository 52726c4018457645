//! Status and body of an HTTP answer, judged by what the configuration expects.

#![no_main]

use lb_userspace::{
    config::check::HttpRequest,
    health::probe::http::{digest, judge_body, judge_status},
};
use libfuzzer_sys::fuzz_target;

const PATTERNS: [&str; 6] =
    ["", "ok", r"^\d+ (systems|servers) up$", r"(?-u:\xff)$", "(a|aa)+b", r"(?-u:\w{3,9}\s)"];

// The status in two bytes, the pattern's number, the body.
fuzz_target!(|bytes: &[u8]| {
    let Some(([high, low, pattern], body)) = bytes.split_first_chunk() else { return };
    let mut request = HttpRequest {
        path: "/health".into(),
        method: "GET".into(),
        host: None,
        headers: Vec::new(),
        status: vec![200..=299, 302..=302],
        md5: None,
        regex: PATTERNS.get(usize::from(*pattern)).map(ToString::to_string),
    };
    let status = u16::from_be_bytes([*high, *low]);
    assert_eq!(judge_status(&request, status).is_ok(), (200..=299).contains(&status) || status == 302);
    let _ = judge_body(&request, body);
    // Compiling the pattern is what takes the time, and it is tried by now.
    request.regex = None;
    request.md5 = Some(digest(body));
    assert_eq!(judge_body(&request, body), Ok(()));
    request.md5 = Some(digest(&[body, b"x"].concat()));
    judge_body(&request, body).expect_err("another MD5");
});
