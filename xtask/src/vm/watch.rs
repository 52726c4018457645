//! A virtual machine's life, seen from outside: its output is passed on, and it ends whatever happens in it.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::progress;

/// How long the boot may take; it needs some seconds, and more on a machine that is busy with other things.
const BOOT: Duration = Duration::from_secs(180);
/// How long the machine may take to end when the command has.
const END: Duration = Duration::from_secs(20);
/// How often files are looked at.
const TICK: Duration = Duration::from_millis(20);
/// As much of the kernel's messages as an error shows.
const LINES: usize = 30;

/// What a kernel writes when something in it went wrong without ending it.
const COMPLAINTS: [&str; 6] =
    ["WARNING: ", "BUG: ", "Oops", "Call Trace:", "blocked for more than", "unregister_netdevice: waiting"];
/// And when it ended it.
const PANIC: &str = "Kernel panic";

/// Set by Ctrl-C and SIGTERM.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Runs the machine to its end; returns the exit code of the command in it.
///
/// `shared` is where the guest writes `started`, `stdout`, `stderr` and `status`, and `console` where its kernel does.
pub fn run(command: &mut Command, shared: &Path, console: &Path, timeout: Duration) -> Result<u8> {
    heed_signals()?;
    let complaints = shared.join("qemu");
    let file =
        File::create(&complaints).with_context(|| format!("could not write {}", complaints.display()))?;
    let mut stdout = Stream::new(shared.join("stdout"), io::stdout())?;
    let mut stderr = Stream::new(shared.join("stderr"), io::stderr())?;
    let child = command
        .stdout(file.try_clone().context("could not duplicate a descriptor")?)
        .stderr(file)
        .spawn()
        .context("could not start setpriv, of the package util-linux")?;
    let mut child = Ended(child);
    let started = Instant::now();
    let mut status_seen = None;
    let end = loop {
        stdout.pass_on()?;
        stderr.pass_on()?;
        if let Some(status) = child.0.try_wait().context("could not wait for QEMU")? {
            break End::Itself(status);
        }
        if ENDED.load(Ordering::Relaxed) {
            break End::Signal;
        }
        if status_seen.is_none() && shared.join("status").exists() {
            status_seen = Some(Instant::now());
        }
        if status_seen.is_some_and(|since| since.elapsed() > END) {
            break End::NotAtAll;
        }
        if started.elapsed() > BOOT.min(timeout) && !shared.join("started").exists() {
            break End::NoBoot;
        }
        if started.elapsed() > timeout && status_seen.is_none() {
            break End::Timeout;
        }
        thread::sleep(TICK);
    };
    drop(child);
    stdout.pass_on()?;
    stderr.pass_on()?;
    if let Ok(status) = fs::read_to_string(shared.join("status")) {
        // Also when the machine then failed to end by itself: the command did.
        return status.trim().parse().with_context(|| format!("the exit code is {status:?}"));
    }
    if matches!(end, End::Signal) {
        // Whoever sent it knows why.
        bail!(end.words(timeout));
    }
    let qemu = fs::read(&complaints).unwrap_or_default();
    bail!(
        "{}{}",
        end.words(timeout),
        evidence(console, &String::from_utf8_lossy(&qemu), shared.join("started").exists())
    )
}

/// Whether the kernel reported a fault of its own.
pub fn kernel_complained(console: &Path) -> bool {
    let text = fs::read(console).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().any(is_complaint)
}

fn is_complaint(line: &str) -> bool {
    COMPLAINTS.iter().any(|complaint| line.contains(complaint))
}

/// The lines that tell most: from where the trouble began, or else the last ones.
fn excerpt(messages: &str) -> String {
    let trouble = |line: &&str| is_complaint(line) || line.contains(PANIC);
    let lines: Vec<_> = messages.lines().skip_while(|line| !trouble(line)).take(LINES).collect();
    if lines.is_empty() { progress::tail(messages, LINES) } else { lines.join("\n") }
}

/// How a machine ended that gave no exit code.
enum End {
    Itself(ExitStatus),
    Signal,
    NotAtAll,
    NoBoot,
    Timeout,
}

impl End {
    fn words(&self, timeout: Duration) -> String {
        match self {
            Self::Signal => "the virtual machine was ended by a signal".into(),
            Self::Itself(status) if status.success() => {
                "the virtual machine ended before the command did: its kernel panicked, or something in it \
                 switched it off"
                    .into()
            }
            Self::Itself(status) => format!("QEMU ended with {status}"),
            Self::NotAtAll => "the virtual machine did not end after the command".into(),
            Self::NoBoot => {
                format!("the virtual machine did not boot within {}", progress::seconds(BOOT.min(timeout)))
            }
            Self::Timeout => format!(
                "the command did not end within {}, so the virtual machine was ended; --timeout allows more",
                progress::seconds(timeout)
            ),
        }
    }
}

/// What a person needs to see why, as far as there is anything.
fn evidence(console: &Path, qemu: &str, booted: bool) -> String {
    let mut text = String::new();
    if !qemu.trim().is_empty() {
        text += &format!("\n\nQEMU says:\n{}", qemu.trim());
    }
    let messages = fs::read(console).unwrap_or_default();
    let messages = String::from_utf8_lossy(&messages).replace('\r', "");
    if messages.trim().is_empty() {
        if !booted {
            text += "\n\nThe kernel wrote nothing.";
        }
        return text;
    }
    text += &format!(
        "\n\nThe kernel's messages:\n{}\n\nAll of them are in {}.",
        excerpt(&messages),
        console.display()
    );
    text
}

/// A child that does not outlive its owner.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is then collected. It keeps no state that an abrupt end could harm.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A file that grows, and where its content goes.
struct Stream<W> {
    file: File,
    to: W,
}

impl<W: Write> Stream<W> {
    fn new(path: PathBuf, to: W) -> Result<Self> {
        // The guest appends to it.
        File::create(&path).with_context(|| format!("could not write {}", path.display()))?;
        let file = File::open(&path).with_context(|| format!("could not read {}", path.display()))?;
        Ok(Self { file, to })
    }

    fn pass_on(&mut self) -> Result<()> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).context("could not read the command's output")?;
        if !bytes.is_empty() {
            self.to.write_all(&bytes).context("could not pass on the command's output")?;
            self.to.flush().context("could not pass on the command's output")?;
        }
        Ok(())
    }
}

fn heed_signals() -> Result<()> {
    static ONCE: Once = Once::new();
    let mut result = Ok(());
    ONCE.call_once(|| result = ctrlc::set_handler(|| ENDED.store(true, Ordering::Relaxed)));
    result.context("could not install a signal handler")?;
    ensure!(!ENDED.load(Ordering::Relaxed), "ended by a signal");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script in the place of QEMU.
    fn machine(script: &str, timeout: Duration) -> Result<u8> {
        let directory = tempfile::tempdir().unwrap();
        let console = directory.path().join("console");
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(directory.path());
        run(&mut command, directory.path(), &console, timeout)
    }

    #[test]
    fn the_exit_code_is_the_commands() {
        assert_eq!(machine("touch started; echo 7 >status", BOOT).unwrap(), 7);
    }

    #[test]
    fn a_machine_that_dies_shows_its_kernels_last_words() {
        let script = "touch started; printf 'x\\r\\nKernel panic - not syncing\\r\\n' >console";
        let error = machine(script, BOOT).unwrap_err().to_string();
        assert!(error.contains("ended before the command did") && error.contains("Kernel panic"), "{error}");
        let script = "touch started; printf '1 BUG: x\\n%060d\\n' 0 >console; \
                      for i in $(seq 100); do echo line $i >>console; done";
        let error = machine(script, BOOT).unwrap_err().to_string();
        assert!(error.contains("1 BUG: x") && !error.contains("line 99"), "{error}");
        let error = machine("echo 'no such device' >&2; exit 1", BOOT).unwrap_err().to_string();
        assert!(error.contains("no such device") && error.contains("wrote nothing"), "{error}");
    }

    #[test]
    fn a_machine_that_hangs_is_ended() {
        let short = Duration::from_millis(300);
        let error = machine("touch started; exec sleep 3600", short).unwrap_err().to_string();
        assert!(error.contains("did not end within") && error.contains("--timeout"), "{error}");
        let error = machine("exec sleep 3600", short).unwrap_err().to_string();
        assert!(error.contains("did not boot within"), "{error}");
    }

    #[test]
    fn output_is_passed_on_as_it_comes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stdout");
        let mut stream = Stream::new(path.clone(), Vec::new()).unwrap();
        for part in [&b"a\xff"[..], b"", b"b\n"] {
            let mut file = File::options().append(true).open(&path).unwrap();
            file.write_all(part).unwrap();
            stream.pass_on().unwrap();
        }
        assert_eq!(stream.to, b"a\xffb\n");
    }

    #[test]
    fn complaints_are_told_from_ordinary_messages() {
        assert!(is_complaint("[    9.1] WARNING: CPU: 0 PID: 9 at net/core/dev.c:1\n"));
        assert!(!is_complaint("[    0.0] ACPI: Reserving FACP table memory\n[    1.2] warning: x\n"));
    }
}
