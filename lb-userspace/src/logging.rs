//! Where the log goes, and in which form.

use std::{
    env, fs,
    io::{self, IsTerminal as _},
    os::{fd::AsFd, linux::fs::MetadataExt as _},
};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tracing::Subscriber;
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt as _, registry::LookupSpan};

use crate::dataplane::xdp;

/// The programs that write our records find them by this name: `journalctl -t xdirector`.
const IDENTIFIER: &str = "xdirector";

/// Where to log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogTo {
    /// The journal when systemd has connected standard error with it, else standard error
    #[default]
    Auto,
    /// Standard error
    Stderr,
    /// The journal of systemd, with priorities and fields
    Journal,
}

/// Arguments about the log.
#[derive(Debug, Clone, Default, Args)]
pub struct LogArgs {
    /// Where to log
    #[arg(long, value_enum, default_value_t, value_name = "WHERE")]
    pub log_to: LogTo,
}

/// Starts the log. `XDIRECTOR_LOG` takes the directives of tracing's `EnvFilter`; without it, `trace` means `debug`
/// rather than `info`.
///
/// # Errors
///
/// When `--log-to journal` finds no journal, or a log was started before.
pub fn start(args: &LogArgs, trace: bool) -> anyhow::Result<()> {
    let default = if trace { "debug" } else { "info" };
    let filter = EnvFilter::try_from_env("XDIRECTOR_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let in_journal = stream_is(env::var("JOURNAL_STREAM").ok().as_deref(), &io::stderr());
    let registry = tracing_subscriber::registry().with(filter);
    let opened = match destination(args.log_to, in_journal) {
        Destination::Stderr => None,
        Destination::Journal { required } => match journal() {
            Ok(layer) => Some(layer),
            Err(error) if required => {
                return Err(error).context("--log-to journal: cannot reach systemd's journal");
            }
            // Standard error leads there too, without priorities.
            Err(_) => None,
        },
    };
    match opened {
        Some(layer) => tracing::subscriber::set_global_default(registry.with(layer))?,
        None => tracing::subscriber::set_global_default(registry.with(plain(in_journal)))?,
    }
    // The data plane's events come through `log`, and so does every detail of how it is loaded.
    tracing_log::LogTracer::builder().ignore_all(xdp::CHATTY).init()?;
    Ok(())
}

/// What [`LogTo`] comes to.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
    Stderr,
    Journal {
        /// It was asked for by name, so nothing else will do.
        required: bool,
    },
}

fn destination(wanted: LogTo, in_journal: bool) -> Destination {
    match wanted {
        LogTo::Auto if in_journal => Destination::Journal { required: false },
        LogTo::Auto | LogTo::Stderr => Destination::Stderr,
        LogTo::Journal => Destination::Journal { required: true },
    }
}

/// Lines for people. The journal knows the time of a line and its program by itself.
fn plain<S>(in_journal: bool) -> Box<dyn tracing_subscriber::Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    if in_journal { Box::new(lines.without_time()) } else { Box::new(lines) }
}

/// Records with fields. Levels become syslog's priorities of the same names: `journalctl -p warning`.
fn journal() -> io::Result<tracing_journald::Layer> {
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer = tracing_journald::layer()?;
    Ok(layer.with_syslog_identifier(IDENTIFIER.into()).with_priority_mappings(priorities))
}

/// Whether `stream` is the one that `JOURNAL_STREAM` describes as `DEVICE:INODE`. A process that inherited the
/// variable and had its output redirected since must not believe it (systemd.exec(5)).
fn stream_is(described: Option<&str>, stream: &impl AsFd) -> bool {
    let Some((device, inode)) = described.and_then(|text| text.split_once(':')) else { return false };
    let (Ok(device), Ok(inode)) = (device.parse::<u64>(), inode.parse::<u64>()) else { return false };
    // By a duplicate, since the file that asks for the metadata closes what it has.
    let metadata = stream.as_fd().try_clone_to_owned().and_then(|fd| fs::File::from(fd).metadata());
    metadata.is_ok_and(|metadata| (metadata.st_dev(), metadata.st_ino()) == (device, inode))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Arguments {
        #[command(flatten)]
        log: LogArgs,
    }

    #[test]
    fn the_journal_is_used_only_when_it_is_there_or_asked_for() {
        assert_eq!(destination(LogTo::Auto, false), Destination::Stderr);
        assert_eq!(destination(LogTo::Auto, true), Destination::Journal { required: false });
        for in_journal in [false, true] {
            assert_eq!(destination(LogTo::Stderr, in_journal), Destination::Stderr);
            assert_eq!(destination(LogTo::Journal, in_journal), Destination::Journal { required: true });
        }
    }

    #[test]
    fn the_stream_is_recognised_by_device_and_inode() {
        let (ours, other) = UnixStream::pair().expect("a pair of sockets");
        let describe = |stream: &UnixStream| {
            let fd = stream.as_fd().try_clone_to_owned().expect("a duplicate");
            let metadata = fs::File::from(fd).metadata().expect("open");
            format!("{}:{}", metadata.st_dev(), metadata.st_ino())
        };
        assert!(stream_is(Some(&describe(&ours)), &ours));
        // Inherited from a parent whose standard error was another one.
        assert!(!stream_is(Some(&describe(&other)), &ours));
        for odd in [None, Some(""), Some(":"), Some("8"), Some("a:b"), Some("1:2:3")] {
            assert!(!stream_is(odd, &ours), "{odd:?}");
        }
    }

    #[test]
    fn arguments_have_defaults_and_refuse_other_words() {
        let parse = |words: &[&str]| Arguments::try_parse_from([&["test"], words].concat());
        assert_eq!(parse(&[]).expect("fine").log.log_to, LogTo::Auto);
        assert_eq!(parse(&["--log-to", "stderr"]).expect("fine").log.log_to, LogTo::Stderr);
        assert_eq!(parse(&["--log-to", "journal"]).expect("fine").log.log_to, LogTo::Journal);
        assert!(parse(&["--log-to", "syslog"]).is_err());
    }
}
