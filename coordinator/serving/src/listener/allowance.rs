//! What a peer may hold of a coordinator, by who it is.

use std::num::NonZeroU32;
use std::time::Duration;

use proto::message::MAX_MESSAGE_BYTES;

use crate::peer::Peer;

/// What framing may add to a message.
const HEADROOM_BYTES: usize = 64 << 10;

/// The largest message of a device, and to one.
pub const MAX_DEVICE_BYTES: usize = MAX_MESSAGE_BYTES + HEADROOM_BYTES;

/// The largest message between an operator and the coordinator: frozen factors of 2²⁴ numbers and a plan.
pub const MAX_ADMIN_BYTES: usize = (64 << 20) + MAX_DEVICE_BYTES;

/// The largest message of a peer without a certificate: a token, a key and a signing request.
const MAX_ANONYMOUS_BYTES: usize = 16 << 10;

/// The largest message of a coordinator to an enrollment authority: what a device sent without a certificate, and a little.
const MAX_COORDINATOR_BYTES: usize = 4 * MAX_ANONYMOUS_BYTES;

/// Connections of one device; a newer one takes the place of the oldest.
const CONNECTIONS_A_DEVICE: usize = 2;

/// Connections of one operator, of whom several may go by one name; a newer one takes the place of the oldest.
const CONNECTIONS_AN_OPERATOR: usize = 8;

/// All that a connection without a certificate may send: a few times what an enrolment takes.
const MAX_ANONYMOUS_SENT: u64 = 128 << 10;

/// Calls that a device may make at once, after which it is answered at [`CALLS_A_SECOND`]: what an artefact of 256 MiB
/// takes, and a round.
pub(super) const CALLS_AT_ONCE: NonZeroU32 = NonZeroU32::MIN.saturating_add(1023);

/// Calls of one device that are answered in a second in the long run: some 50 MiB of chunks.
pub(super) const CALLS_A_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// What one connection may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    /// Connections of one name.
    pub(super) connections: usize,
    /// All bytes that it may send.
    pub(super) sent_bytes: u64,
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
                connections: usize::MAX,
                sent_bytes: MAX_ANONYMOUS_SENT,
                streams: 1,
                message_bytes: MAX_ANONYMOUS_BYTES,
                message_time: Duration::from_secs(10),
                // The least that HTTP/2 knows.
                window_bytes: (1 << 16) - 1,
                send_bytes: 64 << 10,
                idle: Duration::from_secs(10),
                // With two seconds for the first byte, five for the handshake and these five: less than thirty.
                age: Duration::from_secs(17),
                grace: Duration::from_secs(5),
            },
            Peer::Device(_) => Self {
                connections: CONNECTIONS_A_DEVICE,
                sent_bytes: u64::MAX,
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
            Peer::Coordinator(_) => Self {
                connections: CONNECTIONS_AN_OPERATOR,
                sent_bytes: u64::MAX,
                streams: 64,
                message_bytes: MAX_COORDINATOR_BYTES,
                message_time: Duration::from_secs(10),
                window_bytes: (1 << 16) - 1,
                send_bytes: 256 << 10,
                idle: Duration::from_secs(10 * 60),
                age: Duration::from_secs(60 * 60),
                grace: Duration::from_secs(10),
            },
            Peer::Admin(_) => Self {
                connections: CONNECTIONS_AN_OPERATOR,
                sent_bytes: u64::MAX,
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
