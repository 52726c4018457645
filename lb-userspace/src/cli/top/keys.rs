//! What the keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::{
    app::{App, Effect, Mode, Pane, Target},
    rows::Sort,
};
use crate::api::{Order, types::Action};

/// What the help says, key and effect.
pub(super) const HELP: &[(&str, &str)] = &[
    ("Up Down k j", "select; PageUp, PageDown, Home and End too"),
    ("Enter Space", "fold or unfold the virtual server"),
    ("z", "fold or unfold all"),
    ("/", "filter by name, address, protocol or state"),
    ("Esc", "close the lower part, then clear the filter"),
    ("n", "order as configured; again: by name"),
    ("a c b s", "order by active, new/s, bit/s, state"),
    ("r", "reverse the order"),
    ("i", "details of the selected server"),
    ("E", "the last events, newest first"),
    ("K J", "scroll the lower part"),
    ("d", "drain: no new connections, old ones go on"),
    ("D", "disable: take out, as if a check had failed"),
    ("e", "enable: lift what was ordered"),
    ("w", "set the weight"),
    ("q", "quit; Ctrl-C too"),
    ("", "Weight 5(1): 5 now, 1 configured; 300*: see i"),
];

const MOST_FILTER: usize = 64;
const MOST_WEIGHT: u32 = 65_535;

impl App {
    pub(super) fn key(&mut self, key: KeyEvent) -> Option<Effect> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
            // Any other is not the letter alone: Ctrl-D drains nobody.
            return (key.code == KeyCode::Char('c')).then_some(Effect::Quit);
        }
        match self.mode.clone() {
            Mode::Table => {
                self.message = None;
                self.table_key(key.code)
            }
            Mode::Help => {
                self.mode = Mode::Table;
                None
            }
            Mode::Filter { old } => {
                self.filter_key(key.code, old);
                None
            }
            Mode::Weight { target, text } => {
                self.weight_key(key.code, target, text);
                None
            }
            Mode::Confirm { target, action } => self.confirm_key(key.code, target, action),
        }
    }

    fn table_key(&mut self, code: KeyCode) -> Option<Effect> {
        let page = usize::from(self.areas(self.size).table.height).max(2) - 1;
        let last = self.rows.len().saturating_sub(1);
        match code {
            KeyCode::Char('q') => return Some(Effect::Quit),
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => self.selected = (self.selected + 1).min(last),
            KeyCode::PageUp => self.selected = self.selected.saturating_sub(page),
            KeyCode::PageDown => self.selected = (self.selected + page).min(last),
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = last,
            KeyCode::Enter | KeyCode::Char(' ') => self.fold(),
            KeyCode::Char('z') => self.fold_all(),
            KeyCode::Char('/') => self.mode = Mode::Filter { old: self.choice.filter.clone() },
            KeyCode::Char('?') => self.mode = Mode::Help,
            KeyCode::Esc if self.pane.is_some() => self.pane = None,
            KeyCode::Esc => self.rearrange(|choice| choice.filter.clear()),
            KeyCode::Char('n') => self.rearrange(|choice| {
                choice.sort =
                    if choice.sort == Sort::Configuration { Sort::Name } else { Sort::Configuration };
            }),
            KeyCode::Char('a') => self.rearrange(|choice| choice.sort = Sort::Active),
            KeyCode::Char('c') => self.rearrange(|choice| choice.sort = Sort::Connections),
            KeyCode::Char('b') => self.rearrange(|choice| choice.sort = Sort::Bytes),
            KeyCode::Char('s') => self.rearrange(|choice| choice.sort = Sort::State),
            KeyCode::Char('r') => self.rearrange(|choice| choice.reverse = !choice.reverse),
            KeyCode::Char('i') => self.toggle(Pane::Detail),
            KeyCode::Char('E') => {
                self.toggle(Pane::Events);
                return (self.pane == Some(Pane::Events)).then(|| self.ask_events()).flatten();
            }
            KeyCode::Char('J') => self.scroll_pane(true),
            KeyCode::Char('K') => self.scroll_pane(false),
            KeyCode::Char('d') => self.confirm(Action::Drain { timeout_seconds: None }),
            KeyCode::Char('D') => self.confirm(Action::Disable),
            KeyCode::Char('e') => self.confirm(Action::Enable),
            KeyCode::Char('w') => {
                if let Some(target) = self.target() {
                    self.mode = Mode::Weight { target, text: String::new() };
                }
            }
            _ => {}
        }
        None
    }

    fn toggle(&mut self, pane: Pane) {
        self.pane = (self.pane != Some(pane)).then_some(pane);
        self.pane_top = 0;
    }

    fn scroll_pane(&mut self, is_down: bool) {
        let Some(area) = self.areas(self.size).pane else { return };
        let body = usize::from(area.height.saturating_sub(1));
        let most = self.pane_lines(area.width.into()).len().saturating_sub(body);
        let step = (body / 2).max(1);
        let moved = if is_down { self.pane_top + step } else { self.pane_top.saturating_sub(step) };
        self.pane_top = moved.min(most);
    }

    fn filter_key(&mut self, code: KeyCode, old: String) {
        match code {
            KeyCode::Enter => self.mode = Mode::Table,
            KeyCode::Esc => {
                self.mode = Mode::Table;
                self.rearrange(|choice| choice.filter = old);
            }
            KeyCode::Backspace => self.rearrange(|choice| {
                let _ = choice.filter.pop();
            }),
            KeyCode::Char(letter) if self.choice.filter.chars().count() < MOST_FILTER => {
                self.rearrange(|choice| choice.filter.push(letter));
            }
            _ => {}
        }
    }

    fn weight_key(&mut self, code: KeyCode, target: Target, mut text: String) {
        match code {
            KeyCode::Esc => self.give_up(),
            KeyCode::Enter => match text.parse() {
                Ok(weight) if weight <= MOST_WEIGHT => {
                    self.mode = Mode::Confirm { target, action: Action::Weight { weight } };
                }
                _ => {
                    self.mode = Mode::Table;
                    self.complain(format!("A weight is a number from 0 to {MOST_WEIGHT}; nothing ordered."));
                }
            },
            KeyCode::Backspace => {
                text.pop();
                self.mode = Mode::Weight { target, text };
            }
            KeyCode::Char(digit) if digit.is_ascii_digit() && text.len() < 5 => {
                text.push(digit);
                self.mode = Mode::Weight { target, text };
            }
            _ => {}
        }
    }

    fn confirm_key(&mut self, code: KeyCode, target: Target, action: Action) -> Option<Effect> {
        if !matches!(code, KeyCode::Char('y' | 'Y')) {
            self.give_up();
            return None;
        }
        self.mode = Mode::Table;
        self.say(format!("Ordering it for {} of {} ...", target.address, target.virtual_server));
        Some(Effect::Order(Order {
            server: target.address.to_string(),
            virtual_server: Some(target.virtual_server),
            action,
        }))
    }

    fn give_up(&mut self) {
        self.mode = Mode::Table;
        self.say("Nothing ordered.");
    }

    fn confirm(&mut self, action: Action) {
        if let Some(target) = self.target() {
            self.mode = Mode::Confirm { target, action };
        }
    }

    /// The selected real server, or a message that there is none.
    fn target(&mut self) -> Option<Target> {
        let target = self.selected_server().map(|(virtual_server, server)| Target {
            virtual_server: virtual_server.to_owned(),
            address: server.address,
            active: server.active,
            inactive: server.inactive,
            weight: server.weight,
        });
        if target.is_none() {
            self.complain("Select a real server first: orders are for one of them.");
        }
        target
    }
}
