//! The script: what happens to a pair, and how it gets back to where it was.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use lab::failover::{Holders, Kind, Router, Scene, VIP4, Watch, start};

use super::{Config, STANDSTILL, WINDOW};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);
/// For how long a client goes on asking when everything seems to be over.
const CALM: Duration = Duration::from_millis(200);
/// So long before the first answer of the master that is back its predecessor has answered for the last time, at the most.
const CHANGE: Duration = Duration::from_millis(20);

/// What happens. Two figures come from one of them where that spares a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The master's cable.
    SilentCut,
    /// The master's interface.
    LinkDown,
    /// SIGTERM, and the start after it.
    GracefulStop,
    /// SIGKILL.
    Kill,
    /// SIGSTOP for [`STANDSTILL`].
    Standstill,
}

impl Failure {
    /// All, in the report's order.
    pub const ALL: [Self; 5] =
        [Self::SilentCut, Self::LinkDown, Self::GracefulStop, Self::Kill, Self::Standstill];

    /// For the progress line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SilentCut => "silent cut",
            Self::LinkDown => "link down",
            Self::GracefulStop => "graceful stop",
            Self::Kill => "kill -9",
            Self::Standstill => "SIGSTOP",
        }
    }
}

/// A watch that goes on.
pub struct Watched {
    holders: Holders,
    adverts: Watch,
    master: IpAddr,
}

impl Watched {
    /// How often a machine took the address since `begun`, and the longest time between two adverts of the master.
    pub fn end(self, begun: Instant) -> Result<(usize, Duration)> {
        let takeovers = self.holders.stop()?.takeovers(begun);
        Ok((takeovers, self.adverts.stop().longest_gap(self.master)))
    }
}

/// Two directors of one program, of which the first is master.
pub struct Pair {
    config: Config,
    phase: Duration,
    routers: Vec<Box<dyn Router>>,
    holders: Holders,
    scene: Scene,
}

impl Pair {
    /// Starts it.
    pub fn start(kind: Kind, config: Config) -> Result<Self> {
        let label = format!("{kind}-{}", config.name().replace([' ', '.'], "-"));
        let scene = Scene::new(&label, 2)?;
        let holders = scene.holders(VIP4)?;
        let routers = Vec::new();
        let mut pair = Self { config, phase: Duration::ZERO, routers, holders, scene };
        for (machine, instance) in pair.scene.machines.iter().zip(config.instances()) {
            pair.routers.push(start(kind, machine, &[instance])?);
            // One that does not preempt must find the master when it starts.
            if pair.routers.len() == 1 {
                pair.await_master(0)?;
            }
        }
        pair.settle()?;
        Ok(pair)
    }

    /// Lets it happen, gets everything back, and gives the figures by their names.
    ///
    /// `phase`: how long after an advert of the master it happens. A backup counts its time from there, so both programs must meet
    /// the same ones.
    pub fn run(&mut self, failure: Failure, phase: Duration) -> Result<Vec<(&'static str, Duration)>> {
        self.phase = phase;
        let figures = match failure {
            Failure::SilentCut => {
                let outage = self.outage(|pair| pair.scene.machines[0].port.cut())?;
                self.scene.machines[0].port.mend()?;
                vec![("silent cut", outage)]
            }
            Failure::LinkDown => {
                let outage = self.outage(|pair| pair.scene.machines[0].port.set_link(false))?;
                self.scene.machines[0].port.set_link(true)?;
                vec![("link down", outage)]
            }
            Failure::GracefulStop => self.graceful_stop()?,
            Failure::Kill => self.kill()?,
            Failure::Standstill => self.standstill()?,
        };
        self.settle()?;
        Ok(figures)
    }

    /// Watches for changes of which there should be none.
    pub fn watch(&self) -> Result<Watched> {
        let adverts = self.scene.watch()?;
        Ok(Watched {
            holders: self.scene.holders(VIP4)?,
            adverts,
            master: self.scene.machines[0].ipv4.into(),
        })
    }

    /// Ends both.
    pub fn stop(mut self) -> Result<()> {
        self.routers.iter_mut().try_for_each(|router| router.stop())
    }

    /// The longest time without an answer after an event that makes the second one master.
    fn outage(&mut self, event: impl FnOnce(&mut Self) -> Result<()>) -> Result<Duration> {
        let probe = self.scene.probe(VIP4)?;
        thread::sleep(CALM);
        self.await_phase()?;
        let begun = Instant::now();
        event(self)?;
        probe.await_answer(self.scene.machines[1].name, PATIENCE).with_context(|| self.logs())?;
        thread::sleep(CALM);
        Ok(probe.stop()?.outage(begun))
    }

    /// Waits for the master's next advert, and then for as long as the phase is.
    fn await_phase(&self) -> Result<()> {
        let watch = self.scene.watch()?;
        let before = watch.seen().0.len();
        let late = Instant::now() + PATIENCE;
        while watch.seen().0.len() == before {
            ensure!(Instant::now() < late, "no advert on the wire\n{}", self.logs());
            thread::sleep(Duration::from_micros(100));
        }
        thread::sleep(self.phase);
        Ok(())
    }

    fn graceful_stop(&mut self) -> Result<Vec<(&'static str, Duration)>> {
        let outage = self.outage(|pair| pair.routers[0].ask_to_stop())?;
        self.routers[0].await_end()?;
        let mut figures = vec![("graceful stop", outage)];
        if self.config.keeps() {
            self.routers[0].restart()?;
            return Ok(figures);
        }
        let probe = self.scene.probe(VIP4)?;
        let begun = Instant::now();
        self.routers[0].restart()?;
        self.await_master(0)?;
        let first = self.scene.machines[0].name;
        probe.await_answer(first, PATIENCE).with_context(|| self.logs())?;
        thread::sleep(CALM);
        let trace = probe.stop()?;
        // The change itself: the start of a program that loads another one into the kernel takes turns from the probes.
        let changed = begun + trace.takeover(begun, first).context("it has answered a moment ago")?;
        figures.push(("failback", trace.outage(changed - CHANGE.min(changed - begun))));
        Ok(figures)
    }

    fn kill(&mut self) -> Result<Vec<(&'static str, Duration)>> {
        let (probe, holders) = (self.scene.probe(VIP4)?, self.scene.holders(VIP4)?);
        thread::sleep(CALM);
        self.await_phase()?;
        let begun = Instant::now();
        self.routers[0].kill()?;
        let second = self.scene.machines[1].name;
        probe.await_answer(second, PATIENCE).with_context(|| self.logs())?;
        thread::sleep(WINDOW);
        let (trace, record) = (probe.stop()?, holders.stop()?);
        self.routers[0].restart()?;
        let takeover = trace.takeover(begun, second).context("it has answered a moment ago")?;
        // Not longer than the window that is promised.
        let doubled = record.doubled(begun).min(WINDOW);
        Ok(vec![("kill -9 takeover", takeover), ("kill -9 doubled", doubled)])
    }

    fn standstill(&mut self) -> Result<Vec<(&'static str, Duration)>> {
        let holders = self.scene.holders(VIP4)?;
        thread::sleep(CALM);
        let begun = Instant::now();
        self.routers[0].freeze()?;
        thread::sleep(STANDSTILL);
        self.routers[0].thaw()?;
        // Until they have agreed again.
        thread::sleep(self.config.interval() + CALM);
        let agreed = lab::registry::wait_until(PATIENCE, || self.holders.now().len() == 1);
        ensure!(agreed, "{:?} have the address:\n{}", self.holders.now(), self.logs());
        thread::sleep(CALM);
        let record = holders.stop()?;
        Ok(vec![("SIGSTOP doubled", record.doubled(begun))])
    }

    /// Makes the first one master again, and gives the second one time to see that.
    fn settle(&mut self) -> Result<()> {
        if self.config.keeps() && self.holders.now() != [0] {
            self.routers[1].stop()?;
            self.await_master(0)?;
            self.routers[1].restart()?;
        }
        self.await_master(0)?;
        thread::sleep(self.config.interval() * 2);
        // A late change of mind would be measured as part of the next failure.
        self.await_master(0)
    }

    fn await_master(&self, number: usize) -> Result<()> {
        let alone = self.holders.await_only(number, PATIENCE);
        alone.with_context(|| format!("{}: {}", IpAddr::from(VIP4), self.logs()))
    }

    fn logs(&self) -> String {
        let logs: Vec<String> = self.routers.iter().map(|router| router.log()).collect();
        logs.join("\n---\n")
    }
}
