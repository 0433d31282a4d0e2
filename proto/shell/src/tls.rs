//! The connecting side of TLS, for devices and for operators: version 1.3 only,
//! HTTP/2 only, no resumption.
//!
//! Whoever has a certificate knows its authority's too and takes no server that
//! another vouches for. A device that enrolls knows only a pin from its
//! bootstrap token, the SHA-256 of that certificate: the server sends the
//! certificate in its chain, and everything else is verified under it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use ring::digest::{SHA256, digest};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, ring::default_provider, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    version::TLS13,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::io::{InspectReader, InspectWriter};
use tonic::transport::Uri;
use tower::Service;

use crate::proxy::Proxy;

/// Whom a client takes for its coordinator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Whoever this authority's certificate (DER) vouches for.
    Authority(CertificateDer<'static>),
    /// The same, knowing only the SHA-256 of that certificate. For enrolment.
    Pin([u8; 32]),
}

/// What a client shows of itself: its certificate and the key to it.
#[derive(Debug)]
pub struct ClientIdentity {
    /// The certificate, and any that vouch for it, DER.
    pub chain: Vec<CertificateDer<'static>>,
    /// The key of the first.
    pub key: PrivateKeyDer<'static>,
}

/// Makes the configuration of a client's connections; without an identity for
/// enrollment only. Fails when a certificate or key cannot be used.
pub fn client_config(
    trust: Trust,
    identity: Option<ClientIdentity>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(default_provider());
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13])?;
    let builder = match trust {
        Trust::Authority(certificate) => {
            let mut roots = RootCertStore::empty();
            roots.add(certificate)?;
            builder.with_root_certificates(roots)
        }
        Trust::Pin(pin) => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(PinnedAuthority { pin, provider }))
        }
    };
    let mut config = match identity {
        Some(ClientIdentity { chain, key }) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Whether a certificate (DER) is the one that a pin stands for.
pub fn matches_pin(certificate: &[u8], pin: &[u8; 32]) -> bool {
    digest(&SHA256, certificate).as_ref() == pin
}

/// Opens connections for tonic's `Endpoint::connect_with_connector`; the
/// endpoint's URI must have a host and a port.
#[derive(Clone, Debug)]
pub struct Connector {
    config: Arc<ClientConfig>,
    connect_timeout: Duration,
    carried: Option<Arc<AtomicU64>>,
    sent: Option<Arc<AtomicU64>>,
    proxy: Proxy,
}

impl Connector {
    /// A connector that gives up when connecting and shaking hands together
    /// take longer than `connect_timeout`.
    pub fn new(config: Arc<ClientConfig>, connect_timeout: Duration) -> Self {
        Self { config, connect_timeout, carried: None, sent: None, proxy: Proxy::none() }
    }

    /// The same connector, whose connections go through this proxy.
    #[must_use]
    pub fn through(self, proxy: Proxy) -> Self {
        Self { proxy, ..self }
    }

    /// The same connector, whose connections count there the bytes that they carry within TLS, both ways.
    #[must_use]
    pub fn counting(self, carried: Arc<AtomicU64>) -> Self {
        Self { carried: Some(carried), ..self }
    }

    /// The same connector, whose connections count there which of these bytes this side sent.
    #[must_use]
    pub fn counting_sent(self, sent: Arc<AtomicU64>) -> Self {
        Self { sent: Some(sent), ..self }
    }

    /// Connects and shakes hands. Fails with [`io::ErrorKind::InvalidInput`] when
    /// the URI has no host that can be in a certificate, or no port, and with
    /// [`io::ErrorKind::TimedOut`] when it takes too long.
    pub async fn dial(&self, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
        let limit = self.connect_timeout;
        timeout(limit, dial(TlsConnector::from(Arc::clone(&self.config)), &self.proxy, uri)).await.map_err(
            |_| {
                let message = format!("no connection within {} ms", limit.as_millis());
                io::Error::new(io::ErrorKind::TimedOut, message)
            },
        )?
    }
}

/// Takes note of bytes.
type Count = Box<dyn FnMut(&[u8]) + Send>;

/// A connection that counts what it carries.
pub type Counted = InspectWriter<InspectReader<TlsStream<TcpStream>, Count>, Count>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Counted>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let stream = connector.dial(&uri).await?;
            let count = |to: Vec<Arc<AtomicU64>>| -> Count {
                Box::new(move |bytes| {
                    for counter in &to {
                        counter.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                    }
                })
            };
            let reads = InspectReader::new(stream, count(connector.carried.iter().cloned().collect()));
            let sends = connector.carried.iter().chain(&connector.sent).cloned().collect();
            Ok(TokioIo::new(InspectWriter::new(reads, count(sends))))
        })
    }
}

async fn dial(connector: TlsConnector, proxy: &Proxy, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
    let unfit = || {
        let message = format!("{uri} is not an address with a host and a port");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    };
    let host = uri.host().ok_or_else(unfit)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().ok_or_else(unfit)?;
    let name = ServerName::try_from(host.to_owned()).map_err(|_| unfit())?;
    let stream = proxy.connect(uri, (host, port)).await?;
    stream.set_nodelay(true)?;
    connector.connect(name, stream).await
}

/// Takes a server whose chain holds the certificate that the pin stands for,
/// and which that certificate vouches for.
#[derive(Debug)]
struct PinnedAuthority {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let authority = intermediates
            .iter()
            .find(|certificate| matches_pin(certificate, &self.pin))
            .ok_or(CertificateError::UnknownIssuer)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2 is not offered".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
