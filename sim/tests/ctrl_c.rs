//! The program, stopped by its user in the middle of a run.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "a process of its own is waited for")]
#![cfg_attr(target_os = "linux", expect(clippy::unwrap_used, reason = "a test fails by panicking"))]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nightshift_sim::summary::RunSummary;

#[test]
fn ctrl_c_keeps_the_versions_so_far_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
    command.args(["--devices", "6", "--versions", "500", "--privacy", "off", "--out"]).arg(&out);
    let running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while fs::read_to_string(out.join("metrics.jsonl")).map_or(0, |lines| lines.lines().count()) < 2 {
        assert!(begun.elapsed() < Duration::from_secs(300), "no version is made");
        std::thread::sleep(Duration::from_millis(20));
    }
    let told = Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(told.success());
    let ended = running.wait_with_output().unwrap();
    let words = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{words}");
    let summary: RunSummary = serde_json::from_slice(&fs::read(out.join("summary.json")).unwrap()).unwrap();
    let done = summary.versions.len();
    assert!(summary.interrupted && (2..500).contains(&done), "{done}");
    assert!(words.contains(&format!("stopped after version {done} of 500, which is kept")), "{words}");
    let report = fs::read_to_string(out.join("report.html")).unwrap();
    assert!(report.contains(&format!("stopped by its user after {done} of 500 versions")));
    assert!(out.join("adapter/adapter_model.safetensors").exists());
}

/// What the system says of a process, a line.
#[cfg(target_os = "linux")]
fn of_process(id: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
}

/// Seconds of processor time that a process has had.
#[cfg(target_os = "linux")]
fn processor_secs(id: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    ticks / 100
}

#[cfg(target_os = "linux")]
#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let made = folder.path().join("made");
    nightshift_sim::make_data::run(&nightshift_sim::make_data::Options { devices: 3 }, &made, 1).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
    // A training that takes hours, which the first one lets come to its end.
    command.args(["run", "--devices", "3", "--versions", "1", "--privacy", "off", "--local-steps", "100000"]);
    command.arg("--base").arg(made.join("base")).arg("--data").arg(made.join("users")).arg("--out").arg(&out);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let (id, begun) = (running.id(), Instant::now());
    let wait = |what: &str, is_so: &dyn Fn() -> bool| {
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(300), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let interrupt = || {
        assert!(Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap().success());
    };
    // SIGINT is the second bit of the mask of what is caught.
    let is_caught = || u64::from_str_radix(&of_process(id, "SigCgt:"), 16).unwrap() & 2 != 0;
    wait("it does not catch ctrl-c", &is_caught);
    let before = processor_secs(id);
    wait("it does not train", &|| processor_secs(id) > before + 5);
    interrupt();
    let now = processor_secs(id);
    wait("it does not go on", &|| processor_secs(id) > now);
    assert!(running.try_wait().unwrap().is_none(), "the first one ends it before its training does");
    let told = Instant::now();
    interrupt();
    let ended = running.wait().unwrap();
    assert!(told.elapsed() < Duration::from_secs(20), "{:?}", told.elapsed());
    assert_eq!(ended.code(), Some(130));
    assert!(!out.join("summary.json").exists() && !out.join("adapter").exists());
}
