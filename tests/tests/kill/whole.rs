//! Whether all of a coordinator's folder is whole that died, beside its books: store, audit log, sums.

use std::path::Path;
use std::sync::PoisonError;

use coordinator::artifacts::Artifacts;
use coordinator::audit::chain::{Head, Verifier};
use coordinator::audit::{self, File, KEY_FILE};
use coordinator::offline;
use nightshift_tests::one_hot;
use proto::ids::{DeviceId, Digest};
use proto::plan::vector_from_bytes;
use shell::store::Store;

use super::books::Books;
use super::stage::STARTING;

/// Panics unless `nightshift store check` would find nothing, and the audit log holds against the head in the store.
pub(crate) fn check_folder(home: &Path) {
    let _nobody_starts = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    let report = offline::check(home).unwrap();
    assert!(report.faults.is_empty() && report.unknown_trees.is_empty(), "{report:#?}");
    let head: Option<Head> = Store::open(&home.join("store")).unwrap().get("audit", "head").unwrap();
    let log = home.join("audit");
    let key: Digest = std::fs::read_to_string(log.join(KEY_FILE)).unwrap().trim().parse().unwrap();
    let files = audit::lines(&log).unwrap();
    let mut verifier = Verifier::new(key, &[head.unwrap()]).unwrap();
    for line in files.iter().flat_map(File::lines) {
        verifier.line(line).unwrap();
    }
    let report = verifier.finish().unwrap();
    assert!(report.found.is_empty(), "{report:?}");
}

/// Panics unless each version since `before` is the one before it and the mean of those that its round's survivors are, each
/// of them once. `devices` are in the order of their numbers.
pub(crate) fn check_sums(home: &Path, before: &Books, books: &Books, devices: &[DeviceId]) {
    let artifacts = Artifacts::open(&home.join("artefacts")).unwrap();
    let read = |digest: Digest| vector_from_bytes(&artifacts.get(&digest.0).unwrap()).unwrap();
    let known = before.versions.len();
    let mut last = read(known.checked_sub(1).map_or(books.initial, |i| books.versions[i].adapter));
    for (version, wanted) in books.versions.iter().skip(known).zip(u32::try_from(known).unwrap() + 1..) {
        assert_eq!(version.version, wanted, "versions follow one another: {version:?}");
        let survivors = &books.survivors[&version.round];
        let next = read(version.adapter);
        let counted = one_hot::members(&last, &next, survivors.len(), devices.len());
        let expected = devices.iter().map(|device| u32::from(survivors.contains(device))).collect();
        assert_eq!(counted, Some(expected), "who is in version {wanted}, of round {}", version.round);
        last = next;
    }
    let rounds: std::collections::BTreeSet<u64> =
        books.versions.iter().map(|version| version.round).collect();
    assert_eq!(rounds.len(), books.versions.len(), "a round became two versions");
}
