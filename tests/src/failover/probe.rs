//! A client that asks the virtual address who is there, all the time.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{Netns, registry::wait_until};

/// The UDP port on which every machine of a scene answers with its name: "echo" (RFC 862).
pub const PORT: u16 = 7;

/// An answer to one probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When the question was sent.
    pub sent: Instant,
    /// When the answer came.
    pub at: Instant,
    /// Who answered.
    pub from: String,
}

/// A running prober. Dropping it ends it.
#[derive(Debug)]
pub struct Probe {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    sent: Mutex<Vec<Instant>>,
    answers: Mutex<Vec<Answer>>,
}

/// What a prober has seen.
#[derive(Clone, Debug)]
pub struct Trace {
    /// The first question.
    pub begun: Instant,
    /// The last one.
    pub ended: Instant,
    /// How many questions there were.
    pub questions: usize,
    /// In the order of their arrival.
    pub answers: Vec<Answer>,
}

impl Probe {
    /// Asks `target` every so often from the client's machine, and waits for the first answer.
    ///
    /// # Errors
    /// When none comes within 10 s.
    pub fn start(client: &Netns, target: IpAddr, every: Duration) -> Result<Self> {
        let socket = client.enter(|| {
            let any: IpAddr =
                if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            Ok(UdpSocket::bind((any, 0))?)
        })?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            sent: Mutex::new(Vec::new()),
            answers: Mutex::new(Vec::new()),
        });
        let listener = socket.try_clone()?;
        let target = SocketAddr::new(target, PORT);
        let (asking, hearing) = (Arc::clone(&shared), Arc::clone(&shared));
        let threads = vec![
            thread::spawn(move || ask(&socket, target, every, &asking)),
            thread::spawn(move || hear(&listener, &hearing)),
        ];
        let probe = Self { shared, threads };
        let answered = wait_until(Duration::from_secs(10), || !lock(&probe.shared.answers).is_empty());
        anyhow::ensure!(answered, "nobody answers at {target}");
        Ok(probe)
    }

    /// Who answered last.
    #[must_use]
    pub fn last(&self) -> Option<String> {
        lock(&self.shared.answers).last().map(|answer| answer.from.clone())
    }

    /// Waits until `name` answers a question that was sent after this call; says how long that took.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub fn await_answer(&self, name: &str, limit: Duration) -> Result<Duration> {
        let begun = Instant::now();
        let earlier = lock(&self.shared.answers).len();
        loop {
            let found = lock(&self.shared.answers)[earlier..]
                .iter()
                .find(|answer| answer.from == name && answer.sent >= begun)
                .map(|answer| answer.at.duration_since(begun));
            if let Some(took) = found {
                return Ok(took);
            }
            anyhow::ensure!(begun.elapsed() < limit, "{name} does not answer, but {:?}", self.last());
            thread::sleep(Duration::from_micros(500));
        }
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it has not asked anything.
    pub fn stop(mut self) -> Result<Trace> {
        // Answers may be under way.
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("the prober panicked"))?;
        }
        self.so_far()
    }

    /// What it has seen so far.
    ///
    /// # Errors
    /// When it has not asked anything.
    pub fn so_far(&self) -> Result<Trace> {
        let sent = lock(&self.shared.sent);
        Ok(Trace {
            begun: *sent.first().context("no probe was sent")?,
            ended: *sent.last().context("no probe was sent")?,
            questions: sent.len(),
            answers: lock(&self.shared.answers).clone(),
        })
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

impl Trace {
    /// The longest time between two questions in a row that were answered; it begins when the first answered question was
    /// sent after `from`. Also counts up to the last question.
    #[must_use]
    pub fn outage(&self, from: Instant) -> Duration {
        let mut answered: Vec<Instant> = self.answers.iter().map(|answer| answer.sent).collect();
        // Two machines may answer out of order.
        answered.sort();
        let before = answered.iter().rev().find(|sent| **sent <= from).copied().unwrap_or(self.begun);
        let mut longest = Duration::ZERO;
        let mut last = before;
        for sent in answered.into_iter().filter(|sent| *sent > from).chain([self.ended]) {
            longest = longest.max(sent.saturating_duration_since(last));
            last = last.max(sent);
        }
        longest
    }

    /// From `event` to the first answer of `name` after it.
    #[must_use]
    pub fn takeover(&self, event: Instant, name: &str) -> Option<Duration> {
        let first = self.answers.iter().find(|answer| answer.from == name && answer.sent >= event);
        first.map(|answer| answer.at.duration_since(event))
    }

    /// Everybody who answered after `from`.
    #[must_use]
    pub fn answerers(&self, from: Instant) -> BTreeSet<&str> {
        self.answers.iter().filter(|answer| answer.sent >= from).map(|answer| answer.from.as_str()).collect()
    }

    /// How often the answering machine changed, from question to question that was sent after `from`.
    #[must_use]
    pub fn changes(&self, from: Instant) -> usize {
        let mut answers: Vec<&Answer> = self.answers.iter().filter(|answer| answer.sent >= from).collect();
        answers.sort_by_key(|answer| answer.sent);
        answers.windows(2).filter(|pair| pair[0].from != pair[1].from).count()
    }
}

fn ask(socket: &UdpSocket, target: SocketAddr, every: Duration, shared: &Shared) {
    let mut next = Instant::now();
    while !shared.stop.load(Ordering::Relaxed) {
        let now = Instant::now();
        let number = {
            let mut sent = lock(&shared.sent);
            sent.push(now);
            sent.len() - 1
        };
        // Nobody may be there, and the kernel says so here.
        let _ = socket.send_to(number.to_string().as_bytes(), target);
        next += every;
        let now = Instant::now();
        if next < now {
            // This machine was busy: no burst to make up for it.
            next = now;
        }
        thread::sleep(next - now);
    }
}

fn hear(socket: &UdpSocket, shared: &Shared) {
    let mut buffer = [0; 256];
    loop {
        let over = shared.stop.load(Ordering::Relaxed);
        match socket.recv_from(&mut buffer) {
            Ok((len, _)) => {
                let at = Instant::now();
                let text = String::from_utf8_lossy(&buffer[..len]);
                let Some((name, number)) = text.rsplit_once(' ') else { continue };
                let sent =
                    number.parse().ok().and_then(|number: usize| lock(&shared.sent).get(number).copied());
                if let Some(sent) = sent {
                    lock(&shared.answers).push(Answer { sent, at, from: name.to_owned() });
                }
            }
            // Nothing came for a while.
            Err(_) if over => return,
            Err(_) => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(answers: &[(u64, &str)]) -> (Instant, Trace) {
        let begun = Instant::now();
        let answers: Vec<Answer> = answers
            .iter()
            .map(|(ms, from)| {
                let sent = begun + Duration::from_millis(*ms);
                Answer { sent, at: sent + Duration::from_micros(100), from: (*from).to_owned() }
            })
            .collect();
        let ended = begun + Duration::from_millis(100);
        (begun, Trace { begun, ended, questions: 101, answers })
    }

    #[test]
    fn an_outage_is_the_longest_gap_after_the_event() {
        let (begun, trace) = trace(&[(0, "a"), (40, "a"), (41, "a"), (61, "b"), (99, "b")]);
        assert_eq!(trace.outage(begun + Duration::from_millis(41)), Duration::from_millis(38));
        assert_eq!(trace.outage(begun), Duration::from_millis(40));
        assert_eq!(trace.changes(begun), 1);
        assert_eq!(trace.changes(begun + Duration::from_millis(50)), 0);
        let takeover = trace.takeover(begun + Duration::from_millis(41), "b");
        assert_eq!(takeover, Some(Duration::from_micros(20_100)));
    }

    #[test]
    fn no_answer_until_the_end_is_an_outage() {
        let (begun, trace) = trace(&[(0, "a"), (10, "a")]);
        assert_eq!(trace.outage(begun + Duration::from_millis(5)), Duration::from_millis(90));
        assert_eq!(trace.takeover(begun, "b"), None);
    }
}
