//! How a command fails, and the code that it exits with.

use crate::service::CallError;
use proto::message::Rejection;

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

    #[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
    pub(super) fn internal(error: impl ToString) -> Self {
        Self::Internal(error.to_string())
    }

    #[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
    pub(super) fn input(error: impl ToString) -> Self {
        Self::Input(error.to_string())
    }
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Channel(_) | CallError::Transport(_) => Self::Network(format!(
                "{}; is the coordinator running? `nightshift up` starts one, `--dir` says where its \
                 certificate and address are",
                with_causes(&error)
            )),
            CallError::Rejected(Rejection::NotEnrolled) => Self::Refused(
                "the coordinator does not take this operator's certificate: it is another coordinator's or \
                 has expired; copy operator.pem and operator.key from the coordinator's folder again"
                    .to_owned(),
            ),
            CallError::Rejected(rejection) => Self::Refused(format!("the coordinator refused: {rejection}")),
            CallError::Unexpected | CallError::Damaged(_) => Self::Internal(error.to_string()),
        }
    }
}

/// The message of an error and of what caused it, each once.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
