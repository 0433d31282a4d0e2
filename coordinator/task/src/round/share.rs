//! Step 2: every device seals shares of its two seeds for each of its neighbours.

use std::collections::BTreeMap;

use aggregation::{DeviceIndex, IndexSet, SealedShare, digest};
use proto::ids::{DeviceId, Digest, Timestamp};
use proto::message::{Outcome, Rejection, Reply};

use super::advertise::Joined;
use super::masked::MaskedPhase;
use super::{Next, Phase, PhaseName, RoundParams, end, places, unacceptable, wrong};
use crate::spool::Spool;

#[derive(Debug)]
pub(super) struct SharePhase {
    pub(super) joined: Joined,
    deadline: Timestamp,
    /// The hash of what each device sent.
    sent: BTreeMap<DeviceIndex, Digest>,
    /// By the place of the device that can open them.
    inboxes: Vec<Vec<SealedShare>>,
}

impl SharePhase {
    pub(super) fn new(joined: Joined, deadline: Timestamp) -> Self {
        let inboxes = vec![Vec::new(); joined.roster.len()];
        Self { joined, deadline, sent: BTreeMap::new(), inboxes }
    }

    pub(super) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Devices that have shared.
    pub(super) fn shared(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn accept(&mut self, from: DeviceId, shares: Vec<SealedShare>) -> Result<(), Rejection> {
        let index = self.joined.index(from)?;
        let hash = hash(&shares);
        if let Some(earlier) = self.sent.get(&index) {
            return if *earlier == hash { Ok(()) } else { Err(Rejection::Equivocation("share keys".into())) };
        }
        let wanted = self.joined.roster.graph().neighbors(index);
        let to: Vec<DeviceIndex> = shares.iter().map(|share| share.to.into()).collect();
        if to != wanted || shares.iter().any(|share| index != share.from) {
            let why = format!("expected one share for each of {} neighbours, in order", wanted.len());
            return Err(unacceptable("share keys", &why));
        }
        for share in shares {
            self.inboxes[usize::from(share.to)].push(share);
        }
        self.sent.insert(index, hash);
        Ok(())
    }

    pub(super) fn next(
        self: Box<Self>,
        params: &RoundParams,
        spool: &mut Option<Box<dyn Spool>>,
        now: Timestamp,
    ) -> Next {
        let roster_len = self.joined.roster.len();
        if self.sent.len() < roster_len && now < self.deadline {
            return Next::Stay(Phase::Share(self));
        }
        if self.sent.len() < params.report_goal {
            return end(Outcome::TooFewShared, self.joined.devices, Vec::new());
        }
        let sharers = places(roster_len, self.sent.keys());
        let shared = Shared { joined: self.joined, sharers, sent: self.sent, inboxes: self.inboxes };
        let devices = shared.joined.devices.clone();
        let deadline = now.plus_millis(params.step_millis);
        let masked = spool.take().map(|spool| MaskedPhase::new(shared, params, spool, deadline));
        match masked {
            Some(Ok(masked)) => Next::To(Phase::Masked(Box::new(masked)), Vec::new()),
            Some(Err(_)) | None => end(Outcome::Stopped, devices, Vec::new()),
        }
    }
}

/// What step 2 leaves behind.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) joined: Joined,
    pub(super) sharers: IndexSet,
    sent: BTreeMap<DeviceIndex, Digest>,
    inboxes: Vec<Vec<SealedShare>>,
}

impl Shared {
    /// The place of a device that shared.
    pub(super) fn sharer(&self, from: DeviceId, request: &'static str) -> Result<DeviceIndex, Rejection> {
        let index = self.joined.index(from)?;
        let shared = self.sharers.contains(index);
        if shared { Ok(index) } else { Err(wrong(request, PhaseName::Masked)) }
    }

    pub(super) fn repeat(&self, from: DeviceId, shares: &[SealedShare]) -> Result<Reply, Rejection> {
        let index = self.sharer(from, "share keys")?;
        if self.sent.get(&index) != Some(&hash(shares)) {
            return Err(Rejection::Equivocation("share keys".into()));
        }
        let shares = self.inboxes[usize::from(index)].clone();
        Ok(Reply::Inbox { sharers: self.sharers.clone(), shares })
    }
}

fn hash(shares: &[SealedShare]) -> Digest {
    let ends: Vec<[u8; 4]> = shares.iter().map(ends).collect();
    let parts = shares.iter().zip(&ends).flat_map(|(share, ends)| [&ends[..], &share.bytes]);
    Digest(digest("shares", &parts.collect::<Vec<_>>()))
}

/// From whom and for whom.
fn ends(share: &SealedShare) -> [u8; 4] {
    let ([a, b], [c, d]) = (share.from.to_be_bytes(), share.to.to_be_bytes());
    [a, b, c, d]
}
