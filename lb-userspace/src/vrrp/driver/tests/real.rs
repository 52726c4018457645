//! The thread with the real network, in a namespace of the test's own that goes with it. Needs root and `ip`.

use std::process::Command;

use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::{
    config::vrrp::{FastDetection, VrrpSettings},
    vrrp::driver::{Roles, Vrrp},
};

/// Nobody serves.
#[derive(Debug)]
struct NoRoles;

impl Roles for NoRoles {
    fn set(&self, _: u16, _: bool) {}

    fn map(&self) -> Option<std::os::fd::OwnedFd> {
        None
    }
}

fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < end, "{what} did not come to be");
        std::thread::sleep(MS * 5);
    }
}

/// In a thread of its own, whose namespace the driver's thread and `ip` inherit; the test's own is as it was.
fn in_namespace(name: &str, test: fn()) {
    let result = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|error| format!("no network namespace: {error}"))?;
        Command::new("ip").arg("-V").output().map_err(|error| format!("no `ip`: {error}"))?;
        test();
        Ok::<(), String>(())
    })
    .join()
    .unwrap();
    if let Err(why) = result {
        println!("SKIPPED {name}: {why}");
    }
}

fn config() -> Wanted {
    let fast = Some(FastDetection { interval: MS * 5, multiplier: 3 });
    let four = VrrpInstance {
        advert_interval: MS * 10,
        fast_detection: fast,
        ..instance("four", "xd0", 51, 200, &["10.66.0.100/32", "10.66.0.101/24"])
    };
    let six = VrrpInstance {
        advert_interval: MS * 10,
        fast_detection: fast,
        ..instance("six", "xd0", 51, 200, &["fe80::66:100/64", "fd66::100/64"])
    };
    let vmac = VrrpInstance {
        advert_interval: MS * 10,
        vmac: Some("vrrp.52".to_owned()),
        ..instance("vmac", "xd0", 52, 200, &["10.66.0.102/32"])
    };
    let mut wanted = wanted(&[four, six, vmac]);
    // The guard would be this test's program.
    wanted.config.settings = VrrpSettings { guard: false, ..VrrpSettings::default() };
    wanted
}

#[test]
fn the_thread_serves_a_real_interface() {
    in_namespace("the_thread_serves_a_real_interface", || {
        ip("link add xd0 type veth peer name xd1");
        ip("addr add 10.66.0.1/24 dev xd0");
        // What a dead run has left.
        ip("addr add 10.66.0.101/24 dev xd0");
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("vrrp.json");
        let (vrrp, mut reports) = Vrrp::spawn(config(), Arc::new(NoRoles), Some(state.clone())).unwrap();
        assert!(!ip("addr show dev xd0").contains("10.66.0.101"), "what was left is removed");
        assert_eq!(vrrp.status().instances[0].view.state, State::Fault, "the link is down");

        ip("link set xd1 up");
        ip("link set xd0 up");
        let is_master =
            || vrrp.status().instances.iter().all(|instance| instance.view.state == State::Master);
        wait_for("the master", is_master);
        let addresses = || ip("addr show");
        for address in
            ["10.66.0.100/32", "10.66.0.101/24", "10.66.0.102/32", "fe80::66:100/64", "fd66::100/64"]
        {
            assert!(addresses().contains(address), "{address}: {}", addresses());
        }
        wait_for("adverts", || vrrp.status().instances.iter().all(|instance| instance.sent > 10));
        let status = vrrp.status();
        assert!(status.instances.iter().all(|instance| instance.send_errors == 0), "{status:?}");

        ip("addr del 10.66.0.100/32 dev xd0");
        wait_for("its return", || vrrp.status().instances[0].restored == 1);
        assert!(addresses().contains("10.66.0.100/32"));

        let mut fewer = config();
        fewer.config.instances[0].addresses.remove(0);
        vrrp.set(fewer);
        wait_for("the other list", || !addresses().contains("10.66.0.100/32"));
        assert!(is_master());
        assert_eq!(vrrp.handover("six"), Ok(()));
        assert!(!addresses().contains("fd66::100/64"));
        assert!(vrrp.handover("nobody").is_err());

        vrrp.stop(Duration::from_secs(10));
        let left = addresses();
        for address in ["10.66.0.101", "10.66.0.102", "fe80::66:100", "vrrp.52"] {
            assert!(!left.contains(address), "{address}: {left}");
        }
        let bad: Vec<Report> = std::iter::from_fn(|| reports.try_recv().ok())
            .filter(|report| matches!(report, Report::Notice { is_bad: true, text, .. } if !text.contains("put back")))
            .collect();
        assert_eq!(bad, []);
    });
}
