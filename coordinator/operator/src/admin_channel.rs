//! The connecting side of TLS for administrators: version 1.3 only, the
//! authority's certificate as the only root.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use coordinator::pki::Identity;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore, client::Resumption, crypto::ring::default_provider, pki_types::ServerName,
    version::TLS13,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

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
    let connector = Connector { config: client_config(identity).map_err(ChannelError::Identity)? };
    Endpoint::from_shared(format!("https://{address}"))
        .map_err(|_| ChannelError::Address(address.to_owned()))?
        .connect_with_connector(connector)
        .await
        .map_err(|source| ChannelError::Connect { address: address.to_owned(), source })
}

fn client_config(identity: &Identity) -> Result<Arc<ClientConfig>, rustls::Error> {
    let mut roots = RootCertStore::empty();
    if let Some(authority) = identity.authority() {
        roots.add(authority.clone())?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(identity.chain().to_vec(), identity.key())?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

#[derive(Clone)]
struct Connector {
    config: Arc<ClientConfig>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        Box::pin(async move {
            timeout(CONNECT_TIMEOUT, dial(connector, uri))
                .await
                .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        })
    }
}

async fn dial(connector: TlsConnector, uri: Uri) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
    let unfit = || io::Error::new(io::ErrorKind::InvalidInput, format!("no address: {uri}"));
    let host = uri.host().ok_or_else(unfit)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().ok_or_else(unfit)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| unfit())?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(connector.connect(name, stream).await?))
}
