//! What may be named in some files of a package and not in others, and how long a file is.
//!
//! What holds for a whole package stands in its manifest, and in `packages.rs`.

use super::files::{File, files, root, sources};
use super::packages::members;
use super::paths::paths;
use super::tokens::tokens;

/// What reads a disk, a network, a clock or the process's surroundings.
const SURROUNDINGS: &[&str] = &[
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "std::time::UNIX_EPOCH",
];
/// The same through packages.
const SHELLS: &[&str] = &[
    "candle_core",
    "candle_nn",
    "hyper",
    "proto::dumps",
    "proto::files",
    "rustix",
    "rustls",
    "shell",
    "sled",
    "tokio",
    "tonic",
    "tracing",
];
/// Words that do the same wherever they come from.
const WORDS: &[&[&str]] = &[
    &["Instant"],
    &["SystemTime"],
    &["print", "!"],
    &["println", "!"],
    &["eprintln", "!"],
    &[".", "canonicalize", "("],
    &[".", "exists", "("],
    &[".", "is_dir", "("],
    &[".", "is_file", "("],
    &[".", "read_dir", "("],
    &[".", "symlink_metadata", "("],
    &[".", "try_exists", "("],
];

/// The files of the servers' listener that decide and do not do.
const DECIDING: [&str; 3] = ["listener/admissions", "listener/allowance", "listener/turned_away"];

/// Where candle's tensors are what a file is about.
const CANDLE: &[&str] = &["backend/candle", "backend/device", "backend/error"];

/// The most lines of a file that are neither tests nor comments, unless it is generated.
const MOST_LINES: usize = 500;

/// Whether a file is one of `rooms`, or below one: `store` is `store.rs` and what is in `store/`.
fn is_in(name: &str, rooms: &[&str]) -> bool {
    let name = name.trim_end_matches(".rs");
    rooms
        .iter()
        .any(|room| name.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

/// Where a file names one of `forbidden`, or what is below it.
fn named(folder: &str, file: &File, forbidden: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths(&file.code) {
        if let Some(forbidden) = forbidden.iter().find(|forbidden| path.reaches(forbidden)) {
            let written = path.segments.join("::");
            found.push(format!("{folder}/src/{}:{}: `{written}` ({forbidden})", file.name, path.line));
        }
    }
    found
}

/// Where a file says one of `WORDS`.
fn said(folder: &str, file: &File) -> Vec<String> {
    let lines =
        WORDS.iter().flat_map(|words| file.lines_of(words).into_iter().map(move |line| (line, words)));
    lines.map(|(line, words)| format!("{folder}/src/{}:{line}: `{}`", file.name, words.concat())).collect()
}

/// What is not pure in the files of `folder` that are not in `shells`.
fn impure(folder: &str, shells: &[&str]) -> Vec<String> {
    let pure = files(folder).into_iter().filter(|file| !is_in(&file.name, shells));
    let found = pure.map(|file| {
        [named(folder, &file, SURROUNDINGS), named(folder, &file, SHELLS), said(folder, &file)].concat()
    });
    found.collect::<Vec<_>>().concat()
}

fn none(found: &[String], what_to_do: &str) {
    assert!(found.is_empty(), "{what_to_do}:\n{}", found.join("\n"));
}

const DECIDE: &str = "a machine does no IO: what it needs is an argument, what it wants done is an effect";

#[test]
fn the_mathematics_reads_no_clock_and_no_disk() {
    for folder in ["privacy", "aggregation"] {
        none(&impure(folder, &[]), DECIDE);
        for file in files(folder) {
            none(&named(folder, &file, &["std::time"]), "mathematics knows no time");
        }
    }
}

#[test]
fn the_machines_are_pure() {
    none(&impure("client/session", &[]), DECIDE);
    none(&impure("coordinator/task", &["spool/folder"]), DECIDE);
    none(&impure("coordinator/planning", &[]), DECIDE);
}

#[test]
fn what_the_listener_decides_is_decided_without_io() {
    let folder = "coordinator/serving";
    let files = files(folder);
    for room in DECIDING {
        let file = files.iter().find(|file| is_in(&file.name, &[room]));
        let file =
            file.unwrap_or_else(|| panic!("{folder}/src/{room}.rs is gone: say in DECIDING where it is"));
        let found = [SURROUNDINGS, SHELLS].concat();
        none(&[named(folder, file, &found), said(folder, file)].concat(), DECIDE);
    }
}

#[test]
fn what_both_sides_share_touches_a_disk_in_one_room_and_only_shells_use_it() {
    let files = files("proto");
    for file in files.iter().filter(|file| !is_in(&file.name, &["files"])) {
        let mut found = named("proto", file, SURROUNDINGS);
        found.extend(named("proto", file, &["crate::files", "std::time"]));
        found.extend(said("proto", file));
        none(&found, "of proto only `files` touches a disk, and it is for shells");
    }
    for file in files.iter().filter(|file| !is_in(&file.name, &["files", "dumps"])) {
        none(&named("proto", file, &["rustix"]), "of proto only `files` and `dumps` ask the system");
    }
}

#[test]
fn generated_types_stay_where_bytes_become_words() {
    for member in members().iter().filter(|member| !["proto", "tests"].contains(&member.package.as_str())) {
        let rooms: &[&str] = match member.package.as_str() {
            "client" => &["transport"],
            "authority" => &["service", "asking"],
            "coordinator" => &["service"],
            "operator" => &["client"],
            "sim" => &["bench/desk", "bench/line", "world/wire"],
            _ => &[],
        };
        for file in files(&member.folder).iter().filter(|file| !is_in(&file.name, rooms)) {
            let found = named(&member.folder, file, &["proto::wire"]);
            none(&found, "generated types are turned into ours where they come in (proto::convert)");
        }
    }
    for file in files("proto").iter().filter(|file| !is_in(&file.name, &["wire", "convert", "grpc"])) {
        let wire =
            paths(&file.code).into_iter().filter(|path| path.segments.iter().any(|part| part == "wire"));
        let found: Vec<_> = wire.map(|path| format!("proto/src/{}:{}", file.name, path.line)).collect();
        none(&found, "of proto only `convert` names generated types");
    }
}

#[test]
fn tensors_and_stores_stay_in_their_rooms() {
    for member in members() {
        let tensors = if member.package == "engine" { CANDLE } else { &[] };
        for file in files(&member.folder) {
            if !is_in(&file.name, tensors) {
                let found = named(&member.folder, &file, &["candle_core", "candle_nn"]);
                none(&found, "candle is for its own backend (CANDLE); kernels have an error of their own");
            }
            if member.package != "shell" {
                none(&named(&member.folder, &file, &["sled"]), "a store is behind its package's `store`");
            }
            if !["store", "support"].contains(&member.package.as_str()) {
                let found = named(&member.folder, &file, &["tokio_postgres", "deadpool_postgres"]);
                none(&found, "a database is behind `coordinator/store`");
            }
        }
    }
}

#[test]
fn an_update_is_read_in_one_place_only() {
    let mut readers = Vec::new();
    for file in files("client/session").iter().filter(|file| !file.lines_of(&["as_slice"]).is_empty()) {
        readers.push(file.name.clone());
    }
    assert_eq!(
        readers,
        ["contribution.rs", "update.rs"],
        "client/session/src: the numbers of an update are read in contribution.rs, which masks them, and nowhere else"
    );
}

#[test]
fn unsafe_code_is_in_the_kernels_only() {
    for member in members() {
        for part in ["src", "tests", "benches", "examples"] {
            let folder = format!("{}/{part}", member.folder);
            for (name, text) in sources(&folder) {
                let kernel = folder == "client/engine/src" && is_in(&name, &["kernels"]);
                let line =
                    tokens(&text).into_iter().find(|token| token.is_word("unsafe")).map(|token| token.line);
                if let Some(line) = line.filter(|_| !kernel) {
                    panic!("{folder}/{name}:{line}: unsafe code is for client/engine/src/kernels");
                }
            }
        }
    }
}

#[test]
fn no_file_is_longer_than_five_hundred_lines_without_its_tests() {
    let mut long = Vec::new();
    for member in members() {
        let written = files(&member.folder).into_iter().filter(|file| !file.name.ends_with("generated.rs"));
        for file in written.filter(|file| file.lines > MOST_LINES) {
            long.push(format!("{}/src/{} has {} lines of code", member.folder, file.name, file.lines));
        }
    }
    none(&long, "beyond 500 lines a file is about two things: give each its own");
}

#[test]
fn every_file_of_every_package_is_looked_at() {
    let folders: Vec<&String> = members().iter().map(|member| &member.folder).collect();
    for folder in &folders {
        assert!(root().join(folder).join("src").is_dir(), "{folder} keeps its code elsewhere than in src");
    }
    assert!(folders.len() >= 13, "{folders:?} are all packages that are found");
}

#[test]
fn a_room_is_its_file_and_what_lies_below_it() {
    assert!(is_in("store.rs", &["files", "store"]));
    assert!(is_in("store/frame.rs", &["store"]));
    assert!(!is_in("store_of_another.rs", &["store"]));
    assert!(!is_in("old/store.rs", &["store"]));
    assert!(!is_in("store.rs", &[]));
}

#[test]
fn what_stands_behind_an_item_of_tests_is_found() {
    let text = "#[cfg(test)]\nuse std::net;\nfn a() {}\nuse std::{fmt, fs};\nfn b() { c.exists() }";
    let code = super::outside_tests::outside_tests(&tokens(text)).code;
    let file = File { name: "a.rs".to_owned(), code, lines: 5 };
    assert_eq!(named("made_up", &file, SURROUNDINGS), ["made_up/src/a.rs:4: `std::fs` (std::fs)"]);
    assert_eq!(said("made_up", &file), ["made_up/src/a.rs:5: `.exists(`"]);
}
