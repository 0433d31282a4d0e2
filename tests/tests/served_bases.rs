//! Devices that lack the base of a task, and a coordinator that serves it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "programs run, and are looked at until something is so")]

use std::fs;
use std::path::PathBuf;

use engine::Base;

#[path = "common/stage.rs"]
mod stage;
#[path = "common/wait.rs"]
mod wait;

use stage::{POLICY, Running, Stage, output, short_lines};
use wait::wait_for;

/// A stage whose devices hold no base, and give this room to one of the coordinator's, in MiB.
fn stage_without_bases(room_mib: u32) -> Stage {
    let stage = Stage::new();
    let nowhere = stage.path("nowhere");
    stage.configure(&format!(
        "base = '{}'\n{POLICY}allow_without_noise = true\ncoordinator_bases_mib = {room_mib}\n",
        nowhere.display()
    ));
    stage
}

fn coordinator(stage: &Stage, serves: bool) -> Running {
    if serves {
        fs::create_dir_all(stage.path("home")).unwrap();
        let (device, admin) = stage.ports;
        let config = format!(
            "listen = \"127.0.0.1:{device}\"\nadmin_listen = \"127.0.0.1:{admin}\"\nstate_dir = '{}'\nbases = ['{}']\n",
            stage.path("home").display(),
            stage.path("base").display()
        );
        fs::write(stage.path("home").join("coordinator.toml"), config).unwrap();
    }
    stage.coordinator()
}

fn folder_of(stage: &Stage, device: &str) -> PathBuf {
    let digest = Base::open(&stage.path("base")).unwrap().digest();
    stage.path(device).join("bases").join(digest.to_string())
}

/// A device that runs until one round is over.
fn once(stage: &Stage, device: &str) -> (Option<i32>, String) {
    let mut command = stage.agent(device);
    command.arg("--data").arg(stage.path(&format!("{device}.jsonl")));
    let done = output(command.args(["run", "--once", "--override-conditions"]));
    (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
}

fn status(stage: &Stage, device: &str) -> Option<serde_json::Value> {
    let status = output(stage.agent(device).args(["--format", "json", "status"]));
    serde_json::from_slice(&status.stdout).ok()
}

const SHORT: [&str; 6] = ["--versions", "1", "--privacy", "off", "--clip", "4"];

#[test]
fn devices_without_a_base_fetch_that_of_the_task_and_take_part() {
    let stage = stage_without_bases(64);
    let _coordinator = coordinator(&stage, true);
    stage.create_task(&SHORT);
    let devices = ["anna", "bela", "cem", "dora"];
    for (i, device) in devices.iter().enumerate() {
        stage.enroll(device, &short_lines(i));
    }
    // One is gone on with from where it was cut.
    let part = folder_of(&stage, "anna").with_extension("part");
    fs::create_dir_all(&part).unwrap();
    let weights = fs::read(stage.path("base").join("model.safetensors")).unwrap();
    fs::write(part.join("model.safetensors"), &weights[..1000]).unwrap();

    let agents: Vec<Running> = devices.iter().map(|device| stage.run(device, &[])).collect();
    stage.operator(&["task", "watch", "owl"]);
    assert_eq!(stage.task()["version"].as_u64(), Some(1));
    for device in devices {
        let held = wait_for(device, || {
            let status = status(&stage, device)?;
            (status["installed"].as_array()?.len() == 1).then_some(status)
        });
        assert_eq!(held["now"]["bases"].as_array().unwrap().len(), 1);
    }
    let folder = folder_of(&stage, "anna");
    assert_eq!(Base::open(&folder).unwrap().digest(), Base::open(&stage.path("base")).unwrap().digest());
    let log = String::from_utf8(output(stage.agent("anna").arg("log")).stdout).unwrap();
    for said in ["fetches", "fetched", "contributes"] {
        assert!(log.contains(said), "{log}");
    }
    // Whoever leaves the task has the room again.
    drop(agents);
    let task = stage.task()["task"].as_str().unwrap().to_owned();
    assert!(output(stage.agent("anna").args(["forget", &task])).status.success());
    assert!(!folder.exists());
}

#[test]
fn nothing_is_fetched_without_the_users_word_or_beyond_their_limit() {
    let stage = stage_without_bases(0);
    // A base of more than one MiB: spaces at the end mean nothing.
    let tokenizer = stage.path("base").join("tokenizer.json");
    let wide = [fs::read(&tokenizer).unwrap(), vec![b' '; 1 << 20]].concat();
    fs::write(&tokenizer, wide).unwrap();
    let _coordinator = coordinator(&stage, true);
    stage.create_task(&SHORT);
    stage.enroll("anna", &short_lines(0));
    let (code, said) = once(&stage, "anna");
    assert!(code == Some(3) && said.contains("nowhere"), "{code:?} {said}");

    // With a base of its own, and no word about others.
    let other = stage.path("other");
    fs::create_dir_all(&other).unwrap();
    for entry in fs::read_dir(stage.path("base")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|end| end == "safetensors") {
            *bytes.last_mut().unwrap() ^= 1;
        }
        fs::write(other.join(path.file_name().unwrap()), bytes).unwrap();
    }
    stage.configure(&format!("base = {other:?}\n{POLICY}allow_without_noise = true\n"));
    let (code, said) = once(&stage, "anna");
    assert!(code == Some(6) && said.contains("the plan is for the base"), "{code:?} {said}");
    assert!(!stage.path("anna").join("bases").exists());

    // What other limits forbid is not fetched for.
    stage.configure(&format!("base = {other:?}\n[policy]\ncoordinator_bases_mib = 64\n"));
    let (code, said) = once(&stage, "anna");
    assert!(code == Some(6) && said.contains("the plan is for the base"), "{code:?} {said}");
    assert!(!stage.path("anna").join("bases").exists());

    let room = "allow_without_noise = true\ncoordinator_bases_mib = 1\n";
    stage.configure(&format!("base = {other:?}\n{POLICY}{room}"));
    let (code, said) = once(&stage, "anna");
    assert!(code == Some(6) && said.contains("policy.coordinator_bases_mib gives 1"), "{code:?} {said}");
    assert_eq!(fs::read_dir(stage.path("anna").join("bases")).unwrap().count(), 0);
}

#[test]
fn a_base_that_is_not_served_or_does_not_come_whole_is_said() {
    let stage = stage_without_bases(64);
    let first = coordinator(&stage, false);
    stage.create_task(&SHORT);
    stage.enroll("anna", &short_lines(0));
    let (code, said) = once(&stage, "anna");
    assert!(code == Some(6) && said.contains("does not serve the base"), "{code:?} {said}");
    drop(first);

    let _coordinator = coordinator(&stage, true);
    // What came before is of another file; and of a task that is left nothing stays, half a base neither.
    let part = folder_of(&stage, "anna").with_extension("part");
    fs::create_dir_all(&part).unwrap();
    fs::write(part.join("model.safetensors"), b"of something else").unwrap();
    let (code, said) = once(&stage, "anna");
    assert!(
        code == Some(6) && said.contains("`model.safetensors`") && said.contains("was deleted"),
        "{code:?} {said}"
    );
    assert!(!part.join("model.safetensors").exists() && !folder_of(&stage, "anna").exists());
    // It is not asked for again soon.
    let (code, said) = once(&stage, "anna");
    assert!(code == Some(6) && said.contains("`model.safetensors`"), "{code:?} {said}");
    let task = stage.task()["task"].as_str().unwrap().to_owned();
    assert!(output(stage.agent("anna").args(["forget", &task])).status.success());
    assert!(!part.exists());
}

#[test]
fn a_base_that_came_and_is_of_no_use_is_not_fetched_again() {
    let stage = stage_without_bases(64);
    // One that the operator's program takes, and no engine.
    let config = stage.path("base").join("config.json");
    let text = fs::read_to_string(&config).unwrap().replace("LlamaForCausalLM", "UnknownForCausalLM");
    assert!(text.contains("UnknownForCausalLM"), "{text}");
    fs::write(&config, text).unwrap();
    let _coordinator = coordinator(&stage, true);
    stage.create_task(&SHORT);
    stage.enroll("anna", &short_lines(0));
    let (code, said) = once(&stage, "anna");
    assert!(code == Some(6) && said.contains("cannot be trained on here"), "{code:?} {said}");
    assert_eq!(said.matches("fetches: the base").count(), 1, "{said}");
    assert_eq!(fs::read_dir(stage.path("anna").join("bases")).unwrap().count(), 1);
}

#[test]
fn a_coordinator_does_not_start_with_a_base_that_is_not_there() {
    let stage = Stage::new();
    let up = stage.nightshift().args(["up", "--serve-base"]).arg(stage.path("nowhere")).output().unwrap();
    let said = String::from_utf8_lossy(&up.stderr).into_owned();
    assert!(up.status.code() == Some(3) && said.contains("nowhere"), "{:?} {said}", up.status);
}
