//! A service that is asked by HTTP: one POST of JSON, one answer of JSON, in bounded time and size.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::HeaderValue;
use http::{HeaderMap, StatusCode};
use proto::files;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serving::post::{Address, Client, PostError, Question};
use tokio::task::spawn_blocking;
use zeroize::Zeroizing;

use crate::failure::HookError;
use crate::open::OpenError;

/// The most bytes that a service may answer.
pub(crate) const MOST_BYTES: usize = 64 << 10;

/// The most bytes of a bearer token.
const MOST_BEARER_BYTES: usize = 8 << 10;

/// A service, and how it is reached.
#[derive(Clone, Debug)]
pub(crate) struct Webhook {
    client: Client,
    path: String,
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
    let address = Address::parse(url)?;
    if address.is_tls() {
        return Some(Place::Https);
    }
    address.is_here().then_some(Place::Loopback)
}

impl Webhook {
    /// The service at an address that [`place`] took. Reads the file of its authority, and looks whether the token can be read.
    pub(crate) fn open(url: &str, ca: &Path, bearer: &Path) -> Result<Self, OpenError> {
        let address = Address::parse(url).filter(|_| place(url).is_some());
        let address = address.ok_or_else(|| OpenError::Address(url.to_owned()))?;
        let path = address.path().to_owned();
        let client = Client::open(address, ca);
        let client = client.map_err(|why| OpenError::Unusable { path: ca.to_owned(), why })?;
        let bearer = (!bearer.as_os_str().is_empty()).then(|| bearer.to_owned());
        if let Some(path) = &bearer {
            read_bearer(path).map_err(|why| OpenError::Unusable { path: path.clone(), why })?;
        }
        Ok(Self { client, path, bearer })
    }

    /// Asks it, and gives its answer, which is waited for so long.
    pub(crate) async fn ask<A: DeserializeOwned>(
        &self,
        question: &impl Serialize,
        limit: Duration,
    ) -> Result<A, HookError> {
        let body =
            serde_json::to_vec(question).map_err(|error| HookError::Failed { why: error.to_string() })?;
        let bearer = match &self.bearer {
            None => None,
            Some(path) => Some(self.bearer(path.clone()).await?),
        };
        let (path, kind, headers) = (self.path.clone(), "application/json", HeaderMap::new());
        let question = Question { path, kind, bearer, headers, body };
        let answer = self.client.post(question, limit, MOST_BYTES).await?;
        if answer.status != StatusCode::OK {
            return Err(HookError::Failed { why: format!("it answered {}, and not 200", answer.status) });
        }
        serde_json::from_slice(&answer.body).map_err(|error| HookError::Garbage { why: error.to_string() })
    }

    /// What is shown to it; read anew each time, so that it can be exchanged.
    async fn bearer(&self, path: PathBuf) -> Result<HeaderValue, HookError> {
        let shown = path.display().to_string();
        let read = spawn_blocking(move || read_bearer(&path)).await;
        let read = read.map_err(|error| HookError::Failed { why: error.to_string() })?;
        read.map_err(|why| HookError::Failed { why: format!("{shown} cannot be used: {why}") })
    }
}

impl From<PostError> for HookError {
    fn from(error: PostError) -> Self {
        match error {
            PostError::Slow { millis } => Self::Slow { millis },
            PostError::Unreachable { why } => Self::Unreachable { why },
            PostError::Failed { why } => Self::Failed { why },
            PostError::TooMuch { most } => Self::TooMuch { most },
        }
    }
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
