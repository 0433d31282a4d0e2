//! What a peer may hold of a coordinator, by who it is.

use std::num::NonZeroU32;
use std::time::Duration;

use proto::message::MAX_MESSAGE_BYTES;

use crate::peer::Peer;

/// What framing may add to a message.
const HEADROOM_BYTES: usize = 64 << 10;

/// The largest message of a device, and to one.
pub(crate) const MAX_DEVICE_BYTES: usize = MAX_MESSAGE_BYTES + HEADROOM_BYTES;

/// The largest message between an operator and the coordinator: frozen factors of 2²⁴ numbers and a plan.
pub(crate) const MAX_ADMIN_BYTES: usize = (64 << 20) + MAX_DEVICE_BYTES;

/// The largest message of a peer without a certificate: a token, a key and a signing request.
const MAX_ANONYMOUS_BYTES: usize = 16 << 10;

/// Connections of one device or one operator; a newer one takes the place of the oldest.
pub(super) const CONNECTIONS_A_NAME: usize = 2;

/// Calls that a device may make at once, after which it is answered at [`CALLS_A_SECOND`]: what an artefact of 256 MiB
/// takes, and a round.
pub(super) const CALLS_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(1023);

/// Calls of one device that are answered in a second in the long run: some 50 MiB of chunks.
pub(super) const CALLS_A_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// What one connection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Calls under way.
    pub(super) streams: u32,
    /// Bytes of a message.
    pub(super) message_bytes: usize,
    /// How long a message may take to come.
    pub(super) message_time: Duration,
    /// Bytes that come ahead of being asked for, for each call and the connection.
    pub(super) window_bytes: u32,
    /// Bytes of an answer that wait for the peer to take them, for each call.
    pub(super) send_bytes: usize,
    /// How long it may lie idle before it is closed in order.
    pub(super) idle: Duration,
    /// How long it lives at most, less a part that is drawn, before it is closed in order.
    pub(super) age: Duration,
    /// How long calls under way have to end once it is closed in order.
    pub(super) grace: Duration,
}

impl Allowance {
    pub(super) fn of(peer: &Peer) -> Self {
        match peer {
            Peer::Anonymous => Self {
                streams: 1,
                message_bytes: MAX_ANONYMOUS_BYTES,
                message_time: Duration::from_secs(10),
                // The least that HTTP/2 knows.
                window_bytes: (1 << 16) - 1,
                send_bytes: 64 << 10,
                idle: Duration::from_secs(10),
                age: Duration::from_secs(20),
                grace: Duration::from_secs(5),
            },
            Peer::Device(_) => Self {
                streams: 4,
                message_bytes: MAX_DEVICE_BYTES,
                // As long as a device waits for its answer.
                message_time: Duration::from_secs(60),
                window_bytes: 1 << 18,
                send_bytes: 256 << 10,
                idle: Duration::from_secs(90),
                age: Duration::from_secs(20 * 60),
                grace: Duration::from_secs(60),
            },
            Peer::Admin(_) => Self {
                streams: 8,
                message_bytes: MAX_ADMIN_BYTES,
                message_time: Duration::from_secs(120),
                window_bytes: 1 << 20,
                send_bytes: 1 << 20,
                idle: Duration::from_secs(10 * 60),
                age: Duration::from_secs(60 * 60),
                grace: Duration::from_secs(60),
            },
        }
    }
}
