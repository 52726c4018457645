//! Keeping who is dead where nobody serves, for the next agent.

use std::{collections::BTreeSet, io};

use super::Agent;
use crate::{
    desired::ServiceId,
    verdicts::{Dead, Store, dead},
    writer::Writer,
};

/// What the file has, and who writes it.
#[derive(Debug)]
pub(super) struct Kept {
    dead: Dead,
    writer: Writer<Dead>,
}

impl Kept {
    /// Starts the thread that writes; `dead` is in the file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(super) fn spawn(store: Store, dead: Dead) -> io::Result<Self> {
        let writer = Writer::spawn("verdicts", move |dead: Dead| {
            if let Err(error) = store.save(&dead) {
                tracing::warn!(
                    "{}: {error}: after a restart dead servers are up until their first check, where nobody serves",
                    store.path().display()
                );
            }
        })?;
        Ok(Self { dead, writer })
    }
}

impl Agent {
    /// What follows for these virtual servers may be something else now.
    pub(super) fn keep_dead(&mut self, ids: impl IntoIterator<Item = ServiceId>) {
        let mut is_other = false;
        for id in ids {
            is_other |= match self.outcomes.get(&id).and_then(dead) {
                Some(now) if self.kept_dead.dead.get(&id) == Some(&now) => false,
                Some(now) => {
                    self.kept_dead.dead.insert(id, now);
                    true
                }
                None => self.kept_dead.dead.remove(&id).is_some(),
            };
        }
        if is_other {
            let dead = self.kept_dead.dead.clone();
            self.kept_dead.writer.put(|_| dead);
        }
    }

    /// The same for all of them, also for those that are no more.
    pub(super) fn keep_all_dead(&mut self) {
        let before = self.kept_dead.dead.keys().chain(self.outcomes.keys());
        let ids: BTreeSet<ServiceId> = before.copied().collect();
        self.keep_dead(ids);
    }
}
