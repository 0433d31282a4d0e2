//! Copies of requests that are still on their way when their devices have gone on: what arrives late, and out of order.

use std::collections::BTreeMap;

use proto::ids::Timestamp;

use super::wire::request_of;
use super::{Leg, World};

/// Copies by when they arrive, and of those that arrive together in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Copies {
    made: u64,
    on_their_way: BTreeMap<(Timestamp, u64), (usize, Vec<u8>)>,
}

impl Copies {
    /// Nobody answers a copy: its device does not wait for it any more.
    pub(super) fn add(&mut self, device: usize, at: Timestamp, bytes: Vec<u8>) {
        self.made += 1;
        self.on_their_way.insert((at, self.made), (device, bytes));
    }

    /// When the next one arrives.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.on_their_way.first_key_value().map(|((at, _), _)| *at)
    }

    fn take(&mut self, now: Timestamp) -> Option<(usize, Vec<u8>)> {
        let first = self.on_their_way.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }
}

impl World {
    /// Lets the copies arrive that are there now. Returns whether there was any.
    pub(super) fn copies_arrive(&mut self) -> bool {
        let mut came = false;
        while let Some((index, mut bytes)) = self.copies.take(self.agenda.now()) {
            came = true;
            self.network.touches(index, Leg::Copy, &mut bytes, &mut self.rng);
            let Some(request) = request_of(&bytes) else { continue };
            if self.is_there() {
                drop(self.ask_task(index, request));
                self.notice();
            }
        }
        came
    }
}
