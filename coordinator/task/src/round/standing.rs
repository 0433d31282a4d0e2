//! Whom the open step of a round waits for, for operators.

use proto::admin::OpenRound;

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
}
