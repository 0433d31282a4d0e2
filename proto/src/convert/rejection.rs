//! Rejections, as they travel in the details of a gRPC status.

use prost::Message;

use super::{WireError, error};
use crate::message::Rejection;
use crate::wire::{self, RejectionKind};

/// Encodes a rejection.
pub fn rejection_to_bytes(rejection: &Rejection) -> Vec<u8> {
    let mut message = wire::Rejection::default();
    let kind = match rejection {
        Rejection::Malformed { what, why } => {
            message.what = what.to_string();
            message.why.clone_from(why);
            RejectionKind::Malformed
        }
        Rejection::NotEnrolled => RejectionKind::NotEnrolled,
        Rejection::UnknownTask => RejectionKind::UnknownTask,
        Rejection::UnknownSession => RejectionKind::UnknownSession,
        Rejection::UnknownArtifact => RejectionKind::UnknownArtifact,
        Rejection::Stale { found, current } => {
            (message.found, message.current) = (*found, *current);
            RejectionKind::Stale
        }
        Rejection::ParticipationsSpent(found) => {
            message.found = *found;
            RejectionKind::ParticipationsSpent
        }
        Rejection::NotInRoster => RejectionKind::NotInRoster,
        Rejection::WrongPhase { request, phase } => {
            message.what = request.to_string();
            message.why = phase.to_string();
            RejectionKind::WrongPhase
        }
        Rejection::Equivocation(what) => {
            message.what = what.to_string();
            RejectionKind::Equivocation
        }
        Rejection::LeftOut => RejectionKind::LeftOut,
        Rejection::Unacceptable { request, why } => {
            message.what = request.to_string();
            message.why.clone_from(why);
            RejectionKind::Unacceptable
        }
        Rejection::Unavailable(why) => {
            message.why.clone_from(why);
            RejectionKind::Unavailable
        }
    };
    message.kind = kind.into();
    message.encode_to_vec()
}

/// Decodes a rejection.
pub fn rejection_from_bytes(bytes: &[u8]) -> Result<Rejection, WireError> {
    let message = wire::Rejection::decode(bytes).map_err(|why| error("rejection", why))?;
    let wire::Rejection { kind, what, why, found, current } = message;
    let request = what.into();
    match RejectionKind::try_from(kind) {
        Ok(RejectionKind::Malformed) => Ok(Rejection::Malformed { what: request, why }),
        Ok(RejectionKind::NotEnrolled) => Ok(Rejection::NotEnrolled),
        Ok(RejectionKind::UnknownTask) => Ok(Rejection::UnknownTask),
        Ok(RejectionKind::UnknownSession) => Ok(Rejection::UnknownSession),
        Ok(RejectionKind::UnknownArtifact) => Ok(Rejection::UnknownArtifact),
        Ok(RejectionKind::Stale) => Ok(Rejection::Stale { found, current }),
        Ok(RejectionKind::ParticipationsSpent) => Ok(Rejection::ParticipationsSpent(found)),
        Ok(RejectionKind::NotInRoster) => Ok(Rejection::NotInRoster),
        Ok(RejectionKind::WrongPhase) => Ok(Rejection::WrongPhase { request, phase: why.into() }),
        Ok(RejectionKind::Equivocation) => Ok(Rejection::Equivocation(request)),
        Ok(RejectionKind::LeftOut) => Ok(Rejection::LeftOut),
        Ok(RejectionKind::Unacceptable) => Ok(Rejection::Unacceptable { request, why }),
        Ok(RejectionKind::Unavailable) => Ok(Rejection::Unavailable(why)),
        Ok(RejectionKind::Unspecified) | Err(_) => {
            Err(error("rejection", format!("{kind} is not a kind of rejection")))
        }
    }
}
