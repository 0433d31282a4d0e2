//! What a question that is held waits for.
//!
//! A device that can only wait for others is answered when its round goes on, and not told to ask again: a round's time is
//! its devices' work and not their waiting. Nothing of the protocol changes. What is held is the question, which may be
//! repeated at will; the answer is the one that the device would have got for asking again. Whoever drives a task holds it:
//! the server's shell with a timer and a channel, a simulation in its queue of events. Both ask here what it waits for.

use proto::ids::{SessionId, TaskId};
use proto::message::{CheckIn, Reply, Request, Window};

use crate::Task;
use crate::round::Steps;

/// The longest that a question is held, in milliseconds: a device asks three times a minute. Proxies and the devices
/// themselves give up later than that.
pub const LONGEST_HELD_MILLIS: u64 = 20_000;

/// What questions wait for in one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Phases {
    /// The steps of the open rounds.
    pub steps: Steps,
    /// How often places came free; none where the task gives no work.
    pub places: Option<u64>,
}

impl Phases {
    /// As they are now.
    pub fn of(task: &Task) -> Self {
        Self { steps: task.open_rounds(), places: task.is_active().then(|| task.openings_of_places()) }
    }
}

/// What a question waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Awaits {
    /// Nothing: it is answered at once.
    Nothing,
    /// The next step of a round.
    Step(SessionId),
    /// The end of one of a task's rounds, or that one begins.
    Round(TaskId),
    /// A place in a version of any task.
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
            Request::Join { task, .. } => Self::Round(*task),
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
            Self::Step(_) | Self::Round(_) => true,
            Self::Place => !complete && retry.least_millis < retry.most_millis,
        }
    }

    /// Whether it came, by what there was to wait for in its task before and is now.
    pub fn came(self, before: &Phases, now: &Phases) -> bool {
        match self {
            Self::Place => before.places != now.places,
            Self::Nothing | Self::Step(_) | Self::Round(_) => self.came_in_round(&before.steps, &now.steps),
        }
    }

    /// Whether what is waited for in a round came, by its task's steps before and now.
    pub fn came_in_round(self, before: &Steps, now: &Steps) -> bool {
        match self {
            Self::Nothing | Self::Place => true,
            Self::Step(session) => before.get(&session) != now.get(&session),
            Self::Round(_) => !before.keys().eq(now.keys()),
        }
    }

    /// An answer to a question that was held for so long. A window to ask again for a place in begins with the question: who
    /// was held is nearer to it.
    pub fn after(self, mut answer: Reply, held_millis: u64) -> Reply {
        if let (Self::Place, Reply::Wait { retry, .. }) = (self, &mut answer) {
            *retry = Window {
                least_millis: retry.least_millis.saturating_sub(held_millis),
                most_millis: retry.most_millis.saturating_sub(held_millis),
            };
        }
        answer
    }
}
