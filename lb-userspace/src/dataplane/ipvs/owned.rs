//! Which of the kernel's services are ours: a small file for later agents, which may have another configuration.

use std::{
    collections::BTreeSet,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    api::types::Protocol,
    desired::ServiceId,
    files::{self, Lasting},
};

/// A file larger than this is none of ours.
const MOST_BYTES: u64 = 16 << 20;

/// The file, and what is in it.
#[derive(Debug)]
pub struct Owned {
    path: PathBuf,
    written: BTreeSet<ServiceId>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    address: SocketAddr,
    protocol: Protocol,
}

impl Owned {
    /// Reads it. One that cannot be read costs what only it knows: services that are in no configuration any more.
    pub fn load(path: PathBuf) -> Self {
        let written = read(&path).unwrap_or_else(|error| {
            tracing::warn!("which of IPVS's services are ours is not known: {}: {error}", path.display());
            BTreeSet::new()
        });
        Self { path, written }
    }

    /// Whether a service is ours.
    pub fn contains(&self, id: &ServiceId) -> bool {
        self.written.contains(id)
    }

    /// Writes it, unless that is in it already.
    ///
    /// # Errors
    /// In words, with its path.
    pub fn store(&mut self, ours: BTreeSet<ServiceId>) -> Result<(), String> {
        if self.written == ours {
            return Ok(());
        }
        let entries: Vec<Entry> = ours.iter().map(Entry::of).collect();
        let written = serde_json::to_vec(&entries).map_err(io::Error::from);
        written
            .and_then(|text| files::replace(&self.path, &text, Lasting::Process))
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        self.written = ours;
        Ok(())
    }

    /// Nothing is ours any more.
    pub fn forget(&self) {
        // Where it stays, its services are not there any more.
        let _ = fs::remove_file(&self.path);
    }
}

impl Entry {
    fn of(id: &ServiceId) -> Self {
        Self { address: SocketAddr::new(id.address, id.port), protocol: id.protocol.into() }
    }

    fn id(&self) -> ServiceId {
        ServiceId { address: self.address.ip(), port: self.address.port(), protocol: self.protocol.into() }
    }
}

fn read(path: &Path) -> io::Result<BTreeSet<ServiceId>> {
    let Some(text) = files::read(path, MOST_BYTES)? else { return Ok(BTreeSet::new()) };
    let entries: Vec<Entry> = serde_json::from_slice(&text)?;
    Ok(entries.iter().map(Entry::id).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state").join("default.ipvs.json");
        let id =
            |port| ServiceId { address: [192, 0, 2, 1].into(), port, protocol: crate::config::Protocol::Udp };
        let mut owned = Owned::load(path.clone());
        assert!(!owned.contains(&id(53)));
        owned.store(BTreeSet::from([id(53), id(54)])).unwrap();
        let again = Owned::load(path.clone());
        assert!(again.contains(&id(53)) && again.contains(&id(54)) && !again.contains(&id(55)));
        fs::write(&path, "[{").unwrap();
        assert!(!Owned::load(path).contains(&id(53)));
    }
}
