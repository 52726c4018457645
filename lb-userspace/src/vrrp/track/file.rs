//! The number in a file.

use std::{
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use super::probe::blocking;

/// How much of a file is looked at, in bytes: more than any number needs.
const LONGEST: u64 = 64;
/// A writer that first empties the file and then writes it is given this long.
const GRACE: Duration = Duration::from_millis(20);

/// The number, and in words what the file holds. No file, or none with a number, counts as 0.
pub(super) async fn attempt(path: &Path) -> (i64, String) {
    judge(patiently(|| read(path.to_owned())).await)
}

async fn patiently<F>(read: impl Fn() -> F) -> io::Result<Vec<u8>>
where
    F: Future<Output = io::Result<Vec<u8>>>,
{
    let content = read().await?;
    if content.is_empty() {
        tokio::time::sleep(GRACE).await;
        return read().await;
    }
    Ok(content)
}

fn judge(content: io::Result<Vec<u8>>) -> (i64, String) {
    match content {
        Ok(content) => match number(&content) {
            Ok(number) => (number, number.to_string()),
            Err(why) => (0, format!("{why}: counts as 0")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => (0, "no file: counts as 0".to_owned()),
        Err(error) => (0, format!("cannot be read: {error}: counts as 0")),
    }
}

async fn read(path: PathBuf) -> io::Result<Vec<u8>> {
    blocking(move || {
        // Without O_NONBLOCK a FIFO would wait for its writer.
        let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let mut content = Vec::new();
        file.take(LONGEST).read_to_end(&mut content)?;
        Ok(content)
    })
    .await
}

/// The first word must be a number.
fn number(content: &[u8]) -> Result<i64, String> {
    let word = content.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    if word.is_empty() {
        return Err("empty".to_owned());
    }
    let number = std::str::from_utf8(word).ok().and_then(|word| word.parse().ok());
    number.ok_or_else(|| format!("not a number: {}", word.escape_ascii()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers() {
        for (content, expected) in [
            ("0", Ok(0)),
            ("42\n", Ok(42)),
            (" \n -7 of 9\n", Ok(-7)),
            ("+3\r\n", Ok(3)),
            ("9223372036854775807", Ok(i64::MAX)),
            ("", Err("empty")),
            (" \n", Err("empty")),
            ("up", Err("not a number: up")),
            ("4.2", Err("not a number: 4.2")),
            ("1\u{1b}[31m", Err("not a number: 1\\x1b[31m")),
            ("9223372036854775808", Err("not a number: 9223372036854775808")),
        ] {
            assert_eq!(number(content.as_bytes()), expected.map_err(str::to_owned), "{content:?}");
        }
    }

    #[tokio::test]
    async fn files() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("number");
        assert_eq!(attempt(&path).await, (0, "no file: counts as 0".to_owned()));
        std::fs::write(&path, "12\n").expect("our file");
        assert_eq!(attempt(&path).await, (12, "12".to_owned()));
        std::fs::write(&path, "").expect("our file");
        assert_eq!(attempt(&path).await, (0, "empty: counts as 0".to_owned()));
        // Of a long file only the beginning is read.
        std::fs::write(&path, "5 ".repeat(1 << 20)).expect("our file");
        assert_eq!(attempt(&path).await, (5, "5".to_owned()));
        let words = "cannot be read: it is not a regular file: counts as 0";
        assert_eq!(attempt(directory.path()).await, (0, words.to_owned()));
        let fifo = directory.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
        assert_eq!(attempt(&fifo).await, (0, words.to_owned()));
    }

    #[tokio::test]
    async fn a_writer_that_empties_first_is_waited_for() {
        let contents = std::sync::Mutex::new(vec!["8", "7", ""]);
        let read = async || -> io::Result<Vec<u8>> {
            let mut contents = contents.lock().expect("nobody panics");
            Ok(contents.pop().expect("two are enough").as_bytes().to_vec())
        };
        assert_eq!(judge(patiently(&read).await), (7, "7".to_owned()));
        // What is there is not asked for twice.
        assert_eq!(judge(patiently(&read).await), (8, "8".to_owned()));
    }

    proptest! {
        #[test]
        fn no_content_makes_it_panic(content in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Err(why) = number(&content) {
                prop_assert!(why.chars().all(|c| c.is_ascii_graphic() || c == ' '), "{}", why);
            }
        }
    }
}
