//! `xdirector`: everything is in the library, where tests reach it.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_userspace::cli::main()
}
