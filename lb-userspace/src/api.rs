//! The admin interface: HTTP/1.1 with JSON on a Unix socket (docs/api.md).
//!
//! The agent is the only event loop and owns every answer; the [`server`] only carries a [`Request`] to it and the
//! reply back, so that nothing here needs a lock or touches the data plane.

pub mod client;
pub mod server;
pub mod socket;
pub mod types;

use tokio::sync::{mpsc, oneshot};

pub use self::{
    client::Client,
    server::serve,
    socket::{BoundSocket, SocketFile, bind, default_path},
    types::{Connection, Status},
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
mod tests;
