//! `xdirector reload`: the agent reads its configuration file again.

use std::io::{self, Write};

use anyhow::anyhow;
use clap::Args;
use hyper::StatusCode;

use super::{SocketArgs, closed_is_done};
use crate::api::{Client, Reloaded, client::ClientError};

/// Arguments of `xdirector reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    /// Which agent.
    #[command(flatten)]
    pub socket: SocketArgs,
}

/// Asks the agent and prints what changed. Warnings, mistakes and settings that need a restart go to standard error.
///
/// # Errors
///
/// No agent, or a file with a mistake: then nothing has changed.
pub fn run(args: &ReloadArgs) -> anyhow::Result<()> {
    let client = Client::new(args.socket.path())?;
    reload(&client, &mut io::stdout().lock(), &mut io::stderr().lock())
}

fn reload(client: &Client, out: &mut impl Write, err: &mut impl Write) -> anyhow::Result<()> {
    match client.reload() {
        Ok(reloaded) => Ok(closed_is_done(print(&reloaded, out, err))?),
        Err(ClientError::Refused { status: StatusCode::UNPROCESSABLE_ENTITY, message }) => {
            // As `xdirector check` prints them: one line each.
            writeln!(err, "{}", message.trim_end())?;
            Err(anyhow!("the file was refused; the configuration in force is unchanged"))
        }
        Err(error) => Err(error.into()),
    }
}

fn print(reloaded: &Reloaded, out: &mut impl Write, err: &mut impl Write) -> io::Result<()> {
    let Reloaded { added, changed, removed, warnings, needs_restart } = reloaded;
    for warning in warnings {
        writeln!(err, "{warning}")?;
    }
    if added + changed + removed == 0 {
        writeln!(out, "reloaded: no virtual server changed")?;
    } else {
        // Only the first number has the words: "reloaded: 1 virtual server added, 2 changed, 0 removed".
        let plural = if *added == 1 { "" } else { "s" };
        writeln!(
            out,
            "reloaded: {added} virtual server{plural} added, {changed} changed, {removed} removed"
        )?;
    }
    for setting in needs_restart {
        writeln!(err, "needs a restart of xdirector: {setting}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Request, tests::Server};

    #[tokio::test]
    async fn a_refused_file_prints_its_mistakes_and_fails() {
        let server = Server::with_agent(async |request| match request {
            Request::Reload(reply) => {
                reply.send(Err("web.toml:3: a: wrong\nweb.toml:9: b: wrong\n2 errors\n".into())).unwrap();
            }
            other => panic!("nobody asks for {other:?} here"),
        });
        let (error, out, err) = server
            .ask(|client| {
                let (mut out, mut err) = (Vec::new(), Vec::new());
                let error = reload(&client, &mut out, &mut err).unwrap_err().to_string();
                (error, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
            })
            .await;
        assert_eq!(err, "web.toml:3: a: wrong\nweb.toml:9: b: wrong\n2 errors\n");
        assert_eq!(out, "");
        assert!(error.contains("refused"), "{error}");
    }

    fn printed(reloaded: &Reloaded) -> (String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        print(reloaded, &mut out, &mut err).unwrap();
        (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn what_changed_is_said() {
        let mut reloaded =
            Reloaded { added: 1, changed: 2, removed: 0, warnings: Vec::new(), needs_restart: Vec::new() };
        let expected = "reloaded: 1 virtual server added, 2 changed, 0 removed\n";
        assert_eq!(printed(&reloaded), (expected.into(), String::new()));
        reloaded.added = 0;
        assert_eq!(printed(&reloaded).0, "reloaded: 0 virtual servers added, 2 changed, 0 removed\n");
        reloaded.changed = 0;
        assert_eq!(printed(&reloaded).0, "reloaded: no virtual server changed\n");
    }

    #[test]
    fn what_did_not_is_said_too() {
        let reloaded = Reloaded {
            added: 0,
            changed: 0,
            removed: 1,
            warnings: vec!["web.toml:3: warning: doubtful".into()],
            needs_restart: vec!["director.max_connections".into()],
        };
        let (out, err) = printed(&reloaded);
        assert_eq!(out, "reloaded: 0 virtual servers added, 0 changed, 1 removed\n");
        assert_eq!(
            err,
            "web.toml:3: warning: doubtful\nneeds a restart of xdirector: director.max_connections\n"
        );
    }
}
