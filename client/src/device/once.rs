//! What ends a device that runs once: whoever waits for it is told what no further try would mend.

use proto::message::Rejection;
use session::contribution::ContributionError;
use session::{Ended, Withheld};

use crate::error::Error;

/// How often that may go wrong which the next try may mend.
const TRIES: u32 = 3;

/// How often it went wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Once {
    in_vain: u32,
}

/// What an end means to somebody who waits.
enum Means {
    /// It belongs to the course of things: others were missing, or this device came too late.
    GoesOn,
    /// It may be otherwise the next time.
    MayPass,
    /// It will be the same the next time.
    Ends(Error),
}

impl Once {
    /// Takes the end of an attempt, and `why` in words. Gives what the run ends with, if it does.
    pub(super) fn ended(&mut self, ended: Ended, why: &str) -> Option<Error> {
        match means(ended, why) {
            Means::GoesOn => None,
            Means::Ends(error) => Some(error),
            Means::MayPass => {
                self.in_vain += 1;
                (self.in_vain >= TRIES)
                    .then(|| Error::Coordinator(format!("{why}; it came to nothing {TRIES} times")))
            }
        }
    }
}

fn means(ended: Ended, why: &str) -> Means {
    let coordinator = || Means::Ends(Error::Coordinator(why.to_owned()));
    match ended {
        Ended::Breach(breach) => Means::Ends(Error::Breach(breach)),
        Ended::Rejected(rejection) => match rejection {
            Rejection::NotEnrolled => Means::Ends(Error::NotEnrolled(rejection)),
            Rejection::ParticipationsSpent(_)
            | Rejection::Malformed { .. }
            | Rejection::Equivocation(_)
            | Rejection::Unacceptable { .. } => coordinator(),
            // A newer version may have come meanwhile, and the round may have gone on.
            Rejection::UnknownArtifact | Rejection::NotInRoster | Rejection::WrongPhase { .. } => {
                Means::MayPass
            }
            Rejection::UnknownTask
            | Rejection::UnknownSession
            | Rejection::Stale { .. }
            | Rejection::LeftOut
            | Rejection::Unavailable(_) => Means::GoesOn,
        },
        Ended::NotRenewed { rejection, is_over: true } => Means::Ends(Error::NotEnrolled(rejection)),
        // Whoever runs once does not wait for hours.
        Ended::TrainerRests { .. } => Means::Ends(Error::TrainerRests(ended.to_string())),
        Ended::NotTrained(_) | Ended::Contribution(ContributionError::Encode(_)) => {
            Means::Ends(Error::NotTrained(why.to_owned()))
        }
        Ended::Plan(_)
        | Ended::Draws(_)
        | Ended::WrongArtifact(_)
        | Ended::WrongReply { .. }
        | Ended::TooManyTasks
        | Ended::Uncounted { withheld: Withheld::Everything, .. }
        | Ended::Log(_)
        | Ended::NoLog
        | Ended::RoundTooFar { .. } => coordinator(),
        // Of a round with other devices it may be otherwise.
        Ended::Refused(_)
        | Ended::Roster(_)
        | Ended::Listed(_)
        | Ended::Contribution(ContributionError::Mask(_)) => Means::MayPass,
        // Another task may be there.
        Ended::Uncounted { withheld: Withheld::Nothing | Withheld::Task, .. }
        | Ended::Round(_)
        | Ended::NotInLog
        | Ended::NotInRoundsLog
        | Ended::SignedBefore { .. }
        | Ended::NoText(_)
        | Ended::NotRenewed { is_over: false, .. }
        | Ended::TrainerFailed(_) => Means::GoesOn,
    }
}

#[cfg(test)]
mod tests {
    use proto::ids::TaskId;
    use proto::message::Outcome;

    use super::*;
    use crate::error::ErrorKind;

    fn kind(ended: Ended) -> Option<ErrorKind> {
        Once::default().ended(ended, "why").map(|error| error.kind())
    }

    #[test]
    fn what_is_the_same_the_next_time_ends_a_run_at_once() {
        let refused = Rejection::Unacceptable { request: "join".into(), why: "no such class".to_owned() };
        let wrong = Ended::WrongReply { request: "join", reply: "chunk" };
        for ended in [Ended::WrongArtifact("plan"), wrong, Ended::Rejected(refused), Ended::Draws(50)] {
            assert_eq!(kind(ended), Some(ErrorKind::Coordinator));
        }
        assert_eq!(kind(Ended::NotTrained("it stopped itself".to_owned())), Some(ErrorKind::Device));
        let said = Once::default().ended(Ended::WrongArtifact("plan"), "the plan is another").unwrap();
        assert_eq!(said.to_string(), "the plan is another");
    }

    #[test]
    fn what_may_pass_ends_it_at_the_third_time_and_what_is_usual_never() {
        let mut once = Once::default();
        let missing = || Ended::Rejected(Rejection::UnknownArtifact);
        assert!(once.ended(missing(), "gone").is_none() && once.ended(missing(), "gone").is_none());
        let usual = || {
            let signed = Ended::SignedBefore { task: TaskId([1; 16]), round: 4 };
            [Ended::Round(Outcome::TooFewJoined), Ended::Rejected(Rejection::LeftOut), signed]
        };
        for _ in 0..10 {
            assert!(usual().into_iter().all(|ended| once.ended(ended, "usual").is_none()));
        }
        let said = once.ended(missing(), "the artefact is gone").unwrap();
        assert_eq!(said.to_string(), "the artefact is gone; it came to nothing 3 times");
        assert_eq!(said.kind(), ErrorKind::Coordinator);
    }
}
