//! What a device demands of the log of its enrollment authority, in its own limits.

use std::collections::BTreeSet;

use aggregation::log::{Watch, Witness, WitnessError};
use proto::ids::Digest;
use serde::{Deserialize, Serialize};

/// A device's own limits on who may have been enrolled beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogPolicy {
    /// The oldest head of the log that a round may be about, in hours. Default 24.
    pub longest_head_hours: u64,
    /// The keys of those who should have seen a head. Default none.
    pub witnesses: Vec<WitnessKey>,
    /// How many of them must have. Default 0.
    pub least_witnesses: usize,
    /// Most devices that enroll in a day; without it any number. Default none.
    pub most_enrolled_a_day: Option<u64>,
    /// How long a device must have been enrolled not to count as fresh, in hours. No more of a roster may be fresh than
    /// may be corrupt. Default 0: none counts as fresh.
    pub least_age_hours: u64,
    /// The digest of the policy under which all devices of a roster must have been attested; without it any. Default none.
    pub attested: Option<Digest>,
}

impl Default for LogPolicy {
    fn default() -> Self {
        Self {
            longest_head_hours: 24,
            witnesses: Vec::new(),
            least_witnesses: 0,
            most_enrolled_a_day: None,
            least_age_hours: 0,
            attested: None,
        }
    }
}

impl LogPolicy {
    /// How many witnesses there are: those with one key are one.
    pub fn witness_keys(&self) -> usize {
        self.witnesses.iter().map(|WitnessKey(witness)| witness.key().0).collect::<BTreeSet<_>>().len()
    }

    /// The same as what checks heads and rosters.
    pub fn watch(&self) -> Watch {
        Watch {
            longest_age_secs: self.longest_head_hours.saturating_mul(3600),
            witnesses: self.witnesses.iter().map(|WitnessKey(witness)| witness.clone()).collect(),
            least_witnesses: self.least_witnesses,
            most_enrolled_a_day: self.most_enrolled_a_day,
            least_age_secs: self.least_age_hours.saturating_mul(3600),
            attested: self.attested.map(|policy| policy.0),
        }
    }
}

/// The key of a witness, as its text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WitnessKey(pub Witness);

impl TryFrom<String> for WitnessKey {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: WitnessError| format!("{text:?} is {error}"))
    }
}

impl From<WitnessKey> for String {
    fn from(WitnessKey(witness): WitnessKey) -> Self {
        witness.to_string()
    }
}
