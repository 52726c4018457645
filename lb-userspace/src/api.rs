//! The admin interface: HTTP/1.1 with JSON on a Unix socket (docs/api.md).
//!
//! The agent is the only event loop and owns every answer; the [`server`] only carries a [`Request`] to it and the
//! reply back, so that nothing here needs a lock or touches the data plane.

pub mod client;
pub mod order;
pub mod server;
pub mod socket;
pub mod types;
pub mod vrrp;

use tokio::sync::{mpsc, oneshot};

pub use self::{
    client::Client,
    order::ServerAddress,
    server::serve,
    socket::{BoundSocket, SocketFile, bind, default_path},
    types::{Connection, DataPlaneOrder, Order, Ordered, Reloaded, StateEvent, Status, Stop},
    vrrp::{VrrpOrder, VrrpStatus},
};

/// What the agent is asked for.
#[derive(Debug)]
pub enum Request {
    /// The director as it is now. Dropping the sender answers 503.
    Status(oneshot::Sender<Status>),
    /// The connection table.
    Connections {
        /// Entries that the client wants at most. Reading no more saves work; sending more does no harm.
        limit: Option<usize>,
        /// Takes the table in pieces (a thousand entries or so each), then [`ConnectionBatch::End`]. The channel is
        /// short: a full table of a million connections waits for the client instead of in memory, so a large dump
        /// belongs in a blocking task. A failed send means that the client left or has what it asked for: stop.
        reply: mpsc::Sender<ConnectionBatch>,
    },
    /// The last changes of state, oldest first.
    Events(oneshot::Sender<Vec<StateEvent>>),
    /// Read the configuration file again. A refusal is the file's mistakes, as `xdirector check` prints them.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
    /// What an operator orders for real servers. A refusal says which servers there are.
    Order {
        /// The order.
        order: Order,
        /// Takes what it concerned, or why nothing.
        reply: oneshot::Sender<Result<Ordered, String>>,
    },
    /// Put another data plane in the place of the one in force. A refusal says why that cannot be.
    DataPlane {
        /// Which.
        order: DataPlaneOrder,
        /// Takes which is in force then.
        reply: oneshot::Sender<Result<DataPlaneOrder, String>>,
    },
    /// How VRRP is.
    Vrrp(oneshot::Sender<VrrpStatus>),
    /// An instance gives up for maintenance, or that is lifted. A refusal says why.
    VrrpOrder {
        /// Which.
        instance: String,
        /// Whether it is to be lifted.
        resume: bool,
        /// Takes how it is then.
        reply: oneshot::Sender<Result<VrrpStatus, String>>,
    },
    /// End the agent; the reply comes before it does.
    Stop {
        /// Whether the data plane goes with it.
        stop: Stop,
        /// Takes nothing when that is begun.
        reply: oneshot::Sender<()>,
    },
}

/// A piece of the connection table on its way to a client.
#[derive(Debug)]
pub enum ConnectionBatch {
    /// The next connections; may be empty.
    Entries(Vec<Connection>),
    /// That was all. A channel that closes without this is a broken answer, not a short one.
    End,
    /// The table cannot be read, and why.
    Failed(String),
}

#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
pub(crate) mod tests;
