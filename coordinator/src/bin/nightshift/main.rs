//! The operator's terminal; see `nightshift --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    coordinator::cli::operator(std::env::args_os())
}
