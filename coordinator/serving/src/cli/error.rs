//! How a command fails, and the code that it exits with.

/// Why a command failed. The message says what is wrong, why, and what to do next.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
    /// A configuration or an input cannot be used.
    #[error("{0}")]
    Input(String),
    /// The store or the disk fails.
    #[error("{0}")]
    Store(String),
    /// A port is in use, or the coordinator cannot be reached.
    #[error("{0}")]
    Network(String),
    /// The coordinator turned the request away.
    #[error("{0}")]
    Refused(String),
    /// The task ended before all versions were there.
    #[error("{0}")]
    Ended(String),
}

impl CliError {
    /// The exit code: 1 internal, 3 input, 4 store, 5 network, 6 refused, 7 ended early. 2 is wrong usage.
    pub fn code(&self) -> u8 {
        match self {
            Self::Internal(_) => 1,
            Self::Input(_) => 3,
            Self::Store(_) => 4,
            Self::Network(_) => 5,
            Self::Refused(_) => 6,
            Self::Ended(_) => 7,
        }
    }

    /// A fault of ours.
    #[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
    pub fn internal(error: impl ToString) -> Self {
        Self::Internal(error.to_string())
    }

    /// A configuration or an input that cannot be used.
    #[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
    pub fn input(error: impl ToString) -> Self {
        Self::Input(error.to_string())
    }
}
