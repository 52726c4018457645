//! The rate of the processor's time-stamp counter, which an emulated machine shares with the host.
//!
//! A kernel measures it at boot, against a timer that QEMU emulates. When the host is busy the two are read at quite
//! different times, and the guest's clock then runs several times too fast. So it is told.

use std::{
    arch::x86_64::_rdtsc,
    thread,
    time::{Duration, Instant},
};

/// How long is measured; the error of one reading is well below a microsecond.
const PERIOD: Duration = Duration::from_millis(50);
/// How often the two clocks are read to find a moment in which nothing came between.
const READINGS: u32 = 20;

/// Thousands of ticks per second.
pub fn kilohertz() -> u64 {
    let (start, first) = reading();
    thread::sleep(PERIOD);
    let (end, second) = reading();
    rate(end - start, second.wrapping_sub(first))
}

fn rate(elapsed: Duration, ticks: u64) -> u64 {
    let kilohertz = u128::from(ticks) * 1_000_000 / elapsed.as_nanos().max(1);
    u64::try_from(kilohertz).unwrap_or(u64::MAX)
}

/// Both clocks at one moment: of several tries, the one in which they were read in the shortest time.
fn reading() -> (Instant, u64) {
    (0..READINGS)
        .map(|_| {
            let before = Instant::now();
            // SAFETY: every x86-64 processor has the instruction, and Linux lets programs use it unless one asks it not to.
            let ticks = unsafe { _rdtsc() };
            (before.elapsed(), before, ticks)
        })
        .min()
        .map(|(_, before, ticks)| (before, ticks))
        .expect("there is at least one reading")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_become_a_rate() {
        assert_eq!(rate(Duration::from_millis(50), 130_000_000), 2_600_000);
    }

    #[test]
    fn a_processor_has_a_steady_rate() {
        let rates = [kilohertz(), kilohertz()];
        assert!(rates.iter().all(|rate| (100_000..20_000_000).contains(rate)), "{rates:?}");
        assert!(rates[0].abs_diff(rates[1]) < rates[0] / 100, "{rates:?}");
    }
}
