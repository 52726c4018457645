//! Bursts of gratuitous ARP and unsolicited neighbour advertisements, spread over time so that they delay nothing else.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::vrrp::fsm::InstanceId;

/// One announcement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// On the interface with this index.
    pub interface: u32,
    /// Who has the address.
    pub mac: [u8; 6],
    /// Which.
    pub address: IpAddr,
}

/// What is still to be announced.
#[derive(Debug, Default)]
pub struct Bursts {
    queue: VecDeque<Burst>,
}

#[derive(Debug)]
struct Burst {
    instance: InstanceId,
    targets: Vec<Target>,
    /// Of `targets`, the next.
    position: usize,
    /// Times that all of them are still to be announced.
    rounds: u32,
    /// Between two packets.
    interval: Duration,
    due: Instant,
}

impl Bursts {
    /// Announces all of `targets`, then all of them again, `repeat` times in all, beginning now. What the instance still had
    /// to announce is part of that: it is forgotten.
    pub fn begin(
        &mut self,
        instance: InstanceId,
        targets: Vec<Target>,
        repeat: u32,
        interval: Duration,
        now: Instant,
    ) {
        self.cancel(instance);
        self.also(instance, targets, repeat, interval, now);
    }

    /// The same beside what the instance still has to announce.
    pub fn also(
        &mut self,
        instance: InstanceId,
        targets: Vec<Target>,
        repeat: u32,
        interval: Duration,
        now: Instant,
    ) {
        if repeat > 0 && !targets.is_empty() {
            self.queue.push_back(Burst {
                instance,
                targets,
                position: 0,
                rounds: repeat,
                interval,
                due: now,
            });
        }
    }

    /// The instance has no addresses any more.
    pub fn cancel(&mut self, instance: InstanceId) {
        self.queue.retain(|burst| burst.instance != instance);
    }

    /// All of them: positions have changed.
    pub fn clear(&mut self) {
        self.queue.clear();
    }

    /// When the next is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.queue.iter().map(|burst| burst.due).min()
    }

    /// What is due now, at most `most`; the bursts take turns.
    pub fn due(&mut self, now: Instant, most: usize) -> Vec<(InstanceId, Target)> {
        let mut due = Vec::new();
        let mut idle = 0;
        while due.len() < most && idle < self.queue.len() {
            let Some(mut burst) = self.queue.pop_front() else { break };
            if burst.due > now {
                idle += 1;
                self.queue.push_back(burst);
                continue;
            }
            idle = 0;
            due.push((burst.instance, burst.targets[burst.position]));
            // From now, not from when it was due: a late burst is not made up for by sending without pauses.
            burst.due = now + burst.interval;
            burst.position += 1;
            if burst.position == burst.targets.len() {
                burst.position = 0;
                burst.rounds -= 1;
            }
            if burst.rounds > 0 {
                self.queue.push_back(burst);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn targets(last: &[u8]) -> Vec<Target> {
        last.iter()
            .map(|&n| Target { interface: 2, mac: [2, 0, 0, 0, 0, 1], address: IpAddr::from([10, 0, 0, n]) })
            .collect()
    }

    fn addresses(due: &[(InstanceId, Target)]) -> Vec<String> {
        due.iter().map(|(instance, target)| format!("{instance}:{}", target.address)).collect()
    }

    #[test]
    fn without_a_pause_all_go_at_once_one_address_after_the_other() {
        let now = Instant::now();
        let mut bursts = Bursts::default();
        bursts.begin(0, targets(&[1, 2]), 2, Duration::ZERO, now);
        assert_eq!(bursts.deadline(), Some(now));
        let due = bursts.due(now, 100);
        assert_eq!(addresses(&due), ["0:10.0.0.1", "0:10.0.0.2", "0:10.0.0.1", "0:10.0.0.2"]);
        assert_eq!(bursts.deadline(), None);
    }

    #[test]
    fn the_pause_is_kept_by_a_timer() {
        let now = Instant::now();
        let mut bursts = Bursts::default();
        bursts.begin(0, targets(&[1]), 3, MS * 10, now);
        assert_eq!(bursts.due(now, 100).len(), 1);
        assert_eq!(bursts.deadline(), Some(now + MS * 10));
        assert_eq!(bursts.due(now + MS * 9, 100).len(), 0);
        assert_eq!(bursts.due(now + MS * 50, 100).len(), 1, "not two because it is late");
        assert_eq!(bursts.deadline(), Some(now + MS * 60));
    }

    #[test]
    fn a_turn_is_bounded_and_shared() {
        let now = Instant::now();
        let mut bursts = Bursts::default();
        bursts.begin(0, targets(&[1]), 1000, Duration::ZERO, now);
        bursts.begin(1, targets(&[2]), 1000, Duration::ZERO, now);
        let due = bursts.due(now, 10);
        assert_eq!(due.len(), 10);
        assert_eq!(due.iter().filter(|(instance, _)| *instance == 1).count(), 5);
    }

    #[test]
    fn a_new_burst_takes_the_old_ones_place_and_a_release_ends_it() {
        let now = Instant::now();
        let mut bursts = Bursts::default();
        bursts.begin(0, targets(&[1]), 5, MS, now);
        bursts.begin(0, targets(&[1]), 2, MS, now);
        assert_eq!(bursts.due(now, 100).len(), 1);
        assert_eq!(bursts.due(now + MS, 100).len(), 1);
        assert_eq!(bursts.due(now + MS * 2, 100).len(), 0);
        bursts.begin(0, targets(&[1]), 5, MS, now);
        bursts.cancel(0);
        assert_eq!(bursts.deadline(), None);
        bursts.begin(0, targets(&[]), 5, MS, now);
        bursts.begin(0, targets(&[1]), 0, MS, now);
        assert_eq!(bursts.deadline(), None);
    }
}
