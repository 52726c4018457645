//! What moves the packets, seen from the agent.

pub mod fake;
pub mod xdp;

use std::collections::BTreeSet;

use crate::{
    desired::{ServiceId, State},
    reconcile::Operation,
};

/// A data plane that can be brought from one state to another.
pub trait DataPlane {
    /// What it was told to do.
    fn observe(&self) -> State;

    /// The virtual servers of [`Self::observe`] that are not in the kernel as they should be, since somebody else has changed
    /// them. What somebody else has added is removed.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn damaged(&mut self) -> anyhow::Result<BTreeSet<ServiceId>>;

    /// Takes one step.
    ///
    /// # Errors
    /// When the kernel refuses, or the step does not fit what is there.
    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()>;
}
