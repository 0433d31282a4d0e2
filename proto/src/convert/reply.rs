//! Replies to a device.

use aggregation::{Evidence, MAX_COHORT, Signature};

use super::{
    WireError, advertisement_from_wire, advertisement_to_wire, at_most_latest, chunk_from_wire,
    chunk_to_wire, digest, digest_if_any, error, fixed, places_from_wire, places_to_wire, present,
    published_from_wire, published_to_wire, sealed_from_wire, sealed_to_wire,
};
use crate::ids::SessionId;
use crate::message::{Assignment, Before, Charged, LogOffer, Outcome, Reply, Window};
use crate::wire::{self, OutcomeKind, reply::Kind};

/// Encodes a reply.
pub fn reply_to_wire(reply: Reply) -> wire::Reply {
    let kind = match reply {
        Reply::Wait { retry: Window { least_millis, most_millis }, latest, complete } => {
            let latest = latest.iter().map(published_to_wire).collect();
            let retry_most_millis = if most_millis > least_millis { most_millis } else { 0 };
            Kind::Wait(wire::Wait { retry_millis: least_millis, latest, complete, retry_most_millis })
        }
        Reply::Assignment(Assignment { published, before, charges }) => Kind::Assignment(wire::Assignment {
            published: Some(published_to_wire(&published)),
            before: before.map(|before| wire::Before {
                version: before.version,
                adapter: before.adapter.0.to_vec(),
                folded: before.folded.map_or_else(Vec::new, |digest| digest.0.to_vec()),
            }),
            charges: charges.iter().map(charged_to_wire).collect(),
        }),
        Reply::Chunk(chunk) => Kind::Chunk(chunk_to_wire(chunk)),
        Reply::Offer { session, round, log } => Kind::Offer(offer_to_wire(session, round, log)),
        Reply::Roster { entries, listed } => Kind::Roster(wire::RosterReply {
            advertisements: entries.iter().map(advertisement_to_wire).collect(),
            log_inclusions: listed.as_flattened().to_vec(),
        }),
        Reply::Drawn(nonces) => Kind::Drawn(wire::Drawn { nonces: nonces.as_flattened().to_vec() }),
        Reply::Inbox { sharers, shares } => Kind::Inbox(wire::Inbox {
            sharers: Some(places_to_wire(&sharers)),
            shares: shares.iter().map(sealed_to_wire).collect(),
        }),
        Reply::Received => Kind::Received(wire::Received {}),
        Reply::Survivors(survivors) => {
            Kind::Survivors(wire::Survivors { survivors: Some(places_to_wire(&survivors)) })
        }
        Reply::Evidence(Evidence { agreed, signatures }) => Kind::Evidence(wire::Evidence {
            agreed: Some(places_to_wire(&agreed)),
            signatures: signatures.iter().flat_map(|signature| signature.0).collect(),
        }),
        Reply::Over(outcome) => Kind::Over(wire::Over { outcome: outcome_to_wire(outcome).into() }),
    };
    wire::Reply { kind: Some(kind) }
}

/// Decodes a reply.
pub fn reply_from_wire(message: wire::Reply) -> Result<Reply, WireError> {
    Ok(match present("reply", message.kind)? {
        Kind::Wait(wait) => Reply::Wait {
            retry: Window {
                least_millis: wait.retry_millis,
                most_millis: wait.retry_most_millis.max(wait.retry_millis),
            },
            latest: at_most_latest("wait", &wait.latest)?
                .iter()
                .map(published_from_wire)
                .collect::<Result<_, _>>()?,
            complete: wait.complete,
        },
        Kind::Assignment(assignment) => {
            let published = present("assignment", assignment.published.as_ref())?;
            let published = published_from_wire(published)?;
            let before = assignment.before.as_ref().map(before_from_wire).transpose()?;
            let charges = at_most_latest("assignment", &assignment.charges)?;
            let charges = charges.iter().map(charged_from_wire).collect::<Result<_, _>>()?;
            Reply::Assignment(Assignment { published, before, charges })
        }
        Kind::Chunk(chunk) => Reply::Chunk(chunk_from_wire(chunk)?),
        Kind::Offer(offer) => Reply::Offer {
            session: SessionId(fixed("offer", &offer.session)?),
            round: offer.round,
            log: log_from_wire(offer.log_head, &offer.log_consistency)?,
        },
        Kind::Roster(roster) => Reply::Roster {
            entries: roster.advertisements.iter().map(advertisement_from_wire).collect::<Result<_, _>>()?,
            listed: each("roster", MOST_NODES, &roster.log_inclusions)?,
        },
        Kind::Drawn(drawn) => Reply::Drawn(each("drawn", MAX_COHORT, &drawn.nonces)?),
        Kind::Inbox(inbox) => Reply::Inbox {
            sharers: places_from_wire("sharers", inbox.sharers)?,
            shares: inbox.shares.into_iter().map(sealed_from_wire).collect::<Result<_, _>>()?,
        },
        Kind::Received(wire::Received {}) => Reply::Received,
        Kind::Survivors(message) => Reply::Survivors(places_from_wire("survivors", message.survivors)?),
        Kind::Evidence(evidence) => Reply::Evidence(Evidence {
            agreed: places_from_wire("evidence", evidence.agreed)?,
            signatures: each("evidence", MAX_COHORT, &evidence.signatures)?
                .into_iter()
                .map(Signature)
                .collect(),
        }),
        Kind::Over(over) => Reply::Over(outcome_from_wire(over.outcome)?),
    })
}

fn offer_to_wire(session: SessionId, round: u64, log: Option<LogOffer>) -> wire::Offer {
    let (log_head, log_consistency) = match log {
        Some(LogOffer { head, consistency }) => (head, consistency.as_flattened().to_vec()),
        None => (String::new(), Vec::new()),
    };
    wire::Offer { session: session.0.to_vec(), round, log_head, log_consistency }
}

fn log_from_wire(head: String, consistency: &[u8]) -> Result<Option<LogOffer>, WireError> {
    let consistency = each("offer", MAX_COHORT, consistency)?;
    match (head.is_empty(), consistency.is_empty()) {
        (true, true) => Ok(None),
        (true, false) => Err(error("offer", "it shows how a log goes on that it does not name")),
        (false, _) => Ok(Some(LogOffer { head, consistency })),
    }
}

fn charged_to_wire(charged: &Charged) -> wire::Charged {
    wire::Charged { published: Some(published_to_wire(&charged.published)), rounds: charged.rounds }
}

fn charged_from_wire(message: &wire::Charged) -> Result<Charged, WireError> {
    let published = published_from_wire(present("charged", message.published.as_ref())?)?;
    Ok(Charged { published, rounds: message.rounds })
}

fn before_from_wire(message: &wire::Before) -> Result<Before, WireError> {
    const WHAT: &str = "version before";
    Ok(Before {
        version: message.version,
        adapter: digest(WHAT, &message.adapter)?,
        folded: digest_if_any(WHAT, &message.folded)?,
    })
}

/// The most nodes of the log's tree that show a roster to be in it: those on the paths of all its places, in a log of 2⁴⁰
/// leaves.
const MOST_NODES: usize = 40 * MAX_COHORT;

/// So many bytes for each of at most so many.
fn each<const LEN: usize>(
    what: &'static str,
    most: usize,
    bytes: &[u8],
) -> Result<Vec<[u8; LEN]>, WireError> {
    let (whole, rest) = bytes.as_chunks::<LEN>();
    if !rest.is_empty() || whole.len() > most {
        return Err(error(what, format!("{} bytes are not up to {most} times {LEN}", bytes.len())));
    }
    Ok(whole.to_vec())
}

fn outcome_to_wire(outcome: Outcome) -> OutcomeKind {
    match outcome {
        Outcome::Published => OutcomeKind::Published,
        Outcome::TooFewJoined => OutcomeKind::TooFewJoined,
        Outcome::NotDrawn => OutcomeKind::NotDrawn,
        Outcome::TooFewShared => OutcomeKind::TooFewShared,
        Outcome::TooFewSurvivors => OutcomeKind::TooFewSurvivors,
        Outcome::NoQuorum => OutcomeKind::NoQuorum,
        Outcome::NotRecovered => OutcomeKind::NotRecovered,
        Outcome::Stopped => OutcomeKind::Stopped,
    }
}

fn outcome_from_wire(kind: i32) -> Result<Outcome, WireError> {
    match OutcomeKind::try_from(kind) {
        Ok(OutcomeKind::Published) => Ok(Outcome::Published),
        Ok(OutcomeKind::TooFewJoined) => Ok(Outcome::TooFewJoined),
        Ok(OutcomeKind::NotDrawn) => Ok(Outcome::NotDrawn),
        Ok(OutcomeKind::TooFewShared) => Ok(Outcome::TooFewShared),
        Ok(OutcomeKind::TooFewSurvivors) => Ok(Outcome::TooFewSurvivors),
        Ok(OutcomeKind::NoQuorum) => Ok(Outcome::NoQuorum),
        Ok(OutcomeKind::NotRecovered) => Ok(Outcome::NotRecovered),
        Ok(OutcomeKind::Stopped) => Ok(Outcome::Stopped),
        Ok(OutcomeKind::Unspecified) | Err(_) => Err(error("outcome", format!("{kind} is not one"))),
    }
}
