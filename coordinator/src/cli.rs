//! What people type: [`serve()`] is `nightshift-coordinator`. The operator's program lives in a package of its own; what
//! both do around their commands is [`program`].
//!
//! Data goes to stdout, everything else to stderr. Exit codes are those of [`CliError::code`].

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;
pub use serving::cli::{CliError, program};

mod serve;

pub use serve::{start, until_stopped};

/// What `--help` says of exit codes.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 internal failure; 2 wrong usage; 3 wrong configuration or \
input; 4 store or disk; 5 port in use or no network; 6 refused by the coordinator; 7 the task ended before \
all versions were there.";

/// All that can be typed to `nightshift-coordinator`, for manual pages and completions.
pub fn command() -> clap::Command {
    serve::Arguments::command()
}

/// Runs `nightshift-coordinator` with these arguments, the program's name first.
pub fn serve(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    program(arguments, serve::serve)
}
