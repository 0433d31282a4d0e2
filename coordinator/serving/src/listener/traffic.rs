//! What comes in and goes out at a listener, counted.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted since the start, but for connections, which are those that are open now.
#[derive(Debug, Default)]
pub struct Traffic {
    connections: AtomicU64,
    named: AtomicU64,
    calls: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// What was counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Connections that are open.
    pub connections: u64,
    /// Those of them whose peer showed a certificate that is good.
    pub named: u64,
    /// Calls whose message was read.
    pub calls: u64,
    /// Bytes of messages.
    pub received_bytes: u64,
    /// Bytes of answers.
    pub sent_bytes: u64,
}

impl Traffic {
    /// So many connections are open, and so many of them named.
    pub(super) fn open(&self, connections: usize, named: usize) {
        self.connections.store(connections as u64, Ordering::Relaxed);
        self.named.store(named as u64, Ordering::Relaxed);
    }

    /// A message of so many bytes was read.
    pub(super) fn received(&self, bytes: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// An answer of so many bytes goes out.
    pub(super) fn sends(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// What was counted.
    pub fn counted(&self) -> Counted {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counted {
            connections: read(&self.connections),
            named: read(&self.named),
            calls: read(&self.calls),
            received_bytes: read(&self.received_bytes),
            sent_bytes: read(&self.sent_bytes),
        }
    }
}
