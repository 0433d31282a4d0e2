//! How a coordinator is, and the log of whoever was enrolled.

use serde::{Deserialize, Serialize};

use crate::ids::Digest;

/// How a coordinator is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Why it writes nothing now; `None` while it does.
    pub trouble: Option<String>,
    /// Seconds since it has been so.
    pub trouble_secs: u64,
    /// What was turned away since the start, by listener and reason.
    pub turned_away: Vec<TurnedAwayCount>,
    /// When the certificate ends that it shows now; it makes the next one by itself.
    pub server_expires_unix_secs: u64,
    /// When its authority's certificate ends, and with it all that it signed.
    pub authority_expires_unix_secs: u64,
    /// The bases that devices may fetch from it.
    pub bases: Vec<ServedBase>,
    /// Bases that it has not read yet.
    pub bases_to_read: u32,
    /// Its clock; 0 where it does not say.
    pub now_unix_millis: u64,
    /// Whether it ends: open rounds may still end, and none is opened.
    #[serde(default)]
    pub stopping: bool,
    /// The log of enrollments; none where it does not say.
    #[serde(default)]
    pub log: Option<LogStatus>,
    /// The enrollment authority that is apart; none where the coordinator is its own.
    #[serde(default)]
    pub authority: Option<AuthorityStatus>,
    /// When the first certificate ends of those that vouch for devices' beside its own authority's; 0 where there are none.
    #[serde(default)]
    pub issuer_expires_unix_secs: u64,
}

/// How a log of enrollments is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStatus {
    /// What signs it, as witnesses know it.
    pub key: String,
    /// Its entries.
    pub size: u64,
    /// When its newest head was signed; 0 where there is none.
    pub head_unix_secs: u64,
    /// The entries of the head that rounds are about.
    pub rounds_size: u64,
    /// When that head was signed; 0 where there is none.
    pub rounds_unix_secs: u64,
    /// Versions that are to become entries.
    pub waiting_versions: u64,
    /// How many witnesses must have signed the head that rounds are about.
    pub least_witnesses: u32,
    /// Who is asked to sign its heads.
    pub witnesses: Vec<WitnessStatus>,
    /// Devices that ever enrolled.
    pub devices: u64,
    /// Those of them that did so within a day.
    pub young_devices: u64,
    /// How many of the witnesses signed the head that rounds are about.
    #[serde(default)]
    pub rounds_witnesses: u32,
}

impl LogStatus {
    /// Whether as many witnesses as must signed the head that rounds are about. Where they did not, devices that demand witnesses
    /// refuse it.
    pub fn is_witnessed(&self) -> bool {
        self.rounds_witnesses >= self.least_witnesses
    }
}

/// How a witness of a log is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessStatus {
    /// What it is called.
    pub name: String,
    /// The entries of the head that it signed last.
    pub signed_size: u64,
    /// When it signed that; 0 where it signed none.
    pub signed_unix_secs: u64,
    /// Why it does not sign now.
    pub trouble: Option<String>,
    /// Since when it does not.
    pub trouble_since_unix_secs: u64,
    /// Whether it saw another log of this key.
    pub saw_other_log: bool,
}

/// An enrollment authority apart, as its coordinator knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// Where it is, `host:port`.
    pub address: String,
    /// Whether it answers.
    pub answers: bool,
    /// Since when it does, or does not; 0 where it was not asked yet.
    pub since_unix_secs: u64,
    /// Why it does not.
    pub why: Option<String>,
    /// When the certificate ends that the coordinator shows to it; 0 where that is not known.
    pub certificate_expires_unix_secs: u64,
    /// Why its log is not taken, where it is not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_refused: Option<String>,
}

/// A base that a coordinator serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedBase {
    /// The hub's name of it, or that of its folder or file.
    pub name: String,
    /// What names it in plans.
    pub digest: Digest,
    /// Of all its files.
    pub bytes: u64,
}

/// How often something was turned away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TurnedAwayCount {
    /// Whose listener: `devices` or `operators`.
    pub listener: String,
    /// Why, in words.
    pub why: String,
    /// How often since the start.
    pub times: u64,
}
