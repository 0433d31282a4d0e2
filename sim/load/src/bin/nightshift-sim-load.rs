//! The load generator; see `nightshift-sim load --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    nightshift_load::cli::run(std::env::args_os())
}
