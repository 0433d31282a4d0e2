//! `nightshift-sim bench` as one runs it: what is printed, and exit codes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::{Command, Output};

use serde_json::Value;

fn secagg(more: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
    // What is freed goes back at once, so that the peak is of what is in use.
    command.env("MIMALLOC_PURGE_DELAY", "0");
    command.args(["bench", "secagg"]).args(more.split_whitespace()).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn json_has_what_the_round_was_and_what_it_took() {
    let output = secagg("--devices 8 --coordinates 40000 --missing 0.25 --threads 2 --seed 7 --format json");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for (field, value) in
        [("devices", 8), ("survivors", 6), ("coordinates", 40_000), ("bits", 20), ("threads", 2)]
    {
        assert_eq!(report[field], value, "{field}");
    }
    assert_eq!(report["exact"], true);
    for field in ["wall_secs", "device_total_secs", "coordinator_secs", "expansion"] {
        assert!(report[field].as_f64().unwrap() > 0.0, "{field}");
    }
    for field in ["peak_memory_bytes", "processor_secs"] {
        assert_eq!(report[field].is_number(), cfg!(target_os = "linux"), "{field}");
    }
    let steps = report["steps"].as_array().unwrap();
    let names: Vec<_> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(names, ["advertise", "share", "mask", "agree", "unmask"]);
    for step in steps {
        for field in ["total_secs", "mean_secs", "max_secs"] {
            assert!(step["device"][field].is_f64(), "{step}");
        }
        assert!(step["wall_secs"].is_f64() && step["coordinator_secs"].is_f64(), "{step}");
        for way in ["up", "down"] {
            assert!(step[way]["mean"].is_u64() && step[way]["total"].is_u64(), "{step}");
        }
    }
}

#[test]
fn text_is_the_default() {
    let output = secagg("--devices 2 --coordinates 10");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.starts_with("step") && text.contains("the sum is exact"), "{text}");
}

#[test]
fn a_round_that_cannot_be_is_wrong_usage_and_its_value_is_named() {
    for (arguments, named) in [
        ("--devices 0 --coordinates 10", "--devices is 0"),
        ("--devices 5 --coordinates 0", "--coordinates is 0"),
        ("--devices 5 --coordinates 20000000", "--coordinates is 20000000"),
        ("--devices 5 --coordinates 10 --missing 1", "--missing is 1"),
        ("--devices 5 --coordinates 10 --missing -0.2", "--missing is -0.2"),
        ("--devices 5 --coordinates 10 --missing 0.6", "leaves 2 of 5 devices"),
        ("--devices 5 --coordinates 10 --bits 33", "--bits is 33"),
        ("--devices 5 --coordinates 10 --threads 0", "--threads is 0"),
    ] {
        let output = secagg(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}");
        assert!(stderr(&output).contains(named), "{arguments}: {}", stderr(&output));
        assert!(output.stdout.is_empty());
    }
}

/// Of an input that is not complete the coordinator has no more than a chunk in memory: with six times as many devices
/// the same round takes hardly more of it.
#[test]
fn inputs_that_wait_are_on_the_disk_and_not_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let peak = |devices: u32| {
        let spool = folder.path().display();
        let output = secagg(&format!(
            "--devices {devices} --coordinates 1048576 --threads 4 --spool {spool} --format json"
        ));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["exact"], true);
        report["peak_memory_bytes"].as_u64()
    };
    if let (Some(few), Some(many)) = (peak(4), peak(24)) {
        // One packed input has 2.5 MiB.
        assert!(many < few + (8 << 20), "{few} bytes for 4 devices, {many} for 24");
    }
    assert_eq!(std::fs::read_dir(folder.path().join("nightshift-spool")).unwrap().count(), 0);
}
