//! The inputs that fuzzing found worth keeping, and those that it begins with, as plain tests.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use nightshift_tests::fuzz::{TARGETS, seeds};
use proto::ids::Digest;

/// Names a folder into which the seeds are written, one folder below it for each target.
const WRITE_SEEDS: &str = "NIGHTSHIFT_SEEDS";

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The names in a folder, without their extensions.
fn names(folder: &Path) -> BTreeSet<String> {
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    fs::read_dir(folder).unwrap().map(|entry| stem(entry.unwrap().path())).collect()
}

#[test]
fn every_target_has_a_program_a_corpus_and_seeds() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&fuzz().join("fuzz_targets")), targets);
    assert_eq!(names(&fuzz().join("corpus")), targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let program = fs::read_to_string(fuzz().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("tests::fuzz::{name}(bytes)")), "{name}");
        assert!(!names(&fuzz().join("corpus").join(&name)).is_empty(), "{name} has no input");
        assert!(!seeds(&name).is_empty(), "{name} has no seed");
    }
}

#[test]
fn every_input_of_the_corpora_passes() {
    for (name, target) in TARGETS {
        for entry in fs::read_dir(fuzz().join("corpus").join(name)).unwrap() {
            target(&fs::read(entry.unwrap().path()).unwrap());
        }
    }
}

#[test]
fn every_seed_passes_and_any_beginning_of_it() {
    for (name, target) in TARGETS {
        for seed in seeds(name) {
            target(&seed);
            target(&seed[..seed.len() / 2]);
            target(&[]);
        }
    }
}

#[test]
fn seeds_are_written_where_a_folder_is_named() {
    let Some(folder) = std::env::var_os(WRITE_SEEDS) else { return };
    for (name, _) in TARGETS {
        let folder = Path::new(&folder).join(name);
        fs::create_dir_all(&folder).unwrap();
        for seed in seeds(name) {
            let digest = Digest::of(&seed).to_string();
            fs::write(folder.join(format!("seed-{}", &digest[..16])), seed).unwrap();
        }
    }
}
