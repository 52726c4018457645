//! The switch between VRRP and the data plane: a word for each role, in memory that the program reads with every packet of a
//! virtual server that is bound to an instance. One store moves ten thousand of them.
//!
//! The map always has the same size, so each generation of maps takes it over from the one before: what an earlier load has
//! set goes on to hold, and whoever has this one open still switches the program that is in force.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::atomic::Ordering::SeqCst,
};

use anyhow::Context as _;
use aya::maps::Map;
use lb_common::service::MAX_ROLES;

use super::{build::map_fd, mapped::Mapped};
use crate::vrrp::driver;

/// The roles' words, for other threads and, as a map, for another process.
#[derive(Debug)]
pub struct Roles {
    words: Mapped<u64>,
    map: OwnedFd,
    /// Whether the map is there when this process is not.
    is_pinned: bool,
}

impl Roles {
    /// Over the map of roles.
    ///
    /// # Errors
    /// When the kernel refuses to map it, or there is no descriptor left.
    pub(super) fn new(map: &Map, is_pinned: bool) -> anyhow::Result<Self> {
        let map = map_fd(map)?.try_clone_to_owned()?;
        let words = Mapped::new(map.as_fd(), MAX_ROLES).context("cannot map it into memory")?;
        Ok(Self { words, map, is_pinned })
    }

    /// Whether virtual servers with this role are served; one that needs none (0) always is.
    pub fn is_on(&self, role: u16) -> bool {
        role == 0 || self.word(role).is_some_and(|word| word.load(SeqCst) != 0)
    }

    fn word(&self, role: u16) -> Option<&std::sync::atomic::AtomicU64> {
        let role = u32::from(role);
        (role < self.words.len()).then(|| self.words.cell(role))
    }
}

impl driver::Roles for Roles {
    fn set(&self, role: u16, is_served: bool) {
        match self.word(role) {
            // Nobody looks at the word of role 0: what needs no role is always served.
            Some(_) if role == 0 => {}
            Some(word) => word.store(is_served.into(), SeqCst),
            None => tracing::error!("the data plane knows no role {role}, only those below {MAX_ROLES}"),
        }
    }

    fn map(&self) -> Option<OwnedFd> {
        if !self.is_pinned {
            return None;
        }
        self.map.try_clone().inspect_err(|error| tracing::error!("the map of roles: {error}")).ok()
    }
}
