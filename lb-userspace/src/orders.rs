//! What operators have ordered, kept in a file so that it outlives the agent.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::{
    api::types::{Override, Protocol},
    desired::{ServerId, ServiceId},
    files::{self, Lasting},
    writer::Writer,
};

/// Where systemd's `StateDirectory=` and a Debian package put it.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/xdirector";
const VERSION: u32 = 1;
/// A file larger than this is none of ours.
const MOST_BYTES: u64 = 64 << 20;

/// The file.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

/// What is to be written, and who is waiting for it.
#[derive(Debug)]
struct Waiting {
    orders: BTreeMap<ServerId, Override>,
    told: Vec<oneshot::Sender<Result<(), String>>>,
}

/// Writes the file in a thread of its own: whoever gives an order, and the agent, need not wait for a disk that hangs.
#[derive(Debug)]
pub struct Keeper {
    writer: Writer<Waiting>,
}

impl Keeper {
    /// Starts the thread.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn spawn(store: Store) -> io::Result<Self> {
        Self::spawn_with(move |orders| {
            store
                .save(orders)
                .map_err(|error| format!("{} cannot be written: {error}", store.path().display()))
        })
    }

    fn spawn_with(
        mut save: impl FnMut(&BTreeMap<ServerId, Override>) -> Result<(), String> + Send + 'static,
    ) -> io::Result<Self> {
        let writer = Writer::spawn("orders", move |Waiting { orders, told }| {
            let saved = save(&orders);
            if let Err(text) = &saved {
                tracing::error!("an operator's order will not survive a restart: {text}");
            }
            // Who waits no longer has been told something else.
            told.into_iter().for_each(|one| drop(one.send(saved.clone())));
        })?;
        Ok(Self { writer })
    }

    /// All orders as they are now. The answer comes once they, or later ones with them, are written: or why not.
    pub fn keep(&self, orders: BTreeMap<ServerId, Override>) -> oneshot::Receiver<Result<(), String>> {
        let (tell, told) = oneshot::channel();
        self.writer.put(|before| {
            let mut waiting = before.map(|before| before.told).unwrap_or_default();
            waiting.push(tell);
            Waiting { orders, told: waiting }
        });
        told
    }

    /// Waits until all is written, at most `limit`; whether it is.
    pub fn finish(&self, limit: Duration) -> bool {
        self.writer.finish(limit)
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    orders: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    virtual_address: SocketAddr,
    protocol: Protocol,
    real_server: SocketAddr,
    order: Override,
}

impl Store {
    /// The file of an instance in `directory`.
    pub fn new(directory: &Path, instance: &str) -> Self {
        Self { path: directory.join(format!("{instance}.orders.json")) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where it is, and whatever else outlives the agent.
    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("."))
    }

    /// What stands in the file; nothing when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is not what [`Self::save`] writes.
    pub fn load(&self) -> io::Result<BTreeMap<ServerId, Override>> {
        let Some(text) = files::read(&self.path, MOST_BYTES)? else { return Ok(BTreeMap::new()) };
        let document: Document = serde_json::from_slice(&text)?;
        if document.version != VERSION {
            return Err(io::Error::other(format!("version {} instead of {VERSION}", document.version)));
        }
        Ok(document.orders.into_iter().map(|entry| (entry.id(), entry.order)).collect())
    }

    /// Gives a file that cannot be read another name; says which.
    ///
    /// # Errors
    /// When that is not possible.
    pub fn put_aside(&self) -> io::Result<PathBuf> {
        let aside = self.path.with_extension("json.bad");
        fs::rename(&self.path, &aside)?;
        Ok(aside)
    }

    /// Writes the file anew: whoever reads it sees the old or the new one.
    ///
    /// # Errors
    /// When the directory cannot be made or the file not be written; then the old one stays.
    pub fn save(&self, orders: &BTreeMap<ServerId, Override>) -> io::Result<()> {
        let document = Document {
            version: VERSION,
            orders: orders.iter().map(|(id, order)| Entry::new(id, *order)).collect(),
        };
        files::replace(&self.path, &serde_json::to_vec_pretty(&document)?, Lasting::Machine)
    }
}

impl Entry {
    fn new(id: &ServerId, order: Override) -> Self {
        let ServiceId { address, port, protocol } = id.service;
        Self {
            virtual_address: SocketAddr::new(address, port),
            protocol: protocol.into(),
            real_server: SocketAddr::new(id.address, id.port),
            order,
        }
    }

    fn id(&self) -> ServerId {
        let protocol = self.protocol.into();
        let (address, port) = (self.virtual_address.ip(), self.virtual_address.port());
        ServerId {
            service: ServiceId { address, port, protocol },
            address: self.real_server.ip(),
            port: self.real_server.port(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some_orders() -> BTreeMap<ServerId, Override> {
        let id = |port: u16| ServerId {
            service: ServiceId {
                address: [192, 0, 2, 1].into(),
                port: 80,
                protocol: crate::config::Protocol::Tcp,
            },
            address: [10, 0, 0, 1].into(),
            port,
        };
        [
            (id(80), Override::Drain { until: Some(17) }),
            (id(81), Override::Disable),
            (id(82), Override::Weight { weight: 3 }),
        ]
        .into()
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(&folder.path().join("made"), "web");
        assert!(store.load().expect("no file is no orders").is_empty());
        store.save(&some_orders()).expect("saved");
        assert_eq!(store.load().expect("loaded"), some_orders());
        store.save(&BTreeMap::new()).expect("saved again");
        assert!(store.load().expect("loaded").is_empty());
    }

    #[test]
    fn a_file_of_something_else_is_an_error_and_stays() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(folder.path(), "web");
        for text in ["", "{", "[]", "{\"version\": 9, \"orders\": []}"] {
            fs::write(store.path(), text).expect("the folder is ours");
            store.load().expect_err(text);
            assert_eq!(fs::read_to_string(store.path()).expect("still there"), text);
        }
    }

    const LONG: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_nobody_waiting_and_the_last_orders_are_written() {
        let (release, disk) = std::sync::mpsc::channel::<()>();
        let (written, saved) = std::sync::mpsc::channel();
        let keeper = Keeper::spawn_with(move |orders| {
            disk.recv().unwrap();
            written.send(orders.len()).unwrap();
            if orders.len() == 2 { Err("disk full".to_owned()) } else { Ok(()) }
        })
        .unwrap();
        let orders: Vec<_> = some_orders().into_iter().collect();
        let first = |count: usize| orders.iter().copied().take(count).collect::<BTreeMap<_, _>>();
        // Each returns, though nothing is written.
        let mut one = keeper.keep(first(1));
        let others = [3, 2].map(|count| keeper.keep(first(count)));
        assert!(!keeper.finish(Duration::ZERO));
        one.try_recv().expect_err("not before it is written");
        (0..3).for_each(|_| release.send(()).unwrap());
        assert!(keeper.finish(LONG));
        // Whether the thread had begun with the first one before the others came is its own affair.
        let saved: Vec<usize> = saved.try_iter().collect();
        assert!(matches!(saved[..], [2] | [1, 2] | [1, 3, 2] | [3, 2]), "{saved:?}");
        let mut answers = vec![one.await.unwrap()];
        for told in others {
            answers.push(told.await.unwrap());
        }
        assert_eq!(answers[2], Err("disk full".to_owned()));
        assert_eq!(answers[0].is_ok(), saved[0] != 2);
    }

    #[tokio::test]
    async fn what_is_kept_is_loaded() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(folder.path(), "web");
        let keeper = Keeper::spawn(store.clone()).expect("a thread");
        assert_eq!(keeper.keep(some_orders()).await.expect("an answer"), Ok(()));
        assert_eq!(store.load().expect("loaded"), some_orders());
        fs::create_dir(folder.path().join("web.orders.json.new")).expect("the folder is ours");
        let text = keeper.keep(BTreeMap::new()).await.expect("an answer").expect_err("in the way");
        assert!(text.contains("web.orders.json cannot be written"), "{text}");
    }

    #[test]
    fn a_failed_save_leaves_the_old_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(folder.path(), "web");
        store.save(&some_orders()).expect("saved");
        // A directory in the way of the new file cannot be opened for writing, whoever asks.
        fs::create_dir(folder.path().join("web.orders.json.new")).expect("the folder is ours");
        store.save(&BTreeMap::new()).expect_err("in the way");
        assert_eq!(store.load().expect("loaded"), some_orders());
    }
}
