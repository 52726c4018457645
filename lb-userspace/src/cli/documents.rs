//! Shell completions and manual pages, made from the definition of the command line.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, closed_is_done};

/// Arguments of `xdirector completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell that reads them
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

/// Prints the completions of a shell.
///
/// # Errors
///
/// Standard output cannot be written.
pub fn completions(args: &CompletionsArgs) -> anyhow::Result<()> {
    Ok(closed_is_done(io::stdout().lock().write_all(&completions_of(args.shell)))?)
}

fn completions_of(shell: Shell) -> Vec<u8> {
    // Into memory first: the generator panics when its writer fails, and a closed pipe is no reason to.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "xdirector", &mut text);
    text
}

/// Arguments of `xdirector man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Where the pages go; made if it does not exist
    #[arg(value_name = "DIRECTORY")]
    pub directory: PathBuf,
}

/// Writes a page for the program and one for every subcommand that is for people, and prints their paths.
///
/// # Errors
///
/// The directory cannot be made or a page cannot be written.
pub fn man(args: &ManArgs) -> anyhow::Result<()> {
    let mut told = String::new();
    for path in write_pages(&args.directory)? {
        told += &format!("wrote {}\n", path.display());
    }
    Ok(closed_is_done(io::stdout().lock().write_all(told.as_bytes()))?)
}

fn write_pages(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    // `help` only repeats what the other pages say.
    let mut cli = Cli::command().disable_help_subcommand(true);
    cli.build();
    let subcommands: Vec<_> =
        cli.get_subcommands().filter(|command| !command.is_hide_set()).cloned().collect();
    let source = format!("xdirector {}", env!("CARGO_PKG_VERSION"));
    std::iter::once(cli)
        .chain(subcommands)
        .map(|command| {
            let page = Man::new(command).source(&source);
            let path = directory.join(page.get_filename());
            page.generate_to(directory).with_context(|| format!("cannot write {}", path.display()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    fn subcommands() -> Vec<String> {
        let cli = Cli::command();
        let visible = cli.get_subcommands().filter(|command| !command.is_hide_set());
        visible.map(|command| command.get_name().to_owned()).collect()
    }

    #[test]
    fn every_subcommand_has_a_page() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("share/man1");
        let written = write_pages(&inner).unwrap();
        assert!(subcommands().len() > 10);
        for name in subcommands() {
            let path = inner.join(format!("xdirector-{name}.1"));
            assert!(written.contains(&path), "{written:?}");
            let page = fs::read_to_string(&path).unwrap();
            assert!(page.contains(".SH SYNOPSIS"), "{page}");
            assert!(page.contains(&format!("xdirector {name}")), "{page}");
            assert!(page.contains(&format!("\"xdirector {}\"", env!("CARGO_PKG_VERSION"))), "{page}");
        }
        let main = fs::read_to_string(inner.join("xdirector.1")).unwrap();
        for name in subcommands() {
            assert!(main.contains(&format!("xdirector\\-{name}(1)")), "{name}: {main}");
        }
        assert_eq!(fs::read_dir(&inner).unwrap().count(), written.len());
        // A second time replaces them.
        assert_eq!(write_pages(&inner).unwrap(), written);
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = format!("{:#}", write_pages(file.path()).unwrap_err());
        assert!(error.contains(&file.path().display().to_string()), "{error}");
    }

    #[test]
    fn every_shell_learns_every_subcommand() {
        for shell in Shell::value_variants() {
            let text = String::from_utf8(completions_of(*shell)).unwrap();
            for name in subcommands() {
                assert!(text.contains(&name), "{shell}: {name}");
            }
        }
        let bash = String::from_utf8(completions_of(Shell::Bash)).unwrap();
        assert!(bash.contains("xdirector,status)") && bash.contains("--verdicts"), "{bash}");
    }
}
