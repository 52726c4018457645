use std::{fs, path::Path, time::Instant};

use tempfile::TempDir;

use super::*;

const LONG: Duration = Duration::from_secs(60);

fn shell(queue: &str, script: &str) -> Notification {
    Notification {
        queue: queue.into(),
        command: Command(["/bin/sh", "-c", script, "script"].map(String::from).to_vec()),
        arguments: Vec::new(),
        environment: Vec::new(),
    }
}

fn directory() -> TempDir {
    tempfile::tempdir().expect("a directory")
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(String::from).collect()
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < LONG, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A script that runs until the file `open` is there; what is left of a failed test ends too.
fn gate(open: &Path) -> String {
    format!("n=0; while ! test -e {} && test $n -lt 6000; do sleep 0.01; n=$((n + 1)); done", open.display())
}

#[tokio::test]
async fn each_queue_keeps_its_order() {
    let directory = directory();
    let notifier = Notifier::new(None);
    for round in 0..20 {
        for queue in ["a", "b", "c"] {
            let log = directory.path().join(queue);
            // The earlier, the slower: without an order the later ones would win.
            let delay = if round % 2 == 0 { "0.02" } else { "0" };
            notifier.run(shell(queue, &format!("sleep {delay}; echo {round} >> {}", log.display())));
        }
    }
    notifier.finish(LONG).await;
    let expected: Vec<String> = (0..20).map(|round| round.to_string()).collect();
    for queue in ["a", "b", "c"] {
        assert_eq!(lines(&directory.path().join(queue)), expected);
    }
    assert_eq!(notifier.counts(), Counts { run: 60, failed: 0 });
}

#[tokio::test]
async fn a_slow_queue_holds_up_no_other() {
    let directory = directory();
    let (open, done) = (directory.path().join("open"), directory.path().join("done"));
    let notifier = Notifier::new(None);
    notifier.run(shell("slow", &gate(&open)));
    notifier.run(shell("slow", &format!("echo slow >> {}", done.display())));
    notifier.run(shell("fast", &format!("echo fast >> {}", done.display())));
    eventually("the fast queue waits for the slow one", || lines(&done) == ["fast"]).await;
    fs::write(&open, "").expect("the gate");
    notifier.finish(LONG).await;
    assert_eq!(lines(&done), ["fast", "slow"]);
}

#[tokio::test]
async fn only_so_many_run_at_once() {
    let directory = directory();
    let (open, begun) = (directory.path().join("open"), directory.path().join("begun"));
    let notifier = Notifier::new(None);
    for queue in 0..MAX_AT_ONCE + 4 {
        let script = format!("echo x >> {}; {}", begun.display(), gate(&open));
        notifier.run(shell(&queue.to_string(), &script));
    }
    eventually("not even the first ones begin", || lines(&begun).len() >= MAX_AT_ONCE).await;
    assert_eq!(notifier.counts().run, MAX_AT_ONCE as u64);
    fs::write(&open, "").expect("the gate");
    notifier.finish(LONG).await;
    assert_eq!(lines(&begun).len(), MAX_AT_ONCE + 4);
}

#[tokio::test]
async fn a_full_queue_loses_its_oldest() {
    let directory = directory();
    let (open, log) = (directory.path().join("open"), directory.path().join("log"));
    let notifier = Notifier::new(None);
    notifier.run(shell("web", &gate(&open)));
    for number in 0..MAX_WAITING + 10 {
        notifier.run(shell("web", &format!("echo {number} >> {}", log.display())));
    }
    assert_eq!(notifier.counts().failed, 10);
    fs::write(&open, "").expect("the gate");
    notifier.finish(LONG).await;
    let expected: Vec<String> = (10..MAX_WAITING + 10).map(|number| number.to_string()).collect();
    assert_eq!(lines(&log), expected);
    assert_eq!(notifier.counts(), Counts { run: MAX_WAITING as u64 + 1, failed: 10 });
}

#[tokio::test]
async fn failures_count_and_the_next_one_runs() {
    let directory = directory();
    let log = directory.path().join("log");
    let notifier = Notifier::new(None);
    notifier.run(shell("web", "echo went wrong; exit 3"));
    notifier.run(shell("web", "kill -KILL $$"));
    let mut missing = shell("web", "");
    missing.command.0[0] = "/nonexistent/notify".into();
    notifier.run(missing);
    notifier.run(shell("web", &format!("echo fine > {}", log.display())));
    notifier.finish(LONG).await;
    assert_eq!(notifier.counts(), Counts { run: 4, failed: 3 });
    assert_eq!(lines(&log), ["fine"]);
}

#[tokio::test]
async fn a_script_that_hangs_is_killed_and_the_next_one_runs() {
    let notifier = Notifier::with_timeout(None, Duration::from_millis(500));
    notifier.run(shell("web", "sleep 1000; true"));
    notifier.run(shell("web", "exit 0"));
    notifier.finish(LONG).await;
    let counts = notifier.counts();
    assert_eq!(counts.run, 2);
    assert!(counts.failed >= 1);
}

#[tokio::test]
async fn scripts_get_arguments_and_environment() {
    let directory = directory();
    let log = directory.path().join("log");
    let notifier = Notifier::new(None);
    let mut notification = shell("web", &format!("echo \"$1|$2|$XDIRECTOR_STATE\" > {}", log.display()));
    notification.arguments = vec!["quorum up".into(), "web".into()];
    notification.environment = vec![("XDIRECTOR_STATE".into(), "UP".into())];
    notifier.run(notification);
    notifier.finish(LONG).await;
    assert_eq!(lines(&log), ["quorum up|web|UP"]);
}

#[tokio::test]
async fn finishing_gives_up_at_its_limit() {
    let directory = directory();
    let open = directory.path().join("open");
    let notifier = Notifier::new(None);
    notifier.finish(LONG).await;
    notifier.run(shell("web", &gate(&open)));
    notifier.finish(Duration::from_millis(10)).await;
    assert_eq!(notifier.shared.state().queues.len(), 1, "it ended before the gate opened");
    fs::write(&open, "").expect("the gate");
    notifier.finish(LONG).await;
    assert!(notifier.shared.state().queues.is_empty());
}
