//! A data plane that only remembers: for tests of what decides.

use std::collections::BTreeSet;

use anyhow::{bail, ensure};

use super::{Audit, DataPlane};
use crate::{
    desired::{ServiceId, State},
    reconcile::Operation,
};

/// Remembers what it was told.
#[derive(Debug, Default)]
pub struct Fake {
    state: State,
    damaged: BTreeSet<ServiceId>,
}

impl Fake {
    /// One that does `state` already.
    pub fn new(state: State) -> Self {
        Self { state, damaged: BTreeSet::new() }
    }

    /// Somebody else has changed a virtual server.
    pub fn damage(&mut self, id: ServiceId) {
        self.damaged.insert(id);
    }
}

impl DataPlane for Fake {
    fn observe(&self) -> State {
        self.state.clone()
    }

    fn damaged(&mut self, _parts: usize) -> anyhow::Result<Audit> {
        Ok(Audit { looked_at: self.state.keys().copied().collect(), damaged: self.damaged.clone() })
    }

    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()> {
        match operation {
            Operation::Add(id, service) => {
                ensure!(self.state.insert(*id, service.clone()).is_none(), "{id:?} is there already");
            }
            Operation::Change(id, service) => match self.state.get_mut(id) {
                Some(there) => {
                    *there = service.clone();
                    self.damaged.remove(id);
                }
                None => bail!("{id:?} is not there"),
            },
            Operation::Remove(id) => ensure!(self.state.remove(id).is_some(), "{id:?} is not there"),
        }
        Ok(())
    }
}
