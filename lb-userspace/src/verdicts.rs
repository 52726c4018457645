//! Virtual servers that nobody serves, and whom the checks had found down there, in a small file. Everything else that checks had
//! said the next agent reads from the data plane; but where that has no server at all it cannot tell the dead from those that
//! are new in the configuration.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    api::types::Protocol,
    desired::{Condition, Outcome, ServiceId},
    files::{self, Lasting},
};

const VERSION: u32 = 1;
/// A file larger than this is none of ours.
const MOST_BYTES: u64 = 64 << 20;

/// Address and port of each dead server of each virtual server that has no living one.
pub type Dead = BTreeMap<ServiceId, BTreeSet<(IpAddr, u16)>>;

/// Whom the checks have found down at a virtual server that nobody serves; `None`: somebody does, or no check says so.
pub fn dead(outcome: &Outcome) -> Option<BTreeSet<(IpAddr, u16)>> {
    if outcome.service.servers.iter().any(|server| !server.is_leaving) {
        return None;
    }
    let both = outcome.servers.iter().zip(&outcome.conditions);
    let dead: BTreeSet<_> = both
        .filter(|(_, condition)| matches!(condition, Condition::Down { .. }))
        .map(|(server, _)| *server)
        .collect();
    (!dead.is_empty()).then_some(dead)
}

/// The file.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Document {
    version: u32,
    nobody_serves: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    virtual_address: SocketAddr,
    protocol: Protocol,
    down: Vec<SocketAddr>,
}

impl Store {
    /// The file of an instance in `directory`.
    pub fn new(directory: &Path, instance: &str) -> Self {
        Self { path: directory.join(format!("{instance}.down.json")) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What stands in the file; nothing when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is not what [`Self::save`] writes.
    pub fn load(&self) -> io::Result<Dead> {
        let Some(text) = files::read(&self.path, MOST_BYTES)? else { return Ok(Dead::new()) };
        let document: Document = serde_json::from_slice(&text)?;
        if document.version != VERSION {
            return Err(io::Error::other(format!("version {} instead of {VERSION}", document.version)));
        }
        Ok(document.nobody_serves.into_iter().map(Entry::into_pair).collect())
    }

    /// Writes the file anew, or removes it when there is nothing to say. Not forced to the disk: what it is about, the data
    /// plane, does not outlive a crash of the machine either.
    ///
    /// # Errors
    /// When the directory cannot be made or the file not be written; then the old one stays.
    pub fn save(&self, dead: &Dead) -> io::Result<()> {
        if dead.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                Ok(()) | Err(_) => Ok(()),
            };
        }
        let nobody_serves = dead.iter().map(|(id, servers)| Entry::new(id, servers)).collect();
        let text = serde_json::to_vec_pretty(&Document { version: VERSION, nobody_serves })?;
        files::replace(&self.path, &text, Lasting::Process)
    }
}

impl Entry {
    fn new(id: &ServiceId, servers: &BTreeSet<(IpAddr, u16)>) -> Self {
        Self {
            virtual_address: SocketAddr::new(id.address, id.port),
            protocol: id.protocol.into(),
            down: servers.iter().map(|&(address, port)| SocketAddr::new(address, port)).collect(),
        }
    }

    fn into_pair(self) -> (ServiceId, BTreeSet<(IpAddr, u16)>) {
        let protocol = self.protocol.into();
        let (address, port) = (self.virtual_address.ip(), self.virtual_address.port());
        let down = self.down.into_iter().map(|server| (server.ip(), server.port())).collect();
        (ServiceId { address, port, protocol }, down)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_nothing_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::new(&folder.path().join("made"), "web");
        assert_eq!(store.load().expect("no file is nobody"), Dead::new());
        store.save(&Dead::new()).expect("nothing to remove");
        let id =
            |port| ServiceId { address: [192, 0, 2, 1].into(), port, protocol: crate::config::Protocol::Udp };
        let servers = BTreeSet::from([([10, 0, 0, 1].into(), 80), ("fd00::1".parse().expect("good"), 81)]);
        let dead = Dead::from([(id(80), servers.clone()), (id(0), servers)]);
        store.save(&dead).expect("saved");
        assert_eq!(store.load().expect("loaded"), dead);
        store.save(&Dead::new()).expect("removed");
        assert!(!store.path().exists());
        fs::write(store.path(), "{").expect("the folder is ours");
        store.load().expect_err("something else");
    }
}
