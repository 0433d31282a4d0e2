//! The enrollment authority; see `nightshift-authority --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    nightshift_authority::cli::run(std::env::args_os())
}
