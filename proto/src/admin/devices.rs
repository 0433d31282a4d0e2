//! Devices and their tokens, as operators see them.

use serde::{Deserialize, Serialize};

use crate::ids::{DeviceId, Digest, TaskId, TokenId};
use crate::message::DeclineReason;
use crate::plan::Mode;

/// Which devices are asked for, in the order of their ids. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceQuery {
    /// Those behind this one.
    pub after: Option<DeviceId>,
    /// So many at most; 0 for all.
    pub limit: u32,
    /// Those whose label has this in it.
    pub label: String,
    /// Those that stand so.
    pub state: Option<DeviceState>,
    /// Those that have not called since, or never.
    pub not_seen_since_unix_secs: Option<u64>,
}

/// Where a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceState {
    /// It may connect.
    Enrolled,
    /// It is shut out, for ever.
    Revoked,
    /// Its certificate has ended.
    Expired,
}

/// An enrolled device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// The device.
    pub device: DeviceId,
    /// The label of its token.
    pub label: String,
    /// When it enrolled.
    pub enrolled_unix_millis: u64,
    /// When its certificate and its credential end.
    pub expires_unix_secs: u64,
    /// Whether it is shut out.
    pub revoked: bool,
    /// When it called last; 0 where that is not known.
    pub last_seen_unix_secs: u64,
    /// The program by which it did, as that says of itself; empty where it does not.
    pub client: String,
    /// How often it was charged, over all tasks.
    pub participations: u32,
}

impl DeviceStatus {
    /// Where it stands at this time.
    pub fn state(&self, now_unix_secs: u64) -> DeviceState {
        if self.revoked {
            DeviceState::Revoked
        } else if self.expires_unix_secs > 0 && self.expires_unix_secs < now_unix_secs {
            DeviceState::Expired
        } else {
            DeviceState::Enrolled
        }
    }
}

impl DeviceQuery {
    /// Whether a device is among those that are asked for; the number of them is not looked at.
    pub fn wants(&self, device: &DeviceStatus, now_unix_secs: u64) -> bool {
        self.after.is_none_or(|after| device.device > after)
            && device.label.contains(&self.label)
            && self.state.is_none_or(|state| device.state(now_unix_secs) == state)
            && self.not_seen_since_unix_secs.is_none_or(|since| device.last_seen_unix_secs < since)
    }
}

/// A device, and what it has spent in each task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceDetail {
    /// The device.
    #[serde(flatten)]
    pub status: DeviceStatus,
    /// Tasks in which it was charged, is shut out, or that it declined, in the order of their creation.
    pub tasks: Vec<DeviceTask>,
    /// By what it was admitted when it enrolled; none where nothing was asked.
    #[serde(default)]
    pub attested: Option<Attested>,
}

/// The policy that a device fulfilled when it enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attested {
    /// What was asked: `allow-list`, `webhook` or `tpm`.
    pub kind: String,
    /// SHA-256 of the policy's kind and parameters.
    pub policy: Digest,
    /// When.
    pub at_unix_secs: u64,
    /// Whether a device that enrolls now has to fulfill the same.
    pub is_current: bool,
}

/// What a device has spent in a task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeviceTask {
    /// The task.
    pub task: TaskId,
    /// The plan's label.
    pub name: String,
    /// How often it was charged.
    pub participations: u32,
    /// How often it may be.
    pub participations_allowed: u32,
    /// ε of it; infinite without noise.
    #[serde(with = "crate::admin::finite")]
    pub epsilon: f64,
    /// The δ of ε.
    pub delta: f64,
    /// Who adds noise: against whom ε holds.
    pub mode: Mode,
    /// Why it does not take part, where it said so since the coordinator started.
    pub declined: Option<DeclineReason>,
    /// Whether it is shut out of the task's rounds until the coordinator starts again.
    pub excluded: bool,
}

/// A bootstrap token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenStatus {
    /// What it is called.
    pub token: TokenId,
    /// Whom it is for.
    pub label: String,
    /// When it was made.
    pub issued_unix_secs: u64,
    /// From when on it is worth nothing.
    pub expires_unix_secs: u64,
    /// When a device enrolled with it; none while none did.
    pub redeemed_unix_secs: Option<u64>,
    /// When an operator made it worthless; none where none did.
    pub revoked_unix_secs: Option<u64>,
}

/// Where a token stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenState {
    /// A device may enroll with it.
    Open,
    /// A device has.
    Redeemed,
    /// An operator made it worthless.
    Revoked,
    /// Its time is over.
    Expired,
}

impl TokenStatus {
    /// Where it stands at this time.
    pub fn state(&self, now_unix_secs: u64) -> TokenState {
        if self.redeemed_unix_secs.is_some() {
            TokenState::Redeemed
        } else if self.revoked_unix_secs.is_some() {
            TokenState::Revoked
        } else if now_unix_secs >= self.expires_unix_secs {
            TokenState::Expired
        } else {
            TokenState::Open
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn device() -> DeviceStatus {
        DeviceStatus {
            device: DeviceId([5; 16]),
            label: "kitchen tablet".into(),
            enrolled_unix_millis: 1,
            expires_unix_secs: NOW,
            revoked: false,
            last_seen_unix_secs: NOW - 10,
            client: String::new(),
            participations: 0,
        }
    }

    #[test]
    fn each_part_of_a_query_leaves_out_whom_it_should() {
        let device = device();
        let wants = |query: DeviceQuery| query.wants(&device, NOW);
        assert!(wants(DeviceQuery::default()));
        let after = |byte| DeviceQuery { after: Some(DeviceId([byte; 16])), ..DeviceQuery::default() };
        assert!(wants(after(4)) && !wants(after(5)) && !wants(after(6)));
        let label = |label: &str| DeviceQuery { label: label.into(), ..DeviceQuery::default() };
        assert!(wants(label("tablet")) && !wants(label("Tablet")));
        let since = |at| DeviceQuery { not_seen_since_unix_secs: Some(at), ..DeviceQuery::default() };
        assert!(wants(since(NOW - 9)) && !wants(since(NOW - 10)));
        let state = |state| DeviceQuery { state: Some(state), ..DeviceQuery::default() };
        assert!(wants(state(DeviceState::Enrolled)) && !wants(state(DeviceState::Expired)));
        assert!(state(DeviceState::Expired).wants(&device, NOW + 1));
        let revoked = DeviceStatus { revoked: true, ..device.clone() };
        assert!(state(DeviceState::Revoked).wants(&revoked, NOW + 1));
        assert!(!state(DeviceState::Expired).wants(&revoked, NOW + 1));
    }

    #[test]
    fn a_token_is_open_until_it_is_used_revoked_or_over() {
        let open = TokenStatus {
            token: TokenId([1; 8]),
            label: "a".into(),
            issued_unix_secs: NOW,
            expires_unix_secs: NOW + 60,
            redeemed_unix_secs: None,
            revoked_unix_secs: None,
        };
        assert_eq!(open.state(NOW + 59), TokenState::Open);
        assert_eq!(open.state(NOW + 60), TokenState::Expired);
        let redeemed = TokenStatus { redeemed_unix_secs: Some(NOW), ..open.clone() };
        assert_eq!(redeemed.state(NOW + 60), TokenState::Redeemed);
        assert_eq!(TokenStatus { revoked_unix_secs: Some(NOW), ..open }.state(NOW + 60), TokenState::Revoked);
    }
}
