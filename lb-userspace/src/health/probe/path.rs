//! The way of checks with `via = "dataplane"`: to the virtual server, through the data plane, by way of one real server.

use std::{
    any::Any,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use socket2::{Socket, Type};

use crate::desired::ServerId;

/// Who opens such ways: the data plane.
pub trait Path: fmt::Debug + Send + Sync {
    /// A socket for one connection to `connect`, a virtual server's address and port, that `server` will get. It is bound, not
    /// connected, and does not block. `bind`: from where; port 0: any. May take milliseconds.
    ///
    /// # Errors
    /// Why there is no such way, as a check's detail.
    fn open(
        &self,
        server: &ServerId,
        connect: SocketAddr,
        bind: Option<SocketAddr>,
        kind: Type,
    ) -> Result<Opened, String>;
}

/// One way.
pub struct Opened {
    /// Where it begins.
    pub socket: Socket,
    /// Held as long as packets take it.
    pub hold: Box<dyn Any + Send>,
}

/// The ways of one attempt. They stay open until all of its clones are dropped.
#[derive(Clone)]
pub struct Through {
    path: Arc<dyn Path>,
    server: ServerId,
    open: Arc<Mutex<Vec<Box<dyn Any + Send>>>>,
}

impl Through {
    /// To one real server.
    pub fn new(path: Arc<dyn Path>, server: ServerId) -> Self {
        Self { path, server, open: Arc::default() }
    }

    /// As [`Path::open`].
    ///
    /// # Errors
    /// As there, in the words of the data plane.
    pub fn socket(&self, connect: SocketAddr, bind: Option<SocketAddr>, kind: Type) -> io::Result<Socket> {
        let Opened { socket, hold } =
            self.path.open(&self.server, connect, bind, kind).map_err(io::Error::other)?;
        self.open.lock().unwrap_or_else(PoisonError::into_inner).push(hold);
        Ok(socket)
    }
}

impl fmt::Debug for Through {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Through")
            .field("path", &self.path)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}
