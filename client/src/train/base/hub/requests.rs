//! Asking a hub, which may not answer.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use ureq::config::RedirectAuthHeaders;
use ureq::http::Response;
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

/// Requests to one hub.
pub(super) struct Requests {
    agent: Agent,
    token: Option<Zeroizing<String>>,
    patience: Patience,
}

impl fmt::Debug for Requests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requests").finish_non_exhaustive()
    }
}

impl Requests {
    /// In the name of the user whose token lies beside the cache, if one does.
    pub(super) fn new(cache: &Path, patience: Patience) -> Self {
        let token = cache.parent().and_then(|home| std::fs::read_to_string(home.join("token")).ok());
        let token = token.map(Zeroizing::new).map(|token| Zeroizing::new(token.trim().to_owned()));
        let config = Agent::config_builder()
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_resolve(Some(patience.connection))
            .timeout_connect(Some(patience.connection))
            .timeout_per_read(Some(patience.silence))
            .timeout_per_write(Some(patience.silence))
            .build();
        Self { agent: config.into(), token: token.filter(|token| !token.is_empty()), patience }
    }

    /// Asks for what is at an address, from its byte `from` on.
    pub(super) fn get(&self, address: &str, from: u64) -> Result<Response<Body>, ureq::Error> {
        let mut request = self.agent.get(address);
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {}", token.as_str()));
        }
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        request.call()
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
