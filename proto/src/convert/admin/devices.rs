//! Devices and their tokens, on the operator's wire.

use super::super::request::{decline_from_wire, decline_to_wire};
use super::super::{WireError, digest, error, fixed, present};
use super::{mode_from_wire, mode_to_wire};
use crate::admin::{Attested, DeviceDetail, DeviceQuery, DeviceState, DeviceStatus, DeviceTask, TokenStatus};
use crate::ids::{DeviceId, TaskId, TokenId};
use crate::wire;

pub(super) fn query_to_wire(query: DeviceQuery) -> wire::ListDevices {
    let DeviceQuery { after, limit, label, state, not_seen_since_unix_secs } = query;
    let state = match state {
        None => wire::DeviceState::Unspecified,
        Some(DeviceState::Enrolled) => wire::DeviceState::Enrolled,
        Some(DeviceState::Revoked) => wire::DeviceState::Revoked,
        Some(DeviceState::Expired) => wire::DeviceState::Expired,
    };
    wire::ListDevices {
        after: after.map_or_else(Vec::new, |device| device.0.to_vec()),
        limit,
        label,
        state: state.into(),
        not_seen_since_unix_secs,
    }
}

pub(super) fn query_from_wire(message: wire::ListDevices) -> Result<DeviceQuery, WireError> {
    let state = match wire::DeviceState::try_from(message.state) {
        Ok(wire::DeviceState::Unspecified) => None,
        Ok(wire::DeviceState::Enrolled) => Some(DeviceState::Enrolled),
        Ok(wire::DeviceState::Revoked) => Some(DeviceState::Revoked),
        Ok(wire::DeviceState::Expired) => Some(DeviceState::Expired),
        Err(_) => return Err(error("list devices", format!("{} is not a state", message.state))),
    };
    let after =
        if message.after.is_empty() { None } else { Some(DeviceId(fixed("device", &message.after)?)) };
    Ok(DeviceQuery {
        after,
        limit: message.limit,
        label: message.label,
        state,
        not_seen_since_unix_secs: message.not_seen_since_unix_secs,
    })
}

pub(super) fn device_to_wire(device: DeviceStatus) -> wire::DeviceStatus {
    wire::DeviceStatus {
        device: device.device.0.to_vec(),
        label: device.label,
        enrolled_unix_millis: device.enrolled_unix_millis,
        revoked: device.revoked,
        expires_unix_secs: device.expires_unix_secs,
        last_seen_unix_secs: device.last_seen_unix_secs,
        client: device.client,
        participations: device.participations,
    }
}

pub(super) fn device_from_wire(message: wire::DeviceStatus) -> Result<DeviceStatus, WireError> {
    Ok(DeviceStatus {
        device: DeviceId(fixed("device", &message.device)?),
        label: message.label,
        enrolled_unix_millis: message.enrolled_unix_millis,
        expires_unix_secs: message.expires_unix_secs,
        revoked: message.revoked,
        last_seen_unix_secs: message.last_seen_unix_secs,
        client: message.client,
        participations: message.participations,
    })
}

pub(super) fn detail_to_wire(detail: DeviceDetail) -> wire::DeviceDetail {
    let task = |task: DeviceTask| wire::DeviceTask {
        task: task.task.0.to_vec(),
        name: task.name,
        participations: task.participations,
        participations_allowed: task.participations_allowed,
        epsilon: task.epsilon,
        delta: task.delta,
        mode: mode_to_wire(task.mode).into(),
        declined: task.declined.map(|reason| decline_to_wire(reason).into()),
        excluded: task.excluded,
    };
    wire::DeviceDetail {
        status: Some(device_to_wire(detail.status)),
        tasks: detail.tasks.into_iter().map(task).collect(),
        attested: detail.attested.map(|attested| wire::Attested {
            kind: attested.kind,
            policy: attested.policy.0.to_vec(),
            at_unix_secs: attested.at_unix_secs,
            is_current: attested.is_current,
        }),
    }
}

pub(super) fn detail_from_wire(message: wire::DeviceDetail) -> Result<DeviceDetail, WireError> {
    let task = |task: wire::DeviceTask| {
        Ok(DeviceTask {
            task: TaskId(fixed("task", &task.task)?),
            name: task.name,
            participations: task.participations,
            participations_allowed: task.participations_allowed,
            epsilon: task.epsilon,
            delta: task.delta,
            mode: mode_from_wire(task.mode)?,
            declined: task.declined.map(decline_from_wire).transpose()?,
            excluded: task.excluded,
        })
    };
    Ok(DeviceDetail {
        status: device_from_wire(present("device", message.status)?)?,
        tasks: message.tasks.into_iter().map(task).collect::<Result<_, WireError>>()?,
        attested: message.attested.map(attested_from_wire).transpose()?,
    })
}

fn attested_from_wire(message: wire::Attested) -> Result<Attested, WireError> {
    Ok(Attested {
        kind: message.kind,
        policy: digest("policy", &message.policy)?,
        at_unix_secs: message.at_unix_secs,
        is_current: message.is_current,
    })
}

pub(in crate::convert) fn token_to_wire(token: TokenStatus) -> wire::TokenStatus {
    wire::TokenStatus {
        token: token.token.0.to_vec(),
        label: token.label,
        issued_unix_secs: token.issued_unix_secs,
        expires_unix_secs: token.expires_unix_secs,
        redeemed_unix_secs: token.redeemed_unix_secs,
        revoked_unix_secs: token.revoked_unix_secs,
    }
}

pub(in crate::convert) fn token_from_wire(message: wire::TokenStatus) -> Result<TokenStatus, WireError> {
    Ok(TokenStatus {
        token: TokenId(fixed("token", &message.token)?),
        label: message.label,
        issued_unix_secs: message.issued_unix_secs,
        expires_unix_secs: message.expires_unix_secs,
        redeemed_unix_secs: message.redeemed_unix_secs,
        revoked_unix_secs: message.revoked_unix_secs,
    })
}
