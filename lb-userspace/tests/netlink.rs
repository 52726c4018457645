//! The next hop watcher against a real kernel: two network namespaces joined by a veth pair.
//!
//! Each test runs in two threads that leave for namespaces of their own, so nothing outside is touched and all
//! of it goes when the threads end. Needs root and `ip`; without them a test prints `SKIPPED` and returns.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write,
    net::IpAddr,
    process::{Command, Stdio},
    sync::mpsc as sync_mpsc,
    thread,
    time::Duration,
};

use lb_userspace::netlink::{
    Change, NextHop, Reason, Resolution, Timing, VlanTag, Watcher, WatcherHandle, links,
};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::{Uid, gettid},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout_at},
};

/// Longest wait for something that must come. An unanswered ARP takes the kernel 3 s, three of them fit.
const DEADLINE: Duration = Duration::from_secs(15);

/// No target gets a turn of its own after the first: only events can bring the answer.
const EVENTS_ONLY: Timing = Timing {
    debounce: Duration::from_millis(10),
    retry_first: Duration::from_secs(3600),
    retry_longest: Duration::from_secs(3600),
    refresh: Duration::from_secs(7200),
    grace: Duration::from_secs(5),
};

const DIRECTOR_MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 1];
const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 2];

/// Two namespaces: this thread's, with `d0`, and a peer's, with `p0`. The peer answers for 10.77.0.2,
/// 10.77.0.3 and their IPv6 twins.
struct Lab {
    peer: Peer,
}

impl Lab {
    fn new() -> Self {
        let peer = Peer::start();
        let tid = peer.tid.to_string();
        ip("link set lo up");
        ip(&format!("link add d0 address 02:00:00:00:77:01 type veth peer name p0 netns {tid}"));
        peer.ip("link set p0 address 02:00:00:00:77:02");
        // The end of duplicate address detection is an event at a time of its own, which could hide that
        // another one was missed: no automatic addresses, and `nodad` on the others.
        ip("link set d0 addrgenmode none");
        peer.ip("link set p0 addrgenmode none");
        ip("addr add 10.77.0.1/24 dev d0");
        for address in ["10.77.0.2/24", "10.77.0.3/24"] {
            peer.ip(&format!("addr add {address} dev p0"));
        }
        ip("link set d0 up");
        peer.ip("link set p0 up");
        for address in ["2001:db8:77::1/64", "fe80::1/64"] {
            ip(&format!("addr add {address} dev d0 nodad"));
        }
        for address in ["2001:db8:77::2/64", "2001:db8:77::3/64", "fe80::2/64"] {
            peer.ip(&format!("addr add {address} dev p0 nodad"));
        }
        Self { peer }
    }
}

/// Runs `body` in the director's namespace on a current-thread runtime.
fn in_lab(test: &'static str, body: impl AsyncFnOnce(Lab) + Send + 'static) {
    if !Uid::effective().is_root() {
        println!("SKIPPED {test}: needs root");
        return;
    }
    if Command::new("ip").arg("-V").output().is_err() {
        println!("SKIPPED {test}: `ip` (iproute2) is missing");
        return;
    }
    let director = thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("SKIPPED {test}: cannot make a network namespace: {error}");
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { body(Lab::new()).await });
    });
    if let Err(panic) = director.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A thread in the peer's namespace that does what it is told. The namespace goes when this is dropped.
struct Peer {
    tid: i32,
    jobs: Option<sync_mpsc::Sender<Box<dyn FnOnce() + Send>>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Peer {
    fn start() -> Self {
        let (jobs, queue) = sync_mpsc::channel::<Box<dyn FnOnce() + Send>>();
        let (ready, tid) = sync_mpsc::channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("the first namespace worked");
            ready.send(gettid().as_raw()).expect("the starter waits");
            for job in queue {
                job();
            }
        });
        Self { tid: tid.recv().expect("the peer starts"), jobs: Some(jobs), thread: Some(thread) }
    }

    fn run(&self, job: impl FnOnce() + Send + 'static) {
        let (done, finished) = sync_mpsc::channel();
        let job = Box::new(move || {
            job();
            done.send(()).expect("the caller waits");
        });
        self.jobs.as_ref().expect("set until dropped").send(job).expect("the peer lives");
        finished.recv().expect("the job succeeds");
    }

    fn ip(&self, arguments: &str) {
        let arguments = arguments.to_owned();
        self.run(move || {
            ip(&arguments);
        });
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // A failed job has already failed the test through `run`.
            let _ = thread.join();
        }
    }
}

/// Runs `ip` in the calling thread's namespace.
fn ip(arguments: &str) -> String {
    try_ip(arguments).unwrap_or_else(|error| panic!("ip {arguments}: {error}"))
}

fn try_ip(arguments: &str) -> Result<String, String> {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().expect("ip is there");
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

fn sysctl(key: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{key}"), value).unwrap_or_else(|error| panic!("{key}: {error}"));
}

fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn index_of(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).unwrap()
}

/// A watcher and the latest word on each target.
struct Watch {
    handle: WatcherHandle,
    changes: mpsc::Receiver<Change>,
    latest: BTreeMap<IpAddr, Resolution>,
}

impl Watch {
    fn start(timing: Timing, targets: &[&str]) -> Self {
        let (handle, changes) = Watcher::spawn(timing).unwrap();
        let watch = Self { handle, changes, latest: BTreeMap::new() };
        watch.set(targets);
        watch
    }

    fn set(&self, targets: &[&str]) {
        self.handle.set_targets(targets.iter().map(|target| addr(target)).collect());
    }

    async fn until(&mut self, target: &str, what: &str, right: impl Fn(&Resolution) -> bool) -> Resolution {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(resolution) = self.latest.get(&addr(target)).filter(|latest| right(latest)) {
                return resolution.clone();
            }
            match timeout_at(deadline, self.changes.recv()).await {
                Ok(Some(change)) => drop(self.latest.insert(change.target, change.resolution)),
                Ok(None) => panic!("{target} {what}: the watcher ended"),
                Err(_) => panic!("{target} {what}: latest is {:?}", self.latest.get(&addr(target))),
            }
        }
    }

    async fn resolved(&mut self, target: &str) -> NextHop {
        match self.until(target, "resolved", |now| matches!(now, Resolution::Resolved(_))).await {
            Resolution::Resolved(next_hop) => next_hop.as_ref().clone(),
            Resolution::Unresolved(_) => unreachable!("just checked"),
        }
    }

    async fn unresolved(&mut self, target: &str, reason: Reason) {
        let what = format!("{reason:?}");
        self.until(target, &what, |now| *now == Resolution::unresolved(reason.clone())).await;
    }
}

/// Waits until `ip neigh` shows `address` in a state that `right` accepts.
async fn neighbour_until(address: &str, right: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let entry = ip(&format!("neigh show {address} dev d0"));
        if right(&entry) {
            return entry;
        }
        assert!(Instant::now() < deadline, "neighbour {address}: {entry:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn down() -> Reason {
    Reason::InterfaceDown { interface: "d0".to_owned() }
}

#[test]
fn a_missing_neighbour_on_the_link_is_resolved() {
    in_lab("a_missing_neighbour_on_the_link_is_resolved", async |_lab| {
        assert_eq!(ip("neigh show 10.77.0.2"), "");
        let mut watch = Watch::start(EVENTS_ONLY, &["10.77.0.2"]);
        let expected = NextHop {
            ifindex: index_of("d0"),
            interface: "d0".to_owned(),
            vlans: vec![],
            source_mac: DIRECTOR_MAC,
            destination_mac: PEER_MAC,
            mtu: 1500,
            source: addr("10.77.0.1"),
            gateway: None,
        };
        assert_eq!(watch.resolved("10.77.0.2").await, expected);
    });
}

#[test]
fn a_gateway_and_the_routes_mtu_and_source_are_used() {
    in_lab("a_gateway_and_the_routes_mtu_and_source_are_used", async |_lab| {
        ip("addr add 10.77.0.8/24 dev d0");
        ip("route add 203.0.113.0/24 via 10.77.0.2 mtu 1400 src 10.77.0.8");
        let mut watch = Watch::start(EVENTS_ONLY, &["203.0.113.7"]);
        let next_hop = watch.resolved("203.0.113.7").await;
        assert_eq!(next_hop.gateway, Some(addr("10.77.0.2")));
        assert_eq!(next_hop.destination_mac, PEER_MAC);
        assert_eq!(next_hop.mtu, 1400);
        assert_eq!(next_hop.source, addr("10.77.0.8"));
    });
}

#[test]
fn ipv6_on_the_link_and_through_a_link_local_gateway() {
    in_lab("ipv6_on_the_link_and_through_a_link_local_gateway", async |_lab| {
        ip("route add 2001:db8:9::/48 via fe80::2 dev d0");
        let mut watch = Watch::start(EVENTS_ONLY, &["2001:db8:77::2", "2001:db8:9::1"]);
        let next_hop = watch.resolved("2001:db8:77::2").await;
        assert_eq!((next_hop.destination_mac, next_hop.gateway), (PEER_MAC, None));
        assert_eq!(next_hop.source, addr("2001:db8:77::1"));
        let next_hop = watch.resolved("2001:db8:9::1").await;
        assert_eq!((next_hop.destination_mac, next_hop.gateway), (PEER_MAC, Some(addr("fe80::2"))));
    });
}

#[test]
fn an_ipv4_target_through_an_ipv6_gateway() {
    in_lab("an_ipv4_target_through_an_ipv6_gateway", async |_lab| {
        ip("route add 203.0.113.0/24 via inet6 fe80::2 dev d0");
        let mut watch = Watch::start(EVENTS_ONLY, &["203.0.113.7"]);
        let next_hop = watch.resolved("203.0.113.7").await;
        assert_eq!((next_hop.destination_mac, next_hop.gateway), (PEER_MAC, Some(addr("fe80::2"))));
    });
}

#[test]
fn a_new_mac_of_the_peer_and_of_the_own_interface_is_reported() {
    in_lab("a_new_mac_of_the_peer_and_of_the_own_interface_is_reported", async |lab| {
        // The peer announces its new address by gratuitous ARP, as a failover does.
        lab.peer.run(|| sysctl("ipv4/conf/p0/arp_notify", "1"));
        let mut watch = Watch::start(EVENTS_ONLY, &["10.77.0.2"]);
        watch.resolved("10.77.0.2").await;
        lab.peer.ip("link set p0 address 02:00:00:00:77:99");
        let moved = [2, 0, 0, 0, 0x77, 0x99];
        let has = |wanted: NextHop, now: &Resolution| *now == Resolution::Resolved(wanted.into());
        let mut wanted = watch.resolved("10.77.0.2").await;
        wanted.destination_mac = moved;
        watch.until("10.77.0.2", "new peer MAC", |now| has(wanted.clone(), now)).await;
        ip("link set d0 address 02:00:00:00:77:88");
        wanted.source_mac = [2, 0, 0, 0, 0x77, 0x88];
        watch.until("10.77.0.2", "new own MAC", |now| has(wanted.clone(), now)).await;
        ip("link set d0 mtu 1300");
        wanted.mtu = 1300;
        watch.until("10.77.0.2", "new MTU", |now| has(wanted.clone(), now)).await;
    });
}

#[test]
fn link_and_carrier_loss_are_reported_and_recovered_from() {
    in_lab("link_and_carrier_loss_are_reported_and_recovered_from", async |lab| {
        let mut watch = Watch::start(EVENTS_ONLY, &["10.77.0.2"]);
        watch.resolved("10.77.0.2").await;
        for _ in 0..5 {
            ip("link set d0 down");
            watch
                .until("10.77.0.2", "down", |now| {
                    [Resolution::unresolved(Reason::NoRoute), Resolution::unresolved(down())].contains(now)
                })
                .await;
            ip("link set d0 up");
            watch.resolved("10.77.0.2").await;
        }
        lab.peer.ip("link set p0 down");
        watch.unresolved("10.77.0.2", Reason::NoCarrier { interface: "d0".to_owned() }).await;
        lab.peer.ip("link set p0 up");
        watch.resolved("10.77.0.2").await;
    });
}

#[test]
fn changed_routes_and_rules_are_followed() {
    in_lab("changed_routes_and_rules_are_followed", async |_lab| {
        let target = "203.0.113.7";
        let mut watch = Watch::start(EVENTS_ONLY, &[target]);
        watch.unresolved(target, Reason::NoRoute).await;
        ip("route add 203.0.113.0/24 via 10.77.0.2");
        assert_eq!(watch.resolved(target).await.gateway, Some(addr("10.77.0.2")));
        ip("route del 203.0.113.0/24");
        watch.unresolved(target, Reason::NoRoute).await;
        for (kind, reason) in [
            ("blackhole", Reason::Blackhole),
            ("unreachable", Reason::Unreachable),
            ("prohibit", Reason::Prohibited),
        ] {
            ip(&format!("route replace {kind} 203.0.113.0/24"));
            watch.unresolved(target, reason).await;
        }
        ip("route add default via 10.77.0.3 table 100");
        ip("rule add to 203.0.113.7 lookup 100");
        assert_eq!(watch.resolved(target).await.gateway, Some(addr("10.77.0.3")));
        ip("rule del to 203.0.113.7 lookup 100");
        watch.unresolved(target, Reason::Prohibited).await;
    });
}

#[test]
fn ipv6_routes_that_refuse_are_told_apart() {
    in_lab("ipv6_routes_that_refuse_are_told_apart", async |_lab| {
        let target = "2001:db8:9::1";
        let mut watch = Watch::start(EVENTS_ONLY, &[target]);
        watch.unresolved(target, Reason::NoRoute).await;
        for (kind, reason) in [
            ("blackhole", Reason::Blackhole),
            ("unreachable", Reason::Unreachable),
            ("prohibit", Reason::Prohibited),
        ] {
            ip(&format!("-6 route replace {kind} 2001:db8:9::/48"));
            watch.unresolved(target, reason).await;
        }
    });
}

#[test]
fn own_and_broadcast_addresses_are_told_apart() {
    in_lab("own_and_broadcast_addresses_are_told_apart", async |_lab| {
        let targets = ["10.77.0.1", "127.0.0.1", "10.77.0.255", "2001:db8:77::1", "2001:db8:77::3"];
        let mut watch = Watch::start(EVENTS_ONLY, &targets);
        watch.unresolved("10.77.0.1", Reason::LocalAddress).await;
        watch.unresolved("127.0.0.1", Reason::LocalAddress).await;
        watch.unresolved("10.77.0.255", Reason::NotUnicast).await;
        watch.unresolved("2001:db8:77::1", Reason::LocalAddress).await;
        watch.resolved("2001:db8:77::3").await;
        ip("addr add 2001:db8:77::3/64 dev d0 nodad");
        watch.unresolved("2001:db8:77::3", Reason::LocalAddress).await;
    });
}

#[test]
fn a_silent_neighbour_fails_and_is_found_when_it_comes() {
    in_lab("a_silent_neighbour_fails_and_is_found_when_it_comes", async |lab| {
        let target = addr("10.77.0.99");
        // Looks in every state that the entry passes through.
        let timing = Timing {
            retry_first: Duration::from_millis(100),
            retry_longest: Duration::from_millis(200),
            ..Timing::default()
        };
        let mut watch = Watch::start(timing, &["10.77.0.99"]);
        let mut seen = Vec::new();
        let collect = async {
            while let Some(change) = watch.changes.recv().await {
                let last = matches!(change.resolution, Resolution::Resolved(_));
                if seen.len() == 1 {
                    // Two more rounds of asking, which must not show.
                    sleep(Duration::from_secs(5)).await;
                    lab.peer.ip("addr add 10.77.0.99/24 dev p0");
                }
                assert_eq!(change.target, target);
                seen.push(change.resolution);
                if last {
                    break;
                }
            }
        };
        tokio::time::timeout(DEADLINE * 2, collect).await.expect("it is found");
        let interface = "d0".to_owned();
        let pending = Reason::NeighbourPending { address: target, interface: interface.clone() };
        let failed = Reason::NeighbourFailed { address: target, interface };
        assert_eq!(seen.len(), 3, "{seen:?}");
        assert_eq!(
            seen[..2],
            [Resolution::unresolved(pending), Resolution::unresolved(failed)],
            "pending, failed, and nothing in between"
        );
    });
}

#[test]
fn a_stale_neighbour_is_confirmed_while_it_is_needed() {
    in_lab("a_stale_neighbour_is_confirmed_while_it_is_needed", async |_lab| {
        sysctl("ipv4/neigh/d0/delay_first_probe_time", "1");
        let timing = Timing { refresh: Duration::from_millis(500), ..Timing::default() };
        let mut watch = Watch::start(timing, &["10.77.0.2", "10.77.0.3"]);
        watch.resolved("10.77.0.2").await;
        watch.resolved("10.77.0.3").await;
        watch.set(&["10.77.0.2"]);
        for address in ["10.77.0.2", "10.77.0.3"] {
            ip(&format!("neigh change {address} dev d0 nud stale"));
        }
        neighbour_until("10.77.0.2", |entry| entry.contains("REACHABLE")).await;
        // The control: nobody asked for this one any more.
        let control = ip("neigh show 10.77.0.3 dev d0");
        assert!(control.contains("STALE"), "{control}");
    });
}

#[test]
fn a_flushed_neighbour_is_asked_for_again_without_a_gap() {
    in_lab("a_flushed_neighbour_is_asked_for_again_without_a_gap", async |_lab| {
        let mut watch = Watch::start(EVENTS_ONLY, &["10.77.0.2"]);
        watch.resolved("10.77.0.2").await;
        ip("neigh flush dev d0");
        neighbour_until("10.77.0.2", |entry| entry.contains("REACHABLE")).await;
        let gap = watch.changes.try_recv();
        assert!(gap.is_err(), "{gap:?}");
    });
}

#[test]
fn permanent_entries_are_used_and_left_alone_and_none_are_made() {
    in_lab("permanent_entries_are_used_and_left_alone_and_none_are_made", async |_lab| {
        ip("neigh add 10.77.0.50 lladdr 02:00:00:00:77:50 nud permanent dev d0");
        let timing = Timing { refresh: Duration::from_millis(50), ..Timing::default() };
        let mut watch = Watch::start(timing, &["10.77.0.2", "10.77.0.50"]);
        assert_eq!(watch.resolved("10.77.0.50").await.destination_mac, [2, 0, 0, 0, 0x77, 0x50]);
        watch.resolved("10.77.0.2").await;
        // About twenty turns.
        sleep(Duration::from_secs(1)).await;
        let Watch { handle, mut changes, .. } = watch;
        drop(handle);
        let end = tokio::time::timeout(DEADLINE, async { while changes.recv().await.is_some() {} }).await;
        assert!(end.is_ok(), "the watcher ends with its last handle");
        assert!(ip("neigh show 10.77.0.50").contains("PERMANENT"));
        let other = ip("neigh show 10.77.0.2");
        assert!(other.contains("02:00:00:00:77:02"), "{other}");
        for mark in ["PERMANENT", "managed", "extern_learn"] {
            assert!(!other.contains(mark), "{other}");
        }
    });
}

#[test]
fn lost_notifications_lead_to_a_full_look() {
    in_lab("lost_notifications_lead_to_a_full_look", async |_lab| {
        let target = "203.0.113.7";
        ip("route add 203.0.113.0/24 via 10.77.0.2");
        let mut watch = Watch::start(EVENTS_ONLY, &[target]);
        watch.resolved(target).await;
        // This thread is the watcher's, too: while it waits for `ip`, nobody reads the notifications. The
        // change that matters comes last, when the socket has long been full.
        let mut batch = String::new();
        for number in 0..12_000 {
            batch += &format!("route add 198.18.{}.{} via 10.77.0.2\n", number / 250, number % 250);
        }
        batch += "route replace unreachable 203.0.113.0/24\n";
        let mut child =
            Command::new("ip").args(["-batch", "-"]).stdin(Stdio::piped()).spawn().expect("ip is there");
        child.stdin.take().unwrap().write_all(batch.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
        watch.unresolved(target, Reason::Unreachable).await;
    });
}

#[test]
fn a_bridge_is_refused_by_name() {
    in_lab("a_bridge_is_refused_by_name", async |_lab| {
        if let Err(error) = try_ip("link add br0 type bridge") {
            println!("SKIPPED a_bridge_is_refused_by_name: the kernel has no bridge: {error}");
            return;
        }
        ip("link set d0 master br0");
        ip("link set br0 up");
        ip("addr add 10.78.0.1/24 dev br0");
        let mut watch = Watch::start(Timing::default(), &["10.78.0.9"]);
        let reason = Reason::Unsupported { interface: "br0".to_owned(), kind: "bridge".to_owned() };
        watch.unresolved("10.78.0.9", reason).await;
    });
}

#[test]
fn a_vlan_device_gives_its_parent_and_tag() {
    in_lab("a_vlan_device_gives_its_parent_and_tag", async |lab| {
        if let Err(error) = try_ip("link add link d0 name d0.10 type vlan id 10") {
            println!("SKIPPED a_vlan_device_gives_its_parent_and_tag: the kernel has no 8021q: {error}");
            return;
        }
        ip("link set d0.10 up");
        ip("addr add 10.79.0.1/24 dev d0.10");
        lab.peer.ip("link add link p0 name p0.10 type vlan id 10");
        lab.peer.ip("link set p0.10 up");
        lab.peer.ip("addr add 10.79.0.2/24 dev p0.10");
        let mut watch = Watch::start(Timing::default(), &["10.79.0.2"]);
        let next_hop = watch.resolved("10.79.0.2").await;
        assert_eq!(next_hop.ifindex, index_of("d0"));
        assert_eq!(next_hop.interface, "d0.10");
        assert_eq!(next_hop.vlans, [VlanTag { tpid: 0x8100, vid: 10 }]);
    });
}

#[test]
fn each_target_is_reported_once_and_again_after_it_returns() {
    in_lab("each_target_is_reported_once_and_again_after_it_returns", async |_lab| {
        let mut watch = Watch::start(Timing::default(), &["10.77.0.1"]);
        watch.unresolved("10.77.0.1", Reason::LocalAddress).await;
        // The second address is the sign that the new set has been worked off.
        watch.set(&["10.77.0.1", "127.0.0.1"]);
        let change = tokio::time::timeout(DEADLINE, watch.changes.recv()).await.unwrap().unwrap();
        assert_eq!(change.target, addr("127.0.0.1"));
        watch.set(&["127.0.0.1"]);
        watch.set(&["10.77.0.1", "127.0.0.1"]);
        let change = tokio::time::timeout(DEADLINE, watch.changes.recv()).await.unwrap().unwrap();
        assert_eq!(change.target, addr("10.77.0.1"));
    });
}

#[test]
fn links_lists_interfaces_with_their_addresses() {
    in_lab("links_lists_interfaces_with_their_addresses", async |_lab| {
        let links = links().await.unwrap();
        let d0 = links.iter().find(|link| link.name == "d0").expect("d0 is listed");
        assert_eq!(d0.index, index_of("d0"));
        assert_eq!((d0.mac, d0.mtu), (Some(DIRECTOR_MAC), 1500));
        assert_eq!(d0.kind.as_deref(), Some("veth"));
        assert!(d0.up && d0.carrier && d0.ethernet);
        let wanted = BTreeSet::from([addr("10.77.0.1"), addr("2001:db8:77::1")]);
        assert!(wanted.is_subset(&d0.addresses.iter().copied().collect()), "{:?}", d0.addresses);
        let lo = links.iter().find(|link| link.name == "lo").expect("lo is listed");
        assert!(!lo.ethernet);
    });
}
