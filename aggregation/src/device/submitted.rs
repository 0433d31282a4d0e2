//! Consistency: the device's one signature over who survived.

use super::{Agreed, Held, Refusal, Seat, agreed::Revealed};
use crate::{
    identity::{IdentityKey, Signature},
    index::{DeviceIndex, IndexSet},
    transcript::Transcript,
};

/// A device that submitted its masked input and waits for the survivors.
#[derive(Debug)]
pub struct Submitted {
    seat: Seat,
    sharers: IndexSet,
    held: Vec<Held>,
}

impl Submitted {
    pub(super) const fn new(seat: Seat, sharers: IndexSet, held: Vec<Held>) -> Self {
        Self { seat, sharers, held }
    }

    /// The device's place in the roster.
    pub const fn index(&self) -> DeviceIndex {
        self.seat.index
    }

    /// Signs the survivors, once. From here on the device holds one share of
    /// each sharer: of its own mask if it survived, else of its key.
    ///
    /// Refuses survivors over another roster, without this device, with one
    /// that never shared, fewer than the threshold or the report goal, or so
    /// few in one stretch of the ring that the corrupt could cut the others in
    /// two; and an identity key that is not this device's.
    ///
    /// The caller writes down that it signed before the signature leaves.
    pub fn agree(self, survivors: IndexSet, identity: &IdentityKey) -> Result<(Agreed, Signature), Refusal> {
        let Self { seat, sharers, held } = self;
        seat.check_places(&survivors)?;
        if !survivors.contains(seat.index) {
            return Err(Refusal::ListedMissing);
        }
        if let Some(index) = survivors.clone().without(&sharers).iter().next() {
            return Err(Refusal::UnknownSurvivor { index });
        }
        let (got, need) = (survivors.len(), seat.fewest());
        if got < need {
            return Err(Refusal::FewSurvivors { got, need });
        }
        if let Some((first, got, need)) = seat.roster.graph().thin_window(&survivors) {
            return Err(Refusal::ThinWindow { first, got, need });
        }
        let own = seat.roster.entry(seat.index).map(|entry| entry.credential.identity);
        if own != Some(identity.public()) {
            return Err(Refusal::OtherIdentity);
        }

        let revealed = held
            .into_iter()
            .map(|Held { owner, pair }| {
                if survivors.contains(owner) {
                    Revealed::SelfMask(owner, pair.self_mask)
                } else {
                    Revealed::Key(owner, pair.key)
                }
            })
            .collect();
        let transcript = Transcript::over(&seat.ctx, &seat.roster, &sharers, survivors);
        let signature = transcript.sign(identity);
        let agreed = Agreed::new(seat, transcript, revealed);
        Ok((agreed, signature))
    }
}
