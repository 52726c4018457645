//! Times: how long a backup waits for its master, and what a master does from time to time.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::config::vrrp::Version;

/// No timer is shorter, whatever the configuration or an advert says.
const SHORTEST: Duration = Duration::from_millis(1);

/// `Skew_Time`: (256 - priority) / 256 seconds in version 2 (RFC 3768 6.1), of the master's interval in version 3 (RFC 9568 6.1).
pub(super) fn skew(version: Version, priority: u8, master_interval: Duration) -> Duration {
    let whole = match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => master_interval,
    };
    whole * (256 - u32::from(priority)) / 256
}

/// What remains of [`skew`] after a farewell with `quick_release`.
pub(super) fn short_skew(version: Version, priority: u8, master_interval: Duration) -> Duration {
    skew(version, priority, master_interval) / 64
}

/// `Master_Down_Interval` (RFC 3768 6.1), `Active_Down_Interval` (RFC 9568 6.1).
pub(super) fn master_down(version: Version, priority: u8, master_interval: Duration) -> Duration {
    3 * master_interval + skew(version, priority, master_interval)
}

/// After how long without a heartbeat a backup takes over. The better its priority, the sooner, as with adverts.
pub(super) fn heartbeat_down(priority: u8, lasts: Duration) -> Duration {
    lasts + lasts * (256 - u32::from(priority)) / 256
}

/// What a backup waits for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Down {
    /// Since when.
    pub(super) since: Instant,
    /// Who has given up: then it takes the skew only.
    pub(super) given_up: Option<IpAddr>,
}

/// Whatever a master does by itself; all `None` while it is none.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Timers {
    /// `Adver_Timer`.
    pub(super) advert: Option<Instant>,
    /// Heartbeats of fast detection.
    pub(super) heartbeat: Option<Instant>,
    /// `garp_master_delay`: the second burst.
    pub(super) burst: Option<Instant>,
    /// `garp_lower_prio_delay`.
    pub(super) lower_burst: Option<Instant>,
    /// `garp_master_refresh`.
    pub(super) refresh: Option<Instant>,
}

impl Timers {
    /// The first of them.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.advert, self.heartbeat, self.burst, self.lower_burst, self.refresh].into_iter().flatten().min()
    }
}

/// Takes a timer that is over.
pub(super) fn take_due(timer: &mut Option<Instant>, now: Instant) -> Option<Instant> {
    timer.take_if(|due| *due <= now)
}

/// When something regular comes again that was due at `due`: in step, or from now on when a step has been missed.
pub(super) fn again(due: Instant, interval: Duration, now: Instant) -> Instant {
    let interval = interval.max(SHORTEST);
    let next = due + interval;
    if next > now { next } else { now + interval }
}

/// From now on; `None` for a time of zero.
pub(super) fn after(delay: Duration, now: Instant) -> Option<Instant> {
    (!delay.is_zero()).then(|| now + delay)
}
