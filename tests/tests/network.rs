//! A coordinator and agents as processes, over TLS on loopback.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use client::store::DeviceStore;
use client::transport::pinned_authority;
use engine::Engine;
use engine::{Base, Projection};
use formats::{BaseInfo, MANIFEST_FILE, Manifest, Origin};
use proto::adapter::AdapterSpec;
use proto::ids::{Digest, TaskId};
use proto::plan::{Plan, vector_from_bytes, vector_to_bytes};
use proto::token::BootstrapToken;
use proto::wire::{self, device_client::DeviceClient};
use safetensors::SafeTensors;
use session::spending::Found;
use shell::tls::{Connector, Trust, client_config};
use text::{Corpus, ReadOptions, UserText};
use tonic::Code;
use tonic::transport::Endpoint;

use stage::{POLICY, Running, Stage, output, short_lines, start, text};

#[path = "common/stage.rs"]
mod stage;

fn artifact(stage: &Stage, digest: &serde_json::Value) -> Vec<u8> {
    let name = digest.as_str().unwrap();
    fs::read(find(&stage.path("home"), name).expect("the artefact is in the coordinator's folder")).unwrap()
}

/// Where a file lies below a folder, if it does.
fn find(folder: &Path, name: &str) -> Option<PathBuf> {
    fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return find(&path, name);
        }
        let named = path.file_name().is_some_and(|file| file.to_string_lossy().contains(name));
        named.then_some(path)
    })
}

#[test]
fn the_published_adapter_is_what_four_agents_updates_add_up_to() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    stage.create_task(&["--versions", "1", "--privacy", "off", "--clip", "4"]);
    let devices = ["anna", "bela", "cem", "dora"];
    for (i, device) in devices.iter().enumerate() {
        stage.enroll(device, &short_lines(i));
    }
    let mut agents: Vec<Running> = devices.iter().map(|device| stage.run(device, &["--once"])).collect();
    stage.operator(&["task", "watch", "owl"]);
    for agent in &mut agents {
        assert!(agent.0.wait().unwrap().success());
    }

    let task = stage.task();
    assert_eq!((task["state"].as_str(), task["version"].as_u64()), (Some("complete"), Some(1)));
    assert_eq!(task["versions"][0]["survivors"].as_u64(), Some(4));
    let plan = Plan::parse(&artifact(&stage, &task["plan"])).unwrap();
    let published = vector_from_bytes(&artifact(&stage, &task["adapter"])).unwrap();

    // The same trainings, here.
    let base = Arc::new(Base::open(&stage.path("base")).unwrap());
    let engine = Engine::new(Arc::clone(&base));
    let proto::adapter::Factors::Seeded(seed) = plan.adapter.factors else {
        panic!("the factors are not seeded")
    };
    let frozen = plan.adapter.seeded_factors(&seed);
    let start = plan.adapter.initial(&plan.initial_seed, None);
    let mut mean = vec![0.0_f64; start.len()];
    let mut mean_loss = 0.0;
    for device in devices {
        let path = stage.path(&format!("{device}.jsonl"));
        let text = UserText::read(&[path], &ReadOptions::default()).unwrap();
        let blocks = Corpus::new(&base, &text).unwrap().train(plan.training.sequence_len);
        assert_eq!(blocks.len(), 1, "the text must be one block, so that its update has no randomness");
        let mut go_on = |_| ControlFlow::Continue(());
        let trained = engine
            .train(&plan.adapter, &frozen, &start, &blocks, &plan.training, [9; 32], &mut go_on)
            .unwrap();
        let losses = &trained.losses;
        mean_loss += losses.iter().map(|x| f64::from(*x)).sum::<f64>() / losses.len() as f64 / 4.0;
        for ((sum, after), before) in mean.iter_mut().zip(&trained.parameters).zip(&start) {
            *sum += f64::from(after - before) / 4.0;
        }
    }
    let largest = mean.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
    // Each input is rounded to whole steps of 1 / scale, then turned and averaged over four.
    let rounding = 2.0 / plan.privacy.scale;
    assert!(largest > 100.0 * rounding, "too little was learnt to see a mistake: {largest}");
    for (i, (found, expected)) in published.iter().zip(&mean).enumerate() {
        let distance = (f64::from(*found) - expected).abs();
        assert!(distance < rounding, "parameter {i}: {found} is not {expected}");
    }

    // What the devices said of their trainings is known as a mean, and exactly so without noise.
    let metrics = task["versions"][0]["metrics"].as_array().unwrap();
    let loss = metrics.iter().find(|metric| metric["name"] == "loss").unwrap();
    assert_eq!(loss["standard_deviation"].as_f64(), Some(0.0));
    let told = loss["mean"].as_f64().unwrap();
    assert!((told - mean_loss).abs() < 1e-2, "{told} is not {mean_loss}");

    // Every device holds it, and what is pulled for other programs is the same.
    for device in devices {
        let installed = stage.path(device).join("installed");
        let task_of = fs::read_dir(&installed).unwrap().next().unwrap().unwrap().path();
        let folder = task_of.join(fs::read_to_string(task_of.join("current")).unwrap());
        let installed = fs::read(folder.join("adapter.f32")).unwrap();
        assert_eq!(vector_from_bytes(&installed).unwrap(), published);
        // And as two factors, for other programs: A, then B, layer by layer.
        let manifest = fs::read(folder.join("manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let shipped: AdapterSpec = serde_json::from_value(manifest["shipped"].clone()).unwrap();
        let parameters = vector_from_bytes(&fs::read(folder.join("shipped.f32")).unwrap()).unwrap();
        shipped.check_trained(&parameters).unwrap();
        let a_len = shipped.rank as usize * shipped.modules[0].inputs as usize;
        let b_len = shipped.rank as usize * shipped.modules[0].outputs as usize;
        assert_eq!(parameters[a_len..a_len + b_len], published[..b_len]);
    }
    let out = stage.path("peft");
    stage.operator(&["model", "pull", "--task", "owl", "--as", "peft", "--out", out.to_str().unwrap()]);
    let bytes = fs::read(out.join("adapter_model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let module = &plan.adapter.modules[0];
    let b = file.tensor(&format!("base_model.model.{}.lora_B.weight", module.name)).unwrap();
    let b = vector_from_bytes(b.data()).unwrap();
    assert_eq!(b, published[..b.len()]);

    // The coordinator vouches for it, and a device passes that on with what it holds.
    let manifest = |folder: &Path| Manifest::parse(&fs::read(folder.join(MANIFEST_FILE)).unwrap()).unwrap();
    let Manifest { origin: Origin::Release(signed), .. } = manifest(&out) else {
        panic!("nobody signed {:?}", manifest(&out))
    };
    let release = signed.release;
    assert_eq!((release.version.version, release.parent, release.survivors), (1, 0, 4));
    assert_eq!(
        (release.version.adapter, release.epsilon.is_finite()),
        (Digest::of(&vector_to_bytes(&published)), false)
    );
    let (mine, said) = (stage.path("anna-peft"), out.join(MANIFEST_FILE));
    let export = ["export", "--out", mine.to_str().unwrap(), "--release", said.to_str().unwrap()];
    text(&output(stage.agent("anna").args(export)));
    assert_eq!(manifest(&mine).origin, Origin::Release(signed));
    assert!(fs::read(mine.join("adapter_model.safetensors")).unwrap() == bytes);
}

#[test]
fn committed_versions_survive_a_kill_of_the_coordinator() {
    let stage = Stage::new();
    let mut coordinator = stage.coordinator();
    // A round that is cut off after its charge costs a participation: there must be some to spare.
    stage.create_task(&["--versions", "4", "--privacy", "off", "--participations", "20"]);
    let devices = ["anna", "bela", "cem", "dora"];
    for (i, device) in devices.iter().enumerate() {
        stage.enroll(device, &short_lines(i));
    }
    let agents: Vec<Running> = devices.iter().map(|device| stage.run(device, &[])).collect();

    // Until the first version is there; then the coordinator dies without a word.
    let mut watch = stage.nightshift();
    watch.args(["task", "watch", "owl"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut watch = Running::quiet(start(&mut watch));
    let first = BufReader::new(watch.0.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .find(|line| line.to_lowercase().contains("version 1"));
    assert!(first.is_some(), "the watch ended before the first version");
    let before = stage.task();
    coordinator.0.kill().unwrap();
    coordinator.0.wait().unwrap();

    let _coordinator = stage.coordinator();
    let after = stage.task();
    let (known, found) = (before["versions"].as_array().unwrap(), after["versions"].as_array().unwrap());
    assert!(!known.is_empty() && found.len() >= known.len(), "{before} {after}");
    assert_eq!(known[..], found[..known.len()]);
    for version in found {
        assert!(!artifact(&stage, &version["adapter"]).is_empty());
    }

    // The agents find it again by themselves, and the task goes on to its end, each version once.
    stage.operator(&["task", "watch", "owl"]);
    let done = stage.task();
    let numbers: Vec<u64> =
        done["versions"].as_array().unwrap().iter().map(|v| v["version"].as_u64().unwrap()).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    drop(agents);
    for device in devices {
        let verified = text(&output(stage.agent(device).args(["ledger", "--verify"])));
        assert!(verified.contains("is whole"), "{verified}");
    }
}

#[test]
fn charges_that_were_found_at_the_coordinator_are_shown_as_such() {
    let stage = Stage::new();
    let mut memory = DeviceStore::open(&stage.path("anna")).unwrap();
    let (task, plan) = (TaskId([7; 16]), Digest([8; 32]));
    let cost = Plan::example().participation_cost();
    memory.charge_found(Found { task, times: 3, plan, cost, delta: 1e-5 }, 5).unwrap();
    drop(memory);
    let said = |command: &str| text(&output(stage.agent("anna").arg(command)));
    let ledger = said("ledger");
    let line = ledger.lines().find(|line| line.contains(&task.to_string())).unwrap();
    assert!(line.contains("3 found at the coordinator") && line.contains("at δ = 1e-5"), "{line}");
    let status = said("status");
    assert!(status.contains("3 rounds were charged that this folder did not know of"), "{status}");
}

#[test]
fn what_cannot_take_part_is_told_why() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    stage.create_task(&["--versions", "1", "--privacy", "off"]);
    stage.enroll("anna", &short_lines(0));
    let code_and_words = |command: &mut Command| {
        let output = output(command);
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };

    // A token works once.
    let token = stage.operator(&["device", "token", "--label", "bela"]);
    let file = stage.path("bela.token");
    fs::write(&file, format!("{token}\n")).unwrap();
    text(&output(stage.agent("bela").args(["enroll", "--token-file"]).arg(file)));
    let (code, words) = code_and_words(stage.agent("cem").args(["enroll", "--token", &token]));
    assert_eq!(code, 5, "{words}");
    assert!(words.contains("token"), "{words}");
    // Nothing is left of that, and the next try with a good one works.
    assert!(!stage.path("cem").exists());
    let good = stage.operator(&["device", "token", "--label", "cem"]);
    text(&output(stage.agent("cem").args(["enroll", "--token", &good])));
    let (code, words) = code_and_words(stage.agent("cem").args(["enroll", "--again", "--token", &token]));
    assert_eq!(code, 5, "{words}");
    let status = text(&output(stage.agent("cem").args(["status"])));
    assert!(status.contains("cem"), "what was there stays: {status}");

    // Who is not enrolled is told what to do.
    let data = stage.path("anna.jsonl");
    let data = data.to_str().unwrap();
    let (code, words) =
        code_and_words(stage.agent("dora").args(["--data", data, "run", "--once", "--override-conditions"]));
    assert_eq!(code, 5, "{words}");
    assert!(words.contains("enroll --token"), "{words}");

    // Conditions hold a device back unless a person says otherwise.
    let (code, words) = code_and_words(stage.agent("anna").args(["--data", data, "run", "--once"]));
    assert_eq!(code, 7, "{words}");
    assert!(words.contains("--override-conditions"), "{words}");

    // The device's own limits: a plan without noise.
    stage.configure(POLICY);
    let (code, words) =
        code_and_words(stage.agent("anna").args(["--data", data, "run", "--once", "--override-conditions"]));
    assert_eq!(code, 6, "{words}");
    assert!(words.contains("noise of its own"), "{words}");
    // The user can read it later; the coordinator knows the category.
    let status = text(&stage.agent("anna").arg("status").output().unwrap());
    assert!(status.contains("noise of its own"), "{status}");
    let declined = stage.task()["declined"].clone();
    assert_eq!((&declined[0]["reason"], &declined[0]["devices"]), (&"noise".into(), &1.into()));
    assert_eq!(declined[1], serde_json::Value::Null, "{declined}");
    // Nor does it take part in more work, or with more memory, than its user allows.
    for (limit, words_of_it, category) in [
        ("largest_tokens_a_round = 1", "trains on at most 1;", "work"),
        ("largest_memory_mib = 1", "this device allows 1 MiB;", "memory"),
    ] {
        stage.configure(&format!("{POLICY}allow_without_noise = true\n{limit}\n"));
        let (code, words) = code_and_words(stage.agent("anna").args([
            "--data",
            data,
            "run",
            "--once",
            "--override-conditions",
        ]));
        assert_eq!(code, 6, "{words}");
        assert!(words.contains(words_of_it), "{words}");
        let declined = &stage.task()["declined"];
        assert_eq!((&declined[0]["reason"], &declined[0]["devices"]), (&category.into(), &1.into()));
    }
    let spent = stage.operator(&["privacy", "spent", "owl", "--format", "json"]);
    let spent: serde_json::Value = serde_json::from_str(&spent).unwrap();
    assert_eq!((spent["mode"].as_str(), spent["rounds_charged"].as_u64()), (Some("off"), Some(0)));

    // A user without usable text, and a base that is not there.
    let empty = stage.path("empty.jsonl");
    fs::write(&empty, "not json\n{\"text\": 3}\n").unwrap();
    stage.configure(&format!("{POLICY}allow_without_noise = true\n"));
    let empty = empty.to_str().unwrap();
    let (code, words) =
        code_and_words(stage.agent("anna").args(["--data", empty, "run", "--once", "--override-conditions"]));
    assert_eq!(code, 3, "{words}");
    assert!(words.contains('2'), "{words}");

    // A revoked device.
    let devices = stage.operator(&["device", "ls", "--format", "json"]);
    let devices: serde_json::Value = serde_json::from_str(&devices).unwrap();
    let list = devices["devices"].as_array().unwrap();
    let anna = list.iter().find(|device| device["label"] == "anna").unwrap()["device"].as_str().unwrap();
    stage.operator(&["device", "revoke", anna]);
    let (code, words) =
        code_and_words(stage.agent("anna").args(["--data", data, "run", "--once", "--override-conditions"]));
    assert_eq!(code, 5, "{words}");
    assert!(words.contains("revoked"), "{words}");
}

#[test]
fn an_operators_certificate_is_used_again_and_can_be_rotated_and_revoked() {
    let stage = Stage::new();
    let list = || {
        let list = stage.operator(&["operator", "ls", "--format", "json"]);
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list["operators"].as_array().unwrap().clone()
    };
    drop(stage.coordinator());
    let _coordinator = stage.coordinator();
    let first = list();
    assert_eq!(first.len(), 1, "a restart makes no other");
    let old = stage.path("old");
    fs::create_dir(&old).unwrap();
    for file in ["operator.pem", "operator.key", "admin.address"] {
        fs::copy(stage.path("home").join(file), old.join(file)).unwrap();
    }
    let said = stage.operator(&["operator", "rotate"]);
    assert!(said.contains("the old one is worthless"), "{said}");
    let second = list();
    let revoked = second.iter().find(|operator| operator["serial"] == first[0]["serial"]).unwrap();
    assert_eq!((second.len(), revoked["revoked"].as_bool()), (2, Some(true)));
    let mut command = Command::new(stage.nightshift().get_program());
    let refused = output(command.arg("--dir").arg(&old).args(["task", "ls"]));
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");
    let health = stage.operator(&["health"]);
    assert!(health.starts_with("serving"), "{health}");
    assert!(health.contains("a certificate of somebody who is not known or was shut out"), "{health}");
    let unknown = output(stage.nightshift().args(["operator", "revoke", &"00".repeat(16)]));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("nightshift operator ls"));
}

/// Gives everybody the right to read and enter a folder, which is made where there is none.
#[cfg(unix)]
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;

    fs::create_dir_all(folder).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;

    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[cfg(target_os = "linux")]
#[test]
fn running_programs_leave_no_core_dump() {
    let stage = Stage::new();
    let cores = |process: &Running| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", process.0.id())).unwrap();
        let line = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let coordinator = stage.coordinator();
    assert_eq!(cores(&coordinator), ["0", "0", "bytes"]);
    stage.enroll("anna", &short_lines(0));
    let mut command = stage.agent("anna");
    command.arg("--data").arg(stage.path("anna.jsonl")).args(["run", "--override-conditions"]);
    let mut agent = Running::quiet(start(command.stdout(Stdio::null()).stderr(Stdio::piped())));
    // It has read its keys when it says so.
    let mut lines = BufReader::new(agent.0.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("takes part as anna")), "the agent ended before it took part");
    assert_eq!(cores(&agent), ["0", "0", "bytes"]);
}

#[cfg(unix)]
#[test]
fn state_folders_that_others_may_enter_are_closed_and_said() {
    let stage = Stage::new();
    let (home, anna) = (stage.path("home"), stage.path("anna"));
    open_to_all(&home);
    open_to_all(&anna);
    let coordinator = stage.coordinator();
    let token = stage.operator(&["device", "token", "--label", "anna"]);
    let enrolled = output(stage.agent("anna").args(["enroll", "--token", &token]));
    let said = String::from_utf8_lossy(&enrolled.stderr).into_owned();
    text(&enrolled);
    assert!(said.contains("anna was open to others (mode 0755)"), "{said}");
    let said = fs::read_to_string(stage.path("coordinator.log")).unwrap();
    assert!(said.contains("home was open to others (mode 0755)"), "{said}");
    assert_eq!((mode(&home), mode(&anna)), (0o700, 0o700));

    // A running system whose folder somebody opens is closed again at the next start.
    drop(coordinator);
    open_to_all(&home);
    let _coordinator = stage.coordinator();
    assert_eq!(mode(&home), 0o700);

    // A folder with other things in it is not the agent's to close.
    open_to_all(&stage.path("letters"));
    fs::write(stage.path("letters").join("to-bela.txt"), "dear Bela").unwrap();
    let token = stage.operator(&["device", "token", "--label", "letters"]);
    let refused = output(stage.agent("letters").args(["enroll", "--token", &token]));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("letters") && said.contains("0755") && said.contains("chmod 700"), "{said}");
    assert_eq!(mode(&stage.path("letters")), 0o755);
}

#[test]
fn a_checkpoint_of_a_task_that_is_over_is_deleted() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    stage.create_task(&["--versions", "1", "--privacy", "off"]);
    stage.enroll("anna", &short_lines(0));
    stage.operator(&["task", "stop", "owl"]);
    let data = stage.path("anna.jsonl");
    let (file, key) =
        (stage.path("anna").join("training.checkpoint"), stage.path("anna").join("keys/checkpoint.key"));
    // Sealed by no key; of what, the agent reads without one.
    let sealed = [b"nightshift sealed checkpoint v1\n".as_slice(), &[5; 200]].concat();
    // The first time the agent installs what there is, the second time it has it already.
    for _ in 0..2 {
        fs::write(&file, &sealed).unwrap();
        fs::write(&key, [5; 32]).unwrap();
        let mut command = stage.agent("anna");
        command.arg("--data").arg(&data).args(["run", "--once", "--override-conditions"]);
        assert!(text(&output(&mut command)).contains("no more work"));
        assert!(!file.exists() && !key.exists());
    }
}

#[test]
fn an_oversized_message_is_refused_and_the_coordinator_goes_on() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    stage.create_task(&["--versions", "1", "--privacy", "off"]);
    let token: BootstrapToken = stage.operator(&["device", "token", "--label", "anna"]).parse().unwrap();
    let before = stage.task();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let status = runtime.block_on(async {
        let authority = pinned_authority(token.address(), token.pin(), client::Proxy::none()).await.unwrap();
        let config = client_config(Trust::Authority(authority), None).unwrap();
        let endpoint = Endpoint::from_shared(format!("https://{}", token.address())).unwrap();
        let connector = Connector::new(config, Duration::from_secs(10));
        let mut client = DeviceClient::new(endpoint.connect_with_connector_lazy(connector))
            .max_encoding_message_size(usize::MAX);
        let certificate_request_pem = "x".repeat(8 << 20);
        client
            .enroll(wire::EnrollRequest { certificate_request_pem, ..Default::default() })
            .await
            .unwrap_err()
    });
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().contains("this peer may send 16384"), "{status:?}");
    assert_eq!(stage.task(), before);
}

#[test]
fn both_sides_know_a_base_by_the_same_digest() {
    let folder = tempfile::tempdir().unwrap();
    sim::demo::write_base(folder.path()).unwrap();
    let device = Base::open(folder.path()).unwrap();
    let operator = BaseInfo::open(folder.path()).unwrap();
    assert_eq!(device.digest(), operator.digest());
    // Folders of every family, and GGUF files.
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/engine/tests/reference");
    let bases = ["families", "gguf"].map(|kind| fs::read_dir(reference.join(kind)).unwrap());
    let paths = bases.into_iter().flatten().map(|entry| entry.unwrap().path());
    let is_base = |path: &PathBuf| path.is_dir() || path.extension().is_some_and(|x| x == "gguf");
    let mut count = 0;
    for path in paths.filter(is_base) {
        let (device, operator) = (Base::open(&path).unwrap(), BaseInfo::open(&path).unwrap());
        assert_eq!(device.digest(), operator.digest(), "{}", path.display());
        let modules = operator.modules(&["all".to_owned()]).unwrap();
        assert_eq!(modules, device.modules(&Projection::ALL), "{}", path.display());
        count += 1;
    }
    assert_eq!(count, 14);
}
