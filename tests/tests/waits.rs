//! What a device waits for, and what it does not: text, base, others, a coordinator.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "processes are waited for")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use stage::{POLICY, Stage, output, text};

#[expect(dead_code, reason = "what other tests need of it")]
#[path = "common/stage.rs"]
mod stage;

/// How long anything may take here.
const PATIENCE: Duration = Duration::from_secs(120);

fn wait_for(what: &str, mut look: impl FnMut() -> Option<String>) -> String {
    let (begun, mut seen) = (Instant::now(), None);
    loop {
        let now = look();
        if let Some(now) = now.as_ref().filter(|now| now.contains(what)) {
            return now.clone();
        }
        seen = now.or(seen);
        assert!(begun.elapsed() < PATIENCE, "{what} is not in {seen:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_daemon_waits_for_base_text_and_others_and_says_so() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    stage.create_task(&["--versions", "1", "--privacy", "off", "--local-steps", "1"]);
    stage.enroll("anna", &stage::short_lines(0));
    let (base, away) = (stage.path("base"), stage.path("unmounted"));
    fs::rename(&base, &away).unwrap();
    // As a place where a disk will be mounted.
    fs::create_dir(&base).unwrap();
    let (data, kept) = (stage.path("anna.jsonl"), stage.path("kept.jsonl"));
    fs::rename(&data, &kept).unwrap();
    let mut daemon = stage.run("anna", &[]);
    let log = || fs::read_to_string(stage.path("anna.log")).ok();
    let state = || {
        let said = output(stage.agent("anna").args(["status", "--format", "json"]));
        let said: serde_json::Value = serde_json::from_slice(&said.stdout).ok()?;
        Some(said["now"]["state"].as_str()?.to_owned())
    };

    wait_for("waiting for the base", log);
    wait_for("waiting for the base", state);
    fs::remove_dir(&base).unwrap();
    fs::rename(&away, &base).unwrap();
    let waits = format!("waiting for text to train on: {} is not there", data.display());
    wait_for(&waits, log);
    wait_for(&waits, state);
    assert_eq!(daemon.0.try_wait().unwrap(), None);
    fs::rename(&kept, &data).unwrap();
    wait_for("trained: version 0", log);

    wait_for("waiting for others to join the round", state);
    wait_for("waiting for others to join the round", log);
    let shown = || Some(text(&output(stage.nightshift().args(["task", "show", "owl"]))));
    let shown = wait_for("open       round 1: 1 of 4 devices joined, waits until ", shown);
    assert!(shown.contains(" for 3 more; below 3 it is given up then"), "{shown}");

    // What its user wants waits for nobody.
    let begun = Instant::now();
    assert!(output(stage.agent("anna").args(["pause", "1h"])).status.success());
    wait_for("paused", state);
    assert!(output(stage.agent("anna").arg("resume")).status.success());
    wait_for("waiting for others to join the round", state);
    let owl = output(stage.nightshift().args(["task", "show", "owl", "--format", "json"]));
    let owl: serde_json::Value = serde_json::from_slice(&owl.stdout).unwrap();
    let forgotten = output(stage.agent("anna").args(["forget", owl["task"].as_str().unwrap()]));
    assert!(forgotten.status.success(), "{}", String::from_utf8_lossy(&forgotten.stderr));
    wait_for("waiting", || state().filter(|now| !now.contains("others")));
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
}

#[test]
fn a_device_that_runs_once_does_not_wait_for_a_coordinator_for_ever() {
    let stage = Stage::new();
    let coordinator = stage.coordinator();
    stage.enroll("bela", &stage::short_lines(1));
    drop(coordinator);
    let begun = Instant::now();
    let mut command = stage.agent("bela");
    command.arg("--data").arg(stage.path("bela.jsonl")).args(["run", "--once", "--override-conditions"]);
    let ended = output(&mut command);
    let words = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(5), "{words}");
    assert!(
        words.contains("cannot be reached") && words.contains("; tried ") && words.contains(" times in "),
        "{words}"
    );
    assert!(begun.elapsed() < Duration::from_secs(90), "{words}");
}

#[test]
fn an_agent_that_runs_once_without_text_says_so_even_where_there_is_no_work() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    stage.create_task(&["--versions", "1", "--privacy", "off"]);
    stage.enroll("anna", &stage::short_lines(0));
    stage.operator(&["task", "stop", "owl"]);
    let once = |data: &Path| {
        let mut command = stage.agent("anna");
        command.arg("--data").arg(data).args(["run", "--once", "--override-conditions"]);
        let output = output(&mut command);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (folder, absent, useless) = (stage.path("empty"), stage.path("absent"), stage.path("useless.jsonl"));
    fs::create_dir(&folder).unwrap();
    fs::write(&useless, "not json\n{\"text\": 3}\n").unwrap();
    for (data, why) in [
        (&folder, "nothing of it can be used"),
        (&absent, "absent is not there"),
        (&useless, "nothing of it can be used"),
    ] {
        let (code, words) = once(data);
        assert_eq!(code, Some(3), "{words}");
        assert!(words.contains("no text to train on") && words.contains(why), "{words}");
    }
    assert_eq!(once(&stage.path("anna.jsonl")).0, Some(0));
}

#[test]
fn an_agent_that_runs_once_leaves_a_coordinator_that_says_nothing_after_half_a_minute() {
    let stage = Stage::new();
    {
        let _coordinator = stage.coordinator();
        stage.enroll("anna", &stage::short_lines(0));
    }
    // It takes connections, and never a byte.
    let frozen = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = frozen.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((stream, _)) = frozen.accept() {
            held.push(stream);
        }
    });
    stage.configure(&format!("coordinator = \"{address}\"\n{POLICY}"));
    let mut command = stage.agent("anna");
    command.arg("--data").arg(stage.path("anna.jsonl")).args(["run", "--once", "--override-conditions"]);
    let begun = Instant::now();
    let output = output(&mut command);
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    let took = begun.elapsed();
    assert_eq!(output.status.code(), Some(5), "{words}");
    assert!(words.contains(&format!("{address} cannot be reached")) && words.contains("in 30 s"), "{words}");
    // What it does before it asks, which is to read the base and the text, is no part of it.
    assert!((Duration::from_secs(29)..Duration::from_secs(55)).contains(&took), "{took:?}: {words}");
}
