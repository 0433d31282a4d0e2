//! Why somebody who was asked gave nothing that can be used.

use proto::message::Rejection;

/// Why somebody who was asked gave nothing that can be used. What they said is in it, so it is for the operator, not for the
/// device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HookError {
    /// As many are being asked as may be at once, or this one is being asked already.
    #[error("too many are asked at the same time")]
    Busy,
    /// It took too long.
    #[error("it did not answer within {millis} ms")]
    Slow {
        /// How long it was waited for.
        millis: u128,
    },
    /// It is not there.
    #[error("it cannot be reached: {why}")]
    Unreachable {
        /// Why.
        why: String,
    },
    /// It says that it failed.
    #[error("it failed: {why}")]
    Failed {
        /// How.
        why: String,
    },
    /// It says more than it may.
    #[error("it said more than {most} bytes")]
    TooMuch {
        /// How many it may say.
        most: usize,
    },
    /// What it said is not what was asked for.
    #[error("what it answered is not taken: {why}")]
    Garbage {
        /// Why.
        why: String,
    },
}

impl HookError {
    /// What a device is told: whose fault it is, and that it may come again. What others said is for the operator.
    pub fn rejection(&self, what: &str, who: &str) -> Rejection {
        let how = match self {
            Self::Busy => "too many devices come at the same time".to_owned(),
            Self::Slow { .. } => format!("whom {who} asks for that did not answer in time"),
            Self::Unreachable { .. } => format!("whom {who} asks for that cannot be reached"),
            Self::Failed { .. } => format!("whom {who} asks for that failed"),
            Self::TooMuch { .. } | Self::Garbage { .. } => {
                format!("whom {who} asks for that gave no answer that can be used")
            }
        };
        Rejection::Unavailable(format!("{what}: {how}; nothing is lost, and it may come again later"))
    }

    /// What came of asking, as one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Slow { .. } => "slow",
            Self::Unreachable { .. } => "unreachable",
            Self::Failed { .. } => "failed",
            Self::TooMuch { .. } => "too_much",
            Self::Garbage { .. } => "garbage",
        }
    }
}
