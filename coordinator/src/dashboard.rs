//! The page that an operator looks at: what this coordinator does, in a browser, from this coordinator alone.
//!
//! Four answers on the listener of operators, to whoever has an operator's certificate: the page, its style, its script and
//! `events`. They are in the program, so that the page needs no other server, and its policy forbids it to ask one. It changes
//! nothing.
//!
//! `events` are server-sent events of which each answer has one: a [`Snapshot`] when it is another than the reader's last, or
//! nothing after [`LONGEST`]; the browser asks again by itself. So an answer is whole before it goes, as every other one of the
//! listener is, and a reader who does not read holds nothing.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use proto::ids::Digest;
use proto::message::Rejection;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::census::Census;
use crate::peer::{ConnectInfo, Peer};
use crate::service::AdminService;
use crate::status;

mod snapshot;

use snapshot::Snapshot;

/// How long a question for news is held.
const LONGEST: Duration = Duration::from_secs(20);

/// How often it is looked whether something is new, for all readers together.
const LOOK: Duration = Duration::from_secs(1);

/// How often devices are counted: there may be a hundred thousand.
const COUNT: Duration = Duration::from_secs(15);

/// The page may load what this server has and nothing else, and nobody may frame it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PAGE: &str = include_str!("dashboard/page.html");
const STYLE: &str = include_str!("dashboard/page.css");
const SCRIPT: &str = include_str!("dashboard/page.js");

/// What all readers of the page share.
#[derive(Debug)]
struct Dashboard {
    service: AdminService,
    seen: Mutex<Option<Seen>>,
}

/// The last look.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    counted_at: Instant,
    census: Census,
    /// The snapshot as JSON.
    json: Arc<str>,
    /// The hash of all but its clock.
    id: Arc<str>,
}

/// The page and what it asks for.
pub(crate) fn router(service: AdminService) -> Router {
    let dashboard = Arc::new(Dashboard { service, seen: Mutex::new(None) });
    Router::new()
        .route("/", get(|| async { of_type("text/html; charset=utf-8", PAGE) }))
        .route("/page.css", get(|| async { of_type("text/css; charset=utf-8", STYLE) }))
        .route("/page.js", get(|| async { of_type("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/events", get(events))
        .route_layer(from_fn_with_state(Arc::clone(&dashboard), operators_only))
        .with_state(dashboard)
}

fn of_type(kind: &'static str, body: &'static str) -> Response {
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

/// Asks at each call whether the caller is an operator still, and once more before the answer goes, which may have been held.
async fn operators_only(State(dashboard): State<Arc<Dashboard>>, request: Request, next: Next) -> Response {
    let caller = request.extensions().clone();
    let peer = caller.get::<ConnectInfo>().map_or(Peer::Anonymous, |info| info.peer.clone());
    let refused = |rejection: &Rejection| status::in_words(rejection, &peer).into_response();
    let may_see = || dashboard.service.operator(&caller);
    let mut response = match may_see() {
        Ok(_) => next.run(request).await,
        Err(rejection) => refused(&rejection),
    };
    if let Err(rejection) = may_see() {
        response = refused(&rejection);
    }
    let kept = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in kept {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What is new since the reader's last event.
async fn events(State(dashboard): State<Arc<Dashboard>>, headers: HeaderMap) -> Response {
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let until = Instant::now() + LONGEST;
    let body = loop {
        match dashboard.look().await {
            Ok(seen) if last != Some(&*seen.id) => {
                break format!("retry: 500\nid: {}\ndata: {}\n\n", seen.id, seen.json);
            }
            Ok(_) if Instant::now() >= until => break "retry: 500\n: nothing new\n\n".to_owned(),
            Ok(_) => sleep(LOOK).await,
            Err(error) => return (StatusCode::SERVICE_UNAVAILABLE, error).into_response(),
        }
    };
    ([(header::CONTENT_TYPE, "text/event-stream")], body).into_response()
}

impl Dashboard {
    /// What there is to see, looked at no more than once a second whoever asks.
    async fn look(&self) -> Result<Seen, String> {
        let mut seen = self.seen.lock().await;
        if let Some(seen) = seen.as_ref().filter(|seen| seen.at.elapsed() < LOOK) {
            return Ok(seen.clone());
        }
        let counted = seen.as_ref().filter(|seen| seen.counted_at.elapsed() < COUNT);
        let (counted_at, census) = match counted {
            Some(seen) => (seen.counted_at, seen.census.clone()),
            None => (Instant::now(), self.service.census().await.map_err(|error| error.to_string())?),
        };
        let snapshot =
            Snapshot::of(&self.service, census.clone()).await.map_err(|error| error.to_string())?;
        let json = |snapshot: &Snapshot| serde_json::to_string(snapshot).map_err(|error| error.to_string());
        let id = Digest::of(json(&snapshot.without_clock())?.as_bytes()).to_string();
        let new = Seen {
            at: Instant::now(),
            counted_at,
            census,
            json: json(&snapshot)?.into(),
            id: id.get(..16).unwrap_or(&id).into(),
        };
        *seen = Some(new.clone());
        Ok(new)
    }
}
