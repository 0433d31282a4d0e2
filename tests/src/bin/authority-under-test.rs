//! The enrollment authority, built here so that the tests of this package find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    authority::cli::run(std::env::args_os())
}
