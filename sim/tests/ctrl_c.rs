//! The program, stopped by its user in the middle of a run.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "a process of its own is waited for")]

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
