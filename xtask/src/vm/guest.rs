//! What runs inside the virtual machine: its first file system, and the scripts that lead to the command.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// The first process.
const INIT: &[u8] = include_bytes!("guest/init.sh");
/// What it hands over to.
pub const MAIN: &[u8] = include_bytes!("guest/main.sh");

/// Variables of the caller that reach the command: who and where one is, and what tests are told by.
const PASSED: [&str; 12] = [
    "CI",
    "HOME",
    "LANG",
    "LANGUAGE",
    "LOGNAME",
    "NO_COLOR",
    "PATH",
    "SHELL",
    "TERM",
    "TZ",
    "USER",
    "XDG_CACHE_HOME",
];
const PASSED_PREFIXES: [&str; 4] = ["LC_", "PROPTEST_", "RUST_", "XDIRECTOR_"];
/// Administrators' programs, which a user's PATH often lacks; in the machine the command is root's.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The places of the host that `init.sh` must know.
pub struct Layout<'a> {
    pub name: &'a str,
    pub project: &'a Path,
    pub modules: &'a Path,
    /// Directories that the guest may write to.
    pub shares: &'a [PathBuf],
}

/// The first file system: a cpio archive with busybox, the modules that reach the root, and `init.sh`.
pub fn initramfs(busybox: &[u8], modules: &[(OsString, Vec<u8>)], layout: &Layout<'_>) -> Vec<u8> {
    let mut archive = Archive::default();
    archive.directory(b"modules");
    archive.file(b"busybox", 0o755, busybox);
    archive.file(b"init", 0o755, INIT);
    archive.file(b"variables", 0o644, &variables(layout));
    for (name, content) in modules {
        archive.file(&[b"modules/", name.as_bytes()].concat(), 0o644, content);
    }
    archive.end()
}

fn variables(layout: &Layout<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    let mut set = |name: &str, value: &OsStr| {
        text.extend_from_slice(name.as_bytes());
        text.push(b'=');
        text.extend(quoted(value));
        text.push(b'\n');
    };
    set("name", layout.name.as_ref());
    set("project", layout.project.as_ref());
    set("modules", layout.modules.as_ref());
    let numbers: Vec<_> = (0..layout.shares.len()).map(|number| number.to_string()).collect();
    set("shares", numbers.join(" ").as_ref());
    for (number, path) in layout.shares.iter().enumerate() {
        set(&format!("share_{number}"), path.as_ref());
    }
    text
}

/// The script that becomes the command: in its directory, with its variables and no others.
pub fn command_script(directory: &Path, variables: &[(OsString, OsString)], command: &[OsString]) -> Vec<u8> {
    let mut script = b"cd ".to_vec();
    script.extend(quoted(directory.as_ref()));
    script.extend_from_slice(b" || exit 126\nexec env -i");
    let assignments = variables.iter().map(|(name, value)| {
        let mut assignment = name.clone();
        assignment.push("=");
        assignment.push(value);
        assignment
    });
    for word in assignments.chain(command.iter().cloned()) {
        script.push(b' ');
        script.extend(quoted(&word));
    }
    script.push(b'\n');
    script
}

/// The command's environment: what of the caller's is passed on, and then what was asked for.
pub fn environment(
    callers: impl Iterator<Item = (OsString, OsString)>,
    asked: &[(OsString, OsString)],
) -> Vec<(OsString, OsString)> {
    let passed = |name: &OsStr| {
        name.to_str().is_some_and(|name| {
            PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        })
    };
    let mut variables: Vec<_> = callers.filter(|(name, _)| passed(name)).collect();
    variables.sort();
    for (name, value) in &mut variables {
        if name == "PATH" {
            for directory in SBIN {
                if !value.as_bytes().split(|byte| *byte == b':').any(|known| known == directory.as_bytes()) {
                    value.push(":");
                    value.push(directory);
                }
            }
        }
    }
    // `env` takes the last of two.
    variables.extend_from_slice(asked);
    variables
}

/// One word for a shell, whatever is in it.
fn quoted(word: &OsStr) -> Vec<u8> {
    let mut text = vec![b'\''];
    for byte in word.as_bytes() {
        match byte {
            b'\'' => text.extend_from_slice(b"'\\''"),
            byte => text.push(*byte),
        }
    }
    text.push(b'\'');
    text
}

/// A cpio archive in the format that the kernel unpacks ("newc", Documentation/driver-api/early-userspace).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn directory(&mut self, name: &[u8]) {
        self.entry(name, 0o040_755, &[]);
    }

    fn file(&mut self, name: &[u8], permissions: u32, content: &[u8]) {
        self.entry(name, 0o100_000 | permissions, content);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry(b"TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &[u8], mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).expect("a boot file is smaller than 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("a name is short");
        self.bytes.extend_from_slice(b"070701");
        // Number, mode, owner, group, links, time, size, four device numbers, size of the name, checksum.
        for field in [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name);
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.file(b"init", 0o755, b"hello");
        let bytes = archive.end();
        assert_eq!(&bytes[..14], b"07070100000001");
        assert_eq!(&bytes[14..22], b"000081ED");
        // The header has 110 bytes; name and content are each filled up to a multiple of 4.
        assert_eq!(&bytes[110..116], b"init\0\0");
        assert_eq!(&bytes[116..124], b"hello\0\0\0");
        assert_eq!(&bytes[124..130], b"070701");
        assert!(bytes.len().is_multiple_of(4));
    }

    #[test]
    fn a_command_arrives_as_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let script = command_script(
            directory.path(),
            &[("A".into(), "it's; $HOME".into()), ("B".into(), "a\nb".into())],
            &words(&[
                "/bin/sh",
                "-c",
                "printf '%s|' \"$A\" \"$B\" \"$PWD\" \"$@\"; exit 7",
                "x",
                "'\\\"",
                "",
            ]),
        );
        let file = directory.path().join("script");
        std::fs::write(&file, script).unwrap();
        let output = Command::new("sh").arg(&file).env("C", "not passed").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text, format!("it's; $HOME|a\nb|{}|'\\\"||", directory.path().display()));
        assert_eq!(output.status.code(), Some(7));
    }

    #[test]
    fn the_environment_has_what_tests_need_and_no_toolchain() {
        let callers = [
            ("PATH", "/usr/sbin:/bin"),
            ("XDIRECTOR_X", "1"),
            ("RUST_BACKTRACE", "1"),
            ("LD_LIBRARY_PATH", "/x"),
            ("CARGO_MANIFEST_DIR", "/x"),
            ("SSH_AUTH_SOCK", "/x"),
        ];
        let asked = [("RUST_BACKTRACE".into(), "0".into())];
        let found = environment(callers.iter().map(|(name, value)| (name.into(), value.into())), &asked);
        let expected = [
            ("PATH", "/usr/sbin:/bin:/usr/local/sbin:/sbin"),
            ("RUST_BACKTRACE", "1"),
            ("XDIRECTOR_X", "1"),
            ("RUST_BACKTRACE", "0"),
        ];
        assert_eq!(found, expected.map(|(name, value)| (name.into(), value.into())));
    }

    #[test]
    fn the_layout_is_told_in_variables() {
        let shares = [PathBuf::from("/p/target"), PathBuf::from("/other's")];
        let layout =
            Layout { name: "n", project: Path::new("/p"), modules: Path::new("/m"), shares: &shares };
        let text = String::from_utf8(variables(&layout)).unwrap();
        assert_eq!(
            text,
            "name='n'\nproject='/p'\nmodules='/m'\nshares='0 1'\nshare_0='/p/target'\nshare_1='/other'\\''s'\n"
        );
    }
}
