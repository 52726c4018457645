//! Counts processes by name.

use std::{fs, io, path::Path};

/// How many processes of this name run: that of `/proc/PID/comm` (of which the kernel keeps 15 bytes), or the base name of
/// the first argument. Threads are not counted one by one, and the dead that nobody has collected not at all.
///
/// # Errors
/// When there is no `/proc`.
pub(super) fn count(name: &str) -> io::Result<u32> {
    let mut count = 0;
    for entry in fs::read_dir("/proc")? {
        // One that ends while we look is not running.
        let Ok(entry) = entry else { continue };
        let is_process = entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit);
        if is_process && is_running(&entry.path(), name.as_bytes()) {
            count += 1;
        }
    }
    Ok(count)
}

fn is_running(process: &Path, name: &[u8]) -> bool {
    let has_name = |file: &str, name_in: fn(&[u8]) -> &[u8]| {
        fs::read(process.join(file)).is_ok_and(|content| !content.is_empty() && name_in(&content) == name)
    };
    (has_name("comm", comm) || has_name("cmdline", first_argument))
        && fs::read(process.join("stat")).is_ok_and(|stat| is_alive(&stat))
}

fn comm(content: &[u8]) -> &[u8] {
    content.strip_suffix(b"\n").unwrap_or(content)
}

/// Its base name.
fn first_argument(content: &[u8]) -> &[u8] {
    let path = content.split(|byte| *byte == 0).next().unwrap_or_default();
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// The state comes after the name, which may hold anything.
fn is_alive(stat: &[u8]) -> bool {
    let rest = stat.rsplit(|byte| *byte == b')').next().unwrap_or_default();
    !matches!(rest.trim_ascii_start().first(), None | Some(b'Z' | b'X' | b'x'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(comm(b"haproxy\n"), b"haproxy");
        for (content, name) in [
            (&b"/usr/sbin/haproxy\0-f\0/etc/haproxy.cfg\0"[..], &b"haproxy"[..]),
            (b"haproxy\0", b"haproxy"),
            (b"nginx: worker process\0\0\0", b"nginx: worker process"),
            (b"", b""),
        ] {
            assert_eq!(first_argument(content), name);
        }
    }

    #[test]
    fn the_dead_do_not_run() {
        assert!(is_alive(b"7 (sh) S 1 7 7 0"));
        assert!(is_alive(b"7 (a) Z (b) R 1 7"));
        assert!(!is_alive(b"7 (sh) Z 1 7 7 0"));
        assert!(!is_alive(b"7 (a) S (b) X 1 7"));
        assert!(!is_alive(b""));
    }

    #[test]
    fn nobody_is_called_so() {
        assert_eq!(count("no such program, surely").expect("there is /proc"), 0);
        assert_eq!(count("").expect("there is /proc"), 0, "kernel threads have no arguments");
    }
}
