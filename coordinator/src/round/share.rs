//! Step 2: every device seals shares of its two seeds for every other device.

use std::collections::{BTreeMap, BTreeSet};

use aggregation::{IndexSet, SealedShare};
use proto::ids::{DeviceId, Timestamp};
use proto::message::{Outcome, Rejection, Reply};

use super::advertise::Joined;
use super::masked::MaskedPhase;
use super::{Next, Phase, RoundParams, end, places, unacceptable};

#[derive(Debug)]
pub(super) struct SharePhase {
    pub(super) joined: Joined,
    deadline: Timestamp,
    sent: BTreeMap<u16, Vec<SealedShare>>,
}

impl SharePhase {
    pub(super) fn new(joined: Joined, deadline: Timestamp) -> Self {
        Self { joined, deadline, sent: BTreeMap::new() }
    }

    pub(super) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    pub(super) fn accept(&mut self, from: DeviceId, shares: Vec<SealedShare>) -> Result<(), Rejection> {
        let index = self.joined.index(from)?;
        if let Some(earlier) = self.sent.get(&index) {
            let same = *earlier == shares;
            return if same { Ok(()) } else { Err(Rejection::Equivocation("share keys".into())) };
        }
        let wanted = self.joined.roster.len() - 1;
        let to: BTreeSet<u16> = shares.iter().map(|share| share.to).collect();
        let in_roster = |i: &u16| usize::from(*i) < self.joined.roster.len() && *i != index;
        let complete = shares.len() == wanted && to.len() == wanted && to.iter().all(in_roster);
        if !complete || shares.iter().any(|share| share.from != index) {
            let why = format!("expected one share for each of {wanted} other devices");
            return Err(unacceptable("share keys", &why));
        }
        self.sent.insert(index, shares);
        Ok(())
    }

    pub(super) fn next(self: Box<Self>, params: &RoundParams, now: Timestamp) -> Next {
        let roster_len = self.joined.roster.len();
        if self.sent.len() < roster_len && now < self.deadline {
            return Next::Stay(Phase::Share(self));
        }
        if self.sent.len() < params.report_goal.max(self.joined.roster.threshold()) {
            return end(Outcome::TooFewShared, self.joined.devices, Vec::new());
        }
        let sharers = places(roster_len, self.sent.keys());
        let shared = Shared { joined: self.joined, sharers, sent: self.sent };
        let devices = shared.joined.devices.clone();
        match MaskedPhase::new(shared, params, now.plus_millis(params.step_millis)) {
            Ok(masked) => Next::To(Phase::Masked(Box::new(masked)), Vec::new()),
            Err(_) => end(Outcome::Stopped, devices, Vec::new()),
        }
    }
}

/// What step 2 leaves behind.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) joined: Joined,
    pub(super) sharers: IndexSet,
    sent: BTreeMap<u16, Vec<SealedShare>>,
}

impl Shared {
    /// The place of a device that shared.
    pub(super) fn sharer(&self, from: DeviceId, request: &'static str) -> Result<u16, Rejection> {
        let index = self.joined.index(from)?;
        let shared = self.sharers.contains(index);
        if shared {
            Ok(index)
        } else {
            Err(Rejection::WrongPhase { request: request.into(), phase: "masked input".into() })
        }
    }

    pub(super) fn repeat(&self, from: DeviceId, shares: &[SealedShare]) -> Result<Reply, Rejection> {
        let index = self.sharer(from, "share keys")?;
        if self.sent.get(&index).is_none_or(|earlier| earlier != shares) {
            return Err(Rejection::Equivocation("share keys".into()));
        }
        let shares = self.sent.values().flatten().filter(|share| share.to == index).cloned().collect();
        Ok(Reply::Inbox { sharers: self.sharers.clone(), shares })
    }
}
