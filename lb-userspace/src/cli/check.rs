//! `xdirector check FILE`: is this configuration right? Nothing is loaded, attached or changed.

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use clap::Args;

use crate::config::{self, Config};

/// Arguments of `xdirector check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Configuration file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// Checks the file. Warnings go to standard error, the summary of a good file to standard output.
///
/// # Errors
///
/// [`config::ConfigErrors`], to be printed as it is, when the file has a mistake or cannot be read.
pub fn run(args: CheckArgs) -> anyhow::Result<()> {
    check(&args.file, &mut io::stdout().lock(), &mut io::stderr().lock())
}

fn check(path: &Path, out: &mut impl Write, err: &mut impl Write) -> anyhow::Result<()> {
    let (config, warnings) = config::load(path)?;
    for warning in warnings {
        writeln!(err, "{warning}")?;
    }
    writeln!(out, "{}: ok: {}", path.display(), summary(&config))?;
    Ok(())
}

fn summary(config: &Config) -> String {
    let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
    let real_servers = config.virtual_servers.iter().map(|one| one.real_servers.len()).sum();
    let mut parts =
        vec![count(config.virtual_servers.len(), "virtual server"), count(real_servers, "real server")];
    // Most files have none, and then it says nothing of them.
    let vrrp =
        [(config.vrrp.instances.len(), "VRRP instance"), (config.vrrp.sync_groups.len(), "sync group")];
    parts
        .extend(vrrp.into_iter().filter(|(number, _)| *number > 0).map(|(number, what)| count(number, what)));
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What ends up on standard output, on standard error, and as the error.
    fn check_text(text: &str) -> (String, String, Option<String>) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("web.toml");
        fs::write(&path, text).expect("the folder is ours");
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = check(&path, &mut out, &mut err);
        let shown = |text: String| text.replace(&path.display().to_string(), "web.toml");
        let text = |bytes: Vec<u8>| shown(String::from_utf8(bytes).expect("UTF-8"));
        (text(out), text(err), done.err().map(|error| shown(error.to_string())))
    }

    #[test]
    fn a_good_file_gets_one_line() {
        let (out, err, error) = check_text(
            "director.interfaces = [\"eth0\"]\n[[virtual_server]]\nname = \"web\"\naddress = \"192.0.2.1:80\"\n\
             real_server = [{ address = \"10.0.0.1\" }, { address = \"10.0.0.2\" }]\n",
        );
        assert_eq!((err.as_str(), error), ("", None));
        assert_eq!(out, "web.toml: ok: 1 virtual server, 2 real servers\n");
    }

    #[test]
    fn vrrp_is_counted_where_there_is_some() {
        let instance = |name: &str, vrid: u8| {
            format!(
                "[[vrrp_instance]]\nname = \"{name}\"\ninterface = \"eth0\"\nvirtual_router_id = {vrid}\n\
                 addresses = [\"192.0.2.{vrid}\"]\n"
            )
        };
        let director = "director.interfaces = [\"eth0\"]\n";
        let (out, err, error) = check_text(&format!("{director}{}", instance("a", 1)));
        assert_eq!((err.as_str(), error), ("", None));
        assert_eq!(out, "web.toml: ok: 0 virtual servers, 0 real servers, 1 VRRP instance\n");
        let group = "[[vrrp_sync_group]]\nname = \"g\"\ninstances = [\"a\", \"b\"]\n";
        let (out, err, error) =
            check_text(&format!("{director}{}{}{group}", instance("a", 1), instance("b", 2)));
        assert_eq!((err.as_str(), error), ("", None));
        assert_eq!(out, "web.toml: ok: 0 virtual servers, 0 real servers, 2 VRRP instances, 1 sync group\n");
    }

    #[test]
    fn a_warning_is_shown_and_is_no_failure() {
        let (out, err, error) = check_text("director.interfaces = [\"eth0\"]\n");
        assert_eq!(error, None);
        assert_eq!(err, "web.toml:1: warning: virtual_server: there is none, so nothing will be balanced\n");
        assert_eq!(out, "web.toml: ok: 0 virtual servers, 0 real servers\n");
    }

    #[test]
    fn a_bad_file_gives_its_errors_and_prints_no_summary() {
        let (out, err, error) = check_text("director.interfaces = [\"eth0\"]\ndirector.xdp_mode = \"drv\"\n");
        assert_eq!((out.as_str(), err.as_str()), ("", ""));
        let error = error.expect("an unknown mode");
        assert!(error.starts_with("web.toml:1: warning: virtual_server: there is none"), "{error}");
        assert!(
            error.contains("\nweb.toml:2: director.xdp_mode = \"drv\": unknown mode; expected one of"),
            "{error}"
        );
        assert!(error.ends_with("\n1 error, 1 warning"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named_with_the_reason() {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let done = check(Path::new("no-such-folder/web.toml"), &mut out, &mut err);
        assert!(out.is_empty() && err.is_empty());
        let error = done.expect_err("there is no such file").to_string();
        assert_eq!(error, "no-such-folder/web.toml: cannot read: No such file or directory\n1 error");
    }
}
