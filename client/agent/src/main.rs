//! `nightshift-agent`: the device's daemon.

use std::process::ExitCode;

/// Keeps the pages of freed tensors, which the system's allocator gives back and faults in again at every step.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    nightshift_agent::cli::main(std::env::args_os())
}
