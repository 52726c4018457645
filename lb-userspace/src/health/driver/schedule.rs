//! All checks: what is known of each, and who is due when. Pure: takes the time, makes no attempts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use super::Wanted;
use crate::{
    config::check::HealthCheck,
    health::{
        CheckId, Report, State, counterparts,
        fsm::{Machine, Options},
        probe::Outcome,
    },
};

/// Tells attempts apart, also those of the same check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct AttemptId(u64);

/// The checks.
#[derive(Debug, Default)]
pub struct Schedule {
    checks: BTreeMap<CheckId, Entry>,
    /// Those without an attempt under way, by their next one.
    due: BTreeSet<(Instant, CheckId)>,
    last_attempt: AttemptId,
}

#[derive(Debug)]
struct Entry {
    check: Arc<HealthCheck>,
    begins_down: bool,
    machine: Machine,
    running: Option<AttemptId>,
    detail: Option<String>,
    last: Duration,
    sum: Duration,
}

impl Schedule {
    /// Replaces the checks. What is known goes to the check of the same server that asks the same
    /// ([`counterparts`]), whatever its number. Returns the attempts that no longer matter. `random` gives numbers
    /// from 0 to 1.
    pub fn set(
        &mut self,
        wanted: BTreeMap<CheckId, Wanted>,
        now: Instant,
        mut random: impl FnMut() -> f64,
    ) -> Vec<AttemptId> {
        let (mut cancelled, mut due) = (Vec::new(), Vec::new());
        let mut old = std::mem::take(&mut self.checks);
        let mut wanted = wanted.into_iter().peekable();
        while let Some((first, one)) = wanted.next() {
            let mut of_server = vec![(first, one)];
            while let Some(next) = wanted.next_if(|(id, _)| id.server() == first.server()) {
                of_server.push(next);
            }
            let before = counterparts_of(first, &of_server, &old);
            for ((id, Wanted { check, begins_down }), before) in of_server.into_iter().zip(before) {
                let options = Options::new(&check, begins_down);
                let Some((before, mut entry)) = before.and_then(|before| old.remove_entry(&before)) else {
                    let machine = Machine::new(options, check.warmup, random(), now);
                    let entry = Entry::new(check, begins_down, machine);
                    due.extend(entry.machine.poll_timeout().map(|due| (due, id)));
                    self.checks.insert(id, entry);
                    continue;
                };
                // Where it begins is of no matter any more once there has been a result.
                let begins_same = entry.machine.known().is_some() || entry.begins_down == begins_down;
                if before != id || *entry.check != check || !begins_same {
                    // Also of a check that only has another number: the attempt would report for the old one.
                    cancelled.extend(entry.running.take());
                    self.forget_due(before, &entry);
                    entry.machine.change(options, now);
                    (entry.check, entry.begins_down) = (Arc::new(check), begins_down);
                    due.extend(entry.machine.poll_timeout().map(|due| (due, id)));
                }
                self.checks.insert(id, entry);
            }
        }
        for (id, entry) in old {
            cancelled.extend(entry.running);
            self.forget_due(id, &entry);
        }
        // Only now: another check may have had the same number and time.
        self.due.extend(due);
        cancelled
    }

    fn forget_due(&mut self, id: CheckId, entry: &Entry) {
        if let Some(due) = entry.machine.poll_timeout() {
            self.due.remove(&(due, id));
        }
    }

    /// When the next attempt is due, of those not under way.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// The check that [`Self::begin`] would begin: the one that has waited longest.
    pub fn due(&self, now: Instant) -> Option<&HealthCheck> {
        let (due, id) = self.due.first()?;
        (*due <= now).then(|| &*self.checks[id].check)
    }

    /// Begins an attempt if one is due.
    pub fn begin(&mut self, now: Instant) -> Option<(CheckId, AttemptId, Arc<HealthCheck>)> {
        self.due(now)?;
        let (_, id) = self.due.pop_first()?;
        let entry = self.checks.get_mut(&id)?;
        self.last_attempt.0 += 1;
        entry.running = Some(self.last_attempt);
        entry.machine.begin(now);
        Some((id, self.last_attempt, entry.check.clone()))
    }

    /// An attempt has ended; `took` is its duration. One that no longer matters changes nothing.
    pub fn finish(
        &mut self,
        id: CheckId,
        attempt: AttemptId,
        outcome: Outcome,
        took: Duration,
        now: Instant,
    ) -> Option<Report> {
        let entry = self.checks.get_mut(&id).filter(|entry| entry.running == Some(attempt))?;
        entry.running = None;
        entry.last = took;
        entry.sum += took;
        let change = entry.machine.handle(&outcome, now);
        self.due.extend(entry.machine.poll_timeout().map(|due| (due, id)));
        let detail = outcome.map_or_else(|failure| failure, |passed| passed.detail);
        let report = change.map(|change| Report {
            id,
            is_up: change.is_up,
            weight: change.weight,
            drain: change.drain,
            detail: detail.clone(),
            at: now,
        });
        entry.detail = Some(detail);
        report
    }

    /// What is known of every check.
    pub fn states(&self) -> BTreeMap<CheckId, State> {
        self.checks.iter().map(|(id, entry)| (*id, entry.state())).collect()
    }
}

/// Who, among the old checks of a server, is which of the new ones.
fn counterparts_of(
    id: CheckId,
    new: &[(CheckId, Wanted)],
    old: &BTreeMap<CheckId, Entry>,
) -> Vec<Option<CheckId>> {
    let all = CheckId { index: 0, ..id }..=CheckId { index: u32::MAX, ..id };
    let (ids, old): (Vec<CheckId>, Vec<&HealthCheck>) =
        old.range(all).map(|(id, entry)| (*id, &*entry.check)).unzip();
    let new: Vec<&HealthCheck> = new.iter().map(|(_, wanted)| &wanted.check).collect();
    counterparts(&old, &new).into_iter().map(|at| at.map(|at| ids[at])).collect()
}

impl Entry {
    fn new(check: HealthCheck, begins_down: bool, machine: Machine) -> Self {
        Self {
            check: Arc::new(check),
            begins_down,
            machine,
            running: None,
            detail: None,
            last: Duration::ZERO,
            sum: Duration::ZERO,
        }
    }

    fn state(&self) -> State {
        let known = self.machine.known();
        let (passed, failed) = self.machine.counts();
        State {
            is_up: known.map(|known| known.is_up),
            weight: known.and_then(|known| known.weight),
            detail: self.detail.clone(),
            since: self.machine.since(),
            passed,
            failed,
            last: self.last,
            sum: self.sum,
        }
    }
}

#[cfg(test)]
mod tests;
