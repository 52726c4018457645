//! The Debian package on a machine of its own: installation, upgrade, removal, purge; with systemd and without.

mod machine;

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use lab::{
    registry::wait_until,
    requirements::{missing_for_lab, say_skipped},
};
use machine::{Init, Machine};

const CONFIG: &str = "/etc/xdirector/xdirector.toml";
const ENABLED: &str = "/etc/systemd/system/multi-user.target.wants/xdirector.service";
/// What a step of the service may take: the kernel's verifier needs seconds on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

const GOOD: &str = r#"# by the administrator
[director]
interfaces = ["eth0"]
max_connections = 4096

[[virtual_server]]
name = "web"
address = "192.0.2.1:80"
forward = "nat"
real_server = [{ address = "192.0.2.2:80" }]
"#;

/// The package, and a machine without it; `None`, said to the reader, where the test cannot run.
fn prepare(test: &str, name: &str, init: Init) -> Result<Option<Installation>> {
    let missing = || -> Option<String> {
        if let Some(why) = missing_for_lab() {
            return Some(why);
        }
        for program in ["dpkg", "dpkg-deb", "unshare", "nsenter"] {
            if Command::new(program).arg("--version").output().is_err() {
                return Some(format!("`{program}` is not installed"));
            }
        }
        if init == Init::Systemd && !Path::new("/lib/systemd/systemd-journald").exists() {
            return Some("systemd is not installed".into());
        }
        None
    };
    if let Some(why) = missing() {
        say_skipped(test, &why);
        return Ok(None);
    }
    let Some(package) = package() else {
        say_skipped(test, "no package in target/debian; `cargo xtask package` makes it");
        return Ok(None);
    };
    let machine = match Machine::start(name, init)? {
        Ok(machine) => machine,
        Err(why) => {
            say_skipped(test, &why);
            return Ok(None);
        }
    };
    // The machine is a copy of this one, which may have an xdirector.
    machine.ok(["sh", "-c", "dpkg --purge --no-triggers xdirector 2>/dev/null; rm -rf /etc/xdirector"])?;
    machine.bring(&package, "/first.deb")?;
    // The same one as the next version.
    machine.ok([
        "sh",
        "-c",
        "set -e; cd /tmp; dpkg-deb -R /first.deb next; sed -i 's/^Version: .*/&+next/' next/DEBIAN/control; \
         echo '# a new default' >> next/etc/xdirector/xdirector.toml; \
         dpkg-deb -Zgzip -z1 -b next /next.deb; rm -r next",
    ])?;
    Ok(Some(Installation { machine }))
}

fn package() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/debian");
    let entries = fs::read_dir(folder).ok()?;
    entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|ext| ext == "deb"))
}

struct Installation {
    machine: Machine,
}

impl Installation {
    /// dpkg without other packages' triggers: the index of manual pages takes its time.
    fn dpkg(&self, action: &str, what: &str) -> Result<String> {
        self.machine.ok(["dpkg", "--no-triggers", "--force-confold", "--force-unsafe-io", action, what])
    }

    /// Replaces systemctl by a program that only notes how it was called.
    fn note_systemctl(&self) -> Result<()> {
        self.machine.write_program("/usr/bin/systemctl", "#!/bin/sh\necho \"systemctl $*\" >> /calls\n")
    }

    /// The noted calls since the last time.
    fn calls(&self) -> Vec<String> {
        let calls = self.machine.read("/calls").lines().map(ToOwned::to_owned).collect();
        let _ = fs::remove_file(self.machine.path("/calls"));
        calls
    }

    fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.machine.path(path)).is_ok()
    }
}

#[test]
fn the_package_is_complete() -> Result<()> {
    let Some(here) = prepare("the_package_is_complete", "complete", Init::None)? else { return Ok(()) };
    let machine = &here.machine;
    here.dpkg("-i", "/first.deb")?;
    let version = machine.ok(["xdirector", "--version"])?;
    ensure!(version.starts_with("xdirector "), "{version}");
    for path in [
        "/usr/lib/systemd/system/xdirector.service",
        "/usr/share/man/man1/xdirector.1.gz",
        "/usr/share/man/man1/xdirector-run.1.gz",
        "/usr/share/bash-completion/completions/xdirector",
        "/usr/share/zsh/vendor-completions/_xdirector",
        "/usr/share/fish/vendor_completions.d/xdirector.fish",
        "/usr/share/doc/xdirector/copyright",
        "/usr/share/doc/xdirector/changelog.Debian.gz",
        "/usr/share/doc/xdirector/docs/installation.md",
        "/usr/share/doc/xdirector/examples/s1-nat.toml",
    ] {
        let listed = machine.ok(["dpkg", "-L", "xdirector"])?;
        ensure!(listed.lines().any(|line| line == path), "{path} is not in the package:\n{listed}");
    }
    let fields = machine.ok(["dpkg-query", "-W", "-f=${Depends}|${Conffiles}", "xdirector"])?;
    let (depends, conffiles) = fields.split_once('|').context("two fields")?;
    ensure!(
        depends.split(", ").all(|one| one.starts_with("libc6 ") || one.starts_with("libgcc-s1 ")),
        "{depends}"
    );
    ensure!(conffiles.trim().starts_with(&format!("{CONFIG} ")), "{conffiles}");
    // Every example is a good file, and the default is none.
    machine.ok([
        "sh",
        "-ec",
        "for file in /usr/share/doc/xdirector/examples/*.toml; do xdirector check $file; done",
    ])?;
    ensure!(
        !machine.run(["xdirector", "check", CONFIG])?.status.success(),
        "the default configures something"
    );
    Ok(())
}

#[test]
fn scripts_ask_systemd_for_the_right_things() -> Result<()> {
    let Some(here) = prepare("scripts_ask_systemd_for_the_right_things", "scripts", Init::None)? else {
        return Ok(());
    };
    let machine = &here.machine;
    here.note_systemctl()?;
    fs::create_dir_all(machine.path("/run/systemd/system"))?;

    let said = here.dpkg("-i", "/first.deb")?;
    ensure!(said.contains("not started, for nothing is configured yet"), "{said}");
    ensure!(said.contains("systemctl enable --now xdirector"), "{said}");
    ensure!(here.calls() == ["systemctl daemon-reload"]);

    machine.write(CONFIG, GOOD)?;
    here.dpkg("-i", "/next.deb")?;
    // Nothing is stopped, so packets and connections go on.
    ensure!(here.calls() == ["systemctl daemon-reload", "systemctl try-restart xdirector.service"]);
    ensure!(machine.read(CONFIG) == GOOD, "the administrator's configuration was replaced");

    // A program that notes its calls, and the socket of an instance.
    machine.write_program("/usr/bin/xdirector", "#!/bin/sh\necho \"xdirector $*\" >> /calls\n")?;
    machine.write("/var/lib/xdirector/state", "")?;
    machine.write("/etc/xdirector/certificate.pem", "")?;
    fs::create_dir_all(machine.path("/run/xdirector"))?;
    let _socket = UnixListener::bind(machine.path("/run/xdirector/other.sock"))?;
    fs::create_dir_all(machine.path("/sys/fs/bpf/xdirector/default"))?;
    here.dpkg("-r", "xdirector")?;
    ensure!(
        here.calls()
            == [
                "xdirector stop --detach --socket /run/xdirector/other.sock",
                "systemctl stop xdirector.service",
                "systemctl daemon-reload",
            ]
    );
    ensure!(!here.has("/sys/fs/bpf/xdirector"), "pins are left");
    ensure!(machine.read(CONFIG) == GOOD && here.has("/var/lib/xdirector/state"), "a removal is no purge");

    here.dpkg("--purge", "xdirector")?;
    for path in [CONFIG, "/var/lib/xdirector", "/run/xdirector", "/usr/bin/xdirector", ENABLED] {
        ensure!(!here.has(path), "{path} is left");
    }
    ensure!(here.has("/etc/xdirector/certificate.pem"), "a file of the administrator's is gone");
    ensure!(here.calls().is_empty());
    Ok(())
}

#[test]
fn a_machine_without_systemd_takes_the_package() -> Result<()> {
    let Some(here) = prepare("a_machine_without_systemd_takes_the_package", "plain", Init::None)? else {
        return Ok(());
    };
    here.note_systemctl()?;
    for (action, what) in
        [("-i", "/first.deb"), ("-i", "/next.deb"), ("-r", "xdirector"), ("--purge", "xdirector")]
    {
        here.dpkg(action, what)?;
    }
    ensure!(here.calls().is_empty(), "systemctl was called");
    ensure!(!here.has("/etc/xdirector"), "the empty directory is left");
    Ok(())
}

/// The unit itself: readiness, sandbox, journal, reload, stop, a crash, the watchdog, an upgrade, the removal.
#[test]
fn systemd_runs_the_service() -> Result<()> {
    let Some(here) = prepare("systemd_runs_the_service", "systemd", Init::Systemd)? else { return Ok(()) };
    let machine = &here.machine;
    let journal = || machine.ok(["journalctl", "--no-pager", "-o", "cat", "-u", "xdirector"]);

    // Configured before the installation, so it is started by it. `start` returns after READY.
    machine.write(CONFIG, GOOD)?;
    let said = here.dpkg("-i", "/first.deb")?;
    ensure!(machine.run(["systemctl", "is-active", "xdirector"])?.status.success(), "{said}\n{}", journal()?);
    ensure!(here.has(ENABLED), "the service will not start with the machine");
    machine.ok(["systemd-analyze", "verify", "--man=no", "/usr/lib/systemd/system/xdirector.service"])?;
    let status = machine.ok(["xdirector", "status"])?;
    ensure!(status.contains("192.0.2.2"), "{status}");
    ensure!(attached(machine)?, "no XDP program on eth0");
    let first = pid(machine)?;
    confined(machine, first)?;
    // systemd's own records are among them; these are the agent's, with fields.
    let records =
        machine.ok(["journalctl", "-o", "json", "_SYSTEMD_UNIT=xdirector.service", "_TRANSPORT=journal"])?;
    let record: serde_json::Value = serde_json::from_str(records.lines().next().context("no record")?)?;
    let own = first.to_string();
    ensure!(record["SYSLOG_IDENTIFIER"] == "xdirector" && record["_PID"] == own.as_str(), "{record}");

    // A reload, which a mistake makes fail.
    machine.write(CONFIG, &GOOD.replace("\"nat\"", "\"nta\""))?;
    ensure!(!machine.run(["systemctl", "reload", "xdirector"])?.status.success(), "the mistake is taken");
    ensure!(journal()?.contains("forward = \"nta\""), "the mistake is not named:\n{}", journal()?);
    machine.write(CONFIG, &GOOD.replace("192.0.2.2", "192.0.2.3"))?;
    machine.ok(["systemctl", "reload", "xdirector"])?;
    let status = machine.ok(["xdirector", "status"])?;
    ensure!(status.contains("192.0.2.3"), "{status}");
    ensure!(pid(machine)? == first, "the agent was replaced");

    // A stop leaves the data plane, and a crash too.
    machine.ok(["systemctl", "stop", "xdirector"])?;
    ensure!(attached(machine)?, "no packets after a stop:\n{}", journal()?);
    machine.ok(["systemctl", "start", "xdirector"])?;
    let first = pid(machine)?;
    machine.ok(["kill", "-KILL", &first.to_string()])?;
    ensure!(attached(machine)?, "no packets after a crash:\n{}", journal()?);
    let running = |other: u32| {
        wait_until(PATIENCE, || {
            pid(machine).is_ok_and(|now| now != other && now != 0)
                && machine.run(["systemctl", "is-active", "xdirector"]).is_ok_and(|out| out.status.success())
        })
    };
    ensure!(running(first), "not started again:\n{}", journal()?);
    ensure!(attached(machine)?, "no XDP program after the crash");

    // An event loop that stands still.
    machine.write("/etc/systemd/system/xdirector.service.d/test.conf", "[Service]\nWatchdogSec=3s\n")?;
    machine.ok(["systemctl", "daemon-reload"])?;
    machine.ok(["systemctl", "restart", "xdirector"])?;
    let sign_of_life =
        || machine.ok(["systemctl", "show", "--property=WatchdogTimestampMonotonic", "xdirector"]);
    let before = sign_of_life()?;
    ensure!(
        wait_until(PATIENCE, || sign_of_life().is_ok_and(|now| now != before)),
        "the agent gives no sign of life"
    );
    let second = pid(machine)?;
    machine.ok(["kill", "-STOP", &second.to_string()])?;
    ensure!(running(second), "not started again:\n{}", journal()?);
    ensure!(journal()?.contains("Watchdog timeout"), "{}", journal()?);

    outlived_by_its_guard(machine).with_context(|| journal().unwrap_or_default())?;

    // An upgrade, with a configuration that is not the package's.
    let third = pid(machine)?;
    here.dpkg("-i", "/next.deb")?;
    ensure!(running(third), "the old version runs on:\n{}", journal()?);
    ensure!(attached(machine)?, "no XDP program after the upgrade");

    // The removal.
    here.dpkg("-r", "xdirector")?;
    ensure!(!machine.run(["systemctl", "is-active", "xdirector"])?.status.success(), "it still runs");
    ensure!(
        wait_until(PATIENCE, || attached(machine).is_ok_and(|attached| !attached)),
        "the program is left"
    );
    ensure!(!here.has("/sys/fs/bpf/xdirector"), "pins are left");
    here.dpkg("--purge", "xdirector")?;
    ensure!(!here.has(ENABLED) && !here.has("/var/lib/xdirector"), "state is left");
    Ok(())
}

/// VRRP inside the unit's walls: real time, locked memory, and a guard that gives the address up when the agent is killed.
fn outlived_by_its_guard(machine: &Machine) -> Result<()> {
    const VRRP: &str = "\n[vrrp]\nrealtime_priority = 10\nlock_memory = true\n\n[[vrrp_instance]]\nname = \"VI_1\"\n\
                        interface = \"eth0\"\nvirtual_router_id = 7\npriority = 100\naddresses = [\"192.0.2.100/32\"]\n";
    // Long enough that what removes the address is not the next agent.
    machine.write("/etc/systemd/system/xdirector.service.d/test.conf", "[Service]\nRestartSec=20s\n")?;
    machine.ok(["systemctl", "daemon-reload"])?;
    machine.write(CONFIG, &(GOOD.to_owned() + VRRP))?;
    machine.ok(["systemctl", "restart", "xdirector"])?;
    let has_address = || {
        machine.ok(["ip", "address", "show", "dev", "eth0"]).is_ok_and(|text| text.contains("192.0.2.100/32"))
    };
    ensure!(wait_until(PATIENCE, has_address), "it does not become master");
    let status: serde_json::Value = serde_json::from_str(&machine.ok(["xdirector", "vrrp", "--json"])?)?;
    ensure!(status["guard"] == true, "{status}");
    // Where nobody may raise these limits systemd cannot either, and the agent says so.
    let limits = machine.ok(["cat", "/proc/1/limits"])?;
    let real_time = limits.lines().find(|line| line.starts_with("Max realtime priority")).unwrap_or_default();
    let may_raise = !real_time.split_whitespace().skip(3).all(|limit| limit == "0");
    let warnings = status["warnings"].as_array().context("no warnings")?;
    let is_about_limits = |warning: &&serde_json::Value| {
        warning
            .as_str()
            .is_some_and(|text| text.contains("memory is not locked") || text.contains("SCHED_FIFO"))
    };
    let others = warnings.iter().filter(|warning| may_raise || !is_about_limits(warning)).count();
    ensure!(others == 0, "{status}");
    let agent = pid(machine)?;
    machine.ok(["kill", "-KILL", &agent.to_string()])?;
    ensure!(wait_until(Duration::from_secs(10), || !has_address()), "the address outlives the agent");
    let now = pid(machine)?;
    ensure!(now == 0 || now == agent, "the next agent is there already, so this proves nothing");
    ensure!(wait_until(PATIENCE * 2, has_address), "it does not become master again");
    machine.write("/etc/systemd/system/xdirector.service.d/test.conf", "[Service]\nWatchdogSec=3s\n")?;
    machine.ok(["systemctl", "daemon-reload"])?;
    machine.write(CONFIG, GOOD)?;
    machine.ok(["systemctl", "reload", "xdirector"]).map(drop)
}

fn pid(machine: &Machine) -> Result<u32> {
    let text = machine.ok(["systemctl", "show", "--property=MainPID", "--value", "xdirector"])?;
    Ok(text.trim().parse()?)
}

fn attached(machine: &Machine) -> Result<bool> {
    Ok(machine.ok(["ip", "link", "show", "dev", "eth0"])?.contains("prog/xdp"))
}

/// The agent can do what the unit says, and no more.
fn confined(machine: &Machine, pid: u32) -> Result<()> {
    let status = machine.ok(["cat", &format!("/proc/{pid}/status")])?;
    let field = |name: &str| {
        status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim).unwrap_or_default().to_owned()
    };
    // CAP_KILL, CAP_SETGID, CAP_SETUID, CAP_NET_ADMIN, CAP_NET_RAW, CAP_PERFMON, CAP_BPF (linux/capability.h).
    let expected: u64 = [5, 6, 7, 12, 13, 38, 39].iter().map(|bit| 1 << bit).sum();
    for set in ["CapBnd:", "CapEff:"] {
        ensure!(u64::from_str_radix(&field(set), 16)? == expected, "{set} {}", field(set));
    }
    ensure!(field("CapAmb:").trim_start_matches('0').is_empty(), "{status}");
    ensure!(field("NoNewPrivs:") == "1" && field("Seccomp:") == "2", "{status}");
    let mounts = machine.ok(["cat", &format!("/proc/{pid}/mounts")])?;
    let writable = |path: &str| {
        mounts.lines().any(|line| {
            let mut fields = line.split(' ').skip(1);
            fields.next() == Some(path) && fields.nth(1).is_some_and(|options| options.starts_with("rw"))
        })
    };
    for path in ["/sys/fs/bpf/xdirector", "/run/xdirector", "/var/lib/xdirector"] {
        ensure!(writable(path), "{path} cannot be written:\n{mounts}");
    }
    for path in ["/", "/sys", "/sys/fs/bpf", "/sys/fs/cgroup", "/proc/sys"] {
        ensure!(!writable(path), "{path} can be written:\n{mounts}");
    }
    Ok(())
}
