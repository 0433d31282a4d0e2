//! How far devices came, on the operator's wire.

use super::super::WireError;
use super::super::request::{decline_from_wire, decline_to_wire};
use crate::admin::{Candidates, DeclineCount, Funnel};
use crate::wire;

pub(super) fn funnel_to_wire(funnel: Funnel) -> wire::Funnel {
    let Funnel { version, since_unix_millis, whole, offered, assigned, trained, .. } = funnel;
    let Funnel { joined, submitted, counted, missing, overflowed, last_offered_unix_millis, .. } = funnel;
    wire::Funnel {
        version,
        since_unix_millis,
        whole,
        offered,
        assigned,
        trained,
        joined,
        submitted,
        counted,
        missing,
        overflowed,
        last_offered_unix_millis,
    }
}

pub(super) fn funnel_from_wire(message: wire::Funnel) -> Funnel {
    Funnel {
        version: message.version,
        since_unix_millis: message.since_unix_millis,
        whole: message.whole,
        offered: message.offered,
        assigned: message.assigned,
        trained: message.trained,
        joined: message.joined,
        submitted: message.submitted,
        counted: message.counted,
        missing: message.missing,
        overflowed: message.overflowed,
        last_offered_unix_millis: message.last_offered_unix_millis,
    }
}

pub(super) fn candidates_to_wire(candidates: Candidates) -> wire::Candidates {
    let Candidates { enrolled, able, declined, last_call_unix_secs, trouble, least } = candidates;
    wire::Candidates { enrolled, able, declined, last_call_unix_secs, trouble, least }
}

pub(super) fn candidates_from_wire(message: wire::Candidates) -> Candidates {
    let wire::Candidates { enrolled, able, declined, last_call_unix_secs, trouble, least } = message;
    Candidates { enrolled, able, declined, last_call_unix_secs, trouble, least }
}

pub(super) fn count_to_wire(count: DeclineCount) -> wire::DeclineCount {
    let DeclineCount { reason, devices, first_unix_millis, last_unix_millis } = count;
    wire::DeclineCount {
        reason: decline_to_wire(reason).into(),
        devices,
        first_unix_millis,
        last_unix_millis,
    }
}

pub(super) fn count_from_wire(message: wire::DeclineCount) -> Result<DeclineCount, WireError> {
    let wire::DeclineCount { reason, devices, first_unix_millis, last_unix_millis } = message;
    Ok(DeclineCount { reason: decline_from_wire(reason)?, devices, first_unix_millis, last_unix_millis })
}
