//! One message, read whole before it is decoded, within what its sender may send and what memory is left.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body;
use proto::message::Rejection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::turned_away::Reason;

/// How a message begins in gRPC: a byte that says whether it is compressed, and its length, big-endian.
const PREFIX_BYTES: usize = 5;

/// How long a message waits for memory.
const MEMORY_PATIENCE: Duration = Duration::from_secs(5);

/// How long a peer may be silent in the middle of a message.
const STALL: Duration = Duration::from_secs(10);

/// A message that is no longer takes none of the shared memory: a check-in never waits for others' uploads.
const SMALL_BYTES: usize = 4 << 10;

/// Memory is taken in such steps, as bytes come: who only claims a long message takes next to nothing.
const STEP_BYTES: usize = 64 << 10;

/// What messages may take of memory together, those of a listener.
pub(super) type Memory = Arc<Semaphore>;

/// A part of the memory, until it is dropped.
pub(super) type Share = Option<OwnedSemaphorePermit>;

/// A message and its share of the memory.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) bytes: Bytes,
    pub(super) share: Share,
}

/// Why there is no message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unread {
    /// `None` where the peer itself broke off.
    pub(super) reason: Option<Reason>,
    pub(super) rejection: Rejection,
}

/// Reads the one message of a call. Its length is known by its first five bytes: nothing more than the message is read,
/// nothing where that is over `limit`, and memory is taken as it comes.
pub(super) async fn read<B>(mut body: B, limit: usize, memory: Option<&Memory>) -> Result<Whole, Unread>
where
    B: Body<Data = Bytes> + Unpin,
{
    let mut bytes = BytesMut::new();
    let mut expected = None;
    let (mut share, mut taken) = (None, SMALL_BYTES);
    loop {
        if expected.is_none()
            && let Some(prefix) = bytes.first_chunk::<PREFIX_BYTES>()
        {
            let [_, length @ ..] = *prefix;
            let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
            if length > limit {
                return Err(too_large(length, limit));
            }
            expected = Some(PREFIX_BYTES + length);
        }
        if expected.is_some_and(|expected| bytes.len() > expected) {
            return Err(malformed("more than one message came with the call"));
        }
        let frame = timeout(STALL, body.frame()).await.map_err(|_| too_slow(STALL))?;
        match frame {
            None => return Ok(Whole { bytes: bytes.freeze(), share }),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    while bytes.len() + data.len() > taken {
                        merge(&mut share, take(memory, STEP_BYTES, MEMORY_PATIENCE).await?);
                        taken += STEP_BYTES;
                    }
                    // A frame is no larger than the window that the peer was given.
                    bytes.extend_from_slice(&data);
                }
            }
            Some(Err(_)) => return Err(malformed("the connection broke off")),
        }
    }
}

/// Takes memory for an answer of so many bytes.
pub(super) async fn take_for_answer(memory: &Memory, length: usize) -> Result<Share, Unread> {
    if length <= SMALL_BYTES {
        return Ok(None);
    }
    take(Some(memory), length, MEMORY_PATIENCE).await
}

fn merge(share: &mut Share, more: Share) {
    match (share.as_mut(), more) {
        (Some(share), Some(more)) => share.merge(more),
        (None, more) => *share = more,
        (Some(_), None) => {}
    }
}

/// A message that was not complete in time.
pub(super) fn too_slow(limit: Duration) -> Unread {
    let why = format!("the message was not complete within {} s", limit.as_secs());
    Unread { reason: Some(Reason::TooSlow), rejection: Rejection::Unavailable(why) }
}

async fn take(memory: Option<&Memory>, length: usize, patience: Duration) -> Result<Share, Unread> {
    let Some(memory) = memory else { return Ok(None) };
    let bytes = u32::try_from(length).unwrap_or(u32::MAX);
    match timeout(patience, Arc::clone(memory).acquire_many_owned(bytes)).await {
        Ok(Ok(share)) => Ok(Some(share)),
        Ok(Err(_)) | Err(_) => Err(Unread {
            reason: Some(Reason::NoMemory),
            rejection: Rejection::Unavailable("too many messages are under way; ask again later".to_owned()),
        }),
    }
}

fn too_large(length: usize, limit: usize) -> Unread {
    let why = format!("it has {length} bytes, this peer may send {limit}");
    Unread {
        reason: Some(Reason::TooLarge),
        rejection: Rejection::Malformed { what: Cow::Borrowed("message"), why },
    }
}

fn malformed(why: &str) -> Unread {
    let rejection = Rejection::Malformed { what: Cow::Borrowed("message"), why: why.to_owned() };
    Unread { reason: None, rejection }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    fn message(length: u32, content: usize) -> Full<Bytes> {
        let mut bytes = vec![0];
        bytes.extend(length.to_be_bytes());
        bytes.resize(PREFIX_BYTES + content, 7);
        Full::new(bytes.into())
    }

    #[tokio::test]
    async fn a_message_takes_memory_as_it_comes_and_until_it_is_dropped() {
        let memory = Arc::new(Semaphore::new(4 * STEP_BYTES));
        let long = u32::try_from(3 * STEP_BYTES).unwrap();
        let whole = read(message(long, 3 * STEP_BYTES), 1 << 20, Some(&memory)).await.unwrap();
        assert_eq!(whole.bytes.len(), PREFIX_BYTES + 3 * STEP_BYTES);
        assert_eq!(memory.available_permits(), STEP_BYTES);
        drop(whole);
        // Who claims as much and sends little takes nothing.
        let claimed = read(message(long, 10), 1 << 20, Some(&memory)).await.unwrap();
        assert_eq!((claimed.bytes.len(), memory.available_permits()), (PREFIX_BYTES + 10, 4 * STEP_BYTES));
    }

    #[tokio::test]
    async fn a_short_message_waits_for_no_memory() {
        let memory = Arc::new(Semaphore::new(0));
        assert!(read(message(100, 100), 1 << 20, Some(&memory)).await.is_ok());
        assert!(take_for_answer(&memory, 100).await.is_ok());
    }

    #[tokio::test]
    async fn a_length_over_the_limit_is_refused_before_anything_else_comes() {
        let unread = read(message(81, 0), 80, None).await.unwrap_err();
        assert_eq!(unread.reason, Some(Reason::TooLarge));
        assert_eq!(unread.rejection.to_string(), "malformed message: it has 81 bytes, this peer may send 80");
    }

    #[tokio::test]
    async fn what_comes_after_the_message_is_not_kept() {
        let unread = read(message(3, 4), 80, None).await.unwrap_err();
        assert!(unread.rejection.to_string().contains("more than one message"));
    }

    #[tokio::test]
    async fn a_message_waits_for_memory_but_not_for_ever() {
        let memory = Arc::new(Semaphore::new(100));
        let first = take(Some(&memory), 60, MEMORY_PATIENCE).await.unwrap();
        let unread = take(Some(&memory), 60, Duration::from_millis(10)).await.unwrap_err();
        assert_eq!(unread.reason, Some(Reason::NoMemory));
        drop(first);
        take(Some(&memory), 60, MEMORY_PATIENCE).await.unwrap();
    }
}
