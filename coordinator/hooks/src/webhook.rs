//! A service that is asked by HTTP: one POST of JSON, one answer of JSON, in bounded time and size.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Scheme;
use http::{Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Collected, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proto::files;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::ServerName;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::failure::HookError;
use crate::open::{OpenError, certificates};

/// The most bytes that a service may answer.
pub(crate) const MOST_BYTES: usize = 64 << 10;

/// The most bytes of a bearer token.
const MOST_BEARER_BYTES: usize = 8 << 10;

/// A service, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    uri: Uri,
    host: String,
    port: u16,
    /// How it is known; none where it is on this machine and in clear.
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    /// A file with a token that is shown to it.
    bearer: Option<PathBuf>,
}

/// Where a service may be.
pub(crate) enum Place {
    /// Anywhere, by TLS.
    Https,
    /// On this machine.
    Loopback,
}

/// Where an address leads; `None` where nobody is asked so.
pub(crate) fn place(url: &str) -> Option<Place> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    // A name or a password in an address would be shown in a log.
    if authority.as_str().contains('@') {
        return None;
    }
    let host = host(&uri)?;
    if uri.scheme() == Some(&Scheme::HTTPS) {
        return ServerName::try_from(host).ok().map(|_| Place::Https);
    }
    let is_here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    (uri.scheme() == Some(&Scheme::HTTP) && is_here).then_some(Place::Loopback)
}

fn host(uri: &Uri) -> Option<String> {
    Some(uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned())
}

impl Webhook {
    /// The service at an address that [`place`] took. Reads the file of its authority, and looks whether the token can be read.
    pub(crate) fn open(url: &str, ca: &Path, bearer: &Path) -> Result<Self, OpenError> {
        let unfit = || OpenError::Address(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| unfit())?;
        let host = host(&uri).ok_or_else(unfit)?;
        let (tls, default_port) = match place(url).ok_or_else(unfit)? {
            Place::Loopback => (None, 80),
            Place::Https => {
                let name = ServerName::try_from(host.clone()).map_err(|_| unfit())?;
                (Some((trusting(ca)?, name)), 443)
            }
        };
        let port = uri.port_u16().unwrap_or(default_port);
        let bearer = (!bearer.as_os_str().is_empty()).then(|| bearer.to_owned());
        if let Some(path) = &bearer {
            read_bearer(path).map_err(|why| OpenError::Unusable { path: path.clone(), why })?;
        }
        Ok(Self { uri, host, port, tls, bearer })
    }

    /// Asks it, and gives its answer, which is waited for so long.
    pub(crate) async fn ask<A: DeserializeOwned>(
        &self,
        question: &impl Serialize,
        limit: Duration,
    ) -> Result<A, HookError> {
        let body =
            serde_json::to_vec(question).map_err(|error| HookError::Failed { why: error.to_string() })?;
        let slow = |_| HookError::Slow { millis: limit.as_millis() };
        let answer = timeout(limit, self.post(body)).await.map_err(slow)??;
        serde_json::from_slice(&answer).map_err(|error| HookError::Garbage { why: error.to_string() })
    }

    async fn post(&self, body: Vec<u8>) -> Result<Bytes, HookError> {
        let bearer = match &self.bearer {
            None => None,
            Some(path) => Some(self.bearer(path.clone()).await?),
        };
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| unreachable("its path cannot be asked for"))?;
        let authority = self.uri.authority().map_or(self.host.as_str(), |authority| authority.as_str());
        let authority =
            HeaderValue::from_str(authority).map_err(|_| unreachable("its name cannot be asked for"))?;
        request.headers_mut().insert(HOST, authority);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(bearer) = bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(unreachable)?;
        match &self.tls {
            None => exchange(stream, request).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await.map_err(unreachable)?;
                exchange(stream, request).await
            }
        }
    }

    /// What is shown to it; read anew each time, so that it can be exchanged.
    async fn bearer(&self, path: PathBuf) -> Result<HeaderValue, HookError> {
        let shown = path.display().to_string();
        let read = spawn_blocking(move || read_bearer(&path)).await;
        let read = read.map_err(|error| HookError::Failed { why: error.to_string() })?;
        read.map_err(|why| HookError::Failed { why: format!("{shown} cannot be used: {why}") })
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Bytes, HookError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(unreachable)?;
        if answer.status() != StatusCode::OK {
            return Err(HookError::Failed { why: format!("it answered {}, and not 200", answer.status()) });
        }
        let body = Limited::new(answer.into_body(), MOST_BYTES).collect().await;
        body.map(Collected::to_bytes).map_err(|error| {
            if error.downcast_ref::<LengthLimitError>().is_some() {
                HookError::TooMuch { most: MOST_BYTES }
            } else {
                HookError::Failed { why: error.to_string() }
            }
        })
    };
    tokio::pin!(answered, connection);
    tokio::select! {
        answer = &mut answered => answer,
        // It carried everything; what came is still to be read.
        _ = &mut connection => answered.await,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
fn unreachable(why: impl ToString) -> HookError {
    HookError::Unreachable { why: why.to_string() }
}

/// Trusts whom a file's certificates vouch for, and nobody else. TLS 1.3 only.
fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, OpenError> {
    let mut roots = RootCertStore::empty();
    let unusable = |error: rustls::Error| OpenError::Unusable { path: ca.to_owned(), why: error.to_string() };
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(unusable)?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(unusable)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// The header with a file's token.
fn read_bearer(path: &Path) -> Result<HeaderValue, String> {
    let bytes = Zeroizing::new(files::read_secret(path).map_err(|error| error.to_string())?);
    let text = std::str::from_utf8(&bytes).map_err(|_| "it is no text".to_owned())?.trim();
    let is_token =
        (1..=MOST_BEARER_BYTES).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token {
        return Err("it does not hold one word, which a bearer token is".to_owned());
    }
    let value = Zeroizing::new(format!("Bearer {text}"));
    let mut value = HeaderValue::from_str(&value).map_err(|_| "it cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}
