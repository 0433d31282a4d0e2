//! What becomes of a request to enroll or to renew: decided from what is known, without any IO.
//!
//! Nobody is enrolled but by a token that was not used, revoked or over, and by both keys' signatures over all of the
//! request. A device that comes again is the one that it was; one that was revoked comes no more. Whoever repeats the request
//! by which they enrolled, because the answer was lost, is given that answer once more and no other.

use aggregation::IdentityPublic;
use proto::convert::{Enrollment, Renewal};
use proto::ids::{DeviceId, Digest, TokenId};
use proto::message::Rejection;
use serde::{Deserialize, Serialize};

/// What a refusal is of that says that there is no such device, or that whoever asks is not it.
pub const NO_DEVICE: &str = "device";

const DAY_SECS: u64 = 24 * 3600;

/// What is kept of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whom the operator gave it to.
    pub label: String,
    /// When it was made.
    pub issued_unix_secs: u64,
    /// From when on it is worth nothing.
    pub expires_unix_secs: u64,
    /// When it was used; `None` while it may be.
    pub redeemed_unix_secs: Option<u64>,
    /// When an operator made it worthless; not written where none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_unix_secs: Option<u64>,
    /// The identity key that enrolled with it; not written where none did, and not known of earlier ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redeemed_by: Option<Digest>,
}

/// How a token is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// For the first time.
    First,
    /// By the key that enrolled with it before: the answer was lost.
    Again,
}

/// Why a token is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// There is no such token.
    #[error("unknown bootstrap token")]
    Unknown,
    /// The token's time is over.
    #[error("the bootstrap token expired at {expires_unix_secs}")]
    Expired {
        /// Its last second.
        expires_unix_secs: u64,
    },
    /// The token was used before.
    #[error("the bootstrap token was used before")]
    Redeemed,
    /// An operator made the token worthless.
    #[error("the bootstrap token was revoked; ask the operator for another one")]
    Revoked,
}

impl Token {
    /// The token of one who may enroll from now on.
    pub fn new(label: &str, issued_unix_secs: u64, expires_unix_secs: u64) -> Self {
        let label = label.to_owned();
        let (redeemed_unix_secs, revoked_unix_secs, redeemed_by) = (None, None, None);
        Self {
            label,
            issued_unix_secs,
            expires_unix_secs,
            redeemed_unix_secs,
            revoked_unix_secs,
            redeemed_by,
        }
    }

    /// What the token is worth now to whoever has this identity key.
    pub fn worth(&self, identity: IdentityPublic, now_unix_secs: u64) -> Result<Use, TokenRefusal> {
        if self.revoked_unix_secs.is_some() {
            return Err(TokenRefusal::Revoked);
        }
        let used = match self.redeemed_unix_secs {
            None => Use::First,
            Some(_) if self.redeemed_by == Some(Digest(identity.0)) => Use::Again,
            Some(_) => return Err(TokenRefusal::Redeemed),
        };
        if now_unix_secs < self.expires_unix_secs {
            return Ok(used);
        }
        Err(match used {
            Use::First => TokenRefusal::Expired { expires_unix_secs: self.expires_unix_secs },
            Use::Again => TokenRefusal::Redeemed,
        })
    }

    /// The same token, used.
    #[must_use]
    pub fn redeemed(&self, identity: IdentityPublic, now_unix_secs: u64) -> Self {
        let (redeemed_unix_secs, redeemed_by) = (Some(now_unix_secs), Some(Digest(identity.0)));
        Self { redeemed_unix_secs, redeemed_by, ..self.clone() }
    }

    /// How it stands, for operators.
    pub fn status(&self, token: TokenId) -> proto::admin::TokenStatus {
        proto::admin::TokenStatus {
            token,
            label: self.label.clone(),
            issued_unix_secs: self.issued_unix_secs,
            expires_unix_secs: self.expires_unix_secs,
            redeemed_unix_secs: self.redeemed_unix_secs,
            revoked_unix_secs: self.revoked_unix_secs,
        }
    }
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The label of its token.
    pub label: String,
    /// Its identity key.
    pub identity: Digest,
    /// When it enrolled first.
    pub enrolled_unix_secs: u64,
    /// What was stated of it last.
    pub stated: Statement,
    /// By what its machine was admitted; not written where nothing was asked of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attested: Option<Attested>,
    /// When it was revoked; not written where it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_unix_secs: Option<u64>,
}

/// What was stated of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// When.
    pub issued_unix_secs: u64,
    /// The first second at which it no longer holds.
    pub expires_unix_secs: u64,
    /// Where it stands in the log.
    pub place: u64,
    /// The authority's signature, hexadecimal.
    pub signature: String,
}

/// By what a device's machine was admitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// The digest of the policy.
    pub policy: Digest,
    /// What was asked, as it stands in the configuration.
    pub kind: String,
    /// When it was looked at.
    pub at_unix_secs: u64,
}

/// What the authority grants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long a statement holds, in seconds.
    pub credential_secs: u64,
    /// How long after its end it may still be renewed, in seconds.
    pub renewal_grace_secs: u64,
    /// How many devices may be new on one day of UTC.
    pub most_enrolled_a_day: u32,
}

/// What is known when somebody asks to enroll.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// The token that is shown.
    pub token: Option<&'a Token>,
    /// The device that enrolled with the identity key before.
    pub device: Option<(DeviceId, &'a Device)>,
    /// How many devices were new today.
    pub enrolled_today: u32,
}

/// Who enrolls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enrolling {
    /// One that never was.
    New,
    /// One that was, with another token.
    Again(DeviceId),
    /// One that repeats what it asked: it is answered as before, and nothing changes.
    Repeats(DeviceId),
}

/// What becomes of a renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewing {
    /// The same is stated for longer.
    States,
    /// It is early, or a repetition: what was stated last is answered once more, and nothing is written.
    Repeats,
}

/// Why a request comes to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The identity key is none.
    #[error("{0}")]
    Identity(String),
    /// The identity key did not sign it.
    #[error("the identity key did not sign this request")]
    Unproved,
    /// The token's key did not sign it.
    #[error("the token's key did not sign this request")]
    NotByToken,
    /// The device was revoked.
    #[error("this device was revoked; a token is for another one, with keys of its own in an empty folder")]
    Revoked,
    /// The token.
    #[error(transparent)]
    Token(#[from] TokenRefusal),
    /// As many devices as may be new on a day are.
    #[error(
        "the enrollment authority takes {0} new devices a day, and has today (UTC); the token stays good: enroll again tomorrow"
    )]
    DayIsFull(u32),
    /// There is no such device, or whoever asks is not it.
    #[error("no such device, or it was revoked")]
    NotEnrolled,
    /// What was stated of the device ended too long ago.
    #[error(
        "its credential ended {days} days ago, longer than the enrollment authority renews one after its end; it enrolls \
         again with a new token"
    )]
    EndedLongAgo {
        /// So many days ago.
        days: u64,
    },
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        let why = refusal.to_string();
        match refusal {
            Refusal::Identity(_) | Refusal::Unproved | Refusal::NotByToken | Refusal::Revoked => {
                Self::Unacceptable { request: "enroll".into(), why }
            }
            Refusal::Token(_) => Self::Unacceptable { request: "token".into(), why },
            // `NotEnrolled` would say that the caller is none who may call.
            Refusal::NotEnrolled => Self::Unacceptable { request: NO_DEVICE.into(), why },
            Refusal::EndedLongAgo { .. } => Self::Unacceptable { request: "renew".into(), why },
            Refusal::DayIsFull(_) => Self::Unavailable(why),
        }
    }
}

/// Fails where the request is not signed by both of its keys.
pub fn proved(asked: &Enrollment) -> Result<(), Refusal> {
    asked.identity.check().map_err(|error| Refusal::Identity(error.to_string()))?;
    if !asked.is_proved() {
        return Err(Refusal::Unproved);
    }
    if !asked.is_by_token() {
        return Err(Refusal::NotByToken);
    }
    Ok(())
}

/// Who enrolls by this request, if anybody does.
pub fn enroll(
    terms: &Terms,
    known: Known<'_>,
    asked: &Enrollment,
    now_unix_secs: u64,
) -> Result<Enrolling, Refusal> {
    proved(asked)?;
    if known.device.is_some_and(|(_, device)| device.revoked_unix_secs.is_some()) {
        return Err(Refusal::Revoked);
    }
    let token = known.token.ok_or(TokenRefusal::Unknown)?;
    match (token.worth(asked.identity, now_unix_secs)?, known.device) {
        (Use::Again, Some((id, device))) if now_unix_secs < device.stated.expires_unix_secs => {
            Ok(Enrolling::Repeats(id))
        }
        (Use::Again, Some(_) | None) => Err(TokenRefusal::Redeemed.into()),
        (Use::First, Some((id, _))) => Ok(Enrolling::Again(id)),
        (Use::First, None) if known.enrolled_today >= terms.most_enrolled_a_day => {
            Err(Refusal::DayIsFull(terms.most_enrolled_a_day))
        }
        (Use::First, None) => Ok(Enrolling::New),
    }
}

/// Whether a device is stated again. Whoever does not hold its identity key learns nothing.
///
/// A device renews when a half of its time is over. Within the first third it is answered what it was: each statement is a
/// write and an entry that stays, and whoever saw a renewal can send it again.
pub fn renew(
    terms: &Terms,
    device: Option<&Device>,
    asked: &Renewal,
    now_unix_secs: u64,
) -> Result<Renewing, Refusal> {
    let device = device.filter(|device| device.revoked_unix_secs.is_none()).ok_or(Refusal::NotEnrolled)?;
    if !asked.is_proved_by(&IdentityPublic(device.identity.0)) {
        return Err(Refusal::NotEnrolled);
    }
    let Statement { issued_unix_secs, expires_unix_secs, .. } = device.stated;
    if now_unix_secs > expires_unix_secs.saturating_add(terms.renewal_grace_secs) {
        let days = now_unix_secs.saturating_sub(expires_unix_secs) / DAY_SECS;
        return Err(Refusal::EndedLongAgo { days });
    }
    // A statement that is still to come was by a clock that has been mended.
    let since = now_unix_secs.checked_sub(issued_unix_secs);
    let third = expires_unix_secs.saturating_sub(issued_unix_secs) / 3;
    Ok(if since.is_some_and(|secs| secs < third) { Renewing::Repeats } else { Renewing::States })
}

/// The day of UTC, by which new devices are counted.
pub fn day(now_unix_secs: u64) -> u64 {
    now_unix_secs / DAY_SECS
}

#[cfg(test)]
mod tests;
