//! What an operator sees and may do with `nightshift`, over a coordinator with devices; and the shape of each document that it
//! prints for programs, kept in `tests/tests/operating/shapes.json`. To take what is printed now:
//!
//! ```text
//! NIGHTSHIFT_SHAPES=write cargo test -p nightshift-tests --test operating
//! ```
//! and look at the difference before it is committed: where a field is gone or is something else, its schema has another number.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "processes of their own are waited for")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use formats::{MANIFEST_FILE, Manifest};
use serde_json::{Map, Value, json};

use stage::{Running, Stage, output, short_lines, start};

#[path = "common/stage.rs"]
mod stage;

const PATIENCE: Duration = Duration::from_secs(180);

/// What kind of value each field of a document is; a schema's name is kept as it is.
fn shape(value: &Value) -> Value {
    match value {
        Value::Null => json!("null"),
        Value::Bool(_) => json!("bool"),
        Value::Number(_) => json!("number"),
        Value::String(_) => json!("text"),
        Value::Array(items) => {
            let mut shapes: Vec<Value> = items.iter().map(shape).collect();
            shapes.sort_by_key(Value::to_string);
            shapes.dedup();
            Value::Array(shapes)
        }
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let kept = if name == "schema" { value.clone() } else { shape(value) };
                (name.clone(), kept)
            };
            Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
        }
    }
}

/// An operator at a terminal, and the shapes of all that was printed.
struct Operator<'a> {
    stage: &'a Stage,
    shapes: BTreeMap<String, Value>,
}

impl Operator<'_> {
    /// A document of a command that must succeed, by its words without what is named.
    fn json(&mut self, what: &str, more: &[&str]) -> Value {
        let words = [&what.split(' ').collect::<Vec<_>>()[..], more, &["--format", "json"]].concat();
        let document: Value = serde_json::from_str(&self.stage.operator(&words)).unwrap();
        assert!(document["schema"].as_str().unwrap().starts_with("nightshift."), "{what}: {document}");
        self.shapes.insert(what.to_owned(), shape(&document));
        document
    }

    fn refused(&self, words: &[&str]) -> (Option<i32>, String) {
        let refused = output(self.stage.nightshift().args(words));
        (refused.status.code(), String::from_utf8_lossy(&refused.stderr).into_owned())
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} did not come");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn an_operator_sees_how_far_devices_come_and_goes_back_to_an_earlier_version() {
    let stage = Stage::new();
    let coordinator = stage.coordinator();
    let mut operator = Operator { stage: &stage, shapes: BTreeMap::new() };
    let task = [
        "--versions",
        "9",
        "--privacy",
        "off",
        "--local-steps",
        "1",
        "--join-secs",
        "30",
        "--step-secs",
        "5",
        "--refresh-every",
        "0",
    ];
    stage.create_task(&task);
    let shown = stage.operator(&["task", "show", "owl"]);
    assert!(shown.contains("open       none: 0 devices are enrolled and a round needs 3"), "{shown}");
    let devices = ["anna", "bela", "cem", "dora"];
    for (i, device) in devices.iter().enumerate() {
        stage.enroll(device, &short_lines(i));
    }
    let agents: Vec<Running> = devices.iter().map(|device| stage.run(device, &[])).collect();
    wait_for("version 2", || (stage.task()["version"].as_u64()? >= 2).then_some(()));
    drop(agents);
    // The round that was open then is given up.
    wait_for("no open round", || stage.task()["round"].is_null().then_some(()));

    let shown = operator.json("task show", &["owl"]);
    let version = shown["version"].as_u64().unwrap();
    let (now, last) = (&shown["funnel"], &shown["last_funnel"]);
    assert_eq!((now["version"].as_u64(), last["version"].as_u64()), (Some(version), Some(version - 1)));
    for step in ["offered", "assigned", "trained", "joined"] {
        assert!((3..=4).contains(&last[step].as_u64().unwrap()), "{step}: {last}");
    }
    assert!(last["counted"].as_u64().unwrap() >= 3, "{last}");
    assert_eq!(
        (shown["candidates"]["enrolled"].as_u64(), shown["candidates"]["least"].as_u64()),
        (Some(4), Some(3))
    );
    let text = stage.operator(&["task", "show", "owl"]);
    assert!(
        text.contains(&format!("DEVICES     VERSION {version}")) && text.contains("in the sum"),
        "{text}"
    );
    operator.json("task ls", &[]);

    devices_are_listed(&mut operator);
    tokens_are_listed(&mut operator);
    versions_are_compared(&mut operator, version);

    // Back to version 1, by the same parameters.
    let first = shown["versions"][0]["adapter"].clone();
    let back = operator.json("model rollback", &["owl", "1"]);
    assert_eq!((&back["adapter"], back["version"].as_u64()), (&first, Some(version + 1)));
    assert_eq!(stage.task()["versions"][usize::try_from(version).unwrap()]["rolled_back"], true);
    let (code, why) = operator.refused(&["model", "rollback", "owl", "1"]);
    assert_eq!((code, why.contains("has the parameters of version 1 already")), (Some(6), true), "{why}");
    let same = operator.json("model diff", &["owl", "1", &(version + 1).to_string()]);
    assert!(same["all"]["change"].as_f64().unwrap() < 1e-9, "{same}");
    let listed = operator.json("model ls", &["--task", "owl"]);
    assert_eq!(listed["versions"].as_array().unwrap().len() as u64, version + 1);
    assert!(listed["versions"][0]["bytes"].as_u64().unwrap() > 0, "{listed}");

    operator.json("privacy spent", &["owl"]);
    let plan = ["--coordinates", "4096", "--report-goal", "500", "--participations", "10"];
    operator.json("privacy plan", &[&plan[..], &["--target-epsilon", "4"]].concat());
    operator.json("operator ls", &[]);
    operator.json("health", &[]);
    operator.json("doctor", &[]);
    operator.json("exit-codes", &[]);
    operator.json("eval", &["owl", "--eval", stage.path("anna.jsonl").to_str().unwrap()]);
    operator.json("operator rotate", &[]);
    operator.json("audit tail", &["-n", "1"]);
    let stopped = operator.json("task stop", &["owl"]);
    assert_eq!(stopped["state"], "stopped");
    let watched = output(stage.nightshift().args(["task", "watch", "owl"]));
    let why = String::from_utf8_lossy(&watched.stderr).into_owned();
    assert_eq!((watched.status.code(), why.contains("the task ended (stopped)")), (Some(7), true), "{why}");
    let base = stage.path("base");
    operator.json("task create", &["--name", "bat", "--base", base.to_str().unwrap(), "--privacy", "off"]);

    let (code, why) = operator.refused(&["store", "check"]);
    assert_eq!((code, why.contains("is in use")), (Some(4), true), "{why}");
    // As a service manager ends it, so that what is in memory is written.
    let id = coordinator.0.id().to_string();
    assert!(start(std::process::Command::new("kill").args(["-TERM", &id])).wait().unwrap().success());
    let mut coordinator = coordinator;
    assert!(coordinator.0.wait().unwrap().success());
    the_store_is_carried_over(&mut operator);
    kept(&operator.shapes);
}

#[test]
fn a_watch_ends_when_its_operator_is_revoked() {
    let stage = Stage::new();
    let _coordinator = stage.coordinator();
    stage.create_task(&["--privacy", "off"]);
    let folder = stage.path("vera");
    stage.operator(&["operator", "add", "vera", "--role", "viewer", "--out", folder.to_str().unwrap()]);
    let mut vera = std::process::Command::new(stage.nightshift().get_program());
    vera.arg("--dir").arg(&folder).args(["task", "watch", "owl"]);
    let watch = start(vera.stdout(Stdio::null()).stderr(Stdio::piped()));
    std::thread::sleep(Duration::from_secs(2));
    let listed: Value =
        serde_json::from_str(&stage.operator(&["operator", "ls", "--format", "json"])).unwrap();
    let of_vera = listed["operators"].as_array().unwrap().iter().find(|one| one["name"] == "vera").unwrap();
    let begun = Instant::now();
    stage.operator(&["operator", "revoke", of_vera["serial"].as_str().unwrap()]);
    let ended = watch.wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!((ended.status.code(), why.contains("was revoked")), (Some(6), true), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

fn devices_are_listed(operator: &mut Operator<'_>) {
    let listed = operator.json("device ls", &[]);
    let devices = listed["devices"].as_array().unwrap().clone();
    assert_eq!(devices.len(), 4);
    for device in &devices {
        assert!(device["last_seen_unix_secs"].as_u64().unwrap() > 0, "{device}");
        assert_eq!(device["client"], format!("nightshift/{}", env!("CARGO_PKG_VERSION")));
        assert!(device["participations"].as_u64().unwrap() >= 1, "{device}");
    }
    // By pages.
    let mut paged = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let more = after.as_ref().map_or_else(Vec::new, |after| vec!["--after", after.as_str()]);
        let page = operator.json("device ls", &[&["--limit", "3"][..], &more].concat());
        paged.extend(page["devices"].as_array().unwrap().clone());
        match page["after"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => break,
        }
    }
    assert_eq!(paged.len(), 4);
    let ids = |devices: &[Value]| devices.iter().map(|device| device["device"].clone()).collect::<Vec<_>>();
    assert_eq!(ids(&paged), ids(&devices));
    let count = |operator: &mut Operator<'_>, more: &[&str]| {
        operator.json("device ls", more)["devices"].as_array().unwrap().len()
    };
    assert_eq!(count(operator, &["--label", "an"]), 1);
    assert_eq!(count(operator, &["--state", "revoked"]), 0);
    assert_eq!(count(operator, &["--not-seen-since", "7d"]), 0);
    assert_eq!(count(operator, &["--not-seen-since", "2999-01-01"]), 4);
    let anna = operator.json("device show", &["anna"]);
    assert_eq!(anna["tasks"][0]["name"], "owl");
    assert_eq!(anna["tasks"][0]["participations"], anna["participations"]);
    assert!(operator.stage.operator(&["device", "show", "anna"]).contains("takes part"));
    assert_eq!(operator.json("device revoke", &["dora"])["already"], false);
    assert_eq!(count(operator, &["--state", "revoked"]), 1);
    // One that is shut out is shown by its label, and revoked once.
    let dora = operator.json("device show", &["dora"]);
    assert_eq!(dora["revoked"], true);
    assert!(operator.stage.operator(&["device", "show", "dora"]).contains("state        revoked"));
    let again = operator.json("device revoke", &[dora["device"].as_str().unwrap()]);
    assert_eq!((&again["already"], &again["revoked"]), (&json!(true), &dora["device"]));
    // All of the kind that is kept.
    operator.json("device ls", &["--limit", "9"]);
}

fn tokens_are_listed(operator: &mut Operator<'_>) {
    let issued = operator.json("device token", &["--label", "eva"]);
    let secret = issued["token"].as_str().unwrap().to_owned();
    let text = operator.stage.operator(&["token", "ls"]);
    assert!(!text.contains(&secret) && text.contains("eva"), "{text}");
    let open = operator.json("token ls", &["--open"]);
    assert_eq!((open["tokens"].as_array().unwrap().len(), &open["tokens"][0]["label"]), (1, &json!("eva")));
    let id = open["tokens"][0]["token"].as_str().unwrap().to_owned();
    let revoked = operator.json("token revoke", &[&id]);
    assert_eq!((&revoked["revoked"], &issued["id"]), (&json!(id), &json!(id)));
    let refused = output(operator.stage.agent("eva").args(["enroll", "--token", &secret]));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && why.contains("was revoked"), "{why}");
    let all = operator.json("token ls", &[]);
    let used = all["tokens"].as_array().unwrap().iter().find(|token| token["label"] == "anna").unwrap();
    let (code, why) = operator.refused(&["token", "revoke", used["token"].as_str().unwrap()]);
    assert_eq!((code, why.contains("a device has enrolled with it")), (Some(6), true), "{why}");
}

fn versions_are_compared(operator: &mut Operator<'_>, version: u64) {
    let newest = version.to_string();
    let difference = operator.json("model diff", &["owl", "1", &newest]);
    assert!(difference["all"]["change"].as_f64().unwrap() > 0.0, "{difference}");
    assert!(difference["layers"][0]["what"].as_str().unwrap().starts_with("layer "), "{difference}");
    let from_base = operator.json("model diff", &["owl", "0", &newest]);
    assert!(from_base["all"]["relative"].is_null(), "{from_base}");
    assert_eq!(from_base["all"]["change"], from_base["all"]["norm_to"]);
    operator.json("model diff", &["owl", "1", &newest]);

    // Both by the base that the task was made of, which nobody names again.
    let pull = |form: &str, out: &Path| {
        let words = [
            "model",
            "pull",
            "--task",
            "owl",
            "--version",
            "1",
            "--as",
            form,
            "--out",
            out.to_str().unwrap(),
        ];
        operator.stage.operator(&words);
        Manifest::parse(&fs::read(out.join(MANIFEST_FILE)).unwrap()).unwrap()
    };
    let (gguf, merged) = (operator.stage.path("gguf"), operator.stage.path("merged"));
    assert_eq!(pull("gguf", &gguf).files.len(), 1);
    let manifest = pull("merged", &merged);
    assert!(manifest.files.contains_key("model.safetensors"), "{manifest:?}");
    let engine = |path: &Path| engine::Base::open(path).unwrap().digest();
    assert_ne!(engine(&merged), engine(&operator.stage.path("base")));
    let (code, why) = operator.refused(&[
        "model",
        "pull",
        "--task",
        "owl",
        "--version",
        "1",
        "--as",
        "merged",
        "--base",
        merged.to_str().unwrap(),
        "--out",
        operator.stage.path("again").to_str().unwrap(),
    ]);
    assert_eq!((code, why.contains("and the task is of")), (Some(3), true), "{why}");
    let out = operator.stage.path("peft");
    operator.json("model pull", &["--task", "owl", "--version", "1", "--out", out.to_str().unwrap()]);
}

/// Checks the store of a coordinator that has ended, and carries it to another folder and back.
fn the_store_is_carried_over(operator: &mut Operator<'_>) {
    let stage = operator.stage;
    let checked = operator.json("store check", &[]);
    assert_eq!(
        (checked["tasks"].as_u64(), checked["faults"].as_array().unwrap().len()),
        (Some(2), 0),
        "{checked}"
    );
    let (file, again) = (stage.path("records.txt"), stage.path("again.txt"));
    let (code, why) = operator.refused(&["store", "export", "--out", stage.path("home").to_str().unwrap()]);
    assert_eq!(
        (code, why.contains("is a folder"), stage.path("home.aside").exists()),
        (Some(3), true, false),
        "{why}"
    );
    let text = stage.operator(&["store", "check"]);
    assert!(text.contains(" records, 2 tasks, ") && text.ends_with("all of it is whole"), "{text}");
    let exported = operator.json("store export", &["--out", file.to_str().unwrap()]);
    let (code, why) = operator.refused(&["store", "import", "--from", file.to_str().unwrap()]);
    assert_eq!((code, why.contains("records already")), (Some(3), true), "{why}");
    let (home, old) = (stage.path("home"), stage.path("old-store"));
    fs::rename(home.join("store"), &old).unwrap();
    let mut half = fs::read(&file).unwrap();
    half.truncate(half.len() / 2);
    fs::write(&again, half).unwrap();
    let (code, why) = operator.refused(&["store", "import", "--from", again.to_str().unwrap()]);
    assert_eq!((code, why.contains("cut off"), home.join("store").exists()), (Some(3), true, false), "{why}");
    let mut more = fs::read(&file).unwrap();
    more.extend(b"something\n");
    fs::write(&again, more).unwrap();
    let (code, why) = operator.refused(&["store", "import", "--from", again.to_str().unwrap()]);
    let is_said = why.contains("something follows the end of the records");
    assert_eq!((code, is_said, home.join("store").exists()), (Some(3), true, false), "{why}");
    let imported = operator.json("store import", &["--from", file.to_str().unwrap()]);
    assert_eq!(imported["records"], exported["records"]);
    assert_eq!(operator.json("store check", &[]), checked);
    operator.json("store export", &["--out", again.to_str().unwrap()]);
    assert!(fs::read(&file).unwrap() == fs::read(&again).unwrap(), "another store");

    // A coordinator starts on it, with what was in memory of the one before.
    let _coordinator = stage.coordinator();
    let anna = operator.json("device show", &["anna"]);
    assert!(anna["last_seen_unix_secs"].as_u64().unwrap() > 0, "{anna}");
    assert!(stage.operator(&["task", "ls"]).contains("owl"));
}

/// Compares the shapes with those that are kept.
fn kept(shapes: &BTreeMap<String, Value>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operating/shapes.json");
    let now = serde_json::to_value(shapes).unwrap();
    if std::env::var_os("NIGHTSHIFT_SHAPES").is_some() {
        fs::write(&path, format!("{}\n", serde_json::to_string_pretty(&now).unwrap())).unwrap();
        return;
    }
    let kept: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (command, shape) in now.as_object().unwrap() {
        assert_eq!(&kept[command], shape, "nightshift {command} --format json");
    }
    assert_eq!(kept.as_object().unwrap().len(), now.as_object().unwrap().len());
}
