//! Between the wire and the domain: foreign bytes become domain types here or are refused.
//!
//! One function pair for each message: `…_to_wire` cannot fail, `…_from_wire` checks every length, every
//! missing part and every name.

use aggregation::{
    Advertisement, Credential, IdentityPublic, IndexSet, Logged, SealedShare, Share, Signature, UnmaskShares,
};

use crate::ids::Digest;
use crate::message::{Chunk, MOST_LATEST, Published};
use crate::wire;

mod admin;
mod authority;
mod base;
mod enroll;
mod log;
mod rejection;
mod reply;
mod request;

pub use admin::{admin_reply_from_wire, admin_reply_to_wire, admin_request_from_wire, admin_request_to_wire};
pub use authority::{
    authority_reply_from_wire, authority_reply_to_wire, authority_request_from_wire,
    authority_request_to_wire,
};
pub use base::{base_files_from_wire, base_files_to_wire, describe_base_from_wire, describe_base_to_wire};
pub use enroll::{
    Enrolled, Enrollment, Renewal, enroll_reply_from_wire, enroll_reply_to_wire, enroll_request_from_wire,
    enroll_request_to_wire, renew_request_from_wire, renew_request_to_wire,
};
pub use log::{log_part_from_wire, log_part_to_wire};
pub use rejection::{rejection_from_bytes, rejection_to_bytes};
pub use reply::{reply_from_wire, reply_to_wire};
pub use request::{request_from_wire, request_to_wire};

/// A message that is not one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct WireError {
    /// Which part.
    pub what: &'static str,
    /// Why.
    pub why: String,
}

impl From<WireError> for crate::message::Rejection {
    fn from(error: WireError) -> Self {
        Self::Malformed { what: error.what.into(), why: error.why }
    }
}

fn error(what: &'static str, why: impl std::fmt::Display) -> WireError {
    WireError { what, why: why.to_string() }
}

fn present<T>(what: &'static str, value: Option<T>) -> Result<T, WireError> {
    value.ok_or_else(|| error(what, "it is missing"))
}

/// One for each task, of which neither side names more than [`MOST_LATEST`].
fn at_most_latest<'a, T>(what: &'static str, tasks: &'a [T]) -> Result<&'a [T], WireError> {
    if tasks.len() > MOST_LATEST {
        return Err(error(what, format!("{} tasks are more than {MOST_LATEST}", tasks.len())));
    }
    Ok(tasks)
}

fn fixed<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| error(what, format!("expected {N} bytes, found {}", bytes.len())))
}

fn place(what: &'static str, index: u32) -> Result<u16, WireError> {
    u16::try_from(index).map_err(|_| error(what, format!("{index} is not a place of a roster")))
}

fn digest(what: &'static str, bytes: &[u8]) -> Result<Digest, WireError> {
    fixed(what, bytes).map(Digest)
}

fn digest_if_any(what: &'static str, bytes: &[u8]) -> Result<Option<Digest>, WireError> {
    if bytes.is_empty() { Ok(None) } else { digest(what, bytes).map(Some) }
}

fn signature(what: &'static str, bytes: &[u8]) -> Result<Signature, WireError> {
    fixed(what, bytes).map(Signature)
}

fn credential_to_wire(credential: &Credential) -> wire::Credential {
    wire::Credential {
        device: credential.device.to_vec(),
        identity: credential.identity.0.to_vec(),
        expires_unix_secs: credential.expires_unix_secs,
        signature: credential.signature.0.to_vec(),
        logged: credential.logged.map(|Logged { place, enrolled_unix_secs, label, attested }| wire::Logged {
            place,
            enrolled_unix_secs,
            label: unless_zero(&label),
            attested: unless_zero(&attested),
        }),
    }
}

/// Nothing for zeros, which most are.
fn unless_zero(bytes: &[u8]) -> Vec<u8> {
    if bytes.iter().all(|byte| *byte == 0) { Vec::new() } else { bytes.to_vec() }
}

fn zero_if_none<const N: usize>(what: &'static str, bytes: &[u8]) -> Result<[u8; N], WireError> {
    if bytes.is_empty() { Ok([0; N]) } else { fixed(what, bytes) }
}

fn credential_from_wire(message: &wire::Credential) -> Result<Credential, WireError> {
    Ok(Credential {
        device: fixed("credential", &message.device)?,
        identity: IdentityPublic(fixed("credential", &message.identity)?),
        expires_unix_secs: message.expires_unix_secs,
        logged: message.logged.as_ref().map(logged_from_wire).transpose()?,
        signature: signature("credential", &message.signature)?,
    })
}

fn logged_from_wire(message: &wire::Logged) -> Result<Logged, WireError> {
    Ok(Logged {
        place: message.place,
        enrolled_unix_secs: message.enrolled_unix_secs,
        label: zero_if_none("credential", &message.label)?,
        attested: zero_if_none("credential", &message.attested)?,
    })
}

fn advertisement_to_wire(advertisement: &Advertisement) -> wire::Advertisement {
    wire::Advertisement {
        credential: Some(credential_to_wire(&advertisement.credential)),
        masking_key: advertisement.masking_key.to_vec(),
        sealing_key: advertisement.sealing_key.to_vec(),
        key_commitment: advertisement.key_commitment.to_vec(),
        self_commitment: advertisement.self_commitment.to_vec(),
        draw_commitment: advertisement.draw_commitment.to_vec(),
        signature: advertisement.signature.0.to_vec(),
    }
}

fn advertisement_from_wire(message: &wire::Advertisement) -> Result<Advertisement, WireError> {
    const WHAT: &str = "advertisement";
    Ok(Advertisement {
        credential: credential_from_wire(present(WHAT, message.credential.as_ref())?)?,
        masking_key: fixed(WHAT, &message.masking_key)?,
        sealing_key: fixed(WHAT, &message.sealing_key)?,
        key_commitment: fixed(WHAT, &message.key_commitment)?,
        self_commitment: fixed(WHAT, &message.self_commitment)?,
        draw_commitment: fixed(WHAT, &message.draw_commitment)?,
        signature: signature(WHAT, &message.signature)?,
    })
}

fn sealed_to_wire(share: &SealedShare) -> wire::SealedShare {
    wire::SealedShare { from: share.from.into(), to: share.to.into(), sealed: share.bytes.clone() }
}

fn sealed_from_wire(message: wire::SealedShare) -> Result<SealedShare, WireError> {
    const WHAT: &str = "sealed share";
    let expected = aggregation::SEALED_SHARE_BYTES;
    if message.sealed.len() != expected {
        return Err(error(WHAT, format!("expected {expected} bytes, found {}", message.sealed.len())));
    }
    Ok(SealedShare { from: place(WHAT, message.from)?, to: place(WHAT, message.to)?, bytes: message.sealed })
}

fn places_to_wire(set: &IndexSet) -> wire::Places {
    let roster = u32::try_from(set.places()).unwrap_or(u32::MAX);
    wire::Places { roster, bits: set.to_bytes() }
}

fn places_from_wire(what: &'static str, message: Option<wire::Places>) -> Result<IndexSet, WireError> {
    let message = present(what, message)?;
    let roster = usize::try_from(message.roster).unwrap_or(usize::MAX);
    if roster > aggregation::MAX_COHORT {
        return Err(error(what, format!("a roster has at most {} places", aggregation::MAX_COHORT)));
    }
    IndexSet::from_bytes(&message.bits, roster).map_err(|why| error(what, why))
}

fn shares_to_wire(shares: &[(u16, Share)]) -> Vec<wire::SeedShare> {
    shares
        .iter()
        .map(|(of, share)| wire::SeedShare { of: (*of).into(), share: share.to_bytes().to_vec() })
        .collect()
}

fn shares_from_wire(messages: &[wire::SeedShare]) -> Result<Vec<(u16, Share)>, WireError> {
    const WHAT: &str = "share";
    let share = |message: &wire::SeedShare| {
        let share = Share::from_bytes(&message.share).map_err(|why| error(WHAT, why))?;
        Ok((place(WHAT, message.of)?, share))
    };
    messages.iter().map(share).collect()
}

fn unmask_from_wire(message: &wire::Unmask) -> Result<UnmaskShares, WireError> {
    Ok(UnmaskShares {
        from: place("unmask shares", message.from)?,
        self_mask: shares_from_wire(&message.self_mask)?,
        key: shares_from_wire(&message.key)?,
    })
}

fn published_to_wire(published: &Published) -> wire::Published {
    wire::Published {
        task: published.task.0.to_vec(),
        version: published.version,
        plan: published.plan.0.to_vec(),
        adapter: published.adapter.0.to_vec(),
        folded: published.folded.map_or_else(Vec::new, |digest| digest.0.to_vec()),
        clip_norm: published.clip_norm,
    }
}

fn published_from_wire(message: &wire::Published) -> Result<Published, WireError> {
    const WHAT: &str = "version";
    Ok(Published {
        task: crate::ids::TaskId(fixed(WHAT, &message.task)?),
        version: message.version,
        plan: digest(WHAT, &message.plan)?,
        adapter: digest(WHAT, &message.adapter)?,
        folded: digest_if_any(WHAT, &message.folded)?,
        clip_norm: message.clip_norm,
    })
}

fn chunk_to_wire(chunk: Chunk) -> wire::Chunk {
    wire::Chunk { total_bytes: chunk.total_bytes, offset: chunk.offset, bytes: chunk.bytes }
}

fn chunk_from_wire(message: wire::Chunk) -> Result<Chunk, WireError> {
    let end = message.offset.checked_add(message.bytes.len() as u64);
    if end.is_none_or(|end| end > message.total_bytes) {
        return Err(error("chunk", "it reaches beyond the artefact's end"));
    }
    Ok(Chunk { total_bytes: message.total_bytes, offset: message.offset, bytes: message.bytes })
}
