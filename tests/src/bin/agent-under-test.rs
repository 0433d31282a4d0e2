//! The device's program, built here so that the tests of this package find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    nightshift_agent::cli::main(std::env::args_os())
}
