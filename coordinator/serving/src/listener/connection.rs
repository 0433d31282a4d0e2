//! One connection, from its handshake to its end.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rand::rngs::SysRng;
use rand_core::{TryRng, UnwrapErr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service;

use super::allowance::Allowance;
use super::answer::Calls;
use super::guard::Guard;

/// How often a peer is asked whether it is still there: a device that has gone to sleep does not say so.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// How long it has to answer that.
const KEEP_ALIVE_PATIENCE: Duration = Duration::from_secs(10);

/// How long a peer may take nothing of an answer.
const STALL: Duration = Duration::from_secs(60);

/// Bytes of the headers of a call.
const MAX_HEADER_BYTES: u32 = 8 << 10;

/// Streams that a peer may have reset, or made us reset, before anybody looked at them (CVE-2023-44487,
/// CVE-2025-8671).
const MAX_RESETS: usize = 32;

/// Serves the calls of a connection until either side ends it, it has been idle for too long, it has come of age, or
/// `stop` is canceled.
pub(super) async fn serve<S>(stream: Box<TlsStream<TcpStream>>, guard: Guard<S>, stop: &CancellationToken)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send,
{
    let allowance = guard.allowance();
    let calls = Arc::clone(guard.calls());
    let stream = TokioIo::new(Capped { stream, left: allowance.sent_bytes });
    // On the heap, so that it takes its room once, and not also where it was made.
    let mut connection = Box::pin(builder(&allowance).serve_connection(stream, guard));
    let mut count = calls.count();
    let ends = async {
        tokio::select! {
            () = sleep(drawn_age(allowance.age)) => {}
            () = idle(&mut count, allowance.idle) => {}
            () = stop.cancelled() => {}
        }
    };
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended");
            }
            return;
        }
        () = stalled(&calls) => return,
        () = ends => connection.as_mut().graceful_shutdown(),
    }
    if timeout(allowance.grace, connection).await.is_err() {
        tracing::debug!("a connection did not end in order and is cut");
    }
}

fn builder(allowance: &Allowance) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(allowance.streams)
        .initial_stream_window_size(allowance.window_bytes)
        .initial_connection_window_size(allowance.window_bytes)
        .max_send_buf_size(allowance.send_bytes)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_pending_accept_reset_streams(MAX_RESETS)
        .max_local_error_reset_streams(MAX_RESETS)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_PATIENCE);
    builder
}

/// Ends when no call was under way for `limit`.
async fn idle(calls: &mut watch::Receiver<u32>, limit: Duration) {
    while calls.wait_for(|calls| *calls == 0).await.is_ok() {
        if timeout(limit, calls.wait_for(|calls| *calls > 0)).await.is_err() {
            return;
        }
    }
}

/// Ends when the peer has taken nothing of an answer for too long.
async fn stalled(calls: &Calls) {
    while calls.stalled() < STALL {
        sleep(STALL / 4).await;
    }
}

/// A stream that ends when the peer has sent so much.
struct Capped {
    stream: Box<TlsStream<TcpStream>>,
    left: u64,
}

impl AsyncRead for Capped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(Err(io::Error::other("the peer has sent more than it may")));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.left = self.left.saturating_sub((buffer.filled().len() - before) as u64);
        read
    }
}

impl AsyncWrite for Capped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Between three quarters of an age and all of it, so that connections that were made together do not end together.
fn drawn_age(age: Duration) -> Duration {
    let Ok(drawn) = UnwrapErr(SysRng).try_next_u32();
    age.mul_f64(1.0 - 0.25 * f64::from(drawn) / f64::from(u32::MAX))
}
