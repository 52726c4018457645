//! What the monitor knows and how that changes. Pure: inputs and the time come in, wishes go out.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use ratatui::{crossterm::event::KeyEvent, layout::Rect};

use super::{
    layout::Areas,
    rows::{Choice, Row, RowKey, Sort, VirtualKey},
};
use crate::{
    api::{
        Order, Ordered, StateEvent, Status,
        types::{Action, RealServerStatus},
    },
    cli::status::words::{plain, reload_failure},
};

/// What happens to the monitor.
#[derive(Debug)]
pub enum Input {
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has this size now.
    Resize {
        /// Columns.
        width: u16,
        /// Lines.
        height: u16,
    },
    /// Time went by.
    Tick,
    /// The agent's status, or why there is none.
    Status(Result<Box<Status>, String>),
    /// What became of an order.
    Ordered(Order, Result<Ordered, String>),
    /// The agent's events, oldest first, or why there are none.
    Events(Result<Vec<StateEvent>, String>),
}

/// What the monitor wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Leave.
    Quit,
    /// Give an order; the answer is [`Input::Ordered`].
    Order(Order),
    /// Ask for the events; the answer is [`Input::Events`].
    Events,
    /// Ask for the status now instead of at the next turn.
    Refresh,
}

/// What the lower part of the screen shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Detail,
    Events,
}

/// Who gets the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mode {
    Table,
    Help,
    /// The filter is typed; the old one comes back with Escape.
    Filter {
        old: String,
    },
    /// A weight is typed.
    Weight {
        target: Target,
        text: String,
    },
    /// An order waits for a yes.
    Confirm {
        target: Target,
        action: Action,
    },
}

/// The real server that an order is for, as it was when the key was pressed: rows move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub virtual_server: String,
    pub address: SocketAddr,
    pub active: u64,
    pub inactive: u64,
    pub weight: u32,
}

/// What stands in the message line until the next key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub text: String,
    pub is_error: bool,
}

/// The monitor.
#[derive(Debug)]
pub struct App {
    pub(super) socket: String,
    pub(super) every: Duration,
    pub(super) has_colour: bool,
    pub(super) size: Rect,
    pub(super) now: Duration,
    pub(super) status: Option<Box<Status>>,
    /// When the last good answer came; at first when the asking began.
    pub(super) answered_at: Duration,
    /// Why the last question had no answer.
    pub(super) failure: Option<String>,
    pub(super) choice: Choice,
    pub(super) rows: Vec<Row>,
    pub(super) selected: usize,
    /// The first row in sight.
    pub(super) top: usize,
    pub(super) pane: Option<Pane>,
    /// Lines of the pane above its upper edge.
    pub(super) pane_top: usize,
    pub(super) mode: Mode,
    pub(super) message: Option<Message>,
    pub(super) events: Option<Vec<StateEvent>>,
    is_asking_events: bool,
}

impl App {
    /// A monitor of the agent at `socket`, which is asked every `every`, on a screen of `width` times `height`.
    pub fn new(
        socket: impl Into<String>,
        every: Duration,
        has_colour: bool,
        width: u16,
        height: u16,
    ) -> Self {
        Self {
            socket: socket.into(),
            every,
            has_colour,
            size: Rect::new(0, 0, width, height),
            now: Duration::ZERO,
            status: None,
            answered_at: Duration::ZERO,
            failure: None,
            choice: Choice {
                sort: Sort::Configuration,
                reverse: false,
                filter: String::new(),
                folded: HashSet::new(),
            },
            rows: Vec::new(),
            selected: 0,
            top: 0,
            pane: None,
            pane_top: 0,
            mode: Mode::Table,
            message: None,
            events: None,
            is_asking_events: false,
        }
    }

    /// Takes an input. `now` is the time since the monitor began.
    pub fn update(&mut self, now: Duration, input: Input) -> Option<Effect> {
        self.now = now;
        let effect = match input {
            Input::Key(key) => self.key(key),
            Input::Resize { width, height } => {
                self.size = Rect::new(0, 0, width, height);
                None
            }
            Input::Tick => None,
            Input::Status(Ok(status)) => {
                self.answered(status);
                // An open events pane is as fresh as the table above it.
                (self.pane == Some(Pane::Events)).then(|| self.ask_events()).flatten()
            }
            Input::Status(Err(failure)) => {
                self.failure = Some(plain(&failure));
                None
            }
            Input::Ordered(order, answer) => self.ordered(&order, answer),
            Input::Events(answer) => {
                self.is_asking_events = false;
                match answer {
                    Ok(events) => self.events = Some(events),
                    Err(failure) => self.complain(format!("no events: {failure}")),
                }
                None
            }
        };
        self.keep_selection_in_sight();
        effect
    }

    /// What a person must know whatever else is shown, one line each.
    pub(super) fn alerts(&self) -> Vec<String> {
        let mut alerts = Vec::new();
        let Some(status) = &self.status else { return alerts };
        let silent = self.now.saturating_sub(self.answered_at);
        let patience = (3 * self.every).max(Duration::from_secs(3));
        if self.failure.is_some() || silent > patience {
            let why = self.failure.as_deref().unwrap_or("the agent is silent");
            alerts.push(format!("NO ANSWER for {} s, the table is old: {why}", silent.as_secs()));
        }
        if let Some(failure) = reload_failure(&status.configuration) {
            alerts.push(format!("Reload {failure}"));
        }
        alerts
    }

    pub(super) fn areas(&self, area: Rect) -> Areas {
        Areas::of(area, self.alerts().len(), self.pane.is_some())
    }

    /// The rows in sight: all that is drawn, however many there are.
    pub(super) fn rows_in_sight(&self, lines: usize) -> &[Row] {
        let top = self.top.min(self.rows.len());
        &self.rows[top..self.rows.len().min(top + lines)]
    }

    pub(super) fn selected_row(&self) -> Option<Row> {
        self.rows.get(self.selected).copied()
    }

    /// The selected real server with its virtual server's name.
    pub(super) fn selected_server(&self) -> Option<(&str, &RealServerStatus)> {
        let Row::Real(virtual_server, real) = self.selected_row()? else { return None };
        let virtual_server = &self.status.as_ref()?.virtual_servers[virtual_server];
        Some((&virtual_server.name, &virtual_server.real_servers[real]))
    }

    /// Changes what is listed; the selected row stays selected when it is still there.
    pub(super) fn rearrange(&mut self, change: impl FnOnce(&mut Choice)) {
        let key = self.selected_key();
        change(&mut self.choice);
        self.list(key);
    }

    /// Folds the selected virtual server, or the one of the selected real server, or unfolds it.
    pub(super) fn fold(&mut self) {
        let (Some(row), Some(status)) = (self.selected_row(), &self.status) else { return };
        let key = VirtualKey::of(&status.virtual_servers[row.virtual_server()]);
        if !self.choice.folded.remove(&key) {
            self.choice.folded.insert(key.clone());
        }
        self.list(Some(RowKey::Virtual(key)));
    }

    /// Folds all virtual servers, or unfolds them when any is folded.
    pub(super) fn fold_all(&mut self) {
        let (Some(row), Some(status)) = (self.selected_row(), &self.status) else { return };
        let key = VirtualKey::of(&status.virtual_servers[row.virtual_server()]);
        self.choice.folded = if self.choice.folded.is_empty() {
            status.virtual_servers.iter().map(VirtualKey::of).collect()
        } else {
            HashSet::new()
        };
        self.list(Some(RowKey::Virtual(key)));
    }

    pub(super) fn ask_events(&mut self) -> Option<Effect> {
        // One question at a time, or a slow agent gets ever more of them.
        (!std::mem::replace(&mut self.is_asking_events, true)).then_some(Effect::Events)
    }

    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.message = Some(Message { text: text.into(), is_error: false });
    }

    pub(super) fn complain(&mut self, text: impl AsRef<str>) {
        self.message = Some(Message { text: plain(text.as_ref()), is_error: true });
    }

    fn answered(&mut self, status: Box<Status>) {
        let key = self.selected_key();
        if let Some(old) = &self.status
            && old.pid != status.pid
        {
            self.say(format!("The agent is another process now (pid {}, was {}).", status.pid, old.pid));
        }
        self.status = Some(status);
        self.answered_at = self.now;
        self.failure = None;
        self.list(key);
    }

    fn ordered(&mut self, order: &Order, answer: Result<Ordered, String>) -> Option<Effect> {
        let what = match order.action {
            Action::Drain { .. } => "Drain".to_owned(),
            Action::Disable => "Disable".to_owned(),
            Action::Enable => "Enable".to_owned(),
            Action::Weight { weight } => format!("Weight {weight}"),
        };
        match answer {
            Err(failure) => {
                self.complain(format!("{what} {}: {failure}", order.server));
                None
            }
            Ok(Ordered { servers, not_kept }) => {
                let servers: Vec<_> = servers
                    .iter()
                    .map(|server| {
                        format!(
                            "{} of {} ({} connections)",
                            server.address, server.virtual_server, server.connections
                        )
                    })
                    .collect();
                let done = format!("{what}: done for {}", servers.join(", "));
                match not_kept {
                    None => self.say(plain(&done)),
                    // Not done as a person expects it: this must catch the eye.
                    Some(reason) => self.complain(format!("{done}, but not kept over a restart: {reason}")),
                }
                Some(Effect::Refresh)
            }
        }
    }

    fn selected_key(&self) -> Option<RowKey> {
        Some(RowKey::of(self.status.as_ref()?, self.selected_row()?))
    }

    fn list(&mut self, selected: Option<RowKey>) {
        let Some(status) = &self.status else { return };
        self.rows = self.choice.rows(status);
        if let Some(found) = selected.and_then(|key| key.find(status, &self.rows)) {
            self.selected = found;
        }
    }

    fn keep_selection_in_sight(&mut self) {
        let lines = self.areas(self.size).table.height.max(1).into();
        self.selected = self.selected.min(self.rows.len().saturating_sub(1));
        self.top = self.top.clamp((self.selected + 1).saturating_sub(lines), self.selected);
        // No empty lines below while there are rows above.
        self.top = self.top.min(self.rows.len().saturating_sub(lines));
    }
}
