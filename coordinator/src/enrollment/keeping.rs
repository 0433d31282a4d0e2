//! What a coordinator that is its own enrollment authority writes into the log of enrollments by itself.

use std::sync::Arc;
use std::time::Duration;

use aggregation::IdentityPublic;
use aggregation::log::Leaf;
use shell::store::{Batch, Store};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Registry;
use crate::driver;
use crate::kept_log::{KeptLog, LogError};
use crate::pki::EnrollmentKey;
use crate::records::{self, RecordError};
use crate::seldom::Seldom;

/// How often it is looked whether versions wait to be entries of the enrollment log, and how old its head is, in seconds.
const LOGGED_EVERY_SECS: u64 = 5;

/// Makes entries of versions, keeps the head of the enrollment log young, and has witnesses sign it, for ever.
pub(crate) async fn keep(registry: Arc<Registry>) {
    let witnesses = Arc::clone(&registry.witnesses).keep(Arc::clone(&registry.log));
    tokio::join!(witnesses, write_on(registry));
}

/// Makes entries of versions, and keeps the head young: devices take none that is older than a day.
async fn write_on(registry: Arc<Registry>) {
    loop {
        sleep(Duration::from_secs(LOGGED_EVERY_SECS)).await;
        let own = Arc::clone(&registry);
        let written = spawn_blocking(move || {
            // An authority apart is asked for it by `Registry::keep_in_touch`.
            own.enroller.here().map_or(Ok(()), |key| write(&own.log, key, &own.store))
        });
        if let Ok(Err(error)) = written.await {
            static SAID: Seldom = Seldom::new();
            if SAID.may_say(driver::now()) {
                tracing::warn!(%error, "the enrollment log is not written on yet");
            }
            if let LogError::Store(error) = error
                && registry.store.is_stopped()
            {
                registry.driver.fail(&error.into());
            }
        }
    }
}

/// Makes entries of devices from before there was a log, and of versions that wait; and keeps the head young, whatever became of
/// those.
pub(crate) fn write(log: &KeptLog, key: &EnrollmentKey, store: &Store) -> Result<(), LogError> {
    let now = driver::now().as_secs();
    let begun = if log.log().read().size() == 0 { begin(log, key, store) } else { Ok(()) };
    let versions = begun.and_then(|()| log.log_versions(key.key(), now));
    log.refresh(key.key(), now).and(versions)
}

/// Makes an entry of each device that enrolled before there was a log, the oldest first: it is in it from the beginning, and gets
/// a credential that says so when it renews.
fn begin(log: &KeptLog, key: &EnrollmentKey, store: &Store) -> Result<(), LogError> {
    let mut devices = records::devices(store).map_err(|error| match error {
        RecordError::Store(error) => LogError::Store(error),
        other @ (RecordError::Artifact(_) | RecordError::Task { .. } | RecordError::Malformed { .. }) => {
            LogError::Devices(other.to_string())
        }
    })?;
    devices.sort_by_key(|device| (device.enrolled_unix_millis, device.device));
    for device in devices.iter().filter(|device| !device.revoked) {
        let Some(record) = records::device(store, device.device)? else { continue };
        let leaf = Leaf::Credential {
            device: device.device.0,
            identity: IdentityPublic(record.identity.0),
            expires_unix_secs: record.expires_unix_secs,
            enrolled_unix_secs: record.enrolled_unix_millis / 1000,
            label: key.label(&record.label),
            attested: record.attested_digest().0,
        };
        let (mut turn, mut batch) = (log.turn(), Batch::new());
        turn.write(&mut batch, &leaf, key.key(), driver::now().as_secs())?;
        store.commit_blocking(&batch)?;
        turn.kept();
    }
    Ok(())
}
