//! Rejections as gRPC knows them.

use proto::convert;
use proto::message::Rejection;
use tonic::{Code, Status};

/// The one place that maps rejections to gRPC; the rejection itself travels in the details.
pub fn of(rejection: &Rejection) -> Status {
    let code = match rejection {
        Rejection::Malformed { .. } | Rejection::Unacceptable { .. } => Code::InvalidArgument,
        Rejection::NotEnrolled => Code::Unauthenticated,
        Rejection::UnknownTask | Rejection::UnknownSession | Rejection::UnknownArtifact => Code::NotFound,
        Rejection::NotInRoster => Code::PermissionDenied,
        Rejection::Equivocation(_) => Code::AlreadyExists,
        Rejection::Stale { .. }
        | Rejection::ParticipationsSpent(_)
        | Rejection::WrongPhase { .. }
        | Rejection::LeftOut => Code::FailedPrecondition,
        Rejection::Unavailable(_) => Code::Unavailable,
    };
    Status::with_details(code, rejection.to_string(), convert::rejection_to_bytes(rejection).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejection_comes_back_from_its_status() {
        let rejection = Rejection::Stale { found: 1, current: 2 };
        let status = of(&rejection);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(convert::rejection_from_bytes(status.details()), Ok(rejection));
    }
}
