//! Step 1: devices that have finished training advertise one-time keys.

use std::collections::BTreeMap;

use aggregation::{Advertisement, DeviceIndex, MAX_DRAWS, Roster, TreeHash};
use proto::ids::{DeviceId, Timestamp};
use proto::message::{Rejection, Reply};

use super::draw::cohort;
use super::{Next, Phase, PhaseName, RoundParams, unacceptable, wrong};

#[derive(Debug)]
pub(super) struct AdvertisePhase {
    deadline: Timestamp,
    advertisements: BTreeMap<DeviceId, Advertisement>,
}

impl AdvertisePhase {
    pub(super) fn new(deadline: Timestamp) -> Self {
        Self { deadline, advertisements: BTreeMap::new() }
    }

    pub(super) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    pub(super) fn joined(&self) -> usize {
        self.advertisements.len()
    }

    pub(super) fn has(&self, device: DeviceId) -> bool {
        self.advertisements.contains_key(&device)
    }

    pub(super) fn members(&self) -> Vec<DeviceId> {
        self.advertisements.keys().copied().collect()
    }

    pub(super) fn accept(
        &mut self,
        from: DeviceId,
        advertisement: Advertisement,
        params: &RoundParams,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        if self.advertisements.get(&from) == Some(&advertisement) {
            return Ok(());
        }
        if advertisement.credential.device != from.0 {
            return Err(unacceptable("advertise", &"the credential is another device's"));
        }
        // The neighbours look at it later: a credential must last until they have.
        let steps = 1 + u64::from(MAX_DRAWS);
        let then =
            now.plus_millis(params.join_millis.saturating_add(steps.saturating_mul(params.step_millis)));
        advertisement
            .verify(&params.context, &params.authority, then.as_secs())
            .map_err(|error| unacceptable("advertise", &error))?;
        if params.log.as_ref().is_some_and(|log| !log.has(&advertisement.credential)) {
            let why = "the device enrolled, or renewed, after the head of the enrollment log that this round is about; it \
                       takes part in a later one";
            return Err(unacceptable("advertise", &why));
        }
        let others = self.advertisements.iter().filter(|(device, _)| **device != from);
        if others.into_iter().any(|(_, other)| advertisement.clashes_with(other)) {
            return Err(unacceptable(
                "advertise",
                &"another device has the same identity or one of its keys",
            ));
        }
        // A device that was restarted comes with fresh keys: while the roster is open they take the old ones' place.
        self.advertisements.insert(from, advertisement);
        Ok(())
    }

    pub(super) fn next(self, params: &RoundParams, now: Timestamp) -> Next {
        let full = self.advertisements.len() >= params.cohort;
        if !full && now < self.deadline {
            return Next::Stay(Phase::Advertise(self));
        }
        let devices = self.members();
        cohort(self.advertisements.into_values().collect(), 0, devices, params, now)
    }
}

/// What step 1 leaves behind.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) roster: Roster,
    /// In roster order.
    pub(super) devices: Vec<DeviceId>,
    /// Of the draw of the graph, in roster order; none where everybody shares with everybody.
    pub(super) nonces: Vec<[u8; 32]>,
    /// What shows that they are in the enrollment log, if there is one.
    pub(super) listed: Vec<TreeHash>,
}

impl Joined {
    pub(super) fn index(&self, device: DeviceId) -> Result<DeviceIndex, Rejection> {
        self.roster.index_of(&device.0).ok_or(Rejection::NotInRoster)
    }

    pub(super) fn device(&self, index: DeviceIndex) -> DeviceId {
        self.devices[usize::from(index)]
    }

    pub(super) fn repeat(&self, from: DeviceId, advertisement: &Advertisement) -> Result<Reply, Rejection> {
        same_entry((self.roster.entries(), &self.listed), self.index(from)?, advertisement)
    }

    /// To a nonce that came before: all of them.
    pub(super) fn repeat_draw(&self, from: DeviceId, nonce: [u8; 32]) -> Result<Reply, Rejection> {
        let index = self.index(from)?;
        match self.nonces.get(usize::from(index)) {
            Some(drawn) if *drawn == nonce => Ok(Reply::Drawn(self.nonces.clone())),
            Some(_) => Err(Rejection::Equivocation("draw".into())),
            None => Err(wrong("draw", PhaseName::Share)),
        }
    }
}

/// The roster, to a device that asks again with its advertisement in it.
pub(super) fn same_entry(
    (entries, listed): (&[Advertisement], &[TreeHash]),
    index: DeviceIndex,
    advertisement: &Advertisement,
) -> Result<Reply, Rejection> {
    if entries[usize::from(index)] == *advertisement {
        Ok(Reply::Roster { entries: entries.to_vec(), listed: listed.to_vec() })
    } else {
        Err(Rejection::Equivocation("advertise".into()))
    }
}
