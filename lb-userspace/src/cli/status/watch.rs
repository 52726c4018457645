//! `xdirector status --watch`: the status again and again, on a terminal in place of the last one.

use std::{
    io::{self, Write},
    path::Path,
    sync::mpsc,
    time::Duration,
};

use ratatui::crossterm::{
    cursor::MoveTo,
    queue,
    style::Print,
    terminal::{self, Clear, ClearType},
};

use crate::{
    api::Status,
    cli::{
        closed_is_done,
        top::{
            screen::{self, Screen},
            worker,
        },
    },
};

enum Message {
    Answer(Result<Box<Status>, String>),
    Stop,
}

/// Asks every `every` and shows what `text` makes of the answer, until SIGINT, SIGTERM or SIGHUP.
///
/// # Errors
///
/// When the first answer fails or cannot be shown, and when standard output cannot be written.
pub fn run(
    socket: &Path,
    every: Duration,
    is_terminal: bool,
    text: impl Fn(Status) -> anyhow::Result<String>,
) -> anyhow::Result<()> {
    let (send, messages) = mpsc::channel();
    // Before the other threads, so that none of them takes the signal.
    let stop = send.clone();
    screen::on_stop_signal(move || drop(stop.send(Message::Stop)))?;
    let answer = move |answer| send.send(Message::Answer(answer)).is_ok();
    let _poller = worker::poll(socket, every, answer)?;

    let mut frames = Frames { screen: None, is_terminal, every, shown: 0 };
    for message in &messages {
        let answer = match message {
            Message::Stop => return Ok(()),
            Message::Answer(answer) => answer.map_err(anyhow::Error::msg).and_then(|status| text(*status)),
        };
        let text = match answer {
            Err(error) if frames.shown == 0 => return Err(error),
            Err(error) => format!("{error:#}\n"),
            Ok(text) => text,
        };
        match frames.show(&text, &mut io::stdout().lock()) {
            // The reader has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                return Ok(closed_is_done(Err(error))?);
            }
            shown => shown?,
        }
    }
    Ok(())
}

struct Frames {
    /// Entered with the first frame: an error before that belongs on the ordinary screen.
    screen: Option<Screen>,
    is_terminal: bool,
    every: Duration,
    shown: u64,
}

impl Frames {
    fn show(&mut self, text: &str, out: &mut impl Write) -> io::Result<()> {
        // In one piece, so that no half frame is seen.
        let mut bytes = Vec::new();
        if self.is_terminal {
            if self.screen.is_none() {
                self.screen = Some(Screen::enter(screen::Keys::ToTheShell)?);
            }
            let (columns, lines) = terminal::size()?;
            frame(&mut bytes, text, self.every, columns.into(), lines.into())?;
        } else {
            if self.shown > 0 {
                bytes.push(b'\n');
            }
            bytes.extend_from_slice(text.as_bytes());
        }
        self.shown += 1;
        out.write_all(&bytes)?;
        out.flush()
    }
}

/// Overwrites line by line and clears only what is left over: a screen that is emptied first flickers.
fn frame(out: &mut impl Write, text: &str, every: Duration, columns: usize, lines: usize) -> io::Result<()> {
    let all = text.lines().count();
    let fit = lines.saturating_sub(1);
    queue!(out, MoveTo(0, 0))?;
    for line in text.lines().take(fit) {
        over(out, line, columns)?;
        queue!(out, Print("\r\n"))?;
    }
    let more = if all > fit { format!("{} more lines; ", all - fit) } else { String::new() };
    over(out, &format!("({more}every {} s, Ctrl-C ends)", every.as_secs()), columns)?;
    queue!(out, Clear(ClearType::FromCursorDown))
}

fn over(out: &mut impl Write, line: &str, columns: usize) -> io::Result<()> {
    let shown: String = line.chars().take(columns).collect();
    let is_full = shown.chars().count() == columns;
    queue!(out, Print(shown))?;
    // After a full line the cursor still stands on its last character, and that would be cleared.
    if is_full { Ok(()) } else { queue!(out, Clear(ClearType::UntilNewLine)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_fits_and_overwrites() {
        let mut bytes = Vec::new();
        frame(&mut bytes, "one two\nthree\nfour\nfive\n", Duration::from_secs(2), 5, 3).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "\x1b[1;1Hone t\r\nthree\r\n(2 mo\x1b[J");
        let mut bytes = Vec::new();
        frame(&mut bytes, "one\n", Duration::from_secs(7), 80, 24).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(text, "\x1b[1;1Hone\x1b[K\r\n(every 7 s, Ctrl-C ends)\x1b[K\x1b[J");
    }

    #[test]
    fn no_terminal_no_control_characters() {
        let mut frames = Frames { screen: None, is_terminal: false, every: Duration::from_secs(2), shown: 0 };
        let mut out = Vec::new();
        frames.show("one\n", &mut out).unwrap();
        frames.show("two\n", &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "one\n\ntwo\n");
    }
}
