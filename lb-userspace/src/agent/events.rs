//! What has happened lately, for people.

use std::collections::VecDeque;

use crate::api::types::StateEvent;

/// How many are kept.
const MOST: usize = 1000;

/// The last changes of state, oldest first.
#[derive(Debug, Default)]
pub(super) struct Events(VecDeque<StateEvent>);

impl Events {
    /// Keeps one, and writes it to the log as one line.
    pub(super) fn tell(&mut self, severity: Severity, subject: &str, text: String) {
        match severity {
            Severity::Good => tracing::info!("{subject}: {text}"),
            Severity::Bad => tracing::warn!("{subject}: {text}"),
        }
        if self.0.len() == MOST {
            self.0.pop_front();
        }
        self.0.push_back(StateEvent { at: super::unix_now(), subject: subject.to_owned(), text });
    }

    /// All of them.
    pub(super) fn list(&self) -> Vec<StateEvent> {
        self.0.iter().cloned().collect()
    }
}

/// How an event looks in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// As it should be.
    Good,
    /// Somebody may want to look.
    Bad,
}
