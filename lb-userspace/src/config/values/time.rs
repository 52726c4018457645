//! Times.

use std::time::Duration;

use toml::de::DeValue;

use super::{Problem, wrong_type};

/// `timeouts`, `drain_timeout`: one second to 31 days.
pub(in crate::config) fn duration(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let expected = "a time from \"1s\" to \"31d\", such as \"15m\", \"90s\" or \"1h30m\", or whole seconds";
    time(value, Duration::from_secs(1), Duration::from_hours(31 * 24), expected)
}

/// `interval` and `timeout` of a check: 10 ms to a day.
pub(in crate::config) fn pace(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let expected = "a time from \"10ms\" to \"1d\", such as \"5s\" or \"500ms\", or whole seconds";
    time(value, Duration::from_millis(10), Duration::from_hours(24), expected)
}

/// `delay_before_retry` and `warmup` of a check: up to a day, or nothing.
pub(in crate::config) fn delay(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let expected = "a time from \"0s\" to \"1d\", such as \"5s\" or \"500ms\", or whole seconds";
    time(value, Duration::ZERO, Duration::from_hours(24), expected)
}

/// `mail.timeout`: one second to an hour.
pub(in crate::config) fn patience(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let expected = "a time from \"1s\" to \"1h\", such as \"30s\", or whole seconds";
    time(value, Duration::from_secs(1), Duration::from_hours(1), expected)
}

/// `vrrp.watchdog`: 50 ms to an hour.
pub(in crate::config) fn silence(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let expected = "a time from \"50ms\" to \"1h\", such as \"500ms\", or whole seconds";
    time(value, Duration::from_millis(50), Duration::from_hours(1), expected)
}

/// `fast_detection.interval`: 1 ms to 10 s.
pub(in crate::config) fn heartbeat(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let expected = "a time from \"1ms\" to \"10s\", such as \"10ms\"";
    time(value, Duration::from_millis(1), Duration::from_secs(10), expected)
}

/// `vrrp_instance.garp_interval`: up to 10 s, or nothing.
pub(in crate::config) fn pause(value: &DeValue<'_>) -> Result<Duration, Problem> {
    let expected = "a time from \"0s\" to \"10s\", such as \"1ms\"";
    time(value, Duration::ZERO, Duration::from_secs(10), expected)
}

/// A time: whole seconds, or a text of numbers with units, the larger unit first: `1h30m`.
pub(super) fn time(
    value: &DeValue<'_>,
    shortest: Duration,
    longest: Duration,
    expected: &str,
) -> Result<Duration, Problem> {
    let wrong = |what: &str| Problem::new(what).expected(expected);
    let time = match value {
        DeValue::Integer(number) => {
            // Below zero is too short even where zero is not.
            let seconds = i128::from_str_radix(number.as_str(), number.radix()).unwrap_or(i128::MAX);
            let seconds = u64::try_from(seconds.min(u32::MAX.into())).map_err(|_| wrong("too short"))?;
            Duration::from_secs(seconds)
        }
        DeValue::String(text) => units(text).map_err(wrong)?,
        other => return Err(wrong_type(other, expected)),
    };
    if time < shortest {
        Err(wrong("too short"))
    } else if time > longest {
        Err(wrong("too long"))
    } else {
        Ok(time)
    }
}

fn units(text: &str) -> Result<Duration, &'static str> {
    const UNITS: [(&str, u64); 5] =
        [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
    let mut left = text;
    let mut larger = u64::MAX;
    let mut total: u64 = 0;
    if text.is_empty() {
        return Err("empty");
    }
    while !left.is_empty() {
        let digits = left.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 {
            return Err("not a time");
        }
        let (number, rest) = left.split_at(digits);
        let unit_end = rest.find(|letter: char| !letter.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(unit_end);
        if unit.is_empty() {
            return Err(if rest.is_empty() { "no unit" } else { "not a time" });
        }
        let Some((_, factor)) = UNITS.iter().find(|(word, _)| *word == unit) else {
            return Err("unknown unit of time; the units are d, h, m, s and ms");
        };
        if *factor >= larger {
            return Err("the larger unit of time comes first, each once");
        }
        larger = *factor;
        let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(*factor));
        total = millis.and_then(|millis| total.checked_add(millis)).ok_or("too long")?;
        left = rest;
    }
    Ok(Duration::from_millis(total))
}
