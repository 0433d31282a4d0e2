//! An answer on its way to a peer: what it takes of memory until it has gone, and whether the peer takes it.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use hyper::body::{Body, Frame};
use tokio::sync::watch;
use tokio::time::Instant;

use super::message::Share;

/// An answer goes in such parts, so that it is seen whether it goes.
const PART_BYTES: usize = 16 << 10;

/// Calls under way on one connection.
#[derive(Debug)]
pub(super) struct Calls {
    count: watch::Sender<u32>,
    /// When each answer last went on, by its number.
    answers: Mutex<(u64, Vec<(u64, Instant)>)>,
}

/// A call under way, until it is dropped.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Calls>);

/// An answer of which everything is known.
#[derive(Debug)]
pub(super) struct Answer {
    left: Bytes,
    trailers: Option<HeaderMap>,
    number: u64,
    call: UnderWay,
    _share: Share,
}

impl Calls {
    pub(super) fn new() -> Self {
        Self { count: watch::Sender::new(0), answers: Mutex::default() }
    }

    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        self.count.send_modify(|count| *count += 1);
        UnderWay(Arc::clone(self))
    }

    /// How many there are.
    pub(super) fn count(&self) -> watch::Receiver<u32> {
        self.count.subscribe()
    }

    /// For how long the peer has taken nothing of an answer, of that of which it has longest taken nothing.
    pub(super) fn stalled(&self) -> Duration {
        let answers = &self.lock().1;
        answers.iter().map(|(_, went_on)| went_on.elapsed()).max().unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (u64, Vec<(u64, Instant)>)> {
        // A list is whole after each change.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answer {
    pub(super) fn new(bytes: Bytes, trailers: Option<HeaderMap>, call: UnderWay, share: Share) -> Self {
        let mut answers = call.0.lock();
        answers.0 += 1;
        let number = answers.0;
        answers.1.push((number, Instant::now()));
        drop(answers);
        Self { left: bytes, trailers, number, call, _share: share }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    /// Asked for when the peer has room for more.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let number = self.number;
        for (known, went_on) in &mut self.call.0.lock().1 {
            if *known == number {
                *went_on = Instant::now();
            }
        }
        let length = self.left.len().min(PART_BYTES);
        if length > 0 {
            return Poll::Ready(Some(Ok(Frame::data(self.left.split_to(length)))));
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty() && self.trailers.is_none()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let number = self.number;
        self.call.0.lock().1.retain(|(known, _)| *known != number);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.count.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_answer_goes_in_parts_and_is_under_way_until_it_has_gone() {
        let calls = Arc::new(Calls::new());
        let whole = Bytes::from(vec![7; PART_BYTES + 3]);
        let trailers = HeaderMap::from_iter([(http::header::TE, http::HeaderValue::from_static("x"))]);
        let mut answer = Answer::new(whole.clone(), Some(trailers.clone()), calls.begin(), None);
        let first = answer.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), PART_BYTES);
        tokio::time::sleep(Duration::from_millis(5)).await;
        assert!(calls.stalled() >= Duration::from_millis(5));
        let collected = answer.collect().await.unwrap();
        assert_eq!(collected.trailers(), Some(&trailers));
        assert_eq!(collected.to_bytes().len(), 3);
        assert_eq!((*calls.count().borrow(), calls.stalled()), (0, Duration::ZERO));
    }
}
