//! The one long step of a round, apart from the round: the seeds are rebuilt and the masks removed.
//!
//! A round hands an [`Opening`] out and goes on taking answers. Whoever took it runs it wherever there is time,
//! and brings what came of it back. Nothing in here knows a thread or a clock.

use aggregation::{Attempt, Further, Lacking, RunningSum, UnmaskError};
use proto::ids::SessionId;

/// A sum that is due to be opened, with the shares that there are. The round waits until it is told what came
/// of it, even if that is nothing: [`Opened::broken`].
#[derive(Debug)]
#[must_use = "its round waits for what comes of it"]
pub struct Opening {
    pub(super) session: SessionId,
    pub(super) attempt: Attempt,
    pub(super) sum: RunningSum,
    pub(super) further: Further,
}

/// What came of an [`Opening`].
#[derive(Debug)]
#[must_use = "its round waits for it"]
pub struct Opened {
    pub(super) session: SessionId,
    pub(super) what: What,
}

#[derive(Debug)]
pub(super) enum What {
    /// The sum, without masks.
    Sum(Vec<u32>),
    /// A seed cannot be rebuilt yet.
    Lacking(Box<Lacking>, RunningSum),
    /// No further share would help.
    Failed(UnmaskError),
    /// The work broke off.
    Broken,
}

impl Opening {
    /// The round's session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Opens the sum, on the threads of the rayon pool that it is called in.
    pub fn run(self) -> Opened {
        let Self { session, attempt, sum, further } = self;
        let what = match attempt.make(further) {
            Ok(unmasking) => unmasking.unmask(sum).map_or_else(What::Failed, What::Sum),
            Err(failed) => match (further, failed.lacking) {
                (Further::MayCome, Some(lacking)) => What::Lacking(lacking, sum),
                (Further::MayCome, None) | (Further::WontCome, _) => What::Failed(failed.error),
            },
        };
        Opened { session, what }
    }
}

impl Opened {
    /// The round's session.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// What came of it, in a word.
    pub fn came(&self) -> &'static str {
        match self.what {
            What::Sum(_) => "opened",
            What::Lacking(..) => "lacking",
            What::Failed(_) => "failed",
            What::Broken => "broken",
        }
    }

    /// For an opening that broke off, so that the sum is gone: this ends its round.
    pub fn broken(session: SessionId) -> Self {
        Self { session, what: What::Broken }
    }
}
