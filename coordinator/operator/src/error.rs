//! What a call that failed means to whoever typed the command.

use std::error::Error;
use std::io;

use coordinator::cli::CliError;
use proto::message::Rejection;
use rustls::AlertDescription;

use crate::client::CallError;

/// What an operator is told whose certificate is not taken.
const NOT_TAKEN: &str = "the coordinator does not take this operator's certificate: it was revoked, was replaced by \
                         `nightshift operator rotate`, has ended, or is another coordinator's; use the folder that holds the \
                         new one (`--dir`), have an admin make one by `nightshift operator add`, or copy operator.pem and \
                         operator.key from the coordinator's folder again";

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Channel(_) | CallError::Transport(_) => match handshake(&error) {
                Some(Handshake::Refused) => Self::Refused(NOT_TAKEN.to_owned()),
                Some(Handshake::Stranger) => Self::Network(format!(
                    "{}; what answers there is not the coordinator of this folder, or its certificate has ended: `--dir` names \
                     another folder",
                    with_causes(&error)
                )),
                None => Self::Network(format!(
                    "{}; is the coordinator running? `nightshift up` starts one, `--dir` says where its \
                     certificate and address are",
                    with_causes(&error)
                )),
            },
            CallError::Rejected(Rejection::NotEnrolled) => Self::Refused(NOT_TAKEN.to_owned()),
            CallError::Rejected(rejection) => Self::Refused(format!("the coordinator refused: {rejection}")),
            CallError::Unexpected | CallError::Damaged(_) => Self::Internal(error.to_string()),
        }
    }
}

/// Who broke a handshake off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handshake {
    /// The other side: it does not take our certificate.
    Refused,
    /// This side: the other one's certificate is not vouched for.
    Stranger,
}

/// Who broke the handshake off, where that is what failed.
fn handshake(error: &(dyn Error + 'static)) -> Option<Handshake> {
    let mut next = Some(error);
    while let Some(cause) = next {
        // What is within an `io::Error` is not its source.
        let within = cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let found = within.and_then(|within| within.downcast_ref()).or_else(|| cause.downcast_ref());
        match found {
            Some(rustls::Error::AlertReceived(
                AlertDescription::AccessDenied
                | AlertDescription::BadCertificate
                | AlertDescription::CertificateExpired
                | AlertDescription::CertificateRequired
                | AlertDescription::CertificateRevoked
                | AlertDescription::CertificateUnknown
                | AlertDescription::UnknownCA
                | AlertDescription::UnsupportedCertificate,
            )) => return Some(Handshake::Refused),
            Some(rustls::Error::InvalidCertificate(_)) => return Some(Handshake::Stranger),
            Some(_) | None => {}
        }
        next = cause.source();
    }
    None
}

/// The message of an error and of what caused it, each once.
fn with_causes(error: &dyn Error) -> String {
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

#[cfg(test)]
mod tests {
    use rustls::CertificateError;
    use tonic::Status;

    use super::*;

    fn told(error: rustls::Error) -> CliError {
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        CallError::Transport(Box::new(Status::from_error(Box::new(error)))).into()
    }

    #[test]
    fn a_certificate_that_the_other_side_does_not_take_is_a_refusal_and_its_own_is_not() {
        let refused = told(rustls::Error::AlertReceived(AlertDescription::CertificateExpired));
        assert_eq!((refused.code(), refused.to_string().contains("was revoked")), (6, true), "{refused}");
        let stranger = told(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer));
        assert_eq!(
            (stranger.code(), stranger.to_string().contains("not the coordinator of this")),
            (5, true),
            "{stranger}"
        );
        let broken = CallError::Transport(Box::new(Status::unknown("a broken pipe")));
        let broken = CliError::from(broken);
        assert_eq!(
            (broken.code(), broken.to_string().contains("is the coordinator running?")),
            (5, true),
            "{broken}"
        );
    }
}
