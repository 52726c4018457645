//! The guard as a process of its own, started by this one or by one that gets killed.
//!
//! A file stands for the data plane's map of roles: what the guard has switched off is 0 there. Nothing here needs root.

use std::{
    env,
    fs::{self, File},
    io::{self, BufRead as _, BufReader},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use lb_userspace::vrrp::guard::{Guard, InstancePlan, Plan};
use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

const XDIRECTOR: &str = env!("CARGO_BIN_EXE_xdirector");
/// Longest wait for something that must come.
const DEADLINE: Duration = Duration::from_secs(20);
/// Nobody is silent for so long.
const PATIENT: u64 = 3_600_000;
/// Names the file of roles to a process that plays the agent.
const AGENT: &str = "GUARD_TEST_ROLES";

/// Roles 0 to 4, all served.
struct Roles {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Roles {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("roles");
        fs::write(&path, [1_u64; 5].map(u64::to_ne_bytes).concat()).unwrap();
        Self { path, _directory: directory }
    }

    fn serve_all(&self) {
        let file = File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(&[1_u64; 5].map(u64::to_ne_bytes).concat(), 0).unwrap();
    }

    fn served(&self) -> Vec<usize> {
        let bytes = fs::read(&self.path).unwrap();
        (0..bytes.len() / 8).filter(|role| bytes[role * 8..][..8] != [0; 8]).collect()
    }

    fn wait_for(&self, expected: &[usize]) {
        wait(&format!("roles {expected:?}"), || self.served() == expected);
    }
}

fn map(path: &Path) -> OwnedFd {
    File::options().read(true).write(true).open(path).unwrap().into()
}

fn wait(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "not after {DEADLINE:?}: {what}");
        sleep(Duration::from_millis(1));
    }
}

/// Instances 0 to 3, with the roles 1 to 4.
fn plan(watchdog_ms: u64) -> Plan {
    let instance = |role| InstancePlan { name: format!("VI_{role}"), role, ..InstancePlan::default() };
    Plan { watchdog_ms, instances: (1..=4).map(instance).collect(), ..Plan::default() }
}

/// Hands it a plan and waits until it has it.
fn tell(guard: &mut Guard, plan: &Plan, roles: Option<&OwnedFd>) -> io::Result<()> {
    guard.hand(plan, roles)?;
    while !guard.answered()? {
        sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn guard(watchdog_ms: u64, roles: &Roles) -> Guard {
    let mut guard = Guard::spawn_from(Path::new(XDIRECTOR)).unwrap();
    tell(&mut guard, &plan(watchdog_ms), Some(&map(&roles.path))).unwrap();
    guard
}

#[test]
fn dropping_it_gives_up_what_is_master() {
    let roles = Roles::new();
    let guard = guard(PATIENT, &roles);
    assert_eq!(guard.warnings(), [""; 0]);
    guard.set_master("VI_1", true);
    guard.set_master("VI_3", true);
    guard.set_master("VI_3", false);
    guard.set_master("VI_4", true);
    drop(guard);
    assert_eq!(roles.served(), [0, 2, 3]);
}

#[test]
fn a_dismissed_one_changes_nothing() {
    let roles = Roles::new();
    let guard = guard(PATIENT, &roles);
    let pid = guard.pid();
    guard.set_master("VI_1", true);
    guard.dismiss(DEADLINE);
    assert_eq!(roles.served(), [0, 1, 2, 3, 4]);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "no zombie either");
}

#[test]
fn masters_are_carried_over_by_name() {
    let roles = Roles::new();
    let mut guard = guard(PATIENT, &roles);
    guard.set_master("VI_2", true);
    guard.set_master("VI_4", true);
    let mut next = plan(PATIENT);
    next.instances.reverse();
    next.instances.remove(0);
    // Now roles 3, 2, 1; the map is that of before.
    tell(&mut guard, &next, None).unwrap();
    drop(guard);
    assert_eq!(roles.served(), [0, 1, 3, 4]);
}

#[test]
fn silence_is_noticed_each_time() {
    let roles = Roles::new();
    let mut guard = guard(40, &roles);
    for _ in 0..2 {
        assert!(guard.may_speak() && !guard.was_seized());
        guard.set_master("VI_2", true);
        roles.wait_for(&[0, 1, 3, 4]);
        assert!(!guard.may_speak());
        assert!(guard.was_seized());
        assert!(!guard.was_seized(), "once only");
        roles.serve_all();
    }
    // It has forgotten that we were master.
    drop(guard);
    assert_eq!(roles.served(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_heart_that_beats_is_left_alone() {
    let roles = Roles::new();
    let mut guard = guard(40, &roles);
    // A beat that holds for the whole test; without it the guard would act within 60 ms.
    guard.beat(Instant::now() + Duration::from_secs(3600));
    guard.set_master("VI_2", true);
    sleep(Duration::from_millis(500));
    tell(&mut guard, &plan(40), None).unwrap();
    assert!(guard.may_speak() && !guard.was_seized());
    assert_eq!(roles.served(), [0, 1, 2, 3, 4]);
    guard.dismiss(DEADLINE);
}

#[test]
fn only_the_agent_ends_it() {
    let roles = Roles::new();
    let mut guard = guard(PATIENT, &roles);
    let pid = Pid::from_raw(guard.pid().cast_signed());
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGABRT] {
        kill(pid, signal).unwrap();
    }
    guard.set_master("VI_1", true);
    // It answers, so the signals are behind it.
    tell(&mut guard, &plan(PATIENT), None).unwrap();
    assert!(guard.is_alive());
    assert_eq!(guard.ending(), None);

    kill(pid, Signal::SIGKILL).unwrap();
    wait("its death", || !guard.is_alive());
    assert_eq!(guard.ending().unwrap(), "killed by signal 9");
    assert!(tell(&mut guard, &plan(PATIENT), None).is_err());
    assert!(guard.may_speak() && !guard.was_seized(), "an agent without a guard goes on");
    assert_eq!(roles.served(), [0, 1, 2, 3, 4]);
}

#[test]
fn one_that_does_not_answer_is_ended() {
    let roles = Roles::new();
    let mut guard = guard(PATIENT, &roles);
    let pid = guard.pid();
    kill(Pid::from_raw(pid.cast_signed()), Signal::SIGSTOP).unwrap();
    let error = tell(&mut guard, &plan(PATIENT), None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    wait("its death", || !guard.is_alive());
}

#[test]
fn one_that_is_stopped_keeps_nobody_waiting() {
    let roles = Roles::new();
    let mut guard = guard(PATIENT, &roles);
    let pid = Pid::from_raw(guard.pid().cast_signed());
    guard.set_master("VI_1", true);
    kill(pid, Signal::SIGSTOP).unwrap();
    // One that does not fit into the socket: a part of it waits here.
    let mut next = plan(PATIENT);
    next.instances.reverse();
    let words = ("224.0.0.18".parse().unwrap(), vec![1; 1 << 18]);
    next.instances[0].last_words.push(words);
    guard.hand(&next, None).unwrap();
    assert!(!guard.answered().unwrap());
    assert_eq!(guard.hand(&next, None).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    // Whichever of the two plans it goes by.
    guard.set_master("VI_1", false);
    guard.set_master("VI_2", true);
    kill(pid, Signal::SIGCONT).unwrap();
    wait("the answer", || guard.answered().unwrap());
    guard.set_master("VI_4", true);
    drop(guard);
    assert_eq!(roles.served(), [0, 1, 3]);
}

#[test]
fn a_plan_that_is_too_large_changes_nothing() {
    let roles = Roles::new();
    let mut guard = guard(PATIENT, &roles);
    guard.set_master("VI_1", true);
    let many = Plan { instances: vec![InstancePlan::default(); 1025], ..Plan::default() };
    let error = guard.hand(&many, None).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(guard.is_alive());
    drop(guard);
    assert_eq!(roles.served(), [0, 2, 3, 4]);
}

#[test]
fn it_has_a_name_a_session_and_no_descriptor_of_ours() {
    let roles = Roles::new();
    let leak = File::open("/dev/null").unwrap();
    fcntl(&leak, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let guard = guard(PATIENT, &roles);
    let proc = PathBuf::from(format!("/proc/{}", guard.pid()));
    assert_eq!(fs::read_to_string(proc.join("comm")).unwrap(), "xdirector-guard\n");
    let stat = fs::read_to_string(proc.join("stat")).unwrap();
    // After the name: state, parent, group, session.
    let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    assert_eq!(fields[3], guard.pid().to_string(), "{stat}");
    let target = |fd: &Path| fs::read_link(fd).unwrap().to_string_lossy().into_owned();
    let mut open: Vec<_> =
        fs::read_dir(proc.join("fd")).unwrap().map(|entry| target(&entry.unwrap().path())).collect();
    open.retain(|name| name != "/dev/null" && *name != target(Path::new("/proc/self/fd/2")));
    open.sort();
    let roles_path = roles.path.to_string_lossy().into_owned();
    let [page, file, socket] = &open[..] else { panic!("{open:?}") };
    assert_eq!(page, "/memfd:xdirector-guard (deleted)");
    assert_eq!(*file, roles_path);
    assert!(socket.starts_with("socket:"), "{open:?}");
    // Input and output; the leak would be a third one.
    let null = fs::read_dir(proc.join("fd")).unwrap().map(|entry| target(&entry.unwrap().path()));
    assert!(null.filter(|name| name == "/dev/null").count() <= 2 + usize::from(stderr_is_null()));
    guard.dismiss(DEADLINE);
}

#[test]
fn it_takes_its_place_and_keeps_its_memory() {
    let roles = Roles::new();
    let mut guard = guard(PATIENT, &roles);
    let proc = PathBuf::from(format!("/proc/{}", guard.pid()));
    let place = || {
        let stat = fs::read_to_string(proc.join("stat")).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // Fields 40 and 41 of proc(5): priority and policy.
        (fields[37].to_owned(), fields[38].to_owned())
    };
    let is_locked = || {
        let status = fs::read_to_string(proc.join("status")).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        line.split_whitespace().nth(1) != Some("0")
    };
    let before = place();
    let wanted = Plan { realtime_priority: Some(20), lock_memory: true, ..plan(PATIENT) };
    tell(&mut guard, &wanted, None).unwrap();
    // Not everybody may have it; who has not is told so.
    let lacks = |what: &str| guard.warnings().iter().any(|warning| warning.contains(what));
    if lacks("SCHED_FIFO priority 21") {
        println!("SKIPPED the place of it_takes_its_place_and_keeps_its_memory: {:?}", guard.warnings());
        assert_eq!(place(), before);
    } else {
        assert_eq!(place(), ("21".into(), libc::SCHED_FIFO.to_string()));
    }
    assert_eq!(is_locked(), !lacks("memory is not locked"), "{:?}", guard.warnings());
    tell(&mut guard, &plan(PATIENT), None).unwrap();
    assert_eq!(place(), ("0".into(), libc::SCHED_OTHER.to_string()));
    assert!(!is_locked());
    guard.dismiss(DEADLINE);
}

fn stderr_is_null() -> bool {
    fs::read_link("/proc/self/fd/2").unwrap() == Path::new("/dev/null")
}

/// A process that plays the agent: [`play_agent`].
struct Agent {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    guard: u32,
}

impl Agent {
    fn start(roles: &Roles) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "--nocapture", "an_agent_that_is_killed_leaves_nothing"])
            .env(AGENT, &roles.path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut agent = Self { child, lines, guard: 0 };
        agent.guard = agent.hear("guard ").parse().unwrap();
        agent
    }

    /// The rest of the next line that begins so.
    fn hear(&mut self, start: &str) -> String {
        let line = self.lines.by_ref().map(Result::unwrap).find(|line| line.starts_with(start));
        line.unwrap_or_else(|| panic!("it ended without `{start}`"))[start.len()..].to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).unwrap();
    }

    fn guard_is_gone(&self) -> bool {
        // A zombie of nobody is init's affair, which some containers have none of.
        fs::read_to_string(format!("/proc/{}/stat", self.guard))
            .map_or(true, |stat| stat.rsplit_once(')').is_some_and(|(_, rest)| rest.starts_with(" Z")))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the process does that plays the agent, until it is killed.
fn play_agent(path: &Path) {
    let mut guard = Guard::spawn_from(Path::new(XDIRECTOR)).unwrap();
    // Long enough for a machine that is busy with other tests.
    tell(&mut guard, &plan(1000), Some(&map(path))).unwrap();
    guard.beat(Instant::now());
    guard.set_master("VI_2", true);
    println!("guard {}", guard.pid());
    // If nobody kills it: its parent is gone, or it hangs.
    let start = Instant::now();
    while start.elapsed() < 3 * DEADLINE {
        if guard.was_seized() {
            guard.set_master("VI_3", true);
            println!("seized");
        }
        guard.beat(Instant::now());
        sleep(Duration::from_millis(5));
    }
}

/// Also the way into [`play_agent`]: [`Agent::start`] runs this program again, with this test only.
#[test]
fn an_agent_that_is_killed_leaves_nothing() {
    if let Some(path) = env::var_os(AGENT) {
        return play_agent(Path::new(&path));
    }
    let roles = Roles::new();
    let mut agent = Agent::start(&roles);
    agent.child.kill().unwrap();
    roles.wait_for(&[0, 1, 3, 4]);
    wait("the guard's end", || agent.guard_is_gone());
}

#[test]
fn an_agent_that_is_stopped_loses_its_addresses_and_learns_of_it() {
    let roles = Roles::new();
    let mut agent = Agent::start(&roles);
    agent.signal(Signal::SIGSTOP);
    roles.wait_for(&[0, 1, 3, 4]);
    agent.signal(Signal::SIGCONT);
    agent.hear("seized");
    roles.serve_all();
    // It is guarded as before.
    agent.child.kill().unwrap();
    roles.wait_for(&[0, 1, 2, 4]);
    wait("the guard's end", || agent.guard_is_gone());
}

#[test]
fn an_agent_that_is_killed_while_stopped_leaves_nothing() {
    let roles = Roles::new();
    let agent = Agent::start(&roles);
    agent.signal(Signal::SIGSTOP);
    roles.wait_for(&[0, 1, 3, 4]);
    agent.signal(Signal::SIGKILL);
    // It may have been about to acquire any of them.
    roles.wait_for(&[0]);
    wait("the guard's end", || agent.guard_is_gone());
}

fn xdirector(args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(XDIRECTOR).args(args).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn by_hand_it_says_whose_it_is() {
    let (code, text) = xdirector(&["guard"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        text,
        "xdirector: `guard` is a part of `xdirector run`, which starts and ends it itself; it does nothing by hand\n"
    );
    for fds in [["0", "1"], ["50", "51"], ["-1", "5"]] {
        let (shared, socket) = (format!("--shared={}", fds[0]), format!("--socket={}", fds[1]));
        let (code, text) = xdirector(&["guard", &shared, &socket]);
        assert_eq!(code, Some(1), "{fds:?}");
        assert!(text.contains("`guard` is started by one only"), "{text}");
    }
}

#[test]
fn it_is_not_shown() {
    let (code, help) = xdirector(&["--help"]);
    assert_eq!(code, Some(0));
    assert!(help.contains("completions") && !help.contains("guard"), "{help}");
    let pages = tempfile::tempdir().unwrap();
    let (code, text) = xdirector(&["man", pages.path().to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("xdirector-run.1") && !text.contains("guard"), "{text}");
    assert!(!fs::read_to_string(pages.path().join("xdirector.1")).unwrap().contains("guard"));
}
