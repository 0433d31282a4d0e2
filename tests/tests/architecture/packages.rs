//! Which package may name which, and what none of them may link.
//!
//! What a package names is read from `cargo metadata`, for all targets and with what is optional. What it links is
//! read from `cargo tree` for that package alone: `cargo metadata` shows one graph for the whole workspace, in which
//! a feature that any member asks for is on for all.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

use super::files::root;

/// What is allowed to a member of the workspace.
struct Rule {
    /// The package's name without its `nightshift-`, as everywhere in this table.
    package: &'static str,
    /// The members that may be among its dependencies or its build's.
    may_name: &'static [&'static str],
    /// What it may not link, be it through others.
    links_none_of: &'static [&'static [&'static str]],
}

/// Networks, disks and clocks, and what runs them.
const SHELLS: &[&str] = &[
    "axum",
    "fs4",
    "hyper",
    "hyper-util",
    "rcgen",
    "rustls",
    "sled",
    "tokio",
    "tokio-rustls",
    "tonic",
    "ureq",
];
/// What a device computes with.
const TENSORS: &[&str] = &["candle-core", "candle-nn", "gemm", "tokenizers"];
/// What has no place in a machine: its randomness, time and news are arguments and effects.
const SURROUNDINGS: &[&str] = &["clap", "rand", "time", "tracing"];

/// A database, which is the coordinator's alone.
const DATABASE: &[&str] = &["deadpool-postgres", "tokio-postgres"];
/// Who links it: its engine, what has a coordinator in it, and what tests it.
const STORED: &[&str] = &["store", "coordinator", "operator", "docs", "support", "tests"];

/// Traces: their spans, and their bytes for a collector.
const TRACES: &[&str] = &["opentelemetry", "opentelemetry-proto", "opentelemetry_sdk"];
/// Who links those: the coordinator's shell, and programs that have a coordinator in them.
const TRACED: &[&str] = &["coordinator", "operator", "docs", "tests"];

const RULES: &[Rule] = &[
    Rule { package: "privacy", may_name: &[], links_none_of: &[SHELLS, TENSORS, SURROUNDINGS, &["prost"]] },
    Rule {
        package: "aggregation",
        may_name: &[],
        links_none_of: &[SHELLS, TENSORS, SURROUNDINGS, &["prost"]],
    },
    Rule {
        package: "proto",
        may_name: &["privacy", "aggregation"],
        links_none_of: &[SHELLS, TENSORS, SURROUNDINGS],
    },
    Rule {
        package: "formats",
        may_name: &["privacy", "aggregation", "proto"],
        links_none_of: &[SHELLS, TENSORS, SURROUNDINGS],
    },
    Rule { package: "shell", may_name: &["privacy", "aggregation", "proto"], links_none_of: &[TENSORS] },
    Rule {
        package: "session",
        may_name: &["privacy", "aggregation", "proto"],
        links_none_of: &[SHELLS, TENSORS, SURROUNDINGS],
    },
    // Its feature `hub`, which is on unless another package asks for it without, brings ureq and rustls.
    Rule {
        package: "engine",
        may_name: &["privacy", "aggregation", "proto", "formats"],
        links_none_of: &[&["axum", "hyper", "rcgen", "sled", "tokio", "tonic"]],
    },
    Rule {
        package: "text",
        may_name: &["privacy", "aggregation", "proto", "formats", "engine"],
        links_none_of: &[SHELLS],
    },
    Rule {
        package: "client",
        may_name: &["privacy", "aggregation", "proto", "formats", "shell", "session", "engine", "text"],
        links_none_of: &[&["ureq"]],
    },
    Rule {
        package: "agent",
        may_name: &[
            "privacy",
            "aggregation",
            "proto",
            "formats",
            "shell",
            "session",
            "engine",
            "text",
            "client",
        ],
        links_none_of: &[],
    },
    Rule {
        package: "task",
        may_name: &["privacy", "aggregation", "proto"],
        links_none_of: &[SHELLS, TENSORS, SURROUNDINGS],
    },
    // Options are a command line's: the one thing of a shell that it has.
    Rule {
        package: "planning",
        may_name: &["privacy", "aggregation", "proto", "task"],
        links_none_of: &[SHELLS, TENSORS, &["rand", "time", "tracing"]],
    },
    Rule {
        package: "serving",
        may_name: &["privacy", "aggregation", "proto", "shell"],
        links_none_of: &[TENSORS, &["ureq"]],
    },
    Rule {
        package: "hooks",
        may_name: &["privacy", "aggregation", "proto", "shell", "serving"],
        links_none_of: &[TENSORS, &["ureq"]],
    },
    // The key that says which devices exist: nothing of a round is beside it.
    Rule {
        package: "authority",
        may_name: &["aggregation", "proto", "shell", "serving", "hooks"],
        links_none_of: &[TENSORS, &["ureq", "nightshift-task", "nightshift-coordinator"]],
    },
    // The store of a coordinator in a database.
    Rule { package: "store", may_name: &["proto", "shell"], links_none_of: &[TENSORS, &["ureq"]] },
    Rule {
        package: "coordinator",
        may_name: &[
            "privacy",
            "aggregation",
            "proto",
            "formats",
            "shell",
            "hooks",
            "serving",
            "authority",
            "store",
            "task",
        ],
        links_none_of: &[TENSORS, &["ureq"]],
    },
    Rule {
        package: "operator",
        may_name: &[
            "privacy",
            "aggregation",
            "proto",
            "formats",
            "shell",
            "engine",
            "text",
            "task",
            "planning",
            "hooks",
            "serving",
            "authority",
            "store",
            "coordinator",
        ],
        // It measures versions on its operator's own text, by the engine and the reader of devices.
        links_none_of: &[&["candle-core", "candle-nn"]],
    },
    // Nothing that is installed: it writes the pages of what is.
    Rule {
        package: "docs",
        may_name: &[
            "privacy",
            "aggregation",
            "proto",
            "formats",
            "shell",
            "session",
            "engine",
            "text",
            "client",
            "agent",
            "task",
            "planning",
            "hooks",
            "serving",
            "authority",
            "store",
            "coordinator",
            "operator",
        ],
        links_none_of: &[],
    },
    Rule {
        package: "sim",
        may_name: &[
            "privacy",
            "aggregation",
            "proto",
            "formats",
            "session",
            "engine",
            "text",
            "task",
            "planning",
        ],
        links_none_of: &[SHELLS],
    },
    // Devices by the client's transport and machines. The coordinator is the one that runs.
    Rule {
        package: "load",
        may_name: &["aggregation", "proto", "shell", "session", "client"],
        links_none_of: &[&[
            "ureq",
            "candle-core",
            "nightshift-task",
            "nightshift-coordinator",
            "nightshift-operator",
            "nightshift-sim",
        ]],
    },
    // Nothing that is installed: what suites share.
    Rule { package: "support", may_name: &["shell"], links_none_of: &[TENSORS, &["ureq"]] },
    Rule {
        package: "tests",
        may_name: &[
            "privacy",
            "aggregation",
            "proto",
            "formats",
            "shell",
            "session",
            "engine",
            "text",
            "client",
            "agent",
            "task",
            "planning",
            "hooks",
            "serving",
            "authority",
            "store",
            "coordinator",
            "operator",
            "sim",
            "load",
            "support",
        ],
        links_none_of: &[],
    },
];

/// A member of the workspace.
#[derive(Debug)]
pub(crate) struct Member {
    /// Without its `nightshift-`.
    pub(crate) package: String,
    /// From the repository's root.
    pub(crate) folder: String,
    /// What its manifest names, for whatever target, but not for tests alone.
    names: BTreeSet<String>,
}

/// All members of the workspace.
pub(crate) fn members() -> &'static [Member] {
    static MEMBERS: LazyLock<Vec<Member>> = LazyLock::new(read_members);
    &MEMBERS
}

fn read_members() -> Vec<Member> {
    let answer = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let workspace = answer["workspace_root"].as_str().unwrap();
    let packages = answer["packages"].as_array().unwrap();
    let member = |package: &Value| {
        let manifest = package["manifest_path"].as_str().unwrap();
        let folder = manifest.strip_prefix(workspace).unwrap().replace('\\', "/");
        let dependencies = package["dependencies"].as_array().unwrap();
        let outside_tests = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
        Member {
            package: short(package["name"].as_str().unwrap()).to_owned(),
            folder: folder.trim_start_matches('/').trim_end_matches("/Cargo.toml").to_owned(),
            names: outside_tests.map(|named| named["name"].as_str().unwrap().to_owned()).collect(),
        }
    };
    packages.iter().map(member).collect()
}

/// What a package links with the features that it has by itself and those in `options`.
fn linked(package: &str, options: &[&str]) -> BTreeSet<String> {
    let package = format!("nightshift-{package}");
    // Of every system: what is a dependency on one only is one.
    let fixed =
        ["tree", "-p", &package, "-e", "normal", "--target", "all", "--prefix", "none", "--format", "{p}"];
    let tree = cargo(&[&fixed, options].concat());
    tree.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn cargo(arguments: &[&str]) -> String {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(program)
        .args(arguments)
        // What other systems need is fetched where it is not here yet.
        .arg("--locked")
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "cargo {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

fn short(package: &str) -> &str {
    package.strip_prefix("nightshift-").unwrap_or(package)
}

#[test]
fn every_package_names_only_those_below_it() {
    let rule_of = |package: &str| RULES.iter().find(|rule| rule.package == package);
    let mut wrong = Vec::new();
    for member in members() {
        let Some(rule) = rule_of(&member.package) else {
            wrong.push(format!(
                "nightshift-{} has no rule: add to RULES in tests/tests/architecture/packages.rs whom it may name and \
                 what it may not link",
                member.package
            ));
            continue;
        };
        for named in member.names.iter().map(|name| short(name)).filter(|name| rule_of(name).is_some()) {
            if !rule.may_name.contains(&named) {
                wrong.push(format!(
                    "{}/Cargo.toml names nightshift-{named}, which is not below it: move what it needs of it down, or \
                     change RULES in tests/tests/architecture/packages.rs with ARCHITECTURE.md",
                    member.folder
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_package_links_what_is_above_its_floor() {
    let mut wrong = Vec::new();
    for member in members() {
        let Some(rule) = RULES.iter().find(|rule| rule.package == member.package) else { continue };
        let linked = linked(&member.package, &[]);
        assert!(linked.len() > 3, "{} links {linked:?} only: is its tree read at all?", member.folder);
        let traces = TRACES.iter().filter(|_| !TRACED.contains(&member.package.as_str()));
        let database = DATABASE.iter().filter(|_| !STORED.contains(&member.package.as_str()));
        let forbidden = rule.links_none_of.iter().copied().flatten().chain(traces).chain(database);
        for forbidden in forbidden.filter(|name| linked.contains(**name)) {
            wrong.push(format!(
                "{} links {forbidden}: `cargo tree -p nightshift-{} -e normal -i {forbidden}` says through whom",
                member.folder, member.package
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_engine_without_its_hub_links_no_network() {
    let linked = linked("engine", &["--no-default-features"]);
    let found: Vec<_> = SHELLS.iter().filter(|name| linked.contains(**name)).collect();
    assert!(found.is_empty(), "client/engine links {found:?} without its feature `hub`");
}

#[test]
fn a_feature_is_seen_where_it_is_asked_for_and_nowhere_else() {
    for (package, options, name, expected) in [
        ("proto", &[][..], "tonic", false),
        ("proto", &["--features", "grpc"][..], "tonic", true),
        ("client", &[][..], "tonic", true),
        ("task", &[][..], "tonic", false),
        ("sim", &[][..], "tonic", false),
        ("engine", &[][..], "ureq", true),
        ("agent", &[][..], "ureq", true),
        ("sim", &[][..], "ureq", false),
        ("load", &[][..], "tonic", true),
        ("sim", &[][..], "nightshift-client", false),
        ("coordinator", &[][..], "ureq", false),
        ("coordinator", &[][..], "tokenizers", false),
        ("coordinator", &[][..], "opentelemetry_sdk", true),
        ("authority", &[][..], "opentelemetry_sdk", false),
        ("operator", &[][..], "ureq", true),
        ("store", &[][..], "tokio-postgres", true),
        ("coordinator", &[][..], "tokio-postgres", true),
        ("authority", &[][..], "tokio-postgres", false),
        ("client", &[][..], "tokio-postgres", false),
    ] {
        let links = linked(package, options).contains(name);
        assert_eq!(links, expected, "whether {package} {} links {name}", options.join(" "));
    }
}

#[test]
fn no_two_packages_name_each_other() {
    for (at, rule) in RULES.iter().enumerate() {
        for above in &RULES[at..] {
            let named = rule.may_name.contains(&above.package);
            assert!(
                !named,
                "RULES lets {} name {}, which stands below it in the table",
                rule.package, above.package
            );
        }
    }
}
