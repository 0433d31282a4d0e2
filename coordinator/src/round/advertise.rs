//! Step 1: devices that have finished training advertise one-time keys.

use std::collections::BTreeMap;

use aggregation::{Advertisement, Roster};
use proto::ids::{DeviceId, Timestamp};
use proto::message::{Outcome, Rejection, Reply};

use super::share::SharePhase;
use super::{Next, Phase, RoundParams, end, unacceptable};

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
        if let Some(earlier) = self.advertisements.get(&from) {
            let same = *earlier == advertisement;
            return if same { Ok(()) } else { Err(Rejection::Equivocation("advertise".into())) };
        }
        if advertisement.credential.device != from.0 {
            return Err(unacceptable("advertise", &"the credential is another device's"));
        }
        advertisement
            .verify(&params.context, &params.authority, now.as_secs())
            .map_err(|error| unacceptable("advertise", &error))?;
        self.advertisements.insert(from, advertisement);
        Ok(())
    }

    pub(super) fn next(self, params: &RoundParams, now: Timestamp) -> Next {
        let full = self.advertisements.len() >= params.cohort;
        if !full && now < self.deadline {
            return Next::Stay(Phase::Advertise(self));
        }
        let devices = self.members();
        if devices.len() < params.report_goal {
            return end(Outcome::TooFewJoined, devices, Vec::new());
        }
        match Roster::new(self.advertisements.into_values().collect()) {
            Ok(roster) => {
                let deadline = now.plus_millis(params.step_millis);
                let share = SharePhase::new(Joined { roster, devices }, deadline);
                Next::To(Phase::Share(Box::new(share)), Vec::new())
            }
            // Two devices with one key: nobody can tell which of them lies.
            Err(_) => end(Outcome::TooFewJoined, devices, Vec::new()),
        }
    }
}

/// What step 1 leaves behind.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) roster: Roster,
    /// In roster order.
    pub(super) devices: Vec<DeviceId>,
}

impl Joined {
    pub(super) fn index(&self, device: DeviceId) -> Result<u16, Rejection> {
        self.roster.index_of(&device.0).map(u16::from).ok_or(Rejection::NotInRoster)
    }

    pub(super) fn device(&self, index: u16) -> DeviceId {
        self.devices[usize::from(index)]
    }

    pub(super) fn repeat(&self, from: DeviceId, advertisement: &Advertisement) -> Result<Reply, Rejection> {
        let index = self.index(from)?;
        let entries = self.roster.entries();
        if entries[usize::from(index)] == *advertisement {
            Ok(Reply::Roster(entries.to_vec()))
        } else {
            Err(Rejection::Equivocation("advertise".into()))
        }
    }
}
