//! What operators have ordered, kept in a file so that it outlives the agent.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    api::types::{Override, Protocol},
    config,
    desired::{ServerId, ServiceId},
};

/// Where systemd's `StateDirectory=` and a Debian package put it.
pub const DEFAULT_DIRECTORY: &str = "/var/lib/xdirector";
const VERSION: u32 = 1;
/// A file larger than this is none of ours.
const MOST_BYTES: u64 = 64 << 20;

/// The file.
#[derive(Debug)]
pub struct Store {
    path: PathBuf,
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
        let text = match fs::metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => return Err(error),
            Ok(data) if data.len() > MOST_BYTES => return Err(io::Error::other("too large")),
            Ok(_) => fs::read(&self.path)?,
        };
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
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let document = Document {
            version: VERSION,
            orders: orders.iter().map(|(id, order)| Entry::new(id, *order)).collect(),
        };
        let new = self.path.with_extension("json.new");
        // Left by one that died while it wrote; never followed if it is a link.
        let _ = fs::remove_file(&new);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        let written = serde_json::to_vec_pretty(&document)
            .map_err(io::Error::from)
            .and_then(|text| file.write_all(&text))
            .and_then(|()| file.sync_all())
            .and_then(|()| fs::rename(&new, &self.path))
            .and_then(|()| match self.path.parent() {
                Some(directory) => fs::File::open(directory)?.sync_all(),
                None => Ok(()),
            });
        if written.is_err() {
            let _ = fs::remove_file(&new);
        }
        written
    }
}

impl Entry {
    fn new(id: &ServerId, order: Override) -> Self {
        let ServiceId { address, port, protocol } = id.service;
        Self {
            virtual_address: SocketAddr::new(address, port),
            protocol: match protocol {
                config::Protocol::Tcp => Protocol::Tcp,
                config::Protocol::Udp => Protocol::Udp,
            },
            real_server: SocketAddr::new(id.address, id.port),
            order,
        }
    }

    fn id(&self) -> ServerId {
        let protocol = match self.protocol {
            Protocol::Tcp => config::Protocol::Tcp,
            Protocol::Udp => config::Protocol::Udp,
        };
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
            service: ServiceId { address: [192, 0, 2, 1].into(), port: 80, protocol: config::Protocol::Tcp },
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
