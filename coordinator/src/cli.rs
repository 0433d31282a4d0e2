//! What people type: [`serve()`] is `nightshift-coordinator`, [`operator()`] is `nightshift`.
//!
//! Data goes to stdout, everything else to stderr. Exit codes are those of [`CliError::code`].

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

mod connection;
mod device;
mod error;
mod health;
mod model;
mod operator;
mod operators;
mod output;
mod planning;
mod privacy;
mod serve;
mod task;
mod up;

pub use error::CliError;

/// What `--help` says of exit codes.
const EXIT_CODES: &str = "Exit codes: 0 done; 1 internal failure; 2 wrong usage; 3 wrong configuration or \
input; 4 store or disk; 5 port in use or no network; 6 refused by the coordinator; 7 the task ended before \
all versions were there.";

/// Runs `nightshift-coordinator` with these arguments, the program's name first.
pub fn serve(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    forbid_dumps();
    match serve::Arguments::try_parse_from(arguments) {
        Ok(arguments) => run(serve::serve(&arguments)),
        Err(error) => usage(&error),
    }
}

/// Runs `nightshift` with these arguments, the program's name first.
pub fn operator(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    forbid_dumps();
    match operator::Arguments::try_parse_from(arguments) {
        Ok(arguments) => run(operator::operate(arguments)),
        Err(error) => usage(&error),
    }
}

/// Before anything that is secret is read.
fn forbid_dumps() {
    if let Err(error) = proto::dumps::forbid() {
        output::note(&format!("warning: {error}; what this program holds could be written to disk"));
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
            output::note(&proto::shown::message(&format!("error: {error}")).to_string());
            ExitCode::from(error.code())
        }
    }
}

fn usage(error: &clap::Error) -> ExitCode {
    // Where stdout is closed there is nobody to tell.
    drop(error.print());
    u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}
