//! Questions that are held: a device that can only wait for others is answered when its round goes on, and not told to
//! ask again.
//!
//! A round was mostly waiting before: each of its steps ended some time between two questions of each device. Nothing of
//! the protocol changes. What is held is the question, which may be repeated at will; the answer is the one that the
//! device would have got for asking again.

use std::collections::BTreeMap;

use proto::ids::{DeviceId, SessionId};
use proto::message::{Rejection, Reply, Request};
use task::round::PhaseName;
use tokio::time::{Duration, Instant, timeout_at};

use super::{Driver, TROUBLED_MILLIS};

/// The longest that a question is held: a device asks three times a minute. Proxies and the devices themselves give up
/// later than that.
pub const LONGEST_HELD: Duration = Duration::from_secs(20);

/// The step that each open round is in.
pub(super) type Phases = BTreeMap<SessionId, PhaseName>;

/// What a question waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    /// Nothing: it is answered at once.
    Nothing,
    /// The next step of a round.
    Step(SessionId),
    /// The end of a round, or that one begins.
    Round,
}

impl Awaits {
    fn of(request: &Request) -> Self {
        match request {
            Request::Advertise { session, .. }
            | Request::Draw { session, .. }
            | Request::ShareKeys { session, .. }
            | Request::MaskedDone { session, .. }
            | Request::Agree { session, .. }
            | Request::Unmask { session, .. } => Self::Step(*session),
            Request::Join { .. } => Self::Round,
            Request::CheckIn
            | Request::Fetch { .. }
            | Request::MaskedChunk { .. }
            | Request::Decline { .. } => Self::Nothing,
        }
    }

    fn came(self, before: &Phases, now: &Phases) -> bool {
        match self {
            Self::Nothing => true,
            Self::Step(session) => before.get(&session) != now.get(&session),
            Self::Round => !before.keys().eq(now.keys()),
        }
    }
}

impl Driver {
    /// Answers a request of a device as [`Driver::handle`] does, and holds one that waits for others until what it waits for
    /// came, or for so `long`. Whoever drops it asks no more.
    pub async fn answer(
        &self,
        device: DeviceId,
        request: Request,
        long: Duration,
    ) -> Result<Reply, Rejection> {
        let awaits = Awaits::of(&request);
        if awaits == Awaits::Nothing {
            return self.handle(device, request).await;
        }
        let until = Instant::now() + long;
        let mut phases = self.phases.subscribe();
        loop {
            // From before the answer, so that nothing is missed that comes right after it.
            let before = phases.borrow_and_update().clone();
            let answer = self.handle(device, request.clone()).await;
            if !matches!(answer, Ok(Reply::Wait { retry_millis, .. }) if retry_millis < TROUBLED_MILLIS) {
                return answer;
            }
            let came = phases.wait_for(|now| awaits.came(&before, now));
            if timeout_at(until, came).await.is_err() {
                return answer;
            }
        }
    }
}
