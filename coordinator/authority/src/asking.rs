//! The calling side: how a coordinator, or an operator of the authority, asks it.

use std::error::Error;
use std::time::Duration;

use proto::authority::{AuthorityReply, AuthorityRequest};
use proto::convert;
use proto::message::Rejection;
use proto::wire::authority_client::AuthorityClient;
use serving::pki::Identity;
use shell::tls::{ClientIdentity, Connector, Trust, client_config};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take: less than a device waits for its own.
const PATIENCE: Duration = Duration::from_secs(20);

/// What tonic says where an answer takes longer.
const TIMED_OUT: &str = "Timeout expired";

/// Why there is no way to the authority.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The identity does not fit together, or has no authority in its chain.
    #[error("the certificate or key for the enrollment authority cannot be used: {0}")]
    Identity(String),
    /// The address is not `host:port`.
    #[error("{0:?} is not an address of the form host:port")]
    Address(String),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The authority turned it away.
    #[error("{}", refused(.0))]
    Rejected(Rejection),
    /// It cannot be reached, is another one, or does not take the certificate that is shown to it.
    #[error("{0}")]
    Unreachable(String),
    /// The answer is not one to what was asked.
    #[error("the enrollment authority answered something else than what was asked")]
    Unexpected,
}

/// The way to an authority. It connects when it is asked, and again after it was lost.
#[derive(Clone, Debug)]
pub struct Link {
    client: AuthorityClient<Channel>,
    address: String,
}

impl Link {
    /// The way to `address` (`host:port`), for whoever has this identity, in whose chain the authority's certificate is. For use
    /// in a runtime only.
    pub fn new(address: &str, identity: &Identity) -> Result<Self, LinkError> {
        let unfit = || LinkError::Identity("there is no authority in its chain".to_owned());
        let authority = identity.authority().cloned().ok_or_else(unfit)?;
        let shown = ClientIdentity { chain: identity.chain().to_vec(), key: identity.key() };
        let config = client_config(Trust::Authority(authority), Some(shown))
            .map_err(|error| LinkError::Identity(error.to_string()))?;
        let channel = Endpoint::from_shared(format!("https://{address}"))
            .map_err(|_| LinkError::Address(address.to_owned()))?
            .timeout(PATIENCE)
            .connect_with_connector_lazy(Connector::new(config, CONNECT_TIMEOUT));
        let client = AuthorityClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Self { client, address: address.to_owned() })
    }

    /// Where the authority is.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks once.
    pub async fn ask(&self, request: AuthorityRequest) -> Result<AuthorityReply, AskError> {
        let mut client = self.client.clone();
        let reply = client.send(convert::authority_request_to_wire(request)).await;
        let reply = reply.map_err(|status| failure(&status))?.into_inner();
        convert::authority_reply_from_wire(reply).map_err(|error| AskError::Rejected(error.into()))
    }
}

fn failure(status: &Status) -> AskError {
    match convert::rejection_from_bytes(status.details()) {
        Ok(rejection) if !status.details().is_empty() => AskError::Rejected(rejection),
        Ok(_) | Err(_) => AskError::Unreachable(why(status)),
    }
}

/// Why a call failed on its way: the last of the causes, which says it.
fn why(status: &Status) -> String {
    if status.message() == TIMED_OUT {
        return format!("no answer within {} s", PATIENCE.as_secs());
    }
    let mut last: &dyn Error = status;
    while let Some(source) = last.source() {
        last = source;
    }
    let said = last.to_string();
    if let Some(why) = turned_away(&said) {
        return why;
    }
    if said.contains("UnknownIssuer") || said.contains("BadSignature") {
        return "who answers there is another authority than that of the file".to_owned();
    }
    if last.source().is_none() && std::ptr::eq(last, status as &dyn Error) {
        return format!("{}: {}", status.code(), status.message());
    }
    said
}

/// What is to be done about a certificate that is worthless.
const AGAIN: &str =
    "make another file by `nightshift-authority coordinator-file`, and start the coordinator again with it";

fn refused(rejection: &Rejection) -> String {
    if *rejection == Rejection::NotEnrolled { worthless() } else { rejection.to_string() }
}

fn worthless() -> String {
    format!(
        "it does not take the certificate that is shown to it: another one was made for that name since, or it has ended; {AGAIN}"
    )
}

/// What a coordinator whose certificate is worthless is told: the listener ends its connection, and the alert that says why may be
/// overtaken by that.
fn turned_away(said: &str) -> Option<String> {
    if said.contains("AccessDenied")
        || said.contains("CertificateRevoked")
        || said.contains("CertificateExpired")
    {
        return Some(worthless());
    }
    let is_closed =
        ["connection closed", "connection reset", "Connection reset", "broken pipe", "Broken pipe"];
    is_closed.iter().any(|words| said.contains(words)).then(|| {
        format!(
            "it ended the connection ({said}); where that goes on, another certificate was made for this coordinator's name since: \
             {AGAIN}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_turned_away_is_told_what_to_do() {
        for said in [
            "received fatal alert: AccessDenied",
            "connection closed",
            "Connection reset by peer (os error 104)",
        ] {
            assert!(turned_away(said).unwrap().contains("coordinator-file"), "{said}");
        }
        let on_a_connection_from_before = AskError::Rejected(Rejection::NotEnrolled).to_string();
        assert!(on_a_connection_from_before.contains("coordinator-file"), "{on_a_connection_from_before}");
        assert_eq!(turned_away("Connection refused (os error 111)"), None);
    }
}
