//! A coordinator as something that runs for a year: who else comes to its store, how it ends, and a network that fails.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "IO shell: processes are waited for, and a network fails")]
#![expect(clippy::print_stdout, reason = "what was measured is to be read")]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use stage::{Running, Stage, start};

#[expect(dead_code, reason = "what other tests need of it")]
#[path = "kill/books.rs"]
mod books;
#[path = "year/drain.rs"]
mod drain;
#[path = "year/faults.rs"]
mod faults;
#[path = "year/one_store.rs"]
mod one_store;
#[path = "year/proxy.rs"]
mod proxy;
#[path = "kill/seen.rs"]
#[expect(dead_code, reason = "what other tests need of it")]
mod seen;
#[path = "common/stage.rs"]
#[expect(dead_code, reason = "what other tests need of it")]
mod stage;
#[path = "common/wait.rs"]
mod wait;
#[path = "kill/whole.rs"]
mod whole;

/// A device whose training takes no time, by its number, which connects to the coordinator at this address.
fn quick_device(stage: &Stage, name: &str, number: usize, coordinator: &str) -> Running {
    let mut command = Command::new(env!("CARGO_BIN_EXE_device-under-test"));
    command.arg(stage.path(name)).arg(stage.path("base")).args([&number.to_string(), coordinator]);
    Running::quiet(start(command.stdout(Stdio::null()).stderr(stage.log(name))))
}

/// Resident memory of a process, in bytes.
fn resident(process: &Child) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Open files of a process.
fn open_files(process: &Child) -> usize {
    fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap().count()
}

/// Adds a line to the configuration of the stage's coordinator, which was started once.
fn configure(home: &Path, line: &str) {
    let path = home.join("coordinator.toml");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{config}{line}\n")).unwrap();
}
