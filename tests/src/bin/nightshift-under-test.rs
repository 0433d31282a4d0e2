//! The operator's program, built here so that the tests of this package find it.

use std::process::ExitCode;

fn main() -> ExitCode {
    operator::run(std::env::args_os())
}
