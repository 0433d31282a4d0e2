//! The devices from before there was a log of enrollments: they are its first entries.

use aggregation::IdentityPublic;
use aggregation::log::Leaf;
use proto::ids::DeviceId;
use shell::store::{Batch, Key, Store, StoreError};

use crate::driver;
use crate::kept_log::{KeptLog, LogError};
use crate::pki::EnrollmentKey;
use crate::records::{self, DeviceRecord, tree};

/// Sees that the devices from before there was a log are entries of it, before anything later is: in any other order the log would
/// look as if they had been dated back. Blocks.
pub(crate) fn begun(log: &KeptLog, key: &EnrollmentKey, store: &Store) -> Result<(), LogError> {
    log.once_begun(|| begin(log, key, store))
}

/// Makes an entry of each device that enrolled before there was a log and is not in it, the oldest first: it is in it from the
/// beginning, and gets a credential that says so when it renews. Where it was broken off, it goes on.
fn begin(log: &KeptLog, key: &EnrollmentKey, store: &Store) -> Result<(), LogError> {
    let mut devices = Vec::new();
    for item in store.scan_prefix::<DeviceRecord>(tree::DEVICES, &Key::default())? {
        match item {
            Ok((id, record)) => {
                let is_in = |device: &[u8; 16]| record.revoked || log.log().look(|book| book.knows(device));
                let device = id.as_bytes().first_chunk().filter(|device| !is_in(device));
                devices.extend(device.map(|device| (record.enrolled_unix_millis, DeviceId(*device))));
            }
            // Whoever's it is enrolls anew.
            Err(error @ (StoreError::Damaged { .. } | StoreError::Unreadable { .. })) => {
                tracing::error!(%error, "a device does not become an entry of the enrollment log");
            }
            Err(error) => return Err(error.into()),
        }
    }
    devices.sort_unstable();
    for (_, device) in devices {
        let (mut turn, mut batch) = (log.turn(), Batch::new());
        // Shut out meanwhile, or gone.
        let Some(record) = records::device(store, device)?.filter(|record| !record.revoked) else { continue };
        let leaf = Leaf::Credential {
            device: device.0,
            identity: IdentityPublic(record.identity.0),
            expires_unix_secs: record.expires_unix_secs,
            enrolled_unix_secs: record.enrolled_unix_millis / 1000,
            label: key.label(&record.label),
            attested: record.attested_digest().0,
        };
        turn.write(&mut batch, &leaf, key.key(), driver::now().as_secs())?;
        store.commit_blocking(&batch)?;
        turn.kept();
    }
    Ok(())
}
