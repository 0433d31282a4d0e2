//! What a question that is held waits for.
//!
//! A device that can only wait for others is answered when its round goes on, and not told to ask again: a round's time is
//! its devices' work and not their waiting. Nothing of the protocol changes. What is held is the question, which may be
//! repeated at will; the answer is the one that the device would have got for asking again. Whoever drives a task holds it:
//! the server's shell with a timer and a channel, a simulation in its queue of events. Both ask here what it waits for.

use std::collections::BTreeMap;

use proto::ids::{SessionId, TaskId};
use proto::message::{CheckIn, Reply, Request};

use crate::Task;
use crate::round::PhaseName;

/// The longest that a question is held, in milliseconds: a device asks three times a minute. Proxies and the devices
/// themselves give up later than that.
pub const LONGEST_HELD_MILLIS: u64 = 20_000;

/// What questions wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// The step that each open round is in.
    pub rounds: BTreeMap<SessionId, PhaseName>,
    /// How often places of a task came free, for each that is active.
    pub places: BTreeMap<TaskId, u64>,
}

impl Phases {
    /// Those of one task alone.
    pub fn of(task: &Task) -> Self {
        Self {
            rounds: task.open_round().into_iter().collect(),
            places: task.is_active().then(|| (task.id(), task.openings_of_places())).into_iter().collect(),
        }
    }
}

/// What a question waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Awaits {
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
    /// What this question waits for.
    pub fn of(request: &Request) -> Self {
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

    /// Whether a task's answer only says to wait for what others do: a device for which there is no place is told a window
    /// to choose from.
    pub fn is_only_to_wait(self, answer: &Reply) -> bool {
        let Reply::Wait { retry, complete, .. } = *answer else { return false };
        match self {
            Self::Nothing => false,
            Self::Step(_) | Self::Round => true,
            Self::Place => !complete && retry.least_millis < retry.most_millis,
        }
    }

    /// Whether it came, by the steps of all rounds before and now.
    pub fn came(self, before: &Phases, now: &Phases) -> bool {
        match self {
            Self::Nothing => true,
            Self::Step(session) => before.rounds.get(&session) != now.rounds.get(&session),
            Self::Round => !before.rounds.keys().eq(now.rounds.keys()),
            Self::Place => before.places != now.places,
        }
    }
}
