//! Figures of a test: printed all, and some of them judged.

use std::{fmt::Display, io::Write as _, time::Duration};

use anyhow::{Result, ensure};

use crate::stall::Mark;

/// So many times what docs/reliability.md lets pass is no matter of a busy machine any more.
const GROSS: u32 = 10;
/// Who may have to wait for a processor one after the other: who asks, the director, who answers.
const WAITS: u32 = 3;

/// Prints a figure, past the test harness, which would hide it.
pub fn measured(name: &str, value: impl Display) {
    // Nothing better can be done where standard output is closed.
    let _ = writeln!(std::io::stdout(), "MEASURED {name}={value}");
}

/// A time in milliseconds, for [`measured`].
#[must_use]
pub fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Prints a time, and fails where only a broken product can need so long: ten times `pass`, with which it would pass on a quiet machine,
/// and three times the longest stall since `mark`.
///
/// # Errors
/// When it is longer.
pub fn judged(name: &str, time: Duration, pass: Duration, mark: Mark) -> Result<()> {
    measured(name, ms(time));
    ensure_within(name, time, pass, mark.worst())
}

fn ensure_within(name: &str, time: Duration, pass: Duration, stalled: Duration) -> Result<()> {
    ensure!(
        time <= pass * GROSS + stalled * WAITS,
        "{name} is {}; {} would pass, and the machine stood still for {} at most",
        ms(time),
        ms(pass),
        ms(stalled)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_cannot_excuse_fails() {
        let within = |time, pass, stalled| {
            let [time, pass, stalled] = [time, pass, stalled].map(Duration::from_millis);
            ensure_within("outage", time, pass, stalled).is_ok()
        };
        assert!(within(50, 5, 0) && !within(51, 5, 0));
        assert!(within(80, 5, 10) && !within(81, 5, 10));
    }
}
