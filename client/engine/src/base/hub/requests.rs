//! Asking a hub, which may not answer.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use proto::files::read_regular;
use ureq::http::{Response, Uri};
use ureq::{Agent, Body, Timeout};
use zeroize::Zeroizing;

/// How long a hub is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For its address to be found, and then for a connection.
    pub connection: Duration,
    /// For the next bytes of an answer; however long the whole of it takes.
    pub silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connection: Duration::from_secs(20), silence: Duration::from_secs(60) }
    }
}

/// The longest token that is read.
const MOST_TOKEN_BYTES: u64 = 1 << 14;

/// How often an answer may lead elsewhere.
const MOST_REDIRECTS: usize = 10;

/// A protocol, a host and a port: what a token belongs to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Origin {
    pub(super) fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().or(match scheme.as_str() {
            "https" => Some(443),
            "http" => Some(80),
            _ => None,
        })?;
        Some(Self { host: uri.host()?.to_ascii_lowercase(), scheme, port })
    }

    /// Whether what is sent there is read by nobody on the way: by TLS, or because it stays on this machine.
    pub(super) fn is_private(&self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let here = host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        self.scheme == "https" || (self.scheme == "http" && here)
    }
}

/// Where an answer from `address` leads: an address, or a path on the same host.
fn resolved(address: &Uri, to: &str) -> Option<Uri> {
    let to = if to.starts_with('/') && !to.starts_with("//") {
        format!("{}://{}{to}", address.scheme_str()?, address.authority()?)
    } else {
        to.to_owned()
    };
    to.parse().ok().filter(|uri: &Uri| uri.scheme().is_some() && uri.host().is_some())
}

/// Requests to one hub.
pub(super) struct Requests {
    agent: Agent,
    token: Option<Zeroizing<String>>,
    /// Where the token may go; none where everybody on the way could read it.
    hub: Option<Origin>,
    patience: Patience,
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

impl Requests {
    /// In the name of the user whose token lies beside the cache, if one does. The token is for `endpoint` alone.
    pub(super) fn new(endpoint: &str, cache: &Path, patience: Patience) -> Self {
        let token = cache.parent().and_then(|home| read_regular(&home.join("token"), MOST_TOKEN_BYTES).ok());
        let token = token.map(Zeroizing::new).and_then(|bytes| {
            let text = str::from_utf8(&bytes).ok()?.trim();
            Some(Zeroizing::new(text.to_owned()))
        });
        let config = Agent::config_builder()
            // Where an answer leads is looked at here: a token goes to no other port and no other protocol.
            .max_redirects(0)
            .timeout_resolve(Some(patience.connection))
            .timeout_connect(Some(patience.connection))
            .timeout_per_read(Some(patience.silence))
            .timeout_per_write(Some(patience.silence))
            .build();
        let hub = endpoint.parse().ok().and_then(|uri| Origin::of(&uri)).filter(Origin::is_private);
        Self { agent: config.into(), token: token.filter(|token| !token.is_empty()), hub, patience }
    }

    /// Asks for what is at an address, from its byte `from` on, and goes where the answers lead.
    ///
    /// Fails where they lead from a private connection to one that everybody on the way can read, or in a circle.
    pub(super) fn get(&self, address: &str, from: u64) -> Result<Response<Body>, ureq::Error> {
        let mut address: Uri = address.parse().map_err(|_| ureq::Error::BadUri(address.to_owned()))?;
        for _ in 0..MOST_REDIRECTS {
            let origin = Origin::of(&address);
            let mut request = self.agent.get(&address);
            if let Some(token) = self.token.as_ref().filter(|_| self.hub.is_some() && origin == self.hub) {
                request = request.header("Authorization", format!("Bearer {}", token.as_str()));
            }
            if from > 0 {
                request = request.header("Range", format!("bytes={from}-"));
            }
            let response = request.call()?;
            if !response.status().is_redirection() {
                return Ok(response);
            }
            let to = response.headers().get("Location").and_then(|location| location.to_str().ok());
            let next = to.and_then(|to| resolved(&address, to));
            let next = next.ok_or_else(|| ureq::Error::BadUri(to.unwrap_or("no place").to_owned()))?;
            let private = |uri: &Uri| uri.scheme_str() == Some("https");
            if private(&address) && !private(&next) {
                return Err(ureq::Error::BadUri(format!("{address} leads to {next}, which is not https")));
            }
            address = next;
        }
        Err(ureq::Error::TooManyRedirects)
    }

    /// Why there is no answer: where one was waited for, how long.
    pub(super) fn reason(&self, error: &ureq::Error) -> String {
        let ureq::Error::Timeout(waited_for) = error else { return error.to_string() };
        let Patience { connection, silence } = self.patience;
        if matches!(waited_for, Timeout::Resolve) {
            format!("its address was not found within {connection:?}")
        } else if matches!(waited_for, Timeout::Connect) {
            format!("it did not take a connection within {connection:?}")
        } else {
            format!("it was silent for {silence:?}")
        }
    }
}
