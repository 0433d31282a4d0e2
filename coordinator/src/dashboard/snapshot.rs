//! What the page shows, as one document.

use proto::admin::{Health, PrivacySpent, TaskStatus};
use proto::message::Rejection;
use serde::Serialize;

use crate::census::Census;
use crate::driver;
use crate::service::AdminService;

/// The form of the document; a later one has another number.
const SCHEMA: &str = "nightshift.dashboard/1";

/// As many versions of a task are in a document, the newest.
const MOST_VERSIONS: usize = 500;

/// What there is to see.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Snapshot {
    schema: &'static str,
    /// The coordinator's clock.
    now_unix_millis: u64,
    health: Health,
    tasks: Vec<Task>,
    #[serde(flatten)]
    census: Census,
}

/// One task, and what its devices have spent.
#[derive(Clone, Debug, Serialize)]
struct Task {
    status: TaskStatus,
    /// Versions that are not in `status`, because there are too many.
    versions_left_out: usize,
    spent: Option<PrivacySpent>,
}

impl Snapshot {
    pub(super) async fn of(service: &AdminService, census: Census) -> Result<Self, Rejection> {
        let mut tasks = Vec::new();
        // The newest first, as whoever looks wants it.
        for known in service.driver().list().await.into_iter().rev() {
            let mut status = service.task(known.task).await.unwrap_or(known);
            let spent = service.driver().spent(status.task).await.ok();
            let versions_left_out = status.versions.len().saturating_sub(MOST_VERSIONS);
            status.versions.drain(..versions_left_out);
            tasks.push(Task { status, versions_left_out, spent });
        }
        let health = service.health().await?;
        Ok(Self { schema: SCHEMA, now_unix_millis: driver::now().0, health, tasks, census })
    }

    /// What makes it another one.
    pub(super) fn without_clock(&self) -> Self {
        let health = Health { now_unix_millis: 0, trouble_secs: 0, ..self.health.clone() };
        let mut tasks = self.tasks.clone();
        for candidates in tasks.iter_mut().filter_map(|task| task.status.candidates.as_mut()) {
            // Any call of any device.
            candidates.last_call_unix_secs = 0;
        }
        Self { now_unix_millis: 0, health, tasks, ..self.clone() }
    }
}
