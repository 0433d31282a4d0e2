//! Questions that are held: a device that can only wait for others is answered when its round goes on, and not told to
//! ask again.
//!
//! A round was mostly waiting before: each of its steps ended some time between two questions of each device. Nothing of
//! the protocol changes. What is held is the question, which may be repeated at will; the answer is the one that the
//! device would have got for asking again.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::ids::{SessionId, TaskId};
use proto::message::{CheckIn, Request};
use task::round::PhaseName;

/// The longest that a question is held: a device asks three times a minute. Proxies and the devices themselves give up
/// later than that.
pub const LONGEST_HELD: Duration = Duration::from_secs(20);

/// What questions wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Phases {
    /// The step that each open round is in.
    pub(super) rounds: BTreeMap<SessionId, PhaseName>,
    /// How often places of a task came free, for each that is active.
    pub(super) places: BTreeMap<TaskId, u64>,
}

/// What a question waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// Nothing: it is answered at once.
    Nothing,
    /// The next step of a round.
    Step(SessionId),
    /// The end of a round, or that one begins.
    Round,
    /// A place in a version.
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
            Request::Join { .. } => Self::Round,
            Request::CheckIn(CheckIn { only_keeps: false, .. }) => Self::Place,
            Request::CheckIn(CheckIn { only_keeps: true, .. })
            | Request::Fetch { .. }
            | Request::MaskedChunk { .. }
            | Request::Decline { .. } => Self::Nothing,
        }
    }

    /// Whether it came, by the steps of all rounds before and now.
    pub(super) fn came(self, before: &Phases, now: &Phases) -> bool {
        match self {
            Self::Nothing => true,
            Self::Step(session) => before.rounds.get(&session) != now.rounds.get(&session),
            Self::Round => !before.rounds.keys().eq(now.rounds.keys()),
            Self::Place => before.places != now.places,
        }
    }
}
