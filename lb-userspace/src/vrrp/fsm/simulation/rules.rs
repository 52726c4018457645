//! The rules.
//!
//! All the time: the members of a group agree after each event; nothing is acquired twice or released twice; changes of state
//! join up; nobody preempts who must not; a timer that has been served is later or gone.
//!
//! Once healed: there is no time without a master longer than a master-down time; there are no two for longer than it takes
//! until one of them sends its next advert. In the end there is one, nobody who preempts has a higher priority, nothing
//! changes any more, and only the master sends, at its interval.

use super::{
    plan::Plan,
    world::{Outcome, World},
};
use crate::vrrp::State;

impl World {
    /// Whether there is no time without a master, or with two, that is too long.
    pub(super) fn check_times(&self) -> Outcome {
        let Plan { healed, interval, down, delay, .. } = self.plan;
        for (index, router) in self.routers.iter().enumerate() {
            let longest = match router.masters {
                1 => continue,
                0 => down + down / 50 + 4 * delay,
                _ => interval + interval / 50 + 4 * delay,
            };
            let is_too_long = self.now > router.odd.max(healed) + longest;
            if is_too_long && (router.masters > 0 || self.able(index).next().is_some()) {
                return Err(format!("router {index} has {} masters for too long", router.masters));
            }
        }
        Ok(())
    }

    /// Nodes that could be master.
    fn able(&self, router: usize) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(move |&node| {
            let is_down = &self.nodes[node].is_down;
            let is_down = if self.plan.is_grouped { is_down.contains(&true) } else { is_down[router] };
            self.nodes[node].machine.is_some() && !is_down
        })
    }

    pub(super) fn does_preempt(&self, node: usize, router: usize) -> bool {
        let settings = &self.plan.nodes[node].settings.instances[router];
        !settings.nopreempt && !self.nodes[node].is_handed_over
    }

    fn priority(&self, node: usize, router: usize) -> u8 {
        let base = self.plan.nodes[node].settings.instances[router].priority;
        match (base, self.plan.is_grouped) {
            (255, _) | (_, true) => base,
            _ => (i64::from(base) + self.nodes[node].number).clamp(1, 254) as u8,
        }
    }

    /// Whether each virtual router has one master, and nobody who should be it instead.
    pub(super) fn check_masters(&self) -> Outcome {
        for router in 0..self.plan.routers {
            let masters: Vec<usize> = (0..self.nodes.len())
                .filter(|&node| self.nodes[node].states[router] == State::Master)
                .collect();
            let [master] = masters[..] else {
                if masters.is_empty() && self.able(router).next().is_none() {
                    continue;
                }
                return Err(format!("router {router} has the masters {masters:?} in the end"));
            };
            let better = self.able(router).find(|&node| {
                self.does_preempt(node, router) && self.priority(node, router) > self.priority(master, router)
            });
            if let Some(better) = better {
                return Err(format!(
                    "router {router} has the master {master}, but node {better} should be it"
                ));
            }
        }
        Ok(())
    }

    /// Whether only the master has sent adverts, at its interval.
    pub(super) fn check_adverts(&self) -> Outcome {
        for (index, router) in self.routers.iter().enumerate() {
            for (node, &adverts) in router.adverts.iter().enumerate() {
                let own = u64::from(self.interval_ms(node, index)) * 1_000_000;
                let is_master = self.nodes[node].states[index] == State::Master;
                let most = if is_master { self.plan.down * 101 / 100 / own + 2 } else { 0 };
                let least = if is_master { (self.plan.down * 99 / 100 / own).saturating_sub(1) } else { 0 };
                if !(least..=most).contains(&adverts) {
                    return Err(format!(
                        "router {index}: node {node} has sent {adverts} adverts, not {least} to {most}"
                    ));
                }
            }
        }
        Ok(())
    }
}
