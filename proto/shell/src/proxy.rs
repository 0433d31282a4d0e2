//! Connections through an HTTP proxy (`CONNECT`), where the network has one.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::Uri;
use tower::{Service, service_fn};

/// Through which proxy connections go. Those to this machine go through none.
#[derive(Clone)]
pub struct Proxy {
    matcher: Arc<Matcher>,
}

/// Why a proxy cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a proxy; write http://HOST:PORT, or none")]
pub struct NotAProxy(String);

impl Proxy {
    /// As the environment says: `HTTPS_PROXY`, else `ALL_PROXY`, but for the hosts that `NO_PROXY` names.
    pub fn from_env() -> Self {
        Self { matcher: Arc::new(Matcher::from_env()) }
    }

    /// None at all.
    pub fn none() -> Self {
        Self { matcher: Arc::new(Matcher::builder().build()) }
    }

    /// A connection to `host:port`, through the proxy where there is one for it.
    pub(crate) async fn connect(&self, uri: &Uri, (host, port): (&str, u16)) -> io::Result<TcpStream> {
        match self.of(uri, host) {
            None => TcpStream::connect((host, port)).await,
            Some(proxy) => tunnel(&proxy, uri).await,
        }
    }

    fn of(&self, uri: &Uri, host: &str) -> Option<Intercept> {
        let named = host.trim_end_matches('.').eq_ignore_ascii_case("localhost");
        let this_machine =
            named || host.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback());
        if this_machine { None } else { self.matcher.intercept(uri) }
    }
}

impl Default for Proxy {
    fn default() -> Self {
        Self::from_env()
    }
}

/// `none`, or where the proxy is.
impl FromStr for Proxy {
    type Err = NotAProxy;

    fn from_str(text: &str) -> Result<Self, NotAProxy> {
        if text == "none" {
            return Ok(Self::none());
        }
        let uri: Option<Uri> = text.parse().ok();
        let fits = uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.port_u16().is_some());
        if fits {
            Ok(Self { matcher: Arc::new(Matcher::builder().all(text).build()) })
        } else {
            Err(NotAProxy(without_password(text)))
        }
    }
}

/// What stands before an `@` may be a password.
fn without_password(text: &str) -> String {
    text.rsplit_once('@').map_or_else(|| text.to_owned(), |(_, rest)| format!("…@{rest}"))
}

impl fmt::Debug for Proxy {
    /// Without its address, in which there may be a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").finish_non_exhaustive()
    }
}

async fn tunnel(proxy: &Intercept, uri: &Uri) -> io::Result<TcpStream> {
    let at = proxy.uri();
    let named = || format!("{}:{}", at.host().unwrap_or_default(), at.port_u16().unwrap_or(80));
    if at.scheme_str() != Some("http") {
        let scheme = at.scheme_str().unwrap_or_default();
        let why = format!("the proxy {} is of the kind {scheme}; only http:// proxies are used", named());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let dial = service_fn(|at: Uri| async move {
        let host = at.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        TcpStream::connect((host, at.port_u16().unwrap_or(80))).await.map(TokioIo::new)
    });
    let mut tunnel = Tunnel::new(at.clone(), dial);
    if let Some(auth) = proxy.basic_auth() {
        tunnel = tunnel.with_auth(auth.clone());
    }
    match tunnel.call(uri.clone()).await {
        Ok(stream) => Ok(stream.into_inner()),
        Err(error) => Err(io::Error::other(format!("the proxy {} gives no connection: {error}", named()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goes_through(proxy: &Proxy, host: &str) -> bool {
        proxy.of(&format!("https://{host}:7443").parse().unwrap(), host.trim_matches(['[', ']'])).is_some()
    }

    #[test]
    fn a_proxy_is_for_other_machines() {
        let proxy: Proxy = "http://10.0.0.1:3128".parse().unwrap();
        assert!(goes_through(&proxy, "coordinator.example"));
        for host in ["localhost", "LocalHost.", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(!goes_through(&proxy, host), "{host}");
        }
        assert!(!goes_through(&"none".parse().unwrap(), "coordinator.example"));
    }

    #[test]
    fn what_is_no_proxy_is_quoted_without_its_password() {
        for text in ["", "proxy", "https://proxy:1", "http://proxy", "socks5://proxy:1"] {
            let error = text.parse::<Proxy>().unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?} is not a proxy")), "{error}");
        }
        let error = "ftp://alex:secret@proxy:1".parse::<Proxy>().unwrap_err().to_string();
        assert!(error.contains("…@proxy:1") && !error.contains("secret"), "{error}");
    }

    #[tokio::test]
    async fn a_connection_goes_through_the_proxy_with_its_password() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let serves = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let len = stream.read(&mut asked).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            stream.read_exact(&mut [0]).await.unwrap();
            stream.write_all(b"hello").await.unwrap();
            String::from_utf8_lossy(asked.get(..len).unwrap()).into_owned()
        };
        let proxy: Proxy = format!("http://alex:secret@{at}").parse().unwrap();
        let uri: Uri = "https://coordinator.example:7443".parse().unwrap();
        let connects = async {
            let mut stream = proxy.connect(&uri, ("coordinator.example", 7443)).await.unwrap();
            stream.write_all(b"?").await.unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).await.unwrap();
            said
        };
        let (asked, said) = tokio::join!(serves, connects);
        assert!(asked.starts_with("CONNECT coordinator.example:7443 HTTP/1.1\r\n"), "{asked}");
        assert!(asked.to_lowercase().contains("proxy-authorization: basic ywxledpzzwnyzxq="), "{asked}");
        assert_eq!(&said, b"hello");
    }

    #[tokio::test]
    async fn a_proxy_that_refuses_is_named() {
        use tokio::io::AsyncWriteExt;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let proxy: Proxy = format!("http://alex:secret@{at}").parse().unwrap();
        let uri: Uri = "https://coordinator.example:7443".parse().unwrap();
        let serves = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n").await.unwrap();
            stream
        };
        let (refused, _held) = tokio::join!(proxy.connect(&uri, ("coordinator.example", 7443)), serves);
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(&at.to_string()) && !error.contains("secret"), "{error}");
    }
}
