//! The operator's connection to a coordinator's admin listener.

use std::sync::Arc;
use std::time::Duration;

use coordinator::pki::Identity;
use rustls::ClientConfig;
use shell::tls::{ClientIdentity, Connector, Trust, client_config};
use tonic::transport::{Channel, Endpoint};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no connection to the coordinator.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The identity does not fit together, or has no authority in its chain.
    #[error("the administrator's certificate or key cannot be used: {0}")]
    Identity(rustls::Error),
    /// The address is not `host:port`.
    #[error("{0:?} is not an address of the form host:port")]
    Address(String),
    /// The coordinator does not answer, or is not the one that the authority
    /// vouches for.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// Where it should be.
        address: String,
        /// What went wrong.
        source: tonic::transport::Error,
    },
}

/// Connects to a coordinator's admin listener at `address` (`host:port`).
pub async fn connect(address: &str, identity: &Identity) -> Result<Channel, ChannelError> {
    let connector = Connector::new(config(identity).map_err(ChannelError::Identity)?, CONNECT_TIMEOUT);
    Endpoint::from_shared(format!("https://{address}"))
        .map_err(|_| ChannelError::Address(address.to_owned()))?
        .connect_with_connector(connector)
        .await
        .map_err(|source| ChannelError::Connect { address: address.to_owned(), source })
}

fn config(identity: &Identity) -> Result<Arc<ClientConfig>, rustls::Error> {
    let unfit = || rustls::Error::General("it has no authority in its chain".to_owned());
    let authority = identity.authority().cloned().ok_or_else(unfit)?;
    let identity = ClientIdentity { chain: identity.chain().to_vec(), key: identity.key() };
    client_config(Trust::Authority(authority), Some(identity))
}
