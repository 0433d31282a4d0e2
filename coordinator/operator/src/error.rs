//! What a call that failed means to whoever typed the command.

use coordinator::cli::CliError;
use proto::message::Rejection;

use crate::client::CallError;

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
