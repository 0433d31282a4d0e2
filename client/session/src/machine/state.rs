//! The names of what a session does.

use std::fmt;

/// What a session does; [`Session::state`](super::Session::state) gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Nothing to do until a time.
    Waiting,
    /// Has a version to train from, and waits for a window to train in.
    AwaitingWindow,
    /// Asks the coordinator what there is to do.
    CheckingIn,
    /// Asks for its next certificate.
    Renewing,
    /// Fetches a plan.
    LoadingPlan,
    /// Writes charges of the coordinator to its ledger that were not there.
    RecordingFound,
    /// Fetches a version.
    Loading,
    /// Keeps a version for its user.
    Installing,
    /// Trains.
    Training,
    /// Tells the coordinator that it takes no part.
    Declining,
    /// Asks for a place in a round.
    Joining,
    /// Writes what it saw of the enrollment log.
    RecordingLog,
    /// Advertises its keys.
    Advertising,
    /// Writes that it takes part in a draw.
    RecordingDraw,
    /// Draws the graph with others.
    Drawing,
    /// Shares its seeds.
    Sharing,
    /// Writes what a round costs to its ledger.
    Charging,
    /// Sends its masked input.
    Submitting,
    /// Writes what it signs.
    RecordingSignature,
    /// Ends its input with a signature.
    Ending,
    /// Agrees on who shared.
    Agreeing,
    /// Writes that it answers.
    RecordingAnswer,
    /// Gives shares of others away.
    Unmasking,
}

impl SessionState {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::AwaitingWindow => "waiting for a window",
            Self::CheckingIn => "checking in",
            Self::Renewing => "renewing its certificate",
            Self::LoadingPlan => "loading the plan",
            Self::RecordingFound => "recording charges that it did not know of",
            Self::Loading => "loading",
            Self::Installing => "installing",
            Self::Training => "training",
            Self::Declining => "declining",
            Self::Joining => "joining",
            Self::RecordingLog => "recording the enrollment log",
            Self::Advertising => "advertising keys",
            Self::RecordingDraw => "recording a draw",
            Self::Drawing => "drawing the graph",
            Self::Sharing => "sharing seeds",
            Self::Charging => "charging",
            Self::Submitting => "submitting",
            Self::RecordingSignature => "recording its signature",
            Self::Ending => "ending its input",
            Self::Agreeing => "agreeing",
            Self::RecordingAnswer => "recording its answer",
            Self::Unmasking => "unmasking",
        }
    }
}

impl SessionState {
    /// What the device waits for where its coordinator told it, in this state, to ask again; none where that says nothing
    /// of others.
    pub fn awaits(self) -> Option<&'static str> {
        match self {
            Self::Waiting => Some("waiting for work: the coordinator has none for this device now"),
            Self::Joining => Some("waiting for the next round: the open one goes on without this device"),
            Self::Advertising => Some("waiting for others to join the round"),
            Self::Drawing => Some("waiting for others of the round to draw the graph"),
            Self::Sharing => Some("waiting for others of the round to share seeds"),
            Self::Ending => Some("waiting for the inputs of others of the round"),
            Self::Agreeing => Some("waiting for others of the round to sign who is in the sum"),
            Self::Unmasking => Some("waiting for the sum of the round to be opened"),
            Self::AwaitingWindow
            | Self::CheckingIn
            | Self::Renewing
            | Self::LoadingPlan
            | Self::RecordingFound
            | Self::Loading
            | Self::Installing
            | Self::Training
            | Self::Declining
            | Self::RecordingLog
            | Self::RecordingDraw
            | Self::Charging
            | Self::Submitting
            | Self::RecordingSignature
            | Self::RecordingAnswer => None,
        }
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
