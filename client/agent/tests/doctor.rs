//! `nightshift-agent doctor`, as a process.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

/// What `doctor` prints, by a configuration, in a folder where there is no device.
fn doctor(folder: &Path, config: &str) -> (Output, Value) {
    let path = folder.join("agent.toml");
    fs::write(&path, config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-agent"));
    command.env("HOME", folder).arg("--config").arg(path).arg("--state-dir").arg(folder.join("state"));
    command
        .arg("--data")
        .arg(folder.join("notes.txt"))
        .args(["--base", "~/base", "--format", "json", "doctor"]);
    let output = command.output().unwrap();
    let found = serde_json::from_slice(&output.stdout).unwrap();
    (output, found)
}

fn verdict<'a>(found: &'a Value, check: &str) -> &'a Value {
    let checks = found["checks"].as_array().unwrap();
    checks
        .iter()
        .find(|finding| finding["check"] == check)
        .map_or(&Value::Null, |finding| &finding["verdict"])
}

#[test]
fn it_makes_nothing_and_exits_with_the_code_of_the_first_fault() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("notes.txt"), "A note about boats.\n\nAnother one about bread.\n").unwrap();
    let (output, found) = doctor(
        folder.path(),
        "[conditions]\nassume = ['mains', 'idle', 'unmetered', 'cool', 'free', 'saver']\n",
    );
    assert_eq!(output.status.code(), Some(5), "{found}");
    for (check, expected) in [
        ("configuration", "ok"),
        ("folder", "ok"),
        ("enrollment", "fault"),
        ("pause", "ok"),
        ("base", "fault"),
        ("text", "ok"),
    ] {
        assert_eq!(verdict(&found, check), expected, "{check}: {found}");
    }
    assert_eq!(found["faults"], 2, "{found}");
    let base = found["checks"].as_array().unwrap().iter().find(|finding| finding["check"] == "base").unwrap();
    let home = folder.path().join("base");
    assert!(base["what"].as_str().unwrap().starts_with(home.to_str().unwrap()), "{base}");
    let mut left: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["agent.toml", "notes.txt"], "nothing was made");
}

#[test]
fn a_configuration_that_cannot_be_read_is_the_only_fault_that_it_can_see() {
    let folder = tempfile::tempdir().unwrap();
    let (output, found) = doctor(folder.path(), "coordinater = 'x'\n");
    assert_eq!(output.status.code(), Some(3), "{found}");
    assert_eq!((found["faults"].as_u64(), found["checks"].as_array().unwrap().len()), (Some(1), 1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("found at fault: configuration"), "{said}");
}
