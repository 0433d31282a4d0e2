//! Requests of a device.

use super::{
    WireError, advertisement_from_wire, advertisement_to_wire, at_most_latest, digest, error, fixed, present,
    sealed_from_wire, sealed_to_wire, shares_to_wire, signature, unmask_from_wire,
};
use crate::adapter::Class;
use crate::ids::{SessionId, TaskId};
use crate::message::{CheckIn, DeclineReason, Request};
use crate::wire::{self, request::Kind};

/// Encodes a request.
pub fn request_to_wire(request: &Request) -> wire::Request {
    let kind = match request {
        Request::CheckIn(CheckIn { only_keeps, declined }) => Kind::CheckIn(wire::CheckIn {
            only_keeps: *only_keeps,
            declined: declined.iter().map(|task| task.0.to_vec()).collect(),
        }),
        Request::Fetch { digest, offset } => {
            Kind::Fetch(wire::Fetch { digest: digest.0.to_vec(), offset: *offset })
        }
        Request::Join { task, version, class, log_seen } => Kind::Join(wire::Join {
            task: task.0.to_vec(),
            version: *version,
            class: class.map(|class| wire::Class { rank: class.rank, layers: class.layers }),
            log_seen: *log_seen,
        }),
        Request::Decline { task, reason } => {
            Kind::Decline(wire::Decline { task: task.0.to_vec(), reason: decline_to_wire(*reason).into() })
        }
        Request::Advertise { session, advertisement } => Kind::Advertise(wire::Advertise {
            session: session.0.to_vec(),
            advertisement: Some(advertisement_to_wire(advertisement)),
        }),
        Request::Draw { session, nonce } => {
            Kind::Draw(wire::Draw { session: session.0.to_vec(), nonce: nonce.to_vec() })
        }
        Request::ShareKeys { session, shares } => Kind::ShareKeys(wire::ShareKeys {
            session: session.0.to_vec(),
            shares: shares.iter().map(sealed_to_wire).collect(),
        }),
        Request::MaskedChunk { session, offset, packed } => Kind::MaskedChunk(wire::MaskedChunk {
            session: session.0.to_vec(),
            offset: *offset,
            packed: packed.clone(),
        }),
        Request::MaskedDone { session, digest, sharing } => Kind::MaskedDone(wire::MaskedDone {
            session: session.0.to_vec(),
            digest: digest.0.to_vec(),
            sharing: sharing.0.to_vec(),
        }),
        Request::Agree { session, signature } => {
            Kind::Agree(wire::Agree { session: session.0.to_vec(), signature: signature.0.to_vec() })
        }
        Request::Unmask { session, shares } => Kind::Unmask(wire::Unmask {
            session: session.0.to_vec(),
            from: shares.from.into(),
            self_mask: shares_to_wire(&shares.self_mask),
            key: shares_to_wire(&shares.key),
        }),
    };
    wire::Request { kind: Some(kind) }
}

/// Decodes a request.
pub fn request_from_wire(message: wire::Request) -> Result<Request, WireError> {
    Ok(match present("request", message.kind)? {
        Kind::CheckIn(wire::CheckIn { only_keeps, declined }) => {
            let declined = at_most_latest("check-in", &declined)?;
            let task = |bytes: &Vec<u8>| Ok(TaskId(fixed("check-in", bytes)?));
            let declined = declined.iter().map(task).collect::<Result<_, WireError>>()?;
            Request::CheckIn(CheckIn { only_keeps, declined })
        }
        Kind::Fetch(fetch) => {
            Request::Fetch { digest: digest("fetch", &fetch.digest)?, offset: fetch.offset }
        }
        Kind::Join(join) => Request::Join {
            task: TaskId(fixed("join", &join.task)?),
            version: join.version,
            class: join.class.map(|class| Class { rank: class.rank, layers: class.layers }),
            log_seen: join.log_seen,
        },
        Kind::Decline(decline) => Request::Decline {
            task: TaskId(fixed("decline", &decline.task)?),
            reason: decline_from_wire(decline.reason)?,
        },
        Kind::Advertise(advertise) => {
            let advertisement = present("advertisement", advertise.advertisement.as_ref())?;
            Request::Advertise {
                session: session(&advertise.session)?,
                advertisement: Box::new(advertisement_from_wire(advertisement)?),
            }
        }
        Kind::Draw(draw) => {
            Request::Draw { session: session(&draw.session)?, nonce: fixed("draw", &draw.nonce)? }
        }
        Kind::ShareKeys(share) => Request::ShareKeys {
            session: session(&share.session)?,
            shares: share.shares.into_iter().map(sealed_from_wire).collect::<Result<_, _>>()?,
        },
        Kind::MaskedChunk(chunk) => Request::MaskedChunk {
            session: session(&chunk.session)?,
            offset: chunk.offset,
            packed: chunk.packed,
        },
        Kind::MaskedDone(done) => Request::MaskedDone {
            session: session(&done.session)?,
            digest: digest("masked done", &done.digest)?,
            sharing: signature("masked done", &done.sharing)?,
        },
        Kind::Agree(agree) => Request::Agree {
            session: session(&agree.session)?,
            signature: signature("agree", &agree.signature)?,
        },
        Kind::Unmask(unmask) => {
            Request::Unmask { session: session(&unmask.session)?, shares: unmask_from_wire(&unmask)? }
        }
    })
}

pub(super) fn decline_to_wire(reason: DeclineReason) -> wire::DeclineReason {
    match reason {
        DeclineReason::Plan => wire::DeclineReason::Plan,
        DeclineReason::NotAllowed => wire::DeclineReason::NotAllowed,
        DeclineReason::Base => wire::DeclineReason::Base,
        DeclineReason::Cohort => wire::DeclineReason::Cohort,
        DeclineReason::Noise => wire::DeclineReason::Noise,
        DeclineReason::Epsilon => wire::DeclineReason::Epsilon,
        DeclineReason::Participations => wire::DeclineReason::Participations,
        DeclineReason::Size => wire::DeclineReason::Size,
        DeclineReason::Memory => wire::DeclineReason::Memory,
        DeclineReason::Work => wire::DeclineReason::Work,
    }
}

pub(super) fn decline_from_wire(reason: i32) -> Result<DeclineReason, WireError> {
    Ok(match wire::DeclineReason::try_from(reason) {
        Ok(wire::DeclineReason::Plan) => DeclineReason::Plan,
        Ok(wire::DeclineReason::NotAllowed) => DeclineReason::NotAllowed,
        Ok(wire::DeclineReason::Base) => DeclineReason::Base,
        Ok(wire::DeclineReason::Cohort) => DeclineReason::Cohort,
        Ok(wire::DeclineReason::Noise) => DeclineReason::Noise,
        Ok(wire::DeclineReason::Epsilon) => DeclineReason::Epsilon,
        Ok(wire::DeclineReason::Participations) => DeclineReason::Participations,
        Ok(wire::DeclineReason::Size) => DeclineReason::Size,
        Ok(wire::DeclineReason::Memory) => DeclineReason::Memory,
        Ok(wire::DeclineReason::Work) => DeclineReason::Work,
        Ok(wire::DeclineReason::Unspecified) | Err(_) => {
            return Err(error("decline", format!("{reason} is not a reason")));
        }
    })
}

fn session(bytes: &[u8]) -> Result<SessionId, WireError> {
    fixed("session", bytes).map(SessionId)
}
