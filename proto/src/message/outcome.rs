//! How a round ended, for devices, operators, and whoever counts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The sum was opened and the next version published.
    Published,
    /// Too few devices advertised keys in time.
    TooFewJoined,
    /// The graph of a large cohort could not be drawn: in each of a session's draws somebody vanished.
    NotDrawn,
    /// Too few devices shared their seeds in time.
    TooFewShared,
    /// Too few masked inputs came in time.
    TooFewSurvivors,
    /// Too few devices signed one transcript in time.
    NoQuorum,
    /// Too few good shares came to open the sum.
    NotRecovered,
    /// The coordinator or its operator ended the round.
    Stopped,
}

impl Outcome {
    /// One word of it, by which metrics and reports count.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::TooFewJoined => "too_few_joined",
            Self::NotDrawn => "not_drawn",
            Self::TooFewShared => "too_few_shared",
            Self::TooFewSurvivors => "too_few_survivors",
            Self::NoQuorum => "no_quorum",
            Self::NotRecovered => "not_recovered",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Published => "published",
            Self::TooFewJoined => "too few devices joined",
            Self::NotDrawn => "devices vanished in every draw of the graph",
            Self::TooFewShared => "too few devices shared their seeds",
            Self::TooFewSurvivors => "too few devices submitted",
            Self::NoQuorum => "too few devices signed the transcript",
            Self::NotRecovered => "too few good shares to open the sum",
            Self::Stopped => "stopped by the coordinator",
        })
    }
}
