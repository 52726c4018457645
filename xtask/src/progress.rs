//! Long steps: what runs, for how long already, and what it said when it failed.

use std::{
    fs::{self, File},
    io::{self, IsTerminal as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

/// How often a step without a terminal says that it is still alive.
const STILL_ALIVE: Duration = Duration::from_secs(15);
/// How often the elapsed time on a terminal changes.
const TICK: Duration = Duration::from_millis(100);
/// As much of a failed step's output as fits a screen or two; the file has the rest.
const TAIL_LINES: usize = 60;

/// Runs `command` to its end with its output in `log`, showing `label` and the elapsed time.
///
/// # Errors
/// The command cannot be started or fails; the error carries the end of its output.
pub fn run(label: &str, command: &mut Command, log: &Path) -> Result<()> {
    if let Some(directory) = log.parent() {
        fs::create_dir_all(directory).with_context(|| format!("could not make {}", directory.display()))?;
    }
    let output = File::create(log).with_context(|| format!("could not write {}", log.display()))?;
    let program = command.get_program().display().to_string();
    let mut line = Line::start(label);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output.try_clone().context("could not duplicate the log's descriptor")?)
        .stderr(output)
        .spawn()
        .with_context(|| format!("could not start `{program}`"))?;
    let status = loop {
        if let Some(status) = child.try_wait().with_context(|| format!("could not wait for `{program}`"))? {
            break status;
        }
        line.tick();
        thread::sleep(TICK);
    };
    line.end(status.success());
    if !status.success() {
        let text = fs::read(log).unwrap_or_default();
        bail!(
            "{label} failed ({status}):\n\n{}\n\nThe whole output is in {}.",
            tail(&String::from_utf8_lossy(&text), TAIL_LINES),
            log.display()
        );
    }
    Ok(())
}

/// "8 s", "2 min 05 s".
pub fn seconds(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    if seconds < 60 { format!("{seconds} s") } else { format!("{} min {:02} s", seconds / 60, seconds % 60) }
}

/// The line about one running step.
struct Line<'a> {
    label: &'a str,
    started: Instant,
    said: Instant,
    terminal: bool,
}

impl<'a> Line<'a> {
    fn start(label: &'a str) -> Self {
        let terminal = io::stderr().is_terminal();
        let now = Instant::now();
        if !terminal {
            eprintln!("{label} ...");
        }
        Self { label, started: now, said: now, terminal }
    }

    fn tick(&mut self) {
        let elapsed = self.started.elapsed();
        if self.terminal {
            // Writing to a closed terminal is no reason to stop the step.
            let _ = write!(io::stderr(), "\r\x1b[2K{} ... {}", self.label, seconds(elapsed));
        } else if self.said.elapsed() >= STILL_ALIVE {
            self.said = Instant::now();
            eprintln!("{} ... {} so far", self.label, seconds(elapsed));
        }
    }

    fn end(&self, success: bool) {
        let verdict = if success { "done" } else { "failed" };
        let start = if self.terminal { "\r\x1b[2K" } else { "" };
        eprintln!("{start}{} ... {verdict} ({})", self.label, seconds(self.started.elapsed()));
    }
}

/// The last lines of a text.
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<_> = text.trim_end().lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_elapsed_time_reads_well() {
        assert_eq!(seconds(Duration::from_millis(8_900)), "8 s");
        assert_eq!(seconds(Duration::from_secs(125)), "2 min 05 s");
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a\n", 5), "a");
    }

    #[test]
    fn a_failed_step_shows_its_output() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("logs/step.log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo the reason >&2; exit 3"]);
        let error = run("Trying", &mut command, &log).unwrap_err().to_string();
        assert!(error.contains("the reason") && error.contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_missing_program_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = run("Trying", &mut Command::new("no-such-program"), &directory.path().join("log"));
        assert!(format!("{:#}", error.unwrap_err()).contains("no-such-program"));
    }
}
