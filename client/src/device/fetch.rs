//! What a device fetches from its coordinator: plans and the parts of a version, from where an earlier connection broke.

use proto::ids::{Digest, TaskId};
use proto::message::{Before, Published};
use proto::plan::{MAX_PLAN_BYTES, Plan};
use session::{Event, LoadedBefore};

use super::run::Running;
use crate::error::Error;
use crate::transport::{MAX_ARTIFACT_BYTES, TransportError};

impl Running {
    pub(super) async fn load_plan(&mut self, published: &Published) -> Result<Event, TransportError> {
        let plan = self.artifact(published.plan, Keep::Yes, MAX_PLAN_BYTES as u64).await?;
        // A task is known by its name even where this device takes no part in it.
        if let Ok(read) = Plan::parse(&plan) {
            let named = self.store.name_task(published.task, &read.name);
            if let Err(error) = named.map_err(Error::from).and_then(|()| self.live.keeps(&self.store)) {
                tracing::warn!("the name of task {} cannot be kept: {error}", published.task);
            }
        }
        Ok(Event::PlanLoaded(plan))
    }

    pub(super) async fn load(
        &mut self,
        published: Published,
        frozen: Option<Digest>,
        before: Option<Before>,
    ) -> Result<Event, TransportError> {
        let frozen = match frozen {
            Some(digest) => Some(self.artifact(digest, Keep::Yes, MAX_ARTIFACT_BYTES).await?),
            None => None,
        };
        let folded = match published.folded {
            Some(digest) => Some(self.artifact(digest, Keep::Yes, MAX_ARTIFACT_BYTES).await?),
            None => None,
        };
        let before = match before {
            Some(before) => Some(self.load_before(published.task, before).await?),
            None => None,
        };
        let adapter = self.artifact(published.adapter, Keep::No, MAX_ARTIFACT_BYTES).await?;
        Ok(Event::Loaded { adapter, frozen, folded, before })
    }

    /// The version before, as the user holds it or from the coordinator.
    async fn load_before(&mut self, task: TaskId, before: Before) -> Result<LoadedBefore, TransportError> {
        let folded = match before.folded {
            None => None,
            Some(digest) => Some(self.artifact(digest, Keep::Yes, MAX_ARTIFACT_BYTES).await?),
        };
        let adapter = match self.store.installed_adapter(task, before.adapter) {
            Some(adapter) => adapter,
            None => self.artifact(before.adapter, Keep::No, MAX_ARTIFACT_BYTES).await?,
        };
        Ok(LoadedBefore { adapter, folded })
    }

    /// An artefact of at most so many bytes, from the disk or from the coordinator.
    async fn artifact(
        &mut self,
        digest: Digest,
        keep: Keep,
        most_bytes: u64,
    ) -> Result<Vec<u8>, TransportError> {
        if let Some(bytes) = self.store.cached(digest) {
            return Ok(bytes);
        }
        // What came before a connection broke, now or before a restart, is not fetched again.
        let mut bytes = self.store.partial_artifact(digest);
        let address = self.transport.address().to_owned();
        let (in_vain, silent) = (self.asks(), self.silent());
        let left = |why: &str| TransportError::Unreachable { address: address.clone(), why: why.to_owned() };
        let done = tokio::select! {
            done = self.transport.fetch(digest, most_bytes, &mut bytes) => done,
            () = in_vain => Err(silent),
            () = self.watching.no_transfer() => Err(left("the network may not be used any more")),
            () = self.stop.cancelled() => Err(left("the device stops")),
        };
        self.store.keep_partial_artifact(digest, if done.is_err() { &bytes } else { &[] });
        done?;
        if keep == Keep::Yes {
            self.store.cache_artifact(digest, &bytes);
        }
        Ok(bytes)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Keep {
    Yes,
    No,
}
