//! HTTP for whoever watches: `/metrics`, `/healthz` (the process answers) and `/readyz` (it takes on work). In clear and without
//! a name: it belongs on loopback, or on a network of those who watch.

use std::time::Duration;

use http::header::{ALLOW, HeaderValue};
use http::{Method, StatusCode};
use serving::plain::{self, Answer, Asked, Bounds, respond, text};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Readiness;
use super::scrape::Scrape;

const BOUNDS: Bounds = Bounds {
    connections: 4,
    head: Duration::from_secs(5),
    connection: Duration::from_secs(20),
    body_bytes: 1 << 10,
};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until `stop` is canceled. Each connection is for one request.
pub(crate) async fn serve(
    listener: TcpListener,
    scrape: Scrape,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let answered = move |asked: Asked| {
        let (scrape, readiness) = (scrape.clone(), readiness.clone());
        async move { answer(&asked, scrape, &readiness).await }
    };
    plain::serve(listener, BOUNDS, stop, answered).await;
}

async fn answer(asked: &Asked, scrape: Scrape, readiness: &Readiness) -> Answer {
    if asked.method != Method::GET && asked.method != Method::HEAD {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered\n".to_owned());
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match asked.path.as_str() {
        "/metrics" => match scrape.text().await {
            Ok(text) => respond(StatusCode::OK, OPENMETRICS, text),
            Err(error) => {
                tracing::error!(error, "the metrics could not be written");
                text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written\n".to_owned())
            }
        },
        "/healthz" => text(StatusCode::OK, "ok\n".to_owned()),
        "/readyz" => match readiness.why_not() {
            None => text(StatusCode::OK, "ready\n".to_owned()),
            Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        },
        _ => text(StatusCode::NOT_FOUND, "there is /metrics, /healthz and /readyz\n".to_owned()),
    }
}
