//! Why a device stopped taking part, for its user.

use std::fmt;

use aggregation::log::{HeadRefusal, ListedError};
use aggregation::{Refusal, RosterError};
use proto::ids::TaskId;
use proto::message::{Outcome, Rejection};
use proto::plan::PlanError;

use super::MOST_ROUNDS_AHEAD;
use super::assigned::MOST_TASKS;
use crate::contribution::ContributionError;
use crate::policy::Breach;

/// Why the last attempt to take part ended.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// The device's own limits forbid it.
    #[error("this device does not take part: {0}")]
    Breach(#[from] Breach),
    /// The coordinator's messages do not follow the protocol.
    #[error("this device left the round: {0}")]
    Refused(#[from] Refusal),
    /// The roster cannot be one.
    #[error("this device left the round: {0}")]
    Roster(#[from] RosterError),
    /// The enrollment log that the round is about is not what this device goes by.
    #[error("this device left the round: {0}")]
    Log(#[from] HeadRefusal),
    /// The roster is not in that log, or too much of it is fresh.
    #[error("this device left the round: {0}")]
    Listed(#[from] ListedError),
    /// The coordinator opens a round that is about no log.
    #[error(
        "this device is in the log of its enrollment authority, and the coordinator opened a round without one: whoever \
         is in it could have been made up"
    )]
    NoLog,
    /// The credential is from before the authority kept a log.
    #[error("this device's credential has no place in the enrollment log yet; it asks for one that has")]
    NotInLog,
    /// The round was opened before this device's credential was in the log.
    #[error(
        "the open round is about the enrollment log from before this device was in it; it joins the next one with what it \
         trained"
    )]
    NotInRoundsLog,
    /// The update cannot be contributed.
    #[error("this device left the round: {0}")]
    Contribution(#[from] ContributionError),
    /// The coordinator turned a request away.
    #[error("{}", turned_away(.0))]
    Rejected(Rejection),
    /// The coordinator gives no further certificate.
    #[error(
        "the coordinator does not renew this device's certificate: {}; without one it takes no part: ask its operator, who \
         may give a new token for `nightshift-agent enroll`",
        rejection.reason()
    )]
    NotRenewed {
        /// Why.
        rejection: Rejection,
        /// Whether the one that the device has is over, so that it can do nothing else.
        is_over: bool,
    },
    /// The round ended.
    #[error("the round ended: {0}")]
    Round(Outcome),
    /// The coordinator opens a round of that number a second time.
    #[error(
        "this device signed round {round} of task {task} before and takes no part in another round {round}"
    )]
    SignedBefore {
        /// The task.
        task: TaskId,
        /// The round.
        round: u64,
    },
    /// The coordinator opens a round of a number that no coordinator comes to.
    #[error(
        "round {round} of task {task} is more than {MOST_ROUNDS_AHEAD} above round {last}, the last in which this device \
         signed: no honest coordinator counts so fast; ask its operator"
    )]
    RoundTooFar {
        /// The task.
        task: TaskId,
        /// The round.
        round: u64,
        /// The last in which this device signed, or 0.
        last: u64,
    },
    /// The coordinator has had the graphs of too many sessions drawn.
    #[error("this device helped to draw the graphs of {0} sessions in a day, and helps no more")]
    Draws(usize),
    /// The coordinator names charges in too many tasks.
    #[error(
        "the coordinator says that it charged this device in more than {MOST_TASKS} tasks that this device does not know of; \
         it writes no more of them and takes no part: ask its operator"
    )]
    TooManyTasks,
    /// What the coordinator charged this device for cannot be counted.
    #[error(
        "the coordinator charged this device in task {task} for rounds that its ledger does not have, and what they cost is \
         not known: {why}; {withheld}"
    )]
    Uncounted {
        /// The task.
        task: TaskId,
        /// Why the plan, which says what they cost, is not known.
        why: String,
        /// What is not done meanwhile.
        withheld: Withheld,
    },
    /// The plan cannot be followed.
    #[error("the plan cannot be followed: {0}")]
    Plan(#[from] PlanError),
    /// What was fetched is not what was published.
    #[error("the {0} that came is not the one that was published")]
    WrongArtifact(&'static str),
    /// The answer does not belong to the request.
    #[error("the coordinator answered `{reply}` to `{request}`")]
    WrongReply {
        /// What was asked.
        request: &'static str,
        /// What came.
        reply: &'static str,
    },
    /// Local training did not come to an end.
    #[error("training ended early: {0}")]
    NotTrained(String),
    /// There is no text of the user to train on; it is looked for again.
    #[error("waiting for text to train on: {0}")]
    NoText(String),
    /// What trains broke.
    #[error("the trainer failed: {0}")]
    TrainerFailed(String),
    /// What trains broke too often in a row.
    #[error(
        "the trainer failed {failed} times in a row, at last because of this: {why}; task {task} is not trained for six \
         hours, new versions are still installed"
    )]
    TrainerRests {
        /// The task.
        task: TaskId,
        /// How often.
        failed: u32,
        /// What went wrong the last time.
        why: String,
    },
}

/// What is not trained while charges cannot be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withheld {
    /// Nothing that was asked for.
    Nothing,
    /// The task in which they are.
    Task,
    /// All tasks, whose limit together is not known to be kept.
    Everything,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "other tasks do not depend on it",
            Self::Task => "nothing is trained of this task before it is",
            Self::Everything => {
                "your limits on all tasks together cannot be kept so, and nothing is trained before it is; it is asked for \
                 again in a quarter of an hour"
            }
        })
    }
}

impl Ended {
    /// Whether this comes with any good federation: others were quicker, or too few came. Then nothing is wrong with this
    /// device or its coordinator, and it goes on by itself.
    pub fn is_ordinary(&self) -> bool {
        match self {
            Self::Rejected(
                Rejection::Stale { .. }
                | Rejection::UnknownTask
                | Rejection::UnknownSession
                | Rejection::LeftOut,
            )
            | Self::Breach(Breach::Resting { .. })
            | Self::NotInLog
            | Self::NotInRoundsLog
            | Self::Round(_) => true,
            Self::Rejected(
                Rejection::Malformed { .. }
                | Rejection::NotEnrolled
                | Rejection::UnknownArtifact
                | Rejection::ParticipationsSpent(_)
                | Rejection::NotInRoster
                | Rejection::WrongPhase { .. }
                | Rejection::Equivocation(_)
                | Rejection::Unacceptable { .. }
                | Rejection::Unavailable(_),
            )
            | Self::TooManyTasks
            | Self::Uncounted { .. }
            | Self::Breach(_)
            | Self::Refused(_)
            | Self::Roster(_)
            | Self::Log(_)
            | Self::Listed(_)
            | Self::NoLog
            | Self::Contribution(_)
            | Self::NotRenewed { .. }
            | Self::SignedBefore { .. }
            | Self::RoundTooFar { .. }
            | Self::Draws(_)
            | Self::Plan(_)
            | Self::WrongArtifact(_)
            | Self::WrongReply { .. }
            | Self::NotTrained(_)
            | Self::NoText(_)
            | Self::TrainerFailed(_)
            | Self::TrainerRests { .. } => false,
        }
    }
}

/// What a rejection means to the device's user.
fn turned_away(rejection: &Rejection) -> String {
    match rejection {
        Rejection::Stale { found, current } => format!(
            "others made version {current} while this device trained from version {found}; it trains from the new one next"
        ),
        Rejection::UnknownTask => "the task is over".to_owned(),
        Rejection::UnknownSession => "the round ended before this device was heard".to_owned(),
        Rejection::LeftOut => {
            "the round went on without this device, whose input came too late to be counted".to_owned()
        }
        other @ (Rejection::Malformed { .. }
        | Rejection::NotEnrolled
        | Rejection::UnknownArtifact
        | Rejection::ParticipationsSpent(_)
        | Rejection::NotInRoster
        | Rejection::WrongPhase { .. }
        | Rejection::Equivocation(_)
        | Rejection::Unacceptable { .. }
        | Rejection::Unavailable(_)) => {
            format!("the coordinator turned this device away: {}", other.reason())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_with_any_good_federation_does_not_read_like_a_failure() {
        let stale = Ended::Rejected(Rejection::Stale { found: 0, current: 1 });
        let words =
            "others made version 1 while this device trained from version 0; it trains from the new one next";
        assert_eq!(stale.to_string(), words);
        for ordinary in [
            stale,
            Ended::Rejected(Rejection::UnknownTask),
            Ended::Rejected(Rejection::UnknownSession),
            Ended::Rejected(Rejection::LeftOut),
            Ended::Round(Outcome::TooFewJoined),
            Ended::Breach(Breach::Resting { until: proto::ids::Timestamp(1), most: 24 }),
            Ended::Round(Outcome::Stopped),
        ] {
            assert!(ordinary.is_ordinary() && !ordinary.to_string().contains("turned"), "{ordinary}");
        }
        for fault in [
            Ended::Rejected(Rejection::NotEnrolled),
            Ended::Rejected(Rejection::Equivocation("draw".into())),
            Ended::WrongArtifact("plan"),
            Ended::TrainerFailed("it was killed".into()),
        ] {
            assert!(!fault.is_ordinary(), "{fault}");
        }
    }
}
