//! How numbers, times and conditions are said, the same in `status` and in `top`.

use crate::api::types::{
    ConfigurationStatus, Override, Persistence, Protocol, RealServerState, RealServerStatus,
    VirtualServerStatus,
};

/// A number in at most `width` columns: in full, else in thousands, millions and so on.
pub fn count(value: u64, width: usize) -> String {
    let mut text = value.to_string();
    let mut rest = value;
    for unit in ["K", "M", "G", "T", "P", "E"] {
        if text.len() <= width {
            break;
        }
        rest /= 1000;
        text = format!("{rest}{unit}");
    }
    text
}

/// As [`count`]; small rates keep one decimal, because the difference of 0 and 0.5 matters.
pub fn rate(value: f64, width: usize) -> String {
    match format!("{value:.1}") {
        tiny if tiny == "0.0" => "0".into(),
        small if value < 100.0 => small,
        _ => count(value.round() as u64, width),
    }
}

/// A number in at most four columns, with two digits or more: `0`, `8.5`, `99.9`, `123`, `1.2K`, `12K`, `123M`.
pub fn short(value: f64) -> String {
    let mut rest = value.max(0.0);
    if rest < 0.05 {
        return "0".into();
    }
    if rest < 99.95 {
        return format!("{rest:.1}");
    }
    for unit in ["", "K", "M", "G", "T", "P", "E"] {
        if rest < 9.95 {
            return format!("{rest:.1}{unit}");
        }
        if rest < 999.5 {
            return format!("{rest:.0}{unit}");
        }
        rest /= 1000.0;
    }
    "many".into()
}

/// As [`short`], but whole numbers up to five digits in full.
pub fn short_count(value: u64) -> String {
    if value < 100_000 { value.to_string() } else { short(value as f64) }
}

/// `3d 04:05:06`.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    let clock = format!("{hours:02}:{minutes:02}:{:02}", seconds % 60);
    if days == 0 { clock } else { format!("{days}d {clock}") }
}

/// Seconds since 1970-01-01 as `2026-11-20 18:55:55 UTC`. UTC, because logs of several directors are compared.
pub fn utc(seconds: u64) -> String {
    const LAST: u64 = 253_402_300_799; // 9999-12-31 23:59:59
    let seconds = seconds.min(LAST);
    // Years begin in March here, so that the leap day is a year's last; an era is the 400 years after which
    // the calendar repeats. 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = era * 400 + year_of_era + next;
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!("{year:04}-{month:02}-{day:02} {hours:02}:{minutes:02}:{:02} UTC", seconds % 60)
}

/// Seconds as milliseconds: `0.4 ms`, `12.3 ms`, `5000 ms`.
pub fn milliseconds(seconds: f64) -> String {
    let value = seconds * 1000.0;
    if value < 99.95 { format!("{value:.1} ms") } else { format!("{value:.0} ms") }
}

/// ipvsadm's `%-4s`.
pub fn protocol(protocol: Protocol) -> String {
    format!("{protocol:<4}")
}

/// Text of others (a server's answer, a mistake in a file) as one line without control characters, which could move
/// the cursor or colour the terminal.
pub fn plain(text: &str) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    words.join(" ").replace(char::is_control, "?")
}

/// Everything that the row of a real server does not say: why it does not serve, what was ordered, its limits.
pub fn remarks(server: &RealServerStatus) -> Vec<String> {
    let mut remarks: Vec<_> = server.reason.iter().map(|reason| plain(reason)).collect();
    match (server.ordered.map(order), server.configured_weight) {
        (Some(order), Some(configured)) if matches!(server.ordered, Some(Override::Weight { .. })) => {
            remarks.push(format!("{order}, configured {configured}"));
        }
        (Some(order), _) => remarks.push(order),
        // A state other than up explains the weight 0.
        (None, Some(configured))
            if configured != server.weight && (server.weight != 0 || server.state == RealServerState::Up) =>
        {
            remarks.push(format!("weight {} by its checks, configured {configured}", server.weight));
        }
        (None, _) => {}
    }
    if server.overloaded {
        remarks.push("overloaded: over its connection limit, gets no new connections".into());
    }
    remarks
}

fn order(ordered: Override) -> String {
    match ordered {
        Override::Drain { until: None } => "drain by operator".into(),
        Override::Drain { until: Some(until) } => format!("drain by operator, taken out at {}", utc(until)),
        Override::Disable => "disable by operator".into(),
        Override::Weight { weight } => format!("weight {weight} by operator"),
    }
}

/// How far a lost quorum is from its return; none while it holds.
pub fn quorum_lost(virtual_server: &VirtualServerStatus) -> Option<String> {
    let quorum = virtual_server.quorum;
    // With hysteresis it takes more to come back than it took to stay.
    let needed = u64::from(quorum.quorum) + u64::from(quorum.hysteresis);
    (!quorum.up).then(|| format!("quorum lost: weight {} is alive, {needed} is needed", quorum.alive_weight))
}

/// Whether a virtual server waits for this director to become master.
pub fn is_on_standby(virtual_server: &VirtualServerStatus) -> bool {
    virtual_server.bound_to.as_ref().is_some_and(|bound| !bound.served)
}

/// The VRRP instance of a virtual server, and whether it is served here.
pub fn bound_to(virtual_server: &VirtualServerStatus) -> Option<String> {
    let bound = virtual_server.bound_to.as_ref()?;
    let here = if bound.served { "served here" } else { "standby" };
    Some(format!("{}, {here}", bound.instance))
}

/// The sorry server and what it does.
pub fn sorry_server(virtual_server: &VirtualServerStatus) -> Option<String> {
    let sorry = virtual_server.sorry_server?;
    let does = if sorry.active { "answers now" } else { "stands by" };
    Some(format!("sorry server {} ({}) {does}", sorry.address, sorry.forward))
}

/// Where the data plane is kept for the next agent, or why it is not; none when the agent says neither.
pub fn pinned(persistence: &Persistence) -> Option<String> {
    let Persistence { pins, reason, adopted } = persistence;
    match (pins, reason) {
        (Some(pins), _) if *adopted => Some(format!("in {pins}, taken over from an earlier agent")),
        (Some(pins), _) => Some(format!("in {pins}")),
        (None, Some(reason)) => Some(format!("nothing: {}", plain(reason))),
        (None, None) => None,
    }
}

/// Why the last reload changed nothing; none when it succeeded or there was none.
pub fn reload_failure(configuration: &ConfigurationStatus) -> Option<String> {
    let reload = configuration.last_reload.as_ref().filter(|reload| !reload.succeeded)?;
    // One mistake per line.
    let mistakes: Vec<_> = reload.message.lines().map(plain).filter(|line| !line.is_empty()).collect();
    Some(format!("failed at {}: {}", utc(reload.at), mistakes.join("; ")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_keep_to_their_columns() {
        assert_eq!(count(0, 8), "0");
        assert_eq!(count(99_999_999, 8), "99999999");
        assert_eq!(count(100_000_000, 8), "100000K");
        assert_eq!(count(u64::MAX, 8), "18446P");
        assert_eq!(count(u64::MAX, 6), "18446P");
        assert_eq!(rate(0.04, 6), "0");
        assert_eq!(rate(0.06, 6), "0.1");
        assert_eq!(rate(99.94, 6), "99.9");
        assert_eq!(rate(99.96, 6), "100.0");
        assert_eq!(rate(100.4, 6), "100");
        assert_eq!(rate(1.25e9, 6), "1250M");
    }

    #[test]
    fn short_numbers() {
        let shown =
            [0.04, 0.06, 8.46, 99.94, 99.96, 999.4, 999.6, 9949.0, 9951.0, 12_345.0, 999_400.0, 999_600.0]
                .map(short);
        assert_eq!(
            shown,
            ["0", "0.1", "8.5", "99.9", "100", "999", "1.0K", "9.9K", "10K", "12K", "999K", "1.0M"]
        );
        assert_eq!(short_count(99_999), "99999");
        assert_eq!(short_count(100_000), "100K");
    }

    proptest! {
        #[test]
        fn short_is_short(value in 0.0_f64..1e19) {
            prop_assert!(short(value).len() <= 4, "{}", short(value));
            prop_assert!(short_count(value as u64).len() <= 5);
        }

        /// Days follow each other as in the calendar.
        #[test]
        fn days_follow_each_other(day in 0_u64..2_932_895) {
            let parts = |day: u64| -> Vec<u64> {
                utc(day * 86_400)[..10].split('-').map(|part| part.parse().unwrap()).collect()
            };
            let (today, tomorrow) = (parts(day), parts(day + 1));
            let (year, month, date) = (today[0], today[1], today[2]);
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let length = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let expected = match (month, date) {
                (12, 31) => vec![year + 1, 1, 1],
                (_, last) if last == length => vec![year, month + 1, 1],
                _ => vec![year, month, date + 1],
            };
            prop_assert_eq!(tomorrow, expected);
        }
    }

    #[test]
    fn times() {
        assert_eq!(duration(59), "00:00:59");
        assert_eq!(duration(86_399), "23:59:59");
        assert_eq!(duration(86_400), "1d 00:00:00");
        assert_eq!(utc(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(u64::MAX), "9999-12-31 23:59:59 UTC");
        assert_eq!(milliseconds(0.000_42), "0.4 ms");
        assert_eq!(milliseconds(0.099_96), "100 ms");
        assert_eq!(milliseconds(5.0), "5000 ms");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(plain("a\x1b[31mb\r\n  c\u{9b}2J"), "a?[31mb c?2J");
    }
}
