//! A coordinator's folder while no coordinator runs: whether all that it holds is whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use aggregation::IdentityPublic;
use proto::admin::VersionStatus;
use proto::files::FileError;
use proto::ids::{DeviceId, Digest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use shell::store::{Batch, Key, Store, StoreError};

use crate::artifacts::Artifacts;
use crate::audit;
use crate::audit::chain::Head;
use crate::config::StoreKeys;
use crate::enroller;
use crate::enrollment::elsewhere;
use crate::kept_log::{self, KeptLog};
use crate::last_seen::{self, Seen};
use crate::records::{self, DeviceRecord, OperatorRecord, TaskHeader, tree};
use crate::stored::open_store;
use crate::tokens::{self, Token};

pub use crate::stored::STORE;
/// The folder of artifacts.
pub const ARTIFACTS: &str = "artefacts";

/// Why a folder could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The store cannot be opened or read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The artifacts cannot be listed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why a log is not forgotten.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The store cannot be opened, read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is nowhere else to read it from.
    #[error(
        "the coordinator of {} keeps the enrollment log itself, and nothing was changed: only what was read of the log of an enrollment \
         authority apart can be forgotten", .0.display()
    )]
    Own(PathBuf),
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Records that were read.
    pub records: u64,
    /// Trees that this version does not know, each with its records: a later version's.
    pub unknown_trees: Vec<(String, u64)>,
    /// Tasks that were put together again.
    pub tasks: u64,
    /// Artifacts that tasks name.
    pub artifacts: u64,
    /// Artifacts that no task names, such as a crash leaves.
    pub orphans: u64,
    /// What these take, in bytes.
    pub orphan_bytes: u64,
    /// What is damaged or missing, a line each; nothing where all is whole.
    pub faults: Vec<String>,
}

/// Reads every record as what it should be, puts every task together again, and every artifact that a task names by its
/// hash. Changes no record. Fails where nobody can say, because the store does not open or the disk cannot be read.
pub fn check(state_dir: &Path) -> Result<Report, OfflineError> {
    check_in(&StoreKeys::default(), state_dir)
}

/// The same where the configuration says where the store is.
pub fn check_in(keys: &StoreKeys, state_dir: &Path) -> Result<Report, OfflineError> {
    let store = open_store(keys, state_dir)?;
    let artifacts = Artifacts::open(&state_dir.join(ARTIFACTS))?;
    let mut report = Report::default();
    let mut named = BTreeSet::new();
    store.each::<StoreError>(|name, key, payload| {
        report.records += 1;
        look(name, key, payload, &mut report, &mut named);
        Ok(())
    })?;
    for digest in &named {
        report.artifacts += 1;
        if let Err(error) = artifacts.get(&digest.0) {
            report.faults.push(error.to_string());
        }
    }
    tasks(&store, &artifacts, &mut report);
    let is_copy = store.get::<serde::de::IgnoredAny>(enroller::TREE, enroller::KEY);
    // A record that cannot be read is a fault already.
    if let Err(error) = KeptLog::check(&store, !matches!(is_copy, Ok(None))) {
        report.faults.push(error.to_string());
    }
    for (hash, bytes) in artifacts.list()? {
        if !named.contains(&Digest(hash)) {
            report.orphans += 1;
            report.orphan_bytes += bytes;
        }
    }
    Ok(report)
}

/// Forgets what was read of the log of an enrollment authority apart, and of its revocations, so that the coordinator reads both anew
/// at its next start. The authority hears once more whom this coordinator shut out, and who stays shut out. Gives how many entries
/// were here. Fails where the coordinator runs, or keeps the log itself.
pub fn forget_log(keys: &StoreKeys, state_dir: &Path) -> Result<u64, ForgetError> {
    let store = open_store(keys, state_dir)?;
    if store.get::<Digest>(enroller::TREE, enroller::KEY)?.is_none() {
        return Err(ForgetError::Own(state_dir.to_owned()));
    }
    let mut batch = Batch::new();
    let entries = KeptLog::forget(&store, &mut batch)?;
    batch.remove(enroller::TREE, elsewhere::READ);
    // Those too whom another coordinator's operators, or the authority's, shut out. What is damaged is shut out anyway.
    for item in store.scan_prefix::<bool>(elsewhere::BARRED, &Key::default())? {
        if let Some((device, _)) = records::whole(item)? {
            batch.put(elsewhere::UNREPORTED, device, &true)?;
        }
    }
    for item in store.scan_prefix::<DeviceRecord>(tree::DEVICES, &Key::default())? {
        if let Some((device, _)) = records::whole(item)?.filter(|(_, record)| record.revoked) {
            batch.put(elsewhere::UNREPORTED, device, &true)?;
        }
    }
    store.commit_blocking(&batch)?;
    Ok(entries)
}

/// Looks at one record, and takes note of the artifacts that it names.
fn look(name: &str, key: &[u8], payload: Option<&[u8]>, report: &mut Report, named: &mut BTreeSet<Digest>) {
    let at = || format!("tree {name}, key {}", hex::encode(key));
    let Some(payload) = payload else {
        report.faults.push(format!("damaged record in {}: its checksum does not hold", at()));
        return;
    };
    let read = match name {
        tree::TASKS => is::<TaskHeader>(payload).map(|header| {
            let TaskHeader { plan, frozen, initial, adapter, folded, optimizer, gathered, .. } = header;
            named.extend([plan, initial, adapter, optimizer]);
            named.extend([frozen, folded, gathered].into_iter().flatten());
        }),
        tree::VERSIONS => is::<VersionStatus>(payload).map(|version| {
            named.insert(version.adapter);
            named.extend(version.folded);
        }),
        tree::PARTICIPATIONS => is::<u32>(payload).map(drop),
        tree::SURVIVORS => is::<Vec<DeviceId>>(payload).map(drop),
        tree::DEVICES => is::<DeviceRecord>(payload).map(drop),
        tree::IDENTITIES if key == records::INDEXED.as_bytes() => is::<bool>(payload).map(drop),
        tree::IDENTITIES => is::<DeviceId>(payload).map(drop),
        tree::OPERATORS | tree::LESSER_OPERATORS => is::<OperatorRecord>(payload).map(drop),
        audit::TREE => is::<Head>(payload).map(drop),
        tokens::TREE => is::<Token>(payload).map(drop),
        last_seen::TREE => is::<Seen>(payload).map(drop),
        kept_log::ENTRIES | kept_log::UNLOGGED => {
            is::<String>(payload).and_then(|leaf| kept_log::is_leaf(&leaf))
        }
        kept_log::HEADS => is::<String>(payload).map(drop),
        enroller::TREE if key == elsewhere::READ.as_bytes() => is::<u64>(payload).map(drop),
        enroller::TREE => is::<Digest>(payload).map(drop),
        elsewhere::BARRED | elsewhere::UNREPORTED => is::<bool>(payload).map(drop),
        other => {
            match report.unknown_trees.iter_mut().find(|(known, _)| known == other) {
                Some((_, count)) => *count += 1,
                None => report.unknown_trees.push((other.to_owned(), 1)),
            }
            return;
        }
    };
    let length = match name {
        tree::TASKS
        | tree::DEVICES
        | tree::OPERATORS
        | tree::LESSER_OPERATORS
        | last_seen::TREE
        | elsewhere::BARRED
        | elsewhere::UNREPORTED => Some(16),
        tree::PARTICIPATIONS | tree::SURVIVORS | tokens::TREE => Some(32),
        tree::VERSIONS | kept_log::UNLOGGED => Some(24),
        kept_log::ENTRIES => Some(8),
        _ => None,
    };
    if let Err(why) = read {
        report.faults.push(format!("record in {} is not what it should be: {why}", at()));
    } else if let Some(wanted) = length.filter(|wanted| *wanted != key.len()) {
        report.faults.push(format!("key in {} has {} bytes and should have {wanted}", at(), key.len()));
    }
}

fn is<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| error.to_string())
}

/// Puts every task together again, as a start would.
fn tasks(store: &Store, artifacts: &Artifacts, report: &mut Report) {
    let headers = match records::headers(store) {
        Ok(headers) => headers,
        Err(error) => {
            report.faults.push(format!("no coordinator starts on this store: {error}"));
            return;
        }
    };
    // Whose credentials count decides nothing here.
    let nobody = IdentityPublic([0; 32]);
    for (id, header) in &headers {
        match records::load_task(store, artifacts, nobody, (*id, header)) {
            Ok(task) => {
                report.tasks += 1;
                let newest = task.record().versions.last().map_or(header.initial, |version| version.adapter);
                if newest != header.adapter {
                    report.faults.push(format!(
                        "task {id} says that its newest parameters are {}, its newest version says {newest}",
                        header.adapter
                    ));
                }
            }
            Err(error) => report.faults.push(format!("task {id} does not start: {error}")),
        }
    }
}

#[cfg(test)]
mod tests;
