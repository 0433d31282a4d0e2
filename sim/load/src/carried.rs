//! What a connection carried.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use client::transport::Transport;

use crate::common::Common;

/// The bytes of a connection, which count also where its device is not waited for any more.
pub(crate) struct Carried {
    common: Arc<Common>,
    sent: Arc<AtomicU64>,
    all: Arc<AtomicU64>,
}

impl Carried {
    pub(crate) fn new(common: &Arc<Common>, transport: &Transport) -> Self {
        Self { common: Arc::clone(common), sent: transport.sent(), all: transport.carried() }
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        let (sent, all) = (self.sent.load(Ordering::Relaxed), self.all.load(Ordering::Relaxed));
        let mut tally = self.common.tally();
        tally.sent_bytes += sent;
        tally.received_bytes += all.saturating_sub(sent);
    }
}
