//! One word, or a few, for everything that can come of a request or of taking part: reports count by these.

use client::transport::TransportError;
use proto::message::{DeclineReason, Outcome, Rejection};
use session::Ended;

/// How a rejection is called.
pub(crate) fn of_rejection(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Malformed { .. } => "malformed",
        Rejection::NotEnrolled => NOT_ENROLLED,
        Rejection::UnknownTask => "unknown task",
        Rejection::UnknownSession => "unknown session",
        Rejection::UnknownArtifact => "unknown artifact",
        Rejection::Stale { .. } => "stale",
        Rejection::ParticipationsSpent(_) => "participations spent",
        Rejection::NotInRoster => "not in the roster",
        Rejection::WrongPhase { .. } => "wrong phase",
        Rejection::Equivocation(_) => "equivocation",
        Rejection::LeftOut => "left out",
        Rejection::Unacceptable { .. } => "unacceptable",
        Rejection::Unavailable(_) => "unavailable",
    }
}

/// How a call that gave no answer is called. What lies below says why in words only.
pub(crate) fn of_failure(error: &TransportError) -> &'static str {
    match error {
        TransportError::Rejected(rejection) => of_rejection(rejection),
        TransportError::CertificateEnded { .. } => "the certificate has ended",
        TransportError::Answer(_) => "an answer that cannot be read",
        TransportError::Setup { .. } => "an address, a certificate or a key that cannot be used",
        TransportError::Artifact { .. } => "an artifact that is another",
        TransportError::Unreachable { why, .. } => of_unreachable(&why.to_lowercase()),
    }
}

/// How it is called that the coordinator does not know a device.
pub(crate) const NOT_ENROLLED: &str = "not enrolled";

/// How a connection is called whose two ends do not take each other's certificates.
pub(crate) const NO_TLS: &str = "no TLS";

fn of_unreachable(why: &str) -> &'static str {
    let has = |words: &[&str]| words.iter().any(|word| why.contains(word));
    if has(&["refused"]) {
        "connection refused"
    } else if has(&["timed out", "timeout", "no connection within", "deadline"]) {
        "no answer in time"
    } else if has(&["reset", "broken pipe", "closed", "eof", "goaway", "go away", "h2 protocol", "canceled"])
    {
        "connection broken"
    } else if has(&["certificate", "handshake", "alert"]) {
        NO_TLS
    } else if has(&["too many open files", "cannot assign", "no buffer space"]) {
        "this machine has no more connections"
    } else if has(&["busy", "exhausted", "too many", "too often"]) {
        "turned away by load"
    } else {
        "unreachable otherwise"
    }
}

/// How the end of a participation is called.
pub(crate) fn of_end(ended: &Ended) -> String {
    match ended {
        Ended::Breach(_) => "declined by the device's limits".to_owned(),
        Ended::Refused(_) => "the protocol was not followed".to_owned(),
        Ended::Roster(_) => "the roster cannot be one".to_owned(),
        Ended::Log(_) => "the enrollment log is another".to_owned(),
        Ended::Listed(_) => "the roster is not in the enrollment log".to_owned(),
        Ended::NoLog => "the round is about no enrollment log".to_owned(),
        Ended::NotInLog | Ended::NotInRoundsLog => "enrolled after the round was opened".to_owned(),
        Ended::Contribution(_) => "the update cannot be contributed".to_owned(),
        Ended::Rejected(rejection) => format!("turned away: {}", of_rejection(rejection)),
        Ended::NotRenewed { .. } => "the certificate is not renewed".to_owned(),
        Ended::Round(outcome) => format!("the round ended: {}", outcome.word()),
        Ended::SignedBefore { .. } => "a round of a number that was signed before".to_owned(),
        Ended::RoundTooFar { .. } => "a round of a number far ahead".to_owned(),
        Ended::Draws(_) => "too many graphs drawn".to_owned(),
        Ended::TooManyTasks => "charged in too many tasks".to_owned(),
        Ended::Uncounted { .. } => "charges that cannot be counted".to_owned(),
        Ended::Plan(_) => "the plan cannot be followed".to_owned(),
        Ended::WrongArtifact(_) => "an artifact that is another".to_owned(),
        Ended::WrongReply { .. } => "an answer to another question".to_owned(),
        Ended::NotTrained(_) | Ended::NoText(_) | Ended::TrainerFailed(_) | Ended::TrainerRests { .. } => {
            "nothing was trained".to_owned()
        }
    }
}

/// How the end of a round is called whose sum is in a version.
pub(crate) const PUBLISHED: &str = Outcome::Published.word();

/// How the reason of a device that declines is called.
pub(crate) fn of_decline(reason: DeclineReason) -> &'static str {
    match reason {
        DeclineReason::Plan => "plan",
        DeclineReason::NotAllowed => "not allowed",
        DeclineReason::Base => "base",
        DeclineReason::Cohort => "cohort",
        DeclineReason::Noise => "noise",
        DeclineReason::Epsilon => "epsilon",
        DeclineReason::Participations => "participations",
        DeclineReason::Size => "size",
        DeclineReason::Memory => "memory",
        DeclineReason::Work => "work",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_reached_is_counted_by_its_cause() {
        let of = |why: &str| {
            of_failure(&TransportError::Unreachable { address: "here:1".to_owned(), why: why.to_owned() })
        };
        assert_eq!(of("tcp connect error: Connection refused (os error 111)"), "connection refused");
        assert_eq!(of("Timeout expired"), "no answer in time");
        assert_eq!(of("no connection within 10000 ms"), "no answer in time");
        assert_eq!(of("connection reset by peer"), "connection broken");
        // A coordinator that is full closes a connection before anything is said.
        assert_eq!(of("tls handshake eof"), "connection broken");
        assert_eq!(of("invalid peer certificate: UnknownIssuer"), NO_TLS);
        assert_eq!(of("Too many open files (os error 24)"), "this machine has no more connections");
        assert_eq!(of("something new"), "unreachable otherwise");
    }
}
