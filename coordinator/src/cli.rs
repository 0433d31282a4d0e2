//! What people type: [`serve()`] is `nightshift-coordinator`. The operator's program lives in a package of its own; what
//! both do around their commands is [`program`].
//!
//! Data goes to stdout, everything else to stderr. Exit codes are those of [`CliError::code`].

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use proto::shown::{message, page};

mod error;
mod serve;

pub use error::CliError;
pub use serve::{start, until_stopped};

/// What `--help` says of exit codes.
pub const EXIT_CODES: &str = "Exit codes: 0 done; 1 internal failure; 2 wrong usage; 3 wrong configuration or \
input; 4 store or disk; 5 port in use or no network; 6 refused by the coordinator; 7 the task ended before \
all versions were there.";

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
        Err(error) => usage(&error),
    }
}

/// Tells a person something that is not data.
pub fn note(text: &str) {
    // Where stderr is closed there is nobody to tell.
    drop(writeln!(std::io::stderr().lock(), "{}", page(text)));
}

/// Before anything that is secret is read.
fn forbid_dumps() {
    if let Err(error) = proto::dumps::forbid() {
        note(&format!("warning: {error}; what this program holds could be written to disk"));
    }
}

fn run(main: impl Future<Output = Result<(), CliError>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(main);
            // Connections that do not close must not keep the process.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(CliError::Internal(format!("cannot start: {error}"))),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note(&message(&format!("error: {error}")).to_string());
            ExitCode::from(error.code())
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    // Where stdout is closed there is nobody to tell.
    drop(error.print());
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
