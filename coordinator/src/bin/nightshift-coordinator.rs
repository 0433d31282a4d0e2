//! The operator's server; see `nightshift-coordinator --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    nightshift_coordinator::cli::serve(std::env::args_os())
}
