//! Between steps 1 and 2, for a large cohort: the order of the graph's ring is drawn from a nonce of every device.
//!
//! A draw needs the nonces of all of its cohort. When some do not come, a further draw begins without those
//! devices; a session has only so many. Where too few are left to draw a graph for, the round ends: whoever gave a
//! nonce shares in no complete graph, and a new session has one.

use std::collections::BTreeMap;

use aggregation::{Advertisement, DeviceIndex, Draw, MAX_COMPLETE, Roster, TreeHash};
use proto::ids::{DeviceId, Timestamp};
use proto::message::{Outcome, Rejection, Reply};

use super::advertise::{Joined, same_entry};
use super::share::SharePhase;
use super::{Next, Phase, RoundParams, end, unacceptable};

#[derive(Debug)]
pub(super) struct DrawPhase {
    draw: Draw,
    listed: Vec<TreeHash>,
    deadline: Timestamp,
    /// When as many as the report goal had opened their commitments.
    reached: Option<Timestamp>,
    nonces: BTreeMap<DeviceIndex, [u8; 32]>,
}

impl DrawPhase {
    pub(super) fn deadline(&self, params: &RoundParams) -> Timestamp {
        // Whoever is only between two questions has not vanished.
        let grace = params.grace_millis.max(params.poll_millis.saturating_mul(8));
        let grace_over = self.reached.map(|reached| reached.plus_millis(grace));
        grace_over.map_or(self.deadline, |over| over.min(self.deadline))
    }

    pub(super) fn members(&self) -> Vec<DeviceId> {
        self.draw.entries().iter().map(|entry| DeviceId(entry.credential.device)).collect()
    }

    pub(super) fn has(&self, device: DeviceId) -> bool {
        self.draw.entries().iter().any(|entry| entry.credential.device == device.0)
    }

    /// Devices that advertised.
    pub(super) fn joined(&self) -> usize {
        self.draw.entries().len()
    }

    /// Devices whose nonce has come.
    pub(super) fn drawn(&self) -> usize {
        self.nonces.len()
    }

    /// Gives an answer where there is one already.
    pub(super) fn accept(
        &mut self,
        from: DeviceId,
        nonce: [u8; 32],
        params: &RoundParams,
        now: Timestamp,
    ) -> Result<Option<Reply>, Rejection> {
        let index = self.index(from)?;
        if self.draw.opens(index, &nonce) {
            self.nonces.insert(index, nonce);
            if self.nonces.len() >= params.report_goal && self.reached.is_none() {
                self.reached = Some(now);
            }
            return Ok(None);
        }
        if self.draw.attempt() > 0 {
            // What it said to an earlier draw, whose answer is the roster of this one.
            let entries = self.draw.entries().to_vec();
            return Ok(Some(Reply::Roster { entries, listed: self.listed.clone() }));
        }
        Err(unacceptable("draw", &"the nonce is not what the device committed to"))
    }

    pub(super) fn repeat(&self, from: DeviceId, advertisement: &Advertisement) -> Result<Reply, Rejection> {
        same_entry((self.draw.entries(), &self.listed), self.index(from)?, advertisement)
    }

    pub(super) fn next(self: Box<Self>, params: &RoundParams, now: Timestamp) -> Next {
        let everybody = self.nonces.len() == self.draw.entries().len();
        if !everybody && now < self.deadline(params) {
            return Next::Stay(Phase::Draw(self));
        }
        let members = self.members();
        if !everybody {
            let took_part = |index: u16| self.nonces.contains_key(&index.into());
            let entries = (0..).zip(self.draw.entries()).filter(|(index, _)| took_part(*index));
            let entries = entries.map(|(_, entry)| entry.clone()).collect();
            return cohort(entries, self.draw.attempt() + 1, members, params, now);
        }
        let nonces: Vec<[u8; 32]> = self.nonces.into_values().collect();
        match self.draw.finish(&nonces) {
            Ok(roster) => share((roster, self.listed), nonces, members, params, now),
            Err(_) => end(Outcome::NotDrawn, members, Vec::new()),
        }
    }

    fn index(&self, from: DeviceId) -> Result<DeviceIndex, Rejection> {
        self.draw.index_of(&from.0).ok_or(Rejection::NotInRoster)
    }
}

/// Goes on with these devices: to draw number `attempt`, or, where everybody shares with everybody, without one.
pub(super) fn cohort(
    entries: Vec<Advertisement>,
    attempt: u8,
    members: Vec<DeviceId>,
    params: &RoundParams,
    now: Timestamp,
) -> Next {
    if entries.len() < params.report_goal {
        let outcome = if attempt == 0 { Outcome::TooFewJoined } else { Outcome::NotDrawn };
        return end(outcome, members, Vec::new());
    }
    let listed = params.log.as_ref().map_or_else(Vec::new, |log| log.list(&entries));
    if entries.len() <= MAX_COMPLETE && attempt == 0 {
        let devices = entries.iter().map(|entry| DeviceId(entry.credential.device)).collect();
        return match Roster::new(entries) {
            Ok(roster) => share((roster, listed), Vec::new(), devices, params, now),
            // Two devices with one key: nobody can tell which of them lies.
            Err(_) => end(Outcome::TooFewJoined, members, Vec::new()),
        };
    }
    match Draw::new(&params.context, entries, attempt) {
        Ok(draw) => {
            let deadline = now.plus_millis(params.step_millis);
            let phase = DrawPhase { draw, listed, deadline, reached: None, nonces: BTreeMap::new() };
            Next::To(Phase::Draw(Box::new(phase)), Vec::new())
        }
        Err(_) => end(Outcome::NotDrawn, members, Vec::new()),
    }
}

/// Goes on to step 2. `devices` are those of the roster, in its order.
fn share(
    (roster, listed): (Roster, Vec<TreeHash>),
    nonces: Vec<[u8; 32]>,
    mut devices: Vec<DeviceId>,
    params: &RoundParams,
    now: Timestamp,
) -> Next {
    devices.sort_unstable();
    let joined = Joined { roster, devices, nonces, listed };
    let phase = SharePhase::new(joined, now.plus_millis(params.step_millis));
    Next::To(Phase::Share(Box::new(phase)), Vec::new())
}
