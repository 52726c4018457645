//! A program: keepalived's MISC_CHECK.

use std::time::Duration;

use super::{Outcome, Passed, Way};
use crate::{
    config::Command,
    process::{self, Ending, Finished, User},
};

/// How much of the program's words is told, in characters.
const MAX_WORDS: usize = 80;

/// One attempt: runs the program with `XDIRECTOR_ADDRESS` and `XDIRECTOR_PORT`, the ones to check, in its
/// environment. Exit code 0 passes, every other end fails. With `dynamic` 2 to 255 pass too and set the weight to
/// the code less 2.
pub async fn attempt(
    command: &Command,
    dynamic: bool,
    way: &Way,
    user: Option<&User>,
    timeout: Duration,
) -> Outcome {
    let environment = [
        ("XDIRECTOR_ADDRESS".into(), way.connect.ip().to_string()),
        ("XDIRECTOR_PORT".into(), way.connect.port().to_string()),
    ];
    match process::run(&command.0, &environment, user, timeout).await {
        Ok(finished) => judge(&finished, dynamic, timeout),
        Err(error) => Err(format!("cannot run the script: {error}")),
    }
}

pub(crate) fn judge(finished: &Finished, dynamic: bool, timeout: Duration) -> Outcome {
    let words = match finished.first_line(MAX_WORDS) {
        words if words.is_empty() => words,
        words => format!(": {words}"),
    };
    match finished.ending {
        Ending::Exited(code) => {
            let detail = format!("exit code {code}{words}");
            let weight = u32::try_from(code).ok().filter(|_| dynamic).and_then(|code| code.checked_sub(2));
            if code == 0 || weight.is_some() {
                Ok(Passed { detail, weight, drain: false })
            } else {
                Err(detail)
            }
        }
        Ending::Signaled(signal) => Err(format!("ended by {}{words}", signal_name(signal))),
        Ending::TimedOut => Err(format!(
            "no end within {} s, killed with all that it had started{words}",
            timeout.as_secs_f64()
        )),
    }
}

fn signal_name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |name| name.as_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shell(script: &str, dynamic: bool, timeout: Duration) -> Outcome {
        let command = Command(["/bin/sh", "-c", script].map(String::from).to_vec());
        let way = Way {
            connect: "[2001:db8::7]:8080".parse().expect("an address"),
            bind: None,
            fwmark: 0,
            through: None,
        };
        attempt(&command, dynamic, &way, None, timeout).await
    }

    async fn outcome(script: &str, dynamic: bool) -> Outcome {
        shell(script, dynamic, Duration::from_secs(60)).await
    }

    fn passed(detail: &str, weight: Option<u32>) -> Outcome {
        Ok(Passed { detail: detail.into(), weight, drain: false })
    }

    #[tokio::test]
    async fn exit_codes() {
        for (code, dynamic, expected) in [
            (0, false, passed("exit code 0", None)),
            (1, false, Err("exit code 1".into())),
            (2, false, Err("exit code 2".into())),
            (255, false, Err("exit code 255".into())),
            (0, true, passed("exit code 0", None)),
            (1, true, Err("exit code 1".into())),
            (2, true, passed("exit code 2", Some(0))),
            (102, true, passed("exit code 102", Some(100))),
            (255, true, passed("exit code 255", Some(253))),
        ] {
            assert_eq!(outcome(&format!("exit {code}"), dynamic).await, expected, "{code} {dynamic}");
        }
    }

    #[tokio::test]
    async fn tells_the_first_words() {
        let expected = Err("exit code 1: replica is 90 s behind".into());
        assert_eq!(outcome("echo replica is 90 s behind; echo more; exit 1", true).await, expected);
        let long = outcome("printf %0500d 7", false).await.expect("passes").detail;
        assert_eq!(long, format!("exit code 0: {}", "0".repeat(80)));
    }

    #[tokio::test]
    async fn knows_what_to_check() {
        let expected = passed("exit code 0: 2001:db8::7 8080", None);
        assert_eq!(outcome("echo $XDIRECTOR_ADDRESS $XDIRECTOR_PORT", false).await, expected);
    }

    #[tokio::test]
    async fn signals_fail_also_with_dynamic() {
        assert_eq!(outcome("kill -KILL $$", true).await, Err("ended by SIGKILL".into()));
        let real_time = Finished { ending: Ending::Signaled(40), output: String::new() };
        assert_eq!(judge(&real_time, true, Duration::ZERO), Err("ended by signal 40".into()));
    }

    #[tokio::test]
    async fn a_timeout_fails() {
        let expected = Err("no end within 0.5 s, killed with all that it had started".into());
        assert_eq!(shell("sleep 1000; true", true, Duration::from_millis(500)).await, expected);
    }

    #[tokio::test]
    async fn a_missing_program_fails() {
        let way =
            Way { connect: "127.0.0.1:1".parse().expect("an address"), bind: None, fwmark: 0, through: None };
        let command = Command(vec!["/nonexistent/check".into()]);
        let error = attempt(&command, false, &way, None, Duration::from_secs(60)).await.expect_err("missing");
        assert!(error.starts_with("cannot run the script: "), "{error}");
    }
}
