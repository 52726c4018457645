use proptest::prelude::*;

use super::*;

const SENDER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

const fn stamp(seconds: u32, fraction: u16, counter: u16) -> Stamp {
    Stamp { seconds, fraction, counter }
}

#[test]
fn only_what_is_later_is_new() {
    let mut guard = ReplayGuard::default();
    for (stamp, is_new) in [
        (stamp(5, 5, 5), true),
        (stamp(5, 5, 5), false),
        (stamp(5, 5, 4), false),
        (stamp(5, 4, 9), false),
        (stamp(4, 9, 9), false),
        (stamp(5, 5, 6), true),
        (stamp(5, 6, 0), true),
        (stamp(6, 0, 0), true),
        (stamp(5, 6, 0), false),
    ] {
        let wanted = if is_new { Ok(()) } else { Err(Discard::Replay) };
        assert_eq!(guard.accept(SENDER, 1, stamp), wanted, "{stamp:?}");
    }
}

#[test]
fn senders_and_keys_are_apart() {
    let other = IpAddr::V4([10, 0, 0, 2].into());
    let mut guard = ReplayGuard::default();
    assert_eq!(guard.accept(SENDER, 1, stamp(9, 0, 0)), Ok(()));
    assert_eq!(guard.accept(SENDER, 2, stamp(8, 0, 0)), Ok(()));
    assert_eq!(guard.accept(other, 1, stamp(7, 0, 0)), Ok(()));
    assert_eq!(guard.accept(SENDER, 1, stamp(9, 0, 0)), Err(Discard::Replay));
    assert_eq!(guard.accept(SENDER, 2, stamp(8, 0, 0)), Err(Discard::Replay));
}

#[test]
fn the_seconds_may_begin_anew() {
    let mut guard = ReplayGuard::default();
    assert_eq!(guard.accept(SENDER, 1, stamp(u32::MAX, 0, 0)), Ok(()));
    assert_eq!(guard.accept(SENDER, 1, stamp(0, 0, 0)), Ok(()));
    assert_eq!(guard.accept(SENDER, 1, stamp(u32::MAX, 0, 0)), Err(Discard::Replay));
}

#[test]
fn the_memory_is_bounded_and_forgets_the_most_silent() {
    let mut guard = ReplayGuard::default();
    for key in 0..=255 {
        assert_eq!(guard.accept(SENDER, key, stamp(5, 0, 0)), Ok(()));
        // This one goes on.
        assert_eq!(guard.accept(SENDER, 0, stamp(6, 0, key.into())), Ok(()));
    }
    assert_eq!(guard.last.len(), MOST_SENDERS);
    assert_eq!(guard.accept(SENDER, 0, stamp(6, 0, 0)), Err(Discard::Replay));
    assert_eq!(guard.accept(SENDER, 255, stamp(5, 0, 0)), Err(Discard::Replay));
}

#[test]
fn stamps_are_the_clock_while_that_goes_on() {
    let mut stamper = Stamper::default();
    assert_eq!(stamper.next(Duration::from_millis(7500)), stamp(7, 0x8000, 0));
    assert_eq!(stamper.next(Duration::from_millis(7500)), stamp(7, 0x8000, 1));
    assert_eq!(stamper.next(Duration::from_secs(3)), stamp(7, 0x8000, 2));
    assert_eq!(stamper.next(Duration::new(8, 999_999_999)), stamp(8, 0xffff, 0));
}

proptest! {
    #[test]
    fn a_sender_is_never_taken_for_its_own_echo(clock in proptest::collection::vec(0..3_000_000_u64, 1..80)) {
        let (mut stamper, mut guard) = (Stamper::default(), ReplayGuard::default());
        for now in clock {
            let stamp = stamper.next(Duration::from_micros(now));
            prop_assert_eq!(Stamp::from_bytes(stamp.to_bytes()), stamp);
            prop_assert_eq!(guard.accept(SENDER, 1, stamp), Ok(()));
            prop_assert_eq!(guard.accept(SENDER, 1, stamp), Err(Discard::Replay));
        }
    }
}
