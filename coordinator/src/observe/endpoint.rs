//! HTTP for whoever watches: `/metrics`, `/healthz` (the process answers) and `/readyz` (it takes on work). In clear and without
//! a name: it belongs on loopback, or on a network of those who watch.
#![expect(clippy::disallowed_methods, reason = "IO shell: a task for each connection")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::Readiness;
use super::scrape::Scrape;

/// Connections at a time: a further one takes the place of the oldest, so that those that say nothing keep nobody out.
const CONNECTIONS: usize = 4;

/// How long a request may take to come.
const REQUEST: Duration = Duration::from_secs(5);

/// How long a connection may last.
const CONNECTION: Duration = Duration::from_secs(20);

/// Bytes of a request.
const REQUEST_BYTES: usize = 16 << 10;

/// Before it is accepted again, where the system refused.
const PAUSE: Duration = Duration::from_millis(100);

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Answers until `stop` is canceled. Each connection is for one request.
pub(crate) async fn serve(
    listener: TcpListener,
    scrape: Scrape,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let mut open: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        let (scrape, readiness) = (scrape.clone(), readiness.clone());
        open.retain(|connection| !connection.is_finished());
        while open.len() >= CONNECTIONS {
            if let Some(oldest) = open.pop_front() {
                oldest.abort();
            }
        }
        let attended = tokio::spawn(async move {
            drop(timeout(CONNECTION, attend(stream, scrape, readiness)).await);
        });
        open.push_back(attended.abort_handle());
    }
}

async fn attend(stream: TcpStream, scrape: Scrape, readiness: Readiness) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (scrape, readiness) = (scrape.clone(), readiness.clone());
        async move { Ok::<_, Infallible>(answer(&request, scrape, &readiness).await) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST)
        .max_buf_size(REQUEST_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request for metrics ended");
    }
}

async fn answer(request: &Request<Incoming>, scrape: Scrape, readiness: &Readiness) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused =
            plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n".to_owned());
        refused.headers_mut().insert(ALLOW, http::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => match scrape.text().await {
            Ok(text) => respond(StatusCode::OK, OPENMETRICS, text),
            Err(error) => {
                tracing::error!(error, "the metrics could not be written");
                plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n".to_owned())
            }
        },
        "/healthz" => plain(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match readiness.why_not() {
            None => plain(StatusCode::OK, "ready\n".to_owned()),
            Some(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        },
        _ => plain(StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz\n".to_owned()),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    respond(status, TEXT, text)
}

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}
