//! `xdirector events`: what changed lately.

use std::io::{self, BufWriter, Write};

use clap::Args;

use super::{SocketArgs, closed_is_done};
use crate::api::{Client, StateEvent};

/// Arguments of `xdirector events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Show the last N events only
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,
    /// Print them as the JSON of GET /v1/events
    #[arg(long)]
    pub json: bool,
}

/// Asks the agent and prints one line for each event, the oldest first.
///
/// # Errors
///
/// No agent, no answer, or standard output cannot be written.
pub fn run(args: &EventsArgs) -> anyhow::Result<()> {
    let events = Client::new(args.socket.path())?.events()?;
    let events = last(&events, args.limit);
    let mut out = BufWriter::new(io::stdout().lock());
    let printed = if args.json {
        serde_json::to_writer_pretty(&mut out, events).map_err(io::Error::from).and_then(|()| writeln!(out))
    } else {
        events.iter().try_for_each(|event| writeln!(out, "{}", line(event)))
    };
    Ok(closed_is_done(printed.and_then(|()| out.flush()))?)
}

fn last(events: &[StateEvent], limit: Option<usize>) -> &[StateEvent] {
    &events[events.len() - limit.unwrap_or(usize::MAX).min(events.len())..]
}

fn line(StateEvent { at, subject, text }: &StateEvent) -> String {
    format!("{} {subject}: {text}", time(*at))
}

/// `2026-11-20 18:40:01Z` (RFC 3339 with its permitted space) of seconds since 1970-01-01 UTC.
pub fn time(at: u64) -> String {
    let (days, seconds) = (at / 86_400, at % 86_400);
    // The calendar repeats every 400 years of 146,097 days. Years begin in March here, so that the leap day is a
    // year's last; 719,468 days lie between 0000-03-01 and 1970-01-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    // Five months from March on have 153 days together.
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, january) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    let year = 400 * era + year_of_era + january;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(at: u64, text: &str) -> StateEvent {
        StateEvent { at, subject: "web/192.168.1.101:80".into(), text: text.into() }
    }

    #[test]
    fn an_event_is_one_line() {
        assert_eq!(
            line(&event(1_795_200_001, "down: HTTP 503 for /health")),
            "2026-11-20 18:40:01Z web/192.168.1.101:80: down: HTTP 503 for /health"
        );
    }

    #[test]
    fn the_last_ones_are_shown() {
        let events: Vec<_> = (0..5).map(|at| event(at, "up")).collect();
        let times = |limit| last(&events, limit).iter().map(|event| event.at).collect::<Vec<_>>();
        assert_eq!(times(None), [0, 1, 2, 3, 4]);
        assert_eq!(times(Some(2)), [3, 4]);
        assert_eq!(times(Some(0)), [0; 0]);
        assert_eq!(times(Some(9)), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn times() {
        for (at, expected) in [
            (0, "1970-01-01 00:00:00Z"),
            (951_782_399, "2000-02-28 23:59:59Z"),
            (951_782_400, "2000-02-29 00:00:00Z"),
            (951_868_800, "2000-03-01 00:00:00Z"),
            (1_735_689_599, "2024-12-31 23:59:59Z"),
            (4_107_542_400, "2100-03-01 00:00:00Z"),
        ] {
            assert_eq!(time(at), expected);
        }
        // Nonsense of a broken clock does not end the program.
        assert!(time(u64::MAX).ends_with('Z'));
    }

    proptest! {
        #[test]
        fn days_follow_each_other(day in 0_u64..200_000) {
            let next = |text: &str| {
                let part = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap();
                let (year, month, day) = (part(0..4), part(5..7), part(8..10));
                let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
                let length = match month { 2 => 28 + u32::from(leap), 4 | 6 | 9 | 11 => 30, _ => 31 };
                match (day == length, month) {
                    (false, _) => format!("{year:04}-{month:02}-{:02}", day + 1),
                    (true, 12) => format!("{:04}-01-01", year + 1),
                    (true, _) => format!("{year:04}-{:02}-01", month + 1),
                }
            };
            let today = time(day * 86_400);
            prop_assert_eq!(&time((day + 1) * 86_400)[..10], next(&today));
        }
    }
}
