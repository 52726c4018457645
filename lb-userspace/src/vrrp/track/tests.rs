use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Child, Command as StdCommand, Stdio},
    sync::mpsc::{Receiver, channel},
};

use socket2::{Domain, Socket, Type};

use super::*;
use crate::config::{
    Command,
    vrrp::{SyncGroup, Track, TrackFile, TrackPort, TrackProcess, VrrpScript},
};
use TrackValue::{Down, Number, Up};

/// How long something is waited for that is as good as certain to come.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(10);

/// Trackers, and what they say.
struct World {
    trackers: Option<Trackers>,
    said: Receiver<Tracked>,
    directory: tempfile::TempDir,
}

impl World {
    fn new(config: &Vrrp) -> Self {
        Self::in_directory(tempfile::tempdir().expect("a directory"), config)
    }

    fn in_directory(directory: tempfile::TempDir, config: &Vrrp) -> Self {
        let (sender, said) = channel();
        let trackers = Trackers::spawn(None, move |tracked| drop(sender.send(tracked))).expect("a thread");
        trackers.set(config);
        Self { trackers: Some(trackers), said, directory }
    }

    fn set(&self, config: &Vrrp) {
        self.trackers.as_ref().expect("it runs").set(config);
    }

    /// What is said next.
    #[track_caller]
    fn next(&self) -> Tracked {
        self.said.recv_timeout(LONG).expect("something is said")
    }

    #[track_caller]
    fn hears(&self, key: &TrackKey, value: TrackValue, detail: &str) {
        let expected = Tracked { key: key.clone(), value, detail: detail.to_owned() };
        assert_eq!(self.next(), expected);
    }

    /// Ends the trackers and returns what else they have said.
    fn rest(mut self) -> Vec<Tracked> {
        drop(self.trackers.take());
        self.said.iter().collect()
    }
}

#[track_caller]
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn is_gone(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // A killed grandchild whose new parent does not collect it stays as a zombie.
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

fn script(name: &str, text: &str) -> VrrpScript {
    VrrpScript {
        name: name.to_owned(),
        command: Command(["/bin/sh", "-c", text].map(String::from).to_vec()),
        interval: SHORT,
        timeout: LONG,
        rise: 1,
        fall: 1,
        weight: 0,
        user: None,
        init_fail: false,
    }
}

/// Everything is tracked by one group.
fn config(scripts: Vec<VrrpScript>) -> Vrrp {
    tracking(Vrrp { scripts, ..Vrrp::default() })
}

fn tracking(config: Vrrp) -> Vrrp {
    let scripts = config.scripts.iter().map(|script| TrackKey::Script(script.name.clone()));
    let ports = config.ports.iter().map(|port| TrackKey::Port(port.name.clone()));
    let processes = config.processes.iter().map(|process| TrackKey::Process(process.name.clone()));
    let files = config.files.iter().map(|file| TrackKey::File(file.name.clone()));
    let keys = scripts.chain(ports).chain(processes).chain(files);
    let sync_groups = vec![group(keys.map(|key| Track { key, weight: 0 }).collect())];
    Vrrp { sync_groups, ..config }
}

fn group(tracks: Vec<Track>) -> SyncGroup {
    SyncGroup {
        name: "group".to_owned(),
        instances: Vec::new(),
        tracks,
        tracking_weight: false,
        notify: None,
        notify_master: None,
        notify_backup: None,
        notify_fault: None,
        notify_stop: None,
        mail: false,
    }
}

fn key(name: &str) -> TrackKey {
    TrackKey::Script(name.to_owned())
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Exits with what is in the file; each run leaves a line in the log.
fn scripted(directory: &Path, name: &str) -> VrrpScript {
    let directory = directory.display();
    script(name, &format!("echo run >> {directory}/{name}.log; exit $(cat {directory}/{name})"))
}

fn write(directory: &Path, name: &str, text: &str) {
    // In one step: a script reads it at any time.
    let new = directory.join(format!("{name}.new"));
    fs::write(&new, text).expect("our file");
    fs::rename(new, directory.join(name)).expect("our file");
}

#[test]
fn a_script_is_told_at_first_and_when_it_changes() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    write(&path, "check", "0");
    let world = World::in_directory(directory, &config(vec![scripted(&path, "check")]));
    let log = path.join("check.log");
    world.hears(&key("check"), Up, "exit code 0");
    eventually("it goes on", || lines(&log) >= 4);
    write(&path, "check", "3");
    world.hears(&key("check"), Down, "exit code 3");
    let before = lines(&log);
    write(&path, "check", "4");
    eventually("it goes on", || lines(&log) >= before + 4);
    write(&path, "check", "0");
    world.hears(&key("check"), Up, "exit code 0");
    assert_eq!(world.rest(), []);
}

#[test]
fn rise_and_fall_are_kept() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    // The runs end like this, one after the other; then it goes on with failures.
    let text = format!(
        "touch {0}/log; n=$(wc -l < {0}/log); echo run >> {0}/log; set -- 0 1 0 1 1 0 1 1 1; \
         shift $n 2>/dev/null || exit 1; exit ${{1:-1}}",
        path.display()
    );
    let check = VrrpScript { rise: 2, fall: 3, ..script("check", &text) };
    let world = World::in_directory(directory, &config(vec![check]));
    world.hears(&key("check"), Up, "exit code 0");
    world.hears(&key("check"), Down, "exit code 1");
    assert!(lines(&path.join("log")) >= 9);
    assert_eq!(world.rest(), []);
}

#[test]
fn a_script_that_is_to_fail_at_first_is_down_before_it_has_run() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    write(&path, "go", "");
    let text = format!("while test -e {}/go; do sleep 0.01; done", path.display());
    let check = VrrpScript { init_fail: true, rise: 3, ..script("check", &text) };
    let world = World::in_directory(directory, &config(vec![check.clone()]));
    world.hears(&key("check"), Down, "not tried yet");
    // With other options what is known is not said again.
    world.set(&config(vec![VrrpScript { rise: 4, ..check }]));
    fs::remove_file(path.join("go")).expect("our file");
    world.hears(&key("check"), Up, "exit code 0");
    assert_eq!(world.rest(), []);
}

#[test]
fn a_script_that_hangs_delays_nobody_and_is_not_started_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    write(&path, "check", "0");
    let hanging = script("hanging", &format!("echo run >> {}/hanging.log; sleep 1000", path.display()));
    let world = World::in_directory(directory, &config(vec![hanging, scripted(&path, "check")]));
    for round in 0..5 {
        write(&path, "check", if round % 2 == 0 { "0" } else { "1" });
        let expected = if round % 2 == 0 { Up } else { Down };
        let said = world.next();
        assert_eq!((said.key, said.value), (key("check"), expected));
    }
    let log = path.join("hanging.log");
    eventually("it has begun", || lines(&log) == 1);
    let before = lines(&path.join("check.log"));
    eventually("the other goes on", || lines(&path.join("check.log")) >= before + 10);
    assert_eq!(lines(&log), 1);
    assert_eq!(world.rest(), []);
}

#[test]
fn a_timeout_kills_the_whole_group_and_fails() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    let text =
        format!("echo $$ >> {0}/pids; sh -c 'echo $$ >> {0}/pids; sleep 1000; true'; true", path.display());
    let check = VrrpScript { timeout: Duration::from_millis(300), ..script("check", &text) };
    let world = World::in_directory(directory, &config(vec![check]));
    world.hears(&key("check"), Down, "no end within 0.3 s, killed with all that it had started");
    let directory = {
        let World { trackers, said: _, directory } = world;
        drop(trackers);
        directory
    };
    let pids = fs::read_to_string(directory.path().join("pids")).unwrap_or_default();
    for pid in pids.lines() {
        eventually("a member of a group lives", || is_gone(pid));
    }
}

#[test]
fn a_script_that_cannot_be_run_fails() {
    let mut check = script("check", "");
    check.command = Command(vec!["/nonexistent/check".to_owned()]);
    let other = VrrpScript { user: Some("no-such-user-here".to_owned()), ..script("other", "exit 0") };
    let world = World::new(&config(vec![check, other]));
    let mut said = [world.next(), world.next()];
    said.sort_by(|one, other| one.key.cmp(&other.key));
    let [check, other] = said;
    assert_eq!((check.key, check.value), (key("check"), Down));
    assert!(check.detail.starts_with("cannot run the script: "), "{}", check.detail);
    assert_eq!((other.key, other.value), (key("other"), Down));
    assert!(other.detail.contains("there is no user `no-such-user-here`"), "{}", other.detail);
}

#[test]
fn a_script_runs_as_the_user_whom_it_names() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED a_script_runs_as_the_user_whom_it_names: needs root");
        return;
    }
    let named = VrrpScript { user: Some("nobody".to_owned()), ..script("named", "id -un") };
    let world = World::new(&config(vec![named]));
    world.hears(&key("named"), Up, "exit code 0: nobody");
    // Another name counts from the next run on.
    let named = VrrpScript { user: None, ..script("named", "id -un; exit 1") };
    world.set(&config(vec![named]));
    world.hears(&key("named"), Down, "exit code 1: root");
}

/// A TCP port of loopback that is ours as long as this lives, whether somebody listens there or not.
struct Port {
    _holder: Socket,
    address: SocketAddr,
}

impl Port {
    fn new() -> Self {
        let holder = bound(([127, 0, 0, 1], 0).into());
        let address = holder.local_addr().expect("bound").as_socket().expect("an IP address");
        Self { _holder: holder, address }
    }

    fn listen(&self, queue: i32) -> TcpListener {
        let listener = bound(self.address);
        listener.listen(queue).expect("listen");
        listener.into()
    }
}

fn bound(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_reuse_address(true).expect("an option");
    socket.bind(&address.into()).expect("bind");
    socket
}

fn port(address: SocketAddr, timeout: Duration) -> Vrrp {
    let name = "port".to_owned();
    let port = TrackPort { name, address, interval: SHORT, timeout, rise: 1, fall: 1, weight: 0 };
    tracking(Vrrp { ports: vec![port], ..Vrrp::default() })
}

#[test]
fn a_port_is_up_while_somebody_listens() {
    let port_ = Port::new();
    let key = TrackKey::Port("port".to_owned());
    let world = World::new(&port(port_.address, LONG));
    world.hears(&key, Down, "connection refused");
    let listener = port_.listen(1024);
    world.hears(&key, Up, "connected");
    drop(listener);
    let said = world.next();
    // Its end may come while a connection waits.
    assert_eq!((said.key, said.value), (key, Down), "{}", said.detail);
}

#[test]
fn a_port_that_does_not_answer_is_down() {
    // A queue for one connection, which is full: the second gets no answer.
    let port_ = Port::new();
    let _listener = port_.listen(0);
    let _queued = std::net::TcpStream::connect(port_.address).expect("one fits");
    let world = World::new(&port(port_.address, Duration::from_millis(50)));
    world.hears(&TrackKey::Port("port".to_owned()), Down, "no answer within 0.05 s");
}

#[test]
fn a_file_is_told_by_its_number() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    let file = path.join("number");
    let track = TrackFile {
        name: "file".to_owned(),
        file: file.to_str().expect("UTF-8").to_owned(),
        interval: SHORT,
        weight: 1,
    };
    let config = tracking(Vrrp { files: vec![track], ..Vrrp::default() });
    let world = World::in_directory(directory, &config);
    let key = TrackKey::File("file".to_owned());
    world.hears(&key, Number(0), "no file: counts as 0");
    write(&path, "number", "-12\n");
    world.hears(&key, Number(-12), "-12");
    write(&path, "number", "a lot");
    world.hears(&key, Number(0), "not a number: a: counts as 0");
    // Zero for another reason.
    write(&path, "number", "0");
    world.hears(&key, Number(0), "0");
    fs::remove_file(&file).expect("our file");
    world.hears(&key, Number(0), "no file: counts as 0");
    fs::create_dir(&file).expect("our directory");
    world.hears(&key, Number(0), "cannot be read: it is not a regular file: counts as 0");
    assert_eq!(world.rest(), []);
}

/// A process that is ended and collected with this.
struct Process(Child);

impl Process {
    /// Waits for the end of its input. Its first argument's base name is `name`.
    fn named(name: &str) -> Self {
        let mut command = StdCommand::new("/bin/sh");
        command.arg0(format!("/opt/somewhere/{name}")).args(["-c", "read line; true"]).stdin(Stdio::piped());
        Self(command.spawn().expect("it starts"))
    }

    /// The same, but `name` is what the kernel calls it.
    fn called(name: &str) -> Self {
        let mut command = StdCommand::new("/bin/sh");
        let text = format!("printf %s {name} > /proc/$$/comm; read line; true");
        command.args(["-c", &text]).stdin(Stdio::piped());
        Self(command.spawn().expect("it starts"))
    }

    fn kill(&mut self) {
        self.0.kill().expect("it is ours");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn processes_are_counted() {
    let name = format!("xdt{}", std::process::id());
    let process = TrackProcess {
        name: "process".to_owned(),
        process: name.clone(),
        quorum: 2,
        interval: SHORT,
        weight: 0,
    };
    let world = World::new(&tracking(Vrrp { processes: vec![process], ..Vrrp::default() }));
    let key = TrackKey::Process("process".to_owned());
    world.hears(&key, Down, "0 running, 2 wanted");
    let _first = Process::named(&name);
    let mut second = Process::called(&name);
    world.hears(&key, Up, "2 running, 2 wanted");
    // It stays as a zombie for now, which does not count.
    second.kill();
    world.hears(&key, Down, "1 running, 2 wanted");
    let _third = Process::named(&name);
    world.hears(&key, Up, "2 running, 2 wanted");
    assert_eq!(world.rest(), []);
}

#[test]
fn only_what_is_tracked_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    for name in ["tracked", "other"] {
        write(&path, name, "0");
    }
    let mut both = config(vec![scripted(&path, "tracked"), scripted(&path, "other")]);
    both.sync_groups[0].tracks.truncate(1);
    let world = World::in_directory(directory, &both);
    world.hears(&key("tracked"), Up, "exit code 0");
    eventually("it goes on", || lines(&path.join("tracked.log")) >= 5);
    assert!(!path.join("other.log").exists());
    assert_eq!(world.rest(), []);
}

#[test]
fn what_is_tracked_changes_while_it_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    write(&path, "stays", "0");
    let hanging = script("goes", &format!("echo $$ >> {}/pid; sleep 1000; true", path.display()));
    let stays = scripted(&path, "stays");
    let world = World::in_directory(directory, &config(vec![stays.clone(), hanging]));
    world.hears(&key("stays"), Up, "exit code 0");
    eventually("it begins", || lines(&path.join("pid")) == 1);
    let new = script("comes", "echo here; exit 1");
    world.set(&config(vec![stays.clone(), new]));
    world.hears(&key("comes"), Down, "exit code 1: here");
    let pid = fs::read_to_string(path.join("pid")).expect("its number");
    eventually("what is not tracked any more goes on", || is_gone(pid.trim()));
    let before = lines(&path.join("stays.log"));
    eventually("what stays goes on", || lines(&path.join("stays.log")) >= before + 3);
    // Tracked again, it is told again.
    world.set(&config(Vec::new()));
    world.set(&config(vec![stays]));
    world.hears(&key("stays"), Up, "exit code 0");
    assert_eq!(world.rest(), []);
}

#[test]
fn the_end_ends_scripts() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().to_owned();
    let hanging = script("hanging", &format!("echo $$ >> {}/pid; sleep 1000; true", path.display()));
    let world = World::in_directory(directory, &config(vec![hanging]));
    eventually("it begins", || lines(&path.join("pid")) == 1);
    let pid = fs::read_to_string(path.join("pid")).expect("its number");
    let World { trackers, said, directory: _directory } = world;
    drop(trackers);
    assert_eq!(said.iter().count(), 0);
    eventually("it lives", || is_gone(pid.trim()));
}

#[test]
fn missed_turns_are_left_out() {
    let start = Instant::now();
    let after = |milliseconds| start + Duration::from_millis(milliseconds);
    let interval = Duration::from_millis(100);
    for (ended, next) in [(0, 100), (1, 100), (99, 100), (100, 200), (150, 200), (3_600_050, 3_600_100)] {
        assert_eq!(next_turn(start, interval, after(ended)), after(next), "{ended}");
    }
}
