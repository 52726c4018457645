//! `xdirector top`: a monitor for the terminal, which also drains and enables real servers.
//!
//! `app` decides and `view` draws; both are pure. Threads of `worker` wait for the agent and the keyboard.

pub mod app;
mod keys;
mod layout;
mod look;
mod pane;
mod rows;
pub mod screen;
mod table;
mod view;
pub mod worker;

use std::{
    env,
    ffi::OsStr,
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    sync::mpsc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use ratatui::{
    Terminal,
    backend::{CrosstermBackend, TestBackend},
    crossterm::{event::Event, terminal},
};

pub use self::view::view;
use self::{
    app::{App, Effect, Input},
    screen::Screen,
};
use super::{SocketArgs, closed_is_done};
use crate::api::Client;

/// Arguments of `xdirector top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
    /// Ask the agent every so many seconds; fractions too
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = seconds)]
    pub interval: Duration,
    /// Use no colours; so does the environment variable NO_COLOR
    #[arg(long)]
    pub no_color: bool,
    /// Print what the screen would show, as text, and end
    #[arg(long, conflicts_with = "interval")]
    pub once: bool,
    /// Columns of that screen
    #[arg(
        long, value_name = "COLUMNS", requires = "once", default_value = "80",
        value_parser = clap::value_parser!(u16).range(60..=400)
    )]
    pub width: u16,
    /// Lines of that screen
    #[arg(
        long, value_name = "LINES", requires = "once", default_value = "24",
        value_parser = clap::value_parser!(u16).range(12..=160)
    )]
    pub height: u16,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("not a number of seconds from 0.1 to 3600".into()),
    }
}

/// Shows the agent until `q`, Ctrl-C or a signal. An agent that does not answer is asked again and again.
///
/// # Errors
///
/// Standard output is no terminal, or the terminal is gone. With `--once` no agent or no answer.
pub fn run(args: &TopArgs) -> anyhow::Result<()> {
    let socket = args.socket.path();
    if args.once {
        let text = once(&socket, args.width, args.height)?;
        return Ok(closed_is_done(io::stdout().lock().write_all(text.as_bytes()))?);
    }
    if !io::stdout().is_terminal() {
        bail!("standard output is no terminal; use status --watch, or top --once for one picture");
    }
    let has_colour = !args.no_color && wants_colour(env::var_os("NO_COLOR").as_deref());
    Monitor::start(&socket, args.interval, has_colour)?.run()
}

/// <https://no-color.org>: set and not empty.
fn wants_colour(no_color: Option<&OsStr>) -> bool {
    no_color.is_none_or(OsStr::is_empty)
}

fn once(socket: &Path, width: u16, height: u16) -> anyhow::Result<String> {
    let status = Client::new(socket)?.status()?;
    let mut app = App::new(socket.display().to_string(), Duration::from_secs(1), false, width, height);
    app.update(Duration::ZERO, Input::Status(Ok(Box::new(status))));
    picture(&app, width, height)
}

/// The screen as text, without the blanks at the ends of lines.
fn picture(app: &App, width: u16, height: u16) -> anyhow::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height))?;
    terminal.draw(|frame| view(app, frame))?;
    let cells = terminal.backend().buffer().content();
    let lines = cells.chunks(usize::from(width).max(1)).map(|line| {
        let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    Ok(lines.collect())
}

/// Uptimes and ages move on without an answer.
const TICK: Duration = Duration::from_secs(1);

enum Message {
    Input(Input),
    Terminal(io::Result<Event>),
    Stop,
}

/// The monitor with everything it is connected to.
struct Monitor {
    app: App,
    started: Instant,
    messages: mpsc::Receiver<Message>,
    hurry: mpsc::Sender<()>,
    ask: mpsc::Sender<worker::Question>,
    terminal: Terminal<CrosstermBackend<io::Stdout>>,
    /// Last: nothing is drawn after it.
    _screen: Screen,
}

impl Monitor {
    fn start(socket: &Path, every: Duration, has_colour: bool) -> anyhow::Result<Self> {
        let (send, messages) = mpsc::channel();
        let stop = send.clone();
        // Before the other threads, so that none of them takes the signal.
        screen::on_stop_signal(move || drop(stop.send(Message::Stop)))?;

        let (width, height) = terminal::size().context("cannot read the terminal's size")?;
        let screen = Screen::enter(screen::Keys::ToTheProgram).context("cannot set up the terminal")?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;

        let to = send.clone();
        let hurry = worker::poll(socket, every, move |answer| {
            to.send(Message::Input(Input::Status(answer))).is_ok()
        })?;
        let to = send.clone();
        let ask = worker::ask(socket, move |input| to.send(Message::Input(input)).is_ok())?;
        worker::read_keys(move |event| send.send(Message::Terminal(event)).is_ok())?;

        let app = App::new(socket.display().to_string(), every, has_colour, width, height);
        Ok(Self { app, started: Instant::now(), messages, hurry, ask, terminal, _screen: screen })
    }

    fn run(mut self) -> anyhow::Result<()> {
        loop {
            self.terminal.draw(|frame| view(&self.app, frame)).context("cannot draw")?;
            let first = match self.messages.recv_timeout(TICK) {
                Ok(message) => message,
                Err(_) => Message::Input(Input::Tick),
            };
            // Everything that has come meanwhile, before the next picture: a held key must not lag behind.
            let mut next = Some(first);
            while let Some(message) = next {
                let input = match message {
                    Message::Stop => return Ok(()),
                    Message::Input(input) => input,
                    Message::Terminal(event) => match event.context("cannot read the keyboard")? {
                        Event::Key(key) => Input::Key(key),
                        Event::Resize(width, height) => Input::Resize { width, height },
                        _ => Input::Tick,
                    },
                };
                let effect = self.app.update(self.started.elapsed(), input);
                if effect.is_some_and(|effect| self.is_last(effect)) {
                    return Ok(());
                }
                next = self.messages.try_recv().ok();
            }
        }
    }

    /// Does what the monitor wants; true when that is to leave. The threads live as long as the monitor, because a
    /// panic of one ends the process.
    fn is_last(&mut self, effect: Effect) -> bool {
        match effect {
            Effect::Quit => return true,
            Effect::Order(order) => drop(self.ask.send(worker::Question::Order(order))),
            Effect::Events => drop(self.ask.send(worker::Question::Events)),
            Effect::Refresh => drop(self.hurry.send(())),
        }
        false
    }
}

#[cfg(test)]
mod tests;
