//! How far the stamps of sealed adverts may have gone, in a small file beside the [state's](super::state): the wall clock may have
//! been set back before the next run, and what that sends must be newer than all that this one has sent.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::state;
use crate::writer::Writer;

/// So far ahead of the stamps is what is written. A run begins there, so this is also by how much its stamps may be ahead of
/// the clock.
const AHEAD: Duration = Duration::from_secs(60);

/// The mark, which only rises.
#[derive(Debug)]
pub struct Mark {
    path: Option<PathBuf>,
    writer: Option<Writer<Duration>>,
    /// What was handed to the writer last.
    written: Duration,
}

impl Mark {
    /// Beside the state's file; without one nothing is kept.
    pub fn beside(state: Option<&Path>) -> Self {
        Self {
            path: state.map(|state| state.with_extension("stamp.json")),
            writer: None,
            written: Duration::ZERO,
        }
    }

    /// What an earlier run has left: none of its stamps is later. Zero when there is none.
    ///
    /// # Errors
    /// In words, with the path: it cannot be read or is something else.
    pub fn load(&self) -> Result<Duration, String> {
        let Some(path) = &self.path else { return Ok(Duration::ZERO) };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Duration::ZERO),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let seconds: u64 = serde_json::from_slice(&text)
            .map_err(|error| format!("{}: not what a director has written: {error}", path.display()))?;
        Ok(Duration::from_secs(seconds))
    }

    /// Stamps have gone so far. Never waits for the disk; to be called often enough that half of [`AHEAD`] is not used up in
    /// between.
    ///
    /// # Errors
    /// When there is no thread to write it.
    pub fn keep(&mut self, clock: Duration) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if clock + AHEAD / 2 <= self.written {
            return Ok(());
        }
        let writer = match self.writer.take() {
            Some(writer) => writer,
            None => {
                let path = path.clone();
                Writer::spawn("vrrp-stamp", move |mark: Duration| {
                    if let Err(error) = state::write(&path, &mark.as_secs()) {
                        tracing::warn!("{}: {error}", path.display());
                    }
                })?
            }
        };
        let mark = clock + AHEAD;
        writer.put(|_| mark);
        self.writer = Some(writer);
        self.written = mark;
        Ok(())
    }

    /// Waits until it is written; for tests.
    #[cfg(test)]
    pub fn finish(&self) {
        let writer = self.writer.as_ref().expect("something was kept");
        assert!(writer.finish(Duration::from_secs(20)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::from_secs(1_750_000_000);

    #[test]
    fn what_is_kept_is_never_behind() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("lb.vrrp.json");
        let mut mark = Mark::beside(Some(&state));
        assert_eq!(mark.load(), Ok(Duration::ZERO));
        for seconds in 0..200 {
            let clock = START + Duration::from_secs(seconds);
            mark.keep(clock).unwrap();
            mark.finish();
            let kept = Mark::beside(Some(&state)).load().unwrap();
            assert!(kept >= clock + AHEAD / 2 && kept <= clock + AHEAD, "{kept:?} after {seconds} s");
        }
        // After a step back it stays.
        mark.keep(START).unwrap();
        assert!(Mark::beside(Some(&state)).load().unwrap() > START + Duration::from_secs(200));
    }

    #[test]
    fn something_else_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("lb.vrrp.json");
        fs::write(directory.path().join("lb.vrrp.stamp.json"), "{").unwrap();
        assert!(Mark::beside(Some(&state)).load().unwrap_err().contains("not what a director has written"));
    }
}
