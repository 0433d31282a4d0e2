//! The log of the enrollment authority, read whole by one of its devices.

use std::collections::BTreeMap;

use aggregation::log::{Audited, Auditor, Leaf, SignedHead};
use proto::ids::{DeviceId, Digest, Timestamp};
use serde::Serialize;
use session::LogPolicy;

use crate::enrollment::EnrolledDevice;
use crate::error::Error;
use crate::store::DeviceStore;

/// The longest log that is read, in entries: a third of a GiB for each million.
const MOST_ENTRIES: u64 = 1 << 22;

/// The fewest entries in an answer, but for the last.
const LEAST_ENTRIES: u64 = 1024;

/// What a device found in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VerifiedLog {
    /// This device.
    pub device: DeviceId,
    /// The entries.
    pub size: u64,
    /// The root over them.
    pub root: Digest,
    /// When the head was signed, in seconds since 1970.
    pub signed_unix_secs: u64,
    /// How many of the policy's witnesses signed it.
    pub witnesses: usize,
    /// The devices that ever enrolled.
    pub devices: u64,
    /// Those of them that were shut out.
    pub revoked: u64,
    /// The versions.
    pub versions: u64,
    /// How many devices enrolled on each day on which some did: days since 1970.
    pub enrolled: BTreeMap<u64, u64>,
    /// The place of this device's credential.
    pub place: Option<u64>,
    /// How many devices have this one's label, this one counted.
    pub labeled_alike: usize,
    /// The entries that this device had seen before, and from which the log goes on; 0 for none.
    pub seen_before: u64,
    /// What is wrong, in words; nothing in a log that is as it should be.
    pub faults: Vec<String>,
}

/// Reads it to its end.
pub(crate) async fn verify(
    enrolled: EnrolledDevice,
    store: &DeviceStore,
    policy: &LogPolicy,
    now: Timestamp,
) -> Result<VerifiedLog, Error> {
    let EnrolledDevice { device, mut transport, .. } = enrolled;
    let answer = |why: String| Error::Coordinator(why);
    let mut auditor = Auditor::default();
    let (mut own, mut devices_then) = (None, None);
    let seen = store.seen_log()?;
    let signed = loop {
        let from = auditor.size();
        let part = transport.read_log(from).await?;
        let signed = SignedHead::parse(&part.head, &device.authority)
            .map_err(|error| answer(format!("the coordinator's enrollment log: {error}")))?;
        let size = signed.head().size;
        if size > MOST_ENTRIES {
            return Err(answer(format!("the enrollment log has {size} entries, more than {MOST_ENTRIES}")));
        }
        // Whoever gives one entry at a time would never come to an end.
        let came = part.entries.len() as u64;
        let is_short = came < LEAST_ENTRIES && from.saturating_add(came) < size;
        if is_short || from.saturating_add(came) > size {
            return Err(answer(format!(
                "the coordinator gives other entries of the log than from {from} to {size}"
            )));
        }
        for entry in &part.entries {
            let place = auditor.size();
            let leaf = Leaf::from_bytes(entry)
                .ok_or_else(|| answer(format!("entry {place} of the enrollment log cannot be read")))?;
            let credential = device.credential.leaf();
            if credential.is_some_and(|(expected, credential)| expected == place && credential == leaf) {
                own = Some(place);
            }
            auditor.add(&leaf);
            if seen.is_some_and(|seen| seen.head.size == auditor.size()) {
                devices_then = Some(auditor.devices());
            }
        }
        if auditor.size() == size {
            break signed;
        }
    };
    let watch = policy.watch();
    let mut faults = Vec::new();
    let head = *signed.head();
    // All entries are here: what leads from one head to the other has to be taken from nobody.
    let before = seen.map_or(0, |seen| seen.head.size);
    let path = auditor.tree().consistency(before.min(head.size), before.max(head.size)).unwrap_or_default();
    let accepted = watch.accept(seen.as_ref(), &signed, &path, now.as_secs());
    faults.extend(accepted.as_ref().err().map(ToString::to_string));
    if let (Some(seen), Some(found)) = (seen, devices_then)
        && seen.head.devices != found
    {
        let counted = seen.head.devices;
        faults.push(format!(
            "a head that this device saw before counts {counted} devices, its entries have {found}"
        ));
    }
    let labeled_alike = device.credential.logged.map_or(0, |logged| auditor.labeled(&logged.label));
    let Audited { size, devices, revoked, versions, enrolled, faults: written, more_faults } =
        auditor.finish(&head);
    faults.extend(written.iter().map(ToString::to_string));
    if more_faults > 0 {
        faults.push(format!("and {more_faults} more faults"));
    }
    match (device.credential.logged, own) {
        (None, _) => faults.push(
            "this device's credential has no place in the log yet; it gets one when it is renewed".to_owned(),
        ),
        (Some(logged), None) => {
            faults.push(format!(
                "entry {} is not this device's credential, which says that it is",
                logged.place
            ));
        }
        (Some(_), Some(_)) => {}
    }
    if let (true, Ok(seen)) = (faults.is_empty(), accepted) {
        store.put_seen_log(Some(seen))?;
    }
    Ok(VerifiedLog {
        device: device.device,
        size,
        root: Digest(head.root),
        signed_unix_secs: head.unix_secs,
        witnesses: signed.seen_by(&watch.witnesses),
        devices,
        revoked,
        versions,
        enrolled,
        place: own,
        labeled_alike,
        seen_before: before,
        faults,
    })
}
