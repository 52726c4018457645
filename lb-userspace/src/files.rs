//! Small files that outlive the agent.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// What a file is to outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lasting {
    /// This process: it is not forced to the disk. For what is about the kernel, which does not outlive the machine either.
    Process,
    /// A crash of the machine.
    Machine,
}

/// Writes a file anew, for its owner only; makes its directory. Whoever reads it sees the old or the new one.
///
/// # Errors
/// When it cannot be written; then the old one stays.
pub fn replace(path: &Path, contents: &[u8], lasting: Lasting) -> io::Result<()> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory {
        fs::create_dir_all(directory)?;
    }
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // Never into what somebody else has put there: a link, or a file that is open elsewhere.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let written = write(&new, contents, lasting).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // It would be in nobody's way, and of no use.
        let _ = fs::remove_file(&new);
    }
    written?;
    match directory {
        // The name is in the directory.
        Some(directory) if lasting == Lasting::Machine => fs::File::open(directory)?.sync_all(),
        _ => Ok(()),
    }
}

fn write(path: &Path, contents: &[u8], lasting: Lasting) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(contents)?;
    match lasting {
        Lasting::Machine => file.sync_all(),
        Lasting::Process => Ok(()),
    }
}

/// What stands in a file; `None` when there is none.
///
/// # Errors
/// When it cannot be read, or is longer than `most` bytes: none of ours is.
pub fn read(path: &Path, most: u64) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(data) if data.len() > most => Err(io::Error::other("too large")),
        Ok(_) => fs::read(path).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_read_to_a_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state").join("a.json");
        assert_eq!(read(&path, 9).unwrap(), None);
        replace(&path, b"one", Lasting::Machine).unwrap();
        // What waits there for us is not followed.
        let precious = folder.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(&precious, folder.path().join("state").join("a.json.new")).unwrap();
        replace(&path, b"two", Lasting::Process).unwrap();
        assert_eq!(read(&path, 3).unwrap().as_deref(), Some(b"two".as_slice()));
        assert_eq!(read(&path, 2).unwrap_err().to_string(), "too large");
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
        assert_eq!(fs::read_dir(folder.path().join("state")).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_written_leaves_the_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        replace(&path, b"old", Lasting::Process).unwrap();
        fs::create_dir(folder.path().join("a.json.new")).unwrap();
        assert!(replace(&path, b"new", Lasting::Process).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
