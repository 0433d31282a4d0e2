//! What people type: [`serve()`] is `nightshift-coordinator`. The operator's program lives in a package of its own; what
//! both do around their commands is [`program`].
//!
//! Data goes to stdout, everything else to stderr. Exit codes are those of [`CliError::code`].

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use shell::cli;

mod error;
mod serve;

pub use error::CliError;
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

/// Runs a program of these arguments, the program's name first: parses them, gives `command` a runtime, and says what
/// failed and by which code.
pub fn program<A, F>(arguments: impl IntoIterator<Item = OsString>, command: impl FnOnce(A) -> F) -> ExitCode
where
    A: Parser,
    F: Future<Output = Result<(), CliError>>,
{
    forbid_dumps();
    match A::try_parse_from(arguments) {
        Ok(arguments) => run(command(arguments)),
        Err(error) => cli::usage(&error),
    }
}

/// Before anything that is secret is read.
fn forbid_dumps() {
    if let Err(error) = proto::dumps::forbid() {
        cli::note(&format!("warning: {error}; what this program holds could be written to disk"));
    }
}

fn run(main: impl Future<Output = Result<(), CliError>>) -> ExitCode {
    let outcome = cli::block_on(None, main)
        .unwrap_or_else(|error| Err(CliError::Internal(format!("cannot start: {error}"))));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::failed("error", &error, error.code()),
    }
}
