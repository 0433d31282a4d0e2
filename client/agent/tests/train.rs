//! `nightshift-agent train`, as a person types it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(unix)]

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

/// A folder with a text in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rows = (0..200).map(|i| (3 + i % 37, 10 + i % 37, 57 - i % 37));
    let rows: Vec<String> = rows.map(|(a, b, c)| format!("{{\"text\": \"w{a} w{b} w{c}\"}}\n")).collect();
    fs::write(folder.path().join("text.jsonl"), rows.concat()).unwrap();
    folder
}

fn train(folder: &Path, more: &[&str]) -> Command {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/tests/reference/base");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift-agent"));
    command.arg("--base").arg(base).arg("--data").arg("text.jsonl").current_dir(folder);
    command.args(["train", "--batch", "1", "--seq-len", "8", "--out", "out"]).args(more);
    command
}

fn done(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

fn adapter(folder: &Path) -> Vec<u8> {
    fs::read(folder.join("out/adapter_model.safetensors")).unwrap()
}

#[test]
fn a_finished_adapter_is_replaced_only_if_somebody_says_so() {
    let folder = folder();
    let (code, _, said) = done(&mut train(folder.path(), &["--steps", "20"]));
    assert_eq!(code, Some(0), "{said}");
    // Where no terminal shows a bar there are lines, and how long it still takes.
    assert!(said.contains("step 10 of 20, loss ") && said.contains(" s left"), "{said}");
    let first = adapter(folder.path());
    for more in [&["--steps", "5"][..], &[], &["--resume"]] {
        let (code, _, said) = done(&mut train(folder.path(), more));
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains("out holds a finished adapter") && said.contains("--force"), "{said}");
        assert!(adapter(folder.path()) == first, "it is untouched");
    }
    assert_eq!(done(&mut train(folder.path(), &["--steps", "5", "--force"])).0, Some(0));
    assert!(adapter(folder.path()) != first);
}

#[test]
fn a_finished_adapter_is_trained_for_more_steps_and_only_as_what_it_is() {
    let run = |folder: &Path, more: &[&str]| {
        let (code, printed, said) = done(&mut train(folder, &[more, &["--format", "json"]].concat()));
        assert_eq!(code, Some(0), "{said}");
        (serde_json::from_str::<serde_json::Value>(&printed).unwrap(), said)
    };
    for method in ["both", "frozen_a"] {
        let folder = folder();
        let (first, _) = run(folder.path(), &["--steps", "30", "--method", method]);
        let before = adapter(folder.path());
        let (more, said) = run(folder.path(), &["--steps", "20", "--method", method, "--resume"]);
        assert!(said.contains("going on from the finished adapter, after 30 steps"), "{said}");
        assert!((more["steps"].as_u64(), more["earlier_steps"].as_u64()) == (Some(20), Some(30)), "{more}");
        let loss = |report: &serde_json::Value, key: &str| report[key].as_f64().unwrap();
        let (left, found) = (loss(&first, "held_out_after"), loss(&more, "held_out_before"));
        assert!((left - found).abs() < 1e-6, "{method}: {left} {found}");
        let after = adapter(folder.path());
        assert!(after != before);
        // Not as another adapter, and not from other factors.
        for other in [&["--rank", "3"][..], &["--method", "core"], &["--targets", "q_proj"]] {
            let (code, _, said) =
                done(&mut train(folder.path(), &[&["--steps", "5", "--resume"], other].concat()));
            assert!(code == Some(3) && said.contains("trained with"), "{other:?} {said}");
            assert!(adapter(folder.path()) == after, "it is untouched");
        }
    }
}

#[test]
fn what_is_interrupted_has_its_exit_code_and_goes_on_to_the_same_bits() {
    let (whole, cut) = (folder(), folder());
    let more = ["--steps", "400", "--checkpoint-every", "7"];
    assert_eq!(done(&mut train(whole.path(), &more)).0, Some(0));
    let mut running = train(cut.path(), &more).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("step 40 of 400")), "it ended before it could be stopped");
    let id = Pid::from_raw(i32::try_from(running.id()).unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let rest: Vec<String> = lines.collect();
    assert_eq!(running.wait().unwrap().code(), Some(130), "{rest:?}");
    assert!(rest.iter().any(|line| line.contains("--resume to go on")), "{rest:?}");
    assert!(!cut.path().join("out/adapter_model.safetensors").exists());
    let (code, _, said) = done(&mut train(cut.path(), &[&more[..], &["--resume"]].concat()));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("going on after step"), "{said}");
    assert!(adapter(cut.path()) == adapter(whole.path()));
}

#[test]
fn other_programs_find_the_base_from_wherever_they_are_started() {
    let folder = folder();
    assert_eq!(done(&mut train(folder.path(), &["--steps", "1"])).0, Some(0));
    let config = fs::read(folder.path().join("out/adapter_config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let named = PathBuf::from(config["base_model_name_or_path"].as_str().unwrap());
    assert!(named.is_absolute() && named.join("config.json").exists(), "{}", named.display());
}

#[test]
fn a_folder_that_cannot_be_written_is_the_disks_and_not_the_texts() {
    let folder = folder();
    fs::write(folder.path().join("out"), "a file").unwrap();
    let (code, _, said) = done(&mut train(folder.path(), &["--steps", "1"]));
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("out"), "{said}");
}
