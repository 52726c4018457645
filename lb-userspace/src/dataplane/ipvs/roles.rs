//! VRRP's roles, remembered: the kernel's IPVS has no switch for them and needs none.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
};

use crate::{config::vrrp::MAX_VRRP_INSTANCES, vrrp::driver};

/// Which instances this machine is master of.
#[derive(Debug)]
pub struct Roles(Vec<AtomicBool>);

impl Default for Roles {
    fn default() -> Self {
        Self((0..=MAX_VRRP_INSTANCES).map(|_| AtomicBool::new(false)).collect())
    }
}

impl Roles {
    /// Whether this machine has a role; role 0, which needs nothing, is always had.
    pub fn is_on(&self, role: u16) -> bool {
        role == 0 || self.0.get(usize::from(role)).is_some_and(|word| word.load(SeqCst))
    }
}

impl driver::Roles for Roles {
    fn set(&self, role: u16, is_served: bool) {
        if let Some(word) = self.0.get(usize::from(role)) {
            word.store(is_served, SeqCst);
        }
    }

    fn map(&self) -> Option<OwnedFd> {
        None
    }
}
