//! What the store holds, as small typed records, and how a task is put together from them again.
//!
//! | tree | key | record |
//! | --- | --- | --- |
//! | `tasks` | task | [`TaskHeader`] |
//! | `versions` | task ‖ version | [`VersionStatus`] |
//! | `participations` | task ‖ device | how often, as a number |
//! | `survivors` | task ‖ round ‖ part | up to 100 devices |
//! | `devices` | device | [`DeviceRecord`] |
//! | `identities` | identity key | the device that enrolled with it |
//! | `seen` | device | [`Seen`](crate::last_seen::Seen) |
//! | `tokens` | hash of a secret | [`Token`](crate::tokens::Token) |
//! | `operators` | serial number of a certificate | [`OperatorRecord`] of an admin |
//! | `lesser operators` | serial number of a certificate | [`OperatorRecord`] of any other role |
//!
//! Parameters and plans are [artifacts](crate::artifacts); a header names them by their hash.

use std::collections::BTreeMap;
use std::ops::Bound;

use aggregation::IdentityPublic;
use proto::admin::{DeviceStatus, TaskState, VersionStatus};
use proto::ids::{DeviceId, Digest, TaskId};
use proto::metrics::MetricName;
use proto::plan::{Plan, vector_from_bytes};
use serde::{Deserialize, Serialize};
use shell::store::{Batch, Key, Store, StoreError};
use task::optimizer::OptimizerState;
use task::{Earlier, Gathered, Task, TaskRecord};

use crate::artifacts::Artifacts;

mod form;
mod operators;

pub use form::RecordError;
use form::key_part;
pub(crate) use form::{tree, whole};
pub use operators::{OperatorRecord, insert_operator, operators, revoke_operator};

use tree::{DEVICES, IDENTITIES, PARTICIPATIONS, SURVIVORS, TASKS, VERSIONS};

/// The key of the record that says that all devices are in `identities`, which a store of an earlier coordinator has not.
pub(crate) const INDEXED: &str = "indexed";

/// Devices in one record of survivors: 35 bytes each as text, and a record has at most 4 KiB.
const SURVIVORS_A_RECORD: usize = 100;

/// The changing part of a task, and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHeader {
    /// Place in the order of creation.
    pub order: u64,
    /// Where it stands.
    pub state: TaskState,
    /// The plan.
    pub plan: Digest,
    /// Frozen factors, where the plan names some by their hash.
    pub frozen: Option<Digest>,
    /// The trained parameters of version 0.
    pub initial: Digest,
    /// The newest trained parameters.
    pub adapter: Digest,
    /// What earlier epochs left, where factors were drawn anew before.
    #[serde(default)]
    pub folded: Option<Digest>,
    /// What the server optimiser carries on; never given out.
    pub optimizer: Digest,
    /// Rounds charged, aborted ones too.
    pub rounds_charged: u64,
    /// The highest round number that was ever opened.
    pub last_round: u64,
    /// The sums of the version that is being made, where it is of several rounds; never given out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gathered: Option<Digest>,
    /// How many devices took part when the newest version was made; an older coordinator does not say.
    #[serde(default)]
    pub devices: u32,
}

/// An enrolled device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// The label of its token.
    pub label: String,
    /// Its identity key, as text.
    pub identity: Digest,
    /// When its credential and its certificate end.
    pub expires_unix_secs: u64,
    /// When it enrolled.
    pub enrolled_unix_millis: u64,
    /// When its certificate was renewed last; 0 where it never was, and not written then.
    #[serde(default, skip_serializing_if = "is_never")]
    pub renewed_unix_secs: u64,
    /// Whether it is shut out.
    pub revoked: bool,
    /// By what it was admitted when it enrolled; none where nothing was asked, and not written then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<AttestedRecord>,
    /// Where its credential stands in the log; not known of one from before there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<u64>,
}

/// The policy that a device fulfilled when it enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttestedRecord {
    /// SHA-256 of the policy's kind and parameters.
    pub policy: Digest,
    /// Its kind, as it stands in a configuration.
    pub kind: String,
    /// When.
    pub at_unix_secs: u64,
}

impl AttestedRecord {
    /// What the audit log says of it.
    pub fn said(&self) -> [(String, String); 2] {
        [("attested".to_owned(), self.kind.clone()), ("policy".to_owned(), self.policy.to_string())]
    }
}

/// A record that says nothing of a renewal is written as it was read, so that it can be compared with what is stored.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_never(unix_secs: &u64) -> bool {
    *unix_secs == 0
}

impl DeviceRecord {
    /// The record of a device that enrols now.
    pub fn new(label: String, identity: IdentityPublic, now_millis: u64, expires_unix_secs: u64) -> Self {
        Self {
            label,
            identity: Digest(identity.0),
            expires_unix_secs,
            enrolled_unix_millis: now_millis,
            renewed_unix_secs: 0,
            revoked: false,
            attested: None,
            place: None,
        }
    }

    /// The digest of the policy under which it was admitted; zeros where nothing was asked.
    pub fn attested_digest(&self) -> Digest {
        self.attested.as_ref().map_or(Digest([0; 32]), |attested| attested.policy)
    }

    /// What operators see of it; when it called, and how often it took part, is kept elsewhere.
    pub fn status(&self, device: DeviceId) -> DeviceStatus {
        DeviceStatus {
            device,
            label: self.label.clone(),
            enrolled_unix_millis: self.enrolled_unix_millis,
            expires_unix_secs: self.expires_unix_secs,
            revoked: self.revoked,
            last_seen_unix_secs: 0,
            client: String::new(),
            participations: 0,
        }
    }
}

/// Writes a task's header.
pub fn put_header(batch: &mut Batch, task: TaskId, header: &TaskHeader) -> Result<(), StoreError> {
    batch.put(TASKS, task.0, header)?;
    Ok(())
}

/// Writes a version, which must not be there yet.
pub fn insert_version(batch: &mut Batch, task: TaskId, version: &VersionStatus) -> Result<(), StoreError> {
    batch.insert(VERSIONS, Key::from(task.0).and_u64(version.version.into()), version)?;
    Ok(())
}

/// Writes how often a device took part.
pub fn put_participations(
    batch: &mut Batch,
    task: TaskId,
    device: DeviceId,
    count: u32,
) -> Result<(), StoreError> {
    batch.put(PARTICIPATIONS, Key::from(task.0).and_bytes(&device.0), &count)?;
    Ok(())
}

/// How often a device took part in a task. A record that is damaged says as often as it may, which is `most`.
pub fn participations(store: &Store, task: TaskId, device: DeviceId, most: u32) -> Result<u32, StoreError> {
    match store.get(PARTICIPATIONS, Key::from(task.0).and_bytes(&device.0)) {
        Ok(count) => Ok(count.unwrap_or(0)),
        Err(StoreError::Damaged { .. } | StoreError::Unreadable { .. }) => Ok(most),
        Err(error) => Err(error),
    }
}

/// Fixes the survivors of a round; the batch is refused when the round has some already.
pub fn insert_survivors(
    batch: &mut Batch,
    task: TaskId,
    round: u64,
    survivors: &[DeviceId],
) -> Result<(), StoreError> {
    for (part, devices) in (0_u64..).zip(survivors.chunks(SURVIVORS_A_RECORD)) {
        batch.insert(SURVIVORS, Key::from(task.0).and_u64(round).and_u64(part), &devices.to_vec())?;
    }
    Ok(())
}

/// The survivors that were fixed for a round; empty when none were.
pub fn survivors(store: &Store, task: TaskId, round: u64) -> Result<Vec<DeviceId>, StoreError> {
    let mut devices = Vec::new();
    for item in store.scan_prefix::<Vec<DeviceId>>(SURVIVORS, &Key::from(task.0).and_u64(round))? {
        devices.extend(item?.1);
    }
    Ok(devices)
}

/// All tasks with their headers, in the order of their creation.
pub fn headers(store: &Store) -> Result<Vec<(TaskId, TaskHeader)>, RecordError> {
    let mut headers = Vec::new();
    for item in store.scan_prefix::<TaskHeader>(TASKS, &Key::default())? {
        let (key, header) = item?;
        headers.push((TaskId(key_part(&key, 0, "task")?), header));
    }
    headers.sort_by_key(|(_, header)| header.order);
    Ok(headers)
}

/// Puts a task together again. A round that was open is gone.
pub fn load_task(
    store: &Store,
    artifacts: &Artifacts,
    authority: IdentityPublic,
    (id, header): (TaskId, &TaskHeader),
) -> Result<Task, RecordError> {
    let vector = |what, digest: Digest| {
        let malformed = RecordError::Malformed { what, of: id.to_string() };
        vector_from_bytes(&artifacts.get(&digest.0)?).ok_or(malformed)
    };
    let refuse = |source| RecordError::Task { task: id, source };
    let bytes = artifacts.get(&header.plan.0)?;
    let plan = Plan::parse(&bytes).map_err(|error| refuse(error.into()))?;
    let adapter = vector("adapter", header.adapter)?;
    let folded = header.folded.map(|digest| vector("folded change", digest)).transpose()?;
    // They may be large, and only the end of an epoch needs them.
    let given = header.frozen.filter(|_| plan.refresh.is_some());
    let given = given.map(|digest| vector("factors", digest)).transpose()?;
    let optimizer = OptimizerState::from_vector(&vector("optimizer", header.optimizer)?, adapter.len())
        .ok_or(RecordError::Malformed { what: "optimizer", of: id.to_string() })?;
    let prefix = Key::from(id.0);
    let mut versions = Vec::new();
    for item in store.scan_prefix::<VersionStatus>(VERSIONS, &prefix)? {
        versions.push(item?.1);
    }
    // Only a verdict on the newest version needs it.
    let before = match measured_against(&plan, &versions) {
        None => None,
        Some((version, of)) => {
            let adapter = vector("adapter", of.map_or(header.initial, |of| of.adapter));
            let folded =
                of.and_then(|of| of.folded).map(|digest| vector("folded change", digest)).transpose();
            match adapter.and_then(|adapter| Ok(Earlier::new(version, adapter, folded?))) {
                Ok(earlier) => Some(earlier),
                Err(error) => {
                    let newest = version + 1;
                    tracing::error!(task = %id, %error, "version {newest} is not judged by the one before");
                    None
                }
            }
        }
    };
    let mut participations = BTreeMap::new();
    for item in store.scan_prefix::<u32>(PARTICIPATIONS, &prefix)? {
        let (key, count) = match item {
            Ok(read) => read,
            // How often it took part is not known: as often as it may, so that it takes part no more.
            Err(
                ref error @ (StoreError::Damaged { key: ref hexed, .. }
                | StoreError::Unreadable { key: ref hexed, .. }),
            ) => {
                tracing::error!(%error, "the device of the record takes part in the task no more");
                (Key::from(hex::decode(hexed).unwrap_or_default().as_slice()), plan.privacy.participations)
            }
            Err(error) => return Err(error.into()),
        };
        participations.insert(DeviceId(key_part(&key, id.0.len(), "participation")?), count);
    }
    let gathered = header.gathered.and_then(|digest| {
        gathered(store, artifacts, (id, digest)).unwrap_or_else(|error| {
            tracing::error!(task = %id, %error, "the sums of the version that is being made are lost; its devices were charged");
            None
        })
    });
    let record = TaskRecord {
        devices: header.devices,
        state: header.state,
        versions,
        participations,
        last_round: header.last_round,
        rounds_charged: header.rounds_charged,
        adapter,
        folded,
        optimizer,
        before,
        gathered,
    };
    Task::restore(id, &bytes, given, authority, record).map_err(refuse)
}

/// The sums of a version that is being made.
fn gathered(
    store: &Store,
    artifacts: &Artifacts,
    (id, digest): (TaskId, Digest),
) -> Result<Option<Gathered>, RecordError> {
    let bytes = artifacts.get(&digest.0)?;
    let read = Gathered::from_bytes(&bytes, |round| survivors(store, id, round))?;
    read.map(Some).ok_or(RecordError::Malformed { what: "sums", of: id.to_string() })
}

/// The version that the newest one is measured against, and what is known of it, which of version 0 is nothing. None where
/// no gain is measured, or the newest version has the parameters of an earlier one.
fn measured_against<'a>(
    plan: &Plan,
    versions: &'a [VersionStatus],
) -> Option<(u32, Option<&'a VersionStatus>)> {
    plan.privacy.metrics.iter().find(|metric| metric.name == MetricName::Gain)?;
    let newest = versions.last().filter(|newest| newest.restores.is_none())?;
    let version = newest.version.checked_sub(1)?;
    Some((version, versions.iter().find(|earlier| earlier.version == version)))
}

/// Writes a device, which must not be there yet, and no device with its identity key either.
pub fn insert_device(batch: &mut Batch, device: DeviceId, record: &DeviceRecord) -> Result<(), StoreError> {
    batch.insert(DEVICES, device.0, record)?;
    batch.insert(IDENTITIES, record.identity.0, &device)?;
    Ok(())
}

/// The device that enrolled with this identity key, if there is one, and its record, if that is whole.
pub fn with_identity(
    store: &Store,
    identity: IdentityPublic,
) -> Result<Option<(DeviceId, Option<DeviceRecord>)>, StoreError> {
    let Some(id) = store.get::<DeviceId>(IDENTITIES, identity.0)? else { return Ok(None) };
    Ok(Some((id, device(store, id)?)))
}

/// Makes sure that devices are found by their identity keys: those that an earlier coordinator enrolled are added, of several
/// with one key a revoked one, or else the one that enrolled last. Blocks.
pub fn index_identities(store: &Store) -> Result<(), RecordError> {
    if store.get::<bool>(IDENTITIES, INDEXED)?.is_some() {
        return Ok(());
    }
    let mut newest: BTreeMap<Digest, (bool, u64, DeviceId)> = BTreeMap::new();
    for item in store.scan_prefix::<DeviceRecord>(DEVICES, &Key::default())? {
        let Some((key, record)) = whole(item)? else { continue };
        let device = DeviceId(key_part(&key, 0, "device")?);
        let found = (record.revoked, record.enrolled_unix_millis, device);
        let known = newest.entry(record.identity).or_insert(found);
        *known = found.max(*known);
    }
    let mut batch = Batch::new();
    for (identity, (_, _, device)) in newest {
        batch.put(IDENTITIES, identity.0, &device)?;
    }
    batch.put(IDENTITIES, INDEXED, &true)?;
    store.commit_blocking(&batch)?;
    Ok(())
}

/// Writes a device anew; the batch is refused where it is not as it was read, such as revoked meanwhile.
pub fn replace_device(
    batch: &mut Batch,
    device: DeviceId,
    (read, next): (&DeviceRecord, &DeviceRecord),
) -> Result<(), StoreError> {
    batch.replace(DEVICES, device.0, read, next)?;
    Ok(())
}

/// One device. One whose record is damaged is none: it is shut out, and nobody else. Nothing is said of it, since it may
/// ask as often as it likes; [`devices`] says so.
pub fn device(store: &Store, device: DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
    match store.get(DEVICES, device.0) {
        Err(StoreError::Damaged { .. } | StoreError::Unreadable { .. }) => Ok(None),
        other => other,
    }
}

/// All devices, in the order of their names, less such as have a damaged record.
pub fn devices(store: &Store) -> Result<Vec<DeviceStatus>, RecordError> {
    devices_behind(store, None)?.collect()
}

/// The devices whose names are behind this one, or all of them, one after another.
pub fn devices_behind(
    store: &Store,
    after: Option<DeviceId>,
) -> Result<impl Iterator<Item = Result<DeviceStatus, RecordError>> + use<>, RecordError> {
    let from = after.map_or(Bound::Unbounded, |device| Bound::Excluded(Key::from(device.0)));
    let read = |item| -> Result<Option<DeviceStatus>, RecordError> {
        let Some((key, record)) = whole::<(Key, DeviceRecord)>(item)? else { return Ok(None) };
        Ok(Some(record.status(DeviceId(key_part(&key, 0, "device")?))))
    };
    Ok(store.scan(DEVICES, (from, Bound::Unbounded))?.filter_map(move |item| read(item).transpose()))
}

/// Shuts a device out, for ever; durable when this returns. `false` when there is no such device, or it was shut out
/// before; then `also` is not written either. Blocks.
pub fn revoke(store: &Store, id: DeviceId, also: Batch) -> Result<bool, StoreError> {
    let Some(record) = device(store, id)? else { return Ok(false) };
    if record.revoked {
        return Ok(false);
    }
    let mut batch = also;
    batch.put(DEVICES, id.0, &DeviceRecord { revoked: true, ..record })?;
    store.commit_blocking(&batch)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_largest_set_of_survivors_comes_back_and_cannot_be_fixed_twice() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let task = TaskId([3; 16]);
        let all: Vec<DeviceId> = (0..=255).map(|i| DeviceId([i; 16])).collect();
        let mut batch = Batch::new();
        insert_survivors(&mut batch, task, 7, &all).unwrap();
        store.commit(batch).await.unwrap();
        assert_eq!(survivors(&store, task, 7).unwrap(), all);
        assert_eq!(survivors(&store, task, 8).unwrap(), []);

        let mut again = Batch::new();
        insert_survivors(&mut again, task, 7, &all[1..]).unwrap();
        assert!(matches!(store.commit(again).await, Err(StoreError::Conflict { .. })));
    }

    #[tokio::test]
    async fn a_revoked_device_stays_so() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let id = DeviceId([1; 16]);
        assert!(!revoke(&store, id, Batch::new()).unwrap());
        let record = DeviceRecord::new("phone".into(), IdentityPublic([2; 32]), 5, 9);
        let mut batch = Batch::new();
        insert_device(&mut batch, id, &record).unwrap();
        store.commit(batch).await.unwrap();
        assert!(revoke(&store, id, Batch::new()).unwrap());
        assert!(!revoke(&store, id, Batch::new()).unwrap(), "it was before");
        assert_eq!(device(&store, id).unwrap(), Some(DeviceRecord { revoked: true, ..record }));
        assert!(devices(&store).unwrap()[0].revoked);
    }
}
