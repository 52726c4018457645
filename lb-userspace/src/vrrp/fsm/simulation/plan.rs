//! What a seed stands for: the nodes, the virtual routers, and what happens to them.

use std::{net::IpAddr, time::Duration};

use crate::{
    config::vrrp::{FastDetection, SyncGroup, Track, TrackKey, Version, VirtualAddress, VrrpInstance},
    vrrp::fsm::{Settings, tests},
};

/// Nanoseconds of the world's clock.
pub(super) type Time = u64;

/// The file whose number is added to a node's priority, where there is no group.
pub(super) const FILE: &str = "weight";

/// Everything that is drawn from a seed before it runs.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) nodes: Vec<NodePlan>,
    /// How many virtual routers there are; each is in a network of its own.
    pub(super) routers: usize,
    pub(super) is_grouped: bool,
    /// The longest advert interval of all nodes.
    pub(super) interval: Time,
    /// The longest time that a backup waits, by its own clock.
    pub(super) down: Time,
    /// The longest `preempt_delay`.
    pub(super) patience: Time,
    /// The longest way of a packet while nothing is wrong.
    pub(super) delay: Time,
    /// And while it is.
    pub(super) late: Time,
    /// In order of time; the last ones heal everything that is to be healed.
    pub(super) disturbances: Vec<(Time, Disturbance)>,
    /// When the last disturbance is over.
    pub(super) healed: Time,
}

/// One director.
#[derive(Debug)]
pub(super) struct NodePlan {
    pub(super) settings: Settings,
    /// Of its clock, in millionths.
    pub(super) rate: u64,
    pub(super) has_guard: bool,
}

/// What can go wrong, and what makes it right again.
#[derive(Debug, Clone)]
pub(super) enum Disturbance {
    /// From now on so many of 100 packets are lost, doubled, and late.
    Network { lost: u8, doubled: u8, late: u8 },
    /// Nothing gets from one node to another, in one virtual router's network (`None`: in all).
    Cut { from: usize, to: usize, router: Option<usize> },
    /// All cuts are mended, but those in one virtual router's network.
    Mend { but: Option<usize> },
    /// A node stands still.
    Pause { node: usize },
    /// It goes on.
    Wake { node: usize },
    /// A node dies.
    Crash { node: usize },
    /// And begins from the start.
    Restart { node: usize },
    /// An interface fails, or works again.
    Link { node: usize, router: usize, is_up: bool },
    /// The number in a tracked file.
    Number { node: usize, number: i64 },
    /// A handover, or its end.
    Handover { node: usize, is_over: bool },
}

/// The address from which a node sends for a virtual router.
pub(super) fn address(node: usize, router: usize) -> IpAddr {
    // A handful of either.
    IpAddr::from([10, 0, router as u8, node as u8 + 1])
}

/// The interface of a virtual router.
pub(super) fn interface(router: usize) -> String {
    format!("eth{router}")
}

/// The virtual address of a virtual router.
pub(super) fn virtual_address(router: usize) -> IpAddr {
    IpAddr::from([10, 0, router as u8, 100])
}

const MILLISECOND: Time = 1_000_000;

impl Plan {
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let version = if rng.u8(..4) == 0 { Version::V2 } else { Version::V3 };
        let unit = match version {
            Version::V2 => 1000 * MILLISECOND,
            Version::V3 => [10, 50, 100, 1000][rng.usize(..4)] * MILLISECOND,
        };
        let routers = [1, 1, 2, 2, 3][rng.usize(..5)];
        let is_grouped = routers > 1 && rng.u8(..4) != 0;
        let has_own_intervals = version == Version::V3 && rng.u8(..5) == 0;
        let fast = (rng.u8(..4) == 0)
            .then(|| FastDetection { interval: Duration::from_nanos(unit / 4), multiplier: rng.u32(2..=4) });
        let can_delay = rng.u8(..3) == 0;
        let can_stay = rng.u8(..3) == 0;
        let mut owners = usize::from(rng.u8(..6) == 0);
        let mut nodes = Vec::new();
        let (mut interval, mut patience) = (0, 0);
        for node in 0..rng.usize(2..=5) {
            let own = if has_own_intervals { unit * rng.u64(1..=3) } else { unit };
            let wait = if can_delay { unit * rng.u64(..6) } else { 0 };
            let is_owner = owners > 0 && rng.bool();
            owners -= usize::from(is_owner);
            let priority = if is_owner { 255 } else { [1, 90, 100, 100, 101, 150, 253, 254][rng.usize(..8)] };
            let mut template = tests::instance("", version, priority);
            template.advert_interval = Duration::from_nanos(own);
            template.preempt_delay = Duration::from_nanos(wait);
            template.quick_release = rng.bool();
            template.nopreempt = !is_owner && can_stay && rng.bool();
            template.fast_detection = fast.filter(|_| rng.u8(..5) != 0);
            let settings = settings(&template, node, routers, is_grouped);
            (interval, patience) = (interval.max(own), patience.max(wait));
            nodes.push(NodePlan { settings, rate: rng.u64(990_000..=1_010_000), has_guard: rng.bool() });
        }
        let skew = if version == Version::V2 { 1000 * MILLISECOND } else { interval };
        let mut plan = Self {
            seed,
            nodes,
            routers,
            is_grouped,
            interval,
            down: 3 * interval + skew,
            patience,
            delay: unit / 40,
            late: 2 * unit,
            disturbances: Vec::new(),
            healed: 0,
        };
        plan.disturb(unit, &mut rng);
        plan
    }

    fn disturb(&mut self, unit: Time, rng: &mut fastrand::Rng) {
        let length = unit * rng.u64(2..=14);
        for _ in 0..rng.u8(..=8) {
            let at = rng.u64(..length);
            for disturbance in self.disturbance(rng) {
                self.disturbances.push((at, disturbance));
            }
        }
        self.disturbances.sort_by_key(|(at, _)| *at);
        self.disturbances.push((length, Disturbance::Network { lost: 0, doubled: 0, late: 0 }));
        // A group is held together by each of its networks: one of them may stay cut for ever.
        let but = if self.is_grouped && rng.u8(..4) == 0 { Some(rng.usize(..self.routers)) } else { None };
        self.disturbances.push((length, Disturbance::Mend { but }));
        for node in 0..self.nodes.len() {
            // Some stay dead, faulty or handed over.
            let mut end = |disturbance| {
                if rng.u8(..4) != 0 {
                    self.disturbances.push((length, disturbance));
                }
            };
            end(Disturbance::Restart { node });
            for router in 0..self.routers {
                end(Disturbance::Link { node, router, is_up: true });
            }
            end(Disturbance::Handover { node, is_over: true });
            self.disturbances.push((length, Disturbance::Wake { node }));
        }
        // What was late on its way is still coming.
        self.healed = length + self.late;
    }

    fn disturbance(&self, rng: &mut fastrand::Rng) -> Vec<Disturbance> {
        let node = rng.usize(..self.nodes.len());
        let router = rng.usize(..self.routers);
        let is_up = rng.u8(..3) == 0;
        vec![match rng.u8(..16) {
            0..3 => {
                let mut part = || if rng.bool() { rng.u8(..60) } else { 0 };
                Disturbance::Network { lost: part(), doubled: part(), late: part() }
            }
            3..6 => {
                let router = if rng.bool() { None } else { Some(router) };
                let is_one_way = rng.u8(..3) == 0;
                let others = (0..self.nodes.len()).filter(|&to| to != node);
                let both = others.flat_map(|to| [(node, to), (to, node)]);
                return both
                    .enumerate()
                    .filter(|(index, _)| !is_one_way || index % 2 == 0)
                    .map(|(_, (from, to))| Disturbance::Cut { from, to, router })
                    .collect();
            }
            6 => Disturbance::Mend { but: None },
            7..9 => Disturbance::Pause { node },
            9 => Disturbance::Wake { node },
            10 => Disturbance::Crash { node },
            11 => Disturbance::Restart { node },
            12..14 => Disturbance::Link { node, router, is_up },
            14 => Disturbance::Number { node, number: rng.i64(-120..=120) },
            _ => Disturbance::Handover { node, is_over: rng.u8(..3) == 0 },
        }]
    }
}

/// A node's settings: the template once for each virtual router.
fn settings(template: &VrrpInstance, node: usize, routers: usize, is_grouped: bool) -> Settings {
    let mut settings = Settings::default();
    for router in 0..routers {
        let mut instance = template.clone();
        instance.name = format!("VI_{router}");
        instance.interface = interface(router);
        instance.virtual_router_id = router as u8 + 1;
        instance.source_address = Some(address(node, router));
        instance.addresses = vec![VirtualAddress {
            address: virtual_address(router),
            prefix: 32,
            interface: None,
            label: None,
        }];
        if !is_grouped {
            // In a group, members whose priorities are in another order than those of the peers never agree on a master.
            instance.tracks = vec![Track { key: TrackKey::File(FILE.to_owned()), weight: 1 }];
        }
        settings.instances.push(instance);
    }
    if is_grouped {
        let instances = settings.instances.iter().map(|instance| instance.name.clone()).collect();
        settings.groups.push(SyncGroup { instances, ..tests::group("VG", &[]) });
    }
    settings
}
