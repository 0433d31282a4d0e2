//! The operator's terminal; see `nightshift --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    nightshift_operator::run(std::env::args_os())
}
