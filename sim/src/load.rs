//! `nightshift-sim load` is a program of its own, `nightshift-sim-load`, as git has its commands: it links the network and the
//! stores of devices, and a simulation links none.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// The program.
const PROGRAM: &str = "nightshift-sim-load";

/// How the command is called, which is looked for before anything else is parsed: all that is behind it is the program's.
pub(crate) const NAME: &str = "load";

/// Why the program does not run.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot run {}: {why}; it is a program of its own, which lies beside nightshift-sim or on the PATH: `cargo build --release \
     -p nightshift-load` makes it",
    program.display()
)]
pub(crate) struct NotRun {
    program: PathBuf,
    why: std::io::Error,
}

/// Runs it with these arguments, in place of this program where the system can.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> Result<ExitCode, NotRun> {
    let program = program();
    let mut command = Command::new(&program);
    command.args(arguments);
    replaced_by(command).map_err(|why| NotRun { program, why })
}

/// The one beside this program, else the one that is on the PATH.
fn program() -> PathBuf {
    let name = format!("{PROGRAM}{}", std::env::consts::EXE_SUFFIX);
    let beside = std::env::current_exe().ok().map(|this| this.with_file_name(&name));
    beside.filter(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

#[cfg(unix)]
fn replaced_by(mut command: Command) -> std::io::Result<ExitCode> {
    use std::os::unix::process::CommandExt;

    Err(command.exec())
}

#[cfg(not(unix))]
fn replaced_by(mut command: Command) -> std::io::Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
