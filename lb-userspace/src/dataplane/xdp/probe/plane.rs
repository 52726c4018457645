//! What the data plane does for checks that go through it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use super::{
    super::{XdpPlane, attach, program_of},
    CheckPath, Ends, Namespace, Veth,
};
use crate::{
    config::{Forward, XdpMode},
    desired::ServerId,
};

impl XdpPlane {
    /// Makes the entries by which health checks reach these real servers, whatever the schedule says. Gives the numbers of those
    /// for which there is room.
    pub fn set_checked(&mut self, wanted: &BTreeMap<ServerId, Forward>) -> BTreeMap<ServerId, u32> {
        self.tables.set_checked(wanted)
    }

    /// Takes packets from the probe namespace; `None`: from none.
    ///
    /// # Errors
    /// [`super::super::AttachError`].
    pub fn attach_checks(&mut self, namespace: Option<&Namespace>) -> anyhow::Result<()> {
        let Some((name, ifindex)) = namespace.map(link_of) else {
            self.check_attachment = None;
            return Ok(());
        };
        if self.check_attachment.as_ref().is_some_and(|attachment| attachment.ifindex == ifindex) {
            return Ok(());
        }
        self.check_attachment = None;
        let program = program_of(&mut self.ebpf)?;
        self.check_attachment = Some(attach::attach(program, name, ifindex, XdpMode::Native, None)?);
        Ok(())
    }

    /// Takes the probe namespace over from the data plane whose place this one takes.
    ///
    /// # Errors
    /// [`super::super::AttachError`].
    pub fn take_over_checks(&mut self, old: &mut Self) -> anyhow::Result<()> {
        let Some(attachment) = old.check_attachment.take() else { return Ok(()) };
        let program = program_of(&mut self.ebpf)?;
        self.check_attachment = Some(attach::take_over(program, attachment)?);
        Ok(())
    }

    /// Leads checks through this data plane from now on.
    pub fn lead_checks(&self, path: &CheckPath) {
        path.follow(self.ends());
    }

    /// Enters the connection of one check, from `from` to `connect` by way of `veth`, as [`CheckPath`] does it: for tests without
    /// a probe namespace. `number` is one of [`Self::set_checked`].
    ///
    /// # Errors
    /// When there is no such server, or no room.
    pub fn enter_check(
        &self,
        number: u32,
        from: SocketAddr,
        connect: SocketAddr,
        proto: u8,
        veth: Veth,
    ) -> anyhow::Result<()> {
        self.ends().enter(number, from, connect, proto, veth)
    }

    fn ends(&self) -> Ends {
        Ends {
            memory: Arc::clone(&self.memory),
            servers: self.tables.shared_servers(),
            sweeper: Arc::clone(&self.sweeper),
        }
    }
}

/// The interface of a namespace's veth.
fn link_of(namespace: &Namespace) -> (&str, u32) {
    (&namespace.name, namespace.veth.link)
}
