//! Step 4, consistency: the survivors sign one transcript, so that nobody can show two of them two stories.

use std::collections::BTreeMap;

use aggregation::{DeviceIndex, Evidence, RunningSum, Signature, Transcript};
use proto::ids::{DeviceId, Timestamp};
use proto::message::{Outcome, Rejection, Reply};

use super::masked::Masked;
use super::unmask::UnmaskPhase;
use super::{Next, Phase, RoundParams, end, places, unacceptable};

#[derive(Debug)]
pub(super) struct AgreePhase {
    pub(super) masked: Masked,
    sum: RunningSum,
    transcript: Transcript,
    deadline: Timestamp,
    signatures: BTreeMap<DeviceIndex, Signature>,
}

impl AgreePhase {
    pub(super) fn new(masked: Masked, sum: RunningSum, params: &RoundParams, deadline: Timestamp) -> Self {
        let shared = &masked.shared;
        let transcript =
            Transcript::new(&params.context, &shared.joined.roster, &shared.sharers, &masked.survivors);
        Self { masked, sum, transcript, deadline, signatures: BTreeMap::new() }
    }

    pub(super) fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Survivors that have signed.
    pub(super) fn signed(&self) -> usize {
        self.signatures.len()
    }

    pub(super) fn accept(&mut self, from: DeviceId, signature: Signature) -> Result<(), Rejection> {
        let index = self.masked.survivor(from)?;
        if let Some(earlier) = self.signatures.get(&index) {
            return if *earlier == signature { Ok(()) } else { Err(Rejection::Equivocation("agree".into())) };
        }
        self.transcript
            .verify(&self.masked.shared.joined.roster, index, &signature)
            .map_err(|error| unacceptable("agree", &error))?;
        self.signatures.insert(index, signature);
        Ok(())
    }

    pub(super) fn next(self: Box<Self>, params: &RoundParams, now: Timestamp) -> Next {
        let everybody = self.signatures.len() == self.masked.survivors.len();
        if !everybody && now < self.deadline {
            return Next::Stay(Phase::Agree(self));
        }
        if self.signatures.len() < self.transcript.quorum() {
            return end(Outcome::NoQuorum, self.masked.shared.joined.devices, Vec::new());
        }
        let agreed = Agreed::new(self.masked, self.signatures);
        let deadline = now.plus_millis(params.step_millis);
        let devices = agreed.masked.shared.joined.devices.clone();
        match UnmaskPhase::new(agreed, self.sum, params, deadline) {
            Ok(unmask) => Next::To(Phase::Unmask(Box::new(unmask)), Vec::new()),
            Err(_) => end(Outcome::Stopped, devices, Vec::new()),
        }
    }
}

/// What step 4 leaves behind, the sum aside.
#[derive(Debug)]
pub(super) struct Agreed {
    pub(super) masked: Masked,
    signatures: BTreeMap<DeviceIndex, Signature>,
    /// What every device is shown.
    evidence: Evidence,
}

impl Agreed {
    /// `signatures` are over the transcript. Of a survivor that gave none there is the one that came with its input.
    fn new(masked: Masked, signatures: BTreeMap<DeviceIndex, Signature>) -> Self {
        let agreed = places(masked.shared.joined.roster.len(), signatures.keys());
        let one = |(index, sharing)| signatures.get(&index).copied().unwrap_or(sharing);
        let evidence = Evidence { agreed, signatures: masked.sharing().map(one).collect() };
        Self { masked, signatures, evidence }
    }

    pub(super) fn repeat(&self, from: DeviceId, signature: Signature) -> Result<Reply, Rejection> {
        let index = self.masked.survivor(from)?;
        match self.signatures.get(&index) {
            Some(earlier) if *earlier != signature => Err(Rejection::Equivocation("agree".into())),
            // Who signed too late for the quorum may still help to open the sum.
            Some(_) | None => Ok(Reply::Evidence(self.evidence.clone())),
        }
    }
}
