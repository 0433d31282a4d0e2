//! Questions that are held: a device that can only wait for others is answered when its round goes on, and not told to
//! ask again.
//!
//! A round was mostly waiting before: each of its steps ended some time between two questions of each device. Nothing of
//! the protocol changes. What is held is the question, which may be repeated at will; the answer is the one that the
//! device would have got for asking again.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::ids::{SessionId, TaskId};
use proto::message::{CheckIn, Reply, Request, Window};
use task::round::PhaseName;
use tokio::sync::watch;

/// The longest that a question is held: a device asks three times a minute. Proxies and the devices themselves give up
/// later than that.
pub const LONGEST_HELD: Duration = Duration::from_secs(20);

/// The round of a task that is open, and its step.
pub(super) type Step = Option<(SessionId, PhaseName)>;

/// What all tasks tell of. Whoever waits for a round is told by its task alone (`Cell::step`).
#[derive(Debug, Default)]
pub(super) struct Phases {
    /// The step that each open round is in.
    pub(super) rounds: watch::Sender<BTreeMap<SessionId, PhaseName>>,
    /// How often places of a task came free, for each that is active.
    pub(super) places: watch::Sender<BTreeMap<TaskId, u64>>,
}

/// What a question waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// Nothing: it is answered at once.
    Nothing,
    /// The next step of a round.
    Step(SessionId),
    /// The end of a task's round, or that one begins.
    Round(TaskId),
    /// A place in a version of any task.
    Place,
}

impl Awaits {
    pub(super) fn of(request: &Request) -> Self {
        match request {
            Request::Advertise { session, .. }
            | Request::Draw { session, .. }
            | Request::ShareKeys { session, .. }
            | Request::MaskedDone { session, .. }
            | Request::Agree { session, .. }
            | Request::Unmask { session, .. } => Self::Step(*session),
            Request::Join { task, .. } => Self::Round(*task),
            Request::CheckIn(CheckIn { only_keeps: false, .. }) => Self::Place,
            Request::CheckIn(CheckIn { only_keeps: true, .. })
            | Request::Fetch { .. }
            | Request::MaskedChunk { .. }
            | Request::Decline { .. } => Self::Nothing,
        }
    }

    /// Whether what is waited for in a round came, by its task's step before and now.
    pub(super) fn came(self, before: Step, now: Step) -> bool {
        match self {
            Self::Nothing | Self::Place => true,
            Self::Step(session) => {
                let phase = |step: Step| step.filter(|(open, _)| *open == session).map(|(_, phase)| phase);
                phase(before) != phase(now)
            }
            Self::Round(_) => before.map(|(open, _)| open) != now.map(|(open, _)| open),
        }
    }
}

/// An answer that was held for so long. A window to ask again in begins with the question: who was held is nearer to it.
pub(super) fn after(mut answer: Reply, held: Duration) -> Reply {
    if let Reply::Wait { retry, .. } = &mut answer {
        let held = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        *retry = Window {
            least_millis: retry.least_millis.saturating_sub(held),
            most_millis: retry.most_millis.saturating_sub(held),
        };
    }
    answer
}
