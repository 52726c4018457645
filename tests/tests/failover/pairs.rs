//! Two programs share an address, in both roles: one master and no flap while nothing happens, and a takeover both ways
//! when something does.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    failover::{Instance, Kind, VIP4, VIP6},
    require_routers,
    stall::{judge, verdict},
};

use crate::support::{Pair, measured, ms, unless_long};

/// An instance for both, and the address that is watched. The prefix of FRR's own address must be that of the network.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Variant {
    V2,
    V2Password,
    V3,
    V3Ipv6,
    /// FRR advertises only the global address.
    V3Ipv6Global,
    Vmac,
    Unicast,
}

impl Variant {
    fn instance(self, priority: u8) -> Instance {
        match self {
            Self::V2 => Instance::ipv4(52, priority).v2(),
            Self::V2Password => Instance::ipv4(51, priority).v2().password("secret12345"),
            Self::V3 => Instance::ipv4(53, priority),
            Self::V3Ipv6 => Instance::ipv6(54, priority),
            Self::V3Ipv6Global => Instance::new(54, priority).address(&format!("{VIP6}/128")),
            Self::Vmac => Instance::ipv4(57, priority).vmac("vrrp.57"),
            Self::Unicast => Instance::ipv4(55, priority),
        }
    }

    fn instances(self) -> [Instance; 2] {
        let (first, second) = (self.instance(150), self.instance(100));
        match self {
            Self::Unicast => {
                [first.unicast("10.66.0.1", &["10.66.0.2"]), second.unicast("10.66.0.2", &["10.66.0.1"])]
            }
            _ => [first, second],
        }
    }

    fn address(self) -> IpAddr {
        match self {
            Self::V3Ipv6 | Self::V3Ipv6Global => VIP6.into(),
            _ => VIP4.into(),
        }
    }
}

/// Makes a test of each line: its name, the master's program, the backup's, what they speak.
macro_rules! pairs {
    ($($name:ident: $first:ident, $second:ident, $variant:ident;)*) => {$(
        #[test]
        fn $name() -> Result<()> {
            require_routers!(stringify!($name), Kind::$first, Kind::$second);
            pair(stringify!($name), [Kind::$first, Kind::$second], Variant::$variant)
        }
    )*};
}

pairs! {
    // Without xdirector: the lab itself.
    lab_keepalived_with_keepalived: Keepalived, Keepalived, V3;
    lab_keepalived_with_frr: Keepalived, Frr, V3;
    lab_frr_with_keepalived: Frr, Keepalived, V3;

    xdirector_with_xdirector: Xdirector, Xdirector, V3;
    xdirector_with_xdirector_ipv6: Xdirector, Xdirector, V3Ipv6;
    xdirector_with_xdirector_vmac: Xdirector, Xdirector, Vmac;
    xdirector_with_xdirector_unicast: Xdirector, Xdirector, Unicast;

    xdirector_with_keepalived_v2: Xdirector, Keepalived, V2;
    keepalived_with_xdirector_v2_password: Keepalived, Xdirector, V2Password;
    xdirector_with_keepalived_v3: Xdirector, Keepalived, V3;
    keepalived_with_xdirector_v3: Keepalived, Xdirector, V3;
    xdirector_with_keepalived_ipv6: Xdirector, Keepalived, V3Ipv6;
    keepalived_with_xdirector_ipv6: Keepalived, Xdirector, V3Ipv6;
    xdirector_with_keepalived_vmac: Xdirector, Keepalived, Vmac;
    keepalived_with_xdirector_vmac: Keepalived, Xdirector, Vmac;
    xdirector_with_keepalived_unicast: Xdirector, Keepalived, Unicast;
    keepalived_with_xdirector_unicast: Keepalived, Xdirector, Unicast;

    xdirector_with_frr_v2: Xdirector, Frr, V2;
    frr_with_xdirector_v2: Frr, Xdirector, V2;
    xdirector_with_frr_v3: Xdirector, Frr, V3;
    frr_with_xdirector_v3: Frr, Xdirector, V3;
    xdirector_with_frr_ipv6: Xdirector, Frr, V3Ipv6Global;
    frr_with_xdirector_ipv6: Frr, Xdirector, V3Ipv6Global;
}

fn pair(label: &str, kinds: [Kind; 2], variant: Variant) -> Result<()> {
    let mut pair = Pair::start_each(&short(label), kinds, variant.instances(), variant.address())?;
    judge("calm", pair.patience, || calm(&pair, variant))?;

    let stopped = Instant::now();
    pair.routers[0].ask_to_stop()?;
    pair.await_answer(1).context("after a graceful stop")?;
    pair.routers[0].await_end()?;
    pair.await_master(1)?;
    pair.routers[0].restart()?;
    pair.await_master(0).context("after the graceful stop's end")?;

    let killed = Instant::now();
    pair.routers[0].kill()?;
    pair.await_answer(1).context("after SIGKILL")?;
    if kinds[0] == Kind::Xdirector {
        pair.await_master(1).context("the dead one's address stays")?;
    }
    pair.routers[0].restart()?;
    pair.await_master(0).context("after the SIGKILL's end")?;

    let cut = Instant::now();
    pair.scene.machines[0].port.cut()?;
    pair.await_answer(1).context("after the cut")?;
    pair.scene.machines[0].port.mend()?;
    pair.await_master(0).context("after the cut's end")?;

    judge("the backup's restart", pair.patience, || restart_backup(&mut pair))?;
    let trace = pair.probe.stop()?;
    for (what, event) in [("graceful_stop", stopped), ("kill_takeover", killed), ("cut_takeover", cut)] {
        let took = trace.takeover(event, pair.scene.machines[1].name).with_context(|| what.to_owned())?;
        measured(&format!("{label}_{what}"), ms(took));
    }
    for router in &mut pair.routers {
        router.stop()?;
    }
    Ok(())
}

/// The other way round: nothing happens to the client when the backup goes.
fn restart_backup(pair: &mut Pair) -> Result<()> {
    pair.await_master(0)?;
    let undisturbed = Instant::now();
    pair.routers[1].stop()?;
    pair.routers[1].restart()?;
    pair.await_master(0)?;
    let trace = pair.probe.so_far()?;
    let others = trace.answerers(undisturbed);
    let is_alone = others.into_iter().eq([pair.scene.machines[0].name]);
    verdict(is_alone, || format!("the backup's restart moved the address\n{}", pair.logs()))
}

/// One master and no flap.
fn calm(pair: &Pair, variant: Variant) -> Result<()> {
    pair.await_master(0)?;
    let time = unless_long(Duration::from_secs(2), Duration::from_mins(10));
    // Adverts to one peer do not reach the bridge itself.
    let watch = pair.scene.watch()?;
    let begun = Instant::now();
    thread::sleep(time);
    let now = pair.holders.now();
    verdict(now == [0], || format!("the first has the address no more:\n{}", pair.logs()))?;
    let seen = watch.stop();
    if variant != Variant::Unicast {
        ensure!(!seen.0.is_empty(), "no advert on the wire");
        let sources: std::collections::BTreeSet<IpAddr> = seen.0.iter().map(|advert| advert.source).collect();
        verdict(sources.len() == 1, || format!("adverts of {sources:?}:\n{}", pair.logs()))?;
    }
    verdict(seen.changes(begun) == 0, || pair.logs())
}

/// Names of namespaces have a limit of their own; this one's is generous, but the file system shows them.
fn short(label: &str) -> String {
    label.replace("keepalived", "ka").replace("xdirector", "xd").replace("_with", "").replace('_', "-")
}
