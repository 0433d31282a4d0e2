//! How a coordinator is, and the log of whoever was enrolled.

use super::super::{WireError, fixed};
use crate::admin::{AuthorityStatus, Health, LogStatus, ServedBase, TurnedAwayCount, WitnessStatus};
use crate::ids::Digest;
use crate::wire;

pub(super) fn health_to_wire(health: Health) -> wire::Health {
    let count = |count: TurnedAwayCount| wire::TurnedAwayCount {
        listener: count.listener,
        why: count.why,
        times: count.times,
    };
    let base = |base: ServedBase| wire::ServedBase {
        name: base.name,
        digest: base.digest.0.to_vec(),
        bytes: base.bytes,
    };
    wire::Health {
        trouble: health.trouble,
        trouble_secs: health.trouble_secs,
        turned_away: health.turned_away.into_iter().map(count).collect(),
        server_expires_unix_secs: health.server_expires_unix_secs,
        authority_expires_unix_secs: health.authority_expires_unix_secs,
        bases: health.bases.into_iter().map(base).collect(),
        bases_to_read: health.bases_to_read,
        now_unix_millis: health.now_unix_millis,
        stopping: health.stopping,
        log: health.log.map(log_status_to_wire),
        authority: health.authority.map(|authority| wire::AuthorityStatus {
            address: authority.address,
            answers: authority.answers,
            since_unix_secs: authority.since_unix_secs,
            why: authority.why,
            certificate_expires_unix_secs: authority.certificate_expires_unix_secs,
            log_refused: authority.log_refused,
        }),
        issuer_expires_unix_secs: health.issuer_expires_unix_secs,
    }
}

pub(super) fn health_from_wire(message: wire::Health) -> Result<Health, WireError> {
    let count = |count: wire::TurnedAwayCount| TurnedAwayCount {
        listener: count.listener,
        why: count.why,
        times: count.times,
    };
    let base = |base: wire::ServedBase| {
        let digest = Digest(fixed("base", &base.digest)?);
        Ok(ServedBase { name: base.name, digest, bytes: base.bytes })
    };
    Ok(Health {
        trouble: message.trouble,
        trouble_secs: message.trouble_secs,
        turned_away: message.turned_away.into_iter().map(count).collect(),
        server_expires_unix_secs: message.server_expires_unix_secs,
        authority_expires_unix_secs: message.authority_expires_unix_secs,
        bases: message.bases.into_iter().map(base).collect::<Result<_, WireError>>()?,
        bases_to_read: message.bases_to_read,
        now_unix_millis: message.now_unix_millis,
        stopping: message.stopping,
        log: message.log.map(log_status_from_wire),
        authority: message.authority.map(|authority| AuthorityStatus {
            address: authority.address,
            answers: authority.answers,
            since_unix_secs: authority.since_unix_secs,
            why: authority.why,
            certificate_expires_unix_secs: authority.certificate_expires_unix_secs,
            log_refused: authority.log_refused,
        }),
        issuer_expires_unix_secs: message.issuer_expires_unix_secs,
    })
}

/// Encodes how a log is.
pub(in crate::convert) fn log_status_to_wire(log: LogStatus) -> wire::LogStatus {
    let witness = |witness: WitnessStatus| wire::WitnessStatus {
        name: witness.name,
        signed_size: witness.signed_size,
        signed_unix_secs: witness.signed_unix_secs,
        trouble: witness.trouble,
        trouble_since_unix_secs: witness.trouble_since_unix_secs,
        saw_other_log: witness.saw_other_log,
    };
    wire::LogStatus {
        key: log.key,
        size: log.size,
        head_unix_secs: log.head_unix_secs,
        rounds_size: log.rounds_size,
        rounds_unix_secs: log.rounds_unix_secs,
        waiting_versions: log.waiting_versions,
        least_witnesses: log.least_witnesses,
        witnesses: log.witnesses.into_iter().map(witness).collect(),
        devices: log.devices,
        young_devices: log.young_devices,
        rounds_witnesses: log.rounds_witnesses,
    }
}

/// Decodes how a log is.
pub(in crate::convert) fn log_status_from_wire(log: wire::LogStatus) -> LogStatus {
    let witness = |witness: wire::WitnessStatus| WitnessStatus {
        name: witness.name,
        signed_size: witness.signed_size,
        signed_unix_secs: witness.signed_unix_secs,
        trouble: witness.trouble,
        trouble_since_unix_secs: witness.trouble_since_unix_secs,
        saw_other_log: witness.saw_other_log,
    };
    LogStatus {
        key: log.key,
        size: log.size,
        head_unix_secs: log.head_unix_secs,
        rounds_size: log.rounds_size,
        rounds_unix_secs: log.rounds_unix_secs,
        waiting_versions: log.waiting_versions,
        least_witnesses: log.least_witnesses,
        witnesses: log.witnesses.into_iter().map(witness).collect(),
        devices: log.devices,
        young_devices: log.young_devices,
        rounds_witnesses: log.rounds_witnesses,
    }
}
