//! The log of enrollments, by the programs: what a device sees of it, and a coordinator that came back without the end of it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a test waits for what a process writes")]

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;
use stage::{Running, Stage, output, short_lines, text};

#[path = "common/stage.rs"]
mod stage;

const DEVICES: [&str; 4] = ["anna", "bela", "cem", "dora"];

/// What a device says of the log, and how its command ended.
fn verified(stage: &Stage, device: &str) -> (Value, Option<i32>, String) {
    let said = output(stage.agent(device).args(["log", "verify", "--format", "json"]));
    let log = serde_json::from_slice(&said.stdout).unwrap_or_default();
    (log, said.status.code(), String::from_utf8(said.stderr).unwrap())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn round(stage: &Stage) {
    let mut agents: Vec<Running> = DEVICES.iter().map(|device| stage.run(device, &["--once"])).collect();
    for agent in &mut agents {
        assert!(agent.0.wait().unwrap().success());
    }
}

#[test]
fn a_device_reads_the_log_and_goes_by_no_other_one() {
    let stage = Stage::new();
    let coordinator = stage.coordinator();
    stage.create_task(&["--versions", "2", "--privacy", "off", "--clip", "4"]);
    for (place, device) in DEVICES.iter().enumerate() {
        stage.enroll(device, &short_lines(place));
    }
    let (log, code, said) = verified(&stage, "cem");
    assert_eq!(code, Some(0), "{log} {said}");
    let numbers = ["size", "devices", "revoked", "versions", "place", "labeled_alike", "seen_before"];
    let of = |log: &Value| numbers.map(|name| log[name].as_u64().unwrap());
    assert_eq!(of(&log), [4, 4, 0, 0, 2, 1, 0]);

    // The version becomes an entry within seconds.
    round(&stage);
    let begun = Instant::now();
    let log = loop {
        let (log, code, said) = verified(&stage, "cem");
        assert_eq!(code, Some(0), "{log} {said}");
        if log["versions"] == 1 {
            break log;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{log}");
        sleep(Duration::from_millis(500));
    };
    assert_eq!(of(&log), [5, 4, 0, 1, 2, 1, 4]);
    let words = text(&output(stage.agent("cem").args(["log", "verify"])));
    assert!(words.contains("4 devices, 0 of them shut out, and 1 version"), "{words}");
    assert!(words.contains("entry 2 is this device's credential; no other device has its label"), "{words}");

    // A second device of the same label, and one that is shut out.
    drop(coordinator);
    copy(&stage.path("home"), &stage.path("backup"));
    let coordinator = stage.coordinator();
    let token = stage.operator(&["device", "token", "--label", "cem"]);
    text(&output(stage.agent("other").args(["enroll", "--token", &token])));
    let devices: Value =
        serde_json::from_str(&stage.operator(&["device", "ls", "--format", "json"])).unwrap();
    let dora =
        devices["devices"].as_array().unwrap().iter().find(|device| device["label"] == "dora").unwrap();
    stage.operator(&["device", "revoke", dora["device"].as_str().unwrap()]);
    let (log, code, said) = verified(&stage, "cem");
    assert_eq!(code, Some(0), "{log} {said}");
    assert_eq!(of(&log), [7, 5, 1, 1, 2, 2, 5]);

    // Back from the backup, without the last two entries: whoever saw them takes no part, until their user says so.
    drop(coordinator);
    fs::remove_dir_all(stage.path("home")).unwrap();
    copy(&stage.path("backup"), &stage.path("home"));
    let _coordinator = stage.coordinator();
    let (log, code, said) = verified(&stage, "cem");
    assert_eq!(code, Some(5), "{log} {said}");
    assert!(said.contains("has 5 entries and had 7 when this device saw it last"), "{said}");
    assert_eq!(of(&log), [5, 4, 0, 1, 2, 1, 7]);
    // The others saw no more than there is.
    let (log, code, said) = verified(&stage, "anna");
    assert_eq!((code, log["seen_before"].as_u64()), (Some(0), Some(4)), "{log} {said}");
    let mut others: Vec<Running> =
        ["anna", "bela", "dora"].iter().map(|device| stage.run(device, &["--once"])).collect();
    let refused = output(stage.agent("cem").arg("--data").arg(stage.path("cem.jsonl")).args([
        "run",
        "--once",
        "--override-conditions",
    ]));
    assert_eq!(refused.status.code(), Some(5), "{refused:?}");
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("it was rolled back or forked"), "{said}");
    text(&output(stage.agent("cem").args(["log", "forget"])));
    let (log, code, said) = verified(&stage, "cem");
    assert_eq!((code, log["seen_before"].as_u64()), (Some(0), Some(0)), "{log} {said}");
    others.push(stage.run("cem", &["--once"]));
    for agent in &mut others {
        assert!(agent.0.wait().unwrap().success());
    }
    assert_eq!(stage.task()["version"], 2);
}
