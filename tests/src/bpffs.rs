//! BPF file systems of the lab's own: what is pinned there goes with them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};

use crate::registry;

/// A BPF file system at a place of its own; unmounted when it is dropped.
#[derive(Debug)]
pub struct BpfMount(PathBuf);

impl BpfMount {
    /// Makes the directory `path` and mounts one there. For clean-up after a signal its parent belongs into the registry's
    /// directories, and its name is `bpf`.
    ///
    /// # Errors
    /// When the directory is there already or nothing may be mounted.
    pub fn new(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path)?;
        mount(Some("bpf"), &path, Some("bpf"), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("cannot mount a BPF file system at {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for BpfMount {
    fn drop(&mut self) {
        registry::unmount(&self.0);
    }
}
