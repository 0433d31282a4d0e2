//! Devices that hold several bases, and a base that is fetched from a hub.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "programs run, and a hub answers beside them")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use engine::Base;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

#[path = "common/stage.rs"]
mod stage;
#[path = "common/wait.rs"]
mod wait;

use stage::{POLICY, Running, Stage, output, short_lines, start};
use wait::wait_for;

/// A base of the same shape with other weights.
fn write_another_base(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if path.extension().is_some_and(|end| end == "safetensors") {
            // The low half of the last number.
            let last = bytes.len() - 2;
            bytes[last] ^= 1;
        }
        fs::write(to.join(path.file_name().unwrap()), bytes).unwrap();
    }
    assert_ne!(Base::open(from).unwrap().digest(), Base::open(to).unwrap().digest());
}

#[test]
fn devices_that_hold_two_bases_take_part_in_the_tasks_of_both() {
    let stage = Stage::new();
    let (one, two) = (stage.path("base"), stage.path("another-base"));
    write_another_base(&one, &two);
    stage.configure(&format!("further_bases = [{two:?}]\n{POLICY}allow_without_noise = true\n"));
    let _coordinator = stage.coordinator();
    let plan = ["--versions", "1", "--privacy", "off", "--clip", "4", "--cohort", "4", "--report-goal", "3"];
    stage.create_task(&plan[..6]);
    let create = ["task", "create", "--name", "bat", "--base", two.to_str().unwrap()];
    stage.operator(&[&create[..], &plan[..]].concat());
    let devices = ["anna", "bela", "cem", "dora"];
    for (i, device) in devices.iter().enumerate() {
        stage.enroll(device, &short_lines(i));
    }
    let _agents: Vec<Running> = devices.iter().map(|device| stage.run(device, &[])).collect();
    for name in ["owl", "bat"] {
        stage.operator(&["task", "watch", name]);
    }
    assert_eq!(stage.task()["version"].as_u64(), Some(1));
    // Both are there for the user, each with the base that it belongs to.
    let held = wait_for("anna holds both", || {
        let status = output(stage.agent("anna").args(["--format", "json", "status"]));
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
        (status["installed"].as_array()?.len() == 2).then_some(status)
    });
    let digests: Vec<String> =
        [&one, &two].map(|base| Base::open(base).unwrap().digest().to_string()).to_vec();
    let bases = held["now"]["bases"].as_array().unwrap();
    assert_eq!(bases.iter().map(|base| base.as_str().unwrap()).collect::<Vec<_>>(), digests);
}

const SHA: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub of one repository, `o/n`, on this machine; gives its address.
fn hub(folder: &Path) -> String {
    let files: BTreeMap<String, Vec<u8>> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    // A thread for each: one that connects and says nothing keeps no other from being answered.
    let files = Arc::new(files);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let files = Arc::clone(&files);
            std::thread::spawn(move || answer(stream.unwrap(), &files));
        }
    });
    address
}

fn answer(mut stream: TcpStream, files: &BTreeMap<String, Vec<u8>>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    assert!(lines.take_while(|line| !line.is_empty()).count() < 100);
    let path = first.split(' ').nth(1).unwrap_or_default();
    let body = if path == "/api/models/o/n/revision/main?blobs=true" {
        let siblings: Vec<_> = files
            .iter()
            .map(|(name, bytes)| {
                let whole = [format!("blob {}\0", bytes.len()).as_bytes(), bytes].concat();
                let blob = digest(&SHA1_FOR_LEGACY_USE_ONLY, &whole);
                let blob = format!("{blob:?}");
                let blob = blob.split_once(':').unwrap().1;
                serde_json::json!({"rfilename": name, "size": bytes.len(), "blobId": blob})
            })
            .collect();
        Some(serde_json::json!({"sha": SHA, "siblings": siblings}).to_string().into_bytes())
    } else {
        path.strip_prefix(&format!("/o/n/resolve/{SHA}/")).and_then(|name| files.get(name)).cloned()
    };
    let (status, body) = body.map_or(("404 Not Found", Vec::new()), |body| ("200 OK", body));
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    // A client that has gone away is its own business.
    drop(stream.write_all(&[head.as_bytes(), &body].concat()));
}

/// Runs a device until it trains on so many bases, and says on which.
fn bases_of_anna(stage: &Stage, endpoint: &str, least: usize) -> Vec<String> {
    let mut command = stage.agent("anna");
    command.arg("--data").arg(stage.path("anna.jsonl"));
    command.args(["run", "--override-conditions"]).env("HF_ENDPOINT", endpoint).env_remove("HF_TOKEN");
    let log = fs::File::create(stage.path("anna.log")).unwrap();
    let _agent = Running::quiet(start(command.stdout(Stdio::null()).stderr(log)));
    let bases = wait_for("the device trains on a base", || {
        let status = output(stage.agent("anna").args(["--format", "json", "status"]));
        let status: serde_json::Value = serde_json::from_slice(&status.stdout).ok()?;
        status["now"]["bases"].as_array().filter(|bases| bases.len() >= least).cloned()
    });
    bases.iter().map(|base| base.as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_base_of_the_hub_is_fetched_once_and_is_the_devices_own_from_then_on() {
    let stage = Stage::new();
    stage.configure(&format!("base = \"hf:o/n\"\n{POLICY}"));
    let _coordinator = stage.coordinator();
    stage.enroll("anna", &short_lines(0));
    let expected = vec![Base::open(&stage.path("base")).unwrap().digest().to_string()];
    assert_eq!(bases_of_anna(&stage, &hub(&stage.path("base")), 1), expected);
    let log = fs::read_to_string(stage.path("anna.log")).unwrap();
    assert!(log.contains("the base is here"), "{log}");
    // Nothing is asked for again, where there is nobody to ask.
    assert_eq!(bases_of_anna(&stage, "http://127.0.0.1:9", 1), expected);
    let log = fs::read_to_string(stage.path("anna.log")).unwrap();
    assert!(!log.contains("fetching the base"), "{log}");
}

#[test]
fn a_device_takes_part_with_the_base_that_is_here_while_another_one_comes() {
    let stage = Stage::new();
    let (one, two) = (stage.path("base"), stage.path("another-base"));
    write_another_base(&one, &two);
    stage.configure(&format!("further_bases = [\"hf:o/n\"]\n{POLICY}"));
    let _coordinator = stage.coordinator();
    stage.enroll("anna", &short_lines(0));
    let digests = [&one, &two].map(|base| Base::open(base).unwrap().digest().to_string());
    // Nobody answers yet, and the device does not wait for it.
    assert_eq!(bases_of_anna(&stage, "http://127.0.0.1:9", 1), digests[..1]);
    assert_eq!(bases_of_anna(&stage, &hub(&two), 2), digests);
}

#[test]
fn a_base_that_cannot_be_had_keeps_no_other_from_coming_and_is_said() {
    let stage = Stage::new();
    // One that the hub does not know, one that is not there, and one that comes.
    let nowhere = stage.path("nowhere");
    let named = format!("base = {nowhere:?}\nfurther_bases = [\"hf:o/unknown\", \"hf:o/n\"]\n{POLICY}");
    stage.configure(&named);
    let _coordinator = stage.coordinator();
    stage.enroll("anna", &short_lines(0));
    let expected = vec![Base::open(&stage.path("base")).unwrap().digest().to_string()];
    assert_eq!(bases_of_anna(&stage, &hub(&stage.path("base")), 1), expected);
    let log = fs::read_to_string(stage.path("anna.log")).unwrap();
    for said in ["nowhere: it is not there", "there is no `hf:o/unknown@main`", "it is tried again in 1 min"]
    {
        assert!(log.contains(said), "{said}: {log}");
    }
}

#[test]
fn who_runs_once_is_told_at_once_why_its_base_does_not_come() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    let conditions = "[conditions]\nassume = [\"unmetered\"]\n";
    stage.configure(&format!("base = \"hf:o/unknown\"\n{POLICY}{conditions}"));
    stage.enroll("anna", &short_lines(0));
    let endpoint = hub(&stage.path("base"));
    let once = || {
        let mut command = stage.agent("anna");
        command.arg("--data").arg(stage.path("anna.jsonl")).args(["run", "--once"]);
        let done = output(command.env("HF_ENDPOINT", &endpoint));
        (done.status.code(), String::from_utf8_lossy(&done.stderr).into_owned())
    };
    let (code, said) = once();
    assert!(code == Some(3) && said.contains("there is no `hf:o/unknown@main`"), "{code:?} {said}");
    stage.operator(&["device", "ls"]);
    output(stage.agent("anna").args(["pause", "1h"]));
    let (code, said) = once();
    assert!(code == Some(7) && said.contains("paused"), "{code:?} {said}");
}

#[test]
fn a_name_of_no_base_is_refused_by_what_it_is() {
    let stage = Stage::new();
    stage.configure("base = \"hf:o\"\n");
    let refused = output(stage.agent("anna").arg("status"));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("base must be a folder"), "{said}");
}
