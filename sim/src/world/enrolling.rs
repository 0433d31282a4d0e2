//! The enrollment authority of a world: who its devices are, and the log of that.

use aggregation::log::Book;
use aggregation::{Credential, IdentityKey, IdentityPublic, Logged};
use proto::ids::{DeviceId, Timestamp};
use task::{EnrollmentLog, Task};

/// How old a head gets before the next is signed, in seconds. Devices take none that is older than a day.
const HEAD_SECS: u64 = 3600;

/// An authority that enrolled all devices before anything began, in the order of their places.
#[derive(Debug)]
pub(super) struct Authority {
    key: IdentityKey,
    log: EnrollmentLog,
    enrolled_unix_secs: u64,
    /// When credentials end, in seconds since 1970.
    expires_unix_secs: u64,
}

impl Authority {
    /// Enrolls these devices, each with its identity key.
    pub(super) fn of<'a>(
        key: IdentityKey,
        devices: impl Iterator<Item = (DeviceId, &'a [u8; 32])>,
        (now, expires_unix_secs): (Timestamp, u64),
    ) -> Self {
        let log = EnrollmentLog::new(Book::default());
        let authority = Self { key, log, enrolled_unix_secs: now.as_secs(), expires_unix_secs };
        for (place, (device, seed)) in (0..).zip(devices) {
            let identity = IdentityKey::from_seed(seed).public();
            if let Some((_, leaf)) = authority.credential(place, device, identity).leaf() {
                authority.log.write().append(&leaf);
            }
        }
        authority.signs(now);
        authority
    }

    /// The key by which it vouches.
    pub(super) fn public(&self) -> IdentityPublic {
        self.key.public()
    }

    /// What it says of a device, the same each time.
    pub(super) fn credential(&self, place: u64, device: DeviceId, identity: IdentityPublic) -> Credential {
        let (enrolled_unix_secs, expires) = (self.enrolled_unix_secs, self.expires_unix_secs);
        let logged = Logged { place, enrolled_unix_secs, label: [0; 16], attested: [0; 32] };
        Credential::issue_logged(&self.key, device.0, identity, expires, logged)
    }

    /// The task, with rounds about the log.
    pub(super) fn of_task(&self, task: Task) -> Task {
        task.with_log(self.log.clone())
    }

    /// Signs the log anew where its head gets old.
    pub(super) fn signs(&self, now: Timestamp) {
        let mut log = self.log.write();
        let signed = log.head().map(|head| head.head().unix_secs);
        if signed.is_none_or(|signed| now.as_secs().saturating_sub(signed) >= HEAD_SECS) {
            log.sign(&self.key, now.as_secs());
        }
    }
}
