use std::{
    net::IpAddr,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    config::{Protocol, check::Via},
    desired::ServiceId,
    health::probe::{Passed, tests::Port},
};

/// The check of a made-up server; its number is its port.
pub fn id(number: u32) -> CheckId {
    let address = IpAddr::from([127, 0, 0, 1]);
    let service = ServiceId { address, port: 80, protocol: Protocol::Tcp };
    CheckId { service, address, port: number as u16, index: number }
}

/// A check that comes every second, without retries.
pub fn wanted() -> Wanted {
    let check = HealthCheck {
        probe: Probe::Tcp,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(20),
        rise: 1,
        fall: 1,
        retry: 0,
        delay_before_retry: Duration::ZERO,
        warmup: Duration::ZERO,
        connect: ([127, 0, 0, 1], 9).into(),
        bind: None,
        fwmark: 0,
        via: Via::Direct,
    };
    Wanted { check, begins_down: true }
}

const SOON: Duration = Duration::from_secs(20);

async fn next(reports: &mut mpsc::UnboundedReceiver<Report>) -> Report {
    tokio::time::timeout(SOON, reports.recv()).await.expect("a report").expect("the thread lives")
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn fine() -> Outcome {
    Ok(Passed { detail: "fine".to_owned(), ..Passed::default() })
}

#[tokio::test]
async fn follows_a_server() {
    let (health, mut reports) = Health::spawn(None, None).expect("a thread");
    let port = Port::new();
    let listener = port.listen();
    let mut check = wanted();
    check.check.connect = port.address;
    check.check.interval = Duration::from_millis(20);
    health.set(BTreeMap::from([(id(1), check)]));
    assert!(health.states().contains_key(&id(1)));
    let report = next(&mut reports).await;
    assert_eq!((report.id, report.is_up, report.detail.as_str()), (id(1), true, "connected"));
    drop(listener);
    let report = next(&mut reports).await;
    assert_eq!((report.is_up, report.detail.as_str()), (false, "connection refused"));
    let _listener = port.listen();
    assert!(next(&mut reports).await.is_up);
    let state = &health.states()[&id(1)];
    assert_eq!(state.is_up, Some(true));
    assert!(state.passed >= 2 && state.failed >= 1 && state.sum >= state.last, "{state:?}");
}

#[tokio::test]
async fn a_panic_is_a_failure_of_its_check_only() {
    let attempt = |_, check: Arc<HealthCheck>| async move {
        assert!(check.fwmark == 0, "this test's panic");
        fine()
    };
    let (health, mut reports) = Health::spawn_with(attempt, 8).expect("a thread");
    let mut panics = wanted();
    panics.check.fwmark = 1;
    health.set(BTreeMap::from([(id(1), panics), (id(2), wanted())]));
    let mut results = [next(&mut reports).await, next(&mut reports).await];
    results.sort_by_key(|report| report.id);
    assert_eq!((results[0].is_up, results[0].detail.as_str()), (false, "internal error: the check panicked"));
    assert!(results[1].is_up);
}

/// Counts how many live at a time.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn attempts_are_bounded_and_waiting_is_no_failure() {
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let attempt = {
        let (running, most) = (running.clone(), most.clone());
        move |_, _: Arc<HealthCheck>| {
            let counted = Counted::new(&running);
            most.fetch_max(running.load(Ordering::SeqCst), Ordering::SeqCst);
            async move {
                tokio::time::sleep(Duration::from_millis(1)).await;
                drop(counted);
                fine()
            }
        }
    };
    let (health, mut reports) = Health::spawn_with(attempt, 5).expect("a thread");
    health.set((0..200).map(|number| (id(number), wanted())).collect());
    for _ in 0..200 {
        assert!(next(&mut reports).await.is_up);
    }
    assert_eq!(most.load(Ordering::SeqCst), 5);
}

#[tokio::test]
async fn removed_and_changed_checks_drop_their_attempts() {
    let running = Arc::new(AtomicUsize::new(0));
    let attempt = {
        let running = running.clone();
        move |_, check: Arc<HealthCheck>| {
            let counted = Counted::new(&running);
            async move {
                if check.fall == 1 {
                    std::future::pending::<()>().await;
                }
                drop(counted);
                fine()
            }
        }
    };
    let (health, mut reports) = Health::spawn_with(attempt, 3).expect("a thread");
    // All slots are taken by attempts that never end.
    health.set((0..3).map(|number| (id(number), wanted())).collect());
    until("three attempts", || running.load(Ordering::SeqCst) == 3).await;
    let mut changed = wanted();
    changed.check.fall = 2;
    health.set(BTreeMap::from([(id(1), changed)]));
    let report = next(&mut reports).await;
    assert_eq!((report.id, report.is_up), (id(1), true));
    until("the others' end", || running.load(Ordering::SeqCst) == 0).await;
    assert_eq!(health.states().len(), 1);
}

#[tokio::test]
async fn dropping_ends_the_attempts_and_the_thread() {
    let running = Arc::new(AtomicUsize::new(0));
    let attempt = {
        let running = running.clone();
        move |_, _: Arc<HealthCheck>| {
            let counted = Counted::new(&running);
            async move {
                let _counted = counted;
                std::future::pending().await
            }
        }
    };
    let (health, mut reports) = Health::spawn_with(attempt, 8).expect("a thread");
    health.set(BTreeMap::from([(id(1), wanted())]));
    until("an attempt", || running.load(Ordering::SeqCst) == 1).await;
    drop(health);
    assert_eq!(tokio::time::timeout(SOON, reports.recv()).await.expect("the channel's end"), None);
    until("the attempt's end", || running.load(Ordering::SeqCst) == 0).await;
}

#[test]
fn slots_follow_the_file_limit() {
    assert_eq!(attempts_at_a_time(20_000), 19_488);
    assert_eq!(attempts_at_a_time(256), 64);
    assert_eq!(attempts_at_a_time(u64::MAX), 1 << 28);
}

#[test]
fn the_file_limit_is_raised() {
    let limit = raise_file_limit();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    assert_eq!(limit, soft);
    assert!(soft == hard || soft >= 1 << 20, "{soft} of {hard}");
}
