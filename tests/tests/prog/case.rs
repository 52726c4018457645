//! A case: what the program is told, what arrives, and what has to come out.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context as _, Result, bail, ensure};
use lab::{Packet, hexdump, requirements};
use lb_common::{Class, Event, Verdict, conn::State};
use lb_userspace::{config::Protocol, desired::ServiceId};

use crate::{
    plane::{Plane, Ran},
    scene::{CLIENT_MAC, CLIENTS, Client, DIRECTOR_MAC, Target, known_port},
    setup::Setup,
};

/// What the kernel is told (`enum xdp_action`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    Drop = 1,
    Pass = 2,
    Tx = 3,
    Redirect = 4,
}

/// One line of the table.
pub struct Case {
    /// What is shown; unique.
    pub name: String,
    setup: Setup,
    steps: Vec<Step>,
    checks: Vec<Check>,
}

enum Step {
    /// A packet that only prepares the next one.
    Before { link: u32, packet: Vec<u8>, verdict: Verdict },
    /// The packet that matters.
    Arrives { link: u32, packet: Vec<u8>, metadata: usize, expected: Expected },
    /// Something else that happens.
    Happens { what: String, change: Change },
}

/// What has to become of a packet.
struct Expected {
    verdict: Verdict,
    action: Action,
    /// `None`: nobody looks at it.
    packet: Option<Vec<u8>>,
    /// Events that are counted once; all others must not be counted, if this is given.
    events: Option<Vec<Event>>,
}

type Change = Box<dyn Fn(&mut Plane) -> Result<()> + Send + Sync>;

enum Check {
    /// The connection's state; `None` for no connection.
    State { client: Client, to: (IpAddr, u16, Protocol), state: Option<State> },
    /// What was counted for a real server from the case's beginning to its end.
    Counts { service: ServiceId, server: IpAddr, counts: Counts },
}

/// What is counted for a real server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    pub active: i64,
    pub inactive: i64,
    pub connections: i64,
    pub packets_in: i64,
    pub bytes_in: i64,
    pub packets_out: i64,
    pub bytes_out: i64,
}

impl Counts {
    fn since(self, before: Self) -> Self {
        Self {
            active: self.active - before.active,
            inactive: self.inactive - before.inactive,
            connections: self.connections - before.connections,
            packets_in: self.packets_in - before.packets_in,
            bytes_in: self.bytes_in - before.bytes_in,
            packets_out: self.packets_out - before.packets_out,
            bytes_out: self.bytes_out - before.bytes_out,
        }
    }
}

/// A case whose packet has arrived; say next what has to become of it.
#[must_use]
pub struct Arrival {
    case: Case,
    link: u32,
    packet: Vec<u8>,
    metadata: usize,
}

impl Arrival {
    /// The machine's own network stack gets the packet as it is.
    pub fn passes(self, verdict: Verdict) -> Case {
        let same = self.packet.clone();
        self.becomes(verdict, Action::Pass, Some(same))
    }

    /// The packet is gone.
    pub fn drops(self, verdict: Verdict) -> Case {
        self.becomes(verdict, Action::Drop, None)
    }

    /// The packet leaves by another interface.
    pub fn redirects(self, verdict: Verdict, packet: impl Into<Vec<u8>>) -> Case {
        self.becomes(verdict, Action::Redirect, Some(packet.into()))
    }

    /// The packet leaves by the interface where it came.
    pub fn transmits(self, verdict: Verdict, packet: impl Into<Vec<u8>>) -> Case {
        self.becomes(verdict, Action::Tx, Some(packet.into()))
    }

    /// The driver left only so much room in front of the packet that 200 bytes of metadata fit it.
    pub fn without_room(mut self) -> Self {
        self.metadata = 200;
        self
    }

    fn becomes(self, verdict: Verdict, action: Action, packet: Option<Vec<u8>>) -> Case {
        let class = match action {
            Action::Drop => Class::Drop,
            Action::Pass => Class::Pass,
            Action::Tx | Action::Redirect => Class::Transmit,
        };
        assert_eq!(
            verdict.class(),
            class,
            "{}: no packet of {} becomes {action:?}",
            self.case.name,
            verdict.name()
        );
        let mut case = self.case;
        let expected = Expected { verdict, action, packet, events: None };
        case.steps.push(Step::Arrives {
            link: self.link,
            packet: self.packet,
            metadata: self.metadata,
            expected,
        });
        case
    }
}

/// Writing a case: in the order in which things happen.
impl Case {
    pub fn new(setup: Setup, name: impl Into<String>) -> Self {
        Self { name: name.into(), setup, steps: Vec::new(), checks: Vec::new() }
    }

    /// A packet that comes first; of what becomes of it only the verdict is checked.
    pub fn before(mut self, link: u32, packet: impl Into<Vec<u8>>, verdict: Verdict) -> Self {
        self.steps.push(Step::Before { link, packet: packet.into(), verdict });
        self
    }

    /// Something else happens.
    pub fn happens(
        mut self,
        what: impl Into<String>,
        change: impl Fn(&mut Plane) -> Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.steps.push(Step::Happens { what: what.into(), change: Box::new(change) });
        self
    }

    /// The packet that matters arrives on an interface. A case may have more than one.
    pub fn arrives(self, link: u32, packet: impl Into<Vec<u8>>) -> Arrival {
        Arrival { case: self, link, packet: packet.into(), metadata: 0 }
    }

    /// Exactly these events were counted with the last packet, each once.
    pub fn counting(mut self, events: &[Event]) -> Self {
        match self.steps.last_mut() {
            Some(Step::Arrives { expected, .. }) => expected.events = Some(events.to_vec()),
            _ => panic!("{}: no packet has arrived yet", self.name),
        }
        self
    }

    /// At the end the client's connection to the target is in this state.
    pub fn leaves_state(
        self,
        client: &Client,
        target: &Target,
        protocol: Protocol,
        state: Option<State>,
    ) -> Self {
        self.leaves_state_at(client, (target.vip(), known_port(protocol), protocol), state)
    }

    /// The same for any address and port.
    pub fn leaves_state_at(
        mut self,
        client: &Client,
        to: (IpAddr, u16, Protocol),
        state: Option<State>,
    ) -> Self {
        self.checks.push(Check::State { client: *client, to, state });
        self
    }

    /// At the end this has been counted for the target's real server, more than at the beginning.
    pub fn counts(mut self, target: &Target, protocol: Protocol, counts: Counts) -> Self {
        let (service, server) = (target.id(protocol), target.server());
        self.checks.push(Check::Counts { service, server, counts });
        self
    }
}

/// Running a case.
impl Case {
    /// The verdicts that its packets must get.
    pub fn verdicts(&self) -> impl Iterator<Item = Verdict> + '_ {
        self.steps.iter().filter_map(|step| match step {
            Step::Arrives { expected, .. } => Some(expected.verdict),
            Step::Before { .. } | Step::Happens { .. } => None,
        })
    }

    /// Runs it.
    ///
    /// # Errors
    /// What was different, with a hex dump if it is the packet.
    pub fn run(&self) -> Result<()> {
        self.setup.with(|plane| {
            if let Some(why) = self.refused_by_kernel(plane) {
                requirements::say_skipped(&self.name, &why);
                return Ok(());
            }
            let before = self.checks.iter().map(|check| check.start(plane)).collect::<Result<Vec<_>>>()?;
            for (number, step) in self.steps.iter().enumerate() {
                step.run(plane).with_context(|| format!("step {} of {}", number + 1, self.steps.len()))?;
            }
            self.checks.iter().zip(before).try_for_each(|(check, before)| check.end(plane, before))?;
            plane.check_loads()
        })
    }
}

impl Case {
    /// Why this kernel cannot run the case. Up to 6.1 at least a test run takes 32 bytes of metadata and no more
    /// (`xdp_metalen_invalid`), which leave a packet more room than any case may have.
    fn refused_by_kernel(&self, plane: &mut Plane) -> Option<String> {
        let most = self.steps.iter().map(|step| match step {
            Step::Arrives { metadata, .. } => *metadata,
            Step::Before { .. } | Step::Happens { .. } => 0,
        });
        let metadata = most.max().filter(|bytes| *bytes > 0)?;
        let harmless = Packet::eth(CLIENT_MAC, DIRECTOR_MAC).ethertype(0x0806).payload(&[0; 46]).build();
        let refusal = plane.run(CLIENTS, &harmless, metadata).err()?;
        Some(format!("this kernel's test run refuses {metadata} bytes of metadata: {refusal:#}"))
    }
}

impl Step {
    fn run(&self, plane: &mut Plane) -> Result<()> {
        match self {
            Self::Happens { what, change } => change(plane).with_context(|| format!("when {what}")),
            Self::Before { link, packet, verdict } => {
                let ran = plane.run(*link, packet, 0)?;
                ensure!(
                    ran.verdict()? == verdict.name(),
                    "before: {} instead of {}",
                    ran.verdict()?,
                    verdict.name()
                );
                Ok(())
            }
            Self::Arrives { link, packet, metadata, expected } => {
                expected.check(&plane.run(*link, packet, *metadata)?)
            }
        }
    }
}

impl Expected {
    fn check(&self, ran: &Ran) -> Result<()> {
        let mut problems = Vec::new();
        match ran.verdict() {
            Ok(name) if name == self.verdict.name() => {}
            Ok(name) => problems.push(format!("verdict: {name} instead of {}", self.verdict.name())),
            Err(error) => problems.push(error.to_string()),
        }
        if ran.action != self.action as u32 {
            problems.push(format!(
                "action: {} instead of {:?} ({})",
                ran.action, self.action, self.action as u32
            ));
        }
        if let Some(events) = &self.events {
            let expected: BTreeMap<&str, u64> = events.iter().map(|event| (event.name(), 1)).collect();
            if ran.events != expected {
                problems.push(format!("events: {:?} instead of {expected:?}", ran.events));
            }
        }
        if let Some(difference) =
            self.packet.as_ref().and_then(|expected| hexdump::difference(expected, &ran.packet))
        {
            problems.push(format!("the packet differs\n{difference}"));
        }
        if !problems.is_empty() {
            bail!("{}", problems.join("\n"));
        }
        Ok(())
    }
}

impl Check {
    fn start(&self, plane: &Plane) -> Result<Counts> {
        match self {
            Self::State { .. } => Ok(Counts::default()),
            Self::Counts { service, server, .. } => plane.counts(service, *server),
        }
    }

    fn end(&self, plane: &Plane, before: Counts) -> Result<()> {
        match self {
            Self::State { client, to, state } => {
                let found = plane.state(client, *to)?;
                ensure!(found == *state, "the connection is in state {found:?} instead of {state:?}");
            }
            Self::Counts { service, server, counts } => {
                let counted = plane.counts(service, *server)?.since(before);
                ensure!(counted == *counts, "counted for {server}:\n{counted:?} instead of\n{counts:?}");
            }
        }
        Ok(())
    }
}
