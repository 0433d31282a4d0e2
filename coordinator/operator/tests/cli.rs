//! `nightshift` as an operator runs it: exit codes, messages, and what survives a kill.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "a process of its own is waited for")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use formats::{MANIFEST_FILE, Manifest, Origin, Version};
use proto::ids::Digest;
use serde_json::Value;

#[test]
fn privacy_plan_needs_no_coordinator_and_names_bad_numbers() {
    let plan = |more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
        command.args([
            "privacy",
            "plan",
            "--coordinates",
            "1048576",
            "--report-goal",
            "100",
            "--delta",
            "1e-6",
        ]);
        command.args(["--participations", "100", "--scale", "4096", "--format", "json"]).args(more);
        run(command)
    };
    let output = plan(&["--noise-multiplier", "4", "--clip", "1"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let planned: Value = serde_json::from_slice(&output.stdout).unwrap();
    let number = |name: &str| planned[name].as_f64().unwrap();
    assert!((number("epsilon") / 15.477_043_36 - 1.0).abs() < 1e-8, "{planned}");
    assert!((number("order") - 3.0).abs() < 1e-5, "{planned}");
    assert_eq!(planned["ring_bits"], 18);
    assert!(planned["warnings"][1].as_str().unwrap().contains("report goal by"), "{planned}");
    for (more, code, words) in [
        (["--noise-multiplier", "-1"], 3, "got -1"),
        (["--target-epsilon", "-3"], 3, "-3"),
        (["--clip", "1"], 2, "--noise-multiplier"),
    ] {
        let output = plan(&more);
        assert_eq!(output.status.code(), Some(code), "{more:?}");
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}

#[test]
fn up_starts_again_on_what_it_made() {
    let folder = tempfile::tempdir().unwrap();
    let first = Up::start(folder.path());
    let authority = fs::read(folder.path().join("ca.pem")).unwrap();
    let config = fs::read(folder.path().join("coordinator.toml")).unwrap();
    drop(first);
    let _second = Up::start(folder.path());
    assert_eq!(fs::read(folder.path().join("ca.pem")).unwrap(), authority);
    assert_eq!(fs::read(folder.path().join("coordinator.toml")).unwrap(), config);
    let token = run(nightshift(folder.path(), &["device", "token", "--label", "phone"]));
    assert!(token.status.success(), "{}", stderr(&token));
    let token = String::from_utf8(token.stdout).unwrap();
    assert!(token.starts_with("nst2.") && token.lines().count() == 1, "{token}");

    // Many, for many devices: a line each, and each called by its number.
    let tokens = run(nightshift(folder.path(), &["device", "token", "--label", "load", "--count", "3"]));
    assert!(tokens.status.success() && stderr(&tokens).is_empty(), "{}", stderr(&tokens));
    let tokens = String::from_utf8(tokens.stdout).unwrap();
    let lines: BTreeSet<&str> = tokens.lines().collect();
    assert!(lines.len() == 3 && lines.iter().all(|line| line.starts_with("nst2.")), "{tokens}");
    let listed = json(nightshift(folder.path(), &["token", "ls", "--format", "json"]));
    let labels: BTreeSet<&str> =
        listed["tokens"].as_array().unwrap().iter().map(|token| token["label"].as_str().unwrap()).collect();
    assert_eq!(labels, BTreeSet::from(["load-1", "load-2", "load-3", "phone"]));
    let two = ["device", "token", "--label", "more", "--count", "2", "--format", "json"];
    let two = json(nightshift(folder.path(), &two));
    assert_eq!(
        (two["schema"].as_str(), two["tokens"][1]["label"].as_str()),
        (Some("nightshift.tokens-issued/1"), Some("more-2"))
    );
    let refused = run(nightshift(folder.path(), &["device", "token", "--label", "x", "--count", "10001"]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("10001 is not in 1..=10000"), "{}", stderr(&refused));
}

#[test]
fn what_up_cannot_use_is_not_kept_and_a_port_that_the_system_chose_is() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("coordinator.toml");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused =
        run(nightshift(folder.path(), &["up", "--listen", &address, "--admin-listen", "127.0.0.1:0"]));
    assert_eq!(refused.status.code(), Some(5), "{}", stderr(&refused));
    assert!(stderr(&refused).contains(&format!("{address} is in use")), "{}", stderr(&refused));
    assert!(!config.exists());
    for (address, words) in [
        ("127.0.0.1", "has no port: write it as 127.0.0.1:7443"),
        ("owl:1", "is not an IP address with a port"),
    ] {
        let refused = run(nightshift(folder.path(), &["up", "--listen", address]));
        assert_eq!(
            (refused.status.code(), stderr(&refused).contains(words)),
            (Some(2), true),
            "{}",
            stderr(&refused)
        );
    }
    // The next try is not refused for what the first one wanted.
    drop(Up::start(folder.path()));
    let kept: toml::Table = fs::read_to_string(&config).unwrap().parse().unwrap();
    let port = |key: &str| kept[key].as_str().unwrap().parse::<SocketAddr>().unwrap().port();
    assert!(port("listen") > 0 && port("admin_listen") > 0, "{kept}");
    // Any port is the one that is kept.
    let again = Up::with(folder.path(), &["--listen", "127.0.0.1:0"]);
    let at = fs::read_to_string(folder.path().join("admin.address")).unwrap();
    assert_eq!(at.trim(), kept["admin_listen"].as_str().unwrap());
    drop(again);
    fs::write(folder.path().join("admin.address"), "127.0.0.1\n").unwrap();
    let refused = run(nightshift(folder.path(), &["task", "ls"]));
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("`127.0.0.1` is not HOST:PORT"), "{}", stderr(&refused));
}

#[test]
fn exit_codes_are_told_without_a_coordinator() {
    let folder = tempfile::tempdir().unwrap();
    let codes = json(nightshift(folder.path(), &["exit-codes", "--format", "json"]));
    assert_eq!(codes["codes"].as_array().unwrap().len(), 8);
}

#[test]
fn up_refuses_an_address_that_the_configuration_does_not_have() {
    let folder = tempfile::tempdir().unwrap();
    drop(Up::start(folder.path()));
    let output = run(nightshift(folder.path(), &["up", "--listen", "127.0.0.1:9"]));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("--listen 127.0.0.1:9"), "{}", stderr(&output));
}

#[test]
fn a_command_without_a_coordinator_says_what_to_run() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(nightshift(folder.path(), &["task", "ls"]));
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("nightshift up --dir"), "{}", stderr(&output));
}

#[test]
fn bad_values_of_a_task_are_refused_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let base = write_base(folder.path());
    let create = |more: &[&str]| {
        let arguments = [&["task", "create", "--base", base.to_str().unwrap()], more].concat();
        run(nightshift(folder.path(), &arguments))
    };
    for (more, message) in [
        (&["--rank", "0"][..], "rank 0 does not fit `model.layers.0.self_attn.q_proj` (8 × 8); use 1 to 8"),
        (&["--noise-multiplier", "-1"], "noise multiplier must be finite and at least 0, got -1"),
        (&["--rank", "9"], "rank 9 does not fit `model.layers.0.self_attn.q_proj` (8 × 8); use 1 to 8"),
        (&["--cohort", "10", "--report-goal", "3"], "a report goal of 3 in a cohort of 10"),
        (&["--cohort", "1"], "a report goal of 1 would reveal the update of a single device"),
        (&["--cohort", "1025"], "a cohort of 1025 does not fit one round; use at most 1024"),
        (&["--targets", "embed"], "unknown target `embed`"),
        (&["--privacy", "off", "--noise-multiplier", "1"], "adds no noise"),
        (&["--epsilon-budget", "0.001"], "one participation costs"),
        (&["--learning-rate", "0"], "learning_rate must be a number above 0"),
        (&["--refresh-every", "0", "--shipped-rank", "2"], "--shipped-rank 2 has no effect"),
        (&["--shipped-rank", "7"], "refresh.shipped_rank must be 1 up to the smallest side"),
        (&["--accumulated-rank", "1"], "refresh.accumulated_rank must be at least the adapter's rank"),
        (&["--method", "both", "--refresh-every", "2"], "its method freezes none"),
        (&["--least-trainers", "1"], "classes.least_trainers must be 2 up to the report goal"),
        (&["--method", "core", "--least-trainers", "2"], "only with the method frozen_a"),
    ] {
        let output = create(more);
        assert_eq!(output.status.code(), Some(3), "{more:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(message), "{more:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("operator.pem"), "{more:?}: {}", stderr(&output));
    }
    let both = create(&["--plan", "plan.json"]);
    assert_eq!(both.status.code(), Some(2), "{}", stderr(&both));
}

#[test]
fn noise_that_would_ruin_a_model_is_refused_with_what_mends_it_and_started_only_by_somebody_who_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let base = write_base(folder.path());
    let _up = Up::start(folder.path());
    let create = |more: &[&str]| {
        let few = ["task", "create", "--base", base.to_str().unwrap(), "--format", "json"];
        let name = format!("with-{}", more.join(""));
        let few = [&few[..], &["--name", &name]].concat();
        run(nightshift(folder.path(), &[&few[..], more].concat()))
    };
    let adapter = ["--method", "frozen_a", "--rank", "2"];
    let refused = create(&[&adapter[..], &["--cohort", "5"]].concat());
    let said = stderr(&refused);
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("signal to noise of 0.") && said.contains("the model may get worse"), "{said}");
    for mend in ["--method core", "--cohort ", "--noise-multiplier ", "--privacy off", "--accept-noise"] {
        assert!(said.contains(mend), "{said}");
    }
    let listed = json(nightshift(folder.path(), &["task", "ls", "--format", "json"]));
    assert_eq!(listed["tasks"], Value::Array(vec![]), "nothing was started");
    // What is named works.
    let row = said.lines().find(|line| line.trim_start().starts_with("--cohort ")).unwrap();
    let words: Vec<&str> = row.split_whitespace().take(4).collect();
    let mended = create(&[&adapter[..], &words].concat());
    assert!(mended.status.success(), "{}", stderr(&mended));
    let started = create(&[&adapter[..], &["--cohort", "5", "--accept-noise"]].concat());
    assert!(started.status.success(), "{}", stderr(&started));
}

#[test]
fn noise_follows_from_the_epsilon_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let base = write_base(folder.path());
    let _up = Up::start(folder.path());
    let create = |more: &[&str]| {
        let few = ["task", "create", "--base", base.to_str().unwrap(), "--cohort", "100", "--format", "json"];
        let name = format!("with-{}", more.join(""));
        let few = [&few[..], &["--name", &name]].concat();
        run(nightshift(folder.path(), &[&few[..], more].concat()))
    };
    for (more, most) in [(&[][..], 8.0), (&["--target-epsilon", "3"], 3.0)] {
        let created: Value = serde_json::from_slice(&create(more).stdout).unwrap();
        let epsilon = created["predicted"]["epsilon_at_end"].as_f64().unwrap();
        assert!(epsilon <= most && epsilon > 0.999 * most, "{epsilon}");
        assert!(created["predicted"]["snr"].as_f64().unwrap() > 0.5, "{created}");
    }
    for more in [
        &["--target-epsilon", "3", "--noise-multiplier", "2"][..],
        &["--privacy", "off", "--target-epsilon", "3"],
        &["--target-epsilon", "0"],
    ] {
        assert!(!create(more).status.success(), "{more:?}");
    }
}

#[test]
fn a_killed_coordinator_comes_back_with_its_task() {
    let folder = tempfile::tempdir().unwrap();
    let base = write_base(folder.path());
    let mut first = Up::start(folder.path());
    let created = json(nightshift(
        folder.path(),
        &["task", "create", "--base", base.to_str().unwrap(), "--name", "owl", "--format", "json"],
    ));
    assert!(created["predicted"]["epsilon_at_end"].as_f64().unwrap() < 8.1);
    first.kill();

    let _second = Up::start(folder.path());
    let tasks = json(nightshift(folder.path(), &["task", "ls", "--format", "json"]));
    // Devices are counted anew.
    let durable = |task: &Value| {
        let mut task = task.as_object().unwrap().clone();
        task.remove("funnel").unwrap();
        task
    };
    assert_eq!(durable(&tasks["tasks"][0]), durable(&created["task"]));

    let out = folder.path().join("peft");
    let out_name = out.to_str().unwrap();
    let pull = ["model", "pull", "--task", "owl", "--version", "0", "--format", "json", "--out", out_name];
    assert_eq!(json(nightshift(folder.path(), &pull))["version"], 0);
    assert!(out.join("adapter_model.safetensors").exists());
    let manifest = Manifest::parse(&fs::read(out.join(MANIFEST_FILE)).unwrap()).unwrap();
    assert!(matches!(manifest.origin, Origin::Version(Version { version: 0, .. })), "{manifest:?}");
    for (name, hash) in &manifest.files {
        assert_eq!(Digest::of(&fs::read(out.join(name)).unwrap()), *hash);
    }
    let config = folder.path().join("config.json");
    let says = r#"{"architectures": ["LlamaForCausalLM"], "num_attention_heads": 2}"#;
    fs::write(&config, says).unwrap();
    let as_gguf = [&pull[..], &["--as", "gguf", "--base-config", config.to_str().unwrap()]].concat();
    json(nightshift(folder.path(), &as_gguf));
    assert!(fs::read(out.join("adapter.gguf")).unwrap().starts_with(b"GGUF"));
    let without = run(nightshift(folder.path(), &[&pull[..], &["--as", "gguf"]].concat()));
    // By the base that the task was made of, of which this one says too little.
    assert_eq!(without.status.code(), Some(3), "{}", stderr(&without));
    assert!(stderr(&without).contains("base/config.json: missing field"), "{}", stderr(&without));
    fs::remove_file(folder.path().join("bases.json")).unwrap();
    let without = run(nightshift(folder.path(), &[&pull[..], &["--as", "gguf"]].concat()));
    assert_eq!(without.status.code(), Some(3), "{}", stderr(&without));
    assert!(stderr(&without).contains("name it with --base-config"), "{}", stderr(&without));
    // A version that there is not, and none said where there is none yet.
    let latest = ["model", "pull", "--task", "owl", "--out", out_name];
    for (more, code) in [(&["--version", "1"][..], 3), (&[], 3)] {
        let refused = run(nightshift(folder.path(), &[&latest[..], more].concat()));
        assert_eq!(refused.status.code(), Some(code), "{}", stderr(&refused));
    }

    let stopped = json(nightshift(folder.path(), &["task", "stop", "owl", "--format", "json"]));
    assert_eq!(stopped["state"], "stopped");
    let watched = run(nightshift(folder.path(), &["task", "watch", "owl"]));
    assert_eq!(watched.status.code(), Some(7), "{}", stderr(&watched));

    // A label that is used again means the task that goes on, and none where that is over too.
    let again = ["task", "create", "--base", base.to_str().unwrap(), "--name", "owl", "--format", "json"];
    let again = json(nightshift(folder.path(), &again));
    let shown = || run(nightshift(folder.path(), &["task", "show", "owl", "--format", "json"]));
    let now: Value = serde_json::from_slice(&shown().stdout).unwrap();
    assert_eq!(now["task"], again["task"]["task"]);
    json(nightshift(folder.path(), &["task", "stop", "owl", "--format", "json"]));
    let refused = shown();
    assert_eq!(refused.status.code(), Some(3));
    assert!(stderr(&refused).contains("more than one task is called `owl`"), "{}", stderr(&refused));
}

#[test]
fn frozen_factors_come_back_and_others_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let base = write_base(folder.path());
    let _up = Up::start(folder.path());
    let frozen = folder.path().join("factors");
    let create = |bytes: &[u8]| {
        fs::write(&frozen, bytes).unwrap();
        let (base, frozen) = (base.to_str().unwrap(), frozen.to_str().unwrap());
        let arguments = ["task", "create", "--base", base, "--rank", "1", "--frozen", frozen];
        run(nightshift(folder.path(), &arguments))
    };
    // A of rank 1 over inputs 8, 8, 8, 8, 8, 8 and 6.
    let short = create(&[0; 4 * 53]);
    assert_eq!(short.status.code(), Some(3));
    assert!(stderr(&short).contains("54 numbers for each epoch, found 53"), "{}", stderr(&short));
    // Those of two epochs.
    let whole = create(&0.5_f32.to_le_bytes().repeat(2 * 54));
    assert!(whole.status.success(), "{}", stderr(&whole));
    let out = folder.path().join("peft");
    let pull = ["model", "pull", "--task", "task", "--version", "0", "--out", out.to_str().unwrap()];
    assert!(run(nightshift(folder.path(), &pull)).status.success());
}

#[test]
fn a_doctor_finds_what_is_there_and_fails_where_something_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let asked = |more: &[&str]| {
        let output = run(nightshift(folder.path(), &[&["doctor", "--format", "json"], more].concat()));
        let document: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = document["checks"].as_array().unwrap().clone();
        let level = move |what: &str| {
            let found = findings.iter().find(|finding| finding["check"] == what);
            found.map(|finding| finding["verdict"].as_str().unwrap().to_owned())
        };
        (output.status.code(), level, document)
    };
    // An empty folder: nobody operates from here.
    let (code, level, document) = asked(&[]);
    assert_eq!((code, level("operator").as_deref()), (Some(3), Some("fault")), "{document}");

    let mut up = Up::start(folder.path());
    let (code, level, document) = asked(&[]);
    assert_eq!((code, document["faults"].as_u64()), (Some(0), Some(0)), "{document}");
    for what in ["operator", "authority", "coordinator", "clock", "server", "configuration", "store"] {
        assert_eq!(level(what).as_deref(), Some("ok"), "{what}: {document}");
    }
    up.kill();
    // Nobody answers, and the store is there to be opened.
    let (code, level, document) = asked(&[]);
    assert_eq!(code, Some(0), "{document}");
    assert_eq!((level("coordinator").as_deref(), level("store").as_deref()), (Some("warning"), Some("ok")));

    // A state folder whose configuration lies elsewhere is looked at as one, and its store too.
    let elsewhere = folder.path().join("elsewhere.toml");
    fs::rename(folder.path().join("coordinator.toml"), &elsewhere).unwrap();
    let (code, level, document) = asked(&[]);
    assert_eq!(code, Some(0), "{document}");
    for (what, expected) in [("coordinator", "warning"), ("configuration", "warning"), ("store", "ok")] {
        assert_eq!(level(what).as_deref(), Some(expected), "{what}: {document}");
    }
    // What is free is this machine's: the verdict is held in the judge's own tests.
    assert!(level("disk").is_some_and(|verdict| verdict != "fault"), "{document}");
    let (code, level, document) = asked(&["--config", elsewhere.to_str().unwrap()]);
    assert_eq!((code, level("configuration").as_deref()), (Some(0), Some("ok")), "{document}");

    // A port that somebody else has, and a configuration that is none.
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = folder.path().join("other.toml");
    let state = toml_string(&folder.path().join("state"));
    fs::write(&config, format!("listen = \"{}\"\nstate_dir = {state}\n", other.local_addr().unwrap()))
        .unwrap();
    let (code, level, document) = asked(&["--config", config.to_str().unwrap()]);
    assert_eq!((code, level("port of devices").as_deref()), (Some(3), Some("fault")), "{document}");
    fs::write(&config, "lisen = 3").unwrap();
    let (code, level, document) = asked(&["--config", config.to_str().unwrap()]);
    assert_eq!((code, level("configuration").as_deref()), (Some(3), Some("fault")), "{document}");
}

fn toml_string(path: &Path) -> String {
    format!("{:?}", path.to_str().unwrap())
}

#[test]
fn health_lists_the_bases_that_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let base = write_base(folder.path());
    let _up = Up::with(folder.path(), &["--serve-base", base.to_str().unwrap()]);
    let begun = std::time::Instant::now();
    let health = loop {
        let health = json(nightshift(folder.path(), &["health", "--format", "json"]));
        if health["bases_to_read"] == 0 {
            break health;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{health}");
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    let bytes: u64 = ["config.json", "model.safetensors", "tokenizer.json"]
        .iter()
        .map(|name| fs::metadata(base.join(name)).unwrap().len())
        .sum();
    assert_eq!(
        (health["bases"][0]["name"].as_str(), health["bases"][0]["bytes"].as_u64()),
        (Some("base"), Some(bytes))
    );
    let text = run(nightshift(folder.path(), &["health"]));
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains(health["bases"][0]["digest"].as_str().unwrap()), "{text}");
}

#[test]
fn an_unknown_device_cannot_be_revoked() {
    let folder = tempfile::tempdir().unwrap();
    let _up = Up::start(folder.path());
    let device = "ab".repeat(16);
    let output = run(nightshift(folder.path(), &["device", "revoke", &device]));
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    assert!(stderr(&output).contains("nightshift device ls"));
    let listed = json(nightshift(folder.path(), &["device", "ls", "--format", "json"]));
    assert_eq!(listed["devices"], Value::Array(vec![]));
}

/// `nightshift up`, killed when dropped.
struct Up {
    child: Child,
}

impl Up {
    /// Starts it and waits until it listens.
    fn start(folder: &Path) -> Self {
        Self::with(folder, &[])
    }

    fn with(folder: &Path, more: &[&str]) -> Self {
        let fresh = !folder.join("coordinator.toml").exists();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0)).to_string();
        let mut command = nightshift(folder, &["up", "--format", "json"]);
        command.args(more);
        if fresh {
            command.args(["--listen", &anywhere, "--admin-listen", &anywhere]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut text = String::new();
        // The document's last line.
        while !text.ends_with("}\n") {
            if out.read_line(&mut text).unwrap() == 0 {
                let mut errors = String::new();
                child.stderr.take().unwrap().read_to_string(&mut errors).unwrap();
                panic!("nightshift up did not start: {errors}");
            }
        }
        let running: Value = serde_json::from_str(&text).unwrap();
        assert!(running["device_address"].as_str().unwrap().starts_with("127.0.0.1:"));
        Self { child }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn nightshift(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightshift"));
    command.arg("--dir").arg(folder).args(arguments);
    command
}

fn run(mut command: Command) -> Output {
    command.output().unwrap()
}

fn json(command: Command) -> Value {
    let output = run(command);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A decoder of one block, 8 wide, 6 in the middle.
fn write_base(folder: &Path) -> PathBuf {
    let dir = folder.join("base");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("config.json"), r#"{"num_hidden_layers": 1}"#).unwrap();
    fs::write(dir.join("tokenizer.json"), "{}").unwrap();
    let shapes = [
        ("self_attn.q_proj", [8, 8]),
        ("self_attn.k_proj", [8, 8]),
        ("self_attn.v_proj", [8, 8]),
        ("self_attn.o_proj", [8, 8]),
        ("mlp.gate_proj", [6, 8]),
        ("mlp.up_proj", [6, 8]),
        ("mlp.down_proj", [8, 6]),
    ];
    let (mut header, mut at) = (serde_json::Map::new(), 0);
    for (name, shape) in shapes {
        let len = 4 * shape[0] * shape[1];
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [at, at + len] });
        header.insert(format!("model.layers.0.{name}.weight"), entry);
        at += len;
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&header);
    bytes.resize(bytes.len() + at, 0);
    fs::write(dir.join("model.safetensors"), bytes).unwrap();
    dir
}
