//! Step 5: shares of the survivors' own-mask seeds and of the missing devices' key seeds open the sum.

use std::collections::BTreeMap;

use aggregation::{Recovery, RecoveryError, RunningSum, UnmaskShares};
use proto::ids::{DeviceId, Timestamp};
use proto::message::{Outcome, Rejection};

use super::agree::Agreed;
use super::{Effect, Next, Phase, RoundParams, end, unacceptable};

#[derive(Debug)]
pub(super) struct UnmaskPhase {
    pub(super) agreed: Agreed,
    sum: RunningSum,
    recovery: Recovery,
    deadline: Timestamp,
    answered: BTreeMap<u16, UnmaskShares>,
}

impl UnmaskPhase {
    /// Fails where roster, sharers and survivors do not belong together, which earlier steps rule out.
    pub(super) fn new(
        agreed: Agreed,
        sum: RunningSum,
        params: &RoundParams,
        deadline: Timestamp,
    ) -> Result<Self, RecoveryError> {
        let masked = &agreed.masked;
        let recovery = Recovery::new(
            params.context.clone(),
            masked.shared.joined.roster.clone(),
            masked.shared.sharers.clone(),
            masked.survivors.clone(),
        )?;
        Ok(Self { agreed, sum, recovery, deadline, answered: BTreeMap::new() })
    }

    pub(super) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    pub(super) fn accept(&mut self, from: DeviceId, shares: UnmaskShares) -> Result<(), Rejection> {
        let index = self.agreed.masked.survivor(from)?;
        if let Some(earlier) = self.answered.get(&index) {
            return if *earlier == shares { Ok(()) } else { Err(Rejection::Equivocation("unmask".into())) };
        }
        if shares.from != index {
            let why = format!("shares of place {} from place {index}", shares.from);
            return Err(unacceptable("unmask", &why));
        }
        self.recovery.accept(shares.clone()).map_err(|error| unacceptable("unmask", &error))?;
        self.answered.insert(index, shares);
        Ok(())
    }

    /// Opens the sum as soon as every seed is there. Wrong shares only mean waiting for more.
    pub(super) fn next(self: Box<Self>, now: Timestamp) -> Next {
        let survivors = self.agreed.masked.survivors.len();
        let last = now >= self.deadline || self.answered.len() == survivors;
        if !self.recovery.is_ready() && !last {
            return Next::Stay(Phase::Unmask(self));
        }
        let this = *self;
        let joined = this.agreed.masked.shared.joined;
        match this.recovery.finish(this.sum) {
            Ok(sum) => {
                let publish = Effect::Publish { sum, survivors, cohort: joined.devices.len() };
                end(Outcome::Published, joined.devices, vec![publish])
            }
            Err(error) => {
                let exclude = |place| Effect::Exclude {
                    device: joined.device(u16::from(place)),
                    why: error.to_string(),
                };
                let effects = error.culprit().map(exclude).into_iter().collect();
                end(Outcome::NotRecovered, joined.devices, effects)
            }
        }
    }
}
