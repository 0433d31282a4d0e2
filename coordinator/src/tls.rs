//! The listening side of TLS: version 1.3 only, client certificates of our
//! authority, and an accept loop of our own whose configuration can be
//! exchanged while it runs.
//!
//! A peer may come without a certificate (it has none before it has enrolled);
//! what it then may do is for the service to decide. A peer with a certificate
//! that is not ours, has expired, or names nobody does not get in. Sessions
//! are never resumed, so each connection verifies its certificate anew.
#![expect(clippy::disallowed_methods, reason = "IO shell: this module accepts connections")]

use std::{
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier},
    version::TLS13,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use crate::{
    peer::{self, Certified, Peer, PeerError},
    pki::Identity,
};

/// How long to wait after the system refused to accept, for example because
/// the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why a configuration could not be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The identity does not fit together, or TLS cannot use it.
    #[error("the server's certificate or key cannot be used: {0}")]
    Identity(rustls::Error),
    /// The authority's certificate cannot be used to verify others.
    #[error("the authority's certificate cannot be used: {0}")]
    Authority(#[from] VerifierBuilderError),
}

/// What one listener takes on at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Handshakes under way; further peers wait in the system's queue.
    pub handshakes: usize,
    /// Connections, open or under way; further peers are turned away.
    pub connections: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { handshakes: 256, connections: 16_384, handshake_timeout: Duration::from_secs(10) }
    }
}

/// Who is connected, from where: in the extensions of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectInfo {
    /// Who it is.
    pub peer: Peer,
    /// From where.
    pub remote: SocketAddr,
    /// When its certificate ends. The connection may outlive it, so the
    /// service asks at each call. `None` for the anonymous.
    pub not_after_unix_secs: Option<u64>,
}

/// Makes the configuration of a listener: `identity` is shown to peers, and
/// peers' certificates must come from `authority`.
pub fn server_config(
    identity: &Identity,
    authority: &CertificateDer<'static>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).map_err(TlsError::Identity)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(TlsError::Identity)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain().to_vec(), identity.key())
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Accepts connections in a task of its own; must be called inside a runtime.
///
/// Each handshake uses the configuration that `config` holds when it begins.
/// The listener closes when the returned [`Incoming`] is dropped.
pub fn accept(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    limits: AcceptLimits,
) -> Incoming {
    let (ready, connections) = mpsc::channel(1);
    let task = tokio::spawn(accept_all(listener, config, limits, ready));
    Incoming { connections, task }
}

/// The connections of a listener whose handshake succeeded: a stream for
/// tonic's `serve_with_incoming_shutdown`. It never yields an error.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    task: JoinHandle<()>,
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, its peer verified.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    info: ConnectInfo,
    _place: OwnedSemaphorePermit,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Why a peer did not get in.
#[derive(Debug, thiserror::Error)]
enum HandshakeError {
    #[error("the handshake took longer than {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("{0}")]
    Tls(#[from] io::Error),
    #[error(transparent)]
    Peer(#[from] PeerError),
}

async fn accept_all(
    listener: TcpListener,
    config: watch::Receiver<Arc<ServerConfig>>,
    limits: AcceptLimits,
    ready: mpsc::Sender<Connection>,
) {
    let handshakes = Arc::new(Semaphore::new(limits.handshakes));
    let places = Arc::new(Semaphore::new(limits.connections));
    loop {
        let Ok(handshake) = Arc::clone(&handshakes).acquire_owned().await else {
            return;
        };
        let (stream, remote) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(limit = limits.connections, "too many connections");
            continue;
        };
        let acceptor = TlsAcceptor::from(Arc::clone(&config.borrow()));
        let ready = ready.clone();
        tokio::spawn(async move {
            match shake_hands(&acceptor, stream, remote, limits.handshake_timeout).await {
                Ok((stream, info)) => {
                    let connection = Connection { stream, info, _place: place };
                    if ready.send(connection).await.is_err() {
                        tracing::debug!("a connection came after the end");
                    }
                }
                Err(error) => tracing::debug!(%remote, %error, "handshake failed"),
            }
            drop(handshake);
        });
    }
}

async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
    limit: Duration,
) -> Result<(TlsStream<TcpStream>, ConnectInfo), HandshakeError> {
    stream.set_nodelay(true)?;
    let stream =
        timeout(limit, acceptor.accept(stream)).await.map_err(|_| HandshakeError::TimedOut(limit))??;
    let (_, session) = stream.get_ref();
    let certified = session
        .peer_certificates()
        .and_then(<[_]>::first)
        .map(|certificate| peer::read_certificate(certificate))
        .transpose()?;
    let info = match certified {
        None => ConnectInfo { peer: Peer::Anonymous, remote, not_after_unix_secs: None },
        Some(Certified { peer, not_after_unix_secs }) => {
            ConnectInfo { peer, remote, not_after_unix_secs: Some(not_after_unix_secs) }
        }
    };
    Ok((stream, info))
}
