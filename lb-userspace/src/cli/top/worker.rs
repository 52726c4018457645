//! The threads that wait: for the agent and for the keyboard. The screen never does.

use std::{io, path::Path, sync::mpsc, thread, time::Duration};

use ratatui::crossterm::event::{self, Event};

use super::app::Input;
use crate::api::{Client, Order, Status, client::ClientError};

/// Asks for the status at once and then every `every`, until `answer` says false or the sender is dropped. A message
/// through the sender ends the pause.
///
/// # Errors
///
/// When the process can have no further thread or file descriptor.
pub fn poll(
    socket: &Path,
    every: Duration,
    mut answer: impl FnMut(Result<Box<Status>, String>) -> bool + Send + 'static,
) -> io::Result<mpsc::Sender<()>> {
    let client = Client::new(socket)?;
    let (send, hurry) = mpsc::channel();
    thread::Builder::new().name("status".into()).spawn(move || {
        while answer(client.status().map(Box::new).map_err(words)) {
            if hurry.recv_timeout(every) == Err(mpsc::RecvTimeoutError::Disconnected) {
                return;
            }
        }
    })?;
    Ok(send)
}

/// What is asked once.
#[derive(Debug)]
pub enum Question {
    /// Gives an order.
    Order(Order),
    /// The last events.
    Events,
}

/// Asks one question after the other.
///
/// # Errors
///
/// When the process can have no further thread or file descriptor.
pub fn ask(
    socket: &Path,
    mut answer: impl FnMut(Input) -> bool + Send + 'static,
) -> io::Result<mpsc::Sender<Question>> {
    let client = Client::new(socket)?;
    let (send, questions) = mpsc::channel();
    thread::Builder::new().name("orders".into()).spawn(move || {
        for question in questions {
            let input = match question {
                Question::Order(order) => {
                    let answer = client.order(&order).map_err(words);
                    Input::Ordered(order, answer)
                }
                Question::Events => Input::Events(client.events().map_err(words)),
            };
            if !answer(input) {
                return;
            }
        }
    })?;
    Ok(send)
}

/// Reads the keyboard and the terminal's size until `take` says false or the terminal is gone.
///
/// # Errors
///
/// When the process can have no further thread.
pub fn read_keys(mut take: impl FnMut(io::Result<Event>) -> bool + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name("keys".into()).spawn(move || {
        loop {
            let event = event::read();
            let was_last = event.is_err();
            if !take(event) || was_last {
                return;
            }
        }
    })?;
    Ok(())
}

fn words(error: ClientError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polling_goes_on_after_failures_and_hurries() {
        let directory = tempfile::tempdir().unwrap();
        let (send, answers) = mpsc::channel();
        let socket = directory.path().join("none.sock");
        // An hour: only the message makes the second answer come.
        let hurry =
            poll(&socket, Duration::from_secs(3600), move |answer| send.send(answer).is_ok()).unwrap();
        for _ in 0..3 {
            let answer = answers.recv_timeout(Duration::from_secs(60)).unwrap();
            assert!(answer.unwrap_err().contains("no xdirector is running here"));
            hurry.send(()).unwrap();
        }
        drop(hurry);
        // The thread ends with its sender.
        while answers.recv_timeout(Duration::from_secs(60)) != Err(mpsc::RecvTimeoutError::Disconnected) {}
    }
}
