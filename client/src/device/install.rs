//! A version that is kept for the user.

use std::sync::Arc;

use proto::message::Published;
use session::policy::Breach;
use session::{Event, Work};

use super::run::Running;
use crate::error::Error;
use crate::store::DeviceStoreError;

impl Running {
    /// Keeps a version for the user. What comes out is made on a thread that no request waits for: it may take a
    /// singular value decomposition of every layer.
    pub(super) async fn install(&self, work: &Arc<Work>) -> Result<Event, Error> {
        let theirs = Arc::clone(work);
        let shipped =
            tokio::task::spawn_blocking(move || theirs.state.shipped(theirs.plan.shipped_rank())).await;
        let shipped = shipped.map_err(|error| Error::Thread(error.to_string()))?;
        let kept = self.store.install_shipped(work, &shipped.map_err(DeviceStoreError::from)?);
        match kept {
            // A full disk is no reason to end: the user hears of it, and it may have room later.
            Err(error) if !self.when.once => {
                let Published { task, version, .. } = work.published;
                return Ok(Event::CannotTrain(Breach::NotKept(format!(
                    "version {version} of task {task}: {error}"
                ))));
            }
            other => other?,
        }
        self.live.keeps(&self.store)?;
        self.live.note(
            "installed",
            &format!(
                "version {} of task {}",
                work.published.version,
                self.store.in_words(work.published.task)
            ),
        );
        Ok(Event::Recorded)
    }
}
