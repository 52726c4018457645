//! Units: a sync group, or an instance that is in none. All members of a unit are in the same state after each event.
//!
//! A unit is MASTER only when all of its members want it; one that yields takes all to BACKUP, one that has a fault takes all to
//! FAULT (keepalived's `vrrp_sync_group`). An instance alone is a group of one.

use std::time::Instant;

use super::{
    Command, InstanceId, Settings,
    instance::{Farewell, Instance, Yield},
};
use crate::vrrp::State;

/// A sync group, or one instance.
#[derive(Debug)]
pub(super) struct Unit {
    /// Positions of its instances, in the order of the group.
    pub(super) members: Vec<InstanceId>,
    /// What has been told of it last.
    pub(super) state: State,
}

/// Where a unit goes, with the member on whose account.
enum Goal {
    Fault(InstanceId),
    /// Something tracked by a member that has not begun is not known yet.
    Wait,
    Backup,
    Master,
}

/// The units of some settings: first the groups, then the instances that are in none.
pub(super) fn divide(settings: &Settings) -> Vec<Unit> {
    let mut is_free = vec![true; settings.instances.len()];
    let mut units = Vec::new();
    for group in &settings.groups {
        let mut members = Vec::new();
        for name in &group.instances {
            let position = settings.instances.iter().position(|instance| instance.name == *name);
            members.extend(position.filter(|&id| std::mem::replace(&mut is_free[id], false)));
        }
        units.push(Unit { members, state: State::Init });
    }
    let free = is_free.iter().enumerate().filter(|(_, is_free)| **is_free);
    units.extend(free.map(|(id, _)| Unit { members: vec![id], state: State::Init }));
    units
}

impl Unit {
    /// Brings all members into the state that follows from their wishes, and says what is to be done for it.
    pub(super) fn settle(
        &mut self,
        index: usize,
        settings: &Settings,
        instances: &mut [Instance],
        now: Instant,
        out: &mut Vec<Command>,
    ) {
        let why = match self.goal(instances) {
            Goal::Fault(id) => {
                let why = instances[id].standing.faults.join("; ");
                self.fail(index, settings, instances, id, &why, now, out)
            }
            Goal::Wait => self.retreat(index, settings, instances, false, now, out),
            Goal::Backup => self.retreat(index, settings, instances, true, now, out),
            Goal::Master => self.advance(index, settings, instances, now, out),
        };
        if let Some(why) = why {
            self.tell(index, settings, instances, &why, out);
        }
    }

    fn goal(&self, instances: &mut [Instance]) -> Goal {
        let mut does_wait = false;
        let mut is_ready = true;
        for &id in &self.members {
            let instance = &mut instances[id];
            if !instance.standing.faults.is_empty() {
                return Goal::Fault(id);
            }
            if matches!(instance.state, State::Init | State::Fault) {
                does_wait |= !instance.standing.unknown.is_empty();
                instance.wish_at_start();
            }
            is_ready &= instance.is_ready();
        }
        match (does_wait, is_ready) {
            (true, _) => Goal::Wait,
            (false, true) => Goal::Master,
            (false, false) => Goal::Backup,
        }
    }

    /// To FAULT, all of them.
    #[expect(clippy::too_many_arguments, reason = "the unit's surroundings, and whose fault it is")]
    fn fail(
        &self,
        index: usize,
        settings: &Settings,
        instances: &mut [Instance],
        guilty: InstanceId,
        why: &str,
        now: Instant,
        out: &mut Vec<Command>,
    ) -> Option<String> {
        let shared = shared_reason(index, settings, &instances[guilty], why);
        let mut has_changed = false;
        for &id in &self.members {
            let instance = &mut instances[id];
            if instance.state != State::Fault {
                let own = instance.standing.faults.join("; ");
                let why = if own.is_empty() { shared.clone() } else { own };
                instance.leave(State::Fault, why, Farewell::Zero, now, out);
                has_changed = true;
            }
        }
        has_changed.then_some(shared)
    }

    /// To BACKUP: masters, when not all members want to be master; and whoever is in INIT or FAULT, if it may `begin`.
    fn retreat(
        &self,
        index: usize,
        settings: &Settings,
        instances: &mut [Instance],
        may_begin: bool,
        now: Instant,
        out: &mut Vec<Command>,
    ) -> Option<String> {
        let guilty = self.members.iter().copied().find(|&id| instances[id].yields.is_some());
        let shared = match guilty {
            Some(id) => {
                let why = instances[id].yields.as_ref().map_or("", |yields| &yields.why).to_owned();
                Some(shared_reason(index, settings, &instances[id], &why))
            }
            None => None,
        };
        let mut last = None;
        for &id in &self.members {
            let instance = &mut instances[id];
            let why = match instance.state {
                State::Master => {
                    let Yield { why, farewell } = instance.yields.take().unwrap_or_else(|| Yield {
                        why: shared
                            .clone()
                            .unwrap_or_else(|| "a member of its group is no master".to_owned()),
                        farewell: Farewell::Zero,
                    });
                    instance.leave(State::Backup, why.clone(), farewell, now, out);
                    why
                }
                State::Init | State::Fault if may_begin => {
                    let why =
                        if instance.state == State::Init { "started" } else { "nothing is wrong any more" };
                    instance.listen(why.to_owned(), now, out);
                    why.to_owned()
                }
                State::Init | State::Fault | State::Backup => continue,
            };
            last = Some(why);
        }
        shared.or(last)
    }

    /// To MASTER, all of them.
    fn advance(
        &self,
        index: usize,
        settings: &Settings,
        instances: &mut [Instance],
        now: Instant,
        out: &mut Vec<Command>,
    ) -> Option<String> {
        let mut last = None;
        for &id in &self.members {
            let instance = &mut instances[id];
            if instance.state != State::Master {
                let why = instance.wish.take().unwrap_or_default();
                last = Some(shared_reason(index, settings, instance, &why));
                instance.become_master(why, now, out);
            }
        }
        last
    }

    /// Says that a group's state has changed, if it has.
    pub(super) fn tell(
        &mut self,
        index: usize,
        settings: &Settings,
        instances: &[Instance],
        why: &str,
        out: &mut Vec<Command>,
    ) {
        let is_all = |state| self.members.iter().all(|&id| instances[id].state == state);
        let to = [State::Init, State::Master, State::Fault]
            .into_iter()
            .find(|&state| is_all(state))
            .unwrap_or(State::Backup);
        if to != self.state {
            self.state = to;
            if index < settings.groups.len() {
                out.push(Command::GroupChanged { group: index, to, reason: why.to_owned() });
            }
        }
    }
}

/// A member's reason, in the words for the others.
fn shared_reason(index: usize, settings: &Settings, member: &Instance, why: &str) -> String {
    match settings.groups.get(index) {
        Some(group) => format!("group {}: {}: {why}", group.name, member.settings.name),
        None => why.to_owned(),
    }
}
