//! HTTP in clear for few who ask little, without a name: a connection is for one request, and all is bounded.
#![expect(clippy::disallowed_methods, reason = "IO shell: a task for each connection")]

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Before it is accepted again, where the system refused.
const PAUSE: Duration = Duration::from_millis(100);

/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 << 10;

/// What text is.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// What those who ask may cost.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Connections at a time: a further one takes the place of the oldest, so that those that say nothing keep nobody out.
    pub connections: usize,
    /// How long the head of a request may take to come.
    pub head: Duration,
    /// How long a connection may last.
    pub connection: Duration,
    /// Bytes of a request's body.
    pub body_bytes: usize,
}

/// What is asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How.
    pub method: Method,
    /// For what.
    pub path: String,
    /// With what.
    pub body: Bytes,
}

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// Answers until `stop` is canceled. Answers under way are dropped then.
pub async fn serve<A, F>(listener: TcpListener, bounds: Bounds, stop: CancellationToken, answer: A)
where
    A: Fn(Asked) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send,
{
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
        open.retain(|connection| !connection.is_finished());
        while open.len() >= bounds.connections {
            if let Some(oldest) = open.pop_front() {
                oldest.abort();
            }
        }
        let answer = answer.clone();
        let attended = tokio::spawn(async move {
            drop(timeout(bounds.connection, attend(stream, bounds, answer)).await);
        });
        open.push_back(attended.abort_handle());
    }
}

async fn attend<A, F>(stream: TcpStream, bounds: Bounds, answer: A)
where
    A: Fn(Asked) -> F + Clone,
    F: Future<Output = Answer>,
{
    let service = service_fn(move |request: Request<Incoming>| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(answered(request, bounds.body_bytes, answer).await) }
    });
    let served = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.head)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a request ended");
    }
}

async fn answered<A, F>(request: Request<Incoming>, most: usize, answer: A) -> Answer
where
    A: Fn(Asked) -> F,
    F: Future<Output = Answer>,
{
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, most).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
            return text(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {most} bytes\n"));
        }
        Err(_) => return text(StatusCode::BAD_REQUEST, "the request broke off\n".to_owned()),
    };
    answer(Asked { method: head.method, path: head.uri.path().to_owned(), body }).await
}

/// An answer of text.
pub fn text(status: StatusCode, text: String) -> Answer {
    respond(status, TEXT, text)
}

/// An answer of this kind.
pub fn respond(status: StatusCode, kind: &'static str, text: String) -> Answer {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
