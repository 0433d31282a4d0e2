//! To ask a service by HTTP: one POST, one answer, in bounded time and size. A connection for each.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use http::uri::Scheme;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use proto::files;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

/// The most bytes of a file of certificates.
const MOST_FILE_BYTES: u64 = 1 << 20;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// It took too long.
    #[error("it did not answer within {millis} ms")]
    Slow {
        /// How long it was waited for.
        millis: u128,
    },
    /// It is not there.
    #[error("it cannot be reached: {why}")]
    Unreachable {
        /// Why.
        why: String,
    },
    /// The answer broke off.
    #[error("it failed: {why}")]
    Failed {
        /// How.
        why: String,
    },
    /// It says more than it may.
    #[error("it said more than {most} bytes")]
    TooMuch {
        /// How many it may say.
        most: usize,
    },
}

/// Where a service is, by its address.
#[derive(Clone, Debug)]
pub struct Address {
    uri: Uri,
    host: String,
    /// How its certificate is to call it, where it is reached by TLS.
    name: Option<ServerName<'static>>,
}

impl Address {
    /// The address, if it is one of `https:` or `http:`, and holds no name or password, which would be shown in a log.
    pub fn parse(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        if uri.authority()?.as_str().contains('@') {
            return None;
        }
        // Behind the host stands a port, or nothing: one that is none must not become the usual one.
        match uri.authority()?.as_str().strip_prefix(uri.host()?)?.strip_prefix(':') {
            None if uri.authority()?.as_str() == uri.host()? => {}
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) && uri.port_u16()? > 0 => {}
            _ => return None,
        }
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = if uri.scheme() == Some(&Scheme::HTTPS) {
            Some(ServerName::try_from(host.clone()).ok()?)
        } else if uri.scheme() == Some(&Scheme::HTTP) && !host.is_empty() {
            None
        } else {
            return None;
        };
        Some(Self { uri, host, name })
    }

    /// Whether it is reached by TLS.
    pub fn is_tls(&self) -> bool {
        self.name.is_some()
    }

    /// Whether it is on this machine.
    pub fn is_here(&self) -> bool {
        let is_loopback = |address: std::net::IpAddr| address.is_loopback();
        self.host == "localhost" || self.host.parse().is_ok_and(is_loopback)
    }

    /// The path, and what is asked for behind it.
    pub fn path(&self) -> &str {
        self.uri.path_and_query().map_or("/", |path| path.as_str())
    }
}

/// What is asked.
#[derive(Debug)]
pub struct Question {
    /// Where at the service.
    pub path: String,
    /// What the body is.
    pub kind: &'static str,
    /// By what the service knows who asks, where it does.
    pub bearer: Option<HeaderValue>,
    /// What else stands at its head.
    pub headers: HeaderMap,
    /// The body.
    pub body: Vec<u8>,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub status: StatusCode,
    /// What the body is, as it says.
    pub kind: String,
    /// The body.
    pub body: Bytes,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
    tls: Option<Arc<ClientConfig>>,
}

impl Client {
    /// The service at an address. By TLS, whom the certificates of the file `ca` vouch for, and nobody else; without it the file
    /// is not read. Fails, with why, where it cannot be used.
    pub fn open(address: Address, ca: &Path) -> Result<Self, String> {
        let tls = address.is_tls().then(|| trusting(ca)).transpose()?;
        Ok(Self { address, tls })
    }

    /// Asks it, and waits so long for an answer of so many bytes at most.
    pub async fn post(&self, question: Question, limit: Duration, most: usize) -> Result<Answer, PostError> {
        let slow = |_| PostError::Slow { millis: limit.as_millis() };
        timeout(limit, self.asked(question, most)).await.map_err(slow)?
    }

    async fn asked(&self, question: Question, most: usize) -> Result<Answer, PostError> {
        let Address { uri, host, name } = &self.address;
        let Question { path, kind, bearer, headers, body } = question;
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = path.parse().map_err(|_| unreachable("its path cannot be asked for"))?;
        let authority = uri.authority().map_or(host.as_str(), |authority| authority.as_str());
        let authority =
            HeaderValue::from_str(authority).map_err(|_| unreachable("its name cannot be asked for"))?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(HOST, authority);
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        if let Some(bearer) = bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let port = uri.port_u16().unwrap_or(if name.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(unreachable)?;
        match self.tls.as_ref().zip(name.as_ref()) {
            None => exchange(stream, request, most).await,
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                let stream = connector.connect(name.clone(), stream).await.map_err(unreachable)?;
                exchange(stream, request, most).await
            }
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Answer, PostError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unreachable)?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(unreachable)?;
        let kind = answer.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let (status, kind) = (answer.status(), kind.unwrap_or_default().to_owned());
        let body = Limited::new(answer.into_body(), most).collect().await;
        let body = body.map_err(|error| {
            if error.downcast_ref::<LengthLimitError>().is_some() {
                PostError::TooMuch { most }
            } else {
                PostError::Failed { why: error.to_string() }
            }
        })?;
        Ok(Answer { status, kind, body: body.to_bytes() })
    };
    tokio::pin!(answered, connection);
    tokio::select! {
        answer = &mut answered => answer,
        // It carried everything; what came is still to be read.
        _ = &mut connection => answered.await,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "so that it fits `map_err`")]
fn unreachable(why: impl ToString) -> PostError {
    PostError::Unreachable { why: why.to_string() }
}

/// All certificates of a file in PEM; at least one. Fails with why.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = files::read_regular(path, MOST_FILE_BYTES).map_err(|error| error.to_string())?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let read = read.map_err(|error| format!("it is not in PEM: {error}"))?;
    if read.is_empty() { Err("it holds no certificate in PEM".to_owned()) } else { Ok(read) }
}

/// Trusts whom a file's certificates vouch for, and nobody else. TLS 1.3 only.
fn trusting(ca: &Path) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(ca)? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_says_how_a_service_is_reached() {
        let of = |url: &str| Address::parse(url).map(|address| (address.is_tls(), address.is_here()));
        assert_eq!(of("https://owl.example/a"), Some((true, false)));
        assert_eq!(of("http://127.0.0.1:80/a"), Some((false, true)));
        assert_eq!(of("http://[::1]:80"), Some((false, true)));
        assert_eq!(of("http://localhost"), Some((false, true)));
        assert_eq!(of("http://owl.example"), Some((false, false)));
        for url in
            ["", "owl.example", "ftp://owl.example", "https://name:word@owl.example/", "https://", "/a"]
        {
            assert_eq!(of(url), None, "{url}");
        }
        for port in ["", "0", "99999", "abc", "80x", "+80", "-1"] {
            for host in ["owl.example", "127.0.0.1", "[::1]"] {
                let url = format!("http://{host}:{port}/a");
                assert_eq!(of(&url), None, "{url}");
            }
        }
        assert_eq!(Address::parse("http://owl.example/a/b?c").unwrap().path(), "/a/b?c");
    }
}
