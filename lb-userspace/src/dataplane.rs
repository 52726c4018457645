//! What moves the packets, seen from the agent.

pub mod fake;
pub mod xdp;

use crate::{desired::State, reconcile::Operation};

/// A data plane that can be brought from one state to another.
pub trait DataPlane {
    /// What it does now.
    fn observe(&self) -> State;

    /// Takes one step.
    ///
    /// # Errors
    /// When the kernel refuses, or the step does not fit what is there.
    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()>;
}
