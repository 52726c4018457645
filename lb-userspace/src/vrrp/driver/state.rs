//! A small file that remembers what a run may have left on this machine, for the next one: that may have another configuration.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Serialize;

use super::holdings::Named;
use crate::files::{self, Lasting};

/// The file. It holds everything that any instance of the running configuration may bring to this machine, whether it is
/// master or not: so it is written when the configuration changes, and never in a failover.
#[derive(Debug)]
pub struct StateFile {
    path: Option<PathBuf>,
    /// What is in it; `None`: not known.
    written: Option<Named>,
}

impl StateFile {
    /// Without a path nothing is remembered.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, written: None }
    }

    /// Where it is.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What is in it; nothing when there is none.
    ///
    /// # Errors
    /// When it cannot be read or is something else: in words, with its path.
    pub fn load(&mut self) -> Result<Named, String> {
        let Some(path) = &self.path else { return Ok(Named::default()) };
        let text = match fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Named::default()),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let named: Named = serde_json::from_slice(&text)
            .map_err(|error| format!("{}: not what a director has written: {error}", path.display()))?;
        self.written = Some(named.clone());
        Ok(named)
    }

    /// Writes it, unless that is in it already. Atomic, but not forced to the disk: after a crash of the machine, which takes
    /// its addresses with it, nothing is left to remember.
    ///
    /// # Errors
    /// In words, with its path.
    pub fn store(&mut self, named: &Named) -> Result<(), String> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.written.as_ref() == Some(named) {
            return Ok(());
        }
        write(path, named).map_err(|error| format!("{}: {error}", path.display()))?;
        self.written = Some(named.clone());
        Ok(())
    }
}

/// Takes the place of what is there in one step.
///
/// # Errors
/// When the directory or the disk does not let it; then the old one stays.
pub fn write(path: &Path, content: &impl Serialize) -> io::Result<()> {
    files::replace(path, &serde_json::to_vec_pretty(content)?, Lasting::Process)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::driver::tests::instance;

    #[test]
    fn what_is_written_is_read_again_and_written_only_when_it_changes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vrrp.json");
        let named = Named::of(&instance("one", "eth0", 1, 100, &["10.0.0.100/32", "10.0.0.101/24"]));

        let mut file = StateFile::new(Some(path.clone()));
        assert_eq!(file.load(), Ok(Named::default()), "there is none yet");
        file.store(&named).unwrap();
        assert_eq!(StateFile::new(Some(path.clone())).load(), Ok(named.clone()));

        fs::remove_file(&path).unwrap();
        file.store(&named).unwrap();
        assert!(!path.exists(), "nothing had changed");
        file.store(&Named::default()).unwrap();
        assert!(path.exists());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left");
    }

    #[test]
    fn a_broken_file_is_said_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vrrp.json");
        fs::write(&path, "{").unwrap();
        let mut file = StateFile::new(Some(path.clone()));
        assert!(file.load().unwrap_err().contains("vrrp.json: not what a director has written"));
        file.store(&Named::default()).unwrap();
        assert_eq!(StateFile::new(Some(path)).load(), Ok(Named::default()));
    }

    #[test]
    fn a_link_that_waits_for_us_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let (path, target) = (directory.path().join("vrrp.json"), directory.path().join("target"));
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, directory.path().join("vrrp.json.new")).unwrap();
        StateFile::new(Some(path)).store(&Named::default()).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }
}
