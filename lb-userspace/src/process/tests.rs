use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    time::Instant,
};

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn shell(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(String::from).to_vec()
}

async fn run_shell(script: &str) -> Finished {
    run(&shell(script), &[], None, LONG).await.expect("starts")
}

/// Waits for `condition`, which is as good as certain to come.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

fn is_gone(pid: &str) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        // A killed grandchild whose new parent does not collect it stays as a zombie.
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

#[tokio::test]
async fn tells_how_a_program_ended_and_what_it_printed() {
    let finished = run_shell("echo out; echo err >&2; exit 7").await;
    assert_eq!(finished, Finished { ending: Ending::Exited(7), output: "out\nerr\n".into() });
    assert_eq!(run_shell("kill -TERM $$").await.ending, Ending::Signaled(libc::SIGTERM));
    assert_eq!(run_shell("exit 0").await, Finished { ending: Ending::Exited(0), output: String::new() });
}

#[tokio::test]
async fn a_program_whose_file_system_hangs_holds_few_threads() {
    // Nobody else starts it.
    let program = "/nonexistent/on-a-dead-file-system";
    let (release, hang) = std::sync::mpsc::channel::<()>();
    let hang = std::sync::Arc::new(std::sync::Mutex::new(hang));
    // Bounds for "does not end": nothing else could end them.
    let little = Duration::from_millis(10);
    for _ in 0..STARTS_AT_ONCE {
        let hang = hang.clone();
        let start = STARTS.take(Path::new(program), move || hang.lock().unwrap().recv().is_err());
        timeout(little, start).await.expect_err("it hangs");
    }
    // It would be told that there is no such program, had it a thread to find out.
    let finished = run(&[program.to_owned()], &[], None, little).await.expect("no start");
    assert_eq!(finished.ending, Ending::TimedOut);
    assert_eq!(run_shell("exit 3").await.ending, Ending::Exited(3), "others are not concerned");
    drop(release);
    let error = run(&[program.to_owned()], &[], None, LONG).await.expect_err("there is no such program");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[tokio::test]
async fn gives_arguments_as_they_are() {
    let command = ["/bin/sh", "-c", "printf '%s|' \"$@\"", "name", "a b", "$HOME", "", "*"].map(String::from);
    assert_eq!(run(&command, &[], None, LONG).await.expect("starts").output, "a b|$HOME||*|");
}

#[tokio::test]
async fn the_environment_is_clean() {
    let command = ["/usr/bin/env".to_string()];
    let environment = [("XDIRECTOR_PORT".to_string(), "80 = x".to_string())];
    let finished = run(&command, &environment, None, LONG).await.expect("starts");
    let mut lines: Vec<&str> = finished.output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["LC_ALL=C", &format!("PATH={PATH}"), "XDIRECTOR_PORT=80 = x"]);
}

#[tokio::test]
async fn nothing_of_the_agent_is_inherited() {
    // A descriptor without the flag, as a careless library would leave it.
    let file = fs::File::open("/dev/null").expect("/dev/null");
    let careless = nix::unistd::dup(&file).expect("a descriptor");
    let number = std::os::fd::AsRawFd::as_raw_fd(&careless);
    // SAFETY: SIG_IGN is no function of ours, and nothing here needs the signal.
    unsafe { nix::sys::signal::signal(Signal::SIGUSR1, nix::sys::signal::SigHandler::SigIgn) }
        .expect("ignored");
    // Threads that this one makes, as that of the start, block it too.
    let blocked = nix::sys::signal::SigSet::from(Signal::SIGUSR2);
    blocked.thread_block().expect("blocked");
    let finished = run_shell(&format!(
        "test -e /proc/self/fd/{number} && echo inherited; pwd; read line || echo nothing to read; \
         grep -E '^Sig(Blk|Ign)' /proc/self/status"
    ))
    .await;
    let lines: Vec<&str> = finished.output.lines().collect();
    assert_eq!(lines[..2], ["/", "nothing to read"], "{}", finished.output);
    let signals = |name: &str| {
        let mask = lines.iter().find_map(|line| line.strip_prefix(name)).expect("a mask").trim();
        // Bits 31 and 32 are libc's own signals.
        u64::from_str_radix(mask, 16).expect("hexadecimal") & !(3 << 31)
    };
    assert_eq!((signals("SigBlk:"), signals("SigIgn:")), (0, 0), "{}", finished.output);
}

#[tokio::test]
async fn long_output_is_cut_and_never_stops_the_program() {
    let finished = run_shell("head -c 10000000 /dev/zero | tr '\\0' x; echo done >&2; exit 3").await;
    assert_eq!(finished.ending, Ending::Exited(3));
    assert_eq!(finished.output, "x".repeat(OUTPUT_KEPT));
}

#[tokio::test]
async fn the_first_line_is_fit_for_a_log() {
    let finished = run_shell(r"printf '\n  \033[31mred\007 caf\303\251 \377\nsecond\n'").await;
    assert_eq!(finished.first_line(80), "?[31mred? café ?");
    assert_eq!(finished.first_line(4), "?[31");
    assert_eq!(Finished { ending: Ending::TimedOut, output: String::new() }.first_line(80), "");
}

#[tokio::test]
async fn a_background_program_is_not_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pid");
    let finished = run_shell(&format!("sleep 1000 & echo $! > {}; echo started", file.display())).await;
    let pid = fs::read_to_string(&file).expect("the background program's number");
    let was_running = !is_gone(pid.trim());
    let _ = nix::sys::signal::kill(Pid::from_raw(pid.trim().parse().expect("a number")), Signal::SIGKILL);
    assert_eq!(finished, Finished { ending: Ending::Exited(0), output: "started\n".into() });
    assert!(was_running, "it is the script's to stop");
}

#[tokio::test]
async fn a_timeout_kills_the_whole_group() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pids");
    // The grandchild keeps the pipe open and everybody ignores SIGTERM.
    let script = format!(
        "trap '' TERM; echo begun; (echo $$ > {0}; sh -c 'echo $$ >> {0}; sleep 1000; true'; true)",
        file.display()
    );
    // The time begins with the start: a busy machine gets more of it, until the file is complete.
    let mut pids = String::new();
    for seconds in [1, 4, 16, 64] {
        let finished = run(&shell(&script), &[], None, Duration::from_secs(seconds)).await.expect("starts");
        assert_eq!(finished.ending, Ending::TimedOut);
        pids = fs::read_to_string(&file).unwrap_or_default();
        if pids.lines().count() == 2 {
            assert_eq!(finished.output, "begun\n");
            break;
        }
    }
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        eventually("a member of the group lives", || is_gone(pid)).await;
    }
}

#[tokio::test]
async fn cancelling_kills_the_whole_group() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pids");
    let script = format!("echo $$ > {0}; sh -c 'echo $$ >> {0}; sleep 1000; true'; true", file.display());
    let task = tokio::spawn(async move { run(&shell(&script), &[], None, LONG).await });
    let read = || fs::read_to_string(&file).unwrap_or_default();
    eventually("it does not start", || read().lines().count() == 2).await;
    task.abort();
    assert!(task.await.expect_err("cancelled").is_cancelled());
    for pid in read().lines() {
        eventually("a member of the group lives", || is_gone(pid)).await;
    }
}

#[test]
fn ending_the_runtime_kills_too() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("pid");
    let script = format!("echo $$ > {}; sleep 1000; true", file.display());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.spawn(async move { run(&shell(&script), &[], None, LONG).await });
    let has_begun = || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n'));
    runtime.block_on(eventually("it does not start", has_begun));
    drop(runtime);
    let pid = fs::read_to_string(&file).expect("its number");
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    other.block_on(eventually("it lives", || is_gone(pid.trim())));
}

/// Each runtime has to hear of its own children only, whichever began to listen first.
#[test]
fn works_in_several_runtimes_at_once() {
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(async {
                    for round in 0..10 {
                        let code = thread * 10 + round;
                        let finished = run(&shell(&format!("exit {code}")), &[], None, LONG).await?;
                        assert_eq!(finished.ending, Ending::Exited(code));
                    }
                    io::Result::Ok(())
                })
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic").expect("no error");
    }
}

#[tokio::test]
async fn what_cannot_be_started_is_an_error() {
    let missing = ["/nonexistent/program".to_string()];
    assert_eq!(run(&missing, &[], None, LONG).await.expect_err("missing").kind(), io::ErrorKind::NotFound);
    let data = ["/etc/passwd".to_string()];
    let error = run(&data, &[], None, LONG).await.expect_err("not executable");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert_eq!(run(&[], &[], None, LONG).await.expect_err("empty").kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn users_are_found_with_their_groups() {
    let root = User::find("root").expect("root");
    assert_eq!((root.uid, root.gid), (0, 0));
    assert!(root.groups.contains(&0));
    let error = User::find("no-such-user-here").expect_err("missing");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("`no-such-user-here`"), "{error}");
}

#[tokio::test]
async fn programs_run_as_the_user() {
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).expect("a user database").expect("my entry");
    let user = if me.uid.is_root() {
        // Not in the user database, so that only what was asked for counts.
        User { name: "nobody".into(), uid: 65_534, gid: 65_533, groups: vec![65_533, 4242] }
    } else {
        User::find(&me.name).expect("myself")
    };
    let script = "id -u; id -g; id -G; grep CapEff /proc/self/status; grep CapAmb /proc/self/status";
    let finished = run(&shell(script), &[], Some(&user), LONG).await.expect("starts");
    let lines: Vec<&str> = finished.output.lines().collect();
    assert_eq!(lines[0], user.uid.to_string());
    assert_eq!(lines[1], user.gid.to_string());
    if me.uid.is_root() {
        assert_eq!(lines[2], "65533 4242");
        assert_eq!(lines[3], "CapEff:\t0000000000000000");
    }
    assert_eq!(lines[4], "CapAmb:\t0000000000000000");
}

#[test]
fn system_programs_are_safe_and_relative_paths_are_not() {
    assert_eq!(check_safe(Path::new("/bin/sh")), Ok(()));
    assert_eq!(check_safe(Path::new("/usr/../bin/./sh")), Ok(()));
    let error = check_safe(Path::new("bin/sh")).expect_err("relative");
    assert!(error.contains("not absolute"), "{error}");
    let error = check_safe(Path::new("/etc/passwd/sh")).expect_err("no directory");
    assert!(error.contains("/etc/passwd is not a directory"), "{error}");
}

#[tokio::test]
async fn programs_that_others_may_change_are_refused_to_root() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED programs_that_others_may_change_are_refused_to_root: needs root");
        return;
    }
    let temporary = tempfile::tempdir().expect("a directory");
    let directory = temporary.path().canonicalize().expect("its path");
    let program = directory.join("program");
    fs::copy("/bin/true", &program).expect("a copy");
    let mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    mode(&program, 0o755);
    assert_eq!(check_safe(&program), Ok(()));

    for writable in [0o775, 0o757] {
        mode(&program, writable);
        let error = check_safe(&program).expect_err("writable file");
        assert!(error.contains(&format!("may write {}", program.display())), "{error}");
    }
    let command = [program.display().to_string()];
    let error = run(&command, &[], None, LONG).await.expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    assert!(error.to_string().starts_with("refusing to run"), "{error}");

    mode(&program, 0o755);
    mode(&directory, 0o777);
    let error = check_safe(&program).expect_err("writable directory");
    assert!(error.contains(&format!("may write {};", directory.display())), "{error}");
    mode(&directory, 0o1777);
    assert_eq!(check_safe(&program), Ok(()));

    // A link of somebody else could lead elsewhere a moment later.
    let link = directory.join("link");
    symlink("program", &link).expect("a link");
    assert_eq!(check_safe(&link), Ok(()));
    std::os::unix::fs::lchown(&link, Some(65_534), None).expect("chown");
    let error = check_safe(&link).expect_err("link of somebody");
    assert!(error.contains("belongs to user 65534"), "{error}");
    // Somebody else does not have to take care of that.
    let somebody = User { name: "nobody".into(), uid: 65_534, gid: 65_534, groups: vec![65_534] };
    mode(&program, 0o777);
    let finished = run(&command, &[], Some(&somebody), LONG).await;
    assert!(finished.is_ok_and(|finished| finished.ending == Ending::Exited(0)));

    let circle = directory.join("circle");
    symlink("circle", &circle).expect("a link");
    assert!(check_safe(&circle).is_err_and(|error| error.contains("symbolic links")));
}
