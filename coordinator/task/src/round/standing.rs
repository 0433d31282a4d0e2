//! Whom the open step of a round waits for, for operators, and how far the round is, for whoever follows it.

use proto::admin::OpenRound;

use super::phase_name::Progress;
use super::{Phase, Round};

impl Round {
    /// Whom the open step waits for; none where the round is over.
    pub fn standing(&self) -> Option<OpenRound> {
        let (done, wanted) = match &self.phase {
            Phase::Advertise(phase) => (phase.members().len(), self.params.cohort),
            Phase::Draw(phase) => (phase.drawn(), phase.members().len()),
            Phase::Share(phase) => (phase.shared(), phase.joined.devices.len()),
            Phase::Masked(phase) => (phase.ended(), phase.shared.sharers.len()),
            Phase::Agree(phase) => (phase.signed(), phase.masked.survivors.len()),
            Phase::Unmask(phase) => (phase.answered(), phase.agreed.masked.survivors.len()),
            Phase::Over { .. } => return None,
        };
        let count = |devices: usize| u32::try_from(devices).unwrap_or(u32::MAX);
        Some(OpenRound {
            round: self.number(),
            joining: self.is_joinable(),
            done: count(done),
            wanted: count(wanted),
            least: count(self.params.report_goal),
            closes_unix_millis: self.poll_timeout().map(|closes| closes.0),
        })
    }

    /// How far it is; none where it is over.
    pub(crate) fn progress(&self) -> Option<Progress> {
        let (joined, shared, survivors) = match &self.phase {
            Phase::Advertise(phase) => (phase.joined(), None, None),
            Phase::Draw(phase) => (phase.joined(), None, None),
            Phase::Share(phase) => (phase.joined.devices.len(), Some(phase.shared()), None),
            Phase::Masked(phase) => {
                let shared = &phase.shared;
                (shared.joined.devices.len(), Some(shared.sharers.len()), Some(phase.ended()))
            }
            Phase::Agree(phase) => phase.masked.counts(),
            Phase::Unmask(phase) => phase.agreed.masked.counts(),
            Phase::Over { .. } => return None,
        };
        let (session, round, phase) = (self.session(), self.number(), self.phase());
        Some(Progress { session, round, phase, joined, shared, survivors })
    }
}
