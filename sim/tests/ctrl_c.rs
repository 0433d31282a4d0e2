//! The program, stopped by its user in the middle of a run.
#![cfg(unix)]
#![expect(clippy::disallowed_methods, reason = "a process of its own is waited for")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
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

/// A run of the program on made-up people's text, which is stopped.
struct Stopped {
    folder: tempfile::TempDir,
    running: Child,
    begun: Instant,
}

impl Stopped {
    fn run(options: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let made = folder.path().join("made");
        nightshift_sim::make_data::run(&nightshift_sim::make_data::Options { devices: 3 }, &made, 1).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
        command.args(["run", "--devices", "3", "--versions", "1", "--privacy", "off"]).args(options);
        command.arg("--base").arg(made.join("base")).arg("--data").arg(made.join("users"));
        command.arg("--out").arg(folder.path().join("out"));
        let running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self { folder, running, begun: Instant::now() }
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        while !is_so() {
            assert!(self.begun.elapsed() < Duration::from_secs(300), "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn interrupt(&self) {
        let told = Command::new("kill").args(["-INT", &self.running.id().to_string()]).status().unwrap();
        assert!(told.success());
    }

    /// How it ended, what it said, and how long that took.
    fn ended(self) -> (Option<i32>, String, Duration, tempfile::TempDir) {
        let told = Instant::now();
        let ended = self.running.wait_with_output().unwrap();
        let words = String::from_utf8(ended.stderr).unwrap();
        (ended.status.code(), words, told.elapsed(), self.folder)
    }
}

#[test]
fn ctrl_c_while_comparisons_are_trained_leaves_them_out_and_keeps_the_adapter() {
    let run = Stopped::run(&["--local-steps", "1"]);
    let summary = run.out().join("summary.json");
    run.wait("no summary is written before the comparisons", || summary.exists());
    let written = fs::read(&summary).unwrap();
    assert!(run.out().join("adapter/adapter_model.safetensors").exists());
    run.interrupt();
    let (code, words, took, folder) = run.ended();
    assert_eq!(code, Some(130), "{words}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(words.contains("the last is kept; it is not compared with what is trained"), "{words}");
    assert!(words.contains("version 1 of 1: held-out loss"), "no terminal shows a bar: {words}");
    let out = folder.path().join("out");
    let whole = fs::read(out.join("summary.json")).unwrap();
    assert_eq!(whole, written, "what is written first is all that is known");
    let summary: RunSummary = serde_json::from_slice(&whole).unwrap();
    assert!(!summary.interrupted && summary.versions.len() == 1);
    assert!(summary.warnings.iter().any(|warning| warning.starts_with("not compared")), "{words}");
}

#[test]
fn ctrl_c_ends_a_training_after_its_step_and_leaves_nothing_of_a_run_without_a_version() {
    let run = Stopped::run(&["--local-steps", "100000"]);
    let metrics = run.out().join("metrics.jsonl");
    run.wait("the folder is not made", || metrics.exists());
    std::thread::sleep(Duration::from_secs(2));
    run.interrupt();
    let (code, words, took, folder) = run.ended();
    assert_eq!(code, Some(130), "{words}");
    assert!(words.contains("there is nothing to keep"), "{words}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(!folder.path().join("out").exists());
}

#[test]
fn a_second_ctrl_c_ends_it_at_once() {
    // One step that takes minutes.
    let mut run = Stopped::run(&["--local-steps", "1", "--batch-size", "16384"]);
    let metrics = run.out().join("metrics.jsonl");
    run.wait("the folder is not made", || metrics.exists());
    std::thread::sleep(Duration::from_secs(3));
    run.interrupt();
    std::thread::sleep(Duration::from_millis(500));
    assert!(run.running.try_wait().unwrap().is_none(), "the first one ends it in the middle of its step");
    run.interrupt();
    let (code, words, took, folder) = run.ended();
    assert_eq!(code, Some(130), "{words}");
    // A second, and what the system needs to take its memory back.
    assert!(took < Duration::from_secs(5), "{took:?}: {words}");
    let out = folder.path().join("out");
    assert!(!out.join("summary.json").exists() && !out.join("adapter").exists());
}

#[test]
fn a_run_that_is_refused_leaves_no_folder() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-sim"));
    command.args(["--devices", "10", "--rank", "32", "--noise-multiplier", "50", "--out"]).arg(&out);
    let refused = command.output().unwrap();
    let words = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{words}");
    assert!(words.contains("signal to noise"), "{words}");
    assert!(!out.exists());
}
