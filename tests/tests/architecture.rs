//! Who may name whom: the invariants of `ARCHITECTURE.md` that a machine can check.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

const PACKAGES: [&str; 9] = [
    "privacy",
    "aggregation",
    "proto",
    "client",
    "coordinator/task",
    "coordinator",
    "coordinator/operator",
    "sim",
    "tests",
];

/// For each package, what its ordinary dependencies must not contain.
const FORBIDDEN: [(&str, &[&str]); 8] = [
    (
        "privacy",
        &[
            "aggregation",
            "proto",
            "client",
            "coordinator",
            "tokio",
            "tonic",
            "sled",
            "candle-core",
            "prost",
            "time",
        ],
    ),
    (
        "aggregation",
        &[
            "privacy",
            "proto",
            "client",
            "coordinator",
            "tokio",
            "tonic",
            "sled",
            "candle-core",
            "prost",
            "time",
        ],
    ),
    ("proto", &["client", "coordinator", "tokio", "sled", "candle-core", "candle-nn", "rustls"]),
    ("client", &["coordinator", "sim"]),
    (
        "coordinator/task",
        &[
            "client",
            "coordinator",
            "operator",
            "tokio",
            "tonic",
            "hyper",
            "hyper-util",
            "rustls",
            "sled",
            "candle-core",
            "candle-nn",
            "rand",
            "tracing",
        ],
    ),
    ("coordinator", &["client", "sim", "operator", "candle-core", "candle-nn", "tokenizers"]),
    ("coordinator/operator", &["client", "sim", "sled", "candle-core", "candle-nn", "tokenizers"]),
    ("sim", &["tonic", "rustls", "sled", "tokio", "candle-core", "candle-nn"]),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The lines of a manifest's `[dependencies]`.
fn dependencies(package: &str) -> Vec<String> {
    let manifest = fs::read_to_string(root().join(package).join("Cargo.toml")).unwrap();
    manifest
        .lines()
        .skip_while(|line| line.trim() != "[dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split(['.', '=', ' ']).next().map(str::to_owned))
        .filter(|name| !name.is_empty())
        .collect()
}

fn sources(folder: &Path, found: &mut BTreeMap<PathBuf, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            found.insert(path, text);
        }
    }
}

/// Every source file of a package with its path below `src`, tests modules and comments cut off.
fn code(package: &str) -> BTreeMap<String, String> {
    let folder = root().join(package).join("src");
    let mut found = BTreeMap::new();
    sources(&folder, &mut found);
    found
        .into_iter()
        .map(|(path, text)| {
            let name = path.strip_prefix(&folder).unwrap().to_string_lossy().replace('\\', "/");
            let text = text.split("#[cfg(test)]").next().unwrap_or_default().to_owned();
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>();
            (name, code.join("\n"))
        })
        .collect()
}

fn offenders(package: &str, words: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    code(package)
        .into_iter()
        .filter(|(name, _)| !allowed(name))
        .filter(|(_, text)| words.iter().any(|word| text.contains(word)))
        .map(|(name, _)| format!("{package}/src/{name}"))
        .collect()
}

#[test]
fn no_package_names_one_that_it_must_not_know() {
    for (package, forbidden) in FORBIDDEN {
        let named = dependencies(package);
        assert!(!named.is_empty(), "{package} has no dependencies: is its manifest read at all?");
        for word in forbidden {
            assert!(!named.iter().any(|name| name == word), "{package} depends on {word}");
        }
    }
}

#[test]
fn the_mathematics_reads_no_clock_and_no_disk() {
    for package in ["privacy", "aggregation"] {
        let words = ["std::time", "std::fs", "std::net", "SystemTime", "Instant", "std::env"];
        assert_eq!(offenders(package, &words, |_| false), Vec::<String>::new());
    }
}

#[test]
fn what_both_sides_share_touches_a_disk_in_one_room_and_only_shells_use_it() {
    let words = ["std::time", "std::fs", "fs::", "files::", "std::net", "SystemTime", "Instant", "std::env"];
    assert_eq!(
        offenders("proto", &words, |name| name.starts_with("files") || name.ends_with("tests.rs")),
        Vec::<String>::new()
    );
}

#[test]
fn generated_types_stay_where_bytes_become_words() {
    assert_eq!(
        offenders("proto", &["wire::"], |name| name == "wire.rs" || name.starts_with("convert")),
        Vec::<String>::new()
    );
    let transport = |name: &str| name.starts_with("transport");
    assert_eq!(offenders("client", &["proto::wire"], transport), Vec::<String>::new());
    assert_eq!(offenders("coordinator", &["proto::wire"], |name| name == "service.rs"), Vec::<String>::new());
    let operator = |name: &str| name == "client.rs";
    assert_eq!(offenders("coordinator/operator", &["proto::wire"], operator), Vec::<String>::new());
}

#[test]
fn the_machines_are_pure() {
    let shell = [
        "std::fs",
        "proto::files",
        "crate::files",
        "std::net",
        "tokio",
        "tonic",
        "sled",
        "Instant",
        "SystemTime",
        "candle",
    ];
    let machine = |name: &str| {
        let session = name.starts_with("session") || name == "contribution.rs" || name == "policy.rs";
        !(session || name == "update.rs")
    };
    assert_eq!(offenders("client", &shell, machine), Vec::<String>::new());
    let machine = |name: &str| {
        !["listener/admissions.rs", "listener/allowance.rs", "listener/turned_away.rs"].contains(&name)
    };
    assert_eq!(offenders("coordinator", &shell, machine), Vec::<String>::new());
    assert_eq!(offenders("coordinator/task", &shell, |_| false), Vec::<String>::new());
}

#[test]
fn tensors_and_stores_stay_in_their_rooms() {
    let train = |name: &str| name.starts_with("train");
    assert_eq!(offenders("client", &["candle_core", "candle_nn"], train), Vec::<String>::new());
    let store = |name: &str| name.starts_with("store");
    assert_eq!(offenders("client", &["sled::"], store), Vec::<String>::new());
    assert_eq!(offenders("coordinator", &["sled::"], store), Vec::<String>::new());
}

#[test]
fn an_update_is_read_in_one_place_only() {
    let allowed = |name: &str| name == "contribution.rs" || name == "update.rs";
    assert_eq!(offenders("client", &["update.as_slice"], allowed), Vec::<String>::new());
}

#[test]
fn no_file_is_longer_than_five_hundred_lines_before_its_tests() {
    for package in PACKAGES {
        for (name, text) in code(package) {
            let lines = text.lines().count();
            assert!(lines <= 500, "{package}/src/{name} has {lines} lines of code");
        }
    }
}
