//! What a mail server says to a check.

#![no_main]

use lb_userspace::health::probe::smtp;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut rest = bytes;
    while let Ok(Some((reply, length))) = smtp::reply(rest) {
        assert!((200..=599).contains(&reply.code));
        assert!((4..=rest.len()).contains(&length));
        // Its last byte was needed, and what follows changes nothing.
        assert_eq!(smtp::reply(&rest[..length - 1]), Ok(None));
        assert_eq!(smtp::reply(&rest[..length]), Ok(Some((reply, length))));
        rest = &rest[length..];
    }
});
