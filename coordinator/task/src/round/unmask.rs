//! Step 5: shares of the survivors' own-mask seeds and of the missing devices' key seeds open the sum.
//!
//! The phase takes answers and says when an attempt to open the sum is due. It does not open it: that is an
//! [`Opening`], which is out of the phase while it runs.

use aggregation::{
    DeviceIndex, Further, Lacking, Recovery, RecoveryError, RunningSum, UnmaskError, UnmaskShares,
};
use proto::ids::{DeviceId, Digest, SessionId, Timestamp};
use proto::message::{Outcome, Rejection};

use super::agree::Agreed;
use super::opening::{Opened, Opening, What};
use super::{Effect, Next, Phase, RoundParams, end, unacceptable};

/// How often it is tried to open a sum while answers may still come. With 256 answers that double the shares to
/// spare each time, one seed that resists is tried 8 times; ever new ones may not make it more than this.
const MOST_ATTEMPTS: u32 = 16;

#[derive(Debug)]
pub(super) struct UnmaskPhase {
    pub(super) agreed: Agreed,
    recovery: Recovery,
    deadline: Timestamp,
    /// Nothing while it is out to be opened.
    sum: Option<RunningSum>,
    attempts: u32,
    /// Whose seed the last attempt could not rebuild, and how many shares it had to spare then.
    lacking: Option<(DeviceIndex, usize)>,
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
        Ok(Self { agreed, recovery, deadline, sum: Some(sum), attempts: 0, lacking: None })
    }

    /// An opening that is under way is waited for.
    pub(super) fn deadline(&self) -> Option<Timestamp> {
        self.sum.as_ref().map(|_| self.deadline)
    }

    pub(super) fn accept(&mut self, from: DeviceId, shares: UnmaskShares) -> Result<(), Rejection> {
        let index = self.agreed.masked.survivor(from)?;
        if let Some(earlier) = self.recovery.answer(index) {
            return if *earlier == shares { Ok(()) } else { Err(Rejection::Equivocation("unmask".into())) };
        }
        if index != shares.from {
            let why = format!("shares of place {} from place {index}", shares.from);
            return Err(unacceptable("unmask", &why));
        }
        self.recovery.accept(shares).map_err(|error| unacceptable("unmask", &error))
    }

    /// Survivors that have answered.
    pub(super) fn answered(&self) -> usize {
        self.agreed.masked.survivors.iter().filter(|place| self.recovery.answer(*place).is_some()).count()
    }

    /// Hands the sum out if an attempt to open it is due and none is under way.
    pub(super) fn take_opening(&mut self, session: SessionId, now: Timestamp) -> Option<Opening> {
        let further = self.due(now)?;
        let sum = self.sum.take()?;
        self.attempts += 1;
        self.lacking = None;
        Some(Opening { session, attempt: self.recovery.attempt(), sum, further })
    }

    /// Takes what came of the opening that is under way.
    pub(super) fn opened(mut self: Box<Self>, opened: Opened) -> Next {
        match opened.what {
            What::Sum(sum) => {
                let survivors = self.agreed.masked.survivors.len();
                let joined = self.agreed.masked.shared.joined;
                let (cohort, roster) = (joined.devices.len(), Digest(joined.roster.root()));
                let publish = Effect::Publish { sum, survivors, cohort, roster };
                end(Outcome::Published, joined.devices, vec![publish])
            }
            What::Lacking(lacking, sum) => {
                let Lacking { owner, spare, found } = *lacking;
                self.recovery.keep(found);
                self.sum = Some(sum);
                self.lacking = Some((owner, spare));
                Next::Stay(Phase::Unmask(self))
            }
            What::Failed(error) => self.not_recovered(&error),
            What::Broken => end(Outcome::Stopped, self.agreed.masked.shared.joined.devices, Vec::new()),
        }
    }

    /// Whether an attempt is due, and whether it is the last. Wrong shares only mean waiting for more: the next
    /// attempt comes when the shares to spare of the seed that resisted have doubled, because each wrong one takes
    /// two of them.
    fn due(&self, now: Timestamp) -> Option<Further> {
        if self.recovery.is_complete() || now >= self.deadline {
            return Some(Further::WontCome);
        }
        let is_due = match &self.lacking {
            None => self.recovery.is_ready(),
            Some((owner, spare)) => {
                self.attempts < MOST_ATTEMPTS && self.recovery.spare(*owner) >= (2 * spare).max(2)
            }
        };
        is_due.then_some(Further::MayCome)
    }

    fn not_recovered(self, error: &UnmaskError) -> Next {
        let joined = self.agreed.masked.shared.joined;
        let exclude = |place| Effect::Exclude { device: joined.device(place), why: error.to_string() };
        let effects = error.culprit().map(exclude).into_iter().collect();
        end(Outcome::NotRecovered, joined.devices, effects)
    }
}
