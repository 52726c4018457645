//! What moves the packets, seen from the agent.

pub mod fake;
pub mod ipvs;
mod plane;
pub mod xdp;

use std::{borrow::Cow, collections::BTreeSet, net::SocketAddr};

pub use plane::{ConnectionCounts, ConnectionList, Plane, StatsReader};

use crate::{
    config::{Forward, Protocol},
    desired::{ServiceId, State},
    reconcile::Operation,
};

/// One connection, as people are shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The protocol above IP.
    pub protocol: Protocol,
    /// Seconds until it is forgotten if no packet comes.
    pub expires: u32,
    /// State in IPVS' words, as `ESTABLISHED`; `UDP` for UDP.
    pub state: Cow<'static, str>,
    /// The client.
    pub client: SocketAddr,
    /// The address and port that the client asked for.
    pub virtual_address: SocketAddr,
    /// The real server that has the connection.
    pub real: SocketAddr,
    /// How its packets are forwarded.
    pub forward: Forward,
}

/// What a look at a part of the virtual servers has found.
#[derive(Debug, Default)]
pub struct Audit {
    /// Which were looked at.
    pub looked_at: Vec<ServiceId>,
    /// Those of them that are not in the kernel as they should be, since somebody else has changed them.
    pub damaged: BTreeSet<ServiceId>,
}

/// A data plane that can be brought from one state to another.
pub trait DataPlane {
    /// What it was told to do.
    fn observe(&self) -> State;

    /// Compares one of `parts` parts of the virtual servers of [`Self::observe`] with the kernel; goes on where it stopped, or
    /// with 1 at the beginning. What somebody else has added is removed at the beginning.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn damaged(&mut self, parts: usize) -> anyhow::Result<Audit>;

    /// Takes one step.
    ///
    /// # Errors
    /// When the kernel refuses, or the step does not fit what is there.
    fn apply(&mut self, operation: &Operation) -> anyhow::Result<()>;
}
