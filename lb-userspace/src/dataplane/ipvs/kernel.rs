//! The kernel's IPVS in this network namespace, over generic netlink.

use std::{fmt, process::Command as Process};

use anyhow::{Context as _, bail};
use netlink_packet_generic::{
    GenlMessage,
    ctrl::{GenlCtrl, GenlCtrlCmd, nlas::GenlCtrlAttrs},
};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::{
    message::{Ask, FAMILY, destination_of, service_of, timeouts_of},
    words::{Command, KernelDestination, KernelService, Key},
};
use crate::nl::{
    error::{Capability::NetAdmin, Refusal},
    message::{attributes, u16_at},
    request::Requests,
};

/// `CTRL_ATTR_FAMILY_ID`.
const FAMILY_ID: u16 = 1;
/// `sizeof(struct genlmsghdr)`.
const GENERIC_HEADER: usize = 4;

/// The socket.
pub struct Kernel {
    requests: Requests<GenlMessage<Ask>>,
    family: u16,
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel").field("family", &self.family).finish_non_exhaustive()
    }
}

impl Kernel {
    /// Opens it; loads the module where it is missing and this process may.
    ///
    /// # Errors
    /// When the kernel has no IPVS, with what was tried.
    pub fn open() -> anyhow::Result<Self> {
        let family = match family()? {
            Some(family) => family,
            None => {
                let tried = load_module("ip_vs");
                match (family()?, tried) {
                    (Some(family), _) => family,
                    (None, Ok(())) => {
                        bail!("the module ip_vs is loaded, and the kernel has no IPVS all the same")
                    }
                    (None, Err(reason)) => bail!("this kernel has no IPVS: {reason}"),
                }
            }
        };
        let requests = Requests::open(NETLINK_GENERIC).context("cannot open a netlink socket")?;
        Ok(Self { requests, family })
    }

    /// All services that xdirector has words for.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn services(&mut self) -> anyhow::Result<Vec<KernelService>> {
        self.requests
            .dump(&Ask::services().to(self.family), |message| service_of(message.payload))
            .map_err(|refusal| refusal.during("cannot list IPVS's services", NetAdmin).into())
    }

    /// A service's destinations, in the kernel's order; none where there is no such service.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn destinations(&mut self, key: &Key) -> anyhow::Result<Vec<KernelDestination>> {
        let ask = Ask::destinations(key).to(self.family);
        self.requests.dump(&ask, |message| destination_of(message.payload)).map_err(|refusal| {
            refusal.during(format_args!("cannot list the destinations of {key}"), NetAdmin).into()
        })
    }

    /// Removes a service with its destinations, if it is there.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn remove(&mut self, key: &Key) -> anyhow::Result<()> {
        let step = Command::RemoveService(*key);
        match self.requests.ask((Ask::change(&step).to(self.family), 0)) {
            Ok(()) => Ok(()),
            // It is gone already.
            Err(refusal) if matches!(refusal.code, libc::ESRCH | libc::ENOENT) => Ok(()),
            Err(refusal) => Err(refused(&step, refusal)),
        }
    }

    /// Takes steps, all of them also when one is refused.
    ///
    /// # Errors
    /// The first that was refused.
    pub fn take(&mut self, steps: &[Command]) -> anyhow::Result<()> {
        let requests: Vec<_> = steps.iter().map(|step| (Ask::change(step).to(self.family), 0)).collect();
        let outcomes = self.requests.ask_all(&requests);
        for (step, outcome) in steps.iter().zip(outcomes) {
            outcome.map_err(|refusal| refused(step, refusal))?;
        }
        Ok(())
    }

    /// Seconds of established TCP, closing TCP and UDP.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn timeouts(&mut self) -> anyhow::Result<[u32; 3]> {
        self.requests
            .get(Ask::timeouts().to(self.family), |message| timeouts_of(message.payload))
            .map_err(|refusal| refusal.during("cannot read IPVS's timeouts", NetAdmin).into())
    }
}

fn refused(step: &Command, refusal: Refusal) -> anyhow::Error {
    let is_new = matches!(step, Command::AddService(_) | Command::SetService(_));
    // The kernel loads a scheduler's module by itself; without one it says that there is no such thing.
    let hint = match step {
        Command::AddService(one) | Command::SetService(one)
            if is_new && matches!(refusal.code, libc::ENOENT | libc::ESRCH) =>
        {
            format!("; has this kernel the module ip_vs_{}?", one.scheduler)
        }
        _ => String::new(),
    };
    anyhow::anyhow!("{}{hint}", refusal.during(format_args!("IPVS: cannot {step}"), NetAdmin))
}

/// The number under which the kernel has IPVS; `None` when it has none.
fn family() -> anyhow::Result<Option<u16>> {
    let mut requests =
        Requests::<GenlMessage<GenlCtrl>>::open(NETLINK_GENERIC).context("cannot open a netlink socket")?;
    let ask =
        GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY.to_owned())] };
    let read = |payload: &[u8]| {
        attributes(payload.get(GENERIC_HEADER..)?)
            .find_map(|(kind, value)| if kind == FAMILY_ID { u16_at(value, 0) } else { None })
    };
    match requests.get(GenlMessage::from_payload(ask), |message| read(message.payload)) {
        Ok(family) => Ok(Some(family)),
        Err(refusal) if refusal.code == libc::ENOENT => Ok(None),
        Err(refusal) => Err(refusal.during("cannot ask for IPVS's netlink family", NetAdmin).into()),
    }
}

/// Has a module loaded; what keeps it from that in words.
fn load_module(name: &str) -> Result<(), String> {
    // Not by PATH, which is the user's.
    let output = ["/usr/sbin/modprobe", "/sbin/modprobe"]
        .into_iter()
        .find_map(|program| match Process::new(program).arg(name).output() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            other => Some(other),
        })
        .ok_or_else(|| {
            format!("the module {name} is not loaded, and there is no modprobe to load it with")
        })?;
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            Err(format!(
                "the module {name} cannot be loaded: {}",
                text.lines().next().unwrap_or("no reason given").trim()
            ))
        }
        Err(error) => Err(format!("the module {name} cannot be loaded: {error}")),
    }
}
