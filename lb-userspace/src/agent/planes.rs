//! Which data plane is in force: chosen at the start, exchanged by a reload.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};

use super::{Agent, Options, events::Severity, open_pins, pins_directory};
use crate::{
    api::types::{DataPlaneKind, DataPlaneOrder},
    config::{Config, Dataplane, XdpMode},
    dataplane::{
        DataPlane as _, Plane,
        ipvs::{self, IpvsPlane},
        xdp::{self, Pins, XdpPlane, remove_pinned},
    },
    desired::{Inputs, ServerId, State, desired_with},
    netlink::Link,
    orders,
    reconcile::{Operation, reconcile},
};

/// A data plane, and how it came to be this one.
pub(super) struct Opened {
    pub(super) plane: Plane,
    /// Why nothing of it is pinned, though it might be.
    pub(super) unpinned: Option<String>,
    /// Why `auto` did not take XDP.
    pub(super) fallback: Option<String>,
}

/// A data plane in whose place another one is: new connections pass it by, the old ones go on in it.
///
/// An XDP program stays on the interfaces and follows the connections that it knows; all else it passes to the kernel, which has
/// IPVS. IPVS keeps its services: what reaches it are packets that XDP does not know.
pub(super) struct Retiring {
    plane: Plane,
    /// Since when it has none.
    idle: Option<Instant>,
}

impl Retiring {
    pub(super) fn follow_interfaces(&mut self, links: &[Link], mode: XdpMode) {
        self.plane.follow_interfaces(links, mode);
    }
}

/// The file in which it stands which of IPVS's services are ours.
fn owned_file(orders: &orders::Store, config: &Config) -> PathBuf {
    ipvs::owned_file(orders.directory(), &config.director.instance)
}

/// Opens the data plane that the configuration names. What an earlier agent left goes on until it is attached.
///
/// # Errors
/// Why it cannot run; with `auto`, why neither can.
pub(super) async fn open(
    options: &Options,
    config: &Config,
    wanted: &State,
    orders: &orders::Store,
) -> anyhow::Result<Opened> {
    match config.director.dataplane {
        Dataplane::Xdp => open_xdp(options, config, wanted).await,
        Dataplane::Ipvs => open_ipvs(config, wanted, orders, None),
        Dataplane::Auto => match open_xdp(options, config, wanted).await {
            Ok(opened) => Ok(opened),
            Err(error) => {
                let reason = format!("{error:#}");
                open_ipvs(config, wanted, orders, Some(reason.clone()))
                    .with_context(|| format!("XDP cannot run here ({reason}), and neither can IPVS"))
            }
        },
    }
}

async fn open_xdp(options: &Options, config: &Config, wanted: &State) -> anyhow::Result<Opened> {
    if let Some(obstacle) = xdp::obstacle(config) {
        bail!(obstacle);
    }
    let (pins, unpinned) = match open_pins(options, config) {
        Ok(pins) => (Some(pins), None),
        Err(reason) => {
            tracing::warn!("nothing is pinned, so a restart will interrupt connections: {reason}");
            (None, Some(reason))
        }
    };
    if let Err(error) = XdpPlane::check_interfaces(&config.director.interfaces, pins.as_ref()).await {
        pins.iter().for_each(Pins::abandon);
        return Err(error);
    }
    let plane = match pins {
        Some(pins) => XdpPlane::open(config, wanted, options.trace, pins)?,
        None => XdpPlane::load(config, wanted, options.trace)?,
    };
    Ok(Opened { plane: Plane::Xdp(Box::new(plane)), unpinned, fallback: None })
}

fn open_ipvs(
    config: &Config,
    wanted: &State,
    orders: &orders::Store,
    fallback: Option<String>,
) -> anyhow::Result<Opened> {
    if let Some(obstacle) = ipvs::obstacle(config) {
        bail!(obstacle);
    }
    let mut plane = IpvsPlane::open(config, owned_file(orders, config))?;
    plane.configure(config, wanted);
    Ok(Opened { plane: Plane::Ipvs(Box::new(plane)), unpinned: None, fallback })
}

impl Agent {
    /// Has the data plane at the packets. With `auto`, IPVS takes the place of an XDP program that cannot be attached.
    ///
    /// # Errors
    /// When that cannot be.
    pub(super) async fn attach(&mut self) -> anyhow::Result<()> {
        let director = self.config.director.clone();
        let attached = self.plane.attach(&director.interfaces, director.xdp_mode).await;
        if let Err(error) = attached {
            if director.dataplane != Dataplane::Auto {
                return Err(error);
            }
            let wanted = self.plane.observe();
            let opened = open_ipvs(&self.config, &wanted, &self.orders, Some(format!("{error:#}")))?;
            self.fallback = opened.fallback;
            let old = std::mem::replace(&mut self.plane, opened.plane);
            self.reconcile(&BTreeSet::new());
            drop(old);
        }
        self.tell_fallback();
        self.end_others();
        Ok(())
    }

    fn tell_fallback(&mut self) {
        if let Some(reason) = &self.fallback {
            let text = format!("the data plane is IPVS, since XDP cannot run here: {reason}");
            self.events.tell(Severity::Bad, "director", text);
        }
    }

    /// Ends what an earlier agent with the other data plane has left.
    fn end_others(&mut self) {
        match self.plane.kind() {
            DataPlaneKind::Xdp => {
                let owned = owned_file(&self.orders, &self.config);
                if !owned.exists() {
                    return;
                }
                match IpvsPlane::open(&self.config, owned) {
                    Ok(plane) => self.retire(Plane::Ipvs(Box::new(plane))),
                    Err(error) => tracing::warn!("IPVS's services of an earlier run stay: {error:#}"),
                }
            }
            DataPlaneKind::Ipvs => {
                match remove_pinned(&pins_directory(&self.options, &self.config)) {
                    Ok(true) => tracing::info!("the XDP program of an earlier run is detached"),
                    Ok(false) => {}
                    // Without a BPF file system there is none.
                    Err(error) => tracing::debug!("no pins of an earlier run: {error}"),
                }
            }
        }
    }

    /// Lets a data plane finish the connections that it has.
    fn retire(&mut self, plane: Plane) {
        self.retiring = Some(Retiring { plane, idle: None });
    }

    /// Ends a data plane when the last of its connections has ended. Silent ones end by their timeouts, in both.
    pub(super) fn follow_retiring(&mut self) {
        /// How long packets that are still under way are waited for.
        const LAST_PACKETS: Duration = Duration::from_secs(10);
        let Some(retiring) = &mut self.retiring else { return };
        retiring.plane.collect();
        if !retiring.plane.is_idle() {
            retiring.idle = None;
            return;
        }
        let idle = *retiring.idle.get_or_insert_with(Instant::now);
        if idle.elapsed() < LAST_PACKETS {
            return;
        }
        if let Some(retiring) = self.retiring.take() {
            let kind = retiring.plane.kind();
            let text = match retiring.plane.detach() {
                Ok(()) => format!("{kind} has finished its connections and is removed"),
                Err(error) => format!("{kind} stays, though it has finished: {error:#}"),
            };
            self.events.tell(Severity::Good, "director", text);
        }
    }

    /// What becomes of servers also becomes of their connections in a data plane that finishes. What is taken out stays there
    /// until they have ended.
    pub(super) fn retiring_follows(&mut self, operation: &Operation) {
        let Some(retiring) = &mut self.retiring else { return };
        if retiring.plane.service(operation.id()).is_none() || matches!(operation, Operation::Remove(_)) {
            return;
        }
        let followed = retiring.plane.apply(operation).and_then(|()| match &mut retiring.plane {
            // The entry was written for new flows too.
            Plane::Xdp(plane) => plane.pass_new_flows(),
            Plane::Ipvs(_) => Ok(()),
        });
        if let Err(error) = followed {
            tracing::warn!("the data plane that finishes its connections: {error:#}");
        }
    }

    /// What a data plane that finishes still serves: its servers need next hops. Where this one serves the same, it knows better.
    pub(super) fn retiring_state(&self) -> State {
        let Some(retiring) = &self.retiring else { return State::new() };
        let mut state = retiring.plane.observe();
        state.retain(|id, _| self.plane.service(id).is_none());
        state
    }

    /// Connections of a real server in a data plane that finishes.
    pub(super) fn retiring_connections_of(&self, id: &ServerId) -> u64 {
        let Some(retiring) = &self.retiring else { return 0 };
        let servers = retiring.plane.servers_of(&id.service);
        servers
            .filter(|(server, _)| (server.address, server.port) == (id.address, id.port))
            .map(|(_, number)| {
                let load = retiring.plane.server_load(number);
                u64::from(load.active) + u64::from(load.inactive)
            })
            .sum()
    }

    /// The program of a retiring XDP data plane needs next hops and interfaces as before.
    pub(super) fn retiring_plane(&mut self) -> Option<&mut Plane> {
        self.retiring.as_mut().map(|retiring| &mut retiring.plane)
    }

    /// Whether a configuration asks for another data plane than the one in force.
    pub(super) fn wants_other_plane(&self, new: &Config) -> bool {
        match (new.director.dataplane, self.plane.kind()) {
            (Dataplane::Xdp, kind) => kind != DataPlaneKind::Xdp,
            (Dataplane::Ipvs, kind) => kind != DataPlaneKind::Ipvs,
            (Dataplane::Auto, _) if self.plane_by_order => true,
            (Dataplane::Auto, DataPlaneKind::Xdp) => xdp::obstacle(new).is_some(),
            // XDP is tried again when the file says so anew: not whenever anything in it changes.
            (Dataplane::Auto, DataPlaneKind::Ipvs) => {
                self.config.director.dataplane != Dataplane::Auto || ipvs::obstacle(new).is_some()
            }
        }
    }

    /// An operator asks for a data plane. The next reload brings back what the file says.
    ///
    /// # Errors
    /// Why it cannot run, in words.
    pub(super) async fn set_plane(&mut self, order: DataPlaneOrder) -> Result<DataPlaneOrder, String> {
        let dataplane = match order.dataplane {
            DataPlaneKind::Xdp => Dataplane::Xdp,
            DataPlaneKind::Ipvs => Dataplane::Ipvs,
        };
        let mut config = self.config.clone();
        config.director.dataplane = dataplane;
        if self.wants_other_plane(&config) {
            if dataplane == Dataplane::Xdp && config.director.interfaces.is_empty() {
                return Err("director.interfaces names none, which XDP needs".to_owned());
            }
            let inputs = Inputs { roles: self.inputs.roles.clone(), ..Inputs::default() };
            let wanted = desired_with(&config, &inputs);
            self.exchange_plane(&config, &wanted).await.map_err(|error| format!("{error:#}"))?;
            self.plane_by_order = true;
            self.open_check_path().await;
        }
        Ok(DataPlaneOrder { dataplane: self.plane.kind() })
    }

    /// Puts the other data plane in the place of this one: it serves the same before it gets any packets.
    ///
    /// # Errors
    /// When it cannot run; then this one stays in force.
    pub(super) async fn exchange_plane(&mut self, new: &Config, wanted: &State) -> anyhow::Result<()> {
        // One of the kind that is wanted may still be finishing: its connections are taken over, and it must not look after
        // them any more.
        let mut earlier = self.retiring.take();
        if let Some(plane) = earlier.as_mut().and_then(|retiring| retiring.plane.xdp()) {
            plane.retire();
        }
        let exchanged = self.exchanged(new, wanted, earlier.is_some()).await;
        if exchanged.is_ok() {
            self.plane_by_order = false;
        }
        if matches!(exchanged, Ok(true)) {
            return Ok(());
        }
        if let Some(plane) = earlier.as_mut().and_then(|retiring| retiring.plane.xdp()) {
            plane.resume()?;
            // Another load of it may have begun to take new flows.
            plane.pass_new_flows()?;
        }
        self.retiring = earlier;
        exchanged.map(drop)
    }

    /// Says whether another data plane is in force now; `auto` may come to the one that there is.
    async fn exchanged(&mut self, new: &Config, wanted: &State, is_taken_over: bool) -> anyhow::Result<bool> {
        let opened = open(&self.options, new, wanted, &self.orders).await?;
        let mut plane = opened.plane;
        if plane.kind() == self.plane.kind() {
            self.fallback = opened.fallback;
            if let Plane::Ipvs(plane) = &mut self.plane {
                plane.configure(new, wanted);
            }
            return Ok(false);
        }
        if let Err(error) = self.bring(&mut plane, new).await {
            // What it has of an earlier time finishes its connections.
            if plane.kind() == DataPlaneKind::Ipvs
                && !is_taken_over
                && let Err(left) = plane.detach()
            {
                tracing::warn!("IPVS's services of an exchange that failed stay: {left:#}");
            }
            return Err(error);
        }
        self.fallback = opened.fallback;
        self.unpinned = opened.unpinned;
        let text = format!("the data plane is {} now; it was {}", plane.kind(), self.plane.kind());
        let old = std::mem::replace(&mut self.plane, plane);
        self.retire(old);
        self.was_reopened = true;
        self.lead_roles();
        self.events.tell(Severity::Good, "director", text);
        Ok(true)
    }

    /// Has another data plane serve what this one serves, gives it the packets, and has this one let go of new flows.
    async fn bring(&mut self, plane: &mut Plane, new: &Config) -> anyhow::Result<()> {
        let mut served = self.plane.observe();
        if plane.kind() == DataPlaneKind::Xdp {
            // What it has not is about to change: the new configuration is one that it can serve.
            served.retain(|_, service| xdp::can_serve(service));
        }
        for operation in reconcile(&served, &plane.observe(), &BTreeSet::new()) {
            plane.apply(&operation).context("the other data plane does not take what is served")?;
        }
        for (target, resolution) in &self.resolutions {
            plane.set_next_hop(*target, resolution, self.keeps_tags(resolution));
        }
        plane.set_macs(&self.links.iter().filter_map(|link| link.mac).collect());
        plane.attach(&new.director.interfaces, new.director.xdp_mode).await?;
        if let Some(old) = self.plane.xdp() {
            old.pass_new_flows().context("the XDP program does not let go of new connections")?;
        }
        Ok(())
    }
}

/// Removes a data plane that had still connections to finish.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn end_retiring(retiring: Option<Retiring>) -> anyhow::Result<()> {
    retiring.map_or(Ok(()), |retiring| retiring.plane.detach())
}
