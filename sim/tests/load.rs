//! `nightshift-sim load` hands over to the program beside it.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

// One test: a program that is written while another thread starts a process cannot be run for a moment.
#[test]
fn load_gives_all_its_arguments_to_the_program_beside_it_and_names_one_that_is_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nightshift-sim");
    fs::copy(env!("CARGO_BIN_EXE_nightshift-sim"), &path).unwrap();
    let run = |arguments: &[&str]| -> Output {
        Command::new(&path).env("PATH", folder.path().join("nowhere")).args(arguments).output().unwrap()
    };
    let words = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();

    let missing = run(&["load", "--devices", "3"]);
    assert_eq!(missing.status.code(), Some(3));
    assert!(words(&missing).contains("cannot run nightshift-sim-load: "), "{}", words(&missing));
    assert!(words(&missing).contains("cargo build --release -p nightshift-load"), "{}", words(&missing));
    let behind = run(&["--seed", "3", "load"]);
    assert_eq!(behind.status.code(), Some(2), "{}", words(&behind));
    let listed = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(listed.contains("  load  "), "{listed}");

    // Options that the simulation has too are not its own here, and it ends as the program does.
    let program = folder.path().join("nightshift-sim-load");
    fs::write(&program, "#!/bin/sh\nprintf '%s\\n' \"$@\"\nexit 5\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let output = run(&["load", "--format", "json", "--help"]);
    assert_eq!(output.status.code(), Some(5), "{}", words(&output));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "--format\njson\n--help\n");
}
