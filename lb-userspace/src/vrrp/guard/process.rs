//! The guard's own process.

use std::{
    io::{self, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::UnixStream,
    },
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
};

use super::{
    Plan,
    hands::{Hands, Outcome, RealHands, give_up},
    shared::{Page, Phase, monotonic},
    surroundings,
    watch::{Action, Sight, Watch},
    wire::{self, Answer, Frames, Order, Read},
};

/// How long the agent, which waits for it, may need to take an answer.
const ANSWERING: Duration = Duration::from_secs(1);

/// Guards the agent that has started this process, until it ends.
///
/// # Errors
/// When `shared` and `socket` are not what an agent hands over, or it says what cannot be understood. Then nothing has been
/// given up: the agent lives, and starts another guard.
pub fn run(shared: OwnedFd, socket: OwnedFd) -> io::Result<()> {
    surroundings::ignore_signals()?;
    surroundings::settle();
    let page = Page::open(shared)?;
    let mut hands = RealHands::default();
    Process::new(page, socket.into(), &mut hands).run()
}

struct Process<'a> {
    page: Page,
    socket: UnixStream,
    frames: Frames,
    /// A descriptor whose plan has not come as a whole.
    map: Option<OwnedFd>,
    hands: &'a mut dyn Hands,
    generation: u32,
    plan: Plan,
    watch: Watch,
    /// When the page is looked at next; `None`: there is nothing to give up in any case.
    due: Option<Duration>,
}

impl<'a> Process<'a> {
    fn new(page: Page, socket: UnixStream, hands: &'a mut dyn Hands) -> Self {
        Self {
            page,
            socket,
            frames: Frames::default(),
            map: None,
            hands,
            generation: 0,
            plan: Plan::default(),
            watch: Watch::new(Duration::ZERO),
            due: None,
        }
    }

    fn run(mut self) -> io::Result<()> {
        loop {
            self.wait()?;
            match wire::read(&self.socket, &mut self.frames)? {
                Read::Nothing => {}
                Read::Bytes(map) => {
                    self.map = map.or(self.map.take());
                    while let Some(order) = self.frames.next()? {
                        match order {
                            Order::Plan { generation, plan } => self.take(generation, plan.into_owned())?,
                            Order::Bye => return Ok(()),
                        }
                    }
                }
                Read::End => {
                    self.bury();
                    return Ok(());
                }
            }
            let now = monotonic();
            if let Some(due) = self.due
                && now >= due
            {
                self.look(now, now - due);
                self.due = Some(monotonic() + self.watch.period());
            }
        }
    }

    /// Waits until the agent says something or ends, or it is time to look.
    fn wait(&self) -> io::Result<()> {
        let timeout = self.due.map(|due| due.saturating_sub(monotonic()).into());
        match ppoll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], timeout, None) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn take(&mut self, generation: u32, plan: Plan) -> io::Result<()> {
        let warnings = self.hands.prepare(&plan, self.map.take());
        self.generation = generation;
        self.watch = Watch::new(Duration::from_millis(plan.watchdog_ms));
        self.due = (!plan.instances.is_empty()).then(|| monotonic() + self.watch.period());
        self.plan = plan;
        let answer = wire::frame(&Answer { generation, warnings })?;
        match wire::send(&self.socket, &answer, None, Instant::now() + ANSWERING) {
            // It died meanwhile, which is seen next.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) =>
            {
                Ok(())
            }
            sent => sent,
        }
    }

    fn look(&mut self, now: Duration, lateness: Duration) {
        let beat = self.page.beat();
        let is_at_stake = self.page.phase() == Phase::Agent
            && self.page.masters(self.generation, self.plan.instances.len()).next().is_some();
        match self.watch.look(Sight { now, lateness, beat, is_at_stake }) {
            Action::Wait => {}
            Action::Seize => self.seize(now.saturating_sub(beat)),
        }
    }

    /// The agent lives but is silent.
    fn seize(&mut self, silence: Duration) {
        if !self.page.change(Phase::Agent, Phase::Seized) {
            return;
        }
        let masters = self.masters();
        let outcome = self.give_up(&masters, false);
        self.page.clear_masters(self.generation);
        self.page.change(Phase::Seized, Phase::Done);
        let why = format!("the VRRP driver has been silent for {} ms", silence.as_millis());
        self.tell(&why, &masters, &outcome);
    }

    /// The agent is dead.
    fn bury(&mut self) {
        let is_agents = self.page.phase() == Phase::Agent;
        let masters = if is_agents {
            self.masters()
        } else {
            // It had not noticed, or not said, that it had lost its addresses: it may have been about to add some when it was
            // stopped, and have gone on with that.
            (0..self.plan.instances.len()).collect()
        };
        let outcome = self.give_up(&masters, !is_agents);
        if is_agents || outcome.addresses > 0 {
            self.tell("the agent is gone", &masters, &outcome);
        }
    }

    fn masters(&self) -> Vec<usize> {
        self.page.masters(self.generation, self.plan.instances.len()).collect()
    }

    fn give_up(&mut self, masters: &[usize], mute: bool) -> Outcome {
        let plans: Vec<_> = masters.iter().map(|&instance| &self.plan.instances[instance]).collect();
        give_up(&plans, mute, self.hands)
    }

    /// Comes after everything else, as whoever reads it may be slow.
    fn tell(&self, why: &str, masters: &[usize], outcome: &Outcome) {
        let names: Vec<_> = masters.iter().map(|&n| self.plan.instances[n].name.as_str()).collect();
        let Some(text) = describe(why, &names, outcome) else { return };
        // Nobody may be there to read it.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}

/// So many instances are named in a message.
const MOST_NAMES: usize = 10;

/// The message about having given up; `None`: there was nothing to give up.
fn describe(why: &str, names: &[&str], outcome: &Outcome) -> Option<String> {
    if names.is_empty() {
        return None;
    }
    let mut which = names[..names.len().min(MOST_NAMES)].join(", ");
    if names.len() > MOST_NAMES {
        which += &format!(" and {} more", names.len() - MOST_NAMES);
    }
    let addresses = match outcome.addresses {
        1 => "1 address".to_owned(),
        count => format!("{count} addresses"),
    };
    let mut text = format!("xdirector guard: {why}: gave up {which} ({addresses} removed)\n");
    for failure in &outcome.failures {
        text += &format!("xdirector guard: {failure}\n");
    }
    if outcome.more_failures > 0 {
        text += &format!("xdirector guard: and {} more failures\n", outcome.more_failures);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, thread::JoinHandle};

    use super::{
        super::tests::{FakeHands, plan},
        *,
    };

    /// A guard in a thread, with hands that only write down what they do.
    struct Scene {
        page: Page,
        socket: UnixStream,
        frames: Frames,
        thread: JoinHandle<(io::Result<()>, Vec<String>)>,
    }

    impl Scene {
        fn start() -> Self {
            let page = Page::create().unwrap();
            let theirs = Page::open(page.as_fd().try_clone_to_owned().unwrap()).unwrap();
            let (socket, their_socket) = UnixStream::pair().unwrap();
            let thread = std::thread::spawn(move || {
                let mut hands = FakeHands { warnings: vec!["a warning".into()], ..FakeHands::default() };
                let result = Process::new(theirs, their_socket, &mut hands).run();
                (result, hands.done)
            });
            Self { page, socket, frames: Frames::default(), thread }
        }

        fn send(&self, order: &Order<'_>) {
            let deadline = Instant::now() + Duration::from_secs(20);
            wire::send(&self.socket, &wire::frame(order).unwrap(), None, deadline).unwrap();
        }

        fn plan(&mut self, generation: u32, plan: &Plan) {
            self.send(&Order::Plan { generation, plan: Cow::Borrowed(plan) });
            let deadline = Instant::now() + Duration::from_secs(20);
            let answer: Answer = wire::receive(&self.socket, &mut self.frames, deadline).unwrap();
            assert_eq!(answer, Answer { generation, warnings: vec!["a warning".into()] });
        }

        /// What it did until the agent ended.
        fn end(self) -> Vec<String> {
            let Self { socket, thread, .. } = self;
            drop(socket);
            let (result, done) = thread.join().unwrap();
            result.unwrap();
            done
        }

        fn wait_for(&self, phase: Phase) {
            for _ in 0..20_000 {
                if self.page.phase() == phase {
                    return;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            panic!("the phase is {:?}", self.page.phase());
        }
    }

    /// A plan under which nobody is ever too silent.
    fn patient(count: u16) -> Plan {
        Plan { watchdog_ms: 3_600_000, ..plan(count) }
    }

    fn roles(done: &[String]) -> Vec<&str> {
        done.iter().filter_map(|done| done.strip_prefix("role ")).collect()
    }

    #[test]
    fn what_it_says() {
        let mut outcome = Outcome { addresses: 1, ..Outcome::default() };
        assert_eq!(
            describe("the agent is gone", &["VI_1", "VI_2"], &outcome).unwrap(),
            "xdirector guard: the agent is gone: gave up VI_1, VI_2 (1 address removed)\n"
        );
        outcome = Outcome { addresses: 0, failures: vec!["VI: no".into()], more_failures: 3 };
        assert_eq!(
            describe("why", &["VI"; 12], &outcome).unwrap(),
            "xdirector guard: why: gave up VI, VI, VI, VI, VI, VI, VI, VI, VI, VI and 2 more (0 addresses removed)\n\
             xdirector guard: VI: no\n\
             xdirector guard: and 3 more failures\n"
        );
        assert_eq!(describe("why", &[], &outcome), None);
    }

    #[test]
    fn the_death_of_the_agent_ends_what_it_was_master_of() {
        let mut scene = Scene::start();
        scene.plan(1, &patient(4));
        scene.page.set_master(1, 1, true);
        scene.page.set_master(1, 3, true);
        let done = scene.end();
        assert_eq!(roles(&done), ["1", "3"]);
        assert!(done[0].starts_with("say"), "{done:?}");
    }

    #[test]
    fn the_death_of_one_that_is_master_of_nothing_changes_nothing() {
        let mut scene = Scene::start();
        assert_eq!(Scene::start().end(), [""; 0], "before the first plan");
        scene.plan(1, &patient(4));
        scene.page.set_master(1, 1, true);
        scene.page.set_master(1, 1, false);
        assert_eq!(scene.end(), [""; 0]);
    }

    #[test]
    fn after_a_good_bye_nothing_is_done() {
        let mut scene = Scene::start();
        scene.plan(1, &patient(4));
        scene.page.set_master(1, 1, true);
        scene.send(&Order::Bye);
        assert_eq!(scene.end(), [""; 0]);
    }

    #[test]
    fn a_new_plan_counts_with_its_own_masters() {
        let mut scene = Scene::start();
        scene.plan(1, &patient(4));
        scene.page.set_master(1, 0, true);
        scene.page.set_master(2, 2, true);
        scene.plan(2, &patient(4));
        assert_eq!(roles(&scene.end()), ["2"]);
    }

    #[test]
    fn a_plan_that_came_in_part_does_not_count() {
        let mut scene = Scene::start();
        scene.plan(1, &patient(4));
        scene.page.set_master(1, 1, true);
        scene.page.set_master(2, 2, true);
        let bytes = wire::frame(&Order::Plan { generation: 2, plan: Cow::Owned(patient(4)) }).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        wire::send(&scene.socket, &bytes[..bytes.len() - 1], None, deadline).unwrap();
        assert_eq!(roles(&scene.end()), ["1"]);
    }

    #[test]
    fn nonsense_ends_it_without_giving_up() {
        let mut scene = Scene::start();
        scene.plan(1, &patient(4));
        scene.page.set_master(1, 1, true);
        let deadline = Instant::now() + Duration::from_secs(20);
        wire::send(&scene.socket, b"\xff\xff\xff\xff", None, deadline).unwrap();
        let (result, done) = scene.thread.join().unwrap();
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(done, [""; 0]);
    }

    #[test]
    fn silence_is_the_end_too_and_only_once() {
        let mut scene = Scene::start();
        scene.page.set_master(1, 2, true);
        scene.plan(1, &Plan { watchdog_ms: 40, ..plan(4) });
        scene.wait_for(Phase::Done);
        assert_eq!(scene.page.masters(1, 4).count(), 0);
        // The agent wakes up, takes note, and is master again later.
        scene.page.set_beat(monotonic() + Duration::from_secs(3600));
        assert!(scene.page.change(Phase::Done, Phase::Agent));
        scene.page.set_master(1, 3, true);
        assert_eq!(roles(&scene.end()), ["2", "3"]);
    }

    #[test]
    fn one_that_dies_before_it_has_noticed_leaves_nothing() {
        let mut scene = Scene::start();
        scene.page.set_master(1, 1, true);
        scene.plan(1, &Plan { watchdog_ms: 40, ..plan(2) });
        scene.wait_for(Phase::Done);
        let done = scene.end();
        assert_eq!(roles(&done), ["1", "1"]);
        assert_eq!(done.iter().filter(|done| done.starts_with("say")).count(), 1, "not a second time");
        assert_eq!(done.iter().filter(|done| done.starts_with("address")).count(), 2 + 4, "of all instances");
    }
}
