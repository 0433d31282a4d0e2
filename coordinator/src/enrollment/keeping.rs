//! What a coordinator that is its own enrollment authority writes into the log of enrollments by itself.

use std::sync::Arc;
use std::time::Duration;

use shell::store::Store;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Registry;
use super::beginning::begun;
use crate::driver;
use crate::kept_log::{KeptLog, LogError};
use crate::pki::EnrollmentKey;
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
    let begun = begun(log, key, store);
    let versions = begun.and_then(|()| log.log_versions(key.key(), now));
    log.refresh(key.key(), now).and(versions)
}
