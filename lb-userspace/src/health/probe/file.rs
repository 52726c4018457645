//! A file's content.

use std::{
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::{Outcome, Passed};
use crate::turns::Turns;

/// One attempt. The file's first line decides, spaces around it aside:
///
/// | Line | Meaning |
/// |---|---|
/// | `up` | passes |
/// | `down` | fails |
/// | 1 to 65535 | passes and is the weight |
/// | `0` | passes, weight 0, no new connections |
/// | `drain` | passes, no new connections |
///
/// No file passes. Anything else fails, also an empty file, a line of more than 256 bytes and what is no regular file.
///
/// A file system that hangs holds a thread for each such file, not for each attempt.
pub async fn attempt(path: &Path) -> Outcome {
    let owned = path.to_owned();
    match TURNS.take(path, move || read(&owned)).await {
        Ok(Ok(content)) => judge(&content),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => passed("no file", None, false),
        Ok(Err(error)) => Err(format!("cannot read the file: {error}")),
        Err(_) => Err("internal error: reading the file panicked".to_owned()),
    }
}

/// How much of a file is looked at.
const LONGEST: u64 = 256;

/// A read that hangs keeps its turn after its attempt has timed out.
static TURNS: Turns = Turns::new(1);

fn read(path: &Path) -> io::Result<Vec<u8>> {
    // Without O_NONBLOCK a FIFO would wait for its writer.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content)?;
    Ok(content)
}

fn judge(content: &[u8]) -> Outcome {
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let is_cut = line.len() as u64 == LONGEST;
    let line = line.trim_ascii();
    match line {
        _ if is_cut => Err(format!("the file's first line is too long: {}", shown(line))),
        b"up" => passed("up", None, false),
        b"down" => Err("the file says down".to_owned()),
        b"drain" => passed("drain", None, true),
        b"" => Err("the file's first line is empty".to_owned()),
        _ => match weight(line) {
            Some(weight) => passed(&format!("weight {weight}"), Some(weight), weight == 0),
            None => Err(format!("the file says neither up, down, drain nor a weight: {}", shown(line))),
        },
    }
}

fn passed(detail: &str, weight: Option<u32>, drain: bool) -> Outcome {
    Ok(Passed { detail: detail.to_owned(), weight, drain })
}

fn weight(line: &[u8]) -> Option<u32> {
    // parse() takes a sign, too.
    if !line.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(line).ok()?.parse::<u16>().ok().map(u32::from)
}

/// The beginning of foreign bytes, printable.
fn shown(line: &[u8]) -> String {
    const SHOWN: usize = 40;
    let more = if line.len() > SHOWN { "..." } else { "" };
    format!("\"{}\"{more}", line[..line.len().min(SHOWN)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::{sys::stat::Mode, unistd::mkfifo};
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn assert_passes(content: &str, weight: Option<u32>, drain: bool) {
        let Passed { weight: actual, drain: drains, .. } = judge(content.as_bytes()).expect(content);
        assert_eq!((actual, drains), (weight, drain), "{content:?}");
    }

    #[track_caller]
    fn assert_fails(content: &[u8], expected: &str) {
        assert_eq!(judge(content).expect_err("a failure"), expected);
    }

    #[test]
    fn the_first_line_decides() {
        assert_passes("up", None, false);
        assert_passes("  up \r\ndown\n", None, false);
        assert_passes("drain\n", None, true);
        assert_passes("0\n", Some(0), true);
        assert_passes("17\n", Some(17), false);
        assert_passes("65535", Some(65535), false);
        assert_fails(b"down\n", "the file says down");
        assert_fails(b"", "the file's first line is empty");
        assert_fails(b"\nup\n", "the file's first line is empty");
    }

    #[test]
    fn anything_else_fails_and_is_shown() {
        const NEITHER: &str = "the file says neither up, down, drain nor a weight: ";
        assert_fails(b"65536", &format!("{NEITHER}\"65536\""));
        assert_fails(b"+1", &format!("{NEITHER}\"+1\""));
        assert_fails(b"UP", &format!("{NEITHER}\"UP\""));
        assert_fails(b"\x1b[2J\xff", &format!("{NEITHER}\"\\x1b[2J\\xff\""));
        assert_fails(&[b'a'; 100], &format!("{NEITHER}\"{}\"...", "a".repeat(40)));
        // The rest of such a line is not read: it is not known what it says.
        let long = format!("up{}", " ".repeat(254));
        assert_fails(long.as_bytes(), "the file's first line is too long: \"up\"");
    }

    proptest! {
        #[test]
        fn any_content_is_judged(content in proptest::collection::vec(any::<u8>(), 0..=256)) {
            match judge(&content) {
                Ok(passed) => prop_assert!(passed.weight.is_none_or(|weight| weight <= 65535)),
                Err(detail) => prop_assert!(detail.is_ascii() && detail.len() < 256),
            }
        }
    }

    #[tokio::test]
    async fn reads_files() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("web1");
        assert_eq!(attempt(&path).await.expect("no file passes").detail, "no file");
        std::fs::write(&path, "5\n").expect("written");
        assert_eq!(attempt(&path).await.expect("a weight").weight, Some(5));
        std::fs::write(&path, "down\n").expect("written");
        attempt(&path).await.expect_err("down");
    }

    #[tokio::test]
    async fn reads_regular_files_only() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let fifo = directory.path().join("fifo");
        mkfifo(&fifo, Mode::S_IRWXU).expect("a FIFO");
        for path in [fifo.as_path(), directory.path(), Path::new("/dev/zero")] {
            assert_eq!(
                attempt(path).await,
                Err("cannot read the file: it is not a regular file".to_owned()),
                "{}",
                path.display()
            );
        }
    }

    #[tokio::test]
    async fn an_attempt_waits_for_the_one_before() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("web1");
        let (release, hang) = std::sync::mpsc::channel::<()>();
        let hanging = TURNS.take(&path, move || hang.recv().is_err());
        // Bounds for "does not end", not measured times: nothing else could end them.
        tokio::time::timeout(Duration::from_millis(20), hanging).await.expect_err("it hangs");
        tokio::time::timeout(Duration::from_millis(20), attempt(&path)).await.expect_err("it has to wait");
        drop(release);
        attempt(&path).await.expect("no file");
    }
}
